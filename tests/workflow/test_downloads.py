"""The target `downloads`, through Snakemake, from a real server on loopback and from file:// addresses."""

import hashlib
import io
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.conftest import ROOT, write_category
from tests.data.http_server import FaultServer, ask_no_proxy, drop, status, wrong_bytes
from tests.workflow.conftest import Workspace

REAL_SUBSET = ROOT / "../shared/data/cifar-10-binary-subset.tar.gz"
REAL_SUBSET_SHA256 = "24814baa71a4653035a7ba31d089aca7c6c1d1a335bd781bbcb6bdbde83c1bbd"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def archive_of(folder: Path, name: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(folder, arcname=name)
    return buffer.getvalue()


def cifar_archive(folder: Path) -> bytes:
    """Ten records in each of two batches, one of each class."""
    folder.mkdir()
    for name in ("data_batch_1.bin", "test_batch.bin"):
        records = np.random.default_rng(0).integers(0, 256, (10, 3073), dtype=np.uint8)
        records[:, 0] = range(10)
        (folder / name).write_bytes(records.tobytes())
    return archive_of(folder, "cifar-10-batches-bin")


def write_sources(clone: Workspace, changes: dict[str, dict]) -> dict:
    """A sources file with `changes` to entries such as datasets.cifar10, and a configuration that names it.

    Of what can be downloaded it needs CIFAR-10 and ResNet18: the servers of the rest aren't there.
    """
    sources = yaml.safe_load((clone.folder / "workflow/sources.yaml").read_text(encoding="utf-8"))
    for key, change in changes.items():
        section, name = key.split(".")
        sources[section][name].update(change)
    for folder in ("unused/bottle/train/good", "unused/MT_Free"):
        (clone.folder / folder).mkdir(parents=True)
    (clone.folder / "sources.yaml").write_text(yaml.safe_dump(sources), encoding="utf-8")
    return {
        "sources": "sources.yaml",
        "backbones": ["resnet18"],
        "datasets": {"mvtec_ad": {"path": "unused", "categories": ["bottle"]}, "mtd": {"path": "unused"}},
        "tables": {"systems": {"variants": ["maskrd"]}, "systems_mtd": {"variants": ["maskrd"]}},
        "figures": {"figure7": {"variants": ["maskrd"]}},
        "results": "results/downloads",
    }


@pytest.fixture
def online(clone: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Unlike every other job, downloads may open sockets."""
    ask_no_proxy(monkeypatch)
    shutil.rmtree(clone.folder / "site")
    return clone


def test_downloads_survive_a_bad_server_and_refuse_wrong_bytes(online: Workspace, tmp_path: Path) -> None:
    archive, weights = cifar_archive(tmp_path / "made"), bytes(range(256)) * 1000
    expected = [{"what": "records", "files": "*.bin", "count": 20, "record_bytes": 3073}]
    with FaultServer() as server:
        changes = {
            "datasets.cifar10": {
                "addresses": [server.add("/gone", b"", status(404)), server.add("/cifar", archive, drop(after=1000))],
                "checksum": {"sha256": sha256(archive)},
                "size": len(archive),
                "expected": expected,
            },
            "weights.resnet18": {
                "addresses": [server.add("/weights", weights, *[wrong_bytes] * 3)],
                "checksum": {"sha256": sha256(weights)},
                "size": len(weights),
            },
        }
        config = write_sources(online, changes)
        first = online.snakemake("--retries", "0", "downloads", config=config)
        assert first.code != 0
        assert "sha256 is" in first.output
        assert "weights.resnet18" in first.output
        data = online.folder / "data"
        assert (data / "cifar10/test_batch.bin").stat().st_size == 10 * 3073
        assert not (data / "downloads/resnet18-f37072fd.pth").exists()

        second = online.snakemake("--retries", "3", "downloads", config=config)
        assert second.code == 0, second.output
        assert (data / "downloads/resnet18-f37072fd.pth").read_bytes() == weights

        asked = len(server.requests)
        # Placed by hand, it is no output of a rule, and nothing looked at it.
        (data / "downloads/resnet18-f37072fd.pth").write_bytes(weights[:-1] + b"?")
        placed = online.snakemake("results/downloads/teachers/resnet18.safetensors", config=config)
        assert placed.code != 0
        log = (online.folder / "results/downloads/logs/teacher/resnet18.log").read_text(encoding="utf-8")
        assert "resnet18-f37072fd.pth is not the published file: sha256 is" in log
        (data / "downloads/resnet18-f37072fd.pth").write_bytes(weights)

        third = online.snakemake("downloads", config=config)
        assert third.planned == {}
        assert len(server.requests) == asked, "a verified file was fetched again"
        # Another list of mirrors is no reason to fetch, either.
        (online.folder / "other.yaml").write_text((online.folder / "sources.yaml").read_text(encoding="utf-8"))
        assert online.snakemake("-n", "downloads", config={**config, "sources": "other.yaml"}).planned == {}


def test_planning_opens_no_socket(clone: Workspace) -> None:
    """The clone's sitecustomize forbids them, as a rule that opens one shows."""
    assert clone.snakemake("-n", "downloads").code == 0
    with (clone.folder / "Snakefile").open("a", encoding="utf-8") as snakefile:
        snakefile.write("\nimport socket\n\nsocket.create_connection(('127.0.0.1', 9))\n")
    refused = clone.snakemake("-n", "downloads")
    assert refused.code != 0
    assert "a job opened a socket" in refused.output


def test_archives_by_file_address_and_by_config_key(online: Workspace, tmp_path: Path) -> None:
    write_category(tmp_path / "made/mvtec", "bolt")
    mvtec = tmp_path / "bolt.tar.gz"
    mvtec.write_bytes(archive_of(tmp_path / "made/mvtec/bolt", "bolt"))
    (tmp_path / "cifar.tar.gz").write_bytes(cifar := cifar_archive(tmp_path / "made/cifar"))
    changes = {
        "datasets.cifar10": {
            "addresses": [(tmp_path / "cifar.tar.gz").as_uri()],
            "checksum": {"sha256": sha256(cifar)},
            "size": None,
            "expected": [{"what": "records", "files": "*.bin", "count": 20, "record_bytes": 3073}],
        },
        "datasets.mvtec_ad": {
            "checksum": None,
            "expected": [{"what": "training images", "files": "*/train/good/*.png", "count": 6}],
        },
    }
    config = write_sources(online, changes)
    config["datasets"] = {"mvtec_ad": {"archive": str(mvtec), "categories": ["bolt"]}}
    outcome = online.snakemake("results/downloads/data/mvtec_ad/bolt.json", "data/cifar10.unpacked.json", config=config)
    assert outcome.code == 0, outcome.output
    assert (online.folder / "data/mvtec_ad/bolt/train/good/000.png").exists()
    assert (online.folder / "data/cifar10/data_batch_1.bin").exists()


@pytest.mark.skipif(not REAL_SUBSET.exists(), reason="the CIFAR-10 subset of ../shared is not here")
def test_the_real_cifar10_subset_by_file_address(online: Workspace) -> None:
    changes = {
        "datasets.cifar10": {
            "addresses": [REAL_SUBSET.resolve().as_uri()],
            "checksum": {"sha256": REAL_SUBSET_SHA256},
            "size": None,
            "expected": [
                {"what": "training images", "files": "data_batch_1.bin", "count": 10_000, "record_bytes": 3073},
                {"what": "test images", "files": "test_batch.bin", "count": 10_000, "record_bytes": 3073},
            ],
        }
    }
    config = write_sources(online, changes)
    outcome = online.snakemake("results/downloads/data/cifar10/cat.json", config=config)
    assert outcome.code == 0, outcome.output
    index = (online.folder / "results/downloads/data/cifar10/cat.json").stat().st_size
    assert 0 < index < 1_000_000, "above 1 MB Snakemake goes by dates instead of contents"
