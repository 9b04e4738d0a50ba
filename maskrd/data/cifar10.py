"""CIFAR-10 as ten one-class problems, from the official binary archive.

A record is a label byte and 3,072 pixel bytes (32x32, red, green, blue planes). The Python archive isn't used, because
reading it means unpickling a download. The dataset `digits` is generated in the same format.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from maskrd.data.description import Counts, KnownDataset, Layout, Listing
from maskrd.data.index_file import GOOD, Entry, Index
from maskrd.errors import MaskrdError
from maskrd.files import sha256_bytes

if TYPE_CHECKING:
    import numpy as np

SIDE = 32
RECORD_BYTES = 1 + 3 * SIDE * SIDE
TEST_BATCH = "test_batch.bin"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def list_records(dataset: str, category: str, root: Path, threads: int, classes: Sequence[str]) -> Listing:
    """Training records of one class; every test record, with its class as its defect. `classes`: in order of labels.

    Records of the normal class are `good`. Raises MaskrdError if a batch is missing or incomplete.
    """
    from maskrd.data.images import read_file

    batches = sorted(root.glob("data_batch_*.bin"))
    test_batch = root / TEST_BATCH
    if not batches or not test_batch.is_file():
        raise MaskrdError(
            f"datasets.{dataset}.path: {root} holds no data_batch_*.bin and test_batch.bin. It should be the "
            "folder cifar-10-batches-bin of the binary archive (not the Python one)."
        )
    digests, records = {}, []
    for path in (*batches, test_batch):
        content = read_file(path)
        digests[path.name] = sha256_bytes(content)
        for record, name in enumerate(record_classes(path, content, classes)):
            records.append(Entry(path.name, GOOD if name == category else name, record=record))
    train = [entry for entry in records if entry.image != test_batch.name and entry.defect == GOOD]
    test = [entry for entry in records if entry.image == test_batch.name]
    return Listing(train, test, digests)


def record_classes(path: Path, content: bytes, classes: Sequence[str]) -> list[str]:
    if not content or len(content) % RECORD_BYTES:
        raise MaskrdError(
            f"{path}: {len(content)} bytes is not a whole number of {RECORD_BYTES}-byte records. "
            "The file is cut short, or it isn't a CIFAR-10 binary batch. Download it again."
        )
    labels = content[::RECORD_BYTES]
    if max(labels) >= len(classes):
        raise MaskrdError(
            f"{path}: label {max(labels)} is out of range. This isn't a CIFAR-10 binary batch. Download it again."
        )
    return [classes[label] for label in labels]


def load_records(root: Path, index: Index, entries: Sequence[Entry], image_size: int, threads: int) -> "np.ndarray":
    """uint8 (N, 3, image_size, image_size)."""
    import numpy as np

    from maskrd.data.images import read_checked

    batches: dict[str, np.ndarray] = {}
    images = np.empty((len(entries), 3, image_size, image_size), np.uint8)
    for position, entry in enumerate(entries):
        if entry.image not in batches:
            content = read_checked(root / entry.image, index.digests[entry.image])
            batches[entry.image] = np.frombuffer(content, np.uint8).reshape(-1, RECORD_BYTES)
        images[position] = resize(batches[entry.image][entry.record, 1:].reshape(3, SIDE, SIDE), image_size)
    return images


def resize(image: "np.ndarray", size: int) -> "np.ndarray":
    import numpy as np
    from PIL import Image

    if size == SIDE:
        return image
    picture = Image.fromarray(image.transpose(1, 2, 0)).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(picture).transpose(2, 0, 1)


def binary_layout(name: str, classes: Sequence[str]) -> Layout:
    """Batches of records with these classes, in order of their labels."""
    return Layout(
        name=name,
        list_images=partial(list_records, classes=classes),
        find_categories=lambda root: classes if (root / TEST_BATCH).is_file() else (),
        categories=tuple(classes),
        noun="classes",
        load_images=load_records,
    )


DATASET = KnownDataset(
    title="CIFAR-10",
    layout=binary_layout("cifar10", CLASSES),
    # One class to train on, all of the test set.
    counts={name: Counts(5000, 10000) for name in CLASSES},
    downloaded=True,
)
