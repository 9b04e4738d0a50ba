"""scikit-learn's handwritten digits in CIFAR-10's binary format: the dataset `digits` of the demo.

1,797 images of 8x8 pixels with 17 levels of grey ("Optical Recognition of Handwritten Digits", UCI), a part of
scikit-learn itself, so nothing is downloaded.
"""

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from maskrd.data.cifar10 import SIDE
from maskrd.files import replaced_folder

TEST_FRACTION = 1 / 3
WHITE = 16  # the brightest grey of the original images


def generate_digits(root: Path) -> None:
    """Write data_batch_1.bin and test_batch.bin into `root`, in place of older ones; a fixed, stratified split.

    Raises MaskrdError for a folder of somebody else: CIFAR-10's files have these names, too.
    """
    digits = load_digits()
    images = np.stack([upscale(image) for image in digits.images])
    records = np.concatenate([digits.target[:, None].astype(np.uint8), images.reshape(len(images), -1)], axis=1)
    train, test = train_test_split(records, test_size=TEST_FRACTION, stratify=digits.target, random_state=0)
    with replaced_folder(root) as folder:
        for name, part in (("data_batch_1.bin", train), ("test_batch.bin", test)):
            (folder / name).write_bytes(part.tobytes())


def upscale(image: np.ndarray) -> np.ndarray:
    """Grey (8, 8) in [0, WHITE] to uint8 (3, SIDE, SIDE)."""
    grey = np.round(image * 255 / WHITE).astype(np.uint8)
    picture = Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return np.broadcast_to(np.asarray(picture), (3, SIDE, SIDE))
