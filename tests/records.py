"""Records of models that were never trained, for tests of what is made from them."""

from pathlib import Path
from typing import Any

from maskrd.config.methods import AnyTraining
from maskrd.config.record import METRICS, EvaluationRecord, Record, TrainingRecord
from maskrd.config.settings import Evaluation, Model
from maskrd.files import write_json

MACHINE = {"device": "CPU", "threads": 1, "python": "3", "maskrd": "0.1.0", "torch": "2", "commit": "abc"}


def make_record(
    model: Model,
    percent: dict[str, float],
    training: AnyTraining,
    evaluation: Evaluation,
    trained: dict[str, Any] | None = None,
    tested: dict[str, Any] | None = None,
) -> Record:
    """`trained` and `tested` are fields of the records of the two jobs; metrics that `percent` lacks are None."""
    facts = {
        "dataset": model.dataset, "category": model.category, "backbone": model.backbone, "seed": model.seed,
        "epochs": getattr(training, "epochs", 1), "best_epoch": None, "parameters": 11_680_000, "images": 100,
        "seconds": 90, "data_sha256": "da7a", "teacher_sha256": "7eac4e5", "weights_sha256": "3e16475",
    }  # fmt: skip
    tests = {"images": 50, "seconds": 4, "model_sha256": model.path}
    return Record(
        **dict.fromkeys(METRICS) | {metric: value / 100 for metric, value in percent.items()},
        training=TrainingRecord(recipe=training, **MACHINE | facts | (trained or {})),
        evaluation=EvaluationRecord(recipe=evaluation, **MACHINE | tests | (tested or {})),
    )


def write_record(models: Path, model: Model, record: Record) -> Path:
    """Write metrics.json below the folder `models`."""
    path = models / model.path / "metrics.json"
    write_json(path, record.model_dump(mode="json"))
    return path
