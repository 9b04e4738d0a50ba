"""The recipe and the files of every configured model are those of pinned.yaml: no change of them is an accident.

After a change that is meant, write the file anew at the top of the repository, and read what became different:

    python -m tests.test_pinned
"""

import difflib
import hashlib
import json
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest

from maskrd.config.experiment import Experiment, Recipe
from maskrd.config.files import Files
from maskrd.config.load import load_experiment
from maskrd.config.settings import Model
from tests.conftest import ROOT

PINNED = ROOT / "tests/pinned.yaml"
CONFIGURATIONS = {"config.yaml": [], "workflow/config/demo.yaml": [Path("workflow/config/demo.yaml")]}
HEADER = """\
# Written by `python -m tests.test_pinned`. Of every configuration:
# each recipe that a table or figure uses, by dataset/variant: digest, the variant that the model is named after where
# several share it, and the settings that differ from `reference`;
# each table and figure: how many models, and a digest of the paths of their metrics and weights.
"""


def short_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def difference(recipe: Recipe, reference: Recipe) -> dict[str, object]:
    own, other = (
        recipe.training.model_dump(mode="json") | recipe.evaluation.model_dump(mode="json")
        for recipe in (recipe, reference)
    )
    return {key: own[key] for key in sorted(own) if key not in other or own[key] != other[key]}


def recipe_lines(experiment: Experiment, models: list[Model]) -> Iterator[str]:
    reference = experiment.recipe(models[0].dataset, "maskrd")
    yield f"  reference: {reference.training_json()}"
    yield f"  reference_evaluation: {reference.evaluation_json()}"
    yield "  recipes:"
    for dataset, variant in sorted({(model.dataset, model.variant) for model in models}):
        recipe = experiment.recipe(dataset, variant)
        digest = short_digest(recipe.training_json() + recipe.evaluation_json())
        trained = experiment.trained_as(dataset, variant)
        shared = "" if trained == variant else f", trained as {trained}"
        yield f"    {dataset}/{variant}: {digest}{shared}, {json.dumps(difference(recipe, reference))}"


def file_lines(experiment: Experiment, views: dict[str, list[Model]]) -> Iterator[str]:
    yield "  files:"
    for name, models in sorted(views.items()):
        files = [Files(experiment).model(model) for model in models]
        paths = "\n".join(f"{file.metrics} {file.weights}" for file in files)
        yield f"    {name}: {len(models)} models, {short_digest(paths)}"


def pinned_text() -> str:
    lines = [HEADER.rstrip()]
    for name, files in CONFIGURATIONS.items():
        experiment = load_experiment(files)
        views = {view: list(experiment.view(view).models()) for view in (*experiment.tables, *experiment.figures)}
        lines.append(f"{name}:")
        lines += recipe_lines(experiment, [model for models in views.values() for model in models])
        lines += file_lines(experiment, views)
    return "\n".join(lines) + "\n"


def test_recipes_and_files_are_the_pinned_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found, expected = pinned_text().splitlines(), PINNED.read_text(encoding="utf-8").splitlines()
    changed = "\n".join(difflib.unified_diff(expected, found, "pinned", "found", lineterm="", n=0))
    assert not changed, f"{changed}\nIf it is meant: python -m tests.test_pinned"


if __name__ == "__main__":
    with chdir(ROOT):
        PINNED.write_text(pinned_text(), encoding="utf-8")
