"""Cost of a training step beside RD4AD's published loop, and how much of the matrix peak it reaches.

    python benchmarks/training_step.py --variant rd --backbone resnet18 --batch-size 16 --precision bf16 [--json]

Ours is the step of `maskrd train` itself, on generated images and a teacher of random weights. RD4AD's loop is written
from its description: teacher with stage 4 and within reach of gradients, flattened cosine, unfused Adam, fp32,
contiguous layout, loss read by the host at every step; its images are decoded and normalised in advance. It always
trains RD's student. Both take turns in one process with a matrix product and a convolution, the faster of which is
the peak; numbers are medians over the rounds.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import common
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from maskrd.engine.inputs import load_inputs
from maskrd.engine.loop import Trainer
from maskrd.engine.speed import take_turns

CACHE_GB = 4  # as `maskrd train` has it
OURS, REFERENCE = "maskrd", "RD4AD's loop"


def our_step(trainer: Trainer) -> Callable[[], None]:
    """A step as training runs it."""
    trainer.prepare_features()
    positions = trainer.train_positions[: trainer.settings.batch_size].to(trainer.device)

    def step() -> None:
        trainer.step(positions)
        trainer.progress.step += 1

    return step


def reference_step(trainer: Trainer, arguments: argparse.Namespace) -> Callable[[], object]:
    device = trainer.device
    images = trainer.teacher.normalize(trainer.images[: arguments.batch_size]).cpu()
    encoder = common.ReferenceEncoder(trainer.teacher, device)
    student = common.reference_student(trainer.teacher, arguments, device).train()
    optimizer = torch.optim.Adam(student.parameters(), lr=0.005, betas=(0.5, 0.999))

    def step() -> float:
        features = encoder(images.to(device))
        rebuilt = student.rebuild(features, masked=False)
        loss = sum(
            (1 - F.cosine_similarity(feature.flatten(1), rebuilt[level].flatten(1))).mean()
            for level, feature in enumerate(features, start=1)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        encoder.clear_gradients()
        return loss.item()

    return step


def count_flops(step: Callable[[], object]) -> int:
    """Of convolutions and matrix products, two for a multiplication and addition."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def measure(arguments: argparse.Namespace) -> dict:
    settings, _ = common.recipe(arguments, batch_size=arguments.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        cache_gb = 0 if arguments.no_cache else CACHE_GB
        job = common.training_job(arguments, settings, Path(folder), 2 * arguments.batch_size, cache_gb)
        trainer = Trainer(load_inputs(job))
    ours = our_step(trainer)
    products = common.peak_candidates(trainer.device, arguments.precision)
    calls = {OURS: ours, REFERENCE: reference_step(trainer, arguments)}
    calls.update((name, call) for name, (call, _) in products.items())
    flops = count_flops(ours)
    repeats = 10 if trainer.device.type == "cuda" else 1
    seconds = {
        name: common.summary(taken)
        for name, taken in take_turns(calls, arguments.rounds, repeats, trainer.device).items()
    }
    peak = max(size / seconds[name]["median"] for name, (_, size) in products.items())
    own = seconds[OURS]["median"]
    return {
        "variant": arguments.variant,
        "backbone": arguments.backbone,
        "image_size": arguments.image_size,
        "batch_size": arguments.batch_size,
        "precision": arguments.precision,
        "features": "kept" if trainer.features.cache is not None else "recomputed",
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "seconds_per_step": own,
        "images_per_second": arguments.batch_size / own,
        "flops_per_image": flops / arguments.batch_size,
        "peak_flops_per_second": peak,
        "fraction_of_peak": flops / own / peak,
        "floor_seconds_per_step": flops / peak,
        "reference_seconds_per_step": seconds[REFERENCE]["median"],
        "ratio": seconds[REFERENCE]["median"] / own,
        "seconds": seconds,
        "machine": common.machine(trainer.device),
    }


def print_table(result: dict) -> None:
    print(
        f"{result['variant']}, {result['backbone']}, {result['image_size']} pixels, batch {result['batch_size']}, "
        f"{result['precision']}, features {result['features']}, {result['threads']} threads"
    )
    print(f"{'s per step':20} {'median':>9} {'min':>9} {'max':>9} {'images/s':>9}")
    for name in (OURS, REFERENCE):
        taken = result["seconds"][name]
        columns = "".join(f" {taken[key]:9.4f}" for key in ("median", "min", "max"))
        print(f"{name:20}{columns} {result['batch_size'] / taken['median']:9.1f}")
    print(f"\nratio of medians {result['ratio']:.2f} over {result['rounds']} rounds")
    print(f"{result['flops_per_image'] / 1e9:.2f} GFLOP per image (convolutions and matrix products)")
    print(
        f"{result['fraction_of_peak']:.1%} of the matrix peak, {result['peak_flops_per_second'] / 1e9:.0f} GFLOP/s; "
        f"at the peak a step would take {result['floor_seconds_per_step']:.4f} s"
    )
    print(result["machine"])


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--batch-size", type=common.at_least(2), default=16, help="images (default: %(default)s)")
    parser.add_argument("--no-cache", action="store_true", help="recompute the teacher's features in every step")


if __name__ == "__main__":
    common.run_benchmark(__doc__, measure, print_table, add_options)
