"""Finished runs: metrics.json files as objects."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from maskrd.errors import MaskrdError
from maskrd.experiment import Metric, Model

METRICS = get_args(Metric)


@dataclass(frozen=True)
class Run:
    """What metrics.json says of a model: `values` in percent, None where the data have no masks."""

    model: Model
    values: dict[str, float | None]
    training: dict[str, Any]
    evaluation: dict[str, Any]


def read_run(models: Path, model: Model) -> Run | None:
    """None if the model was not run. Raises MaskrdError for a file that can't be read."""
    path = Path(models) / model.path / "metrics.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        values = {metric: None if content[metric] is None else 100 * float(content[metric]) for metric in METRICS}
        return Run(model, values, content["training"], content["evaluation"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MaskrdError(
            f"{path}: not a metrics.json of this pipeline ({error!r}). Delete it to evaluate the model again."
        ) from None
