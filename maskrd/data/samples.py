"""Images of a category in memory: decoded once per job, as uint8."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maskrd.data.index import GOOD, Entry, Index, load_image, load_mask, read_checked


@dataclass(frozen=True)
class Samples:
    """Decoded images. images: uint8 (N, 3, S, S); masks: bool (N, S, S), all False on good images,
    or None where the category has no ground truth."""

    entries: tuple[Entry, ...]
    images: np.ndarray
    masks: np.ndarray | None

    @property
    def defective(self) -> np.ndarray:
        """bool (N,): from the folder names, so a defect too small to survive resizing counts."""
        return np.array([entry.defect != GOOD for entry in self.entries])


def load_train(index: Index, root: Path, image_size: int, threads: int = 1) -> Samples:
    return load_samples(index, index.train, root, image_size, threads)


def load_test(index: Index, root: Path, image_size: int, threads: int = 1) -> Samples:
    return load_samples(index, index.test, root, image_size, threads)


def load_samples(index: Index, entries: Sequence[Entry], root: Path, image_size: int, threads: int) -> Samples:
    """Read, verify against the index, decode and resize.

    `root` is the dataset's folder. Raises MaskrdError where a file is gone, broken or not the one indexed.
    """
    if entries and entries[0].record is not None:
        from maskrd.data.cifar10 import load_records

        return Samples(tuple(entries), load_records(root, index, entries, image_size), None)
    folder = root / index.category

    def read(name: str) -> bytes:
        return read_checked(folder / name, index.digests[name])

    def image(entry: Entry) -> np.ndarray:
        return load_image(read(entry.image), folder / entry.image, image_size)

    def mask(entry: Entry) -> np.ndarray:
        if entry.mask is None:
            return np.zeros((image_size, image_size), dtype=bool)
        return load_mask(read(entry.mask), folder / entry.mask, image_size)

    with ThreadPoolExecutor(threads) as pool:
        images = np.stack(list(pool.map(image, entries)))
        masks = np.stack(list(pool.map(mask, entries))) if index.has_masks else None
    return Samples(tuple(entries), images, masks)
