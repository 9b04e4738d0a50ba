"""What was trained once is found again, whatever Snakemake asks for: no date, path or other run trains it anew."""

import os
import shutil
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from maskrd.config.teachers import ARCHITECTURES
from maskrd.layers.resnet import FeaturePyramid
from tests.workflow.conftest import Workspace, make_workspace

RESULTS = "results/tiny"
BOLT, NUT = (f"{RESULTS}/models/mvtec_ad/{category}/maskrd/demo_resnet18/seed0" for category in ("bolt", "nut"))


def planned(workspace: Workspace, config: dict) -> dict[str, int]:
    outcome = workspace.snakemake("-n", "--", "table1", "table5", config=config)
    assert outcome.code == 0, outcome.output
    return {name: count for name, count in outcome.planned.items() if name not in ("table1", "table5")}


def found(workspace: Workspace, config: dict, *targets: str) -> int:
    """Run; the number of training jobs, each of which must have found its model. Other jobs may have run, too."""
    logs = workspace.folder / RESULTS / "logs/train"
    shutil.rmtree(logs)
    outcome = workspace.snakemake("--", *targets, config=config)
    assert outcome.code == 0, outcome.output
    texts = [path.read_text(encoding="utf-8") for path in logs.rglob("*.log")]
    assert all("Nothing to train" in text and "img/s" not in text for text in texts), texts
    return len(texts)


def truncate(images: Path) -> None:
    image = images / "nut/train/good/000.png"
    image.write_bytes(image.read_bytes()[:200])


def empty(images: Path) -> None:
    """As a mount point without its disk."""
    shutil.rmtree(images)
    images.mkdir()


@pytest.mark.parametrize("damage", [truncate, empty])
def test_images_that_were_gone_and_came_back(copy: Workspace, tiny: dict, damage) -> None:
    images, kept = copy.folder / "images", copy.folder / "kept"
    shutil.copytree(images, kept)
    damage(images)
    assert planned(copy, tiny) == {}
    shutil.rmtree(images)
    shutil.copytree(kept, images, copy_function=shutil.copy)  # the same bytes, other dates
    assert planned(copy, tiny) == {}


def test_a_lost_index(copy: Workspace, tiny: dict) -> None:
    """As after an index job that failed: Snakemake deletes what it was to make."""
    for path in (copy.folder / RESULTS / "data/mvtec_ad/nut.json", copy.folder / NUT / "metrics.json"):
        path.unlink()
    assert found(copy, tiny, f"{NUT}/metrics.json") == 1


def test_copied_results(copy: Workspace, tiny: dict) -> None:
    """`cp -r` gives new dates, in any order: here the inputs of trainings are the newest."""
    results, other = copy.folder / RESULTS, copy.folder / "results/other"
    shutil.copytree(results, other, copy_function=shutil.copy)
    now = time.time()
    for path in (*other.glob("data/*/*.json"), *other.glob("teachers/*")):
        os.utime(path, (now, now))
    assert "train" not in planned(copy, {**tiny, "results": "results/other"})


def test_touched_teachers_and_weights(copy: Workspace, tiny: dict) -> None:
    for path in (copy.folder / RESULTS / "teachers").iterdir():
        os.utime(path)
    assert planned(copy, tiny) == {}


def test_weights_count_by_their_content(copy: Workspace, tiny: dict) -> None:
    weights = copy.folder / "mine.pth"
    weights.write_bytes(b"weights")
    teachers, models = copy.folder / RESULTS / "teachers", copy.folder / RESULTS / "models/mvtec_ad"
    shutil.copy(teachers / "demo_resnet18.safetensors", teachers / "resnet18.safetensors")
    for folder in models.glob("*/*"):
        shutil.copytree(folder / "demo_resnet18", folder / "resnet18")
    config = {**tiny, "backbones": ["resnet18"], "weights": {"resnet18": "mine.pth"}}
    assert copy.snakemake("--touch", "--", "table5", config=config).code == 0  # records what there is as made by this
    weights.unlink()
    weights.write_bytes(b"weights")
    assert "train" not in planned(copy, config)
    weights.write_bytes(b"other weights")
    assert planned(copy, config)["train"] == 4


def test_own_weights_become_a_teacher(copy: Workspace, tiny: dict) -> None:
    weights = FeaturePyramid(ARCHITECTURES["resnet18"]).state_dict()
    save_file(weights, copy.folder / "mine.safetensors")
    teacher = f"{RESULTS}/teachers/resnet18.safetensors"
    outcome = copy.snakemake(teacher, config={**tiny, "weights": {"resnet18": "mine.safetensors"}})
    assert outcome.code == 0, outcome.output
    assert torch.equal(load_file(copy.folder / teacher)["conv1.weight"], weights["conv1.weight"])


def test_the_same_images_from_an_archive(copy: Workspace, tiny: dict) -> None:
    (copy.folder / "mine.tar").write_bytes(b"unpacked long ago")
    (copy.folder / "data").mkdir()
    (copy.folder / "images").rename(copy.folder / "data/mvtec_ad")
    (copy.folder / "data/mvtec_ad.unpacked.json").write_text("{}", encoding="utf-8")
    config = {**tiny, "datasets": {"mvtec_ad": {"archive": "mine.tar", "categories": ["bolt", "nut"]}}}
    assert found(copy, config, f"{BOLT}/metrics.json") == 1


def test_a_reverted_setting(copy: Workspace, tiny: dict) -> None:
    before = (copy.folder / BOLT / "model.safetensors").read_bytes()
    changed = {**tiny, "train": {**tiny["train"], "learning_rate": 0.01}}
    assert copy.snakemake("--", f"{BOLT}/model.safetensors", config=changed).code == 0
    assert (copy.folder / BOLT / "model.safetensors").read_bytes() != before
    assert found(copy, tiny, f"{BOLT}/metrics.json") == 1
    assert (copy.folder / BOLT / "model.safetensors").read_bytes() == before


def test_deleted_models(copy: Workspace, tiny: dict) -> None:
    shutil.rmtree(copy.folder / RESULTS / "models/mvtec_ad/bolt")
    assert found(copy, tiny, f"{BOLT}/metrics.json") == 1


def test_a_second_clone_on_the_same_results(copy: Workspace, tiny: dict, tmp_path_factory) -> None:
    second = make_workspace(tmp_path_factory.mktemp("second"))
    shared = {"path": str(copy.folder / "images"), "categories": ["bolt", "nut"]}
    config = {**tiny, "results": str(copy.folder / RESULTS), "datasets": {"mvtec_ad": shared}}
    assert "train" not in planned(second, config)


def test_weights_that_are_not_kept_go_once_tested(copy: Workspace, tiny: dict) -> None:
    config = {**tiny, "keep_weights": False, "train": {**tiny["train"], "learning_rate": 0.01}}
    outcome = copy.snakemake("--", f"{BOLT}/metrics.json", config=config)
    assert outcome.code == 0, outcome.output
    assert not (copy.folder / BOLT / "model.safetensors").exists()
    assert (copy.folder / BOLT / "history.csv").exists()
    stored = copy.folder / RESULTS / "store"
    assert len(list(stored.glob("*/model.safetensors"))) == 4  # those of before
    assert len(list(stored.glob("*/finished.json"))) == 5
    # Another way of testing needs them again.
    again = copy.snakemake("--", f"{BOLT}/metrics.json", config={**config, "evaluation": {"blur_sigma": 3}})
    assert again.planned["train"] == 1
    log = copy.folder / RESULTS / "logs/train/mvtec_ad/bolt/maskrd/demo_resnet18/seed0.log"
    assert "weights were deleted" in log.read_text(encoding="utf-8")
