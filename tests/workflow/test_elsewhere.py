"""The workflow used from another folder: by --snakefile, and as a module of the user's own workflow."""

import os
import shutil
import subprocess
from pathlib import Path

import yaml

from tests.conftest import ROOT, write_category
from tests.workflow.conftest import Workspace

MODULE = """
configfile: "config/config.yaml"


module maskrd:
    snakefile:
        "{snakefile}"
    config:
        config


use rule * from maskrd{names}
"""
OWN = {"seeds": [3], "datasets": {"mvtec_ad": {"path": "images", "categories": ["bolt"]}}}


def write_caller(folder: Path, snakefile: str, names: str = "") -> Workspace:
    """A workflow of somebody else's, as snakedeploy writes it: a Snakefile and config/config.yaml."""
    (folder / "config").mkdir(parents=True)
    (folder / "config/config.yaml").write_text(yaml.safe_dump(OWN), encoding="utf-8")
    (folder / "Snakefile").write_text(MODULE.format(snakefile=snakefile, names=names), encoding="utf-8")
    write_category(folder / "images")
    return Workspace(folder)


def copy_repository(folder: Path) -> Path:
    folder.mkdir()
    for part in ("Snakefile", "config.yaml", "workflow", "envs", "maskrd"):
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, folder / part)
    return folder


def test_the_snakefile_works_from_any_folder_with_its_own_package(tmp_path: Path) -> None:
    repository = copy_repository(tmp_path / "repository")
    marked = repository / "maskrd/__main__.py"
    marked.write_text('print("from the copy")\n' + marked.read_text(encoding="utf-8"), encoding="utf-8")
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    here = Workspace(folder)
    options = ("--snakefile", str(repository / "Snakefile"))
    assert here.snakemake("-n", *options).planned["train"] == 205
    outcome = here.snakemake(*options, "--", "audit")
    assert outcome.code == 0, outcome.output
    assert "from the copy" in (folder / "results/logs/audit.log").read_text(encoding="utf-8")
    write_category(folder / "images")
    (folder / "config.yaml").write_text(yaml.safe_dump(OWN), encoding="utf-8")
    planned = here.snakemake("-n", *options, "--", "table1")
    assert planned.planned["train"] == 1, planned.output


def test_a_module_has_the_callers_configuration_and_folders(tmp_path: Path) -> None:
    caller = write_caller(tmp_path, str(ROOT / "Snakefile"))
    index = "results/data/mvtec_ad/bolt.json"
    outcome = caller.snakemake("--", "audit", "verdict", index)
    assert outcome.code == 0, outcome.output
    assert {path.name for path in (tmp_path / "results").iterdir()} >= {"audit.csv", "verdict.md", "claims.csv", "data"}
    planned = caller.snakemake("-n", "-p")
    assert planned.planned["table"] == 7, planned.output
    assert "--seed 3" in planned.output
    assert "--data images" in planned.output


def test_a_module_may_be_read_from_a_repository_and_its_rules_renamed(tmp_path: Path) -> None:
    """As from GitHub: no file of the workflow lies in a folder."""
    repository = tmp_path / "repository"
    repository.mkdir()
    copy_repository(repository / "paper")  # Snakemake reads no Snakefile at the top of a local repository
    git = ["git", "-C", str(repository), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"], ["tag", "v1"]):
        subprocess.run([*git, *command], check=True, env={**os.environ, "GIT_CONFIG_GLOBAL": os.devnull})
    caller = write_caller(tmp_path / "caller", f"git+file://{repository}/paper/Snakefile@v1", " as paper_*")
    outcome = caller.snakemake("-n", "-p", "--", "paper_table1")
    assert outcome.code == 0, outcome.output
    assert outcome.planned["paper_train"] == 1


def test_the_catalogue_promises_what_is_tested() -> None:
    promised = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text(encoding="utf-8"))["usage"]
    assert promised["report"] is True
    assert promised["software-stack-deployment"] == {"conda": False}
    assert "pip install" in promised["mandatory-flags"]["desc"]
