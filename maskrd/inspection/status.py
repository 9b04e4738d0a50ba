"""`maskrd status`: what is done, running, failed and left. It reads files only."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import timedelta
from math import inf
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from maskrd.config.experiment import Experiment
from maskrd.config.files import Files, ModelFiles
from maskrd.config.settings import Model
from maskrd.engine.interruption import GOES_ON
from maskrd.engine.store import Stored, stored_trainings
from maskrd.inspection.stored import find_stored, running_trainings

DONE, TRAINED, RUNNING, INTERRUPTED, FAILED, LEFT = "done", "trained", "running", "interrupted", "failed", "left"
STATUSES = (DONE, TRAINED, RUNNING, INTERRUPTED, FAILED, LEFT)
COLORS = {DONE: "green", TRAINED: "green", RUNNING: "cyan", INTERRUPTED: "yellow", FAILED: "red", LEFT: "default"}
ALIVE = 180  # seconds since the last line of a log; reading the images of a category writes nothing for a while
SHOWN = 10  # failures
RENEWED = 5  # seconds between two refreshes


def model_status(files: ModelFiles, now: float, stored: Stored | None = None) -> str:
    """One of `STATUSES`. `now`: seconds since the epoch; `stored`: the model's training in the store.

    done: the model was tested. trained: it was trained, but not tested. failed: the log of the next job ends with an
    error. interrupted: the log says so, or it is older than three minutes. running: the log is younger, or the training
    is locked in the store. left: there is no log.
    """
    if files.metrics.exists():
        return DONE
    trained = files.weights.exists()
    if not trained and stored and stored.is_locked():
        return RUNNING
    log = files.log("evaluate" if trained else "train")
    lines, age = _lines(log), _age(log, now)
    if _error_in(lines):
        return FAILED
    if GOES_ON in "".join(lines[-1:]):
        return INTERRUPTED
    if age < ALIVE:
        return RUNNING
    if trained:
        return TRAINED
    return INTERRUPTED if age < inf else LEFT


def error_of(log: Path) -> str:
    """The line with a job's error, or "": this package's message, or the last line of a traceback."""
    return _error_in(_lines(log))


def _error_in(lines: list[str]) -> str:
    traced = any(line.startswith("Traceback (most recent call last)") for line in lines)
    errors = [line for line in lines if line.startswith("Error: ")]
    return errors[-1] if errors else lines[-1] if traced else ""


def _lines(log: Path) -> list[str]:
    """The lines of a log. There are none if there is no log: Snakemake deletes it when the job starts again."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return [line for line in text.splitlines() if line.strip()]


def _age(log: Path, now: float) -> float:
    """Seconds since a log was last written. Infinite if there is none."""
    try:
        return now - log.stat().st_mtime
    except FileNotFoundError:
        return inf


def overview(experiment: Experiment) -> Group:
    """The status for the terminal: models of each table by status, trainings that are running, failures."""
    now = time.time()
    wanted = {name: list(experiment.view(name).models()) for name in experiment.tables}
    distinct = dict.fromkeys(model for models in wanted.values() for model in models)
    files = {model: Files(experiment).model(model) for model in distinct}
    undone = [model for model in distinct if not files[model].metrics.exists()]
    stored = find_stored(experiment, list(dict.fromkeys(experiment.trained_model(model) for model in undone)))
    status = {model: model_status(files[model], now, stored.get(files[model].trained)) for model in distinct}
    table = Table(title=f"Models in {experiment.results}")
    table.add_column("table", overflow="fold")
    for name in STATUSES:
        table.add_column(name, justify="right", overflow="fold")
    for name, models in wanted.items():
        table.add_row(name, *_counts(status[model] for model in models))
    table.add_section()
    table.add_row("all, each once", *_counts(status.values()))
    return Group(table, _running(stored), *_failures(files, status), _store_size(Files(experiment).store))


def _running(stored: dict[Model, Stored | None]) -> Table | Text:
    """A line for each model that is being trained."""
    rows = list(running_trainings(stored))
    if not rows:
        return Text()
    table = Table(title="In training")
    table.add_column("model")
    for name in ("epoch", "loss", "time left"):
        table.add_column(name, justify="right")
    for model, progress in rows:
        table.add_row(model.path, *_progress(progress))
    return table


def _progress(progress: dict[str, Any]) -> Iterator[str]:
    """Epoch, loss and time left. With `patience`, a training may end sooner."""
    try:
        epoch, epochs, loss, seconds = (float(progress[key]) for key in ("epoch", "epochs", "loss", "seconds"))
        left = timedelta(seconds=round(seconds / epoch * (epochs - epoch)))
    except (KeyError, TypeError, ValueError, ArithmeticError):  # before the first epoch's end, or a damaged file
        yield from ("-", "-", "-")
        return
    yield from (f"{epoch:.0f} of {epochs:.0f}", f"{loss:.4g}", str(left))


def _store_size(store: Path) -> Text:
    trainings = stored_trainings(store)
    size = sum(stored.size() for stored in trainings)
    return Text(f"{store}: {size / 1e9:.2f} GB, trainings: {len(trainings)} (`maskrd prune` lists the unused ones)")


def watch_overview(experiment: Experiment) -> None:
    """Show the overview in the terminal, and refresh it until Ctrl-C."""
    with Live(overview(experiment), auto_refresh=False) as live, suppress(KeyboardInterrupt):
        while True:
            time.sleep(RENEWED)
            live.update(overview(experiment), refresh=True)


def _counts(statuses: Iterable[str]) -> Iterator[Text]:
    counts = Counter(statuses)
    for name in STATUSES:
        yield Text(str(counts[name] or "-"), style=COLORS[name] if counts[name] else "dim")


def _failures(files: dict[Model, ModelFiles], status: dict[Model, str]) -> Iterator[Text]:
    failed = [model for model in status if status[model] == FAILED]
    for model in failed[:SHOWN]:
        log = files[model].log("evaluate" if files[model].weights.exists() else "train")
        yield Text(f"{model.path}: {error_of(log)}\n  {log}", style="red")
    if len(failed) > SHOWN:
        yield Text(f"... and {len(failed) - SHOWN} more", style="red")
