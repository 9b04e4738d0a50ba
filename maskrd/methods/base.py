"""What every method offers, and how distances become anomaly maps."""

from functools import cache
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from maskrd.experiment import Evaluation, Training
from maskrd.teacher import Teacher


class Method(nn.Module):
    """A student and its loss. All parameters of the module are trained; the teacher is not part of it.

    Images are uint8 (N, 3, H, W); features are the teacher's, at 1/4, 1/8 and 1/16 of that size (VGG: and 1/32).
    """

    teacher: Teacher

    def __init__(self, settings: Training, teacher: Teacher) -> None:
        super().__init__()
        self.settings = settings
        # Past nn.Module's registration: the teacher is neither trained, moved nor saved with the student.
        object.__setattr__(self, "teacher", teacher)

    def fit_teacher(self, images: Tensor, positions: Tensor) -> None:
        """Learn, before the first step, how the teacher is to be changed; most methods leave it as it is.

        `positions` are those of the training images. What is learned belongs into buffers, so that it is saved
        with the model. Afterwards the teacher doesn't change any more, and its features may be kept.
        """

    def adjust_teacher(self) -> None:
        """Change the teacher as learned: called before its features are used, in training and in testing."""

    def loss(self, images: Tensor, features: list[Tensor]) -> Tensor:
        """Mean training loss of a batch, float32, scalar."""
        raise NotImplementedError

    def validation_loss(self, images: Tensor, features: list[Tensor]) -> Tensor:
        """What `patience` and `checkpoint: best_validation` compare on held-out images; scalar, lower is better."""
        return self.loss(images, features)

    def anomaly_maps(self, images: Tensor, features: list[Tensor], evaluation: Evaluation) -> Tensor:
        """float32 (N, H, W) at the images' size; higher is more anomalous. Not blurred yet."""
        raise NotImplementedError

    def maps_and_scores(self, images: Tensor, evaluation: Evaluation) -> tuple[Tensor, Tensor | None]:
        """`anomaly_maps`, and image scores (N,) where these don't follow from the blurred maps.

        The one thing that testing calls: a method whose maps aren't made of the teacher's features has its own.
        """
        return self.anomaly_maps(images, self.teacher(images), evaluation), None


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


def fuse(maps: dict[int, Tensor], evaluation: Evaluation) -> Tensor:
    """One map (N, H, W) of the maps of the scored levels: their sum (RD), product (STPM) or weighted sum."""
    if evaluation.score_layers:
        maps = {level: maps[level] for level in evaluation.score_layers}
    if evaluation.map_fusion == "product":
        return prod(maps.values())
    if evaluation.map_fusion == "weighted":
        return sum(evaluation.map_weights[level - 1] * level_map for level, level_map in maps.items())
    return sum(maps.values())


def gaussian_blur(maps: Tensor, sigma: float) -> Tensor:
    """scipy.ndimage.gaussian_filter on the maps' device: (N, H, W) to the same shape.

    Kernel cut at 4 sigma; beyond the border the image is mirrored with its edge pixel repeated, which
    torch's own "reflect" padding doesn't do. In double precision, as scipy, and safe from TF32.
    """
    if sigma == 0:
        return maps
    rows, columns = (blur_matrix(length, sigma, maps.device) for length in maps.shape[1:])
    return (rows @ maps.double() @ columns.T).to(maps.dtype)


@cache
def blur_matrix(length: int, sigma: float, device: torch.device) -> Tensor:
    """float64 (length, length): row i holds what every pixel of a line contributes to blurred pixel i."""
    radius = int(4 * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1, device="cpu")
    kernel = torch.exp(-0.5 * (offsets.double() / sigma) ** 2)
    positions = (torch.arange(length, device="cpu")[:, None] + offsets) % (2 * length)
    mirrored = torch.where(positions < length, positions, 2 * length - 1 - positions)
    weights = (kernel / kernel.sum()).expand(length, -1)
    return torch.zeros(length, length, dtype=torch.float64, device="cpu").scatter_add_(1, mirrored, weights).to(device)
