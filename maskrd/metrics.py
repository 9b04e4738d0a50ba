"""Image and pixel metrics of anomaly detection: exact AUROC, AP, greatest F1 and AUPRO, and other codes' PRO.

PRO is the per-region overlap (Bergmann et al., "Uninformed Students", CVPR 2020, and "The MVTec Anomaly Detection
Dataset", IJCV 2021). At a threshold, it is the fraction of each connected defect region that is found, averaged over
the regions of the whole test set. AUPRO is the area under the curve of PRO against the false positive rate (FPR) up to
a limit, divided by that limit.

Not all published PRO values follow that definition. So three relatives of it are here, under names of their own:
`pro_per_image` is what RD4AD's evaluation computes, `pro_rescaled` what STPM's computes, and `pro_pooled_thresholds` is
the usual approximation.

In all functions, `masks` is bool (N, H, W), true on defects. `maps` is float (N, H, W) in any unit; higher is more
anomalous. A region is an 8-connected set of defect pixels in one image. All functions raise ValueError for shapes that
differ, masks that aren't bool, maps that aren't finite, and a limit outside (0, 1].
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
    """All in [0, 1]. None if the test set has no defect pixel, or no normal pixel."""

    auroc: float | None = None
    ap: float | None = None
    f1max: float | None = None
    aupro: float | None = None


@dataclass(frozen=True)
class PrecisionRecall:
    """Summaries of a precision-recall curve, both in [0, 1]. None if only one class is present.

    Every distinct score is a threshold. Scores at or above it count as found. `ap`, the average precision, is the mean
    precision at the scores of the positives, as in scikit-learn: the sum of each step in recall times the precision
    after it. `f1max` is the greatest F1 over all thresholds. F1 is the harmonic mean of precision and recall.
    """

    ap: float | None = None
    f1max: float | None = None


def auroc(labels: ArrayLike, scores: ArrayLike) -> float | None:
    """Area under the ROC curve, in [0, 1]. A tie counts half. None if only one class is present.

    `labels` (0 or 1) and `scores` may have any shape, but both the same. Raises ValueError if the shapes differ, if a
    label is neither 0 nor 1, and if a score isn't finite.
    """
    positives, negatives = _split(labels, scores)
    if not positives.size or not negatives.size:
        return None
    if positives.size > negatives.size:
        # Reversing both classes and order keeps the area. Sorting many scores is cheaper than searching for many.
        positives, negatives = -negatives, -positives
    positives.sort()
    negatives.sort()
    return _auroc_from_ranks(*_ranks(positives, negatives), negatives.size)


def precision_recall(labels: ArrayLike, scores: ArrayLike) -> PrecisionRecall:
    """AP and the greatest F1 of `scores`. Arguments and errors are those of `auroc`."""
    positives, negatives = _split(labels, scores)
    if not positives.size or not negatives.size:
        return PrecisionRecall()
    positives.sort()
    negatives.sort()
    return _precision_recall(positives, _ranks(positives, negatives)[0], negatives.size)


def pixel_metrics(masks: ArrayLike, maps: ArrayLike, limit: float = FPR_LIMIT) -> PixelMetrics:
    """Exact AUROC, AP, greatest F1 and AUPRO over all pixels of a test set, from one sort of the normal pixels.

    Every distinct score is a threshold. Straight lines join the points of the ROC and PRO curves, and the PRO curve is
    interpolated at the FPR `limit`. AP and F1 are those of `PrecisionRecall`. The memory needed is about that of `maps`
    once more, and some 60 bytes for each defect pixel.
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

    # The falling threshold reaches a defect pixel at some FPR. From there to the limit the pixel is found, over the
    # share `covered` of the FPR axis. Normal pixels of the same score add the share `ramp` to the FPR. Along this
    # ramp, the pixel counts in proportion.
    scale = limit * negatives.size
    covered = np.maximum(1 - (negatives.size - not_above) / scale, 0)
    ramp = (not_above - below) / scale
    area = covered - ramp / 2
    cut = ramp > covered
    area[cut] = covered[cut] ** 2 / (2 * ramp[cut])

    regions = _regions(masks)[order]
    # Summing each region before dividing by its size makes a perfect result exactly 1.
    pro_area = (np.bincount(regions, weights=area) / np.bincount(regions)).mean()
    roc_area = _auroc_from_ranks(below, not_above, negatives.size)
    return PixelMetrics(roc_area, curve.ap, curve.f1max, float(pro_area))


def aupro(masks: ArrayLike, maps: ArrayLike, limit: float = FPR_LIMIT) -> float | None:
    """The AUPRO of `pixel_metrics`: pooled over the test set, exact, in [0, 1] after division by `limit`."""
    return pixel_metrics(masks, maps, limit).aupro


def pro_curve(masks: ArrayLike, maps: ArrayLike, points: int = 100, limit: float = FPR_LIMIT) -> NDArray | None:
    """A PRO curve for drawing, float (2, points): FPR, evenly spaced from 0 to `limit`, and PRO at each.

    The threshold for an FPR is a quantile of the normal pixels' scores. Defect pixels at or above it are found. None if
    there are no defect pixels, or no normal ones.
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
    """RD4AD's PRO: `pro_pooled_thresholds` of each defective image alone, then the mean over these images.

    It is not the standard quantity. It never looks at normal images, every image has its own thresholds and FPR, and an
    image with many regions has the weight of an image with one. Source: `test.py` of the code published with Deng and
    Li, "Anomaly Detection via Reverse Distillation from One-Class Embedding", CVPR 2022.

    None if there are no defects. None, too, if one defective image has no value (see `pro_pooled_thresholds`): the mean
    over the others would be another quantity.
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
    """Area under PRO against FPR, at equally spaced thresholds between the least and the greatest score.

    Points with an FPR below `limit` are kept. Their FPR is divided by the greatest one kept, and not by the limit.
    Nothing is interpolated, and the curve isn't continued to an FPR of 0. The fewer thresholds lie where the FPR is
    low, the more this differs from `aupro`. Source: that of `pro_per_image`, applied to the whole test set.

    None if there are no defect pixels or no normal ones, and for constant maps. None, too, if fewer than two points are
    kept, or only points with an FPR of 0: the published code fails on these.
    """
    masks, maps = _checked(masks, maps, limit, thresholds)
    return _threshold_pro(masks, maps, thresholds, limit) if masks.any() else None


def pro_rescaled(
    masks: ArrayLike, maps: ArrayLike, thresholds: int = STPM_THRESHOLDS, limit: float = FPR_LIMIT
) -> float | None:
    """STPM's PRO: pooled, at equally spaced thresholds, with both axes stretched so that the kept points span 0 to 1.

    Points with an FPR of at most `limit` are kept. Their least FPR and least PRO become 0, and the greatest ones become
    1. So only the shape of the curve counts, and its level is lost: a PRO that is low everywhere may score as well as
    one that is high everywhere. Source: the evaluation published with Wang et al., "Student-Teacher Feature Pyramid
    Matching for Anomaly Detection", BMVC 2021 (gdwang08/STFPM, commit 2598a5e).

    None if there are no defect pixels or no normal ones, for constant maps, and if all kept points have the same FPR or
    the same PRO.
    """
    masks, maps = _checked(masks, maps, limit, thresholds)
    if not masks.any() or masks.all():
        return None
    fpr, pro = _threshold_curve(masks, maps, thresholds)
    kept = fpr <= limit
    fpr, pro = fpr[kept], pro[kept]
    if fpr.size < 2 or np.ptp(fpr) == 0 or np.ptp(pro) == 0:
        return None
    return _area((fpr - fpr.min()) / np.ptp(fpr), (pro - pro.min()) / np.ptp(pro))


def _threshold_pro(masks: NDArray, maps: NDArray, thresholds: int, limit: float) -> float | None:
    """`pro_pooled_thresholds` for checked arrays that have a defect."""
    fpr, pro = _threshold_curve(masks, maps, thresholds)
    kept = fpr < limit
    if np.count_nonzero(kept) < 2 or not fpr[kept].any():
        return None
    fpr, pro = fpr[kept], pro[kept]
    return _area(fpr / fpr.max(), pro)


def _area(fpr: NDArray, pro: NDArray) -> float:
    """Under a curve in the unit square, whose FPR falls. Rounded weights may sum to a little more than 1."""
    return min(float(-np.trapezoid(pro, fpr)), 1.0)


def _threshold_curve(masks: NDArray, maps: NDArray, thresholds: int) -> tuple[NDArray, NDArray]:
    """FPR and PRO at equally spaced, ascending thresholds. Both are empty for constant maps."""
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
    """The number of each defect pixel's region, in the order of `maps[masks]`. Numbers go on from image to image."""
    regions, count = [], 0
    for mask in masks:
        if mask.any():
            labelled, found = ndimage.label(mask, _EIGHT_CONNECTED)
            regions.append(labelled[mask] + (count - 1))
            count += found
    return np.concatenate(regions)


def _ranks(scores: NDArray, negatives: NDArray) -> tuple[NDArray, NDArray]:
    """How many of the `negatives`, which are ascending, are below each score, and how many are not above it."""
    return np.searchsorted(negatives, scores, side="left"), np.searchsorted(negatives, scores, side="right")


def _precision_recall(positives: NDArray, below: NDArray, n_negatives: int) -> PrecisionRecall:
    """`positives` are ascending. `below`: how many negatives are below each of them.

    As the threshold falls, recall and F1 rise only where it reaches a positive. So only these thresholds matter.
    """
    found = positives.size - np.searchsorted(positives, positives, side="left")
    predicted = found + (n_negatives - below)
    f1 = 2 * found / (positives.size + predicted)
    return PrecisionRecall(float((found / predicted).mean()), float(f1.max()))


def _split(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray, NDArray]:
    """Check labels and scores. Returns copies of the positives' scores and of the negatives' scores."""
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
    """As an array of float32 or wider. It is copied only if it must be converted."""
    values = np.asarray(values)
    return values.astype(np.result_type(values, np.float32), copy=False)


def _require_equal_shapes(name: str, array: NDArray, other_name: str, other: NDArray) -> None:
    if array.shape != other.shape:
        raise ValueError(f"{name} {array.shape} and {other_name} {other.shape} differ in shape")


def _require_finite(name: str, values: NDArray) -> None:
    # The least and the greatest value show NaN and infinity, without another array of that size.
    if values.size and not (np.isfinite(values.min()) and np.isfinite(values.max())):
        bad = np.count_nonzero(~np.isfinite(values))
        raise ValueError(f"{name} hold {bad} values that are NaN or infinite, of {values.size}")
