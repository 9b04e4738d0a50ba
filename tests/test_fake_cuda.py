"""Training and test steps of every variant on a GPU that isn't there: would it refuse something, or wait?"""

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from maskrd.config.experiment import Recipe
from maskrd.config.load import parse_experiment, shipped_configuration
from maskrd.config.settings import GradientTraining
from maskrd.config.teachers import ARCHITECTURES
from maskrd.engine.features import FeatureSource
from maskrd.engine.machine import autocast
from maskrd.engine.optim import SGD, Adam, Optimizer, build_optimizer
from maskrd.engine.scoring import Scorer
from maskrd.engine.step import gradient_step
from maskrd.methods import build_method
from maskrd.methods.base import Method
from maskrd.methods.maskrd import MaskedReverseDistillation
from maskrd.methods.msfd import MultiScaleFeatureDistillation
from maskrd.methods.teacher import Teacher
from tests.conftest import ROOT
from tests.fake_gpu import FakeGpu, StepError

SIZE, BATCH, IMAGES = 32, 2, 3
# Settings that change no operation of a step.
NUMBERS = ("epochs", "learning_rate", "betas", "momentum", "weight_decay", "validation_fraction", "patience")
NUMBERS += ("checkpoint", "selection", "batch_size", "image_size", "crop", "precision", "teacher_norm_momentum")
# Kernels of a step with the smallest ResNet. A step of a small network takes as long as these take to launch.
CEILINGS = {"maskrd": 420, "stpm": 200, "mkd": 240, "msfd": 210, "asymmetric": 600}


def distinct_variants() -> dict[str, Recipe]:
    """Of those shipped that learn by a gradient, one for each way in which a step can differ."""
    experiment = parse_experiment(shipped_configuration(ROOT.joinpath))
    recipes = {name: experiment.recipe("mvtec_ad", name) for name in experiment.variants}
    recipes = {name: recipe for name, recipe in recipes.items() if isinstance(recipe.training, GradientTraining)}
    kinds = {}
    for name, recipe in recipes.items():
        settings = recipe.training.model_dump(mode="json", exclude=set(NUMBERS))
        settings["mask_ratio"] = bool(settings.get("mask_ratio"))
        kinds.setdefault(str(settings), name)
    return {name: recipes[name] for name in kinds.values()}


VARIANTS = distinct_variants()


class Trial:
    """A variant on the fake GPU, as its jobs have it: method, optimizer, images and the teacher's features."""

    def __init__(self, gpu: FakeGpu, method: Method, recipe: Recipe, precision: str, cache_gb: float = 1) -> None:
        self.gpu, self.precision = gpu, precision
        self.method = gpu.move(method)
        gpu.move(method.teacher)
        self.settings = recipe.training.model_copy(update={"precision": precision})
        self.optimizer: Optimizer = build_optimizer(self.settings, self.method.parameters())
        self.scorer = Scorer("fake", self.method, self.settings, recipe.evaluation, gpu.device)
        self.images = torch.randint(0, 256, (IMAGES, 3, SIZE, SIZE), dtype=torch.uint8, device=gpu.device)
        self.features = FeatureSource(method.teacher, self.images, precision, BATCH, cache_gb)
        self.positions = torch.arange(BATCH, device=gpu.device)

    def train(self) -> Tensor:
        images = self.images[self.positions]
        return gradient_step(self.method, self.optimizer, images, self.features(self.positions), self.precision)

    def test(self) -> tuple[Tensor, Tensor]:
        self.method.eval()
        with torch.no_grad(), autocast(self.gpu.device, self.precision):
            return self.scorer.maps_and_scores(self.images)

    def watched(self, step: Callable) -> tuple[object, Counter[str]]:
        """The second run of a step: in the first, optimizers make their states and matrices are kept."""
        step()
        with self.gpu.watch() as kernels:
            return step(), kernels


def build(name: str) -> Method:
    """The method of a variant with the smallest teacher of its family, in the CPU's memory."""
    settings = VARIANTS[name].training
    backbone = "demo_vgg16" if settings.teacher_family == "VGG" else "demo_resnet18"
    return build_method(settings, Teacher(ARCHITECTURES[backbone], settings.normalize))


# bf16 has every operation of fp32, and the casts between; fp32 is tried once a method.
@pytest.mark.parametrize(
    ("name", "precision"), [*((name, "bf16") for name in VARIANTS), *((name, "fp32") for name in CEILINGS)]
)
def test_steps_run_on_a_gpu_without_waiting(name, precision):
    method = build(name)
    with FakeGpu() as gpu:
        trial = Trial(gpu, method, VARIANTS[name], precision)
        loss, kernels = trial.watched(trial.train)
        (maps, scores), _ = trial.watched(trial.test)
        assert (loss.dtype, loss.shape, loss.device) == (torch.float32, (), gpu.device)
        assert (maps.dtype, maps.shape) == (torch.float32, (IMAGES, SIZE, SIZE))
        assert (scores.dtype, scores.shape) == (torch.float32, (IMAGES,))
        assert trial.features.cache[0].dtype == {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
        check_states(trial)
        casts = kernels.pop("cast", 0)
        assert kernels.total() <= CEILINGS[trial.settings.method], kernels
        assert bool(casts) == (precision == "bf16")


def check_states(trial: Trial) -> None:
    """Fused optimizers want gradients and states laid out as their parameters."""
    for parameter, state in zip(trial.optimizer.parameters, trial.optimizer.state, strict=True):
        if parameter.grad is None:
            continue
        assert parameter.dtype == parameter.grad.dtype == torch.float32
        assert layout(parameter.grad) == layout(parameter)
        for key, tensor in state.items():
            assert tensor.device == trial.gpu.device
            assert tensor.dtype == torch.float32
            assert key == "step" or layout(tensor) == layout(parameter)


def layout(tensor: Tensor) -> list[int]:
    """Strides of the dimensions that have more than one position."""
    return [stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size > 1]


def test_features_can_be_recomputed_in_a_step():
    method = build("maskrd")
    with FakeGpu() as gpu:
        trial = Trial(gpu, method, VARIANTS["maskrd"], "bf16", cache_gb=0)
        _, kernels = trial.watched(trial.train)
        assert trial.features.cache is None
        assert kernels["convolution"] > 30


def watched_with(monkeypatch, name: str, owner: type, attribute: str, replacement: Callable, precision="bf16") -> None:
    monkeypatch.setattr(owner, attribute, replacement)
    method = build(name)
    with FakeGpu() as gpu:
        trial = Trial(gpu, method, VARIANTS[name], precision)
        trial.watched(trial.train)


def test_a_tensor_left_on_the_cpu_is_caught(monkeypatch):
    original = MaskedReverseDistillation.loss
    on_cpu = lambda self, *arguments: original(self, *arguments) + torch.ones(1).sum()  # noqa: E731
    with pytest.raises(StepError, match="ones: a tensor is left on the cpu"):
        watched_with(monkeypatch, "maskrd", MaskedReverseDistillation, "loss", on_cpu)


def test_a_copy_to_the_host_is_caught(monkeypatch):
    original = MaskedReverseDistillation.loss
    copied = lambda self, *arguments: original(self, *arguments).cpu().to("cuda:0")  # noqa: E731
    with pytest.raises(StepError, match="copies to the cpu"):
        watched_with(monkeypatch, "maskrd", MaskedReverseDistillation, "loss", copied)


def test_a_loss_read_in_a_step_is_caught(monkeypatch):
    original = MaskedReverseDistillation.loss
    read = lambda self, *arguments: original(self, *arguments) * (1 / original(self, *arguments).item())  # noqa: E731
    with pytest.raises(Exception, match="_local_scalar_dense"):
        watched_with(monkeypatch, "maskrd", MaskedReverseDistillation, "loss", read)


def test_a_missing_cast_is_caught(monkeypatch):
    def mixed(self, images, features):
        weights = torch.ones(features[0].shape[1], 1, device=images.device)
        student = self.student(self.teacher.normalize(images))[0]  # bf16
        with torch.autocast("cuda", enabled=False):
            return (student.permute(0, 2, 3, 1).flatten(0, 2) @ weights).mean()

    with pytest.raises(StepError, match="mm: a cast is missing"):
        watched_with(monkeypatch, "msfd", MultiScaleFeatureDistillation, "loss", mixed)


def test_both_optimizers_are_among_the_variants():
    kinds = {type(build_optimizer(recipe.training, [torch.zeros(1)])) for recipe in VARIANTS.values()}
    assert kinds == {Adam, SGD}
