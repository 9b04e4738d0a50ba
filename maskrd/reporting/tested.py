"""A tested model as its folder tells of it: record, scores, training curve and gallery."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maskrd.config.files import GALLERY_FILE, HISTORY_FILE, METRICS_FILE, SCORES_FILE
from maskrd.config.record import Record, read_record
from maskrd.config.settings import Model
from maskrd.data.index_file import GOOD
from maskrd.errors import MaskrdError
from maskrd.files import read_csv
from maskrd.gallery import Gallery
from maskrd.reporting.naming import backbone_name, row_name, variant_name


@dataclass(frozen=True)
class Scores:
    """scores.csv: a name, a defect type and a score for each test image."""

    names: tuple[str, ...]
    defects: tuple[str, ...]
    values: np.ndarray

    @property
    def defective(self) -> np.ndarray:
        return np.array([defect != GOOD for defect in self.defects])


@dataclass(frozen=True)
class Tested:
    """All that is known about a tested model. Files that its folder lacks are None."""

    model: Model
    record: Record
    scores: Scores | None
    gallery: Gallery | None
    history: dict[str, list[float]] | None

    @property
    def title(self) -> str:
        return f"{row_name(self.model.category)}, {variant_name(self.model.variant)}"

    @property
    def subtitle(self) -> str:
        return f"{backbone_name(self.model.backbone)}, seed {self.model.seed}"


def read_tested(folder: Path, trained: Path | None = None) -> Tested:
    """Read a model's folder. The training curve is in the folder `trained` if that has the model's weights.

    Raises MaskrdError for a folder without a record, or a damaged file.
    """
    history, record = (trained or folder) / HISTORY_FILE, read_record(folder / METRICS_FILE)
    return Tested(
        model=_model_of(folder, record),
        record=record,
        scores=read_scores(folder / SCORES_FILE) if (folder / SCORES_FILE).exists() else None,
        gallery=Gallery.read(folder / GALLERY_FILE) if (folder / GALLERY_FILE).exists() else None,
        history=read_history(history) if history.exists() else None,
    )


def _model_of(folder: Path, record: Record) -> Model:
    """By the folder's place; a copy in another place has the folder's name for a variant."""
    try:
        return Model.of_file(folder.resolve() / METRICS_FILE)
    except (TypeError, ValueError):
        training = record.training
        return Model(training.dataset, training.category, folder.resolve().name, training.backbone, training.seed)


def read_scores(path: Path) -> Scores:
    """Raises MaskrdError for a file that can't be read."""
    try:
        lines = read_csv(path)
        names, defects = (tuple(line[key] for line in lines) for key in ("image", "defect"))
        values = np.array([_finite(line["score"]) for line in lines])
        if not lines:
            raise ValueError("no lines")
    except (OSError, ValueError, KeyError) as error:
        raise MaskrdError(
            f"{path}: not the scores of a test ({error!r}). Delete it: Snakemake tests the model again."
        ) from None
    return Scores(names, defects, values)


def read_history(path: Path) -> dict[str, list[float]]:
    """A training curve by column, one of them `epoch`; empty of a method without a loss.

    Raises MaskrdError for a file that can't be read.
    """
    try:
        lines = read_csv(path)
        curve = {key: [_finite(line[key]) for line in lines] for key in (lines[0] if lines else ())}
        if lines and "epoch" not in curve:
            raise ValueError("no column epoch")
    except (OSError, ValueError) as error:
        raise MaskrdError(
            f"{path}: not a training curve of this pipeline ({error!r}). Delete it, and Snakemake makes it again."
        ) from None
    return curve


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no finite number")
    return value
