"""Files of the results, and those of a user, that hold something else: each is refused by its name, or left out."""

import json
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from maskrd.arrays import Form, read_arrays
from maskrd.config.external import map_files
from maskrd.config.method_file import method_file_digest
from maskrd.config.settings import Model
from maskrd.data.changes import recall
from maskrd.data.index_file import Entry, Index
from maskrd.data.stc import load_clip
from maskrd.engine.anomaly_maps import read_map, read_scores
from maskrd.engine.store import Stored
from maskrd.errors import MaskrdError
from maskrd.gallery import Gallery, quantise, read_range
from maskrd.methods.teacher import load_teacher
from maskrd.reporting.collect import read_speed
from maskrd.reporting.html import read_piece
from maskrd.reporting.runs_page import find_records
from maskrd.reporting.tested import read_history
from maskrd.workflow.data import weights_of_teacher
from tests.conftest import training_settings
from tests.records import make_record, write_record

DEEP = "[" * 100_000
BAD_HEADER = b"\x93NUMPY\x01\0" + (118).to_bytes(2, "little") + b"((((".ljust(117) + b"\n"


def write(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def assert_refused(call, path: Path) -> None:
    with pytest.raises(MaskrdError, match=re.escape(path.name)):
        call(path)


@pytest.mark.parametrize(
    "change",
    [
        {"category": ["bolt"]},
        {"category": "\0"},
        {"category": "\ud800"},
        {"digests": []},
        {"digests": {}},
        {"test": []},
        {"test": [{"image": 5}]},
        {"test": [{"image": "../secret"}]},
        {"surplus": 1},
    ],
)
def test_an_odd_index(index_file: Path, tmp_path: Path, change: dict) -> None:
    content = json.loads(index_file.read_text(encoding="utf-8"))
    assert_refused(Index.read, write(tmp_path / "index.json", json.dumps({**content, **change})))


@pytest.mark.parametrize("read", [Index.read, read_speed])
def test_json_that_is_nested_too_deeply(tmp_path: Path, read) -> None:
    assert_refused(read, write(tmp_path / "deep.json", DEEP))


@pytest.mark.parametrize("text", [DEEP, '{"a.png": [Infinity, 1, "x"]}', '{"a.png": [1]}', "[]", ""])
def test_an_odd_memory_or_identity_is_as_none(tmp_path: Path, text: str) -> None:
    assert recall(write(tmp_path / "memory.json", text)) == {}
    if "Infinity" not in text and "[1]" not in text:
        write(tmp_path / "identity.json", text)
        assert Stored(tmp_path).read("identity.json") == {}


@pytest.mark.parametrize(
    "content",
    [{"frames_per_second": [1], "machine": {"device": "CPU", "threads": 1}}, {"frames_per_second": {}, "machine": "x"}],
)
def test_an_odd_speed(tmp_path: Path, content: dict) -> None:
    assert_refused(read_speed, write(tmp_path / "speed.json", json.dumps(content)))


@pytest.mark.parametrize("text", [DEEP, "{", '{"backbone": "demo_resnet18", "weights_sha256": 5}', '{"backbone": []}'])
def test_odd_metadata_of_a_teacher(teacher_file: Path, tmp_path: Path, text: str) -> None:
    path = tmp_path / "teacher.safetensors"
    save_file(load_file(teacher_file), path, metadata={"teacher": text})
    assert_refused(load_teacher, path)
    assert weights_of_teacher(path) in ("", "5")


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"a,b\n1,2\n", b"epoch,loss\n1\n", b"epoch,loss\n1,2,3\n", b"epoch,loss\n1,x\n",
                b"epoch,loss\n1,inf\n", b"epoch,loss\n1," + b"9" * 200_000 + b"\n"]
)  # fmt: skip
def test_an_odd_training_curve(tmp_path: Path, content: bytes) -> None:
    assert_refused(read_history, write(tmp_path / "history.csv", content))


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"image,score\n" + b"x" * 200_000 + b",1\n", b"image,score\nx,1e39\n"]
)
def test_odd_scores_of_external_results(tmp_path: Path, content: bytes) -> None:
    assert_refused(lambda path: read_scores(path, [Entry("x")]), write(tmp_path / "scores.csv", content))


def test_an_odd_anomaly_map(tmp_path: Path, recipe) -> None:
    path = tmp_path / "000.tiff"
    Image.new("L", (20_000, 20_000)).save(path)  # larger than Pillow reads
    assert_refused(lambda path: read_map(path, recipe()), path)
    write(path, "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(MaskrdError, match=r"000\.tiff: can't be read.*cannot identify"):  # and isn't run
        read_map(path, recipe())
    path.unlink()
    path.mkdir()
    assert map_files(tmp_path) == []
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/1.tiff").touch()
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps/test").symlink_to(tmp_path / "elsewhere")
    assert map_files(tmp_path / "maps") == [tmp_path / "maps/test/1.tiff"]


@pytest.mark.parametrize("content", [b"", b"text", BAD_HEADER])
def test_odd_masks_of_a_clip(tmp_path: Path, content: bytes) -> None:
    assert_refused(load_clip, write(tmp_path / "clip.npy", content))
    np.savez(tmp_path / "clip.npz", a=np.zeros(3))
    assert_refused(load_clip, (tmp_path / "clip.npz").rename(tmp_path / "clip.npy"))


@pytest.mark.parametrize("text", ["class A: pass\n" + "-" * 100_000 + "1", "(" * 10_000, "class A: pass\0"])
def test_an_odd_method_file(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "mine.py", text)
    assert_refused(lambda path: method_file_digest("train.method", f"{path}:A"), path)


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    path, maps = tmp_path / "gallery.npz", np.random.default_rng(0).random((2, 32, 32))
    images, pro = np.full((2, 3, 32, 32), 9, np.uint8), np.array([[0, 0.3], [0.5, 1]])
    Gallery(("a", "b"), ("good", "cut"), np.zeros(2), images, quantise(maps, 0, 1), 0, 1, maps > 0.5, pro).write(path)
    return path


@pytest.mark.parametrize(
    "change",
    [
        {"names": np.array("a")},
        {"defects": np.array(["good"])},
        {"scores": np.array(["a", "b"])},
        {"scores": np.array([0, np.nan])},
        {"low": np.array([0.0, 1.0])},
        {"ends": np.array([10**9, 10**9])},
        {"ends": np.array([[0, 1]])},
        {"images": np.frombuffer(b"GIF89a", np.uint8)},
        {"maps": np.zeros((1, 2, 2), np.uint8)},
        {"maps": np.zeros((2, 32, 32))},
        {"masks": np.zeros((1, 1, 1), bool)},
        {"pro": np.zeros((2, 0))},
        {"pro": np.zeros(3)},
    ],
)
def test_an_odd_gallery(gallery: Path, change: dict) -> None:
    assert len(Gallery.read(gallery).names) == 2
    np.savez(gallery, **{**np.load(gallery), **change})
    assert_refused(Gallery.read, gallery)
    if "low" in change:
        assert_refused(read_range, gallery)


@pytest.mark.parametrize("kind", ["other compression", "encrypted", "too large", "header"])
def test_an_odd_zip_of_arrays(tmp_path: Path, kind: str) -> None:
    header = b"\x93NUMPY\x01\0" + (118).to_bytes(2, "little")
    huge = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"
    path = tmp_path / "arrays.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("low.npy", BAD_HEADER if kind == "header" else header + huge.ljust(117) + b"\n")
    content = bytearray(path.read_bytes())
    directory = content.find(b"PK\1\2")
    if kind == "other compression":
        content[8] = content[directory + 10] = 99
    if kind == "encrypted":
        content[6] = content[directory + 8] = 1
    path.write_bytes(content)
    assert_refused(lambda path: read_arrays(path, {"low": Form("f", 0)}), path)


def test_a_page_that_is_none_of_ours(tmp_path: Path) -> None:
    assert_refused(read_piece, write(tmp_path / "table1.html", b"\xff<title>x</title>"))


def test_a_copy_of_a_models_folder_is_no_model(tmp_path: Path) -> None:
    for name in ("seed0.bak", "seedless"):
        folder = tmp_path / "demo/bolt/maskrd/resnet18" / name
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text("{}")
    assert find_records(tmp_path) == {}


def test_a_report_refuses_the_record_of_another_model(tmp_path: Path, default_config, evaluation) -> None:
    model = Model("demo", "bolt", "maskrd", "resnet18", 0)
    record = make_record(model, {}, training_settings(default_config["train"]), evaluation())
    write_record(tmp_path, replace(model, category="nut"), record)
    with pytest.raises(MaskrdError, match=r"nut/.*: the record of demo/bolt/maskrd/resnet18/seed0"):
        find_records(tmp_path)
