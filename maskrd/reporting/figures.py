"""Figures of anomaly maps, from the galleries of their models."""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from maskrd.colors import COLORMAP, OVERLAY
from maskrd.config.files import GALLERY_FILE
from maskrd.config.view import View
from maskrd.errors import MaskrdError
from maskrd.files import atomic_path
from maskrd.gallery import Gallery, take_turns
from maskrd.reporting.captions import figure_facts
from maskrd.reporting.collect import read_metrics
from maskrd.reporting.naming import row_name, variant_name
from maskrd.reporting.plots import plot_style

TILE = 1.5  # inches
LABEL = 0.4  # inches beside the rows
ROWS = 8  # more rows than this are split into two blocks, if there is one method
DPI = 150
SCALE = "anomaly map, in the range of the method over the category's whole test set"


@dataclass(frozen=True)
class Panel:
    """A row of the figure: one test image, uint8 (S, S, 3), and its mask, bool (S, S), or None without masks.

    `seen` has the image as each variant sees it, and `maps` each variant's anomaly map, scaled to [0, 1]. Variants may
    differ in image size and crop.
    """

    category: str
    defect: str
    image: np.ndarray
    mask: np.ndarray | None
    seen: dict[str, np.ndarray]
    maps: dict[str, np.ndarray]


def write_figure(view: View, models: Path, png: Path, pdf: Path) -> None:
    """Draw a row for each image: the image, its ground truth, and each variant's anomaly map and overlay.

    The images are the first `images_per_category` defective ones, of different defect types if possible. They are read
    from {models}/{model.path}/gallery.npz of the view's first seed. The PNG has 150 dpi.
    Raises MaskrdError for a file that is missing or damaged, and for a category without defective images.
    """
    panels = [panel for category in view.categories for panel in read_panels(view, models, category)]
    with plot_style("white"):
        figure = draw(view, panels, f"{view.caption} {figure_facts(view, read_metrics(view, models))}")
        for path in (png, pdf):
            with atomic_path(path) as temporary:
                # No date, so that equal figures are equal files.
                metadata = {"CreationDate": None} if path == pdf else None
                figure.savefig(temporary, dpi=DPI, bbox_inches="tight", metadata=metadata)


def read_panels(view: View, models: Path, category: str) -> Iterator[Panel]:
    """The images of a category that the figure shows, the same for all variants."""
    paths = {
        model.variant: models / model.path / GALLERY_FILE
        for model in view.models()
        if (model.category, model.seed) == (category, view.seeds[0])
    }
    files = {variant: Gallery.read(path) for variant, path in paths.items()}
    largest = max(files, key=lambda variant: files[variant].images.shape[-1])
    shown = files[largest]
    chosen = take_turns(shown.defects, view.spec.images_per_category)
    if not chosen:
        remedy = f"Add one to {category}, or leave it out of datasets.{view.spec.dataset}.categories."
        raise MaskrdError(f"{paths[largest]}: no defective image to show. {remedy}")
    for variant, file in files.items():
        if not {shown.names[place] for place in chosen} <= set(file.names):
            raise MaskrdError(f"{paths[variant]}: other images than {paths[largest]}. Delete both to make them again.")
    for place in chosen:
        places = {variant: file.names.index(shown.names[place]) for variant, file in files.items()}
        images = {variant: file.images[places[variant]].transpose(1, 2, 0) for variant, file in files.items()}
        # The colours span the range of the whole test set, so that a faint map looks faint.
        maps = {variant: file.maps[places[variant]] / 255 for variant, file in files.items()}
        mask = None if shown.masks is None else shown.masks[place]
        yield Panel(category, shown.defects[place], images[largest], mask, images, maps)


def draw(view: View, panels: Sequence[Panel], caption: str) -> Figure:
    variants = view.spec.variants
    columns = 2 + 2 * len(variants)
    blocks = 2 if len(panels) > ROWS and len(variants) == 1 else 1
    rows = -(-len(panels) // blocks)
    width = blocks * (columns * TILE + LABEL)
    lines = textwrap.wrap(caption, int(width * 14))
    figure = Figure(figsize=(width, rows * TILE + 1.3 + 0.16 * len(lines)), layout="compressed")
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0.0, hspace=0.0)
    figure.suptitle("\n".join(lines) + "\n", fontsize="medium")  # an empty line above the column headings
    grid = figure.subplots(rows, blocks * columns, squeeze=False)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
        sns.despine(ax=axes, left=True, bottom=True)
    for place, panel in enumerate(panels):
        block, row = divmod(place, rows)
        _draw_row(panel, grid[row, block * columns : (block + 1) * columns])
    titles = ["image", "ground truth"]
    for variant in variants:
        titles += [f"{variant_name(variant)}\nanomaly map", f"{variant_name(variant)}\noverlay"]
    for axes, title in zip(grid[0], titles * blocks, strict=True):
        axes.set_title(title)
    bar = figure.colorbar(ScalarMappable(cmap=COLORMAP), ax=grid, location="bottom", shrink=0.5, aspect=50, pad=0.02)
    bar.set_ticks([0, 1], labels=["lowest", "highest"])
    bar.set_label(SCALE)
    return figure


def _draw_row(panel: Panel, line: Sequence[Axes]) -> None:
    line[0].set_ylabel(f"{row_name(panel.category)}\n{panel.defect.replace('_', ' ')}")
    line[0].imshow(panel.image)
    if panel.mask is None:
        line[1].set_box_aspect(1)  # as if there were an image
        line[1].text(0.5, 0.5, "none", ha="center", va="center", transform=line[1].transAxes)
    else:
        line[1].imshow(panel.mask, cmap="gray", vmin=0, vmax=1)
    for (variant, anomaly_map), plain, overlay in zip(panel.maps.items(), line[2::2], line[3::2], strict=True):
        plain.imshow(anomaly_map, cmap=COLORMAP, vmin=0, vmax=1)
        overlay.imshow(panel.seen[variant])
        overlay.imshow(anomaly_map, cmap=COLORMAP, vmin=0, vmax=1, alpha=OVERLAY)
