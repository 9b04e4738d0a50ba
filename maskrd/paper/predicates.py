"""Building blocks of the paper's claims: ranks, counts, levels reached and leads in a table of numbers.

Each function returns a check of a table's numbers. Numbers are compared at the tables' precision, 0.1 percentage
points, so equal reported numbers are a tie.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import pstdev

from maskrd.paper.tables import MEAN, OURS, Values, round_as_reported


@dataclass(frozen=True)
class Outcome:
    """`verdict` is None if the numbers neither refute the claim nor suffice to confirm it."""

    verdict: bool | None
    detail: str


Check = Callable[[Values], Outcome]
Line = tuple[str, str]  # (method, row)


def _get(numbers: Values, method: str, row: str, metric: str) -> float | None:
    found = numbers.get((method, row, metric))
    return None if found is None else float(round_as_reported(found))


def _judge(holds: str, failures: Sequence[str], missing: Sequence[str]) -> Outcome:
    """The outcome of a statement about several cells. One failure refutes it, even if other cells are missing."""
    if failures:
        return Outcome(False, "; ".join(failures))
    if missing:
        return Outcome(None, f"not known: {', '.join(dict.fromkeys(missing))}")
    return Outcome(True, holds)


def _rank(numbers: Values, row: str, metric: str) -> int | None:
    """1 + the number of methods strictly better than ours; None without ours or without any other."""
    ours = _get(numbers, OURS, row, metric)
    competitors = {method for method, _, _ in numbers} - {OURS}
    others = [other for m in competitors if (other := _get(numbers, m, row, metric)) is not None]
    return None if ours is None or not others else 1 + sum(other > ours for other in others)


def ranks_at_most(worst: int, among: Sequence[str], metric: str) -> Check:
    """In each of the rows `among`, at most `worst` - 1 methods are strictly better than ours."""

    def check(numbers: Values) -> Outcome:
        ranks = {row: _rank(numbers, row, metric) for row in among}
        known = {row: rank for row, rank in ranks.items() if rank is not None}
        first = f"first in {sum(rank == 1 for rank in known.values())} of {len(known)}"
        worse = [f"{row} {_ordinal(rank)}" for row, rank in known.items() if rank > worst]
        failures = [f"{', '.join(worse)} ({first})"] if worse else []
        return _judge(first, failures, [row for row in ranks if row not in known])

    return check


def _ordinal(rank: int) -> str:
    return f"{rank}{dict(enumerate(('st', 'nd', 'rd'), start=1)).get(rank, 'th')}"


def count_above(threshold: float, count: int, among: Sequence[str], metric: str) -> Check:
    """At least `count` of our values in the rows `among` exceed `threshold`."""

    def check(numbers: Values) -> Outcome:
        ours = {row: _get(numbers, OURS, row, metric) for row in among}
        known = {row: v for row, v in ours.items() if v is not None}
        not_above = [f"{row} {v}" for row, v in known.items() if v <= threshold]
        above = len(known) - len(not_above)
        detail = f"{above} of {len(known)} above {threshold}; not {', '.join(not_above) or 'a single one'}"
        if above >= count:
            return Outcome(True, detail)
        unknown = len(among) - len(known)
        return Outcome(None if above + unknown >= count else False, detail)

    return check


def reaches(targets: Mapping[str, float], line: Line = (OURS, MEAN)) -> Check:
    """A line, by default the mean of ours, is at least the target of each metric."""

    def check(numbers: Values) -> Outcome:
        means = {metric: _get(numbers, *line, metric) for metric in targets}
        known = {metric: v for metric, v in means.items() if v is not None}
        failures = [f"{metric} {v} < {targets[metric]}" for metric, v in known.items() if v < targets[metric]]
        missing = [metric for metric in means if metric not in known]
        return _judge(", ".join(f"{metric} {v}" for metric, v in known.items()), failures, missing)

    return check


def ahead(pairs: Sequence[tuple[Line, Line]], points: Mapping[str, float]) -> Check:
    """In every pair the first line exceeds the second by at least `points` of each metric."""

    def check(numbers: Values) -> Outcome:
        leads: dict[str, list[float]] = {metric: [] for metric in points}
        failures, missing = [], []
        for metric, (better, worse) in product(points, pairs):
            high, low = _get(numbers, *better, metric), _get(numbers, *worse, metric)
            if high is None or low is None:
                missing.append(f"{metric} of {' '.join(better if high is None else worse)}")
                continue
            lead = round(high - low, 1)
            leads[metric].append(lead)
            if lead < points[metric]:
                names = _distinct(better, worse), _distinct(worse, better)
                failures.append(f"{metric}: {names[0]} {high}, {names[1]} {low} ({lead:+})")
        smallest = ", ".join(f"{metric} {min(of_metric):+}" for metric, of_metric in leads.items() if of_metric)
        return _judge(f"lead {smallest}", failures, missing)

    return check


def steadier(than: str, among: Sequence[str], metric: str) -> Check:
    """Over the rows `among` our standard deviation is smaller than that of the method `than`."""

    def check(numbers: Values) -> Outcome:
        columns = {method: [_get(numbers, method, row, metric) for row in among] for method in (OURS, than)}
        pairs = [(method, row) for method in columns for row in among]
        missing = [" ".join(pair) for pair in pairs if _get(numbers, *pair, metric) is None]
        if missing:
            return _judge("", [], missing)
        ours, other = (pstdev(column) for column in columns.values())
        detail = f"standard deviation {ours:.1f}, {than} {other:.1f}; lowest {min(columns[OURS])}, {min(columns[than])}"
        return Outcome(ours < other, detail)

    return check


def fewer(line: Line, than: Line, metric: str) -> Check:
    """A line has less of a quantity than another one."""

    def check(numbers: Values) -> Outcome:
        own, other = _get(numbers, *line, metric), _get(numbers, *than, metric)
        if own is None or other is None:
            return Outcome(None, f"not known: {metric} of {' '.join(line if own is None else than)}")
        return Outcome(own < other, f"{metric}: {line[1]} {own}, {than[1]} {other}")

    return check


def times(line: Line, base: Line, factor: float, metric: str) -> Check:
    """A line has at least `factor` times the base's quantity."""

    def check(numbers: Values) -> Outcome:
        own, other = _get(numbers, *line, metric), _get(numbers, *base, metric)
        if own is None or other is None:
            return Outcome(None, f"not known: {metric} of {' '.join(line if own is None else base)}")
        return Outcome(own >= factor * other, f"{metric}: {own} and {other}, {own / other:.1f} times")

    return check


def _distinct(line: Line, other: Line) -> str:
    return " ".join(name for name, others in zip(line, other, strict=True) if name != others)
