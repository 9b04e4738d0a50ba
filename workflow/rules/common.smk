"""The validated experiment, and where its files are."""

import os
import sys
from dataclasses import replace
from pathlib import Path

from maskrd.data.changes import content_digest, image_folder
from maskrd.errors import MaskrdError
from maskrd.experiment import Experiment, canonical_json

# `python` in rules is the one that runs Snakemake, though its environment may not be activated;
# with --sdm conda the rule's own environment comes before it.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

try:
    experiment = Experiment.load(config)
except MaskrdError as error:
    raise WorkflowError(f"The configuration is not valid.\n{error}")

RESULTS = experiment.results
MODEL = f"{RESULTS}/models/{{dataset}}/{{category}}/{{variant}}/{{backbone}}/seed{{seed}}"
# Made here rather than downloaded.
GENERATED = ("demo", "digits")
JOB = "{dataset}/{category}/{variant}/{backbone}/seed{seed}"


wildcard_constraints:
    dataset="|".join(experiment.datasets),
    category="[A-Za-z0-9][A-Za-z0-9_.-]*",
    variant="|".join(experiment.variants),
    backbone="|".join(experiment.backbones),
    seed=r"\d+",


def training_json(wildcards):
    return experiment.recipe(wildcards.dataset, wildcards.variant).training_json()


def evaluation_json(wildcards):
    return experiment.recipe(wildcards.dataset, wildcards.variant).evaluation_json()


def data_folder(dataset):
    """Where a dataset lies: the user's folder, or the one that the pipeline fills."""
    if experiment.datasets[dataset].path:
        return experiment.datasets[dataset].path
    return Path(f"{RESULTS}/generated" if dataset in GENERATED else "data") / dataset


def data_source(wildcards):
    """What must be there before a category can be indexed."""
    dataset = wildcards.dataset
    if experiment.datasets[dataset].path:
        return []
    if dataset in GENERATED:
        return f"{data_folder(dataset)}/{wildcards.category if dataset == 'demo' else 'all'}.generated"
    return f"data/{dataset}.unpacked.json"


def teacher_weights(wildcards):
    return experiment.weights.get(wildcards.backbone) or f"data/weights/{wildcards.backbone}.pth"


def data_memory(wildcards):
    return f"{RESULTS}/data/{wildcards.dataset}/.{wildcards.category}.memory.json"


def data_digest(wildcards):
    dataset = experiment.datasets[wildcards.dataset]
    if dataset.path is None:
        return "made by the pipeline"
    folder = image_folder(wildcards.dataset, wildcards.category, dataset.path)
    return content_digest(folder, Path(data_memory(wildcards)))


def trained_model(wildcards):
    """The model that a variant is evaluated with; variants that differ in evaluation only share one."""
    variant = experiment.trained_as(wildcards.dataset, wildcards.variant)
    return f"{MODEL}/model.safetensors".format(**{**wildcards, "variant": variant})


def report_json(kind):
    """What a table or figure shows, as a parameter: a changed caption rebuilds it, and only it."""
    return lambda wildcards: canonical_json(experiment.report(wildcards[kind]))


def model_files(name):
    models = experiment.report(name).models()
    trained = [replace(model, variant=experiment.trained_as(model.dataset, model.variant)) for model in models]
    return [f"{RESULTS}/models/{model.path}/model.safetensors" for model in trained]


def metrics_files(table):
    return [f"{RESULTS}/models/{model.path}/metrics.json" for model in experiment.report(table).models()]


def heatmap_files(figure):
    return [f"{RESULTS}/models/{model.path}/heatmaps.npz" for model in experiment.report(figure).models()]


def table_files(name):
    return [f"{RESULTS}/tables/{name}.csv", f"{RESULTS}/tables/{name}.tex"]


def figure_files(name):
    return [f"{RESULTS}/figures/{name}.png", f"{RESULTS}/figures/{name}.pdf"]
