"""MSFD, multi-scale feature distillation (Yao et al., M2VIP 2021).

Only its abstract is public. A student of the teacher's architecture learns features of several levels by a combined
distance. Gaussians of each level's receptive field turn the distances into a heat map. Everything that the abstract
doesn't say is our interpretation.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from maskrd.config.methods import MSFDSettings
from maskrd.config.settings import Evaluation
from maskrd.config.teachers import Architecture
from maskrd.layers.resnet import FeaturePyramid, init_weights
from maskrd.methods.base import Method, cosine_distance, fuse, widest_float
from maskrd.methods.teacher import Teacher


class MultiScaleFeatureDistillation(Method):
    """A randomly initialised twin of the teacher that learns its features on normal images."""

    capturable = True

    def __init__(self, settings: MSFDSettings, teacher: Teacher) -> None:
        super().__init__(settings, teacher)
        self.student = FeaturePyramid(teacher.architecture)
        init_weights(self.student)

    def distances(self, images: Tensor, features: list[Tensor]) -> dict[int, Tensor]:
        """Combined distance of teacher and student at every position, by level: float32 (N, h, w)."""
        student = self.student(self.teacher.normalize(images))
        return {
            level: combined_distance(features[level - 1], student[level - 1], self.settings.cosine_weight)
            for level in self.settings.layers
        }

    def loss(self, images: Tensor, features: list[Tensor]) -> Tensor:
        return sum(distance.mean() for distance in self.distances(images, features).values())

    def anomaly_maps(self, images: Tensor, features: list[Tensor], evaluation: Evaluation) -> Tensor:
        fields = receptive_fields(self.teacher.architecture)
        distances = self.distances(images, features)
        maps = {
            level: gaussian_upsample(distance, fields[level - 1], evaluation.upsampling_std, images.shape[2:])
            for level, distance in distances.items()
        }
        return fuse(maps, evaluation)


def combined_distance(a: Tensor, b: Tensor, cosine_weight: float) -> Tensor:
    """Squared Euclidean distance, averaged over channels, plus `cosine_weight` (1 - cosine).

    (N, C, H, W) twice to float32 (N, H, W). The features aren't normalised: between unit vectors the two
    terms would be the same but for a factor.
    """
    squared = (a.float() - b.float()).square().mean(dim=1)
    return squared + cosine_weight * cosine_distance(a, b)


@dataclass(frozen=True)
class ReceptiveField:
    """The receptive field of positions in a feature map, in pixels along one side.

    Position i sees `size` pixels around the centre `start` + i `stride`.
    """

    size: int
    stride: int
    start: float

    def after(self, kernel: int, stride: int, padding: int) -> "ReceptiveField":
        """The field behind one more convolution or pooling."""
        return ReceptiveField(
            size=self.size + (kernel - 1) * self.stride,
            stride=self.stride * stride,
            start=self.start + ((kernel - 1) / 2 - padding) * self.stride,
        )


def receptive_fields(architecture: Architecture) -> tuple[ReceptiveField, ...]:
    """Of levels 1, 2 and 3, along the path with the most convolutions."""
    field = ReceptiveField(size=1, stride=1, start=0).after(7, 2, 3).after(3, 2, 1)
    fields = []
    for level in (1, 2, 3):
        for kernel, stride in stage_convolutions(architecture, level):
            field = field.after(kernel, stride, kernel // 2)
        fields.append(field)
    return tuple(fields)


def stage_convolutions(architecture: Architecture, level: int) -> Iterator[tuple[int, int]]:
    """Kernel size and stride of a stage's convolutions, in their order."""
    for block in range(architecture.depths[level - 1]):
        stride = 2 if block == 0 and level > 1 else 1
        yield from ((1, 1), (3, stride), (1, 1)) if architecture.bottleneck else ((3, stride), (3, 1))


def gaussian_upsample(maps: Tensor, field: ReceptiveField, std: float, size: tuple[int, int]) -> Tensor:
    """Every position spreads its value over its receptive field: (N, h, w) to (N, *size).

    A transposed convolution with a fixed Gaussian of the field's size, stride and centre (as FCDD,
    Liznerski et al. 2021), divided by what it makes of a map of ones. So levels keep their scale, though a
    deep one has fewer positions, and no border darkens. The Gaussian is separable: two matrix products.
    """
    rows, columns = (
        upsampling_matrix(field, std, length, pixels, maps.device)
        for length, pixels in zip(maps.shape[1:], size, strict=True)
    )
    return (rows @ maps.to(rows.dtype) @ columns.T).float()


@cache
def upsampling_matrix(field: ReceptiveField, std: float, length: int, pixels: int, device: torch.device) -> Tensor:
    """(pixels, length) in `widest_float`: row i holds what every position contributes to pixel i; rows sum to 1."""
    centres = field.start + field.stride * torch.arange(length, dtype=torch.float64, device="cpu")
    distances = (torch.arange(pixels, device="cpu")[:, None] - centres).abs()
    weights = torch.exp(-0.5 * (distances / std) ** 2) * (distances <= (field.size - 1) / 2)
    return (weights / weights.sum(dim=1, keepdim=True)).to(device, widest_float(device))
