"""The metrics of a report's models, read from their metrics.json files."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from maskrd.errors import MaskrdError
from maskrd.experiment import Model, Report
from maskrd.reporting.runs import METRICS, read_run

COSTS = ("parameters", "training_seconds")
# Settings that captions state: where metrics.json records them.
RECORDED = {"epochs": "training", "image_size": "training", "precision": "training", "score": "evaluation"}


def read_metrics(report: Report, models: Path) -> pd.DataFrame:
    """One line for each model of the report, in its order.

    Columns: the fields of `Model`; `found`, false without a metrics.json; the metrics in percent, NaN where missing
    or null; `parameters` in millions and `training_seconds`; the settings of `RECORDED` as text, null where unknown;
    `leak`, true where test images had a say in the weights. Raises MaskrdError for a file that can't be read.
    """
    records = [_record(models, model) for model in report.models()]
    return pd.DataFrame(records).astype(dict.fromkeys([*METRICS, *COSTS], float))


def _record(models: Path, model: Model) -> dict:
    run = read_run(models, model)
    if run is None:
        return asdict(model) | {"found": False, "leak": False} | dict.fromkeys([*METRICS, *COSTS, *RECORDED])
    recipes = {"training": run.training["recipe"], "evaluation": run.evaluation["recipe"]}
    # As text: pandas would turn a column of epochs with a gap into floats.
    settings = {key: str(recipes[job][key]) if key in recipes[job] else None for key, job in RECORDED.items()}
    costs = {"parameters": run.training["parameters"] / 1e6, "training_seconds": run.training["seconds"]}
    found = {"found": True, "leak": bool(run.training.get("leak"))}
    return asdict(model) | found | run.values | costs | settings


def read_speed(path: Path) -> dict:
    """What `maskrd speed` measured: frames per second by variant and batch size, and the machine."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {key: content[key] for key in ("frames_per_second", "machine")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MaskrdError(f"{path}: no measured speed ({error!r}). Delete it to have it measured again.") from None


def summarise(metrics: pd.DataFrame, by: Sequence[str], metric: str) -> pd.DataFrame:
    """Mean and standard deviation (n - 1) over seeds of a metric's mean over all that `by` doesn't name.

    Indexed by `by`, columns `mean` and `sd`, in percent. A single missing value makes the mean NaN; with one seed
    the standard deviation is NaN.
    """
    seeds = metrics.groupby([*by, "seed"], sort=False)[metric].mean(skipna=False)
    grouped = seeds.groupby(level=list(by), sort=False)
    return pd.DataFrame({"mean": grouped.mean(skipna=False), "sd": grouped.std(skipna=False)})
