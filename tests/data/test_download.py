"""Downloads against a real, misbehaving server on loopback."""

import errno
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from maskrd.errors import MaskrdError
from maskrd.sources import download as download_module
from maskrd.sources.download import download
from maskrd.sources.registry import Source, load_sources

from .http_server import (
    Fault,
    FaultServer,
    ask_no_proxy,
    corrupted,
    drop,
    endless,
    ignore_range,
    label_as_compressed,
    no_length,
    redirect,
    stall,
    status,
    then_replace,
    trickle,
    truncated_consistently,
    with_header,
    wrong_bytes,
    wrong_range,
)

ROOT = Path(__file__).parents[2]
# Archives by their first bytes: without a checksum, nothing else is taken.
BODY = b"PK" + random.Random(0).randbytes(399_998)
OTHER = b"PK" + random.Random(1).randbytes(399_998)
HALF = len(BODY) // 2
KNOWN = {"sha256": hashlib.sha256(BODY).hexdigest()}
# A server that a busy machine keeps from answering mustn't count as silent.
QUICK = {"attempts": 3, "backoff_s": 0.001, "timeout_s": 60.0}
SILENCE_S = 2.0  # where it is to be noticed


@pytest.fixture(autouse=True)
def without_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    ask_no_proxy(monkeypatch)


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as server:
        yield server


def make_source(*addresses: str, checksum: dict | None = KNOWN, size: int | None = len(BODY)) -> Source:
    return Source(
        key="weights.resnet18",
        file="file.bin",
        addresses=addresses,
        size=size,
        checksum=checksum,
        licence="-",
        citation="-",
        homepage="https://example.org/file",
    )


def fetch(folder: Path, *addresses: str, checksum: dict | None = KNOWN, **options: object) -> Path:
    source = make_source(*addresses, checksum=checksum)
    return download(source, folder / "file.bin", folder / "digests.json", **(QUICK | options))


def leftovers(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"file.bin", "file.bin.lock"}


@dataclass(frozen=True)
class Case:
    """Faults of the first address, of a second one if given, and what must come of them."""

    faults: tuple[Fault, ...]
    mirror: tuple[Fault, ...] | None = None
    arrives: bool = True
    requests: int = 2
    twice: int = 0  # bytes sent more often than needed
    options: tuple[tuple[str, object], ...] = ()


CASES = {
    "connection dropped": Case((drop(HALF),)),
    "dropped four times, each further than before": Case((drop(100_000),) * 3, requests=4),
    "dropped before the first byte": Case((drop(0),)),
    "dropped always": Case((drop(HALF), *[drop(0)] * 3), arrives=False, requests=4),
    "dropped, then the range is ignored": Case((drop(HALF), ignore_range), twice=HALF),
    "dropped, then another range": Case((drop(HALF), wrong_range), requests=3, twice=HALF + 3),
    "silent longer than the timeout": Case((stall(HALF),), options=(("timeout_s", SILENCE_S),)),
    "slow": Case((trickle(20, 0.005),), requests=1),
    "403, then a mirror": Case((status(403),), mirror=()),
    "404, then a mirror": Case((status(404),), mirror=()),
    "404 only": Case((status(404),), arrives=False, requests=1),
    "503 once": Case((status(503),)),
    "503 always, then a mirror": Case((status(503),) * 3, mirror=(), requests=4),
    "429 once": Case((status(429),)),
    "wrong bytes of the right length": Case((wrong_bytes,), arrives=False, requests=1, twice=len(BODY)),
    "wrong bytes, then a mirror": Case((wrong_bytes,), mirror=(), twice=len(BODY)),
    "cut short and announced so": Case((truncated_consistently(HALF),), mirror=(), twice=HALF),
    "half from one mirror, half from another": Case((drop(HALF), status(404)), mirror=(), requests=3),
    "no length": Case((no_length,), requests=1),
    "labelled as compressed": Case((label_as_compressed,), requests=1),
    "416 without a size": Case((drop(HALF), status(416)), requests=3, twice=HALF),
    "redirect": Case((redirect("/moved"),)),
    "dropped, then a redirect": Case((drop(HALF), redirect("/moved")), requests=3),
    "redirect to nowhere, then a mirror": Case((redirect("/nowhere"),), mirror=(), requests=3),
    "endless redirect, then a mirror": Case((redirect("/file"),) * 30, mirror=(), requests=22),
}


def run(case: Case, server: FaultServer, folder: Path) -> tuple[bool, str]:
    """Whether the file arrived whole, and the error message otherwise."""
    server.add("/moved", BODY)
    addresses = [server.add("/file", BODY, *case.faults)]
    if case.mirror is not None:
        addresses.append(server.add("/mirror", BODY, *case.mirror))
    try:
        path = fetch(folder, *addresses, **dict(case.options))
    except MaskrdError as error:
        assert not (folder / "file.bin").exists()
        return False, str(error)
    return path.read_bytes() == BODY, ""


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_each_fault(case: Case, server: FaultServer, tmp_path: Path) -> None:
    arrived, message = run(case, server, tmp_path)
    assert arrived == case.arrives
    assert len(server.requests) == case.requests
    if arrived:
        assert leftovers(tmp_path) == set()
        assert server.bytes_sent - len(BODY) == case.twice
    else:
        assert server.url("/file") in message
        assert "weights.resnet18" in message
        assert "https://example.org/file" in message


def test_unnoticed_change_costs_one_clean_try(server: FaultServer, tmp_path: Path) -> None:
    """Only the checksum can tell that two halves do not belong together."""
    fetch(tmp_path, server.add("/file", OTHER, then_replace(drop(HALF), BODY)))
    assert (tmp_path / "file.bin").read_bytes() == BODY
    assert [request.range for request in server.requests] == [None, f"bytes={HALF}-", None]


def test_without_checksum_nothing_is_continued(server: FaultServer, tmp_path: Path) -> None:
    fetch(tmp_path, server.add("/file", OTHER, then_replace(drop(HALF), BODY)), checksum=None)
    assert (tmp_path / "file.bin").read_bytes() == BODY
    assert [request.range for request in server.requests] == [None, None]


def test_a_captive_portals_page_is_no_archive(server: FaultServer, tmp_path: Path) -> None:
    """Without a checksum it used to be recorded as the right file, and the right one was refused ever after."""
    portal = server.add("/portal", b"<!DOCTYPE html><title>Log in to use this network</title>")
    with pytest.raises(MaskrdError, match=r"it isn't an archive; it begins with b'<!DOCTYPE html>"):
        fetch(tmp_path, portal, checksum=None)
    assert fetch(tmp_path, portal, server.add("/file", BODY), checksum=None).read_bytes() == BODY


HEADERS = {
    "ETag that isn't ASCII": (with_header(b"ETag", '"ü€"'.encode()), True),
    "ETag that isn't UTF-8": (with_header(b"ETag", b'"\xff\xfe"'), True),
    "redirect to a malformed host": (with_header(b"Location", b"http://[::1/x", code=302), False),
    "redirect to a host too long": (
        with_header(b"Location", b"http://%s.org/" % (b"x" * 70), code=302),
        False,
    ),
    "redirect to a host that isn't ASCII": (with_header(b"Location", "http://xn--ü..org/".encode(), code=302), False),
    "redirect to a port above all": (with_header(b"Location", b"http://127.0.0.1:99999999/", code=302), False),
    "redirect to another scheme": (with_header(b"Location", b"gopher://127.0.0.1/", code=302), False),
    "redirect with raw bytes": (with_header(b"Location", b"\xff\x00", code=302), False),
    "absurd Content-Range": (with_header(b"Content-Range", b"bytes 0-9/" + b"9" * 5000, code=206), False),
    "Content-Range in other digits": (with_header(b"Content-Range", "bytes ²-9/٣".encode(), code=206), False),
    "absurd Content-Length": (with_header(b"Content-Length", b"9" * 5000), False),
    "negative Content-Length": (with_header(b"Content-Length", b"-1"), False),
    "header without end": (with_header(b"X", b"x" * 200_000), False),
    "unknown encoding": (with_header(b"Transfer-Encoding", b"rot13"), False),
}


@pytest.mark.parametrize(("fault", "arrives"), HEADERS.values(), ids=HEADERS.keys())
def test_trouble_with_a_header_leads_to_the_next_mirror(
    fault: Fault, arrives: bool, server: FaultServer, tmp_path: Path
) -> None:
    address = server.add("/file", BODY, *[fault] * 10)
    if not arrives:
        with pytest.raises(MaskrdError, match="none of its addresses gave the file"):
            fetch(tmp_path, address)
    # A second run, too: what one stored of the header broke all later ones.
    for _ in range(2):
        assert fetch(tmp_path, address, server.add("/mirror", BODY)).read_bytes() == BODY
        (tmp_path / "file.bin").unlink()


@pytest.mark.parametrize("checksum", [KNOWN, None])
def test_a_body_longer_than_the_file_may_be_is_cut(server: FaultServer, tmp_path: Path, checksum: dict | None) -> None:
    with pytest.raises(MaskrdError, match=f"sends more than the {len(BODY):,} bytes"):
        fetch(tmp_path, server.add("/file", BODY, endless), checksum=checksum)
    with pytest.raises(MaskrdError, match=f"sends more than the {len(BODY):,} bytes"):
        fetch(tmp_path, server.add("/file", BODY + b"x"), checksum=checksum)
    (tmp_path / "local").write_bytes(BODY + b"x")
    with pytest.raises(MaskrdError, match=f"sends more than the {len(BODY):,} bytes"):
        fetch(tmp_path, str(tmp_path / "local"), checksum=checksum)
    assert leftovers(tmp_path) == {"local"}


def test_an_unknown_size_has_a_limit_too() -> None:
    sources = load_sources(ROOT / "workflow/sources.yaml")
    assert sources["weights.resnet34"].largest == 2 << 30
    assert sources["datasets.mtd"].largest == sources["datasets.mtd"].max_bytes
    assert sources["weights.resnet18"].largest == sources["weights.resnet18"].size


def test_a_dripping_server_is_given_up_and_its_bytes_are_kept(server: FaultServer, tmp_path: Path) -> None:
    """It is never silent for as long as the timeout, so only its rate tells."""
    drip = trickle(pieces=len(BODY), pause_s=0.1)
    address = server.add("/file", BODY, drip, drip)
    with pytest.raises(MaskrdError, match="fewer than 1,000 bytes a second"):
        fetch(tmp_path, address, timeout_s=SILENCE_S, attempts=2)
    kept = (tmp_path / "file.bin.part").stat().st_size
    assert 0 < kept < 200
    assert fetch(tmp_path, address).read_bytes() == BODY
    assert server.requests[-1].range == f"bytes={kept}-"


def test_without_checksum_a_length_is_required(server: FaultServer, tmp_path: Path) -> None:
    with pytest.raises(MaskrdError, match="neither checksum nor length"):
        fetch(tmp_path, server.add("/file", BODY, no_length), checksum=None)


def test_error_names_every_address_and_what_to_do_by_hand(server: FaultServer, tmp_path: Path) -> None:
    addresses = [server.add("/a", BODY, status(403)), server.add("/b", BODY, wrong_bytes), str(tmp_path / "absent")]
    with pytest.raises(MaskrdError) as caught:
        fetch(tmp_path, *addresses)
    message = str(caught.value)
    assert f"{addresses[0]}: HTTP 403" in message
    assert f"{addresses[1]}: sha256 is {hashlib.sha256(corrupted(BODY)).hexdigest()}" in message
    assert f"expected {KNOWN['sha256']}" in message
    assert f"{addresses[2]}: no such file" in message
    assert str(tmp_path / "file.bin") in message
    assert "weights.resnet18" in message
    assert leftovers(tmp_path) == set()


def test_nobody_listening(tmp_path: Path) -> None:
    with FaultServer() as server:
        address = server.url("/file")
    with pytest.raises(MaskrdError, match="ConnectError"):
        fetch(tmp_path, address)


@pytest.mark.parametrize("form", ["{}", "file://{}", "file://localhost{}"])
def test_local_addresses(form: str, tmp_path: Path) -> None:
    (tmp_path / "a file").write_bytes(BODY)
    path = str(tmp_path / "a file")
    address = form.format(path.replace(" ", "%20") if form.startswith("file") else path)
    if form.startswith("file://localhost"):
        with pytest.raises(ValueError, match="addresses"):
            make_source(address)
        return
    assert fetch(tmp_path, address).read_bytes() == BODY


def test_local_file_with_wrong_bytes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "local").write_bytes(corrupted(BODY))
    with pytest.raises(MaskrdError, match="expected"):
        fetch(tmp_path, str(tmp_path / "local"))
    assert not (tmp_path / "file.bin").exists()


@pytest.mark.parametrize(
    "checksum",
    [{"md5": hashlib.md5(BODY).hexdigest()}, {"sha256_prefix": KNOWN["sha256"][:8]}],
    ids=["md5", "sha256_prefix"],
)
def test_other_checksums(checksum: dict, tmp_path: Path) -> None:
    (tmp_path / "right").write_bytes(BODY)
    (tmp_path / "wrong").write_bytes(corrupted(BODY))
    with pytest.raises(MaskrdError, match="expected"):
        fetch(tmp_path, str(tmp_path / "wrong"), checksum=checksum)
    fetch(tmp_path, str(tmp_path / "right"), checksum=checksum)


def test_verified_file_is_never_fetched_again(server: FaultServer, tmp_path: Path) -> None:
    address = server.add("/file", BODY)
    path = fetch(tmp_path, address)
    os.utime(path, (0, 0))
    fetch(tmp_path, address)
    assert len(server.requests) == 1


def test_damaged_file_is_fetched_again(server: FaultServer, tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(corrupted(BODY))
    assert fetch(tmp_path, server.add("/file", BODY)).read_bytes() == BODY


SCRIPT = """
import sys
from maskrd.sources.download import download
from maskrd.sources.registry import Source
from maskrd.errors import MaskrdError
source = Source.model_validate_json(sys.argv[1])
print("ready", flush=True)
try:
    download(source, sys.argv[2] + "/file.bin", sys.argv[2] + "/digests.json", timeout_s=600)
except MaskrdError as error:
    sys.exit(str(error))
"""


def start(folder: Path, address: str) -> subprocess.Popen:
    """The same download in a process of its own, past its imports."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, make_source(address).model_dump_json(), str(folder)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"ready\n"
    return process


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def test_killed_download_goes_on(server: FaultServer, tmp_path: Path) -> None:
    address = server.add("/file", BODY, stall(HALF))
    process = start(tmp_path, address)
    part = tmp_path / "file.bin.part"
    # Up to 8 KiB may still be in the process's buffer when it is killed.
    wait_for(lambda: part.exists() and part.stat().st_size > HALF - 8192)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = part.stat().st_size
    assert not (tmp_path / "file.bin").exists()

    sent_before = server.bytes_sent
    assert fetch(tmp_path, address).read_bytes() == BODY
    assert server.requests[1].range == f"bytes={kept}-"
    twice = sent_before + len(BODY) - kept - len(BODY)
    print(f"killed after {kept:,} of {len(BODY):,} bytes; {twice:,} bytes fetched twice")
    assert 0 <= twice < 8192
    assert leftovers(tmp_path) == set()


def test_killed_after_the_last_byte(server: FaultServer, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(BODY)
    assert fetch(tmp_path, server.add("/file", BODY)).read_bytes() == BODY
    assert server.bytes_sent == 0


def test_part_with_wrong_bytes_does_not_spoil_the_download(server: FaultServer, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(OTHER[:HALF])
    assert fetch(tmp_path, server.add("/file", BODY)).read_bytes() == BODY


def test_two_processes_fetch_once(server: FaultServer, tmp_path: Path) -> None:
    address = server.add("/file", BODY, stall(HALF))
    processes = [start(tmp_path, address), start(tmp_path, address)]
    wait_for(lambda: len(server.requests) == 1)
    time.sleep(0.2)  # time for the second to ask as well, if nothing held it back
    server.go_on.set()
    assert [process.wait(600) for process in processes] == [0, 0]
    assert (tmp_path / "file.bin").read_bytes() == BODY
    assert len(server.requests) == 1
    assert server.bytes_sent == len(BODY)


@pytest.mark.parametrize("checksum", [KNOWN, None], ids=["checksum", "no checksum"])
def test_full_disk_keeps_the_part(
    checksum: dict | None, server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulated: the first bytes are written, then the file system says ENOSPC."""

    def fill_up(chunks):
        written = 0
        for chunk in chunks:
            if written > HALF:
                raise OSError(errno.ENOSPC, "No space left on device")
            written += len(chunk)
            yield chunk

    append = download_module._Fetching.append
    address = server.add("/file", BODY)
    with monkeypatch.context() as patch:
        patch.setattr(
            download_module._Fetching, "append", lambda self, chunks, total: append(self, fill_up(chunks), total)
        )
        with pytest.raises(MaskrdError, match="disk is full") as caught:
            fetch(tmp_path, address, server.add("/mirror", BODY), checksum=checksum)
    kept = (tmp_path / "file.bin.part").stat().st_size
    assert kept > HALF
    assert f"{len(BODY) - kept:,} more bytes" in str(caught.value)
    assert ("It continues from" in str(caught.value)) == (checksum is not None)
    assert len(server.requests) == 1  # a mirror would not help

    assert fetch(tmp_path, address).read_bytes() == BODY
    assert server.requests[1].range == f"bytes={kept}-"


def can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    probe = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def test_really_full_disk(server: FaultServer, tmp_path: Path) -> None:
    if not can_mount():
        pytest.skip("no user namespaces here to mount a small tmpfs in")
    address = server.add("/file", BODY)
    command = 'mount -t tmpfs -o size=200k tmpfs "$0" && "$@"; code=$?; stat -c %s "$0/file.bin.part"; exit $code'
    python = [sys.executable, "-c", SCRIPT, make_source(address).model_dump_json(), str(tmp_path)]
    result = subprocess.run(
        ["unshare", "-rm", "sh", "-c", command, str(tmp_path), *python],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1, result.stderr
    kept = int(result.stdout.splitlines()[-1])
    assert 0 < kept <= 200 * 1024
    assert f"{len(BODY) - kept:,} more bytes are needed" in result.stderr


def test_the_real_sources_are_valid() -> None:
    sources = load_sources(ROOT / "workflow/sources.yaml")
    assert set(sources.datasets) == {"mvtec_ad", "cifar10", "mtd"}
    assert sources["datasets.cifar10"].checksum.md5 == "c32a1d4ab5d03f1284b67883e8d87530"
    assert sources["datasets.mtd"].checksum is None
    assert sources["datasets.mvtec_ad"].config_key == "datasets.mvtec_ad.archive"
    with pytest.raises(MaskrdError, match=r"weights\.vgg19: no source has this name.*weights\.vgg16"):
        sources["weights.vgg19"]


ENTRY = {
    "file": "a.pth",
    "addresses": ["https://example.org/a.pth"],
    "size": None,
    "checksum": {"md5": "0" * 32},
    "licence": "-",
    "citation": "-",
    "homepage": "-",
}


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"adresses": []}, "weights.net.adresses"),
        ({"addresses": []}, "weights.net.addresses"),
        ({"addresses": ["ftp://example.org/a.pth"]}, "weights.net.addresses.0"),
        ({"checksum": {}}, "weights.net.checksum"),
        ({"checksum": {"sha256": "abc"}}, "weights.net.checksum.sha256"),
        ({"checksum": ...}, "weights.net.checksum"),
        ({"checksum": None}, "weights.net.checksum"),
        ({"file": "../a.pth"}, "weights.net.file"),
    ],
)
def test_mistakes_in_sources_are_named(change: dict, key: str, tmp_path: Path) -> None:
    entry = {name: value for name, value in (ENTRY | change).items() if value is not ...}
    path = tmp_path / "sources.yaml"
    path.write_text(json.dumps({"datasets": {}, "weights": {"net": entry}}))
    with pytest.raises(MaskrdError) as caught:
        load_sources(path)
    assert f"  {key}: " in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["weights: [", "null", "weights: {a: 1}", "datasets: 3", "weights: {}\nweights: {}"])
def test_unreadable_sources(text: str, tmp_path: Path) -> None:
    path = tmp_path / "sources.yaml"
    path.write_text(text)
    with pytest.raises(MaskrdError, match=r"sources\.yaml"):
        load_sources(path)
