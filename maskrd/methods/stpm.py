"""STPM, student-teacher feature pyramid matching (Wang et al., BMVC 2021; `gdwang08/STFPM`)."""

from math import prod

import torch.nn.functional as F
from torch import Tensor

from maskrd.config.methods import STPMSettings
from maskrd.config.settings import Evaluation
from maskrd.layers.resnet import init_weights
from maskrd.methods.base import Method, fuse, resize
from maskrd.methods.teacher import Teacher, build_pyramid


class STPM(Method):
    """The student has the teacher's architecture, starts untrained, and sees the image itself."""

    capturable = True

    def __init__(self, settings: STPMSettings, teacher: Teacher) -> None:
        super().__init__(settings, teacher)
        self.student = build_pyramid(teacher.architecture)
        init_weights(self.student)

    def distances(self, images: Tensor, features: list[Tensor]) -> dict[int, Tensor]:
        """Of each level of `layers`, float32 (N, h, w) in [0, 4]."""
        student = self.student(self.teacher.normalize(images))
        return {k: normalized_squared_distance(features[k - 1], student[k - 1]) for k in self.settings.layers}

    def distances_at_level1(self, images: Tensor, features: list[Tensor]) -> dict[int, Tensor]:
        """Float32 (N, H/4, W/4): the size at which the authors' code multiplies the levels."""
        return {k: resize(part, features[0].shape[2:]) for k, part in self.distances(images, features).items()}

    def loss(self, images: Tensor, features: list[Tensor]) -> Tensor:
        return sum(distance.mean() for distance in self.distances(images, features).values())

    def validation_loss(self, images: Tensor, features: list[Tensor]) -> Tensor:
        """The mean of the levels' product. The authors' code chooses its checkpoint by it."""
        return prod(self.distances_at_level1(images, features).values()).mean()

    def anomaly_maps(self, images: Tensor, features: list[Tensor], evaluation: Evaluation) -> Tensor:
        return resize(fuse(self.distances_at_level1(images, features), evaluation), images.shape[2:])


def normalized_squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """Squared Euclidean distance of unit vectors at every position, that is 2 (1 - cosine).

    (N, C, H, W) twice to float32 (N, H, W).
    """
    return (F.normalize(a.float(), dim=1) - F.normalize(b.float(), dim=1)).square().sum(dim=1)
