"""The threshold between good and anomalous images, chosen on normal images that the model did not learn from."""

from pathlib import Path

import numpy as np

from maskrd.config.record import Decision, TrainingRecord
from maskrd.data.index_file import Index
from maskrd.data.samples import Samples, load_samples
from maskrd.engine.sampling import split_validation
from maskrd.engine.scoring import Scorer


def choose_threshold(scores: np.ndarray, false_alarm_rate: float) -> float:
    """The lowest of the `scores` (N,) of normal images for which at most `false_alarm_rate` of them are higher."""
    return float(np.quantile(scores, 1 - false_alarm_rate, method="inverted_cdf"))


def decide(scorer: Scorer, held_out: Samples, defective: np.ndarray, scores: np.ndarray) -> Decision:
    """Choose a threshold on the `held_out` normal images, and apply it to the `scores` (N,) of the test images.

    `defective`, bool (N,), says which test images are defective.
    """
    _, normal_scores = scorer.score_all(held_out.images, keep_maps=False)
    threshold = choose_threshold(normal_scores, scorer.evaluation.false_alarm_rate)
    anomalous = scores > threshold
    return Decision(
        threshold=threshold,
        held_out=len(normal_scores),
        recall=share(anomalous[defective]),
        false_alarm_rate=share(anomalous[~defective]),
    )


def load_held_out(trained: TrainingRecord, index: Index, data: Path, threads: int) -> Samples | None:
    """The normal training images that the model did not learn from (`validation_fraction`).

    None if there are none. Images that the model learned from score too low for choosing a threshold.
    """
    fraction = getattr(trained.recipe, "validation_fraction", 0)
    if not fraction:
        return None
    _, positions = split_validation(len(index.train), fraction, trained.seed)
    entries = [index.train[position] for position in positions.tolist()]
    return load_samples(index, entries, data, trained.recipe.image_size, threads).cropped(trained.recipe.crop)


def share(flags: np.ndarray) -> float | None:
    return float(flags.mean()) if len(flags) else None
