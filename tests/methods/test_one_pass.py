"""PaDiM and PatchCore against slow implementations of their papers' formulas."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scipy.spatial.distance import mahalanobis
from sklearn.neighbors import NearestNeighbors

from maskrd.config.load import parse_experiment
from maskrd.config.teachers import ARCHITECTURES
from maskrd.engine.evaluation import EvaluationJob, load_test_set, wanted_scorer
from maskrd.engine.machine import Machine
from maskrd.engine.scoring import load_scorer
from maskrd.engine.training import train
from maskrd.errors import MaskrdError
from maskrd.layers.resnet import init_weights
from maskrd.methods import build_method
from maskrd.methods.patchcore import greedy_coreset, nearest_neighbours
from maskrd.methods.teacher import Teacher

SIDE, TRAIN, TEST = 64, 6, 2


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    torch.manual_seed(5)
    teacher = Teacher(ARCHITECTURES["demo_resnet18"])
    init_weights(teacher.pyramid)
    return teacher


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (TRAIN + TEST, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)


def learned(recipe, teacher, images, seed=0, batch=4, **changes):
    torch.manual_seed(seed)
    method = build_method(recipe(image_size=SIDE, **changes), teacher)
    method.learn(lambda positions: teacher(images[positions]), torch.arange(TRAIN).split(batch))
    return method.eval()


def test_padim_is_the_mahalanobis_distance(recipe, teacher, images, evaluation):
    """At every position of level 1: the mean, the covariance of n - 1 with 0.01 on its diagonal, and the distance."""
    method = learned(recipe, teacher, images, method="padim", embedding_channels=7)
    with torch.no_grad():
        features = teacher(images)
        joined = torch.cat([F.interpolate(level, features[0].shape[2:], mode="nearest") for level in features], 1)
    patches = joined[:, method.channels].flatten(2).permute(2, 0, 1).double().numpy()
    assert method.channels.unique().numel() == 7
    expected = np.empty((TEST, len(patches)))
    for position, values in enumerate(patches):
        normal = values[:TRAIN]
        inverse = np.linalg.inv(np.cov(normal, rowvar=False) + 0.01 * np.eye(7))
        expected[:, position] = [mahalanobis(value, normal.mean(0), inverse) for value in values[TRAIN:]]
    coarse = torch.from_numpy(expected).float().unflatten(1, features[0].shape[2:])
    maps = F.interpolate(coarse[:, None], size=(SIDE, SIDE), mode="bilinear")[:, 0]
    with torch.no_grad():
        found, scores = method.maps_and_scores(images[TRAIN:], evaluation())
    torch.testing.assert_close(found, maps, rtol=1e-3, atol=1e-3)
    assert scores is None


@pytest.mark.parametrize(("channels", "kept"), [("teacher", 100), (30, 30), (10_000, 224)])
def test_padim_keeps_so_many_channels(recipe, teacher, channels, kept):
    assert build_method(recipe(method="padim", embedding_channels=channels), teacher).channels.numel() == kept


def slow_coreset(points: np.ndarray, first: int, count: int) -> list[int]:
    chosen = [first]
    while len(chosen) < count:
        distances = np.linalg.norm(points[:, None] - points[chosen], axis=2).min(axis=1)
        chosen.append(int(distances.argmax()))
    return chosen


@pytest.mark.parametrize("dimensions", [2, 16])
def test_the_coreset_is_that_of_the_plain_algorithm(dimensions):
    """Also of points in clumps, where most distances are never computed."""
    rng = np.random.default_rng(0)
    points = (rng.normal(size=(300, dimensions)) + 8 * rng.integers(0, 3, (300, 1))).astype(np.float32)
    torch.manual_seed(0)
    chosen = greedy_coreset(torch.from_numpy(points), 60).tolist()
    assert chosen == slow_coreset(points.astype(np.float64), chosen[0], 60)


def test_nearest_neighbours_are_those_of_scikit_learn(monkeypatch):
    rng = np.random.default_rng(1)
    memory = (10 + rng.normal(size=(200, 12))).astype(np.float32)
    queries = np.concatenate([memory[:5] + 1e-3, 10 + rng.normal(size=(20, 12))]).astype(np.float32)
    expected, positions = NearestNeighbors(n_neighbors=4, algorithm="brute").fit(memory).kneighbors(queries)
    images = torch.from_numpy(queries).unflatten(0, (5, 5))
    for compared in (2048, 64, 3):  # at a time
        monkeypatch.setattr("maskrd.methods.patchcore.COMPARED", compared)
        found, neighbours = nearest_neighbours(images, torch.from_numpy(memory), 4)
        np.testing.assert_array_equal(neighbours.flatten(0, 1), positions)
        np.testing.assert_allclose(found.flatten(0, 1), expected, rtol=1e-4, atol=1e-6)
    assert nearest_neighbours(torch.zeros(1, 1, 2), torch.ones(4, 2), 9)[0].shape == (1, 1, 4)


def patches_of(teacher, images) -> np.ndarray:
    with torch.no_grad():
        _, second, third = teacher(images)
    second, third = (F.avg_pool2d(F.pad(level, (1, 1, 1, 1)), 3, stride=1) for level in (second, third))
    joined = torch.cat([second, F.interpolate(third, second.shape[2:], mode="bilinear", align_corners=False)], 1)
    return joined.flatten(2).transpose(1, 2).double().numpy()


def test_patchcore_is_the_distance_to_the_nearest_patch(recipe, teacher, images, evaluation):
    """With all patches in the memory; the image score is equation 7 of the paper."""
    method = learned(recipe, teacher, images, method="patchcore", coreset_fraction=1, neighbours=3)
    patches = patches_of(teacher, images)
    memory = patches[:TRAIN].reshape(-1, patches.shape[2])
    np.testing.assert_allclose(np.sort(method.memory.numpy(), 0), np.sort(memory, 0), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        maps, scores = method.maps_and_scores(images[TRAIN:], evaluation(score="reweighted"))
        plain, none = method.maps_and_scores(images[TRAIN:], evaluation())
    assert none is None
    assert torch.equal(maps, plain)
    search = NearestNeighbors(n_neighbors=3, algorithm="brute").fit(memory)
    for image, score, anomaly_map in zip(patches[TRAIN:], scores, maps, strict=True):
        distances, neighbours = search.kneighbors(image, 1)
        coarse = torch.from_numpy(distances[:, 0]).float().reshape(1, 1, SIDE // 8, SIDE // 8)
        torch.testing.assert_close(anomaly_map, F.interpolate(coarse, (SIDE, SIDE), mode="bilinear")[0, 0])
        worst = distances[:, 0].argmax()
        around = search.kneighbors(memory[neighbours[worst]])[1][0]
        crowd = np.exp(np.linalg.norm(memory[around] - image[worst], axis=1)).sum()
        expected = distances[worst, 0] * (1 - np.exp(distances[worst, 0]) / crowd)
        assert score.item() == pytest.approx(expected, rel=1e-3)


def test_the_memory_is_a_coreset_of_the_patches(recipe, teacher, images):
    few = learned(recipe, teacher, images, method="patchcore", coreset_fraction=0.05)
    patches = patches_of(teacher, images)[:TRAIN].reshape(-1, few.memory.shape[1])
    assert len(few.memory) == round(0.05 * len(patches))
    assert np.linalg.norm(few.memory.numpy()[:, None] - patches, axis=2).min(axis=1).max() < 1e-3


@pytest.mark.parametrize("method", ["padim", "patchcore"])
def test_batches_decide_no_more_than_rounding(recipe, teacher, images, method):
    one, other = (learned(recipe, teacher, images, batch=batch, method=method) for batch in (2, 6))
    for name in one.learned:
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("method", ["padim", "patchcore"])
def test_a_seed_repeats_a_model(training_job, method):
    jobs = [training_job(name, seed, method=method) for name, seed in (("one", 0), ("same", 0), ("other", 1))]
    for job in jobs:
        train(job)
    one, same, other = (load_file(job.model) for job in jobs)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)
    assert jobs[0].history.read_text(encoding="utf-8") == "epoch,loss\n"
    assert not list(jobs[0].stored.folder.glob("*.pt"))


@pytest.mark.parametrize("method", ["padim", "patchcore"])
@pytest.mark.parametrize("changes", [{"cache_gb": 0}, {"precision": "bf16"}])
def test_features_computed_anew_or_in_bf16_give_nearly_the_same_scores(training_job, evaluation, method, changes):
    scores = []
    for name, differing in (("plain", {}), ("changed", changes)):
        job = training_job(name, method=method, **differing)
        train(job)
        tested = EvaluationJob(job.index, job.data, job.teacher, job.model, evaluation(), job.recipe, Machine("cpu"))
        scores.append(wanted_scorer(tested).score_all(load_test_set(tested).images)[1])
    np.testing.assert_allclose(*scores, rtol=0.05 if "precision" in changes else 1e-3)


def test_single_levels_have_no_map(config):
    config["variants"]["padim"]["score_layers"] = [2]
    with pytest.raises(MaskrdError, match="padim has no map of a single level"):
        parse_experiment(config)


@pytest.mark.parametrize(
    ("method", "name", "shape"), [("patchcore", "memory", (5,)), ("padim", "mean", (5,)), ("padim", "whitening", (0,))]
)
def test_learned_tensors_of_another_shape_are_refused(training_job, evaluation, method, name, shape):
    job = training_job(method=method)
    train(job)
    with safe_open(job.model, "pt") as file:
        description = {"model": file.metadata()["model"]}  # as in earlier versions, without a digest of the tensors
    save_file({**load_file(job.model), name: torch.zeros(shape)}, job.model, metadata=description)
    with pytest.raises(MaskrdError, match=r"model\.safetensors: its weights don't fit its recipe"):
        load_scorer(job.model, job.teacher, evaluation(), Machine("cpu"))
