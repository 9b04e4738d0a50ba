"""A table as rows, columns and cells, before it is written in any format."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from itertools import groupby
from statistics import fmean

import pandas as pd

from maskrd.config.settings import FULL_METHOD, Model
from maskrd.config.view import View
from maskrd.paper import MEAN, OURS, TABLES, Marks, ReportedValue, labels, methods, reported_values, rows
from maskrd.paper.settings import dataset_of, paper_categories, reported_metric
from maskrd.paper.tables import number, round_as_reported
from maskrd.reporting.collect import COSTS, summarise
from maskrd.reporting.naming import backbone_name, row_name, variant_name

REPORTED, REPRODUCED, MEASURED = "reported", "reproduced", "measured"
DASH = "-"
Rates = Mapping[str, Mapping[str, float]]  # frames per second, by variant and batch size


@dataclass(frozen=True)
class Cell:
    """A number in percent. `value` None is a dash, `sd` None a single run. `rank`: 1 best, 2 second, otherwise 0.

    A number that test images helped to choose is not ranked. An `ambiguous` number is never ranked, and neither are its
    neighbours: its row in the paper isn't known. A reproduced number is the mean of `models`. `difference`: reproduced
    - reported, as shown, if the paper reports the cell.
    """

    value: float | None = None
    sd: float | None = None
    decimals: int = 1
    rank: int = 0
    competes: bool = True
    ambiguous: bool = False
    models: tuple[Model, ...] = ()
    difference: Decimal | None = None

    def shown(self, number: float) -> Decimal:
        return round_as_reported(number, self.decimals)

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

    @property
    def method(self) -> str:
        """Of rows of categories."""
        return self.heading.partition(" (")[0]


@dataclass(frozen=True)
class Row:
    """`block`: the group of a category, or "". `marked`: the columns with a check mark."""

    name: str
    block: str = ""
    marked: tuple[str, ...] = ()
    is_mean: bool = False


@dataclass(frozen=True)
class Grid:
    """`cells` has one tuple for each row, one cell for each column. `shown` are the identifiers of the rows.

    `leaking` are the variants shown whose weights test images helped to choose.
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
        """The columns that share a reported cell: the metrics of one method, as in 99.3/98.1."""
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


def build_grid(view: View, metrics: pd.DataFrame, speed: Rates | None = None) -> Grid:
    """Lay out a table; `metrics` is what `read_metrics` returns.

    Numbers are ranked as shown, and equal numbers share a rank (after two best there is no second). With rows of
    categories, a row ranks reported and reproduced numbers together. With rows of variants or backbones, each column is
    ranked by itself.
    """
    if view.spec.rows == "categories":
        return _category_grid(view, metrics)
    return _line_grid(view, metrics, speed or {})


def paper_rows(view: View) -> tuple[str, ...]:
    """The rows, without the mean, of the reported table that the view reproduces. Empty if it reproduces none."""
    answered = view.name in TABLES and view.spec.dataset == dataset_of(view.name)
    return tuple(row for row in rows(view.name) if row != MEAN) if answered else ()


def answers_paper(view: View) -> bool:
    """Whether the paper reports some of the rows. What it reports of backbones is the full method's."""
    if view.spec.rows == "backbones":
        return bool(set(view.backbones) & set(paper_rows(view))) and view.spec.variants == (FULL_METHOD,)
    return bool(set(view.spec.variants) & set(paper_rows(view)))


def _category_grid(view: View, metrics: pd.DataFrame) -> Grid:
    block_of = {category: block for block, members in labels().groups.items() for category in members}
    categories = view.categories
    if all(category in block_of for category in categories):
        categories = tuple(sorted(categories, key=lambda category: list(labels().groups).index(block_of[category])))
    else:
        block_of = {}
    reported = _reported_columns(view, categories)
    columns = {**reported, **_with_differences(view, _reproduced_columns(view, categories, metrics), reported)}
    return Grid(
        kind="category",
        rows=(*(Row(row_name(c), block_of.get(c, "")) for c in categories), Row(row_name(MEAN), is_mean=True)),
        shown=categories,
        columns=tuple(columns),
        cells=tuple(_rank_along(tuple(columns), line) for line in zip(*columns.values(), strict=True)),
        leaking=leaking_variants(view, metrics),
    )


def _reported_columns(view: View, categories: Sequence[str]) -> dict[Column, list[Cell]]:
    """Each reported method and metric, from the first category to the mean; none if no category is reported."""
    if not set(categories) & set(paper_rows(view)):
        return {}
    whole = set(categories) == set(paper_rows(view))
    columns = {}
    for method in methods(view.name):
        for metric in view.spec.metrics:
            cells = _reported_cells(view.name, method, metric)
            if cells:
                entries = [cells.get(category, Cell()) for category in categories]
                heading = f"{OURS} ({REPORTED})" if method == OURS else method
                columns[Column(heading, metric, REPORTED)] = [*entries, cells[MEAN] if whole else _mean_cell(entries)]
    return columns


def _reported_cells(table: str, method: str, metric: str) -> dict[str, Cell]:
    """Row -> reported number. Entries reported as whole numbers stay whole: a decimal place would be made up."""
    column = [cell for cell in reported_values(table) if (cell.method, cell.metric) == (method, metric)]
    means, entries = ([cell for cell in column if (cell.row == MEAN) == is_mean] for is_mean in (True, False))
    decimals = _decimals(entries)
    found = {cell.row: _reported_cell(cell, decimals) for cell in entries}
    return found | {cell.row: _reported_cell(cell, max(decimals, _decimals(means))) for cell in means}


def _decimals(cells: Iterable[ReportedValue]) -> int:
    return 1 if any("." in cell.text for cell in cells) else 0


def _reported_cell(cell: ReportedValue, decimals: int) -> Cell:
    return Cell(cell.value, decimals=decimals, ambiguous=cell.value is None and number(cell.text) is not None)


def _mean_cell(cells: Sequence[Cell]) -> Cell:
    values = [cell.value for cell in cells]
    mean = None if None in values else fmean(values)
    return replace(cells[0], value=mean, ambiguous=any(cell.ambiguous for cell in cells))


def _reproduced_columns(view: View, categories: Sequence[str], metrics: pd.DataFrame) -> dict[Column, list[Cell]]:
    columns = {}
    leaking = leaking_variants(view, metrics)
    for variant in view.spec.variants:
        competes = variant not in leaking
        for metric in view.spec.metrics:
            entries = summarise(metrics, ["variant", "category"], metric)
            own = metrics[metrics["variant"] == variant]
            cells = [
                _cell(entries.loc[(variant, category)], competes, own[own["category"] == category])
                for category in categories
            ]
            mean = _cell(summarise(metrics, ["variant"], metric).loc[variant], competes, own)
            heading = f"{labelled(variant, leaking)} ({REPRODUCED})"
            columns[Column(heading, metric, REPRODUCED)] = [*cells, mean]
    return columns


def leaking_variants(view: View, metrics: pd.DataFrame) -> tuple[str, ...]:
    """Variants whose weights test images helped to choose, by the configuration or by a model's record."""
    recorded = set(metrics.loc[metrics["leak"], "variant"])
    return tuple(name for name in view.spec.variants if view.training[name].leaks or name in recorded)


def labelled(variant: str, leaking: Sequence[str]) -> str:
    return f"{variant_name(variant)} [leak]" if variant in leaking else variant_name(variant)


def _line_grid(view: View, metrics: pd.DataFrame, speed: Rates) -> Grid:
    """One line for each variant or backbone; reported and reproduced side by side for each metric."""
    kind = view.spec.rows.removesuffix("s")
    lines = view.backbones if kind == "backbone" else view.spec.variants
    is_whole = set(view.categories) == set(paper_categories(view.spec.dataset))
    leaking = leaking_variants(view, metrics)
    variants = lines if kind == "variant" else view.spec.variants * len(lines)
    competes = [variant not in leaking for variant in variants]
    names = [backbone_name(line) if kind == "backbone" else labelled(line, leaking) for line in lines]
    marks = labels().marks.get(view.name, Marks((), {}))
    if leaking or not set(lines) <= set(marks.rows):  # check marks take the place of names, which say what leaks
        marks = Marks((), {})
    columns: dict[Column, list[Cell]] = {}
    for metric in view.spec.metrics:
        if answers_paper(view):
            cells = _reported_cells(view.name, OURS, metric)
            columns[Column(REPORTED, metric, REPORTED)] = _rank([cells.get(line, Cell()) for line in lines])
        means = summarise(metrics, [kind], metric)
        cells = [
            _cell(means.loc[line], fair, metrics[metrics[kind] == line])
            for line, fair in zip(lines, competes, strict=True)
        ]
        reproduced = Column(REPRODUCED, metric, REPRODUCED)
        # A mean over some categories is not compared with the paper's over all.
        reported = columns.get(Column(REPORTED, metric, REPORTED)) if is_whole else None
        columns[reproduced] = _differing(_rank(cells), reported)
    if view.spec.costs:
        columns |= _cost_columns(view, metrics, speed)
    return Grid(
        kind=kind,
        rows=tuple(Row(name, marked=marks.rows.get(line, ())) for name, line in zip(names, lines, strict=True)),
        shown=lines,
        columns=tuple(columns),
        cells=tuple(zip(*columns.values(), strict=True)),
        mark_columns=marks.columns,
        leaking=leaking,
    )


def _cost_columns(view: View, metrics: pd.DataFrame, speed: Rates) -> dict[Column, list[Cell]]:
    """Means over the models of a variant, and frames per second; not ranked, since they depend on the machine."""
    variants = view.spec.variants
    means = metrics.groupby("variant")[list(COSTS)].mean()
    values = {cost: [means.loc[variant, cost] for variant in variants] for cost in COSTS}
    for batch in sorted({batch for rates in speed.values() for batch in rates}, key=int):
        values[f"frames_per_second_{batch}"] = [speed.get(variant, {}).get(batch) for variant in variants]
    return {
        Column(MEASURED, cost, MEASURED): [Cell() if pd.isna(value) else Cell(value) for value in line]
        for cost, line in values.items()
    }


def _cell(summary: pd.Series, competes: bool, metrics: pd.DataFrame) -> Cell:
    """`metrics` has the lines of the models that the number is the mean of."""
    if pd.isna(summary["mean"]):
        return Cell()
    names = [field.name for field in fields(Model)]
    models = tuple(Model(*line) for line in metrics[names].itertuples(index=False))
    return Cell(summary["mean"], None if pd.isna(summary["sd"]) else summary["sd"], competes=competes, models=models)


def _with_differences(
    view: View, reproduced: Mapping[Column, list[Cell]], reported: Mapping[Column, list[Cell]]
) -> dict[Column, list[Cell]]:
    """A reproduced method's differences to what the paper reports of it, where both numbers mean the same."""
    by_method = {
        (column.method, column.metric): cells
        for column, cells in reported.items()
        if reported_metric(column.method, view.spec.dataset, column.metric) == column.metric
    }
    return {
        column: _differing(cells, by_method.get((column.method, column.metric))) for column, cells in reproduced.items()
    }


def _differing(cells: Sequence[Cell], reported: Sequence[Cell] | None) -> list[Cell]:
    if reported is None:
        return list(cells)
    return [
        cell
        if cell.value is None or other.value is None
        else replace(cell, difference=cell.shown(cell.value) - other.shown(other.value))
        for cell, other in zip(cells, reported, strict=True)
    ]


def _rank_along(columns: Sequence[Column], line: Sequence[Cell]) -> tuple[Cell, ...]:
    """Rank a row's cells, each metric for itself."""
    ranked = list(line)
    for metric in {column.metric for column in columns}:
        places = [place for place, column in enumerate(columns) if column.metric == metric]
        for place, cell in zip(places, _rank([line[place] for place in places]), strict=True):
            ranked[place] = cell
    return tuple(ranked)


def _rank(cells: Iterable[Cell]) -> list[Cell]:
    """Mark best and second. A number without a competitor, or beside an ambiguous one, is never ranked."""
    cells = list(cells)
    competing = [cell.value is not None and cell.competes for cell in cells]
    numbers = [cell.shown(cell.value) for cell, fair in zip(cells, competing, strict=True) if fair]
    if len(numbers) < 2 or any(cell.ambiguous for cell in cells):
        return cells
    ranks = {own: 1 + sum(other > own for other in numbers) for own in numbers}
    ranks = {own: rank for own, rank in ranks.items() if rank <= 2}
    return [
        replace(cell, rank=ranks.get(cell.shown(cell.value), 0)) if fair else cell
        for cell, fair in zip(cells, competing, strict=True)
    ]
