"""What the profiles set, as Snakemake understands it."""

import json
import re

import yaml

from tests.workflow.conftest import Workspace

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
    texts = [(clone.folder / f"profiles/{name}/config.yaml").read_text() for name in ("default", "slurm")]
    default, slurm = map(yaml.safe_load, texts)
    assert slurm["rerun-triggers"] == default["rerun-triggers"]


def test_the_slurm_profile_plans_the_whole_paper(clone: Workspace) -> None:
    outcome = clone.snakemake("--workflow-profile", "profiles/slurm", "-n")
    assert outcome.code == 0, outcome.output
    assert outcome.planned["train"] == 205
