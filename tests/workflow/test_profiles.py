"""What the profiles set, as Snakemake understands it."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from maskrd.data.indexing import build_index
from tests.conftest import ROOT, write_category
from tests.workflow.conftest import Workspace
from tests.workflow.schedulers import PBS, SLURM, put_on_path

# Says what Snakemake made of a profile.
SNAKEFILE = """
import json

gpu = workflow.global_resources.get("gpu")
print("SETTINGS", json.dumps({
    "gpu": gpu and gpu.value,
    "gpu_of_each_submission": workflow.resource_scopes.is_local("gpu"),
    "nodes": workflow.resource_settings.nodes,
}))

rule all:
    default_target: True
    localrule: True
    shell: "true"
"""


def settings(workspace: Workspace, *options: str) -> dict:
    (workspace.folder / "Snakefile").write_text(SNAKEFILE)
    outcome = workspace.snakemake("-n", *options)
    found = re.search(r"^SETTINGS (.*)$", outcome.output, re.MULTILINE)
    assert found, outcome.output
    return json.loads(found[1])


def test_a_cluster_isnt_held_to_the_default_profiles_single_gpu(clone: Workspace) -> None:
    default, slurm = settings(clone), settings(clone, "--workflow-profile", "profiles/slurm")
    assert (default["gpu"], default["gpu_of_each_submission"]) == (1, False)
    # One GPU for each submission, and as many submissions as there are jobs.
    assert (slurm["gpu"], slurm["gpu_of_each_submission"]) == (1, True)
    assert slurm["nodes"] > 1


def test_no_profile_retrains_what_another_made(clone: Workspace) -> None:
    files = sorted((clone.folder / "profiles").glob("*/config.yaml"))
    assert len(files) == 3
    assert len({str(yaml.safe_load(file.read_text())["rerun-triggers"]) for file in files}) == 1


def test_the_slurm_profile_plans_the_whole_paper(clone: Workspace) -> None:
    outcome = clone.snakemake("--workflow-profile", "profiles/slurm", "-n")
    assert outcome.code == 0, outcome.output
    assert outcome.planned["train"] == 205


# The word of each cluster's profile for where a job goes.
PLACE = {"slurm": "slurm_partition", "generic": "queue"}
GPU_RULES = """
print("GPU", *(known.name for known in workflow.rules if known.resources["gpu"].value))
"""


@pytest.mark.parametrize("name", PLACE)
def test_only_jobs_with_a_gpu_go_where_the_gpus_are(clone: Workspace, name: str) -> None:
    with (clone.folder / "Snakefile").open("a") as file:
        file.write(GPU_RULES)
    outcome = clone.snakemake("-n", "--default-resources", "gpu=0", "--", "table1")
    rules = re.search(r"^GPU (.*)$", outcome.output, re.MULTILINE)[1].split()
    profile = yaml.safe_load((clone.folder / f"profiles/{name}/config.yaml").read_text())
    sent = {rule: values[PLACE[name]] for rule, values in profile["set-resources"].items()}
    assert sent == dict.fromkeys(rules, "gpu")
    assert profile["default-resources"][PLACE[name]] == "cpu"


# What sbatch is asked for by each line that the profile has commented out.
OPTIONS = {
    "slurm_account": "-A\nmy_project\n",
    "qos": "--qos=normal\n",
    "gpu_model": "--gpus=a100:1\n",
    "constraint": "-C\nvolta\n",
    "slurm_extra": "--mail-type=FAIL\n",
    "groups": "-t\n480\n",  # a training and its test, one after the other
    "group-components": "",
    "cores": "--cpus-per-task=4\n",
}
# Instead of gpu_model.
GRES = ("gres", "gpu")
COMMENTED = re.compile(r"^( *)# ([a-z_-]+)(: \S)", re.MULTILINE)


CELL = "results/tiny/models/mvtec_ad/bolt/maskrd/demo_resnet18/seed0"


@pytest.fixture
def ready(clone: Workspace, teacher_file: Path) -> Workspace:
    """A clone in which bolt can be trained: its index and its teacher are there. Of nut there are images."""
    results = clone.folder / "results/tiny"
    for folder in ("data/mvtec_ad", "teachers"):
        (results / folder).mkdir(parents=True)
    for category in ("bolt", "nut"):
        write_category(clone.folder / "images", category)
    build_index("mvtec_ad", "bolt", clone.folder / "images").write(results / "data/mvtec_ad/bolt.json")
    shutil.copy(teacher_file, results / "teachers/demo_resnet18.safetensors")
    return clone


def comment_in(text: str, *keys: str) -> str:
    return COMMENTED.sub(lambda line: "".join(line.groups()) if line[2] in keys else line[0], text)


def asked_of_slurm(workspace: Workspace, tiny: dict, calls: Path) -> str:
    """The words of `sbatch`, one a line, for a model that is trained and tested."""
    calls.unlink(missing_ok=True)
    options = ("--workflow-profile", "profiles/slurm", "--retries", "0", "--slurm-init-seconds-before-status-checks")
    outcome = workspace.snakemake(*options, "1", "--", f"{CELL}/metrics.json", config=tiny, cores=4)
    assert calls.exists(), outcome.output
    return calls.read_text()


def test_every_line_of_the_slurm_profile_reaches_slurm(
    ready: Workspace, tiny: dict, tmp_path: Path, monkeypatch
) -> None:
    put_on_path(tmp_path / "bin", SLURM, monkeypatch)
    as_it_stands = asked_of_slurm(ready, tiny, tmp_path / "bin/calls")
    for words in ("-p\ngpu\n", "--gpus=1\n", "-t\n240\n", "--mem\n8000\n", "--requeue\n", "--cpus-per-task=4\n"):
        assert words in as_it_stands
    profile = ready.folder / "profiles/slurm/config.yaml"
    text = profile.read_text()
    assert {key for _, key, _ in COMMENTED.findall(text)} == {*OPTIONS, *GRES}
    profile.write_text(comment_in(text, *OPTIONS))
    all_lines = asked_of_slurm(ready, tiny, tmp_path / "bin/calls")
    for key, words in OPTIONS.items():
        assert words in all_lines, key
    profile.write_text(comment_in(text, *GRES))
    by_gres = asked_of_slurm(ready, tiny, tmp_path / "bin/calls")
    assert "--gres=gpu:a100:1\n" in by_gres
    assert "--gpus" not in by_gres


def test_a_job_that_the_generic_scheduler_loses_is_submitted_anew(
    ready: Workspace, tiny: dict, tmp_path: Path, monkeypatch
) -> None:
    put_on_path(tmp_path / "bin", PBS, monkeypatch)
    targets = (f"{CELL}/model.safetensors", "results/tiny/data/mvtec_ad/nut.json")
    options = ("--workflow-profile", "profiles/generic", "--latency-wait", "5", "--seconds-between-status-checks", "1")
    outcome = ready.snakemake(*options, "--", *targets, config=tiny, cores=4)
    assert outcome.code == 0, outcome.output
    assert all((ready.folder / path).exists() for path in targets)
    calls = (tmp_path / "bin/calls").read_text().splitlines()
    assert len(calls) == 3  # two jobs and one that was lost
    assert any("-q gpu -l select=1:ncpus=4:mem=8000mb:ngpus=1 -l walltime=4:0:00" in call for call in calls)
    assert any("-q cpu -l select=1:ncpus=4:mem=8000mb -l walltime=4:0:00" in call for call in calls)
    memory = [int(re.search(r"mem=(\d+)mb", call)[1]) for call in calls]
    assert sorted(memory) == [8000, 8000, 16000]


# What stands for LSF and SGE prints, and what the profile's scripts make of it.
STATES = [
    ("lsf", {"bjobs": "echo DONE"}, "success"),
    ("lsf", {"bjobs": "echo EXIT"}, "failed"),
    ("lsf", {"bjobs": "echo PEND"}, "running"),
    ("lsf", {"bjobs": "exit 255"}, "running"),
    ("sge", {"qstat": "exit 0", "qacct": "exit 1"}, "running"),
    ("sge", {"qstat": "exit 1", "qacct": "exit 1"}, "running"),
    ("sge", {"qstat": "exit 1", "qacct": "echo 'failed 0'; echo 'exit_status 0'"}, "success"),
    ("sge", {"qstat": "exit 1", "qacct": "echo 'failed 0'; echo 'exit_status 1'"}, "failed"),
    ("sge", {"qstat": "exit 1", "qacct": "echo 'failed 100 : assumedly after job'; echo 'exit_status 0'"}, "failed"),
    ("pbs", {"qstat": "exit 1"}, "running"),
    ("pbs", {"qstat": "echo '    job_state = Q'"}, "running"),
    ("pbs", {"qstat": "echo '    job_state = F'; echo '    Exit_status = 0'"}, "success"),
    ("pbs", {"qstat": "echo '    job_state = F'; echo '    Exit_status = -29'"}, "failed"),
    ("pbs", {"qstat": "echo '    job_state = F'"}, "failed"),  # deleted before it ran
]


@pytest.mark.parametrize(("scheduler", "commands", "state"), STATES)
def test_what_other_schedulers_say_of_a_job(
    tmp_path: Path, monkeypatch, scheduler: str, commands: dict, state: str
) -> None:
    put_on_path(tmp_path / "bin", {name: f"#!/bin/sh\n{line}\n" for name, line in commands.items()}, monkeypatch)
    assert run_script(tmp_path, scheduler, "status", "12") == state


@pytest.mark.parametrize(
    ("scheduler", "command", "answer", "asked"),
    [
        ("lsf", "bsub", "Job <12> is submitted to queue <gpu>.", "-q gpu -n 4 -R span[hosts=1] rusage[mem=8000MB] "
         "-M 8000MB -W 240 -gpu num=1 -o logs/cluster/%J.log job.sh"),
        ("sge", "qsub", "12", "-q gpu -pe smp 4 -l h_vmem=2000M -l h_rt=14400 -l gpu=1 -j y -o logs/cluster job.sh"),
        ("pbs", "qsub", "12", "-q gpu -l select=1:ncpus=4:mem=8000mb:ngpus=1 -l walltime=4:0:00 -j oe "
         "-o logs/cluster job.sh"),
    ],
)  # fmt: skip
def test_what_other_schedulers_are_asked_for(
    tmp_path: Path, monkeypatch, scheduler: str, command: str, answer: str, asked: str
) -> None:
    script = f'#!/bin/sh\necho "$@" > FOLDER/calls\necho "{answer}"\n'
    put_on_path(tmp_path / "bin", {command: script}, monkeypatch)
    assert run_script(tmp_path, scheduler, "submit", "4", "8000", "240", "gpu", "1", "job.sh") == "12"
    assert (tmp_path / "bin/calls").read_text().strip().endswith(asked)
    run_script(tmp_path, scheduler, "submit", "4", "8000", "240", "cpu", "0", "job.sh")
    assert "gpu" not in (tmp_path / "bin/calls").read_text()


def run_script(folder: Path, scheduler: str, *words: str) -> str:
    script = ROOT / f"profiles/generic/{scheduler}.sh"
    return subprocess.run([script, *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
