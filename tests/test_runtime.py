"""A full GPU fails with the settings to change, and changes none by itself."""

import pytest
import torch

from maskrd.engine.evaluation import EvaluationJob, evaluate
from maskrd.engine.loop import Trainer
from maskrd.engine.machine import Machine
from maskrd.engine.training import train
from maskrd.errors import MaskrdError
from maskrd.methods.teacher import Teacher

REASON = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 10.00 GiB"


def full(*arguments):
    raise torch.OutOfMemoryError(REASON)


@pytest.mark.parametrize("place", [(Trainer, "step"), (Teacher, "forward")], ids=["in a step", "in the teacher"])
def test_a_full_gpu_in_training_names_what_to_change(training_job, monkeypatch, place):
    job = training_job(batch_size=3, cache_gb=1.5)
    monkeypatch.setattr(*place, full)
    with pytest.raises(MaskrdError) as error:
        train(job)
    for part in ("CUDA out of memory", "gpu=1", "MASKRD_CACHE_GB, now 1.5", "batch_size (now 3)"):
        assert part in str(error.value)
    assert not job.model.exists()


def test_a_full_gpu_in_testing_names_what_to_change(training_job, evaluation, monkeypatch, tmp_path):
    job = training_job(epochs=1)
    train(job)
    monkeypatch.setattr(Teacher, "forward", full)
    files = job.index, job.data, job.teacher, job.model
    test = EvaluationJob(*files, evaluation(), job.recipe, Machine("cpu"))
    with pytest.raises(MaskrdError, match=r"out of memory.*gpu=1\)\.$"):
        evaluate(test, tmp_path / "m.json", tmp_path / "s.csv", tmp_path / "g.npz")
    assert not (tmp_path / "m.json").exists()
