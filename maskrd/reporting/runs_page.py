"""What was run and how long it took, from the metrics.json files there are."""

from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path
from statistics import median

from markupsafe import Markup

from maskrd.config.files import EVERY_MODEL, find_metrics
from maskrd.config.record import Record, find_record
from maskrd.config.settings import Model
from maskrd.data.registry import is_generated
from maskrd.reporting.captions import GENERATED
from maskrd.reporting.html import render_records_table
from maskrd.reporting.naming import (
    backbone_name,
    row_name,
    variant_name,
)

RUNTIME = ("dataset", "variant", "backbone", "models", "epochs", "px", "training", "a model", "test", "device")
RUNTIME_CAPTION = (
    "Wall-clock time. Training: the sum over all models, and the median of one model. Test: the median of one model. "
    "Models that differ only in evaluation were trained once."
)


def find_records(models: Path) -> dict[Model, Record]:
    """The records of all tested models below a folder. Raises MaskrdError like `find_record`."""
    found = map(Model.of_file, find_metrics(models, EVERY_MODEL))
    return {model: record for model in found if (record := find_record(models, model))}


def dataset_facts(records: Mapping[Model, Record], titles: Mapping[str, str]) -> list[tuple[str, str, dict[str, str]]]:
    """For each dataset: its title, a warning or "", and what was run (backbones, seeds, epochs, versions)."""
    datasets = []
    for dataset, group in _grouped(records, "dataset"):
        warning = GENERATED if is_generated(dataset) else ""
        datasets.append((titles.get(dataset, dataset), warning, _facts(group)))
    return datasets


def _grouped(records: Mapping[Model, Record], *fields: str) -> Iterable[tuple]:
    """The values of `fields`, then the records of the models that have them."""

    def key(model: Model) -> tuple:
        return tuple(getattr(model, field) for field in fields)

    for values, models in groupby(sorted(records, key=key), key=key):
        yield (*values, {model: records[model] for model in models})


def _facts(records: Mapping[Model, Record]) -> dict[str, str]:
    trainings = [record.training for record in records.values()]
    return {
        "models": f"{len(records)}, trained for {duration(sum(training_seconds(records)))} in all",
        "categories": _join(row_name(model.category) for model in records),
        "variants": _join(variant_name(model.variant) for model in records),
        "backbones": _join(backbone_name(model.backbone) for model in records),
        "seeds": _join(sorted({model.seed for model in records})),
        "epochs": _join(sorted({training.epochs for training in trainings})),
        "image size": _join(f"{training.recipe.image_size} px" for training in trainings),
        "devices": _join(training.device for training in trainings),
        "maskrd": _join(training.maskrd for training in trainings),
        "torch": _join(training.torch for training in trainings),
        "commit": _join((training.commit or "unknown")[:12] for training in trainings),
    }


def _join(values: Iterable[object]) -> str:
    return ", ".join(dict.fromkeys(map(str, values)))


def training_seconds(records: Mapping[Model, Record]) -> list[float]:
    """The seconds of each trained model. Variants that differ only in evaluation share one."""
    return list({record.evaluation.model_sha256: record.training.seconds for record in records.values()}.values())


def runtime_html(records: Mapping[Model, Record], titles: Mapping[str, str]) -> Markup:
    """Seconds of training and testing by dataset, variant and backbone."""
    rows = []
    for dataset, variant, backbone, group in _grouped(records, "dataset", "variant", "backbone"):
        seconds = training_seconds(group)
        trainings = [record.training for record in group.values()]
        tests = [record.evaluation.seconds for record in group.values()]
        names = [titles.get(dataset, dataset), variant_name(variant), backbone_name(backbone), str(len(group))]
        settings = [_join(job.epochs for job in trainings), _join(job.recipe.image_size for job in trainings)]
        times = [duration(sum(seconds)), duration(median(seconds)), duration(median(tests))]
        rows.append([*names, *settings, *times, _join(job.device for job in trainings)])
    return render_records_table("Runtime", RUNTIME_CAPTION, RUNTIME, rows)


def duration(seconds: float) -> str:
    """4.0 s, 5.2 min or 12.3 h."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
