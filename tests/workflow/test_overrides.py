"""What is changed on the command line reaches the recipes, or is refused with what to write instead."""

import re

import pytest

from tests.workflow.conftest import Workspace


def planned_recipe(output: str) -> str:
    """The recipe of the first training that a dry run prints."""
    return re.search(r"--recipe '(.*?)'", output)[1]


def test_nested_values_of_config_reach_the_recipe(clone: Workspace) -> None:
    changes = (
        "train={epochs: 3, patience: null, betas: [0.5, 0.9]}",
        "datasets={mvtec_ad: {categories: [screw], path: null}}",
        "variants={odd: {layers: [3, 1], mask_ratio: 0.4}}",
        "tables={odd: {dataset: mvtec_ad, rows: categories, variants: [odd], metrics: [aupro], caption: Odd}}",
        "seeds=[7]",
    )
    outcome = clone.snakemake("-n", "-p", "--config", *changes, "--", "odd")
    assert outcome.code == 0, outcome.output
    assert outcome.planned["train"] == 1
    recipe = planned_recipe(outcome.output)
    for text in ('"epochs": 3,', '"layers": [1, 3]', '"patience": null', '"betas": [0.5, 0.9]', '"batch_size": 16'):
        assert text in recipe
    assert "--seed 7" in outcome.output


def test_config_has_the_last_word_over_a_file(clone: Workspace) -> None:
    mine = {"backbones": ["resnet18"], "train": {"epochs": 5, "batch_size": 8}}
    outcome = clone.snakemake("-n", "-p", "--config", "train={epochs: 3}", "--", "table5", config=mine)
    assert outcome.code == 0, outcome.output
    assert '"batch_size": 8' in planned_recipe(outcome.output)
    assert '"epochs": 3' in planned_recipe(outcome.output)
    assert outcome.planned["train"] == 30


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("seeds=1", "config.seeds: not a list (value: 1). Write [1]."),
        ("train={epochs:3}", "A space must follow the colon: epochs: 3"),
        ("train={epoch: 3}", "Did you mean 'epochs'?"),
    ],
)
def test_slips_are_told_with_what_to_write(clone: Workspace, given: str, told: str) -> None:
    outcome = clone.snakemake("-n", "--config", given, "--", "table5")
    assert outcome.code != 0
    assert told in outcome.output
