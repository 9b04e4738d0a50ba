"""Paired differences: the same seed and category, and an interval that says whether they exceed the noise."""

import csv

import pytest

from maskrd.config.load import parse_experiment, shipped_configuration
from maskrd.reporting.paired import paired_differences, write_paired
from tests.conftest import ROOT
from tests.records import make_record, write_record

CONFIG = shipped_configuration(ROOT.joinpath)


def make_report(categories=("screw", "wood", "grid"), seeds=(0,), **table):
    datasets = CONFIG["datasets"] | {"mvtec_ad": CONFIG["datasets"]["mvtec_ad"] | {"categories": list(categories)}}
    tables = {"table5": CONFIG["tables"]["table5"] | {"metrics": ["aupro"]} | table}
    return parse_experiment(CONFIG | {"seeds": list(seeds), "datasets": datasets, "tables": tables}).view("table5")


def put(report, folder, percent):
    """Write metrics.json of every model; `percent(model)` None: no file."""
    for model in report.models():
        if percent(model) is not None:
            recipes = report.training[model.variant], report.evaluation[model.variant]
            write_record(folder, model, make_record(model, {"aupro": percent(model)}, *recipes))


def differences(report, folder):
    return {row.variant: row for row in paired_differences(report, folder)}


def test_pairs_remove_what_categories_share(tmp_path):
    """Categories 40 points apart, the module worth 0.3 in each: the unpaired noise would hide it."""
    report = make_report()
    full = {"screw": 95.0, "wood": 75.0, "grid": 55.0}
    gain = {"screw": 0.2, "wood": 0.3, "grid": 0.4}
    put(report, tmp_path, lambda m: full[m.category] - (m.variant == "no_fmm") * gain[m.category])
    row = differences(report, tmp_path)["no_fmm"]
    assert (row.reference, row.metric, row.unit, row.pairs, row.expected) == ("maskrd", "aupro", "categories", 3, 3)
    assert row.difference == pytest.approx(-0.3)
    assert row.high - row.low == pytest.approx(2 * 4.302653 * 0.1 / 3**0.5, rel=1e-4)
    assert row.beyond_noise == "yes"


def test_a_leak_is_labelled(tmp_path):
    report = make_report(variants=["best_on_test", "maskrd"], leak=True)
    put(report, tmp_path, lambda m: 95.0)
    assert differences(report, tmp_path)["best_on_test"].leak == "best_on_test"
    write_paired(report, tmp_path, tmp_path / "paired.csv", tmp_path / "paired.html")
    assert "best on test [leak] − Ours" in (tmp_path / "paired.html").read_text(encoding="utf-8")


def test_no_interval_is_wider_than_differences_can_be(tmp_path):
    report = make_report(("screw", "wood"))
    put(report, tmp_path, lambda m: 5.0 if (m.variant, m.category) == ("no_fmm", "screw") else 95.0)
    row = differences(report, tmp_path)["no_fmm"]
    assert (row.low, row.high) == (-100, 100)


def test_a_difference_within_the_noise(tmp_path):
    report = make_report()
    gain = {"screw": 2.0, "wood": -1.0, "grid": 0.0}
    put(report, tmp_path, lambda m: 90 + (m.variant == "maskrd") * gain[m.category])
    row = differences(report, tmp_path)["no_fmm"]
    assert row.difference == pytest.approx(-1 / 3)
    assert row.beyond_noise == "no"


def test_seeds_are_averaged_within_a_category(tmp_path):
    """Six pairs of two categories are two units, not six: the interval must not shrink by counting seeds."""
    report = make_report(("screw", "wood"), (0, 1, 2))
    put(report, tmp_path, lambda m: 90 + (m.variant == "maskrd") * {"screw": 1.0, "wood": 3.0}[m.category])
    row = differences(report, tmp_path)["no_fmm"]
    assert (row.pairs, row.unit, row.difference) == (6, "categories", pytest.approx(-2))
    assert row.high - row.low == pytest.approx(2 * 12.7062 * 2**0.5 / 2**0.5, rel=1e-4)
    assert row.beyond_noise == "no"


def test_one_category_takes_seeds_as_units(tmp_path):
    report = make_report(("screw",), (0, 1, 2))
    put(report, tmp_path, lambda m: 90 + (m.variant == "maskrd") * (1 + 0.1 * m.seed))
    row = differences(report, tmp_path)["no_fmm"]
    assert (row.unit, row.difference, row.beyond_noise) == ("seeds", pytest.approx(-1.1), "yes")


def test_unpaired_runs_are_left_out(tmp_path):
    report = make_report()
    numbers = {("screw", "maskrd"): 90.0, ("screw", "no_fmm"): 89.0, ("wood", "maskrd"): 50.0}
    put(report, tmp_path, lambda m: numbers.get((m.category, m.variant)))
    row = differences(report, tmp_path)["no_fmm"]
    assert (row.pairs, row.difference, row.low, row.beyond_noise) == (1, pytest.approx(-1), None, "")


def test_csv_without_models(tmp_path):
    report = make_report(variants=["no_fmm", "fmm_no_mask", "maskrd"])
    write_paired(report, tmp_path, tmp_path / "paired.csv", tmp_path / "paired.html")
    rows = list(csv.DictReader((tmp_path / "paired.csv").open(encoding="utf-8")))
    assert [(row["variant"], row["pairs"], row["expected"], row["difference"]) for row in rows] == [
        ("no_fmm", "0", "3", ""),
        ("fmm_no_mask", "0", "3", ""),
    ]


def test_without_the_full_method_the_last_variant_is_the_reference(tmp_path):
    report = make_report(variants=["no_fmm", "fmm_no_mask"])
    assert [(row.variant, row.reference) for row in paired_differences(report, tmp_path)] == [("no_fmm", "fmm_no_mask")]
