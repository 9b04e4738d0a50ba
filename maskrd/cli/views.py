"""Commands of the rules that write tables, figures, the verdict and the report."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from maskrd.cli.options import Models, Output, PlainBackbone, Seeds, ViewOption, parse_view

app = typer.Typer()
command = partial(app.command, rich_help_panel="For the rules: tables, figures, report")


@command()
def table(
    view: ViewOption,
    models: Models,
    csv: Annotated[Path, typer.Option(help="CSV to write")],
    tex: Annotated[Path, typer.Option(help="LaTeX to write")],
    html: Annotated[Path, typer.Option(help="HTML to write")],
    speed: Annotated[Path | None, typer.Option(help="Measured speeds, from `maskrd speed`")] = None,
) -> None:
    """Write a table from the metrics.json files of its models."""
    from maskrd.reporting.tables import write_table

    write_table(view, models, csv, tex, html, speed)


@command()
def paired(
    view: ViewOption,
    models: Models,
    csv: Annotated[Path, typer.Option(help="CSV to write")],
    html: Annotated[Path, typer.Option(help="HTML to write")],
) -> None:
    """Write the differences between an ablation's variants and the full method, with confidence intervals."""
    from maskrd.reporting.paired import write_paired

    write_paired(view, models, csv, html)


@command()
def figure(
    view: ViewOption,
    models: Models,
    png: Annotated[Path, typer.Option(help="PNG to write")],
    pdf: Annotated[Path, typer.Option(help="PDF to write")],
) -> None:
    """Draw a figure from the anomaly maps of its models."""
    from maskrd.reporting.figures import write_figure

    write_figure(view, models, png, pdf)


@command()
def curves(
    histories: Annotated[list[Path], typer.Argument(help="history.csv of models of one dataset")],
    title: Annotated[str, typer.Option(help="Name of the dataset for readers")],
    output: Output,
) -> None:
    """Draw the training curves of a dataset's models (PNG)."""
    from maskrd.reporting.curves import write_curves

    write_curves(histories, title, output)


@command()
def tex(
    view: Annotated[list[Any], typer.Option(parser=parse_view, metavar="JSON", help="Table to include; repeatable")],
    tables: Annotated[Path, typer.Option(help="Folder of the tables' .tex")],
    output: Output,
) -> None:
    """Write tables as one LaTeX document, with the errata of the reported tables as footnotes."""
    from maskrd.reporting.supplement import write_supplement

    write_supplement(view, tables, output)


@command()
def pdf(tex: Annotated[Path, typer.Option(help="LaTeX document")], output: Output) -> None:
    """Make the PDF of a LaTeX document with pdflatex or tectonic."""
    from maskrd.reporting.supplement import compile_pdf

    compile_pdf(tex, output)


@command()
def audit(output: Output) -> None:
    """Recompute the means that the paper reports. Writes a CSV."""
    from maskrd.paper.audit import write_audit

    write_audit(output)


@command()
def verdict(
    models: Models,
    backbone: PlainBackbone,
    seed: Seeds,
    csv: Annotated[Path, typer.Option(help="CSV to write")],
    page: Annotated[Path, typer.Option(help="Markdown page to write")],
    png: Annotated[Path, typer.Option(help="Plot to write, beside the page")],
    pdf: Annotated[Path, typer.Option(help="Plot to write")],
    claims: Annotated[Path, typer.Option(help="CSV to write, with the paper's claims")],
) -> None:
    """Compare the reported numbers with the models that exist, and judge the paper's claims on both."""
    from maskrd.paper.claims import write_claims
    from maskrd.reporting.claims import judged_claims
    from maskrd.reporting.verdict import verdicts, write_verdict
    from maskrd.reporting.verdict_page import write_page, write_plot

    rows = verdicts(models, backbone, seed)
    judged = judged_claims(rows, models, backbone, seed)
    write_verdict(rows, csv)
    write_plot(rows, png, pdf)
    write_page(rows, png.name, judged, page)
    write_claims(claims, judged)


@command()
def report(
    models: Models,
    backbone: PlainBackbone,
    seed: Seeds,
    titles: Annotated[str, typer.Option(help="Names of the datasets for readers, as JSON")],
    folder: Annotated[Path, typer.Option(help="Folder to write: index.html, and a page for each model")],
    archive: Annotated[Path, typer.Option(help="Archive of the folder to write (.zip)")],
    tables: Annotated[list[Path] | None, typer.Option(help="HTML of a table to show; may be repeated")] = None,
    figures: Annotated[list[Path] | None, typer.Option(help="PNG of a figure to show; may be repeated")] = None,
    curves: Annotated[list[Path] | None, typer.Option(help="PNG of training curves to show; may be repeated")] = None,
) -> None:
    """Write the report: tables, figures and verdict on a first page, and a page for each model."""
    import json

    from maskrd.reporting.report import ReportFiles, write_report

    files = ReportFiles(tables or (), figures or (), curves or (), folder, archive)
    write_report(models, backbone, seed, json.loads(titles), files)
