"""What a reviewer types: audit, verdict, explain, status, predict."""

import csv
import json
import os
import re
import shlex
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from maskrd import provenance
from maskrd.cli import app
from maskrd.configuration import load_experiment
from maskrd.errors import MaskrdError
from maskrd.evaluation import Job as EvaluationJob
from maskrd.evaluation import evaluate
from maskrd.experiment import Model
from maskrd.places import Places
from maskrd.prediction import predict
from maskrd.reporting.explain import explain
from maskrd.reporting.status import error_of, model_status, overview
from maskrd.scoring import read_description
from maskrd.training import train
from tests.workflow.conftest import make_workspace

ROOT = Path(__file__).parents[1]


@pytest.fixture
def snakemake(tmp_path: Path) -> Callable[..., str]:
    """Run Snakemake in a copy: in the checkout, a user's own run may be going on."""
    folder = tmp_path / "clone"
    folder.mkdir()
    workspace = make_workspace(folder)

    def run(*arguments: str) -> str:
        outcome = workspace.snakemake(*arguments, cores=1)
        assert outcome.code == 0, outcome.output
        return outcome.output

    return run


def jobs(output: str) -> set[str]:
    """The rules of a run or plan, from Snakemake's "Job stats"."""
    return set(re.findall(r"^(\w+) +\d+$", output, re.MULTILINE)) - {"total"}


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A configuration of one's own: two categories, a variant tested differently."""
    path = tmp_path / "mine.yaml"
    content = {
        "results": str(tmp_path / "results"),
        "backbones": ["resnet18"],
        "datasets": {"mvtec_ad": {"categories": ["screw", "bottle"]}},
        "variants": {"mean_score": {"score": "mean"}},
        "tables": {
            "scores": {
                "dataset": "mvtec_ad",
                "rows": "variants",
                "variants": ["mean_score", "maskrd"],
                "metrics": ["image_auroc"],
                "caption": "Scores.",
            }
        },
    }
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


@pytest.fixture
def experiment(mine: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    return load_experiment([mine])


def test_audit_and_verdict_need_no_data_and_train_nothing(mine, snakemake):
    output = snakemake("--configfile", str(mine), "--", "audit", "verdict")
    assert jobs(output) == {"check_means", "judge_claims", "judge", "audit", "verdict"}
    results = mine.parent / "results"
    rows = list(csv.reader((results / "audit.csv").open(encoding="utf-8")))
    assert rows[0] == ["table", "method", "metric", "recomputed", "printed", "difference", "explained"]
    assert {row["numbers"].split(",")[0] for row in csv.DictReader((results / "claims.csv").open())} == {"printed"}
    assert {row["verdict"] for row in csv.DictReader((results / "verdict.csv").open())} == {"not run"}
    assert {"verdict.md", "verdict.png", "verdict.pdf"} <= {path.name for path in results.iterdir()}
    # New metrics, no other inputs: only what judges them is made anew.
    path = results / "models/mvtec_ad/screw/maskrd/resnet18/seed0/metrics.json"
    path.parent.mkdir(parents=True)
    path.write_text("{}", encoding="utf-8")
    plan = snakemake("--configfile", str(mine), "-n", "--", "audit", "verdict")
    assert jobs(plan) == {"judge", "judge_claims", "audit", "verdict"}


def test_explain_prints_the_commands_that_snakemake_runs(mine, experiment, snakemake):
    model = Model("mvtec_ad", "screw", "mean_score", "resnet18", 0)
    places = Places(experiment, model)
    plan = snakemake("--configfile", str(mine), "-n", "-p", "--", str(places.metrics))
    for name, command in (("train", places.train_command()), ("evaluate", places.evaluate_command())):
        planned = shlex.split(re.search(rf"(python -m maskrd {name} .*)", plan)[1])
        given_by_snakemake = planned.index("--threads")
        assert planned[:given_by_snakemake] == command
    assert str(places.log("train")) in plan
    assert str(places.log("evaluate")) in plan


def test_variants_that_differ_in_testing_share_files_of_training(experiment):
    one, other = (Places(experiment, Model("mvtec_ad", "screw", v, "resnet18", 0)) for v in ("mean_score", "maskrd"))
    assert one.weights == other.weights
    assert one.log("train") == other.log("train")
    assert one.metrics != other.metrics


def write_metrics(experiment, model: Model, **recipe) -> None:
    trained = experiment.recipe(model.dataset, model.variant).training.model_dump(mode="json") | recipe
    training = {
        "recipe": trained, "seed": model.seed, "images": 320, "epochs": 200, "parameters": 14714048, "seconds": 661.29,
        "device": "a GPU", "threads": 3, "maskrd": "0.1.0", "torch": "2", "python": "3", "commit": "c0ffee",
        "data_sha256": "da7a", "teacher_sha256": "7eac4e5", "weights_sha256": "3e16475",
    }  # fmt: skip
    evaluation = {"recipe": {"score": "max"}, "images": 160, "seconds": 5.98, "device": "CPU", "model_sha256": "30de1"}
    metrics = {"image_auroc": 0.8559, "pixel_auroc": 0.985, "aupro": None, "pro_per_image": None}
    path = Places(experiment, model).metrics
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(metrics | {"training": training, "evaluation": evaluation}), encoding="utf-8")


def test_explain_tells_what_made_a_number(experiment):
    write_metrics(experiment, Model("mvtec_ad", "screw", "maskrd", "resnet18", 0))
    text = "\n".join(explain(experiment, "table1", ["screw"]))
    digests = ("c0ffee", "da7a", "7eac4e5", "3e16475", "30de1")
    for fact in ("image_auroc 85.59", "661.29", "a GPU, threads 3", "epochs 200", *digests):
        assert fact in text
    assert "now configured" not in text
    assert "logs/train/mvtec_ad/screw/maskrd/resnet18/seed0.log (not there)" in text
    train, evaluate = (line for line in text.splitlines() if "python -m maskrd" in line)
    assert train.endswith("--threads 3")
    assert "--threads" not in evaluate  # as recorded before they were


def test_explain_says_where_the_configuration_moved_on(experiment):
    write_metrics(experiment, Model("mvtec_ad", "screw", "maskrd", "resnet18", 0), epochs=3)
    assert re.search(r"now configured +epochs 200: ", "\n".join(explain(experiment, "table1", ["screw"])))


def test_explain_of_many_models_is_a_line_each(experiment):
    lines = list(explain(experiment, "table5", ["mean"]))
    assert lines[0].startswith("table5 mean: 0 of 4 models done")
    assert sum("not run" in line for line in lines) == 4
    assert "maskrd train" not in "".join(lines)


@pytest.mark.parametrize(("name", "cell", "hint"), [("tabel1", [], "'table1'"), ("table1", ["screws"], "'screw'")])
def test_explain_knows_what_was_meant(experiment, name, cell, hint):
    with pytest.raises(MaskrdError, match=f"Did you mean {hint}"):
        list(explain(experiment, name, cell))


def test_configuration_files_are_merged_in_order(mine, monkeypatch):
    monkeypatch.chdir(ROOT)
    more = mine.with_name("more.yaml")
    more.write_text("train: {epochs: 7}\nbackbones: [resnet50]\n", encoding="utf-8")
    experiment = load_experiment([mine, more])
    assert experiment.recipe("mvtec_ad", "maskrd").training.epochs == 7
    assert experiment.recipe("mvtec_ad", "maskrd").training.batch_size == 16
    assert experiment.backbone == "resnet50"
    assert experiment.datasets["mvtec_ad"].categories == ("screw", "bottle")


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no such file"), ("a: [", "not readable"), ("word", "mapping")]
)
def test_unusable_configuration_files_are_named(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(ROOT)
    path = tmp_path / "bad.yaml"
    if content:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(MaskrdError, match=rf"bad\.yaml: .*{message}"):
        load_experiment([path])


def test_outside_the_repository_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MaskrdError, match="top of the repository"):
        load_experiment()


def put(path: Path, text: str = "", age: float = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    os.utime(path, (time.time() - age,) * 2)


def test_status_of_a_model(experiment):
    places = Places(experiment, Model("mvtec_ad", "screw", "maskrd", "resnet18", 0))

    def status() -> str:
        return model_status(places, time.time())

    assert status() == "left"
    places.state.mkdir(parents=True)
    assert status() == "interrupted"
    put(places.log("train"), "50%|##")
    assert status() == "running"
    put(places.log("train"), "50%|##\nSIGINT: stopped in epoch 3; the next run goes on from here.\n")
    assert status() == "interrupted"
    put(places.log("train"), "50%|##", age=1000)
    assert status() == "interrupted"
    put(places.log("train"), "50%|##\nError: the disk is full.\n")
    assert status() == "failed"
    put(places.weights)
    assert status() == "trained"
    put(places.log("evaluate"), "Traceback (most recent call last):\n  File x\nValueError: odd\n")
    assert (status(), error_of(places.log("evaluate"))) == ("failed", "ValueError: odd")
    put(places.metrics)
    assert status() == "done"


def test_status_counts_shared_models_once(experiment):
    write_metrics(experiment, Model("mvtec_ad", "screw", "maskrd", "resnet18", 0))
    put(Places(experiment, Model("mvtec_ad", "bottle", "no_fmm", "resnet18", 0)).log("train"), "Error: no space.\n")
    console = Console(width=140, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    console.print(overview(experiment))
    text = console.export_text()
    rows = {cells[0]: cells[1:] for line in text.splitlines() if (cells := re.split(r"\s*[│┃]\s*", line.strip(" │┃")))}
    assert rows["table1"] == ["1", "-", "-", "-", "-", "1"]
    assert rows["table5"] == ["1", "-", "-", "-", "1", "2"]
    assert rows["all, each once"][0] == "1"
    assert "mvtec_ad/bottle/no_fmm/resnet18/seed0: Error: no space." in text


def test_status_and_explain_run_from_the_command_line(mine, monkeypatch):
    monkeypatch.chdir(ROOT)
    for arguments in (["status"], ["explain", "table1", "screw"]):
        result = CliRunner().invoke(app, [*arguments, "--configfile", str(mine)])
        assert (result.exit_code, result.exception) == (0, None)
        assert "results" in result.output


def test_the_commit_is_recorded(training_job):
    job = training_job()
    train(job)
    assert read_description(job.model)["commit"] == provenance.code_commit()


def test_the_commit_is_that_of_the_checkout(tmp_path, monkeypatch):
    folder = tmp_path / "checkout"
    package = folder / "maskrd"
    package.mkdir(parents=True)
    monkeypatch.setattr(provenance, "__file__", str(package / "provenance.py"))
    assert provenance.code_commit() is None  # no repository
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    put(package / "code.py", "1")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert provenance.code_commit() == head
    put(package / "code.py", "2")
    assert provenance.code_commit() == f"{head}-dirty"
    monkeypatch.setenv("PATH", "")
    assert provenance.code_commit() is None  # no git


@pytest.fixture
def tested(training_job, tmp_path, evaluation) -> EvaluationJob:
    """A trained and tested model of `bolt` in a results folder with its teacher."""
    job = training_job()
    home = tmp_path / "results/models/demo/bolt/maskrd/demo_resnet18/seed0"
    job = replace(job, model=home / "model.safetensors", history=home / "history.csv")
    teacher = tmp_path / "results/teachers/demo_resnet18.safetensors"
    teacher.parent.mkdir(parents=True)
    teacher.write_bytes(job.teacher.read_bytes())
    train(job)
    test = EvaluationJob(job.index, job.data, teacher, job.model, evaluation(blur_sigma=1), job.recipe, "cpu", 1)
    evaluate(test, home / "metrics.json", home / "scores.csv")
    return test


def test_predict_gives_the_scores_of_the_evaluation(tested, tmp_path):
    folder = tested.data / "bolt/test"
    output = tmp_path / "out"
    predict(tested.model, [folder / "crack", folder / "good/000.png"], output, device="cpu")
    rows = list(csv.DictReader((output / "scores.csv").open(encoding="utf-8")))
    assert [Path(row["image"]).relative_to(folder).as_posix() for row in rows] == [
        "crack/000.png", "crack/001.png", "good/000.png"
    ]  # fmt: skip
    known = {row["image"]: float(row["score"]) for row in csv.DictReader(tested.model.with_name("scores.csv").open())}
    for row in rows:
        name = Path(row["image"]).relative_to(tested.data / "bolt").as_posix()
        assert float(row["score"]) == pytest.approx(known[name], rel=1e-5)
        with Image.open(output / row["heatmap"]) as picture:
            assert picture.size == (2 * 32, 32)
    left = np.asarray(Image.open(output / rows[0]["heatmap"]))[:, :32]
    source = Image.open(rows[0]["image"]).convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)
    assert np.array_equal(left, np.asarray(source))


def test_predict_names_all_unreadable_images_and_writes_nothing(tested, tmp_path):
    put(tmp_path / "broken.png", "no image")
    images = [tmp_path / "broken.png", tmp_path / "gone.png", tested.data / "bolt/test/good/000.png"]
    with pytest.raises(MaskrdError, match=r"(?s)2 of 3 images.*broken\.png.*gone\.png"):
        predict(tested.model, images, tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


def test_predict_refuses_what_it_cannot_score_with(tested, tmp_path):
    images = [tested.data / "bolt/test/good"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(MaskrdError, match="no images there"):
        predict(tested.model, [tmp_path / "empty"], tmp_path / "out", device="cpu")
    moved = tmp_path / "elsewhere/model.safetensors"
    put(moved)
    moved.write_bytes(tested.model.read_bytes())
    with pytest.raises(MaskrdError, match=r"teacher of .* Give it by --teacher"):
        predict(moved, images, tmp_path / "out", device="cpu")
    with pytest.raises(MaskrdError, match=r"metrics\.json: missing"):
        predict(moved, images, tmp_path / "out", tested.teacher, device="cpu")
    path = tested.model.with_name("metrics.json")
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["evaluation"]["recipe"]["blur_sigma"]
    put(path, json.dumps(content))
    with pytest.raises(MaskrdError, match=r"metrics\.json: evaluation\.blur_sigma: missing"):
        predict(tested.model, images, tmp_path / "out", device="cpu")
    put(tested.teacher, "another")
    with pytest.raises(MaskrdError, match="not the teacher"):
        predict(tested.model, images, tmp_path / "out", device="cpu")
