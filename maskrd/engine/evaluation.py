"""Testing one model: anomaly maps, image scores, metrics.json."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from maskrd.config.record import EvaluationRecord, Record, TrainingRecord, compare_settings
from maskrd.config.settings import Evaluation, Metric, Training
from maskrd.data.index_file import Entry, Index
from maskrd.data.samples import Samples, load_test
from maskrd.engine.decision import decide, load_held_out
from maskrd.engine.machine import Machine, code_commit, describe
from maskrd.engine.model_file import read_training
from maskrd.engine.scoring import Scorer, load_scorer, score_text
from maskrd.errors import MaskrdError
from maskrd.files import sha256_file, write_csv, write_json
from maskrd.gallery import Gallery, choose, quantise
from maskrd.metrics import (
    auroc,
    pixel_metrics,
    precision_recall,
    pro_curve,
    pro_per_image,
    pro_pooled_thresholds,
    pro_rescaled,
)


@dataclass(frozen=True)
class EvaluationJob:
    """Files and settings of one test job, from the command line."""

    index: Path
    data: Path
    teacher: Path
    model: Path
    evaluation: Evaluation
    training: Training
    machine: Machine


def wanted_scorer(job: EvaluationJob) -> Scorer:
    """The model of a job. Raises MaskrdError if it has another recipe, other data or another teacher."""
    check_model(job, read_training(job.model))
    return load_scorer(job.model, job.teacher, job.evaluation, job.machine)


def load_test_set(job: EvaluationJob) -> Samples:
    settings, threshold = job.training, job.evaluation.mask_threshold
    samples = load_test(Index.read(job.index), job.data, settings.image_size, job.machine.threads, threshold)
    return samples.cropped(settings.crop)


def check_model(job: EvaluationJob, trained: TrainingRecord) -> None:
    """Raises MaskrdError if the model was trained with another recipe, other data or another teacher."""
    differing = compare_settings(trained.recipe, job.training.model_dump(mode="json"))
    if differing:
        pairs = ", ".join(map(str, differing))
        raise MaskrdError(f"{job.model} was trained with another recipe ({pairs}). Delete the model to train it again.")
    for digest, path in ((trained.data_sha256, job.index), (trained.teacher_sha256, job.teacher)):
        if digest != sha256_file(path):
            raise MaskrdError(
                f"{job.model} was trained with another version of {path}. Delete the model to train it again."
            )


def evaluate(job: EvaluationJob, metrics: Path, scores: Path, gallery: Path) -> None:
    """Score the test set. Write metrics.json, scores.csv (image, defect, score) and the gallery of a few images.

    Metrics are in [0, 1]; those of pixels are null without masks. `decision` is null if the training held no image out.
    """
    scorer, samples = wanted_scorer(job), load_test_set(job)
    started = time.monotonic()
    maps, image_scores = scorer.score_all(samples.images, keep_maps=samples.masks is not None)
    values = {**image_values(samples, image_scores), **pixel_values(samples, maps)}
    write_scores(scores, samples, image_scores)
    tested = evaluation_record(job, scorer.device, len(samples.images), time.monotonic() - started)
    build_gallery(scorer, samples, maps, image_scores).write(gallery)
    trained = read_training(job.model)
    held_out = load_held_out(trained, Index.read(job.index), job.data, job.machine.threads)
    decision = held_out and decide(scorer, held_out, samples.defective, image_scores)
    record = Record(**values, decision=decision, training=trained, evaluation=tested)
    write_json(metrics, record.model_dump(mode="json"))


def image_values(samples: Samples, scores: np.ndarray) -> dict[str, float | None]:
    """The metrics of the image scores, by name."""
    curve = precision_recall(samples.defective, scores)
    return {"image_auroc": auroc(samples.defective, scores), "image_ap": curve.ap, "image_f1max": curve.f1max}


def pixel_values(samples: Samples, maps: np.ndarray | None) -> dict[str, float | None]:
    """The metrics of the anomaly maps, by name. All are None without maps or masks."""
    if maps is None or samples.masks is None:
        return dict.fromkeys(metric for metric in get_args(Metric) if not metric.startswith("image_"))
    pixels = pixel_metrics(samples.masks, maps)
    return {
        "pixel_auroc": pixels.auroc,
        "pixel_ap": pixels.ap,
        "pixel_f1max": pixels.f1max,
        "aupro": pixels.aupro,
        "pro_per_image": pro_per_image(samples.masks, maps),
        "pro_200_thresholds": pro_pooled_thresholds(samples.masks, maps),
        "pro_rescaled": pro_rescaled(samples.masks, maps),
    }


def write_scores(path: Path, samples: Samples, scores: np.ndarray) -> None:
    names = map(image_name, samples.entries)
    defects = (entry.defect for entry in samples.entries)
    write_csv(path, ["image", "defect", "score"], zip(names, defects, map(score_text, scores), strict=True))


def image_name(entry: Entry) -> str:
    """The image's path, with its position if the file holds many images."""
    return f"{entry.image}#{entry.record}" if entry.in_large_file else entry.image


def evaluation_record(job: EvaluationJob, device: torch.device, images: int, seconds: float) -> EvaluationRecord:
    """The record of this test."""
    return EvaluationRecord(
        recipe=job.evaluation,
        **describe(device),
        commit=code_commit(),
        model_sha256=sha256_file(job.model),
        images=images,
        seconds=round(seconds, 2),
    )


def build_gallery(scorer: Scorer, samples: Samples, maps: np.ndarray | None, scores: np.ndarray) -> Gallery:
    """A few images with their maps. If `maps` is None, these images are scored again and give the range of values."""
    defects = [entry.defect for entry in samples.entries]
    chosen = choose(defects, scores)
    shown = scorer.score_all(samples.images[chosen])[0] if maps is None else maps[chosen]
    low, high = (float(edge(shown if maps is None else maps)) for edge in (np.min, np.max))
    return Gallery(
        names=tuple(image_name(samples.entries[place]) for place in chosen),
        defects=tuple(defects[place] for place in chosen),
        scores=scores[chosen],
        images=samples.images[chosen],
        maps=quantise(shown, low, high),
        low=low,
        high=high,
        masks=None if samples.masks is None else samples.masks[chosen],
        pro=None if maps is None or samples.masks is None else pro_curve(samples.masks, maps),
    )
