"""Commands of the rules that train and test models."""

import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskrd.cli.options import (
    CacheGb,
    CudaGraphs,
    Data,
    Device,
    EvaluationRecipe,
    GpuJobs,
    IndexFile,
    ModelFile,
    Output,
    Recipe,
    TeacherFile,
    Threads,
    ViewOption,
    takes_machine,
)

if TYPE_CHECKING:
    from maskrd.engine.machine import Machine

app = typer.Typer()
command = partial(app.command, rich_help_panel="For the rules: models")


@command()
def train(
    index: IndexFile,
    data: Data,
    teacher: TeacherFile,
    recipe: Recipe,
    model: Annotated[Path, typer.Option(help="Model file to write")],
    history: Annotated[Path, typer.Option(help="Training curve to write (.csv)")],
    store: Annotated[Path, typer.Option(help="Folder of all finished and unfinished trainings")],
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Device = "auto",
    threads: Threads = 1,
    gpu_jobs: GpuJobs = 1,
    cache_gb: CacheGb = 4,
    cuda_graphs: CudaGraphs = True,
    state_minutes: Annotated[
        float, typer.Option(help="Minutes between saved states", envvar="MASKRD_STATE_MINUTES")
    ] = 10,
    keep_weights: Annotated[bool, typer.Option(help="Whether the store keeps the finished weights")] = True,
) -> None:
    """Train one model. Continues an interrupted training, and takes a finished one from the store."""
    from maskrd.engine.store import Stored, identity

    stored = Stored.of(store, identity(recipe, seed, index, teacher))
    if stored.find(model, history, keep_weights):  # without importing torch
        return
    from maskrd.engine import training
    from maskrd.engine.inputs import TrainingJob
    from maskrd.engine.interruption import Interrupted
    from maskrd.engine.machine import Machine

    job = TrainingJob(
        index=index,
        data=data,
        teacher=teacher,
        model=model,
        history=history,
        store=store,
        recipe=recipe,
        seed=seed,
        machine=Machine(device, threads, gpu_jobs, cuda_graphs=cuda_graphs),
        cache_gb=cache_gb,
        state_minutes=state_minutes,
        keep_weights=keep_weights,
    )
    try:
        training.train(job, stored)
    except Interrupted as interruption:
        logging.getLogger(__name__).warning("%s", interruption)
        raise typer.Exit(interruption.exit_code) from None


@command()
@takes_machine
def evaluate(
    index: IndexFile,
    data: Data,
    teacher: TeacherFile,
    model: ModelFile,
    recipe: Recipe,
    evaluation: EvaluationRecipe,
    metrics: Annotated[Path, typer.Option(help="metrics.json to write")],
    scores: Annotated[Path, typer.Option(help="scores.csv to write")],
    gallery: Annotated[Path, typer.Option(help="File to write, with a few images and their anomaly maps (.npz)")],
    machine: "Machine",
) -> None:
    """Score the test set with a trained model."""
    from maskrd.engine import evaluation as testing

    job = testing.EvaluationJob(index, data, teacher, model, evaluation, recipe, machine)
    testing.evaluate(job, metrics, scores, gallery)


@command()
@takes_machine
def maps(
    index: IndexFile,
    data: Data,
    teacher: TeacherFile,
    model: ModelFile,
    recipe: Recipe,
    evaluation: EvaluationRecipe,
    output: Annotated[Path, typer.Option(help="Folder to write")],
    machine: "Machine",
) -> None:
    """Save all anomaly maps and scores of a test set, for evaluation by other code."""
    from maskrd.engine import anomaly_maps
    from maskrd.engine.evaluation import EvaluationJob

    anomaly_maps.write_maps(EvaluationJob(index, data, teacher, model, evaluation, recipe, machine), output)


@command()
@takes_machine
def speed(
    view: ViewOption,
    model: Annotated[list[Path], typer.Option(help="Model of each variant, in the order of the table")],
    teacher: Annotated[list[Path], typer.Option(help="Teacher of each model")],
    output: Output,
    machine: "Machine",
) -> None:
    """Measure how many images per second each variant of a table scores."""
    from maskrd.engine.speed import write_speed

    write_speed(view, model, teacher, output, machine)
