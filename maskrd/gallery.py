"""The gallery of a test: a few images with ground truth and anomaly map, and the PRO curve.

It is one file beside metrics.json. Figures and the report are drawn from it, without model and data.
"""

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image

from maskrd.arrays import Form, read_arrays
from maskrd.colors import scaled
from maskrd.config.settings import SHOWN_IMAGES
from maskrd.data.index_file import GOOD
from maskrd.errors import MaskrdError
from maskrd.files import atomic_path

EXTREMES = 4  # worst misses, and as many false alarms
JPEG_QUALITY = 92
NUMBERS = "fiu"
RANGE = {"low": Form(NUMBERS, 0), "high": Form(NUMBERS, 0)}
ARRAYS = {
    "names": Form("U", 1), "defects": Form("U", 1), "scores": Form(NUMBERS, 1), "images": Form("u", 1),
    "ends": Form("iu", 1), "maps": Form("u", 3), **RANGE,
}  # fmt: skip
WITH_MASKS = {"masks": Form("b", 3), "pro": Form(NUMBERS, 2)}


@dataclass(frozen=True)
class Gallery:
    """K test images. images: uint8 (K, 3, S, S), as JPEG keeps them; masks: bool (K, S, S), or None without masks.

    maps: uint8 (K, S, S), 0 at `low` and 255 at `high`, the range of the maps of the whole test set; scores: float
    (K,). `pro`: float (2, P), false positive rate and PRO from 0 to the limit; None without masks.
    """

    names: tuple[str, ...]
    defects: tuple[str, ...]
    scores: np.ndarray
    images: np.ndarray
    maps: np.ndarray
    low: float
    high: float
    masks: np.ndarray | None = None
    pro: np.ndarray | None = None

    def write(self, path: Path) -> None:
        files = [encode(image) for image in self.images]
        arrays = {
            "names": self.names, "defects": self.defects, "scores": self.scores,
            "images": np.concatenate(files), "ends": np.cumsum([file.size for file in files]),
            "maps": self.maps, "low": self.low, "high": self.high,
            **{key: value for key, value in (("masks", self.masks), ("pro", self.pro)) if value is not None},
        }  # fmt: skip
        with atomic_path(path) as temporary:
            np.savez_compressed(temporary, **arrays)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises MaskrdError for a file that is missing, damaged or of another kind."""
        found = read_arrays(path, ARRAYS, WITH_MASKS)
        try:
            images = np.stack([decode(file) for file in np.split(found["images"], found["ends"][:-1])])
            check_shapes(found, images)
        except Exception as error:  # Pillow's are of nearly every type
            raise MaskrdError(f"{path}: damaged ({error}). Delete it: Snakemake tests the model again.") from None
        names, defects = (tuple(found[key].tolist()) for key in ("names", "defects"))
        low, high = float(found["low"]), float(found["high"])
        return cls(
            names, defects, found["scores"], images, found["maps"], low, high, found.get("masks"), found.get("pro")
        )


def read_range(path: Path) -> tuple[float, float]:
    """`low` and `high` of a gallery. Raises MaskrdError as `Gallery.read`."""
    limits = read_arrays(path, RANGE)
    return float(limits["low"]), float(limits["high"])


def check_shapes(found: dict[str, np.ndarray], images: np.ndarray) -> None:
    """Raises ValueError for arrays that don't belong together."""
    count, side = len(images), images.shape[-1]
    expected = {"names": (count,), "defects": (count,), "scores": (count,), "maps": (count, side, side)}
    if "masks" in found:
        expected["masks"] = (count, side, side)
    if "pro" in found:
        expected["pro"] = (2, max(1, found["pro"].shape[1]))
    for name, shape in expected.items():
        if found[name].shape != shape:
            raise ValueError(f"{name} has the shape {found[name].shape}, and {shape} is expected")


def encode(image: np.ndarray) -> np.ndarray:
    """The bytes of a JPEG, uint8 (B,), of an image (3, S, S)."""
    stream = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(stream, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return np.frombuffer(stream.getvalue(), np.uint8)


def decode(jpeg: np.ndarray) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(jpeg.tobytes()), formats=["JPEG"])).transpose(2, 0, 1)


def quantise(maps: np.ndarray, low: float, high: float) -> np.ndarray:
    """Anomaly maps as uint8: `low` is 0, `high` is 255."""
    return (255 * scaled(maps, low, high).clip(0, 1)).round().astype(np.uint8)


def take_turns(defects: Sequence[str], count: int) -> list[int]:
    """Positions of up to `count` defective images: the first of each defect type, then the second of each, ..."""
    seen: Counter[str] = Counter()
    turns = []
    for place, defect in enumerate(defects):
        if defect != GOOD:
            turns.append((seen[defect], place))
            seen[defect] += 1
    return [place for _, place in sorted(turns)[:count]]


def choose(defects: Sequence[str], scores: np.ndarray) -> list[int]:
    """Positions of the images to keep: some of each defect type, the worst misses and false alarms, a good one."""
    types = {defect for defect in defects if defect != GOOD}
    good = [place for place, defect in enumerate(defects) if defect == GOOD]
    defective = [place for place, defect in enumerate(defects) if defect != GOOD]
    misses = sorted(defective, key=lambda place: scores[place])[:EXTREMES]
    alarms = sorted(good, key=lambda place: -scores[place])[:EXTREMES]
    return sorted({*take_turns(defects, max(SHOWN_IMAGES, len(types))), *misses, *alarms, *good[:1]})
