"""A workspace like a fresh clone, and one in which a tiny experiment has been run."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT, write_category

PARTS = ("Snakefile", "config.yaml", "workflow", "profiles", "envs")
# Any job that opens a connection fails: only downloads may.
NO_SOCKETS = """
import socket

def refuse(*arguments):
    raise RuntimeError("a job opened a socket")

socket.socket.connect = socket.create_connection = refuse
"""


@dataclass
class Outcome:
    code: int
    output: str

    @property
    def planned(self) -> dict[str, int]:
        """Jobs by rule, from the table that Snakemake prints first."""
        table = re.search(r"Job stats:\njob +count\n-+  -+\n(.*?)\ntotal", self.output, re.DOTALL)
        return {name: int(count) for name, count in re.findall(r"^(\S+) +(\d+)$", table[1], re.M)} if table else {}


@dataclass
class Workspace:
    folder: Path

    def snakemake(self, *arguments: str, config: dict[str, Any] | None = None, cores: int = 2) -> Outcome:
        """Run Snakemake here, with `config` merged over config.yaml."""
        options = []
        if config is not None:
            path = self.folder / "mine.yaml"
            path.write_text(yaml.safe_dump(config), encoding="utf-8")
            options += ["--configfile", str(path)]
        options += ["--cores", str(cores)]  # after --configfile, which would swallow targets
        environment = {**os.environ, "PYTHONPATH": str(self.folder / "site"), "OMP_NUM_THREADS": "1"}
        run = subprocess.run(
            [sys.executable, "-m", "snakemake", *options, *arguments],
            cwd=self.folder, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return Outcome(run.returncode, run.stdout + run.stderr)


def plan(workspace: Workspace, config: dict) -> dict[str, int]:
    outcome = workspace.snakemake("-n", "--", "table1", "table5", config=config)
    assert outcome.code == 0, outcome.output
    return {name: count for name, count in outcome.planned.items() if name not in ("table1", "table5")}


def make_workspace(folder: Path) -> Workspace:
    for part in PARTS:
        source = ROOT / part
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, folder / part)
    (folder / "site").mkdir()
    (folder / "site/sitecustomize.py").write_text(NO_SOCKETS, encoding="utf-8")
    return Workspace(folder)


@pytest.fixture
def clone(tmp_path: Path) -> Workspace:
    """A fresh clone: no data, no results."""
    return make_workspace(tmp_path)


@pytest.fixture(scope="session")
def tiny(teacher_file: Path) -> dict[str, Any]:
    """Two categories and two variants, one epoch each: an experiment of a minute."""
    return {
        "results": "results/tiny",
        "backbones": ["demo_resnet18"],
        "datasets": {"mvtec_ad": {"path": "images", "categories": ["bolt", "nut"]}},
        "train": {"image_size": 32, "epochs": 1, "batch_size": 4},
        "tables": {"table5": {"variants": ["no_fmm", "maskrd"]}},
        "figures": {"figure7": {"variants": ["maskrd"]}},
    }


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny: dict[str, Any], teacher_file: Path) -> Workspace:
    """The tiny experiment, run with sockets forbidden; not to be changed: take a copy."""
    workspace = make_workspace(tmp_path_factory.mktemp("finished"))
    for category in ("bolt", "nut"):
        write_category(workspace.folder / "images", category)
    teachers = workspace.folder / "results/tiny/teachers"
    teachers.mkdir(parents=True)
    for name in ("demo_resnet18", "demo_resnet50", "demo_wide_resnet50_2"):
        shutil.copy(teacher_file, teachers / f"{name}.safetensors")
    outcome = workspace.snakemake("--resources", "gpu=2", "--", "table1", "table5", "figure7", config=tiny)
    assert outcome.code == 0, outcome.output
    return workspace


@pytest.fixture
def copy(finished: Workspace, tmp_path: Path) -> Workspace:
    """A copy of the finished workspace, dates included."""
    shutil.copytree(finished.folder, tmp_path, dirs_exist_ok=True)
    return Workspace(tmp_path)
