"""Ablations as paired differences: the same category and seed with and without a module."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from itertools import groupby
from pathlib import Path
from statistics import fmean

from markupsafe import Markup

from maskrd.config.record import Record, find_record
from maskrd.config.settings import FULL_METHOD, Model
from maskrd.config.view import View
from maskrd.files import write_csv, write_text
from maskrd.reporting.charts import IntervalRow, interval_chart
from maskrd.reporting.grid import labelled
from maskrd.reporting.html import render_records
from maskrd.reporting.naming import metric_name, report_name, variant_name
from maskrd.reporting.verdict import estimate, two_decimals

CAPTION = (
    "Differences in percentage points between models of the same category and seed. In brackets: the 95 % interval "
    "(Student's t over categories, or over seeds if there is one category). A star marks an interval without 0: the "
    "difference is beyond noise. One comparison in twenty gets a star by chance alone, and no correction is made."
)


@dataclass(frozen=True)
class Difference:
    """variant - reference in percentage points, with its 95 % interval. The fields are the CSV's columns.

    `pairs` says how many of the `expected` categories x seeds were run with both variants. Each category's differences
    are first averaged over its seeds. The interval is Student's t over the categories; with one category, over the
    seeds. `unit` says which. The interval is cut at 100 points. A single difference has no interval. `beyond_noise` is
    "yes" if the interval doesn't contain 0, otherwise "no". `leak` names the variants whose weights were chosen with
    test images. The difference is the mean of `points`, which the CSV leaves out.
    """

    variant: str
    reference: str
    metric: str
    pairs: int
    expected: int
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    beyond_noise: str = ""
    leak: str = ""
    points: tuple[float, ...] = field(default=(), metadata={"csv": False})


def paired_differences(view: View, models: Path) -> Iterator[Difference]:
    """Every variant of a table against the full method. A table without the full method uses its last variant.

    Reads {models}/{model.path}/metrics.json. Raises MaskrdError for a file that can't be read.
    """
    records = {model: find_record(models, model) for model in view.models()}
    leaking = [name for name in view.spec.variants if view.training[name].leaks or _recorded_leak(records, name)]
    reference = FULL_METHOD if FULL_METHOD in view.spec.variants else view.spec.variants[-1]
    expected = len(view.categories) * len(view.seeds)
    for variant in view.spec.variants:
        for metric in view.spec.metrics:
            if variant != reference:
                found = _by_category(view, records, variant, reference, metric)
                pairs = sum(len(differences) for differences in found)
                leak = " ".join(name for name in (variant, reference) if name in leaking)
                points = tuple(fmean(seeds) for seeds in found) if len(found) > 1 else tuple(*found)
                yield Difference(
                    variant, reference, metric, pairs, expected, *_summary(found), leak=leak, points=points
                )


def _recorded_leak(records: dict[Model, Record | None], variant: str) -> bool:
    return any(record.training.leak for model, record in records.items() if record and model.variant == variant)


def _by_category(
    view: View, records: dict[Model, Record | None], variant: str, reference: str, metric: str
) -> list[list[float]]:
    """The differences of each category's seeds. Categories without differences are left out."""

    def value(name: str, category: str, seed: int) -> float | None:
        record = records[Model(view.spec.dataset, category, name, view.backbones_of(name)[0], seed)]
        return None if record is None else record.percentages[metric]

    pairs = [
        [(value(variant, category, seed), value(reference, category, seed)) for seed in view.seeds]
        for category in view.categories
    ]
    found = [[one - other for one, other in seeds if one is not None and other is not None] for seeds in pairs]
    return [differences for differences in found if differences]


def _summary(by_category: Sequence[Sequence[float]]) -> tuple:
    """difference, low, high, unit, beyond_noise"""
    if not by_category:
        return ()
    several = len(by_category) > 1
    found = estimate([fmean(seeds) for seeds in by_category] if several else by_category[0])
    if found.n == 1:
        return (found.mean,)
    beyond = "yes" if found.low > 0 or found.high < 0 else "no"
    low, high = max(found.low, -100.0), min(found.high, 100.0)
    return found.mean, low, high, "categories" if several else "seeds", beyond


def write_paired(view: View, models: Path, path: Path, page: Path) -> None:
    """Write `paired_differences` as CSV, with two decimals, and as HTML, with one."""
    rows = list(paired_differences(view, models))
    headings = ["comparison", *map(metric_name, view.spec.metrics), "pairs"]
    lines = list(_lines(rows))
    picture = Markup("").join(interval_chart(metric_name(metric), found) for metric, found in _pictured(rows).items())
    write_text(page, render_records(f"{report_name(view.name)}, paired", CAPTION, headings, lines, picture))
    columns = [column.name for column in fields(Difference) if column.metadata.get("csv", True)]
    write_csv(path, columns, (two_decimals(row)[: len(columns)] for row in rows))


def _pictured(rows: Sequence[Difference]) -> dict[str, list[IntervalRow]]:
    """The differences that were found, by metric."""
    charts: dict[str, list[IntervalRow]] = {}
    for row in rows:
        if row.difference is not None:
            found = IntervalRow(variant_name(row.variant), row.difference, row.low, row.high, row.points)
            charts.setdefault(row.metric, []).append(found)
    return charts


def _lines(rows: Sequence[Difference]) -> Iterator[list[str]]:
    """The rows of the HTML table: one for each variant, with a column for each metric."""
    for _, group in groupby(rows, key=lambda row: row.variant):
        found = list(group)
        leaking = found[0].leak.split()
        comparison = f"{labelled(found[0].variant, leaking)} − {labelled(found[0].reference, leaking)}"
        pairs = dict.fromkeys(f"{row.pairs} of {row.expected}" for row in found)
        yield [comparison, *map(_text, found), " or ".join(pairs)]


def _text(row: Difference) -> str:
    if row.difference is None:
        return "–"
    if row.low is None or row.high is None:
        return f"{row.difference:+z.1f}"
    mark = " *" if row.beyond_noise == "yes" else ""
    # An interval without 0 must not end at a 0 that is rounded.
    digits = 2 if mark and min(abs(row.low), abs(row.high)) < 0.05 else 1
    low, high = f"{row.low:+z.{digits}f}", f"{row.high:+z.{digits}f}"
    return f"{row.difference:+z.1f} ({low} to {high}){mark}"
