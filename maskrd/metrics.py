"""Image and pixel metrics of anomaly detection: exact AUROC and AUPRO, and the PRO that other codes print.

PRO is the per-region overlap (Bergmann et al., "Uninformed Students", CVPR 2020, and "The MVTec Anomaly
Detection Dataset", IJCV 2021): at a threshold, the fraction of each connected defect region that is found,
averaged over the regions of the whole test set. AUPRO is the area under PRO against the false positive rate
(FPR) up to a limit, divided by that limit.

Published PRO values don't all follow that definition, so its two common relatives are here too, under their
own names: `pro_per_image` is what RD4AD's evaluation prints, `pro_pooled_thresholds` the usual approximation.

Everywhere below `masks` is bool (N, H, W), true on defects, `maps` is float (N, H, W), higher meaning more
anomalous, in any unit, and a region is an 8-connected set of defect pixels of one image. All functions raise
ValueError for shapes that differ, masks that aren't bool, maps that aren't finite, or a limit outside (0, 1].
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

FPR_LIMIT = 0.3  # the customary end of the PRO curve
THRESHOLDS = 200  # of RD4AD's PRO

_EIGHT_CONNECTED = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True)
class PixelMetrics:
    """Both in [0, 1]; None where the test set has no defect pixel or no normal pixel."""

    auroc: float | None
    aupro: float | None


def auroc(labels: ArrayLike, scores: ArrayLike) -> float | None:
    """Area under the ROC curve, a tie counting half; in [0, 1], None when only one class is present.

    `labels` (0 or 1) and `scores` have one shape, whatever it is. Raises ValueError if the shapes differ, a
    label is neither 0 nor 1, or a score isn't finite.
    """
    labels, scores = np.asarray(labels), _as_float(scores)
    _require_equal_shapes("labels", labels, "scores", scores)
    _require_finite("scores", scores)
    if labels.dtype != bool:
        if not np.isin(labels, (0, 1)).all():
            raise ValueError("labels must be 0 (normal) or 1 (anomalous)")
        labels = labels.astype(bool)
    positives, negatives = scores[labels], scores[~labels]
    if not positives.size or not negatives.size:
        return None
    if positives.size > negatives.size:
        # Reversing classes and order keeps the area. Sorting many scores is cheaper than searching for many.
        positives, negatives = -negatives, -positives
    positives.sort()
    negatives.sort()
    return _auroc_from_ranks(*_ranks(positives, negatives), negatives.size)


def pixel_metrics(masks: ArrayLike, maps: ArrayLike, limit: float = FPR_LIMIT) -> PixelMetrics:
    """Exact AUROC and AUPRO over all pixels of a test set, from one sort of the normal pixels.

    Every distinct score is a threshold, consecutive points of a curve are joined by straight lines, and the
    PRO curve is interpolated at the FPR `limit`. Needs about as much memory again as `maps`
    takes, and some 60 bytes for each defective pixel.
    """
    masks, maps = _checked(masks, maps, limit)
    scores, negatives = maps[masks], maps[~masks]
    if not scores.size or not negatives.size:
        return PixelMetrics(None, None)
    negatives.sort()
    order = np.argsort(scores)  # searching for ascending scores stays in the cache: five times faster
    below, not_above = _ranks(scores[order], negatives)

    # In units of the limit: the FPR at which the falling threshold reaches a defect pixel, and how much FPR
    # the normal pixels of the same score add; over that stretch the pixel counts in proportion.
    scale = limit * negatives.size
    covered = np.maximum(1 - (negatives.size - not_above) / scale, 0)
    ramp = (not_above - below) / scale
    area = covered - ramp / 2
    cut = ramp > covered
    area[cut] = covered[cut] ** 2 / (2 * ramp[cut])

    regions = _regions(masks)[order]
    # Summing each region before dividing by its size makes a perfect result exactly 1.
    aupro_value = (np.bincount(regions, weights=area) / np.bincount(regions)).mean()
    return PixelMetrics(_auroc_from_ranks(below, not_above, negatives.size), float(aupro_value))


def aupro(masks: ArrayLike, maps: ArrayLike, limit: float = FPR_LIMIT) -> float | None:
    """The AUPRO of `pixel_metrics`: pooled over the test set, exact, in [0, 1] after division by `limit`."""
    return pixel_metrics(masks, maps, limit).aupro


def pro_per_image(
    masks: ArrayLike, maps: ArrayLike, thresholds: int = THRESHOLDS, limit: float = FPR_LIMIT
) -> float | None:
    """RD4AD's PRO: that of `pro_pooled_thresholds` for each defective image alone, then the mean over images.

    Not the standard quantity: it sees no normal image, sets thresholds and FPR anew for every image, and
    gives an image the same weight whether it has one region or many. Source: `test.py` of the code published
    with Deng and Li, "Anomaly Detection via Reverse Distillation from One-Class Embedding", CVPR 2022.

    None without defects, and also if one defective image has no value (see `pro_pooled_thresholds`): a mean
    over the others would silently be another quantity.
    """
    masks, maps = _checked(masks, maps, limit, thresholds)
    areas = [
        _threshold_pro(mask[None], anomaly_map[None], thresholds, limit)
        for mask, anomaly_map in zip(masks, maps, strict=True)
        if mask.any()
    ]
    if not areas or None in areas:
        return None
    return float(np.mean(areas))


def pro_pooled_thresholds(
    masks: ArrayLike, maps: ArrayLike, thresholds: int = THRESHOLDS, limit: float = FPR_LIMIT
) -> float | None:
    """Area under PRO against FPR from equally spaced thresholds between the least and the greatest score.

    Points with an FPR below `limit` are kept, and their FPR is divided by its maximum rather than by the
    limit; nothing is interpolated, and the curve isn't continued to an FPR of 0. The sparser the thresholds
    where the FPR is low, the farther from `aupro`. Source: as `pro_per_image`, applied to the whole set.

    None without defect or normal pixels, for constant maps, and if fewer than two points are kept or all of
    them have FPR 0, where the published code fails.
    """
    masks, maps = _checked(masks, maps, limit, thresholds)
    return _threshold_pro(masks, maps, thresholds, limit) if masks.any() else None


def _threshold_pro(masks: NDArray, maps: NDArray, thresholds: int, limit: float) -> float | None:
    """`pro_pooled_thresholds` for checked arrays that have a defect."""
    # RD4AD sums its maps in float64, so its thresholds are float64 too.
    low, high = float(maps.min()), float(maps.max())
    if low == high:
        return None
    cuts = np.arange(low, high, (high - low) / thresholds)

    false_positives = np.zeros(cuts.size, dtype=np.int64)
    for mask, anomaly_map in zip(masks, maps, strict=True):
        negatives = np.sort(anomaly_map[~mask])
        false_positives += negatives.size - np.searchsorted(negatives, cuts, side="right")
    fpr = false_positives / max(masks.size - np.count_nonzero(masks), 1)

    regions = _regions(masks)
    sizes = np.bincount(regions)
    weights = 1 / (sizes * sizes.size)
    cuts_passed = np.searchsorted(cuts, maps[masks], side="left")  # a pixel is found where score > cut
    gained = np.bincount(cuts_passed, weights=weights[regions], minlength=cuts.size + 1)
    pro = np.cumsum(gained[::-1])[::-1][1:]

    kept = fpr < limit
    if np.count_nonzero(kept) < 2 or not fpr[kept].any():
        return None
    fpr, pro = fpr[kept], pro[kept]
    return float(-np.trapezoid(pro, fpr / fpr.max()))  # the FPR falls as the cuts rise


def _regions(masks: NDArray) -> NDArray:
    """Index of the region of each defect pixel, counted over all images; in the order of `maps[masks]`."""
    regions, count = [], 0
    for mask in masks:
        if mask.any():
            labelled, found = ndimage.label(mask, _EIGHT_CONNECTED)
            regions.append(labelled[mask] + (count - 1))
            count += found
    return np.concatenate(regions)


def _ranks(scores: NDArray, negatives: NDArray) -> tuple[NDArray, NDArray]:
    """For each score, how many of the ascending `negatives` are below it, and how many aren't above it."""
    return np.searchsorted(negatives, scores, side="left"), np.searchsorted(negatives, scores, side="right")


def _auroc_from_ranks(below: NDArray, not_above: NDArray, n_negatives: int) -> float:
    # Whole numbers up to the division: nothing is rounded on the way.
    return (int(below.sum()) + int(not_above.sum())) / (2 * below.size * n_negatives)


def _checked(masks: ArrayLike, maps: ArrayLike, limit: float, thresholds: int = THRESHOLDS) -> tuple[NDArray, NDArray]:
    masks, maps = np.asarray(masks), _as_float(maps)
    _require_equal_shapes("masks", masks, "maps", maps)
    if masks.ndim != 3:
        raise ValueError(f"masks and maps must be (N, H, W), not {masks.shape}")
    if masks.dtype != bool:
        raise ValueError(f"masks must be bool, not {masks.dtype}")
    _require_finite("maps", maps)
    if not 0 < limit <= 1:
        raise ValueError(f"the FPR limit must be above 0 and at most 1, not {limit}")
    if thresholds < 2:
        raise ValueError(f"at least 2 thresholds are needed, not {thresholds}")
    return masks, maps


def _as_float(values: ArrayLike) -> NDArray:
    """At least float32, copied only if it wasn't."""
    values = np.asarray(values)
    return values.astype(np.result_type(values, np.float32), copy=False)


def _require_equal_shapes(name: str, array: NDArray, other_name: str, other: NDArray) -> None:
    if array.shape != other.shape:
        raise ValueError(f"{name} {array.shape} and {other_name} {other.shape} differ in shape")


def _require_finite(name: str, values: NDArray) -> None:
    # Least and greatest show NaN and infinity alike, without a temporary array of the same size.
    if values.size and not (np.isfinite(values.min()) and np.isfinite(values.max())):
        bad = np.count_nonzero(~np.isfinite(values))
        raise ValueError(f"{name} hold {bad} values that are NaN or infinite, of {values.size}")
