"""The metrics against slow implementations that follow the definitions and share no code with them."""

from itertools import product

import numpy as np
import pytest
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score

from maskrd.metrics import (
    PixelMetrics,
    PrecisionRecall,
    aupro,
    auroc,
    pixel_metrics,
    precision_recall,
    pro_per_image,
    pro_pooled_thresholds,
    pro_rescaled,
)


def flood_regions(mask):
    """8-connected regions of one image, each a list of (y, x), by flood fill."""
    left = {tuple(pixel) for pixel in np.argwhere(mask)}
    regions = []
    while left:
        stack, region = [left.pop()], []
        while stack:
            y, x = stack.pop()
            region.append((y, x))
            for dy, dx in product((-1, 0, 1), repeat=2):
                if (y + dy, x + dx) in left:
                    left.remove((y + dy, x + dx))
                    stack.append((y + dy, x + dx))
        regions.append(region)
    return regions


def mean_overlap(binary_maps, regions):
    """`regions` is a list of (image, pixels)."""
    return np.mean([sum(binary_maps[n][p] for p in pixels) / len(pixels) for n, pixels in regions])


def all_regions(masks):
    return [(n, pixels) for n, mask in enumerate(masks) for pixels in flood_regions(mask)]


def slow_aupro(masks, maps, limit):
    """Every distinct score as a threshold, straight lines between the points, cut at the limit."""
    regions = all_regions(masks)
    fpr, pro = [0.0], [0.0]
    for threshold in np.unique(maps)[::-1]:
        found = maps >= threshold
        fpr.append(np.count_nonzero(found & ~masks) / np.count_nonzero(~masks))
        pro.append(mean_overlap(found, regions))
    area = 0.0
    for i in range(1, len(fpr)):
        x0, x1, y0, y1 = fpr[i - 1], fpr[i], pro[i - 1], pro[i]
        if x1 > limit:
            y1 = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
            x1 = limit
        area += (x1 - x0) * (y0 + y1) / 2
        if x1 == limit:
            break
    return area / limit


def slow_threshold_pro(masks, maps, thresholds, limit):
    """RD4AD's loop as its code is described, in float64 like its maps."""
    maps = maps.astype(np.float64)
    regions = all_regions(masks)
    low, high = maps.min(), maps.max()
    fprs, pros = [], []
    for threshold in np.arange(low, high, (high - low) / thresholds):
        found = maps > threshold
        fpr = np.count_nonzero(found & ~masks) / np.count_nonzero(~masks)
        if fpr < limit:
            fprs.append(fpr)
            pros.append(mean_overlap(found, regions))
    return auc(np.array(fprs) / max(fprs), pros)


def random_case(seed, levels=None):
    """A few small images with scattered defects, some images without; `levels` rounds scores to make ties."""
    rng = np.random.default_rng(seed)
    n, height, width = rng.integers(1, 5), rng.integers(6, 14), rng.integers(6, 14)
    masks = rng.random((n, height, width)) < rng.choice([0.03, 0.1, 0.3])
    masks[1:][rng.random(n - 1) < 0.3] = False
    masks[0, 0, 0], masks[0, 5, 5] = True, False
    maps = rng.normal(size=masks.shape) + rng.choice([0.0, 1.0, 3.0]) * masks
    if levels:
        maps = np.round(maps * levels) / levels
    return masks, maps.astype(np.float32)


@pytest.mark.parametrize("levels", [None, 1, 4])
@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_pixel_metrics_are_exact(levels, limit):
    for seed in range(25):
        masks, maps = random_case(seed, levels)
        metrics = pixel_metrics(masks, maps, limit)
        assert metrics.auroc == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-12), seed
        assert metrics.aupro == pytest.approx(slow_aupro(masks, maps, limit), abs=1e-12), seed
        assert metrics.auroc == auroc(masks, maps)
        assert metrics.aupro == aupro(masks, maps, limit)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_auroc_equals_scikit_learn(share, dtype):
    """Either class may be the larger one, and is then the one sorted."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        labels = rng.random(60) < share
        labels[:2] = True, False
        scores = (rng.normal(size=60) * 3 + labels).astype(dtype)
        expected = pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
        assert auroc(labels, scores) == expected
        assert auroc(labels.astype(int).tolist(), scores.tolist()) == expected


def greatest_f1(labels, scores):
    precision, recall, _ = precision_recall_curve(labels, scores)
    return (2 * precision * recall / np.maximum(precision + recall, 1e-300)).max()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_precision_and_recall_are_those_of_scikit_learn(share, dtype):
    """Whole numbers have ties between the classes."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        labels = rng.random(60) < share
        labels[:2] = True, False
        scores = (rng.normal(size=60) * 3 + labels).astype(dtype)
        found = precision_recall(labels, scores)
        assert found.ap == pytest.approx(average_precision_score(labels, scores), abs=1e-12), seed
        assert found.f1max == pytest.approx(greatest_f1(labels, scores), abs=1e-12), seed


@pytest.mark.parametrize("levels", [None, 1, 4])
def test_precision_and_recall_of_pixels_are_those_of_scikit_learn(levels):
    for seed in range(10):
        masks, maps = random_case(seed, levels)
        found = pixel_metrics(masks, maps)
        assert found.ap == pytest.approx(average_precision_score(masks.ravel(), maps.ravel()), abs=1e-12), seed
        assert found.f1max == pytest.approx(greatest_f1(masks.ravel(), maps.ravel()), abs=1e-12), seed


def test_one_class_has_no_precision():
    assert precision_recall([0, 0], [1, 2]) == precision_recall([1, 1], [1, 2]) == PrecisionRecall(None, None)


@pytest.mark.parametrize("levels", [None, 4])
@pytest.mark.parametrize("limit", [0.05, 0.3])
def test_aupro_is_the_mean_of_scikit_learns_partial_areas(levels, limit):
    """A region's recall against the FPR of all normal pixels is a ROC curve, and PRO is the mean of these curves.

    scikit-learn standardises a partial area: 0.5 for chance, 1 for a perfect curve.
    """
    for seed in range(10):
        masks, maps = random_case(seed, levels)
        normal, areas = maps[~masks], []
        for image, pixels in all_regions(masks):
            region = np.array([maps[image][pixel] for pixel in pixels])
            labels = np.repeat([1, 0], [region.size, normal.size])
            standardised = roc_auc_score(labels, np.concatenate([region, normal]), max_fpr=limit)
            chance = limit**2 / 2
            areas.append((2 * standardised - 1) * (limit - chance) + chance)
        assert aupro(masks, maps, limit) == pytest.approx(np.mean(areas) / limit, abs=1e-10), seed


def test_auroc_does_not_reorder_its_input():
    labels, scores = np.array([1, 0, 1, 0]), np.array([3.0, 1.0, 2.0, 2.0])
    assert auroc(labels, scores) == 0.875
    assert scores.tolist() == [3.0, 1.0, 2.0, 2.0]


def test_diagonal_neighbours_are_one_region():
    """Of three defect pixels two touch at a corner: two regions, not three, and one of them is found."""
    masks = np.zeros((1, 4, 6), dtype=bool)
    masks[0, 0, 0] = masks[0, 1, 1] = masks[0, 3, 5] = True
    maps = np.zeros(masks.shape, dtype=np.float32)
    maps[0, 0, 0] = maps[0, 1, 1] = 2
    maps[0, 3, 5] = -1
    assert aupro(masks, maps, 1.0) == pytest.approx(0.5)


def test_equal_places_in_two_images_are_two_regions():
    masks = np.zeros((2, 4, 4), dtype=bool)
    masks[:, 1, 1] = True
    masks[1, 1, 2:] = True
    maps = np.zeros(masks.shape, dtype=np.float32)
    maps[0, 1, 1] = 1
    maps[1, masks[1]] = -1
    assert aupro(masks, maps, 1.0) == pytest.approx(0.5)  # one region of four pixels would give 0.25


def test_perfect_and_worst_maps():
    """Exactly 1: sums of rounded weights have printed AUPRO above 100 % elsewhere."""
    for seed in range(20):
        masks, _ = random_case(seed)
        perfect = pixel_metrics(masks, masks.astype(np.float32))
        assert perfect == PixelMetrics(1.0, 1.0, 1.0, 1.0)
        worst = pixel_metrics(masks, -masks.astype(np.float32))
        assert (worst.auroc, worst.aupro) == (0.0, 0.0)


def test_no_pro_of_perfect_maps_is_above_one():
    """Maps with noise: their curves have many points, whose weights are rounded."""
    rng = np.random.default_rng(0)
    for seed in range(40):
        masks, _ = random_case(seed)
        maps = (masks + 0.3 * rng.random(masks.shape)).astype(np.float32)
        for measure in (pro_pooled_thresholds, pro_per_image, pro_rescaled):
            value = measure(masks, maps)
            assert value is None or value <= 1, (seed, measure)


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_equal_scores_give_chance(limit):
    """The curve is the diagonal, of which the part below the limit has the mean height limit / 2."""
    masks, maps = random_case(0)
    metrics = pixel_metrics(masks, np.full_like(maps, 7), limit)
    assert metrics.auroc == 0.5
    assert metrics.aupro == pytest.approx(limit / 2)


def smooth_case(seed):
    """As `random_case`, but with a background FPR that passes below every limit at some threshold."""
    masks, maps = random_case(seed)
    rng = np.random.default_rng(1000 + seed)
    return masks, (maps + rng.exponential(size=maps.shape)).astype(np.float32)


@pytest.mark.parametrize("thresholds", [7, 200])
@pytest.mark.parametrize("limit", [0.3, 0.6, 1.0])
def test_threshold_pro_is_that_of_the_loop(thresholds, limit):
    compared = 0
    for seed in range(12):
        masks, maps = smooth_case(seed)
        pooled = pro_pooled_thresholds(masks, maps, thresholds, limit)
        per_image = pro_per_image(masks, maps, thresholds, limit)
        if pooled is None or per_image is None:
            continue
        compared += 1
        slow = [
            slow_threshold_pro(mask[None], anomaly_map[None], thresholds, limit)
            for mask, anomaly_map in zip(masks, maps, strict=True)
            if mask.any()
        ]
        assert per_image == pytest.approx(np.mean(slow), abs=1e-12), seed
        assert pooled == pytest.approx(slow_threshold_pro(masks, maps, thresholds, limit), abs=1e-12), seed
    assert compared >= 4


def slow_rescaled_pro(masks, maps, thresholds, limit):
    """STPM's loop as its code is described: both axes from 0 to 1 over the points up to the limit."""
    maps = maps.astype(np.float64)
    regions = all_regions(masks)
    low, high = maps.min(), maps.max()
    points = []
    for threshold in np.arange(low, high, (high - low) / thresholds):
        found = maps > threshold
        fpr = np.count_nonzero(found & ~masks) / np.count_nonzero(~masks)
        if fpr <= limit:
            points.append((fpr, mean_overlap(found, regions)))
    fprs, pros = np.array(points).T
    return auc((fprs - fprs.min()) / (fprs.max() - fprs.min()), (pros - pros.min()) / (pros.max() - pros.min()))


@pytest.mark.parametrize("limit", [0.3, 1.0])
def test_rescaled_pro_is_that_of_the_loop(limit):
    compared = 0
    for seed in range(8):
        masks, maps = smooth_case(seed)
        value = pro_rescaled(masks, maps, 300, limit)
        if value is not None:
            compared += 1
            assert value == pytest.approx(slow_rescaled_pro(masks, maps, 300, limit), abs=1e-12), seed
    assert compared >= 4


def test_rescaled_pro_loses_the_level_of_the_curve():
    """A second region that no threshold finds halves the exact PRO and leaves the rescaled one as it was."""
    rng = np.random.default_rng(0)
    masks = np.zeros((1, 40, 40), bool)
    masks[0, 2:8, 2:8] = True
    maps = rng.exponential(size=masks.shape).astype(np.float32) + masks
    missed_masks, missed_maps = masks.copy(), maps.copy()
    missed_masks[0, 20:26, 20:26] = True
    missed_maps[missed_masks & ~masks] = 0
    assert aupro(missed_masks, missed_maps) == pytest.approx(aupro(masks, maps) / 2, rel=0.05)
    assert pro_rescaled(missed_masks, missed_maps) == pytest.approx(pro_rescaled(masks, maps), abs=0.02)


@pytest.mark.parametrize("levels", [1, 4, 16])
def test_threshold_pro_counts_ties_as_the_loop(levels):
    """Scores rounded to fractions: many pixels share one, some of them that of a threshold."""
    compared = 0
    for seed in range(12):
        masks, maps = smooth_case(seed)
        maps = np.round(maps * levels) / levels
        value = pro_pooled_thresholds(masks, maps)
        if value is not None:
            compared += 1
            assert value == pytest.approx(slow_threshold_pro(masks, maps, 200, 0.3), abs=1e-12), seed
    assert compared >= 6


def test_scores_on_a_threshold_are_not_above_it():
    """Integer scores from 0 to 200 put every pixel exactly on a threshold of the loop."""
    rng = np.random.default_rng(0)
    masks = rng.random((2, 12, 12)) < 0.2
    maps = rng.integers(0, 200, masks.shape).astype(np.float32)
    maps[:, 0, 0], maps[:, 0, 1] = 0, 200
    expected = pytest.approx(slow_threshold_pro(masks, maps, 200, 0.3), abs=1e-12)
    assert pro_pooled_thresholds(masks, maps) == expected


def test_normal_images_count_only_when_pooled():
    masks, maps = smooth_case(3)
    normal = np.full((1, *maps.shape[1:]), maps.mean(), dtype=np.float32)
    more_masks = np.concatenate([masks, np.zeros_like(normal, dtype=bool)])
    more_maps = np.concatenate([maps, normal])
    assert pro_per_image(more_masks, more_maps) == pro_per_image(masks, maps) is not None
    assert aupro(more_masks, more_maps) != aupro(masks, maps)
    assert pro_pooled_thresholds(more_masks, more_maps) != pro_pooled_thresholds(masks, maps)


@pytest.mark.parametrize("masks", [np.zeros((2, 8, 8), bool), np.ones((2, 8, 8), bool), np.zeros((0, 8, 8), bool)])
def test_one_class_has_no_value(masks):
    maps = np.random.default_rng(0).normal(size=masks.shape).astype(np.float32)
    assert pixel_metrics(masks, maps) == PixelMetrics(None, None, None, None)
    assert auroc(masks, maps) is None
    assert pro_per_image(masks, maps) is None
    assert pro_pooled_thresholds(masks, maps) is None
    assert pro_rescaled(masks, maps) is None


def test_threshold_pro_has_no_value_where_the_loop_has_none():
    """A constant map; a background that is never above a threshold with FPR below the limit."""
    masks, maps = random_case(0)
    for maps_without in (np.zeros_like(maps), masks.astype(np.float32)):
        assert pro_per_image(masks, maps_without) is None
        assert pro_pooled_thresholds(masks, maps_without) is None
        assert pro_rescaled(masks, maps_without) is None


def test_threshold_pro_needs_two_points():
    """Cuts at 0 and 0.5, where the FPR is 0.5 and 0.25 and the one defect pixel is found at the first only."""
    masks = np.array([[[True, False, False, False, False]]])
    maps = np.array([[[0.4, 0, 0, 0.3, 1]]], dtype=np.float32)
    assert pro_pooled_thresholds(masks, maps, thresholds=2, limit=0.6) == pytest.approx(0.25)
    assert pro_pooled_thresholds(masks, maps, thresholds=2, limit=0.4) is None


def test_one_image_without_value_leaves_no_mean():
    masks, maps = smooth_case(3)
    assert pro_per_image(masks, maps) is not None
    maps[0] = masks[0]
    assert pro_per_image(masks, maps) is None


@pytest.mark.parametrize("metric", [pixel_metrics, aupro, pro_per_image, pro_pooled_thresholds])
def test_pixel_metrics_refuse_bad_input(metric):
    masks, maps = random_case(0)
    with pytest.raises(ValueError, match="differ in shape"):
        metric(masks[:, 1:], maps)
    with pytest.raises(ValueError, match=r"\(N, H, W\)"):
        metric(masks[0], maps[0])
    with pytest.raises(ValueError, match="must be bool, not uint8"):
        metric(masks.astype(np.uint8), maps)
    for bad in (np.nan, np.inf, -np.inf):
        broken = maps.copy()
        broken[0, 2, 3] = bad
        with pytest.raises(ValueError, match="maps hold 1 values that are NaN or infinite"):
            metric(masks, broken)
    for limit in (0, -0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match="FPR limit"):
            metric(masks, maps, limit=limit)


def test_threshold_count_is_checked():
    masks, maps = random_case(0)
    with pytest.raises(ValueError, match="at least 2 thresholds"):
        pro_per_image(masks, maps, thresholds=1)


def test_auroc_refuses_bad_input():
    with pytest.raises(ValueError, match="differ in shape"):
        auroc([0, 1], [0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="labels must be 0"):
        auroc([-1, 1], [0.1, 0.2])
    with pytest.raises(ValueError, match="scores hold 1 values"):
        auroc([0, 1], [0.1, np.nan])
