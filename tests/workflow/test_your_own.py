"""A second dataset, a method from a file and results made elsewhere, in one table by one call (docs/your_own.md)."""

import csv
import os
import shutil

import pytest

from tests.conftest import ROOT
from tests.workflow.conftest import Workspace

OURS = "results/tiny/anomaly_maps/maskrd/demo_resnet18/seed0/tires"
VARIANTS = ["maskrd", "padim", "patchcore", "mine", "theirs"]
METRICS = ["image_auroc", "pixel_auroc", "aupro", "pixel_ap"]


@pytest.fixture
def config(tiny: dict) -> dict:
    spec = {"rows": "variants", "variants": VARIANTS, "metrics": METRICS, "caption": "{dataset}"}
    return {
        **tiny,
        "datasets": {**tiny["datasets"], "tires": {"layout": "mvtec", "path": "images", "categories": ["bolt"]}},
        "variants": {
            "mine": {"method": "my_method.py:Mine", "settings": {"level": 3}},
            "padim": {"image_size": 32, "crop": None},
            "patchcore": {"image_size": 32, "crop": None},
            "theirs": {"method": "external", "maps": OURS.replace("tires", "tires/{category}")},
        },
        "tables": {**tiny["tables"], "comparison": {"dataset": "tires", **spec}},
    }


def test_everything_of_ones_own_stands_in_one_table(copy: Workspace, config: dict) -> None:
    shutil.copy(ROOT / "docs/examples/my_method.py", copy.folder)
    first = copy.snakemake(f"{OURS}/bolt", config=config)
    assert first.code == 0, first.output
    assert first.planned == {"index": 1, "train": 1, "maps": 1}
    outcome = copy.snakemake("comparison", config=config)
    assert outcome.code == 0, outcome.output
    with (copy.folder / "results/tiny/tables/comparison.csv").open(encoding="utf-8") as file:
        rows = {row["variant"]: row for row in csv.DictReader(file)}
    columns = [f"{metric} reproduced" for metric in METRICS]
    assert len(rows) == len(VARIANTS)
    assert all(row[column] for row in rows.values() for column in columns)
    ours, theirs = rows.pop("Ours"), rows["theirs" if "theirs" in rows else "Theirs"]
    assert [theirs[column] for column in columns] == [ours[column] for column in columns]
    assert copy.snakemake("-n", "comparison", config=config).planned in ({}, {"comparison": 1})
    maps = copy.snakemake("-n", "anomaly_maps", config=config)
    assert set(maps.planned) == {"maps", "anomaly_maps"}, maps.output  # nothing is trained for it
    changed = next((copy.folder / OURS / "bolt").rglob("*.tiff"))
    date = changed.stat().st_mtime
    changed.write_bytes(changed.read_bytes() + b"0")
    os.utime(changed, (date - 1000, date - 1000))  # as an unpacked archive leaves it
    assert copy.snakemake("-n", "comparison", config=config).planned["train"] == 1
    (copy.folder / "my_method.py").write_text(
        (copy.folder / "my_method.py").read_text(encoding="utf-8") + "# changed\n", encoding="utf-8"
    )
    assert copy.snakemake("-n", "comparison", config=config).planned["train"] == 2
