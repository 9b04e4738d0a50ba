"""The metrics of a report's models, read from their metrics.json files."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import get_args

import pandas as pd

from maskrd.errors import MaskrdError
from maskrd.experiment import Metric, Model, Report

METRICS = get_args(Metric)
# Settings that captions state: where metrics.json records them.
RECORDED = {"epochs": "training", "image_size": "training", "precision": "training", "score": "evaluation"}


def read_metrics(report: Report, models: Path) -> pd.DataFrame:
    """One line for each model of the report, in its order.

    Columns: the fields of `Model`; `found`, false without a metrics.json; the metrics in percent, NaN where missing
    or null; the settings of `RECORDED` as text, null where unknown. Raises MaskrdError for a file that can't be read.
    """
    records = [_record(model, Path(models) / model.path / "metrics.json") for model in report.models()]
    return pd.DataFrame(records).astype(dict.fromkeys(METRICS, float))


def _record(model: Model, path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        values = {metric: None if content[metric] is None else 100 * float(content[metric]) for metric in METRICS}
    except FileNotFoundError:
        return asdict(model) | {"found": False} | dict.fromkeys([*METRICS, *RECORDED])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MaskrdError(
            f"{path}: not a metrics.json of this pipeline ({error!r}). Delete it to evaluate the model again."
        ) from None
    recipes = {job: content.get(job, {}).get("recipe", {}) for job in RECORDED.values()}
    # As text: pandas would turn a column of epochs with a gap into floats.
    settings = {key: str(recipes[job][key]) if key in recipes[job] else None for key, job in RECORDED.items()}
    return asdict(model) | {"found": True} | values | settings


def summarise(metrics: pd.DataFrame, by: Sequence[str], metric: str) -> pd.DataFrame:
    """Mean and standard deviation (n - 1) over seeds of a metric's mean over all that `by` doesn't name.

    Indexed by `by`, columns `mean` and `sd`, in percent. A single missing value makes the mean NaN; with one seed
    the standard deviation is NaN.
    """
    seeds = metrics.groupby([*by, "seed"], sort=False)[metric].mean(skipna=False)
    grouped = seeds.groupby(level=list(by), sort=False)
    return pd.DataFrame({"mean": grouped.mean(skipna=False), "sd": grouped.std(skipna=False)})
