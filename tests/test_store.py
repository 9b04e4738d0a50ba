"""The store: a training is known by its content, a finished one is found, and nothing else is ever removed."""

import logging
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from maskrd.cli import app
from maskrd.config.files import HISTORY_FILE, WEIGHTS_FILE
from maskrd.engine.store import Stored, identity, link_or_copy, stored_trainings
from maskrd.files import sha256_file, temporary_prefix

HISTORY_LINES = [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}]


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    return Stored.of(tmp_path / "store", {"seed": 0})


@pytest.fixture
def finished(stored: Stored) -> Stored:
    stored.write_progress(HISTORY_LINES, 2, 1.0)
    stored.model.write_bytes(b"weights")
    stored.finish()
    return stored


def test_the_identity_is_content_alone(training_job, tmp_path) -> None:
    job = training_job()
    first = identity(job.recipe, 0, job.index, job.teacher)
    copies = [Path(tmp_path / "elsewhere" / path.name) for path in (job.index, job.teacher)]
    for copy, path in zip(copies, (job.index, job.teacher), strict=True):
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
        os.utime(copy, (0, 0))
    assert identity(job.recipe, 0, *copies) == first
    other_recipe = job.recipe.model_copy(update={"learning_rate": 0.5})
    copies[1].write_bytes(b"another teacher")
    others = [
        identity(other_recipe, 0, job.index, job.teacher),
        identity(job.recipe, 1, job.index, job.teacher),
        identity(job.recipe, 0, job.index, copies[1]),
    ]
    digests = {Stored.of(tmp_path, content).digest for content in (first, *others)}
    assert len(digests) == 4


def test_what_prune_removed_before_the_lock_is_made_again(training_job) -> None:
    from maskrd.engine.training import train

    job = training_job(epochs=1)
    stored = job.stored
    with stored.locked():
        pass
    stored.remove()  # as `maskrd prune --yes` does while another run is about to train
    train(job, stored)
    assert job.model.exists()
    assert stored.read("identity.json") == stored.identity


def test_a_training_reads_index_and_teacher_once_for_its_identity(training_job, monkeypatch) -> None:
    job, read = training_job(epochs=1), []

    def note(path: Path) -> str:
        read.append(path)
        return sha256_file(path)

    monkeypatch.setattr("maskrd.engine.store.identity.__defaults__", (note,))
    files = {"index": job.index, "data": job.data, "teacher": job.teacher, "model": job.model}
    options = {**files, "history": job.history, "store": job.store, "recipe": job.recipe.model_dump_json()}
    command = ["train", "--device", "cpu", *(f"--{key}={value}" for key, value in options.items())]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert read == [job.index, job.teacher]


def test_nothing_is_delivered_before_the_end(stored: Stored, tmp_path: Path) -> None:
    stored.write_progress(HISTORY_LINES, 3, 1.0)
    assert not stored.deliver(tmp_path / WEIGHTS_FILE, tmp_path / HISTORY_FILE)
    assert not (tmp_path / WEIGHTS_FILE).exists()


def test_a_finished_model_is_delivered_as_a_link(finished: Stored, tmp_path: Path) -> None:
    model, history = tmp_path / "models/a" / WEIGHTS_FILE, tmp_path / "models/a" / HISTORY_FILE
    for _ in range(2):  # the second time it is there already
        assert finished.deliver(model, history)
        assert model.samefile(finished.model)
        assert history.read_text(encoding="utf-8") == "epoch,loss\n1,0.5\n2,0.25\n"
    assert [path.name for path in model.parent.iterdir() if path.name.startswith(".")] == []


def test_the_model_of_another_user_is_delivered(finished: Stored, tmp_path: Path, monkeypatch) -> None:
    """Two users may share a folder of results. Only its owner may change the mode of a file."""

    def refuse(*arguments: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "chmod", refuse)
    assert finished.deliver(tmp_path / WEIGHTS_FILE, tmp_path / HISTORY_FILE)
    assert (tmp_path / WEIGHTS_FILE).samefile(finished.model)


def test_without_links_a_copy_is_delivered(finished: Stored, tmp_path: Path, monkeypatch) -> None:
    def refuse(*arguments: object) -> None:
        raise PermissionError

    monkeypatch.setattr("maskrd.engine.store.os.link", refuse)
    link_or_copy(finished.model, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"weights"
    assert not (tmp_path / "copy").samefile(finished.model)


@pytest.mark.parametrize("damage", ["model", "history", "record"])
def test_a_changed_model_is_not_delivered(finished: Stored, tmp_path: Path, damage: str) -> None:
    path = {"model": finished.model, "history": finished.history, "record": finished.folder / "finished.json"}[damage]
    path.write_bytes(b"[7]")
    assert not finished.deliver(tmp_path / WEIGHTS_FILE, tmp_path / HISTORY_FILE)


def test_dropped_weights_are_said_to_be_so(finished: Stored, tmp_path: Path, caplog) -> None:
    assert finished.deliver(tmp_path / WEIGHTS_FILE, tmp_path / HISTORY_FILE, keep_weights=False)
    assert (tmp_path / WEIGHTS_FILE).read_bytes() == b"weights"
    assert not finished.model.exists()
    with caplog.at_level(logging.INFO):
        assert not finished.deliver(tmp_path / WEIGHTS_FILE, tmp_path / HISTORY_FILE)
    assert "weights were deleted (keep_weights)" in caplog.text


def test_only_what_the_store_wrote_is_removed(finished: Stored) -> None:
    for name in ("last.pt", WEIGHTS_FILE):
        (finished.folder / f"{temporary_prefix(name)}elsewhere-17.tmp.pt").write_bytes(b"half")
    others = {finished.folder / name for name in ("notes.txt", ".model.safetensors", "model.safetensors.bak", "last")}
    for path in others:
        path.write_text("mine", encoding="utf-8")
    (finished.folder / "sub").mkdir()
    finished.remove()
    assert set(finished.folder.iterdir()) == {*others, finished.folder / "sub"}


def test_an_emptied_folder_goes(finished: Stored) -> None:
    finished.remove()
    assert not finished.folder.exists()


def test_other_folders_are_no_trainings(finished: Stored) -> None:
    for name in ("notes", "f" * 63, finished.digest.upper()):
        (finished.folder.parent / name).mkdir()
    assert [stored.digest for stored in stored_trainings(finished.folder.parent)] == [finished.digest]
    assert stored_trainings(finished.folder / "nowhere") == []


def test_a_second_run_waits_and_then_finds_the_model(stored: Stored, tmp_path: Path, caplog) -> None:
    inside, found = threading.Event(), []

    def second() -> None:
        inside.wait()
        other = Stored(stored.folder)
        assert other.is_locked()
        with other.locked():
            found.append(other.deliver(tmp_path / WEIGHTS_FILE, tmp_path / HISTORY_FILE))

    thread = threading.Thread(target=second)
    with caplog.at_level(logging.INFO):
        thread.start()
        with stored.locked():
            inside.set()
            while "waiting for it" not in caplog.text:
                assert thread.is_alive()
                thread.join(0.01)
            stored.write_progress(HISTORY_LINES, 2, 1.0)
            stored.model.write_bytes(b"weights")
            stored.finish()
        thread.join()
    assert found == [True]
    assert not stored.is_locked()


def test_a_killed_run_holds_no_lock(stored: Stored) -> None:
    code = f"""
import os
from pathlib import Path
from maskrd.engine.store import Stored
with Stored(Path({str(stored.folder)!r})).locked():
    os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert not stored.is_locked()


def test_a_finished_training_is_found_without_torch(training_job, tmp_path: Path) -> None:
    from maskrd.engine.training import train

    job = training_job(epochs=1)
    train(job)
    again = replace(job, model=tmp_path / "again.safetensors", history=tmp_path / "again.csv")
    options = {"index": job.index, "data": tmp_path / "gone", "teacher": job.teacher, "store": job.store}
    options |= {"model": again.model, "history": again.history, "recipe": job.recipe.model_dump_json(), "seed": 0}
    words = ["train", *(f"--{key}={value}" for key, value in options.items())]
    code = f"""
import sys
from maskrd.cli import app
app({words!r}, standalone_mode=False)
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert again.model.samefile(job.model)
    assert again.history.read_text(encoding="utf-8") == job.history.read_text(encoding="utf-8")
