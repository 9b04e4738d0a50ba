"""What every method must do, on small teachers of random weights."""

import json

import pytest
import torch

from maskrd.config.methods import METHODS
from maskrd.config.settings import Evaluation, Training
from maskrd.config.teachers import ARCHITECTURES
from maskrd.engine.evaluation import EvaluationJob, evaluate
from maskrd.engine.machine import Machine
from maskrd.engine.optim import build_optimizer
from maskrd.engine.training import train
from maskrd.layers.resnet import init_weights
from maskrd.methods import build_method
from maskrd.methods.base import Method, OnePassMethod
from maskrd.methods.teacher import Teacher, TeacherFile, save_teacher

# Variants of config.yaml: the recipes that the authors' results ask for.
GRADIENT = ["maskrd", "rd", "stpm", "mkd", "mkd_cifar10", "msfd", "asymmetric", "asymmetric_frozen_norm"]
ONE_PASS = ["padim", "patchcore"]
VARIANTS = [*GRADIENT, *ONE_PASS]
by_gradient = pytest.mark.parametrize("settings", GRADIENT, indirect=True)
SIDE = 64  # pixels


def build_teacher(method: str, normalize: bool = True) -> Teacher:
    torch.manual_seed(99)  # of no student: an equal twin would have no distance
    teacher = Teacher(ARCHITECTURES["demo_vgg16" if method == "mkd" else "demo_resnet18"], normalize)
    init_weights(teacher.pyramid)
    return teacher


def draw_images(count: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)


@pytest.fixture(params=VARIANTS)
def settings(request, default_config, recipe) -> Training:
    difference = default_config["variants"][request.param]
    chosen = {key: value for key, value in difference.items() if key not in (*Evaluation.model_fields, "backbone")}
    small = {"image_size": SIDE, "crop": None, "epochs": 2, "batch_size": 2}
    return recipe(**{**chosen, **small})


@pytest.fixture
def testing(request, default_config, evaluation) -> Evaluation:
    difference = default_config["variants"][request.node.callspec.params["settings"]]
    return evaluation(**{key: value for key, value in difference.items() if key in Evaluation.model_fields})


def build(settings: Training, seed: int = 0) -> Method:
    """A method whose teacher has seen the training images; in evaluation mode."""
    teacher = build_teacher(settings.method, settings.normalize)
    torch.manual_seed(seed)
    method, images = build_method(settings, teacher), draw_images()
    if isinstance(method, OnePassMethod):
        method.learn(lambda positions: teacher(images[positions]), torch.arange(4).split(3))
    else:
        method.fit_teacher(images, torch.arange(4))
    method.adjust_teacher()
    return method.eval()


def maps_of(method: Method, images: torch.Tensor, testing: Evaluation) -> torch.Tensor:
    with torch.no_grad():
        return method.maps_and_scores(images, testing)[0]


def test_every_registered_method_is_a_choice_and_is_tested(default_config):
    tested = {default_config["variants"][variant].get("method", "maskrd") for variant in VARIANTS}
    assert set(METHODS) == tested | {"external"}  # it has no code to test here: tests/test_anomaly_maps.py


def test_shapes(settings, testing):
    method, images = build(settings), draw_images(3)
    maps = maps_of(method, images, testing)
    assert maps.shape == (3, SIDE, SIDE)
    assert maps.dtype == torch.float32
    assert maps.min() >= -1e-6
    assert maps.std() > 0
    with torch.no_grad():
        _, scores = method.maps_and_scores(images, testing)
    scores = maps.amax(dim=(1, 2)) if scores is None else scores
    assert scores.shape == (3,)
    assert len(scores.unique()) == 3


@by_gradient
def test_losses_are_numbers(settings):
    method, images = build(settings), draw_images(3)
    with torch.no_grad():
        features = method.teacher(images)
        assert method.validation_loss(images, features).shape == ()
    loss = method.loss(images, features)
    assert loss.shape == ()
    assert loss.dtype == torch.float32


@by_gradient
def test_a_step_lowers_the_loss(settings):
    method, images = build(settings), draw_images()
    method.train()
    features = method.teacher(images)
    # Smaller than the recipe's: so short a step must go downhill, whatever the weights.
    slower = settings.model_copy(update={"learning_rate": settings.learning_rate / 40})
    optimizer = build_optimizer(slower, method.parameters())
    losses = []
    for _ in range(2):
        torch.manual_seed(0)  # FMM hides the same positions
        loss = method.loss(images, features)
        losses.append(loss.item())
        method.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[1] < losses[0]


@by_gradient
def test_every_parameter_is_trained_and_the_teacher_is_not(settings):
    method, images = build(settings), draw_images()
    before = {name: value.clone() for name, value in method.teacher.state_dict().items()}
    method.train()
    method.loss(images, method.teacher(images)).backward()
    idle = {name for name, parameter in method.named_parameters() if parameter.grad is None}
    # SRU's gate is hard: no gradient gets through it to the norm that decides it.
    assert idle <= {"scconv.0.norm.weight", "scconv.0.norm.bias"}
    assert not method.teacher.training
    own, frozen = ({id(p) for p in module.parameters()} for module in (method, method.teacher))
    assert own.isdisjoint(frozen)
    assert all(torch.equal(value, before[name]) for name, value in method.teacher.state_dict().items())


def test_saved_weights_give_equal_maps(settings, testing):
    method, other, images = build(settings), build(settings, seed=1), draw_images()
    expected = maps_of(method, images, testing)
    assert not torch.equal(maps_of(other, images, testing), expected)
    other.load_state_dict(method.state_dict())
    other.adjust_teacher()
    assert torch.equal(maps_of(other, images, testing), expected)


def test_evaluation_is_deterministic_and_sees_images_one_by_one(settings, testing):
    method, images = build(settings), draw_images()
    maps = maps_of(method, images, testing)
    assert torch.equal(maps_of(method, images, testing), maps)
    alone = torch.cat([maps_of(method, image[None], testing) for image in images])
    torch.testing.assert_close(alone, maps, rtol=1e-3, atol=1e-3 * maps.max().item())


def test_trained_saved_and_evaluated(settings, testing, training_job, tmp_path):
    teacher = tmp_path / "teacher.safetensors"
    pyramid = build_teacher(settings.method).pyramid
    save_teacher(pyramid, TeacherFile("demo_vgg16" if settings.method == "mkd" else "demo_resnet18", "0"), teacher)
    job = training_job(teacher=teacher, **settings.model_dump())
    train(job)
    testing_job = EvaluationJob(job.index, job.data, teacher, job.model, testing, job.recipe, Machine("cpu"))
    evaluate(testing_job, tmp_path / "metrics.json", tmp_path / "scores.csv", tmp_path / "gallery.npz")
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert 0 <= metrics["pixel_auroc"] <= 1
    assert metrics["training"]["epochs"] == job.recipe.epochs
    assert metrics["training"]["parameters"] > 0


SUBSETS = [(1,), (2,), (3,), (1, 2), (1, 3), (2, 3)]


@pytest.mark.parametrize("layers", SUBSETS)
@pytest.mark.parametrize("seen", ["all", "distilled"])
def test_msff_sees_all_levels_or_the_distilled_ones(recipe, evaluation, layers, seen):
    method = build(recipe(layers=layers, msff_layers=seen, image_size=SIDE))
    images = draw_images(2)
    features = method.teacher(images)
    hidden = [level for level in (1, 2, 3) if level not in layers]
    changed = [feature + 1 if k in hidden else feature for k, feature in enumerate(features, start=1)]
    with torch.no_grad():
        before, after = (method.anomaly_maps(images, given, evaluation()) for given in (features, changed))
    assert torch.equal(before, after) is (seen == "distilled")


@pytest.mark.parametrize("method", ["maskrd", "stpm", "msfd", "asymmetric"])
@pytest.mark.parametrize("layers", SUBSETS)
def test_score_layers_choose_among_the_levels_maps(recipe, evaluation, method, layers):
    trained, images = build(recipe(method=method, image_size=SIDE)), draw_images(2)
    each = [maps_of(trained, images, evaluation(score_layers=[level])) for level in layers]
    torch.testing.assert_close(maps_of(trained, images, evaluation(score_layers=layers)), sum(each))
    everything = maps_of(trained, images, evaluation())
    assert torch.equal(everything, maps_of(trained, images, evaluation(score_layers=[1, 2, 3])))
    assert not torch.allclose(everything, sum(each))
