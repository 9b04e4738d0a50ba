"""MKD, multiresolution knowledge distillation (Salehi et al., CVPR 2021; `rohban-lab/Knowledge_Distillation_AD`)."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from maskrd.experiment import Evaluation, Training
from maskrd.layers.vgg import VGG, PooledFeatures
from maskrd.methods.base import Method, flattened_cosine_distance
from maskrd.teacher import Teacher

# Levels 1 to 4 of a VGG are the outputs of its pools 2 to 5. All are distilled, the last three scored.
DISTILLED, SCORED = (1, 2, 3, 4), (2, 3, 4)
HIDDEN_CHANNELS = 16


class MKD(Method):
    """A narrow VGG, the cloner, imitates a VGG; the gradient of their distance shows where an image is anomalous."""

    def __init__(self, settings: Training, teacher: Teacher) -> None:
        super().__init__(settings, teacher)
        self.cloner = PooledFeatures(cloner_layers(teacher.architecture))
        for part in self.cloner.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.xavier_uniform_(part.weight)

    def distances(self, source: list[Tensor], clone: list[Tensor], levels: tuple[int, ...]) -> Tensor:
        """Direction plus `mse_weight` times squared error, summed over levels: float32 (N,)."""
        direction = sum(flattened_cosine_distance(source[k - 1], clone[k - 1]) for k in levels)
        value = sum((source[k - 1].float() - clone[k - 1].float()).square().mean(dim=(1, 2, 3)) for k in levels)
        return direction + self.settings.mse_weight * value

    def loss(self, images: Tensor, features: list[Tensor]) -> Tensor:
        clone = self.cloner(self.teacher.normalize(images))
        return self.distances(features, clone, DISTILLED).mean()

    def maps_and_scores(self, images: Tensor, evaluation: Evaluation) -> tuple[Tensor, Tensor | None]:
        """Absolute gradient of the distance with respect to the image, summed over colours; the distance itself."""
        with torch.enable_grad():
            inputs = self.teacher.normalize(images).requires_grad_()
            # The gradient goes through the teacher, too.
            distances = self.distances(self.teacher.pyramid(inputs), self.cloner(inputs), SCORED)
            (gradient,) = torch.autograd.grad(distances.sum(), inputs)
        return gradient.abs().sum(dim=1), distances.detach() if evaluation.score == "loss" else None


def cloner_layers(teacher: VGG) -> Iterator[nn.Module]:
    """The teacher's layers with few channels but where its features are distilled.

    Without biases; a BatchNorm after each convolution but the last of a block, as in the authors' code.
    """
    inputs = 3
    for number, block in enumerate(teacher.blocks):
        outputs = HIDDEN_CHANNELS if number == 0 else block[-1]
        for position in range(len(block)):
            last = position == len(block) - 1
            channels = outputs if last else HIDDEN_CHANNELS
            yield nn.Conv2d(inputs, channels, 3, padding=1, bias=False)
            if not last:
                yield nn.BatchNorm2d(channels)
            yield nn.ReLU(inplace=True)
            inputs = channels
        yield nn.MaxPool2d(2)
