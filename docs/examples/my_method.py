"""A method of one's own: how far an image's features are from the mean features of normal images.

docs/your_own.md says how a configuration names it.
"""

from collections.abc import Sequence

from torch import Tensor

from maskrd.config.methods import FileSettings
from maskrd.config.settings import Evaluation
from maskrd.methods.base import Features, OnePassMethod, resize
from maskrd.methods.teacher import Teacher


class Mine(OnePassMethod):
    """Learned: `mean`, float32 (C, h, w), the mean of one level's features over the training images."""

    learned = ("mean",)

    def __init__(self, settings: FileSettings, teacher: Teacher) -> None:
        super().__init__(settings, teacher)
        self.level = settings.settings.get("level", 2)  # what the variant gives under `settings`

    def learn(self, features: Features, batches: Sequence[Tensor]) -> None:
        total = sum(features(batch)[self.level - 1].float().sum(dim=0) for batch in batches)
        self.mean = total / sum(len(batch) for batch in batches)

    def anomaly_maps(self, images: Tensor, features: list[Tensor], evaluation: Evaluation) -> Tensor:
        distances = (features[self.level - 1].float() - self.mean).norm(dim=1)
        return resize(distances, images.shape[2:])
