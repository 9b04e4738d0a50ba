"""A tiny category, a tiny teacher and tiny recipes, from which any test trains a model in a second."""

import copy
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from maskrd.config.load import shipped_configuration
from maskrd.config.methods import settings_class
from maskrd.config.settings import Evaluation, Training
from maskrd.config.teachers import ARCHITECTURES

if TYPE_CHECKING:
    from maskrd.engine.evaluation import EvaluationJob
    from maskrd.engine.inputs import TrainingJob

# Before torch is imported: tests run beside other work, and sums are taken in one order.
os.environ["OMP_NUM_THREADS"] = "1"
# What a terminal, a git hook, pytest's caller or Snakemake's user may have set would reach the commands under test.
for name in ("COLUMNS", "GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE", "PYTEST_ADDOPTS", "SNAKEMAKE_PROFILE"):
    os.environ.pop(name, None)

ROOT = Path(__file__).parents[1]
SIDE = 64  # pixels
# A method in a file of the user's.
SQUEEZE = """
import torch
from maskrd.methods.base import Method, cosine_distance, upsample


class Squeeze(Method):
    def __init__(self, settings, teacher):
        super().__init__(settings, teacher)
        width = teacher.architecture.channels(1)
        self.student = torch.nn.Conv2d(width, width, 1)

    def loss(self, images, features):
        return cosine_distance(features[0], self.student(features[0])).mean()

    def anomaly_maps(self, images, features, evaluation):
        maps = upsample(cosine_distance(features[0], self.student(features[0])), images.shape[2:])
        return maps
"""
TINY = {"image_size": 32, "epochs": 3, "batch_size": 2, "msff_channels": 32, "precision": "fp32"}


def write_image(path: Path, seed: int, spot: bool = False) -> None:
    """Smooth stripes with noise; a spot is the defect that `write_mask` marks."""
    rng = np.random.default_rng(seed)
    stripes = 120 + 60 * np.sin(np.arange(SIDE) / 4 + rng.uniform(0, 6))[:, None, None]
    image = stripes + rng.normal(0, 8, (SIDE, SIDE, 3))
    if spot:
        image[20:36, 24:44] = (230, 40, 60)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(path)


def write_mask(path: Path, side: int = SIDE) -> None:
    mask = np.zeros((side, side), np.uint8)
    mask[20:36, 24:44] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)


def write_category(root: Path, category: str = "bolt", masks: bool = True) -> Path:
    """A category in MVTec AD's layout: 6 training images, 3 good ones, 2 defect types of 2 each."""
    folder = root / category
    for number in range(6):
        write_image(folder / f"train/good/{number:03d}.png", seed=number)
    for number in range(3):
        write_image(folder / f"test/good/{number:03d}.png", seed=100 + number)
    for seed, defect in enumerate(("crack", "stain"), start=2):
        for number in range(2):
            write_image(folder / f"test/{defect}/{number:03d}.png", seed=100 * seed + number, spot=True)
            if masks:
                write_mask(folder / f"ground_truth/{defect}/{number:03d}_mask.png")
    return folder


def training_settings(values: dict[str, Any]) -> Training:
    """The settings of the method that `values` name; keys of other methods are left out, as in an experiment."""
    section = settings_class("train.method", values["method"])
    return section.read("train", {key: value for key, value in values.items() if key in section.model_fields})


@pytest.fixture(scope="session")
def default_config() -> dict[str, Any]:
    """config.yaml over the catalogue, as they are in the repository; not to be changed."""
    return shipped_configuration(ROOT.joinpath)


@pytest.fixture
def config(default_config: dict[str, Any]) -> dict[str, Any]:
    """A copy of the shipped configuration, to be changed."""
    return copy.deepcopy(default_config)


@pytest.fixture(scope="session")
def recipe(default_config: dict[str, Any]) -> Callable[..., Training]:
    """Settings of a training of seconds: config.yaml's, made tiny, then as the keywords say."""
    return lambda **changes: training_settings({**default_config["train"], **TINY, **changes})


@pytest.fixture(scope="session")
def evaluation(default_config: dict[str, Any]) -> Callable[..., Evaluation]:
    return lambda **changes: Evaluation.model_validate({**default_config["evaluation"], **changes})


@pytest.fixture
def signals_heard() -> Iterator[None]:
    """Signals act as in a terminal, here and in processes started here. Under nohup or in CI some are ignored."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def category(tmp_path: Path) -> Path:
    """The folder of a fresh category `bolt`, to be damaged; its dataset's folder is `data`."""
    return write_category(tmp_path / "data")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset's folder with the category `bolt`; not to be changed."""
    root = tmp_path_factory.mktemp("data")
    write_category(root)
    return root


@pytest.fixture(scope="session")
def index_file(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from maskrd.data.indexing import build_index

    path = tmp_path_factory.mktemp("index") / "bolt.json"
    build_index("demo", "bolt", data).write(path)
    return path


@pytest.fixture(scope="session")
def teacher_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher of random weights: no good one, but frozen and as fast as any of its size."""
    import torch

    from maskrd.layers.resnet import FeaturePyramid, init_weights
    from maskrd.methods.teacher import TeacherFile, save_teacher

    torch.manual_seed(0)
    pyramid = FeaturePyramid(ARCHITECTURES["demo_resnet18"])
    init_weights(pyramid)
    path = tmp_path_factory.mktemp("teacher") / "demo_resnet18.safetensors"
    save_teacher(pyramid, TeacherFile("demo_resnet18", "0" * 64), path)
    return path


@pytest.fixture
def training_job(
    tmp_path: Path, data: Path, index_file: Path, teacher_file: Path, recipe
) -> "Callable[..., TrainingJob]":
    """Jobs with files below tmp_path: keywords of the recipe, `seed`, `name`, and any other field of TrainingJob."""
    from maskrd.engine.inputs import TrainingJob
    from maskrd.engine.machine import Machine

    def build(
        name: str = "model", seed: int = 0, cache_gb: float = 1, state_minutes: float = 60, **changes
    ) -> TrainingJob:
        files = {key: changes.pop(key) for key in ("index", "data", "teacher") if key in changes}
        return TrainingJob(
            **{"index": index_file, "data": data, "teacher": teacher_file, **files},
            model=tmp_path / name / "model.safetensors",
            history=tmp_path / name / "history.csv",
            store=tmp_path / name / "store",
            recipe=recipe(**changes),
            seed=seed,
            machine=Machine("cpu"),
            cache_gb=cache_gb,
            state_minutes=state_minutes,
        )

    return build


@pytest.fixture
def tested(training_job, tmp_path: Path, evaluation) -> "Callable[..., EvaluationJob]":
    """Train and test a model of `bolt` in a results folder with its teacher; keywords of the recipe."""
    from maskrd.engine.evaluation import EvaluationJob, evaluate
    from maskrd.engine.machine import Machine
    from maskrd.engine.training import train

    def build(blur_sigma: float = 1, **changes: Any) -> EvaluationJob:
        home = tmp_path / "results/models/demo/bolt/maskrd/demo_resnet18/seed0"
        job = training_job(**changes)
        job = replace(job, model=home / "model.safetensors", history=home / "history.csv")
        teacher = tmp_path / f"results/teachers/{job.teacher.name}"
        teacher.parent.mkdir(parents=True)
        teacher.write_bytes(job.teacher.read_bytes())
        train(job)
        test = EvaluationJob(
            job.index, job.data, teacher, job.model, evaluation(blur_sigma=blur_sigma), job.recipe, Machine("cpu")
        )
        evaluate(test, home / "metrics.json", home / "scores.csv", home / "gallery.npz")
        return test

    return build
