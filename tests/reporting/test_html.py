"""HTML shows what CSV and LaTeX show, escapes what it is given, and needs no other file."""

import re
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from maskrd.errors import MaskrdError
from maskrd.experiment import Model
from maskrd.paper.claims import evaluate_claims
from maskrd.reporting.captions import GENERATED
from maskrd.reporting.claims_page import write_claims_page
from maskrd.reporting.curves import draw, write_curves
from maskrd.reporting.html import render_markdown, render_records, render_table, write_report
from maskrd.reporting.layout import Cell, Column, Layout, Row
from maskrd.reporting.naming import report_name
from maskrd.reporting.runs import Run
from maskrd.reporting.runs_page import duration, write_runtime, write_summary

LINES = Layout(
    kind="variant",
    rows=(Row("no FMM", marked=("Baseline",)), Row("Ours", marked=("Baseline", "FMM"))),
    shown=("no_fmm", "maskrd"),
    columns=(Column("reported", "image_auroc", "reported"), Column("reproduced", "image_auroc", "reproduced")),
    cells=((Cell(98.8, rank=2), Cell(97.25, 0.31, rank=1)), (Cell(99.1, rank=1), Cell())),
    mark_columns=("Baseline", "FMM"),
)
CATEGORIES = Layout(
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
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; AUROC<sub>AD</sub>" in page
    assert "a &lt; b &amp; c" in page


def test_numbers_are_aligned_and_texts_are_not():
    page = render_records("T", "C", ["name", "seconds"], [["a 1", "2.5 s"], ["b", "1.2 min"]])
    assert page.count('<td class="number">') == 2
    assert '<th class="number">seconds</th>' in page


def test_markdown_keeps_its_image_and_no_raw_html():
    page = render_markdown("V", "# Top\n\n![plot](data:image/png;base64,AAAA)\n\n|a|\n|-|\n|<b>x</b>|\n")
    assert "<h3>Top</h3>" in page
    assert '<img src="data:image/png;base64,AAAA" alt="plot"' in page
    assert "&lt;b&gt;x&lt;/b&gt;" in page


def test_report_holds_pages_and_images_once(tmp_path):
    (tmp_path / "table5.html").write_text(render_table(LINES, "table5", "A caption.", []), encoding="utf-8")
    Image.new("RGB", (2, 2), "red").save(tmp_path / "figure7.png")
    contents = {"Tables": [tmp_path / "table5.html"], "Figures": [tmp_path / "figure7.png"], "Empty": []}
    write_report(contents, tmp_path / "index.html")
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert page.count("<main>") == page.count("A caption.") == page.count("<style>") == 1
    assert '<section id="table5">' in page
    assert 'alt="Figure 7" src="data:image/png;base64,' in page
    assert "Empty" not in page


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


def run(variant: str, seconds: float, model: str, dataset: str = "mvtec_ad", seed: int = 0) -> Run:
    recipe = {"epochs": 20, "image_size": 128}
    training = {"recipe": recipe, "seconds": seconds, "device": "CPU", "maskrd": "0.1.0", "commit": "abc"}
    evaluation = {"seconds": 4, "model_sha256": model}
    return Run(Model(dataset, "screw", variant, "resnet18", seed), {}, training, evaluation)


def test_a_shared_model_is_trained_once(tmp_path):
    runs = [run("maskrd", 3600, "one"), run("mean_score", 3600, "one"), run("no_fmm", 7200, "two")]
    write_summary(runs, tmp_path / "summary.html")
    summary = (tmp_path / "summary.html").read_text(encoding="utf-8")
    assert "<dd>3, trained for 3.0 h in all</dd>" in summary
    assert "<dd>ResNet18</dd>" in summary
    assert GENERATED not in summary


def test_generated_data_are_called_so(tmp_path):
    write_summary([run("maskrd", 1, "one", dataset="demo")], tmp_path / "summary.html")
    assert GENERATED in (tmp_path / "summary.html").read_text(encoding="utf-8")


def test_runtime_is_told_by_variant(tmp_path):
    runs = [run("maskrd", seconds, str(seed), seed=seed) for seed, seconds in enumerate((60, 120, 600))]
    write_runtime([*runs, run("no_fmm", 30, "x")], tmp_path / "runtime.html")
    rows = cells_of((tmp_path / "runtime.html").read_text(encoding="utf-8"))
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


def test_every_claim_is_on_its_page_with_the_papers_names(tmp_path):
    write_claims_page(evaluate_claims(), tmp_path / "claims.html")
    page = (tmp_path / "claims.html").read_text(encoding="utf-8")
    for result in evaluate_claims():
        assert result.claim.text.replace("'", "&#39;") in page
    assert not re.search(r"image_auroc|aupro|layers_1|metal_nut", page)
    assert page.count("not run") == len({result.claim.id for result in evaluate_claims()})


def history(folder: Path, variant: str, category: str, text: str) -> Path:
    path = folder / f"mvtec_ad/{category}/{variant}/resnet18/seed0/history.csv"
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_curves_have_a_panel_for_each_variant(tmp_path):
    text = "epoch,loss,validation_loss\n1,1,1.5\n2,0.5,0.75\n"
    files = [history(tmp_path, variant, category, text) for variant in ("stpm", "maskrd") for category in ("a", "b")]
    write_curves(files, tmp_path / "curves.png")
    assert Image.open(tmp_path / "curves.png").width > 400
    curve = pd.DataFrame({"loss": [1, 0.5]}, index=[1, 2])
    models = [Model("mvtec_ad", category, "maskrd", "resnet18", 0) for category in ("a", "b")]
    axes = draw(dict.fromkeys(models, curve)).axes
    assert [panel.get_title() for panel in axes] == ["Ours, ResNet18"]
    assert [list(line.get_ydata()) for line in axes[0].lines[:2]] == [[1, 0.5]] * 2


def test_a_damaged_curve_is_named(tmp_path):
    path = history(tmp_path, "maskrd", "a", "")
    with pytest.raises(MaskrdError, match=r"history\.csv: not a training curve"):
        write_curves([path], tmp_path / "curves.png")
