"""CONTRIBUTING.md's steps for a new method, followed to the letter in a copy of the repository."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.conftest import ROOT

PARTS = ("maskrd", "tests", "config.yaml", "pyproject.toml")


def steps() -> str:
    return re.search(r"## A method\n(.*?)\n## ", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL)[1]


def insert(path: Path, after: str, text: str) -> None:
    content = path.read_text(encoding="utf-8")
    assert content.count(after) == 1, f"{path.name}: {after}"
    path.write_text(content.replace(after, after + text), encoding="utf-8")


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
    path, code = re.search(r"```python\n *# (\S+)\n(.*?)```", steps(), re.DOTALL).groups()
    (copy / path).write_text(textwrap.dedent(code), encoding="utf-8")
    line = re.search(r"A line in `METHODS` \(`(\S+)`\), `(.*?)`", steps())
    insert(copy / line[1], "METHODS = {\n", f"    {line[2]}\n")
    insert(copy / "maskrd/experiment.py", "    method: Literal[", '"linear", ')
    variant = re.search(r"A variant in `config.yaml`, `(.*?)`", steps())[1]
    insert(copy / "config.yaml", "maskrd: {}              # the full method\n", f"  {variant}\n")
    insert(copy / "tests/methods/test_methods.py", "VARIANTS = [", '"linear", ')
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/methods/test_methods.py",
         "-k", "linear or every_registered"],
        cwd=copy, env={**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-3000:]
    assert int(re.search(r"(\d+) passed", run.stdout)[1]) >= 5
