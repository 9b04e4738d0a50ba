"""How many images a second methods score, side by side."""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from tqdm import tqdm

from maskrd.experiment import Report
from maskrd.files import write_text
from maskrd.runtime import describe
from maskrd.scoring import Scorer

BATCH_SIZES = (1, 16)
ROUNDS = 5
Name = TypeVar("Name")


def write_speed(
    report: Report,
    models: Sequence[Path],
    teachers: Sequence[Path],
    output: Path,
    device: str,
    threads: int,
    gpu_jobs: int = 1,
) -> None:
    """Frames per second of the report's variants, in its order, each with one of its models and its teacher.

    A frame is a decoded uint8 image on the host; the clock runs until its blurred anomaly map and score are there.
    All take turns in one process, so that whatever else the machine does slows all alike. JSON:
    `frames_per_second` by variant and batch size, the median of five rounds, and what measured it.
    """
    calls: dict[tuple[str, int], Callable[[], object]] = {}
    for variant, model, teacher in zip(report.spec.variants, models, teachers, strict=True):
        scorer = Scorer(model, teacher, report.evaluation[variant], device, threads, gpu_jobs)
        size = scorer.training.crop or scorer.training.image_size
        images = np.random.default_rng(0).integers(0, 256, (max(BATCH_SIZES), 3, size, size), dtype=np.uint8)
        for batch in BATCH_SIZES:
            calls[variant, batch] = lambda scorer=scorer, part=images[:batch]: scorer.score(part)
    seconds = take_turns(calls, ROUNDS, 1, scorer.device)
    rates: dict[str, dict[int, float]] = {variant: {} for variant in report.spec.variants}
    for (variant, batch), taken in seconds.items():
        rates[variant][batch] = round(batch / statistics.median(taken), 3)
    content = {"frames_per_second": rates, "machine": describe(scorer.device)}
    write_text(output, json.dumps(content, indent=1) + "\n")


def take_turns(
    calls: dict[Name, Callable[[], object]], rounds: int, repeats: int, device: torch.device
) -> dict[Name, list[float]]:
    """Seconds of one call, by name, one value a round, after an untimed round: a busy machine slows all alike."""
    seconds: dict[Name, list[float]] = {name: [] for name in calls}
    for number in tqdm(range(rounds + 1), unit="round"):
        for name, call in calls.items():
            synchronize(device)
            start = time.perf_counter()
            for _ in range(repeats):
                call()
            synchronize(device)
            if number:
                seconds[name].append((time.perf_counter() - start) / repeats)
    return seconds


def synchronize(device: torch.device) -> None:
    """Wait for the GPU, which works on after a call has returned."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
