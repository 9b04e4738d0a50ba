"""Configuration files: what lies over what, and what is refused of a file."""

from pathlib import Path

import pytest

from maskrd.config.load import (
    build_experiment,
    fill_in,
    load_experiment,
    parse_experiment,
    read_configuration,
    shipped_configuration,
)
from maskrd.errors import MaskrdError
from tests.conftest import ROOT

DEMO = Path("workflow/config/demo.yaml")


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_config_yaml_is_the_users_and_short() -> None:
    text = (ROOT / "config.yaml").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 150
    assert list(read_configuration(ROOT / "config.yaml")["tables"]) == [f"table{number}" for number in range(1, 8)]


def test_the_catalogue_lies_beneath() -> None:
    lower = {"a": 1, "tables": {"x": {"rows": "variants", "note": "old"}, "y": {}}}
    config = {"tables": {"x": {"note": "new"}, "z": {}}, "a": {"b": 2}}
    expected = {"tables": {"x": {"note": "new", "rows": "variants"}, "z": {}, "y": {}}, "a": {"b": 2}}
    assert fill_in(config, lower) == expected
    assert list(fill_in(config, lower)["tables"]) == ["x", "z", "y"]  # the upper one's come first


def test_a_file_of_the_user_wins_over_config_yaml_and_catalogue(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    text = """
        train: {epochs: 7}
        variants: {rd: {learning_rate: 0.1}}
        tables: {ablation_fmm: {variants: [no_fmm, maskrd]}}
    """
    experiment = load_experiment([written(tmp_path, text)])
    assert experiment.recipe("mvtec_ad", "rd").training.learning_rate == 0.1
    assert experiment.recipe("mvtec_ad", "rd").training.loss == "flattened"
    assert experiment.recipe("mvtec_ad", "maskrd").training.epochs == 7
    assert experiment.tables["ablation_fmm"].variants == ("no_fmm", "maskrd")
    assert experiment.tables["ablation_fmm"].metrics[0] == "image_auroc"


def test_rules_and_commands_have_one_configuration(tmp_path: Path, monkeypatch) -> None:
    """Snakemake reads config.yaml and the user's file; used as a module, the rules get what the user's workflow has."""
    monkeypatch.chdir(ROOT)
    path = written(tmp_path, "seeds: [3]")
    whole = read_configuration(ROOT / "config.yaml") | {"seeds": [3]}
    experiment = load_experiment([path])
    assert experiment == build_experiment(whole, ROOT.joinpath, [path])
    assert experiment == build_experiment({"seeds": [3]}, ROOT.joinpath)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seeds: [0]\ntrain: {epochs: 3}\nseeds: [1]", "mine.yaml: 'seeds' is in lines 1 and 3. Remove one"),
        ("train: {epochs: 3,\n  epochs: 4}", "'epochs' is in lines 1 and 2"),
        ("a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
            f"{name}: &{name} [{', '.join([f'*{of}'] * 9)}]\n" for of, name in zip("abcdef", "bcdefg", strict=True)
        ), "its aliases stand for more than 100,000 values"),
        ("a: &a [*a]", "its aliases stand for more than"),
        ("[1, 2]", "not a mapping"),
        ("", "not a mapping"),
        ("train: {", "can't be read as YAML"),
    ],
)  # fmt: skip
def test_files_that_can_not_be_meant_are_refused(tmp_path: Path, text: str, expected: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(MaskrdError) as error:
        read_configuration(path)
    assert expected in str(error.value)
    with pytest.raises(MaskrdError):
        build_experiment({}, ROOT.joinpath, [path])


def test_a_folder_is_no_configuration_file(tmp_path: Path) -> None:
    with pytest.raises(MaskrdError, match=r": a folder\. Name the YAML file in it\."):
        read_configuration(tmp_path)


def test_a_key_may_repeat_what_it_merges(tmp_path: Path) -> None:
    path = written(tmp_path, "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}")
    assert read_configuration(path)["b"] == {"x": 1, "y": 3}


def test_the_demo_stands_for_the_papers_datasets(monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    paper, demo = load_experiment(), load_experiment([DEMO])
    stand_ins = {"mvtec_ad": "demo", "cifar10": "digits"}
    for kind in ("tables", "figures"):
        for name, spec in getattr(paper, kind).items():
            expected = stand_ins.get(spec.dataset, spec.dataset)
            assert getattr(demo, kind)[name].dataset == demo.view(name).spec.dataset == expected
    assert "Demo (generated)" in demo.view("table1").caption
    assert "MVTec AD" in paper.view("table1").caption


def test_one_dataset_only_stands_for_another() -> None:
    config = shipped_configuration(ROOT.joinpath)
    config["datasets"]["demo"] = {"categories": ["weave"], "stands_for": "cifar10"}
    config["datasets"]["digits"] = {"categories": ["one"], "stands_for": "cifar10"}
    chain = {**config, "datasets": {**config["datasets"], "digits": {"categories": ["one"], "stands_for": "demo"}}}
    with pytest.raises(MaskrdError, match=r"digits\.stands_for: demo has stands_for itself"):
        parse_experiment(chain)
    with pytest.raises(MaskrdError, match=r"digits\.stands_for: demo stands for cifar10 already"):
        parse_experiment(config)


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ("", "the working folder itself"),
        (".", "the working folder itself"),
        ("-x", "with a dash in front"),
        ("a{b}", "reads braces as wildcards"),
        ("README.md", "README.md is a file. Name a folder"),
        ("README.md/quick", "README.md is a file. Name a folder"),
    ],
)
def test_results_need_a_folder_with_a_plain_name(config: dict, results: str, expected: str, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(MaskrdError, match=rf"config\.results: .*{expected}"):
        parse_experiment({**config, "results": results})


@pytest.mark.parametrize("name", ["report", "train", "tables", "verdict"])
def test_a_table_or_figure_named_as_a_rule_is_refused(config: dict, name: str) -> None:
    for kind, of in (("tables", "table1"), ("figures", "figure7")):
        changed = {**config, kind: {**config[kind], name: config[kind][of]}}
        with pytest.raises(MaskrdError, match=rf"{kind}\.{name}: .*another meaning\. Choose another name"):
            parse_experiment(changed)


def test_a_figure_can_not_have_the_name_of_a_table(config: dict) -> None:
    config["figures"]["table1"] = config["figures"]["figure7"]
    with pytest.raises(MaskrdError, match=r"figures\.table1: a table has this name"):
        parse_experiment(config)
