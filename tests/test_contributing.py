"""CONTRIBUTING.md's steps for a new method and a new dataset, followed to the letter in a copy of the repository."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, write_category

PARTS = ("maskrd", "tests", "workflow", "profiles", "envs", "config.yaml", "Snakefile", "pyproject.toml")
MOST_FILES = 3  # that a contribution touches, its tests aside


def steps(heading: str) -> str:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return re.search(rf"## {heading}\n(.*?)\n## ", text, re.DOTALL)[1]


def shown_files(text: str) -> dict[str, str]:
    """Python code by the path that its first line names."""
    blocks = re.findall(r"```python\n *# (\S+)\n(.*?)```", text, re.DOTALL)
    return {name: textwrap.dedent(block) for name, block in blocks}


def touched_files(copy: Path) -> list[str]:
    """Files that differ from those of the repository, its tests aside."""
    files = [path.relative_to(copy) for path in copy.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    known = [path for path in files if path.parts[0] in PARTS and path.parts[0] != "tests"]
    return [
        path.as_posix()
        for path in known
        if not (ROOT / path).is_file() or (ROOT / path).read_bytes() != (copy / path).read_bytes()
    ]


def run_in(copy: Path, *words: str) -> str:
    """The output of a Python module's command, with the package of the copy."""
    environment = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-m", *words], cwd=copy, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, (run.stdout + run.stderr)[-3000:]
    return run.stdout + run.stderr


def insert(path: Path, before: str, text: str) -> None:
    content = path.read_text(encoding="utf-8")
    assert content.count(before) == 1, f"{path.name}: {before}"
    path.write_text(content.replace(before, text + before), encoding="utf-8")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path / part)
    return tmp_path


def test_a_method_added_as_described_passes_the_tests_of_every_method(copy: Path) -> None:
    shown = shown_files(steps("A method"))
    settings, code = shown.values()
    registry = copy / "maskrd/config/methods.py"
    insert(registry, before="SETTINGS = (", text=f"{settings.strip()}\n\n\n")
    insert(registry, before="MaskRDSettings,\n    STPMSettings", text="LinearSettings, ")
    (copy / list(shown)[1]).write_text(code, encoding="utf-8")
    variant = re.search(r"A variant in `config.yaml`, `(.*?)`", steps("A method"))[1]
    insert(copy / "config.yaml", before="  no_fmm: {fmm: false}", text=f"  {variant}\n")
    insert(copy / "tests/methods/test_methods.py", before='"maskrd", "rd", "stpm"', text='"linear", ')
    assert len(touched_files(copy)) <= MOST_FILES
    output = run_in(
        copy, "pytest", "-q", "-p", "no:cacheprovider", "tests/methods/test_methods.py",
        "-k", "linear or every_registered",
    )  # fmt: skip
    assert int(re.search(r"(\d+) passed", output)[1]) >= 5


def write_labelled(folder: Path) -> None:
    """Images of a category in one folder, with the table that names them."""
    images = write_category(folder.parent / "made", folder.name)
    rows = ["image,split,defect"]
    for split, defect in (("train", "good"), ("test", "good"), ("test", "crack")):
        for path in sorted((images / split / defect).iterdir()):
            name = f"{split}_{defect}_{path.name}"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder / name)
            rows.append(f"{name},{split},{'' if defect == 'good' else defect}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def test_a_dataset_added_as_described_is_indexed_and_planned_by_snakemake(copy: Path) -> None:
    text = steps("A dataset")
    ((name, code),) = shown_files(text).items()
    (copy / name).write_text(code, encoding="utf-8")
    registry = copy / "maskrd/data/registry.py"
    insert(registry, before="mtd, mvtec, stc\n", text="labelled, ")
    insert(registry, before='    "mtd": mtd.DATASET,', text=f"    {re.search(r'`(.labelled.: .*?,)`', text)[1]}\n")
    entry = re.search(r"datasets.yaml`, `(.*?)`", text)[1]
    insert(copy / "workflow/config/catalogue/datasets.yaml", before="  stc:\n", text=f"  {entry}\n")
    assert len(touched_files(copy)) == MOST_FILES
    write_labelled(copy / "parts/gear")
    spec = {"dataset": "labelled", "rows": "categories", "metrics": ["image_auroc"], "caption": "On {dataset}."}
    config = {"datasets": {"labelled": {"path": "parts"}}, "tables": {"mine": spec}}
    (copy / "mine.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    snakemake = ("snakemake", "--cores", "2", "--configfile", "mine.yaml", "--")
    run_in(copy, *snakemake, "results/data/labelled/gear.json")
    index = json.loads((copy / "results/data/labelled/gear.json").read_text(encoding="utf-8"))
    assert {entry["defect"] for entry in index["test"]} == {"good", "crack"}
    plan = run_in(copy, *snakemake[:-1], "-n", "--", "mine")
    assert re.search(r"^train +1$", plan, re.MULTILINE)
