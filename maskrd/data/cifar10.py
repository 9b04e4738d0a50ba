"""CIFAR-10 as ten one-class problems, from the official binary archive.

A record is a label byte and 3,072 pixel bytes (32x32, red, green, blue planes). The binary
archive is used rather than the Python one because reading that means unpickling a download.
The dataset `digits` is generated in the same format.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from maskrd.data.index import GOOD, Entry, Index, read_checked, sha256
from maskrd.errors import MaskrdError
from maskrd.experiment import KNOWN_CATEGORIES

SIDE = 32
RECORD_BYTES = 1 + 3 * SIDE * SIDE


def list_records(root: Path, dataset: str, category: str) -> tuple[list[Entry], list[Entry], dict[str, str]]:
    """Training records of one class; every test record, with its class as its defect; digests of the files.

    Records of the normal class are `good`. Raises MaskrdError where a batch is missing or not whole.
    """
    classes = KNOWN_CATEGORIES[dataset]
    batches = sorted(root.glob("data_batch_*.bin"))
    test_batch = root / "test_batch.bin"
    if not batches or not test_batch.is_file():
        raise MaskrdError(
            f"datasets.{dataset}.path: {root} holds no data_batch_*.bin and test_batch.bin. It should be the "
            "folder cifar-10-batches-bin of the binary archive (not the Python one)."
        )
    digests, records = {}, []
    for path in (*batches, test_batch):
        content = path.read_bytes()
        digests[path.name] = sha256(content)
        for record, name in enumerate(record_classes(path, content, classes)):
            records.append(Entry(path.name, GOOD if name == category else name, record=record))
    train = [entry for entry in records if entry.image != test_batch.name and entry.defect == GOOD]
    test = [entry for entry in records if entry.image == test_batch.name]
    return train, test, digests


def record_classes(path: Path, content: bytes, classes: Sequence[str]) -> list[str]:
    if not content or len(content) % RECORD_BYTES:
        raise MaskrdError(
            f"{path}: {len(content)} bytes is not a whole number of {RECORD_BYTES}-byte records. "
            "The file is truncated or no CIFAR-10 binary batch: download it again."
        )
    labels = np.frombuffer(content, np.uint8)[::RECORD_BYTES]
    if labels.max() >= len(classes):
        raise MaskrdError(f"{path}: label {labels.max()} is out of range. This is no CIFAR-10 binary batch.")
    return [classes[label] for label in labels]


def load_records(root: Path, index: Index, entries: Sequence[Entry], image_size: int) -> np.ndarray:
    """uint8 (N, 3, image_size, image_size)."""
    batches: dict[str, np.ndarray] = {}
    images = np.empty((len(entries), 3, image_size, image_size), np.uint8)
    for position, entry in enumerate(entries):
        if entry.image not in batches:
            content = read_checked(root / entry.image, index.digests[entry.image])
            batches[entry.image] = np.frombuffer(content, np.uint8).reshape(-1, RECORD_BYTES)
        images[position] = resize(batches[entry.image][entry.record, 1:].reshape(3, SIDE, SIDE), image_size)
    return images


def resize(image: np.ndarray, size: int) -> np.ndarray:
    if size == SIDE:
        return image
    picture = Image.fromarray(image.transpose(1, 2, 0)).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(picture).transpose(2, 0, 1)
