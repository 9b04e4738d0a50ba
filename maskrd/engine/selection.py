"""Choosing an epoch on the test set (`checkpoint: best_on_test`): a leak. It is here to measure how much it gains."""

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch

from maskrd.config.settings import GradientTraining
from maskrd.data.index_file import Index
from maskrd.data.samples import Samples, load_test
from maskrd.engine.scoring import Scorer
from maskrd.errors import MaskrdError
from maskrd.methods.base import Method
from maskrd.metrics import auroc, pixel_metrics


@dataclass(frozen=True)
class Selection:
    """A method in training, and the test set that it is judged on, with the settings of its later evaluation."""

    scorer: Scorer
    samples: Samples

    def quality(self) -> float:
        """Mean of image AUROC, pixel AUROC and AUPRO, in [0, 1]. Without masks: image AUROC alone.

        RD++ (Tien et al., CVPR 2023) chooses its epoch like this. The method is in eval mode afterwards.
        """
        self.scorer.method.eval()
        masks, defective = self.samples.masks, self.samples.defective
        maps, scores = self.scorer.score_all(self.samples.images, keep_maps=masks is not None)
        values = [auroc(defective, scores)]
        if masks is not None:
            pixels = pixel_metrics(masks, maps)
            values += [pixels.auroc, pixels.aupro]
        return fmean(value for value in values if value is not None)


def select_on_test(
    method: Method, settings: GradientTraining, index: Index, data: Path, device: torch.device, threads: int
) -> Selection:
    """The selection for `method`. Raises MaskrdError if the test set has no good or no defective images."""
    name = f"{index.dataset}/{index.category}"
    evaluation = settings.selection
    samples = load_test(index, data, settings.image_size, threads, evaluation.mask_threshold).cropped(settings.crop)
    if len(set(samples.defective)) < 2:
        raise MaskrdError(
            f"{name}: checkpoint: best_on_test compares good with defective test images, and one kind is missing. "
            "Use checkpoint: last."
        )
    return Selection(Scorer(f"{name}, in training", method, settings, evaluation, device), samples)
