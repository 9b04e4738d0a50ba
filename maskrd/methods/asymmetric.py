"""The asymmetric teacher-student network (Kong et al., Computer Science 51 (11A), 2024).

Only its abstract is public. It has Contextual Transformer modules in the student's residual blocks, a moving-average
normalisation layer in the teacher, and fusion of maps of several scales. Everything else is our interpretation and
follows STPM, the closest method.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from maskrd.config.methods import AsymmetricSettings
from maskrd.config.settings import Evaluation
from maskrd.config.teachers import Architecture
from maskrd.errors import MaskrdError
from maskrd.layers.cot import CoT
from maskrd.layers.resnet import BasicBlock, Bottleneck, FeaturePyramid, init_weights
from maskrd.methods.base import Method, cosine_distance, fuse, upsample
from maskrd.methods.teacher import Teacher


class AsymmetricStudent(Method):
    """A student with CoT blocks, and a teacher whose norms have the statistics of the normal images.

    The statistics are computed before training, not during it. So the student has the same target from the first step
    to the last, and the teacher's features may be kept. The statistics are saved with the model.
    """

    capturable = True

    def __init__(self, settings: AsymmetricSettings, teacher: Teacher) -> None:
        super().__init__(settings, teacher)
        self.student = contextual_pyramid(teacher.architecture)
        init_weights(self.student)
        if settings.teacher_norm == "moving_average":
            # Of all channels of all norms, in the order of `batch_norms`.
            self.register_buffer("norm_means", torch.cat([norm.running_mean for norm in batch_norms(teacher)]))
            self.register_buffer("norm_variances", torch.cat([norm.running_var for norm in batch_norms(teacher)]))

    def fit_teacher(self, images: Tensor, positions: Tensor) -> None:
        """Raises MaskrdError if the teacher's statistics are folded into its weights."""
        if self.settings.teacher_norm == "frozen":
            return
        norms = batch_norms(self.teacher)
        check_unfolded(norms)
        # Batches of equal size, since the average gives each the same weight.
        count = max(len(positions) // self.settings.batch_size, 1)
        with moving_average(norms, self.settings.teacher_norm_momentum):
            for _ in range(self.settings.teacher_norm_passes):
                order = positions[torch.randperm(len(positions))]
                for batch in order.tensor_split(count):
                    self.teacher(images[batch.to(images.device)])
        self.norm_means.copy_(torch.cat([norm.running_mean for norm in norms]))
        self.norm_variances.copy_(torch.cat([norm.running_var for norm in norms]))

    def adjust_teacher(self) -> None:
        if self.settings.teacher_norm == "frozen":
            return
        norms = batch_norms(self.teacher)
        widths = [norm.num_features for norm in norms]
        statistics = zip(norms, self.norm_means.split(widths), self.norm_variances.split(widths), strict=True)
        for norm, mean, variance in statistics:
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)

    def distances(self, images: Tensor, features: list[Tensor]) -> dict[int, Tensor]:
        """Cosine distance of teacher and student at every position, by level: float32 (N, h, w).

        STPM's distance: half the squared one between unit vectors.
        """
        student = self.student(self.teacher.normalize(images))
        return {level: cosine_distance(features[level - 1], student[level - 1]) for level in self.settings.layers}

    def loss(self, images: Tensor, features: list[Tensor]) -> Tensor:
        return sum(distance.mean() for distance in self.distances(images, features).values())

    def anomaly_maps(self, images: Tensor, features: list[Tensor], evaluation: Evaluation) -> Tensor:
        distances = self.distances(images, features)
        return fuse({level: upsample(distance, images.shape[2:]) for level, distance in distances.items()}, evaluation)


def contextual_pyramid(architecture: Architecture) -> FeaturePyramid:
    """A feature pyramid with CoT in every block, in place of the last 3x3 convolution.

    In a bottleneck it follows CoTNet: an average pool comes first if there is a stride, and there is no norm. A basic
    block keeps the norm: CoT ends in activations, so without the norm the branch could only add.
    """
    pyramid = FeaturePyramid(architecture)
    blocks = [module for module in pyramid.modules() if isinstance(module, BasicBlock | Bottleneck)]
    for block in blocks:
        cot = CoT(block.conv2.out_channels)
        if isinstance(block, Bottleneck):
            strided = block.conv2.stride == (2, 2)
            block.conv2 = nn.Sequential(nn.AvgPool2d(3, 2, padding=1), cot) if strided else cot
            block.bn2 = nn.Identity()
        else:
            block.conv2 = cot
    return pyramid


def batch_norms(teacher: Teacher) -> list[nn.BatchNorm2d]:
    return [module for module in teacher.modules() if isinstance(module, nn.BatchNorm2d)]


def check_unfolded(norms: list[nn.BatchNorm2d]) -> None:
    """Raises MaskrdError if the norms are folded into convolutions. Their statistics are lost then."""
    neutral = all((norm.running_mean == 0).all() and (norm.weight == 1).all() for norm in norms)
    if neutral and any(norm.bias.any() for norm in norms):
        raise MaskrdError(
            "teacher_norm: moving_average needs the teacher's own batch norms, but those of this teacher are folded "
            "into its convolutions. Use torchvision's weights as published, or teacher_norm: frozen."
        )


@contextmanager
def moving_average(norms: list[nn.BatchNorm2d], momentum: float) -> Iterator[None]:
    """In this context, a batch first moves each norm's statistics, and is then normalised by them.

    As in EMAN (Cai et al., CVPR 2021), the teacher never normalises by the statistics of the batch itself.
    """

    def follow(norm: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        variance, mean = torch.var_mean(inputs[0], dim=(0, 2, 3))
        norm.running_mean.lerp_(mean, 1 - momentum)
        norm.running_var.lerp_(variance, 1 - momentum)

    handles = [norm.register_forward_pre_hook(follow) for norm in norms]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
