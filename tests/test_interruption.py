"""The command `maskrd train` as a process: a signal in mid-epoch costs the step at hand, not the training."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from maskrd.engine.features import FeatureSource
from maskrd.engine.inputs import TrainingJob
from maskrd.engine.interruption import Interrupted
from maskrd.engine.loop import Trainer
from maskrd.engine.training import train

SHORT = {"epochs": 4, "batch_size": 2}  # three steps an epoch
SECONDS = 600  # a hung process fails the test; a slow or busy machine doesn't
# `python -m maskrd`, but after its fourth step it waits as long as the file `held` is there. So no machine is too fast.
HELD = """
import time
from pathlib import Path
from maskrd.cli import main
from maskrd.engine.loop import Trainer

held, step, steps = Path("held"), Trainer.step, []


def step_and_wait(*given):
    loss = step(*given)
    steps.append(loss)
    if len(steps) == 4:
        held.touch()
        while held.exists():
            time.sleep(0.01)
    return loss


Trainer.step = step_and_wait
main()
"""


def command(job: TrainingJob) -> list[str]:
    options = {
        "index": job.index,
        "data": job.data,
        "teacher": job.teacher,
        "recipe": job.recipe.model_dump_json(),
        "seed": job.seed,
        "model": job.model,
        "history": job.history,
        "store": job.store,
        "device": "cpu",
    }
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    return [sys.executable, "-m", "maskrd", "train", *words]


def wait_for(condition: Callable[[], bool], log: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_saves_and_the_next_run_ends_as_an_unbroken_one(training_job, tmp_path, signals_heard, number):
    job, log, held = training_job("stopped", **SHORT), tmp_path / "log", tmp_path / "held"
    words = [sys.executable, "-c", HELD, *command(job)[3:]]
    with log.open("wb") as file, subprocess.Popen(words, stderr=file, cwd=tmp_path) as process:
        try:
            wait_for(held.exists, log, process)
            process.send_signal(number)
            held.unlink()
            assert process.wait(SECONDS) == 128 + number, log.read_text()
        finally:
            process.kill()
    assert f"{number.name}: stopped;" in log.read_text()
    assert (job.stored.folder / "last.pt").exists()
    assert not job.model.exists()

    again = subprocess.run(command(job), stderr=subprocess.PIPE, text=True, timeout=SECONDS, check=False)
    assert again.returncode == 0, again.stderr
    assert "Continuing at epoch 2, step 1." in again.stderr
    unbroken = training_job("unbroken", **SHORT)
    train(unbroken)
    weights = load_file(unbroken.model)
    resumed = load_file(job.model)
    assert all(torch.equal(resumed[name], weights[name]) for name in weights)
    assert job.history.read_text() == unbroken.history.read_text()
    assert not (job.stored.folder / "last.pt").exists()


def test_a_signal_before_the_first_step_is_obeyed_at_once(training_job, monkeypatch):
    """As a teacher may take minutes over the images, and a cluster kills 30 s after it asked."""

    def signalled(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        pytest.fail("went on")

    monkeypatch.setattr(FeatureSource, "compute", signalled)
    monkeypatch.setattr(Trainer, "step", lambda *arguments: pytest.fail("made a step"))
    job = training_job()
    with pytest.raises(Interrupted, match="SIGTERM"):
        train(job)
    assert not (job.stored.folder / "last.pt").exists()
