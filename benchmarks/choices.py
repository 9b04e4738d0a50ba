"""Measure PaDiM and PatchCore under choices in which codes differ, one choice at a time.

Usage: python benchmarks/choices.py TEACHER.safetensors DATASET_FOLDER OUTPUT.csv METHOD CATEGORY INPUT SEED...

METHOD is a key of `METHODS`, and INPUT one of `INPUTS`. The script adds a line to OUTPUT.csv for each choice, image
score, seed and metric, in percent. After any run of the pipeline, `results/teachers` holds the teacher. The teacher
sees each image once for all seeds and choices, so this is faster than the pipeline. The choices
`ours` and `bilinear` have the metrics that the pipeline gives for that seed, with the score that the variant names.
"""

import csv
import random
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from maskrd.config.methods import METHODS as SETTINGS
from maskrd.data.indexing import build_index
from maskrd.data.samples import load_test, load_train
from maskrd.engine.features import FeatureSource
from maskrd.engine.sampling import INITIALISATION, STEP, random_seed
from maskrd.methods import build_method
from maskrd.methods.base import Method, full_precision, gaussian_blur
from maskrd.methods.patchcore import PatchCore, greedy_coreset, nearest_neighbours
from maskrd.methods.teacher import Teacher, load_teacher
from maskrd.metrics import auroc

INPUTS = {"256": (256, None), "224 of 256": (256, 224), "224": (224, None)}  # size in pixels, central crop
BLUR_SIGMA = 4
BATCH = 16
PUBLISHED_SEED = 42  # "All results gathered with seed 42", says anomalib's README
HEADER = ("method", "category", "input", "choice", "score", "seed", "metric", "value")
Embed = Callable[[list[Tensor]], Tensor]
# choice, seed, blurred maps (N, H, W), and image scores (N,) by their name
Found = Iterator[tuple[str, int, Tensor, dict[str, Tensor]]]


class Category:
    """The images of a category at one input size, and the teacher's features of them."""

    def __init__(self, teacher: Teacher, data: Path, name: str, size: int, crop: int | None) -> None:
        index = build_index("mvtec_ad", name, data)
        train, self.test = (load(index, data, size).cropped(crop) for load in (load_train, load_test))
        images = torch.from_numpy(np.concatenate([train.images, self.test.images]))
        self.features = FeatureSource(teacher, images, "fp32", BATCH, cache_gb=8)
        self.teacher, self.side = teacher, crop or size
        self.train_batches = torch.arange(len(train.images)).split(BATCH)
        self.test_batches = torch.arange(len(train.images), len(images)).split(BATCH)

    def build(self, method: str, seed: int) -> Method:
        """The untrained method, as a training job of that seed has it when it begins to learn."""
        torch.manual_seed(random_seed(seed, INITIALISATION))
        built = build_method(SETTINGS[method](method=method, image_size=self.side, precision="fp32"), self.teacher)
        torch.manual_seed(random_seed(seed, STEP))
        return built


def try_padim(category: Category, seeds: list[int]) -> Found:
    """Other draws of the channels. For anomalib's seed, the draw is what Python's generator gives, as there."""
    for seed in seeds:
        method, choice = category.build("padim", seed), "ours"
        if seed == PUBLISHED_SEED:
            available = sum(category.teacher.architecture.channels(level) for level in (1, 2, 3))
            drawn = random.Random(seed).sample(range(available), len(method.channels))
            method.channels, choice = torch.tensor(drawn), "anomalib's draw"
        method.learn(category.features, category.train_batches)
        size = torch.empty(0, 3, category.side, category.side)
        maps = torch.cat([method.anomaly_maps(size, category.features(part), None) for part in category.test_batches])
        blurred = gaussian_blur(maps, BLUR_SIGMA)
        yield choice, seed, blurred, {"blurred map": blurred.amax(dim=(1, 2)), "map": maps.amax(dim=(1, 2))}


def try_patchcore(category: Category, seeds: list[int], fraction: float) -> Found:
    """Level 3 and the maps are enlarged bilinearly, or by repeated positions as in anomalib's first versions."""
    for seed in seeds:
        for mode in ("bilinear", "nearest"):
            method = category.build("patchcore", seed)
            embed = method.embed if mode == "bilinear" else embed_nearest
            method.memory = choose_memory(method, category, embed, fraction)
            yield mode, seed, *score_patchcore(method, category, embed, mode)


METHODS = {
    "padim": try_padim,
    "patchcore 10 %": partial(try_patchcore, fraction=0.1),
    "patchcore 1 %": partial(try_patchcore, fraction=0.01),
}


def embed_nearest(features: list[Tensor]) -> Tensor:
    second, third = (F.avg_pool2d(features[level - 1], 3, 1, 1) for level in (2, 3))
    return torch.cat([second, F.interpolate(third, second.shape[2:])], dim=1).flatten(2).transpose(1, 2)


def choose_memory(method: PatchCore, category: Category, embed: Embed, fraction: float) -> Tensor:
    """The coreset (M, C) of the patches of the training images."""
    patches = torch.cat([embed(category.features(part)).flatten(0, 1) for part in category.train_batches])
    with full_precision():
        projected = patches @ method.projection
    return patches[greedy_coreset(projected, round(len(patches) * fraction))]


def score_patchcore(method: PatchCore, category: Category, embed: Embed, mode: str) -> tuple[Tensor, dict[str, Tensor]]:
    """Blurred maps and image scores. `own neighbours` is the score of the anomalib of the published numbers.

    It weighs the greatest distance by the softmax of the patch's own distances to its nearest neighbours.
    """
    size = (category.side, category.side)
    maps, scores = [], {"reweighted": [], "own neighbours": [], "greatest distance": []}
    for part in category.test_batches:
        features = category.features(part)
        for patches in embed(features):
            distances, neighbours = nearest_neighbours(patches[None], method.memory, method.settings.neighbours)
            nearest = distances[..., 0]
            coarse = nearest.unflatten(1, features[1].shape[2:])[None]
            maps.append(gaussian_blur(F.interpolate(coarse, size, mode=mode)[0], BLUR_SIGMA))
            worst = distances[0, nearest.argmax()]
            scores["reweighted"].append(method.reweighted_scores(patches[None], nearest, neighbours[..., 0])[0])
            scores["own neighbours"].append(worst[0] * (1 - worst.softmax(0)[-1]))
            scores["greatest distance"].append(worst[0])
    maps = torch.cat(maps)
    return maps, {"blurred map": maps.amax(dim=(1, 2))} | {name: torch.stack(each) for name, each in scores.items()}


@torch.no_grad()
def main(teacher: str, data: str, output: str, method: str, name: str, input_name: str, *seeds: str) -> None:
    category = Category(load_teacher(Path(teacher))[0], Path(data), name, *INPUTS[input_name])
    new = not Path(output).exists()
    with Path(output).open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(HEADER)
        for choice, seed, maps, scores in METHODS[method](category, [int(seed) for seed in seeds]):
            values = {("", "pixel_auroc"): auroc(category.test.masks, maps.numpy())}
            for score, found in scores.items():
                values[score, "image_auroc"] = auroc(category.test.defective, found.numpy())
            for (score, metric), value in values.items():
                writer.writerow((method, name, input_name, choice, score, seed, metric, f"{100 * value:.2f}"))
            file.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
