"""The demo's generated images (`maskrd/demo/images.py`), in MVTec AD's layout."""

from maskrd.data.description import Counts, KnownDataset
from maskrd.data.mvtec import LAYOUT

DATASET = KnownDataset(
    title="Demo (generated)",
    layout=LAYOUT,
    counts={"weave": Counts(48, 36), "washer": Counts(48, 36)},
    generator="maskrd.demo.images:generate_demo",
)
