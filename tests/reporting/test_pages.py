"""Pages of models: what they draw, what they say where a file is missing, and where their links lead."""

import re
import shutil
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest

from maskrd.config.experiment import Experiment
from maskrd.config.load import parse_experiment, shipped_configuration
from maskrd.config.settings import Model
from maskrd.errors import MaskrdError
from maskrd.files import write_csv
from maskrd.gallery import Gallery, quantise
from maskrd.reporting.charts import Scale, line_chart, stacked_bars
from maskrd.reporting.compare_page import write_comparison
from maskrd.reporting.model_page import curves, gallery_groups, page_name, render_model
from maskrd.reporting.paired import write_paired
from maskrd.reporting.report import ReportFiles, write_archive, write_report
from maskrd.reporting.tables import write_table
from maskrd.reporting.tested import read_tested
from tests.browser import browse, needs_driver
from tests.conftest import ROOT
from tests.records import make_record, write_record

CONFIG = shipped_configuration(ROOT.joinpath)
NAMES = tuple(f"test/{defect}/{number:03d}.png" for defect in ("cut", "good") for number in range(3))
DEFECTS = ("cut",) * 3 + ("good",) * 3
# Texts of a chart that cover each other or leave its frame.
OVERLAPS = """
const wrong = [];
for (const chart of document.querySelectorAll("svg")) {
  const frame = chart.getBoundingClientRect();
  const boxes = [...chart.querySelectorAll("text")].map((text) => [text.textContent, text.getBoundingClientRect()]);
  boxes.forEach(([one, a], place) => {
    if (a.left < frame.left - 1 || a.right > frame.right + 1 || a.bottom > frame.bottom + 2) wrong.push(one);
    for (const [other, b] of boxes.slice(place + 1))
      if (a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 3 && b.top < a.bottom - 3)
        wrong.push(`${one} on ${other}`);
  });
}
return wrong;
"""
SCORES = np.array([3.0, 1.0, 2.5, 0.5, 2.0, 0.25])


def experiment(seeds=(0,)) -> Experiment:
    datasets = CONFIG["datasets"] | {"mvtec_ad": CONFIG["datasets"]["mvtec_ad"] | {"categories": ["screw", "wood"]}}
    return parse_experiment(CONFIG | {"datasets": datasets, "backbones": ["resnet18"], "seeds": list(seeds)})


def put(models: Path, model: Model, names=NAMES, pictures: bool = True) -> Path:
    """A tested model's folder, with everything or with its record alone."""
    recipe = experiment().recipe(model.dataset, model.variant)
    percent = {"image_auroc": 88.9, "pixel_auroc": 97.25, "aupro": 90.0, "pro_per_image": 91.0}
    path = write_record(models, model, make_record(model, percent, recipe.training, recipe.evaluation))
    if pictures:
        lines = ([name, defect, f"{score}"] for name, defect, score in zip(names, DEFECTS, SCORES, strict=True))
        write_csv(path.with_name("scores.csv"), ["image", "defect", "score"], lines)
        write_csv(path.with_name("history.csv"), ["epoch", "loss"], [["1", "0.5"], ["2", "0.25"]])
        maps = np.zeros((6, 32, 32))
        maps[:3, 8:16, 8:16] = 1
        images = np.full((6, 3, 32, 32), 100, np.uint8)
        pro = np.array([[0, 0.3], [0.5, 1]])
        gallery = Gallery(names, DEFECTS, SCORES, images, quantise(maps, 0, 1), 0, 1, maps > 0, pro)
        gallery.write(path.with_name("gallery.npz"))
    return path.parent


@pytest.fixture
def report(tmp_path) -> Path:
    """Two variants of two categories, and Tables 1 and 5 of them."""
    models = tmp_path / "results/models"
    tables = []
    for variant in ("maskrd", "no_fmm"):
        for category in ("screw", "wood"):
            put(models, Model("mvtec_ad", category, variant, "resnet18", 0))
    for name in ("table1", "table5"):
        path = tmp_path / f"results/tables/{name}.html"
        write_table(experiment().view(name), models, path.with_suffix(".csv"), path.with_suffix(".tex"), path)
        tables.append(path)
    paired = tmp_path / "results/tables/table5_paired.html"
    write_paired(experiment().view("table5"), models, paired.with_suffix(".csv"), paired)
    folder = tmp_path / "results/report"
    files = ReportFiles([*tables, paired], [], [], folder, tmp_path / "results/report.zip")
    write_report(models, "resnet18", [0], {"mvtec_ad": "MVTec AD"}, files)
    return folder


def test_every_link_of_every_page_leads_somewhere(report):
    pages = list(report.rglob("*.html"))
    assert len(pages) == 1 + 4 + 2  # a page for each model, and no_fmm beside the full method
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for address in re.findall(r'<a href="([^"]+)"', text):
            file, _, anchor = address.partition("#")
            target = (page.parent / file) if file else page
            assert target.exists(), f"{page}: {address}"
            assert not anchor or f'id="{anchor}"' in target.read_text(encoding="utf-8"), f"{page}: {address}"


def test_numbers_lead_to_their_models(report):
    text = (report / "index.html").read_text(encoding="utf-8")
    screw = page_name(Model("mvtec_ad", "screw", "maskrd", "resnet18", 0))
    assert re.search(rf'<a href="models/{re.escape(screw)}">(<b>|<u>)?88\.9', text)
    assert re.search(
        r'<a href="#models-mvtec_ad-no_fmm-resnet18">(<b>|<u>)?90\.0', text
    )  # a mean: the list of its models
    assert "data-models" not in text


def test_a_difference_stands_beside_the_number_it_belongs_to(report):
    text = (report / "index.html").read_text(encoding="utf-8")
    row = re.search(r"<th scope=\"row\">Screw</th>(.*?)</tr>", text, re.DOTALL)[1]
    assert '<small title="reproduced − reported"><span class="lower">−9.8</span></small>' in row  # 88.9 and 98.7
    # Table 5 reports means over 15 categories, so two say nothing about them.
    assert '<span class="lower">' not in text[text.index('id="table5"') : text.index('id="table5_paired"')]


def test_the_archive_is_the_folder(report):
    with ZipFile(report.parent / "report.zip") as archive:
        names = {f"report/{path.relative_to(report).as_posix()}" for path in report.rglob("*.html")}
        assert set(archive.namelist()) == names
        assert archive.read("report/index.html") == (report / "index.html").read_bytes()


def test_a_model_of_the_last_report_is_gone_and_no_file_of_anybody_else(report):
    old = report / "models" / page_name(Model("mvtec_ad", "screw", "gone", "resnet18", 0))
    others = [report / "models/notes.html", report / "models/mvtec_ad/model.safetensors"]
    for file in (old, *others):
        file.parent.mkdir(exist_ok=True)
        file.write_text("old", encoding="utf-8")
    files = ReportFiles([], [], [], report, report.parent / "report.zip")
    write_report(report.parent / "models", "resnet18", [0], {}, files)
    assert not old.exists()
    assert all(file.exists() for file in others)


def test_another_page_is_not_overwritten(report):
    (report / "index.html").write_text("mine", encoding="utf-8")
    with pytest.raises(MaskrdError, match=r"index\.html: exists and was not made by the pipeline"):
        write_report(report.parent / "models", "resnet18", [0], {}, ReportFiles([], [], [], report, report / "r.zip"))
    assert (report / "index.html").read_text(encoding="utf-8") == "mine"


def test_files_of_the_users_beside_the_pages_are_not_packed(report):
    (report / "private.html").write_text("mine", encoding="utf-8")
    write_archive(report, report.parent / "report.zip")
    with ZipFile(report.parent / "report.zip") as archive:
        assert "report/private.html" not in archive.namelist()
        assert "report/index.html" in archive.namelist()


@pytest.mark.parametrize("content", ["", "image,defect,score\n", "image,defect,score\na,good\n", "a,b\n1,2\n",
                                     "image,defect,score\na,good,nan\n"])  # fmt: skip
def test_odd_scores_are_refused_by_name(tmp_path, content):
    folder = put(tmp_path, Model("mvtec_ad", "screw", "maskrd", "resnet18", 0))
    (folder / "scores.csv").write_text(content, encoding="utf-8")
    with pytest.raises(MaskrdError, match=r"scores\.csv: not the scores of a test"):
        read_tested(folder)


def test_copies_of_models_elsewhere_are_compared(tmp_path):
    folder = put(tmp_path / "models", Model("mvtec_ad", "screw", "maskrd", "resnet18", 0))
    for name in ("mine", "theirs"):
        shutil.copytree(folder, tmp_path / name)
    write_comparison(tmp_path / "mine", tmp_path / "theirs", tmp_path / "compare.html")
    text = (tmp_path / "compare.html").read_text(encoding="utf-8")
    assert "Screw, mine" in text
    assert "Screw, theirs" in text


def test_a_record_alone_has_a_page_that_says_what_is_missing(tmp_path):
    folder = put(tmp_path, Model("mvtec_ad", "screw", "maskrd", "resnet18", 0), pictures=False)
    page = render_model(read_tested(folder), {}, folder / "metrics.json")
    assert "The folder has no scores.csv" in page
    assert "The folder has no gallery" in page
    assert "<b>97.2</b>" in page or "<b>97.3</b>" in page
    assert f"snakemake --cores 8 -- {folder / 'metrics.json'}" in page


def test_misses_and_false_alarms_are_the_extremes(tmp_path):
    folder = put(tmp_path, Model("mvtec_ad", "screw", "maskrd", "resnet18", 0))
    groups = gallery_groups(read_tested(folder).gallery)
    assert list(groups) == ["Worst misses (lowest scores)", "Worst false alarms (highest scores)", "cut"]
    misses, alarms, cut = groups.values()
    assert [picture.score for picture in misses] == [1.0, 2.5, 3.0]
    assert [picture.score for picture in alarms] == [2.0, 0.5, 0.25]
    assert [picture.name for picture in cut] == list(NAMES[:3])


def test_curves_end_where_everything_is_found_and_ties_are_one_threshold():
    alarms, found, precision = curves(np.array([True, True, False, False]), np.array([2.0, 1.0, 1.0, 0.0]))
    assert (alarms, found) == ([0, 0, 0.5, 1], [0, 0.5, 1, 1])
    assert precision == pytest.approx([1, 2 / 3, 0.5])


def test_two_models_are_compared_on_the_same_images_only(tmp_path):
    one = put(tmp_path, Model("mvtec_ad", "screw", "maskrd", "resnet18", 0))
    other = put(tmp_path, Model("mvtec_ad", "screw", "no_fmm", "resnet18", 0))
    write_comparison(one, other, tmp_path / "compare.html")
    text = (tmp_path / "compare.html").read_text(encoding="utf-8")
    assert text.count('alt="map of the second model"') == len(NAMES)
    assert "First: Screw, Ours (ResNet18, seed 0). Second: Screw, no FMM (ResNet18, seed 0)." in text
    renamed = tuple(name.replace("test", "elsewhere") for name in NAMES)
    wood = put(tmp_path, Model("mvtec_ad", "wood", "maskrd", "resnet18", 0), names=renamed)
    with pytest.raises(MaskrdError, match="tested on different images"):
        write_comparison(one, wood, tmp_path / "other.html")
    assert not (tmp_path / "other.html").exists()


def test_a_comparison_overwrites_no_other_file_and_names_what_is_missing(tmp_path):
    folder = put(tmp_path, Model("mvtec_ad", "screw", "maskrd", "resnet18", 0))
    notes = tmp_path / "README.md"
    notes.write_text("mine", encoding="utf-8")
    with pytest.raises(MaskrdError, match=r"README\.md: the name of the page to write must end in \.html"):
        write_comparison(folder, folder, notes)
    assert notes.read_text(encoding="utf-8") == "mine"
    with pytest.raises(MaskrdError, match=r"metrics\.json: missing\. Name the folder of a tested model\."):
        write_comparison(folder, tmp_path, tmp_path / "compare.html")


def test_charts_escape_names_and_stay_in_their_frame():
    chart = line_chart({"<b>": ([0, 1], [1, 2]), "x": ([0, 1], [2, 3])}, "a & b", "y")
    assert "&lt;b&gt;" in chart
    assert "a &amp; b" in chart
    numbers = [float(n) for line in re.findall(r'points="([^"]+)"', chart) for n in re.split("[ ,]", line)]
    assert min(numbers) >= 0
    assert max(numbers) <= 360
    assert '<rect x="' in stacked_bars([("Table 1", {"lower": 2, "not run": 1})], {"lower": "red", "not run": "grey"})


@pytest.mark.parametrize(
    ("low", "high", "log"), [(0, 1, False), (97.3, 98.1, False), (1e-4, 3, True), (0.202, 0.21, True)]
)
def test_axes_have_few_round_ticks_within_their_range(low, high, log):
    ticks = Scale(low, high, 0, 100, log).ticks()
    assert 2 <= len(ticks) <= 7
    assert all(0 <= place <= 100 for place, _ in ticks)


@needs_driver
@pytest.mark.parametrize("javascript", [True, False])
def test_a_click_leads_from_table_1_to_a_model_and_back(report, tmp_path, javascript):
    with browse(tmp_path, javascript) as page:
        page.open((report / "index.html").as_uri())
        assert page.texts("#section-tables > .note")[0].startswith("A green number leads to its model")
        page.click("#table1 td.reproduced a")
        assert page.location.endswith("models/mvtec_ad.wood.maskrd.resnet18.seed0.html")  # textures come first
        assert page.texts("h1") == ["Wood, Ours"]
        assert len(page.find("#gallery img")) == 3 * 9
        page.click("nav a")
        assert page.location == (report / "index.html").as_uri()
        page.click("#table5 td.reproduced a")
        assert "#models-mvtec_ad-no_fmm" in page.location
        page.back()
        assert "#" not in page.location


@needs_driver
def test_a_click_on_a_heading_sorts(report, tmp_path):
    with browse(tmp_path) as page:
        page.open((report / "index.html").as_uri())
        orders = []
        for _ in range(2):
            page.click("#table5 thead tr:last-child th:first-child")
            orders.append(page.texts("#table5 tbody tr td:nth-of-type(3)"))
        assert sorted(orders[0], reverse=True) == orders[0] == orders[1][::-1] != orders[1]


@needs_driver
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_overlaps_and_only_tables_scroll(report, tmp_path, width):
    pages = [report / "index.html", *sorted((report / "models").glob("*screw*"))]
    with browse(tmp_path, width=width) as page:
        for path in pages:
            page.open(path.as_uri())
            assert page.run(OVERLAPS) == [], path.name
            assert page.run("return document.documentElement.scrollWidth <= window.innerWidth"), path.name
