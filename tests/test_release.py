"""The archive for reviewers."""

import hashlib
import os
import re
import tarfile
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tools.release import build_release

pytestmark = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="a release is made of a git checkout")
NEEDED = ("LICENSE", "CITATION.cff", "requirements.lock", "Containerfile", "Makefile", "docs/artifact.md", "RELEASE")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_release(tmp_path_factory.mktemp("release"))


def test_the_same_commit_gives_the_same_bytes(archive: Path, tmp_path: Path) -> None:
    mask = os.umask(0o077)
    try:
        again = build_release(tmp_path)
    finally:
        os.umask(mask)
    assert again.read_bytes() == archive.read_bytes()
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert archive.with_name(f"{archive.name}.sha256").read_text() == f"{digest}  {archive.name}\n"


def test_an_unpacked_release_is_whole_and_has_no_history(archive: Path, tmp_path: Path) -> None:
    with tarfile.open(archive) as file:
        file.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    sums = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    assert set(sums) == set(files) - {"SHA256SUMS"}
    found = {name: hashlib.sha256(files[name].read_bytes()).hexdigest() for name in sums}
    assert found == sums
    assert not any(name.startswith(".git/") for name in files)
    assert set(NEEDED) <= set(files)
    assert any(re.match(r"results/reference/.*/metrics\.json", name) for name in files)
    assert os.access(folder / "profiles/generic/pbs.sh", os.X_OK)
