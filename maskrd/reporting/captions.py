"""Captions and notes: the caption of the configuration, then what the numbers at hand rest on."""

from collections.abc import Iterable

import pandas as pd

from maskrd.data.counts import published_counts
from maskrd.experiment import GENERATED_DATASETS, PAPER_BACKBONE, Report
from maskrd.paper import OURS, audit, errata, labels
from maskrd.reporting.layout import REPORTED, REPRODUCED, Layout, paper_rows
from maskrd.reporting.naming import (
    backbone_name,
    dataset_name,
    enumerate_names,
    metric_name,
    row_name,
    variant_name,
)
from maskrd.reporting.runs import ADDED_LATER

SCORES = {"max": "max of the anomaly map", "mean": "mean of the anomaly map", "loss": "distillation loss"}
NAMED = 4  # more categories than this are counted
GENERATED = "The data is generated: nothing here compares with the paper."


def table_caption(report: Report, layout: Layout, metrics: pd.DataFrame, measured: dict | None = None) -> str:
    """The caption in plain text: configured, then facts that can't go stale, since they come from the models."""
    facts = [
        _cells(report, layout),
        *_settings(report, layout.has_reported, metrics),
        _seeds(report),
        *_coverage(report, layout),
        _missing(metrics),
        _untested(report, metrics),
        _other_data(report),
        _ranking(layout),
        _costs(report, measured),
    ]
    return " ".join([f"{report.spec.caption.rstrip('. ')}.", *filter(None, facts)])


def figure_facts(report: Report) -> str:
    """What a figure rests on, one sentence after the other."""
    return " ".join(filter(None, [*_settings(report), _seeds(report), _other_data(report)]))


def table_notes(report: Report, layout: Layout) -> list[str]:
    """The configured note, a warning of leaks, then the errata that bear on the reported numbers shown."""
    notes = [report.spec.note] if report.spec.note else []
    if layout.leaking:
        names = enumerate_names([variant_name(variant) for variant in layout.leaking])
        notes.append(f"[leak] {names}: the test images chose the checkpoint. No estimate for other images; not ranked.")
    if not layout.has_reported:
        return notes
    for erratum in errata(report.name):
        # What was only spelt or counted wrongly needs no note; a statement in the text is no number shown here.
        doubtful = erratum.certainty != "FOUND" and not erratum.where.startswith("Section")
        if doubtful and (erratum.corrected or not erratum.column):
            notes.append(f"Reported, {erratum.where}: {erratum.wrong} {erratum.reading}")
    return [*notes, *_wrong_means(report, layout)]


def _wrong_means(report: Report, layout: Layout) -> list[str]:
    """Printed means that are shown though the printed entries average to something else."""
    if layout.kind != "category" or set(layout.shown) != set(paper_rows(report)):
        return []
    wrong = [
        f"{row.method} {row.printed} (entries: {row.recomputed})"
        for row in audit.rows()
        if row.table == report.name and row.metric in report.spec.metrics and row.departs
    ]
    return [f"Printed means that differ from the mean of the printed entries: {', '.join(wrong)}."] if wrong else []


def _cells(report: Report, layout: Layout) -> str:
    if layout.kind != "category" or len(report.spec.metrics) == 1:
        return ""
    return f"Cells: {'/'.join(metric_name(metric) for metric in report.spec.metrics)}."


def _settings(report: Report, compared: bool = False, metrics: pd.DataFrame | None = None) -> list[str]:
    """Backbone, epochs, image size, precision, image score; what is as usual stays unsaid."""
    sentences = []
    if getattr(report.spec, "rows", None) != "backbones":
        backbones = {variant: report.backbones_of(variant)[0] for variant in report.spec.variants}
        if set(backbones.values()) != {PAPER_BACKBONE}:
            names = {variant: backbone_name(backbone) for variant, backbone in backbones.items()}
            sentences.append(f"Backbone: {_by_variant(names)}.")
        if compared and backbones.get("maskrd", PAPER_BACKBONE) != PAPER_BACKBONE:
            # Beside the other methods, each with a backbone of its own, only our own column is meant.
            column = f"{OURS} ({REPORTED})" if report.spec.rows == "categories" else REPORTED.capitalize()
            sentences.append(f"{column}: {backbone_name(PAPER_BACKBONE)}.")
    epochs, sizes, precisions, scores = (
        {variant: _values(report, metrics, variant, key) for variant in _described(report, metrics)}
        for key in ("epochs", "image_size", "precision", "score")
    )
    counted = "epoch" if set(epochs.values()) == {"1"} else "epochs"
    sentences.append(f"Training: {_by_variant(epochs)} {counted}, {_by_variant(sizes)} px.")
    if set(precisions.values()) != {"fp32"}:
        sentences.append(f"Precision: {_by_variant(precisions)}.")
    shows_scores = "image_auroc" in getattr(report.spec, "metrics", ())
    if shows_scores and (report.spec.dataset == "cifar10" or set(scores.values()) != {"max"}):
        sentences.append(f"Image score: {_by_variant({v: SCORES.get(score, score) for v, score in scores.items()})}.")
    return sentences


def _described(report: Report, metrics: pd.DataFrame | None) -> tuple[str, ...]:
    """The variants of which there are models; all if there are none, for then the caption says what is configured."""
    found = () if metrics is None else set(metrics.loc[metrics["found"], "variant"])
    return tuple(variant for variant in report.spec.variants if variant in found) or report.spec.variants


def _values(report: Report, metrics: pd.DataFrame | None, variant: str, key: str) -> str:
    """A setting as the models of a variant record it, or else as it is configured."""
    recorded = [] if metrics is None else metrics.loc[metrics["variant"] == variant, key].dropna().unique()
    sections = (report.training[variant], report.evaluation[variant])
    configured = next(getattr(section, key) for section in sections if hasattr(section, key))
    return " or ".join(sorted(recorded)) or str(configured)


def _by_variant(values: dict[str, str]) -> str:
    """20, or 60 (Ours) and 20 (no FMM)."""
    if len(set(values.values())) == 1:
        return next(iter(values.values()))
    variants: dict[str, list[str]] = {}
    for variant, value in values.items():
        variants.setdefault(value, []).append(variant_name(variant))
    return enumerate_names([f"{value} ({', '.join(names)})" for value, names in variants.items()])


def _seeds(report: Report) -> str:
    seeds = ", ".join(str(seed) for seed in report.seeds)
    if len(report.seeds) == 1:
        return f"Single run (seed {seeds})."
    return f"Mean ± standard deviation over n = {len(report.seeds)} seeds ({seeds})."


def _coverage(report: Report, layout: Layout) -> list[str]:
    """How many of the paper's rows are there, and what the means of a line are over."""
    sentences = []
    printed = set(paper_rows(report))
    shown = printed & set(layout.shown)
    nouns = "classes" if report.spec.dataset in ("cifar10", "digits") else "categories"
    if layout.has_reported and shown != printed:
        rows = nouns if layout.kind == "category" else f"{layout.kind}s"
        sentences.append(f"{len(shown)} of the paper's {len(printed)} {rows}.")
        if layout.kind == "category":
            sentences.append("The reported means are recomputed over the rows shown.")
    if layout.kind == "category":
        return sentences
    means = _over(report.categories, nouns)
    every = {category for members in labels().groups.values() for category in members}
    if layout.has_reported and set(report.categories) != every:
        return [*sentences, f"Reported: mean over the paper's {len(every)} categories; reproduced: {means}."]
    return [*sentences, f"{means[0].upper()}{means[1:]}."]


def _over(categories: Iterable[str], nouns: str) -> str:
    names = [row_name(category) for category in categories]
    if len(names) == 1:
        return f"{names[0]} only"
    return f"mean over {enumerate_names(names) if len(names) <= NAMED else f'{len(names)} {nouns}'}"


def _missing(metrics: pd.DataFrame) -> str:
    found = int(metrics["found"].sum())
    if found == len(metrics):
        return ""
    return f"{found} of {len(metrics)} models: a dash under {REPRODUCED} is a model not run."


def _untested(report: Report, metrics: pd.DataFrame) -> str:
    """Runs from before a metric was there have dashes that are no missing models."""
    without = {
        metric_name(metric): int((metrics["found"] & metrics[metric].isna()).sum())
        for metric in report.spec.metrics
        if metric in ADDED_LATER
    }
    sentences = [
        f"{count} of {len(metrics)} models have no {name}: tested before it was a metric, or without masks."
        for name, count in without.items()
        if count
    ]
    return " ".join(sentences)


def _other_data(report: Report) -> str:
    """Captions name the paper's dataset; generated images replace it, a user's categories have only its layout."""
    if report.spec.dataset in GENERATED_DATASETS:
        return GENERATED
    published = published_counts().get(report.spec.dataset)
    own = [row_name(category) for category in report.categories if published and category not in published]
    if not own:
        return ""
    names = enumerate_names(own) if len(own) <= NAMED else f"{len(own)} categories"
    return f"Not of {dataset_name(report.spec.dataset)}, but of its layout: {names}."


def _ranking(layout: Layout) -> str:
    if not any(cell.rank for cells in layout.cells for cell in cells):
        return ""
    return f"Best of each {'row' if layout.kind == 'category' else 'column'} bold, second underlined."


def _costs(report: Report, measured: dict | None) -> str:
    """What the columns of costs hold; how fast a machine was is no property of a method."""
    if not report.spec.costs:
        return ""
    costs = "Parameters: those trained. Training: mean over the models, beside whatever else the machines ran."
    if measured is None:
        return costs
    place = f"{measured['machine']['device']}, {measured['machine']['threads']} threads"
    return f"{costs} Frames/s: all in one run, median of five rounds, on {place}."
