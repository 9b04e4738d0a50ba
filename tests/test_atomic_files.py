"""Files are whole or absent, and a killed process leaves nothing for good."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from maskrd.errors import MaskrdError
from maskrd.files import atomic_path, replaced_folder, write_text

WRITER = """
import sys
from pathlib import Path
from maskrd.files import atomic_path
with atomic_path(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print("ready", flush=True)
    sys.stdin.read()
"""


def start_writer(path: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", WRITER, str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    return process


def test_the_next_writer_removes_what_a_killed_one_left_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    (own := tmp_path / ".scores.1.tmp.csv").touch()  # a name of that kind that we didn't make
    killed, running = start_writer(path), start_writer(path)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert len(list(tmp_path.iterdir())) == 3
    write_text(path, "whole")
    assert path.read_text() == "whole"
    assert own.exists()
    assert len(list(tmp_path.iterdir())) == 3, "the file, the user's, and the one of the running process"
    running.terminate()
    running.wait()


def test_a_name_of_the_greatest_length_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("ü" * 125 + ".json")
    write_text(path, "x")
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_told_with_the_files_name(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as caught, atomic_path(tmp_path / "model.csv"):
        Path("/dev/full").write_text("x" * 100_000)
    assert caught.value.filename == str(tmp_path / "model.csv")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [".", "/"])
def test_a_folder_is_no_file_to_write(name: str) -> None:
    with pytest.raises(MaskrdError, match="a folder"):
        write_text(Path(name), "x")


@pytest.mark.parametrize("name", [".", "data", "/"])
def test_a_folder_of_somebody_else_is_left_alone_with_all_beside_it(tmp_path: Path, monkeypatch, name: str) -> None:
    own = [tmp_path / "data/photo.png", tmp_path / "data.lock", tmp_path / ".data.old/photo.png"]
    for path in own:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(MaskrdError, match="left as it is"), replaced_folder(Path(name)):
        pass
    assert sorted(tmp_path.rglob("*")) == before
    (own[0]).unlink()
    with replaced_folder(Path("data")) as folder:  # an empty one is nobody's
        (folder / "new.png").touch()
    assert (tmp_path / "data/new.png").exists()
    assert [path.read_text() for path in own[1:]] == ["mine", "mine"]


def test_a_disk_that_is_full_for_a_folder_is_told_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as caught, replaced_folder(tmp_path / "maps"):
        Path("/dev/full").write_text("x" * 100_000)
    assert caught.value.filename == str(tmp_path / "maps")
