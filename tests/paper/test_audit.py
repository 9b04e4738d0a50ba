"""The audit of the reported means finds what is wrong with them, and nothing else."""

import csv
from collections import Counter
from decimal import Decimal

import pytest

from maskrd.paper import audit

ROWS = {(row.table, row.method, row.metric): row for row in audit.rows()}


def test_every_reported_mean_is_there():
    assert Counter(row.table for row in audit.rows()) == {"table1": 14, "table2": 8, "table3": 14 + 9}


@pytest.mark.parametrize(
    ("column", "recomputed", "difference", "explained"),
    [
        (("table3", "SSIM-AE", "pixel_auroc"), "84.00", "-3.00", "typo"),
        (("table3", "STPM", "pixel_auroc"), "97.09", "0.59", "reported mean wrong"),
        (("table3", "STPM", "aupro"), "92.43", "0.33", "unexplained"),
        (("table3", "RecDMs", "pixel_auroc"), "94.19", "-0.41", "unexplained"),
        (("table3", "AnoGAN", "aupro"), "44.70", "0.40", "unexplained"),
        (("table1", "RecDMs", "image_auroc"), "97.85", "-0.25", "unexplained"),
        (("table1", "CA-AE", "image_auroc"), "91.39", "0.19", "unexplained"),
        (("table2", "Ours", "image_auroc"), "90.50", "-0.40", "column shifted"),
    ],
)
def test_what_rounding_cannot_explain(column, recomputed, difference, explained):
    row = ROWS[column]
    assert (row.recomputed, row.difference) == (Decimal(recomputed), Decimal(difference))
    assert row.explained.startswith(explained)


def test_the_rest_is_arithmetic():
    by_kind = {
        kind: {key for key, row in ROWS.items() if row.explained == kind}
        for kind in ("truncated", "rounding", "no entries reported", "consistent")
    }
    assert by_kind["truncated"] == {
        ("table1", "AnoGAN", "image_auroc"),
        ("table1", "CutPaste", "image_auroc"),
        ("table3", "AnoGAN", "pixel_auroc"),
        ("table3", "L2-AE", "aupro"),
        ("table3", "SSIM-AE", "aupro"),
        ("table3", "Ours", "pixel_auroc"),
        ("table3", "Ours", "aupro"),
    }
    assert by_kind["rounding"] == {("table1", "PaDiM", "image_auroc")}
    assert by_kind["no entries reported"] == {("table1", "STPM", "image_auroc")}
    assert len(by_kind["consistent"]) == len(ROWS) - 8 - 7 - 1 - 1


@pytest.mark.parametrize(
    ("entries", "mean", "explained"),
    [
        (["63.4", "63.5"], "63.5", "consistent"),  # 63.45, a tie
        (["63.4", "63.6"], "64", None),  # a mean of "64" is 64.0 below entries with a decimal place
        (["63", "64"], "64", "consistent"),
        (["63", "64", "64"], "63", "truncated"),
        (["63", "64"], "63.6", "rounding"),  # entries may be off by 0.5
        (["63", "64"], "64.5", None),
    ],
)
def test_explanations_depend_on_the_reported_digits(entries, mean, explained):
    numbers = [Decimal(entry) for entry in entries]
    assert audit._arithmetic(numbers, Decimal(mean), sum(numbers) / len(numbers)) == explained


def test_the_presumed_typo_would_restore_the_mean():
    row = ROWS["table3", "SSIM-AE", "pixel_auroc"]
    assert round(row.recomputed + Decimal(73 - 30) / 15) == row.reported


def test_csv_has_the_columns_promised(tmp_path):
    audit.write_audit(tmp_path / "audit.csv")
    with (tmp_path / "audit.csv").open(newline="") as file:
        lines = list(csv.reader(file))
    assert lines[0] == ["table", "method", "metric", "recomputed", "reported", "difference", "explained"]
    assert lines[1] == ["table1", "SSIM-AE", "image_auroc", "63.47", "63", "0.47", "consistent"]
    assert ["table1", "STPM", "image_auroc", "", "95.5", "", "no entries reported"] in lines
