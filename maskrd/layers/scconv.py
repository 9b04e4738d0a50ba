"""SCConv: spatial and channel reconstruction (main paper 3.5; Li, Wen and He, CVPR 2023).

The authors of SCConv published no code. Where the common unofficial code differs from the papers' text, this follows
the text (docs/decisions.md).
"""

from typing import Literal

import torch
from torch import Tensor, nn

Fusion = Literal["per_channel", "all_channels"]
Gate = Literal["hard", "soft"]


class SRU(nn.Module):
    """Spatial reconstruction unit: splits informative from redundant positions, then crosses them.

    (N, C, H, W) to the same shape; C even and divisible by `groups`. A position is informative
    where sigmoid(GN(x) * gamma / sum(gamma)) exceeds `threshold`, gamma being the group norm's scale.

    A hard `gate` is 1 there and 0 elsewhere (the paper's text); it passes no gradient to gamma. A soft one keeps the
    sigmoid where it doesn't exceed the threshold (the unofficial code), in the informative and the redundant part
    alike, and gamma learns.
    """

    def __init__(self, channels: int, groups: int = 16, threshold: float = 0.5, gate: Gate = "hard") -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)
        self.threshold = threshold
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        gamma = self.norm.weight
        # A sum near zero would make the weights huge, or invert every gate.
        importance = gamma / gamma.sum().clamp(min=1e-6)
        weights = torch.sigmoid(self.norm(x) * importance.view(1, -1, 1, 1))
        exceeds = weights > self.threshold
        if self.gate == "soft":
            below = weights * x
            informative, redundant = torch.where(exceeds, x, below), torch.where(exceeds, 0, below)
        else:
            informative = torch.where(exceeds, x, 0)
            redundant = x - informative
        informative1, informative2 = informative.chunk(2, dim=1)
        redundant1, redundant2 = redundant.chunk(2, dim=1)
        return torch.cat([informative1 + redundant2, informative2 + redundant1], dim=1)


class CRU(nn.Module):
    """Channel reconstruction unit: split, transform, fuse.

    (N, C, H, W) to the same shape; C divisible by 8. The halves of the input are squeezed to C/4;
    the upper goes through a grouped 3x3 and a 1x1 convolution (`rich`), the lower through a 1x1
    and is reused as it is (`cheap`). `fusion` weighs the two: a softmax over the pair for each
    channel (the paper), or one over all 2C channels (the unofficial code), which shrinks the output
    by 1/C until SimAM's gate is a constant.
    """

    def __init__(self, channels: int, fusion: Fusion = "per_channel", groups: int = 2) -> None:
        super().__init__()
        half, quarter = channels // 2, channels // 4
        self.fusion = fusion
        self.squeeze_upper = nn.Conv2d(half, quarter, 1, bias=False)
        self.squeeze_lower = nn.Conv2d(half, quarter, 1, bias=False)
        self.group_conv = nn.Conv2d(quarter, channels, 3, padding=1, groups=groups)
        self.point_conv_upper = nn.Conv2d(quarter, channels, 1, bias=False)
        self.point_conv_lower = nn.Conv2d(quarter, channels - quarter, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        upper, lower = x.chunk(2, dim=1)
        upper, lower = self.squeeze_upper(upper), self.squeeze_lower(lower)
        rich = self.group_conv(upper) + self.point_conv_upper(upper)
        cheap = torch.cat([self.point_conv_lower(lower), lower], dim=1)
        weights = self.weights(rich, cheap)
        return weights[:, 0] * rich + weights[:, 1] * cheap

    def weights(self, rich: Tensor, cheap: Tensor) -> Tensor:
        """Channel soft attention, (N, 2, C, 1, 1), from the globally pooled descriptors."""
        descriptors = torch.stack([rich, cheap], dim=1).float().mean(dim=(3, 4), keepdim=True)
        if self.fusion == "per_channel":
            return descriptors.softmax(dim=1)
        return descriptors.flatten(1, 2).softmax(dim=1).unflatten(1, (2, -1))


class SCConv(nn.Sequential):
    """SRU, then CRU: (N, C, H, W) to the same shape."""

    def __init__(self, channels: int, fusion: Fusion = "per_channel", gate: Gate = "hard") -> None:
        super().__init__(SRU(channels, gate=gate), CRU(channels, fusion))
