"""What is done, running, failed and left, told from files alone."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from rich.console import Group
from rich.table import Table
from rich.text import Text

from maskrd.experiment import Experiment, Model
from maskrd.places import Places

DONE, TRAINED, RUNNING, INTERRUPTED, FAILED, LEFT = "done", "trained", "running", "interrupted", "failed", "left"
STATUSES = (DONE, TRAINED, RUNNING, INTERRUPTED, FAILED, LEFT)
COLORS = {DONE: "green", TRAINED: "green", RUNNING: "cyan", INTERRUPTED: "yellow", FAILED: "red", LEFT: "default"}
ALIVE = 180  # seconds: progress bars write every few, reading the images of a category takes longer
SHOWN = 10  # failures
GOES_ON = "the next run goes on from here"  # how `training.Interrupted` ends


def model_status(places: Places, now: float) -> str:
    """One of `STATUSES`; `now` in seconds since the epoch.

    done: tested; trained: to be tested. Without model: failed if the log ends with an error, running if it was
    written to in the last three minutes, interrupted if it says so, or if it or a resumable state is there.
    """
    if places.metrics.exists():
        return DONE
    trained = places.weights.exists()
    log = places.log("evaluate" if trained else "train")
    if log.exists() and error_of(log):
        return FAILED
    if log.exists() and GOES_ON in "".join(_lines(log)[-1:]):
        return INTERRUPTED
    if log.exists() and now - log.stat().st_mtime < ALIVE:
        return RUNNING
    if trained:
        return TRAINED
    return INTERRUPTED if log.exists() or places.state.exists() else LEFT


def error_of(log: Path) -> str:
    """The line with which a job gave up, or "": this package's message, or the last line of a traceback."""
    lines = _lines(log)
    traced = any(line.startswith("Traceback (most recent call last)") for line in lines)
    errors = [line for line in lines if line.startswith("Error: ")]
    return errors[-1] if errors else lines[-1] if traced else ""


def _lines(log: Path) -> list[str]:
    return [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]


def overview(experiment: Experiment) -> Group:
    """A table for the terminal: models of each table by status, all of them, and the failures."""
    now = time.time()
    wanted = {name: list(experiment.report(name).models()) for name in experiment.tables}
    distinct = dict.fromkeys(model for models in wanted.values() for model in models)
    places = {model: Places(experiment, model) for model in distinct}
    status = {model: model_status(places[model], now) for model in distinct}
    table = Table(title=f"Models in {experiment.results}")
    table.add_column("table")
    for name in STATUSES:
        table.add_column(name, justify="right")
    for name, models in wanted.items():
        table.add_row(name, *_counts(status[model] for model in models))
    table.add_section()
    table.add_row("all, each once", *_counts(status.values()))
    return Group(table, *_failures(places, status))


def _counts(statuses: Iterable[str]) -> Iterator[Text]:
    counts = Counter(statuses)
    for name in STATUSES:
        yield Text(str(counts[name] or "-"), style=COLORS[name] if counts[name] else "dim")


def _failures(places: dict[Model, Places], status: dict[Model, str]) -> Iterator[Text]:
    failed = [model for model in status if status[model] == FAILED]
    for model in failed[:SHOWN]:
        log = places[model].log("evaluate" if places[model].weights.exists() else "train")
        yield Text(f"{model.path}: {error_of(log)}\n  {log}", style="red")
    if len(failed) > SHOWN:
        yield Text(f"... and {len(failed) - SHOWN} more", style="red")
