"""Do the means that the paper reports (Tables 1-3) follow from the entries above them?"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from decimal import Decimal
from pathlib import Path

from maskrd.files import write_csv
from maskrd.paper.tables import MEAN, errata, methods, metrics, number, reported_values

AUDITED = ("table1", "table2", "table3")


@dataclass(frozen=True)
class AuditRow:
    """One reported mean. Percent and percentage points; `recomputed` and `difference` to 0.01.

    `difference` is recomputed - reported; both are None for a column without entries. `explained` is
    - consistent: the recomputed mean rounds to the reported one;
    - truncated: it gives the reported one when cut off (rounding of the entries could do the same);
    - rounding: the difference is no larger than rounding of the entries and of the mean allows;
    - the erratum's explanation in words;
    - unexplained.
    """

    table: str
    method: str
    metric: str
    recomputed: Decimal | None
    reported: Decimal
    difference: Decimal | None
    explained: str

    @property
    def departs(self) -> bool:
        """The reported mean is not that of the reported entries, in a column whose entries are where they belong."""
        corrected = {erratum.column for erratum in errata(self.table) if erratum.corrected}
        differs = bool(self.difference) and self.explained != "consistent"
        return differs and (self.method, self.metric) not in corrected


def rows() -> list[AuditRow]:
    """Every reported mean of Tables 1-3, checked against the entries as reported."""
    return [
        _audit(table, method, metric, columns[method, metric])
        for table in AUDITED
        for columns in [_columns(table)]
        for metric in metrics(table)
        for method in methods(table)
        if MEAN in columns[method, metric]
    ]


def write_audit(path: Path) -> None:
    """Write `rows()` as CSV; a value that could not be computed is an empty cell."""
    write_csv(path, (field.name for field in fields(AuditRow)), map(astuple, rows()))


def _columns(table: str) -> dict[tuple[str, str], dict[str, Decimal]]:
    """The numbers as reported: (method, metric) -> row -> number. Decimal keeps the reported digits."""
    columns: dict[tuple[str, str], dict[str, Decimal]] = {}
    for cell in reported_values(table):
        column = columns.setdefault((cell.method, cell.metric), {})
        if number(cell.text) is not None:
            column[cell.row] = Decimal(cell.text)
    return columns


def _audit(table: str, method: str, metric: str, column: dict[str, Decimal]) -> AuditRow:
    mean = column[MEAN]
    entries = [value for row, value in column.items() if row != MEAN]
    if not entries:
        return AuditRow(table, method, metric, None, mean, None, "no entries reported")
    recomputed = sum(entries, Decimal(0)) / len(entries)
    explained = _arithmetic(entries, mean, recomputed) or _in_words(table, method, metric) or "unexplained"
    cent = Decimal("0.01")
    difference = recomputed - mean
    return AuditRow(table, method, metric, recomputed.quantize(cent), mean, difference.quantize(cent), explained)


def _arithmetic(entries: Sequence[Decimal], mean: Decimal, recomputed: Decimal) -> str | None:
    entry_unit = min(_unit(entry) for entry in entries)
    # The paper drops trailing zeros: a mean of "84" below entries with a decimal place means 84.0.
    mean_unit = min(entry_unit, _unit(mean))
    difference = recomputed - mean
    if abs(difference) <= mean_unit / 2:
        return "consistent"
    if 0 <= difference < mean_unit:
        return "truncated"
    if abs(difference) <= (entry_unit + mean_unit) / 2:
        return "rounding"
    return None


def _unit(value: Decimal) -> Decimal:
    """The last reported place: 1 for "63", 0.1 for "63.5"."""
    return Decimal(1).scaleb(value.as_tuple().exponent)


def _in_words(table: str, method: str, metric: str) -> str | None:
    explanations = (e.explained for e in errata(table) if e.column == (method, metric))
    return next((text for text in explanations if text), None)
