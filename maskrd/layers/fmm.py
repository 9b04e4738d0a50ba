"""Feature mask generation module (main paper 3.7, after MGD, Yang et al., ECCV 2022)."""

import torch
from torch import Tensor, nn


class FMM(nn.Module):
    """Hides random positions of a student feature and generates the whole feature anew.

    (N, C, H, W) to the same shape: a 1x1 adaptation, a mask shared by all channels that is 0 with
    probability `mask_ratio`, then 3x3 - ReLU - 3x3. The rest is not rescaled, as in MGD.
    """

    def __init__(self, channels: int, mask_ratio: float) -> None:
        super().__init__()
        self.mask_ratio = mask_ratio
        self.adapt = nn.Conv2d(channels, channels, 1)
        self.generate = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor, masked: bool) -> Tensor:
        x = self.adapt(x)
        if masked and self.mask_ratio:
            noise = torch.rand(x.shape[0], 1, *x.shape[2:], device=x.device)
            x = x * (noise >= self.mask_ratio)
        return self.generate(x)
