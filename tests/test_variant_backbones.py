"""A variant's own backbone: where its models lie, and what is refused."""

import pytest

from maskrd.config.load import parse_experiment
from maskrd.config.settings import canonical_json
from maskrd.config.view import View
from maskrd.errors import MaskrdError

TABLE = {
    "dataset": "mvtec_ad", "rows": "variants", "variants": ["rd", "stpm", "mkd"], "metrics": ["aupro"], "caption": "",
}  # fmt: skip


def backbones(config, name: str) -> dict[str, list[str]]:
    report = parse_experiment(config).view(name)
    found: dict[str, list[str]] = {}
    for model in report.models():
        found.setdefault(model.variant, []).append(model.backbone)
    return {variant: list(dict.fromkeys(names)) for variant, names in found.items()}


def complaint(config) -> str:
    with pytest.raises(MaskrdError) as error:
        parse_experiment(config)
    return str(error.value)


@pytest.mark.parametrize("rows", ["variants", "categories"])
def test_a_variant_has_its_own_backbone_or_the_last(config, rows):
    config["tables"]["systems"] = {**TABLE, "rows": rows}
    assert backbones(config, "systems") == {"rd": ["wide_resnet50_2"], "stpm": ["resnet18"], "mkd": ["vgg16"]}


def test_figures_follow_the_same_rule(config):
    config["figures"]["figure7"]["variants"] = ["stpm", "mkd", "maskrd"]
    assert backbones(config, "figure7") == {"stpm": ["resnet18"], "mkd": ["vgg16"], "maskrd": ["wide_resnet50_2"]}


def test_a_table_of_backbones_compares_them_all(config):
    config["tables"]["systems"] = {**TABLE, "rows": "backbones", "variants": ["stpm"]}
    assert backbones(config, "systems") == {"stpm": config["backbones"]}


def test_own_backbones_survive_the_command_line(config):
    config["tables"]["systems"] = TABLE
    report = parse_experiment(config).view("systems")
    assert list(View.parse("--view", canonical_json(report)).models()) == list(report.models())


def test_used_backbones_are_the_configured_and_the_variants_own(config):
    assert parse_experiment(config).used_backbones == (*config["backbones"], "vgg16")


def test_unknown_backbone_of_a_variant_is_named(config):
    config["variants"]["stpm"]["backbone"] = "resnet19"
    assert complaint(config) == "variants.stpm.backbone: unknown 'resnet19'. Did you mean 'resnet18'?"


def test_a_backbone_of_another_kind_is_named(config):
    config["variants"]["stpm"]["backbone"] = ["resnet18"]
    assert complaint(config).startswith("variants.stpm.backbone: unknown")


@pytest.mark.parametrize(("variant", "backbone"), [("mkd", "resnet18"), ("stpm", "vgg16")])
def test_a_backbone_that_the_method_cannot_read_is_refused(config, variant, backbone):
    config["tables"]["systems"] = TABLE
    config["variants"][variant]["backbone"] = backbone
    message = complaint(config)
    assert message.startswith(f"systems: variant {variant} ")
    assert f"variants.{variant}.backbone" in message


def test_mkd_has_no_place_in_a_table_of_resnets(config):
    config["tables"]["systems"] = {**TABLE, "rows": "backbones", "variants": ["mkd"]}
    assert "variant mkd (method mkd) needs a VGG" in complaint(config)


def test_the_same_recipe_on_two_backbones_is_no_repetition(config):
    config["variants"]["rd_resnet18"] = {**config["variants"]["rd"], "backbone": "resnet18"}
    parse_experiment(config)
    config["variants"]["rd_again"] = config["variants"]["rd_resnet18"]
    assert "variants.rd_again and variants.rd_resnet18 are the same recipe" in complaint(config)


def test_a_score_that_the_method_lacks_is_refused(config):
    config["variants"]["rd"]["score"] = "loss"
    assert complaint(config).startswith("variants.rd: method maskrd doesn't have score loss")


def test_a_crop_larger_than_the_image_is_refused(config):
    config["variants"]["rd"]["crop"] = 512
    assert "crop 512 is larger than image_size 256" in complaint(config)
