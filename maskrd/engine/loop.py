"""Learning from the gradient of a loss: a loop that can be interrupted anywhere and ends with the same weights."""

import time
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from pydantic.dataclasses import dataclass as checked_dataclass
from torch import Tensor
from tqdm import tqdm

from maskrd.engine.cuda_graph import GraphedStep
from maskrd.engine.features import FeatureSource
from maskrd.engine.inputs import Inputs
from maskrd.engine.interruption import StopRequest
from maskrd.engine.machine import autocast
from maskrd.engine.optim import build_optimizer
from maskrd.engine.sampling import ORDER, STEP, TEACHER, batches, permutation, random_seed
from maskrd.engine.state import StateFolder
from maskrd.engine.step import gradient_step
from maskrd.engine.store import Stored
from maskrd.errors import MaskrdError
from maskrd.methods.base import widest_float


@checked_dataclass  # a state's content may be odd
class Progress:
    """The progress of a training. With weights and optimizer it is enough to continue from there.

    `best_loss` is the lowest validation loss; with `checkpoint: best_on_test`, 1 - the best score.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    best_loss: float = float("inf")
    best_epoch: int = -1
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Learned:
    """The result of learning. `history` has a line for each epoch. `best_epoch` None: weights of the last epoch."""

    weights: dict[str, Tensor]
    history: list[dict[str, float]]
    epochs: int
    best_epoch: int | None
    seconds: float


class Trainer:
    """One method in training, its optimizer and its place in the schedule."""

    def __init__(self, inputs: Inputs) -> None:
        self.settings, self.seed, self.device = inputs.settings, inputs.seed, inputs.device
        self.method, self.teacher, self.images = inputs.method, inputs.teacher, inputs.images
        self.train_positions, self.validation_positions = inputs.train_positions, inputs.validation_positions
        self.selection, self.cache_gb = inputs.selection, inputs.cache_gb
        self.update = self.eager_update
        if inputs.cuda_graphs:
            sizes = map(len, batches(self.train_positions, self.settings.batch_size))
            self.update = GraphedStep(self.eager_update, sizes, self.method.zero_grad)
        self.optimizer = build_optimizer(self.settings, self.method.parameters())
        self.progress = Progress()
        self.best_weights: dict[str, Tensor] | None = None
        self.clock = time.monotonic()  # up to which `progress.seconds` counts

    def state(self) -> dict:
        return {
            "precision": self.settings.precision,
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

    def run(self, stored: Stored, states: StateFolder, stop: StopRequest) -> Learned:
        """Train until the last epoch, or until patience runs out. Saves the state now and then.

        After each epoch, the progress is written to `stored`. The clock counts everything: fitting the teacher, its
        features, steps, validations. Raises Interrupted after a signal, and MaskrdError if the loss isn't finite.
        """
        self.clock = time.monotonic()
        self.prepare_features()
        progress, count = self.progress, len(self.train_positions)
        # Section 4.2: epochs, batch size, optimizer. Early stopping and a chosen checkpoint are not the paper's.
        done = progress.epoch * count + progress.step * self.settings.batch_size
        total = self.settings.epochs * count
        with tqdm(total=total, initial=done, unit="img", mininterval=2, dynamic_ncols=True) as bar:
            while progress.epoch < self.settings.epochs and not self.out_of_patience():
                self.run_epoch(states, stop, bar)
                self.count_seconds()
                stored.write_progress(progress.history, self.settings.epochs, progress.seconds)
                bar.set_postfix(epoch=progress.epoch, loss=f"{progress.history[-1]['loss']:.4f}")
        weights = self.best_weights or self.method.state_dict()
        best_epoch = progress.best_epoch + 1 if self.best_weights else None
        return Learned(weights, progress.history, progress.epoch, best_epoch, progress.seconds)

    def prepare_features(self) -> None:
        """Before the first step: let the teacher adapt, where a method wants that, and compute its features."""
        # Section 3.2: the teacher is frozen. Some other methods let it adapt to the images first.
        if self.progress.epoch == self.progress.step == 0:
            torch.manual_seed(random_seed(self.seed, TEACHER))
            self.method.fit_teacher(self.images, self.train_positions)
        self.method.adjust_teacher()
        self.features = FeatureSource(
            self.teacher, self.images, self.settings.precision, self.settings.batch_size, self.cache_gb
        )

    def run_epoch(self, states: StateFolder, stop: StopRequest, bar: tqdm) -> None:
        progress = self.progress
        order = self.train_positions[permutation(len(self.train_positions), self.seed, ORDER, progress.epoch)]
        # Moved once: a copy from the host at every step would make the host wait for the GPU.
        order = order.to(self.device)
        steps = batches(order, self.settings.batch_size)
        # Kept on the device: reading it at every step would make the GPU wait for the host.
        loss_sum = torch.tensor(progress.loss_sum, dtype=widest_float(self.device), device=self.device)
        for positions in steps[progress.step :]:
            stop.unsaved = True
            loss_sum += self.step(positions) * len(positions)
            progress.step += 1
            bar.update(len(positions))
            if stop.number is not None or states.due():
                progress.loss_sum = self.finite(loss_sum.item())
                self.count_seconds()
                states.save(self.state())
                stop.unsaved = False
                stop.raise_if_asked()
        self.finish_epoch(self.finite(loss_sum.item()) / len(order))

    def step(self, positions: Tensor) -> Tensor:
        """Update the student once, after `prepare_features`. Returns the batch's mean loss, a scalar on the device."""
        # Section 3.7: the masks of FMM, drawn again at every step.
        torch.manual_seed(random_seed(self.seed, STEP, self.progress.epoch, self.progress.step))
        return self.update(positions)

    def eager_update(self, positions: Tensor) -> Tensor:
        """A step that launches its kernels one by one."""
        images, features = self.images[positions], self.features(positions)
        return gradient_step(self.method, self.optimizer, images, features, self.settings.precision)

    def finish_epoch(self, loss: float) -> None:
        progress = self.progress
        line = {"epoch": progress.epoch + 1, "loss": loss}
        compared = float("inf")
        if len(self.validation_positions):
            compared = line["validation_loss"] = self.validate()
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
    def validate(self) -> float:
        """Mean loss of the held-out images."""
        self.method.eval()
        total = 0.0
        for positions in self.validation_positions.to(self.device).split(self.settings.batch_size):
            with autocast(self.device, self.settings.precision):
                loss = self.method.validation_loss(self.images[positions], self.features(positions))
            total += loss.item() * len(positions)
        return self.finite(total) / len(self.validation_positions)

    def out_of_patience(self) -> bool:
        progress = self.progress
        return self.settings.patience is not None and progress.epoch - 1 - progress.best_epoch >= self.settings.patience

    def finite(self, loss: float) -> float:
        if not np.isfinite(loss):
            raise MaskrdError(
                f"The loss is {loss} in epoch {self.progress.epoch + 1}. Lower learning_rate, or use precision: fp32. "
                "The training then starts from the beginning."
            )
        return loss
