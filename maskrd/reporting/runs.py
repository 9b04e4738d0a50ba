"""Finished runs: metrics.json files as objects."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from maskrd.errors import MaskrdError
from maskrd.experiment import Metric, Model

METRICS = get_args(Metric)
# Absent from the metrics.json of runs before them: a dash in tables, and no reason to refuse a finished run.
ADDED_LATER = ("pro_200_thresholds",)


@dataclass(frozen=True)
class Run:
    """What metrics.json says of a model: `values` in percent, None where the data have no masks."""

    model: Model
    values: dict[str, float | None]
    training: dict[str, Any]
    evaluation: dict[str, Any]


def _percentages(content: dict[str, Any]) -> dict[str, float | None]:
    """Every metric of a metrics.json in percent; KeyError, TypeError or ValueError for content of another kind."""
    fractions = {metric: content[metric] for metric in METRICS if metric not in ADDED_LATER}
    fractions |= {metric: content.get(metric) for metric in ADDED_LATER}
    return {metric: None if value is None else 100 * float(value) for metric, value in fractions.items()}


def read_run(models: Path, model: Model) -> Run | None:
    """None if the model was not run. Raises MaskrdError for a file that can't be read."""
    path = Path(models) / model.path / "metrics.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Run(model, _percentages(content), content["training"], content["evaluation"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MaskrdError(
            f"{path}: not a metrics.json of this pipeline ({error!r}). Delete it to evaluate the model again."
        ) from None
