"""Cost and value of maskrd's metrics beside scikit-learn's AUROC and a literal loop over 200 PRO thresholds.

    python benchmarks/metrics.py [--images 117] [--rounds 3] [--json]

The test set is generated: smooth noise maps of 256 x 256, three images in four with one to four elliptical
defects that a blurred signal marks more or less strongly. All variants run in one process and take turns, so that
a busy machine slows them alike; times are medians over the rounds. The loop is RD4AD's as described: each
threshold labels the regions of each image again and compares their pixels. It labels with scipy where RD4AD
uses scikit-image, so the time of RD4AD itself will differ.
"""

import argparse
import os
import platform
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import scipy
import sklearn
from common import at_least, print_json, processor
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.metrics import auc, roc_auc_score

from maskrd.metrics import aupro, auroc, pixel_metrics, pro_per_image, pro_pooled_thresholds

SIDE = 256  # pixels
THRESHOLDS = 200
LIMIT = 0.3


def make_test_set(images: int, seed: int = 0) -> tuple[NDArray, NDArray]:
    """Masks, bool, and maps, float32, both (images, SIDE, SIDE)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    masks = np.zeros((images, SIDE, SIDE), dtype=bool)
    maps = np.empty(masks.shape, dtype=np.float32)
    for i in range(images):
        for _ in range(rng.integers(1, 5) if i < round(images * 90 / 117) else 0):
            centre_y, centre_x = rng.uniform(20, SIDE - 20, 2)
            radius_y, radius_x = rng.uniform(4, 18, 2)
            masks[i] |= ((y - centre_y) / radius_y) ** 2 + ((x - centre_x) / radius_x) ** 2 <= 1
        noise = ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), 4)
        signal = ndimage.gaussian_filter(masks[i].astype(float), 4) * rng.uniform(1, 5)
        maps[i] = noise / noise.std() + signal
    return masks, maps


def loop_pro(masks: NDArray, maps: NDArray) -> float:
    """Area under PRO and FPR below the limit, FPR divided by its maximum."""
    maps = maps.astype(np.float64)
    low, high = maps.min(), maps.max()
    fprs, pros = [], []
    for threshold in np.arange(low, high, (high - low) / THRESHOLDS):
        found = maps > threshold
        overlaps = []
        for mask, found_here in zip(masks, found, strict=True):
            labelled, count = ndimage.label(mask, np.ones((3, 3)))
            for label, box in zip(range(1, count + 1), ndimage.find_objects(labelled), strict=True):
                region = labelled[box] == label
                overlaps.append(found_here[box][region].sum() / region.sum())
        fprs.append(np.logical_and(~masks, found).sum() / (~masks).sum())
        pros.append(np.mean(overlaps))
    kept = np.array(fprs) < LIMIT
    fpr = np.array(fprs)[kept]
    return float(auc(fpr / fpr.max(), np.array(pros)[kept]))


def loop_pro_per_image(masks: NDArray, maps: NDArray) -> float:
    pairs = zip(masks, maps, strict=True)
    return float(np.mean([loop_pro(mask[None], image_map[None]) for mask, image_map in pairs if mask.any()]))


def variants(masks: NDArray, maps: NDArray) -> dict[str, Callable[[], dict[str, float]]]:
    def both() -> dict[str, float]:
        metrics = pixel_metrics(masks, maps, LIMIT)
        return {"pixel AUROC": metrics.auroc, "AUPRO": metrics.aupro}

    return {
        "maskrd pixel_metrics": both,
        "maskrd auroc": lambda: {"pixel AUROC": auroc(masks, maps)},
        "scikit-learn roc_auc_score": lambda: {"pixel AUROC": float(roc_auc_score(masks.ravel(), maps.ravel()))},
        "maskrd aupro": lambda: {"AUPRO": aupro(masks, maps, LIMIT)},
        "maskrd pro_per_image": lambda: {"PRO per image": pro_per_image(masks, maps, THRESHOLDS, LIMIT)},
        "loop per image": lambda: {"PRO per image": loop_pro_per_image(masks, maps)},
        "maskrd pro_pooled_thresholds": lambda: {"PRO pooled": pro_pooled_thresholds(masks, maps, THRESHOLDS, LIMIT)},
        "loop pooled": lambda: {"PRO pooled": loop_pro(masks, maps)},
    }


# Reference and ours. The loops give another quantity than the exact AUPRO that can stand in for them.
RATIOS = [
    ("scikit-learn roc_auc_score", "maskrd auroc"),
    ("scikit-learn roc_auc_score", "maskrd pixel_metrics"),
    ("loop per image", "maskrd pro_per_image"),
    ("loop per image", "maskrd aupro"),
    ("loop pooled", "maskrd pro_pooled_thresholds"),
    ("loop pooled", "maskrd aupro"),
]


def peak_mib(function: Callable[[], object]) -> float:
    """Most memory that a call holds beyond its arguments; numpy reports its arrays to tracemalloc."""
    tracemalloc.start()
    function()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return round(peak / 2**20, 1)


def measure(images: int, rounds: int) -> dict:
    masks, maps = make_test_set(images)
    calls = variants(masks, maps)
    times = {name: [] for name in calls}
    values = {}
    for round_number in range(rounds):
        for name, call in calls.items():
            print(f"round {round_number + 1}/{rounds}: {name}", file=sys.stderr)
            start = time.perf_counter()
            values[name] = call()
            times[name].append(time.perf_counter() - start)
    seconds = {name: statistics.median(taken) for name, taken in times.items()}
    return {
        "test_set": {
            "images": images,
            "defective": int(masks.any(axis=(1, 2)).sum()),
            "defect_pixels": float(masks.mean()),
            "maps_mib": maps.nbytes / 2**20,
        },
        "rounds": rounds,
        "seconds": seconds,
        "ratios": {f"{slow} / {fast}": seconds[slow] / seconds[fast] for slow, fast in RATIOS},
        "values": values,
        "peak_mib": {name: peak_mib(call) for name, call in calls.items() if name.startswith("maskrd")},
        "machine": {"processor": processor(), "cores": os.cpu_count(), "load": os.getloadavg()},
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "scikit-learn": sklearn.__version__,
        },
    }


def print_table(result: dict) -> None:
    test_set = result["test_set"]
    print(f"{test_set['images']} images, {test_set['defective']} defective, median of {result['rounds']} rounds")
    print(f"{'':30} {'seconds':>9} {'peak MiB':>9}  value")
    for name, seconds in result["seconds"].items():
        values = ", ".join(f"{metric} {value:.7f}" for metric, value in result["values"][name].items())
        print(f"{name:30} {seconds:9.3f} {result['peak_mib'].get(name, ''):>9}  {values}")
    print()
    for pair, ratio in result["ratios"].items():
        print(f"{pair:60} {ratio:7.1f}")
    print(f"\n{result['machine']}\n{result['versions']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=at_least(2), default=117, help="images in the test set (default: %(default)s)")
    parser.add_argument("--rounds", type=at_least(1), default=3, help="turns of every variant (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    arguments = parser.parse_args()
    result = measure(arguments.images, arguments.rounds)
    if arguments.json:
        print_json(result)
    else:
        print_table(result)


if __name__ == "__main__":
    main()
