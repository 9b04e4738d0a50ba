"""Multi-scale feature fusion, the entry of the bottleneck (main paper 3.3)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from maskrd.config.teachers import Architecture
from maskrd.layers.resnet import conv


def downsample(inputs: int, outputs: int) -> nn.Sequential:
    """Halves height and width: 3x3 convolution of stride 2, BatchNorm, ReLU."""
    return nn.Sequential(conv(inputs, outputs, 3, stride=2), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def reconstructing_downsample(inputs: int, outputs: int, block: nn.Module) -> nn.Sequential:
    """`downsample` with `block` instead of the 3x3 convolution.

    `block` keeps size and channels. So an average pool halves height and width, and a 1x1 convolution changes the
    channels.
    """
    return nn.Sequential(
        nn.AvgPool2d(2), block, conv(inputs, outputs, 1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class MSFF(nn.Module):
    """Brings the three teacher features to the size of the deepest one and concatenates them.

    Features (N, C1, H, W), (N, C2, H/2, W/2), (N, C3, H/4, W/4) become (N, 3 C3, H/4, W/4); with
    `channels`, a 1x1 convolution, BatchNorm and ReLU compress that to (N, channels, H/4, W/4).
    The paper has the 1x1; RD4AD's published code leaves it out (`channels=None`). With fewer `layers`, the other levels
    aren't read. The size stays that of level 3, and the concatenation has C3 channels for each layer.

    `block` makes a module for a number of channels, such as SCConv. The module replaces the 3x3 convolutions from C2 to
    C3 channels.
    """

    def __init__(
        self,
        architecture: Architecture,
        channels: int | None,
        layers: Sequence[int] = (1, 2, 3),
        block: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.layers = layers
        c1, c2, c3 = (architecture.channels(level) for level in (1, 2, 3))
        if 1 in layers:
            self.down1 = nn.Sequential(downsample(c1, c2), self.last(c2, c3, block))
        if 2 in layers:
            self.down2 = self.last(c2, c3, block)
        width = len(layers) * c3
        self.out_channels = channels or width
        self.compress: nn.Module = nn.Identity()
        if channels:
            self.compress = nn.Sequential(conv(width, channels, 1), nn.BatchNorm2d(channels), nn.ReLU(inplace=True))

    @staticmethod
    def last(inputs: int, outputs: int, block: Callable[[int], nn.Module] | None) -> nn.Sequential:
        return reconstructing_downsample(inputs, outputs, block(inputs)) if block else downsample(inputs, outputs)

    def forward(self, features: list[Tensor]) -> Tensor:
        f1, f2, f3 = features
        parts = []
        if 1 in self.layers:
            parts.append(self.down1(f1))
        if 2 in self.layers:
            parts.append(self.down2(f2))
        if 3 in self.layers:
            parts.append(f3)
        return self.compress(torch.cat(parts, dim=1))
