"""The store as an experiment sees it: whose a training is, how far it is, and which nobody uses."""

import shutil
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from maskrd.cli import app
from maskrd.config.experiment import Experiment
from maskrd.config.files import Files
from maskrd.config.load import parse_experiment
from maskrd.config.settings import Model
from maskrd.engine.store import Stored, identity, stored_trainings
from maskrd.inspection.status import overview, watch_overview
from maskrd.inspection.stored import find_stored, prune, trained_models
from tests.conftest import ROOT

MODEL = Model("mvtec_ad", "bolt", "maskrd", "demo_resnet18", 0)


@pytest.fixture
def experiment(config: dict, tmp_path: Path, index_file: Path, teacher_file: Path) -> Experiment:
    """One table, of one model, whose index and teacher are made."""
    dataset = {"path": str(tmp_path / "images"), "categories": ["bolt"]}
    config |= {"results": str(tmp_path / "results"), "backbones": ["demo_resnet18"], "figures": {}}
    config["datasets"] = {**config["datasets"], "mvtec_ad": dataset}
    config["tables"] = {"table1": config["tables"]["table1"]}
    experiment = parse_experiment(config)
    files = Files(experiment)
    made = {files.index("mvtec_ad", "bolt"): index_file, files.teacher(MODEL.backbone): teacher_file}
    for target, source in made.items():
        target.parent.mkdir(parents=True)
        shutil.copy(source, target)
    return experiment


def store(experiment: Experiment, seed: int = 0, finished: bool = True, **changes: object) -> Stored:
    """A training of the configured model with other settings, in the store."""
    files = Files(experiment)
    recipe = experiment.recipe("mvtec_ad", "maskrd").training.model_copy(update=changes)
    wanted = identity(recipe, seed, files.index("mvtec_ad", "bolt"), files.teacher(MODEL.backbone))
    stored = Stored.of(files.store, wanted)
    with stored.locked():
        stored.write_progress([{"epoch": 1, "loss": 0.5}], 200, 60)
        if finished:
            stored.model.write_bytes(b"w" * 1_000_000)
            stored.finish()
    return stored


def shown(experiment: Experiment) -> str:
    console = Console(width=160)
    with console.capture() as capture:
        console.print(overview(experiment))
    return capture.get()


def test_a_model_is_found_by_its_content(experiment: Experiment) -> None:
    stored = store(experiment)
    store(experiment, learning_rate=0.5)
    assert trained_models(experiment) == [MODEL]
    found = find_stored(experiment, [MODEL])[MODEL]
    assert found
    assert found.digest == stored.digest
    Files(experiment).teacher(MODEL.backbone).unlink()
    assert find_stored(experiment, [MODEL]) == {MODEL: None}


def test_only_what_no_model_uses_is_pruned(experiment: Experiment) -> None:
    used, working = store(experiment), store(experiment, finished=False, learning_rate=0.25)
    other = store(experiment, learning_rate=0.5)
    mine = Files(experiment).store / "notes.txt"
    mine.write_text("mine", encoding="utf-8")
    with working.locked():
        listed = list(prune(experiment, remove=False))
        assert len(listed) == 2
        assert other.digest[:12] in listed[0]
        assert "demo/bolt, maskrd, seed 0, finished" in listed[0]
        assert "1 of 3 trainings" in listed[1]
        assert other.model.exists()
        list(prune(experiment, remove=True))
    assert {stored.digest for stored in stored_trainings(Files(experiment).store)} == {used.digest, working.digest}
    assert mine.exists()


def test_a_training_that_began_meanwhile_is_not_pruned(experiment: Experiment) -> None:
    other = store(experiment, finished=False, learning_rate=0.5)
    lines = prune(experiment, remove=True)
    assert other.digest[:12] in next(lines)
    with other.locked():
        assert "0 of 1 trainings" in next(lines)
        assert other.is_locked()
        assert other.read("identity.json")
    assert "1 of 1 trainings" in list(prune(experiment, remove=True))[-1]


def test_the_size_is_told_while_a_training_removes_its_files(experiment: Experiment, monkeypatch) -> None:
    stored, files = store(experiment), Stored.files
    size = stored.size()
    monkeypatch.setattr(Stored, "files", lambda self: [*files(self), self.folder / "removed.tmp"])
    assert stored.size() == size > 1_000_000


def test_without_index_nothing_of_the_recipe_is_pruned(experiment: Experiment) -> None:
    index = Files(experiment).index("mvtec_ad", "bolt")
    index.write_text(index.read_text(encoding="utf-8").replace('"demo"', '"mvtec_ad"'), encoding="utf-8")
    store(experiment)
    index.unlink()
    assert len(list(prune(experiment, remove=True))) == 1
    assert len(stored_trainings(Files(experiment).store)) == 1


def test_status_shows_how_far_a_training_is(experiment: Experiment) -> None:
    stored = store(experiment, finished=False)
    assert "In training" not in shown(experiment)
    with stored.locked():
        text = shown(experiment)
        assert "1 of 200" in text
        assert "3:19:00" in text
        (stored.folder / "progress.json").write_text("[]", encoding="utf-8")
        assert "In training" in shown(experiment)
    assert "trainings: 1 " in text


def test_watching_renews_until_ctrl_c(experiment: Experiment, monkeypatch, capsys) -> None:
    looks = iter([None, None])

    def sleep(seconds: float) -> None:
        if next(looks, "ctrl-c") == "ctrl-c":
            raise KeyboardInterrupt

    monkeypatch.setattr("maskrd.inspection.status.time.sleep", sleep)
    watch_overview(experiment)
    assert "all, each once" in capsys.readouterr().out


def test_prune_runs_from_the_command_line(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"results: {tmp_path / 'results'}\n", encoding="utf-8")
    result = CliRunner().invoke(app, ["prune", "--configfile", str(mine)])
    assert (result.exit_code, result.exception) == (0, None)
    assert "Nothing to remove: all 0 trainings" in result.output
