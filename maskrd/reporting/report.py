"""The report: a folder that works offline. A first page with everything, and a page for each model."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from markupsafe import Markup, escape

from maskrd.config.files import HISTORY_FILE, METRICS_FILE
from maskrd.config.record import Record
from maskrd.config.settings import FULL_METHOD, Model
from maskrd.data.registry import is_generated
from maskrd.errors import MaskrdError
from maskrd.files import atomic_path, write_text
from maskrd.paper import OURS, TABLES
from maskrd.reporting.charts import stacked_bars
from maskrd.reporting.claims import judged_claims
from maskrd.reporting.compare_page import render_comparison, same_images
from maskrd.reporting.html import TITLE, Piece, Section, markdown_html, read_piece, render
from maskrd.reporting.model_page import ANY_PAGE, page_name, render_model
from maskrd.reporting.naming import backbone_name, enumerate_names, metric_name, report_name, row_name, variant_name
from maskrd.reporting.runs_page import dataset_facts, duration, find_records, runtime_html, training_seconds
from maskrd.reporting.tested import Tested, read_tested
from maskrd.reporting.verdict import NOT_COMPARABLE, NOT_KNOWN, NOT_RUN, VERDICTS, Judgement, verdicts
from maskrd.reporting.verdict_page import COLORS, markdown, plot_uri

BAR_COLORS = {kind: COLORS.get(kind, "#e3e6ea") for kind in VERDICTS} | {NOT_KNOWN: "#b8860b"}
DATE = (1980, 1, 1, 0, 0, 0)  # of the files in the archive: equal reports are equal archives
LINK = re.compile(r'(<td[^>]*) data-models="([^"]+)"([^>]*)>(.*?)</td>', re.DOTALL)

HINT = (
    "A green number leads to its model, a green mean to the list of its models. A click on a heading sorts the table."
)


@dataclass(frozen=True)
class ReportFiles:
    """Files that the report shows, the folder that it writes, and the folder as one archive."""

    tables: Sequence[Path]
    figures: Sequence[Path]
    curves: Sequence[Path]
    folder: Path
    archive: Path


def write_report(
    models: Path, backbone: str, seeds: Sequence[int], titles: Mapping[str, str], files: ReportFiles
) -> None:
    """Judge the models in the folder `models` and write the report. `titles` of datasets, by name.

    Raises MaskrdError for a file that can't be read, and for a folder with somebody else's index.html.
    """
    refuse_foreign(files.folder / "index.html")
    records = find_records(models)
    rows = verdicts(models, backbone, seeds)
    pages = files.folder / "models"
    for page in pages.glob(ANY_PAGE):  # of models that may be gone
        page.unlink(missing_ok=True)  # another run may write the same report
    write_model_pages(models, records, pages)
    claims = judged_claims(rows, models, backbone, seeds)
    text = markdown_html(markdown(rows, plot_uri(rows), claims))
    figures = [read_piece(file) for file in files.figures]
    runtime = Piece("runtime", "Runtime", runtime_html(records, titles))
    sections = [
        Section("Tables", tuple(_linked(read_piece(file), records) for file in files.tables), HINT),
        Section("Figures", tuple(figures[1:])),
        Section("Verdict", (Piece("verdict", "Reported and reproduced", text),)),
        Section("Models", tuple(_model_tables(records, titles))),
        Section("Training", (*map(read_piece, files.curves), runtime)),
    ]
    page = render(
        "report.html",
        title=TITLE,
        sentences=sentences(rows, records, titles),
        bars=stacked_bars(_verdicts_by_table(rows), BAR_COLORS),
        first=figures[0] if figures else None,
        datasets=dataset_facts(records, titles),
        sections=[section for section in sections if section.pieces],
    )
    write_text(files.folder / "index.html", page)
    write_archive(files.folder, files.archive)


def refuse_foreign(page: Path) -> None:
    if page.exists() and TITLE not in page.read_text(encoding="utf-8", errors="replace"):
        raise MaskrdError(f"{page}: exists and was not made by the pipeline. Choose another folder.")


def sentences(rows: Sequence[Judgement], records: Mapping[Model, Record], titles: Mapping[str, str]) -> list[str]:
    """What a reader needs to know first: what was run, what the result is, and its limits."""
    if not records:
        return ["Nothing was run so far. All numbers below are the paper's."]
    datasets = [titles.get(name, name) for name in dict.fromkeys(model.dataset for model in records)]
    hours = duration(sum(training_seconds(records)))
    ran = f"{len(records)} models on {enumerate_names(datasets)} were tested. Their trainings took {hours} in all."
    own = Counter(row.verdict for row in rows if row.method == OURS)
    judged = sum(own[kind] for kind in VERDICTS if kind not in (NOT_RUN, NOT_KNOWN, NOT_COMPARABLE))
    total = sum(own.values())
    if not judged:
        says = f"None of the paper's {total} own numbers is reproduced or refuted."
    else:
        counts = ", ".join(f"{own[kind]} {kind}" for kind in VERDICTS if own[kind])
        says = f"Of the paper's {total} own numbers: {counts}."
    if all(is_generated(model.dataset) for model in records):
        limits = "The data are not the paper's. They show that everything works, and they say nothing about the paper."
    elif own[NOT_COMPARABLE]:
        limits = (
            f"{own[NOT_COMPARABLE]} numbers are not comparable: their models were trained or tested with other "
            "settings than the paper's. So their differences are not evidence for or against the paper."
        )
    else:
        limits = "Differences within the interval over seeds may be chance."
    return [ran, says, limits]


def _verdicts_by_table(rows: Sequence[Judgement]) -> list[tuple[str, Counter]]:
    return [
        (report_name(table), Counter(row.verdict for row in rows if (row.table, row.method) == (table, OURS)))
        for table in TABLES
    ]


def _linked(piece: Piece, records: Mapping[Model, Record]) -> Piece:
    """A piece with links: each reproduced number leads to its model's page, or to the list of its models."""

    def link(cell: re.Match) -> str:
        models = [Model.of_path(path) for path in cell[2].split()]
        known = [model for model in models if model in records]
        if not known:
            return f"{cell[1]}{cell[3]}>{cell[4]}</td>"
        single = len({model.category for model in known}) == 1
        address = f"models/{page_name(known[0])}" if single else f"#{_anchor(known[0])}"
        return f'{cell[1]}{cell[3]}><a href="{escape(address)}">{cell[4]}</a></td>'

    return Piece(piece.name, piece.title, Markup(LINK.sub(link, piece.content)))


def _anchor(model: Model) -> str:
    return f"models-{model.dataset}-{model.variant}-{model.backbone}"


def _model_tables(records: Mapping[Model, Record], titles: Mapping[str, str]) -> list[Piece]:
    """The models of each dataset, variant and backbone: a table that leads to their pages."""
    groups: dict[tuple[str, str, str], list[Model]] = {}
    for model in sorted(records):
        groups.setdefault((model.dataset, model.variant, model.backbone), []).append(model)
    pieces = []
    for (dataset, variant, backbone), models in groups.items():
        title = f"{variant_name(variant)}, {backbone_name(backbone)}, {titles.get(dataset, dataset)}"
        found = [records[model].percentages for model in models]
        shown = [key for key in found[0] if any(values[key] is not None for values in found)]
        lines = [
            (row_name(model.category), model.seed, f"models/{page_name(model)}", _numbers(records[model], shown))
            for model in models
        ]
        content = render("models.html", title=title, headings=list(map(metric_name, shown)), lines=lines)
        pieces.append(Piece(_anchor(models[0]), title, Markup(content)))
    return pieces


def _numbers(record: Record, metrics: Sequence[str]) -> list[str]:
    values = (record.percentages[metric] for metric in metrics)
    return ["–" if value is None else f"{value:.1f}" for value in values]


def write_model_pages(models: Path, records: Mapping[Model, Record], pages: Path) -> None:
    """A page for each model, and one that compares it with the full method on the same images."""
    # Variants that differ only in evaluation share weights; the training curve is in the folder of one of them.
    trained: dict[str, Path] = {}
    for model, record in records.items():
        if (models / model.path / HISTORY_FILE).exists():
            trained[record.evaluation.model_sha256] = models / model.path
    for model, record in records.items():
        tested = read_tested(models / model.path, trained.get(record.evaluation.model_sha256))
        links = {"Report": "../index.html", "All models": f"../index.html#{_anchor(model)}"}
        for other in records:
            if other != model and replace(other, seed=model.seed) == model:
                links[f"Seed {other.seed}"] = page_name(other)
        comparison = _compare(models, tested, records)
        if comparison:
            name = f"compare.{page_name(model)}"
            links[f"Beside {variant_name(FULL_METHOD)}"] = name
            write_text(pages / name, comparison)
        target = Path(*models.parts) / model.path / METRICS_FILE
        write_text(pages / page_name(model), render_model(tested, links, target))


def _compare(models: Path, tested: Tested, records: Mapping[Model, Record]) -> str | None:
    """The comparison with the full method of the same category and seed, preferably of the same backbone.

    None if there is no such model, or if it was tested on other images.
    """
    own = tested.model
    wanted = replace(own, variant=FULL_METHOD)
    found = [model for model in records if replace(model, backbone=own.backbone) == wanted]
    found.sort(key=lambda model: model.backbone != own.backbone)
    if own.variant == FULL_METHOD or not found:
        return None
    reference = read_tested(models / found[0].path)
    if not same_images(tested, reference):
        return None
    links = {"Report": "../index.html"}
    links |= {f"{t.title} ({t.subtitle})": page_name(t.model) for t in (tested, reference)}
    return render_comparison(tested, reference, links)


def write_archive(folder: Path, path: Path) -> None:
    """Write the pages of the folder as a zip. The folder's name is the first part of each path in it."""
    with atomic_path(path) as temporary, ZipFile(temporary, "w", ZIP_DEFLATED) as archive:
        for file in (folder / "index.html", *sorted((folder / "models").glob("*.html"))):
            entry = ZipInfo(f"{folder.name}/{file.relative_to(folder).as_posix()}", DATE)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, file.read_bytes(), ZIP_DEFLATED)
