"""Feature mask generation module (main paper 3.7, after MGD, Yang et al., ECCV 2022)."""

import torch
from torch import Tensor, nn

# CUDA's generator gives equal numbers on all cards if each card has a thread for every number. The smallest card that
# we know of, a slice of an A100, has 14 multiprocessors of 2048 threads.
DRAWN_AT_A_TIME = 2**14


def draw_noise(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Uniform noise in [0, 1). On a CPU it equals torch.rand's. On GPUs, cards of any size give equal noise."""
    noise = torch.empty(shape, device=device)
    for part in noise.view(-1).split(DRAWN_AT_A_TIME):
        part.uniform_()
    return noise


class FMM(nn.Module):
    """Hides random positions of a student feature and generates the whole feature again.

    (N, C, H, W) to the same shape: a 1x1 adaptation, a mask shared by all channels that is 0 with
    probability `mask_ratio`, then 3x3 - ReLU - 3x3. Kept values are not rescaled, as in MGD.
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
            noise = draw_noise((x.shape[0], 1, *x.shape[2:]), x.device)
            x = x * (noise >= self.mask_ratio)
        return self.generate(x)
