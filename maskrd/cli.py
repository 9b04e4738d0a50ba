"""The command `maskrd`: one subcommand for each rule of the workflow, and a few for people.

Only arguments are read here. Each command imports what it needs when it runs, since start-up counts:
hundreds of short jobs call it.
"""

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from maskrd.errors import MaskrdError

if TYPE_CHECKING:
    from maskrd.experiment import Evaluation, Report, Training

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

Category = Annotated[str, typer.Option(help="Category, e.g. bottle")]
DatasetOption = Annotated[str, typer.Option(help="Dataset, e.g. mvtec_ad")]
Data = Annotated[Path, typer.Option(help="Folder of the dataset")]
SourceKey = Annotated[str, typer.Option(help="Entry of the sources, e.g. datasets.cifar10")]
Sources = Annotated[Path, typer.Option(help="YAML file of sources")]
LockFile = Annotated[Path, typer.Option(help="Record of the digests of files that have no published checksum")]
IndexFile = Annotated[Path, typer.Option(help="Index of the category, from `maskrd index`")]
TeacherFile = Annotated[Path, typer.Option(help="Teacher, from `maskrd teacher`")]
ModelFile = Annotated[Path, typer.Option(help="Trained model (.safetensors)")]
TrainingJson = Annotated[str, typer.Option(help="Training recipe as JSON")]
EvaluationJson = Annotated[str, typer.Option(help="Evaluation recipe as JSON")]
ReportJson = Annotated[str, typer.Option(help="What to show, as JSON")]
Models = Annotated[Path, typer.Option(help="Folder of the models")]
PlainBackbone = Annotated[str, typer.Option(help="Backbone of all tables that don't compare backbones")]
Seeds = Annotated[list[int], typer.Option(help="Seed to average over; repeat the option for several")]
ConfigFiles = Annotated[list[Path] | None, typer.Option(help="YAML file merged over config.yaml; may be repeated")]
Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="auto takes a GPU where there is one")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads")]
GpuJobs = Annotated[int, typer.Option(min=1, envvar="MASKRD_GPU_JOBS", help="Jobs that share the visible GPUs")]
CacheGb = Annotated[
    float, typer.Option(help="Memory for teacher features; 0 recomputes them", envvar="MASKRD_CACHE_GB")
]
Output = Annotated[Path, typer.Option(help="File to write")]


@app.command()
def index(
    dataset: DatasetOption,
    category: Category,
    data: Data,
    output: Output,
    memory: Annotated[Path | None, typer.Option(help="Where to note sizes and dates, to notice changes")] = None,
    threads: Threads = 1,
) -> None:
    """Check the images of a category and list them with their digests."""
    from maskrd.data.changes import image_folder, remember
    from maskrd.data.index import build_index

    checked = build_index(dataset, category, data, threads)
    checked.write(output)
    if memory:
        remember(image_folder(dataset, category, data), memory, checked.digests)


@app.command()
def download(
    source: SourceKey,
    sources: Sources,
    lock: LockFile,
    output: Output,
    log: Annotated[Path | None, typer.Option(help="Write messages here, too")] = None,
) -> None:
    """Fetch one file of the sources: resumed, retried, verified; nothing to do if it is there."""
    if log:
        logging.getLogger().addHandler(logging.FileHandler(log))
    from maskrd.data.download import download as fetch
    from maskrd.data.sources import load_sources

    fetch(load_sources(sources)[source], output, lock)


@app.command()
def unpack(
    source: SourceKey,
    sources: Sources,
    lock: LockFile,
    archive: Annotated[Path, typer.Option(help="Archive of the dataset")],
    folder: Annotated[Path, typer.Option(help="Folder to unpack into; replaced if it exists")],
    output: Output,
) -> None:
    """Verify and unpack a dataset's archive, count what it held, and say so in a small JSON file."""
    from maskrd.data.download import verify
    from maskrd.data.sources import load_sources
    from maskrd.data.unpack import check_counts
    from maskrd.data.unpack import unpack as extract
    from maskrd.files import sha256_file, write_json

    entry = load_sources(sources).datasets[source.removeprefix("datasets.")]
    verify(entry, archive, lock)
    extract(
        archive,
        folder,
        max_bytes=entry.max_bytes,
        max_members=entry.max_members,
        strip_components=entry.strip_components,
    )
    check_counts(entry.key, folder, entry.expected)
    write_json(output, {"source": source, "archive_sha256": sha256_file(archive)})


@app.command()
def generate(
    dataset: Annotated[Literal["demo", "digits"], typer.Option(help="Dataset")],
    part: Annotated[str, typer.Option(help="Category of demo; all of digits")],
    folder: Annotated[Path, typer.Option(help="Folder of the dataset to write into")],
    output: Annotated[Path, typer.Option(help="File to write when done")],
) -> None:
    """Make the images of a generated dataset: demo or digits."""
    from maskrd.files import write_json

    if dataset == "demo":
        from maskrd.data.demo import generate_demo

        generate_demo(folder, part)
    else:
        from maskrd.data.digits import generate_digits

        generate_digits(folder)
    write_json(output, {"dataset": dataset, "part": part})


@app.command()
def pretrain(
    backbone: Annotated[str, typer.Option(help="One of the demo's, e.g. demo_resnet18")],
    output: Output,
    threads: Threads = 1,
) -> None:
    """Pre-train a small teacher of the demo on generated textures."""
    from maskrd.pretraining import pretrain as train_teacher

    train_teacher({backbone: output}, threads)


@app.command()
def teacher(
    backbone: Annotated[str, typer.Option(help="resnet18, resnet50 or wide_resnet50_2")],
    weights: Annotated[Path, typer.Option(help="ImageNet weights, .pth or .safetensors")],
    output: Output,
) -> None:
    """Turn ImageNet weights into a teacher file, checked against timm."""
    from maskrd.teacher import export_teacher

    export_teacher(backbone, weights, output)


@app.command()
def train(
    index: IndexFile,
    data: Data,
    teacher: TeacherFile,
    recipe: TrainingJson,
    model: Annotated[Path, typer.Option(help="Model file to write")],
    history: Annotated[Path, typer.Option(help="Training curve to write (.csv)")],
    state: Annotated[Path, typer.Option(help="Folder of the resumable state")],
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Device = "auto",
    threads: Threads = 1,
    gpu_jobs: GpuJobs = 1,
    cache_gb: CacheGb = 4,
    state_minutes: Annotated[
        float, typer.Option(help="Minutes between saved states", envvar="MASKRD_STATE_MINUTES")
    ] = 10,
) -> None:
    """Train one model, or go on where an interrupted run of it stopped."""
    from maskrd import training

    job = training.Job(
        index=index,
        data=data,
        teacher=teacher,
        model=model,
        history=history,
        state=state,
        recipe=parse_training(recipe),
        seed=seed,
        device=device,
        threads=threads,
        cache_gb=cache_gb,
        state_minutes=state_minutes,
        gpu_jobs=gpu_jobs,
    )
    try:
        training.train(job)
    except training.Interrupted as interruption:
        logging.getLogger(__name__).warning("%s", interruption)
        raise typer.Exit(interruption.exit_code) from None


@app.command()
def evaluate(
    index: IndexFile,
    data: Data,
    teacher: TeacherFile,
    model: ModelFile,
    recipe: TrainingJson,
    evaluation: EvaluationJson,
    metrics: Annotated[Path, typer.Option(help="metrics.json to write")],
    scores: Annotated[Path, typer.Option(help="scores.csv to write")],
    device: Device = "auto",
    threads: Threads = 1,
    gpu_jobs: GpuJobs = 1,
) -> None:
    """Score the test set with a trained model."""
    from maskrd import evaluation as testing

    recipes = parse_evaluation(evaluation), parse_training(recipe)
    job = testing.Job(index, data, teacher, model, *recipes, device, threads, gpu_jobs)
    testing.evaluate(job, metrics, scores)


@app.command()
def heatmaps(
    index: IndexFile,
    data: Data,
    teacher: TeacherFile,
    model: ModelFile,
    recipe: TrainingJson,
    evaluation: EvaluationJson,
    output: Output,
    count: Annotated[int, typer.Option(min=1, help="Images of each defect type")] = 1,
    device: Device = "auto",
    threads: Threads = 1,
    gpu_jobs: GpuJobs = 1,
) -> None:
    """Anomaly maps of a few test images, for figures."""
    from maskrd import evaluation as testing

    recipes = parse_evaluation(evaluation), parse_training(recipe)
    job = testing.Job(index, data, teacher, model, *recipes, device, threads, gpu_jobs)
    testing.write_heatmaps(job, count, output)


@app.command()
def table(
    report: ReportJson,
    models: Models,
    csv: Annotated[Path, typer.Option(help="CSV to write")],
    tex: Annotated[Path, typer.Option(help="LaTeX to write")],
    html: Annotated[Path, typer.Option(help="HTML to write")],
    speed: Annotated[Path | None, typer.Option(help="What `maskrd speed` measured")] = None,
) -> None:
    """Write a table from the metrics.json files of its models."""
    from maskrd.reporting.tables import write_table

    write_table(parse_report(report), models, csv, tex, html, speed)


@app.command()
def speed(
    report: ReportJson,
    model: Annotated[list[Path], typer.Option(help="One for each variant of the report, in its order")],
    teacher: Annotated[list[Path], typer.Option(help="Those of the models")],
    output: Output,
    device: Device = "auto",
    threads: Threads = 1,
    gpu_jobs: GpuJobs = 1,
) -> None:
    """Measure how many images a second the variants of a table score."""
    from maskrd.speed import write_speed

    write_speed(parse_report(report), model, teacher, output, device, threads, gpu_jobs)


@app.command()
def figure(
    report: ReportJson,
    models: Models,
    png: Annotated[Path, typer.Option(help="PNG to write")],
    pdf: Annotated[Path, typer.Option(help="PDF to write")],
) -> None:
    """Draw a figure from the anomaly maps of its models."""
    from maskrd.reporting.figures import write_figure

    write_figure(parse_report(report), models, png, pdf)


@app.command()
def supplement(
    report: Annotated[list[str], typer.Option(help="Table to include, as JSON; may be repeated")],
    tables: Annotated[Path, typer.Option(help="Folder of the tables' .tex")],
    output: Output,
) -> None:
    """Write the tables as one LaTeX document, the printed tables' errata as footnotes."""
    from maskrd.reporting.supplement import write_supplement

    write_supplement([parse_report(text) for text in report], tables, output)


@app.command()
def pdf(tex: Annotated[Path, typer.Option(help="LaTeX document")], output: Output) -> None:
    """Make the PDF of a LaTeX document, by pdflatex or tectonic."""
    from maskrd.reporting.supplement import compile_pdf

    compile_pdf(tex, output)


@app.command()
def audit(output: Output) -> None:
    """Recompute the means that the paper prints (CSV)."""
    from maskrd.paper.audit import write_audit

    write_audit(output)


@app.command()
def claims(models: Models, backbone: PlainBackbone, seed: Seeds, output: Output) -> None:
    """Judge the paper's claims on its own numbers, and on the reproduced ones there are (CSV)."""
    from maskrd.paper.claims import write_claims
    from maskrd.reporting.verdict import judged_claims, verdicts

    write_claims(output, judged_claims(verdicts(models, backbone, seed)))


@app.command()
def verdict(
    models: Models,
    backbone: PlainBackbone,
    seed: Seeds,
    csv: Annotated[Path, typer.Option(help="CSV to write")],
    page: Annotated[Path, typer.Option(help="Markdown page to write")],
    png: Annotated[Path, typer.Option(help="Plot to write, beside the page")],
    pdf: Annotated[Path, typer.Option(help="Plot to write")],
) -> None:
    """Compare the printed numbers with the models at hand."""
    from maskrd.reporting.verdict import verdicts, write_verdict
    from maskrd.reporting.verdict_page import write_page, write_plot

    rows = verdicts(models, backbone, seed)
    write_verdict(rows, csv)
    write_plot(rows, png, pdf)
    write_page(rows, png.name, page)


@app.command()
def paired(
    report: ReportJson,
    models: Models,
    csv: Annotated[Path, typer.Option(help="CSV to write")],
    html: Annotated[Path, typer.Option(help="HTML to write")],
) -> None:
    """Write an ablation's differences to the full method, with confidence intervals."""
    from maskrd.reporting.paired import write_paired

    write_paired(parse_report(report), models, csv, html)


@app.command()
def curves(
    histories: Annotated[list[Path], typer.Argument(help="history.csv of models of one dataset")],
    output: Output,
) -> None:
    """Draw the training curves of a dataset's models (PNG)."""
    from maskrd.reporting.curves import write_curves

    write_curves(histories, output)


@app.command()
def review(
    models: Models,
    backbone: PlainBackbone,
    seed: Seeds,
    plot: Annotated[Path, typer.Option(help="Plot of the verdict to write (PNG)")],
    verdict: Annotated[Path, typer.Option(help="Verdict to write (HTML)")],
    claims: Annotated[Path, typer.Option(help="The paper's claims to write (HTML)")],
    summary: Annotated[Path, typer.Option(help="What was run, to write (HTML)")],
    runtime: Annotated[Path, typer.Option(help="How long it took, to write (HTML)")],
) -> None:
    """What the models at hand say of the paper, as parts of the report."""
    from maskrd.reporting.claims_page import write_claims_page
    from maskrd.reporting.runs_page import find_runs, write_runtime, write_summary
    from maskrd.reporting.verdict import judged_claims, verdicts
    from maskrd.reporting.verdict_page import write_html, write_plot

    rows = verdicts(models, backbone, seed)
    write_plot(rows, plot)
    write_html(rows, plot, verdict)
    write_claims_page(judged_claims(rows), claims)
    runs = find_runs(models)
    write_summary(runs, summary)
    write_runtime(runs, runtime)


@app.command()
def report(
    contents: Annotated[str, typer.Option(help="Sections and their files (HTML, PNG), as JSON")],
    output: Output,
) -> None:
    """Put tables, figures and everything else into one HTML page that needs no other file."""
    from json import JSONDecodeError, loads

    from maskrd.reporting.html import write_report

    try:
        sections = loads(contents)
    except JSONDecodeError as error:
        raise MaskrdError(f"--contents: not JSON ({error}).") from None
    write_report(sections, output)


@app.command()
def explain(
    name: Annotated[str, typer.Argument(help="Table or figure, e.g. table1")],
    cell: Annotated[
        list[str] | None, typer.Argument(help="Category, variant, backbone or seed0: bottle, no_fmm")
    ] = None,
    configfile: ConfigFiles = None,
) -> None:
    """What made a number: recipe, seed, commit, digests, versions, logs, and the commands to make it again."""
    from maskrd.configuration import load_experiment
    from maskrd.reporting.explain import explain as lines

    for line in lines(load_experiment(configfile or ()), name, cell or ()):
        typer.echo(line)


@app.command()
def status(configfile: ConfigFiles = None) -> None:
    """What is done, running, failed and left, by table."""
    from rich.console import Console

    from maskrd.configuration import load_experiment
    from maskrd.reporting.status import overview

    Console().print(overview(load_experiment(configfile or ())))


@app.command()
def plan(
    configfile: ConfigFiles = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of a job; by default all")] = None,
    cache_gb: CacheGb = 4,
    gpu_jobs: GpuJobs = 1,
) -> None:
    """What the tables and figures will cost: models, FLOPs, hours on this machine, disk, memory."""
    from os import cpu_count

    from rich.console import Console

    from maskrd.configuration import load_experiment
    from maskrd.plan import overview

    Console().print(overview(load_experiment(configfile or ()), threads or cpu_count() or 1, cache_gb, gpu_jobs))


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="Trained model (.safetensors)")],
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of images")],
    output: Annotated[Path, typer.Option(help="Folder for scores.csv and heatmaps")],
    teacher: Annotated[Path | None, typer.Option(help="Teacher; by default that of the model's results folder")] = None,
    device: Device = "auto",
    threads: Threads = 1,
    gpu_jobs: GpuJobs = 1,
) -> None:
    """Score your own images with a trained model, and draw where they are anomalous."""
    from maskrd.prediction import predict as score

    score(model, images, output, teacher, device, threads, gpu_jobs)
    typer.echo(f"{output / 'scores.csv'}: scores, higher is more anomalous; heatmaps beside it.")


def parse_report(text: str) -> "Report":
    from maskrd.experiment import Report

    return Report.parse("--report", text)


def parse_training(text: str) -> "Training":
    from maskrd.experiment import Training

    return Training.parse("--recipe", text)


def parse_evaluation(text: str) -> "Evaluation":
    from maskrd.experiment import Evaluation

    return Evaluation.parse("--evaluation", text)


def main() -> None:
    """Run the command line; what the user can put right is one message and exit code 1."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        app()
    except MaskrdError as error:
        sys.exit(f"Error: {error}")
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        sys.exit(f"Error: {where}{error.strerror or error}. Check the path, its permissions and the free space.")
    except KeyboardInterrupt:
        sys.exit(130)
