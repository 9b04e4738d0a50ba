"""Cost of scoring an image, anomaly map and blur included, beside RD4AD's way.

    python benchmarks/inference.py --variant rd --backbone resnet18 --precision bf16 [--json]

Ours is what `maskrd evaluate` runs, at batch 1 and 16, from decoded uint8 images to blurred maps on the host. RD4AD's
way is written from its description: one image at a time, teacher with stage 4, fp32, contiguous layout, maps
upsampled and added on the host and blurred by scipy; its images are normalised in advance. It always runs RD's
student. All take turns in one process; numbers are medians over the rounds.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import common
import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

from maskrd.data.index_file import Index
from maskrd.data.samples import load_train
from maskrd.engine.scoring import Scorer, load_scorer
from maskrd.engine.speed import take_turns
from maskrd.engine.training import train

BATCH_SIZE = 16
ONE, BATCH, REFERENCE = "maskrd, batch 1", f"maskrd, batch {BATCH_SIZE}", "RD4AD's way, batch 1"


def reference_score(scorer: Scorer, arguments: argparse.Namespace, image: np.ndarray) -> Callable:
    size, device = image.shape[-1], scorer.device
    image = scorer.teacher.normalize(torch.from_numpy(image[None]).to(device)).cpu()
    encoder = common.ReferenceEncoder(scorer.teacher, device)
    student = common.reference_student(scorer.teacher, arguments, device).eval()

    @torch.no_grad()
    def score() -> float:
        features = encoder(image.to(device))
        rebuilt = student.rebuild(features, masked=False)
        anomaly_map = np.zeros((size, size))
        for level, feature in enumerate(features, start=1):
            distance = 1 - F.cosine_similarity(feature, rebuilt[level])
            distance = F.interpolate(distance[None], size=size, mode="bilinear", align_corners=True)
            anomaly_map += distance[0, 0].cpu().numpy()
        return float(gaussian_filter(anomaly_map, sigma=4).max())

    return score


def build_scorer(arguments: argparse.Namespace, folder: Path) -> tuple[Scorer, np.ndarray]:
    """A model trained for one step, and BATCH_SIZE images to score, uint8 (N, 3, H, W)."""
    settings, tests = common.recipe(arguments, epochs=1, validation_fraction=0, patience=None, checkpoint="last")
    job = common.training_job(arguments, settings, folder, BATCH_SIZE, cache_gb=0)
    train(job)
    scorer = load_scorer(job.model, job.teacher, tests, job.machine)
    images = load_train(Index.read(job.index), job.data, settings.image_size, arguments.threads).images
    return scorer, images


def measure(arguments: argparse.Namespace) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        scorer, images = build_scorer(arguments, Path(folder))
    calls = {
        ONE: lambda: scorer.score(images[:1]),
        BATCH: lambda: scorer.score(images),
        REFERENCE: reference_score(scorer, arguments, images[0]),
    }
    repeats = 10 if scorer.device.type == "cuda" else 1
    seconds = take_turns(calls, arguments.rounds, repeats, scorer.device)
    seconds[BATCH] = [taken / BATCH_SIZE for taken in seconds[BATCH]]
    milliseconds = {name: common.summary([1000 * taken for taken in values]) for name, values in seconds.items()}
    reference = milliseconds[REFERENCE]["median"]
    return {
        "variant": arguments.variant,
        "backbone": arguments.backbone,
        "image_size": arguments.image_size,
        "precision": arguments.precision,
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "ms_per_image_batch_1": milliseconds[ONE]["median"],
        f"ms_per_image_batch_{BATCH_SIZE}": milliseconds[BATCH]["median"],
        "reference_ms_per_image": reference,
        "ratio_batch_1": reference / milliseconds[ONE]["median"],
        f"ratio_batch_{BATCH_SIZE}": reference / milliseconds[BATCH]["median"],
        "ms_per_image": milliseconds,
        "machine": common.machine(scorer.device),
    }


def print_table(result: dict) -> None:
    print(
        f"{result['variant']}, {result['backbone']}, {result['image_size']} pixels, {result['precision']}, "
        f"{result['threads']} threads, {result['rounds']} rounds"
    )
    print(f"{'ms per image':22} {'median':>9} {'min':>9} {'max':>9} {'ratio':>7}")
    for name, taken in result["ms_per_image"].items():
        columns = "".join(f" {taken[key]:9.2f}" for key in ("median", "min", "max"))
        print(f"{name:22}{columns} {result['reference_ms_per_image'] / taken['median']:7.2f}")
    print(result["machine"])


if __name__ == "__main__":
    common.run_benchmark(__doc__, measure, print_table)
