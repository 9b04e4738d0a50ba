"""Reverse distillation as published, against counts from its code and against a few lines of torch."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

from maskrd.config.settings import Evaluation, Training
from maskrd.config.teachers import ARCHITECTURES
from maskrd.layers.resnet import count_parameters, init_weights
from maskrd.methods import build_method
from maskrd.methods.base import gaussian_blur
from maskrd.methods.teacher import Teacher
from tests.conftest import training_settings


@pytest.fixture(scope="module")
def settings(default_config) -> Training:
    return training_settings({**default_config["train"], **default_config["variants"]["rd"]})


def test_recipe_is_that_of_the_published_code(settings):
    assert (settings.optimizer, settings.learning_rate, settings.betas, settings.weight_decay) == (
        "adam", 0.005, (0.5, 0.999), 0,
    )  # fmt: skip
    assert (settings.epochs, settings.batch_size, settings.image_size) == (200, 16, 256)


@pytest.mark.parametrize(
    ("backbone", "bottleneck", "decoder"),
    [("resnet18", 11.68, 3.70), ("resnet50", 30.83, 15.82), ("wide_resnet50_2", 58.89, 24.92)],
)
def test_parameters_are_those_of_the_published_code_and_no_others(settings, backbone, bottleneck, decoder):
    with torch.device("meta"):
        method = build_method(settings, Teacher(ARCHITECTURES[backbone]))
    counted = count_parameters(method.msff) + count_parameters(method.oce)
    assert counted / 1e6 == pytest.approx(bottleneck, abs=0.005)
    assert count_parameters(method.decoder) / 1e6 == pytest.approx(decoder, abs=0.005)
    assert count_parameters(method) == counted + count_parameters(method.decoder)


def norm(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    keys = ("running_mean", "running_var", "weight", "bias")
    return F.batch_norm(x, *(weights[f"{name}.{key}"] for key in keys))


def conv(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    if weight.shape[-1] == 2:
        return F.conv_transpose2d(x, weight, stride=2)
    return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)


def block(x: Tensor, weights: dict[str, Tensor], name: str, stride: int) -> Tensor:
    """A residual block of two or three convolutions, of which the last but one changes the size."""
    count, y = 3 if f"{name}.conv3.weight" in weights else 2, x
    for k in range(1, count + 1):
        y = norm(conv(y, weights[f"{name}.conv{k}.weight"], stride if k == count - 1 else 1), weights, f"{name}.bn{k}")
        y = y.relu() if k < count else y
    for shortcut in (f"{name}.downsample", f"{name}.upsample"):
        if f"{shortcut}.0.weight" in weights:
            x = norm(conv(x, weights[f"{shortcut}.0.weight"], stride), weights, f"{shortcut}.1")
    return (x + y).relu()


def reference_maps(weights: dict[str, Tensor], features: list[Tensor], side: int) -> np.ndarray:
    """RD's blurred anomaly maps from a student's weights, for backbones of one block a stage."""

    def halve(x: Tensor, name: str) -> Tensor:
        return norm(conv(x, weights[f"{name}.0.weight"], 2), weights, f"{name}.1").relu()

    first, second, third = features
    fused = [halve(halve(first, "msff.down1.0"), "msff.down1.1"), halve(second, "msff.down2"), third]
    x, total = block(torch.cat(fused, 1), weights, "oce.0", 2), 0
    for level, teacher in ((3, third), (2, second), (1, first)):
        x = block(x, weights, f"decoder.stages.{level}.0", 1)
        distance = 1 - (teacher * x).sum(1) / (teacher.norm(dim=1) * x.norm(dim=1))
        total += F.interpolate(distance[:, None], size=side, mode="bilinear", align_corners=True)[:, 0]
    return np.stack([gaussian_filter(part, 4) for part in total.numpy()])


@pytest.mark.parametrize("backbone", ["demo_resnet18", "demo_wide_resnet50_2"])
def test_same_weights_give_the_same_maps_as_a_reference(settings, default_config, backbone):
    generator = torch.manual_seed(0)
    teacher = Teacher(ARCHITECTURES[backbone])
    init_weights(teacher.pyramid)
    method = build_method(settings, teacher).eval()
    for name, value in method.state_dict().items():
        if value.ndim == 1:  # norms: fresh ones would hide a forgotten mean or scale
            value.copy_(0.5 + torch.rand(value.shape, generator=generator) * (0.2 if "mean" in name else 1))
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    evaluation = Evaluation(**default_config["evaluation"])
    with torch.no_grad():
        features = teacher(images)
        maps = gaussian_blur(method.anomaly_maps(images, features, evaluation), evaluation.blur_sigma)
        expected = reference_maps(method.state_dict(), features, side=64)
    assert expected.std() > 1e-3
    np.testing.assert_allclose(maps.numpy(), expected, rtol=1e-4, atol=1e-5)
