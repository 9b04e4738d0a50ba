"""What Snakemake would run: on a fresh clone, and after each kind of change."""

import copy as copying
import os
import re
import shutil
from pathlib import Path

import pytest

from tests.conftest import ROOT, write_image
from tests.workflow.conftest import Workspace, plan


def test_a_fresh_clone_plans_the_papers_205_models(clone: Workspace) -> None:
    planned = clone.snakemake("-n").planned
    assert planned["train"] == planned["evaluate"] == 205
    assert planned["table"] == 7
    assert planned["download"] == 5


def test_retrained_baselines_add_their_own_models_only(clone: Workspace) -> None:
    """STPM, MKD, PaDiM, PatchCore and RD on 15 categories, MKD on 10 classes of CIFAR-10."""
    systems = clone.snakemake("-n", "--configfile", "workflow/config/systems.yaml", "--", "tables")
    assert systems.planned["train"] == 205 + 5 * 15 + 10


def test_a_corrected_number_of_the_paper_makes_its_table_again(clone: Workspace) -> None:
    """The package lies in the working folder here, so that its data can change."""
    shutil.copytree(ROOT / "maskrd", clone.folder / "maskrd", ignore=shutil.ignore_patterns("__pycache__"))
    config = {"partial": True, "datasets": {"mvtec_ad": {"path": "."}}}
    assert clone.snakemake("table1", config=config).code == 0
    assert clone.snakemake("-n", "table1", config=config).planned == {}
    table = clone.folder / "maskrd/paper/table1.csv"
    table.write_text(table.read_text(encoding="utf-8").replace("100", "11.1", 1), encoding="utf-8")
    assert clone.snakemake("-n", "table1", config=config).planned["table"] == 1


@pytest.mark.parametrize(("cores", "gpu", "threads"), [(8, 1, 8), (8, 3, 2), (2, 4, 1), (32, 2, 8)])
def test_jobs_that_share_the_gpu_share_the_cores(clone: Workspace, cores: int, gpu: int, threads: int) -> None:
    outcome = clone.snakemake("-np", "--resources", f"gpu={gpu}", "--", "models", config=TWO, cores=cores)
    commands = re.findall(r"maskrd train .*--threads (\d+)", outcome.output)
    assert set(commands) == {str(threads)}


def test_other_resources_leave_the_gpus_limit(clone: Workspace) -> None:
    outcome = clone.snakemake("--resources", "mem_mb=1000", "--", "audit")
    assert outcome.code == 0, outcome.output
    assert 'gpu=Resource("gpu", 1)' in outcome.output
    wrong = clone.snakemake("-n", "--resources", "gpu=0", "--", "table5", config=TWO)
    assert wrong.code != 0
    assert "--resources gpu=0: must be 1 or more" in wrong.output


def test_downloads_plans_no_training(clone: Workspace) -> None:
    assert set(clone.snakemake("-n", "downloads").planned) == {"download", "unpack", "downloads"}


TWO = {"datasets": {"mvtec_ad": {"categories": ["bottle", "screw"]}}}


def test_what_differs_in_testing_only_plans_no_training_of_its_own(clone: Workspace) -> None:
    planned = clone.snakemake("-n", "--", "ablation_score", config=TWO).planned
    assert (planned["train"], planned["evaluate"]) == (2, 4)
    assert (planned["table"], planned["paired"]) == (1, 1)


def test_robustness_plans_every_ablation_and_shares_their_models(clone: Workspace) -> None:
    planned = clone.snakemake("-n", "--", "robustness", config=TWO).planned
    assert planned["train"] == 106
    assert planned["evaluate"] == 132
    assert planned["table"] == 18


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"train": {"epoch": 3}}, "unknown 'epoch'. Did you mean 'epochs'?"),
        ({"trian": {}}, "unknown 'trian'"),
        ({"tables": {"table5": {"variants": ["no_fm"]}}}, "Did you mean 'no_fmm'?"),
        ({"variants": {"again": {"fmm": True}}}, "are the same recipe"),
        ({"datasets": {"mvtec_ad": {"categories": ["bottle; rm -rf ."]}}}, "bottle; rm -rf ."),
    ],
    ids=["unknown key", "unknown section", "unknown variant", "equal recipes", "shell words in a category"],
)
def test_a_wrong_configuration_stops_before_any_job(clone: Workspace, config: dict, expected: str) -> None:
    outcome = clone.snakemake("-n", config=config)
    assert outcome.code != 0
    assert expected in outcome.output
    assert not (clone.folder / "results").exists()


def test_nested_values_on_the_command_line_arrive_as_numbers(clone: Workspace) -> None:
    outcome = clone.snakemake("-n", "--config", 'train={"epochs": 3}', "--", "table5")
    assert outcome.code == 0, outcome.output
    assert outcome.planned["train"] == 30


def test_a_missing_folder_is_named_and_leaves_nothing_half_written(clone: Workspace) -> None:
    config = {"datasets": {"mvtec_ad": {"path": "nowhere", "categories": ["bolt"]}}}
    outcome = clone.snakemake("results/data/mvtec_ad/bolt.json", config=config)
    assert outcome.code != 0
    assert "datasets.mvtec_ad.path: the folder nowhere does not exist" in outcome.output
    assert not (clone.folder / "results").exists()


def test_the_tiny_experiment_made_its_tables_and_figure(finished: Workspace) -> None:
    results = finished.folder / "results/tiny"
    for name in ("tables/table1.csv", "tables/table1.tex", "tables/table5.csv", "figures/figure7.png"):
        assert (results / name).stat().st_size > 0
    assert len(list(results.glob("models/mvtec_ad/*/*/demo_resnet18/seed0/metrics.json"))) == 4
    assert not list(results.rglob("*.tmp*"))
    assert not list((results / "store").rglob("*.pt"))


def test_a_table_of_costs_measures_the_models_that_are_there(copy: Workspace, tiny: dict) -> None:
    config = copying.deepcopy(tiny)
    config["tables"]["systems"] = {"variants": ["no_fmm", "maskrd"]}
    outcome = copy.snakemake("systems", config=config)
    assert outcome.code == 0, outcome.output
    assert outcome.planned == {"speed": 1, "table": 1, "paired": 1, "systems": 1}
    table = (copy.folder / "results/tiny/tables/systems.csv").read_text(encoding="utf-8").splitlines()
    assert "frames_per_second_16 measured" in table[0]
    assert len(table) == 3
    assert "-" not in "".join(table[1:]).replace("no FMM", "")


def test_a_second_run_does_nothing(finished: Workspace, tiny: dict) -> None:
    assert plan(finished, tiny) == {}


def test_a_changed_recipe_plans_exactly_its_models(copy: Workspace, tiny: dict) -> None:
    changed = {**tiny, "variants": {"no_fmm": {"fmm": False, "learning_rate": 0.01}}}
    assert plan(copy, changed) == {"train": 2, "evaluate": 2, "table": 1, "paired": 1}


def test_a_changed_evaluation_trains_nothing(copy: Workspace, tiny: dict) -> None:
    assert plan(copy, {**tiny, "evaluation": {"blur_sigma": 3}}) == {"evaluate": 4, "table": 2, "paired": 1}


def test_a_changed_caption_writes_one_table(copy: Workspace, tiny: dict) -> None:
    changed = copying.deepcopy(tiny)
    changed["tables"]["table1"] = {"caption": "Another caption."}
    assert plan(copy, changed) == {"table": 1}


def test_another_device_or_place_of_the_images_retrains_nothing(copy: Workspace, tiny: dict) -> None:
    (copy.folder / "images").rename(copy.folder / "moved")
    moved = {"mvtec_ad": {"path": "moved", "categories": ["bolt", "nut"]}}
    assert plan(copy, {**tiny, "device": "cpu", "datasets": moved}) == {}


def test_a_reworded_command_retrains_nothing(copy: Workspace, tiny: dict) -> None:
    rules = copy.folder / "workflow/rules/train.smk"
    text = rules.read_text(encoding="utf-8")
    rules.write_text(text.replace("python -m maskrd train", "python  -m maskrd train"), encoding="utf-8")
    assert rules.read_text(encoding="utf-8") != text
    assert plan(copy, tiny) == {}


def test_touched_images_retrain_nothing(copy: Workspace, tiny: dict) -> None:
    for path in (copy.folder / "images").rglob("*.png"):
        os.utime(path)
    assert plan(copy, tiny) == {}


def test_a_changed_image_retrains_its_category(copy: Workspace, tiny: dict) -> None:
    write_image(copy.folder / "images/nut/train/good/000.png", seed=999)
    assert plan(copy, tiny) == {"index": 1, "train": 2, "evaluate": 2, "table": 2, "paired": 1}


def test_a_deleted_table_is_written_anew(copy: Workspace, tiny: dict) -> None:
    table = copy.folder / "results/tiny/tables/table1.csv"
    table.unlink()
    outcome = copy.snakemake("--", "table1", config=tiny, cores=8)
    assert outcome.planned == {"table": 1, "table1": 1}
    assert table.exists()
    # The default profile's limit: one training on the GPU at a time, whatever the cores.
    assert 'gpu=Resource("gpu", 1)' in outcome.output


def test_tables_come_back_from_metrics_alone(copy: Workspace, tiny: dict) -> None:
    """As from somebody else's run: no images, no models, no teachers, no record of Snakemake's."""
    results = copy.folder / "results/tiny"
    before = (results / "tables/table5.csv").read_text(encoding="utf-8")
    for part in ("images", ".snakemake", "results/tiny/tables", "results/tiny/teachers", "results/tiny/data"):
        shutil.rmtree(copy.folder / part)
    for path in results.glob("models/**/*"):
        if path.is_file() and path.name != "metrics.json":
            path.unlink()
    assert plan(copy, tiny) == {"table": 2, "paired": 1}
    assert copy.snakemake("--", "table5", config=tiny).code == 0
    assert (results / "tables/table5.csv").read_text(encoding="utf-8") == before


def test_partial_tables_have_dashes_and_train_nothing(copy: Workspace, tiny: dict) -> None:
    results = copy.folder / "results/tiny"
    shutil.rmtree(results / "models/mvtec_ad/nut/maskrd")
    partial = {**tiny, "partial": True}
    assert plan(copy, partial) == {"table": 2, "paired": 1}
    outdated = {**partial, "train": {**tiny["train"], "epochs": 2}}
    assert set(plan(copy, outdated)) == {"table", "paired"}
    assert copy.snakemake("--", "table1", config=partial).code == 0
    rows = (results / "tables/table1.csv").read_text(encoding="utf-8").splitlines()
    assert rows[1].startswith("Bolt,")
    assert not rows[1].endswith(",-")
    assert rows[2:] == ["Nut,-", "Mean,-"]
    assert "1 of 2 models" in (results / "tables/table1.tex").read_text(encoding="utf-8")


def test_nothing_is_written_outside_the_results(finished: Workspace) -> None:
    known = {"Snakefile", "config.yaml", "workflow", "profiles", "envs", "site", "mine.yaml", "images"}
    made = {path.name for path in finished.folder.iterdir()} - known
    assert made == {"results", ".snakemake"}


def test_no_log_or_result_holds_an_absolute_path_of_this_machine(finished: Workspace) -> None:
    texts = {
        path: path.read_text(encoding="utf-8")
        for path in (finished.folder / "results").rglob("*")
        if path.suffix in (".json", ".csv", ".tex", ".log")
    }
    assert {path.suffix for path in texts} == {".json", ".csv", ".tex", ".log"}
    # In a container home may be "/", which any path holds.
    private = {str(finished.folder), str(Path.home())} - {"/"}
    for path, text in texts.items():
        assert not [place for place in private if place in text], path


def test_a_second_configfile_is_not_dropped_silently(clone: Workspace) -> None:
    for name in ("one.yaml", "two.yaml"):
        (clone.folder / name).write_text("seeds: [1]\n", encoding="utf-8")
    outcome = clone.snakemake("-n", "--configfile", "one.yaml", "--configfile", "two.yaml", "--", "table1")
    assert outcome.code != 0
    assert "--configfile was given twice" in outcome.output
