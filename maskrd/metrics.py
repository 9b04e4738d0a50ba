"""Image and pixel metrics of anomaly detection: exact AUROC, AP, greatest F1 and AUPRO, and other codes' PRO.

PRO is the per-region overlap (Bergmann et al., "Uninformed Students", CVPR 2020, and "The MVTec Anomaly
Detection Dataset", IJCV 2021): at a threshold, the fraction of each connected defect region that is found,
averaged over the regions of the whole test set. AUPRO is the area under PRO against the false positive rate
(FPR) up to a limit, divided by that limit.

Published PRO values don't all follow that definition, so its two common relatives are here too, under their
own names: `pro_per_image` is what RD4AD's evaluation prints, `pro_pooled_thresholds` the usual approximation,
`pro_rescaled` what STPM's evaluation prints.

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
STPM_THRESHOLDS = 4000

_EIGHT_CONNECTED = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True)
class PixelMetrics:
    """All in [0, 1]; None where the test set has no defect pixel or no normal pixel."""

    auroc: float | None = None
    ap: float | None = None
    f1max: float | None = None
    aupro: float | None = None


@dataclass(frozen=True)
class PrecisionRecall:
    """Summaries of a precision-recall curve, both in [0, 1]; None where only one class is present.

    Every distinct score is a threshold, and what reaches it counts as found. `ap`, the average precision, is the
    mean precision at the scores of the positives: each step in recall times the precision after it, as scikit-learn
    has it. `f1max` is the greatest F1, the harmonic mean of precision and recall, over all thresholds.
    """

    ap: float | None = None
    f1max: float | None = None


def auroc(labels: ArrayLike, scores: ArrayLike) -> float | None:
    """Area under the ROC curve, a tie counting half; in [0, 1], None when only one class is present.

    `labels` (0 or 1) and `scores` have one shape, whatever it is. Raises ValueError if the shapes differ, a
    label is neither 0 nor 1, or a score isn't finite.
    """
    positives, negatives = _split(labels, scores)
    if not positives.size or not negatives.size:
        return None
    if positives.size > negatives.size:
        # Reversing classes and order keeps the area. Sorting many scores is cheaper than searching for many.
        positives, negatives = -negatives, -positives
    positives.sort()
    negatives.sort()
    return _auroc_from_ranks(*_ranks(positives, negatives), negatives.size)


def precision_recall(labels: ArrayLike, scores: ArrayLike) -> PrecisionRecall:
    """AP and the greatest F1 of `scores`; arguments and errors are those of `auroc`."""
    positives, negatives = _split(labels, scores)
    if not positives.size or not negatives.size:
        return PrecisionRecall()
    positives.sort()
    negatives.sort()
    return _precision_recall(positives, _ranks(positives, negatives)[0], negatives.size)


def pixel_metrics(masks: ArrayLike, maps: ArrayLike, limit: float = FPR_LIMIT) -> PixelMetrics:
    """Exact AUROC, AP, greatest F1 and AUPRO over all pixels of a test set, from one sort of the normal pixels.

    Every distinct score is a threshold, consecutive points of a curve are joined by straight lines, and the
    PRO curve is interpolated at the FPR `limit`. AP and F1 are those of `PrecisionRecall`. Needs about as much
    memory again as `maps` takes, and some 60 bytes for each defective pixel.
    """
    masks, maps = _checked(masks, maps, limit)
    scores, negatives = maps[masks], maps[~masks]
    if not scores.size or not negatives.size:
        return PixelMetrics()
    negatives.sort()
    order = np.argsort(scores)  # searching for ascending scores stays in the cache: five times faster
    scores = scores[order]
    below, not_above = _ranks(scores, negatives)
    curve = _precision_recall(scores, below, negatives.size)

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
    area = _auroc_from_ranks(below, not_above, negatives.size)
    return PixelMetrics(area, curve.ap, curve.f1max, float(aupro_value))


def aupro(masks: ArrayLike, maps: ArrayLike, limit: float = FPR_LIMIT) -> float | None:
    """The AUPRO of `pixel_metrics`: pooled over the test set, exact, in [0, 1] after division by `limit`."""
    return pixel_metrics(masks, maps, limit).aupro


def pro_curve(masks: ArrayLike, maps: ArrayLike, points: int = 100, limit: float = FPR_LIMIT) -> NDArray | None:
    """FPR, evenly spaced from 0 to `limit`, and PRO there: float (2, points), for drawing. None without either class.

    A region's pixels are found where they aren't below the threshold, the normal pixels' quantile.
    """
    masks, maps = _checked(masks, maps, limit)
    scores, negatives = maps[masks], maps[~masks]
    if not scores.size or not negatives.size:
        return None
    fpr = np.linspace(0, limit, points)
    places = ((1 - fpr) * (negatives.size - 1)).round().astype(int)
    thresholds = np.partition(negatives, np.unique(places))[places]
    regions = _regions(masks)
    weights = 1 / np.bincount(regions)
    order = np.argsort(scores)
    missed = np.concatenate([[0], np.cumsum(weights[regions[order]])]) / weights.size
    return np.stack([fpr, 1 - missed[np.searchsorted(scores[order], thresholds, side="left")]])


def pro_per_image(
    masks: ArrayLike, maps: ArrayLike, thresholds: int = THRESHOLDS, limit: float = FPR_LIMIT
) -> float | None:
    """RD4AD's PRO: that of `pro_pooled_thresholds` for each defective image alone, then the mean over images.

    It is not the standard quantity: it sees no normal image, sets thresholds and FPR again for every image, and
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


def pro_rescaled(
    masks: ArrayLike, maps: ArrayLike, thresholds: int = STPM_THRESHOLDS, limit: float = FPR_LIMIT
) -> float | None:
    """STPM's PRO: pooled, equally spaced thresholds, and both axes stretched so that the kept points span 0 to 1.

    Points with an FPR of at most `limit` are kept. Of these the least FPR and the least PRO become 0, the greatest
    become 1. So the level of the curve is lost and its shape alone counts: a PRO that is low everywhere may score as
    one that is high everywhere. Source: the evaluation published with Wang et al., "Student-Teacher Feature Pyramid
    Matching for Anomaly Detection", BMVC 2021 (gdwang08/STFPM, commit 2598a5e).

    None without defect or normal pixels, for constant maps, and where the kept points have one FPR or one PRO.
    """
    masks, maps = _checked(masks, maps, limit, thresholds)
    if not masks.any() or masks.all():
        return None
    fpr, pro = _threshold_curve(masks, maps, thresholds)
    kept = fpr <= limit
    fpr, pro = fpr[kept], pro[kept]
    if fpr.size < 2 or np.ptp(fpr) == 0 or np.ptp(pro) == 0:
        return None
    return float(-np.trapezoid((pro - pro.min()) / np.ptp(pro), (fpr - fpr.min()) / np.ptp(fpr)))


def _threshold_pro(masks: NDArray, maps: NDArray, thresholds: int, limit: float) -> float | None:
    """`pro_pooled_thresholds` for checked arrays that have a defect."""
    fpr, pro = _threshold_curve(masks, maps, thresholds)
    kept = fpr < limit
    if np.count_nonzero(kept) < 2 or not fpr[kept].any():
        return None
    fpr, pro = fpr[kept], pro[kept]
    return float(-np.trapezoid(pro, fpr / fpr.max()))  # the FPR falls as the cuts rise


def _threshold_curve(masks: NDArray, maps: NDArray, thresholds: int) -> tuple[NDArray, NDArray]:
    """FPR and PRO at equally spaced, ascending cuts; empty for constant maps."""
    # RD4AD sums its maps in float64, so its thresholds are float64 too.
    low, high = float(maps.min()), float(maps.max())
    if low == high:
        return np.empty(0), np.empty(0)
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
    return fpr, np.cumsum(gained[::-1])[::-1][1:]


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


def _precision_recall(positives: NDArray, below: NDArray, n_negatives: int) -> PrecisionRecall:
    """Of ascending `positives`, each with how many negatives are `below` it.

    Recall and F1 rise only where the falling threshold reaches a positive, so no other threshold is looked at.
    """
    found = positives.size - np.searchsorted(positives, positives, side="left")
    predicted = found + (n_negatives - below)
    f1 = 2 * found / (positives.size + predicted)
    return PrecisionRecall(float((found / predicted).mean()), float(f1.max()))


def _split(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray, NDArray]:
    """The scores of the positives and of the negatives, checked: arrays of their own."""
    labels, scores = np.asarray(labels), _as_float(scores)
    _require_equal_shapes("labels", labels, "scores", scores)
    _require_finite("scores", scores)
    if labels.dtype != bool:
        if not np.isin(labels, (0, 1)).all():
            raise ValueError("labels must be 0 (normal) or 1 (anomalous)")
        labels = labels.astype(bool)
    return scores[labels], scores[~labels]


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
