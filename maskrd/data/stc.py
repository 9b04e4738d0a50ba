"""ShanghaiTech Campus (Liu et al., CVPR 2018): surveillance video as a set of frames.

Expected below the dataset's folder, whose categories are the scenes `01` to `13` and `all`:

    training/frames/<clip>/<frame>.jpg     normal; only videos are published, so extract the frames, e.g.
                                           ffmpeg -i training/videos/01_001.avi training/frames/01_001/%04d.jpg
    testing/frames/<clip>/<frame>.jpg      as published
    testing/test_pixel_mask/<clip>.npy     (frames, height, width), non-zero on anomalies; as published

A clip is named `<scene>_<number>`. Of every clip each fifth frame is taken: neighbours hardly differ, and
all frames of all scenes wouldn't fit into memory.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from itertools import groupby
from pathlib import Path

import numpy as np
from PIL import Image

from maskrd.data.index import Entry, Index, check_entry, decode, read_checked, resize_mask
from maskrd.errors import MaskrdError
from maskrd.files import sha256_file

ANOMALY = "anomaly"
FRAME_STEP = 5


def list_frames(root: Path, category: str, threads: int) -> tuple[list[Entry], list[Entry], dict[str, str]]:
    """Training and test entries of a scene, relative to `root`, and the digests of their files.

    A frame with any marked pixel is anomalous; its record is its place in the clip's masks.
    Raises MaskrdError naming what is missing or doesn't fit.
    """
    train, test = [], []
    for clip in clips(root / "training" / "frames", category):
        train += [Entry(name) for name in frame_names(root, clip)[::FRAME_STEP]]
    for clip in clips(root / "testing" / "frames", category):
        test += clip_entries(root, clip)
    with ThreadPoolExecutor(threads) as pool:
        checked = pool.map(lambda entry: check_entry(root, Entry(entry.image)), [*train, *test])
        digests = {name: digest for found in checked for name, digest in found.items()}
    digests |= {name: sha256_file(root / name) for name in sorted({entry.mask for entry in test if entry.mask})}
    return train, test, digests


def clips(folder: Path, category: str) -> list[Path]:
    if not folder.is_dir():
        raise MaskrdError(
            f"{folder}: missing. The folder datasets.stc.path holds training/frames/<clip>/<frame>.jpg, "
            "testing/frames/<clip>/<frame>.jpg and testing/test_pixel_mask/<clip>.npy."
        )
    found = sorted(path for path in folder.iterdir() if path.is_dir())
    return [path for path in found if category in ("all", path.name.split("_")[0])]


def frame_names(root: Path, clip: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in clip.glob("*.jpg"))


def clip_entries(root: Path, clip: Path) -> list[Entry]:
    names = frame_names(root, clip)
    mask = f"testing/test_pixel_mask/{clip.name}.npy"
    marked = load_clip(root / mask)
    if names:
        width, height = decode((root / names[0]).read_bytes(), root / names[0]).size
        if marked.shape != (len(names), height, width):
            raise MaskrdError(
                f"{root / mask}: shape {marked.shape}, but {clip} has {len(names)} frames of {height}x{width} pixels."
            )
    return [
        Entry(names[record], ANOMALY, mask, record) if marked[record].any() else Entry(names[record])
        for record in range(0, len(names), FRAME_STEP)
    ]


def load_clip(path: Path) -> np.ndarray:
    """The masks of a clip, read from disk as they are needed."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise MaskrdError(f"{path}: not a readable array of masks ({error}). Restore the file.") from None


def load_masks(root: Path, index: Index, entries: Sequence[Entry], size: int) -> np.ndarray:
    """bool (N, size, size); each clip's file is read and verified once, since it holds some 100 MB."""
    masks = np.zeros((len(entries), size, size), bool)
    for name, group in groupby(enumerate(entries), key=lambda item: item[1].mask):
        if name is None:
            continue
        marked = np.load(BytesIO(read_checked(root / name, index.digests[name])), allow_pickle=False)
        for position, entry in group:
            masks[position] = resize_mask(Image.fromarray(marked[entry.record] != 0), size)
    return masks
