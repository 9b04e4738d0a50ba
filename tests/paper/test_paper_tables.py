"""The paper's tables as data: complete, as reported, and read as the errata say."""

import re
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

import pytest

from maskrd import paper
from maskrd.errors import MaskrdError

SHARED_PAPER = Path(__file__).parents[3] / "shared" / "paper"
FIRST_CELLS = {
    "table1": "| Category/Method | SSIM-AE",
    "table2": "| Category/Method | OCGAN",
    "table3": "| Category/Method | L2-AE",
    "table4": "| Backbones",
    "table5": "| Baseline | FMM",
    "table6": "| Baseline | SimAM",
    "table7": "| Feature Map",
}


@pytest.mark.parametrize(
    ("table", "n_methods", "n_rows", "n_metrics"),
    [
        ("table1", 14, 16, 1),
        ("table2", 8, 11, 1),
        ("table3", 14, 16, 2),
        ("table4", 1, 3, 3),
        ("table5", 1, 2, 3),
        ("table6", 1, 4, 3),
        ("table7", 1, 7, 3),
    ],
)
def test_every_cell_is_there_once(table, n_methods, n_rows, n_metrics):
    expected = {
        (method, row, metric)
        for method in paper.methods(table)
        for row in paper.rows(table)
        for metric in paper.metrics(table)
    }
    assert len(expected) == n_methods * n_rows * n_metrics == len(paper.reported_values(table))
    assert set(paper.values(table)) == expected
    assert {cell.table for cell in paper.reported_values(table)} == {table}


@pytest.mark.parametrize("table", paper.TABLES)
def test_cells_equal_the_text_of_the_paper(table):
    texts = sorted(SHARED_PAPER.glob("003_*.txt"))
    if not texts:
        pytest.skip("the paper's text (../shared/paper) is not on this machine")
    lines = texts[0].read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(FIRST_CELLS[table]))
    body = takewhile(lambda line: line.startswith("|"), lines[start + 1 :])
    tokens = [token.strip().replace("–", "-") for line in body for token in re.split(r"[|/]", line)]
    expected = [token for token in tokens if re.fullmatch(r"[\d.]+|-|Ours", token)]
    assert [cell.text for cell in paper.reported_values(table)] == expected


def test_only_dashes_and_the_stray_heading_are_no_numbers():
    words = {
        (c.table, c.row, c.text) for t in paper.TABLES for c in paper.reported_values(t) if not c.text[0].isdigit()
    }
    assert {text for _, _, text in words} == {"-", "Ours"}
    assert [w for w in words if w[2] == "Ours"] == [("table2", "airplane", "Ours")]
    assert paper.value("table1", "STPM", "carpet", "image_auroc") is None
    assert paper.value("table3", "MKD", "screw", "aupro") is None


def test_all_numbers_are_percentages():
    numbers = [v for table in paper.TABLES for v in paper.values(table).values() if v is not None]
    assert all(17 < v <= 100 for v in numbers)


def test_table2_ours_is_read_as_shifted():
    ours = {c.row: (c.text, c.value) for c in paper.reported_values("table2") if c.method == paper.OURS}
    assert ours["automobile"] == ("93.1", 93.8)
    assert [row for row, (_, v) in ours.items() if v is None] == ["dog", "frog", "horse", "ship"]
    assert [ours[row][1] for row in ("airplane", "bird", "cat", "deer", "truck", "mean")] == [
        *(93.1, 82.1, 81.2, 91.6, 90.5),
        90.9,
    ]


def test_each_admissible_reading_of_table2_keeps_the_reported_order_and_gives_the_mean():
    (erratum,) = [e for e in paper.errata("table2") if e.admissible]
    as_reported = [float(c.text) for c in paper.reported_values("table2") if c.method == "Ours" and c.text[0].isdigit()]
    classes = [row for row in paper.rows("table2") if row != paper.MEAN]
    for lost, reading in erratum.admissible.items():
        column = erratum.corrected | reading
        assert column[lost] == 94.5
        assert [column[row] for row in classes if row != lost] == as_reported[:-1]
        assert sum(column.values()) / 10 == pytest.approx(as_reported[-1])


def test_table7_pairs_follow_the_chosen_order():
    assert paper.rows("table7")[3:6] == ("layers_1_2", "layers_2_3", "layers_1_3")
    assert paper.value("table7", "Ours", "layers_2_3", "aupro") == 95.3


def test_labels_cover_every_row_and_metric():
    labels = paper.labels()
    named = {row for table in ("table1", "table2", "table3", "table4") for row in paper.rows(table)}
    assert set(labels.rows) == named
    assert (labels.rows["automobile"], labels.rows["metal_nut"]) == ("Car", "Metal nut")
    assert set(labels.metrics) == {"image_auroc", "pixel_auroc", "aupro"}
    grouped = [category for group in labels.groups.values() for category in group]
    assert (*grouped, "mean") == paper.rows("table1") == paper.rows("table3")
    for table, marks in labels.marks.items():
        assert tuple(marks.rows) == paper.rows(table)
        assert {column for marked in marks.rows.values() for column in marked} == set(marks.columns)


def test_errata_are_complete_and_point_at_columns_that_exist():
    errata = paper.errata()
    assert len({e.id for e in errata}) == len(errata)
    for erratum in errata:
        assert erratum.certainty in {"FOUND", "INFERRED", "UNKNOWN"}
        assert all((erratum.where, erratum.reported, erratum.wrong, erratum.reading))
        if erratum.column:
            method, metric = erratum.column
            assert method in paper.methods(erratum.table)
            assert metric in paper.metrics(erratum.table)
    assert {e.id for e in paper.errata("table5")} == {"t5_header"}


def test_unknown_table_and_cell_are_named():
    with pytest.raises(MaskrdError, match="table9"):
        paper.reported_values("table9")
    with pytest.raises(MaskrdError, match="PatchCore"):
        paper.value("table1", "PatchCore", "screw", "image_auroc")


def test_importing_the_paper_is_light():
    code = (
        "import sys, maskrd.paper, maskrd.paper.audit, maskrd.paper.claims;"
        "print(*{'torch', 'pandas', 'numpy', 'matplotlib', 'sklearn', 'scipy'} & set(sys.modules))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.split() == []
