"""Masked reverse distillation, the paper's method (Section 3), and RD, its ancestor, as a recipe of it."""

from torch import Tensor, nn

from maskrd.experiment import Evaluation, Training
from maskrd.layers.decoder import Decoder
from maskrd.layers.fmm import FMM
from maskrd.layers.msff import MSFF
from maskrd.layers.resnet import init_weights, stage
from maskrd.layers.scconv import SCConv
from maskrd.layers.simam import SimAM
from maskrd.methods.base import Method, cosine_distance, flattened_cosine_distance, fuse, upsample
from maskrd.teacher import Teacher


class MaskedReverseDistillation(Method):
    """Teacher features -> MSFF -> SCConv -> SimAM -> OCE -> decoder -> FMM -> rebuilt features.

    `layers` of the recipe selects the levels that are distilled and scored; MSFF sees all three, or with
    `msff_layers: distilled` those alone.
    """

    def __init__(self, settings: Training, teacher: Teacher) -> None:
        super().__init__(settings, teacher)
        architecture = teacher.architecture
        width = settings.msff_channels
        seen = settings.layers if settings.msff_layers == "distilled" else (1, 2, 3)
        self.msff = MSFF(architecture, architecture.channels(3) if width == "teacher" else width, seen)
        channels = self.msff.out_channels
        self.scconv = SCConv(channels, settings.scconv_fusion) if settings.scconv else nn.Identity()
        self.simam = SimAM() if settings.simam else nn.Identity()
        # One-class embedding: a fourth ResNet stage, trained from scratch (RD, Deng and Li 2022).
        self.oce = stage(architecture, 4, channels, stride=2)
        self.decoder = Decoder(architecture, shallowest=min(settings.layers))
        init_weights(self)
        self.fmm = nn.ModuleDict()
        if settings.fmm:
            for level in settings.layers:
                self.fmm[str(level)] = FMM(architecture.channels(level), settings.mask_ratio)

    def rebuild(self, features: list[Tensor], masked: bool) -> dict[int, Tensor]:
        """The student's version of the teacher's features, by level; `masked` lets FMM hide positions."""
        code = self.oce(self.simam(self.scconv(self.msff(features))))
        rebuilt = self.decoder(code)
        if not self.settings.fmm:
            return {level: rebuilt[level] for level in self.settings.layers}
        return {level: self.fmm[str(level)](rebuilt[level], masked) for level in self.settings.layers}

    def loss(self, images: Tensor, features: list[Tensor]) -> Tensor:
        """Cosine distance, averaged over positions and images and summed over levels (Section 3.8)."""
        flattened = self.settings.loss == "flattened"
        distance = flattened_cosine_distance if flattened else cosine_distance
        rebuilt = self.rebuild(features, masked=self.training)
        return sum(distance(features[level - 1], feature).mean() for level, feature in rebuilt.items())

    def anomaly_maps(self, images: Tensor, features: list[Tensor], evaluation: Evaluation) -> Tensor:
        size = images.shape[2:]
        rebuilt = self.rebuild(features, masked=evaluation.mask_at_test)
        maps = {k: upsample(cosine_distance(features[k - 1], feature), size) for k, feature in rebuilt.items()}
        return fuse(maps, evaluation)
