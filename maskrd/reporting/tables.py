"""Tables of the paper and the user's own, as CSV, LaTeX and HTML, from the metrics.json files of their models."""

from pathlib import Path

import pandas as pd

from maskrd.config.view import View
from maskrd.files import atomic_path, write_text
from maskrd.reporting.captions import table_caption, table_notes
from maskrd.reporting.collect import read_metrics, read_speed
from maskrd.reporting.grid import Column, Grid, build_grid
from maskrd.reporting.html import render_table
from maskrd.reporting.latex import render


def write_table(view: View, models: Path, csv: Path, tex: Path, html: Path, speed: Path | None = None) -> None:
    """Write the table `view` from {models}/{model.path}/metrics.json.

    Values are percentages with one decimal; several seeds give mean ± standard deviation. A model without metrics.json
    is a dash. In LaTeX and HTML the best is bold and the second underlined (`build_grid` ranks them). `speed` is the
    file of `maskrd speed`, for a table of costs. Raises MaskrdError for a file that can't be read.
    """
    metrics = read_metrics(view, models)
    measured = read_speed(speed) if speed else None
    grid = build_grid(view, metrics, measured and measured.frames_per_second)
    with atomic_path(csv) as temporary:
        csv_frame(grid).to_csv(temporary, encoding="utf-8", index=False)
    texts = table_caption(view, grid, metrics, measured), table_notes(view, grid, metrics)
    write_text(tex, render(grid, view.name, *texts))
    write_text(html, render_table(grid, view.name, *texts))


def csv_frame(grid: Grid) -> pd.DataFrame:
    """The table as text: names of rows, check marks ("x" or empty), then a column for each method and metric."""
    frame = {grid.kind: [row.name for row in grid.rows]}
    for mark in grid.mark_columns:
        frame[mark] = ["x" if mark in row.marked else "" for row in grid.rows]
    for column, cells in zip(grid.columns, zip(*grid.cells, strict=True), strict=True):
        frame[csv_heading(grid, column)] = [cell.text() for cell in cells]
    return pd.DataFrame(frame)


def csv_heading(grid: Grid, column: Column) -> str:
    """`RD`, or `RD aupro` if there are several metrics. For rows of variants or backbones: `aupro reported`."""
    if grid.kind != "category":
        return f"{column.metric} {column.heading}"
    several = len({column.metric for column in grid.columns}) > 1
    return f"{column.heading} {column.metric}" if several else column.heading
