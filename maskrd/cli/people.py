"""Commands for people."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from maskrd.cli.options import CacheGb, ConfigFiles, CudaGraphs, GpuJobs, Output, takes_machine
from maskrd.errors import MaskrdError

if TYPE_CHECKING:
    from maskrd.engine.machine import Machine

app = typer.Typer()
command = partial(app.command, rich_help_panel="For people")

PATIENCE = 30  # seconds that a person waits for a GPU; a job of Snakemake waits until it has one


@command()
def plan(
    configfile: ConfigFiles = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of a job; by default all")] = None,
    cache_gb: CacheGb = 4,
    gpu_jobs: GpuJobs = 1,
    cuda_graphs: CudaGraphs = True,
) -> None:
    """Show what the tables and figures will cost: models, FLOPs, hours on this machine, disk, memory."""
    from os import cpu_count

    from rich.console import Console

    from maskrd.config.load import load_experiment
    from maskrd.engine.machine import Machine
    from maskrd.inspection.plan import overview

    experiment = load_experiment(configfile or ())
    machine = Machine(experiment.device, threads or cpu_count() or 1, gpu_jobs, PATIENCE, cuda_graphs)
    Console().print(overview(experiment, machine, cache_gb))


@command()
def status(
    configfile: ConfigFiles = None,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh every few seconds, until Ctrl-C")] = False,
) -> None:
    """Show what is done, running, failed and left in each table, the progress of trainings, the size of the store."""
    from rich.console import Console

    from maskrd.config.load import load_experiment
    from maskrd.inspection.status import overview, watch_overview

    experiment = load_experiment(configfile or ())
    if watch:
        watch_overview(experiment)
    else:
        Console().print(overview(experiment))


@command()
def prune(
    configfile: ConfigFiles = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove them. Without it they are only listed")] = False,
) -> None:
    """List the stored trainings that no model of this configuration uses, or remove them."""
    from maskrd.config.load import load_experiment
    from maskrd.inspection.stored import prune as lines

    for line in lines(load_experiment(configfile or ()), yes):
        typer.echo(line)


@command()
def explain(
    name: Annotated[str, typer.Argument(help="Table or figure, e.g. table1")],
    cell: Annotated[
        list[str] | None, typer.Argument(help="Part of it: categories, variants, backbones, seeds, e.g. bottle seed0")
    ] = None,
    configfile: ConfigFiles = None,
) -> None:
    """Show how a number was made: recipe, seed, commit, digests, versions, logs, and commands to make it again."""
    from maskrd.config.load import load_experiment
    from maskrd.inspection.explain import explain as lines

    for line in lines(load_experiment(configfile or ()), name, cell or ()):
        typer.echo(line)


@command()
def compare(
    first: Annotated[Path, typer.Argument(help="Folder of a tested model")],
    second: Annotated[Path, typer.Argument(help="Folder of another one, tested on the same images")],
    output: Annotated[Path, typer.Option(help="Page to write (.html)")] = Path("compare.html"),
) -> None:
    """Compare two models, or two runs of one, on the same images. Writes a page for the browser."""
    from maskrd.reporting.compare_page import write_comparison

    write_comparison(first, second, output)
    typer.echo(f"Open {output} in a browser; it needs no other file.")


@command()
@takes_machine
def predict(
    model: Annotated[Path, typer.Argument(help="Trained model (.safetensors)")],
    images: Annotated[list[Path], typer.Argument(help="Images, folders of images, or patterns such as 'x/**/*.png'")],
    output: Annotated[Path, typer.Option(help="Folder for scores.csv and heatmaps; a stopped run continues there")],
    machine: "Machine",
    teacher: Annotated[Path | None, typer.Option(help="Teacher; by default that of the model's results folder")] = None,
    normal: Annotated[
        list[Path] | None,
        typer.Option(help="Normal images for choosing the threshold; the model must not have learned from them"),
    ] = None,
    heatmaps: Annotated[bool, typer.Option(help="Draw a heatmap for each image")] = True,
) -> None:
    """Score your own images with a trained model, and draw heatmaps of where they are anomalous."""
    from maskrd.engine.prediction import predict as score

    machine = replace(machine, patience=PATIENCE)
    summary = score(model, images, output, machine, teacher, normal or (), heatmaps)
    typer.echo(f"{output / 'scores.csv'}: images scored: {summary.scored:,}. Higher scores are more anomalous.")
    if summary.anomalous is None:
        typer.echo("No threshold: the training held no image out. Name normal images of your own with --normal.")
    else:
        typer.echo(f"Images above the threshold: {summary.anomalous:,}.")
    if summary.unreadable:
        typer.echo(f"Images that can't be read: {len(summary.unreadable):,}; {output / 'unreadable.csv'} says why.")
    if not summary.scored:
        raise MaskrdError("None of the images can be read.")


@command()
def schema(output: Output) -> None:
    """Write the JSON schema of config.yaml. Editors use it to complete and check the file."""
    from maskrd.config.schema import write_schema

    write_schema(output)


@command()
def export(
    model: Annotated[Path, typer.Argument(help="Trained and tested model (.safetensors)")],
    output: Annotated[Path, typer.Option(help="File to write")],
    format: Annotated[Literal["onnx"], typer.Option(help="Kind of file")] = "onnx",
    teacher: Annotated[Path | None, typer.Option(help="Teacher; by default that of the model's results folder")] = None,
) -> None:
    """Write a trained model as an ONNX file, which scores images without torch."""
    from maskrd.engine.export import export as write

    write(model, output, teacher)
    typer.echo(f"{output}: uint8 images in, anomaly maps and scores out. docs/deploy.md says how to use it.")


@command()
@takes_machine
def verify(
    models: Annotated[Path, typer.Argument(help="Folder of somebody else's trained and tested models")],
    machine: "Machine",
    configfile: ConfigFiles = None,
    tolerance: Annotated[float, typer.Option(min=0, help="Largest difference of a metric, in points")] = 0.1,
) -> None:
    """Test somebody else's models on your images, and compare with their metrics.json. Trains and changes nothing."""
    from maskrd.config.load import load_experiment
    from maskrd.inspection.verify import verify_models

    differing = 0
    machine = replace(machine, patience=PATIENCE)
    for model in verify_models(models, load_experiment(configfile or ()), machine):
        points = 100 * model.difference
        differing += points > tolerance
        verdict = "differs" if points > tolerance else "as recorded"
        typer.echo(f"{model.folder}: {verdict}; largest difference {points:.3g} points in {len(model.metrics)} metrics")
    if differing:
        raise MaskrdError(
            f"{differing} models differ by more than {tolerance:g} points from their metrics.json. Compare their "
            "images, weights and versions with yours, or raise --tolerance."
        )
