"""Choosing an epoch on the test set: a leak, here to measure what it is worth (`checkpoint: best_on_test`)."""

from pathlib import Path
from statistics import fmean

import torch

from maskrd.data.index import Index
from maskrd.data.samples import load_test
from maskrd.errors import MaskrdError
from maskrd.experiment import Training
from maskrd.methods.base import Method
from maskrd.metrics import auroc, pixel_metrics
from maskrd.scoring import LiveScorer


class Selection(LiveScorer):
    """A method in training, judged by the test set as its evaluation will be.

    Raises MaskrdError where the test set lacks good or defective images.
    """

    def __init__(
        self, method: Method, settings: Training, index: Index, data: Path, device: torch.device, threads: int
    ) -> None:
        self.method, self.teacher, self.training = method, method.teacher, settings
        self.evaluation, self.device = settings.selection, device
        self.name = f"{index.dataset}/{index.category}, in training"
        self.samples = load_test(index, data, settings.image_size, threads).cropped(settings.crop)
        if len(set(self.samples.defective)) < 2:
            raise MaskrdError(
                f"{index.dataset}/{index.category}: checkpoint: best_on_test compares good with defective test "
                "images, and one kind is missing. Take checkpoint: last."
            )

    def quality(self) -> float:
        """Mean of image AUROC, pixel AUROC and AUPRO, in [0, 1]; of those that the test set has masks for.

        As RD++ (Tien et al., CVPR 2023) chooses its epoch. Leaves the method in eval mode.
        """
        self.method.eval()
        maps, scores = self.score_all(self.samples.images, keep_maps=self.samples.masks is not None)
        values = [auroc(self.samples.defective, scores)]
        if self.samples.masks is not None:
            pixels = pixel_metrics(self.samples.masks, maps)
            values += [pixels.auroc, pixels.aupro]
        return fmean(value for value in values if value is not None)
