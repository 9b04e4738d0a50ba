"""The description of a dataset: the types that each dataset's file fills in.

They are read while a run is planned. So a dataset's file imports numpy and PIL only inside its functions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from maskrd.data.index_file import Entry, Index

if TYPE_CHECKING:
    import numpy as np


class Listing(NamedTuple):
    """The checked images of a category. `digests`: the sha256 of every file that holds them, by name."""

    train: list[Entry]
    test: list[Entry]
    digests: dict[str, str]


@dataclass(frozen=True)
class Counts:
    """Images of a category: normal ones to train on, and all that are tested."""

    train: int
    test: int


@dataclass(frozen=True)
class Layout:
    """How files are arranged in a dataset's folder, and the functions that list and read them.

    `name` is its name in the configuration. Names in entries are relative to `folder_of`. Masks are bool (N, S, S).
    """

    name: str
    # Arguments: dataset and category for messages, the dataset's folder, threads. Raises MaskrdError naming the file.
    list_images: Callable[[str, str, Path, int], Listing]
    find_categories: Callable[[Path], Sequence[str]]  # the categories in a dataset's folder
    categories: tuple[str, ...] = ()  # the possible categories; empty: any
    folder_each: bool = False  # whether every category has a folder of its name
    noun: str = "categories"  # what a table calls its rows
    # folder, index, entries, size, threads -> uint8 (N, 3, S, S). None: every image is a file.
    load_images: "Callable[[Path, Index, Sequence[Entry], int, int], np.ndarray] | None" = None
    # folder, index, entries, size, threshold, threads -> masks. None: every mask is a file.
    load_masks: "Callable[[Path, Index, Sequence[Entry], int, float, int], np.ndarray] | None" = None

    @property
    def has_files(self) -> bool:
        """Whether every image is a file."""
        return self.load_images is None

    def folder_of(self, root: Path, category: str) -> Path:
        """The folder of a category's files, in the dataset's folder `root`."""
        return root / category if self.folder_each else root


@dataclass(frozen=True)
class KnownDataset:
    """A dataset that the pipeline knows by name.

    `counts` has the published number of images of each category. `maskrd plan` uses it before the data exist, and the
    verdict checks with it whether a model saw the paper's data.
    """

    title: str  # the name that readers see
    layout: Layout
    counts: Mapping[str, Counts] = field(default_factory=dict)
    downloaded: bool = False  # workflow/sources.yaml says from where
    generator: str | None = None  # "module:function" that makes the images below a folder, by category where it has one
