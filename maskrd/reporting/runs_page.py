"""What was run and how long it took, from the metrics.json files there are."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from statistics import median

from maskrd.experiment import GENERATED_DATASETS, Model
from maskrd.files import write_text
from maskrd.reporting.captions import GENERATED
from maskrd.reporting.html import render, render_records
from maskrd.reporting.naming import (
    backbone_name,
    dataset_name,
    row_name,
    variant_name,
)
from maskrd.reporting.runs import Run, read_run

RUNTIME = ("dataset", "variant", "backbone", "models", "epochs", "px", "training", "a model", "test", "device")
RUNTIME_CAPTION = (
    "Wall-clock time of training, summed and the median over models, and the median of testing one. Models that "
    "differ in evaluation only were trained once."
)


def find_runs(models: Path) -> list[Run]:
    """All finished runs below a folder of models. Raises MaskrdError for a file that can't be read."""
    return [read_run(models, Model.of_file(path)) for path in sorted(models.glob("*/*/*/*/seed*/metrics.json"))]


def write_summary(runs: Sequence[Run], path: Path) -> None:
    """What was run: data, backbones, seeds, epochs, and with what."""
    datasets = []
    for dataset, group in _grouped(runs, "dataset"):
        warning = GENERATED if dataset in GENERATED_DATASETS else ""
        datasets.append((dataset_name(dataset), warning, _facts(group)))
    write_text(path, render("summary.html", title="What was run", datasets=datasets))


def _grouped(runs: Iterable[Run], *fields: str) -> Iterable[tuple]:
    def key(run: Run) -> tuple:
        return tuple(getattr(run.model, field) for field in fields)

    for values, group in groupby(sorted(runs, key=key), key=key):
        yield (*values, list(group))


def _facts(runs: Sequence[Run]) -> dict[str, str]:
    models = [run.model for run in runs]
    return {
        "models": f"{len(runs)}, trained for {duration(sum(_training_seconds(runs)))} in all",
        "categories": _join(row_name(model.category) for model in models),
        "variants": _join(variant_name(model.variant) for model in models),
        "backbones": _join(backbone_name(model.backbone) for model in models),
        "seeds": _join(model.seed for model in models),
        "epochs": _join(_trained(runs, "epochs")),
        "image size": _join(f"{size} px" for size in _trained(runs, "image_size")),
        "devices": _join(run.training.get("device", "?") for run in runs),
        "maskrd": _join(run.training.get("maskrd", "?") for run in runs),
        "torch": _join(run.training.get("torch", "?") for run in runs),
        "commit": _join((run.training.get("commit") or "unknown")[:12] for run in runs),
    }


def _trained(runs: Iterable[Run], key: str) -> list:
    return [run.training["recipe"].get(key, "?") for run in runs]


def _join(values: Iterable[object]) -> str:
    return ", ".join(dict.fromkeys(map(str, values)))


def _training_seconds(runs: Iterable[Run]) -> list[float]:
    """One for each trained model: variants that differ in evaluation only share one."""
    models = {run.evaluation.get("model_sha256", run.model): run.training.get("seconds", 0) for run in runs}
    return list(models.values())


def write_runtime(runs: Sequence[Run], path: Path) -> None:
    """Seconds of training and testing by dataset, variant and backbone."""
    rows = []
    for dataset, variant, backbone, group in _grouped(runs, "dataset", "variant", "backbone"):
        seconds = _training_seconds(group)
        tests = [run.evaluation.get("seconds", 0) for run in group]
        names = [dataset_name(dataset), variant_name(variant), backbone_name(backbone), str(len(group))]
        settings = [_join(_trained(group, "epochs")), _join(_trained(group, "image_size"))]
        times = [duration(sum(seconds)), duration(median(seconds)), duration(median(tests))]
        rows.append([*names, *settings, *times, _join(run.training.get("device", "?") for run in group)])
    write_text(path, render_records("Runtime", RUNTIME_CAPTION, RUNTIME, rows))


def duration(seconds: float) -> str:
    """4.0 s, 5.2 min or 12.3 h."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
