"""Charts as inline SVG. They need no other file, fit a phone and paper, and are drawn in a millisecond."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from maskrd.reporting.html import render_macro

# Distinguishable with any colour vision (Okabe and Ito).
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5b6573")
WIDTH, HEIGHT = 360, 240
LEFT, BOTTOM, TOP, RIGHT = 46, 38, 10, 12
CHARACTER = 7.2  # width of a letter of a label, in the chart's units
BINS = 32


@dataclass(frozen=True)
class Scale:
    """Numbers from `low` to `high` onto a chart from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return round(self.start + (self.end - self.start) * (value - low) / ((high - low) or 1), 1)

    def ticks(self, count: int = 5) -> list[tuple[float, str]]:
        """Place and text of round numbers within the range; of a logarithmic one 1, 2 and 5 where it has enough."""
        shown = self._decades(count) if self.log else []
        if len(shown) < 2:
            rough = (self.high - self.low) / count
            power = 10.0 ** math.floor(math.log10(rough))
            step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
            shown = [k * step for k in range(math.ceil(self.low / step), math.floor(self.high / step + 1e-9) + 1)]
        return [(self(number), f"{number:.6g}") for number in shown]

    def _decades(self, count: int) -> list[float]:
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        numbers = [m * 10.0**power for power in range(first, last + 1) for m in (1, 2, 5)]
        shown = [number for number in numbers if self.low <= number <= self.high]
        return shown[:: max(1, math.ceil(len(shown) / count))]


def line_chart(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x_label: str,
    y_label: str,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    log: bool = False,
) -> Markup:
    """A line for each name; `log`: the y axis. Ranges are by default those of the numbers."""
    x_low, x_high = x_range or _range([x for xs, _ in series.values() for x in xs])
    y_low, y_high = y_range or _range([y for _, ys in series.values() for y in ys])
    x = Scale(x_low, x_high, LEFT, WIDTH - RIGHT)
    y = Scale(y_low, y_high, HEIGHT - BOTTOM, TOP, log and y_low > 0)
    lines = [
        (name, PALETTE[place % len(PALETTE)], " ".join(f"{x(a)},{y(b)}" for a, b in zip(xs, ys, strict=True)))
        for place, (name, (xs, ys)) in enumerate(series.items())
    ]
    return render_macro("line_chart", lines=lines, x=x, y=y, x_label=x_label, y_label=y_label, height=HEIGHT)


def histograms(groups: Mapping[str, Sequence[float]], label: str) -> Markup:
    """A row of bars for each name, all on one axis; each row is as high as its fullest bin."""
    low, high = _range([value for values in groups.values() for value in values])
    left = LEFT + CHARACTER * max(len(name) for name in groups)
    x = Scale(low, high, left, WIDTH * 2 - RIGHT)
    edges = np.linspace(low, high, BINS + 1)
    rows = []
    for name, values in groups.items():
        counts = np.histogram(values, edges)[0]
        counted = zip(edges.tolist(), counts.tolist(), strict=False)  # the last edge starts no bar
        rows.append((name, len(values), [(x(edge), count / counts.max(), count) for edge, count in counted if count]))
    return render_macro("histograms", rows=rows, x=x, step=round((x.end - x.start) / BINS, 2), label=label)


@dataclass(frozen=True)
class IntervalRow:
    """A difference with its interval (None: a single one) and the differences that it is the mean of."""

    name: str
    mean: float
    low: float | None
    high: float | None
    points: Sequence[float]


def interval_chart(title: str, rows: Sequence[IntervalRow]) -> Markup:
    """A row for each difference: interval, mean as a diamond, single differences as dots; a line at 0."""
    numbers = [v for row in rows for v in (row.mean, row.low, row.high, *row.points) if v is not None]
    low, high = _range([*numbers, 0.0])
    left = 12 + CHARACTER * max(len(row.name) for row in rows)
    x = Scale(low, high, left, WIDTH * 1.6 - RIGHT)
    return render_macro("interval_chart", title=title, rows=rows, x=x)


def stacked_bars(rows: Sequence[tuple[str, Mapping[str, int]]], colors: Mapping[str, str]) -> Markup:
    """A bar for each name, divided by count, with a legend of the kinds that occur."""
    left = 12 + CHARACTER * max(len(name) for name, _ in rows)
    bars = []
    for name, counts in rows:
        total, start, parts = sum(counts.values()), 0, []
        x = Scale(0, total, left, WIDTH * 2 - RIGHT)
        for kind in colors:
            count = counts.get(kind, 0)
            if count:
                parts.append((kind, count, x(start), round(x(start + count) - x(start), 1)))
            start += count
        bars.append((name, parts))
    present = [kind for kind in colors if any(counts.get(kind) for _, counts in rows)]
    return render_macro("stacked_bars", bars=bars, colors=colors, present=present, width=WIDTH * 2)


def scatter(groups: Mapping[str, Sequence[tuple[float, float]]], x_label: str, y_label: str) -> Markup:
    """A dot for each pair, coloured by group."""
    pairs = [pair for found in groups.values() for pair in found]
    x = Scale(*_range([a for a, _ in pairs]), LEFT, WIDTH - RIGHT)
    y = Scale(*_range([b for _, b in pairs]), HEIGHT - BOTTOM, TOP)
    dots = [
        (name, PALETTE[place % len(PALETTE)], [(x(a), y(b)) for a, b in found])
        for place, (name, found) in enumerate(groups.items())
    ]
    return render_macro("scatter", dots=dots, x=x, y=y, x_label=x_label, y_label=y_label, height=HEIGHT)


def _range(values: Sequence[float]) -> tuple[float, float]:
    """The ends of the numbers, never equal."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)
