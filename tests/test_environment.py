"""The pinned environments agree, and name no registry."""

import re
import tomllib

import pytest
import yaml

from maskrd import __version__
from tests.conftest import ROOT

LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")


def locked(python: str) -> dict[str, str]:
    """Versions that the lock file gives a Python; entries with a marker are for it or for newer ones."""
    entries = re.findall(r"^([A-Za-z0-9_.-]+)==([^ \\;]+)(?: ; ([^\\\n]*))?", LOCK, re.M)
    return {name: version for name, version, marker in entries if f">= '{python}'" not in marker}


def test_the_conda_environment_has_the_locked_versions() -> None:
    content = yaml.safe_load((ROOT / "envs/maskrd.yaml").read_text(encoding="utf-8"))
    pinned = dict(line.split("==") for line in content["dependencies"][-1]["pip"])
    versions = locked(python="3.12")
    assert content["dependencies"][0] == "python=3.11"
    assert pinned == {name: versions[name] for name in pinned}
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    needed = {re.match(r"[a-z0-9-]+", line)[0] for line in declared if not line.startswith("snakemake")}
    assert set(pinned) == needed


def test_every_locked_package_has_a_hash_and_no_address() -> None:
    assert "http" not in re.sub(r"^httpx?\S*|^httpcore\S*", "", LOCK, flags=re.M)
    assert "index" not in LOCK
    for block in re.split(r"^(?=[A-Za-z0-9])", LOCK, flags=re.M)[1:]:
        assert "--hash=sha256:" in block, block


@pytest.mark.parametrize("file", ["Makefile", "docs/cluster.md"])
def test_uv_is_told_the_environment(file: str) -> None:
    """Without --python it changes the environment that is active in the user's shell, and sync empties that one."""
    uses = re.findall(r"(?:\$\(UV\)|bin/uv) pip (?:sync|install) (.*)", (ROOT / file).read_text(encoding="utf-8"))
    assert uses
    assert all("--python " in use for use in uses)


def test_the_newest_entry_of_the_changelog_is_the_version() -> None:
    newest = re.search(r"^## \[(\S+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)[1]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"]
    assert newest == cited == __version__
