"""Where files lie, and which of them the rules ask for."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from maskrd.config.experiment import Experiment
from maskrd.config.files import Files
from maskrd.config.load import parse_experiment
from maskrd.config.settings import Model
from maskrd.data.changes import file_digest
from maskrd.files import sha256_file
from maskrd.sources.registry import load_sources
from maskrd.workflow.data import DataInputs
from maskrd.workflow.views import ViewInputs, paper_digest
from tests.conftest import ROOT

SOURCES = load_sources(ROOT / "workflow/sources.yaml")
SCREW = Model("mvtec_ad", "screw", "maskrd", "wide_resnet50_2", 0)


@pytest.fixture
def load(default_config: dict[str, Any], tmp_path: Path):
    """An experiment of two categories, with its results in an empty folder; `changes` replace top-level keys."""

    def build(**changes: Any) -> Experiment:
        config = deepcopy(default_config) | {"results": str(tmp_path)} | changes
        config["datasets"]["mvtec_ad"]["categories"] = ["screw", "bottle"]
        return parse_experiment(config, defaults=default_config)

    return build


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_wildcards_give_the_paths_of_models(load) -> None:
    files = Files(load())
    own, pattern = files.model(SCREW), files.any_model
    names = {field: str(getattr(SCREW, field)) for field in ("dataset", "category", "variant", "backbone", "seed")}
    for attribute in ("weights", "history", "metrics", "scores", "gallery", "benchmark"):
        assert str(getattr(pattern, attribute)).format(**names) == str(getattr(own, attribute))
    assert str(pattern.log("train")).format(**names) == str(own.log("train"))


def test_a_log_keeps_dots_in_names(load) -> None:
    assert Files(load()).log("index", "mine", "M3.5").name == "M3.5.log"


def test_a_users_files_take_the_place_of_downloads(load, tmp_path: Path) -> None:
    weights = str(tmp_path / "own.pth")
    experiment = load(weights={"resnet18": weights})
    experiment.datasets["cifar10"] = experiment.datasets["cifar10"].model_copy(update={"archive": "own.tar.gz"})
    experiment.datasets["mvtec_ad"] = experiment.datasets["mvtec_ad"].model_copy(update={"path": tmp_path})
    data = DataInputs(experiment, SOURCES)
    assert (data.weights("resnet18"), data.archive("cifar10")) == (weights, "own.tar.gz")
    assert data.markers("mvtec_ad", "screw") == []
    assert data.markers("cifar10", "dog") == [Path("data/cifar10.unpacked.json")]
    assert data.digest("mvtec_ad", "screw") == "absent"
    needed = [str(path) for path in data.from_network()]
    assert "data/cifar10.unpacked.json" in needed
    assert weights in needed
    assert "data/mvtec_ad.unpacked.json" not in needed


def test_own_weights_that_are_away_count_as_unchanged(load, tmp_path: Path, monkeypatch) -> None:
    """If the teacher was made from them. Nothing would be gained by training again."""
    monkeypatch.chdir(tmp_path)
    weights, experiment = tmp_path / "own.pth", load(weights={"resnet18": str(tmp_path / "own.pth")})
    weights.write_bytes(b"weights")
    digest = sha256_file(weights)
    teacher = Files(experiment).teacher("resnet18")
    teacher.parent.mkdir(parents=True)
    save_file({"a": np.zeros(1)}, teacher, {"teacher": json.dumps({"weights_sha256": digest})})
    data = DataInputs(experiment, SOURCES)
    assert (data.weights_digest("resnet18"), data.teacher_is_current("resnet18")) == (digest, True)
    weights.unlink()
    file_digest.cache_clear()
    assert (data.weights_digest("resnet18"), data.teacher_is_current("resnet18")) == (digest, True)


def test_downloads_are_known_by_file_and_key(load) -> None:
    data = DataInputs(load(), SOURCES)
    source = SOURCES.weights["resnet18"]
    assert data.source_key(source.file) == "weights.resnet18"
    assert source.checksum.model_dump_json() == data.checksum("weights.resnet18")
    assert data.weights("resnet18") == f"data/downloads/{source.file}"
    assert data.weights_checksum("resnet18") == source.checksum.model_dump_json()
    assert DataInputs(load(weights={"resnet18": "own.pth"}), SOURCES).weights_checksum("resnet18") == "null"


def test_partial_asks_for_what_exists(load) -> None:
    views = ViewInputs(load())
    wanted = views.metrics("table5")
    assert len(wanted) == 4
    touch(wanted[0])
    partial = ViewInputs(load(partial=True))
    assert partial.metrics("table5") == wanted[:1]
    assert partial.report_figures() == []
    assert "table5" in views.reported_tables


def test_other_tables_join_the_report_when_they_need_no_job_on_a_gpu(load) -> None:
    views = ViewInputs(load())
    assert not {"ablation_score", "systems"} & set(views.reported_tables)
    touch(*views.metrics("ablation_score"))
    assert "ablation_score" in ViewInputs(load()).reported_tables
    systems = ViewInputs(load())
    touch(*systems.metrics("systems"))
    assert "systems" not in ViewInputs(load()).reported_tables  # its speed isn't measured
    touch(*systems.speed("systems"))
    assert "systems" in ViewInputs(load()).reported_tables


def test_an_ablation_has_paired_differences(load) -> None:
    views = ViewInputs(load())
    assert [path.name for path in views.table_files("table1")] == ["table1.csv", "table1.tex", "table1.html"]
    assert [path.name for path in views.table_files("table5")][3:] == ["table5_paired.csv", "table5_paired.html"]


def test_one_model_of_each_variant_is_timed(load) -> None:
    models = ViewInputs(load(seeds=[0, 1])).timed_models("systems")
    assert len({model.variant for model in models}) == len(models)
    assert {(model.category, model.seed) for model in models} == {("screw", 0)}


def test_digests_change_with_what_they_stand_for(load) -> None:
    views = ViewInputs(load())
    before = views.metrics_digest()
    touch(*views.metrics("table5"))
    assert views.metrics_digest() != before
    assert views.metrics_digest(views.metrics("table5")) == before  # inputs are compared by Snakemake
    assert len(paper_digest()) == 64
