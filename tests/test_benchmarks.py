"""Each benchmark runs and prints one JSON object; what it measures is for people to judge."""

import csv
import importlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from maskrd.engine.evaluation import EvaluationJob
from maskrd.engine.machine import Machine
from maskrd.engine.training import train

ROOT = Path(__file__).parents[1]
TINY = ["--backbone", "demo_resnet18", "--image-size", "32", "--threads", "1", "--rounds", "1", "--device", "cpu"]


def run(script: str, *arguments: str) -> str:
    """What the script prints, called from another folder than the repository's."""
    result = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / script, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=ROOT / "tests",
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_training_step():
    result = json.loads(run("training_step.py", *TINY, "--batch-size", "2", "--json"))
    assert result["features"] == "kept"
    seconds, flops = result["seconds_per_step"], 2 * result["flops_per_image"]
    assert result["images_per_second"] == pytest.approx(2 / seconds)
    assert result["ratio"] == pytest.approx(result["reference_seconds_per_step"] / seconds)
    assert result["fraction_of_peak"] == pytest.approx(flops / seconds / result["peak_flops_per_second"])
    assert 0 < result["fraction_of_peak"] < 1


def test_training_step_of_another_method_as_a_table():
    options = ["--variant", "stpm", "--batch-size", "2", "--precision", "fp32", "--no-cache"]
    printed = run("training_step.py", *TINY, *options)
    assert "features recomputed" in printed
    assert "ratio of medians" in printed


def test_inference():
    result = json.loads(run("inference.py", *TINY, "--json"))
    for batch_size in (1, 16):
        own, ratio = result[f"ms_per_image_batch_{batch_size}"], result[f"ratio_batch_{batch_size}"]
        assert ratio == pytest.approx(result["reference_ms_per_image"] / own)


def test_export():
    result = json.loads(run("export.py", *TINY, "--precision", "fp32", "--json"))
    assert result["difference"] < 1e-4
    assert 0 < result["exported_bytes"] < 1.2 * result["model_and_teacher_bytes"]


def test_metrics():
    result = json.loads(run("metrics.py", "--images", "4", "--rounds", "1", "--json"))
    assert result["values"]["maskrd aupro"]["AUPRO"] == pytest.approx(
        result["values"]["loop pooled"]["PRO pooled"], abs=0.05
    )


def test_rescore_changes_what_the_reading_says_and_nothing_else(training_job, evaluation, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    rescore = importlib.import_module("rescore")
    trained = training_job(epochs=1, batch_size=6)
    train(trained)
    job = EvaluationJob(
        trained.index, trained.data, trained.teacher, trained.model, evaluation(), trained.recipe, Machine("cpu")
    )

    def found(changes, given=job):
        return {metric: (value, low, high) for metric, value, low, high in rescore.rescore(given, changes)}

    product = replace(job, evaluation=evaluation(map_fusion="product"))
    assert found({"map_fusion": "product"}) == found({}, product) != found({})
    value, low, high = map(float, found({})["image_auroc"])
    assert low <= value <= high
    assert found({})["pixel_auroc"][1:] == ("", "")
    larger = {metric: value for metric, value, *_ in rescore.rescore(job, {}, larger_masks=True)}
    assert larger["image_auroc"] == found({})["image_auroc"][0]
    assert larger["aupro"] != found({})["aupro"][0]


@pytest.mark.parametrize(("method", "choice"), [("padim", "ours"), ("patchcore 10 %", "bilinear")])
def test_what_the_pipeline_does_is_one_of_the_choices(tested, tmp_path, monkeypatch, method, choice):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    choices = importlib.import_module("choices")
    monkeypatch.setattr(choices, "INPUTS", {"64": (64, None)})
    job = tested(blur_sigma=4, method=method.split()[0], image_size=64)
    record = json.loads((job.model.parent / "metrics.json").read_text())
    choices.main(str(job.teacher), str(job.data), str(tmp_path / "out.csv"), method, "bolt", "64", "0", "42")
    with (tmp_path / "out.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    found = {(line["choice"], line["score"], line["seed"], line["metric"]): line["value"] for line in lines}
    assert found[choice, "blurred map", "0", "image_auroc"] == f"{100 * record['image_auroc']:.2f}"
    assert found[choice, "", "0", "pixel_auroc"] == f"{100 * record['pixel_auroc']:.2f}"
    other = "anomalib's draw" if method == "padim" else "nearest"
    assert found[other, "", "42", "pixel_auroc"] != found[choice, "", "0", "pixel_auroc"]


def test_gpu_session_runs_from_end_to_end(tmp_path):
    """On tiny networks and the CPU: every part that needs no card gives numbers, and none fails."""
    output = tmp_path / "out.json"
    run("gpu_session.py", "--json", str(output), "--dry-run")
    result = json.loads(output.read_text())
    assert not [part for part, found in result.items() if "failed" in found], result
    assert all(pair == {"loss": 0, "gradient": 0} for pair in result["compare_with_cpu"].values())
    resumed = result["repeat_and_resume"]
    codes = resumed["exit codes"]
    assert [codes[name] for name in ("first", "second", "stopped by SIGTERM", "stopped")] == [0, 0, 143, 0]
    assert resumed["first and second"] == resumed["first and stopped"] == 0
    assert {row["precision"] for row in result["time_steps"]} == {"fp32", "bf16"}
    assert all(rate > 0 for rate in result["share_the_card"]["without MPS"].values())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gpu_session_without_a_gpu_says_so(tmp_path):
    output = tmp_path / "out.json"
    assert "no NVIDIA GPU" in run("gpu_session.py", "--json", str(output))
    assert not output.exists()


def test_the_plans_steps_stand_beside_those_of_a_training():
    options = ["--device", "cpu", "--steps", "1", "--json"]
    (row,) = json.loads(run("plan.py", "cifar10/demo_resnet18", *options))["steps"]
    assert row["network"] == "demo_resnet18, 64 px, batch 16"
    assert row["ratio"] == pytest.approx(row["planned"] / row["measured"])
    assert row["planned"] > 0 < row["measured"]


def test_demos_of_two_checkouts_are_timed(tmp_path):
    table = "results/demo/tables/table1.csv"
    for name, pause in (("old", 0), ("new", 3)):
        folder = tmp_path / name
        (folder / ".venv").mkdir(parents=True)
        recipe = f"setup:\n\tfalse\ndemo: setup\n\tmkdir -p {Path(table).parent} && touch {table} && sleep {pause}\n"
        (folder / "Makefile").write_text(recipe)
        for command in (
            ["init", "-q"],
            ["add", "Makefile"],
            ["-c", "user.name=a", "-c", "user.email=b", "commit", "-qm", "c"],
        ):
            subprocess.run(["git", "-C", folder, *command], check=True)
    result = json.loads(run("demo.py", str(tmp_path / "old"), str(tmp_path / "new"), "--json"))
    old, new = result["seconds"].values()
    assert result["ratio"]["wall"] == pytest.approx(new["wall"] / old["wall"])
    assert new["wall"] >= 3
    assert 0 <= new["first_table"] < new["wall"]  # the table is there before the pause


def test_the_last_fifth_of_each_class_is_held_out(monkeypatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    split = importlib.import_module("held_out_cifar10").split
    records = np.stack([np.tile([0, 0, 0, 1, 1], 4), np.arange(20)], axis=1).astype(np.uint8)
    train, test = split(records)
    assert test.tolist() == [[0, 16], [0, 17], [1, 18], [1, 19]]
    assert len(train) == 16
    assert sorted(np.concatenate([train, test])[:, 1].tolist()) == list(range(20))
