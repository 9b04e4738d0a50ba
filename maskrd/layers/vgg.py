"""VGG networks, in plain torch, as teachers (MKD).

Parameter names follow torchvision and timm, so their ImageNet weights load as they are.
"""

from collections.abc import Iterator

from torch import Tensor, nn

from maskrd.config.teachers import VGG


class PooledFeatures(nn.Module):
    """A chain of layers: images (N, 3, H, W) to the outputs of its pools, from the second pool on."""

    def __init__(self, layers: Iterator[nn.Module]) -> None:
        super().__init__()
        self.features = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> list[Tensor]:
        x, pooled = images, []
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.MaxPool2d):
                pooled.append(x)
        return pooled[1:]


class VGGPyramid(PooledFeatures):
    """The convolutions and pools of a VGG: images (N, 3, H, W) to features at 1/4, 1/8, 1/16 and 1/32."""

    def __init__(self, architecture: VGG) -> None:
        super().__init__(vgg_layers(architecture))


def vgg_layers(architecture: VGG) -> Iterator[nn.Module]:
    inputs = 3
    for block in architecture.blocks:
        for channels in block:
            yield nn.Conv2d(inputs, channels, 3, padding=1)
            yield nn.ReLU(inplace=True)
            inputs = channels
        yield nn.MaxPool2d(2)
