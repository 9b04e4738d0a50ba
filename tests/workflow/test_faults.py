"""Faults cost the job they hit: the message names them, and finished models stay as they are."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import yaml

from tests.conftest import write_category
from tests.workflow.conftest import Workspace

MODELS = "results/tiny/models/mvtec_ad"


def dates(workspace: Workspace) -> dict[str, int]:
    """When each model and its metrics were written."""
    files = [path for path in (workspace.folder / MODELS).rglob("*") if path.is_file()]
    return {str(path.relative_to(workspace.folder)): path.stat().st_mtime_ns for path in files}


def test_a_corrupt_image_costs_only_the_models_of_its_category(copy: Workspace, tiny: dict) -> None:
    images = copy.folder / "images"
    broken = write_category(images, "broken") / "train/good/003.png"
    broken.write_bytes(broken.read_bytes()[:300])
    dataset = {"path": "images", "categories": ["bolt", "nut", "broken", "sound"]}
    write_category(images, "sound")
    before = dates(copy)
    outcome = copy.snakemake(
        "--resources", "gpu=2", "--", "table1", config={**tiny, "datasets": {"mvtec_ad": dataset}}
    )  # fmt: skip
    assert outcome.code != 0
    assert "broken/train/good/003.png" in outcome.output
    after = dates(copy)
    assert before.items() <= after.items()
    assert f"{MODELS}/sound/maskrd/demo_resnet18/seed0/metrics.json" in after
    assert not [name for name in after if "/broken/" in name]


def test_results_that_cannot_be_written_are_named(copy: Workspace, tiny: dict) -> None:
    """Root may write into read-only folders, so a file stands where the folder should be."""
    before = dates(copy)
    shutil.rmtree(copy.folder / "results/tiny/tables")
    (copy.folder / "results/tiny/tables").write_text("not a folder")
    outcome = copy.snakemake("--", "table5", config=tiny)
    assert outcome.code != 0
    assert "results/tiny/tables" in outcome.output
    assert dates(copy) == before


def test_a_second_snakemake_is_told_of_the_first(copy: Workspace, tiny: dict) -> None:
    started = copy.folder / "started"
    (copy.folder / "Snakefile").write_text(
        f"rule slow:\n    output: 'results/slow'\n    shell: 'touch {started}; exec sleep 600'\n", encoding="utf-8"
    )
    command = [sys.executable, "-m", "snakemake", "--cores", "1"]
    with subprocess.Popen(
        command, cwd=copy.folder, stderr=subprocess.DEVNULL, start_new_session=True, env={**os.environ}
    ) as first:
        try:
            wait_for(started, first)
            outcome = copy.snakemake()
        finally:
            os.killpg(first.pid, 9)
    assert outcome.code != 0
    assert "--unlock" in outcome.output


def test_a_configuration_edited_during_a_run_changes_nothing_of_that_run(copy: Workspace, tiny: dict) -> None:
    """Jobs get their recipe on the command line, so they keep what the run began with."""
    # With its tables there, nothing would miss the models.
    for gone in (f"{MODELS}/nut", "results/tiny/tables"):
        shutil.rmtree(copy.folder / gone)
    config, log = copy.folder / "mine.yaml", copy.folder / "results/tiny/logs/train"
    config.write_text(yaml.safe_dump(tiny), encoding="utf-8")
    shutil.rmtree(log)
    command = [sys.executable, "-m", "snakemake", "--configfile", str(config), "--cores", "1", "--", "table5"]
    with subprocess.Popen(command, cwd=copy.folder, stderr=subprocess.DEVNULL) as run:
        wait_for(log / "mvtec_ad/nut", run)
        config.write_text(yaml.safe_dump({**tiny, "train": {**tiny["train"], "epochs": 7}}), encoding="utf-8")
        assert run.wait() == 0
    written = list((copy.folder / MODELS / "nut").rglob("metrics.json"))
    assert len(written) == 2
    for path in written:
        assert json.loads(path.read_text(encoding="utf-8"))["training"]["recipe"]["epochs"] == 1


def wait_for(path: Path, process: subprocess.Popen) -> None:
    while not path.exists():
        assert process.poll() is None, f"ended without {path}"
        time.sleep(0.1)
