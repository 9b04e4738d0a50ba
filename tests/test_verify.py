"""`maskrd verify`: somebody else's models, tested anew and compared."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from maskrd.cli import app
from maskrd.engine.evaluation import EvaluationJob, evaluate
from maskrd.engine.machine import Machine
from maskrd.engine.training import train
from tests.conftest import ROOT


@pytest.fixture
def sent(tmp_path: Path, training_job, evaluation, monkeypatch) -> Path:
    """A model with its record, as somebody would send them; results with an index and a teacher, and no model."""
    job = training_job(epochs=1)
    train(job)
    folder = tmp_path / "sent/demo/bolt/maskrd/demo_resnet18/seed0"
    folder.mkdir(parents=True)
    shutil.copy(job.model, folder / "model.safetensors")
    test = EvaluationJob(
        job.index, job.data, job.teacher, folder / "model.safetensors", evaluation(), job.recipe, Machine("cpu")
    )
    evaluate(test, folder / "metrics.json", tmp_path / "scores.csv", tmp_path / "gallery.npz")
    for name, source in (("data/demo/bolt.json", job.index), ("teachers/demo_resnet18.safetensors", job.teacher)):
        (tmp_path / "results" / name).parent.mkdir(parents=True)
        shutil.copy(source, tmp_path / "results" / name)
    datasets = {"demo": {"path": str(job.data), "categories": ["bolt"]}}
    settings = {"results": str(tmp_path / "results"), "device": "cpu", "datasets": datasets}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.chdir(ROOT)
    return folder


def run_verify(sent: Path) -> str:
    root = sent.parents[5]
    result = CliRunner().invoke(app, ["verify", str(root / "sent"), "--configfile", str(root / "mine.yaml")])
    return f"{result.output}{result.exception or ''}"


def test_a_person_does_not_wait_for_a_gpu_for_ever(sent: Path, monkeypatch) -> None:
    machines = []
    monkeypatch.setattr("maskrd.inspection.verify.verify_models", lambda *given: machines.append(given[2]) or [])
    run_verify(sent)
    assert machines[0].patience == 30


def test_a_model_gives_the_numbers_of_its_record(sent: Path) -> None:
    files = {path: path.read_bytes() for path in sent.iterdir()}
    assert f"{sent}: as recorded; largest difference 0 points" in run_verify(sent)
    assert {path: path.read_bytes() for path in sent.iterdir()} == files


def test_a_number_that_the_model_doesnt_give_is_told(sent: Path) -> None:
    record = json.loads((sent / "metrics.json").read_text())
    record["aupro"] = abs(record["aupro"] - 0.01)
    (sent / "metrics.json").write_text(json.dumps(record))
    output = run_verify(sent)
    assert "differs; largest difference 1 points" in output
    assert "1 models differ by more than 0.1 points" in output


def test_other_weights_than_those_of_the_record_are_refused(sent: Path) -> None:
    record = json.loads((sent / "metrics.json").read_text())
    record["evaluation"]["model_sha256"] = "0" * 64
    (sent / "metrics.json").write_text(json.dumps(record))
    assert "belongs to other weights" in run_verify(sent)


def test_a_missing_index_is_told_with_the_command_that_makes_it(sent: Path) -> None:
    index = sent.parents[5] / "results/data/demo/bolt.json"
    index.unlink()
    assert f"Run `snakemake --cores 2 {index}`" in run_verify(sent)


def test_a_folder_without_models_is_told(sent: Path) -> None:
    (sent / "model.safetensors").unlink()
    assert "no folder with both" in run_verify(sent)
