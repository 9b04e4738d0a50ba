"""The paper's claims, judged on reproduced numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from maskrd.config.files import EVERY_MODEL, find_metrics
from maskrd.config.record import Record, find_record
from maskrd.config.settings import Model
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

    Claims that the models can't judge are left out. Parameters are those of any model of a variant. A mean is over the
    seeds that have all categories of MVTec AD. Systems that are known from abstracts only are our interpretations, so
    their numbers decide nothing. Raises MaskrdError like `find_record`.
    """
    numbers: dict[tuple[str, str, str], float | None] = {}
    for variant, teacher in (("scconv_in_msff", backbone), ("simam_only", backbone), ("asymmetric", "*")):
        pattern = replace(EVERY_MODEL, dataset="mvtec_ad", variant=variant, backbone=teacher)
        found = [model for model in map(Model.of_file, find_metrics(models, pattern)) if model.seed in seeds]
        records = {model: find_record(models, model) for model in found}
        if records:
            numbers[OURS, variant, "parameters"] = records[found[0]].training.parameters / 1e6
        for metric in ("image_auroc", "pixel_auroc"):
            numbers[OURS, variant, metric] = _mean_over_runs(records, metric)
    judged = evaluate_claims({TEXT: numbers}, f"reproduced ({backbone_name(backbone)})")
    known = [r for r in judged if r.claim.table == TEXT and r.outcome.verdict is not None]
    return [r if r.claim.id == "scconv_costs_less" else _not_comparable(r) for r in known]


def _mean_over_runs(records: Mapping[Model, Record], metric: str) -> float | None:
    """The mean over categories, then over the seeds that have all of MVTec AD's, with the first backbone that has one.

    None without such a seed, and if a value is missing.
    """
    runs: dict[str, dict[int, list[float | None]]] = {}
    for model, record in records.items():
        runs.setdefault(model.backbone, {}).setdefault(model.seed, []).append(record.percentages[metric])
    count = len(paper_categories("mvtec_ad"))
    for _, seeds in sorted(runs.items()):
        complete = [values for values in seeds.values() if len(values) == count]
        if complete:
            return None if any(None in values for values in complete) else fmean(map(fmean, complete))
    return None


def _not_comparable(result: ClaimResult) -> ClaimResult:
    outcome = replace(result.outcome, verdict=None, detail=f"not comparable: {result.outcome.detail}")
    return replace(result, outcome=outcome)


def judged_claims(rows: Sequence[Judgement], models: Path, backbone: str, seeds: Sequence[int]) -> list[ClaimResult]:
    """The claims on the reported numbers, then on the reproduced ones."""
    return [*evaluate_claims(), *reproduced_claims(rows), *sentence_claims(models, backbone, seeds)]
