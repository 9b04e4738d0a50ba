"""Tables show what metrics.json files and the paper hold, say what they cover, and never fill a gap."""

import json
import re
import shutil
import statistics
import subprocess
import sys

import pandas as pd
import pytest

from maskrd.config.load import shipped_configuration
from maskrd.config.settings import Evaluation, TableSpec
from maskrd.config.view import View
from maskrd.data.registry import DATASETS, published_counts
from maskrd.errors import MaskrdError
from maskrd.paper import labels
from maskrd.reporting.captions import table_notes
from maskrd.reporting.collect import read_metrics
from maskrd.reporting.grid import build_grid
from maskrd.reporting.latex import escape
from maskrd.reporting.naming import backbone_name, variant_name
from maskrd.reporting.tables import write_table
from tests.conftest import ROOT, training_settings
from tests.records import make_record, write_record

CONFIG = shipped_configuration(ROOT.joinpath)
MVTEC = tuple(category for members in labels().groups.values() for category in members)
METRICS = ("image_auroc", "pixel_auroc", "aupro")
PROS = ("aupro", "pro_per_image", "pro_200_thresholds")
MODULES = ("no_scsatt", "simam_only", "scconv_only", "maskrd")
LEVELS = ("layers_1", "layers_2", "layers_3", "layers_1_2", "layers_2_3", "layers_1_3", "maskrd")


def make_report(name, *, backbones=("wide_resnet50_2",), seeds=(0,), categories=MVTEC, train=None, **spec):
    spec = TableSpec(
        **{"dataset": "mvtec_ad", "rows": "categories", "metrics": METRICS, "caption": "A caption."} | spec
    )
    train = train or {}
    sections = [training_settings(CONFIG["train"] | {"epochs": 200} | train.get(v, {})) for v in spec.variants]
    return View(
        name=name,
        spec=spec,
        title=DATASETS[spec.dataset].title,
        layout=DATASETS[spec.dataset].layout.name,
        categories=categories,
        backbones=backbones,
        seeds=seeds,
        training=dict(zip(spec.variants, sections, strict=True)),
        evaluation=dict.fromkeys(spec.variants, Evaluation(**CONFIG["evaluation"])),
    )


def tabulate(report, folder, values, recipe=None):
    """Write metrics.json of every model with `values(model)` (None: no file), then the table: CSV as text, LaTeX."""
    for model in report.models():
        fractions = values(model)
        if fractions is not None:
            training = report.training[model.variant].model_copy(update=recipe or {})
            percent = {metric: 100 * value for metric, value in fractions.items()}
            record = make_record(model, percent, training, report.evaluation[model.variant])
            write_record(folder / "models", model, record)
    csv, tex = folder / f"{report.name}.csv", folder / f"{report.name}.tex"
    write_table(report, folder / "models", csv, tex, folder / f"{report.name}.html")
    return pd.read_csv(csv, dtype=str, keep_default_na=False), tex.read_text(encoding="utf-8")


def constant(value):
    return lambda _: dict.fromkeys(METRICS, value)


def caption(tex):
    return re.search(r"\\caption\{(.*)\}\n", tex)[1]


def test_table1_has_the_papers_rows_and_columns(tmp_path):
    csv, tex = tabulate(make_report("table1", metrics=["image_auroc"]), tmp_path, constant(0.9876))
    assert csv.columns[0] == "category"
    assert list(csv.columns[-3:]) == ["CA-AE", "Ours (reported)", "Ours (reproduced)"]
    assert list(csv["category"]) == [labels().rows[c] for c in MVTEC] + ["Mean"]
    assert set(csv["Ours (reproduced)"]) == {"98.8"}
    rows = csv.set_index("category")
    assert rows.loc["Mean", "Ours (reported)"] == "99.1"
    assert rows.loc["Grid", "Ours (reported)"] == "100.0"  # reported 100, among numbers with a decimal place
    assert rows.loc["Carpet", "SSIM-AE"] == "67"  # a column of whole numbers
    assert list(rows["STPM"][-2:]) == ["-", "95.5"]
    assert tex.count("Textures & Carpet &") == tex.count("Objects & Bottle &") == 1
    assert tex.count("Textures") == tex.count("Objects") == 1
    assert tex.startswith(r"\begin{sidewaystable}[p]")  # 16 columns would be unreadably small upright
    assert tex.index("Carpet") < tex.index("Bottle") < tex.index("& Mean")
    assert "RecDMs 98.1 (entries: 97.85)" in tex
    assert "CA-AE 91.2 (entries: 91.39)" in tex


def test_table2_leaves_the_shifted_columns_open_cells_open(tmp_path):
    spec = {"dataset": "cifar10", "metrics": ["image_auroc"], "categories": tuple(published_counts("cifar10"))}
    csv, tex = tabulate(make_report("table2", **spec), tmp_path, constant(0.9))
    ours = csv.set_index("category")["Ours (reported)"]
    assert [ours[name] for name in ("Dog", "Frog", "Horse", "Ship")] == ["-"] * 4
    assert (ours["Car"], ours["Mean"]) == ("93.8", "90.9")
    assert "one value is lost" in tex
    assert "Image score: max of the anomaly map." in caption(tex)


def test_table3_has_two_metrics_of_a_method_in_a_cell(tmp_path):
    values = {"pixel_auroc": 0.97, "aupro": 0.9}
    csv, tex = tabulate(make_report("table3", metrics=["pixel_auroc", "aupro"]), tmp_path, lambda _: values)
    assert {"RD pixel_auroc", "RD aupro", "Ours (reproduced) aupro"} <= set(csv.columns)
    row = next(line for line in tex.splitlines() if "& Transistor &" in line)
    assert row.endswith(r"96.1/\textbf{93.2} & \underline{97.0}/\underline{90.0} \\")
    assert r"Cells: AUROC\textsubscript{AL}/PRO." in caption(tex)


def test_groups_come_in_the_papers_order_and_own_categories_without_groups(tmp_path):
    csv, tex = tabulate(make_report("table1", categories=("screw", "wood")), tmp_path, constant(0.9))
    assert list(csv["category"]) == ["Wood", "Screw", "Mean"]
    csv, tex = tabulate(make_report("table1", categories=("screw", "my_part")), tmp_path, constant(0.9))
    assert list(csv["category"]) == ["Screw", "My part", "Mean"]
    assert list(csv["RD image_auroc"]) == ["97.0", "-", "-"]
    assert "Objects" not in tex
    assert "The reported means are dashes, because the paper lacks some of these rows." in caption(tex)


def test_own_categories_alone_have_nothing_reported(tmp_path):
    csv, tex = tabulate(make_report("table1", metrics=["image_auroc"], categories=("a", "b")), tmp_path, constant(0.9))
    assert list(csv.columns) == ["category", "Ours (reproduced)"]
    assert "paper" not in tex


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("table1", {"dataset": "demo", "metrics": ["image_auroc"], "categories": ("bottle", "screw")}),
        ("table2", {"dataset": "digits", "metrics": ["image_auroc"], "categories": tuple(published_counts("digits"))}),
        ("table4", {"dataset": "demo", "rows": "backbones", "backbones": ("demo_resnet18", "demo_resnet50")}),
        ("table6", {"dataset": "demo", "rows": "variants", "variants": MODULES, "backbones": ("demo_resnet18",)}),
    ],
)
def test_generated_data_shows_nothing_reported(tmp_path, name, spec):
    csv, tex = tabulate(make_report(name, **spec), tmp_path, constant(0.9))
    assert not [column for column in csv.columns if "reported" in column]
    assert "The data are not the paper's, so these numbers say nothing about it." in caption(tex)


def test_every_variant_is_a_reproduced_column(tmp_path):
    report = make_report("table1", metrics=["image_auroc"], variants=["rd", "no_fmm", "maskrd"])
    csv, _ = tabulate(report, tmp_path, constant(0.9))
    assert list(csv.columns[-4:]) == ["Ours (reported)"] + [f"{m} (reproduced)" for m in ("RD", "no FMM", "Ours")]


def test_a_restriction_recomputes_reported_means_and_says_so(tmp_path):
    report = make_report("table1", metrics=["image_auroc"], categories=("screw", "transistor"))
    csv, tex = tabulate(report, tmp_path, constant(0.9))
    mean = csv.set_index("category").loc["Mean"]
    assert mean["Ours (reported)"] == "98.4"  # of 98.7 and 98.1
    assert mean["RD"] == "96.9"  # 97.0 and 96.7: 96.85, halves up
    assert mean["STPM"] == "-"
    assert "2 of the paper's 15 categories." in caption(tex)
    assert "entries:" not in tex


def test_missing_and_null_metrics_are_dashes(tmp_path):
    def values(model):
        return {"screw": None, "wood": {"pixel_auroc": 0.9}}.get(model.category, {"image_auroc": 0.9})

    report = make_report("table1", metrics=["image_auroc"])
    csv, tex = tabulate(report, tmp_path, values)
    ours = csv.set_index("category")["Ours (reproduced)"]
    assert ours[ours == "-"].index.tolist() == ["Wood", "Screw", "Mean"]
    assert "14 of 15 models" in caption(tex)
    assert re.search(r"& Screw &.*& -- \\\\", tex)


def test_a_table_without_any_model_is_all_dashes(tmp_path):
    csv, tex = tabulate(make_report("table5", rows="variants", variants=("no_fmm", "maskrd")), tmp_path, lambda _: None)
    assert set(csv["aupro reproduced"]) == {"-"}
    assert list(csv["aupro reported"]) == ["95.3", "95.9"]
    assert "0 of 30 models" in caption(tex)


def test_a_damaged_metrics_file_is_named(tmp_path):
    report = make_report("table1", categories=("screw",))
    path = tmp_path / "models" / next(report.models()).path / "metrics.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"image_auroc": 0.9', encoding="utf-8")
    with pytest.raises(MaskrdError, match=re.escape(str(path))):
        write_table(report, tmp_path / "models", tmp_path / "t.csv", tmp_path / "t.tex", tmp_path / "t.html")
    assert not (tmp_path / "t.csv").exists()


def test_seeds_give_mean_and_sd_with_n(tmp_path):
    screw, wood = [0.98, 0.99, 0.97], [0.90, 0.94, 0.98]
    report = make_report("table1", metrics=["image_auroc"], categories=("wood", "screw"), seeds=(0, 1, 5))

    def values(model):
        return {"image_auroc": {"screw": screw, "wood": wood}[model.category][report.seeds.index(model.seed)]}

    csv, tex = tabulate(report, tmp_path, values)
    means = [100 * (a + b) / 2 for a, b in zip(screw, wood, strict=True)]
    expected = [f"{statistics.mean(v):.1f} ± {statistics.stdev(v):.1f}" for v in ([90, 94, 98], [98, 99, 97], means)]
    assert list(csv["Ours (reproduced)"]) == expected
    assert "n = 3 seeds (0, 1, 5)" in caption(tex)
    assert r"$\pm$" in tex
    assert "±" not in tex


def test_a_mean_of_cells_of_which_one_is_open_ranks_nobody(tmp_path):
    """Table 2's order of dog and others under Ours isn't known."""
    for categories in (("cat", "dog"), ("dog", "cat")):
        report = make_report("table2", dataset="cifar10", metrics=["image_auroc"], categories=categories)
        view_metrics = read_metrics(report, tmp_path)
        mean = build_grid(report, view_metrics).cells[-1]
        assert not any(cell.rank for cell in mean)


def test_only_numbers_of_one_meaning_have_a_difference(tmp_path):
    """RD's reported PRO is per image (maskrd/paper/settings.yaml); the column is pooled."""
    report = make_report("table3", metrics=["pixel_auroc", "aupro"], variants=["rd", "maskrd"], categories=("screw",))
    _, tex = tabulate(report, tmp_path, constant(0.9))
    grid = build_grid(report, read_metrics(report, tmp_path / "models"))
    shown = zip(grid.columns, grid.cells[0], strict=True)
    without = [(c.method, c.metric) for c, cell in shown if c.source == "reproduced" and cell.difference is None]
    assert without == [("RD", "aupro")]
    assert "RD: the reported PRO is PRO per image, so no difference to it is shown." in tex


def test_reported_backbones_are_the_full_methods(tmp_path):
    report = make_report("table4", rows="backbones", variants=["no_fmm"], backbones=("resnet18", "wide_resnet50_2"))
    csv, tex = tabulate(report, tmp_path, constant(0.9))
    assert not [name for name in csv.columns if "reported" in name]
    assert "Variant: no FMM." in caption(tex)


def test_rows_of_variants_without_the_full_method_name_the_papers_backbone(tmp_path):
    report = make_report("table5", rows="variants", variants=["no_fmm"], backbones=("resnet18",))
    _, tex = tabulate(report, tmp_path, constant(0.9))
    assert "Backbone: ResNet18. Reported: WideResNet50." in caption(tex)


def test_a_training_that_may_stop_early_has_up_to_its_epochs(tmp_path):
    patient = {"maskrd": {"patience": 20, "validation_fraction": 0.1}}
    report = make_report("table1", categories=("screw",), train=patient)
    assert "Training: up to 200 epochs" in caption(tabulate(report, tmp_path, constant(0.9))[1])


def test_dashes_of_models_without_masks_are_explained(tmp_path):
    report = make_report("table3", metrics=["pixel_auroc", "aupro"], categories=("screw", "gear"))
    _, tex = tabulate(report, tmp_path, lambda m: {} if m.category == "gear" else constant(0.9)(m))
    assert "1 of 2 models have no PRO: they have no masks." in caption(tex)


def test_a_cell_with_a_missing_seed_is_a_dash(tmp_path):
    report = make_report("table1", metrics=["image_auroc"], categories=("wood", "screw"), seeds=(0, 1))
    csv, _ = tabulate(report, tmp_path, lambda m: None if (m.category, m.seed) == ("wood", 1) else {"image_auroc": 0.9})
    assert list(csv["Ours (reproduced)"]) == ["-", "90.0 ± 0.0", "-"]


def test_table4_compares_backbones(tmp_path):
    backbones = ("resnet18", "wide_resnet50_2")
    report = make_report("table4", rows="backbones", backbones=backbones, categories=("screw", "transistor"))

    def values(model):
        return dict.fromkeys(METRICS, {"screw": 0.9, "transistor": 0.96}[model.category])

    csv, tex = tabulate(report, tmp_path, values)
    assert csv.iloc[0].tolist() == ["ResNet18", "98.2", "93.0", "97.3", "93.0", "94.4", "93.0"]
    assert list(csv["backbone"]) == ["ResNet18", "WideResNet50"]
    assert "2 of the paper's 3 backbones." in caption(tex)
    assert "mean over the paper's 15 categories; reproduced: mean over Screw and Transistor." in caption(tex)
    assert "Backbone:" not in caption(tex)


def test_table6_and_7_name_rows_by_check_marks(tmp_path):
    csv, tex = tabulate(make_report("table6", rows="variants", variants=MODULES), tmp_path, constant(0.9))
    assert csv[["Baseline", "SimAM", "SCConv"]].to_numpy().tolist() == [
        ["x", "", ""],
        ["x", "x", ""],
        ["x", "", "x"],
        ["x", "x", "x"],
    ]
    assert list(csv["pixel_auroc reported"]) == ["97.8", "98.0", "98.2", "98.5"]
    assert r"\checkmark &  & \checkmark & \textbf{99.1}" in tex
    csv, tex = tabulate(make_report("table7", rows="variants", variants=LEVELS), tmp_path, constant(0.9))
    assert list(csv["M2"]) == ["", "x", "", "x", "x", "", "x"]
    assert "M2+M3 and M1+M3, or the reverse" in tex


CHECKPOINTS = ("maskrd", "best_validation", "best_on_test")
LEAKING = {"best_on_test": {"checkpoint": "best_on_test", "selection": CONFIG["evaluation"]}}
LEAK_NOTE = "best on test: the test images chose the epoch, so these numbers say nothing about other images."


def test_a_leak_is_labelled_noted_and_never_best(tmp_path):
    spec = {"rows": "variants", "variants": CHECKPOINTS, "leak": True}
    report = make_report("ablation_checkpoint", train=LEAKING, **spec)
    fractions = dict(zip(CHECKPOINTS, (0.8, 0.7, 0.9), strict=True))
    csv, tex = tabulate(report, tmp_path, lambda m: dict.fromkeys(METRICS, fractions[m.variant]))
    assert list(csv["variant"]) == ["Ours", "best validation", "best on test [leak]"]
    assert LEAK_NOTE in tex
    ours, validation, leak = (
        next(t for t in tex.splitlines() if t.startswith(n)) for n in ("Ours", "best v", "best o")
    )
    assert (ours.count("textbf"), validation.count("underline")) == (3, 3)
    assert leak.endswith(r"& 90.0 & 90.0 & 90.0 \\")


def test_a_leaking_column_among_methods_is_labelled(tmp_path):
    spec = {"variants": ("maskrd", "best_on_test"), "metrics": ["image_auroc"], "leak": True}
    report = make_report("table1", train=LEAKING, categories=("screw", "wood"), **spec)
    csv, tex = tabulate(report, tmp_path, lambda m: {"image_auroc": 1.0 if m.variant == "best_on_test" else 0.99})
    assert list(csv["best on test [leak] (reproduced)"]) == ["100.0"] * 3
    assert r"\shortstack{best on test [leak]\\(reproduced)}" in tex
    lines = [line for line in tex.splitlines() if "& Screw" in line or "& Wood" in line]
    assert [line.endswith(r"& 100.0 \\") for line in lines] == [True, True]


def test_a_leak_that_only_the_models_record_is_labelled(tmp_path):
    """metrics.json files of somebody else's run, whose configuration was another."""
    report = make_report("table5", rows="variants", variants=["no_fmm", "maskrd"])
    tabulate(report, tmp_path, constant(0.9))
    for path in tmp_path.glob("models/*/*/no_fmm/*/*/metrics.json"):
        content = json.loads(path.read_text())
        content["training"]["leak"] = "the checkpoint was chosen on the test images"
        path.write_text(json.dumps(content))
    metrics = read_metrics(report, tmp_path / "models")
    grid = build_grid(report, metrics)
    assert [row.name for row in grid.rows] == ["no FMM [leak]", "Ours"]
    assert any("[leak] no FMM:" in note for note in table_notes(report, grid, metrics))


def test_tables_without_a_leak_say_nothing_of_it(tmp_path):
    _, tex = tabulate(make_report("table5", rows="variants", variants=["no_fmm", "maskrd"]), tmp_path, constant(0.9))
    assert "leak" not in tex


def test_a_metric_added_after_a_run_is_a_dash(tmp_path):
    report = make_report("ablation_pro", rows="variants", variants=["no_fmm", "maskrd"], metrics=PROS)
    csv, tex = tabulate(report, tmp_path, lambda m: dict.fromkeys(PROS[: 2 + (m.variant == "maskrd")], 0.9))
    assert list(csv["pro_200_thresholds reproduced"]) == ["-", "90.0"]
    assert list(csv["pro_per_image reproduced"]) == ["90.0", "90.0"]
    assert "PRO & PRO per image & PRO of 200 thresholds" in tex
    assert "15 of 30 models have no PRO of 200 thresholds: an earlier version tested them" in caption(tex)
    _, tex = tabulate(report, tmp_path, lambda _: dict.fromkeys(PROS, 0.9))
    assert "tested before" not in tex


def test_a_metric_that_was_always_there_must_be(tmp_path):
    report = make_report("table5", rows="variants", variants=["no_fmm", "maskrd"])
    tabulate(report, tmp_path, constant(0.9))
    path = next(tmp_path.glob("models/**/metrics.json"))
    content = json.loads(path.read_text())
    del content["aupro"]
    path.write_text(json.dumps(content))
    with pytest.raises(MaskrdError, match=r"not a metrics.json of this pipeline"):
        read_metrics(report, tmp_path / "models")


def test_an_empty_line_in_a_caption_is_a_space_in_latex():
    assert escape("One.\n\nTwo  %.\n") == r"One. Two \%."


def test_own_ablation_names_its_variants(tmp_path):
    report = make_report("ablation_fmm", rows="variants", variants=["no_fmm", "fmm_no_mask", "maskrd"])
    csv, tex = tabulate(report, tmp_path, constant(0.9))
    assert list(csv.columns) == ["variant", *(f"{metric} reproduced" for metric in METRICS)]
    assert list(csv["variant"]) == ["no FMM", "FMM no mask", "Ours"]
    assert "Mean over 15 categories." in caption(tex)


def test_best_and_second_of_a_row_share_ranks_on_ties(tmp_path):
    report = make_report("table1", metrics=["image_auroc"], categories=("screw", "carpet"))
    # Reported on screw: CA-AE 100, RecDMs 99.8; on carpet: PaDiM 99.8, Ours 99.8, RD 98.9.
    _, tex = tabulate(report, tmp_path, lambda m: {"image_auroc": {"screw": 0.9984, "carpet": 0.9}[m.category]})
    lines = tex.splitlines()
    screw, carpet = (next(line for line in lines if f"& {name} &" in line) for name in ("Screw", "Carpet"))
    assert re.findall(r"\\textbf\{(.*?)\}", screw) == ["100.0"]
    assert re.findall(r"\\underline\{(.*?)\}", screw) == ["99.8", "99.8"]
    assert screw.endswith(r"& \underline{99.8} \\")
    assert re.findall(r"\\textbf\{(.*?)\}", carpet) == ["99.8", "99.8"]
    assert re.findall(r"\\underline\{(.*?)\}", carpet) == []  # third, as the claims count ranks


def test_nobody_is_best_beside_a_number_that_print_leaves_open(tmp_path):
    """Table 2's own column is shifted: any reading of Ship is above MKD, but which it is can't be told."""
    report = make_report("table2", dataset="cifar10", metrics=["image_auroc"], categories=("ship", "truck"))
    _, tex = tabulate(report, tmp_path, constant(0.5))
    ship, truck = (next(line for line in tex.splitlines() if line.startswith(name)) for name in ("Ship", "Truck"))
    assert "textbf" not in ship
    assert "textbf" in truck


def test_entries_reported_in_whole_numbers_stay_so_below_a_mean_with_a_decimal(tmp_path):
    csv, _ = tabulate(make_report("table3", metrics=["pixel_auroc"]), tmp_path, constant(0.5))
    column = next(name for name in csv.columns if name.startswith("L2-AE"))
    assert all("." not in str(entry) for entry in csv[column][:-1])
    assert str(csv[column].iloc[-1]) == "82.7"


def test_columns_of_variants_are_ranked_for_themselves(tmp_path):
    report = make_report("table5", rows="variants", variants=["no_fmm", "maskrd"])
    _, tex = tabulate(report, tmp_path, lambda m: dict.fromkeys(METRICS, 0.95 if m.variant == "no_fmm" else 0.94))
    first = next(line for line in tex.splitlines() if line.startswith(r"\checkmark &  &"))
    assert first.startswith(r"\checkmark &  & \underline{98.8} & \textbf{95.0}")


def test_captions_describe_the_models_that_are_there(tmp_path):
    """Nothing was trained with the settings that the configuration has for the others."""
    report = make_report("table7", rows="variants", variants=LEVELS)
    _, tex = tabulate(report, tmp_path, lambda m: constant(0.9)(m) if m.variant == "maskrd" else None, {"epochs": 20})
    assert "Training: 20 epochs, 256 px." in caption(tex)
    assert "15 of 105 models were run. A dash under reproduced: not run, or a mean that lacks models." in caption(tex)


def test_only_our_reported_column_is_of_the_papers_backbone(tmp_path):
    _, tex = tabulate(make_report("table1", backbones=("resnet18",), metrics=["image_auroc"]), tmp_path, constant(0.9))
    assert "Backbone: ResNet18. Ours (reported): WideResNet50." in caption(tex)


def test_a_single_number_is_not_called_best(tmp_path):
    report = make_report("table1", dataset="demo", metrics=["image_auroc"], categories=("stripes",))
    _, tex = tabulate(report, tmp_path, constant(0.9))
    assert "textbf" not in tex
    assert "bold" not in tex


def test_captions_state_what_differs_from_the_paper(tmp_path):
    report = make_report(
        "table5",
        rows="variants",
        variants=["no_fmm", "maskrd"],
        backbones=("resnet18",),
        train={"maskrd": {"epochs": 60, "precision": "bf16"}},
    )
    _, tex = tabulate(report, tmp_path, constant(0.9))
    assert "Backbone: ResNet18. Reported: WideResNet50." in caption(tex)
    assert "200 (no FMM) and 60 (Ours) epochs, 256 px." in caption(tex)
    assert "Precision: fp32 (no FMM) and bf16 (Ours)." in caption(tex)
    assert "Single run (seed 0)." in caption(tex)


def test_captions_count_no_epochs_of_results_made_elsewhere(tmp_path):
    external = {"theirs": {"method": "external", "maps": "theirs/{category}"}}
    for variants, said in ((["maskrd", "theirs"], "Training: 200 epochs, 256 px."), (["theirs"], "Tested at 256 px.")):
        report = make_report("ours", rows="variants", variants=variants, train=external)
        assert said in caption(tabulate(report, tmp_path, constant(0.9))[1])


def test_captions_name_a_variants_own_backbone(tmp_path):
    report = make_report("table1", categories=("screw",), variants=["stpm", "mkd", "maskrd"])
    report = report.model_copy(update={"own_backbones": {"stpm": "resnet18", "mkd": "vgg16"}})
    csv, tex = tabulate(report, tmp_path, constant(0.9))
    assert "Backbone: ResNet18 (STPM), VGG16 (MKD) and WideResNet50 (Ours)." in caption(tex)
    assert "Reported: WideResNet50" not in tex
    assert list(csv["MKD (reproduced) aupro"]) == ["90.0", "90.0"]


def test_captions_prefer_what_the_models_record(tmp_path):
    report = make_report("table1", categories=("screw", "wood"), train={"maskrd": {"precision": "auto"}})
    _, tex = tabulate(report, tmp_path, constant(0.9), recipe={"epochs": 7, "precision": "bf16"})
    assert "7 epochs, 256 px. Precision: bf16." in caption(tex)


def test_captions_explain_scores_other_than_the_maximum(tmp_path):
    report = make_report("table1", categories=("screw",), variants=["mkd", "maskrd"])
    scores = {v: Evaluation(**CONFIG["evaluation"] | {"score": s}) for v, s in (("mkd", "mean"), ("maskrd", "max"))}
    _, tex = tabulate(report.model_copy(update={"evaluation": scores}), tmp_path, constant(0.9))
    assert "Image score: mean of the anomaly map (MKD) and max of the anomaly map (Ours)." in caption(tex)


def test_names_are_readable():
    names = [variant_name(variant) for variant in ("maskrd", "rd", "mkd_cifar10", "layers_1_2", "no_scsatt")]
    assert names == ["Ours", "RD", "MKD CIFAR-10", "layers 1+2", "no SCSAtt"]
    assert [backbone_name(backbone) for backbone in ("vgg16", "demo_wide_resnet50_2")] == ["VGG16", "Demo WideResNet50"]


def test_user_text_is_escaped(tmp_path):
    assert escape("a_b 5 % & $x$ #1 {z} AUROC_AD") == (
        r"a\_b 5 \% \& \$x\$ \#1 \{z\} AUROC\textsubscript{AD}"
    )  # fmt: skip
    report = make_report("table1", caption="50 % of my_set & more", note="100 %", categories=("a_b.c",))
    _, tex = tabulate(report, tmp_path, constant(0.9))
    assert caption(tex).startswith(r"50 \% of my\_set \& more. ")
    assert r"100 \%" in tex


def test_csv_is_numbers_to_pandas(tmp_path):
    report = make_report("table3", metrics=["pixel_auroc", "aupro"])
    tabulate(report, tmp_path, lambda m: None if m.category == "pill" else dict.fromkeys(METRICS, 0.9))
    frame = pd.read_csv(tmp_path / "table3.csv", index_col="category", na_values="-")
    assert frame.shape == (16, 30)
    assert all(dtype.kind in "fi" for dtype in frame.dtypes)
    assert frame["Ours (reproduced) aupro"].isna().sum() == 2


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not installed")
def test_latex_compiles_under_a_three_line_wrapper(tmp_path):
    reports = [
        make_report("table1", metrics=["image_auroc"], seeds=(0, 1)),
        make_report("table3", metrics=["pixel_auroc", "aupro"], note="50 % & a_b", caption="#1 {z} ~ ^ \\"),
        make_report("table4", rows="backbones", backbones=("resnet18", "resnet50")),
        make_report("table7", rows="variants", variants=LEVELS),
        make_report("ablation_fmm", rows="variants", variants=["no_fmm", "maskrd"]),
    ]
    for report in reports:
        tabulate(report, tmp_path, constant(0.9))
        (tmp_path / "alone.tex").write_text(
            "\\documentclass{article}\\usepackage{booktabs,amssymb,graphicx,rotating}\n"
            f"\\begin{{document}}\\input{{{report.name}}}\n\\end{{document}}\n"
        )
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "alone.tex"]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout[-2000:]


def test_tables_do_without_torch():
    code = "import sys, maskrd.reporting.tables; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_costs_stand_beside_the_metrics(tmp_path):
    report = make_report("systems", rows="variants", variants=("rd", "maskrd"), categories=("screw",), costs=True)
    path = tmp_path / "speed.json"
    rates = {"rd": {"1": 12.34, "16": 50.0}, "maskrd": {"1": 9.0, "16": 40.06}}
    path.write_text(json.dumps({"frames_per_second": rates, "machine": {"device": "a GPU", "threads": 8}}))
    tabulate(report, tmp_path, constant(0.9))
    write_table(report, tmp_path / "models", tmp_path / "s.csv", tmp_path / "s.tex", tmp_path / "s.html", path)
    csv = pd.read_csv(tmp_path / "s.csv", dtype=str)
    assert list(csv["parameters measured"]) == ["11.7", "11.7"]
    assert list(csv["training_seconds measured"]) == ["90.0", "90.0"]
    assert list(csv["frames_per_second_1 measured"]) == ["12.3", "9.0"]
    assert list(csv["frames_per_second_16 measured"]) == ["50.0", "40.1"]
    tex = (tmp_path / "s.tex").read_text(encoding="utf-8")
    assert "Parameters (M) & Training (s) & Frames/s, batch 1 & Frames/s, batch 16" in tex
    assert "on a GPU, threads 8" in caption(tex)


def test_without_models_costs_are_dashes(tmp_path):
    report = make_report("systems", rows="variants", variants=("rd", "maskrd"), categories=("screw",), costs=True)
    csv, tex = tabulate(report, tmp_path, lambda model: None if model.variant == "rd" else {"image_auroc": 0.5})
    assert list(csv["parameters measured"]) == ["-", "11.7"]
    assert "frames_per_second" not in " ".join(csv.columns)
    assert "Frames/s" not in tex
    broken = tmp_path / "broken.json"
    broken.write_text("{}")
    with pytest.raises(MaskrdError, match=r"broken\.json: not a file of `maskrd speed` .* Delete it"):
        write_table(report, tmp_path / "models", tmp_path / "s.csv", tmp_path / "s.tex", tmp_path / "s.html", broken)


def test_other_settings_than_the_configured_ones_are_noted(tmp_path):
    """As in results that were copied here, or whose Snakemake metadata are gone."""
    report = make_report("mine", rows="variants", variants=("no_fmm", "maskrd"), categories=("screw",))
    _, tex = tabulate(report, tmp_path, constant(0.9))
    assert "configured" not in tex
    _, tex = tabulate(report, tmp_path, constant(0.9), {"mask_ratio": 0.3, "epochs": 20})
    assert tex.count("was made with other settings than the configured ones: mask\\_ratio 0.3 instead of 0.5.") == 2
