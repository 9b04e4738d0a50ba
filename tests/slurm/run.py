"""A tiny workflow through a real Slurm, with faults: `make test-slurm`, as root on Debian.

A training is cancelled half-way, jobs ask for too little memory, a partition doesn't exist; several models share one
submission. The last line states jobs, faults and models lost.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.conftest import write_category
from tests.kill import CONFIG, RESULTS, begin_anew, outcome, tested_models
from tests.slurm.cluster import cluster, wait_for
from tests.workflow.conftest import make_workspace

# Over those of profiles/slurm: this Slurm has no accounting, and nobody wants to wait here.
PROFILE = [
    "--workflow-profile", "profiles/slurm",
    "--slurm-status-command", "squeue",
    "--slurm-no-account",
    "--slurm-init-seconds-before-status-checks", "3",
    "--slurm-keep-successful-logs",
    "--latency-wait", "10",
    "--set-threads", "train=1", "evaluate=1", "index=1",
]  # fmt: skip


@dataclass
class Outcome:
    code: int
    output: str

    @property
    def submitted(self) -> int:
        return len(re.findall(r"has been submitted with SLURM jobid", self.output))


class Rehearsal:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.jobs = 0
        make_workspace(folder)
        for category in ("bolt", "nut"):
            write_category(folder / "images", category)
        begin_anew(folder)

    def start(
        self, *targets: str, partition: str = "gpu", memory: str = "1500", options: tuple[str, ...] = ()
    ) -> subprocess.Popen[str]:
        config = {**CONFIG, "train": {**CONFIG["train"], "epochs": 60}, "tables": {"table5": {"variants": ["maskrd"]}}}
        (self.folder / "mine.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        resources = [f"slurm_partition={partition}", f"mem_mb={memory}", "runtime=30"]
        command = [sys.executable, "-m", "snakemake", *PROFILE, *options, "--default-resources", *resources]
        return subprocess.Popen(
            [*command, "--configfile", "mine.yaml", "--", *targets],
            cwd=self.folder, env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=(self.folder / "snakemake.log").open("w"), stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def finish(self, process: subprocess.Popen[str], seconds: float = 900) -> Outcome:
        code = process.wait(seconds)
        result = Outcome(code, (self.folder / "snakemake.log").read_text())
        self.jobs += result.submitted
        return result

    def log(self, category: str, variant: str) -> str:
        path = self.folder / RESULTS / f"logs/train/mvtec_ad/{category}/{variant}/demo_resnet18/seed0.log"
        return path.read_text() if path.exists() else ""

    def state(self, category: str, variant: str) -> Path:
        return self.folder / RESULTS / f"state/mvtec_ad/{category}/{variant}/demo_resnet18/seed0/last.pt"


def model(category: str, variant: str) -> str:
    return f"{RESULTS}/models/mvtec_ad/{category}/{variant}/demo_resnet18/seed0/model.safetensors"


def slurm_job(rule_of: str) -> str:
    """The job id whose comment names a rule and its wildcards."""
    listing = subprocess.run(["squeue", "-h", "-o", "%i %k"], capture_output=True, text=True, check=True).stdout
    return next(line.split()[0] for line in listing.splitlines() if rule_of in line)


def cancelled_half_way(rehearsal: Rehearsal) -> None:
    process = rehearsal.start("table5")
    wait_for(lambda: "img/s" in rehearsal.log("bolt", "maskrd"), "a training", 300)
    time.sleep(2)
    subprocess.run(["scancel", slurm_job("rule_train_wildcards_mvtec_ad_bolt")], check=True)
    wait_for(rehearsal.state("bolt", "maskrd").exists, "the state of the cancelled training", 30)
    result = rehearsal.finish(process)
    assert result.code == 0, result.output
    assert "Going on from epoch" in rehearsal.log("bolt", "maskrd"), rehearsal.log("bolt", "maskrd")


def too_little_memory(rehearsal: Rehearsal) -> None:
    result = rehearsal.finish(rehearsal.start(model("bolt", "no_fmm"), memory="300 * attempt * attempt"))
    assert result.code == 0, result.output
    assert "Trying to restart job" in result.output, result.output


def wrong_partition(rehearsal: Rehearsal) -> None:
    result = rehearsal.finish(rehearsal.start(model("nut", "no_fmm"), partition="nowhere"))
    assert result.code != 0
    assert "nowhere" in result.output, result.output


def several_in_one_submission(rehearsal: Rehearsal) -> None:
    """No fault: what profiles/slurm offers for short trainings."""
    groups = ("--groups", "train=model", "evaluate=model", "--group-components", "model=2", "--cores", "1")
    targets = [
        model(category, "simam_only").replace("model.safetensors", "metrics.json") for category in ("bolt", "nut")
    ]
    result = rehearsal.finish(rehearsal.start(*targets, options=groups))
    assert result.code == 0, result.output
    assert result.submitted == 1, result.output


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *arguments: sys.exit("Stopped."))  # and stop the daemons, too
    started, lost = time.monotonic(), 0
    faults = (cancelled_half_way, too_little_memory, wrong_partition)
    scenes = (*faults, several_in_one_submission)
    with tempfile.TemporaryDirectory() as daemons, tempfile.TemporaryDirectory() as work:
        rehearsal = Rehearsal(Path(work))
        with cluster(Path(daemons)):
            before: dict[Path, int] = {}
            for scene in scenes:
                scene(rehearsal)
                now = tested_models(Path(work))
                lost += sum(now.get(path) != date for path, date in before.items())
                before = now
                print(f"{scene.__name__}: as it should be; {len(now)} models, {time.monotonic() - started:.0f} s")
        assert outcome(Path(work))
    print(f"{rehearsal.jobs} Slurm jobs, {len(faults)} faults, {lost} models lost.")
    sys.exit(lost > 0)


if __name__ == "__main__":
    main()
