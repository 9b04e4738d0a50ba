"""A tiny workflow through a real Slurm, with faults: `make test-slurm`, as root on Debian.

    python -m tests.slurm.run [SCENE...] [--folder FOLDER]

Each scene is a run of Snakemake with the shipped profile. Thirty models are trained in grouped submissions while a node
is drained, an urgent job preempts another, and the third loses its power. Further scenes let a time limit strike,
cancel a training, give too little memory, name a wrong partition, use every commented option of the profile, submit an
array, and take a whole node. A watcher notes whether a finished model is lost or trained a second time. The last line
states nodes, jobs, faults and losses.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import yaml

from tests.conftest import write_category
from tests.kill import CONFIG, RESULTS, begin_anew
from tests.slurm.cluster import NODES, Cluster, enter_namespaces, node_states, running_cluster, set_node, wait_for
from tests.workflow.conftest import make_workspace

CATEGORIES, SEEDS = ("bolt", "nut"), 5
# Over those of profiles/slurm: nobody wants to wait here.
PROFILE = [
    "--workflow-profile", "profiles/slurm",
    "--slurm-init-seconds-before-status-checks", "3",
    "--latency-wait", "10",
    "--jobs", "6",
    "--set-threads", "train=1", "evaluate=1", "index=1",
]  # fmt: skip
GROUPS = ("--groups", "train=model", "evaluate=model", "--group-components", "model=5", "--cores", "1")
# A state at every step: a node that loses its power must not cost this rehearsal ten minutes.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "MASKRD_STATE_MINUTES": "0"}


@dataclass
class Watcher:
    """Looks at the store twice a second: which trainings were finished, which of them vanished or are trained again."""

    folder: Path
    finished: set[Path] = field(default_factory=set)
    trained_again: set[Path] = field(default_factory=set)
    ended: threading.Event = field(default_factory=threading.Event)

    def look(self) -> None:
        store = self.folder / RESULTS / "store"
        self.trained_again |= {path.parent for path in store.glob("*/last.pt")} & self.finished
        self.finished |= {path.parent for path in store.glob("*/finished.json")}

    def run(self) -> None:
        while not self.ended.wait(0.5):
            self.look()

    @property
    def lost(self) -> list[Path]:
        return [path for path in self.finished if not (path / "finished.json").exists()]


@dataclass
class Outcome:
    code: int
    output: str


class Rehearsal:
    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self.folder, self.cluster = folder, cluster
        make_workspace(folder)
        (folder / ".venv").symlink_to(Path(sys.prefix))
        for category in CATEGORIES:
            write_category(folder / "images", category)
        begin_anew(folder)
        self.watcher = Watcher(folder)
        self.snakemake: subprocess.Popen[str] | None = None

    def start(
        self, *targets: str, resources: tuple[str, ...] = (), options: tuple[str, ...] = (), epochs: int = 30
    ) -> subprocess.Popen[str]:
        """Snakemake in a process group of its own."""
        self.configure(epochs)
        asked = ["slurm_partition=cpu", "mem_mb=1500", "runtime=30", *resources]
        command = [sys.executable, "-m", "snakemake", *PROFILE, *options, "--default-resources", *asked]
        with (self.folder / "snakemake.log").open("w") as log:
            self.snakemake = subprocess.Popen(
                [*command, "--configfile", "mine.yaml", "--", *targets], cwd=self.folder, env=ENVIRONMENT,
                stdout=log, stderr=log, text=True, start_new_session=True,
            )  # fmt: skip
        return self.snakemake

    def stop(self) -> None:
        """Kill a Snakemake that is still at work, as after a scene that failed."""
        if self.snakemake is not None and self.snakemake.poll() is None:
            os.killpg(self.snakemake.pid, signal.SIGKILL)
            self.snakemake.wait()

    def configure(self, epochs: int) -> None:
        tables = {"table5": {"variants": ["no_fmm", "simam_only", "maskrd"]}}
        config = {**CONFIG, "train": {**CONFIG["train"], "epochs": epochs}, "seeds": list(range(SEEDS))}
        (self.folder / "mine.yaml").write_text(yaml.safe_dump({**config, "tables": tables}), encoding="utf-8")

    def wait_for(self, process: subprocess.Popen[str], condition: Callable[[], object], what: str) -> None:
        """Wait while Snakemake works for the condition; its output is shown if it ends before."""
        wait_for(lambda: condition() or process.poll() is not None, what, 900)
        assert process.poll() is None, self.output()

    def finish(self, process: subprocess.Popen[str], seconds: float = 1500) -> Outcome:
        return Outcome(process.wait(seconds), self.output())

    def output(self) -> str:
        return (self.folder / "snakemake.log").read_text()

    def log(self, model: str) -> str:
        path = self.folder / RESULTS / f"logs/train/mvtec_ad/{model}.log"
        return path.read_text() if path.exists() else ""

    def states(self) -> list[Path]:
        """Resumable states of unfinished trainings."""
        return list((self.folder / RESULTS / "store").glob("*/last.pt"))


def model(category: str, variant: str, seed: int = 0) -> str:
    return f"{category}/{variant}/demo_resnet18/seed{seed}"


def weights(name: str) -> str:
    return f"{RESULTS}/models/mvtec_ad/{name}/model.safetensors"


def slurm(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def running_jobs(*words: str) -> list[str]:
    """Numbers of the jobs that run, chosen by options of squeue."""
    return slurm("squeue", "-h", "-t", "running", "-o", "%A", *words).split()


def succeeded(result: Outcome) -> None:
    assert result.code == 0, result.output


def freeze_trainings() -> int:
    """Stop the trainings where they are, so that what comes next hits them on a machine of any speed; their number.

    Slurm wakes a process before it asks it to end.
    """
    commands = ((process, process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"]))
    trainings = [process for process, words in commands if words[1:4] == ["-m", "maskrd", "train"]]
    for process in trainings:
        process.suspend()
    return len(trainings)


def thirty_models_in_groups(rehearsal: Rehearsal) -> int:
    """Three faults: a node is drained, another is preempted, the third loses its power."""
    # Slurm is asked for the sum of a group's minutes.
    process = rehearsal.start("table5", resources=("runtime=5",), options=GROUPS, epochs=1)
    rehearsal.wait_for(process, lambda: running_jobs("-w", "cpu1"), "a job without a GPU")
    set_node("cpu1", "State=drain", "Reason=rehearsal")  # the job there may end, the next go elsewhere
    rehearsal.wait_for(process, lambda: rehearsal.watcher.finished, "a finished model")
    rehearsal.wait_for(process, lambda: running_jobs("-w", "gpu1"), "a job on gpu1")
    urgent = ["sbatch", "--parsable", "-o", "/dev/null", "-p", "urgent", "--gpus=2", "-w", "gpu1", "-t", "5"]
    job = slurm(*urgent, "--wrap", "sleep 10").strip()
    rehearsal.wait_for(process, lambda: job in running_jobs("-p", "urgent"), "the urgent job")
    # After the loss of a node, the plugin (2.8.0) may submit nothing more: docs/cluster.md.
    rehearsal.wait_for(process, lambda: "Trying to restart job" in rehearsal.output(), "the preempted jobs")
    rehearsal.wait_for(process, lambda: running_jobs("-w", "gpu2"), "a job on gpu2")
    rehearsal.cluster.kill_node("gpu2")
    rehearsal.wait_for(process, lambda: "down" in node_states()["gpu2"], "the loss of gpu2 to be noticed")
    rehearsal.cluster.start_node("gpu2")
    succeeded(rehearsal.finish(process))
    assert node_states()["cpu1"] == "drained", node_states()
    set_node("cpu1", "State=resume")
    assert "NODE_FAIL" in slurm("sacct", "-X", "-D", "-n", "-P", "--format=State")
    return 3


def time_limit_strikes(rehearsal: Rehearsal) -> int:
    name = model("bolt", "scconv_only")
    process = rehearsal.start(weights(name))
    rehearsal.wait_for(process, rehearsal.states, "a training")
    freeze_trainings()
    for job in running_jobs("-p", "gpu"):
        slurm("scontrol", "update", f"JobId={job}", "TimeLimit=1")
    result = rehearsal.finish(process)
    succeeded(result)
    assert "TIMEOUT" in result.output, result.output
    assert "Continuing at epoch" in rehearsal.log(name), rehearsal.log(name)
    return 1


def cancelled_half_way(rehearsal: Rehearsal) -> int:
    name = model("nut", "scconv_only")
    process = rehearsal.start(weights(name))
    rehearsal.wait_for(process, rehearsal.states, "a training")
    freeze_trainings()
    for job in running_jobs("-p", "gpu"):
        slurm("scancel", job)
    succeeded(rehearsal.finish(process))
    assert "Continuing at epoch" in rehearsal.log(name), rehearsal.log(name)
    return 1


def too_little_memory(rehearsal: Rehearsal) -> int:
    result = rehearsal.finish(
        rehearsal.start(weights(model("bolt", "scconv_only", 1)), resources=("mem_mb=300 * attempt * attempt",))
    )
    succeeded(result)
    assert "Trying to restart job" in result.output, result.output
    return 1


def wrong_partition(rehearsal: Rehearsal) -> int:
    options = ("--set-resources", "train:slurm_partition=nowhere")
    result = rehearsal.finish(rehearsal.start(weights(model("nut", "scconv_only", 1)), options=options))
    assert result.code != 0
    assert "nowhere" in result.output, result.output
    return 1


def commented_options(rehearsal: Rehearsal) -> int:
    """No fault: each commented line for jobs with a GPU in the profile, --gres in place of --gpus at last."""
    by_gpus = (
        "gpu_model=standin",
        "slurm_account=paper",
        "qos=normal",
        "constraint=volta",
        "slurm_extra='--mail-type=FAIL'",
    )
    by_gres = ("gpu=0", "gres=gpu:standin:1")
    for seed, options in enumerate([by_gpus, by_gres]):
        asked = [f"train:{option}" for option in ("slurm_partition=gpu", *options)]
        name = model("nut", "scconv_only", 2 + seed)
        succeeded(rehearsal.finish(rehearsal.start(weights(name), options=("--set-resources", *asked), epochs=1)))
        given = slurm("sacct", "-X", "-n", "-P", "--format=JobIDRaw,Account,QOS,Constraints,AllocTRES").splitlines()[-1]
        assert "gres/gpu=1" in given, given
        if options == by_gpus:
            assert given.split("|")[1:4] == ["paper", "normal", "volta"], given
    return 0


def array_of_jobs(rehearsal: Rehearsal) -> int:
    """No fault: one sbatch for several trainings."""
    targets = [weights(model(category, "no_scsatt", 3)) for category in CATEGORIES]
    succeeded(rehearsal.finish(rehearsal.start(*targets, options=("--slurm-array-jobs", "train"), epochs=1)))
    jobs = slurm("sacct", "-X", "-n", "-P", "--format=JobID").split()
    assert sum("_" in job for job in jobs) == len(targets), jobs
    return 0


def whole_node(rehearsal: Rehearsal) -> int:
    """The shipped script on a node with four GPUs; its time limit strikes once."""
    rehearsal.configure(epochs=30)
    names = [model(category, "scconv_only", 4) for category in CATEGORIES]
    words = ["--set-threads", "train=1", "index=1", "--configfile", "mine.yaml", "--", *map(weights, names)]
    script = ["sbatch", "--parsable", "--output=node.log", "profiles/slurm/whole_node.sh", *words]
    job = submit(rehearsal, script)
    wait_for(rehearsal.states, "a training", 900)
    assert freeze_trainings() == len(names), "the trainings don't run at a time"
    slurm("scontrol", "update", f"JobId={job}", "TimeLimit=1")
    first = final_state(job)
    assert first == "TIMEOUT", first
    second = final_state(submit(rehearsal, script))
    assert second == "COMPLETED", (rehearsal.folder / "node.log").read_text()
    logs = [rehearsal.log(name) for name in names]
    assert any("Continuing at epoch" in log for log in logs), logs
    return 1


def submit(rehearsal: Rehearsal, command: list[str]) -> str:
    """The job's number."""
    done = subprocess.run(command, cwd=rehearsal.folder, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def final_state(job: str) -> str:
    """The state in which the job ends."""
    wait_for(lambda: not slurm("squeue", "-h", "-t", "pending,running,completing", "-j", job), "the node's job", 900)
    return slurm("sacct", "-X", "-n", "-P", "-j", job, "--format=State").strip()


SCENES: list[Callable[[Rehearsal], int]] = [
    thirty_models_in_groups,
    time_limit_strikes,
    cancelled_half_way,
    too_little_memory,
    wrong_partition,
    commented_options,
    array_of_jobs,
    whole_node,
]  # fmt: skip


def check_models(folder: Path) -> int:
    """How many models there are; each has finite weights' metrics if it was tested."""
    records = list((folder / RESULTS / "models").rglob("metrics.json"))
    assert all(0 <= json.loads(path.read_text())["image_auroc"] <= 1 for path in records)
    return len(list((folder / RESULTS / "models").rglob("model.safetensors")))


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [scene.__name__ for scene in SCENES]
    parser.add_argument("scenes", nargs="*", metavar="SCENE", help=f"{', '.join(names)}; all of them by default")
    parser.add_argument("--folder", type=Path, help="keep the workflow and the daemons' logs in this new folder")
    arguments = parser.parse_args()
    unknown = set(arguments.scenes) - set(names)
    if unknown:
        parser.error(f"There is no scene {', '.join(sorted(unknown))}; there are {', '.join(names)}.")
    return arguments


def main() -> None:
    arguments = read_arguments()
    enter_namespaces("tests.slurm.run")
    signal.signal(signal.SIGTERM, lambda *arguments: sys.exit("Stopped."))
    started = time.monotonic()
    with ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        daemons, work = folder.absolute() / "daemons", folder.absolute() / "work"
        for path in (daemons, work):
            path.mkdir(parents=True)
        rehearsal = Rehearsal(work, stack.enter_context(running_cluster(daemons)))
        stack.callback(rehearsal.stop)
        scenes = [scene for scene in SCENES if scene.__name__ in arguments.scenes] or SCENES
        outcome = play(rehearsal, scenes)
    print(f"{outcome} {time.monotonic() - started:.0f} s.")
    lost = [*rehearsal.watcher.lost, *rehearsal.watcher.trained_again]
    sys.exit("\n".join(str(path.relative_to(work)) for path in lost) or 0)


def play(rehearsal: Rehearsal, scenes: list[Callable[[Rehearsal], int]]) -> str:
    """Nodes, jobs, faults and losses."""
    watcher, faults = threading.Thread(target=rehearsal.watcher.run, daemon=True), 0
    watcher.start()
    for scene in scenes:
        before, jobs = time.monotonic(), count_jobs()
        faults += scene(rehearsal)
        jobs, seconds = count_jobs() - jobs, time.monotonic() - before
        print(f"{scene.__name__}: as it should be; {jobs} Slurm jobs, {seconds:.0f} s", flush=True)
    rehearsal.watcher.ended.set()
    watcher.join()
    lost, again = len(rehearsal.watcher.lost), len(rehearsal.watcher.trained_again)
    return (
        f"{len(NODES)} nodes, {count_jobs()} Slurm jobs, {faults} faults, {check_models(rehearsal.folder)} models: "
        f"{lost} lost, {again} trained again;"
    )


def count_jobs() -> int:
    """Submissions that Slurm's accounting knows; a requeued one counts once."""
    return len(set(slurm("sacct", "-X", "-n", "-P", "-a", "--format=JobIDRaw").split()))


if __name__ == "__main__":
    main()
