"""MKD, multiresolution knowledge distillation (Salehi et al., CVPR 2021; `rohban-lab/Knowledge_Distillation_AD`)."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from maskrd.config.methods import MKDSettings
from maskrd.config.settings import Evaluation
from maskrd.config.teachers import VGG
from maskrd.layers.backward import Run
from maskrd.layers.vgg import PooledFeatures
from maskrd.methods.base import Method, flattened_cosine_distance
from maskrd.methods.teacher import Teacher

# Levels 1 to 4 of a VGG are the outputs of its pools 2 to 5. All are distilled, the last three scored.
DISTILLED, SCORED = (1, 2, 3, 4), (2, 3, 4)
HIDDEN_CHANNELS = 16


class MKD(Method):
    """A narrow VGG, the cloner, imitates a VGG; the gradient of their distance shows where an image is anomalous."""

    capturable = True
    # A ReLU whose input is almost 0 may open in one program and stay shut in another, and the gradient jumps there.
    export_tolerance = 1e-2

    def __init__(self, settings: MKDSettings, teacher: Teacher) -> None:
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
        differentiate = self.gradient_written_out if torch.compiler.is_exporting() else self.gradient
        gradient, distances = differentiate(self.teacher.normalize(images))
        return gradient.abs().sum(dim=1), distances if evaluation.score == "loss" else None

    def gradient(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Of normalised images (N, 3, H, W): the gradient of each one's distance, of their shape; distances (N,)."""
        with torch.enable_grad():
            inputs.requires_grad_()
            # The gradient goes through the teacher, too.
            distances = self.distances(self.teacher.pyramid(inputs), self.cloner(inputs), SCORED)
            (gradient,) = torch.autograd.grad(distances.sum(), inputs)
        return gradient, distances.detach()

    def gradient_written_out(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """What `gradient` gives, in the operations of a graph without autograd."""
        teacher, cloner = (Run(network, inputs) for network in (self.teacher.pyramid, self.cloner))
        source, clone = ([run.features[k - 1] for k in SCORED] for run in (teacher, cloner))
        total = teacher.input_gradient(list(map(self.distance_gradient, source, clone)))
        total = total + cloner.input_gradient(list(map(self.distance_gradient, clone, source)))
        return total, self.distances(teacher.features, cloner.features, SCORED)

    def distance_gradient(self, own: Tensor, other: Tensor) -> Tensor:
        """Of one level's part of `distances`, with respect to one of its two features: both and it (N, C, h, w)."""
        dims = (1, 2, 3)
        length, other_length = (torch.linalg.vector_norm(x, dim=dims, keepdim=True) for x in (own, other))
        across = length.clamp_min(1e-8) * other_length.clamp_min(1e-8)
        cosine = (own * other).sum(dim=dims, keepdim=True) / across
        direction = own * cosine / length.clamp_min(1e-8) ** 2 - other / across
        return direction + 2 * self.settings.mse_weight / own[0].numel() * (own - other)


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
