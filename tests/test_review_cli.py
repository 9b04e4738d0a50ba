"""What a reviewer types: audit, verdict, explain, status."""

import csv
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

import maskrd
from maskrd.cli import app
from maskrd.config.files import Files
from maskrd.config.load import load_experiment
from maskrd.config.settings import Model
from maskrd.engine.interruption import Interrupted
from maskrd.engine.machine import code_commit
from maskrd.engine.model_file import read_training
from maskrd.engine.training import train
from maskrd.errors import MaskrdError
from maskrd.inspection.commands import evaluate_command, train_command
from maskrd.inspection.explain import explain
from maskrd.inspection.status import error_of, model_status, overview
from tests.records import make_record, write_record
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
    assert jobs(output) == {"audit", "verdict"}
    results = mine.parent / "results"
    rows = list(csv.reader((results / "audit.csv").open(encoding="utf-8")))
    assert rows[0] == ["table", "method", "metric", "recomputed", "reported", "difference", "explained"]
    assert {row["numbers"].split(",")[0] for row in csv.DictReader((results / "claims.csv").open())} == {"reported"}
    assert {row["verdict"] for row in csv.DictReader((results / "verdict.csv").open())} == {"not run"}
    assert {"verdict.md", "verdict.png", "verdict.pdf"} <= {path.name for path in results.iterdir()}
    # New metrics, no other inputs: only what judges them is made anew.
    path = results / "models/mvtec_ad/screw/maskrd/resnet18/seed0/metrics.json"
    path.parent.mkdir(parents=True)
    path.write_text("{}", encoding="utf-8")
    plan = snakemake("--configfile", str(mine), "-n", "--", "audit", "verdict")
    assert jobs(plan) == {"verdict"}


def test_explain_prints_the_commands_that_snakemake_runs(mine, experiment, snakemake):
    model = Model("mvtec_ad", "screw", "mean_score", "resnet18", 0)
    files = Files(experiment).model(model)
    plan = snakemake("--configfile", str(mine), "-n", "-p", "--", str(files.metrics))
    for name, command in (("train", train_command), ("evaluate", evaluate_command)):
        planned = shlex.split(re.search(rf"(python -m maskrd {name} .*)", plan)[1])
        given_by_snakemake = planned.index("--threads")
        assert planned[:given_by_snakemake] == command(experiment, model)
    assert str(files.log("train")) in plan
    assert str(files.log("evaluate")) in plan


def test_variants_that_differ_in_testing_share_files_of_training(experiment):
    one, other = (
        Files(experiment).model(Model("mvtec_ad", "screw", v, "resnet18", 0)) for v in ("mean_score", "maskrd")
    )
    assert one.weights == other.weights
    assert one.log("train") == other.log("train")
    assert one.metrics != other.metrics


def write_metrics(experiment, model: Model, **recipe) -> None:
    wanted = experiment.recipe(model.dataset, model.variant)
    trained = {"seconds": 661.29, "device": "a GPU", "threads": 3, "commit": "c0ffee"}
    tested = {"model_sha256": "30de1", "threads": None}
    percent = {"image_auroc": 85.59, "pixel_auroc": 98.5}
    record = make_record(model, percent, wanted.training.model_copy(update=recipe), wanted.evaluation, trained, tested)
    write_record(experiment.results / "models", model, record)


def test_explain_tells_what_made_a_number(experiment):
    write_metrics(experiment, Model("mvtec_ad", "screw", "maskrd", "resnet18", 0))
    text = "\n".join(explain(experiment, "table1", ["screw"]))
    digests = ("c0ffee", "da7a", "7eac4e5", "3e16475", "30de1")
    for fact in ("image_auroc 85.59", "661.29", "a GPU, threads 3", "epochs 200", *digests):
        assert fact in text
    assert "not as configured" not in text
    assert "logs/train/mvtec_ad/screw/maskrd/resnet18/seed0.log (not there)" in text
    train, evaluate = (line for line in text.splitlines() if "python -m maskrd" in line)
    assert train.endswith("--threads 3")
    assert "--threads" not in evaluate  # as recorded before they were


def test_explain_says_where_the_configuration_moved_on(experiment):
    write_metrics(experiment, Model("mvtec_ad", "screw", "maskrd", "resnet18", 0), epochs=3)
    assert re.search(r"not as configured +epochs 3 instead of 200", "\n".join(explain(experiment, "table1", ["screw"])))


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
    ("content", "message"), [(None, "no such file"), ("a: [", "can't be read as YAML"), ("word", "mapping")]
)
def test_unusable_configuration_files_are_named(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(ROOT)
    path = tmp_path / "bad.yaml"
    if content:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(MaskrdError, match=rf"bad\.yaml: .*{message}"):
        load_experiment([path])


def test_without_a_configuration_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MaskrdError, match="name your own configuration with --configfile"):
        load_experiment()


def put(path: Path, text: str = "", age: float = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    os.utime(path, (time.time() - age,) * 2)


def test_status_of_a_model(experiment):
    files = Files(experiment).model(Model("mvtec_ad", "screw", "maskrd", "resnet18", 0))

    def status() -> str:
        return model_status(files, time.time())

    assert status() == "left"
    put(files.log("train"), "50%|##")
    assert status() == "running"
    put(files.log("train"), f"50%|##\n{Interrupted(signal.SIGINT)}\n")
    assert status() == "interrupted"
    put(files.log("train"), "50%|##", age=1000)
    assert status() == "interrupted"
    put(files.log("train"), "50%|##\nError: the disk is full.\n")
    assert status() == "failed"
    put(files.weights)
    assert status() == "trained"
    put(files.log("evaluate"), "Traceback (most recent call last):\n  File x\nValueError: odd\n")
    assert (status(), error_of(files.log("evaluate"))) == ("failed", "ValueError: odd")
    put(files.metrics)
    assert status() == "done"


def test_a_log_that_snakemake_deletes_meanwhile_is_no_error(tmp_path):
    assert error_of(tmp_path / "train.log") == ""


def test_status_counts_shared_models_once(experiment):
    write_metrics(experiment, Model("mvtec_ad", "screw", "maskrd", "resnet18", 0))
    put(
        Files(experiment).model(Model("mvtec_ad", "bottle", "no_fmm", "resnet18", 0)).log("train"), "Error: no space.\n"
    )
    console = Console(width=140, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    console.print(overview(experiment))
    text = console.export_text()
    rows = {cells[0]: cells[1:] for line in text.splitlines() if (cells := re.split(r"\s*[│┃]\s*", line.strip(" │┃")))}
    assert rows["table1"] == ["1", "-", "-", "-", "-", "1"]
    assert rows["table5"] == ["1", "-", "-", "-", "1", "2"]
    assert rows["all, each once"][0] == "1"
    assert "mvtec_ad/bottle/no_fmm/resnet18/seed0: Error: no space." in text


def test_status_shows_whole_names_on_a_narrow_terminal(experiment):
    console = Console(width=60, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    console.print(overview(experiment))
    assert "\N{HORIZONTAL ELLIPSIS}" not in console.export_text()


def test_status_and_explain_run_from_the_command_line(mine, monkeypatch):
    monkeypatch.chdir(ROOT)
    for arguments in (["status"], ["explain", "table1", "screw"]):
        result = CliRunner().invoke(app, [*arguments, "--configfile", str(mine)])
        assert (result.exit_code, result.exception) == (0, None)
        assert "results" in result.output


def test_the_commit_is_recorded(training_job):
    job = training_job()
    train(job)
    assert read_training(job.model).commit == code_commit()


def test_the_commit_is_that_of_the_checkout(tmp_path, monkeypatch):
    folder = tmp_path / "checkout"
    package = folder / "maskrd"
    package.mkdir(parents=True)
    monkeypatch.setattr(maskrd, "__file__", str(package / "__init__.py"))
    assert code_commit() is None  # no repository
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    put(package / "code.py", "1")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert code_commit() == head
    put(package / "code.py", "2")
    assert code_commit() == f"{head}-dirty"
    monkeypatch.setenv("PATH", "")
    assert code_commit() is None  # no git
