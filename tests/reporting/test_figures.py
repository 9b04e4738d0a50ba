"""Figures choose the right images, scale maps over the test set, and refuse what they can't show."""

import numpy as np
import pytest
from PIL import Image

from maskrd.config.load import shipped_configuration
from maskrd.config.settings import Evaluation, FigureSpec
from maskrd.config.view import View
from maskrd.errors import MaskrdError
from maskrd.gallery import Gallery, choose, quantise, take_turns
from maskrd.reporting.captions import figure_facts
from maskrd.reporting.collect import read_metrics
from maskrd.reporting.figures import draw, read_panels, write_figure
from tests.conftest import ROOT, training_settings
from tests.records import make_record, write_record

CONFIG = shipped_configuration(ROOT.joinpath)
DEFECTS = ("cut", "good", "hole")


def make_report(variants=("maskrd",), categories=("stripes", "metal_nut"), **spec):
    return View(
        name="figure7",
        spec=FigureSpec(dataset="demo", variants=variants, caption="Maps, 5 % & a_b", **spec),
        title="Demo",
        layout="mvtec",
        categories=categories,
        backbones=("demo_resnet18",),
        seeds=(0,),
        training=dict.fromkeys(variants, training_settings(CONFIG["train"])),
        evaluation=dict.fromkeys(variants, Evaluation(**CONFIG["evaluation"])),
    )


def write_maps(path, defects=DEFECTS, names=None, size=32, masks=True):
    """Maps from 2 to 4 with a bright square, within a test set from 0 to 8."""
    count = len(defects)
    maps = np.full((count, size, size), 2, np.float32)
    maps[:, 8:16, 8:16] = 4
    Gallery(
        names=names or tuple(f"{defect}/000.png" for defect in defects),
        defects=defects,
        scores=np.zeros(count),
        images=np.full((count, 3, size, size), 128, np.uint8),
        maps=quantise(maps, 0, 8),
        low=0,
        high=8,
        masks=maps > 3 if masks else None,
    ).write(path)


def facts(report, folder):
    return figure_facts(report, read_metrics(report, folder))


def galleries(report, folder):
    return [folder / model.path / "gallery.npz" for model in report.models()]


@pytest.mark.parametrize(
    ("defects", "count", "expected"),
    [
        (["cut", "cut", "good", "hole"], 1, [0]),
        (["good", "cut", "cut", "hole"], 2, [1, 3]),
        (["cut", "cut", "hole"], 3, [0, 2, 1]),
        (["good"], 1, []),
    ],
)
def test_figures_take_defect_types_in_turn(defects, count, expected):
    assert take_turns(defects, count) == expected


def test_maps_are_scaled_by_the_range_of_the_test_set(tmp_path):
    report = make_report(images_per_category=2)
    for path in galleries(report, tmp_path):
        write_maps(path)
    panels = list(read_panels(report, tmp_path, "stripes"))
    assert [panel.defect for panel in panels] == ["cut", "hole"]
    assert (panels[0].maps["maskrd"].min(), panels[0].maps["maskrd"].max()) == pytest.approx((0.25, 0.5), abs=0.002)
    assert panels[0].image.shape == (32, 32, 3)


def test_methods_of_other_backbones_and_sizes_show_the_image_they_saw(tmp_path):
    report = make_report(variants=("mkd", "maskrd"), categories=("stripes",))
    report = report.model_copy(update={"own_backbones": {"mkd": "demo_vgg16"}})
    for path, size in zip(galleries(report, tmp_path), (32, 64), strict=True):
        write_maps(path, size=size)
    (panel,) = read_panels(report, tmp_path, "stripes")
    assert panel.image.shape == (64, 64, 3)
    assert {variant: image.shape[0] for variant, image in panel.seen.items()} == {"mkd": 32, "maskrd": 64}
    assert {variant: scaled.shape for variant, scaled in panel.maps.items()} == {"mkd": (32, 32), "maskrd": (64, 64)}


def test_write_figure_makes_both_files(tmp_path):
    report = make_report(variants=("stpm", "maskrd"))
    for path in galleries(report, tmp_path):
        write_maps(path)
    png, pdf = tmp_path / "f" / "figure7.png", tmp_path / "f" / "figure7.pdf"
    write_figure(report, tmp_path, png, pdf)
    with Image.open(png) as picture:
        assert picture.info["dpi"] == pytest.approx((150, 150), abs=1)
        assert picture.width > 1000  # six columns
        assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 50
    assert pdf.read_bytes().startswith(b"%PDF")
    assert sorted(path.name for path in png.parent.iterdir()) == ["figure7.pdf", "figure7.png"]


def test_labels_name_methods_categories_and_generated_data(tmp_path):
    report = make_report(variants=("stpm", "maskrd"))
    for path in galleries(report, tmp_path):
        write_maps(path)
    panels = [panel for category in report.categories for panel in read_panels(report, tmp_path, category)]
    figure = draw(report, panels, facts(report, tmp_path))
    grid = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in grid[:6:2]] == ["image", "STPM\nanomaly map", "Ours\nanomaly map"]
    assert [axes.get_ylabel() for axes in grid[::6]] == ["Stripes\ncut", "Metal nut\ncut"]
    assert "The data are not the paper's" in figure.get_suptitle().replace("\n", " ")


def test_a_figure_says_what_its_models_were_made_with(tmp_path):
    report = make_report(categories=("stripes",))
    (model,) = report.models()
    training = report.training["maskrd"].model_copy(update={"epochs": 7})
    write_record(tmp_path, model, make_record(model, {}, training, report.evaluation["maskrd"]))
    assert "Training: 7 epochs" in facts(report, tmp_path)


def test_many_categories_stand_in_two_blocks(tmp_path):
    report = make_report(categories=tuple(f"c{number}" for number in range(9)))
    for path in galleries(report, tmp_path):
        write_maps(path)
    panels = [panel for category in report.categories for panel in read_panels(report, tmp_path, category)]
    figure = draw(report, panels, facts(report, tmp_path))
    assert [axes.get_title() for axes in figure.axes].count("image") == 2
    names = [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()]
    assert sorted(names) == [f"C{number}\ncut" for number in range(9)]


def test_missing_damaged_and_unlike_files_are_named(tmp_path):
    report = make_report(variants=("stpm", "maskrd"), categories=("stripes",))
    first, second = galleries(report, tmp_path)
    write_maps(first)
    output = tmp_path / "f.png", tmp_path / "f.pdf"
    with pytest.raises(MaskrdError, match=r"maskrd.*missing"):
        write_figure(report, tmp_path, *output)
    second.parent.mkdir(parents=True)
    second.write_bytes(first.read_bytes()[:200])
    with pytest.raises(MaskrdError, match=r"maskrd.*not anomaly maps"):
        write_figure(report, tmp_path, *output)
    write_maps(second, names=["other/1.png", "good/1.png", "other/2.png"])
    with pytest.raises(MaskrdError, match=r"maskrd.*other images"):
        write_figure(report, tmp_path, *output)
    write_maps(first, defects=("good",))
    write_maps(second, defects=("good",))
    with pytest.raises(MaskrdError, match=r"no defective image.*datasets\.demo\.categories"):
        write_figure(report, tmp_path, *output)
    assert not output[0].exists()


def test_a_category_without_masks_has_its_row(tmp_path):
    report = make_report(categories=("stripes",))
    (path,) = galleries(report, tmp_path)
    write_maps(path, masks=False)
    (panel,) = read_panels(report, tmp_path, "stripes")
    assert panel.mask is None
    assert "none" in [text.get_text() for axes in draw(report, [panel], "A caption.").axes for text in axes.texts]


def test_a_gallery_has_misses_false_alarms_and_every_defect_type():
    defects = ["good"] * 10 + ["cut"] * 20 + ["hole"]
    scores = np.arange(31.0)
    chosen = choose(defects, scores)
    assert chosen == [0, 6, 7, 8, 9, *range(10, 17), 30]


def test_dollar_signs_are_no_formula(tmp_path):
    """In a folder's name and a caption, where matplotlib would take what is between two of them for mathematics."""
    view = make_report()
    view = view.model_copy(update={"spec": view.spec.model_copy(update={"caption": "From 5 $ to \\frac{$ "})})
    for path in galleries(view, tmp_path):
        write_maps(path, defects=("c$^$ut",))
    write_figure(view, tmp_path, tmp_path / "f.png", tmp_path / "f.pdf")
    assert (tmp_path / "f.png").exists()
