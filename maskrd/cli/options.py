"""Options that several commands share."""

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maskrd.config.devices import DeviceName

if TYPE_CHECKING:
    from maskrd.config.settings import Evaluation, Training
    from maskrd.config.view import View


def parse_view(text: str) -> "View":
    from maskrd.config.view import View

    return View.parse("--view", text)


def parse_training(text: str) -> "Training":
    from maskrd.config.methods import parse_training as parse

    return parse("--recipe", text)


def parse_evaluation(text: str) -> "Evaluation":
    from maskrd.config.settings import Evaluation

    return Evaluation.parse("--evaluation", text)


Category = Annotated[str, typer.Option(help="Category, e.g. bottle")]
DatasetOption = Annotated[str, typer.Option(help="Dataset, e.g. mvtec_ad")]
Data = Annotated[Path, typer.Option(help="Folder of the dataset")]
SourceKey = Annotated[str, typer.Option(help="Entry of the sources, e.g. datasets.cifar10")]
SourcesFile = Annotated[Path, typer.Option(help="YAML file of sources")]
DigestsFile = Annotated[Path, typer.Option(help="Record of the digests of files that have no published checksum")]
IndexFile = Annotated[Path, typer.Option(help="Index of the category, from `maskrd index`")]
TeacherFile = Annotated[Path, typer.Option(help="Teacher, from `maskrd teacher`")]
ModelFile = Annotated[Path, typer.Option(help="Trained model (.safetensors)")]
# `Any` because the types are imported when they are needed.
Recipe = Annotated[Any, typer.Option(parser=parse_training, metavar="JSON", help="Training recipe")]
EvaluationRecipe = Annotated[Any, typer.Option(parser=parse_evaluation, metavar="JSON", help="Evaluation recipe")]
ViewOption = Annotated[Any, typer.Option(parser=parse_view, metavar="JSON", help="What the table or figure shows")]
Models = Annotated[Path, typer.Option(help="Folder of the models")]
PlainBackbone = Annotated[str, typer.Option(help="Backbone of all tables that don't compare backbones")]
Seeds = Annotated[list[int], typer.Option(help="Seed to average over; repeat the option for several")]
ConfigFiles = Annotated[list[Path] | None, typer.Option(help="YAML file merged over config.yaml; may be repeated")]
Output = Annotated[Path, typer.Option(help="File to write")]
Device = Annotated[DeviceName, typer.Option(help="auto: an NVIDIA GPU if there is one, otherwise the CPU")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads")]
GpuJobs = Annotated[int, typer.Option(min=1, envvar="MASKRD_GPU_JOBS", help="Jobs that share the visible GPUs")]
CacheGb = Annotated[
    float, typer.Option(help="GB of memory to keep teacher features in; 0 recomputes them", envvar="MASKRD_CACHE_GB")
]

CudaGraphs = Annotated[
    bool, typer.Option(help="On an NVIDIA GPU, launch a step's kernels together", envvar="MASKRD_CUDA_GRAPHS")
]


def takes_machine(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options --device, --threads and --gpu-jobs instead of its parameter `machine`."""

    @wraps(command)
    def called(*, device: str, threads: int, gpu_jobs: int, **others: Any) -> None:
        from maskrd.engine.machine import Machine

        command(**others, machine=Machine(device, threads, gpu_jobs))

    own = [parameter for name, parameter in inspect.signature(command).parameters.items() if name != "machine"]
    options = (("device", Device, "auto"), ("threads", Threads, 1), ("gpu_jobs", GpuJobs, 1))
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, annotation, default in options
    ]
    # Typer reads these two.
    called.__signature__ = inspect.Signature([*own, *shared])
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *shared)}
    return called
