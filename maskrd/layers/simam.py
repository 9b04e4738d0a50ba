"""SimAM, attention without parameters (main paper 3.6; Yang et al., ICML 2021)."""

import torch
from torch import Tensor, nn


class SimAM(nn.Module):
    """Scales every position by how far it stands out from its own channel.

    (N, C, H, W) to the same shape. With d the squared distance to the channel's mean and v the
    channel's variance, the inverse energy is d / (4 (v + `regularizer`)) + 1/2; its sigmoid, the
    gate, is in [0.62, 1).
    """

    def __init__(self, regularizer: float = 1e-4) -> None:
        super().__init__()
        self.regularizer = regularizer

    def gate(self, x: Tensor) -> Tensor:
        distance = (x - x.mean(dim=(2, 3), keepdim=True)).square()
        neighbours = max(x.shape[2] * x.shape[3] - 1, 1)
        variance = distance.sum(dim=(2, 3), keepdim=True) / neighbours
        return torch.sigmoid(distance / (4 * (variance + self.regularizer)) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)
