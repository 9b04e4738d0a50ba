"""What the benchmarks share: a generated category and teacher, taking turns, the matrix peak, the machine."""

import argparse
import copy
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from maskrd.config.load import parse_experiment, shipped_configuration
from maskrd.config.settings import Evaluation, Training
from maskrd.config.teachers import ARCHITECTURES
from maskrd.data.indexing import build_index
from maskrd.engine.inputs import TrainingJob
from maskrd.engine.machine import Machine, describe
from maskrd.layers.resnet import init_weights, stage
from maskrd.methods import build_method
from maskrd.methods.maskrd import MaskedReverseDistillation
from maskrd.methods.teacher import Teacher, TeacherFile, build_pyramid, save_teacher

ROOT = Path(__file__).parents[1]
RESNETS = ("resnet18", "resnet50", "wide_resnet50_2", "demo_resnet18", "demo_resnet50", "demo_wide_resnet50_2")


def run_benchmark(
    description: str,
    measure: Callable[[argparse.Namespace], dict],
    print_table: Callable[[dict], None],
    add_options: Callable[[argparse.ArgumentParser], None] | None = None,
    devices: Sequence[str] = ("auto", "cpu", "cuda"),
) -> None:
    """The main function of a benchmark that runs a network: read the options, measure, and print the result."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    add_network_options(parser, devices)
    if add_options:
        add_options(parser)
    arguments = parser.parse_args()
    result = measure(arguments)
    if arguments.json:
        print_json(result)
    else:
        print_table(result)


def at_least(least: int) -> Callable[[str], int]:
    """The type of an option that is a whole number."""

    def parse(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is less than {least}")
        return int(text)

    return parse


def add_network_options(parser: argparse.ArgumentParser, devices: Sequence[str]) -> None:
    """Options of the benchmarks that run a network; the first device is the default."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parser.add_argument("--variant", default="rd", help="of config.yaml (default: %(default)s)")
    parser.add_argument("--backbone", default="resnet18", choices=RESNETS)
    parser.add_argument("--image-size", type=int, default=256, help="pixels (default: %(default)s)")
    parser.add_argument("--precision", default="bf16", choices=("fp32", "bf16"))
    parser.add_argument("--device", default=devices[0], choices=devices)
    parser.add_argument("--threads", type=int, default=cores, help="of the CPU (default: all, here %(default)s)")
    parser.add_argument("--rounds", type=at_least(1), default=9, help="turns of every variant (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")


def recipe(arguments: argparse.Namespace, **changes: object) -> tuple[Training, Evaluation]:
    """The recipe of a variant of config.yaml on MVTec AD, with the options' values and `changes`."""
    experiment = parse_experiment(shipped_configuration(ROOT.joinpath))
    if arguments.variant not in experiment.variants:
        sys.exit(f"--variant {arguments.variant}: known are {', '.join(experiment.variants)}")
    chosen = experiment.recipe("mvtec_ad", arguments.variant)
    if chosen.training.method == "mkd":
        sys.exit(f"--variant {arguments.variant}: its teacher is a VGG, and RD4AD's loop needs a ResNet")
    changes = {"image_size": arguments.image_size, "precision": arguments.precision, **changes}
    return chosen.training.model_copy(update=changes), chosen.evaluation


def training_job(
    arguments: argparse.Namespace, settings: Training, folder: Path, images: int, cache_gb: float
) -> TrainingJob:
    """A training on `images` generated images and a teacher of random weights, with all files in `folder`."""
    rng = np.random.default_rng(0)
    for part, count in (("train/good", images), ("test/good", 1), ("test/noisy", 1)):
        (folder / "data/noise" / part).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (settings.image_size, settings.image_size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"data/noise/{part}/{number:03d}.png")
    build_index("demo", "noise", folder / "data", arguments.threads).write(folder / "index.json")
    torch.manual_seed(0)
    pyramid = build_pyramid(ARCHITECTURES[arguments.backbone])
    init_weights(pyramid)
    save_teacher(pyramid, TeacherFile(arguments.backbone, "0" * 64), folder / "teacher.safetensors")
    return TrainingJob(
        index=folder / "index.json",
        data=folder / "data",
        teacher=folder / "teacher.safetensors",
        model=folder / "model.safetensors",
        history=folder / "history.csv",
        store=folder / "store",
        recipe=settings,
        seed=0,
        machine=Machine(arguments.device, arguments.threads),
        cache_gb=cache_gb,
        state_minutes=60,
    )


class ReferenceEncoder:
    """RD4AD's teacher: a ResNet in evaluation mode that also runs the stage 4 whose output nobody reads.

    Nothing keeps gradients from reaching its weights; call it under no_grad where RD4AD does. It has `teacher`'s
    weights, in fp32 and the contiguous layout.
    """

    def __init__(self, teacher: Teacher, device: torch.device) -> None:
        architecture = teacher.architecture
        self.pyramid = copy.deepcopy(teacher.pyramid)
        self.stage4 = stage(architecture, 4, architecture.channels(3), stride=2)
        for part in (self.pyramid, self.stage4):
            part.to(device, memory_format=torch.contiguous_format).eval().requires_grad_()

    def __call__(self, images: Tensor) -> list[Tensor]:
        features = self.pyramid(images)
        self.stage4(features[-1])
        return features

    def clear_gradients(self) -> None:
        """RD4AD lets them add up; here they are dropped after every step, and their memory with them."""
        self.pyramid.zero_grad()
        self.stage4.zero_grad()


def reference_student(
    teacher: Teacher, arguments: argparse.Namespace, device: torch.device
) -> MaskedReverseDistillation:
    """RD4AD's bottleneck and decoder for that teacher: the variant `rd`, whatever is benchmarked."""
    settings, _ = recipe(argparse.Namespace(**{**vars(arguments), "variant": "rd"}))
    return build_method(settings, teacher).to(device)


def peak_candidates(device: torch.device, precision: str) -> dict[str, tuple[Callable[[], object], int]]:
    """Two large products in that precision with their FLOPs; the faster one is taken for the machine's peak.

    torch.mm and convolutions come from different libraries, and either may be the faster: on AMD's processors
    convolutions in fp32 run more than twice as fast.
    """
    side, images, channels = (8192, 256, 512) if device.type == "cuda" else (2048, 16, 256)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    layout = {"device": device, "dtype": dtype, "memory_format": torch.channels_last}
    x = torch.randn(images, channels, 32, 32).to(**layout)
    kernel = torch.randn(channels, channels, 3, 3).to(**layout)
    return {
        "torch.mm": (lambda: torch.mm(a, b), 2 * side**3),
        "3x3 convolution": (lambda: F.conv2d(x, kernel, padding=1), 2 * 9 * x.numel() * channels),
    }


def summary(seconds: list[float]) -> dict[str, float]:
    return {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds)}


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def machine(device: torch.device) -> dict[str, object]:
    load = [round(value, 1) for value in os.getloadavg()]
    return {**describe(device), "processor": processor(), "cores": os.cpu_count(), "load": load}


def print_json(result: dict) -> None:
    print(json.dumps(result, indent=1))
