"""A table as rows, columns and cells, before it is written in any format."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import groupby
from statistics import fmean

import pandas as pd

from maskrd.experiment import Report
from maskrd.paper import MEAN, OURS, TABLES, Marks, PrintedValue, labels, methods, printed, rows
from maskrd.paper.tables import number, printed_like
from maskrd.reporting.collect import COSTS, summarise
from maskrd.reporting.naming import backbone_name, row_name, variant_name

REPORTED, REPRODUCED, MEASURED = "reported", "reproduced", "measured"
DASH = "-"
Speed = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Cell:
    """A number in percent; `value` None is a dash, `sd` None a single run. `rank`: 1 best, 2 second, else 0.

    A number that test images had a say in doesn't compete for ranks. `open` is a number of which print doesn't tell
    what it is: nobody can say who is best beside it.
    """

    value: float | None = None
    sd: float | None = None
    decimals: int = 1
    rank: int = 0
    competes: bool = True
    open: bool = False

    def shown(self, number: float) -> Decimal:
        return printed_like(number, self.decimals)

    def text(self, plus_minus: str = "±", dash: str = DASH) -> str:
        if self.value is None:
            return dash
        spread = "" if self.sd is None else f" {plus_minus} {self.shown(self.sd)}"
        return f"{self.shown(self.value)}{spread}"


@dataclass(frozen=True)
class Column:
    """`heading` is a method (rows of categories), or reported, reproduced or measured (other rows)."""

    heading: str
    metric: str
    source: str


@dataclass(frozen=True)
class Row:
    """`block`: the group of a category, or "". `marked`: the columns with a check mark."""

    name: str
    block: str = ""
    marked: tuple[str, ...] = ()
    is_mean: bool = False


@dataclass(frozen=True)
class Layout:
    """`cells` has one tuple for each row, one cell for each column. `shown` are the identifiers of the rows.

    `leaking` are the variants shown whose weights test images had a say in.
    """

    kind: str
    rows: tuple[Row, ...]
    shown: tuple[str, ...]
    columns: tuple[Column, ...]
    cells: tuple[tuple[Cell, ...], ...]
    mark_columns: tuple[str, ...] = ()
    leaking: tuple[str, ...] = ()

    @property
    def has_reported(self) -> bool:
        return any(column.source == REPORTED for column in self.columns)

    @property
    def spans(self) -> list[list[int]]:
        """The columns that share a printed cell: the metrics of one method, as in 99.3/98.1."""
        places = range(len(self.columns))
        if self.kind != "category":
            return [[place] for place in places]
        return [list(span) for _, span in groupby(places, key=lambda place: self.columns[place].heading)]

    @property
    def blocks(self) -> list[tuple[str, list[tuple[Row, tuple[Cell, ...]]]]]:
        """Rows and their cells between two rules: a group of categories, then the mean."""
        lines = zip(self.rows, self.cells, strict=True)
        grouped = groupby(lines, key=lambda line: (line[0].block, line[0].is_mean))
        return [(block, list(members)) for (block, _), members in grouped]


def build_layout(report: Report, metrics: pd.DataFrame, speed: Speed | None = None) -> Layout:
    """Lay out a table of the report; `metrics` is what `read_metrics` returns, `speed` is by variant and batch size.

    Best and second are ranked as shown, equal numbers sharing a rank (after two best there is no second): along each
    row of categories among reported and reproduced together, down each column of variants or backbones for itself.
    """
    if report.spec.rows == "categories":
        return _category_layout(report, metrics)
    return _line_layout(report, metrics, speed or {})


def paper_rows(report: Report) -> tuple[str, ...]:
    """The rows, without the mean, of the printed table that the report answers; none if it answers none."""
    answered = report.name in TABLES and report.spec.dataset == ("cifar10" if report.name == "table2" else "mvtec_ad")
    return tuple(row for row in rows(report.name) if row != MEAN) if answered else ()


def _category_layout(report: Report, metrics: pd.DataFrame) -> Layout:
    block_of = {category: block for block, members in labels().groups.items() for category in members}
    categories = report.categories
    if all(category in block_of for category in categories):
        categories = tuple(sorted(categories, key=lambda category: list(labels().groups).index(block_of[category])))
    else:
        block_of = {}
    columns = {**_reported_columns(report, categories), **_reproduced_columns(report, categories, metrics)}
    return Layout(
        kind="category",
        rows=(*(Row(row_name(c), block_of.get(c, "")) for c in categories), Row(row_name(MEAN), is_mean=True)),
        shown=categories,
        columns=tuple(columns),
        cells=tuple(_rank_along(tuple(columns), line) for line in zip(*columns.values(), strict=True)),
        leaking=leaking_variants(report, metrics),
    )


def _reported_columns(report: Report, categories: Sequence[str]) -> dict[Column, list[Cell]]:
    """Each printed method and metric, from the first category to the mean; none if no category is printed."""
    if not set(categories) & set(paper_rows(report)):
        return {}
    whole = set(categories) == set(paper_rows(report))
    columns = {}
    for method in methods(report.name):
        for metric in report.spec.metrics:
            cells = _printed_cells(report.name, method, metric)
            if cells:
                entries = [cells.get(category, Cell()) for category in categories]
                heading = f"{OURS} ({REPORTED})" if method == OURS else method
                columns[Column(heading, metric, REPORTED)] = [*entries, cells[MEAN] if whole else _mean_cell(entries)]
    return columns


def _printed_cells(table: str, method: str, metric: str) -> dict[str, Cell]:
    """Row -> printed number. Entries printed in whole numbers stay so: a decimal place would be made up."""
    column = [cell for cell in printed(table) if (cell.method, cell.metric) == (method, metric)]
    means, entries = ([cell for cell in column if (cell.row == MEAN) == is_mean] for is_mean in (True, False))
    decimals = _decimals(entries)
    found = {cell.row: _printed_cell(cell, decimals) for cell in entries}
    return found | {cell.row: _printed_cell(cell, max(decimals, _decimals(means))) for cell in means}


def _decimals(cells: Iterable[PrintedValue]) -> int:
    return 1 if any("." in cell.text for cell in cells) else 0


def _printed_cell(cell: PrintedValue, decimals: int) -> Cell:
    return Cell(cell.value, decimals=decimals, open=cell.value is None and number(cell.text) is not None)


def _mean_cell(cells: Sequence[Cell]) -> Cell:
    values = [cell.value for cell in cells]
    return replace(cells[0], value=None if None in values else fmean(values))


def _reproduced_columns(report: Report, categories: Sequence[str], metrics: pd.DataFrame) -> dict[Column, list[Cell]]:
    columns = {}
    leaking = leaking_variants(report, metrics)
    for variant in report.spec.variants:
        competes = variant not in leaking
        for metric in report.spec.metrics:
            entries = summarise(metrics, ["variant", "category"], metric)
            cells = [_cell(entries.loc[(variant, category)], competes) for category in categories]
            mean = _cell(summarise(metrics, ["variant"], metric).loc[variant], competes)
            heading = f"{labelled(variant, leaking)} ({REPRODUCED})"
            columns[Column(heading, metric, REPRODUCED)] = [*cells, mean]
    return columns


def leaking_variants(report: Report, metrics: pd.DataFrame) -> tuple[str, ...]:
    """Variants whose weights test images had a say in, as configured or as one of their models records."""
    recorded = set(metrics.loc[metrics["leak"], "variant"])
    return tuple(name for name in report.spec.variants if report.training[name].leaks or name in recorded)


def labelled(variant: str, leaking: Sequence[str]) -> str:
    return f"{variant_name(variant)} [leak]" if variant in leaking else variant_name(variant)


def _line_layout(report: Report, metrics: pd.DataFrame, speed: Speed) -> Layout:
    """One line for each variant or backbone; reported and reproduced side by side for each metric."""
    kind = report.spec.rows.removesuffix("s")
    lines = report.backbones if kind == "backbone" else report.spec.variants
    leaking = leaking_variants(report, metrics)
    variants = lines if kind == "variant" else report.spec.variants * len(lines)
    competes = [variant not in leaking for variant in variants]
    names = [backbone_name(line) if kind == "backbone" else labelled(line, leaking) for line in lines]
    marks = labels().marks.get(report.name, Marks((), {}))
    if leaking or not set(lines) <= set(marks.rows):  # check marks take the place of names, which say what leaks
        marks = Marks((), {})
    columns: dict[Column, list[Cell]] = {}
    for metric in report.spec.metrics:
        if set(lines) & set(paper_rows(report)):
            cells = _printed_cells(report.name, OURS, metric)
            columns[Column(REPORTED, metric, REPORTED)] = _rank([cells.get(line, Cell()) for line in lines])
        means = summarise(metrics, [kind], metric)
        cells = [_cell(means.loc[line], fair) for line, fair in zip(lines, competes, strict=True)]
        columns[Column(REPRODUCED, metric, REPRODUCED)] = _rank(cells)
    if report.spec.costs:
        columns |= _cost_columns(report, metrics, speed)
    return Layout(
        kind=kind,
        rows=tuple(Row(name, marked=marks.rows.get(line, ())) for name, line in zip(names, lines, strict=True)),
        shown=lines,
        columns=tuple(columns),
        cells=tuple(zip(*columns.values(), strict=True)),
        mark_columns=marks.columns,
        leaking=leaking,
    )


def _cost_columns(report: Report, metrics: pd.DataFrame, speed: Speed) -> dict[Column, list[Cell]]:
    """Means over the models of a variant, and frames per second; not ranked, since they depend on the machine."""
    variants = report.spec.variants
    means = metrics.groupby("variant")[list(COSTS)].mean()
    values = {cost: [means.loc[variant, cost] for variant in variants] for cost in COSTS}
    for batch in sorted({batch for rates in speed.values() for batch in rates}, key=int):
        values[f"frames_per_second_{batch}"] = [speed.get(variant, {}).get(batch) for variant in variants]
    return {
        Column(MEASURED, cost, MEASURED): [Cell() if pd.isna(value) else Cell(value) for value in line]
        for cost, line in values.items()
    }


def _cell(summary: pd.Series, competes: bool) -> Cell:
    if pd.isna(summary["mean"]):
        return Cell()
    return Cell(summary["mean"], None if pd.isna(summary["sd"]) else summary["sd"], competes=competes)


def _rank_along(columns: Sequence[Column], line: Sequence[Cell]) -> tuple[Cell, ...]:
    """Rank a row's cells, each metric for itself."""
    ranked = list(line)
    for metric in {column.metric for column in columns}:
        places = [place for place, column in enumerate(columns) if column.metric == metric]
        for place, cell in zip(places, _rank([line[place] for place in places]), strict=True):
            ranked[place] = cell
    return tuple(ranked)


def _rank(cells: Iterable[Cell]) -> list[Cell]:
    """Mark best and second; a number without a competitor is not best of anything, nor one beside an open one."""
    cells = list(cells)
    competing = [cell.value is not None and cell.competes for cell in cells]
    numbers = [cell.shown(cell.value) for cell, fair in zip(cells, competing, strict=True) if fair]
    if len(numbers) < 2 or any(cell.open for cell in cells):
        return cells
    ranks = {own: 1 + sum(other > own for other in numbers) for own in numbers}
    ranks = {own: rank for own, rank in ranks.items() if rank <= 2}
    return [
        replace(cell, rank=ranks.get(cell.shown(cell.value), 0)) if fair else cell
        for cell, fair in zip(cells, competing, strict=True)
    ]
