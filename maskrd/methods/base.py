"""The base classes of methods, and functions that turn distances into anomaly maps."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from math import prod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from maskrd.config.settings import Evaluation, Training
from maskrd.layers.resnet import count_parameters
from maskrd.methods.teacher import Teacher

# The teacher's features of the images at some positions.
Features = Callable[[Tensor], list[Tensor]]


class Method(nn.Module):
    """A student and its loss. All parameters of the module are trained. The teacher is not part of the module.

    Images are uint8 (N, 3, H, W). Features are the teacher's, at 1/4, 1/8 and 1/16 of that size (VGG: also 1/32).
    """

    teacher: Teacher
    export_problem: ClassVar[str | None] = None  # why the maps of the method can't be made by an ONNX graph
    export_tolerance: ClassVar[float] = 1e-4  # between a graph and torch, of the largest value
    # Whether a training step may be replayed as a CUDA graph. Then `loss` launches the same kernels at every step and
    # never waits for the GPU (no .item(), no .cpu(), no shapes that follow from values). What it keeps between steps it
    # changes in place, and torch draws its random numbers on the GPU: Python doesn't run again.
    capturable: ClassVar[bool] = False

    def __init__(self, settings: Training, teacher: Teacher) -> None:
        super().__init__()
        self.settings = settings
        # Past nn.Module's registration: the teacher is neither trained, moved nor saved with the student.
        object.__setattr__(self, "teacher", teacher)

    def fit_teacher(self, images: Tensor, positions: Tensor) -> None:
        """Learn changes to the teacher before the first step. Most methods leave the teacher as it is.

        `positions` are those of the training images. Put what is learned into buffers, so that it is saved with the
        model. Afterwards the teacher doesn't change any more, so its features may be kept.
        """

    def adjust_teacher(self) -> None:
        """Apply the learned changes to the teacher. It is called before the features are used, also in testing."""

    def loss(self, images: Tensor, features: list[Tensor]) -> Tensor:
        """Mean training loss of a batch, float32, scalar."""
        raise NotImplementedError

    def validation_loss(self, images: Tensor, features: list[Tensor]) -> Tensor:
        """The value that `patience` and `checkpoint: best_validation` compare on held-out images. Lower is better."""
        return self.loss(images, features)

    def anomaly_maps(self, images: Tensor, features: list[Tensor], evaluation: Evaluation) -> Tensor:
        """Anomaly maps, float32 (N, H, W), at the images' size. Higher is more anomalous. They are blurred later."""
        raise NotImplementedError

    def count_learned(self) -> int:
        """The number of learned values: the parameters."""
        return count_parameters(self)

    def maps_and_scores(self, images: Tensor, evaluation: Evaluation) -> tuple[Tensor, Tensor | None]:
        """Anomaly maps as of `anomaly_maps`, and image scores (N,). None: the scores follow from the blurred maps.

        Testing calls only this. A method whose maps aren't made of the teacher's features overrides it.
        """
        return self.anomaly_maps(images, self.teacher(images), evaluation), None


class OnePassMethod(Method):
    """A method without a gradient. It learns from the teacher's features, and has buffers instead of parameters.

    `learned` names the buffers that `learn` fills. Their sizes are not known before.
    """

    learned: ClassVar[tuple[str, ...]]

    def __init__(self, settings: Training, teacher: Teacher) -> None:
        super().__init__(settings, teacher)
        for name in self.learned:
            self.register_buffer(name, torch.empty(0))

    def learn(self, features: Features, batches: Sequence[Tensor]) -> None:
        """Fill the `learned` buffers from the images whose positions are in `batches`.

        `features(batch)` gives the teacher's features of a batch. They are kept if memory allows; otherwise every call
        computes them again. Random numbers come from torch's global generator, which is seeded.
        """
        raise NotImplementedError

    def count_learned(self) -> int:
        return sum(getattr(self, name).numel() for name in self.learned)

    def load_state_dict(self, state_dict: Mapping[str, Tensor], *args, **kwargs):
        """Like torch's, but the buffers take the sizes of the file. Its tensors are used, not copied."""
        for name in self.learned:
            if name in state_dict:
                self.register_buffer(name, torch.empty_like(state_dict[name], device="meta"))
        return super().load_state_dict(state_dict, *args, **{**kwargs, "assign": True})


@contextmanager
def full_precision() -> Iterator[None]:
    """In this context, matrix products are float32, neither bf16 (autocast) nor TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


class Cosine(torch.autograd.Function):
    """Cosine over dimensions, in float32. F.cosine_similarity takes four times as long, at 256 pixels 6 % of a step."""

    @staticmethod
    def forward(ctx: FunctionCtx, a: Tensor, b: Tensor, dims: tuple[int, ...]) -> Tensor:
        a, b = a.float(), b.float()
        length_a, length_b = (torch.linalg.vector_norm(x, dim=dims, keepdim=True).clamp_min(1e-8) for x in (a, b))
        cosine = (a * b).sum(dim=dims, keepdim=True).div_(length_a).div_(length_b)
        ctx.save_for_backward(a, b, length_a, length_b, cosine)
        return cosine.squeeze(dims)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        a, b, length_a, length_b, cosine = ctx.saved_tensors
        gradient = gradient.reshape(cosine.shape)
        across = gradient / (length_a * length_b)
        one = (b * across).addcmul_(a, -gradient * cosine / length_a**2) if ctx.needs_input_grad[0] else None
        other = (a * across).addcmul_(b, -gradient * cosine / length_b**2) if ctx.needs_input_grad[1] else None
        return one, other, None


def cosine_distance(a: Tensor, b: Tensor) -> Tensor:
    """1 - cosine of two feature maps at every position: (N, C, H, W) twice to float32 (N, H, W), in [0, 2]."""
    return 1 - Cosine.apply(a, b, (1,))


def flattened_cosine_distance(a: Tensor, b: Tensor) -> Tensor:
    """1 - cosine of whole feature maps taken as vectors: float32 (N,), in [0, 2] (RD4AD's code)."""
    return 1 - Cosine.apply(a, b, (1, 2, 3))


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, corners aligned, as RD4AD does: (N, h, w) to (N, *size)."""
    return F.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=True)[:, 0]


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, corners not aligned, as STPM, PaDiM and PatchCore do: (N, h, w) to (N, *size)."""
    return F.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


def fuse(maps: dict[int, Tensor], evaluation: Evaluation) -> Tensor:
    """One map (N, H, W) of the maps of the scored levels: their sum (RD), product (STPM) or weighted sum."""
    if evaluation.score_layers:
        maps = {level: maps[level] for level in evaluation.score_layers}
    if evaluation.map_fusion == "product":
        return prod(maps.values())
    if evaluation.map_fusion == "weighted":
        return sum(evaluation.map_weights[level - 1] * level_map for level, level_map in maps.items())
    return sum(maps.values())


def widest_float(device: torch.device) -> torch.dtype:
    """float64. On Apple's GPUs, which lack it, float32."""
    return torch.float32 if device.type == "mps" else torch.float64


def gaussian_blur(maps: Tensor, sigma: float) -> Tensor:
    """scipy.ndimage.gaussian_filter on the maps' device: (N, H, W) to the same shape.

    The kernel ends at 4 sigma. Beyond the border the image is mirrored with its edge pixel repeated; torch's own
    "reflect" padding doesn't do that. It is computed in double precision, like scipy's, and never in TF32.
    """
    if sigma == 0:
        return maps
    rows, columns = (blur_matrix(length, sigma, maps.device) for length in maps.shape[1:])
    return (rows @ maps.to(rows.dtype) @ columns.T).to(maps.dtype)


@cache
def blur_matrix(length: int, sigma: float, device: torch.device) -> Tensor:
    """The blur as a matrix (length, length) in `widest_float`: row i has each pixel's weight in blurred pixel i."""
    radius = int(4 * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1, device="cpu")
    kernel = torch.exp(-0.5 * (offsets.double() / sigma) ** 2)
    positions = (torch.arange(length, device="cpu")[:, None] + offsets) % (2 * length)
    mirrored = torch.where(positions < length, positions, 2 * length - 1 - positions)
    weights = (kernel / kernel.sum()).expand(length, -1)
    matrix = torch.zeros(length, length, dtype=torch.float64, device="cpu").scatter_add_(1, mirrored, weights)
    return matrix.to(device, widest_float(device))
