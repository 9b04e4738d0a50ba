"""Datasets as configured: known ones, others by their layout, and what is refused when a run is planned."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from maskrd.config.experiment import Experiment
from maskrd.config.load import build_experiment
from maskrd.data.changes import remember
from maskrd.data.index_file import Index
from maskrd.data.indexing import build_index
from maskrd.data.registry import DATASETS, LAYOUTS
from maskrd.data.samples import load_test
from maskrd.errors import MaskrdError
from maskrd.sources.registry import load_sources
from tests.conftest import ROOT, write_category


@pytest.fixture
def tires(tmp_path: Path) -> dict[str, Any]:
    for name in ("front", "rear"):
        write_category(tmp_path / "tires", name)
    return {"layout": "mvtec", "path": str(tmp_path / "tires"), "categories": ["front", "rear"], "title": "My tires"}


def build(tmp_path: Path, **datasets: dict) -> Experiment:
    return build_experiment({"results": str(tmp_path / "results"), "datasets": datasets}, ROOT.joinpath)


def complaint(tmp_path: Path, **datasets: dict) -> str:
    with pytest.raises(MaskrdError) as error:
        build(tmp_path, **datasets)
    return str(error.value)


def test_sources_and_registry_agree_on_what_is_downloaded():
    sources = load_sources(ROOT / "workflow/sources.yaml")
    assert set(sources.datasets) == {name for name, known in DATASETS.items() if known.downloaded}


def test_known_datasets_have_their_layout_and_title(tmp_path):
    datasets = build(tmp_path).datasets
    assert (datasets["mvtec_ad"].layout, datasets["mvtec_ad"].title) == ("mvtec", "MVTec AD")
    assert datasets["cifar10"].layout == "cifar10"


def test_another_dataset_is_used_like_a_known_one(tmp_path, tires):
    spec = {"dataset": "tires", "rows": "categories", "metrics": ["image_auroc"], "caption": "On {dataset}."}
    config = {"results": str(tmp_path / "r"), "datasets": {"tires": tires}, "tables": {"mine": spec}}
    view = build_experiment(config, ROOT.joinpath).view("mine")
    assert (view.title, view.layout, view.categories) == ("My tires", "mvtec", ("front", "rear"))
    assert {model.dataset for model in view.models()} == {"tires"}


def test_a_title_may_be_left_out(tmp_path, tires):
    del tires["title"]
    assert build(tmp_path, car_tires=tires).datasets["car_tires"].title == "Car tires"


def test_all_takes_what_the_folder_holds(tmp_path, tires):
    (tmp_path / "tires/.cache/train/good").mkdir(parents=True)
    (tmp_path / "tires/papers").mkdir()
    assert build(tmp_path, tires={**tires, "categories": "all"}).datasets["tires"].categories == ("front", "rear")


def test_all_takes_what_was_published_where_nothing_is_there_yet(tmp_path):
    datasets = build(tmp_path, mvtec_ad={"categories": "all"}, cifar10={"categories": "all"}).datasets
    assert datasets["mvtec_ad"].categories == tuple(DATASETS["mvtec_ad"].counts)
    assert len(datasets["cifar10"].categories) == 10


def test_a_folder_that_is_away_keeps_the_categories_that_were_indexed(tmp_path, tires):
    remember(tmp_path / "tires/rear", tmp_path / "results/data/tires/.rear.memory.json", {})
    (tmp_path / "results/models/tires").mkdir(parents=True)
    (tmp_path / "results/models/tires/.DS_Store").touch()
    shutil.rmtree(tmp_path / "tires")
    for _ in ("missing", "empty, like a mount point"):
        assert build(tmp_path, tires={**tires, "categories": "all"}).datasets["tires"].categories == ("rear",)
        assert build(tmp_path, tires=tires).datasets["tires"].categories == ("front", "rear")
        (tmp_path / "tires").mkdir(exist_ok=True)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"path": "/nonexistent"}, "datasets.tires.path: the folder /nonexistent does not exist. Correct the path"),
        ({"path": "/nonexistent", "categories": "all"}, "datasets.tires.path: the folder /nonexistent does not exist"),
        ({"path": None}, "datasets.tires.path: missing"),
        ({"path": None, "archive": "tires.tar"}, "Unpack the archive, and set path to its folder"),
        ({"layout": None}, "datasets: unknown 'tires'"),
        ({"layout": "mvtek"}, "datasets.tires.layout: unknown 'mvtek'. Did you mean 'mvtec'?"),
        ({"layout": "mtd", "categories": ["tile"]}, "holds nothing in the layout mtd. Correct the path or the layout"),
        ({"layout": "cifar10", "categories": "all"}, "holds nothing in the layout cifar10"),
        ({"layout": "stc", "categories": "all"}, "holds nothing in the layout stc"),
        ({"categories": ["fornt"]}, "datasets.tires.categories: unknown 'fornt'. Did you mean 'front'?"),
        ({"categories": ["mean"]}, "the last line of every table has this name"),
        ({"categories": []}, "datasets.tires.categories"),
        ({"stands_for": "mvtec"}, "datasets.tires.stands_for: unknown 'mvtec'. Did you mean 'mvtec_ad'?"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, tires, change, expected):
    assert expected in complaint(tmp_path, tires={**tires, **change})


def test_a_known_dataset_keeps_its_layout(tmp_path, tires):
    assert "Give your data another name" in complaint(tmp_path, mtd=tires)


def test_a_misspelt_known_dataset_is_told(tmp_path):
    assert "Did you mean 'mvtec_ad'?" in complaint(tmp_path, mvtec_da={"categories": ["screw"]})


def test_a_folder_whose_name_is_no_word_is_named(tmp_path, tires):
    write_category(tmp_path / "tires", "spare wheel")
    assert "spare wheel: a category can't have this name" in complaint(tmp_path, tires={**tires, "categories": "all"})
    assert build(tmp_path, tires=tires)


def test_a_file_is_no_folder(tmp_path, tires):
    (tmp_path / "file").write_text("")
    assert "does not exist" in complaint(tmp_path, tires={**tires, "path": str(tmp_path / "file")})


def test_the_index_of_another_dataset_says_its_layout_and_loads(tmp_path, tires):
    root = tmp_path / "tires"
    index = build_index("tires", "front", root, layout="mvtec")
    index.write(tmp_path / "front.json")
    assert Index.read(tmp_path / "front.json") == index
    assert index.layout == "mvtec"
    assert load_test(index, root, 32).masks.any()
    known = build_index("mvtec_ad", "front", root)
    assert known.layout is None
    assert known.digests == index.digests


def test_a_layout_nobody_knows_is_refused_by_the_index_command(tmp_path):
    with pytest.raises(MaskrdError, match=f"one of {', '.join(LAYOUTS)}"):
        build_index("tires", "front", tmp_path)
