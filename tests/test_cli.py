"""The command line's help, and that rules and commands belong to each other."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
from typer.testing import CliRunner

from maskrd.cli import app, data, models, people, views
from maskrd.config.checks import RULES as RESERVED
from tests.conftest import ROOT

RULES = {
    name: body
    for path in sorted((ROOT / "workflow/rules").glob("*.smk"))
    for name, body in re.findall(r"^rule (\w+):\n((?:(?:    .*)?\n)+)", path.read_text(encoding="utf-8"), re.M)
}
ORDER = (
    *("input", "output", "log", "benchmark", "wildcard_constraints", "localrule", "priority", "conda"),
    *("threads", "resources", "params", "message", "shell"),
)


def commands_of(*groups) -> set[str]:
    return {command.callback.__name__ for group in groups for command in group.app.registered_commands}


def test_each_rule_runs_the_command_of_its_name() -> None:
    assert set(RULES) == commands_of(data, models, views)
    for name, body in RULES.items():
        assert re.findall(r"python -m maskrd (\w+)", body) == [name]


def test_no_table_can_take_the_name_of_a_rule() -> None:
    targets = re.findall(r"^rule (\w+):", (ROOT / "Snakefile").read_text(encoding="utf-8"), re.M)
    assert set(RULES) | set(targets) == RESERVED


@pytest.mark.parametrize("name", RULES)
def test_directives_stand_in_one_order(name: str) -> None:
    directives = re.findall(r"^    (\w+):", RULES[name], re.M)
    places = [ORDER.index(directive) for directive in directives]
    assert all(one < other for one, other in pairwise(places)), directives
    assert {"output", "log", "conda", "message", "shell"} <= set(directives)


def test_help_has_people_first() -> None:
    text = CliRunner().invoke(app, ["--help"]).output
    assert text.index("For people") < text.index("For the rules: data") < text.index("For the rules: models")
    assert commands_of(people) >= {"plan", "status", "explain", "predict"}
    for command in commands_of(people, data, models, views):
        assert re.search(rf"{command}  +[A-Z]", text), command


def test_the_machine_is_three_options() -> None:
    for command in ("train", "evaluate", "speed", "predict"):
        text = CliRunner().invoke(app, [command, "--help"]).output
        assert all(option in text for option in ("--device", "--threads", "--gpu-jobs"))
        assert "machine" not in text.lower()


def test_a_wrong_recipe_is_one_message(tmp_path: Path) -> None:
    names = ("index", "data", "teacher", "model", "metrics", "scores")
    files = [f"--{name}={tmp_path / name}" for name in names]
    result = CliRunner().invoke(app, ["evaluate", *files, "--recipe", "[1]", "--evaluation", "{}"])
    assert str(result.exception) == "--recipe: not a mapping (value: [1])."
