"""The frozen teacher's features of the training images."""

import torch
from torch import Tensor

from maskrd.engine.machine import autocast
from maskrd.methods.teacher import Teacher


class FeatureSource:
    """Features by the position of an image. They are computed once if all of them fit into `cache_gb`.

    The teacher is frozen and images aren't augmented, so kept features equal recomputed ones exactly.
    """

    def __init__(self, teacher: Teacher, images: Tensor, precision: str, batch_size: int, cache_gb: float) -> None:
        self.teacher, self.images, self.precision = teacher, images, precision
        sample = self.compute(images[:1])
        size = sum(feature.nbytes for feature in sample) * len(images)
        self.cache = self.fill(sample, batch_size) if size <= cache_gb * 1e9 else None

    def fill(self, sample: list[Tensor], batch_size: int) -> list[Tensor]:
        """The levels of all images. They are written in place: joining them at the end would need twice the memory."""
        levels = [
            torch.empty(
                (len(self.images), *level.shape[1:]),
                dtype=level.dtype,
                device=level.device,
                memory_format=torch.channels_last,
            )
            for level in sample
        ]
        for start in range(0, len(self.images), batch_size):
            part = slice(start, start + batch_size)
            for level, features in zip(levels, self.compute(self.images[part]), strict=True):
                level[part] = features
        return levels

    def compute(self, images: Tensor) -> list[Tensor]:
        with autocast(images.device, self.precision):
            return self.teacher(images)

    def __call__(self, positions: Tensor) -> list[Tensor]:
        if self.cache is None:
            return self.compute(self.images[positions])
        return [level[positions] for level in self.cache]
