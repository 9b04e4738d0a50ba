"""Has a folder of images changed? Asked while the workflow is planned, so nothing heavy is imported."""

import json
import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

from maskrd.errors import MaskrdError
from maskrd.files import parse_json, sha256_file, sha256_json, write_text

HIDDEN = (".", "@")  # folders of systems and tools: .ipynb_checkpoints, @eaDir
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})
# Also the files of CIFAR-10 and ShanghaiTech Campus. Other files make no difference to a model.
READ_SUFFIXES = IMAGE_SUFFIXES | {".bin", ".npy"}


@cache
def content_digest(folder: Path, memory: Path) -> str:
    """Digest of the names and contents of all images below `folder`. Touching a file doesn't change it.

    `memory`, written by `remember`, holds size, date and digest of each file when it was indexed. Only files whose size
    or date changed are read again. If the folder is gone or empty, or a file in it can't be read, the digest is the
    remembered one. So tables can be rebuilt without the data, and no index is deleted for a job that must fail. A job
    that needs the images names the file.
    """
    known = recall(memory)
    if not is_folder(folder):
        return remembered_digest(memory)
    remembered = {name: digest for name, (_, _, digest) in known.items()}
    try:
        files = listing(folder)
    except OSError as error:
        print(
            f"{error.filename}: {error.strerror}. Until it can be read, {folder} counts as unchanged.", file=sys.stderr
        )
        return remembered_digest(memory)
    if known and not files:
        return remembered_digest(memory)
    unread = {name for name, size, date in files if known.get(name, ())[:2] != [size, date]}
    if unread:
        print(f"Reading {len(unread):,} files in {folder}, to see whether they changed.", file=sys.stderr)
    found = {name: digest_file(folder / name) if name in unread else known[name][2] for name, *_ in files}
    if known and found != remembered:
        fault = find_fault(folder, [name for name in unread if found[name] != remembered.get(name)])
        if fault:
            print(f"{fault} Until you do, {folder} counts as unchanged since it was indexed.", file=sys.stderr)
            return sha256_json(remembered)
    if unread and found == remembered:
        with suppress(OSError):  # results that are read-only
            write_memory(memory, files, found)
    return sha256_json(found)


def write_memory(memory: Path, files: Iterable[tuple[str, int, int]], digests: Mapping[str, str]) -> None:
    write_text(memory, json.dumps({name: [size, date, digests[name]] for name, size, date in files}))


def find_fault(folder: Path, names: Iterable[str]) -> str | None:
    """What is wrong with the first of these images that can't be read."""
    from maskrd.data.images import decode, read_file

    for name in sorted(names):
        try:
            content = read_file(folder / name)
            if Path(name).suffix.lower() in IMAGE_SUFFIXES:
                decode(content, folder / name)
        except MaskrdError as error:
            return str(error)
    return None


def is_folder(path: Path) -> bool:
    """Like `Path.is_dir`, but False if that raises: on a failing disk, or in a folder without permission."""
    try:
        return path.is_dir()
    except OSError:
        return False


def remembered_digest(memory: Path) -> str:
    """What `content_digest` was when the folder was indexed, or "absent" if it never was."""
    known = recall(memory)
    return sha256_json({name: digest for name, (_, _, digest) in known.items()}) if known else "absent"


@cache
def file_digest(path: Path) -> str:
    """The sha256 of a file, or "absent"."""
    return sha256_file(path) if path.is_file() else "absent"


def remember(folder: Path, memory: Path, digests: Mapping[str, str]) -> None:
    """Write size, date and digest of every image below `folder` to `memory`; `digests` are those that are known."""
    files = listing(folder)
    write_memory(memory, files, {name: digests.get(name) or digest_file(folder / name) for name, *_ in files})


def recall(memory: Path) -> dict[str, list]:
    """Size, date and digest by name. Empty if the file is missing or isn't a memory."""
    try:
        content = parse_json(memory.read_text(encoding="utf-8"))
        return {name: [int(size), int(date), str(digest)] for name, (size, date, digest) in content.items()}
    except (OSError, ValueError, TypeError, AttributeError, OverflowError):
        return {}


def digest_file(path: Path) -> str:
    """The digest, or a text that says why there is none. Planning goes on, and the index job names the file."""
    try:
        if not path.is_file():  # reading a named pipe would wait forever
            return "not a file"
        return sha256_file(path)
    except OSError as error:
        return f"unreadable: {error.strerror}"


def remembered_categories(folder: Path) -> list[str]:
    """The categories that have a memory in `folder` (see `remember` and `memory_name`)."""
    suffix = memory_name("")[1:]
    return sorted(path.name[1:].removesuffix(suffix) for path in folder.glob(f".*{suffix}"))


def memory_name(category: str) -> str:
    """The name of a category's memory, a file beside its index."""
    return f".{category}.memory.json"


def listing(folder: Path) -> list[tuple[str, int, int]]:
    """Name, size and date (in nanoseconds) of the images in a folder and its subfolders, linked ones too, sorted."""
    found, seen = [], set()
    for place, folders, names in os.walk(folder, followlinks=True, onerror=raise_error):
        real = os.path.realpath(place)
        if real in seen:  # a link that leads up again
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(HIDDEN)]
        found += [Path(place, name) for name in names if is_read(name)]
    return [(path.relative_to(folder).as_posix(), *stat) for path in sorted(found) if (stat := size_and_date(path))]


def raise_error(error: OSError) -> None:
    """Otherwise a folder that can't be read would be the same as an empty one."""
    raise error


def size_and_date(path: Path) -> tuple[int, int] | None:
    """Size and date of a file. None for a broken link; (-1, -1) if the disk gives an error."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    except OSError:
        return -1, -1
    return stat.st_size, stat.st_mtime_ns


def is_read(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in READ_SUFFIXES
