"""What a reviewer gets, from the last commit: `make release`.

The archive holds every tracked file, RELEASE (version and commit) and SHA256SUMS (of all of them), without history. The
same commit gives the same bytes: files are sorted, and dates are that of the commit.
"""

import gzip
import hashlib
import io
import re
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "dist"


def read_git(*words: str) -> bytes:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, check=True).stdout


def committed_files() -> dict[str, tuple[bytes, bool]]:
    """Content of each file of the last commit, and whether it is a program."""
    with tarfile.open(fileobj=io.BytesIO(read_git("archive", "--format=tar", "HEAD"))) as archive:
        members = [member for member in archive if member.isfile()]
        return {member.name: (archive.extractfile(member).read(), bool(member.mode & 0o100)) for member in members}


def build_release(folder: Path) -> Path:
    """Write maskrd-VERSION.tar.gz and its checksum into `folder`."""
    files = committed_files()
    version = re.search(rb'__version__ = "(.*)"', files["maskrd/__init__.py"][0])[1].decode()
    commit = read_git("rev-parse", "HEAD").decode().strip()
    files["RELEASE"] = (f"maskrd {version}\ncommit {commit}\n".encode(), False)
    sums = (f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, (content, _) in sorted(files.items()))
    files["SHA256SUMS"] = ("".join(sums).encode(), False)
    name = f"maskrd-{version}"
    archive = pack(files, name, int(read_git("log", "-1", "--format=%ct")))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.tar.gz"
    path.write_bytes(archive)
    path.with_name(f"{path.name}.sha256").write_text(f"{hashlib.sha256(archive).hexdigest()}  {path.name}\n")
    return path


def pack(files: dict[str, tuple[bytes, bool]], top: str, date: int) -> bytes:
    """A .tar.gz of the files below the folder `top`."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, (content, is_program) in sorted(files.items()):
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size, member.mtime, member.mode = len(content), date, 0o755 if is_program else 0o644
            archive.addfile(member, io.BytesIO(content))
    return gzip.compress(plain.getvalue(), mtime=0)


if __name__ == "__main__":
    sys.stdout.write(f"{build_release(FOLDER).relative_to(ROOT)}\n")
