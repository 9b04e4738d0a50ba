"""Write a CIFAR-10 without test images, so that settings can be chosen without them.

Usage: python benchmarks/held_out_cifar10.py CIFAR10_FOLDER OUTPUT_FOLDER. The first is `cifar-10-batches-bin`. Of each
class, the last fifth of its training images becomes the new test batch, and the others become the new training batch.
"""

import sys
from pathlib import Path

import numpy as np

from maskrd.data.cifar10 import RECORD_BYTES, TEST_BATCH

SHARE = 0.2  # of each class


def split(records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Training and test records, uint8 (N, RECORD_BYTES), in their old order. A record's first byte is its class."""
    held_out = np.zeros(len(records), bool)
    for label in np.unique(records[:, 0]):
        positions = np.flatnonzero(records[:, 0] == label)
        held_out[positions[len(positions) - round(SHARE * len(positions)) :]] = True
    return records[~held_out], records[held_out]


def main(source: str, output: str) -> None:
    batches = sorted(Path(source).glob("data_batch_*.bin"))
    records = np.concatenate([np.fromfile(path, np.uint8).reshape(-1, RECORD_BYTES) for path in batches])
    train, test = split(records)
    folder = Path(output)
    folder.mkdir()  # an existing folder is somebody's
    train.tofile(folder / "data_batch_1.bin")
    test.tofile(folder / TEST_BATCH)


if __name__ == "__main__":
    main(*sys.argv[1:])
