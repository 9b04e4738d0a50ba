"""Training curves: loss against epoch, from the history.csv files of models."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from maskrd.config.settings import Model
from maskrd.files import atomic_path
from maskrd.reporting.naming import backbone_name, row_name, variant_name
from maskrd.reporting.plots import plot_style
from maskrd.reporting.tested import read_history

DPI = 110
PANEL = (2.6, 2.0)  # inches
COLUMNS = 4
NAMED = 16  # more lines than this have no legend
HELD_OUT = "Dashed: loss on held-out normal images, which chooses the checkpoint (STPM: the mean of its map)."


def write_curves(histories: Sequence[Path], dataset: str, png: Path) -> None:
    """Draw a panel for each variant and backbone, with a line for each category and seed.

    `histories` are {results}/models/{model.path}/history.csv of one dataset, whose title is `dataset`. A dashed line is
    the validation loss on held-out images, or the method's replacement for it.
    Raises MaskrdError for a file that can't be read.
    """
    curves = {Model.of_file(path): pd.DataFrame(read_history(path)) for path in histories}
    with plot_style("whitegrid"), atomic_path(png) as temporary:
        draw(curves, dataset).savefig(temporary, dpi=DPI, bbox_inches="tight")


def draw(curves: Mapping[Model, pd.DataFrame], dataset: str) -> Figure:
    panels: dict[str, list[Model]] = {}
    for model, curve in curves.items():
        if curve.empty:  # a method without a loss
            continue
        panels.setdefault(f"{variant_name(model.variant)}\n{backbone_name(model.backbone)}", []).append(model)
    categories = sorted({model.category for model in curves})
    palette = sns.color_palette("deep" if len(categories) <= 10 else "husl", len(categories))
    colors = dict(zip(categories, palette, strict=True))
    columns = max(min(COLUMNS, len(panels)), 1)
    rows = max(math.ceil(len(panels) / columns), 1)
    figure = Figure(figsize=(columns * PANEL[0], rows * PANEL[1] + 0.8), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, (title, models) in zip(grid, panels.items(), strict=False):
        axes.set_title(title, fontsize="medium")
        _draw_panel(axes, {model: curves[model] for model in models}, colors)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    title = f"Training loss against epoch, {dataset}"
    held_out = any("validation_loss" in curve for curve in curves.values())
    figure.suptitle(f"{title}\n{HELD_OUT}" if held_out else title)
    if len(categories) <= NAMED:
        handles = [grid[0].plot([], [], color=colors[category], label=row_name(category))[0] for category in categories]
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 8), frameon=False)
    return figure


def _draw_panel(axes: Axes, curves: Mapping[Model, pd.DataFrame], colors: Mapping[str, tuple]) -> None:
    for model, curve in curves.items():
        for column, style in (("loss", "-"), ("validation_loss", "--")):
            if column in curve:
                # A single epoch is a point instead of a line.
                marker = "." if len(curve) == 1 else None
                axes.plot(curve["epoch"], curve[column], style, marker=marker, color=colors[model.category], lw=1)
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    # More labels would overlap.
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 300 else (1,)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
