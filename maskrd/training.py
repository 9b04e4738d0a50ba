"""Training one model: a loop that can be interrupted anywhere and ends with the same weights.

All randomness is drawn from generators seeded by (seed, epoch, step), so a resumed run needs no saved
generator state to repeat what an unbroken one does.
"""

import json
import logging
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from maskrd.data.index import Index
from maskrd.data.samples import load_train
from maskrd.errors import MaskrdError
from maskrd.experiment import Training, canonical_json, held_out_count
from maskrd.files import atomic_path, sha256_file, sha256_json, write_csv
from maskrd.layers.resnet import count_parameters
from maskrd.methods import build_method
from maskrd.methods.base import Method
from maskrd.optim import SGD, Adam, Optimizer
from maskrd.provenance import code_commit
from maskrd.runtime import (
    autocast,
    choose_device,
    configure,
    describe,
    explain_out_of_memory,
    resolve_precision,
)
from maskrd.state import StateFolder
from maskrd.teacher import Teacher, load_teacher

if TYPE_CHECKING:
    from maskrd.selection import Selection

logger = logging.getLogger(__name__)

# Streams of random numbers that must not coincide.
INITIALISATION, SPLIT, ORDER, STEP, TEACHER = range(5)

LEAK = "the checkpoint was chosen on the test images"


@dataclass(frozen=True)
class Job:
    """Files and settings of one training, as the command line gives them."""

    index: Path
    data: Path
    teacher: Path
    model: Path
    history: Path
    state: Path
    recipe: Training
    seed: int
    device: str
    threads: int
    cache_gb: float
    state_minutes: float
    gpu_jobs: int = 1


@dataclass
class Progress:
    """Where a training stands: enough, with weights and optimizer, to go on from there.

    `best_loss` is the lowest validation loss, or with `checkpoint: best_on_test` 1 - the best score.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    best_loss: float = float("inf")
    best_epoch: int = -1
    history: list[dict[str, float]] = field(default_factory=list)


class Interrupted(Exception):
    """A signal asked the job to stop; its state is saved."""

    def __init__(self, number: int, epoch: int) -> None:
        name = signal.Signals(number).name
        super().__init__(f"{name}: stopped in epoch {epoch}; the next run goes on from here.")
        self.exit_code = 128 + number


def random_seed(seed: int, *stream: int) -> int:
    return int(np.random.SeedSequence([seed, *stream]).generate_state(1)[0])


def permutation(count: int, seed: int, *stream: int) -> Tensor:
    generator = torch.Generator().manual_seed(random_seed(seed, *stream))
    return torch.randperm(count, generator=generator)


def batches(order: Tensor, size: int) -> list[Tensor]:
    """Batches of `size`; a last one of a single image joins its neighbour, since BatchNorm needs two."""
    parts = list(order.split(size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def split_validation(count: int, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Positions of training and of held-out normal images; test images are never used."""
    order = permutation(count, seed, SPLIT)
    held_out = held_out_count(count, fraction)
    if fraction and not 0 < held_out < count - 1:
        raise MaskrdError(
            f"validation_fraction {fraction} of {count} images leaves nothing to validate or to train on."
        )
    return order[held_out:].sort().values, order[:held_out].sort().values


class FeatureSource:
    """The teacher's features of training images, computed once where memory allows.

    The teacher is frozen by now and images aren't augmented, so kept features are exactly the recomputed ones.
    """

    def __init__(self, teacher: Teacher, images: Tensor, precision: str, batch_size: int, cache_gb: float) -> None:
        self.teacher, self.images, self.precision = teacher, images, precision
        sample = self.compute(images[:1])
        size = sum(feature.nbytes for feature in sample) * len(images)
        self.cache = self.fill(sample, batch_size) if size <= cache_gb * 1e9 else None

    def fill(self, sample: list[Tensor], batch_size: int) -> list[Tensor]:
        """The levels of all images. Written in place: joined at the end they would take their memory twice."""
        levels = [
            torch.empty(
                (len(self.images), *level.shape[1:]),
                dtype=level.dtype,
                device=level.device,
                memory_format=torch.channels_last,
            )
            for level in sample
        ]
        for start in range(0, len(self.images), batch_size):
            part = slice(start, start + batch_size)
            for level, features in zip(levels, self.compute(self.images[part]), strict=True):
                level[part] = features
        return levels

    def compute(self, images: Tensor) -> list[Tensor]:
        with autocast(images.device, self.precision):
            return self.teacher(images)

    def __call__(self, positions: Tensor) -> list[Tensor]:
        if self.cache is None:
            return self.compute(self.images[positions])
        return [level[positions] for level in self.cache]


class Trainer:
    """One model, its optimizer and its place in the schedule."""

    def __init__(self, job: Job) -> None:
        self.job = job
        device = choose_device(job.device, job.gpu_jobs)
        configure(device, job.threads)
        precision = resolve_precision(job.recipe.precision, device)
        self.settings = job.recipe.model_copy(update={"precision": precision})
        self.device = device
        index = Index.read(job.index)
        self.teacher, description = load_teacher(job.teacher, self.settings.normalize)
        self.teacher.to(device)
        self.identity = {
            "dataset": index.dataset,
            "category": index.category,
            "backbone": description.backbone,
            "seed": job.seed,
            "recipe": json.loads(canonical_json(self.settings)),
            "data_sha256": sha256_file(job.index),
            "teacher_sha256": sha256_file(job.teacher),
            "weights_sha256": description.weights_sha256,
        }
        samples = load_train(index, job.data, self.settings.image_size, job.threads).cropped(self.settings.crop)
        self.images = torch.from_numpy(samples.images).to(device)
        self.train_positions, self.validation_positions = split_validation(
            len(self.images), self.settings.validation_fraction, job.seed
        )
        torch.manual_seed(random_seed(job.seed, INITIALISATION))
        method = build_method(self.settings, self.teacher)
        self.method = method.to(device, memory_format=torch.channels_last)
        self.optimizer = build_optimizer(self.settings, self.method)
        self.selection = build_selection(self.settings, self.method, index, job, device)
        self.progress = Progress()
        self.best_weights: dict[str, Tensor] | None = None
        self.stop_signal: int | None = None
        self.unsaved = False  # steps since the last state
        self.clock = time.monotonic()  # up to which `progress.seconds` counts

    def state(self) -> dict:
        return {
            "weights": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best_weights": self.best_weights,
            "progress": asdict(self.progress),
        }

    def restore(self, state: dict) -> None:
        self.method.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best_weights = state["best_weights"]
        self.progress = Progress(**state["progress"])

    def count_seconds(self) -> None:
        now = time.monotonic()
        self.progress.seconds += now - self.clock
        self.clock = now

    def run(self, states: StateFolder) -> None:
        """Train to the last epoch, or to the one where patience runs out; save the state now and then.

        The clock counts all of it: what the teacher learns, its features, steps, validations.
        Raises Interrupted after a signal, and MaskrdError if the loss stops being a number.
        """
        self.clock = time.monotonic()
        if self.progress.epoch == self.progress.step == 0:
            torch.manual_seed(random_seed(self.job.seed, TEACHER))
            self.method.fit_teacher(self.images, self.train_positions)
        self.method.adjust_teacher()
        features = FeatureSource(
            self.teacher, self.images, self.settings.precision, self.settings.batch_size, self.job.cache_gb
        )
        total = self.settings.epochs * len(self.train_positions)
        start = self.progress.epoch * len(self.train_positions) + self.progress.step * self.settings.batch_size
        with tqdm(total=total, initial=start, unit="img", mininterval=2, dynamic_ncols=True) as bar:
            while self.progress.epoch < self.settings.epochs and not self.out_of_patience():
                self.run_epoch(features, states, bar)
                bar.set_postfix(epoch=self.progress.epoch, loss=f"{self.progress.history[-1]['loss']:.4f}")
        self.count_seconds()

    def run_epoch(self, features: FeatureSource, states: StateFolder, bar: tqdm) -> None:
        progress = self.progress
        order = self.train_positions[permutation(len(self.train_positions), self.job.seed, ORDER, progress.epoch)]
        # Moved once: a copy from the host at every step would make the host wait for the GPU.
        order = order.to(self.device)
        steps = batches(order, self.settings.batch_size)
        # Kept on the device: reading it at every step would make the GPU wait for the host.
        loss_sum = torch.tensor(progress.loss_sum, dtype=torch.float64, device=self.device)
        for positions in steps[progress.step :]:
            self.unsaved = True
            loss_sum += self.step(features, positions) * len(positions)
            progress.step += 1
            bar.update(len(positions))
            if self.stop_signal is not None or states.due():
                progress.loss_sum = self.finite(loss_sum.item())
                self.count_seconds()
                states.save(self.state())
                self.unsaved = False
                self.raise_if_stopped()
        self.finish_epoch(features, self.finite(loss_sum.item()) / len(order))

    def step(self, features: FeatureSource, positions: Tensor) -> Tensor:
        torch.manual_seed(random_seed(self.job.seed, STEP, self.progress.epoch, self.progress.step))
        self.method.train()
        with autocast(self.device, self.settings.precision):
            loss = self.method.loss(self.images[positions], features(positions))
        self.method.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def finish_epoch(self, features: FeatureSource, loss: float) -> None:
        progress = self.progress
        line = {"epoch": progress.epoch + 1, "loss": loss}
        compared = float("inf")
        if len(self.validation_positions):
            compared = line["validation_loss"] = self.validate(features)
        if self.selection is not None:
            line["test_score"] = self.selection.quality()
            compared = 1 - line["test_score"]
        progress.history.append(line)
        if compared < progress.best_loss:
            progress.best_loss, progress.best_epoch = compared, progress.epoch
            if self.settings.checkpoint != "last":
                self.best_weights = {k: v.detach().clone() for k, v in self.method.state_dict().items()}
        progress.epoch, progress.step, progress.loss_sum = progress.epoch + 1, 0, 0.0

    @torch.no_grad()
    def validate(self, features: FeatureSource) -> float:
        self.method.eval()
        total = 0.0
        for positions in self.validation_positions.to(self.device).split(self.settings.batch_size):
            with autocast(self.device, self.settings.precision):
                loss = self.method.validation_loss(self.images[positions], features(positions))
            total += loss.item() * len(positions)
        return self.finite(total) / len(self.validation_positions)

    def out_of_patience(self) -> bool:
        progress = self.progress
        return self.settings.patience is not None and progress.epoch - 1 - progress.best_epoch >= self.settings.patience

    def finite(self, loss: float) -> float:
        if not np.isfinite(loss):
            raise MaskrdError(
                f"The loss is {loss} in epoch {self.progress.epoch + 1}. Lower learning_rate, or use precision: fp32; "
                "the training then starts anew."
            )
        return loss

    def raise_if_stopped(self) -> None:
        if self.stop_signal is not None:
            raise Interrupted(self.stop_signal, self.progress.epoch + 1)

    def write(self) -> None:
        """The finished model with all that is known of it, and its training curve."""
        weights = self.best_weights or self.method.state_dict()
        description = {
            **self.identity,
            "recipe": self.settings.model_dump(mode="json"),
            **describe(self.device),
            "commit": code_commit(),
            "epochs": self.progress.epoch,
            "best_epoch": self.progress.best_epoch + 1 if self.best_weights else None,
            "leak": LEAK if self.settings.leaks else None,
            "images": len(self.train_positions),
            "seconds": round(self.progress.seconds, 2),
            "parameters": count_parameters(self.method),
        }
        tensors = {name: tensor.contiguous().cpu() for name, tensor in weights.items()}
        try:
            write_history(self.job.history, self.progress.history)
            with atomic_path(self.job.model) as temporary:
                save_file(tensors, temporary, metadata={"model": json.dumps(description, sort_keys=True)})
        except (OSError, SafetensorError) as error:
            raise MaskrdError(
                f"{self.job.model}: cannot be written ({error}). Is the disk full, or the folder read-only? "
                "The next run goes on from the last saved state."
            ) from None


@contextmanager
def stop_on_signals(trainer: Trainer) -> Iterator[None]:
    """SIGINT, SIGTERM (a cluster's preemption) and SIGHUP (a closed terminal) end the step, save the state, leave.

    Where no step was made since the last state, as in the minutes that a teacher may take over the
    images, leave at once: a cluster kills soon after it asked.
    """

    def request_stop(number: int, frame: object) -> None:
        trainer.stop_signal = number
        if not trainer.unsaved:
            trainer.raise_if_stopped()

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as under nohup
        numbers.append(signal.SIGHUP)
    previous = {number: signal.signal(number, request_stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def build_optimizer(settings: Training, method: torch.nn.Module) -> Optimizer:
    if settings.optimizer == "sgd":
        return SGD(method.parameters(), settings.learning_rate, settings.momentum, settings.weight_decay)
    return Adam(method.parameters(), settings.learning_rate, settings.betas, settings.weight_decay)


def build_selection(
    settings: Training, method: Method, index: Index, job: Job, device: torch.device
) -> "Selection | None":
    """The test set, where the recipe lets it choose the checkpoint; no other training reads a test image."""
    if not settings.leaks:
        return None
    from maskrd.selection import Selection

    logger.warning(
        "LEAK: checkpoint: best_on_test tests after every epoch and keeps the one with the best metrics. "
        "They are no estimate for other images; compare them with checkpoint: last."
    )
    return Selection(method, settings, index, job.data, device, job.threads)


def write_history(path: Path, history: list[dict[str, float]]) -> None:
    """The training curve: a line for each epoch."""
    write_csv(path, history[0], ([f"{value:.6g}" for value in line.values()] for line in history))


def train(job: Job) -> None:
    """Train a model, or go on where an earlier run of the same job stopped, and write it.

    Raises MaskrdError for anything the user can put right, Interrupted after SIGINT, SIGTERM or SIGHUP.
    """
    remedy = (
        f", keep fewer teacher features there (MASKRD_CACHE_GB, now {job.cache_gb:g}), "
        f"or lower batch_size (now {job.recipe.batch_size}), which makes another model"
    )
    with explain_out_of_memory(remedy):
        trainer = Trainer(job)
        states = StateFolder(job.state, sha256_json(trainer.identity), job.state_minutes * 60)
        state = states.load()
        if state is not None:
            trainer.restore(state)
            logger.info("Going on from epoch %d, step %d.", trainer.progress.epoch + 1, trainer.progress.step)
        with stop_on_signals(trainer):
            trainer.run(states)
    trainer.write()
    states.remove()
