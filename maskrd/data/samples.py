"""Images of a category in memory: decoded once per job, as uint8."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maskrd.data.changes import image_folder
from maskrd.data.index import GOOD, RECORD_ARCHIVES, Entry, Index, load_image, load_mask, read_checked


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

    def cropped(self, size: int | None) -> "Samples":
        """The central square of `size` pixels of every image and mask; None: all of it."""
        if size is None:
            return self
        start = (self.images.shape[2] - size) // 2
        square = np.s_[..., start : start + size, start : start + size]
        return Samples(self.entries, self.images[square], None if self.masks is None else self.masks[square])


def load_train(index: Index, root: Path, image_size: int, threads: int = 1) -> Samples:
    return load_samples(index, index.train, root, image_size, threads)


def load_test(index: Index, root: Path, image_size: int, threads: int = 1) -> Samples:
    return load_samples(index, index.test, root, image_size, threads)


def load_samples(index: Index, entries: Sequence[Entry], root: Path, image_size: int, threads: int) -> Samples:
    """Read, verify against the index, decode and resize.

    `root` is the dataset's folder. Raises MaskrdError where a file is gone, broken or not the one indexed.
    """
    if index.dataset in RECORD_ARCHIVES:
        from maskrd.data.cifar10 import load_records

        return Samples(tuple(entries), load_records(root, index, entries, image_size), None)
    folder = image_folder(index.dataset, index.category, root)

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
        if not index.has_masks:
            masks = None
        elif index.dataset == "stc":
            from maskrd.data.stc import load_masks

            masks = load_masks(folder, index, entries, image_size)
        else:
            masks = np.stack(list(pool.map(mask, entries)))
    return Samples(tuple(entries), images, masks)
