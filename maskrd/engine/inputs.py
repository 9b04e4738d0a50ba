"""The inputs of a training: its files, checked and loaded on the device."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from maskrd.config.settings import Training
from maskrd.data.index_file import Index
from maskrd.data.samples import load_train
from maskrd.engine.cuda_graph import uses_graphs
from maskrd.engine.machine import Machine, resolve_precision
from maskrd.engine.sampling import INITIALISATION, random_seed, split_validation
from maskrd.engine.store import Stored, identity
from maskrd.methods import build_method
from maskrd.methods.base import Method
from maskrd.methods.teacher import Teacher, load_teacher

if TYPE_CHECKING:
    from maskrd.engine.selection import Selection

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingJob:
    """Files and settings of one training job, from the command line."""

    index: Path
    data: Path
    teacher: Path
    model: Path
    history: Path
    store: Path
    recipe: Training
    seed: int
    machine: Machine
    cache_gb: float
    state_minutes: float
    keep_weights: bool = True

    @property
    def stored(self) -> Stored:
        """The training's folder in the store."""
        return Stored.of(self.store, identity(self.recipe, self.seed, self.index, self.teacher))


@dataclass(frozen=True)
class Inputs:
    """All that learning needs.

    `images`: all normal training images, uint8 (N, 3, S, S), on `device`. `train_positions` and `validation_positions`,
    int64 on the host, are the positions of the images to learn from and of those held out. `settings`: the recipe, with
    `precision: auto` resolved. `method`: untrained, with its frozen teacher. `cuda_graphs`: whether its steps are to be
    CUDA graphs. `backbone` and `weights_sha256`: from the teacher file.
    """

    settings: Training
    seed: int
    device: torch.device
    teacher: Teacher
    images: Tensor
    train_positions: Tensor
    validation_positions: Tensor
    method: Method
    selection: "Selection | None"
    cache_gb: float
    cuda_graphs: bool
    backbone: str
    weights_sha256: str


def load_inputs(job: TrainingJob, precision: str | None = None) -> Inputs:
    """Read the index, the teacher and the images of a training, and build the untrained method.

    `precision`: that of the saved state to continue from. If None, the machine decides what `auto` means.
    Raises MaskrdError for files that are damaged or don't belong together.
    """
    device = job.machine.claim()
    settings = job.recipe.model_copy(update={"precision": precision or resolve_precision(job.recipe.precision, device)})
    index = Index.read(job.index)
    teacher, description = load_teacher(job.teacher, settings.normalize)
    teacher.to(device)
    samples = load_train(index, job.data, settings.image_size, job.machine.threads).cropped(settings.crop)
    train_positions, validation_positions = split_validation(
        len(samples.images), settings.validation_fraction, job.seed
    )
    torch.manual_seed(random_seed(job.seed, INITIALISATION))
    method = build_method(settings, teacher).to(device, memory_format=torch.channels_last)
    images = torch.from_numpy(samples.images).to(device)
    return Inputs(
        settings=settings,
        seed=job.seed,
        device=device,
        teacher=teacher,
        images=images,
        train_positions=train_positions,
        validation_positions=validation_positions,
        method=method,
        selection=load_selection(settings, method, index, job.data, device, job.machine.threads),
        cache_gb=job.machine.feature_gb(job.cache_gb, device),
        cuda_graphs=uses_graphs(job.machine, device, method),
        backbone=description.backbone,
        weights_sha256=description.weights_sha256,
    )


def load_selection(
    settings: Training, method: Method, index: Index, data: Path, device: torch.device, threads: int
) -> "Selection | None":
    """The test set, if the recipe lets it choose the checkpoint. No other training reads a test image."""
    if not settings.leaks:
        return None
    from maskrd.engine.selection import select_on_test

    logger.warning(
        "LEAK: checkpoint: best_on_test tests after every epoch and keeps the epoch with the best metrics. "
        "These metrics say nothing about other images. Compare them with checkpoint: last."
    )
    return select_on_test(method, settings, index, data, device, threads)
