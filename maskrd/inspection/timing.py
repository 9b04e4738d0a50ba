"""How long a network's steps take on this machine, measured on random images and weights."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from maskrd.config.settings import Evaluation, Training
from maskrd.config.teachers import ARCHITECTURES
from maskrd.engine.cuda_graph import CudaGraph, uses_graphs
from maskrd.engine.machine import Machine, autocast, resolve_precision, synchronize
from maskrd.engine.optim import build_optimizer
from maskrd.inspection.flops import network_cost
from maskrd.methods import build_method
from maskrd.methods.base import OnePassMethod
from maskrd.methods.teacher import Teacher

# A call is repeated for so long, after one that warms up, and at most so often.
SECONDS = 2.0
REPEATS = 5
# A CPU's time for an image hardly depends on the batch, once a step has so many FLOPs; a GPU's does. With fewer,
# reading and writing the weights counts.
CPU_FLOPS = 3.2e11


@dataclass(frozen=True)
class Timing:
    """Seconds: of training on one image, of the optimizer's part of a step, of one image through the teacher alone,
    and of testing one image, to its map."""

    image: float
    update: float
    teacher: float
    test: float


def measure(settings: Training, evaluation: Evaluation, backbone: str, machine: Machine) -> Timing:
    """Time the parts of a training and of a test as they are run, but on random images, weights and features."""
    device = machine.claim()
    precision = resolve_precision(settings.precision, device)
    batch = settings.batch_size
    if device.type == "cpu":
        affordable = int(CPU_FLOPS / network_cost(settings, evaluation, backbone).image_flops)
        batch = min(batch, max(2, affordable))  # BatchNorm wants two
    size = settings.crop or settings.image_size
    teacher = Teacher(ARCHITECTURES[backbone], settings.normalize).to(device, memory_format=torch.channels_last)
    method = build_method(settings, teacher).to(device, memory_format=torch.channels_last).train()
    images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, device=device)

    def features() -> list[torch.Tensor]:
        with autocast(device, precision):
            return teacher(images)

    if isinstance(method, OnePassMethod):  # what testing costs beyond the teacher isn't known before it has learned
        teacher_alone = median_seconds(features, device) / batch
        return Timing(0, 0, teacher_alone, teacher_alone)
    optimizer = build_optimizer(settings, method.parameters())
    kept = features()

    def backward() -> None:
        with autocast(device, precision):
            loss = method.loss(images, kept)
        method.zero_grad()
        loss.backward()

    def test() -> None:
        with torch.no_grad(), autocast(device, precision):
            method.maps_and_scores(images, evaluation)

    update = optimizer.step
    if uses_graphs(machine, device, method):
        backward()
        update()  # makes the optimizer's states
        backward, update = CudaGraph(backward).replay, CudaGraph(update).replay
    trained = median_seconds(backward, device)
    updated = median_seconds(update, device)
    method.eval()
    return Timing(trained / batch, updated, *(median_seconds(call, device) / batch for call in (features, test)))


def median_seconds(call: Callable[[], object], device: torch.device) -> float:
    """Of a call that is repeated for a few seconds, after one that warms up."""
    call()
    taken: list[float] = []
    while not taken or (len(taken) < REPEATS and sum(taken) < SECONDS):
        synchronize(device)
        started = time.perf_counter()
        call()
        synchronize(device)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def measure_start() -> float:
    """Seconds until a job has imported what it needs and the device is there; every training and every test pays it."""
    code = "import torch, maskrd.engine.training; torch.cuda.is_available() and torch.zeros(1, device='cuda')"
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], env=os.environ, check=True, capture_output=True)
    return time.perf_counter() - started
