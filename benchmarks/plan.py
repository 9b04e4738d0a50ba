"""Seconds for a step: the estimate of `maskrd plan`, and the time of a real training.

    python benchmarks/plan.py [DATASET/BACKBONE ...] [--threads N] [--steps 2] [--json]

By default it measures the full method of config.yaml with ResNet18 and WideResNet50-2 at 256 pixels, and with
WideResNet50-2 at CIFAR-10's 64. Images and weights are random. The plan times as few images as it needs; a training
steps through whole batches.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from common import ROOT, at_least, machine, print_json, training_job

from maskrd.config.load import parse_experiment, shipped_configuration
from maskrd.config.settings import Training
from maskrd.engine.inputs import load_inputs
from maskrd.engine.loop import Trainer
from maskrd.engine.machine import Machine, synchronize
from maskrd.inspection.timing import measure

WARM_UP = 2  # steps; on a GPU the second one is recorded as a graph
NETWORKS = ("mvtec_ad/resnet18", "cifar10/wide_resnet50_2", "mvtec_ad/wide_resnet50_2")


def time_steps(settings: Training, arguments: argparse.Namespace) -> float:
    """Median seconds of a training's step. The first ones warm up and aren't counted."""
    batch = settings.batch_size
    with tempfile.TemporaryDirectory() as folder:
        inputs = load_inputs(training_job(arguments, settings, Path(folder), images=batch, cache_gb=4))
        trainer = Trainer(inputs)
        trainer.prepare_features()
        seconds = []
        for _ in range(arguments.steps + WARM_UP):
            synchronize(inputs.device)
            started = time.perf_counter()
            trainer.step(torch.arange(batch, device=inputs.device))
            synchronize(inputs.device)
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[WARM_UP:])


def compare(dataset: str, arguments: argparse.Namespace) -> dict[str, object]:
    """Planned and measured seconds of the full method on a dataset, with the backbone of `arguments`."""
    recipe = parse_experiment(shipped_configuration(ROOT.joinpath)).recipe(dataset, "maskrd")
    settings = recipe.training
    started = time.perf_counter()
    timing = measure(settings, recipe.evaluation, arguments.backbone, Machine(arguments.device, arguments.threads))
    taken = time.perf_counter() - started
    planned, measured = timing.image * settings.batch_size + timing.update, time_steps(settings, arguments)
    return {
        "network": f"{arguments.backbone}, {settings.image_size} px, batch {settings.batch_size}",
        "planned": planned,
        "measured": measured,
        "ratio": planned / measured,
        "planning_took": taken,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=NETWORKS, metavar="DATASET/BACKBONE")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (default: %(default)s)")
    parser.add_argument("--steps", type=at_least(1), default=2, help="of each network (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    arguments = parser.parse_args()
    rows = []
    if not arguments.json:
        print(f"{'seconds':40} {'planned':>9} {'measured':>9} {'ratio':>6}")
    for network in arguments.networks:
        dataset, backbone = network.split("/")
        row = compare(dataset, argparse.Namespace(**vars(arguments), backbone=backbone))
        rows.append(row)
        if not arguments.json:
            print(f"{row['network']:40} {row['planned']:9.3f} {row['measured']:9.3f} {row['ratio']:6.2f}", flush=True)
    if arguments.json:
        device = Machine(arguments.device, arguments.threads).claim()
        print_json({"steps": rows, "machine": machine(device)})


if __name__ == "__main__":
    main()
