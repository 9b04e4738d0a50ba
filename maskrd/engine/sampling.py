"""Which images a step sees. All randomness of a training comes from generators seeded by (seed, epoch, step).

So a resumed training repeats an unbroken one without a saved generator state.
"""

import numpy as np
import torch
from torch import Tensor

from maskrd.config.settings import held_out_count
from maskrd.errors import MaskrdError

# Streams of random numbers that must not coincide.
INITIALISATION, SPLIT, ORDER, STEP, TEACHER = range(5)


def random_seed(seed: int, *stream: int) -> int:
    """A seed for torch, different for each training seed and each stream."""
    return int(np.random.SeedSequence([seed, *stream]).generate_state(1)[0])


def permutation(count: int, seed: int, *stream: int) -> Tensor:
    """int64 (count,): the positions 0 to count - 1 in random order."""
    generator = torch.Generator().manual_seed(random_seed(seed, *stream))
    return torch.randperm(count, generator=generator)


def batches(order: Tensor, size: int) -> list[Tensor]:
    """Batches of `size`. A last batch of one image joins the batch before, because BatchNorm needs two."""
    parts = list(order.split(size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def split_validation(count: int, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Sorted positions of the images to train on, and of the held-out normal images. Test images are never used.

    Raises MaskrdError if `fraction` leaves no image to validate on, or fewer than two to train on.
    """
    order = permutation(count, seed, SPLIT)
    held_out = held_out_count(count, fraction)
    if fraction and not 0 < held_out < count - 1:
        raise MaskrdError(
            f"validation_fraction {fraction} of {count} images leaves too few images to validate or to train on. "
            "Change the fraction, or add normal images."
        )
    return order[held_out:].sort().values, order[:held_out].sort().values
