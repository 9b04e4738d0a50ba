"""`checkpoint: best_on_test`: the leak chooses what it says, says what it is, and survives interruptions."""

import csv
import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from statistics import fmean

import pytest
import torch
from safetensors.torch import load_file

from maskrd.data import samples
from maskrd.data.index_file import Index
from maskrd.engine.evaluation import EvaluationJob, evaluate
from maskrd.engine.inputs import TrainingJob, load_inputs
from maskrd.engine.interruption import Interrupted
from maskrd.engine.loop import Trainer
from maskrd.engine.machine import Machine
from maskrd.engine.model_file import read_training
from maskrd.engine.selection import Selection
from maskrd.engine.training import train
from maskrd.errors import MaskrdError


@pytest.fixture
def leaking_job(training_job, evaluation) -> Callable[..., TrainingJob]:
    """Six images in batches of two are three steps an epoch. A high rate makes the epochs' metrics differ."""
    settings = {"checkpoint": "best_on_test", "epochs": 5, "learning_rate": 0.02}

    def build(name: str, testing: dict | None = None, **changes) -> TrainingJob:
        return training_job(name, **{**settings, "selection": evaluation(**testing or {}), **changes})

    return build


def curve(job: TrainingJob) -> list[dict[str, float]]:
    with job.history.open() as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def equal_weights(a: TrainingJob, b: TrainingJob) -> bool:
    one, two = load_file(a.model), load_file(b.model)
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
def test_the_kept_epoch_is_the_best_and_evaluates_to_its_score(leaking_job, evaluation, tmp_path, masked):
    testing = {"score": "mean", "blur_sigma": 1, "mask_at_test": masked}
    job = leaking_job("leak", testing)
    train(job)
    scores = [line["test_score"] for line in curve(job)]
    best = scores.index(max(scores))
    assert len(set(scores)) > 1
    assert read_training(job.model).best_epoch == best + 1
    shorter = leaking_job("shorter", testing, epochs=best + 1)
    train(shorter)
    assert equal_weights(job, shorter)
    files = (job.index, job.data, job.teacher, job.model)
    evaluate(
        EvaluationJob(*files, evaluation(**testing), job.recipe, Machine("cpu")),
        tmp_path / "metrics.json",
        tmp_path / "scores.csv",
        tmp_path / "gallery.npz",
    )
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    values = [metrics[name] for name in ("image_auroc", "pixel_auroc", "aupro")]
    assert fmean(values) == pytest.approx(max(scores), abs=1e-6)  # history.csv has six digits
    assert metrics["training"]["leak"] == "the checkpoint was chosen on the test images"


def test_a_worse_epoch_is_not_kept(leaking_job, monkeypatch):
    """With the order of epochs given: the first of two equal ones stays."""
    for values, best in (([0.5, 0.9, 0.7], 2), ([0.9, 0.9, 0.1], 1), ([0.1, 0.2, 0.3], 3)):
        scores = iter(values)
        monkeypatch.setattr(Selection, "quality", lambda self, scores=scores: next(scores))
        job = leaking_job(f"best{best}", epochs=3)
        train(job)
        assert read_training(job.model).best_epoch == best


def test_testing_changes_nothing_of_the_training(leaking_job, training_job, monkeypatch):
    """The last epoch, were it kept, has the weights of an honest training: the leak is all that differs."""
    scores = iter(range(5))
    quality = Selection.quality
    monkeypatch.setattr(Selection, "quality", lambda self: quality(self) * 0 + next(scores))
    leaking, honest = leaking_job("leak"), training_job("honest", epochs=5, learning_rate=0.02)
    train(leaking)
    train(honest)
    assert equal_weights(leaking, honest)
    assert read_training(honest.model).leak is None
    assert "test_score" not in curve(honest)[0]


def test_it_is_told_in_the_log(leaking_job, training_job, caplog):
    load_inputs(leaking_job("leak"))
    assert "LEAK: checkpoint: best_on_test" in caplog.text
    caplog.clear()
    load_inputs(training_job("honest"))
    assert "LEAK" not in caplog.text


def test_honest_trainings_read_no_test_image(training_job, leaking_job, monkeypatch):
    read, original = [], samples.load_samples

    def load(index, entries, *rest):
        read.extend(entries)
        return original(index, entries, *rest)

    monkeypatch.setattr(samples, "load_samples", load)
    job = training_job("honest", epochs=1)
    test_images = set(Index.read(job.index).test)
    train(job)
    assert read
    assert not test_images & set(read)
    train(leaking_job("leak", epochs=1))
    assert test_images <= set(read)


# Three steps an epoch: within one, at its end (the test set is next), and in the last epoch.
@pytest.mark.parametrize("step", [2, 3, 7, 9, 14])
@pytest.mark.parametrize("testing", [{}, {"mask_at_test": True}], ids=["plain", "masked"])
def test_a_stopped_training_ends_as_an_unbroken_one(leaking_job, monkeypatch, step, testing):
    unbroken, stopped = leaking_job("unbroken", testing), leaking_job("stopped", testing)
    train(unbroken)
    original, done = Trainer.step, 0

    def step_and_stop(self, positions):
        nonlocal done
        loss = original(self, positions)
        done += 1
        if done == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss

    monkeypatch.setattr(Trainer, "step", step_and_stop)
    with pytest.raises(Interrupted):
        train(stopped)
    assert not stopped.model.exists()
    train(stopped)
    assert equal_weights(stopped, unbroken)
    assert stopped.history.read_text() == unbroken.history.read_text()
    assert read_training(stopped.model).best_epoch == read_training(unbroken.model).best_epoch


def test_held_out_images_stay_held_out(leaking_job):
    job = leaking_job("leak", epochs=2, validation_fraction=0.34)
    train(job)
    assert list(curve(job)[0]) == ["epoch", "loss", "validation_loss", "test_score"]
    assert read_training(job.model).images == 4


@pytest.mark.parametrize("missing", ["good", "defective"])
def test_a_test_set_of_one_kind_is_refused(leaking_job, tmp_path, missing):
    job = leaking_job("leak")
    index = Index.read(job.index)
    kept = tuple(entry for entry in index.test if (entry.defect == "good") is (missing == "defective"))
    replace(index, test=kept).write(tmp_path / "index.json")
    with pytest.raises(MaskrdError, match=r"demo/bolt: checkpoint: best_on_test compares.*Use checkpoint: last"):
        train(replace(job, index=tmp_path / "index.json"))
