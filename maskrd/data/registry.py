"""The datasets that the pipeline knows, and the layouts that other datasets may have."""

from collections.abc import Mapping

from maskrd.data import cifar10, demo, digits, mtd, mvtec, stc
from maskrd.data.description import Counts, KnownDataset, Layout
from maskrd.errors import MaskrdError

DATASETS: dict[str, KnownDataset] = {
    "mvtec_ad": mvtec.DATASET,
    "cifar10": cifar10.DATASET,
    "mtd": mtd.DATASET,
    "stc": stc.DATASET,
    "demo": demo.DATASET,
    "digits": digits.DATASET,
}
LAYOUTS: dict[str, Layout] = {known.layout.name: known.layout for known in DATASETS.values()}


def find_layout(dataset: str, layout: str | None = None) -> Layout:
    """The layout of a known dataset; for any other, the layout of that name. Raises MaskrdError if it is unknown."""
    if dataset in DATASETS:
        return DATASETS[dataset].layout
    if layout not in LAYOUTS:
        told = f"its layout is {layout}, and should be" if layout else "it isn't a known one, so it needs a layout:"
        raise MaskrdError(f"dataset {dataset}: {told} one of {', '.join(LAYOUTS)}.")
    return LAYOUTS[layout]


def published_counts(dataset: str) -> Mapping[str, Counts]:
    """The published numbers of images, by category. Empty for a dataset without them."""
    return DATASETS[dataset].counts if dataset in DATASETS else {}


def is_generated(dataset: str) -> bool:
    """Whether the pipeline makes the images itself. Their numbers can't be compared with the paper's."""
    return dataset in DATASETS and DATASETS[dataset].generator is not None
