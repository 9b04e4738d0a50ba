"""VGG networks, in plain torch, as teachers (MKD).

Parameter names follow torchvision and timm, so their ImageNet weights load as they are.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn


@dataclass(frozen=True)
class VGG:
    """A VGG without its classifier: `blocks` lists the channels of every convolution, block by block.

    Five blocks, each ending in a pool. The pools 2 to 5 put out levels 1 to 4, at 1/4 to 1/32.
    """

    levels: ClassVar = (1, 2, 3, 4)

    blocks: tuple[tuple[int, ...], ...]

    def channels(self, level: int) -> int:
        """Channels of a level (1 to 4)."""
        return self.blocks[level][-1]

    def build(self) -> "VGGPyramid":
        return VGGPyramid(self)


ARCHITECTURES = {
    "vgg16": VGG(blocks=((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))),
    # A small stand-in for the demo.
    "demo_vgg16": VGG(blocks=((8, 8), (32, 32), (64, 64), (96, 96), (96, 96))),
}


class PooledFeatures(nn.Module):
    """A chain of layers: images (N, 3, H, W) to what its pools put out, from the second on."""

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
