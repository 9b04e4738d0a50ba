"""The validated experiment, and where its files are."""

import json
import os
import re
import shlex
import sys
from pathlib import Path

import yaml

from maskrd import paper
from maskrd.data.changes import content_digest, image_folder
from maskrd.data.sources import load_sources
from maskrd.errors import MaskrdError
from maskrd.experiment import GENERATED_DATASETS, Experiment, Model, canonical_json
from maskrd.files import sha256_file, sha256_json
from maskrd.reporting.naming import report_name

# `python` in rules is the one that runs Snakemake, though its environment may not be activated;
# with --sdm conda the rule's own environment comes before it.
os.environ.update(PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.getenv('PATH')}")

if sum(word.split("=")[0] == "--configfile" for word in sys.argv) > 1:
    raise WorkflowError(
        "--configfile stands there twice, and Snakemake reads the last one only. Name all files after one: "
        "--configfile first.yaml second.yaml -- table1"
    )
try:
    experiment = Experiment.load(
        config,
        defaults=yaml.safe_load(
            Path(workflow.basedir, "config.yaml").read_text(encoding="utf-8")
        ),
    )
    SOURCES = load_sources(experiment.sources)
except MaskrdError as error:
    raise WorkflowError(f"The configuration is not valid.\n{error}")

RESULTS = experiment.results
MODEL = (
    f"{RESULTS}/models/{{dataset}}/{{category}}/{{variant}}/{{backbone}}/seed{{seed}}"
)
# The lock file records downloads that have no published checksum; it lies with the data to be copied along.
# Not parameters of the rules: another list of mirrors must not fetch a verified file again.
SOURCE_OPTIONS = (
    f"--sources {shlex.quote(str(experiment.sources))} --lock data/downloads/lock.json"
)
# How many jobs may use a GPU at a time, for them to find a free one. On a cluster each has its own.
# An environment variable: as a parameter of the rules, another limit would train everything anew.
# (`get` gives a resource without value where a job of a cluster has none.)
# `--resources mem_mb=...` replaces the profile's list of resources, and its limit with it.
if workflow.local_exec and "gpu" not in workflow.global_resources:
    workflow.register_resource("gpu", 1)
GPU_JOBS = (
    workflow.global_resources["gpu"].value if "gpu" in workflow.global_resources else 1
)
if not isinstance(GPU_JOBS, int) or GPU_JOBS < 1:
    raise WorkflowError(
        f"--resources gpu={GPU_JOBS}: must be 1 or more. It is how many trainings run at a time, on a CPU, too."
    )
os.environ.update(MASKRD_GPU_JOBS=str(GPU_JOBS))
PAPER_TABLES = [name for name in experiment.tables if name in paper.TABLES]
JOB = "{dataset}/{category}/{variant}/{backbone}/seed{seed}"


wildcard_constraints:
    dataset="|".join(experiment.datasets),
    category="[A-Za-z0-9][A-Za-z0-9_.-]*",
    variant="|".join(experiment.variants),
    backbone="|".join(experiment.used_backbones),
    seed=r"\d+",


def share_of_cores(wildcards):
    """Of a job that takes a GPU: so many at a time that all have cores; on a cluster the profile says."""
    return 8 if workflow._cores is None else max(1, min(8, workflow._cores // GPU_JOBS))


def training_json(wildcards):
    return experiment.recipe(wildcards.dataset, wildcards.variant).training_json()


def evaluation_json(wildcards):
    return experiment.recipe(wildcards.dataset, wildcards.variant).evaluation_json()


def data_folder(dataset):
    """Where a dataset lies: the user's folder, or the one that the pipeline fills."""
    if experiment.datasets[dataset].path:
        return experiment.datasets[dataset].path
    return (
        Path(f"{RESULTS}/generated" if dataset in GENERATED_DATASETS else "data")
        / dataset
    )


def data_source(wildcards):
    """What must be there before a category can be indexed."""
    dataset = wildcards.dataset
    if experiment.datasets[dataset].path:
        return []
    if dataset in GENERATED_DATASETS:
        return f"{data_folder(dataset)}/{wildcards.category if dataset == 'demo' else 'all'}.generated"
    return f"data/{dataset}.unpacked.json"


def archive(wildcards):
    """The archive that a dataset is unpacked from: the user's, or the one to download."""
    own = experiment.datasets[wildcards.dataset].archive
    return own or f"data/downloads/{SOURCES.datasets[wildcards.dataset].file}"


def teacher_weights(wildcards):
    return (
        experiment.weights.get(wildcards.backbone)
        or f"data/downloads/{SOURCES.weights[wildcards.backbone].file}"
    )


def source_key(wildcards):
    entries = [*SOURCES.datasets.values(), *SOURCES.weights.values()]
    return next(entry.key for entry in entries if entry.file == wildcards.file)


def checksum(key):
    """As a parameter: a corrected checksum fetches anew, a corrected comment doesn't."""
    known = SOURCES[key].checksum
    return known.model_dump_json() if known else "none published"


def downloads():
    """Everything that the configured tables and figures need from the network."""
    reports = [
        experiment.report(name) for name in (*experiment.tables, *experiment.figures)
    ]
    models = [model for report in reports for model in report.models()]
    used = {model.dataset for model in models}
    datasets = [
        name
        for name in SOURCES.datasets
        if name in used and not experiment.datasets[name].path
    ]
    backbones = {model.backbone for model in models}
    weights = [
        experiment.weights.get(name) or f"data/downloads/{SOURCES.weights[name].file}"
        for name in SOURCES.weights
        if name in backbones
    ]
    return [f"data/{name}.unpacked.json" for name in datasets] + weights


def data_memory(wildcards):
    return f"{RESULTS}/data/{wildcards.dataset}/.{wildcards.category}.memory.json"


def data_digest(wildcards):
    dataset = experiment.datasets[wildcards.dataset]
    if dataset.path is None:
        fetched = wildcards.dataset in SOURCES.datasets
        return (
            checksum(f"datasets.{wildcards.dataset}")
            if fetched
            else "made by the pipeline"
        )
    folder = image_folder(wildcards.dataset, wildcards.category, dataset.path)
    return content_digest(folder, Path(data_memory(wildcards)))


def weights_file(model):
    """The weights that a model is tested with; variants that differ in evaluation only share them."""
    return f"{RESULTS}/models/{experiment.trained_model(model).path}/model.safetensors"


def trained_model(wildcards):
    return weights_file(Model(**wildcards))


def report_json(kind):
    """What a table or figure shows, as a parameter: a changed caption rebuilds it, and only it."""
    return lambda wildcards: canonical_json(experiment.report(wildcards[kind]))


def model_files(name):
    return [weights_file(model) for model in experiment.report(name).models()]


def there(files):
    """Those that a table or report can show: all, or with `partial` those that exist."""
    return [file for file in files if not experiment.partial or Path(file).exists()]


def metrics_file(model):
    return Path(f"{RESULTS}/models/{model.path}/metrics.json")


def all_metrics(table):
    return [str(metrics_file(model)) for model in experiment.report(table).models()]


def metrics_files(table):
    """The metrics of a table's models; with `partial` those that are there."""
    return there(all_metrics(table))


def heatmap_files(figure):
    return [
        f"{RESULTS}/models/{model.path}/heatmaps.npz"
        for model in experiment.report(figure).models()
    ]


def images_per_defect(wildcards):
    """As many as the dataset's figures may have to show of a single defect type."""
    figures = experiment.figures.values()
    return max(
        (
            figure.images_per_category
            for figure in figures
            if figure.dataset == wildcards.dataset
        ),
        default=1,
    )


def words(option, values):
    """An option of a command line for each value."""
    return " ".join(f"{option} {shlex.quote(str(value))}" for value in values)


def speed_models(table):
    """A model of each variant of a table that shows costs."""
    models = list(experiment.report(table).models())
    first = models[0]
    return [
        model
        for model in models
        if (model.category, model.seed) == (first.category, first.seed)
    ]


def speed_file(table):
    """For a table that shows costs; with `partial` only if it is there."""
    files = [f"{RESULTS}/speed/{table}.json"] if experiment.tables[table].costs else []
    return there(files)


def table_files(name):
    return [f"{RESULTS}/tables/{name}.{suffix}" for suffix in ("csv", "tex", "html")]


def figure_files(name):
    return [f"{RESULTS}/figures/{name}.png", f"{RESULTS}/figures/{name}.pdf"]


def paired_files(name):
    """The differences to the full method, if the table is an ablation."""
    is_ablation = experiment.tables[name].rows == "variants"
    files = [f"{RESULTS}/tables/{name}_paired.{suffix}" for suffix in ("csv", "html")]
    return files if is_ablation else []


def printed_numbers(wildcards):
    """As a parameter: corrected data of the paper make what rests on them anew."""
    files = sorted(Path(paper.__file__).parent.glob("*.*"))
    return sha256_json([sha256_file(path) for path in files])


def existing_metrics(wildcards):
    """As a parameter rather than inputs: a verdict judges what is there, and must not start a training.

    It is made anew when other metrics are there than the last time.
    """
    files = sorted(Path(RESULTS).glob("models/*/*/*/*/*/metrics.json"))
    return sha256_json({path.as_posix(): sha256_file(path) for path in files})


def reported_tables():
    """The paper's tables, and the others that need nothing beyond their models and what is there."""
    planned = {file for name in PAPER_TABLES for file in metrics_files(name)}

    def costs_nothing(name):
        if experiment.partial:  # those with something to compare
            models = experiment.report(name).models()
            there = {model.variant for model in models if metrics_file(model).exists()}
            return len(there) >= min(2, len(experiment.tables[name].variants))
        needed = {*all_metrics(name), *speed_file(name)} - planned
        return all(Path(file).exists() for file in needed)

    others = [name for name in experiment.tables if name not in PAPER_TABLES]
    return PAPER_TABLES + [name for name in others if costs_nothing(name)]


def reported_metrics(wildcards):
    tables = reported_tables()
    return list(dict.fromkeys(file for name in tables for file in metrics_files(name)))


def history_files(dataset):
    """The training curves of the models behind a dataset's tables."""
    tables = [n for n in reported_tables() if experiment.tables[n].dataset == dataset]
    models = dict.fromkeys(model for name in tables for model in model_files(name))
    return there(f"{Path(model).parent}/history.csv" for model in models)


def report_contents():
    """Sections of the report and the files in them, in the order of the page."""
    tables = reported_tables()
    datasets = dict.fromkeys(experiment.tables[name].dataset for name in tables)
    figures = [
        name
        for name in experiment.figures
        if there(heatmap_files(name)) == heatmap_files(name)
    ]
    folder = f"{RESULTS}/report"
    return {
        "What was run": [f"{folder}/summary.html"],
        "Tables": [
            file
            for name in tables
            for file in (*table_files(name), *paired_files(name))
            if file.endswith(".html")
        ],
        "Figures": [file for name in figures for file in figure_files(name)[:1]],
        "Verdict": [f"{folder}/verdict.html"],
        "Claims": [f"{folder}/claims.html"],
        "Training": [
            *(
                f"{folder}/curves_{name}.png"
                for name in datasets
                if history_files(name)
            ),
            f"{folder}/runtime.html",
        ],
    }
