"""Download the file of one source: resumed, retried, from the next mirror if needed, verified, whole or absent."""

import errno
import logging
import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import httpx
from filelock import FileLock
from tqdm import tqdm

from maskrd.errors import MaskrdError
from maskrd.sources.published import difference
from maskrd.sources.registry import Source

logger = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 20
LONGEST_WAIT_S = 30
LEAST_BYTES_S = 1000  # a slower address counts as silent: a gigabyte would take 12 days
# Statuses that may go away: timeout, too early, too many requests, and every 5xx. 403 and 404 don't.
TRANSIENT_STATUSES = {408, 425, 429, *range(500, 600)}


class _AddressFailed(Exception):
    """This address does not give the file; the next one may."""


class _Transient(_AddressFailed):
    """The same address may give it if asked again."""


def download(
    source: Source,
    destination: Path,
    digests_file: Path,
    *,
    attempts: int = 5,
    backoff_s: float = 1.0,
    timeout_s: float = 60.0,
) -> Path:
    """Download `source` to `destination`. Does nothing if the file is there already and its checksum is right.

    Bytes go to `<destination>.part`, which stays after a kill. The next process continues it if the source has a
    checksum, because only a checksum notices bytes that don't belong together. The file gets its name when
    `sources.published.difference` has verified it. Processes with the same destination take turns.

    Args:
        attempts: an address is given up after this many failures in a row without progress.
        backoff_s: wait after the first failure in seconds; it doubles up to `LONGEST_WAIT_S`.
        timeout_s: longest silence of a server in seconds, and the time over which its rate is judged.

    Raises:
        MaskrdError: no address gave the right file (the message has each failure, and what to do by hand), or the disk
            is full (the part is kept).
    """
    destination = Path(destination)
    destination.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{destination}.lock"), httpx.Client(follow_redirects=True, timeout=timeout_s) as client:
        if destination.exists():
            problem = difference(source, destination, digests_file)
            if problem is None:
                return destination
            logger.warning("%s is downloaded again: %s", destination, problem)
        part = destination.with_name(destination.name + ".part")
        fetching = _Fetching(source, part, Path(digests_file), client, attempts, backoff_s, timeout_s)
        failures = {}
        for address in source.addresses:
            try:
                fetching.obtain(address)
            except _AddressFailed as failure:
                logger.warning("%s: %s", address, failure)
                failures[address] = failure
            else:
                part.replace(destination)
                return destination
    raise MaskrdError(_advice(source, destination, failures))


@dataclass
class _Fetching:
    """Downloads the bytes of `source` to the file `part`, address after address."""

    source: Source
    part: Path
    digests_file: Path
    client: httpx.Client
    attempts: int
    backoff_s: float
    timeout_s: float
    spliced: bool = False  # whether the bytes in `part` come from more than one answer

    @property
    def size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def discard(self) -> None:
        self.part.unlink(missing_ok=True)
        self.spliced = False

    def obtain(self, address: str) -> None:
        """Leave the verified file in `part`, or raise _AddressFailed with no wrong bytes left."""
        self.persist(address)
        problem = difference(self.source, self.part, self.digests_file)
        if problem and self.spliced:
            # Bytes of an earlier run or of another mirror may be wrong, so this address gets a clean try.
            self.discard()
            self.persist(address)
            problem = difference(self.source, self.part, self.digests_file)
        if problem:
            self.discard()
            raise _AddressFailed(problem)

    def persist(self, address: str) -> None:
        """Ask `address` until it has given all bytes. Only failures without progress count as attempts.

        Otherwise a connection that breaks every few hundred megabytes would never finish a file of gigabytes.
        """
        fetch = self.fetch_http if urlsplit(address).scheme in ("http", "https") else self.copy_local
        stuck, furthest = 0, self.size
        while True:
            try:
                return fetch(address)
            except _Transient:
                stuck = 0 if self.size - furthest >= LEAST_BYTES_S * self.timeout_s else stuck + 1
                furthest = max(furthest, self.size)
                if stuck >= self.attempts:
                    raise
                time.sleep(min(self.backoff_s * 2**stuck, LONGEST_WAIT_S))

    def fetch_http(self, address: str) -> None:
        """One request: append the missing bytes, or start over if the server or caution requires it."""
        # Only a checksum notices that the rest belongs to another file than the beginning.
        offset = self.size if self.source.checksum else 0
        # Without `identity`, offsets would count compressed bytes.
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={offset}-"} if offset else {})
        try:
            with self.client.stream("GET", address, headers=headers) as response:
                if self.expects_body(response, offset):
                    length = response.headers.get("Content-Length")
                    # Raw: a `.tar.gz` labelled `Content-Encoding: gzip` must stay compressed.
                    self.append(response.iter_raw(), self.size + int(length) if length else None)
        except httpx.UnsupportedProtocol as error:  # where a redirect leads
            raise _AddressFailed(str(error)) from error
        except httpx.TransportError as error:
            raise _Transient(f"{type(error).__name__}: {error}") from error
        # For some wrong headers, httpx raises errors of other libraries, such as idna's. All are ValueErrors.
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise _AddressFailed(f"its answer is malformed ({type(error).__name__}: {error})") from error

    def expects_body(self, response: httpx.Response, offset: int) -> bool:
        """Judge the answer and prepare `part` for its body. False if the part is complete already."""
        status = f"HTTP {response.status_code} {response.reason_phrase}"
        start, total = _content_range(response)
        match response.status_code:
            case 200:
                if self.source.checksum is None and not {"content-length", "transfer-encoding"} & set(response.headers):
                    raise _AddressFailed("neither checksum nor length is known, so a cut file would go unnoticed")
                self.discard()
                return True
            case 206 if start == offset:
                return True
            case 416 if offset and offset in (total, self.source.size):
                return False
            case 206 | 416:
                self.discard()
                raise _Transient(f"{status}: the file has changed or the range is not what was asked for")
            case code if code in TRANSIENT_STATUSES:
                raise _Transient(status)
            case _:
                raise _AddressFailed(status)

    def copy_local(self, address: str) -> None:
        """The same for a `file://` address or a plain path. Copying is cheap, so it starts over."""
        path = Path(url2pathname(urlsplit(address).path)) if address.startswith("file:") else Path(address)
        if not path.is_file():
            raise _AddressFailed("no such file")
        self.discard()
        self.append(_read_chunks(path), path.stat().st_size)

    def append(self, chunks: Iterable[bytes], total: int | None) -> None:
        """Append `chunks` to `part`, durably; `total` is the size of the whole file in bytes, if known."""
        start = self.size
        self.spliced = self.spliced or start > 0
        if (total or 0) > self.source.largest:
            raise self.too_long()
        try:
            with (
                self.part.open("ab") as file,
                # disable=None: a bar on a terminal, silence in a log.
                tqdm(
                    desc=self.part.stem,
                    total=total or self.source.size,
                    initial=start,
                    unit="B",
                    unit_scale=True,
                    disable=None,
                ) as bar,
            ):
                for chunk in _fast_enough(chunks, self.timeout_s):
                    file.write(chunk)
                    bar.update(len(chunk))
                    if file.tell() > self.source.largest:
                        self.discard()
                        raise self.too_long()
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise self.disk_error(error, total or self.source.size) from error

    def too_long(self) -> _AddressFailed:
        return _AddressFailed(f"it sends more than the {self.source.largest:,} bytes that the file may have")

    def disk_error(self, error: OSError, total: int | None) -> MaskrdError:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return MaskrdError(f"{self.part} can't be written: {error}. Correct its permissions or its folder.")
        needed = f"{total - self.size:,} more bytes are" if total else "more room is"
        kept = f" It continues from the {self.size:,} bytes in {self.part}." if self.source.checksum else ""
        return MaskrdError(
            f"the disk is full: {needed} needed in {self.part.parent} for {self.source.file}. "
            f"Make room and start again.{kept}"
        )


def _fast_enough(chunks: Iterable[bytes], period_s: float) -> Iterator[bytes]:
    """Pass `chunks` on while each period brings `LEAST_BYTES_S`. The client's own timeout notices only silence."""
    since, received = time.monotonic(), 0
    for chunk in chunks:
        yield chunk
        received += len(chunk)
        elapsed = time.monotonic() - since
        if elapsed > period_s:
            if received < LEAST_BYTES_S * elapsed:
                raise _Transient(f"it sends fewer than {LEAST_BYTES_S:,} bytes a second")
            since, received = time.monotonic(), 0


def _content_range(response: httpx.Response) -> tuple[int | None, int | None]:
    """First byte and total size of `Content-Range: bytes 5-9/10` or `bytes */10`."""
    header = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (?:([0-9]{1,18})-[0-9]{1,18}|\*)/([0-9]{1,18}|\*)", header)
    first, total = match.groups() if match else (None, None)
    return (int(first) if first else None, int(total) if total and total != "*" else None)


def _read_chunks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
    except OSError as error:
        raise _AddressFailed(f"can't be read: {error}") from error


def _advice(source: Source, destination: Path, failures: dict[str, _AddressFailed]) -> str:
    listing = "\n".join(f"  {address}: {failure}" for address, failure in failures.items())
    return (
        f"{source.key}: none of its addresses gave the file:\n{listing}\n"
        f"If this machine has no internet, run `snakemake --cores 1 downloads` on one that has. Or download "
        f"{source.file} by hand from {source.homepage} (see docs/data.md). Put it at {destination}, or name it in the "
        f"configuration as {source.config_key}."
    )
