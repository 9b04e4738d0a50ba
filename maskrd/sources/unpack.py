"""Unpack an archive that nobody trusts yet, and check that its contents are complete."""

import bz2
import errno
import gzip
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from maskrd.errors import MaskrdError
from maskrd.files import replaced_folder
from maskrd.sources.registry import Expected

CHUNK_BYTES = 1 << 20
# Tarfile reads contents in small pieces; only a header that claims to be huge makes it ask for more at once.
LONGEST_READ_BYTES = 16 << 20
LONGEST_ZIP_ENTRY_BYTES = 1000  # of the directory of a zip: 46 and the member's name and dates
ZIP = b"PK"
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
    """A member that is not unpacked; the text says why."""


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


@dataclass(frozen=True)
class _Member:
    """One entry of an archive; `open` gives the contents of a file."""

    name: str
    is_file: bool
    is_folder: bool
    open: Callable[[], BinaryIO]


def is_archive(path: Path) -> bool:
    """Whether the file begins as an archive that `unpack` reads."""
    return _magic(path).startswith((ZIP, *OPENERS)) or tarfile.is_tarfile(path)


def unpack(
    archive: Path,
    destination: Path,
    *,
    max_bytes: int,
    max_members: int,
    strip_components: int = 0,
    expected: Iterable[Expected] = (),
) -> Path:
    """Unpack a tar (plain, gzip, bzip2, xz) or zip into the folder `destination`, whole or not at all.

    Only plain files and folders below `destination` are accepted. Every link is refused, even one that stays
    inside: no dataset here needs one, and chains of links are how checks of paths have been outwitted. Owners, modes
    and dates are not taken over.

    Args:
        destination: replaced only if this function unpacked it. Any other folder or link is left alone.
        max_bytes: the largest number of bytes to decompress (for a tar this includes its headers). They are counted
            as they come, whatever the headers claim.
        max_members: the largest number of files and folders.
        strip_components: how many leading folders to drop from each name. Members above them are left out.
        expected: the files that must be in the archive. Otherwise nothing is left in `destination`.

    Raises:
        MaskrdError: with the names of archive and member, if the archive is broken, holds anything else, or is too big.
    """
    archive, destination = Path(archive), Path(destination)
    magic = _magic(archive)
    with replaced_folder(destination) as unfinished:
        budget = _Budget(max_bytes, max_members)
        if magic.startswith(ZIP):
            members = _zip_members(archive, budget)
        else:
            opener = next((opener for start, opener in OPENERS.items() if magic.startswith(start)), open)
            members = _tar_members(archive, opener, budget)
        _write_members(archive, members, unfinished, budget, strip_components)
        _check_counts(archive, unfinished, expected)
    return destination


def _check_counts(archive: Path, folder: Path, expected: Iterable[Expected]) -> None:
    """Raise MaskrdError listing every count in which the unpacked `folder` differs from `expected`."""
    differences = []
    for item in expected:
        found = sorted(folder.glob(item.files))
        count = len(found)
        if item.record_bytes:
            sizes = [path.stat().st_size for path in found]
            count = sum(sizes) // item.record_bytes
            differences += [
                f"{path.name}: {size:,} bytes are not a whole number of {item.record_bytes}-byte records"
                for path, size in zip(found, sizes, strict=True)
                if size % item.record_bytes
            ]
        if count != item.count:
            differences.append(f"{item.what} ({item.files}): {count:,} found, {item.count:,} expected")
    if differences:
        listing = "\n".join(f"  {difference}" for difference in differences)
        raise MaskrdError(
            f"{archive} is incomplete, or not the published dataset:\n{listing}\n"
            "It was not unpacked. If it is in data/downloads, remove it, and the pipeline downloads it again. "
            "docs/data.md shows the layout."
        )


def _magic(archive: Path) -> bytes:
    try:
        with archive.open("rb") as file:
            return file.read(6)
    except OSError as error:
        raise MaskrdError(f"{archive}: the archive can't be read ({error.strerror}). Make it readable.") from error


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
    """A decompressed stream that stops its reader when the budget is spent."""

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

    def close(self) -> None:
        self.stream.close()

    def _advance(self, position: int) -> None:
        if position > self.furthest:
            self.budget.spend_bytes(position - self.furthest)
            self.furthest = position


def _tar_members(archive: Path, opener: Callable, budget: _Budget) -> Iterator[_Member]:
    with opener(archive, "rb") as stream, tarfile.open(fileobj=_Bounded(stream, budget), mode="r:") as tar:
        for member in tar:
            is_file = member.isreg() and not member.issparse()
            yield _Member(member.name, is_file, member.isdir(), partial(tar.extractfile, member))
        # Tarfile stops at a broken header as if it were the end, and doesn't read the checksum at the real end.
        while rest := tar.fileobj.read(CHUNK_BYTES):
            if rest.strip(b"\0"):
                raise tarfile.ReadError("the bytes after it aren't a tar member")


class _ZipFile:
    """A zip that refuses a huge directory. `zipfile` reads it at once: 500 MB of memory for a million members."""

    def __init__(self, stream: BinaryIO, budget: _Budget):
        self.stream, self.most = stream, budget.members
        self.seek, self.tell, self.seekable = stream.seek, stream.tell, stream.seekable

    def read(self, size: int = -1) -> bytes:
        if size > max(self.most * LONGEST_ZIP_ENTRY_BYTES, CHUNK_BYTES):
            raise _Refused(f"it has {size:,} bytes, so it lists more members than the limit of {self.most:,}")
        return self.stream.read(size)


def _zip_members(archive: Path, budget: _Budget) -> Iterator[_Member]:
    with archive.open("rb") as stream, zipfile.ZipFile(_ZipFile(stream, budget)) as contents:
        for member in contents.infolist():
            if not member.filename:
                raise _Refused("a member has no name")
            kind = stat.S_IFMT(member.external_attr >> 16)  # 0 if the archive was not made on Unix
            is_plain = kind in (0, stat.S_IFREG, stat.S_IFDIR)
            is_file, is_folder = is_plain and not member.is_dir(), is_plain and member.is_dir()
            yield _Member(
                member.filename, is_file, is_folder, lambda member=member: _Bounded(contents.open(member), budget)
            )


def _write_members(
    archive: Path, members: Iterable[_Member], folder: Path, budget: _Budget, strip_components: int
) -> None:
    name = "its directory"
    try:
        for member in members:
            name = member.name
            budget.spend_member()
            if not (member.is_file or member.is_folder):
                raise _Refused("it is a link, a device or a sparse file, not a plain file or folder")
            path = _stripped(name, strip_components)
            if path is None:
                continue
            target = folder / path
            if member.is_folder:
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with closing(member.open()) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file, CHUNK_BYTES)
    except (_Refused, *BROKEN) as error:
        raise _refusal(archive, name, folder, error) from error


def _refusal(archive: Path, name: str, folder: Path, error: Exception) -> MaskrdError:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return MaskrdError(f"{archive}: can't be unpacked in {folder.parent}, because the disk is full. Make room.")
    if isinstance(error, _Refused):
        advice = "The archive was not unpacked. Get it from its publisher (docs/data.md)."
    else:
        advice = "The archive is broken. Remove it and download it again."
    return MaskrdError(f"{archive}, member {name!r}: {error or type(error).__name__}. {advice}")
