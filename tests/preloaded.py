"""Snakemake, maskrd and Python scripts at the price of a fork: a process that has imported what they import.

Reads one JSON list from stdin at a time, the words of a command line; writes [exit code, output] as JSON.
"""

import importlib
import json
import os
import runpy
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from maskrd.preloaded import exit_code

HEAVY = (
    "snakemake.cli", "snakemake.api", "snakemake.dag", "snakemake.workflow", "snakemake.scheduling.greedy", "pandas",
    "torch", "rich.console", "maskrd.cli", "maskrd.config.experiment", "maskrd.reporting.grid",
)  # fmt: skip


def programs() -> dict[str, Callable[[], None]]:
    """What runs a command by its first word, with sys.argv set."""
    from snakemake.cli import main as snakemake

    from maskrd.cli import main as maskrd

    return {
        "snakemake": snakemake,
        "maskrd": maskrd,
        "python": lambda: script(sys.argv[1:]),
    }


def script(words: list[str]) -> None:
    """`python FILE ...` and `python -c CODE`."""
    sys.argv = words
    if words[0] == "-c":
        exec(words[1], {"__name__": "__main__"})
    else:
        sys.path[0] = str(Path(words[0]).parent.resolve())
        runpy.run_path(words[0], run_name="__main__")


def run(main: Callable[[], None], words: list[str], output: str) -> int:
    """Run in a child; its exit code."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        file = os.open(output, os.O_WRONLY)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.argv = words
        code = exit_code(main)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def serve() -> None:
    known = programs()
    for name in HEAVY:
        importlib.import_module(name)
    for line in sys.stdin:
        folder, words = json.loads(line)
        os.chdir(folder)
        with tempfile.NamedTemporaryFile() as output:
            code = run(known[words[0]], words, output.name)
            print(json.dumps([code, Path(output.name).read_text(errors="replace")]), flush=True)


if __name__ == "__main__":
    serve()
