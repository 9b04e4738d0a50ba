"""Anomaly maps as files: ours are written, and read back as external results give the same metrics."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskrd.config.load import parse_experiment
from maskrd.config.methods import ExternalSettings
from maskrd.config.settings import Metric
from maskrd.engine.anomaly_maps import write_maps
from maskrd.engine.evaluation import EvaluationJob, evaluate, load_test_set, wanted_scorer
from maskrd.engine.machine import Machine
from maskrd.engine.training import train
from maskrd.errors import MaskrdError

METRICS = Metric.__args__
FINAL = {"blur_sigma": 0}


@pytest.fixture
def external(training_job, tmp_path, evaluation):
    """Keep the maps below tmp_path/theirs, and test them."""

    def call(**changes) -> dict:
        job = training_job("external", method="external", maps=f"{tmp_path}/theirs/{{category}}", **changes)
        train(job)
        files = (job.index, job.data, job.teacher, job.model)
        tested = EvaluationJob(*files, evaluation(**FINAL), job.recipe, Machine("cpu"))
        evaluate(tested, tmp_path / "theirs.json", tmp_path / "theirs.csv", tmp_path / "theirs.npz")
        return json.loads((tmp_path / "theirs.json").read_text(encoding="utf-8"))

    return call


@pytest.fixture
def ours(training_job, tmp_path, evaluation):
    """Train a model, test it, and write its maps below tmp_path/theirs."""

    def call(testing=None, **changes) -> dict:
        job = training_job("ours", epochs=1, batch_size=6, **changes)
        train(job)
        files = (job.index, job.data, job.teacher, job.model)
        tested = EvaluationJob(*files, evaluation(**testing or {}), job.recipe, Machine("cpu"))
        evaluate(tested, tmp_path / "ours.json", tmp_path / "ours.csv", tmp_path / "ours.npz")
        write_maps(tested, tmp_path / "theirs/bolt")
        return json.loads((tmp_path / "ours.json").read_text(encoding="utf-8"))

    return call


@pytest.mark.parametrize(
    ("changes", "testing"), [({}, {}), ({"image_size": 64, "crop": 32}, {}), ({}, {"score": "mean"})]
)
def test_our_maps_read_back_give_the_same_metrics(ours, external, tmp_path, changes, testing):
    written, read = ours(testing, **changes), external(**changes)
    assert {name: read[name] for name in METRICS} == {name: written[name] for name in METRICS}
    assert (tmp_path / "ours.csv").read_text() == (tmp_path / "theirs.csv").read_text()
    assert read["training"]["parameters"] == read["training"]["epochs"] == 0


def test_maps_are_where_and_what_others_expect(ours, tmp_path):
    ours()
    folder = tmp_path / "theirs/bolt"
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.tiff"))
    assert names[:3] == ["test/crack/000.tiff", "test/crack/001.tiff", "test/good/000.tiff"]
    assert len(names) == 7
    with Image.open(folder / names[0]) as file:
        assert (file.mode, file.size) == ("F", (32, 32))


def test_without_scores_the_maps_decide(ours, external, tmp_path):
    expected = ours()
    (tmp_path / "theirs/bolt/scores.csv").unlink()
    found = external()
    assert found["image_auroc"] == expected["image_auroc"]  # the maximum of the map is ours, too


def test_larger_maps_are_resized(ours, external, tmp_path):
    expected = ours()
    for path in (tmp_path / "theirs").rglob("*.tiff"):
        with Image.open(path) as file:
            Image.fromarray(np.kron(np.array(file), np.ones((2, 2), np.float32))).save(path)
    assert external()["pixel_auroc"] == pytest.approx(expected["pixel_auroc"], abs=1e-6)


def test_changed_maps_are_read_anew(ours, external, tmp_path):
    """Though the store holds what was made of the maps before."""
    ours()
    before = external()
    for path in (tmp_path / "theirs").rglob("*.tiff"):
        with Image.open(path) as file:
            Image.fromarray(-np.array(file)).save(path)
    assert external()["pixel_auroc"] == pytest.approx(1 - before["pixel_auroc"])


def remove(folder: Path) -> None:
    (folder / "test/good/001.tiff").unlink()


def add(folder: Path) -> None:
    (folder / "test/good/007.tif").write_bytes(b"")


def flatten(folder: Path) -> None:
    Image.new("RGB", (8, 8)).save(folder / "test/good/001.tiff")


def spoil(folder: Path) -> None:
    Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(folder / "test/good/001.tiff")


def tear(folder: Path) -> None:
    path = folder / "test/good/001.tiff"
    path.write_bytes(path.read_bytes()[:100])


def forget_a_score(folder: Path) -> None:
    path = folder / "scores.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove, r"theirs/bolt: 1 maps are missing \(test/good/001\.tiff\)"),
        (add, r"theirs/bolt: 1 maps belong to no test image \(test/good/007\.tif\)"),
        (flatten, r"good/001\.tiff: its shape is \(8, 8, 3\), and 0 values aren't finite"),
        (spoil, r"good/001\.tiff: its shape is \(8, 8\), and 64 values aren't finite"),
        (tear, r"good/001\.tiff: can't be read as a TIFF"),
        (forget_a_score, r"scores\.csv: 1 test images have no finite score \(test/stain/001\.png\)"),
    ],
)
def test_what_is_wrong_with_maps_is_named(ours, external, tmp_path, damage, message):
    ours()
    damage(tmp_path / "theirs/bolt")
    with pytest.raises(MaskrdError, match=message):
        external()
    assert not (tmp_path / "external/model.safetensors").exists()


def test_maps_take_the_place_of_no_image(ours, tmp_path):
    photo = tmp_path / "theirs/bolt/test/good/000.tiff"
    photo.parent.mkdir(parents=True)
    photo.write_bytes(b"mine")
    with pytest.raises(MaskrdError, match="theirs/bolt: exists and was not made by the pipeline"):
        ours()
    assert photo.read_bytes() == b"mine"


def test_a_missing_folder_is_named(external):
    with pytest.raises(MaskrdError, match=r"theirs/bolt: no such folder"):
        external()


def test_only_the_test_images_have_scores(ours, external, training_job, tmp_path, evaluation):
    ours()
    external()
    job = training_job("external", method="external", maps=f"{tmp_path}/theirs/{{category}}")
    files = (job.index, job.data, job.teacher, job.model)
    tested = EvaluationJob(*files, evaluation(**FINAL), job.recipe, Machine("cpu"))
    other = load_test_set(tested).images[:1] ^ 1
    with pytest.raises(MaskrdError, match="have maps of their own test images only"):
        wanted_scorer(tested).score_all(other)


def configure(config, **table):
    config["variants"]["theirs"] = {"method": "external", "maps": "theirs/{category}"}
    spec = {"dataset": "mvtec_ad", "rows": "variants", "variants": ["maskrd", "theirs"], "caption": "Both."}
    config["tables"]["both"] = {**spec, "metrics": ["image_auroc"], **table}
    return parse_experiment(config)


def test_external_maps_are_not_blurred(config):
    recipe = configure(config).recipe("mvtec_ad", "theirs")
    assert isinstance(recipe.training, ExternalSettings)
    assert recipe.evaluation.blur_sigma == 0


def test_external_results_have_no_costs(config):
    with pytest.raises(MaskrdError, match=r"tables\.both: variant theirs has no costs"):
        configure(config, costs=True)


def test_a_path_of_all_categories_is_refused(config):
    config["variants"]["theirs"] = {"method": "external", "maps": "theirs"}
    with pytest.raises(MaskrdError, match=r"maps: .*category"):
        parse_experiment(config)
