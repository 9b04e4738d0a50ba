"""The verdict for readers: a page in Markdown or HTML, and a plot of reported against reproduced numbers."""

import base64
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from maskrd.config.record import METRICS
from maskrd.files import atomic_path, write_text
from maskrd.paper import OURS, TABLES
from maskrd.paper import rows as paper_rows
from maskrd.paper.claims import TEXT, ClaimResult
from maskrd.paper.claims import VERDICTS as VERDICTS_OF_CLAIMS
from maskrd.reporting.naming import enumerate_names, metric_name, report_name, row_name, variant_name
from maskrd.reporting.plots import plot_style
from maskrd.reporting.verdict import (
    BAND,
    HIGHER,
    INCONCLUSIVE,
    LOWER,
    NOT_COMPARABLE,
    NOT_KNOWN,
    NOT_RUN,
    REPRODUCED,
    VERDICTS,
    Judgement,
)

CLAIMS_INTRODUCTION = """## Claims

The paper's statements about its results. One rule judges each statement on the reported numbers, and again on
reproduced numbers if there are any. There, reproduced numbers replace those of the paper's method and of baselines that
were trained here; all other numbers stay as reported. RD's reported PRO, which is per image, is not compared with a
pooled PRO. The kind of the other reported PROs isn't known, so they are used with both. Numbers made under other
conditions than the paper's decide nothing.
"""
# Distinguishable with any colour vision (Okabe and Ito). Grey is for numbers without a verdict.
COLORS = {
    REPRODUCED: "#009e73",
    LOWER: "#d55e00",
    HIGHER: "#0072b2",
    INCONCLUSIVE: "#e69f00",
    NOT_COMPARABLE: "#999999",
}
MARKERS = {True: "o", False: "s"}  # by whether it is the paper's own method
INTRODUCTION = f"""Each reported number is compared with the mean over seeds of the models that exist, in percent.
**Reproduced**: the 95 % interval of that mean (Student's t over seeds) is within ±{BAND} points of the reported
number. **Lower**, **higher**: the interval is entirely below or above that band. **Inconclusive**: it is partly inside.
A single run has no interval: the number itself decides, and the verdict says "single run". **Not comparable**: the
models were trained with other settings than the paper's, so the difference is not evidence for or against it. **Not
run**: there are no models; a mean needs all of the paper's categories. Generated data never count. **Others** is the
number that independent code publishes for the same cell, by repository. PRO is pooled over the test set. The paper
doesn't say whether its PRO is pooled or per image, as RD's is; a remark gives ours per image.
"""


def write_page(rows: Sequence[Judgement], plot: str, claims: Sequence[ClaimResult], path: Path) -> None:
    """Write the page in Markdown; `plot` is the address of the image, relative to the page."""
    write_text(path, "# Reported and reproduced\n\n" + markdown(rows, plot, claims))


def markdown(rows: Sequence[Judgement], plot: str, claims: Sequence[ClaimResult]) -> str:
    """Everything below the title."""
    own = [row for row in rows if row.method == OURS]
    if all(row.verdict == NOT_RUN for row in own):
        summary = "Nothing was run on the paper's data, so no reported number is reproduced or refuted."
    else:
        summary = f"![Reported against reproduced]({plot})"
    sections = [section(table, [row for row in rows if row.table == table]) for table in TABLES]
    return "\n".join([INTRODUCTION, summary, "", *sections, CLAIMS_INTRODUCTION, *_claim_lines(claims)])


def _claim_lines(claims: Sequence[ClaimResult]) -> Iterator[str]:
    yield "| the paper says | where | on | outcome | because |"
    yield "|---|---|---|---|---|"
    for result in claims:
        claim, outcome = result.claim, result.outcome
        place = claim.section if claim.table == TEXT else f"{claim.section}, {report_name(claim.table)}"
        texts = [claim.text, place, result.numbers, VERDICTS_OF_CLAIMS[outcome.verdict], outcome.detail]
        yield "| " + " | ".join([texts[0], *map(_in_the_papers_words, texts[1:])]).replace("\n", " ") + " |"
    yield ""


def _in_the_papers_words(text: str) -> str:
    """The text with the paper's names instead of our identifiers, and without bars, which would end the cell."""
    return re.sub(r"\w+", lambda word: _names().get(word[0], word[0]), text).replace("|", "/")


@cache
def _names() -> dict[str, str]:
    categories = {row: row_name(row) for table in TABLES[:4] for row in paper_rows(table)}
    variants = {row: variant_name(row) for table in TABLES[4:] for row in paper_rows(table)}
    return categories | variants | {metric: metric_name(metric) for metric in METRICS}


def section(table: str, rows: Sequence[Judgement]) -> str:
    # The paper's own method first.
    methods = sorted(dict.fromkeys(row.method for row in rows), key=lambda method: method != OURS)
    sentences = [sentence(method, [row for row in rows if row.method == method]) for method in methods]
    shown = [row for row in rows if row.verdict != NOT_RUN or row.remarks]
    shown.sort(key=lambda row: methods.index(row.method))
    return "\n".join([f"## {table.replace('table', 'Table ')}", "", " ".join(sentences), "", *_lines(shown)])


def sentence(method: str, rows: Sequence[Judgement]) -> str:
    """The verdicts on a method's numbers in a table, with the largest differences and the incomparable conditions."""
    counts = Counter(row.verdict for row in rows)
    parts = [f"{counts[verdict]} {verdict}{_worst(verdict, rows)}" for verdict in VERDICTS if counts[verdict]]
    runs = " or ".join(sorted({row.runs for row in rows if row.runs}))
    conditions = dict.fromkeys(row.conditions for row in rows if row.conditions)
    facts = [runs.capitalize(), f"Not comparable: {' | '.join(conditions)}" if conditions else ""]
    counted = f"{method}: of {len(rows)} reported number{'s' * (len(rows) > 1)} {enumerate_names(parts)}."
    return " ".join([counted, *(f"{fact}." for fact in facts if fact)])


def _worst(verdict: str, rows: Sequence[Judgement]) -> str:
    if verdict not in (LOWER, HIGHER):
        return ""
    row = max((row for row in rows if row.verdict == verdict), key=lambda row: abs(row.difference))
    return f" (most: {_name(row)} {metric_name(row.metric)}, {row.difference:+z.1f})"


def _lines(rows: Sequence[Judgement]) -> Iterator[str]:
    if not rows:
        return
    yield "| method | row | metric | reported | reproduced | others | 95 % interval | difference | verdict | remarks |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for row in rows:
        reported = "?" if row.reported is None else f"{row.reported:.1f}"
        verdict = f"{row.verdict} (single run)" if row.n == 1 else row.verdict
        reproduced = difference = interval = ""
        if row.reproduced is not None:
            reproduced = f"{row.reproduced:.1f}" + ("" if row.sd is None else f" ± {row.sd:.1f} (n = {row.n})")
        if row.difference is not None:
            difference = f"{row.difference:+z.1f}"
        if row.low is not None and row.high is not None:
            interval = f"{row.low:.1f} to {row.high:.1f}"
        cells = [row.method, _name(row), metric_name(row.metric), reported, reproduced, row.others]
        cells += [interval, difference, verdict]
        yield "| " + " | ".join([*cells, "; ".join(filter(None, [row.conditions, row.remarks]))]) + " |"
    yield ""


def _name(row: Judgement) -> str:
    return variant_name(row.row) if row.table in TABLES[4:] else row_name(row.row)


def write_plot(rows: Sequence[Judgement], *paths: Path) -> None:
    """Draw every reproduced number against the reported one, a panel for each metric: PNG with 150 dpi, or PDF."""
    with plot_style("whitegrid"):
        figure = draw(rows)
        for path in paths:
            with atomic_path(path) as temporary:
                # No date, so that equal plots are equal files.
                metadata = {"CreationDate": None} if path.suffix == ".pdf" else None
                figure.savefig(temporary, dpi=150, bbox_inches="tight", metadata=metadata)


def plot_uri(rows: Sequence[Judgement]) -> str:
    """The plot as a data URI, for a page."""
    stream = io.BytesIO()
    with plot_style("whitegrid"):
        draw(rows).savefig(stream, format="png", dpi=110, bbox_inches="tight")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def draw(rows: Sequence[Judgement]) -> Figure:
    """Of the rows that were judged."""
    rows = [row for row in rows if row.difference is not None and row.verdict != NOT_KNOWN]
    metrics = list(dict.fromkeys(row.metric for row in rows))
    figure = Figure(figsize=(4 * max(1, len(metrics)), 6), layout="constrained")
    if not metrics:
        figure.text(0.5, 0.5, "Nothing was run on the paper's data.", ha="center")
        return figure
    grid = figure.subplots(2, len(metrics), squeeze=False, sharex="col", height_ratios=(2, 1))
    for axes, metric in zip(grid.T, metrics, strict=True):
        _draw_metric(*axes, metric, [row for row in rows if row.metric == metric])
    grid[0, 0].set_ylabel("reproduced (%), 95 % interval")
    grid[1, 0].set_ylabel("difference (points)")
    found = [verdict for verdict in COLORS if any(row.verdict == verdict for row in rows)]
    handles = [grid[0, 0].plot([], [], "o", color=COLORS[verdict], label=verdict)[0] for verdict in found]
    handles += [
        grid[0, 0].plot([], [], MARKERS[own], color="0.3", mfc="none", label=label)[0]
        for own, label in ((True, "the paper's method"), (False, "baselines"))
        if any((row.method == OURS) == own for row in rows)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    return figure


def _draw_metric(upper: Axes, lower: Axes, metric: str, rows: Sequence[Judgement]) -> None:
    """Draw the numbers in the upper panel and their differences in the lower one. The band is grey."""
    numbers = [number for row in rows for number in (row.reported, row.reproduced)]
    ends = np.array([min(numbers) - 1, max(numbers) + 1])
    for axes, center in ((upper, ends), (lower, np.zeros(2))):
        axes.fill_between(ends, center - BAND, center + BAND, color="0.9", lw=0)
        axes.plot(ends, center, color="0.6", lw=0.8)
    for row in rows:
        bars = None if row.low is None else [[row.reproduced - row.low], [row.high - row.reproduced]]
        style = {"color": COLORS[row.verdict], "ms": 4, "elinewidth": 0.8, "capsize": 2, "alpha": 0.8}
        style["fmt"] = MARKERS[row.method == OURS]
        upper.errorbar(row.reported, row.reproduced, yerr=bars, **style)
        lower.errorbar(row.reported, row.difference, yerr=bars, **style)
    upper.set(xlim=ends, ylim=ends, title=metric_name(metric))
    lower.set(xlabel="reported (%)")
