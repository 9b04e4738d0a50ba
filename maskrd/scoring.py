"""A trained model and its teacher, scoring images: for tests and for one's own images alike."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from maskrd.errors import MaskrdError
from maskrd.experiment import Evaluation, Training
from maskrd.methods import build_method
from maskrd.methods.base import Method, gaussian_blur
from maskrd.runtime import autocast, choose_device, configure, explain_out_of_memory
from maskrd.teacher import Teacher, load_teacher

# Images are scored one by one, so this changes speed and memory, never a number.
BATCH_SIZE = 16


def read_description(model: Path) -> dict:
    """What a model file says of its training."""
    try:
        with safe_open(model, framework="pt") as file:
            return json.loads(file.metadata()["model"])
    except (SafetensorError, OSError, KeyError, TypeError) as error:
        raise MaskrdError(f"{model}: not a model of this pipeline ({error}). Delete it to train it anew.") from None


class LiveScorer:
    """A method with its teacher, on a device and in eval mode."""

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
            features = self.teacher(batch)
            maps = self.method.anomaly_maps(batch, features, self.evaluation).float()
            maps = gaussian_blur(maps, self.evaluation.blur_sigma)
            scores = self.method.image_scores(batch, features, maps, self.evaluation)
        return maps.cpu().numpy(), scores.float().cpu().numpy()

    def score_all(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`score`, a batch at a time."""
        parts = [self.score(images[start : start + BATCH_SIZE]) for start in range(0, len(images), BATCH_SIZE)]
        maps, scores = zip(*parts, strict=True)
        return np.concatenate(maps), np.concatenate(scores)


class Scorer(LiveScorer):
    """A model file with its teacher on a device.

    `gpu_jobs` is how many jobs share the visible GPUs. Raises MaskrdError for files that aren't ours.
    """

    def __init__(
        self, model: Path, teacher: Path, evaluation: Evaluation, device: str, threads: int, gpu_jobs: int = 1
    ) -> None:
        self.evaluation = evaluation
        self.description = read_description(model)
        self.training = Training.parse(f"{model}: recipe", json.dumps(self.description["recipe"]))
        self.device = choose_device(device, gpu_jobs)
        configure(self.device, threads)
        torch.manual_seed(0)  # read by mask_at_test only
        self.teacher = load_teacher(teacher, self.training.normalize)[0].to(self.device)
        method = build_method(self.training, self.teacher)
        method.load_state_dict(load_file(model))
        self.method = method.to(self.device, memory_format=torch.channels_last).eval()
        self.method.adjust_teacher()
