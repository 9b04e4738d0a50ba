"""ShanghaiTech Campus (Liu et al., CVPR 2018): surveillance video as a set of frames.

Expected below the dataset's folder, whose categories are the scenes `01` to `13` and `all`:

    training/frames/<clip>/<frame>.jpg     normal; only videos are published, so extract the frames, e.g.
                                           ffmpeg -i training/videos/01_001.avi training/frames/01_001/%04d.jpg
    testing/frames/<clip>/<frame>.jpg      as published
    testing/test_pixel_mask/<clip>.npy     (frames, height, width), non-zero on anomalies; as published

A clip's name is `<scene>_<number>`. Every fifth frame of each clip is used: neighbours hardly differ, and all frames of
all scenes wouldn't fit into memory.
"""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from maskrd.data.description import KnownDataset, Layout, Listing
from maskrd.data.index_file import Entry, Index
from maskrd.errors import MaskrdError
from maskrd.files import sha256_file

if TYPE_CHECKING:
    import numpy as np

SCENES = tuple(f"{number:02d}" for number in range(1, 14))
EVERY_SCENE = "all"
PARTS = ("training", "testing")
ANOMALY = "anomaly"
FRAME_STEP = 5


def list_frames(dataset: str, category: str, root: Path, threads: int) -> Listing:
    """Training and test entries of a scene, relative to `root`, and the digests of their files.

    A frame with any marked pixel is anomalous. Its `record` is its position in the clip's masks.
    Raises MaskrdError with the name of what is missing or doesn't fit.
    """
    from maskrd.data.images import check_entries

    train, test = [], []
    for clip in find_clips(dataset, root / "training" / "frames", category):
        train += [Entry(name) for name in frame_names(root, clip)[::FRAME_STEP]]
    for clip in find_clips(dataset, root / "testing" / "frames", category):
        test += clip_entries(root, clip)
    digests = check_entries(root, [Entry(entry.image) for entry in (*train, *test)], threads)
    digests |= {name: sha256_file(root / name) for name in sorted({entry.mask for entry in test if entry.mask})}
    return Listing(train, test, digests)


def find_clips(dataset: str, folder: Path, category: str) -> list[Path]:
    if not folder.is_dir():
        raise MaskrdError(
            f"{folder}: missing. The folder datasets.{dataset}.path must hold training/frames/<clip>/<frame>.jpg, "
            "testing/frames/<clip>/<frame>.jpg and testing/test_pixel_mask/<clip>.npy. Correct the path."
        )
    found = sorted(path for path in folder.iterdir() if path.is_dir())
    return [path for path in found if category in (EVERY_SCENE, path.name.split("_")[0])]


def frame_names(root: Path, clip: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in clip.glob("[!.]*.jpg"))  # macOS writes ._x.jpg


def clip_entries(root: Path, clip: Path) -> list[Entry]:
    from maskrd.data.images import decode, read_file

    names = frame_names(root, clip)
    mask = f"testing/test_pixel_mask/{clip.name}.npy"
    marked = load_clip(root / mask)
    if names:
        width, height = decode(read_file(root / names[0]), root / names[0]).size
        if marked.shape != (len(names), height, width):
            raise MaskrdError(
                f"{root / mask}: its shape is {marked.shape}, but {clip} has {len(names)} frames of {height}x{width} "
                "pixels. Restore the frames or the masks."
            )
    return [
        Entry(names[record], ANOMALY, mask, record) if marked[record].any() else Entry(names[record])
        for record in range(0, len(names), FRAME_STEP)
    ]


def load_clip(path: Path) -> "np.ndarray":
    """The masks of a clip. They are read from disk when they are used."""
    import numpy as np

    try:
        marked = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # on odd headers, numpy raises nearly every type
        raise MaskrdError(f"{path}: can't be read as an array of masks ({error}). Restore the file.") from None
    if not isinstance(marked, np.ndarray):
        raise MaskrdError(f"{path}: it holds several arrays. It must hold one, the masks. Restore the file.")
    return marked


def load_masks(
    root: Path, index: Index, entries: Sequence[Entry], size: int, threshold: float, threads: int
) -> "np.ndarray":
    """The masks as bool (N, size, size). Each clip's file of about 100 MB is read and verified once."""
    from io import BytesIO

    import numpy as np
    from PIL import Image

    from maskrd.data.images import read_checked, resize_mask

    masks = np.zeros((len(entries), size, size), bool)
    marked_entries = ((position, entry) for position, entry in enumerate(entries) if entry.mask is not None)
    for name, group in groupby(marked_entries, key=lambda item: item[1].mask):
        marked = np.load(BytesIO(read_checked(root / name, index.digests[name])), allow_pickle=False)
        for position, entry in group:
            masks[position] = resize_mask(Image.fromarray(marked[entry.record] != 0), size, threshold)
    return masks


def find_scenes(root: Path) -> list[str]:
    """The scenes that have clips for training and for testing."""
    found = [{clip.name.split("_")[0] for clip in (root / part / "frames").glob("*_*")} for part in PARTS]
    return sorted(set.intersection(*found))


DATASET = KnownDataset(
    title="ShanghaiTech Campus",
    layout=Layout(
        name="stc",
        list_images=list_frames,
        find_categories=find_scenes,
        categories=(*SCENES, EVERY_SCENE),
        load_masks=load_masks,
    ),
)
