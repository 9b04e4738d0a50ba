"""Scoring images with a trained model and its teacher: for test jobs and for the user's own images."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor
from tqdm import tqdm

from maskrd.config.settings import Evaluation, Training
from maskrd.engine.machine import Machine, autocast, explain_out_of_memory
from maskrd.engine.model_file import read_tensors, read_training
from maskrd.errors import MaskrdError
from maskrd.methods import build_method
from maskrd.methods.base import Method, OnePassMethod, gaussian_blur
from maskrd.methods.external import External
from maskrd.methods.from_file import errors_of_file
from maskrd.methods.teacher import Teacher, load_teacher

# Each image is scored by itself, so this changes speed and memory but no number. An exception is `mask_at_test`, whose
# masks are drawn for a batch.
BATCH_SIZE = 16


def score_text(score: float) -> str:
    """A score as text for scores.csv, with all meaningful digits of a float32."""
    return f"{score:.7g}"


@dataclass(frozen=True)
class Scorer:
    """A method in eval mode with its teacher on a device, and the settings for scoring images.

    `name` is its name in messages.
    """

    name: str
    method: Method
    settings: Training
    evaluation: Evaluation
    device: torch.device

    @property
    def teacher(self) -> Teacher:
        return self.method.teacher

    def maps_and_scores(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The same as `score`, with tensors on the device."""
        maps, scores = self.method.maps_and_scores(images, self.evaluation)
        maps = gaussian_blur(maps.float(), self.evaluation.blur_sigma)
        if scores is None:
            scores = maps.amax(dim=(1, 2)) if self.evaluation.score == "max" else maps.mean(dim=(1, 2))
        return maps, scores.float()

    @torch.no_grad()
    def score(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Blurred anomaly maps, float32 (N, H, W), and image scores, float32 (N,), of uint8 images (N, 3, H, W).

        Raises MaskrdError if a score isn't finite.
        """
        batch = torch.from_numpy(images).to(self.device)
        precision = autocast(self.device, self.settings.precision)
        with errors_of_file(self.settings), explain_out_of_memory(""), precision:
            maps, scores = self.maps_and_scores(batch)
        if not scores.isfinite().all():
            raise MaskrdError(
                f"{self.name}: the scores of images are not finite. Train the model again with a lower learning_rate, "
                "or with precision: fp32."
            )
        return maps.cpu().numpy(), scores.cpu().numpy()

    def score_all(self, images: np.ndarray, keep_maps: bool = True) -> tuple[np.ndarray | None, np.ndarray]:
        """`score`, a batch at a time, with the same random masks in every pass (`mask_at_test`).

        Without `keep_maps` the maps are None: those of a large test set may not fit into memory.
        """
        torch.manual_seed(0)
        count = len(images)
        maps = np.empty((count, *images.shape[2:]), np.float32) if keep_maps else None
        scores = np.empty(count, np.float32)
        for start in tqdm(range(0, count, BATCH_SIZE), unit="batch", mininterval=2, dynamic_ncols=True):
            part = slice(start, start + BATCH_SIZE)
            found, scores[part] = self.score(images[part])
            if maps is not None:
                maps[part] = found
        return maps, scores


def load_scorer(model: Path, teacher: Path, evaluation: Evaluation, machine: Machine) -> Scorer:
    """The method of a model file with its teacher, on the machine's device.

    Raises MaskrdError for files that this pipeline didn't write, and for tensors that changed since.
    """
    settings = read_training(model).recipe
    device = machine.claim()
    with explain_out_of_memory(""):
        method = build_method(settings, load_teacher(teacher, settings.normalize)[0].to(device))
    try:
        method.load_state_dict(read_tensors(model))
    except (SafetensorError, RuntimeError) as error:
        raise unfit_weights(str(model), error) from None
    with explain_out_of_memory(""):
        method = method.to(device, memory_format=torch.channels_last).eval()
    method.adjust_teacher()
    scorer = Scorer(str(model), method, settings, evaluation, device)
    if isinstance(method, OnePassMethod) and not isinstance(method, External):  # which knows its own images only
        score_blank_image(scorer)
    return scorer


def score_blank_image(scorer: Scorer) -> None:
    """Raises MaskrdError if the learned tensors don't fit. They may have any size, so loading them notices nothing."""
    size = scorer.settings.crop or scorer.settings.image_size
    try:
        scorer.score(np.zeros((1, 3, size, size), np.uint8))
    except (RuntimeError, IndexError) as error:
        raise unfit_weights(scorer.name, error) from None


def unfit_weights(model: str, error: Exception) -> MaskrdError:
    reason = str(error).splitlines()[-1].strip()
    return MaskrdError(
        f"{model}: its weights don't fit its recipe ({reason}). Delete the file, and Snakemake trains it again."
    )
