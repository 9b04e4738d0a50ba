"""Commands of the rules that make datasets and teachers."""

import logging
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from maskrd.cli.options import Category, Data, DatasetOption, DigestsFile, Output, SourceKey, SourcesFile, Threads
from maskrd.errors import MaskrdError

app = typer.Typer()
command = partial(app.command, rich_help_panel="For the rules: data and teachers")


@command()
def download(
    source: SourceKey,
    sources: SourcesFile,
    digests: DigestsFile,
    output: Output,
    log: Annotated[Path | None, typer.Option(help="Write messages here, too")] = None,
) -> None:
    """Download one file of the sources and verify it. Resumes and retries; skips a file that exists."""
    if log:
        logging.getLogger().addHandler(logging.FileHandler(log))
    from maskrd.sources.download import download as fetch
    from maskrd.sources.registry import load_sources

    fetch(load_sources(sources)[source], output, digests)


@command()
def unpack(
    source: SourceKey,
    sources: SourcesFile,
    digests: DigestsFile,
    archive: Annotated[Path, typer.Option(help="Archive of the dataset")],
    folder: Annotated[Path, typer.Option(help="Folder to unpack into; an earlier one of this command is replaced")],
    output: Output,
) -> None:
    """Verify and unpack a dataset's archive, count its files, and write a small JSON file when done."""
    from maskrd.files import write_json
    from maskrd.sources.published import record, verify
    from maskrd.sources.registry import Dataset, load_sources
    from maskrd.sources.unpack import unpack as extract

    entry = load_sources(sources)[source]
    if not isinstance(entry, Dataset):
        raise MaskrdError(f"{source}: weights, which are one file. Name a dataset of {sources}.")
    verify(entry, archive, digests)
    extract(
        archive,
        folder,
        max_bytes=entry.max_bytes,
        max_members=entry.max_members,
        strip_components=entry.strip_components,
        expected=entry.expected,
    )
    record(entry, archive, digests)
    write_json(output, {"source": source})


@command()
def generate(
    dataset: Annotated[str, typer.Option(help="Dataset, e.g. demo")],
    part: Annotated[str, typer.Option(help="A category; `all` for a dataset without folders for categories")],
    folder: Annotated[Path, typer.Option(help="Folder of the dataset to write into")],
    output: Annotated[Path, typer.Option(help="File to write when done")],
) -> None:
    """Make the images of a generated dataset."""
    from pkgutil import resolve_name

    from maskrd.data.registry import DATASETS, is_generated
    from maskrd.files import write_json

    if not is_generated(dataset):
        generated = ", ".join(filter(is_generated, DATASETS))
        raise MaskrdError(f"--dataset {dataset}: not a generated dataset. Choose one of {generated}.")
    known = DATASETS[dataset]
    resolve_name(known.generator)(folder, *([part] if known.layout.folder_each else []))
    write_json(output, {"dataset": dataset, "part": part})


@command()
def index(
    dataset: DatasetOption,
    category: Category,
    data: Data,
    output: Output,
    layout: Annotated[str | None, typer.Option(help="Layout of a dataset that the code doesn't know")] = None,
    memory: Annotated[Path | None, typer.Option(help="File for sizes and dates, to notice changes later")] = None,
    threads: Threads = 1,
) -> None:
    """Check the images of a category and list them with their digests."""
    from maskrd.data.changes import remember
    from maskrd.data.indexing import build_index
    from maskrd.data.registry import find_layout

    checked = build_index(dataset, category, data, threads, layout)
    checked.write(output)
    if memory:
        remember(find_layout(dataset, layout).folder_of(data, category), memory, checked.digests)


@command()
def teacher(
    backbone: Annotated[str, typer.Option(help="Architecture, e.g. resnet18")],
    weights: Annotated[Path, typer.Option(help="ImageNet weights, .pth or .safetensors")],
    output: Output,
    checksum: Annotated[str, typer.Option(help="Published checksum of the weights, as JSON")] = "null",
) -> None:
    """Turn ImageNet weights into a teacher file, checked against timm."""
    from maskrd.methods.teacher import export_teacher
    from maskrd.sources.registry import Checksum

    published = None if checksum == "null" else Checksum.parse("--checksum", checksum)
    difference = published and published.difference(weights)
    if difference:
        raise MaskrdError(
            f"{weights} is not the published file: {difference}. Remove it, and the pipeline downloads it again. To "
            f"use your own weights, set weights.{backbone} in the configuration."
        )
    export_teacher(backbone, weights, output)


@command()
def pretrain(
    backbone: Annotated[str, typer.Option(help="A backbone of the demo, e.g. demo_resnet18")],
    output: Output,
    threads: Threads = 1,
) -> None:
    """Pre-train a small teacher of the demo on generated textures."""
    from maskrd.demo.teachers import pretrain as train_teacher

    train_teacher({backbone: output}, threads)
