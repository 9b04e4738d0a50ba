"""Steps as CUDA graphs: the bookkeeping with a stand-in, and equal weights on a real GPU."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from maskrd.cli import app
from maskrd.config.load import parse_experiment
from maskrd.config.settings import GradientTraining
from maskrd.config.teachers import ARCHITECTURES
from maskrd.engine import training
from maskrd.engine.cuda_graph import GraphedStep, uses_graphs
from maskrd.engine.inputs import TrainingJob, load_inputs
from maskrd.engine.interruption import Interrupted
from maskrd.engine.loop import Trainer
from maskrd.engine.machine import Machine
from maskrd.engine.training import train
from maskrd.methods import build_method
from maskrd.methods.base import Method
from maskrd.methods.stpm import STPM
from maskrd.methods.teacher import Teacher
from tests.test_training import assert_same_model

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
CPU, GPU = torch.device("cpu"), torch.device("cuda")


class Recording:
    """Stands for a CUDA graph: it calls again, into the memory of its result."""

    pools: list[object] = []  # noqa: RUF012

    def __init__(self, call: Callable[[], Tensor], pool: object) -> None:
        self.call, self.result = call, torch.empty(())
        self.recorded = SimpleNamespace(pool=lambda: "of the first")
        Recording.pools.append(pool)

    def replay(self) -> Tensor:
        return self.result.copy_(self.call())


def test_graphs_take_over_when_every_batch_size_has_run(monkeypatch):
    monkeypatch.setattr(Recording, "pools", [])
    taken, dropped = [], []
    step = GraphedStep(
        lambda positions: (taken.append(positions), positions.sum().float())[1],
        [2, 3],
        lambda: dropped.append(len(taken)),
        Recording,
    )
    batches = [torch.tensor(batch) for batch in ([0, 1], [1, 1], [2, 0, 1], [3, 1], [4, 1], [0, 1, 5], [5, 1])]
    losses = [step(batch) for batch in batches]
    assert [loss.item() for loss in losses] == [1, 2, 3, 4, 5, 6, 6]  # no result is overwritten by a later one
    assert dropped == [3]
    assert list(step.captured) == [3, 2]
    assert Recording.pools == [None, "of the first"]
    assert all(used is given for used, given in zip(taken[:3], batches[:3], strict=True))
    statics = [static for static, _ in step.captured.values()]
    assert all(any(used is static for static in statics) for used in taken[3:])


def methods_of(config: dict) -> dict[str, Method]:
    """An untrained method for each name that learns by a gradient, of shipped variants."""
    found = {}
    experiment = parse_experiment(config)
    for variant in experiment.variants:
        settings = experiment.recipe("mvtec_ad", variant).training
        if isinstance(settings, GradientTraining) and settings.method not in found:
            backbone = "demo_vgg16" if settings.teacher_family == "VGG" else "demo_resnet18"
            found[settings.method] = build_method(settings, Teacher(ARCHITECTURES[backbone], settings.normalize))
    return found


def test_every_shipped_method_that_learns_by_a_gradient_has_graphs(default_config):
    methods = methods_of(default_config)
    assert set(methods) == {"maskrd", "stpm", "mkd", "msfd", "asymmetric"}
    for method in methods.values():
        assert uses_graphs(Machine("cuda"), GPU, method)
        assert not uses_graphs(Machine("cuda", cuda_graphs=False), GPU, method)
        assert not uses_graphs(Machine("cpu"), CPU, method)


class SaysNothing(STPM):
    """A method of a user's: it inherits all of STPM, and may decide anew at every step."""


class SaysIt(STPM):
    capturable = True


def test_a_subclass_must_say_for_itself_that_it_can_be_captured(default_config):
    stpm = methods_of(default_config)["stpm"]
    for kind, expected in ((SaysNothing, False), (SaysIt, True)):
        assert uses_graphs(Machine("cuda"), GPU, kind(stpm.settings, stpm.teacher)) is expected


def test_a_training_on_a_cpu_has_no_graphs(training_job):
    assert not load_inputs(training_job()).cuda_graphs


@pytest.mark.parametrize(
    ("words", "variable", "expected"),
    [([], None, True), (["--no-cuda-graphs"], None, False), ([], "0", False), ([], "1", True)],
)
def test_graphs_can_be_switched_off(training_job, monkeypatch, words, variable, expected):
    job, jobs = training_job(), []
    monkeypatch.setattr(training, "train", lambda job, stored: jobs.append(job))
    if variable:
        monkeypatch.setenv("MASKRD_CUDA_GRAPHS", variable)
    files = {name: getattr(job, name) for name in ("index", "data", "teacher", "model", "history", "store")}
    options = [str(word) for name, path in files.items() for word in (f"--{name}", path)]
    result = CliRunner().invoke(app, ["train", *options, "--recipe", job.recipe.model_dump_json(), *words])
    assert result.exit_code == 0, result.output
    assert [job.machine.cuda_graphs for job in jobs] == [expected]


def of_gpu(job: TrainingJob, cuda_graphs: bool = True) -> TrainingJob:
    return replace(job, machine=Machine("cuda", cuda_graphs=cuda_graphs))


@on_a_gpu
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"precision": "bf16", "cache_gb": 0},
        {"validation_fraction": 0.17, "batch_size": 2, "checkpoint": "best_validation"},  # 5 images: batches of 2 and 3
        {"method": "stpm", "optimizer": "sgd", "learning_rate": 0.1},
        {"method": "msfd", "optimizer": "sgd", "learning_rate": 0.1},
        {"method": "asymmetric", "teacher_norm": "moving_average"},
    ],
)
def test_a_graph_gives_the_weights_of_its_kernels(training_job, changes):
    changes = {"epochs": 6, "batch_size": 4, **changes}  # 6 images: batches of 4 and 2
    jobs = [of_gpu(training_job(name, **changes), graphs) for name, graphs in (("eager", False), ("graph", True))]
    assert [load_inputs(job).cuda_graphs for job in jobs] == [False, True]
    for job in jobs:
        train(job)
    assert_same_model(*jobs)


@on_a_gpu
@pytest.mark.parametrize("step", [3, 7])  # eager; a graph
def test_a_stopped_training_goes_on_as_an_unbroken_one(training_job, monkeypatch, step):
    changes = {"epochs": 6, "batch_size": 4}  # two steps an epoch
    unbroken, stopped = (of_gpu(training_job(name, **changes)) for name in ("unbroken", "stopped"))
    train(unbroken)
    original, done = Trainer.step, []

    def step_and_stop(self, positions):
        done.append(original(self, positions))
        if len(done) == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return done[-1]

    monkeypatch.setattr(Trainer, "step", step_and_stop)
    with pytest.raises(Interrupted):
        train(stopped)
    train(stopped)
    assert_same_model(unbroken, stopped)
