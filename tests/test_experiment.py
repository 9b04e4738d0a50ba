import copy
import json
import re
from pathlib import Path
from typing import Literal

import pytest
from pydantic import TypeAdapter, ValidationError

from maskrd.config.load import load_experiment, parse_experiment
from maskrd.config.methods import METHODS, RecordedTraining, parse_training
from maskrd.config.record import compare_settings, read_record
from maskrd.config.settings import Evaluation, GradientTraining, Levels, Model, canonical_json
from maskrd.config.view import View
from maskrd.errors import MaskrdError
from tests.conftest import ROOT


def complaint(config) -> str:
    with pytest.raises(MaskrdError) as error:
        parse_experiment(config)
    return str(error.value)


def test_shipped_configuration_is_valid_and_names_the_papers_205_models(config):
    experiment = parse_experiment(config)
    paper = [experiment.view(f"table{number}") for number in range(1, 8)]
    requests = [model for report in paper for model in report.models()]
    assert len(set(requests)) == 205
    # Tables 1 and 3 share 15 models, Tables 4 to 7 ask for 15 a row, Table 2 for 10.
    assert len(requests) == 15 + 10 + 15 + 15 * (3 + 2 + 4 + 7)


def test_unknown_key_is_named_with_the_nearest_known_one(config):
    config["seedz"] = [0]
    assert complaint(config) == "config: unknown 'seedz'. Did you mean 'seeds'?"


def test_unknown_training_key_is_named_with_the_nearest_known_one(config):
    config["train"]["epoch"] = 3
    assert "unknown 'epoch'. Did you mean 'epochs'?" in complaint(config)


def test_unknown_key_of_a_variant_is_named(config):
    config["variants"]["no_fmm"] = {"fmn": False}
    assert complaint(config) == "variants.no_fmm: unknown 'fmn'. Did you mean 'fmm'?"


def test_a_key_unlike_any_other_lists_all(config):
    config["variants"]["no_fmm"] = {"zzz": False}
    assert "Known: " in complaint(config)
    assert "mask_ratio" in complaint(config)


def test_unknown_nested_key_is_named(config):
    config["datasets"]["mvtec_ad"]["catgories"] = ["screw"]
    assert complaint(config) == "config.datasets.mvtec_ad: unknown 'catgories'. Did you mean 'categories'?"


def test_several_errors_are_told_at_once(config):
    config["device"] = "tpu"
    config["seeds"] = []
    lines = complaint(config).splitlines()
    assert len(lines) == 2
    assert any(line.startswith("config.device: ") and "'tpu'" in line for line in lines)
    assert any(line.startswith("config.seeds: ") for line in lines)


def test_missing_key_is_named(config):
    del config["train"]["epochs"]
    assert "epochs: missing. Give it a value" in complaint(config)


def test_unknown_category_of_an_archive_is_named(config):
    config["datasets"]["cifar10"]["categories"] = ["airplane", "car", "automobil"]
    assert complaint(config).startswith("datasets.cifar10.categories: unknown 'car'.")
    config["datasets"]["cifar10"]["categories"] = ["automobil"]
    assert complaint(config).endswith("Did you mean 'automobile'?")


def test_unknown_variant_of_a_table_is_named(config):
    config["tables"]["table5"]["variants"] = ["no_fnm", "maskrd"]
    assert complaint(config) == "tables.table5.variants: unknown 'no_fnm'. Did you mean 'no_fmm'?"


def test_unknown_dataset_of_a_table_is_named(config):
    config["datasets"] = {"mvtec_ad": config["datasets"]["mvtec_ad"]}
    assert complaint(config).startswith("tables.table2.dataset: unknown 'cifar10'. ")


@pytest.mark.parametrize(
    "name", ["../escape", "a/b", "a b", "$(touch x)", "-rf", ".", "a;b", "bottle\n", "", "..", "'", "{seed}"]
)
def test_names_that_are_no_plain_words_are_refused(config, name):
    config["datasets"]["mvtec_ad"]["categories"] = [name]
    assert "datasets.mvtec_ad.categories.0" in complaint(config)
    config["datasets"]["mvtec_ad"]["categories"] = ["bottle"]
    config["variants"][name] = {"epochs": 7}
    assert "variants" in complaint(config)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epochs", 0),
        ("epochs", "many"),
        ("epochs", None),
        ("image_size", 100),
        ("batch_size", 1),
        ("learning_rate", -1),
        ("learning_rate", "nan"),
        ("precision", "fp16"),
        ("layers", []),
        ("layers", [1, 4]),
        ("layers", [1, 1]),
        ("mask_ratio", 1),
        ("msff_channels", 20),
        ("fmm", "none"),
        ("patience", 3),
        ("checkpoint", "best_validation"),
    ],
)
def test_values_that_make_no_sense_are_refused(config, key, value):
    config["train"][key] = value
    assert key in complaint(config)


def test_numbers_as_text_are_numbers(config):
    """As YAML reads 1e-3, and as Snakemake's --config may hand values over."""
    config["train"].update(learning_rate="1e-3", epochs="7", weight_decay="1e-4", fmm="true", msff_channels="64")
    training = parse_experiment(config).recipe("mvtec_ad", "maskrd").training
    assert (training.learning_rate, training.epochs, training.weight_decay) == (1e-3, 7, 1e-4)
    assert training.fmm is True
    assert training.msff_channels == 64


def test_nested_values_of_the_command_line_are_text_and_mean_the_same(config):
    """Snakemake reads --config 'train={layers: [1, 2], patience: null}' as text below the first key."""
    config["train"].update(layers=["1", "2"], patience="null", epochs="3", fmm="false", betas=["0.5", "0.9"])
    config["datasets"]["mvtec_ad"].update(path="null")
    config["weights"].update(resnet18="null")
    config["variants"] = {"maskrd": {"layers": ["3", "1"]}}
    config.update(tables={"table1": config["tables"]["table1"]}, figures={})
    experiment = parse_experiment(config)
    training = experiment.recipe("mvtec_ad", "maskrd").training
    assert training.layers == (1, 3)
    assert (training.patience, training.epochs, training.fmm) == (None, 3, False)
    assert experiment.datasets["mvtec_ad"].path is experiment.weights["resnet18"] is None


def test_the_slips_of_a_command_line_are_told_with_what_to_write(config):
    config["seeds"] = 1
    assert complaint(config) == "config.seeds: not a list (value: 1). Write [1]."
    config["seeds"] = [1]
    config["train"]["epochs:3"] = ""
    assert complaint(config).endswith("unknown 'epochs:3'. A space must follow the colon: epochs: 3")
    config["train"] = 3
    assert complaint(config) == "config.train: not a mapping (value: 3). Write {key: value}."


def test_an_empty_list_and_a_list_of_one_wrong_entry_are_told_apart(config):
    config["backbones"] = []
    assert complaint(config) == "config.backbones: an empty list. Write at least one entry."
    config["backbones"] = ["resnet19"]
    assert complaint(config) == "config.backbones.0: unknown 'resnet19'. Did you mean 'resnet18'? (value: 'resnet19')"


def test_variant_overrides_dataset_overrides_train(config):
    config["train"]["epochs"] = 5
    config["datasets"]["cifar10"]["epochs"] = 4
    config["variants"]["shorter"] = {"epochs": 3}
    experiment = parse_experiment(config)
    assert experiment.recipe("mvtec_ad", "maskrd").training.epochs == 5
    assert experiment.recipe("cifar10", "maskrd").training.epochs == 4
    assert experiment.recipe("cifar10", "shorter").training.epochs == 3
    assert experiment.recipe("cifar10", "maskrd").evaluation.score == config["datasets"]["cifar10"]["score"]
    assert experiment.recipe("mvtec_ad", "maskrd").evaluation.score == config["evaluation"]["score"]


def test_equal_recipes_are_refused(config):
    config["variants"]["shorter"] = {"epochs": 3}
    config["variants"]["three"] = {"epochs": "3"}
    message = complaint(config)
    assert "variants.three and variants.shorter are the same recipe" in message
    assert "Remove one" in message


@pytest.mark.parametrize("changed", [{"mask_ratio": 0.3}, {"loss": "flattened"}, {"fmm": False}])
def test_settings_may_become_what_a_variant_stands_for(config, changed):
    """Both then have one model, that of maskrd."""
    defaults = copy.deepcopy(config)
    config["train"].update(changed)
    experiment = parse_experiment(config, defaults)
    variant = {"mask_ratio": "mask_ratio_30", "loss": "flattened_loss", "fmm": "no_fmm"}[next(iter(changed))]
    assert experiment.trained_as("mvtec_ad", variant) == "maskrd"
    config["variants"]["whole"] = {"simam": True}  # a mistake as ever
    with pytest.raises(MaskrdError, match="are the same recipe"):
        parse_experiment(config, defaults)


@pytest.mark.parametrize("variant", ["stpm", "mkd", "msfd", "asymmetric"])
def test_settings_of_another_method_make_no_other_model(config, variant):
    defaults = copy.deepcopy(config)
    before = parse_experiment(config, defaults).recipe("mvtec_ad", variant)
    config["train"].update(mask_ratio=0.25, fmm=False, msff_channels=64, loss="flattened", scconv_fusion="all_channels")
    config["train"].update({"cosine_weight": 2} if variant != "msfd" else {"mse_weight": 2})
    assert parse_experiment(config, defaults).recipe("mvtec_ad", variant) == before
    config["train"].update(image_size=64)
    config["variants"]["mkd"].pop("image_size")
    assert parse_experiment(config, defaults).recipe("mvtec_ad", variant) != before


def test_a_recipe_holds_the_settings_of_its_method_only(config):
    experiment = parse_experiment(config)
    recipe = json.loads(experiment.recipe("mvtec_ad", "stpm").training_json())
    assert recipe["layers"] == [1, 2, 3]
    assert not {"fmm", "mask_ratio", "scconv", "mse_weight", "teacher_norm"} & set(recipe)


@pytest.mark.parametrize(
    ("difference", "expected"),
    [
        ({"method": "stpm", "fmm": False}, "variants.mine: 'fmm' is a setting of maskrd, but not of method stpm"),
        ({"mse_weight": 1}, "variants.mine: 'mse_weight' is a setting of mkd, but not of method maskrd"),
        ({"method": "stpm", "layer": [2]}, "variants.mine: unknown 'layer'. Did you mean 'layers'?"),
        ({"method": {"stpm": 1}}, "variants.mine.method: unknown \"{'stpm': 1}\""),
        ({"method": "stmp"}, "variants.mine.method: unknown 'stmp'. Did you mean 'stpm'?"),
    ],
)
def test_a_setting_that_the_method_does_not_have_is_refused(config, difference, expected):
    config["variants"]["mine"] = difference
    assert complaint(config).startswith(expected)


@pytest.mark.parametrize("method", METHODS)
def test_methods_read_all_their_settings_and_no_others(config, method):
    """Their own ones in their own file; the settings of every training also in the engine."""
    code = {"external": "engine/anomaly_maps"}.get(method, f"methods/{method}")
    text = (ROOT / f"maskrd/{code}.py").read_text(encoding="utf-8")
    read = set(re.findall(r"settings\.(\w+)", text))
    own = set(METHODS[method].model_fields) - set(GradientTraining.model_fields)
    assert own <= read <= set(METHODS[method].model_fields)


def test_a_setting_of_a_new_method_reaches_its_recipe(config, monkeypatch):
    """It was once reset in silence to the value of `train`."""

    class LinearSettings(GradientTraining):
        method: Literal["linear"]
        layers: Levels
        squeeze: int = 8

    monkeypatch.setitem(METHODS, "linear", LinearSettings)
    config["variants"]["linear"] = {"method": "linear", "layers": [2], "squeeze": 4}
    training = parse_experiment(config).recipe("mvtec_ad", "linear").training
    assert (training.layers, training.squeeze) == ((2,), 4)


def test_records_of_earlier_versions_are_read(config):
    """They hold the settings of every method."""
    training = parse_experiment(config).recipe("mvtec_ad", "stpm").training
    recorded = TypeAdapter(RecordedTraining)
    values = training.model_dump(mode="json") | {"fmm": True, "mask_ratio": 0.5, "teacher_norm": "frozen"}
    assert recorded.validate_python(values) == training
    with pytest.raises(ValidationError, match="epoch"):
        recorded.validate_python(values | {"epoch": 3})


def test_every_reference_record_is_readable():
    """With its metrics unchanged, whichever version wrote it."""
    paths = list((ROOT / "results/reference").rglob("metrics.json"))
    assert len(paths) > 100
    for path in paths:
        written = json.loads(path.read_text(encoding="utf-8"))
        record = read_record(path).model_dump(mode="json")
        assert all(record[key] == value for key, value in written.items() if not isinstance(value, dict))


def test_a_record_and_a_recipe_are_compared_one_way(config):
    recorded = parse_experiment(config).recipe("mvtec_ad", "maskrd").training
    wanted = recorded.model_dump(mode="json") | {"epochs": 3, "fmm": False, "msff_channels": None, "precision": "auto"}
    assert list(map(str, compare_settings(recorded, wanted))) == [
        "epochs 200 instead of 3",
        "msff_channels teacher instead of none",
        "fmm on instead of off",
    ]


def test_a_misspelt_category_is_known_before_its_download(config):
    defaults = copy.deepcopy(config)
    config["datasets"]["mvtec_ad"]["categories"] = ["botle"]
    with pytest.raises(MaskrdError, match=r"Did you mean 'bottle'\?.*datasets\.mvtec_ad\.path"):
        parse_experiment(config, defaults)
    config["datasets"]["mvtec_ad"]["archive"] = "mine.tar"
    parse_experiment(config, defaults)


def test_a_difference_that_is_none_is_refused(config):
    config["variants"]["whole"] = {"fmm": config["train"]["fmm"]}
    assert "variants.whole and variants.maskrd are the same recipe" in complaint(config)


def test_a_variant_may_be_valid_on_its_own_dataset_only(config):
    """CIFAR-10 has 64 px."""
    config["variants"]["cropped"] = {"crop": 192}
    config["tables"]["own"] = {"dataset": "mvtec_ad", "rows": "variants", "variants": ["cropped", "maskrd"],
                               "metrics": ["image_auroc"], "caption": "Mine."}  # fmt: skip
    experiment = parse_experiment(config)
    assert experiment.trained_as("cifar10", "maskrd") == "maskrd"
    assert experiment.trained_as("mvtec_ad", "cropped") == "cropped"


def test_maps_made_elsewhere_need_images_in_files_of_their_own(config):
    config["variants"]["theirs"] = {"method": "external", "maps": "theirs/{category}"}
    config["tables"]["table2"]["variants"] = ["theirs", "maskrd"]
    assert "table2: variant theirs has maps made elsewhere" in complaint(config)


def test_an_error_of_a_whole_section_does_not_repeat_it(config):
    config["train"]["patience"] = 3
    assert "(value:" not in complaint(config)
    assert "validation_fraction" in complaint(config)


def test_variants_that_differ_in_evaluation_only_share_a_model(config):
    config["variants"]["mean_score"] = {"score": "mean", "blur_sigma": 2}
    config["variants"]["no_fmm_sharp"] = {"fmm": False, "blur_sigma": 0}
    experiment = parse_experiment(config)
    assert experiment.trained_as("mvtec_ad", "mean_score") == "maskrd"
    assert experiment.trained_as("mvtec_ad", "no_fmm_sharp") == "no_fmm"
    assert experiment.trained_as("mvtec_ad", "no_fmm") == "no_fmm"


def test_recipes_are_the_same_text_whatever_the_order_of_keys(config):
    one = parse_experiment(config)
    config["train"] = dict(reversed(config["train"].items()))
    two = parse_experiment(config)
    for dataset in config["datasets"]:
        for variant in config["variants"]:
            recipes = one.recipe(dataset, variant), two.recipe(dataset, variant)
            assert recipes[0].training_json() == recipes[1].training_json()
            assert recipes[0].evaluation_json() == recipes[1].evaluation_json()


def test_recipes_survive_the_command_line(config):
    recipe = parse_experiment(config).recipe("mvtec_ad", "layers_1_2")
    assert parse_training("--recipe", recipe.training_json()) == recipe.training
    assert Evaluation.parse("--evaluation", recipe.evaluation_json()) == recipe.evaluation


def test_a_wrong_recipe_on_the_command_line_names_the_option(config):
    text = json.loads(parse_experiment(config).recipe("mvtec_ad", "maskrd").training_json())
    with pytest.raises(MaskrdError, match=r"--recipe: unknown 'epoch'. Did you mean 'epochs'"):
        parse_training("--recipe", json.dumps({**text, "epoch": 3}))
    with pytest.raises(MaskrdError, match="--recipe"):
        parse_training("--recipe", "not json")


def test_report_lists_its_models_in_order(config):
    config["seeds"] = [0, 1]
    config["datasets"]["mvtec_ad"]["categories"] = ["screw", "bottle"]
    report = parse_experiment(config).view("table5")
    assert report.backbones == (config["backbones"][-1],)
    assert [(m.variant, m.category, m.seed) for m in report.models()] == [
        (variant, category, seed)
        for variant in ("no_fmm", "maskrd")
        for category in ("screw", "bottle")
        for seed in (0, 1)
    ]
    assert set(report.training) == {"no_fmm", "maskrd"}


def test_only_tables_of_backbones_take_all_of_them(config):
    experiment = parse_experiment(config)
    assert experiment.view("table4").backbones == tuple(config["backbones"])
    assert experiment.view("table1").backbones == ("wide_resnet50_2",)


def test_figures_show_the_first_seed_only(config):
    config["seeds"] = [3, 1]
    assert parse_experiment(config).view("figure7").seeds == (3,)


def test_reports_survive_the_command_line(config):
    experiment = parse_experiment(config)
    for name in ("table1", "table4", "figure7"):
        report = experiment.view(name)
        assert View.parse("--view", canonical_json(report)) == report


def test_a_models_fields_are_its_path():
    model = Model("mvtec_ad", "screw", "no_fmm", "resnet18", 3)
    assert model.path == "mvtec_ad/screw/no_fmm/resnet18/seed3"


@pytest.mark.parametrize(
    "text",
    [
        "train: {crop: 64}",
        "train: {image_size: 320, crop: 256}",
        "train: {image_size: 128}",
        "train: {patience: 10, validation_fraction: 0.1}",
        "train: {checkpoint: best_validation, validation_fraction: 0.1}",
        "train: {layers: [2, 3]}",
        "train: {fmm: false}",
        "train: {mask_ratio: 0}",
        "evaluation: {score_layers: [3]}",
        "evaluation: {score: mean}",
        "evaluation: {defect_pixels: any}",
        "datasets: {cifar10: {score: max}}",
        "datasets: {cifar10: {image_size: 32}}",
        "variants: {small: {crop: 192}}\ntables: {t: {dataset: mvtec_ad, rows: variants, variants: [small], "
        "metrics: [aupro], caption: t}}",
    ],
)
def test_no_shipped_variant_forbids_a_setting(tmp_path, text) -> None:
    """Variants and datasets that the user didn't think of, such as MKD's 128 pixels or CIFAR-10's 64."""
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    load_experiment([path])


@pytest.mark.parametrize(
    ("section", "value", "expected"),
    [
        ("seeds", [0, 1, 0], "config.seeds: 0 is there more than once"),
        ("backbones", ["resnet18", "resnet18"], "resnet18 is there more than once"),
        (
            "tables",
            {"t": {"dataset": "mvtec_ad", "rows": "variants", "variants": ["rd", "rd"]}},
            "config.tables.t.variants: rd is there more than once",
        ),
        (
            "figures",
            {"f": {"dataset": "mvtec_ad", "variants": ["stpm", "stpm"], "images_per_category": 1, "caption": "f"}},
            "config.figures.f.variants: stpm is there more than once",
        ),
        ("datasets", {"cifar10": {"image_size": 50}}, "config.datasets.cifar10.image_size: "),
        ("weights", {"resnet81": None}, "config.weights.resnet81"),
        ("datasets", {"mvtec_ad": {"catgories": ["bottle"]}}, "Did you mean 'categories'?"),
        (
            "tables",
            {"t": {"dataset": "mvtec_ad", "rows": "backbones", "variants": ["maskrd", "no_fmm"]}},
            "of one variant",
        ),
    ],
)
def test_mistakes_in_lists_and_nested_keys_are_named(config, section, value, expected) -> None:
    if section == "tables":
        value["t"].update(metrics=["aupro"], caption="t")
    config[section] = value
    with pytest.raises(MaskrdError, match=re.escape(expected)):
        parse_experiment(config)


def test_the_order_of_layers_makes_no_other_recipe(config) -> None:
    config["variants"]["reversed"] = {"layers": [3, 2, 1]}
    with pytest.raises(MaskrdError, match="are the same recipe"):
        parse_experiment(config)


def test_a_shared_model_keeps_its_name_whatever_the_order(config) -> None:
    config["variants"] = {"blurred": {"blur_sigma": 9}, **config["variants"]}
    assert parse_experiment(config).trained_as("mvtec_ad", "blurred") == "maskrd"


def test_home_is_expanded_in_paths(config) -> None:
    config |= {"results": "~/runs", "weights": {"resnet18": "~/r18.pth"}}
    config["datasets"]["mvtec_ad"] = {"path": "~/mvtec", "categories": ["gear"]}
    experiment = parse_experiment(config)
    home = Path.home()
    assert experiment.results == home / "runs"
    assert experiment.datasets["mvtec_ad"].path == home / "mvtec"
    assert experiment.weights["resnet18"] == str(home / "r18.pth")


def test_a_table_is_not_named_like_paired_differences(config) -> None:
    config["tables"]["table5_paired"] = config["tables"]["table5"]
    assert "tables.table5_paired: " in complaint(config)


def test_a_key_added_later_changes_no_recipe_until_it_is_set(config) -> None:
    """Its default is what was done before it: upgrading must not retrain anything."""
    before = parse_experiment(config).recipe("mvtec_ad", "maskrd")
    for key, field in METHODS["maskrd"].model_fields.items():
        if not field.is_required():
            assert key not in json.loads(before.training_json())
            config["train"].pop(key, None)  # `selection` is made from `evaluation`
    assert parse_experiment(config).recipe("mvtec_ad", "maskrd") == before
    assert parse_training("recipe", before.training_json()) == before.training


# Variants that are trained and tested for each category; what differs in testing only shares a training.
@pytest.mark.parametrize(
    ("table", "trained", "tested"),
    [
        ("ablation_mask_ratio", 5, 5),
        ("ablation_fmm", 3, 3),
        ("ablation_modules", 5, 5),
        ("ablation_weight_decay", 2, 2),
        ("ablation_image_size", 2, 2),
        ("ablation_cifar10", 3, 4),
        ("ablation_loss", 2, 2),
        ("ablation_fusion", 2, 2),
        ("ablation_subset", 7, 13),
        ("ablation_score", 1, 2),
        ("ablation_pro", 3, 3),
        ("ablation_checkpoint", 4, 4),
    ],
)
def test_robustness_ablations_share_what_they_can(config, table, trained, tested) -> None:
    experiment = parse_experiment(config)
    models = list(experiment.view(table).models())
    assert len({model.variant for model in models}) == tested
    assert len({experiment.trained_as(model.dataset, model.variant) for model in models}) == trained


@pytest.mark.parametrize("layers", ["1", "2", "3", "1_2", "1_3", "2_3"])
def test_both_readings_of_table7_have_its_subsets(config, layers) -> None:
    experiment = parse_experiment(config)
    recipes = {
        name: experiment.recipe("mvtec_ad", f"{name}_{layers}") for name in ("layers", "score_layers", "msff_layers")
    }
    subset = recipes["layers"].training.layers
    assert recipes["score_layers"].evaluation.score_layers == subset
    assert recipes["score_layers"].training == experiment.recipe("mvtec_ad", "maskrd").training
    expected = recipes["layers"].training.model_copy(update={"msff_layers": "distilled"})
    assert recipes["msff_layers"].training == expected


@pytest.mark.parametrize(
    ("difference", "expected"),
    [
        ({"layers": [1, 2], "score_layers": [3]}, "score_layers (3,) can't be scored: its layers are (1, 2)"),
        ({"method": "mkd", "backbone": "vgg16", "score_layers": [1]}, "mkd has no map of a single level"),
        ({"score_layers": [1, 1]}, "1 is there more than once"),
        ({"score_layers": []}, "score_layers"),
        ({"checkpoint": "best_on_test", "patience": 3, "validation_fraction": 0.1}, "Set patience: null"),
        ({"checkpoint": "best_on_test", "selection": {"score": "max"}}, "unknown 'selection'"),
    ],
)
def test_robustness_keys_that_make_no_sense_are_refused(config, difference, expected) -> None:
    config["variants"]["mine"] = difference
    assert expected in complaint(config)


def test_the_leak_is_tested_as_its_numbers_are(config) -> None:
    """Nothing but the leak knows `selection`; another image score makes another choice, so another model."""
    config["variants"]["leak_by_mean"] = {"checkpoint": "best_on_test", "score": "mean"}
    experiment = parse_experiment(config)
    for name in config["variants"]:
        recipe = experiment.recipe("mvtec_ad", name)
        selection = getattr(recipe.training, "selection", None)  # methods without a gradient choose no checkpoint
        assert selection == (recipe.evaluation if recipe.training.leaks else None)
        assert ("selection" in recipe.training_json()) is recipe.training.leaks
    assert experiment.trained_as("mvtec_ad", "leak_by_mean") == "leak_by_mean"
    recipe = experiment.recipe("mvtec_ad", "leak_by_mean").training
    assert parse_training("--recipe", canonical_json(recipe)) == recipe


def test_a_leak_gets_into_no_table_by_accident(config) -> None:
    experiment = parse_experiment(config)
    shown = {name for name in config["tables"] if any(t.leaks for t in experiment.view(name).training.values())}
    assert shown == {"ablation_checkpoint"}
    config["tables"]["table5"]["variants"] = ["best_on_test", "maskrd"]
    assert complaint(config).startswith("table5: variant best_on_test has checkpoint: best_on_test, a leak")
    config["tables"]["table5"]["leak"] = True
    parse_experiment(config)
    config["figures"]["figure7"]["variants"] = ["best_on_test"]
    assert complaint(config).startswith("figure7: variant best_on_test")


def test_a_leak_for_all_is_refused(config) -> None:
    config["train"]["checkpoint"] = "best_on_test"
    config["variants"]["best_on_test"] = {"checkpoint": "last"}
    assert complaint(config).startswith("table1: variant maskrd has checkpoint: best_on_test")
