"""SCConv and SimAM against literal implementations of their papers' formulas."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from maskrd.layers.resnet import init_weights
from maskrd.layers.scconv import CRU, SRU, SCConv
from maskrd.layers.simam import SimAM


def test_simam_is_the_inverse_of_the_papers_energy():
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    expected = np.empty(x.shape)
    for n in range(2):
        for c in range(3):
            channel = x[n, c].numpy()
            mean, variance = channel.mean(), channel.var(ddof=1)
            for position in np.ndindex(channel.shape):
                target = channel[position]
                energy = 4 * (variance + 1e-4) / ((target - mean) ** 2 + 2 * variance + 2 * 1e-4)
                expected[(n, c, *position)] = target / (1 + np.exp(-1 / energy))
    np.testing.assert_allclose(SimAM()(x), expected, rtol=1e-10)


def test_simam_of_a_single_position_is_finite():
    assert SimAM()(torch.randn(2, 3, 1, 1)).isfinite().all()


@pytest.fixture
def sru_and_input():
    torch.manual_seed(0)
    sru = SRU(8, groups=4).double()
    nn.init.uniform_(sru.norm.weight, -0.5, 1.5)
    nn.init.uniform_(sru.norm.bias, -0.5, 0.5)
    return sru, torch.randn(2, 8, 3, 4, dtype=torch.float64)


def test_sru_crosses_informative_and_redundant_positions(sru_and_input):
    sru, x = sru_and_input
    gamma, beta = sru.norm.weight.detach().numpy(), sru.norm.bias.detach().numpy()
    images = x.numpy()
    informative, redundant = np.zeros_like(images), np.zeros_like(images)
    for n, c in np.ndindex(2, 8):
        group = images[n, c // 2 * 2 : c // 2 * 2 + 2]
        normed = (images[n, c] - group.mean()) / np.sqrt(group.var() + 1e-5) * gamma[c] + beta[c]
        for position in np.ndindex(3, 4):
            weight = 1 / (1 + np.exp(-normed[position] * gamma[c] / gamma.sum()))
            chosen = informative if weight > 0.5 else redundant
            chosen[(n, c, *position)] = images[(n, c, *position)]
    expected = np.empty_like(images)
    for n, c in np.ndindex(2, 4):
        expected[n, c] = informative[n, c] + redundant[n, c + 4]
        expected[n, c + 4] = informative[n, c + 4] + redundant[n, c]
    np.testing.assert_allclose(sru(x).detach(), expected, rtol=1e-10)


def test_soft_gate_keeps_the_weights_below_the_threshold(sru_and_input):
    sru, x = sru_and_input
    sru.gate = "soft"
    gamma = sru.norm.weight
    weights = torch.sigmoid(sru.norm(x) * (gamma / gamma.sum()).view(1, -1, 1, 1))
    informative = torch.where(weights > 0.5, torch.ones_like(weights), weights) * x
    redundant = torch.where(weights > 0.5, torch.zeros_like(weights), weights) * x
    first, second = informative.chunk(2, 1)
    other_first, other_second = redundant.chunk(2, 1)
    torch.testing.assert_close(sru(x), torch.cat([first + other_second, second + other_first], 1))


@pytest.mark.parametrize(("gate", "learns"), [("hard", False), ("soft", True)])
def test_gamma_learns_behind_a_soft_gate_only(sru_and_input, gate, learns):
    sru, x = sru_and_input
    sru.gate = gate
    output = sru(x.requires_grad_())
    output.square().sum().backward()
    assert (sru.norm.weight.grad is not None and bool(sru.norm.weight.grad.any())) is learns


def test_scconv_costs_less_than_the_convolution_it_replaces():
    """Section 3.4: SCConv lowers the cost of a standard 3x3 convolution of as many channels."""
    for channels in (128, 256, 1024):
        scconv = sum(parameter.numel() for parameter in SCConv(channels).parameters())
        assert scconv < 0.25 * nn.Conv2d(channels, channels, 3, bias=False).weight.numel()


def test_cru_splits_transforms_and_fuses():
    torch.manual_seed(0)
    cru, x = CRU(16).double(), torch.randn(2, 16, 5, 6, dtype=torch.float64)
    weight = {name: value.detach() for name, value in cru.named_parameters()}
    upper = F.conv2d(x[:, :8], weight["squeeze_upper.weight"])
    lower = F.conv2d(x[:, 8:], weight["squeeze_lower.weight"])
    grouped = [
        F.conv2d(upper[:, 2 * k : 2 * k + 2], weight["group_conv.weight"][8 * k : 8 * k + 8], padding=1) for k in (0, 1)
    ]
    rich = torch.cat(grouped, 1) + weight["group_conv.bias"].view(1, -1, 1, 1)
    rich = rich + F.conv2d(upper, weight["point_conv_upper.weight"])
    cheap = torch.cat([F.conv2d(lower, weight["point_conv_lower.weight"]), lower], 1)
    share = torch.sigmoid(rich.mean((2, 3), keepdim=True) - cheap.mean((2, 3), keepdim=True))  # softmax of two
    torch.testing.assert_close(cru(x).detach(), share * rich + (1 - share) * cheap, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("fusion", "summed"), [("per_channel", 1), ("all_channels", (1, 2))])
def test_fusion_weights_sum_to_one(fusion, summed):
    weights = CRU(16, fusion).weights(torch.randn(2, 16, 5, 6), torch.randn(2, 16, 5, 6))
    assert weights.shape == (2, 2, 16, 1, 1)
    torch.testing.assert_close(weights.sum(summed), torch.ones_like(weights.sum(summed)))


@pytest.mark.parametrize("fusion", ["per_channel", "all_channels"])
def test_simam_acts_only_behind_the_papers_fusion(fusion):
    """The popular softmax over all 2C channels scales SCConv's output down until SimAM's gate is a constant."""
    torch.manual_seed(0)
    scconv = SCConv(1024, fusion)
    init_weights(scconv)
    with torch.no_grad():
        x = scconv(torch.randn(1, 1024, 8, 8).relu())
        spread = SimAM().gate(x).std(dim=(2, 3)).mean()
    assert x.shape == (1, 1024, 8, 8)
    if fusion == "per_channel":
        assert spread > 0.05
    else:
        assert spread < 0.002
