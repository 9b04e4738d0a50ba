"""PaDiM, patch distribution modelling (Defard et al., ICPR workshops 2021)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from maskrd.config.methods import PaDiMSettings
from maskrd.config.settings import Evaluation
from maskrd.methods.base import Features, OnePassMethod, full_precision, resize
from maskrd.methods.teacher import Teacher

REGULARISER = 0.01  # the paper's epsilon; without it a covariance of few images has no inverse
POSITIONS = 512  # so many are inverted or scored at a time, to limit the memory


class PaDiM(OnePassMethod):
    """A Gaussian for every position of the finest level. The anomaly map is the Mahalanobis distance to it.

    Learned: `mean`, float32 (P, C), and `whitening`, float32 (P, C, C): the inverse of the lower Cholesky factor of
    the covariance. The distance is the length of `whitening @ (x - mean)`.
    """

    learned = ("mean", "whitening")

    def __init__(self, settings: PaDiMSettings, teacher: Teacher) -> None:
        super().__init__(settings, teacher)
        available = sum(teacher.architecture.channels(level) for level in settings.embedding_layers)
        kept = settings.embedding_channels
        if kept == "teacher":
            kept = 550 if teacher.architecture.bottleneck else 100  # of 1792 and 448, in the paper
        self.register_buffer("channels", torch.randperm(available)[:kept].sort().values)

    def embed(self, features: list[Tensor]) -> Tensor:
        """The chosen channels of all levels, on the grid of the finest: float32 (N, P, C)."""
        levels = [features[level - 1].float() for level in self.settings.embedding_layers]
        grid = levels[0].shape[2:]
        joined = torch.cat([levels[0], *(F.interpolate(level, grid) for level in levels[1:])], dim=1)
        return joined[:, self.channels].flatten(2).transpose(1, 2)

    def learn(self, features: Features, batches: Sequence[Tensor]) -> None:
        """Mean and covariance of the training images, in one pass each. So memory doesn't grow with the images."""
        count = sum(len(batch) for batch in batches)
        self.mean = sum(self.embed(features(batch)).sum(dim=0) for batch in batches) / count
        positions, channels = self.mean.shape
        scatter = self.mean.new_zeros(positions, channels, channels)
        with full_precision():
            for batch in batches:
                centred = (self.embed(features(batch)) - self.mean).transpose(0, 1)
                scatter.baddbmm_(centred.transpose(1, 2), centred)
        for part in scatter.split(POSITIONS):  # in place: with many channels one of these fills most of the memory
            part.copy_(whitening_of(part / max(count - 1, 1)))
        self.whitening = scatter

    def anomaly_maps(self, images: Tensor, features: list[Tensor], evaluation: Evaluation) -> Tensor:
        centred = (self.embed(features) - self.mean).transpose(0, 1)
        with full_precision():
            parts = zip(self.whitening.split(POSITIONS), centred.split(POSITIONS), strict=True)
            distances = torch.cat([(part @ whitening.mT).norm(dim=2) for whitening, part in parts])
        grid = features[self.settings.embedding_layers[0] - 1].shape[2:]
        return resize(distances.T.unflatten(1, grid), images.shape[2:])


def whitening_of(covariance: Tensor) -> Tensor:
    """(P, C, C) to the inverse of each lower Cholesky factor, computed in float64, with the paper's regulariser."""
    unit = torch.eye(covariance.shape[-1], dtype=torch.float64, device=covariance.device)
    factor = torch.linalg.cholesky(covariance.double() + REGULARISER * unit)
    return torch.linalg.solve_triangular(factor, unit.expand_as(factor), upper=False).to(covariance.dtype)
