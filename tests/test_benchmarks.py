"""Each benchmark runs and prints one JSON object; what it measures is for people to judge."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_metrics():
    result = json.loads(run("metrics.py", "--images", "4", "--rounds", "1", "--json"))
    assert result["values"]["maskrd aupro"]["AUPRO"] == pytest.approx(
        result["values"]["loop pooled"]["PRO pooled"], abs=0.05
    )
