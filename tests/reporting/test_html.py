"""HTML shows what CSV and LaTeX show, escapes what it is given, and needs no other file."""

import itertools
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from maskrd.config.load import shipped_configuration
from maskrd.config.record import Record
from maskrd.config.settings import Evaluation, Model
from maskrd.errors import MaskrdError
from maskrd.reporting.captions import GENERATED
from maskrd.reporting.curves import draw, write_curves
from maskrd.reporting.grid import Cell, Column, Grid, Row
from maskrd.reporting.html import markdown_html, read_piece, render_records, render_table
from maskrd.reporting.naming import report_name
from maskrd.reporting.runs_page import dataset_facts, duration, runtime_html
from tests.conftest import ROOT, training_settings
from tests.records import make_record

TITLES = {"mvtec_ad": "MVTec AD"}
LINES = Grid(
    kind="variant",
    rows=(Row("no FMM", marked=("Baseline",)), Row("Ours", marked=("Baseline", "FMM"))),
    shown=("no_fmm", "maskrd"),
    columns=(Column("reported", "image_auroc", "reported"), Column("reproduced", "image_auroc", "reproduced")),
    cells=((Cell(98.8, rank=2), Cell(97.25, 0.31, rank=1)), (Cell(99.1, rank=1), Cell())),
    mark_columns=("Baseline", "FMM"),
)
CATEGORIES = Grid(
    kind="category",
    rows=(Row("Tile", "Textures"), Row("Wood", "Textures"), Row("Screw", "Objects"), Row("Mean", is_mean=True)),
    shown=("tile", "wood", "screw"),
    columns=(
        Column("Ours (reported)", "pixel_auroc", "reported"),
        Column("Ours (reported)", "aupro", "reported"),
        Column("Ours (reproduced)", "pixel_auroc", "reproduced"),
        Column("Ours (reproduced)", "aupro", "reproduced"),
    ),
    cells=((Cell(99.0, rank=1), Cell(98.0, rank=2), Cell(97.0, rank=2), Cell()),) * 4,
)


def cells_of(page: str) -> list[list[str]]:
    """The rows of the table's body, tags of cells removed."""
    body = page[page.index("<tbody>") :]
    return [
        [content.strip() for content in re.findall(r"<(?:th|td)[^>]*>(.*?)</(?:th|td)>", row, re.DOTALL)]
        for row in re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL)
    ]


def test_variants_have_marks_and_ranks():
    page = render_table(LINES, "table5", "FMM.", [])
    assert cells_of(page) == [
        ["no FMM", "✓", "", "<u>98.8</u>", "<b>97.3 ± 0.3</b>"],
        ["Ours", "✓", "✓", "<b>99.1</b>", "–"],
    ]
    assert '<th class="group" colspan="2">AUROC<sub>AD</sub></th>' in page
    assert page.count("reproduced</th>") == 1
    assert "<h3>Table 5</h3>" in page


def test_categories_stand_in_blocks_with_metrics_in_one_cell():
    page = render_table(CATEGORIES, "table3", "Localization.", [])
    rows = cells_of(page)
    assert rows[0] == ["Textures", "Tile", "<b>99.0</b>/<u>98.0</u>", "<u>97.0</u>/–"]
    assert rows[1][0] == "Wood"  # the block spans both
    assert rows[2][:2] == ["Objects", "Screw"]
    assert rows[3][:2] == ["", "Mean"]
    assert '<th class="block" rowspan="2">Textures</th>' in page
    assert re.search(r"<th[^>]*>Ours<small>\(reproduced\)</small></th>", page)


def test_captions_and_notes_are_text():
    page = render_table(LINES, "table5", "<script>alert(1)</script> & AUROC_AD", ["a < b & c"])
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; AUROC<sub>AD</sub>" in page
    assert "a &lt; b &amp; c" in page


def test_numbers_are_aligned_and_texts_are_not():
    page = render_records("T", "C", ["name", "seconds"], [["a 1", "2.5 s"], ["b", "1.2 min"]])
    assert page.count('<td class="number">') == 2
    assert '<th class="number">seconds</th>' in page


def test_markdown_keeps_its_image_and_no_raw_html():
    page = markdown_html("# Top\n\n![plot](data:image/png;base64,AAAA)\n\n|a|\n|-|\n|<b>x</b>|\n")
    assert "<h3>Top</h3>" in page
    assert '<img src="data:image/png;base64,AAAA" alt="plot"' in page
    assert "&lt;b&gt;x&lt;/b&gt;" in page


def test_a_piece_is_what_a_page_holds(tmp_path):
    (tmp_path / "table5.html").write_text(render_table(LINES, "table5", "A caption.", []), encoding="utf-8")
    Image.new("RGB", (2, 2), "red").save(tmp_path / "figure7.png")
    table, figure = (read_piece(tmp_path / name) for name in ("table5.html", "figure7.png"))
    assert (table.name, table.title, figure.title) == ("table5", "Table 5", "Figure 7")
    assert table.content.count("A caption.") == 1
    assert "<style>" not in table.content
    assert 'alt="Figure 7" src="data:image/png;base64,' in figure.content


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("table5", "Table 5"),
        ("figure7", "Figure 7"),
        ("ablation_scsatt", "Ablation SCSAtt"),
        ("mask_ratio", "Mask ratio"),
    ],
)
def test_names_of_reports(name, shown):
    assert report_name(name) == shown


def record(variant: str, seconds: float, weights: str, dataset: str = "mvtec_ad", seed: int = 0) -> dict[Model, Record]:
    """One model and its record."""
    config = shipped_configuration(ROOT.joinpath)
    training = training_settings(config["train"] | {"epochs": 20, "image_size": 128})
    model = Model(dataset, "screw", variant, "resnet18", seed)
    facts = {"seconds": seconds}, {"model_sha256": weights}
    return {model: make_record(model, {}, training, Evaluation(**config["evaluation"]), *facts)}


def test_a_shared_model_is_trained_once():
    records = record("maskrd", 3600, "one") | record("mean_score", 3600, "one") | record("no_fmm", 7200, "two")
    ((title, warning, facts),) = dataset_facts(records, TITLES)
    assert (title, warning, facts["backbones"]) == ("MVTec AD", "", "ResNet18")
    assert facts["models"] == "3, trained for 3.0 h in all"


def test_generated_data_are_called_so():
    ((_, warning, _),) = dataset_facts(record("maskrd", 1, "one", dataset="demo"), TITLES)
    assert warning == GENERATED


def test_runtime_is_told_by_variant():
    records = record("no_fmm", 30, "x")
    for seed, seconds in enumerate((60, 120, 600)):
        records |= record("maskrd", seconds, str(seed), seed=seed)
    rows = cells_of(runtime_html(records, TITLES))
    assert rows == [
        ["MVTec AD", "Ours", "ResNet18", "3", "20", "128", "13.0 min", "2.0 min", "4.0 s", "CPU"],
        ["MVTec AD", "no FMM", "ResNet18", "1", "20", "128", "30.0 s", "30.0 s", "4.0 s", "CPU"],
    ]


def test_durations():
    assert [duration(seconds) for seconds in (3.96, 119, 120, 7199, 7200)] == [
        "4.0 s",
        "119.0 s",
        "2.0 min",
        "120.0 min",
        "2.0 h",
    ]


def history(folder: Path, variant: str, category: str, text: str) -> Path:
    path = folder / f"mvtec_ad/{category}/{variant}/resnet18/seed0/history.csv"
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("last", [0.5, 0.02, 0.0001])
def test_the_labels_of_curves_do_not_overlap(last):
    names = ("simam_only", "scconv_only", "maskrd", "rd")
    curve = pd.DataFrame({"epoch": range(1, 21), "loss": np.geomspace(4, last, 20)})
    figure = draw({Model("mvtec_ad", "bottle", name, "wide_resnet50_2", 0): curve for name in names}, "MVTec AD")
    figure.draw_without_rendering()
    for axes in figure.axes[: len(names)]:
        low, high = axes.get_ylim()
        boxes = [
            tick.label1.get_window_extent() for tick in axes.yaxis.get_major_ticks() if low <= tick.get_loc() <= high
        ]
        assert len(boxes) >= 1
        assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    titles = [axes.title.get_window_extent() for axes in figure.axes[: len(names)]]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(titles, 2))


def test_curves_have_a_panel_for_each_variant(tmp_path):
    text = "epoch,loss,validation_loss\n1,1,1.5\n2,0.5,0.75\n"
    files = [history(tmp_path, variant, category, text) for variant in ("stpm", "maskrd") for category in ("a", "b")]
    write_curves(files, "MVTec AD", tmp_path / "curves.png")
    assert Image.open(tmp_path / "curves.png").width > 400
    curve = pd.DataFrame({"epoch": [1, 2], "loss": [1, 0.5]})
    models = [Model("mvtec_ad", category, "maskrd", "resnet18", 0) for category in ("a", "b")]
    axes = draw(dict.fromkeys(models, curve), "MVTec AD").axes
    assert [panel.get_title() for panel in axes] == ["Ours\nResNet18"]
    assert [list(line.get_ydata()) for line in axes[0].lines[:2]] == [[1, 0.5]] * 2


def test_a_method_without_a_loss_has_no_panel(tmp_path):
    """Nor does a plot of nothing else fail."""
    empty = history(tmp_path, "padim", "a", "epoch,loss\n")
    write_curves([empty], "MVTec AD", tmp_path / "empty.png")
    curve = pd.DataFrame({"epoch": [1, 2], "loss": [1, 0.5]})
    models = {
        Model("mvtec_ad", "a", variant, "resnet18", 0): part for variant, part in (("padim", curve[:0]), ("rd", curve))
    }
    assert [panel.get_title() for panel in draw(models, "MVTec AD").axes if panel.axison] == ["RD\nResNet18"]


def test_a_damaged_curve_is_named(tmp_path):
    path = history(tmp_path, "maskrd", "a", "")
    with pytest.raises(MaskrdError, match=r"history\.csv: not a training curve"):
        write_curves([path], "MVTec AD", tmp_path / "curves.png")
