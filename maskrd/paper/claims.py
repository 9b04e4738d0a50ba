"""The paper's statements about its results, each a named predicate over a table of numbers.

The same predicate judges the reported numbers and reproduced ones (`with_ours`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path

from maskrd.files import write_csv
from maskrd.paper.predicates import (
    Check,
    Line,
    Outcome,
    ahead,
    count_above,
    fewer,
    ranks_at_most,
    reaches,
    steadier,
    times,
)
from maskrd.paper.tables import MEAN, OURS, TABLES, Values, errata, number, reported_values, rows, text_values, values

TEXT = "text"  # in place of a table: numbers of sentences, text.csv
VERDICTS = {True: "true", False: "false", None: "undecided"}


@dataclass(frozen=True)
class Claim:
    """`text` is the statement in our words, `section` its place in the paper, `table` the numbers it is about."""

    id: str
    text: str
    section: str
    table: str
    check: Check


@dataclass(frozen=True)
class ClaimResult:
    """`numbers` says which numbers were judged: "reported", "reproduced", a reading of an ambiguous column."""

    claim: Claim
    numbers: str
    outcome: Outcome


def evaluate_claims(
    values_by_table: Mapping[str, Values] | None = None, numbers: str = "reported"
) -> list[ClaimResult]:
    """Judge every claim on `values_by_table` (default: the reported tables), in the paper's order.

    A table that is left out has no numbers. If an ambiguous column of a reported table leaves a claim undecided, the
    claim is also judged on each reading of that column.
    """
    if values_by_table is not None:
        return [ClaimResult(c, numbers, c.check(values_by_table.get(c.table, {}))) for c in CLAIMS]
    results = []
    for result in evaluate_claims({table: values(table) for table in TABLES} | {TEXT: text_values()}, numbers):
        results.append(result)
        if result.outcome.verdict is None:
            results += [
                ClaimResult(result.claim, f"{numbers}, {reading}", result.claim.check(alternative))
                for reading, alternative in readings(result.claim.table).items()
            ]
    return results


def readings(table: str) -> dict[str, Values]:
    """The readings of a table with an ambiguous column: the reported one, then each admissible one."""
    found: dict[str, Values] = {}
    for erratum in errata(table):
        if erratum.column and erratum.admissible:
            method, metric = erratum.column
            as_reported = {(c.method, c.row, c.metric): number(c.text) for c in reported_values(table)}
            found["column as it stands"] = as_reported
            for lost, cells in erratum.admissible.items():
                reading = {(method, row, metric): cell for row, cell in cells.items()}
                found[f"if the value of {lost} is lost"] = values(table) | reading
    return found


def with_ours(table: str, ours: Mapping[tuple[str, str], float]) -> Values:
    """The reported table with `ours`, (row, metric) -> percent, instead of all numbers of the paper's method.

    Give a `mean` only if it is over all of the table's categories: the claims compare it with reported means.
    """
    return {
        (method, row, metric): ours.get((row, metric)) if method == OURS else cell
        for (method, row, metric), cell in values(table).items()
    }


def write_claims(path: Path, results: Iterable[ClaimResult]) -> None:
    write_csv(path, ["claim", "section", "table", "numbers", "verdict", "detail", "text"], map(_line, results))


def _line(result: ClaimResult) -> tuple[str, ...]:
    claim, outcome = result.claim, result.outcome
    verdict = VERDICTS[outcome.verdict]
    return claim.id, claim.section, claim.table, result.numbers, verdict, outcome.detail, claim.text


def _ours(*names: str) -> list[Line]:
    return [(OURS, row) for row in names]


def _over_all_others(metric: str) -> list[tuple[Line, Line]]:
    """Our mean before the mean of each other method of Table 3 that has one."""
    means = (method for (method, row, m), v in values("table3").items() if (row, m) == (MEAN, metric) and v)
    return [((OURS, MEAN), (method, MEAN)) for method in means if method != OURS]


CATEGORIES = [row for row in rows("table1") if row != MEAN]
CLASSES = [row for row in rows("table2") if row != MEAN]
# At the tables' precision, strictly above means at least 0.1 above.
ABOVE = {"image_auroc": 0.1, "pixel_auroc": 0.1, "aupro": 0.1}
SINGLE_LEVELS = _ours("layers_1", "layers_2", "layers_3")
SEVERAL_LEVELS = _ours("layers_1_2", "layers_1_3", "layers_2_3", "maskrd")
BASELINE, SIMAM, SCCONV, FULL = _ours("no_scsatt", "simam_only", "scconv_only", "maskrd")

CLAIMS = (
    Claim(
        "t1_headline",
        "The mean image AUROC over the 15 MVTec AD categories is 99.1.",
        "Journal page, 4.3",
        "table1",
        reaches({"image_auroc": 99.1}),
    ),
    Claim(
        "t1_top_two",
        "On image AUROC the method is best or second-best in every category.",
        "4.3",
        "table1",
        ranks_at_most(2, CATEGORIES, "image_auroc"),
    ),
    Claim(
        "t2_headline",
        "The mean image AUROC over the CIFAR-10 classes is 90.9.",
        "4.3",
        "table2",
        reaches({"image_auroc": 90.9}),
    ),
    Claim(
        "t2_above_mkd",
        "On CIFAR-10 the mean is 4 percentage points above MKD's.",
        "4.3",
        "table2",
        ahead([((OURS, MEAN), ("MKD", MEAN))], {"image_auroc": 4.0}),
    ),
    Claim(
        "t2_best_everywhere",
        "On CIFAR-10 the method is best in every class.",
        "4.3",
        "table2",
        ranks_at_most(1, CLASSES, "image_auroc"),
    ),
    Claim(
        "t3_headline",
        "The mean pixel AUROC is 98.5 and the mean PRO 95.9.",
        "Journal page, 4.3",
        "table3",
        reaches({"pixel_auroc": 98.5, "aupro": 95.9}),
    ),
    Claim(
        "t3_best_mean",
        "On mean pixel AUROC the method outperforms all others.",
        "4.3",
        "table3",
        ahead(_over_all_others("pixel_auroc"), {"pixel_auroc": 0.1}),
    ),
    Claim(
        "t3_best_mean_pro",
        "On mean PRO the method outperforms all others.",
        "4.3",
        "table3",
        ahead(_over_all_others("aupro"), {"aupro": 0.1}),
    ),
    Claim(
        "t3_best_everywhere",
        "On pixel AUROC the method is best in every category (a stronger reading of outperforming).",
        "4.3",
        "table3",
        ranks_at_most(1, CATEGORIES, "pixel_auroc"),
    ),
    Claim(
        "t3_best_everywhere_pro",
        "On PRO the method is best in every category (a stronger reading of outperforming).",
        "4.3",
        "table3",
        ranks_at_most(1, CATEGORIES, "aupro"),
    ),
    Claim(
        "t3_thirteen_above_98",
        "In 13 categories the pixel AUROC exceeds 98.",
        "4.3",
        "table3",
        count_above(98.0, 13, CATEGORIES, "pixel_auroc"),
    ),
    Claim(
        "t3_transistor_above_rd",
        "On transistor the PRO is 15.2 percentage points above RD's.",
        "4.3",
        "table3",
        ahead([((OURS, "transistor"), ("RD", "transistor"))], {"aupro": 15.2}),
    ),
    Claim(
        "t3_steadier_than_draem",
        "Across categories the method is steadier than DRAEM (read as a smaller standard deviation of pixel AUROC).",
        "4.3",
        "table3",
        steadier("DRAEM", CATEGORIES, "pixel_auroc"),
    ),
    Claim(
        "t4_deeper_and_wider",
        "Every metric grows from ResNet18 to ResNet50 to WideResNet50.",
        "4.5.1",
        "table4",
        ahead([(b, a) for a, b in pairwise(_ours("resnet18", "resnet50", "wide_resnet50_2"))], ABOVE),
    ),
    Claim(
        "t5_fmm_helps",
        "FMM improves every metric.",
        "4.5.2",
        "table5",
        ahead([(FULL, (OURS, "no_fmm"))], ABOVE),
    ),
    Claim(
        "t6_attention_gains",
        "SimAM and SCConv together raise image AUROC by 0.6 and pixel AUROC by 0.7.",
        "4.5.3",
        "table6",
        ahead([(FULL, BASELINE)], {"image_auroc": 0.6, "pixel_auroc": 0.7}),
    ),
    Claim(
        "t6_each_module_helps",
        "SimAM alone and SCConv alone improve every metric (a stronger reading of each helping).",
        "4.5.3",
        "table6",
        ahead([(SIMAM, BASELINE), (SCCONV, BASELINE)], ABOVE),
    ),
    Claim(
        "t6_both_beat_one",
        "Both modules together beat either one on every metric (a stronger reading of being better).",
        "4.5.3",
        "table6",
        ahead([(FULL, SIMAM), (FULL, SCCONV)], ABOVE),
    ),
    Claim(
        "t7_several_beat_one",
        "Any two levels, and all three, beat any single level on every metric.",
        "4.5.4",
        "table7",
        ahead(list(product(SEVERAL_LEVELS, SINGLE_LEVELS)), ABOVE),
    ),
    Claim(
        "t7_second_level_best",
        "Of the single levels the second is best on every metric (a stronger reading of being superior).",
        "4.5.4",
        "table7",
        ahead([((OURS, "layers_2"), other) for other in _ours("layers_1", "layers_3")], ABOVE),
    ),
    Claim(
        "scconv_costs_less",
        "SCConv in place of a standard convolution lowers the cost (read as fewer parameters).",
        "3.4",
        TEXT,
        fewer((OURS, "scconv_in_msff"), (OURS, "simam_only"), "parameters"),
    ),
    Claim(
        "asymmetric_headline",
        "The asymmetric teacher-student network has a mean image AUROC of 95.7 and a mean pixel AUROC of 97.4.",
        "Kong et al. 2024, abstract",
        TEXT,
        reaches({"image_auroc": 95.7, "pixel_auroc": 97.4}, (OURS, "asymmetric")),
    ),
    Claim(
        "msfd_ten_times_faster",
        "Multi-scale feature distillation is over ten times faster than what it is compared with.",
        "Yao et al. 2021, abstract",
        TEXT,
        times((OURS, "msfd"), (OURS, "msfd_before"), 10, "frames_per_second"),
    ),
)
