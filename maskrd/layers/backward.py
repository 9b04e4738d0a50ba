"""The gradient of a chain of layers with respect to its images, written out: exported graphs have no autograd."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskrd.layers.vgg import PooledFeatures


class Run:
    """A run of a network in evaluation mode on images (N, 3, H, W), which keeps what every layer puts out."""

    def __init__(self, network: PooledFeatures, images: Tensor) -> None:
        self.layers = list(network.features)
        self.kept = [images]
        for layer in self.layers:
            self.kept.append(layer(self.kept[-1]))

    @property
    def features(self) -> list[Tensor]:
        """What the network gives: the outputs of its pools, from the second on."""
        outputs = zip(self.layers, self.kept[1:], strict=True)
        return [output for layer, output in outputs if isinstance(layer, nn.MaxPool2d)][1:]

    def input_gradient(self, of_features: Sequence[Tensor]) -> Tensor:
        """(N, 3, H, W), from the gradients with respect to each of `features`."""
        waiting = list(of_features)
        gradient = torch.zeros_like(self.kept[-1])
        for layer, inputs, output in reversed(list(zip(self.layers, self.kept, self.kept[1:], strict=False))):
            if isinstance(layer, nn.MaxPool2d) and waiting:
                gradient = gradient + waiting.pop()
            gradient = through_layer(layer, inputs, output, gradient)
        return gradient


def through_layer(layer: nn.Module, inputs: Tensor, output: Tensor, gradient: Tensor) -> Tensor:
    """The gradient with respect to a layer's input, from that with respect to its output."""
    match layer:
        case nn.Conv2d():
            return F.conv_transpose2d(gradient, layer.weight, padding=layer.padding)
        case nn.BatchNorm2d():
            return gradient * (layer.weight * (layer.running_var + layer.eps).rsqrt())[:, None, None]
        case nn.ReLU():
            return gradient * (output > 0)
        case nn.MaxPool2d():
            return through_pool(inputs, gradient)
    raise TypeError(f"{layer}: no gradient is written out for it")


def through_pool(inputs: Tensor, gradient: Tensor) -> Tensor:
    """Of a pool of 2x2: all goes to the first of a window's largest values, as in torch. An odd line gets nothing."""
    height, width = (2 * length for length in gradient.shape[2:])
    windows = F.pixel_unshuffle(inputs[:, :, :height, :width], 2).unflatten(1, (-1, 4))
    corners = torch.arange(4, device=inputs.device).view(4, 1, 1)
    chosen = windows.argmax(dim=2, keepdim=True) == corners
    spread = F.pixel_shuffle((gradient[:, :, None] * chosen).flatten(1, 2), 2)
    return F.pad(spread, (0, inputs.shape[3] - width, 0, inputs.shape[2] - height))
