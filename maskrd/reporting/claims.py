"""The paper's claims, judged on reproduced numbers."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from maskrd.config.files import EVERY_MODEL, find_metrics
from maskrd.config.record import read_record
from maskrd.paper import OURS, TABLES
from maskrd.paper.claims import TEXT, ClaimResult, evaluate_claims, with_ours
from maskrd.paper.settings import paper_categories
from maskrd.reporting.naming import backbone_name, enumerate_names
from maskrd.reporting.verdict import PER_IMAGE, POOLED, Judgement


def reproduced_claims(rows: Sequence[Judgement]) -> list[ClaimResult]:
    """The paper's claims judged with reproduced numbers instead of its own, table by table.

    Tables without a reproduced number are left out. Reproduced numbers of a baseline replace its reported ones, too.
    The paper doesn't say which PRO it reports. If pooled and per-image PRO give different outcomes, both are given.
    RD's reported PRO is per image, so it is never compared with a pooled one. If numbers were made under other
    conditions than the paper's, `numbers` says which, and there is no verdict. As in the paper, means are compared even
    for few runs; `numbers` says how many runs there are.
    """
    results = []
    for table in TABLES:
        own = [row for row in rows if (row.table, row.method) == (table, OURS) and row.reproduced is not None]
        if own:
            used = own + _baselines(rows, table, own)
            label = _label(used)
            pooled, per_image = (_judge_claims(table, used, pro) for pro in (POOLED, PER_IMAGE))
            for one, other in zip(pooled, per_image, strict=True):
                if one.outcome == other.outcome:
                    results.append(replace(one, numbers=label))
                else:
                    results.append(replace(one, numbers=f"{label}, PRO pooled"))
                    results.append(replace(other, numbers=f"{label}, PRO per image"))
    return results


def _baselines(rows: Sequence[Judgement], table: str, own: Sequence[Judgement]) -> list[Judgement]:
    """The reproduced numbers of other methods. Those made under other conditions count only if ours were, too."""
    found = [row for row in rows if row.table == table and row.method != OURS and row.reproduced is not None]
    return found if any(row.conditions for row in own) else [row for row in found if not row.conditions]


def _label(used: Sequence[Judgement]) -> str:
    own = [row for row in used if row.method == OURS]
    label = f"reproduced, {' or '.join(sorted({row.runs for row in own}))}"
    others = dict.fromkeys(row.method for row in used if row.method != OURS)
    label += f"; {enumerate_names(list(others))} reproduced, too" if others else ""
    conditions = dict.fromkeys(row.conditions for row in used if row.conditions)
    return label + (f" ({' | '.join(conditions)})" if conditions else "")


def _judge_claims(table: str, used: Sequence[Judgement], pro: str) -> list[ClaimResult]:
    """The claims on a table, with every PRO by one definition."""
    numbers = with_ours(table, {(row.row, row.metric): _number(row, pro) for row in used if row.method == OURS})
    if pro == POOLED:
        numbers |= {key: None for key in numbers if key[0] == "RD" and key[2] == "aupro"}
    numbers |= {(row.method, row.row, row.metric): _number(row, pro) for row in used}
    judged = [result for result in evaluate_claims({table: numbers}) if result.claim.table == table]
    return [_not_comparable(result) for result in judged] if any(row.conditions for row in used) else judged


def _number(row: Judgement, pro: str) -> float | None:
    return row.other_pro if row.metric == "aupro" and row.quantity != pro else row.reproduced


def sentence_claims(models: Path, backbone: str, seeds: Sequence[int]) -> list[ClaimResult]:
    """The claims about numbers that are in the text but in no table, judged on the existing models.

    Claims that the models can't judge are left out. Parameters are those of any model of a variant. A mean is over all
    categories of MVTec AD and the seeds. Systems that are known from abstracts only are our interpretations, so their
    numbers decide nothing.
    """
    numbers: dict[tuple[str, str, str], float | None] = {}
    for variant in ("scconv_in_msff", "simam_only", "asymmetric"):
        pattern = replace(EVERY_MODEL, dataset="mvtec_ad", variant=variant)
        if variant != "asymmetric":
            pattern = replace(pattern, backbone=backbone)
        found = map(read_record, find_metrics(models, pattern))
        records = [record for record in found if record.training.seed in seeds]
        if records:
            numbers[OURS, variant, "parameters"] = records[0].training.parameters / 1e6
        if {record.training.category for record in records} == set(paper_categories("mvtec_ad")):
            for metric in ("image_auroc", "pixel_auroc"):
                values = [record.percentages[metric] for record in records]
                numbers[OURS, variant, metric] = None if None in values else fmean(values)
    judged = [
        r for r in evaluate_claims({TEXT: numbers}, f"reproduced ({backbone_name(backbone)})") if r.claim.table == TEXT
    ]
    known = [r for r in judged if r.claim.table == TEXT and not r.outcome.detail.startswith("not known")]
    return [r if r.claim.id == "scconv_costs_less" else _not_comparable(r) for r in known]


def _not_comparable(result: ClaimResult) -> ClaimResult:
    outcome = replace(result.outcome, verdict=None, detail=f"not comparable: {result.outcome.detail}")
    return replace(result, outcome=outcome)


def judged_claims(rows: Sequence[Judgement], models: Path, backbone: str, seeds: Sequence[int]) -> list[ClaimResult]:
    """The claims on the reported numbers, then on the reproduced ones."""
    return [*evaluate_claims(), *reproduced_claims(rows), *sentence_claims(models, backbone, seeds)]
