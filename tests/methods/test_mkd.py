"""MKD's cloner, loss, score and gradient maps; VGG teachers."""

import numpy as np
import pytest
import torch
from torch import nn

from maskrd.config.load import parse_experiment
from maskrd.config.teachers import ARCHITECTURES
from maskrd.data.samples import Samples
from maskrd.demo.teachers import pretrain
from maskrd.errors import MaskrdError
from maskrd.layers.resnet import init_weights
from maskrd.methods.mkd import MKD
from maskrd.methods.teacher import Teacher, build_pyramid, check_against_timm, export_teacher, load_teacher


@pytest.fixture(scope="module")
def variant(default_config):
    return parse_experiment(default_config).recipe("mvtec_ad", "mkd")


@pytest.fixture(scope="module")
def method(variant) -> MKD:
    torch.manual_seed(0)
    teacher = Teacher(ARCHITECTURES["demo_vgg16"], normalize=False)
    init_weights(teacher.pyramid)
    return MKD(variant.training, teacher).eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def distance(method: MKD, image: torch.Tensor, levels: range) -> torch.Tensor:
    """Of one normalised image (3, H, W): 1 - cosine plus half the mean squared error, summed over levels."""
    source, clone = method.teacher.pyramid(image[None]), method.cloner(image[None])
    total = torch.zeros(())
    for level in levels:
        a, b = source[level].reshape(-1), clone[level].reshape(-1)
        total = total + 1 - a @ b / (a.norm() * b.norm()) + 0.5 * (a - b).square().sum() / len(a)
    return total


def test_cloner_has_the_published_widths(variant):
    layers = list(MKD(variant.training, Teacher(ARCHITECTURES["vgg16"])).cloner.features)
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [
        16, 16, 16, 128, 16, 16, 256, 16, 16, 512, 16, 16, 512,
    ]  # fmt: skip
    assert all(layer.bias is None for layer in convolutions)
    followed = [type(layers[layers.index(layer) + 1]) for layer in convolutions]
    last = [1, 3, 6, 9, 12]
    assert followed == [nn.ReLU if position in last else nn.BatchNorm2d for position in range(13)]


def test_loss_has_four_levels_and_the_score_three(variant, method, images):
    with torch.no_grad():
        features = method.teacher(images)
        loss = method.loss(images, features)
        _, scores = method.maps_and_scores(images, variant.evaluation)
        normalized = images / 255
        torch.testing.assert_close(loss, torch.stack([distance(method, x, range(4)) for x in normalized]).mean())
        torch.testing.assert_close(scores, torch.stack([distance(method, x, range(1, 4)) for x in normalized]))


def test_maps_are_gradients_of_the_score(variant, method, images):
    with torch.no_grad():
        maps, _ = method.maps_and_scores(images, variant.evaluation)
    gradients = torch.func.grad(lambda x: distance(method, x, range(1, 4)))
    expected = torch.stack([gradients(x).abs().sum(0) for x in images / 255])
    assert expected.max() > 0
    torch.testing.assert_close(maps, expected, rtol=1e-3, atol=1e-3 * expected.max().item())
    assert all(parameter.grad is None for parameter in method.parameters())


def test_score_may_be_taken_from_the_map(variant, method, images):
    by_map = variant.evaluation.model_copy(update={"score": "max"})
    assert method.maps_and_scores(images, by_map)[1] is None


def test_each_network_runs_once_a_test(variant, method, images):
    runs = []
    for name, network in (("teacher", method.teacher.pyramid), ("cloner", method.cloner)):
        network.register_forward_hook(lambda *_, name=name: runs.append(name))
    method.maps_and_scores(images, variant.evaluation)
    assert sorted(runs) == ["cloner", "teacher"]


def test_images_stay_between_0_and_1_without_normalisation(method):
    extremes = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 1, 1)
    assert method.teacher.normalize(extremes).flatten(1).tolist() == [[0] * 3, [1] * 3]


def test_cropping_keeps_the_centre_of_images_and_masks():
    images = np.arange(2 * 3 * 8 * 8, dtype=np.uint8).reshape(2, 3, 8, 8)
    masks = images[:, 0] > 9
    cropped = Samples((), images, masks).cropped(4)
    assert np.array_equal(cropped.images, images[:, :, 2:6, 2:6])
    assert np.array_equal(cropped.masks, masks[:, 2:6, 2:6])
    assert Samples((), images, None).cropped(4).masks is None


def test_the_demos_vgg_is_pretrained_like_the_other_teachers(tmp_path):
    path = tmp_path / "demo_vgg16.safetensors"
    losses = pretrain({"demo_vgg16": path}, threads=1, images=128, steps=6)["demo_vgg16"]
    assert losses[-1] < losses[0]
    assert load_teacher(path)[0].architecture is ARCHITECTURES["demo_vgg16"]


@pytest.fixture(scope="module")
def vgg16() -> nn.Module:
    torch.manual_seed(0)
    pyramid = build_pyramid(ARCHITECTURES["vgg16"]).eval()
    init_weights(pyramid)
    return pyramid


def test_vgg16_weights_with_a_classifier_become_a_teacher_with_timms_features(vgg16, tmp_path):
    torch.save({**vgg16.state_dict(), "classifier.0.weight": torch.zeros(2, 2)}, tmp_path / "vgg16.pth")
    export_teacher("vgg16", tmp_path / "vgg16.pth", tmp_path / "teacher.safetensors")
    teacher, description = load_teacher(tmp_path / "teacher.safetensors")
    assert description.backbone == "vgg16"
    shapes = [tuple(feature.shape) for feature in teacher(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))]
    assert shapes == [(1, 128, 16, 16), (1, 256, 8, 8), (1, 512, 4, 4), (1, 512, 2, 2)]


def test_features_unlike_timms_are_refused(vgg16):
    state = {name: value.clone() for name, value in vgg16.state_dict().items()}
    state["features.28.weight"] *= 1.01
    with pytest.raises(MaskrdError, match="differ from timm's"):
        check_against_timm("vgg16", state, vgg16)


@pytest.mark.parametrize("side", [64, 74])  # 74 becomes 37, whose last line no window of the next pool covers
def test_the_gradient_written_out_is_that_of_autograd(variant, side):
    torch.manual_seed(0)
    teacher = Teacher(ARCHITECTURES["demo_vgg16"], normalize=False)
    init_weights(teacher.pyramid)
    method = MKD(variant.training, teacher).double().eval()
    teacher.double()
    for norm in (part for part in method.cloner.modules() if isinstance(part, nn.BatchNorm2d)):
        norm.running_var.uniform_(0.5, 2)
        nn.init.uniform_(norm.weight, 0.5, 2)
    images = torch.rand(3, 3, side, side, dtype=torch.float64)
    images[1] = 0.5  # all values of a window are equal: which one gets the gradient?
    images[2] = (images[2] > 0.5) * 1.0
    expected, distances = method.gradient(images.clone())
    with torch.no_grad():
        gradient, scores = method.gradient_written_out(images)
    assert expected.abs().amax(dim=(1, 2, 3)).min() > 0
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6 * expected.abs().max().item())
    torch.testing.assert_close(scores, distances)
