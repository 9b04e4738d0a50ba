"""Figures of anomaly maps, from the heatmaps.npz files of their models."""

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from maskrd.colors import COLORMAP, OVERLAY, scaled
from maskrd.errors import MaskrdError
from maskrd.experiment import Report
from maskrd.files import atomic_path
from maskrd.reporting.captions import figure_facts
from maskrd.reporting.naming import row_name, variant_name

TILE = 1.5  # inches
LABEL = 0.4  # inches beside the rows
ROWS = 8  # more rows than this stand in two blocks, if there is one method
DPI = 150
SCALE = "anomaly map, in the range of the method over the category's whole test set"


@dataclass(frozen=True)
class Panel:
    """One image (S, S, 3) uint8, its mask (S, S) bool or None, and for each variant the image as seen and its map.

    Sizes and crops may differ from variant to variant. Maps are scaled to 0 .. 1.
    """

    category: str
    defect: str
    image: np.ndarray
    mask: np.ndarray | None
    seen: dict[str, np.ndarray]
    maps: dict[str, np.ndarray]


def write_figure(report: Report, models: Path, png: Path, pdf: Path) -> None:
    """Draw image, ground truth, and for each variant anomaly map and overlay, a row for each image.

    Shows the first `images_per_category` defective images, of as many defect types as there are, from
    {models}/{model.path}/heatmaps.npz of the report's first seed. The PNG has 150 dpi.
    Raises MaskrdError for a file that is missing, damaged or without defective images.
    """
    panels = [panel for category in report.categories for panel in read_panels(report, Path(models), category)]
    with sns.axes_style("white"), sns.plotting_context("paper"):
        figure = draw(report, panels)
        for path in (png, pdf):
            with atomic_path(path) as temporary:
                # Without a date equal figures are equal files.
                metadata = {"CreationDate": None} if path == pdf else None
                figure.savefig(temporary, dpi=DPI, bbox_inches="tight", metadata=metadata)


def read_panels(report: Report, models: Path, category: str) -> Iterator[Panel]:
    """The images of a category that the figure shows, the same for all variants."""
    paths = {
        model.variant: models / model.path / "heatmaps.npz"
        for model in report.models()
        if (model.category, model.seed) == (category, report.seeds[0])
    }
    files = {variant: _read(path) for variant, path in paths.items()}
    largest = max(files, key=lambda variant: files[variant]["images"].shape[-1])
    shown = files[largest]
    chosen = choose(shown["defects"].tolist(), report.spec.images_per_category)
    if not chosen:
        remedy = f"Add one to {category}, or leave it out of datasets.{report.spec.dataset}.categories."
        raise MaskrdError(f"{paths[largest]}: no defective image to show. {remedy}")
    for variant, file in files.items():
        if not np.array_equal(file["names"], shown["names"]):
            raise MaskrdError(f"{paths[variant]}: other images than {paths[largest]}. Delete both to make them anew.")
    for place in chosen:
        images = {variant: file["images"][place].transpose(1, 2, 0) for variant, file in files.items()}
        maps = {variant: _scale(file, place) for variant, file in files.items()}
        mask = shown["masks"][place] if "masks" in shown else None
        yield Panel(category, str(shown["defects"][place]), images[largest], mask, images, maps)


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path) as file:
            wanted = ("images", "maps", "defects", "names", "low", "high")
            return {key: file[key] for key in (*wanted, *(key for key in file if key == "masks"))}
    except FileNotFoundError:
        raise MaskrdError(f"{path}: missing. Ask Snakemake for the figure, which makes it first.") from None
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise MaskrdError(f"{path}: not anomaly maps of this pipeline ({error}). Delete it to make it anew.") from None


def choose(defects: Sequence[str], count: int) -> list[int]:
    """Places of up to `count` defective images: the first of each defect type, then the second of each, ..."""
    seen: Counter[str] = Counter()
    turns = []
    for place, defect in enumerate(defects):
        if defect != "good":
            turns.append((seen[defect], place))
            seen[defect] += 1
    return [place for _, place in sorted(turns)[:count]]


def _scale(file: dict[str, np.ndarray], place: int) -> np.ndarray:
    """A map in the range of the whole test set: a faint map of an easy image must look faint."""
    return scaled(file["maps"][place], float(file["low"]), float(file["high"]))


def draw(report: Report, panels: Sequence[Panel]) -> Figure:
    variants = report.spec.variants
    columns = 2 + 2 * len(variants)
    blocks = 2 if len(panels) > ROWS and len(variants) == 1 else 1
    rows = -(-len(panels) // blocks)
    width = blocks * (columns * TILE + LABEL)
    lines = textwrap.wrap(f"{report.spec.caption.rstrip('. ')}. {figure_facts(report)}", int(width * 14))
    figure = Figure(figsize=(width, rows * TILE + 1.3 + 0.16 * len(lines)), layout="compressed")
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0.0, hspace=0.0)
    figure.suptitle("\n".join(lines), fontsize="medium")
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
