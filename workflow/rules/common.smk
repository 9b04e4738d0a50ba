"""The configuration, and the names that all rules use: `experiment`, `files`, `data` and `views`."""

import json
import os
import shlex
import sys
from pathlib import Path

from maskrd.config.files import (
    DIGESTS,
    Files,
    data_log,
    downloaded_file,
    unpacked_marker,
)
from maskrd.config.load import REPOSITORY, build_experiment
from maskrd.config.settings import Model
from maskrd.data.registry import DATASETS, is_generated
from maskrd.errors import MaskrdError
from maskrd.reporting.naming import report_name
from maskrd.sources.registry import load_sources
from maskrd.workflow.data import DataInputs
from maskrd.workflow.views import ViewInputs, paper_digest

# `python` in rules is the one that runs Snakemake, even if its environment isn't activated.
# With --sdm conda, the rule's own environment comes before it.
os.environ.update(PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.getenv('PATH')}")

# Jobs find the package from any folder, and from the environments of --sdm conda, which don't have it.
if (REPOSITORY / "Snakefile").exists():
    os.environ.update(
        PYTHONPATH=f"{REPOSITORY}{os.pathsep}{os.getenv('PYTHONPATH', '')}",
        PYTHONSAFEPATH="1",  # and find no other one in the folder where Snakemake runs
    )


def find_in_workflow(path):
    """A file of the workflow by its path in the repository, even if the workflow is a module that comes from GitHub."""
    source = workflow.current_basedir.join(f"../../{path}")
    local = Path(os.path.normpath(str(source)))
    return local if local.exists() else Path(workflow.sourcecache.get_path(source))


if sum(word.split("=")[0] == "--configfile" for word in sys.argv) > 1:
    raise WorkflowError(
        "--configfile was given twice, and Snakemake reads only the last one. Name all files after one --configfile: "
        "--configfile first.yaml second.yaml -- table1"
    )
try:
    experiment = build_experiment(
        config, find_in_workflow, workflow.overwrite_configfiles
    )
    data = DataInputs(experiment, load_sources(experiment.sources))
except MaskrdError as error:
    raise WorkflowError(f"The configuration is not valid.\n{error}")

files = Files(experiment)
views = ViewInputs(experiment)
config["shown"] = views.shown()  # for the pages of workflow/report
MODEL = files.any_model

# `--resources mem_mb=...` replaces the profile's list of resources, and with it the limit of GPU jobs.
if workflow.local_exec and "gpu" not in workflow.global_resources:
    workflow.register_resource("gpu", 1)
# A job of a cluster has the resource without a value.
GPU_JOBS = (
    workflow.global_resources["gpu"].value if "gpu" in workflow.global_resources else 1
)
if not isinstance(GPU_JOBS, int) or GPU_JOBS < 1:
    raise WorkflowError(
        f"--resources gpu={GPU_JOBS}: must be 1 or more. It is the number of trainings at a time, even on a CPU."
    )
# Jobs use it to find a free GPU. It is an environment variable, because a changed parameter would train everything again.
os.environ.update(MASKRD_GPU_JOBS=str(GPU_JOBS))


wildcard_constraints:
    dataset="|".join(experiment.datasets),
    category="[A-Za-z0-9][A-Za-z0-9_.-]*",
    variant="|".join(experiment.variants),
    backbone="|".join(experiment.used_backbones),
    seed=r"\d+",


def share_of_cores(wildcards):
    """Split the cores evenly between the jobs that use a GPU at a time. On a cluster the profile decides."""
    return 8 if workflow._cores is None else max(1, min(8, workflow._cores // GPU_JOBS))


def repeat_option(option, values):
    """The option of a command line once for each value."""
    return " ".join(f"{option} {shlex.quote(str(value))}" for value in values)


def model_files(wildcards):
    return files.model(Model(**wildcards))


def index_of(wildcards):
    """The index of a model's images. If it fits the images as they are now, its date doesn't matter."""
    path = files.index(wildcards.dataset, wildcards.category)
    settled = data.index_is_current(wildcards.dataset, wildcards.category)
    return ancient(path) if settled else path


def teacher_of(wildcards):
    return teacher_file(wildcards.backbone)


def teacher_file(backbone):
    """A teacher. If it was made from the weights as they are now, its date doesn't matter."""
    path = files.teacher(backbone)
    return ancient(path) if data.teacher_is_current(backbone) else path


def weights_of(wildcards):
    """The ImageNet weights of a teacher. For the user's own, a digest (a parameter) counts and the date doesn't."""
    path = data.weights(wildcards.backbone)
    return ancient(path) if experiment.weights.get(wildcards.backbone) else path


def content_digests(wildcards):
    """What stands for a model's images, its teacher's weights and the user's own files for it.

    As a parameter, so that changes make the model again.
    """
    images = data.digest(wildcards.dataset, wildcards.category)
    weights = data.weights_digest(wildcards.backbone)
    return [images, weights, *views.changed_files(Model(**wildcards))]


def training_json(wildcards):
    return experiment.recipe(wildcards.dataset, wildcards.variant).training_json()


def evaluation_json(wildcards):
    return experiment.recipe(wildcards.dataset, wildcards.variant).evaluation_json()
