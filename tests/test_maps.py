"""Distances, enlargement and blur of anomaly maps against numpy and scipy."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, map_coordinates

from maskrd.methods.base import cosine_distance, flattened_cosine_distance, gaussian_blur, upsample


def random(*shape):
    return np.random.default_rng(0).normal(size=shape)


# The blur's kernel reaches 16 pixels at sigma 4: several times around maps as small as these.
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 2), (5, 40), (33, 16), (64, 64)])
@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0])
def test_blur_is_scipys_up_to_the_borders(shape, sigma):
    maps = random(2, *shape)
    expected = np.stack([gaussian_filter(part, sigma) for part in maps])
    np.testing.assert_allclose(gaussian_blur(torch.from_numpy(maps), sigma), expected, rtol=1e-12, atol=1e-14)


def test_blur_keeps_float32_and_sigma_0_changes_nothing():
    maps = torch.rand(2, 8, 8)
    assert gaussian_blur(maps, 4).dtype == torch.float32
    assert torch.equal(gaussian_blur(maps, 0), maps)


def test_upsample_is_bilinear_between_aligned_corners():
    maps = random(2, 4, 3)
    rows, columns = np.meshgrid(np.linspace(0, 3, 9), np.linspace(0, 2, 7), indexing="ij")
    expected = np.stack([map_coordinates(part, [rows, columns], order=1) for part in maps])
    np.testing.assert_allclose(upsample(torch.from_numpy(maps), (9, 7)), expected, rtol=1e-12, atol=1e-12)


def test_cosine_distance_is_taken_at_every_position():
    a, b = random(2, 5, 3, 4), random(2, 5, 3, 4)[::-1].copy()
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    distance = cosine_distance(torch.from_numpy(a), torch.from_numpy(b))
    assert distance.dtype == torch.float32
    np.testing.assert_allclose(distance, 1 - (a * b).sum(1) / norms, atol=1e-6)


@pytest.mark.parametrize("distance", [cosine_distance, flattened_cosine_distance])
def test_gradients_of_cosine_distances_are_right(distance):
    """Against finite differences, for both arguments: MKD's go through the teacher, too."""
    torch.manual_seed(0)
    a, b = (torch.randn(2, 5, 3, 2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    weights = torch.randn(distance(a, b).shape)
    (distance(a, b) * weights).sum().backward()
    for x in (a, b):
        steps = torch.eye(x.numel(), dtype=torch.float64).view(-1, *x.shape) * 1e-2
        with torch.no_grad():
            change = [
                ((distance(*(y + s * h if y is x else y for y in (a, b)))) * weights).sum()
                for h in steps
                for s in (1, -1)
            ]
        expected = torch.stack(change).view(-1, 2).diff(dim=1).view(x.shape) / -2e-2
        torch.testing.assert_close(x.grad, expected.double(), rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize(("distance", "dims"), [(cosine_distance, 1), (flattened_cosine_distance, (1, 2, 3))])
def test_cosine_distances_of_bf16_are_computed_in_fp32(distance, dims):
    a, b = (torch.randn(2, 64, 8, 8).bfloat16() for _ in range(2))
    b.requires_grad_()
    found = distance(a, b)
    found.sum().backward()
    x, y = (t.detach().double() for t in (a, b))
    cosine = (x * y).sum(dims) / (x.square().sum(dims) * y.square().sum(dims)).sqrt()
    torch.testing.assert_close(found.double(), 1 - cosine, rtol=1e-5, atol=1e-6)
    assert b.grad.dtype == torch.bfloat16


def test_flattened_cosine_distance_takes_a_map_as_one_vector():
    a, b = random(2, 5, 3, 4), random(2, 5, 3, 4)[::-1].copy()
    vectors = a.reshape(2, -1), b.reshape(2, -1)
    norms = np.linalg.norm(vectors[0], axis=1) * np.linalg.norm(vectors[1], axis=1)
    distance = flattened_cosine_distance(torch.from_numpy(a), torch.from_numpy(b))
    np.testing.assert_allclose(distance, 1 - (vectors[0] * vectors[1]).sum(1) / norms, atol=1e-6)


def test_distances_of_bf16_features_are_float32():
    a = torch.randn(2, 5, 3, 4, dtype=torch.bfloat16)
    assert cosine_distance(a, -a).dtype == flattened_cosine_distance(a, -a).dtype == torch.float32
    torch.testing.assert_close(cosine_distance(a, -a), torch.full((2, 3, 4), 2.0))
