"""Files without a published checksum are bound to the first that unpacked and counted right."""

import hashlib
import json
import zipfile
from pathlib import Path

import pytest
import yaml

from maskrd.cli import app
from maskrd.errors import MaskrdError
from maskrd.sources.published import difference, record, verify
from maskrd.sources.registry import Dataset, load_sources
from tests.conftest import ROOT

ENTRY = {
    "file": "tiles.zip",
    "addresses": ["nowhere"],
    "size": None,
    "checksum": None,
    "licence": "-",
    "citation": "-",
    "homepage": "-",
    "max_bytes": 1000,
    "max_members": 10,
    "expected": [{"what": "images", "files": "*.jpg", "count": 2}],
}


def make_zip(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as contents:
        for name in names:
            contents.writestr(name, name)
    return path


def write_sources(folder: Path, **changes: object) -> Path:
    path = folder / "sources.yaml"
    path.write_text(yaml.safe_dump({"datasets": {"tiles": ENTRY | changes}, "weights": {}}))
    return path


def source(folder: Path, **changes: object) -> Dataset:
    return load_sources(write_sources(folder, **changes)).datasets["tiles"]


def run_unpack(folder: Path, archive: Path) -> None:
    options = {
        "--source": "datasets.tiles",
        "--sources": write_sources(folder),
        "--digests": folder / "digests.json",
        "--archive": archive,
        "--folder": folder / "tiles",
        "--output": folder / "unpacked.json",
    }
    app(["unpack", *(str(word) for pair in options.items() for word in pair)], standalone_mode=False)


@pytest.mark.parametrize(("key", "message"), [("datasets.nope", "no source has"), ("weights.resnet18", "one file")])
def test_only_a_known_dataset_is_unpacked(tmp_path: Path, key: str, message: str) -> None:
    options = ["--archive", "a.zip", "--folder", str(tmp_path / "a"), "--output", str(tmp_path / "a.json")]
    words = [
        "--source",
        key,
        "--sources",
        str(ROOT / "workflow/sources.yaml"),
        "--digests",
        str(tmp_path / "digests.json"),
    ]
    with pytest.raises(MaskrdError, match=message):
        app(["unpack", *words, *options], standalone_mode=False)


def test_what_counted_right_is_recorded_and_binds_later_files(tmp_path: Path) -> None:
    right = make_zip(tmp_path / "right.zip", "a.jpg", "b.jpg")
    other = make_zip(tmp_path / "other.zip", "a.jpg", "c.jpg")
    run_unpack(tmp_path, right)
    digest = hashlib.sha256(right.read_bytes()).hexdigest()
    assert json.loads((tmp_path / "digests.json").read_text()) == {"datasets.tiles": digest}
    assert difference(source(tmp_path), right, tmp_path / "digests.json") is None
    with pytest.raises(MaskrdError, match=r"expected .*digests\.json records.*remove `datasets\.tiles`"):
        run_unpack(tmp_path, other)
    assert (tmp_path / "tiles/b.jpg").exists()


@pytest.mark.parametrize("names", [("a.jpg",), ("a.jpg", "../b.jpg")], ids=["too few", "harmful"])
def test_what_did_not_unpack_or_count_right_is_not_recorded(names: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(MaskrdError):
        run_unpack(tmp_path, make_zip(tmp_path / "wrong.zip", *names))
    (tmp_path / "portal.zip").write_bytes(b"<html>log in</html>")
    with pytest.raises(MaskrdError, match="isn't an archive"):
        run_unpack(tmp_path, tmp_path / "portal.zip")
    assert not (tmp_path / "digests.json").exists()
    run_unpack(tmp_path, make_zip(tmp_path / "right.zip", "a.jpg", "b.jpg"))
    assert (tmp_path / "digests.json").exists()


def test_a_file_brought_by_hand_is_held_against_its_checksum(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "mine.zip", "a.jpg")
    known = source(tmp_path, checksum={"sha256": hashlib.sha256(archive.read_bytes()).hexdigest()})
    digests = tmp_path / "digests.json"
    verify(known, archive, digests)
    record(known, archive, digests)
    assert not digests.exists()
    with pytest.raises(MaskrdError, match=r"absent\.zip.*does not exist"):
        verify(known, tmp_path / "absent.zip", digests)
    with pytest.raises(MaskrdError, match=r"datasets\.tiles\.archive: .*mine\.zip.*expected 00"):
        verify(source(tmp_path, checksum={"sha256": "0" * 64}), archive, digests)
    with pytest.raises(MaskrdError, match=r"md5 is .*expected 00"):
        verify(source(tmp_path, checksum={"md5": "0" * 32}), archive, digests)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "3",
        "{",
        '{"datasets.tiles": 3}',
        '{"datasets.tiles": {"sha256": null}}',
        '{"datasets.tiles": "abc"}',
        "\0",
    ],
)
def test_a_record_of_another_kind_is_named(content: str, tmp_path: Path) -> None:
    digests = tmp_path / "digests.json"
    digests.write_text(content)
    archive = make_zip(tmp_path / "right.zip", "a.jpg", "b.jpg")
    with pytest.raises(MaskrdError, match=r"digests\.json isn't a record.*remove it"):
        run_unpack(tmp_path, archive)
    assert digests.read_text() == content
