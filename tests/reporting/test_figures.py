"""Figures choose the right images, scale maps over the test set, and refuse what they can't show."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from maskrd.errors import MaskrdError
from maskrd.experiment import Evaluation, Figure, Report, Training
from maskrd.reporting.figures import choose, draw, read_panels, write_figure

CONFIG = yaml.safe_load((Path(__file__).parents[2] / "config.yaml").read_text(encoding="utf-8"))
DEFECTS = ("cut", "good", "hole")


def make_report(variants=("maskrd",), categories=("stripes", "metal_nut"), **spec):
    return Report(
        name="figure7",
        spec=Figure(dataset="demo", variants=variants, caption="Maps, 5 % & a_b", **spec),
        categories=categories,
        backbones=("demo_resnet18",),
        seeds=(0,),
        training=dict.fromkeys(variants, Training(**CONFIG["train"])),
        evaluation=dict.fromkeys(variants, Evaluation(**CONFIG["evaluation"])),
    )


def write_maps(path, defects=DEFECTS, names=None, size=32):
    """Maps from 2 to 4 with a bright square, within a test set from 0 to 8."""
    count = len(defects)
    maps = np.full((count, size, size), 2, np.float32)
    maps[:, 8:16, 8:16] = 4
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        path,
        images=np.full((count, 3, size, size), 128, np.uint8),
        masks=maps > 3,
        maps=maps,
        defects=defects,
        names=names or [f"{defect}/000.png" for defect in defects],
        low=np.float32(0),
        high=np.float32(8),
    )


def heatmaps(report, folder):
    return [folder / model.path / "heatmaps.npz" for model in report.models()]


@pytest.mark.parametrize(
    ("defects", "count", "expected"),
    [
        (["cut", "cut", "good", "hole"], 1, [0]),
        (["good", "cut", "cut", "hole"], 2, [1, 3]),
        (["cut", "cut", "hole"], 3, [0, 2, 1]),
        (["good"], 1, []),
    ],
)
def test_choose_takes_defect_types_in_turn(defects, count, expected):
    assert choose(defects, count) == expected


def test_maps_are_scaled_by_the_range_of_the_test_set(tmp_path):
    report = make_report(images_per_category=2)
    for path in heatmaps(report, tmp_path):
        write_maps(path)
    panels = list(read_panels(report, tmp_path, "stripes"))
    assert [panel.defect for panel in panels] == ["cut", "hole"]
    assert (panels[0].maps["maskrd"].min(), panels[0].maps["maskrd"].max()) == (0.25, 0.5)
    assert panels[0].image.shape == (32, 32, 3)


def test_methods_of_other_backbones_and_sizes_show_the_image_they_saw(tmp_path):
    report = make_report(variants=("mkd", "maskrd"), categories=("stripes",))
    report = report.model_copy(update={"own_backbones": {"mkd": "demo_vgg16"}})
    for path, size in zip(heatmaps(report, tmp_path), (32, 64), strict=True):
        write_maps(path, size=size)
    (panel,) = read_panels(report, tmp_path, "stripes")
    assert panel.image.shape == (64, 64, 3)
    assert {variant: image.shape[0] for variant, image in panel.seen.items()} == {"mkd": 32, "maskrd": 64}
    assert {variant: scaled.shape for variant, scaled in panel.maps.items()} == {"mkd": (32, 32), "maskrd": (64, 64)}


def test_write_figure_makes_both_files(tmp_path):
    report = make_report(variants=("stpm", "maskrd"))
    for path in heatmaps(report, tmp_path):
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
    for path in heatmaps(report, tmp_path):
        write_maps(path)
    panels = [panel for category in report.categories for panel in read_panels(report, tmp_path, category)]
    figure = draw(report, panels)
    grid = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in grid[:6:2]] == ["image", "STPM\nanomaly map", "Ours\nanomaly map"]
    assert [axes.get_ylabel() for axes in grid[::6]] == ["Stripes\ncut", "Metal nut\ncut"]
    assert "The data is generated" in figure.get_suptitle().replace("\n", " ")


def test_many_categories_stand_in_two_blocks(tmp_path):
    report = make_report(categories=tuple(f"c{number}" for number in range(9)))
    for path in heatmaps(report, tmp_path):
        write_maps(path)
    panels = [panel for category in report.categories for panel in read_panels(report, tmp_path, category)]
    figure = draw(report, panels)
    assert [axes.get_title() for axes in figure.axes].count("image") == 2
    names = [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()]
    assert sorted(names) == [f"C{number}\ncut" for number in range(9)]


def test_missing_damaged_and_unlike_files_are_named(tmp_path):
    report = make_report(variants=("stpm", "maskrd"), categories=("stripes",))
    first, second = heatmaps(report, tmp_path)
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
    (path,) = heatmaps(report, tmp_path)
    write_maps(path)
    with np.load(path) as file:
        np.savez_compressed(path, **{key: file[key] for key in file if key != "masks"})
    (panel,) = read_panels(report, tmp_path, "stripes")
    assert panel.mask is None
    assert "none" in [text.get_text() for axes in draw(report, [panel]).axes for text in axes.texts]
