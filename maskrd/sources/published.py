"""Is a file the one that was published? Compares it with the published checksum, or with an earlier file's record."""

from pathlib import Path
from typing import Annotated

from filelock import FileLock
from pydantic import Field, TypeAdapter, ValidationError

from maskrd.errors import MaskrdError
from maskrd.files import sha256_file, write_json
from maskrd.sources.registry import Checksum, Source
from maskrd.sources.unpack import is_archive

# For sources without a published checksum: the sha256 of the first archive that unpacked and counted right, by key.
RECORDS = TypeAdapter(dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]])


def difference(source: Source, path: Path, digests_file: Path) -> str | None:
    """How the file differs from the published one, or None.

    If there is no published checksum, it must be an archive, and the recorded one if there is a record.
    """
    if source.checksum:
        return source.checksum.difference(path)
    if not is_archive(path):
        with path.open("rb") as file:
            return f"it isn't an archive; it begins with {file.read(40)!r}"
    record = _read_records(digests_file).get(source.key)
    found = Checksum(sha256=record).difference(path) if record else None
    advice = f"as {digests_file} records. If the publisher changed the file, remove `{source.key}` from the record"
    return f"{found}, {advice}" if found else None


def verify(source: Source, path: Path, digests_file: Path) -> None:
    """Raise MaskrdError if a file is missing or isn't the published one. It may be the user's own or a download."""
    if not path.is_file():
        raise MaskrdError(f"{source.config_key}: {path} does not exist. Correct the path.")
    found = difference(source, path, digests_file)
    if found:
        raise MaskrdError(
            f"{source.config_key}: {path} is not the published file: {found}. Correct the path. If the file "
            "is in data/downloads, remove it, and the pipeline downloads it again."
        )


def record(source: Source, archive: Path, digests_file: Path) -> None:
    """Record the digest of an archive that unpacked and counted right. Later archives of its source must match.

    Does nothing if the source has a published checksum, or a record.
    """
    if source.checksum:
        return
    digests_file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{digests_file}.lock"):
        write_json(digests_file, {source.key: sha256_file(archive), **_read_records(digests_file)})


def _read_records(digests_file: Path) -> dict[str, str]:
    try:
        return RECORDS.validate_json(Path(digests_file).read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error.strerror
        raise MaskrdError(
            f"{digests_file} isn't a record of digests by source ({reason}). Restore it from your copy, or remove it. "
            "Then the next archive is recorded."
        ) from None
