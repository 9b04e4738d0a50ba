"""scikit-learn's handwritten digits (`maskrd/demo/digits.py`), in CIFAR-10's binary format."""

from maskrd.data.cifar10 import binary_layout
from maskrd.data.description import Counts, KnownDataset

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DATASET = KnownDataset(
    title="Digits (scikit-learn's)",
    layout=binary_layout("digits", CLASSES),
    # Two thirds of each class, rounded; a third of all.
    counts={name: Counts(120, 599) for name in CLASSES},
    generator="maskrd.demo.digits:generate_digits",
)
