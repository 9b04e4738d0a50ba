"""Has a folder of images changed? Asked while the workflow is planned, so nothing heavy is imported."""

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from maskrd.files import sha256_file, write_text

# Datasets whose categories don't have a folder each.
SHARED_FILES = frozenset({"cifar10", "digits", "mtd", "stc"})
HIDDEN = (".", "@")  # folders of systems and tools: .ipynb_checkpoints, @eaDir
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})
# Besides, what CIFAR-10 and ShanghaiTech Campus come in. Other files make no difference to a model.
READ_SUFFIXES = IMAGE_SUFFIXES | {".bin", ".npy"}


def image_folder(dataset: str, category: str, root: Path) -> Path:
    """Where the files of a category lie below the dataset's folder."""
    return root if dataset in SHARED_FILES else root / category


@cache
def content_digest(folder: Path, memory: Path) -> str:
    """Digest of the names and contents of all images below `folder`; touching a file doesn't change it.

    `memory`, written by `remember`, holds the digests of files as they were when indexed: only files
    whose size or date differ from then are read again. A folder that is gone has its remembered
    digest, so that tables can be rebuilt without the data.
    """
    known = recall(memory)
    if not folder.is_dir():
        return summarize({name: digest for name, (_, _, digest) in known.items()}) if known else "absent"
    files = listing(folder)
    unread = {name for name, size, date in files if known.get(name, ())[:2] != [size, date]}
    if unread:
        print(f"Reading {len(unread):,} files of {folder}, to notice when they change.", file=sys.stderr)
    return summarize({name: sha256_file(folder / name) if name in unread else known[name][2] for name, *_ in files})


def remember(folder: Path, memory: Path, digests: Mapping[str, str]) -> None:
    """Write size, date and digest of every image below `folder` to `memory`; `digests` are those that are known."""
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
    """Name, size and date in nanoseconds of the images below a folder and in linked ones, sorted."""
    found, seen = [], set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link that leads up again
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(HIDDEN)]
        found += [path for name in names if is_read(name) and (path := Path(place, name)).exists()]  # no dead links
    stats = [(path.relative_to(folder).as_posix(), path.stat()) for path in sorted(found)]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


def is_read(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in READ_SUFFIXES


def summarize(digests: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()
