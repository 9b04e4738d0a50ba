"""Unpack an archive that is not to be trusted, and check that it held what it should."""

import bz2
import gzip
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from filelock import FileLock

from maskrd.data.sources import Expected
from maskrd.errors import MaskrdError

CHUNK_BYTES = 1 << 20
# Tarfile reads contents in small pieces; only a header that claims to be huge makes it ask for more at once.
LONGEST_READ_BYTES = 16 << 20
MARKER = ".unpacked-by-maskrd"  # in every folder that may be replaced
OPENERS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
# RuntimeError: an encrypted zip; ValueError: names with NUL.
BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
)


class _Refused(Exception):
    """Why a member is not unpacked."""


@dataclass
class _Budget:
    """What may still come out of the archive."""

    bytes: int
    members: int

    def spend_bytes(self, count: int) -> None:
        self.bytes -= count
        if self.bytes < 0:
            raise _Refused("the archive unpacks to more bytes than its limit allows")

    def spend_member(self) -> None:
        self.members -= 1
        if self.members < 0:
            raise _Refused("the archive has more members than its limit allows")


def unpack(archive: Path, destination: Path, *, max_bytes: int, max_members: int, strip_components: int = 0) -> Path:
    """Unpack a tar (plain, gzip, bzip2, xz) or zip into the folder `destination`, whole or not at all.

    Only plain files and folders below `destination` are accepted. Every link is refused, even one that stays
    inside: no dataset here needs one, and chains of links are how checks of paths have been outwitted.

    Args:
        destination: replaced if it was unpacked by this function; anybody else's folder or link is left alone.
        max_bytes: most bytes that may be decompressed (for a tar this includes its headers); counted as they
            come, whatever the headers claim.
        max_members: most files and folders.
        strip_components: leading folders to drop from each name; what lies above is left out.

    Raises:
        MaskrdError: naming archive and member, if the archive is broken, holds anything else, or is too big.
    """
    archive, destination = Path(archive), Path(destination)
    destination.parent.mkdir(parents=True, exist_ok=True)
    unfinished = destination.with_name(f".{destination.name}.unpacking")
    magic = _magic(archive)
    if destination.is_symlink() or (destination.exists() and not (destination / MARKER).exists()):
        raise MaskrdError(
            f"{destination} is there and was not unpacked by the pipeline, so it is left as it is. If it is the "
            f"dataset, set datasets.{destination.name}.path to it; if not, move it elsewhere."
        )
    with FileLock(f"{destination}.lock"):
        shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed
        unfinished.mkdir()
        try:
            budget = _Budget(max_bytes, max_members)
            if magic.startswith(b"PK"):
                _unpack_zip(archive, unfinished, budget, strip_components)
            else:
                opener = next((opener for start, opener in OPENERS.items() if magic.startswith(start)), open)
                _unpack_tar(archive, opener, unfinished, budget, strip_components)
            (unfinished / MARKER).touch()
            _replace_folder(destination, unfinished)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return destination


def check_counts(name: str, folder: Path, expected: Iterable[Expected]) -> None:
    """Raise MaskrdError listing every count in which `folder`, the dataset `name`, differs from `expected`."""
    differences = []
    for item in expected:
        found = sorted(Path(folder).glob(item.files))
        count = len(found)
        if item.record_bytes:
            sizes = [path.stat().st_size for path in found]
            count = sum(sizes) // item.record_bytes
            differences += [
                f"{path.name}: {size:,} bytes are no whole number of {item.record_bytes}-byte records"
                for path, size in zip(found, sizes, strict=True)
                if size % item.record_bytes
            ]
        if count != item.count:
            differences.append(f"{item.what} ({item.files}): {count:,} found, {item.count:,} expected")
    if differences:
        listing = "\n".join(f"  {difference}" for difference in differences)
        raise MaskrdError(
            f"{name} in {folder} is not complete or not the published dataset:\n{listing}\n"
            "Remove the folder and the archive and start again, or see docs/data.md for the layout."
        )


def _magic(archive: Path) -> bytes:
    try:
        with archive.open("rb") as file:
            return file.read(6)
    except OSError as error:
        raise MaskrdError(f"the archive {archive} cannot be read: {error.strerror}") from error


def _replace_folder(destination: Path, new: Path) -> None:
    """A folder cannot be renamed onto another, so the old one steps aside first."""
    old = destination.with_name(f".{destination.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if destination.exists():
        destination.rename(old)
    new.rename(destination)
    shutil.rmtree(old, ignore_errors=True)


def _stripped(name: str, strip_components: int) -> PurePosixPath | None:
    """The member's path below the destination; None if stripping leaves nothing."""
    path = PurePosixPath(name)
    if path.is_absolute() or "\\" in name or (path.parts and path.parts[0].endswith(":")):
        raise _Refused("its path is absolute or not portable")
    if ".." in path.parts:
        raise _Refused("its path leads outside the folder")
    parts = path.parts[strip_components:]
    return PurePosixPath(*parts) if parts else None


class _Bounded:
    """A decompressed tar as `tarfile` reads it, which ends the reading once the budget is spent."""

    def __init__(self, stream: BinaryIO, budget: _Budget):
        self.stream, self.budget = stream, budget
        self.furthest = 0

    def read(self, size: int) -> bytes:
        if size > LONGEST_READ_BYTES:
            raise _Refused(f"a header claims {size:,} bytes")
        data = self.stream.read(size)
        self._advance(self.stream.tell())
        return data

    def seek(self, position: int) -> int:
        self._advance(position)
        return self.stream.seek(position)

    def tell(self) -> int:
        return self.stream.tell()

    def _advance(self, position: int) -> None:
        if position > self.furthest:
            self.budget.spend_bytes(position - self.furthest)
            self.furthest = position


def _unpack_tar(archive: Path, opener: Callable, folder: Path, budget: _Budget, strip_components: int) -> None:
    name = "its first header"
    try:
        with opener(archive, "rb") as stream, tarfile.open(fileobj=_Bounded(stream, budget), mode="r:") as tar:
            for member in tar:
                name = member.name
                budget.spend_member()
                if not (member.isreg() or member.isdir()) or member.issparse():
                    raise _Refused("it is a link, a device or a sparse file, not a plain file or folder")
                path = _stripped(name, strip_components)
                if path is not None:
                    # The filter drops owners, setuid bits and the like; it is a second look at the path, too.
                    member = member.replace(name=str(path), deep=False)
                    tar.extract(member, folder, filter="data")
            # Tarfile takes a broken header for the end, and leaves the checksum at the real end unread.
            while rest := tar.fileobj.read(CHUNK_BYTES):
                if rest.strip(b"\0"):
                    raise tarfile.ReadError("what follows it is no tar member")
    except (_Refused, *BROKEN) as error:
        raise _refusal(archive, name, error) from error


def _unpack_zip(archive: Path, folder: Path, budget: _Budget, strip_components: int) -> None:
    name = "its directory"
    try:
        with zipfile.ZipFile(archive) as contents:
            for member in contents.infolist():
                name = member.filename
                budget.spend_member()
                kind = stat.S_IFMT(member.external_attr >> 16)  # 0 if the archive was not made on Unix
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise _Refused("it is a link or a device, not a plain file or folder")
                path = _stripped(name, strip_components)
                if path is None:
                    continue
                target = folder / path
                if member.is_dir():
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                with contents.open(member) as source, target.open("wb") as file:
                    while chunk := source.read(CHUNK_BYTES):
                        budget.spend_bytes(len(chunk))
                        file.write(chunk)
    except (_Refused, *BROKEN) as error:
        raise _refusal(archive, name, error) from error


def _refusal(archive: Path, name: str, error: Exception) -> MaskrdError:
    if isinstance(error, _Refused):
        advice = "It is not unpacked. Get the archive from its publisher (docs/data.md)."
    else:
        advice = "Make room if the disk is full; else the archive is broken: remove it and fetch it again."
    return MaskrdError(f"{archive}, member {name!r}: {error or type(error).__name__}. {advice}")
