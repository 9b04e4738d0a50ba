import math

import pytest
import torch
from torch import nn

from maskrd.layers.fmm import DRAWN_AT_A_TIME, FMM, draw_noise


def bare(mask_ratio: float) -> FMM:
    """FMM's mask alone."""
    fmm = FMM(4, mask_ratio)
    fmm.adapt, fmm.generate = nn.Identity(), nn.Identity()
    return fmm


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
def test_mask_hides_its_share_of_positions_in_all_channels_and_leaves_the_rest(ratio):
    torch.manual_seed(0)
    x = torch.rand(3, 4, 64, 64) + 1
    masked = bare(ratio)(x, masked=True)
    hidden = masked == 0
    assert hidden.float().mean().item() == pytest.approx(ratio, abs=0.02)
    assert (hidden == hidden[:, :1]).all()
    assert torch.equal(masked[~hidden], x[~hidden])
    assert not torch.equal(hidden[0], hidden[1])


@pytest.mark.parametrize(("ratio", "masked"), [(0.5, False), (0.0, True)])
def test_nothing_is_hidden_without_a_mask(ratio, masked):
    x = torch.rand(2, 4, 8, 8)
    assert torch.equal(bare(ratio)(x, masked), x)


def test_generation_fills_hidden_positions_and_keeps_the_shape():
    torch.manual_seed(0)
    fmm = FMM(4, 0.9)
    x = torch.randn(2, 4, 6, 7)
    rebuilt = fmm(x, masked=True)
    assert rebuilt.shape == x.shape
    assert (rebuilt != 0).all()
    torch.manual_seed(1)
    assert not torch.equal(rebuilt, fmm(x, masked=True))


def test_masks_on_a_cpu_are_those_of_one_draw():
    """They are drawn in parts, for GPUs whose numbers would depend on how many multiprocessors there are."""
    shape = (5, 1, 70, 70)
    assert math.prod(shape) > DRAWN_AT_A_TIME
    torch.manual_seed(1)
    parts = draw_noise(shape, torch.device("cpu"))
    torch.manual_seed(1)
    assert torch.equal(parts, torch.rand(shape))
