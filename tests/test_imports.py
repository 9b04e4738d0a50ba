"""Start-up: hundreds of short jobs import only what they use. Each check is a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"torch", "torchvision", "timm", "numpy", "scipy", "pandas", "sklearn", "matplotlib", "seaborn", "PIL"}
NEVER_IN_JOBS = {"torchvision", "timm", "pandas", "sklearn", "matplotlib", "seaborn", "snakemake"}


def imported(code: str) -> set[str]:
    """Top-level modules after running `code` in a new interpreter."""
    script = f"import sys\n{code}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[1]
    )
    assert result.returncode == 0, result.stderr
    return set(result.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "module",
    [
        "maskrd.cli",
        "maskrd.config.experiment",
        "maskrd.data.changes",
        "maskrd.data.registry",
        "maskrd.sources.registry",
    ],
)
def test_what_plans_and_parses_imports_nothing_heavy(module):
    assert not imported(f"import {module}") & HEAVY


def test_indexing_needs_no_torch(category, tmp_path):
    arguments = ["index", "--dataset", "demo", "--category", "bolt"]
    arguments += ["--data", str(category.parent), "--output", str(tmp_path / "index.json")]
    loaded = imported(f"from maskrd.cli import app; app({arguments!r}, standalone_mode=False)")
    assert (tmp_path / "index.json").exists()
    assert not loaded & (NEVER_IN_JOBS | {"torch", "scipy"})


def test_training_and_evaluation_import_torch_alone(training_job, evaluation, tmp_path):
    job = training_job(epochs=1, batch_size=6)
    files = ["--index", job.index, "--data", job.data, "--teacher", job.teacher, "--model", job.model]
    recipe = ["--device", "cpu", "--recipe", job.recipe.model_dump_json()]
    train = ["train", *files, *recipe, "--history", job.history, "--store", job.store]
    evaluate = ["evaluate", *files, *recipe, "--evaluation", evaluation().model_dump_json()]
    evaluate += ["--metrics", tmp_path / "metrics.json", "--scores", tmp_path / "scores.csv"]
    evaluate += ["--gallery", tmp_path / "gallery.npz"]
    calls = [[str(argument) for argument in command] for command in (train, evaluate)]
    loaded = imported(f"from maskrd.cli import app\nfor call in {calls!r}: app(call, standalone_mode=False)")
    assert json.loads((tmp_path / "metrics.json").read_text())["training"]["epochs"] == 1
    assert "torch" in loaded
    assert not loaded & NEVER_IN_JOBS
    assert "sympy" not in loaded  # comes with torch._dynamo, 4 s
