"""Fetch the file of one source: resumed, retried, from the next mirror if need be, verified, whole or absent."""

import errno
import hashlib
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import httpx
from filelock import FileLock
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_exponential
from tqdm import tqdm

from maskrd.data.sources import Checksum, Source
from maskrd.errors import MaskrdError
from maskrd.files import write_json

logger = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 20
LONGEST_WAIT_S = 30
# Statuses that may pass: timeout, too early, too many requests, and every 5xx. 403 and 404 do not.
TRANSIENT_STATUSES = {408, 425, 429, *range(500, 600)}


class _AddressFailed(Exception):
    """This address does not give the file; the next one may."""


class _Transient(_AddressFailed):
    """The same address may give it if asked again."""


def download(
    source: Source,
    destination: Path,
    lock_file: Path,
    *,
    attempts: int = 5,
    backoff_s: float = 1.0,
    timeout_s: float = 60.0,
) -> Path:
    """Bring `source` to `destination`; do nothing if it lies there already and its checksum is right.

    Bytes go to `<destination>.part`, which outlives a killed process and is continued by the next one; the
    file gets its name only once verified. A source without a checksum is recorded in `lock_file` (JSON) the
    first time and must match that record ever after. Processes that want the same destination take turns.

    Args:
        attempts: failures in a row that bring the file no further before an address is given up.
        backoff_s: wait after the first failure in seconds; it doubles up to `LONGEST_WAIT_S`.
        timeout_s: longest silence of a server in seconds.

    Raises:
        MaskrdError: no address gave the right file (each is named with its failure, and what to do by hand),
            or the disk is full (the part is kept).
    """
    destination = Path(destination)
    destination.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{destination}.lock"):
        if destination.exists():
            problem = _problem(source, destination, lock_file)
            if problem is None:
                return destination
            logger.warning("%s is fetched again: %s", destination, problem)
        part = _Part(destination)
        failures = {}
        with httpx.Client(follow_redirects=True, timeout=timeout_s) as client:
            for address in source.addresses:
                retrying = Retrying(
                    stop=_StopWhenStuck(part, attempts),
                    wait=wait_exponential(multiplier=backoff_s, max=LONGEST_WAIT_S),
                    retry=retry_if_exception_type(_Transient),
                    reraise=True,
                )
                try:
                    _obtain(client, retrying, source, address, part, lock_file)
                except _AddressFailed as failure:
                    logger.warning("%s: %s", address, failure)
                    failures[address] = failure
                else:
                    part.publish()
                    return destination
    raise MaskrdError(_advice(source, destination, failures))


def verify(source: Source, path: Path, lock_file: Path) -> None:
    """Check a file that the user brought against the source's checksum, or against the lock file.

    Raises MaskrdError if it is missing or differs. Without a known checksum its digest is recorded.
    """
    path = Path(path)
    if not path.is_file():
        raise MaskrdError(f"{path}, given as {source.config_key}, does not exist")
    problem = _problem(source, path, lock_file)
    if problem:
        raise MaskrdError(f"{path} is not the file that {source.config_key} should name: {problem}")


class _Part:
    """The bytes so far, and beside them a note of the address and ETag they came from."""

    def __init__(self, destination: Path):
        self.destination = destination
        self.path = destination.with_name(destination.name + ".part")
        self.note = destination.with_name(destination.name + ".part.json")
        self.spliced = False  # whether the bytes come from more than one answer

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def etag(self, address: str) -> str | None:
        """The ETag under which `address` gave the bytes so far, if it did."""
        try:
            origin = json.loads(self.note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return origin["etag"] if origin["address"] == address else None

    def begin(self, address: str, etag: str | None) -> None:
        self.discard()
        write_json(self.note, {"address": address, "etag": etag})

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)
        self.spliced = False

    def append(self, chunks: Iterable[bytes], total: int | None) -> None:
        """Append `chunks`; `total` is the size of the whole file in bytes, if known."""
        start = self.size
        self.spliced = self.spliced or start > 0
        try:
            with (
                self.path.open("ab") as file,
                # disable=None: a bar on a terminal, silence in a log.
                tqdm(
                    desc=self.destination.name, total=total, initial=start, unit="B", unit_scale=True, disable=None
                ) as bar,
            ):
                for chunk in chunks:
                    file.write(chunk)
                    bar.update(len(chunk))
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise MaskrdError(f"cannot write {self.path}: {error}") from error
            needed = f"{total - self.size:,} more bytes are" if total else "more room is"
            raise MaskrdError(
                f"the disk is full: {needed} needed in {self.path.parent} for {self.destination.name}. "
                f"Make room and start again; it goes on from the {self.size:,} bytes in {self.path}."
            ) from error

    def publish(self) -> None:
        """Give the file its name, durably."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
        self.path.replace(self.destination)
        self.note.unlink(missing_ok=True)


class _StopWhenStuck:
    """Tenacity's `stop`: only attempts that got no further than any before them count.

    A line that drops every few hundred megabytes would otherwise never bring a file of gigabytes.
    """

    def __init__(self, part: _Part, attempts: int):
        self.part, self.attempts = part, attempts
        self.furthest = part.size
        self.stuck = 0

    def __call__(self, state: RetryCallState) -> bool:
        self.stuck = 0 if self.part.size > self.furthest else self.stuck + 1
        self.furthest = max(self.furthest, self.part.size)
        return self.stuck >= self.attempts


def _obtain(
    client: httpx.Client, retrying: Retrying, source: Source, address: str, part: _Part, lock_file: Path
) -> None:
    """Leave the verified file in `part`, or raise _AddressFailed with no wrong bytes left."""
    fetch = _fetch_http if urlsplit(address).scheme in ("http", "https") else _copy_local
    retrying(fetch, client, source, address, part)
    problem = _problem(source, part.path, lock_file)
    if problem and part.spliced:
        # The fault may lie in bytes of an earlier run or another mirror, so this address gets a clean try.
        part.discard()
        retrying(fetch, client, source, address, part)
        problem = _problem(source, part.path, lock_file)
    if problem:
        part.discard()
        raise _AddressFailed(problem)


def _fetch_http(client: httpx.Client, source: Source, address: str, part: _Part) -> None:
    """One request: append the missing bytes, or start over where the server or caution wants it."""
    # Without `identity`, offsets would count compressed bytes.
    headers = {"Accept-Encoding": "identity", **_range_headers(source, address, part)}
    offset = part.size if "Range" in headers else 0
    try:
        with client.stream("GET", address, headers=headers) as response:
            if _body_follows(response, source, address, part, offset):
                length = response.headers.get("Content-Length")
                total = source.size or (part.size + int(length) if length else None)
                # Raw: a `.tar.gz` labelled `Content-Encoding: gzip` must stay compressed.
                part.append(response.iter_raw(), total)
    except httpx.TransportError as error:
        if isinstance(error, httpx.UnsupportedProtocol):
            raise _AddressFailed(str(error)) from error
        raise _Transient(f"{type(error).__name__}: {error}") from error
    except (httpx.RequestError, httpx.InvalidURL) as error:
        raise _AddressFailed(f"{type(error).__name__}: {error}") from error


def _range_headers(source: Source, address: str, part: _Part) -> dict[str, str]:
    """Ask for the rest only if a changed file would be noticed: by the server, or by the checksum."""
    etag = part.etag(address)
    if not part.size or not (etag or source.checksum):
        return {}
    return {"Range": f"bytes={part.size}-"} | ({"If-Range": etag} if etag else {})


def _body_follows(response: httpx.Response, source: Source, address: str, part: _Part, offset: int) -> bool:
    """Judge the answer and prepare `part` for its body; False if the part is complete already."""
    status = f"HTTP {response.status_code} {response.reason_phrase}"
    etag = response.headers.get("ETag", "")
    etag = etag if etag.startswith('"') else None  # a weak one (W/) promises equal meaning, not equal bytes
    start, total = _content_range(response)
    match response.status_code:
        case 200:
            if source.checksum is None and not {"content-length", "transfer-encoding"} & set(response.headers):
                raise _AddressFailed("neither checksum nor length is known, so a cut file would go unnoticed")
            part.begin(address, etag)
            return True
        case 206 if start == offset and (etag is None or part.etag(address) in (None, etag)):
            return True
        case 416 if offset and offset in (total, source.size):
            return False
        case 206 | 416:
            part.discard()
            raise _Transient(f"{status}: the file has changed or the range is not what was asked for")
        case code if code in TRANSIENT_STATUSES:
            raise _Transient(status)
        case _:
            raise _AddressFailed(status)


def _content_range(response: httpx.Response) -> tuple[int | None, int | None]:
    """First byte and total size of `Content-Range: bytes 5-9/10` or `bytes */10`."""
    match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", ""))
    first, total = match.groups() if match else (None, None)
    return (int(first) if first else None, int(total) if total and total != "*" else None)


def _copy_local(client: httpx.Client, source: Source, address: str, part: _Part) -> None:
    """The same for a `file://` address or a plain path; copying is cheap, so it starts over."""
    path = Path(url2pathname(urlsplit(address).path)) if address.startswith("file:") else Path(address)
    if not path.is_file():
        raise _AddressFailed("no such file")
    part.begin(address, None)
    part.append(_read_chunks(path), path.stat().st_size)


def _read_chunks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
    except OSError as error:
        raise _AddressFailed(f"cannot be read: {error}") from error


def _problem(source: Source, path: Path, lock_file: Path) -> str | None:
    """What is wrong with the bytes of `path`, or None. Records them if nothing is known to compare with."""
    lock_file = Path(lock_file)
    digest = _digest(path, "sha256")
    if source.checksum:
        return _difference(source.checksum, path, digest)
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{lock_file}.lock"):
        records = _read_lock(lock_file)
        record = records.setdefault(source.key, {"sha256": digest, "bytes": path.stat().st_size})
        if record["sha256"] == digest:
            write_json(lock_file, records)
            return None
    return (
        f"sha256 is {digest} ({path.stat().st_size:,} bytes), but {lock_file} records {record['sha256']} "
        f"({record['bytes']:,} bytes); if the file changed rightly, remove `{source.key}` from the record"
    )


def _difference(checksum: Checksum, path: Path, sha256: str) -> str | None:
    expected = checksum.sha256 or checksum.sha256_prefix or ""
    if not sha256.startswith(expected):
        return f"sha256 is {sha256} ({path.stat().st_size:,} bytes), expected {expected}"
    if checksum.md5 and (md5 := _digest(path, "md5")) != checksum.md5:
        return f"md5 is {md5} ({path.stat().st_size:,} bytes), expected {checksum.md5}"
    return None


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _read_lock(lock_file: Path) -> dict[str, dict]:
    try:
        return json.loads(lock_file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise MaskrdError(f"{lock_file} is not valid JSON: {error}; restore it or remove it") from error


def _advice(source: Source, destination: Path, failures: dict[str, _AddressFailed]) -> str:
    listing = "\n".join(f"  {address}: {failure}" for address, failure in failures.items())
    return (
        f"{source.key} could not be obtained from any of its addresses:\n{listing}\n"
        f"If this machine has no internet, run `snakemake --cores 1 downloads` on one that has. Or fetch "
        f"{source.file} by hand from {source.homepage} (see docs/data.md), and put it at {destination} or name "
        f"it in the configuration as {source.config_key}."
    )
