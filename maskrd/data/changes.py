"""Has a folder of images changed? Asked while the workflow is planned, so nothing heavy is imported."""

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from maskrd.files import sha256_file, write_text

# Datasets whose categories don't have a folder each.
SHARED_FILES = frozenset({"cifar10", "digits", "mtd", "stc"})


def image_folder(dataset: str, category: str, root: Path) -> Path:
    """Where the files of a category lie below the dataset's folder."""
    return root if dataset in SHARED_FILES else root / category


@cache
def content_digest(folder: Path, memory: Path) -> str:
    """Digest of the names and contents of all files below `folder`; touching a file doesn't change it.

    `memory`, written by `remember`, holds the digests of files as they were when indexed: only files
    whose size or date differ from then are read again. A folder that is gone has its remembered
    digest, so that tables can be rebuilt without the data.
    """
    known = recall(memory)
    if not folder.is_dir():
        return summarize({name: digest for name, (_, _, digest) in known.items()}) if known else "absent"
    digests = {}
    for name, size, date in listing(folder):
        entry = known.get(name)
        unchanged = entry is not None and entry[:2] == [size, date]
        digests[name] = entry[2] if unchanged else sha256_file(folder / name)
    return summarize(digests)


def remember(folder: Path, memory: Path, digests: Mapping[str, str]) -> None:
    """Write size, date and digest of every file below `folder` to `memory`; `digests` are those that are known."""
    content = {
        name: [size, date, digests.get(name) or sha256_file(folder / name)] for name, size, date in listing(folder)
    }
    write_text(memory, json.dumps(content))


def recall(memory: Path) -> dict[str, list]:
    try:
        return json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def listing(folder: Path) -> list[tuple[str, int, int]]:
    """Name, size and date in nanoseconds of the files below a folder, sorted."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [(path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns) for path in files]


def summarize(digests: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()
