"""MSFD: receptive fields, Gaussian upsampling, the combined distance."""

import pytest
import torch
import torch.nn.functional as F

from maskrd.config.teachers import ARCHITECTURES, Architecture
from maskrd.layers.resnet import FeaturePyramid, count_parameters
from maskrd.methods import build_method
from maskrd.methods.msfd import ReceptiveField, combined_distance, gaussian_upsample, receptive_fields
from maskrd.methods.teacher import Teacher

TINY = Architecture("Tiny", bottleneck=False, depths=(1, 1, 1, 1), width=16)


@pytest.mark.parametrize(
    ("backbone", "sizes"),
    [("resnet18", (43, 99, 211)), ("resnet50", (35, 91, 267)), ("wide_resnet50_2", (35, 91, 267))],
)
def test_published_receptive_fields(backbone: str, sizes: tuple[int, ...]) -> None:
    fields = receptive_fields(ARCHITECTURES[backbone])
    assert tuple(field.size for field in fields) == sizes
    assert tuple(field.stride for field in fields) == (4, 8, 16)
    assert all(field.start == 0 for field in fields)


@pytest.mark.parametrize("bottleneck", [False, True])
def test_receptive_fields_are_what_gradients_reach(bottleneck: bool) -> None:
    architecture = Architecture("Tiny", bottleneck=bottleneck, depths=(2, 1, 1, 1), width=8)
    pyramid = FeaturePyramid(architecture).eval()
    pyramid.maxpool = torch.nn.AvgPool2d(3, 2, padding=1)  # a maximum hides the pixels that lose
    for parameter in pyramid.parameters():
        torch.nn.init.constant_(parameter, 0.1)
    for field, level in zip(receptive_fields(architecture), range(3), strict=True):
        images = torch.full((1, 3, 256, 256), 0.1, dtype=torch.float64, requires_grad=True)
        feature = pyramid.double()(images)[level]
        place = feature.shape[2] // 2
        feature[0, 0, place, place].backward()
        reached = images.grad[0, 0].abs().sum(dim=0).nonzero().flatten()
        centre = field.start + field.stride * place
        assert (reached[0].item(), reached[-1].item()) == (centre - field.size // 2, centre + field.size // 2)


@pytest.mark.parametrize("field", [ReceptiveField(43, 4, 0), ReceptiveField(51, 8, 3)])
def test_upsampling_is_a_transposed_convolution(field: ReceptiveField) -> None:
    maps = torch.rand(2, 9, 7, generator=torch.Generator().manual_seed(0))
    height, width = 9 * field.stride, 7 * field.stride
    reach, std = field.size // 2, 6
    line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / std) ** 2)
    kernel = (line[:, None] * line)[None, None]

    def spread(values: torch.Tensor) -> torch.Tensor:
        full = F.conv_transpose2d(values[:, None], kernel, stride=field.stride)[:, 0]
        first = reach - int(field.start)
        return F.pad(full, (0, 64, 0, 64))[:, first : first + height, first : first + width]

    expected = spread(maps) / spread(torch.ones_like(maps))
    torch.testing.assert_close(gaussian_upsample(maps, field, std, (height, width)), expected, rtol=1e-5, atol=1e-6)


def test_levels_keep_their_scale() -> None:
    for field, side in zip(receptive_fields(ARCHITECTURES["resnet18"]), (64, 32, 16), strict=True):
        torch.testing.assert_close(
            gaussian_upsample(torch.full((1, side, side), 0.7), field, 12, (256, 256)), torch.full((1, 256, 256), 0.7)
        )


def test_a_spot_stays_where_it_was() -> None:
    for field, side in zip(receptive_fields(ARCHITECTURES["resnet18"]), (64, 32, 16), strict=True):
        maps = torch.zeros(1, side, side)
        maps[0, side // 4, side // 2] = 1
        spot = gaussian_upsample(maps, field, 12, (256, 256))[0]
        pixels = torch.arange(256.0)
        centre = [((line * pixels).sum() / line.sum()).item() for line in (spot.sum(1), spot.sum(0))]
        assert centre == pytest.approx([64, 128], abs=0.01)


def test_combined_distance() -> None:
    a, b = torch.tensor([3.0, 4.0]), torch.tensor([4.0, 3.0])
    distance = combined_distance(a.view(1, 2, 1, 1), b.view(1, 2, 1, 1), cosine_weight=2)
    assert distance.item() == pytest.approx((1 + 1) / 2 + 2 * (1 - 24 / 25))
    # Not of unit vectors: longer features are further apart.
    assert combined_distance(10 * a.view(1, 2, 1, 1), 10 * b.view(1, 2, 1, 1), 0).item() == pytest.approx(100)


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_student_is_the_teachers_twin(recipe, backbone: str) -> None:
    teacher = Teacher(ARCHITECTURES[backbone])
    method = build_method(recipe(method="msfd"), teacher)
    assert count_parameters(method) == count_parameters(teacher.pyramid)


def test_teacher_as_student_has_no_distance(recipe, evaluation) -> None:
    teacher = Teacher(TINY)
    method = build_method(recipe(method="msfd"), teacher).eval()
    method.student.load_state_dict(teacher.pyramid.state_dict())
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    maps = method.anomaly_maps(images, teacher(images), evaluation())
    assert maps.shape == (2, 64, 64)
    torch.testing.assert_close(maps, torch.zeros_like(maps), rtol=0, atol=1e-5)


def test_training_lowers_the_loss(recipe) -> None:
    torch.manual_seed(0)
    teacher = Teacher(TINY)
    method = build_method(recipe(method="msfd"), teacher)
    images = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
    features = teacher(images)
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-3)
    before = method.loss(images, features)
    before.backward()
    optimizer.step()
    assert method.loss(images, features).item() < before.item()
