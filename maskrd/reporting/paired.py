"""Ablations as paired differences: the same category and seed with and without a module."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from pathlib import Path
from statistics import fmean

from maskrd.experiment import Model, Report
from maskrd.files import write_csv, write_text
from maskrd.reporting.html import render_records
from maskrd.reporting.layout import labelled
from maskrd.reporting.naming import metric_name, report_name
from maskrd.reporting.runs import Run, read_run
from maskrd.reporting.verdict import estimate, two_decimals

FULL = "maskrd"
CAPTION = (
    "Differences in percentage points between models of the same category and seed, with their 95 % interval, "
    "Student's t over categories, or over seeds where there is one category. * leaves out 0: beyond noise, but without "
    "any real difference one comparison in twenty would be starred as well (no correction is made)."
)


@dataclass(frozen=True)
class Difference:
    """variant - reference in percentage points, with its 95 % interval; the fields are the CSV's columns.

    `pairs` of the `expected` categories x seeds were run with both. A category's differences are first averaged over
    its seeds; the interval is Student's t over the categories, whose differences vary by chance and by category.
    With one category it is over the seeds. `unit` says which. It ends at 100 points, as differences do.
    `beyond_noise` is yes if the interval leaves out 0, else no. A single difference has no interval. `leak`: of the two
    variants, those whose weights test images had a say in.
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


def paired_differences(report: Report, models: Path) -> Iterator[Difference]:
    """Every variant of a table against the full method, or against the table's last variant if it lacks that.

    Reads {models}/{model.path}/metrics.json. Raises MaskrdError for a file that can't be read.
    """
    runs = {model: read_run(models, model) for model in report.models()}
    leaking = [name for name in report.spec.variants if report.training[name].leaks or _recorded_leak(runs, name)]
    reference = FULL if FULL in report.spec.variants else report.spec.variants[-1]
    expected = len(report.categories) * len(report.seeds)
    for variant in report.spec.variants:
        for metric in report.spec.metrics:
            if variant != reference:
                found = _by_category(report, runs, variant, reference, metric)
                pairs = sum(len(differences) for differences in found)
                leak = " ".join(name for name in (variant, reference) if name in leaking)
                yield Difference(variant, reference, metric, pairs, expected, *_summary(found), leak=leak)


def _recorded_leak(runs: dict[Model, Run | None], variant: str) -> bool:
    return any(run.training.get("leak") for model, run in runs.items() if run and model.variant == variant)


def _by_category(
    report: Report, runs: dict[Model, Run | None], variant: str, reference: str, metric: str
) -> list[list[float]]:
    """The differences of each category's seeds; categories without any are left out."""

    def value(name: str, category: str, seed: int) -> float | None:
        run = runs[Model(report.spec.dataset, category, name, report.backbones_of(name)[0], seed)]
        return None if run is None else run.values[metric]

    pairs = [
        [(value(variant, category, seed), value(reference, category, seed)) for seed in report.seeds]
        for category in report.categories
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


def write_paired(report: Report, models: Path, path: Path, page: Path) -> None:
    """Write `paired_differences` as CSV, with two decimals, and as HTML, with one."""
    rows = list(paired_differences(report, models))
    headings = ["comparison", *map(metric_name, report.spec.metrics), "pairs"]
    lines = list(_lines(rows))
    write_text(page, render_records(f"{report_name(report.name)}, paired", CAPTION, headings, lines))
    write_csv(path, (field.name for field in fields(Difference)), map(two_decimals, rows))


def _lines(rows: Sequence[Difference]) -> Iterator[list[str]]:
    """In HTML a line for each variant, a column for each metric."""
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
    return f"{row.difference:+z.1f} ({row.low:+z.1f} to {row.high:+z.1f}){mark}"
