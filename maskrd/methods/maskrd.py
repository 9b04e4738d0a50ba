"""Masked reverse distillation, the paper's method (Section 3). Reverse distillation (RD) is one of its recipes."""

from torch import Tensor, nn

from maskrd.config.methods import MaskRDSettings
from maskrd.config.settings import Evaluation
from maskrd.layers.decoder import Decoder
from maskrd.layers.fmm import FMM
from maskrd.layers.msff import MSFF
from maskrd.layers.resnet import init_weights, stage
from maskrd.layers.scconv import SCConv
from maskrd.layers.simam import SimAM
from maskrd.methods.base import Method, cosine_distance, flattened_cosine_distance, fuse, upsample
from maskrd.methods.teacher import Teacher


class MaskedReverseDistillation(Method):
    """Teacher features -> MSFF -> SCConv -> SimAM -> OCE -> decoder -> FMM -> rebuilt features.

    `layers` of the recipe selects the levels that are distilled and scored. MSFF reads all three levels; with
    `msff_layers: distilled`, only the selected ones.
    """

    capturable = True

    def __init__(self, settings: MaskRDSettings, teacher: Teacher) -> None:
        super().__init__(settings, teacher)
        architecture = teacher.architecture
        width = settings.msff_channels
        seen = settings.layers if settings.msff_layers == "distilled" else (1, 2, 3)
        inside = settings.scconv and settings.scconv_place == "in_msff"
        self.msff = MSFF(
            architecture,
            architecture.channels(3) if width == "teacher" else width,
            seen,
            block=self.scconv_block if inside else None,
        )
        channels = self.msff.out_channels
        self.scconv = self.scconv_block(channels) if settings.scconv and not inside else nn.Identity()
        self.simam = SimAM() if settings.simam else nn.Identity()
        # One-class embedding: a fourth ResNet stage, trained from scratch (RD, Deng and Li 2022).
        self.oce = stage(architecture, 4, channels, stride=2)
        self.decoder = Decoder(architecture, shallowest=min(settings.layers))
        init_weights(self)
        self.fmm = nn.ModuleDict()
        if settings.fmm:
            for level in settings.layers:
                self.fmm[str(level)] = FMM(architecture.channels(level), settings.mask_ratio)

    def scconv_block(self, channels: int) -> SCConv:
        return SCConv(channels, self.settings.scconv_fusion, self.settings.sru_gate)

    def rebuild(self, features: list[Tensor], masked: bool) -> dict[int, Tensor]:
        """The student's version of the teacher's features, by level. With `masked`, FMM hides positions."""
        code = self.oce(self.simam(self.scconv(self.msff(features))))

        def generate(level: int, feature: Tensor) -> Tensor:
            return self.fmm[str(level)](feature, masked) if str(level) in self.fmm else feature

        if self.settings.fmm_place == "series":
            rebuilt = self.decoder(code, after=generate)
            return {level: rebuilt[level] for level in self.settings.layers}
        rebuilt = self.decoder(code)
        return {level: generate(level, rebuilt[level]) for level in self.settings.layers}

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
