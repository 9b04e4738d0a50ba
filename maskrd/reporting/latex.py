"""A table as LaTeX. It needs the packages booktabs, amssymb, graphicx and, for the widest tables, rotating."""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate

import pandas as pd

from maskrd.reporting.grid import Cell, Grid, Row
from maskrd.reporting.naming import metric_name

# Characters that a line of article holds, roughly; wider tables are scaled down to the line.
TEXT_WIDTH = 64
TURNED_WIDTH = 96  # wider tables would be too small to read, and are turned by 90 degrees
PLUS_MINUS = r"$\pm$"
# What pandas leaves, and asks for fonts that small TeX installations lack.
COMMANDS = {"±": PLUS_MINUS, "<": "$<$", ">": "$>$", "|": "$|$"}


def escape(text: str) -> str:
    """Plain text as LaTeX, AUROC_AD with its subscript. pandas has the escaping, but only inside of tables.

    White space becomes single spaces: an empty line would end a caption's paragraph, which LaTeX refuses.
    """
    cell = pd.DataFrame([" ".join(text.split())]).style.hide().hide(axis="columns").format(escape="latex")
    escaped = re.sub(r'"([^"]*)"', r"``\1''", cell.to_string().rstrip("\n"))
    for character, command in COMMANDS.items():
        escaped = escaped.replace(character, command)
    return re.sub(r"\bAUROC\\_(\w+)", r"AUROC\\textsubscript{\1}", escaped)


def render(grid: Grid, name: str, caption: str, notes: Sequence[str]) -> str:
    """A `table` or `sidewaystable` environment labelled `tab:NAME`; `caption` and `notes` are plain text."""
    width = _width(grid)
    environment, place = ("sidewaystable", "p") if width > TURNED_WIDTH else ("table", "t")
    lines = [f"\\begin{{{environment}}}[{place}]", r"\centering"]
    lines += [f"\\caption{{{escape(caption)}}}", f"\\label{{tab:{name}}}", r"\par\smallskip"]
    if width > TURNED_WIDTH:
        lines.append(r"\setlength{\tabcolsep}{3pt}")
    tabular = _tabular(grid)
    lines.append(f"\\resizebox{{\\linewidth}}{{!}}{{%\n{tabular}}}" if width > TEXT_WIDTH else tabular)
    if notes:
        text = "\\par\n".join(escape(note) for note in notes)
        lines.append(f"\\par\\smallskip\\parbox{{\\linewidth}}{{\\footnotesize\n{text}}}")
    return "\n".join([*lines, f"\\end{{{environment}}}", ""])


def _tabular(grid: Grid) -> str:
    grouped = any(row.block for row in grid.rows)
    stub = "c" * len(grid.mark_columns) or "l"
    text = [f"\\begin{{tabular}}{{{'l' * grouped}{stub}{'c' * len(grid.spans)}}}", r"\toprule"]
    text += _header(grid, [""] * grouped)
    for block, members in grid.blocks:
        groups = [escape(block) if block else ""] + [""] * len(members)
        text.append(r"\midrule")
        for (row, cells), group in zip(members, groups, strict=False):
            text.append(_join([group] * grouped + _stub(grid, row) + _texts(grid, cells)))
    return "\n".join([*text, r"\bottomrule", r"\end{tabular}"])


def _header(grid: Grid, first: list[str]) -> list[str]:
    stub = first + [escape(name) for name in grid.mark_columns or (grid.kind.capitalize(),)]
    if grid.kind == "category":
        return [_join(stub + [_heading(grid.columns[span[0]].heading) for span in grid.spans])]
    metrics = [escape(metric_name(metric)) for metric in dict.fromkeys(column.metric for column in grid.columns)]
    if not grid.has_reported:
        return [_join(stub + metrics)]
    widths = Counter(column.metric for column in grid.columns).values()
    ends = [len(stub) + end for end in accumulate(widths)]
    tops = [f"\\multicolumn{{{n}}}{{c}}{{{name}}}" for n, name in zip(widths, metrics, strict=True)]
    return [
        _join([""] * len(stub) + tops),
        " ".join(f"\\cmidrule(lr){{{end - n + 1}-{end}}}" for n, end in zip(widths, ends, strict=True)),
        _join(stub + [column.heading for column in grid.columns]),
    ]


def _heading(method: str) -> str:
    """A heading such as Ours (reported) in two lines, to save width."""
    name, _, source = method.partition(" (")
    return f"\\shortstack{{{escape(name)}\\\\({source}}}" if source else escape(name)


def _stub(grid: Grid, row: Row) -> list[str]:
    """The first cells of a row: its check marks if the paper has them, otherwise its name."""
    return [r"\checkmark" if mark in row.marked else "" for mark in grid.mark_columns] or [escape(row.name)]


def _texts(grid: Grid, cells: Sequence[Cell]) -> list[str]:
    return ["/".join(_cell(cells[place]) for place in span) for span in grid.spans]


def _cell(cell: Cell) -> str:
    text = cell.text(plus_minus=PLUS_MINUS, dash="--")
    return {0: text, 1: f"\\textbf{{{text}}}", 2: f"\\underline{{{text}}}"}[cell.rank]


def _width(grid: Grid) -> int:
    """Characters of the longest row as read, headings included."""
    widths = [
        max(
            max(map(len, grid.columns[span[0]].heading.split())),
            *(sum(len(cells[place].text()) + 1 for place in span) for cells in grid.cells),
        )
        for span in grid.spans
    ]
    stub = [len(mark) for mark in grid.mark_columns] or [
        max(len(row.name) for row in grid.rows),
        max(len(row.block) for row in grid.rows),
    ]
    return sum(width + 2 for width in widths + stub)


def _join(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
