"""Commands that a preloaded process does: files, exit codes, signals and death are those of a process of their own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from maskrd.engine.inputs import TrainingJob
from maskrd.preloaded import ADDRESS
from tests.test_interruption import SECONDS, command, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere commands do their work themselves")

# `python -m maskrd`, but with an exit code of its own where no other process did the work.
ASK = "import sys; from maskrd.preloaded import hand_over; code = hand_over(); sys.exit(99 if code is None else code)"
ENDLESS = {"epochs": 1_000_000, "batch_size": 2}


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """That of commands below a preloaded process."""
    shell = ["sh", "-c", f"echo ${ADDRESS}; read line; exit 7"]
    words = [sys.executable, "-m", "maskrd.preloaded", *shell]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield {**os.environ, ADDRESS: process.stdout.readline().strip()}
        process.communicate("\n")
    assert process.returncode == 7  # the command's


def ask(words: list[str], environment: dict[str, str], **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", ASK, *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS, **options)


def test_output_and_exit_code_are_the_callers(environment, tmp_path) -> None:
    written = ask(["audit", "--output", "audit.csv"], environment, cwd=tmp_path)
    assert (written.returncode, written.stderr) == (0, "")
    assert (tmp_path / "audit.csv").exists()
    assert "Usage" in ask(["--help"], environment).stdout
    wrong = ask(["figure", "--view", "{", "--models", "a", "--png", "b", "--pdf", "c"], environment)
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("Error: --view")
    assert ask(["nonsense"], environment).returncode == 2


@pytest.fixture
def begun(training_job, environment, tmp_path, signals_heard) -> Iterator[tuple[TrainingJob, subprocess.Popen, Path]]:
    """A training in its first epochs, its caller and its log."""
    job, log = training_job("stopped", **ENDLESS), tmp_path / "log"
    words = [sys.executable, "-c", ASK, *command(job)[3:]]
    with log.open("wb") as file, subprocess.Popen(words, stderr=file, env=environment) as process:
        try:
            wait_for(lambda: "loss=" in log.read_text(), log, process)  # an epoch is over
            yield job, process, log
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_caller_stops_a_training_with_its_state_saved(begun, number) -> None:
    job, process, log = begun
    process.send_signal(number)
    assert process.wait(SECONDS) == 128 + number, log.read_text()
    assert f"{number.name}: stopped;" in log.read_text()
    assert (job.stored.folder / "last.pt").exists()


def test_a_killed_callers_training_dies_with_it(begun) -> None:
    job, process, _ = begun
    assert job.stored.is_locked()
    process.kill()
    process.wait(SECONDS)
    deadline = time.monotonic() + SECONDS
    while job.stored.is_locked():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not job.model.exists()


def test_a_long_name_of_the_temporary_folder_only_costs_time(tmp_path) -> None:
    folder = tmp_path / ("t" * 110)
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "maskrd.preloaded", "true"],
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_without_the_process_a_command_does_its_work_itself(tmp_path) -> None:
    gone = {**os.environ, ADDRESS: str(tmp_path / "gone")}
    words = [sys.executable, "-m", "maskrd", "audit", "--output", str(tmp_path / "audit.csv")]
    assert subprocess.run(words, env=gone, timeout=SECONDS, check=False).returncode == 0
    assert (tmp_path / "audit.csv").exists()
