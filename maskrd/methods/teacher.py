"""Frozen ImageNet teachers.

One rule checks a teacher against timm and writes it to a file. All other jobs load that file with torch alone, because
importing timm and torchvision takes seconds.
"""

import hashlib
import json
import pickle
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from maskrd.config.teachers import ARCHITECTURES, VGG, Architecture
from maskrd.errors import MaskrdError, describe_fault
from maskrd.files import atomic_path, parse_json, sha256_file
from maskrd.layers.resnet import FeaturePyramid
from maskrd.layers.vgg import VGGPyramid

# Channel statistics of ImageNet. All these teachers were trained with them.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
UNUSED = ("layer4.", "fc.", "classifier.", "pre_logits.", "head.")


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class TeacherFile:
    """The description in a teacher file."""

    backbone: str
    weights_sha256: str


def build_pyramid(architecture: Architecture | VGG) -> FeaturePyramid | VGGPyramid:
    """The untrained network of a teacher's features."""
    return VGGPyramid(architecture) if isinstance(architecture, VGG) else FeaturePyramid(architecture)


class Teacher(nn.Module):
    """A frozen feature pyramid: uint8 images (N, 3, H, W) to features at 1/4, 1/8, 1/16 (VGG: and 1/32).

    `normalize` False: it reads images in [0, 1] without ImageNet's normalisation.
    """

    def __init__(self, architecture: Architecture | VGG, normalize: bool = True) -> None:
        super().__init__()
        self.architecture = architecture
        self.pyramid = build_pyramid(architecture)
        mean, std = (IMAGENET_MEAN, IMAGENET_STD) if normalize else ((0, 0, 0), (1, 1, 1))
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Teacher":
        """Stay in evaluation mode: the teacher's batch statistics are frozen, too."""
        return super().train(False)

    def normalize(self, images: Tensor) -> Tensor:
        """uint8 images to the pyramid's input: float, normalised or in [0, 1].

        The memory layout is channels_last, in which convolutions are fastest, above all in bf16.
        """
        return ((images.float() - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def forward(self, images: Tensor) -> list[Tensor]:
        return self.pyramid(self.normalize(images))


def load_teacher(path: Path, normalize: bool = True) -> tuple[Teacher, TeacherFile]:
    """Read a file of `export_teacher` or of the demo's pre-training. `normalize`: as in `Teacher`.

    Raises MaskrdError for any other file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            description = TeacherFile(**parse_json(file.metadata()["teacher"]))
        teacher = Teacher(ARCHITECTURES[description.backbone], normalize)
        teacher.pyramid.load_state_dict(load_file(path))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = describe_fault(error)
        raise MaskrdError(
            f"{path}: not a teacher file of this pipeline ({reason}). Delete it, and Snakemake makes it again."
        ) from None
    return teacher.to(memory_format=torch.channels_last), description


def save_teacher(pyramid: FeaturePyramid | VGGPyramid, description: TeacherFile, path: Path) -> None:
    state = {name: tensor.contiguous() for name, tensor in pyramid.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(state, temporary, metadata={"teacher": json.dumps(asdict(description))})


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """The digest of the names and values of tensors on the host."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy())  # numpy has no bfloat16
    return digest.hexdigest()


def export_teacher(backbone: str, weights: Path, output: Path) -> None:
    """Check ImageNet weights against timm's architecture and write the teacher file.

    `weights`: a torchvision or timm state dict, .pth (read without unpickling code) or .safetensors.
    A ResNet's stage 4 and the classifier may be absent. Raises MaskrdError with the names of keys that are missing,
    have another shape, or have values that no trained network has.
    """
    state = read_weights(backbone, weights)
    pyramid = build_pyramid(ARCHITECTURES[backbone])
    check_weights(backbone, weights, state, pyramid.state_dict())
    pyramid.load_state_dict(state, strict=False)
    check_against_timm(backbone, state, pyramid.eval())
    save_teacher(pyramid, TeacherFile(backbone, sha256_file(weights)), output)


def read_weights(backbone: str, path: Path) -> dict[str, Tensor]:
    where = f"weights.{backbone}: {path}"
    if not path.is_file():
        raise MaskrdError(f"{where} does not exist. Correct the path, or remove the key to download the weights.")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # unpickling raises errors of many types
        reason = (str(error) or type(error).__name__).splitlines()[0]  # an empty file gives an empty message
        if isinstance(error, pickle.UnpicklingError):  # torch's text advises to load without its safety check
            reason = "it holds something else than weights"
        raise MaskrdError(
            f"{where} can't be read as a .safetensors or .pth state dict ({reason}). Name another file."
        ) from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise MaskrdError(f"{where} doesn't hold a state dict (names to tensors). Name another file.")
    return {name: value for name, value in state.items() if not name.startswith(UNUSED)}


def check_weights(backbone: str, path: Path, state: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    # Counters of training batches: older files lack them, and frozen norms don't read them.
    needed = {name: value for name, value in expected.items() if not name.endswith("num_batches_tracked")}
    missing = sorted(set(needed) - set(state))
    surplus = sorted(set(state) - set(expected))
    shared = {name: state[name] for name in sorted(set(needed) & set(state))}
    misshapen = [name for name, value in shared.items() if needed[name].shape != value.shape]
    kinds = (
        ("missing", missing),
        ("unexpected", surplus),
        ("of another shape", misshapen),
        ("not of a floating-point type", [name for name, value in shared.items() if not value.is_floating_point()]),
        ("with NaN or infinite values", [name for name, value in shared.items() if not value.isfinite().all()]),
        # A norm's bias may be zero; a convolution of zeros lets nothing through.
        ("all zero", [name for name, value in shared.items() if value.ndim > 1 and not value.any()]),
        ("with negative variances", [name for name, value in shared.items() if is_negative_variance(name, value)]),
    )
    problems = [
        f"{len(names)} {kind} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for kind, names in kinds
        if names
    ]
    if problems:
        raise MaskrdError(
            f"weights.{backbone}: {path} doesn't hold weights of {backbone}. Keys: {'; '.join(problems)}. Name another "
            "file, or correct the backbone."
        )


def is_negative_variance(name: str, value: Tensor) -> bool:
    return name.endswith("running_var") and value.is_floating_point() and bool((value < 0).any())


@torch.no_grad()
def check_against_timm(backbone: str, state: dict[str, Tensor], pyramid: FeaturePyramid | VGGPyramid) -> None:
    """Raises MaskrdError if the pyramid's features differ from timm's: then a block is built differently."""
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    pairs = zip(pyramid(images), timm_features(backbone, state, images), strict=True)
    worst = max(((ours - theirs).abs().max() / theirs.abs().max()).item() for ours, theirs in pairs)
    if not worst <= 1e-4:  # true for NaN, too
        raise MaskrdError(f"{backbone}: features differ from timm's by {worst:.1e} of their range.")


def timm_features(backbone: str, state: dict[str, Tensor], images: Tensor) -> list[Tensor]:
    import timm

    architecture = ARCHITECTURES[backbone]
    reference = timm.create_model(backbone, features_only=True, out_indices=architecture.levels, pretrained=False)
    reference.eval()
    if isinstance(architecture, Architecture):
        reference.load_state_dict(state, strict=False)
        return reference(images)
    # timm flattens the names of a VGG, and hands out what goes into a pool.
    reference.load_state_dict(
        {name.replace("features.", "features_"): value for name, value in state.items()}, strict=False
    )
    return [F.max_pool2d(feature, 2) for feature in reference(images)]
