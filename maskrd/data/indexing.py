"""Make the index of a category: list every image, decode it once, and take its digest."""

import os
from pathlib import Path

from maskrd.data.index_file import GOOD, Index
from maskrd.data.registry import DATASETS, find_layout
from maskrd.errors import MaskrdError


def build_index(dataset: str, category: str, root: Path, threads: int = 1, layout: str | None = None) -> Index:
    """List and check the images of a category.

    `root` is the dataset's folder. `layout` matters only for a dataset that the code doesn't know. Raises MaskrdError
    with the name of the folder or file that is missing, broken or doesn't fit.
    """
    found = find_layout(dataset, layout)
    try:
        listing = found.list_images(dataset, category, root, threads)
    except OSError as error:
        raise MaskrdError(f"{error.filename}: {error.strerror}. Make it readable, or restore it.") from None
    index = Index(
        dataset,
        category,
        tuple(listing.train),
        tuple(listing.test),
        listing.digests,
        layout=None if dataset in DATASETS else layout,
    )
    check_index(index, found.folder_of(root, category))
    return index


def check_index(index: Index, folder: Path) -> None:
    for name in index.digests:
        shown = os.fsencode(name).decode("utf-8", "backslashreplace")
        if shown != name:
            raise MaskrdError(f"{folder / shown}: the name is not UTF-8, so tables can't show it. Rename the file.")
    where = f"{folder} ({index.category})"
    if len(index.train) < 2:
        raise MaskrdError(
            f"{where}: {len(index.train)} normal training image(s). Training needs at least 2, because batch "
            "normalisation computes statistics over several. Add images to its training folder."
        )
    kinds = {entry.defect == GOOD for entry in index.test}
    if kinds != {True, False}:
        missing = {frozenset(): "no", frozenset({True}): "no defective", frozenset({False}): "no good"}
        raise MaskrdError(
            f"{where}: {missing[frozenset(kinds)]} test images. Metrics need good and defective ones. Add some."
        )
