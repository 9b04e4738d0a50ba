"""Write a CIFAR-10 without test images, so that settings can be chosen without them.

Of each class, the last fifth of its training images becomes the new test batch, and the others become the new training
batch.
"""

import argparse
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


def main(source: Path, output: Path) -> None:
    batches = sorted(source.glob("data_batch_*.bin"))
    records = np.concatenate([np.fromfile(path, np.uint8).reshape(-1, RECORD_BYTES) for path in batches])
    train, test = split(records)
    output.mkdir()  # an existing folder is somebody's
    train.tofile(output / "data_batch_1.bin")
    test.tofile(output / TEST_BATCH)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the folder cifar-10-batches-bin")
    parser.add_argument("output", type=Path, help="a new folder")
    options = parser.parse_args()
    main(options.source, options.output)
