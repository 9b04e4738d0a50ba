"""The tables of docs/results.md and docs/results/ are those that the records in results/reference give."""

import importlib.util
from pathlib import Path

import pytest

from tests.conftest import ROOT

SPEC = importlib.util.spec_from_file_location("tables", ROOT / "docs/results/tables.py")
tables = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(tables)


@pytest.mark.parametrize("page", tables.pages(), ids=lambda page: page.stem)
def test_tables_are_those_of_the_records(page: Path) -> None:
    assert page.read_text(encoding="utf-8") == tables.page_text(page), "run `python docs/results/tables.py`"


def test_a_table_of_records_that_are_gone_is_an_error() -> None:
    with pytest.raises(FileNotFoundError, match=r"results/reference/nowhere/metrics\.json"):
        tables.table_text("{label: variant, rows: {RD: nowhere}, columns: [aupro]}")


def test_seeds_become_mean_and_deviation() -> None:
    assert tables.percent([0.5]) == "50.0"
    assert tables.percent([0.5, 0.7]) == "60.0 ± 14.1 (50.0, 70.0)"
    assert tables.percent([0.5, None]) == "–"


def test_choices_are_those_of_row_and_column(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tables, "REFERENCE", tmp_path)
    lines = ["method,category,input,choice,score,seed,metric,value"]
    for choice, category, seed, value in (
        ("ours", "pill", 0, 80),
        ("ours", "pill", 1, 82),
        ("ours", "screw", 0, 70),
        ("other", "pill", 0, 10),
    ):
        lines.append(f"padim,{category},256,{choice},map,{seed},image_auroc,{value}")
    (tmp_path / "choices.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    text = tables.table_text(
        "{choices: choices.csv, label: category, rows: {"
        "pill: {category: pill, metric: image_auroc}, screw: {category: screw, metric: image_auroc}}, columns: {"
        "published: {published: PaDiM}, ours: {choice: ours}, other: {choice: other}}}"
    )
    assert text.splitlines() == [
        "| category | published | ours | other |",
        "| --- | --- | --- | --- |",
        "| pill | 86.3 | 81.0 ± 1.4 (80.0, 82.0) | 10.0 |",
        "| screw | 75.9 | 70.0 | – |",
    ]


def test_the_gain_of_choosing_on_the_test_set(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tables, "REFERENCE", tmp_path)
    for seed, scores in enumerate(((0.5, 0.75, 0.625), (0.5, 0.5, 0.5))):
        folder = tmp_path / f"run/seed{seed}"
        folder.mkdir(parents=True)
        lines = [f"{epoch},1,{score}" for epoch, score in enumerate(scores, start=1)]
        (folder / "history.csv").write_text("\n".join(["epoch,loss,test_score", *lines]) + "\n", encoding="utf-8")
    text = tables.table_text("{label: category, rows: {pill: run/seed0, screw: run/seed*}, epochs: [2, 3]}")
    assert text.splitlines() == [
        "| category | epochs | last epoch | best epoch | gain |",
        "| --- | --- | --- | --- | --- |",
        "| pill | 2 | 75.0 | 75.0 | 0.0 |",
        "| pill | 3 | 62.5 | 75.0 | 12.5 |",
        "| screw | 2 | 62.5 ± 17.7 (75.0, 50.0) | 62.5 ± 17.7 (75.0, 50.0) | 0.0 ± 0.0 (0.0, 0.0) |",
        "| screw | 3 | 56.2 ± 8.8 (62.5, 50.0) | 62.5 ± 17.7 (75.0, 50.0) | 6.2 ± 8.8 (12.5, 0.0) |",
    ]
    with pytest.raises(FileNotFoundError, match=r"nowhere/history\.csv"):
        tables.table_text("{label: category, rows: {pill: nowhere}, epochs: [1]}")
