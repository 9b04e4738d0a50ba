"""How many images per second the variants of a table score."""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from tqdm import tqdm

from maskrd.config.view import View
from maskrd.engine.machine import Machine, describe, synchronize
from maskrd.engine.scoring import load_scorer
from maskrd.files import write_text

BATCH_SIZES = (1, 16)
ROUNDS = 5
Name = TypeVar("Name")


def write_speed(view: View, models: Sequence[Path], teachers: Sequence[Path], output: Path, machine: Machine) -> None:
    """Measure frames per second of the view's variants, each with one of its models and its teacher. Writes JSON.

    A frame is a decoded uint8 image on the host; the clock stops when its blurred anomaly map and score are there. All
    variants take turns in one process, so other work on the machine slows all of them equally. The JSON has
    `frames_per_second` by variant and batch size (the median of five rounds), and `machine`.
    """
    calls: dict[tuple[str, int], Callable[[], object]] = {}
    for variant, model, teacher in zip(view.spec.variants, models, teachers, strict=True):
        scorer = load_scorer(model, teacher, view.evaluation[variant], machine)
        size = scorer.settings.crop or scorer.settings.image_size
        images = np.random.default_rng(0).integers(0, 256, (max(BATCH_SIZES), 3, size, size), dtype=np.uint8)
        for batch in BATCH_SIZES:
            calls[variant, batch] = lambda scorer=scorer, part=images[:batch]: scorer.score(part)
    seconds = take_turns(calls, ROUNDS, 1, scorer.device)
    rates: dict[str, dict[int, float]] = {variant: {} for variant in view.spec.variants}
    for (variant, batch), taken in seconds.items():
        rates[variant][batch] = round(batch / statistics.median(taken), 3)
    content = {"frames_per_second": rates, "machine": describe(scorer.device)}
    write_text(output, json.dumps(content, indent=1) + "\n")


def take_turns(
    calls: dict[Name, Callable[[], object]], rounds: int, repeats: int, device: torch.device
) -> dict[Name, list[float]]:
    """Seconds of one call, by name, with one value for each round. A first round is not timed."""
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
