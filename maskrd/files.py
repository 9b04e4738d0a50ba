"""Files that are either whole or absent, and their digests."""

import csv
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from maskrd.errors import MaskrdError

MARKER = ".made-by-maskrd"  # in every folder that may be replaced
UMASK = os.umask(0)  # can't be read without being set; at import, before there are threads
os.umask(UMASK)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`. Rename it to `path` if the block succeeds, otherwise remove it.

    The temporary name keeps the suffix, because writers such as matplotlib choose the format by it. A reader sees the
    old file or the new one, never a part, even after a kill or on a full disk. Leftovers of killed processes are
    removed. An OSError without a file name gets the name `path`. Raises MaskrdError for a folder such as `.`.
    """
    path = Path(path)
    if not path.name:
        raise MaskrdError(f"{path}: a folder. Name a file in it.")
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = temporary_prefix(path.name)
    remove_leftovers(path.parent, prefix)
    temporary = path.with_name(f"{prefix}{process_name()}.tmp{path.suffix}")
    try:
        yield temporary
        with suppress(PermissionError):  # a link to another user's file
            temporary.chmod(0o666 & ~UMASK)  # safetensors makes files that their owner alone may read
        # Without fsync a power loss can leave the new name on an empty file.
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        # The error of a full disk has no file name, and the temporary name would help nobody.
        if error.filename is None or Path(error.filename) == temporary:
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def naming_errors(path: Path) -> Iterator[None]:
    """Give the name `path` to an OSError without a file name, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def process_name() -> str:
    """Of this process, among all that may write to the same folder, on other machines, too."""
    return f"{socket.gethostname()}-{os.getpid()}"


def temporary_prefix(name: str) -> str:
    """The start of a file's temporary names. It is a digest, because the file's own name may be too long already."""
    return f".{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}."


def remove_leftovers(folder: Path, prefix: str) -> None:
    """Remove the temporary files of one name whose process, on this machine, has ended."""
    for leftover in folder.glob(f"{prefix}*.tmp*"):
        host, _, process = leftover.name.removeprefix(prefix).partition(".tmp")[0].rpartition("-")
        if host == socket.gethostname() and process.isdigit() and not is_running(int(process)):
            leftover.unlink(missing_ok=True)


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`. It replaces `path` if the block succeeds, otherwise it is removed.

    Other processes wait meanwhile. Raises MaskrdError if `path` is a link, or a folder with files that this function
    didn't make, and leaves it alone. An OSError without a file name gets the name `path`.
    """
    from filelock import FileLock  # few jobs make folders

    path = Path(path).absolute()  # `.` has no name
    _refuse_foreign(path)  # before anything is written beside it
    path.parent.mkdir(parents=True, exist_ok=True)
    # What lies under these names is removed, so nobody else may use them.
    unfinished, old, lock = (path.with_name(f".{path.name}.maskrd-{use}") for use in ("unfinished", "old", "lock"))
    with FileLock(lock), naming_errors(path):
        _refuse_foreign(path)
        for leftover in (unfinished, old):  # of a process that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        unfinished.mkdir()
        try:
            yield unfinished
            (unfinished / MARKER).touch()
            # A folder can't be renamed onto another, so the old one steps aside first.
            if path.exists():
                path.rename(old)
            unfinished.rename(path)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def _refuse_foreign(path: Path) -> None:
    ours = (path / MARKER).exists() or (path.is_dir() and not any(path.iterdir()))
    if path.is_symlink() or (path.exists() and not ours):
        raise MaskrdError(
            f"{path}: exists and was not made by the pipeline, so it is left as it is. Move it elsewhere, or choose "
            f"another folder. If it is the dataset, set datasets.{path.name}.path to it."
        )


def parse_json(text: str | bytes) -> Any:
    """As json.loads. Raises ValueError for all that it can't read, also for what is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_csv(path: Path) -> list[dict[str, str]]:
    """The lines below the header of a UTF-8 file, each by column.

    Raises ValueError for what is no such file, and for a line with more or fewer values than the header.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            lines = list(reader)
    except csv.Error as error:
        raise ValueError(str(error)) from None
    if reader.fieldnames is None:
        raise ValueError("the file is empty")
    for number, line in enumerate(lines, start=1):
        if None in line or None in line.values():
            raise ValueError(f"line {number} below the header has other columns")
    return lines


def write_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: object) -> None:
    write_text(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


def write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """UTF-8, lines ended by a line feed on every system."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def sha256_file(path: Path) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_bytes(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def sha256_json(content: object) -> str:
    """Digest of a JSON value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
