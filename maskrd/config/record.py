"""A model's record (metrics.json, and what the model file says about its training) and its comparison with a recipe."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import Field

from maskrd.config.files import metrics_file
from maskrd.config.methods import RecordedTraining
from maskrd.config.settings import Evaluation, Metric, Model, StrictData
from maskrd.errors import MaskrdError, describe_fault

METRICS = get_args(Metric)
# Records of earlier versions lack these metrics. Tables show a dash for them; the model is still good.
ADDED_LATER = ("image_ap", "image_f1max", "pixel_ap", "pixel_f1max", "pro_200_thresholds", "pro_rescaled")
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class JobRecord(StrictData):
    """The software and hardware of a job, and its seconds. None: an earlier version didn't record it."""

    device: str
    threads: int | None = None
    python: str
    maskrd: str
    torch: str
    commit: str | None = None
    images: int
    seconds: float


class TrainingRecord(JobRecord):
    """What a model file says about its training. `leak` is a warning if test images helped to choose the weights.

    `identity`: its digest in the store (`engine/store.py`); None for models of earlier versions.
    """

    recipe: RecordedTraining
    dataset: str
    category: str
    backbone: str
    seed: int
    epochs: int
    best_epoch: int | None
    parameters: int
    leak: str | None = None
    data_sha256: str
    teacher_sha256: str
    weights_sha256: str
    identity: str | None = None


class EvaluationRecord(JobRecord):
    """How a model was tested."""

    recipe: Evaluation
    model_sha256: str


class Decision(StrictData):
    """The threshold between good and defective images, and what it does on the test set.

    An image whose score is above `threshold` counts as anomalous. The threshold was chosen on `held_out` normal
    training images that the model did not learn from, and never on test images. `recall` is the share of defective
    test images that count as anomalous, `false_alarm_rate` the share of good ones; None if there are no such images.
    """

    threshold: float = Field(allow_inf_nan=False)
    held_out: int
    recall: Share | None
    false_alarm_rate: Share | None


class Record(StrictData):
    """A model's metrics.json. Metrics are in [0, 1]; those of pixels are None if the data have no masks."""

    image_auroc: Share | None
    image_ap: Share | None = None
    image_f1max: Share | None = None
    pixel_auroc: Share | None
    pixel_ap: Share | None = None
    pixel_f1max: Share | None = None
    aupro: Share | None
    pro_per_image: Share | None
    pro_200_thresholds: Share | None = None
    pro_rescaled: Share | None = None
    decision: Decision | None = None  # None if no image was held out
    training: TrainingRecord
    evaluation: EvaluationRecord

    @property
    def percentages(self) -> dict[str, float | None]:
        """Every metric in percent."""
        values = {metric: getattr(self, metric) for metric in METRICS}
        return {metric: None if value is None else 100 * value for metric, value in values.items()}


def read_record(path: Path) -> Record:
    """Raises MaskrdError for a file that is missing or isn't a record."""
    try:
        return Record.model_validate_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise MaskrdError(f"{path}: missing. Name the folder of a tested model.") from None
    except (OSError, ValueError) as error:
        reason = describe_fault(error)
    raise MaskrdError(f"{path}: not a metrics.json of this pipeline ({reason}). Delete it to test the model again.")


def find_record(models: Path, model: Model) -> Record | None:
    """The record of a model, or None if it was not tested.

    Raises MaskrdError for a file that can't be read, and for the record of another model, copied here by hand.
    """
    path = metrics_file(models, model)
    if not path.exists():
        return None
    record = read_record(path)
    trained = record.training
    found = Model(trained.dataset, trained.category, model.variant, trained.backbone, trained.seed)
    if found != model:
        raise MaskrdError(f"{path}: the record of {found.path}. Move it there, or delete it to test the model again.")
    return record


@dataclass(frozen=True)
class Mismatch:
    """A setting whose recorded value is not the one that is wanted; both values as in JSON."""

    key: str
    recorded: Any
    wanted: Any

    def __str__(self) -> str:
        return f"{self.key} {_shown(self.recorded)} instead of {_shown(self.wanted)}"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if value is None or isinstance(value, str):
        return value or "none"
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)


def compare_settings(recorded: StrictData, wanted: Mapping[str, Any]) -> list[Mismatch]:
    """The settings whose recorded value is not that of `wanted`, in the order of `wanted`.

    If `wanted` has precision `auto`, any recorded precision is fine.
    """
    found = recorded.model_dump(mode="json")
    return [
        Mismatch(key, found.get(key), value)
        for key, value in wanted.items()
        if found.get(key) != value and (key, value) != ("precision", "auto")
    ]
