"""Kill a tiny workflow at random moments, resume it, and compare with an unbroken run.

    python -m tests.kill --kills 20

SIGKILL goes to Snakemake and its jobs at once, as from a power cut. When a run comes to its end, its metric
values, weights and table must be those of the unbroken run; then it begins anew, until all kills are made.
"""

import argparse
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch
import yaml
from safetensors.torch import load_file

from maskrd.config.settings import Metric
from maskrd.config.teachers import ARCHITECTURES
from maskrd.layers.resnet import FeaturePyramid, init_weights
from maskrd.methods.teacher import TeacherFile, save_teacher
from tests.conftest import write_category
from tests.workflow.conftest import make_workspace

RESULTS = "results/kill"
METRICS = get_args(Metric)
CONFIG = {
    "results": RESULTS,
    "backbones": ["demo_resnet18"],
    "datasets": {"mvtec_ad": {"path": "images", "categories": ["bolt", "nut"]}},
    "train": {"image_size": 32, "epochs": 15, "batch_size": 2, "msff_channels": 32, "precision": "fp32"},
    "tables": {"table5": {"variants": ["no_fmm", "maskrd"]}},
}


@dataclass
class Count:
    kills: int = 0
    rounds: int = 0
    states_left: int = 0
    retrained: int = 0


def write_teacher(path: Path) -> None:
    torch.manual_seed(0)
    pyramid = FeaturePyramid(ARCHITECTURES["demo_resnet18"])
    init_weights(pyramid)
    save_teacher(pyramid, TeacherFile("demo_resnet18", "0" * 64), path)


def prepare(folder: Path, categories: tuple[str, ...]) -> None:
    make_workspace(folder)
    for category in categories:
        write_category(folder / "images", category)
    dataset = {**CONFIG["datasets"]["mvtec_ad"], "categories": list(categories)}
    config = {**CONFIG, "datasets": {"mvtec_ad": dataset}}
    (folder / "mine.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    begin_anew(folder)


def begin_anew(folder: Path) -> None:
    shutil.rmtree(folder / "results", ignore_errors=True)
    shutil.rmtree(folder / ".snakemake", ignore_errors=True)
    write_teacher(folder / RESULTS / "teachers/demo_resnet18.safetensors")


def start(folder: Path) -> subprocess.Popen[bytes]:
    """Snakemake in a process group of its own; a state is saved at every step."""
    # What --unlock does, without another start of Snakemake.
    shutil.rmtree(folder / ".snakemake/locks", ignore_errors=True)
    options = ["--cores", "2", "--resources", "gpu=2", "--set-threads", "train=1", "evaluate=1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASKRD_STATE_MINUTES": "0"}
    with (folder / "snakemake.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "snakemake", *options, "--configfile", "mine.yaml", "--", "table5"],
            cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip


def finish(process: subprocess.Popen[bytes], folder: Path) -> None:
    if process.wait() != 0:
        sys.exit("The workflow failed:\n" + (folder / "snakemake.log").read_text())


def outcome(folder: Path) -> dict[str, object]:
    """Weights, metric values and the table: all that must not depend on kills."""
    found: dict[str, object] = {}
    for path in sorted((folder / RESULTS / "models").rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix == ".safetensors":
            found[name] = {key: tensor.numpy().tobytes() for key, tensor in load_file(path).items()}
        elif path.name == "metrics.json":
            values = json.loads(path.read_text())
            found[name] = {key: values[key] for key in METRICS}
    with (folder / RESULTS / "tables/table5.csv").open(newline="") as file:
        found["table5"] = list(csv.reader(file))
    return found


def tested_models(folder: Path) -> dict[Path, int]:
    """When each model that was already tested was written."""
    metrics = (folder / RESULTS / "models").rglob("metrics.json")
    models = (path.with_name("model.safetensors") for path in metrics)
    return {path: path.stat().st_mtime_ns for path in models}


def kill(process: subprocess.Popen[bytes], after: float) -> bool:
    """Kill the group of processes after so many seconds; False if it ended before."""
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True
    return False


def run(folder: Path, kills: int, seed: int, categories: tuple[str, ...] = ("bolt", "nut")) -> Count:
    """Raises AssertionError where a killed run ends with anything else than an unbroken one."""
    prepare(folder, categories)
    started = time.monotonic()
    finish(start(folder), folder)
    seconds = time.monotonic() - started
    expected = outcome(folder)
    moments, count = random.Random(seed), Count()
    while count.kills < kills:
        begin_anew(folder)
        finished: dict[Path, int] = {}
        while count.kills < kills:
            if not kill(start(folder), moments.uniform(0, seconds)):
                break
            count.kills += 1
            count.states_left += len(list((folder / RESULTS / "store").rglob("last.pt")))
            now = tested_models(folder)
            count.retrained += sum(now.get(path) != date for path, date in finished.items())
            finished = now
            print(f"kill {count.kills} of {kills}: {len(finished)} models finished", flush=True)
        finish(start(folder), folder)
        count.rounds += 1
        found = outcome(folder)
        differing = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        assert not differing, f"round {count.rounds} differs from an unbroken run in {', '.join(differing)}"
        assert not count.retrained, "a finished model was trained again"
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        count = run(Path(folder), arguments.kills, arguments.seed)
    print(
        f"{count.kills} kills in {count.rounds} runs, {count.states_left} states to go on from; "
        f"weights, metrics and table as unbroken; {count.retrained} finished models lost."
    )


if __name__ == "__main__":
    main()
