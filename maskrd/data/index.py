"""The index of a category: which images it holds, checked once and named by digest.

An index is a small JSON file without dates or absolute paths, so equal data give an equal index.
It is a plain input of trainings: data that changed retrain their category, and jobs refuse an image
that no longer has the digest it had here.
"""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from maskrd.data.changes import HIDDEN, IMAGE_SUFFIXES, image_folder
from maskrd.errors import MaskrdError
from maskrd.files import write_text

IGNORED = frozenset({"thumbs.db", "desktop.ini"})
GOOD = "good"
DEEP_MODES = ("I", "F")  # Pillow's; its conversion to 8 bits would cut all above 255
MASK_THRESHOLD = 127.5
# Datasets in CIFAR-10's binary format.
RECORD_ARCHIVES = frozenset({"cifar10", "digits"})


@dataclass(frozen=True)
class Entry:
    """One training or test image; paths are relative to the folder of `maskrd.data.changes.image_folder`.

    `record` is its position in a file of many: of images (CIFAR-10's binary batches) or masks (ShanghaiTech Campus).
    """

    image: str
    defect: str = GOOD
    mask: str | None = None
    record: int | None = None


@dataclass(frozen=True)
class Index:
    """The images of a category, and the sha256 of every file that they lie in."""

    dataset: str
    category: str
    train: tuple[Entry, ...]
    test: tuple[Entry, ...]
    digests: dict[str, str]

    @property
    def has_masks(self) -> bool:
        return any(entry.mask for entry in self.test)

    def write(self, path: Path) -> None:
        content = asdict(self)
        for split in ("train", "test"):
            content[split] = [
                {key: value for key, value in entry.items() if value is not None} for entry in content[split]
            ]
        # Compact: Snakemake compares inputs below 1 MB by content, and CIFAR-10 has 15,000 entries a class.
        write_text(path, json.dumps(content, sort_keys=True, separators=(",", ":")) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Index":
        """Raises MaskrdError for a file of another kind, or a damaged one."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            for split in ("train", "test"):
                content[split] = tuple(Entry(**entry) for entry in content[split])
            return cls(**content)
        except (ValueError, KeyError, TypeError) as error:
            raise MaskrdError(f"{path}: not an index of this pipeline ({error!r}). Delete it to index anew.") from None


def build_index(dataset: str, category: str, root: Path, threads: int = 1) -> Index:
    """List and check the images of a category.

    `root` is the dataset's folder. Every image and mask is decoded once.
    Raises MaskrdError naming the folder or file that is missing, broken or doesn't fit.
    """
    folder = image_folder(dataset, category, root)
    if dataset in RECORD_ARCHIVES:
        from maskrd.data.cifar10 import list_records

        train, test, digests = list_records(root, dataset, category)
    elif dataset == "stc":
        from maskrd.data.stc import list_frames

        train, test, digests = list_frames(root, category, threads)
    else:
        from maskrd.data.mtd import list_tiles

        train, test = list_tiles(root) if dataset == "mtd" else list_folder(root, dataset, category)
        with ThreadPoolExecutor(threads) as pool:
            checked = pool.map(lambda entry: check_entry(folder, entry), [*train, *test])
            digests = {name: digest for digests in checked for name, digest in digests.items()}
    index = Index(dataset, category, tuple(train), tuple(test), digests)
    check_index(index, folder)
    return index


def check_index(index: Index, folder: Path) -> None:
    where = f"{folder} ({index.category})"
    if len(index.train) < 2:
        raise MaskrdError(
            f"{where}: {len(index.train)} normal training image(s). Training needs at least 2, "
            "since batch normalisation takes its statistics over several."
        )
    kinds = {entry.defect == GOOD for entry in index.test}
    if kinds != {True, False}:
        missing = {frozenset(): "no", frozenset({True}): "no defective", frozenset({False}): "no good"}
        raise MaskrdError(f"{where}: {missing[frozenset(kinds)]} test images. Metrics need some, good and defective.")


def list_folder(root: Path, dataset: str, category: str) -> tuple[list[Entry], list[Entry]]:
    """Entries of a category in MVTec AD's layout: train/good, test/<defect>, ground_truth/<defect>."""
    folder = root / category
    if not root.is_dir():
        raise MaskrdError(
            f"datasets.{dataset}.path: the folder {root} does not exist. "
            "Correct the path, or leave it out to have the data downloaded."
        )
    if not folder.is_dir():
        present = sorted(path.name for path in root.iterdir() if path.is_dir())
        raise MaskrdError(
            f"datasets.{dataset}.categories: {category!r} has no folder in {root}. "
            f"Categories there: {', '.join(present) or 'none'}."
        )
    train = [Entry(name) for name in image_names(folder, f"train/{GOOD}")]
    test = []
    for defect in sorted(path.name for path in subfolder(folder, "test").iterdir() if path.is_dir()):
        if defect.startswith(HIDDEN):
            continue
        if defect != GOOD and defect.lower() == GOOD:
            raise MaskrdError(f"{folder / 'test' / defect}: would count as a kind of defect. Rename it to {GOOD}.")
        for name in image_names(folder, f"test/{defect}"):
            mask = None if defect == GOOD else find_mask(folder, defect, Path(name).stem)
            test.append(Entry(name, defect, mask))
    return train, test


def subfolder(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_dir():
        raise MaskrdError(
            f"{path}: missing. A category holds train/good, test/good, test/<defect> and ground_truth/<defect>."
        )
    return path


def image_names(folder: Path, name: str) -> list[str]:
    """Paths, relative to `folder`, of the images in its subfolder `name`, sorted."""
    names = []
    for path in sorted(subfolder(folder, name).iterdir()):
        if path.name.startswith(".") or path.name.lower() in IGNORED:
            continue
        if not path.is_file():
            kind = "a folder among images" if path.is_dir() else "a link to a file that is not there"
            raise MaskrdError(f"{path}: {kind}. Move it elsewhere.")
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            raise MaskrdError(f"{path}: not an image ({', '.join(sorted(IMAGE_SUFFIXES))}). Move it elsewhere.")
        names.append(f"{name}/{path.name}")
    return names


def find_mask(folder: Path, defect: str, stem: str) -> str | None:
    """The mask of a defective image; None where the category has no ground truth at all."""
    if not (folder / "ground_truth").is_dir():
        return None
    for name in (f"ground_truth/{defect}/{stem}_mask.png", f"ground_truth/{defect}/{stem}.png"):
        if (folder / name).is_file():
            return name
    raise MaskrdError(
        f"{folder / 'ground_truth' / defect / f'{stem}_mask.png'}: the mask of test/{defect}/{stem} is missing. "
        "Restore it, or remove ground_truth altogether to do without pixel metrics."
    )


def check_entry(folder: Path, entry: Entry) -> dict[str, str]:
    """Decode image and mask, compare their sizes, and return their digests by name."""
    content = (folder / entry.image).read_bytes()
    size = decode(content, folder / entry.image).size
    digests = {entry.image: sha256(content)}
    if entry.mask:
        mask_content = (folder / entry.mask).read_bytes()
        mask = decode(mask_content, folder / entry.mask)
        if mask.size != size:
            raise MaskrdError(
                f"{folder / entry.mask}: {mask.width}x{mask.height} pixels, but its image {entry.image} "
                f"has {size[0]}x{size[1]}. Masks must have the size of their images."
            )
        # Painted as 0 and 1 a defect would vanish; empty masks there are (four of MTD).
        brightest = mask.convert("L").getextrema()[1]
        if 0 < brightest <= MASK_THRESHOLD:
            raise MaskrdError(
                f"{folder / entry.mask}: its brightest pixel is {brightest} of 255, and a defect is what is above one "
                "half. Paint defects as 255."
            )
        digests[entry.mask] = sha256(mask_content)
    return digests


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def decode(content: bytes, path: Path) -> Image.Image:
    """A fully decoded image, turned upright as its EXIF data say.

    Raises MaskrdError where the file is truncated, no image, or has more than 8 bits a channel.
    """
    try:
        image = ImageOps.exif_transpose(Image.open(BytesIO(content)))
        image.load()
    except UnidentifiedImageError:
        raise MaskrdError(f"{path}: cannot be read as an image (of no known format). Restore the file.") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise MaskrdError(f"{path}: cannot be read as an image ({error}). Restore the file.") from None
    if image.mode.startswith(DEEP_MODES):
        raise MaskrdError(
            f"{path}: pixels of mode {image.mode} (16 bits, 32 bits or float), which have no agreed range. Convert it "
            "to 8 bits a channel."
        )
    return image


def read_checked(path: Path, expected: str) -> bytes:
    """The bytes of a file that must have the digest it was indexed with."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MaskrdError(
            f"{path}: {error.strerror}. It was there when the data were indexed. Bring it back: if the data moved, by "
            "datasets.<name>.path; if they were downloaded, by deleting data/<dataset>.unpacked.json and running "
            "`snakemake --cores 1 downloads`."
        ) from None
    if sha256(content) != expected:
        raise MaskrdError(
            f"{path}: changed since the data were indexed. Restore the file, or index anew with "
            "`snakemake --forcerun index`, which retrains the category."
        )
    return content


def load_image(content: bytes, path: Path, size: int) -> np.ndarray:
    """uint8 RGB, (3, size, size); resized bilinearly with antialiasing."""
    image = decode(content, path).convert("RGB")
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def load_mask(content: bytes, path: Path, size: int) -> np.ndarray:
    """bool (size, size), True on defects: resized bilinearly, then above one half (RD4AD)."""
    return resize_mask(decode(content, path), size)


def resize_mask(image: Image.Image, size: int) -> np.ndarray:
    mask = image.convert("L")
    if mask.size != (size, size):
        mask = mask.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(mask) > MASK_THRESHOLD
