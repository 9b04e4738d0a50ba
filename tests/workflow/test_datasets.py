"""Datasets by configuration, and images that change, break or go away, through Snakemake."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from maskrd.cli import app
from tests.conftest import write_category
from tests.workflow.conftest import Workspace

INDEX = "results/tiny/data/mvtec_ad/bolt.json"


@pytest.fixture
def indexed(clone: Workspace, tiny: dict[str, Any]) -> Workspace:
    """A clone that has indexed bolt, and nothing else."""
    for name in ("bolt", "nut"):
        write_category(clone.folder / "images", name)
    outcome = clone.snakemake(INDEX, config=tiny)
    assert outcome.code == 0, outcome.output
    return clone


def test_a_broken_image_or_a_folder_that_is_away_costs_no_index(indexed: Workspace, tiny: dict) -> None:
    image = indexed.folder / "images/bolt/train/good/003.png"
    content, before = image.read_bytes(), (indexed.folder / INDEX).stat().st_mtime_ns
    image.write_bytes(content[:300])
    broken = indexed.snakemake(INDEX, config=tiny)
    assert broken.planned == {}
    assert "bolt/train/good/003.png: can't be read as an image" in broken.output
    image.write_bytes(content)
    (indexed.folder / "images").rename(indexed.folder / "unmounted")
    assert indexed.snakemake(INDEX, config=tiny).planned == {}
    (indexed.folder / "unmounted").rename(indexed.folder / "images")
    assert indexed.snakemake(INDEX, config=tiny).planned == {}
    assert (indexed.folder / INDEX).stat().st_mtime_ns == before


@pytest.fixture
def two_datasets(clone: Workspace, tiny: dict[str, Any], teacher_file: Path) -> dict[str, Any]:
    """MVTec AD's bolt beside another dataset of the same layout."""
    write_category(clone.folder / "images", "bolt")
    for name in ("front", "rear"):
        write_category(clone.folder / "tires", name)
    teachers = clone.folder / "results/tiny/teachers"
    teachers.mkdir(parents=True)
    shutil.copy(teacher_file, teachers / "demo_resnet18.safetensors")
    tires = {"layout": "mvtec", "path": "tires", "categories": "all", "title": "Tires & wheels"}
    metrics = ["image_auroc", "pixel_auroc"]
    return {
        **tiny,
        "datasets": {"mvtec_ad": {"path": "images", "categories": ["bolt"]}, "tires": tires},
        "tables": {
            "mine": {"dataset": "tires", "rows": "categories", "metrics": metrics, "caption": "AUROC on {dataset}."},
            "theirs": {"dataset": "mvtec_ad", "rows": "categories", "metrics": metrics, "caption": "On {dataset}."},
        },
        "figures": {"figure7": {"dataset": "tires", "variants": ["maskrd"], "caption": "Maps on {dataset}."}},
    }


def test_another_dataset_has_tables_a_figure_and_the_commands_for_people(
    clone: Workspace, two_datasets: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    outcome = clone.snakemake("--resources", "gpu=2", "--", "mine", "figure7", config=two_datasets)
    assert outcome.code == 0, outcome.output
    assert clone.snakemake("-n", "--", "theirs", config=two_datasets).planned["train"] == 1
    results = clone.folder / "results/tiny"
    table = (results / "tables/mine.csv").read_text(encoding="utf-8").splitlines()
    assert [line.split(",")[0] for line in table[1:]] == ["Front", "Rear", "Mean"]
    assert "AUROC on Tires \\& wheels." in (results / "tables/mine.tex").read_text(encoding="utf-8")
    assert "Tires &amp; wheels" in (results / "tables/mine.html").read_text(encoding="utf-8")
    assert (results / "figures/figure7.png").stat().st_size > 0
    outcome = clone.snakemake("--", "report", config={**two_datasets, "partial": True})
    assert outcome.code == 0, outcome.output
    assert "Tires &amp; wheels" in (results / "report/index.html").read_text(encoding="utf-8")
    # A deleted table needs no images: `all` takes the categories that were trained on.
    shutil.rmtree(clone.folder / "tires")
    (results / "tables/mine.csv").unlink()
    outcome = clone.snakemake("--", "mine", config=two_datasets)
    assert outcome.code == 0, outcome.output
    assert outcome.planned == {"table": 1, "mine": 1}
    monkeypatch.chdir(clone.folder)
    for words in (["status"], ["explain", "mine", "front"]):
        app([*words, "--configfile", "mine.yaml"], standalone_mode=False)
        shown = capsys.readouterr().out
        assert "mine" in shown
    assert "tires/front/maskrd/demo_resnet18/seed0" in shown
