"""The images of a category in memory: decoded once in each job, as uint8."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maskrd.data.images import MASK_THRESHOLD, load_image_files, load_mask_files
from maskrd.data.index_file import GOOD, Entry, Index
from maskrd.data.registry import find_layout


@dataclass(frozen=True)
class Samples:
    """Decoded images, uint8 (N, 3, S, S), and masks, bool (N, S, S), all False on good images.

    `masks` is None if the category has no ground truth.
    """

    entries: tuple[Entry, ...]
    images: np.ndarray
    masks: np.ndarray | None

    @property
    def defective(self) -> np.ndarray:
        """bool (N,), from the folder names. So a defect that is too small to survive resizing still counts."""
        return np.array([entry.defect != GOOD for entry in self.entries])

    def cropped(self, size: int | None) -> "Samples":
        """The central square of `size` pixels of every image and mask. None: the whole image."""
        if size is None:
            return self
        start = (self.images.shape[2] - size) // 2
        square = np.s_[..., start : start + size, start : start + size]
        return Samples(self.entries, self.images[square], None if self.masks is None else self.masks[square])


def load_train(index: Index, root: Path, image_size: int, threads: int = 1) -> Samples:
    return load_samples(index, index.train, root, image_size, threads)


def load_test(
    index: Index, root: Path, image_size: int, threads: int = 1, mask_threshold: float = MASK_THRESHOLD
) -> Samples:
    return load_samples(index, index.test, root, image_size, threads, mask_threshold)


def load_samples(
    index: Index,
    entries: Sequence[Entry],
    root: Path,
    image_size: int,
    threads: int,
    mask_threshold: float = MASK_THRESHOLD,
) -> Samples:
    """Read, verify against the index, decode and resize.

    `root` is the dataset's folder. A pixel of a resized mask above `mask_threshold` (of 255) is a defect.
    Raises MaskrdError if a file is missing, broken or not the one that was indexed.
    """
    layout = find_layout(index.dataset, index.layout)
    folder = layout.folder_of(root, index.category)
    images = (layout.load_images or load_image_files)(folder, index, entries, image_size, threads)
    masks = None
    if index.has_masks:
        load_masks = layout.load_masks or load_mask_files
        masks = load_masks(folder, index, entries, image_size, mask_threshold, threads)
    return Samples(tuple(entries), images, masks)
