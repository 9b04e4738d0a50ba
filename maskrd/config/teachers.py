"""The networks that can be a teacher, as data. `layers` builds them.

Names are those of torchvision and timm. `workflow/sources.yaml` has the addresses of their ImageNet weights. This file
is read while a run is planned, so it never imports torch. To add a ResNet, add a line here and its source there.
"""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Architecture:
    """A residual network: the part of it that teachers and students need.

    `depths` counts the blocks of stages 1 to 4; `width` is the channel count of stage 1 before expansion. In the 3x3
    convolution of bottleneck blocks, `bottleneck_factor` multiplies the channels (2 in WideResNet50-2), and `groups`
    divides them (32 in ResNeXt50).
    """

    family: ClassVar = "ResNet"
    levels: ClassVar = (1, 2, 3)

    title: str
    bottleneck: bool
    depths: tuple[int, int, int, int]
    width: int = 64
    bottleneck_factor: int = 1
    groups: int = 1

    @property
    def expansion(self) -> int:
        return 4 if self.bottleneck else 1

    def planes(self, stage: int) -> int:
        """Channels of a stage (1 to 4) before expansion."""
        return self.width * 2 ** (stage - 1)

    def channels(self, stage: int) -> int:
        """Channels of a stage's output (1 to 4)."""
        return self.planes(stage) * self.expansion


@dataclass(frozen=True)
class VGG:
    """A VGG without its classifier: `blocks` lists the channels of every convolution, block by block.

    Five blocks, each ending in a pool. Levels 1 to 4 are the outputs of pools 2 to 5, at 1/4 to 1/32 of the image size.
    """

    family: ClassVar = "VGG"
    levels: ClassVar = (1, 2, 3, 4)

    title: str
    blocks: tuple[tuple[int, ...], ...]

    def channels(self, level: int) -> int:
        """Channels of a level (1 to 4)."""
        return self.blocks[level][-1]


def _basic(title: str, depths: tuple[int, int, int, int], width: int = 64) -> Architecture:
    return Architecture(title, False, depths, width)


def _bottleneck(
    title: str, depths: tuple[int, int, int, int], width: int = 64, factor: int = 1, groups: int = 1
) -> Architecture:
    return Architecture(title, True, depths, width, factor, groups)


ARCHITECTURES: dict[str, Architecture | VGG] = {
    "resnet18": _basic("ResNet18", (2, 2, 2, 2)),
    "resnet34": _basic("ResNet34", (3, 4, 6, 3)),
    "resnet50": _bottleneck("ResNet50", (3, 4, 6, 3)),
    "resnet101": _bottleneck("ResNet101", (3, 4, 23, 3)),
    "resnet152": _bottleneck("ResNet152", (3, 8, 36, 3)),
    "resnext50_32x4d": _bottleneck("ResNeXt50 (32x4d)", (3, 4, 6, 3), factor=2, groups=32),
    "resnext101_32x8d": _bottleneck("ResNeXt101 (32x8d)", (3, 4, 23, 3), factor=4, groups=32),
    "resnext101_64x4d": _bottleneck("ResNeXt101 (64x4d)", (3, 4, 23, 3), factor=4, groups=64),
    "wide_resnet50_2": _bottleneck("WideResNet50-2", (3, 4, 6, 3), factor=2),
    "wide_resnet101_2": _bottleneck("WideResNet101-2", (3, 4, 23, 3), factor=2),
    "vgg16": VGG("VGG16", ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))),
    # Small stand-ins for the demo, pre-trained on generated textures.
    "demo_resnet18": _basic("Demo ResNet18", (1, 1, 1, 1), width=32),
    "demo_resnet50": _bottleneck("Demo ResNet50", (1, 1, 1, 1), width=8, factor=2),
    "demo_wide_resnet50_2": _bottleneck("Demo WideResNet50", (1, 1, 1, 1), width=8, factor=4),
    "demo_vgg16": VGG("Demo VGG16", ((8, 8), (32, 32), (64, 64), (96, 96), (96, 96))),
}
