"""Contextual Transformer block, CoT (Li et al., TPAMI 2022; code: JDAI-CV/CoTNet)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskrd.layers.resnet import conv

KERNEL = 3
# Channels of the values that share a local attention map.
SHARED = 8


class CoT(nn.Module):
    """Self-attention over 3x3 neighbourhoods, guided by their static context: a 3x3 convolution's replacement.

    (N, C, H, W) to the same shape, C a multiple of 8. A grouped convolution gives the static context K1.
    From it and the input, two 1x1 convolutions draw 9 weights a position for each of C/8 maps; with them
    the neighbours' values are summed up to the dynamic context K2. Attention over channels weighs K1 and K2.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        maps, squeezed = channels // SHARED, max(channels // 2, 32)
        self.static_context = nn.Sequential(
            nn.Conv2d(channels, channels, KERNEL, padding=KERNEL // 2, groups=4, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        )
        self.weights = nn.Sequential(
            conv(2 * channels, channels // 2, 1),
            nn.BatchNorm2d(channels // 2),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels // 2, maps * KERNEL**2, 1),
            nn.GroupNorm(maps, maps * KERNEL**2),
        )
        self.values = nn.Sequential(conv(channels, channels, 1), nn.BatchNorm2d(channels))
        self.activation = nn.Sequential(nn.BatchNorm2d(channels), nn.SiLU(inplace=True))
        self.attention = nn.Sequential(
            nn.Conv2d(channels, squeezed, 1),
            nn.BatchNorm2d(squeezed),
            nn.ReLU(inplace=True),
            nn.Conv2d(squeezed, 2 * channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        static = self.static_context(x)
        weights = self.weights(torch.cat([x, static], dim=1))
        dynamic = self.activation(aggregate(self.values(x), weights))
        pooled = (static + dynamic).mean(dim=(2, 3), keepdim=True)
        # (N, C, 2, 1, 1): how much of K1 and K2 each channel takes.
        shares = self.attention(pooled).unflatten(1, (-1, 2)).softmax(dim=2)
        return static * shares[:, :, 0] + dynamic * shares[:, :, 1]


def aggregate(values: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums over 3x3 neighbourhoods, with zeros beyond the border.

    Values (N, C, H, W) and weights (N, 9 C/8, H, W), the 9 taps of a map side by side; channel c takes the
    map c mod C/8. Result (N, C, H, W). Nine shifted products need a ninth of unfolding's memory.
    """
    height, width = values.shape[2:]
    maps = weights.shape[1] // KERNEL**2
    # Channels last, as the networks run: (N, H + 2, W + 2, 8, C/8) and (9, N, H, W, 1, C/8).
    padded = F.pad(values, (1, 1, 1, 1)).permute(0, 2, 3, 1).unflatten(3, (-1, maps))
    taps = weights.to(values.dtype).permute(0, 2, 3, 1).unflatten(3, (1, maps, KERNEL**2)).movedim(5, 0).contiguous()
    rows_and_columns = (divmod(tap, KERNEL) for tap in range(KERNEL**2))
    shifted = (padded[:, row : row + height, column : column + width] for row, column in rows_and_columns)
    total = sum(neighbours * tap for neighbours, tap in zip(shifted, taps, strict=True))
    return total.flatten(3).permute(0, 3, 1, 2)
