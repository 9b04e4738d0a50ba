"""STPM's distances, product and optimizer."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from maskrd.config.load import parse_experiment
from maskrd.config.settings import Evaluation
from maskrd.config.teachers import ARCHITECTURES
from maskrd.engine.optim import SGD, build_optimizer
from maskrd.layers.resnet import init_weights
from maskrd.methods.stpm import STPM, normalized_squared_distance
from maskrd.methods.teacher import Teacher


@pytest.fixture(scope="module")
def variant(default_config):
    return parse_experiment(default_config).recipe("mvtec_ad", "stpm")


@pytest.fixture(scope="module")
def method(variant) -> STPM:
    torch.manual_seed(0)
    teacher = Teacher(ARCHITECTURES["demo_resnet18"])
    init_weights(teacher.pyramid)
    return STPM(variant.training, teacher).eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def unit_distances(method: STPM, images: torch.Tensor) -> list[np.ndarray]:
    """2 (1 - cosine) at every position, in numpy."""
    with torch.no_grad():
        teacher = method.teacher(images)
        student = method.student(method.teacher.normalize(images))
    pairs = [(a.numpy(), b.numpy()) for a, b in zip(teacher, student, strict=True)]
    return [2 - 2 * (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)) for a, b in pairs]


def test_optimizer_is_the_published_one(variant, method):
    optimizer = build_optimizer(variant.training, method.parameters())
    assert type(optimizer) is SGD
    settings = optimizer.settings
    assert (settings["lr"], settings["momentum"], settings["weight_decay"]) == (0.4, 0.9, 1e-4)


def test_distance_does_not_depend_on_length():
    a, b = torch.randn(2, 8, 3, 3), torch.randn(2, 8, 3, 3)
    expected = normalized_squared_distance(a, b)
    torch.testing.assert_close(normalized_squared_distance(5 * a, 0.1 * b), expected)


def test_loss_is_the_sum_of_the_levels_means(method, images):
    expected = sum(distance.mean() for distance in unit_distances(method, images))
    with torch.no_grad():
        assert method.loss(images, method.teacher(images)).item() == pytest.approx(expected, rel=1e-4)


def test_maps_are_a_product_at_a_quarter_of_the_size(variant, method, images):
    product = 1
    for distance in unit_distances(method, images):
        part = torch.from_numpy(distance)[:, None]
        product = product * F.interpolate(part, size=(16, 16), mode="bilinear", align_corners=False)
    expected = F.interpolate(product, size=(64, 64), mode="bilinear", align_corners=False)[:, 0]
    with torch.no_grad():
        features = method.teacher(images)
        maps = method.anomaly_maps(images, features, variant.evaluation)
        chosen_by = method.validation_loss(images, features).item()
    torch.testing.assert_close(maps, expected, rtol=1e-3, atol=1e-4)
    assert chosen_by == pytest.approx(product.mean().item(), rel=1e-3)


def test_fusion_is_a_setting(variant, method, images):
    summed = Evaluation(**{**variant.evaluation.model_dump(), "map_fusion": "sum"})
    with torch.no_grad():
        features = method.teacher(images)
        expected = sum(part.mean() for part in method.distances_at_level1(images, features).values())
        assert method.anomaly_maps(images, features, summed).mean().item() == pytest.approx(expected.item(), rel=1e-2)
