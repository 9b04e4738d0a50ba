"""A trained model and its teacher, scoring images: for tests and for one's own images alike."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from tqdm import tqdm

from maskrd.errors import MaskrdError
from maskrd.experiment import Evaluation, Training
from maskrd.methods import build_method
from maskrd.methods.base import Method, gaussian_blur
from maskrd.runtime import autocast, choose_device, configure, explain_out_of_memory
from maskrd.teacher import Teacher, load_teacher

# Images are scored each for itself, so this changes speed and memory, and no number but those of `mask_at_test`, whose
# masks are drawn for a batch.
BATCH_SIZE = 16


def score_text(score: float) -> str:
    """A score as scores.csv has it: all the digits of a float32 that mean something."""
    return f"{score:.7g}"


def read_description(model: Path) -> dict:
    """What a model file says of its training."""
    try:
        with safe_open(model, framework="pt") as file:
            return json.loads(file.metadata()["model"])
    except (SafetensorError, OSError, KeyError, TypeError) as error:
        remedy = "If it was one, delete it: Snakemake trains it anew."
        raise MaskrdError(f"{model}: not a model.safetensors of this pipeline ({error}). {remedy}") from None


def recorded_training(model: Path, description: dict) -> Training:
    """The recipe in a model's description. Raises MaskrdError where it has settings that this version doesn't know."""
    return Training.parse(f"{model}: recipe", json.dumps(description["recipe"]))


class LiveScorer:
    """A method with its teacher, on a device and in eval mode."""

    name: str  # for messages
    method: Method
    teacher: Teacher
    training: Training
    evaluation: Evaluation
    device: torch.device

    @torch.no_grad()
    def score(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Blurred anomaly maps, float32 (N, H, W), and image scores, float32 (N,), of uint8 images (N, 3, H, W)."""
        batch = torch.from_numpy(images).to(self.device)
        with explain_out_of_memory(""), autocast(self.device, self.training.precision):
            maps, scores = self.method.maps_and_scores(batch, self.evaluation)
            maps = gaussian_blur(maps.float(), self.evaluation.blur_sigma)
        if scores is None:
            scores = maps.amax(dim=(1, 2)) if self.evaluation.score == "max" else maps.mean(dim=(1, 2))
        return maps.cpu().numpy(), scores.float().cpu().numpy()

    def score_all(self, images: np.ndarray, keep_maps: bool = True) -> tuple[np.ndarray | None, np.ndarray]:
        """`score`, a batch at a time, with the same random masks in every pass (`mask_at_test`).

        Without `keep_maps` None in place of the maps, for which large test sets have no memory. Raises MaskrdError for
        scores that aren't finite.
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
        if not np.isfinite(scores).all():
            raise MaskrdError(
                f"{self.name}: the scores of images are not finite. Train it anew with a lower learning_rate, or with "
                "precision: fp32."
            )
        return maps, scores


class Scorer(LiveScorer):
    """A model file with its teacher on a device.

    `gpu_jobs` is how many jobs share the visible GPUs. Raises MaskrdError for files that aren't ours.
    """

    def __init__(
        self, model: Path, teacher: Path, evaluation: Evaluation, device: str, threads: int, gpu_jobs: int = 1
    ) -> None:
        self.name, self.evaluation = str(model), evaluation
        self.description = read_description(model)
        self.training = recorded_training(model, self.description)
        self.device = choose_device(device, gpu_jobs)
        configure(self.device, threads)
        self.teacher = load_teacher(teacher, self.training.normalize)[0].to(self.device)
        method = build_method(self.training, self.teacher)
        method.load_state_dict(load_file(model))
        self.method = method.to(self.device, memory_format=torch.channels_last).eval()
        self.method.adjust_teacher()
