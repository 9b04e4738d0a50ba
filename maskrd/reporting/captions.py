"""Captions and notes: the configured caption, then facts about the models behind the numbers."""

from collections.abc import Iterable

import pandas as pd

from maskrd.config.record import ADDED_LATER
from maskrd.config.settings import FULL_METHOD, PAPER_BACKBONE
from maskrd.config.view import View
from maskrd.data.registry import LAYOUTS, is_generated, published_counts
from maskrd.paper import OURS, audit, errata, labels
from maskrd.paper.settings import reported_metric
from maskrd.reporting.collect import Speed
from maskrd.reporting.grid import REPORTED, REPRODUCED, Grid, paper_rows
from maskrd.reporting.naming import (
    backbone_name,
    enumerate_names,
    metric_name,
    row_name,
    variant_name,
)

SCORE_TITLES = {"max": "max of the anomaly map", "mean": "mean of the anomaly map", "loss": "distillation loss"}
NAMED = 4  # more categories than this are counted, not named
GENERATED = "The data are not the paper's, so these numbers say nothing about it."


def table_caption(view: View, grid: Grid, metrics: pd.DataFrame, measured: Speed | None = None) -> str:
    """The caption as plain text: the configured one, then facts. They can't go stale, as they come from the models."""
    facts = [
        _cells(view, grid),
        *_settings(view, grid.has_reported, metrics),
        _seeds(view),
        *_coverage(view, grid),
        _missing(metrics),
        _untested(view, metrics),
        _other_data(view),
        _ranking(grid),
        _costs(view, measured),
    ]
    return " ".join([view.caption, *filter(None, facts)])


def figure_facts(view: View, metrics: pd.DataFrame) -> str:
    """The facts about a figure's models, as sentences."""
    return " ".join(filter(None, [*_settings(view, metrics=metrics), _seeds(view), _other_data(view)]))


def table_notes(view: View, grid: Grid, metrics: pd.DataFrame) -> list[str]:
    """The configured note, warnings about leaks and other settings, then the errata of the reported numbers shown."""
    notes = [view.spec.note] if view.spec.note else []
    if grid.leaking:
        names = enumerate_names([variant_name(variant) for variant in grid.leaking])
        notes.append(
            f"[leak] {names}: the test images chose the epoch, so these numbers say nothing about other images. They "
            "are not ranked."
        )
    differing = metrics[metrics["differing"] != ""].drop_duplicates(["variant", "differing"])
    notes += [
        f"{variant_name(line.variant)} was made with other settings than the configured ones: {line.differing}."
        for line in differing.itertuples()
    ]
    if not grid.has_reported:
        return notes
    for erratum in errata(view.name):
        # A wrong spelling or count needs no note, and a statement in the text is not a number shown here.
        doubtful = erratum.certainty != "FOUND" and not erratum.where.startswith("Section")
        if doubtful and (erratum.corrected or not erratum.column):
            notes.append(f"Reported, {erratum.where}: {erratum.wrong} {erratum.reading}")
    return [*notes, *_unlike(view, grid), *_wrong_means(view, grid)]


def _unlike(view: View, grid: Grid) -> list[str]:
    """A note about each reproduced number that means something else than the reported one of its method."""
    if grid.kind != "category":
        return []
    reported = {(column.method, column.metric) for column in grid.columns if column.source == REPORTED}
    notes = []
    for column in grid.columns:
        meant = reported_metric(column.method, view.spec.dataset, column.metric)
        if column.source == REPRODUCED and (column.method, column.metric) in reported and meant != column.metric:
            other = metric_name(meant) if meant else "computed on other images"
            name = metric_name(column.metric)
            notes.append(f"{column.method}: the reported {name} is {other}, so no difference to it is shown.")
    return notes


def _wrong_means(view: View, grid: Grid) -> list[str]:
    """A note about reported means that differ from the mean of the reported entries."""
    if grid.kind != "category" or set(grid.shown) != set(paper_rows(view)):
        return []
    wrong = [
        f"{row.method} {row.reported} (entries: {row.recomputed})"
        for row in audit.rows()
        if row.table == view.name and row.metric in view.spec.metrics and row.departs
    ]
    return [f"Reported means that differ from the mean of the reported entries: {', '.join(wrong)}."] if wrong else []


def _cells(view: View, grid: Grid) -> str:
    if grid.kind != "category" or len(view.spec.metrics) == 1:
        return ""
    return f"Cells: {'/'.join(metric_name(metric) for metric in view.spec.metrics)}."


def _settings(view: View, compared: bool = False, metrics: pd.DataFrame | None = None) -> list[str]:
    """Sentences on backbone, epochs, image size, precision and image score. The usual values are left out."""
    sentences = []
    if getattr(view.spec, "rows", None) == "backbones" and view.spec.variants != (FULL_METHOD,):
        sentences.append(f"Variant: {variant_name(view.spec.variants[0])}.")
    # Results made elsewhere weren't trained here: their teacher isn't used, and their scores may be their own.
    made_here = [variant for variant in view.spec.variants if view.training[variant].method != "external"]
    if getattr(view.spec, "rows", None) != "backbones":
        backbones = {variant: view.backbones_of(variant)[0] for variant in made_here}
        if backbones and set(backbones.values()) != {PAPER_BACKBONE}:
            names = {variant: backbone_name(backbone) for variant, backbone in backbones.items()}
            sentences.append(f"Backbone: {_by_variant(names)}.")
        compared_with = {backbones[name] for name in backbones if name in (FULL_METHOD, *paper_rows(view))}
        if compared and compared_with - {PAPER_BACKBONE}:
            # The other methods have backbones of their own, so this is about our column alone.
            column = f"{OURS} ({REPORTED})" if view.spec.rows == "categories" else REPORTED.capitalize()
            sentences.append(f"{column}: {backbone_name(PAPER_BACKBONE)}.")
    epochs, sizes, precisions, scores = (
        {variant: _values(view, metrics, variant, key) for variant in _described(view, metrics)}
        for key in ("epochs", "image_size", "precision", "score")
    )
    epochs, scores = ({name: found[name] for name in found if name in made_here} for found in (epochs, scores))
    counted = "epoch" if set(epochs.values()) == {"1"} else "epochs"
    trained = f"Training: {_by_variant(epochs)} {counted}, " if epochs else "Tested at "
    sentences.append(f"{trained}{_by_variant(sizes)} px.")
    if set(precisions.values()) != {"fp32"}:
        sentences.append(f"Precision: {_by_variant(precisions)}.")
    shows_scores = "image_auroc" in getattr(view.spec, "metrics", ())
    if scores and shows_scores and (LAYOUTS[view.layout].noun == "classes" or set(scores.values()) != {"max"}):
        titles = {variant: SCORE_TITLES.get(score, score) for variant, score in scores.items()}
        sentences.append(f"Image score: {_by_variant(titles)}.")
    return sentences


def _described(view: View, metrics: pd.DataFrame | None) -> tuple[str, ...]:
    """The variants that have models. All variants if there are no models: the caption then shows the configuration."""
    found = () if metrics is None else set(metrics.loc[metrics["found"], "variant"])
    return tuple(variant for variant in view.spec.variants if variant in found) or view.spec.variants


def _values(view: View, metrics: pd.DataFrame | None, variant: str, key: str) -> str:
    """A setting as the models of a variant record it. Without models, as it is configured."""
    recorded = [] if metrics is None else metrics.loc[metrics["variant"] == variant, key].dropna().unique()
    sections = (view.training[variant], view.evaluation[variant])
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


def _seeds(view: View) -> str:
    seeds = ", ".join(str(seed) for seed in view.seeds)
    if len(view.seeds) == 1:
        return f"Single run (seed {seeds})."
    return f"Mean ± standard deviation over n = {len(view.seeds)} seeds ({seeds})."


def _coverage(view: View, grid: Grid) -> list[str]:
    """How many of the paper's rows are shown, and which categories the means are over."""
    sentences = []
    reported = set(paper_rows(view))
    shown = reported & set(grid.shown)
    nouns = LAYOUTS[view.layout].noun
    if grid.has_reported and shown != reported:
        rows = nouns if grid.kind == "category" else f"{grid.kind}s"
        sentences.append(f"{len(shown)} of the paper's {len(reported)} {rows}.")
    if grid.kind == "category":
        if grid.has_reported and set(grid.shown) - reported:
            sentences.append("The reported means are dashes, because the paper lacks some of these rows.")
        elif grid.has_reported and shown != reported:
            sentences.append("The reported means are recomputed over the rows shown.")
        return sentences
    means = _over(view.categories, nouns)
    every = {category for members in labels().groups.values() for category in members}
    if grid.has_reported and set(view.categories) != every:
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
    return (
        f"{found} of {len(metrics)} models were run. A dash under {REPRODUCED}: not run, or a mean that lacks models."
    )


def _untested(view: View, metrics: pd.DataFrame) -> str:
    """Explain the dashes of models that were tested without masks, or before a metric existed."""
    sentences = []
    for metric in view.spec.metrics:
        count = int((metrics["found"] & metrics[metric].isna()).sum())
        earlier = "an earlier version tested them, or " if metric in ADDED_LATER else ""
        if count:
            name = metric_name(metric)
            sentences.append(f"{count} of {len(metrics)} models have no {name}: {earlier}they have no masks.")
    return " ".join(sentences)


def _other_data(view: View) -> str:
    """Warn if the images aren't the published ones: generated images, or the user's own categories."""
    if is_generated(view.spec.dataset):
        return GENERATED
    published = published_counts(view.spec.dataset)
    own = [row_name(category) for category in view.categories if published and category not in published]
    if not own:
        return ""
    names = enumerate_names(own) if len(own) <= NAMED else f"{len(own)} categories"
    return f"{names[0].upper()}{names[1:]} {'is' if len(own) == 1 else 'are'} not part of {view.title}."


def _ranking(grid: Grid) -> str:
    if not any(cell.rank for cells in grid.cells for cell in cells):
        return ""
    return f"Best of each {'row' if grid.kind == 'category' else 'column'} bold, second underlined."


def _costs(view: View, measured: Speed | None) -> str:
    """What the columns of costs mean, and which machine was timed."""
    if not view.spec.costs:
        return ""
    costs = "Parameters: trained ones only. Training: mean over the models; other jobs may have run at the same time."
    if measured is None:
        return costs
    place = f"{measured.machine.device}, threads {measured.machine.threads}"
    return f"{costs} Frames/s: all methods in one run, median of five rounds, on {place}."
