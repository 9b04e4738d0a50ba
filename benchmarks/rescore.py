"""Score finished models again under other readings of the test, and say how much is chance.

Nothing is trained, and no file of the results changes.

Each reading differs from the model's own evaluation in what its name says. One line for each model, reading and
metric, in percent. `low` and `high` are the 2.5 and 97.5 percentiles over test images drawn with replacement,
good and defective ones apart, the model held fixed: they say nothing of other seeds. Image AUROC and PRO per image have
them; the pooled pixel metrics would take a sort of all pixels for each draw.
"""

import argparse
import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from maskrd.config.record import read_record
from maskrd.data.index_file import Index
from maskrd.data.samples import Samples, load_test
from maskrd.engine.evaluation import EvaluationJob, image_values, load_test_set, pixel_values, wanted_scorer
from maskrd.engine.machine import Machine
from maskrd.methods.base import upsample
from maskrd.metrics import auroc, pro_per_image

# What changes of the model's own evaluation. `LARGER_MASKS` is one more, for models of smaller images.
READINGS = {
    "as trained": {},
    "product": {"map_fusion": "product"},
    "weighted 1:2:4": {"map_fusion": "weighted", "map_weights": (1, 2, 4)},
    "level 3 alone": {"score_layers": (3,)},
    "levels 2 and 3": {"score_layers": (2, 3)},
    "mask while testing": {"mask_at_test": True},
    "no blur": {"blur_sigma": 0},
    "blur of 8 px": {"blur_sigma": 8},
    "any-non-zero masks": {"defect_pixels": "any"},
}
LARGER_MASKS = "masks of 256 px"
MASK_SIZE = 256
RESAMPLES = 1000
HEADER = ("model", "reading", "metric", "value", "low", "high")


def job_of(results: Path, data: Path, model: str) -> EvaluationJob:
    """The test job of a finished model; its settings are those in metrics.json."""
    dataset, category, _, backbone, _ = model.split("/")
    folder = results / "models" / model
    record = read_record(folder / "metrics.json")
    return EvaluationJob(
        index=results / "data" / dataset / f"{category}.json",
        data=data,
        teacher=results / "teachers" / f"{backbone}.safetensors",
        model=folder / "model.safetensors",
        evaluation=record.evaluation.recipe,
        training=record.training.recipe,
        machine=Machine("cpu", torch.get_num_threads()),
    )


def intervals(samples: Samples, maps: np.ndarray, scores: np.ndarray) -> dict[str, tuple[float, float]]:
    """Bootstrap intervals in [0, 1] of the metrics that are cheap to compute for each draw."""
    generator = np.random.default_rng(0)
    bad, good = np.flatnonzero(samples.defective), np.flatnonzero(~samples.defective)
    pairs = zip(samples.masks[bad], maps[bad], strict=True)
    each = np.array([pro_per_image(mask[None], anomaly_map[None]) for mask, anomaly_map in pairs], float)
    draws: dict[str, list[float]] = {"image_auroc": [], "pro_per_image": []}
    for _ in range(RESAMPLES):
        drawn_bad, drawn_good = generator.choice(bad.size, bad.size), generator.choice(good, good.size)
        drawn = np.concatenate([bad[drawn_bad], drawn_good])
        draws["image_auroc"].append(auroc(samples.defective[drawn], scores[drawn]))
        draws["pro_per_image"].append(each[drawn_bad].mean())
    if np.isnan(each).any():  # an image without a value: then the mean has none either
        del draws["pro_per_image"]
    return {metric: tuple(np.percentile(found, (2.5, 97.5))) for metric, found in draws.items()}


def enlarge(job: EvaluationJob, maps: np.ndarray) -> tuple[Samples, np.ndarray]:
    """The test set at `MASK_SIZE`, and the maps (N, H, W) enlarged to it as a method enlarges those of its levels."""
    threshold = job.evaluation.mask_threshold
    samples = load_test(Index.read(job.index), job.data, MASK_SIZE, job.machine.threads, threshold)
    return samples, upsample(torch.from_numpy(maps), (MASK_SIZE, MASK_SIZE)).numpy()


def rescore(job: EvaluationJob, changes: dict, larger_masks: bool = False) -> Iterator[tuple[str, str, str, str]]:
    """(metric, value, low, high) of one model under one reading, as text in percent."""
    job = replace(job, evaluation=job.evaluation.model_copy(update=changes))
    samples = load_test_set(job)
    maps, scores = wanted_scorer(job).score_all(samples.images)
    if larger_masks:
        samples, maps = enlarge(job, maps)
    found = {**image_values(samples, scores), **pixel_values(samples, maps)}
    ends = intervals(samples, maps, scores)
    for metric, value in found.items():
        if value is not None:
            low, high = (f"{100 * end:.1f}" for end in ends[metric]) if metric in ends else ("", "")
            yield metric, f"{100 * value:.1f}", low, high


def main(results: Path, data: Path, output: Path, models: list[str]) -> None:
    with output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        for reading in (*READINGS, LARGER_MASKS):
            for model in models:
                job = job_of(results, data, model)
                larger_masks = reading == LARGER_MASKS
                if not larger_masks or (job.training.image_size < MASK_SIZE and not job.training.crop):
                    lines = rescore(job, READINGS.get(reading, {}), larger_masks)
                    writer.writerows((model, reading, *line) for line in lines)
                    file.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="a results folder")
    parser.add_argument("data", type=Path, help="the dataset's folder")
    parser.add_argument("output", type=Path, help="the CSV file to write")
    parser.add_argument("models", nargs="+", help="paths below models/, such as mvtec_ad/transistor/rd/resnet18/seed0")
    options = parser.parse_args()
    main(options.results, options.data, options.output, options.models)
