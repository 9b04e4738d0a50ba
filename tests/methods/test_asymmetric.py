"""The asymmetric network: CoT against a slow reading of it, moving averages against a loop, map fusion."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from maskrd.config.teachers import ARCHITECTURES, Architecture
from maskrd.engine.inputs import load_inputs
from maskrd.engine.loop import Trainer
from maskrd.engine.machine import Machine
from maskrd.engine.scoring import load_scorer
from maskrd.engine.training import train
from maskrd.errors import MaskrdError
from maskrd.layers.cot import CoT, aggregate
from maskrd.layers.resnet import BasicBlock, Bottleneck, count_parameters
from maskrd.methods import build_method
from maskrd.methods.asymmetric import batch_norms, contextual_pyramid
from maskrd.methods.base import fuse
from maskrd.methods.teacher import Teacher, load_teacher

TINY = Architecture("Tiny", bottleneck=False, depths=(1, 1, 1, 1), width=16)


def slow_cot(layer: CoT, x: torch.Tensor) -> torch.Tensor:
    """CoT as its equations read, with loops over positions, channels and taps."""
    static = layer.static_context(x)
    weights = layer.weights(torch.cat([x, static], 1))
    values = layer.values(x)
    count, channels, height, width = x.shape
    attended = torch.zeros_like(values)
    for n in range(count):
        for c in range(channels):
            for i in range(height):
                for j in range(width):
                    for tap in range(9):
                        row, column = i + tap // 3 - 1, j + tap % 3 - 1
                        if 0 <= row < height and 0 <= column < width:
                            weight = weights[n, 9 * (c % (channels // 8)) + tap, i, j]
                            attended[n, c, i, j] += weight * values[n, c, row, column]
    dynamic = layer.activation(attended)
    pooled = F.adaptive_avg_pool2d(static + dynamic, 1)
    shares = layer.attention(pooled).reshape(count, channels, 2).softmax(2)
    return static * shares[:, :, 0, None, None] + dynamic * shares[:, :, 1, None, None]


def test_cot_is_its_equations() -> None:
    torch.manual_seed(0)
    layer = CoT(16).double().eval()
    for norm in (part for part in layer.modules() if isinstance(part, nn.BatchNorm2d)):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 16, 4, 5, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), slow_cot(layer, x))


def test_aggregation_is_unfolding() -> None:
    torch.manual_seed(0)
    values, weights = torch.randn(2, 24, 6, 7), torch.randn(2, 27, 6, 7)
    columns = F.unfold(values, 3, padding=1).view(2, 24, 9, 6, 7)
    shared = weights.view(2, 3, 9, 6, 7).repeat(1, 8, 1, 1, 1)
    torch.testing.assert_close(aggregate(values, weights), (columns * shared).sum(2))


@pytest.mark.parametrize("channels", [16, 64, 128])
def test_cot_parameters(channels: int) -> None:
    """Counted by hand from the layer's definition."""
    c, squeezed = channels, max(channels // 2, 32)
    static = 9 * c * c // 4 + 2 * c
    weights = 2 * c * c // 2 + c + (c // 2 + 1) * 9 * c // 8 + 2 * 9 * c // 8
    values_and_norm = c * c + 2 * c + 2 * c
    attention = (c + 1) * squeezed + 2 * squeezed + (squeezed + 1) * 2 * c
    assert count_parameters(CoT(c)) == static + weights + values_and_norm + attention


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "wide_resnet50_2"])
def test_every_block_has_cot(backbone: str) -> None:
    architecture = ARCHITECTURES[backbone]
    student = contextual_pyramid(architecture)
    blocks = [module for module in student.modules() if isinstance(module, BasicBlock | Bottleneck)]
    assert len(blocks) == sum(architecture.depths[:3])
    assert sum(isinstance(module, CoT) for module in student.modules()) == len(blocks)
    with torch.no_grad():
        shapes = [tuple(feature.shape) for feature in student.eval()(torch.zeros(1, 3, 64, 64))]
    assert shapes == [(1, architecture.channels(level), 64 >> level + 1, 64 >> level + 1) for level in (1, 2, 3)]


def pretrained(architecture: Architecture) -> Teacher:
    """A teacher whose norms look like those of a trained network."""
    teacher = Teacher(architecture)
    for norm in batch_norms(teacher):
        norm.running_mean.normal_(0, 0.1)
        norm.running_var.uniform_(0.5, 1.5)
        norm.weight.uniform_(0.5, 1.5)
    return teacher


def uint8_images(count: int, side: int = 64) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8)


def test_moving_average_is_a_loop_over_batches(recipe) -> None:
    torch.manual_seed(0)
    teacher, images = pretrained(TINY), uint8_images(7)
    positions = torch.tensor([0, 1, 3, 4, 6])
    settings = recipe(method="asymmetric", teacher_norm="moving_average", teacher_norm_passes=2)
    method = build_method(settings, teacher)
    first, rest = teacher.pyramid.bn1, batch_norms(teacher)[1:]
    mean, variance = first.running_mean.clone(), first.running_var.clone()
    before = [norm.running_mean.clone() for norm in rest]
    torch.manual_seed(5)
    orders = [positions[torch.randperm(5)] for _ in range(2)]
    for order in orders:
        for batch in (order[:3], order[3:]):  # five images in batches of at least two
            outputs = F.conv2d(teacher.normalize(images[batch]), teacher.pyramid.conv1.weight, stride=2, padding=3)
            samples = outputs.transpose(0, 1).flatten(1)
            mean = 0.9 * mean + 0.1 * samples.mean(1)
            variance = 0.9 * variance + 0.1 * samples.var(1)
    torch.manual_seed(5)
    method.fit_teacher(images, positions)
    torch.testing.assert_close(first.running_mean, mean)
    torch.testing.assert_close(first.running_var, variance)
    assert all(not torch.equal(norm.running_mean, old) for norm, old in zip(rest, before, strict=True))
    features = teacher(images)
    assert all(torch.equal(a, b) for a, b in zip(features, teacher(images), strict=True)), "frozen afterwards"


def test_statistics_are_normalised_by_themselves_not_by_the_batch(recipe) -> None:
    """With momentum 0 the statistics are those of the last batch, and so the second norm's input is known."""
    torch.manual_seed(0)
    teacher, images = pretrained(TINY), uint8_images(4)
    settings = recipe(
        method="asymmetric", teacher_norm="moving_average", teacher_norm_passes=1, batch_size=4, teacher_norm_momentum=0
    )
    method = build_method(settings, teacher)
    method.fit_teacher(images, torch.arange(4))
    pyramid = teacher.pyramid
    block = pyramid.layer1[0]
    x = pyramid.maxpool(pyramid.relu(pyramid.bn1(pyramid.conv1(teacher.normalize(images)))))
    torch.testing.assert_close(block.bn1.running_mean, block.conv1(x).mean((0, 2, 3)))


def test_weights_of_the_teacher_stay(recipe) -> None:
    torch.manual_seed(0)
    teacher = pretrained(TINY)
    weights = {name: value.clone() for name, value in teacher.named_parameters()}
    method = build_method(recipe(method="asymmetric", teacher_norm="moving_average"), teacher)
    method.fit_teacher(uint8_images(4), torch.arange(4))
    assert all(torch.equal(value, weights[name]) for name, value in teacher.named_parameters())


def test_frozen_norm_changes_nothing(recipe) -> None:
    torch.manual_seed(0)
    teacher, images = pretrained(TINY), uint8_images(4)
    before = teacher(images)
    method = build_method(recipe(method="asymmetric", teacher_norm="frozen"), teacher)
    method.fit_teacher(images, torch.arange(4))
    method.adjust_teacher()
    assert all(torch.equal(a, b) for a, b in zip(before, teacher(images), strict=True))
    assert not any(name.startswith("norm_") for name in method.state_dict())


def test_folded_norms_are_refused(recipe) -> None:
    teacher = Teacher(TINY)
    for norm in batch_norms(teacher):
        norm.bias.fill_(0.3)
    method = build_method(recipe(method="asymmetric", teacher_norm="moving_average"), teacher)
    with pytest.raises(MaskrdError, match=r"folded.*teacher_norm: frozen"):
        method.fit_teacher(uint8_images(4), torch.arange(4))


MOVING = {"method": "asymmetric", "teacher_norm": "moving_average", "teacher_norm_passes": 2}


def test_testing_has_the_trained_teacher(training_job, evaluation) -> None:
    job = training_job(**MOVING, epochs=1)
    train(job)
    saved = load_file(job.model)
    original, _ = load_teacher(job.teacher)
    norms = batch_norms(load_scorer(job.model, job.teacher, evaluation(), Machine("cpu")).teacher)
    assert torch.equal(torch.cat([norm.running_mean for norm in norms]), saved["norm_means"])
    assert torch.equal(torch.cat([norm.running_var for norm in norms]), saved["norm_variances"])
    assert not torch.equal(saved["norm_means"], torch.cat([norm.running_mean for norm in batch_norms(original)]))


def test_kept_features_train_the_same_model(training_job) -> None:
    kept, recomputed = training_job("kept", **MOVING), training_job("recomputed", **MOVING, cache_gb=0)
    train(kept)
    train(recomputed)
    ours, theirs = load_file(kept.model), load_file(recomputed.model)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-4, atol=1e-5, msg=name)


def test_a_resumed_training_has_the_same_teacher(training_job) -> None:
    job = training_job(**MOVING)
    trainer = Trainer(load_inputs(job))
    trainer.method.fit_teacher(trainer.images, trainer.train_positions)
    trainer.progress.epoch = 1
    resumed = Trainer(load_inputs(job))
    resumed.restore(trainer.state())
    resumed.method.adjust_teacher()
    for a, b in zip(resumed.teacher(resumed.images), trainer.teacher(trainer.images), strict=True):
        assert torch.equal(a, b)


def test_fusion(evaluation) -> None:
    maps = {1: torch.full((1, 2, 2), 2.0), 3: torch.full((1, 2, 2), 5.0)}
    weights = {"map_fusion": "weighted", "map_weights": (0.5, 9, 2)}
    assert fuse(maps, evaluation(map_fusion="sum")).unique().tolist() == [7]
    assert fuse(maps, evaluation(map_fusion="product")).unique().tolist() == [10]
    assert fuse(maps, evaluation(**weights)).unique().tolist() == [11]


def test_training_lowers_the_loss(recipe) -> None:
    torch.manual_seed(0)
    teacher = pretrained(TINY)
    method = build_method(recipe(method="asymmetric"), teacher)
    images = uint8_images(4)
    features = teacher(images)
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-3)
    before = method.loss(images, features)
    before.backward()
    optimizer.step()
    assert method.loss(images, features).item() < before.item()
