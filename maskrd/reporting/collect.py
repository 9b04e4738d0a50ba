"""The metrics of a view's models, read from their metrics.json files."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd
from pydantic import ConfigDict, ValidationError

from maskrd.config.record import METRICS, Record, compare_settings, find_record
from maskrd.config.settings import Model, Number, StrictData
from maskrd.config.view import View
from maskrd.errors import MaskrdError, describe_fault

COSTS = ("parameters", "training_seconds")
STATED = ("epochs", "image_size", "precision", "score")  # settings that captions state


class SpeedMachine(StrictData):
    """What measured a speed, as far as tables tell it."""

    model_config = ConfigDict(extra="ignore")

    device: str
    threads: int


class Speed(StrictData):
    """What `maskrd speed` measured: frames per second by variant and batch size, and the machine."""

    frames_per_second: dict[str, dict[str, Number]]
    machine: SpeedMachine


def read_metrics(view: View, models: Path) -> pd.DataFrame:
    """One line for each model of the view, in its order.

    Columns: the fields of `Model`; `found`, false without a metrics.json; the metrics in percent, NaN where missing
    or null; `parameters` in millions and `training_seconds`; the settings of `STATED` as text, null if the method has
    none; `leak`, true if test images helped to choose the weights; `differing`, the other settings that are not the
    configured ones, as text. Raises MaskrdError for a file that can't be read.
    """
    records = [_record(view, models, model) for model in view.models()]
    return pd.DataFrame(records).astype(dict.fromkeys([*METRICS, *COSTS], float))


def _record(view: View, models: Path, model: Model) -> dict:
    record = find_record(models, model)
    if record is None:
        missing = dict.fromkeys([*METRICS, *COSTS, *STATED])
        return asdict(model) | {"found": False, "leak": False, "differing": ""} | missing
    training = record.training
    settings = training.recipe.model_dump() | record.evaluation.recipe.model_dump()
    # As text: pandas would turn a column of epochs with a gap into floats.
    stated = {key: str(settings[key]) if key in settings else None for key in STATED}
    if settings.get("patience") is not None:
        stated["epochs"] = f"up to {stated['epochs']}"
    costs = {"parameters": training.parameters / 1e6, "training_seconds": training.seconds}
    facts = {"found": True, "leak": bool(training.leak), "differing": _differing(view, model, record)}
    return asdict(model) | facts | record.percentages | costs | stated


def _differing(view: View, model: Model, record: Record) -> str:
    """Settings other than the configured ones, as in results that were copied here, without those of `STATED`."""
    pairs = (
        (record.training.recipe, view.training[model.variant]),
        (record.evaluation.recipe, view.evaluation[model.variant]),
    )
    found = [part for recorded, wanted in pairs for part in compare_settings(recorded, wanted.model_dump(mode="json"))]
    return ", ".join(str(part) for part in found if part.key not in STATED)


def read_speed(path: Path) -> Speed:
    """Raises MaskrdError for a file that is missing or of another content."""
    try:
        return Speed.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise MaskrdError(
            f"{path}: not a file of `maskrd speed` ({describe_fault(error)}). Delete it to measure again."
        ) from None


def summarise(metrics: pd.DataFrame, by: Sequence[str], metric: str) -> pd.DataFrame:
    """Mean and standard deviation (n - 1) over seeds of a metric, in percent. Index: `by`; columns: `mean`, `sd`.

    For each seed, the metric is first averaged over everything that `by` doesn't name. One missing value makes the mean
    NaN. With one seed the standard deviation is NaN.
    """
    seeds = metrics.groupby([*by, "seed"], sort=False)[metric].mean(skipna=False)
    grouped = seeds.groupby(level=list(by), sort=False)
    return pd.DataFrame({"mean": grouped.mean(skipna=False), "sd": grouped.std(skipna=False)})
