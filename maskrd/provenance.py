"""Which version of the code is running."""

import subprocess
from pathlib import Path


def code_commit() -> str | None:
    """The git commit of the package, with "-dirty" if files differ from it; None where git can't tell.

    An installed copy has no commit: the repository that it may lie in is another one.
    """
    folder = Path(__file__).parent
    if not (folder.parent / ".git").exists():
        return None
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
