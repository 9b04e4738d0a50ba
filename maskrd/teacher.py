"""Frozen ImageNet teachers.

One rule builds a teacher with timm, checks it and writes it to a file; all other jobs load that file
with torch alone (timm and torchvision cost seconds to import).
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from maskrd.errors import MaskrdError
from maskrd.files import atomic_path, sha256_file
from maskrd.layers import resnet, vgg
from maskrd.layers.resnet import Architecture, FeaturePyramid
from maskrd.layers.vgg import VGG, VGGPyramid

# Networks that can be a teacher, by backbone: each has `levels`, `channels(level)` and builds its untrained pyramid.
ARCHITECTURES: dict[str, Architecture | VGG] = {**resnet.ARCHITECTURES, **vgg.ARCHITECTURES}

# Channel statistics of ImageNet, with which all these teachers were trained.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
UNUSED = ("layer4.", "fc.", "classifier.", "pre_logits.", "head.")


@dataclass(frozen=True)
class TeacherFile:
    """What a teacher file says of itself."""

    backbone: str
    weights_sha256: str


class Teacher(nn.Module):
    """A frozen feature pyramid: uint8 images (N, 3, H, W) to features at 1/4, 1/8, 1/16 (VGG: and 1/32).

    `normalize`: False feeds it images in [0, 1] without ImageNet's normalisation.
    """

    def __init__(self, architecture: Architecture | VGG, normalize: bool = True) -> None:
        super().__init__()
        self.architecture = architecture
        self.pyramid = architecture.build()
        mean, std = (IMAGENET_MEAN, IMAGENET_STD) if normalize else ((0, 0, 0), (1, 1, 1))
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Teacher":
        """Stay in evaluation mode: the teacher's batch statistics are frozen, too."""
        return super().train(False)

    def normalize(self, images: Tensor) -> Tensor:
        """uint8 images to what the pyramid reads: float, ImageNet-normalised or in [0, 1].

        In channels_last, the memory layout in which convolutions run fastest, on bf16 above all.
        """
        return ((images.float() - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def forward(self, images: Tensor) -> list[Tensor]:
        return self.pyramid(self.normalize(images))


def load_teacher(path: Path, normalize: bool = True) -> tuple[Teacher, TeacherFile]:
    """Read a file that `export_teacher` or the demo's pre-training wrote; `normalize` as in `Teacher`."""
    try:
        with safe_open(path, framework="pt") as file:
            description = TeacherFile(**json.loads(file.metadata()["teacher"]))
        teacher = Teacher(ARCHITECTURES[description.backbone], normalize)
        teacher.pyramid.load_state_dict(load_file(path))
    except (SafetensorError, OSError, KeyError, TypeError, RuntimeError) as error:
        raise MaskrdError(
            f"{path}: not a teacher file of this pipeline ({error}). Delete it to have it made anew."
        ) from None
    return teacher.to(memory_format=torch.channels_last), description


def save_teacher(pyramid: FeaturePyramid | VGGPyramid, description: TeacherFile, path: Path) -> None:
    state = {name: tensor.contiguous() for name, tensor in pyramid.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(state, temporary, metadata={"teacher": json.dumps(vars(description))})


def export_teacher(backbone: str, weights: Path, output: Path) -> None:
    """Check ImageNet weights against timm's architecture and write the teacher file.

    `weights`: a torchvision or timm state dict, .pth (read without unpickling code) or .safetensors.
    A ResNet's stage 4 and the classifier may be absent. Raises MaskrdError naming keys that are missing or misshapen.
    """
    state = read_weights(backbone, weights)
    pyramid = ARCHITECTURES[backbone].build()
    check_weights(backbone, weights, state, pyramid.state_dict())
    pyramid.load_state_dict(state, strict=False)
    check_against_timm(backbone, state, pyramid.eval())
    save_teacher(pyramid, TeacherFile(backbone, sha256_file(weights)), output)


def read_weights(backbone: str, path: Path) -> dict[str, Tensor]:
    where = f"weights.{backbone}: {path}"
    if not path.is_file():
        raise MaskrdError(f"{where} does not exist. Correct the path, or leave it out to download the weights.")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # unpickling raises errors of many types
        reason = (str(error) or type(error).__name__).splitlines()[0]  # that of an empty file is empty
        raise MaskrdError(f"{where} is not a readable .safetensors or .pth state dict ({reason}).") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise MaskrdError(f"{where} holds no state dict (names to tensors).")
    return {name: value for name, value in state.items() if not name.startswith(UNUSED)}


def check_weights(backbone: str, path: Path, state: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    # Counters of training batches: older files lack them, and frozen norms don't read them.
    needed = {name: value for name, value in expected.items() if not name.endswith("num_batches_tracked")}
    missing = sorted(set(needed) - set(state))
    surplus = sorted(set(state) - set(expected))
    misshapen = sorted(name for name in set(needed) & set(state) if needed[name].shape != state[name].shape)
    problems = [
        f"{len(names)} {kind} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for kind, names in (("missing", missing), ("unexpected", surplus), ("of another shape", misshapen))
        if names
    ]
    if problems:
        raise MaskrdError(f"weights.{backbone}: {path} are not weights of {backbone}: keys {'; '.join(problems)}.")


@torch.no_grad()
def check_against_timm(backbone: str, state: dict[str, Tensor], pyramid: FeaturePyramid | VGGPyramid) -> None:
    """The pyramid must give timm's features: a guard against a block built differently."""
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    pairs = zip(pyramid(images), timm_features(backbone, state, images), strict=True)
    worst = max(((ours - theirs).abs().max() / theirs.abs().max()).item() for ours, theirs in pairs)
    if worst > 1e-4:
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
