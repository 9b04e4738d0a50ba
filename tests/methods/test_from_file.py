"""A method in a file of the user's: planned without running it, part of the model's identity, errors by line."""

import json
from pathlib import Path

import pytest

from maskrd.config.load import parse_experiment
from maskrd.engine.evaluation import EvaluationJob, evaluate
from maskrd.engine.machine import Machine
from maskrd.engine.training import train
from maskrd.errors import MaskrdError
from tests.conftest import ROOT, SQUEEZE, TINY

EXAMPLE = ROOT / "docs/examples/my_method.py"


@pytest.fixture
def recipe_of(config, tmp_path):
    """The recipe of a variant `mine` of a file; the file lies in tmp_path."""

    def build(text: str, name: str, folder: Path = tmp_path, **settings):
        path = folder / "my_method.py"
        path.write_text(text, encoding="utf-8")
        config["train"].update({**TINY, "epochs": 2, "batch_size": 3})
        config["variants"]["mine"] = {"method": f"{path}:{name}", "settings": settings}
        return parse_experiment(config).recipe("mvtec_ad", "mine")

    return build


@pytest.fixture
def run(training_job, tmp_path, evaluation):
    """Train and test with a recipe; return metrics.json."""

    def call(recipe) -> dict:
        job = training_job(method="maskrd")
        job = type(job)(**{**vars(job), "recipe": recipe.training})
        train(job)
        files = (job.index, job.data, job.teacher, job.model)
        outputs = (tmp_path / name for name in ("m.json", "s.csv", "g.npz"))
        evaluate(EvaluationJob(*files, evaluation(), job.recipe, Machine("cpu")), *outputs)
        return json.loads((tmp_path / "m.json").read_text(encoding="utf-8"))

    return call


def test_the_example_of_the_documentation_runs(recipe_of, run):
    recipe = recipe_of(EXAMPLE.read_text(encoding="utf-8"), "Mine", level=3)
    record = run(recipe)
    assert 0 <= record["image_auroc"] <= 1
    assert record["training"]["recipe"]["settings"] == {"level": 3}
    assert record["training"]["epochs"] == 1
    assert record["training"]["recipe"]["file_sha256"] == recipe.training.file_sha256


def test_a_method_with_a_gradient_runs(recipe_of, run):
    assert run(recipe_of(SQUEEZE, "Squeeze"))["training"]["epochs"] == 2


def test_a_changed_file_makes_another_model(recipe_of):
    before, after = (recipe_of(text, "Squeeze").training_json() for text in (SQUEEZE, SQUEEZE + "# changed\n"))
    assert before != after


def test_a_file_that_changes_during_a_run_is_refused(recipe_of, run, tmp_path):
    recipe = recipe_of(SQUEEZE, "Squeeze")
    (tmp_path / "my_method.py").write_text(SQUEEZE + "# changed\n", encoding="utf-8")
    with pytest.raises(MaskrdError, match=r"my_method\.py: not the file that this model was made with"):
        run(recipe)


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (
            "class Mine:\n    pass\n",
            "Main",
            r"variants\.mine\.method: .*has no class of that name: .*'Mine'",
        ),
        ("class Mine:\n    def f(:\n", "Mine", r"variants\.mine\.method: .*my_method\.py:2: not valid Python"),
    ],
)
def test_a_file_is_checked_before_anything_runs(recipe_of, text, name, message):
    with pytest.raises(MaskrdError, match=message):
        recipe_of(text, name)


def test_a_missing_file_is_named(config):
    config["variants"]["mine"] = {"method": "nowhere/my_method.py:Mine"}
    with pytest.raises(MaskrdError, match=r"variants\.mine\.method: nowhere/my_method\.py: No such file"):
        parse_experiment(config)


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        (("super().__init__(settings, teacher)", "settings.settings['code']"), 8),
        (("return cosine", "1 / 0; return cosine"), 13),
        (("maps = upsample(", "maps = upsample(1, "), 16),
        (("import torch", "import torch, no_such_module"), 2),
    ],
)
def test_an_error_names_file_and_line(recipe_of, run, changed, line):
    with pytest.raises(MaskrdError, match=rf"my_method\.py:{line}: \w+: "):
        run(recipe_of(SQUEEZE.replace(*changed), "Squeeze"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 / 0\nclass Mine: pass\n", r"my_method\.py:1: ZeroDivisionError"),
        ("class Mine: pass\nreturn 1\n", r"my_method\.py:2: SyntaxError"),
        ("class Mine: pass\nraise SystemExit(0)\n", r"my_method\.py:2: SystemExit"),
        ("class Mine: pass\n", r"my_method\.py: TypeError: Mine\(\) takes no arguments"),
        (
            "from maskrd.methods.base import Method\nclass Mine(Method):\n    def __init__(self, *given): pass\n",
            r"my_method\.py: Mine\.__init__ must call super",
        ),
    ],
)
def test_errors_of_a_file_with_a_relative_name(recipe_of, run, tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MaskrdError, match=f"^{message}"):
        run(recipe_of(text, "Mine", folder=Path()))


def test_another_class_is_refused(recipe_of, run):
    with pytest.raises(MaskrdError, match="Mine must be a subclass of Method"):
        run(recipe_of("class Mine:\n    def __init__(self, *given):\n        pass\n", "Mine"))
