"""Tables 1-7 of the paper: reported values, labels and errata.

All values are percentages. A table's rows are categories and their `mean` (Tables 1-3), backbones (Table 4)
or variants (Tables 5-7); a method is named as reported, the paper's own being `OURS`.
"""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from importlib.resources import files

import yaml

from maskrd.errors import MaskrdError

TABLES = tuple(f"table{number}" for number in range(1, 8))
OURS = "Ours"
MEAN = "mean"

Key = tuple[str, str, str]  # (method, row, metric)
Values = Mapping[Key, float | None]  # percent; None: not known


@dataclass(frozen=True)
class ReportedValue:
    """One number of a table.

    `text` is the paper's text ("-" for a dash). `value` is the number to use: None if there is none, and the corrected
    reading if an erratum has one (Table 2's own column is shifted).
    """

    table: str
    method: str
    row: str
    metric: str
    text: str
    value: float | None


@dataclass(frozen=True)
class Marks:
    """A table whose rows are named by check marks: the marked columns of each row."""

    columns: tuple[str, ...]
    rows: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Labels:
    """The paper's spelling of identifiers, the MVTec groups of categories, and Tables 5-7's check marks."""

    rows: Mapping[str, str]
    metrics: Mapping[str, str]
    groups: Mapping[str, tuple[str, ...]]
    marks: Mapping[str, Marks]


@dataclass(frozen=True)
class Erratum:
    """Something wrong or unclear in the paper; the fields are explained at the head of errata.yaml."""

    id: str
    table: str | None
    where: str
    reported: str
    wrong: str
    reading: str
    certainty: str
    column: tuple[str, str] | None = None
    explained: str | None = None
    corrected: Mapping[str, float | None] = field(default_factory=dict)
    admissible: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@cache
def reported_values(table: str) -> tuple[ReportedValue, ...]:
    """Every cell of `table` in reading order, line by line. Raises MaskrdError for an unknown table."""
    if table not in TABLES:
        raise MaskrdError(f"{table}: the paper has no such table. Its tables are {', '.join(TABLES)}.")
    corrections = {
        (*erratum.column, row): value
        for erratum in errata(table)
        if erratum.column
        for row, value in erratum.corrected.items()
    }
    lines = csv.DictReader(_data(f"{table}.csv").splitlines())
    return tuple(_cell(line, corrections) for line in lines)


def _cell(line: Mapping[str, str], corrections: Mapping[Key, float | None]) -> ReportedValue:
    method, row, metric, text = line["method"], line["row"], line["metric"], line["value"]
    value = corrections.get((method, metric, row), number(text))
    return ReportedValue(line["table"], method, row, metric, text, value)


def number(text: str) -> float | None:
    """The reported number, None for a dash or a stray word."""
    return float(text) if text[0].isdigit() else None


def round_as_reported(value: float, decimals: int = 1) -> Decimal:
    """Rounded as in the paper, halves up: binary rounding would turn a mean of 99.55 into 99.5."""
    return Decimal(str(value)).quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP)


def values(table: str) -> dict[Key, float | None]:
    """The numbers of `table` by (method, row, metric)."""
    return {(cell.method, cell.row, cell.metric): cell.value for cell in reported_values(table)}


@cache
def text_values() -> dict[Key, float | None]:
    """The numbers of sentences (text.csv) by (OURS, row, metric); a row is a variant."""
    lines = csv.DictReader(_data("text.csv").splitlines())
    return {(OURS, line["row"], line["metric"]): float(line["value"]) for line in lines}


def value(table: str, method: str, row: str, metric: str) -> float | None:
    """One number of `table`, None where the paper has a dash. Raises MaskrdError if there is no such cell."""
    try:
        return values(table)[method, row, metric]
    except KeyError:
        raise MaskrdError(f"The paper's {table} has no cell ({method}, {row}, {metric}).") from None


def methods(table: str) -> tuple[str, ...]:
    return _unique(cell.method for cell in reported_values(table))


def rows(table: str) -> tuple[str, ...]:
    """The rows of `table` from top to bottom, `mean` included."""
    return _unique(cell.row for cell in reported_values(table))


def metrics(table: str) -> tuple[str, ...]:
    return _unique(cell.metric for cell in reported_values(table))


@cache
def labels() -> Labels:
    content = yaml.safe_load(_data("labels.yaml"))
    return Labels(
        rows=content["rows"],
        metrics=content["metrics"],
        groups={name: tuple(members) for name, members in content["groups"].items()},
        marks={
            table: Marks(tuple(m["columns"]), {row: tuple(marked) for row, marked in m["rows"].items()})
            for table, m in content["marks"].items()
        },
    )


def errata(table: str | None = None) -> tuple[Erratum, ...]:
    """The errata of `table`, or all of them, those about no table included."""
    return tuple(erratum for erratum in _all_errata() if table in (None, erratum.table))


@cache
def _all_errata() -> tuple[Erratum, ...]:
    entries = yaml.safe_load(_data("errata.yaml"))
    return tuple(
        Erratum(**entry | {"column": tuple(entry["column"]) if "column" in entry else None}) for entry in entries
    )


def _data(name: str) -> str:
    return (files("maskrd.paper") / name).read_text(encoding="utf-8")


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
