"""The index of a category: its images, checked once, with their digests.

An index is a small JSON file without dates or absolute paths, so equal data give an equal index. Trainings have it as
an input: if the data of a category change, it is trained again. Jobs refuse an image whose digest is not the index's.
"""

import json
from dataclasses import asdict
from pathlib import Path

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass  # which checks types: a file may hold anything

from maskrd.errors import MaskrdError, describe_fault
from maskrd.files import parse_json, write_text

GOOD = "good"
KNOWN_KEYS = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=KNOWN_KEYS)
class Entry:
    """One training or test image. Paths are relative to `Layout.folder_of`.

    `record` is its position in a file that holds many images (CIFAR-10) or many masks (ShanghaiTech Campus).
    """

    image: str
    defect: str = GOOD
    mask: str | None = None
    record: int | None = None

    @property
    def in_large_file(self) -> bool:
        """Whether the image shares its file with others, so that only path and position name it."""
        return self.record is not None and self.mask is None


@dataclass(frozen=True, config=KNOWN_KEYS)
class Index:
    """The images of a category, and the sha256 of every file that holds them.

    `layout` is None for a dataset that the code knows.
    """

    dataset: str
    category: str
    train: tuple[Entry, ...]
    test: tuple[Entry, ...]
    digests: dict[str, str]
    layout: str | None = None

    @property
    def has_masks(self) -> bool:
        return any(entry.mask for entry in self.test)

    def write(self, path: Path) -> None:
        content = {key: value for key, value in asdict(self).items() if value is not None}
        for split in ("train", "test"):
            content[split] = [
                {key: value for key, value in entry.items() if value is not None} for entry in content[split]
            ]
        # Compact: Snakemake compares inputs below 1 MB by content, and CIFAR-10 has 15,000 entries a class.
        write_text(path, json.dumps(content, sort_keys=True, separators=(",", ":")) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Index":
        """Raises MaskrdError for a file of another kind, or a damaged one."""
        try:
            index = cls(**parse_json(Path(path).read_text(encoding="utf-8")))
            index._check_names()
            return index
        except (ValueError, TypeError) as error:
            reason = describe_fault(error)
            raise MaskrdError(
                f"{path}: not an index of this pipeline ({reason}). Delete it to make it again."
            ) from None

    def _check_names(self) -> None:
        """Raises ValueError for an index that names no images, files without digest, or what no file can be called."""
        if not (self.train and self.test):
            raise ValueError("it lists no images")
        for entry in (*self.train, *self.test):
            for name in (entry.image, entry.mask):
                if name is not None and name not in self.digests:
                    raise ValueError(f"{name!r} has no digest")
        for name in (self.category, *self.digests):
            if b"\0" in name.encode("utf-8"):  # an error of this is a ValueError, too
                raise ValueError(f"{name!r} can't be the name of a file")
