"""How long `make demo` takes in two checkouts of this repository, in turns, and the ratio of the second to the first.

    python benchmarks/demo.py OLD NEW [--rounds 1] [--json]

Each must have its `.venv` (`make setup`). Each demo runs in a clone of its checkout's last commit, so that nothing of
yours is touched. Beside the time on the clock stands the time that all processes took of a core, which depends less on
what else the machine does, and how long it took until the first table was there.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MEASURES = ("wall", "cpu", "first_table")


def run_demo(checkout: Path) -> dict[str, float]:
    """Seconds on the clock, of all processes together, and until the first table."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", "--local", str(checkout), str(clone)], check=True)
        (clone / ".venv").symlink_to(checkout.resolve() / ".venv")
        before, started = used(), time.monotonic()
        # -o setup: what is installed stays. The clone is imported rather than the checkout, whatever is installed.
        environment = {**os.environ, "PYTHONPATH": str(clone)}
        process = subprocess.Popen(["make", "-o", "setup", "demo"], cwd=clone, env=environment, stdout=sys.stderr)
        first = None
        while process.poll() is None:
            if first is None and any(clone.glob("results/demo/tables/table*.csv")):
                first = time.monotonic() - started
            time.sleep(0.1)
        wall = time.monotonic() - started
        if process.returncode:
            sys.exit(f"{checkout}: make demo failed with exit code {process.returncode}.")
        return {"wall": wall, "cpu": used() - before, "first_table": first if first is not None else wall}


def used() -> float:
    """CPU seconds of all processes that have ended below this one."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(checkouts: list[Path], rounds: int) -> dict:
    runs: dict[str, list[dict[str, float]]] = {str(checkout): [] for checkout in checkouts}
    for _ in range(rounds):
        for checkout in checkouts:
            runs[str(checkout)].append(run_demo(checkout))
    seconds = {
        name: {measure: statistics.median(run[measure] for run in taken) for measure in MEASURES}
        for name, taken in runs.items()
    }
    old, new = seconds.values()
    return {"seconds": seconds, "ratio": {measure: new[measure] / old[measure] for measure in MEASURES}, "runs": runs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkouts", type=Path, nargs=2, metavar="CHECKOUT")
    parser.add_argument("--rounds", type=int, default=1, help="runs of each (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    arguments = parser.parse_args()
    if arguments.checkouts[0].resolve() == arguments.checkouts[1].resolve() or arguments.rounds < 1:
        parser.error("needs two different checkouts and at least one round")
    result = measure(arguments.checkouts, arguments.rounds)
    if arguments.json:
        print(json.dumps(result, indent=1))
        return
    print(f"{'seconds':40} {'on the clock':>12} {'of a core':>12} {'first table':>12}")
    for name, taken in [*result["seconds"].items(), ("ratio", result["ratio"])]:
        print(f"{name:40}" + "".join(f" {taken[measure]:12.2f}" for measure in MEASURES))


if __name__ == "__main__":
    main()
