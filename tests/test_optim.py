"""Our optimizers are torch's to the last bit, in any order of saving and going on."""

import copy
import io

import pytest
import torch
from torch import nn

from maskrd.engine.optim import SGD, Adam

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
LEARNING_RATE = 0.01
OPTIMIZERS = {
    "adam": (
        lambda p, decay: Adam(p, LEARNING_RATE, (0.5, 0.999), decay),
        lambda p, decay: torch.optim.Adam(p, LEARNING_RATE, (0.5, 0.999), weight_decay=decay, fused=True),
    ),
    "sgd": (
        lambda p, decay: SGD(p, LEARNING_RATE, 0.9, decay),
        lambda p, decay: torch.optim.SGD(p, LEARNING_RATE, 0.9, weight_decay=decay, fused=True),
    ),
    "sgd_without_momentum": (
        lambda p, decay: SGD(p, LEARNING_RATE, 0, decay),
        lambda p, decay: torch.optim.SGD(p, LEARNING_RATE, weight_decay=decay, fused=True),
    ),
}
all_optimizers = pytest.mark.parametrize("name", OPTIMIZERS)
all_devices = pytest.mark.parametrize("device", DEVICES)


def network(device: str) -> nn.Module:
    """Convolutions in channels_last, norms, a bias, and a parameter that no loss reads."""
    torch.manual_seed(0)
    parts = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, bias=False))
    parts.register_parameter("unused", nn.Parameter(torch.ones(3)))
    return parts.to(device, memory_format=torch.channels_last)


def advance(net: nn.Module, optimizer, steps: range) -> None:
    device = next(net.parameters()).device
    for number in steps:
        images = torch.randn(4, 3, 9, 9, generator=torch.Generator().manual_seed(number)).to(device)
        net.zero_grad()
        net(images).square().mean().backward()
        optimizer.step()


def assert_equal(one: nn.Module, two: nn.Module) -> None:
    a, b = one.state_dict(), two.state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)


def saved(optimizer) -> dict:
    """Its state after a way through a file, on the CPU."""
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    return torch.load(file, "cpu", weights_only=True)


@all_devices
@pytest.mark.parametrize("decay", [0, 0.01])
@all_optimizers
def test_weights_are_those_of_torch(name, decay, device):
    build, build_reference = OPTIMIZERS[name]
    ours, reference = network(device), network(device)
    before = copy.deepcopy(ours)
    advance(ours, build(ours.parameters(), decay), range(20))
    advance(reference, build_reference(reference.parameters(), decay), range(20))
    assert_equal(ours, reference)
    assert not torch.equal(ours[0].weight, before[0].weight)
    assert torch.equal(ours.unused, before.unused)


@all_devices
@all_optimizers
def test_a_saved_state_goes_on_as_if_unbroken(name, device):
    build, _ = OPTIMIZERS[name]
    unbroken, stopped = network(device), network(device)
    advance(unbroken, build(unbroken.parameters(), 0.01), range(10))
    first = build(stopped.parameters(), 0.01)
    advance(stopped, first, range(4))
    second = build(stopped.parameters(), 0.01)
    second.load_state_dict(saved(first))
    advance(stopped, second, range(4, 10))
    assert_equal(stopped, unbroken)


@all_optimizers
def test_a_state_of_torch_goes_on_as_if_unbroken(name):
    """States that trainings saved when they still used torch.optim."""
    build, build_reference = OPTIMIZERS[name]
    unbroken, stopped = network("cpu"), network("cpu")
    advance(unbroken, build_reference(unbroken.parameters(), 0.01), range(10))
    reference = build_reference(stopped.parameters(), 0.01)
    advance(stopped, reference, range(4))
    ours = build(stopped.parameters(), 0.01)
    ours.load_state_dict(saved(reference))
    advance(stopped, ours, range(4, 10))
    assert_equal(stopped, unbroken)


def test_loading_forgets_what_was_before():
    net = network("cpu")
    used, fresh = (Adam(net.parameters(), LEARNING_RATE, (0.5, 0.999), 0) for _ in range(2))
    advance(net, used, range(2))
    used.load_state_dict(fresh.state_dict())
    assert used.state_dict() == {"state": {}}


def test_without_gradients_nothing_happens():
    net = network("cpu")
    before = copy.deepcopy(net)
    for build, _ in OPTIMIZERS.values():
        build(net.parameters(), 0.01).step()
    assert_equal(net, before)
