"""What the profiles set, as Snakemake understands it."""

import json
import re

from tests.workflow.conftest import Workspace

# Says what Snakemake made of a profile.
SNAKEFILE = """
import json

settings = workflow.resource_settings
gpu = workflow.global_resources.get("gpu")
print("SETTINGS", json.dumps({
    "gpu": gpu and gpu.value,
    "gpu_is_global": workflow.resource_scopes.is_global("gpu"),
    "nodes": settings.nodes,
    "triggers": sorted(str(trigger) for trigger in workflow.rerun_triggers),
    "retries": workflow.execution_settings.retries,
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
    assert (default["gpu"], default["gpu_is_global"]) == (1, True)
    # One GPU for each submission, and as many submissions as there are jobs.
    assert (slurm["gpu"], slurm["gpu_is_global"]) == (1, False)
    assert slurm["nodes"] > 1
    assert slurm["triggers"] == default["triggers"]
    assert slurm["retries"] > 0


def test_the_slurm_profile_plans_the_whole_paper(clone: Workspace) -> None:
    outcome = clone.snakemake("--workflow-profile", "profiles/slurm", "-n")
    assert outcome.code == 0, outcome.output
    assert outcome.planned["train"] == 205
