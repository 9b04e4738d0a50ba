"""Image files: read, checked and turned into arrays."""

import stat
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from maskrd.data.index_file import Entry, Index
from maskrd.errors import MaskrdError
from maskrd.files import sha256_bytes

FORMATS = ("PNG", "JPEG", "BMP", "TIFF")  # not all of Pillow's: for PostScript it would start Ghostscript
PNG_DEPTH = 24  # the position of a PNG's bit depth
BITS_PER_SAMPLE = 258  # the tag of a TIFF
DEEP_MODES = ("I", "F")  # of Pillow, whose conversion to 8 bits would cut off everything above 255
MASK_THRESHOLD = 127.5  # one half of 255


def decode(content: bytes, path: Path) -> Image.Image:
    """A fully decoded image, turned upright by its EXIF data.

    Raises MaskrdError if the file is cut short, isn't an image, or has more than 8 bits a channel.
    """
    try:
        image = Image.open(BytesIO(content), formats=FORMATS)
        deep = image.mode.startswith(DEEP_MODES) or bits_per_channel(image, content) > 8
        image.load()
        image = ImageOps.exif_transpose(image)
        image.convert("L")  # fails for colours that Pillow can't convert, such as those of a CIELAB TIFF
    except UnidentifiedImageError:
        raise MaskrdError(
            f"{path}: not an image in a known format ({', '.join(FORMATS)}). Its contents count, not its name. Restore "
            "or convert it."
        ) from None
    except Image.DecompressionBombError:
        raise MaskrdError(f"{path}: has more than {2 * Image.MAX_IMAGE_PIXELS:,} pixels. Make it smaller.") from None
    except MemoryError:
        raise
    except Exception as error:  # on damaged files, Pillow raises errors of nearly every type
        raise MaskrdError(f"{path}: can't be read as an image ({error!r}). Restore the file.") from None
    if deep:
        raise MaskrdError(
            f"{path}: has 16 bits a channel or more, or float values. Such values have no agreed range. Convert the "
            "image to 8 bits a channel."
        )
    return image


def bits_per_channel(image: Image.Image, content: bytes) -> int:
    """The bits in the file. Pillow's image doesn't say: it turns colours of 16 bits into 8 without a word."""
    if image.format == "PNG":
        return content[PNG_DEPTH]
    return max(image.tag_v2.get(BITS_PER_SAMPLE, (1,))) if image.format == "TIFF" else 8


def read_file(path: Path) -> bytes:
    """The bytes of a regular file. Raises MaskrdError if it can't be read, or is a pipe, which would block forever."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise MaskrdError(f"{path}: not a regular file. Move it elsewhere.")
        return path.read_bytes()
    except OSError as error:
        raise MaskrdError(f"{path}: {error.strerror}. Make it readable, or restore it.") from None


def read_checked(path: Path, expected: str) -> bytes:
    """The bytes of a file. Raises MaskrdError if they changed since the file was indexed."""
    try:
        content = read_file(path)
    except MaskrdError as error:
        raise MaskrdError(
            f"{error} The file existed when the data were indexed. If the data moved, correct datasets.<name>.path. If "
            "the pipeline downloaded them, delete data/<dataset>.unpacked.json and run "
            "`snakemake --cores 1 downloads`."
        ) from None
    if sha256_bytes(content) != expected:
        raise MaskrdError(
            f"{path}: changed since the data were indexed. Restore the file, or index again with "
            "`snakemake --forcerun index`. That trains the category again."
        )
    return content


def load_image(content: bytes, path: Path, size: int) -> np.ndarray:
    """The image as uint8 RGB, (3, size, size), resized bilinearly with antialiasing."""
    image = decode(content, path).convert("RGB")
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def load_mask(content: bytes, path: Path, size: int, threshold: float = MASK_THRESHOLD) -> np.ndarray:
    """The mask as bool (size, size). It is resized bilinearly; a pixel above `threshold` of 255 is a defect (True)."""
    return resize_mask(decode(content, path), size, threshold)


def resize_mask(image: Image.Image, size: int, threshold: float = MASK_THRESHOLD) -> np.ndarray:
    mask = image.convert("L")
    if mask.size != (size, size):
        mask = mask.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(mask) > threshold


def check_entry(folder: Path, entry: Entry) -> dict[str, str]:
    """Decode an image and its mask and compare their sizes. Returns their digests by name.

    Raises MaskrdError if a file can't be read, if the sizes differ, and for a mask whose defects are too dark to count.
    """
    content = read_file(folder / entry.image)
    size = decode(content, folder / entry.image).size
    digests = {entry.image: sha256_bytes(content)}
    if entry.mask:
        mask_content = read_file(folder / entry.mask)
        mask = decode(mask_content, folder / entry.mask)
        if mask.size != size:
            raise MaskrdError(
                f"{folder / entry.mask}: {mask.width}x{mask.height} pixels, but its image {entry.image} "
                f"has {size[0]}x{size[1]}. A mask must have the size of its image. Correct one of the two."
            )
        # A defect painted as 1 would vanish. An entirely black mask is fine: MTD has four.
        brightest = mask.convert("L").getextrema()[1]
        if 0 < brightest <= MASK_THRESHOLD:
            raise MaskrdError(
                f"{folder / entry.mask}: its brightest pixel is {brightest} of 255. Only pixels above one half count "
                "as a defect. Paint defects as 255."
            )
        digests[entry.mask] = sha256_bytes(mask_content)
    return digests


def check_entries(folder: Path, entries: Iterable[Entry], threads: int) -> dict[str, str]:
    """Check every entry, several at a time. Returns the digests of all files by name."""
    with ThreadPoolExecutor(threads) as pool:
        checked = pool.map(lambda entry: check_entry(folder, entry), entries)
        return {name: digest for digests in checked for name, digest in digests.items()}


def load_image_files(folder: Path, index: Index, entries: Sequence[Entry], size: int, threads: int) -> np.ndarray:
    """Images that are a file each, as uint8 (N, 3, size, size)."""

    def load(entry: Entry) -> np.ndarray:
        path = folder / entry.image
        return load_image(read_checked(path, index.digests[entry.image]), path, size)

    with ThreadPoolExecutor(threads) as pool:
        return np.stack(list(pool.map(load, entries)))


def load_mask_files(
    folder: Path, index: Index, entries: Sequence[Entry], size: int, threshold: float, threads: int
) -> np.ndarray:
    """Masks that are a file each, as bool (N, size, size). An entry without a mask is all False."""

    def load(entry: Entry) -> np.ndarray:
        if entry.mask is None:
            return np.zeros((size, size), dtype=bool)
        path = folder / entry.mask
        return load_mask(read_checked(path, index.digests[entry.mask]), path, size, threshold)

    with ThreadPoolExecutor(threads) as pool:
        return np.stack(list(pool.map(load, entries)))
