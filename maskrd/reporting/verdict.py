"""Is a reported number reproduced? The verdict on each number that the existing models reproduce.

A verdict compares an interval with a band. The band is the reported number +/- 0.5 percentage points. The interval is
the 95 % confidence interval of the mean over seeds (Student's t), cut at 0 and 100. A mean over categories is taken for
each seed first, and only if all of the paper's categories were run. One seed has no interval: the number decides.

- reproduced: the interval is within the band, ends included;
- lower, higher: the interval is entirely below or above the band;
- inconclusive: the interval is partly inside the band, so more seeds could decide either way;
- not comparable: the models were trained with other settings than the paper's (another backbone, fewer epochs, ...;
  `conditions` says which). The difference is shown, but it is not evidence for or against the paper;
- not run: there is no model for the number; for a mean, no seed has all categories;
- not known: the paper's number is ambiguous (Table 2), or its row is, and the two readings give different verdicts
  (Table 7).

Only models on the paper's datasets count, so generated data never reproduce a number.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from statistics import fmean, stdev

from scipy.special import stdtrit

from maskrd.config.record import Mismatch, Record, compare_settings, find_record
from maskrd.config.settings import Model, held_out_count
from maskrd.data.registry import published_counts
from maskrd.files import write_csv
from maskrd.paper import OURS, audit
from maskrd.paper.others import published_by_others
from maskrd.paper.settings import Question, is_mean, questions
from maskrd.reporting.naming import backbone_name

POOLED, PER_IMAGE = "aupro", "pro_per_image"  # the two possible meanings of the paper's PRO
BAND = 0.5  # percentage points around a reported number
REPRODUCED, LOWER, HIGHER, INCONCLUSIVE = "reproduced", "lower", "higher", "inconclusive"
NOT_COMPARABLE, NOT_RUN, NOT_KNOWN = "not comparable", "not run", "not known"
VERDICTS = (REPRODUCED, LOWER, HIGHER, INCONCLUSIVE, NOT_COMPARABLE, NOT_RUN, NOT_KNOWN)

Records = Mapping[tuple[str, int], Record]  # (category, seed)


@dataclass(frozen=True)
class Estimate:
    """Mean over n seeds in percent, and its 95 % interval. With one seed, the interval is the mean and sd is None."""

    mean: float
    sd: float | None
    n: int
    low: float
    high: float


@dataclass(frozen=True)
class Judgement:
    """One reported number and its verdict, in percent and percentage points. The fields are verdict.csv's columns.

    `difference` is reproduced - reported. `conditions`: why the number is not comparable. `remarks`: other facts that a
    reader should know. `others`: the number of independent code for the cell, with its repository. `quantity`: our
    metric for the number. `other_pro`: PRO by the other definition, pooled or per image.
    """

    table: str
    method: str
    row: str
    metric: str
    reported: float | None
    reproduced: float | None = None
    sd: float | None = None
    n: int = 0
    low: float | None = None
    high: float | None = None
    difference: float | None = None
    verdict: str = NOT_RUN
    runs: str = ""
    conditions: str = ""
    remarks: str = ""
    others: str = ""
    quantity: str = ""
    other_pro: float | None = None


def estimate(values: Sequence[float]) -> Estimate:
    """Mean, standard deviation (n - 1) and Student's 95 % interval of one value for each seed."""
    mean, n = fmean(values), len(values)
    if n == 1:
        return Estimate(mean, None, 1, mean, mean)
    sd = stdev(values)
    margin = float(stdtrit(n - 1, 0.975)) * sd / n**0.5
    return Estimate(mean, sd, n, mean - margin, mean + margin)


def judge(reported: float, found: Estimate) -> str:
    """Compare the interval with the band. The docstring of this module has the definitions."""
    # In binary 63.9 - 64.4 is less than -0.5.
    low, high = round(found.low - reported, 9), round(found.high - reported, 9)
    if low >= -BAND and high <= BAND:
        return REPRODUCED
    if high < -BAND:
        return LOWER
    return HIGHER if low > BAND else INCONCLUSIVE


def verdicts(models: Path, backbone: str, seeds: Sequence[int]) -> list[Judgement]:
    """The verdict on every reported number of the paper's method, and of baselines with at least one model.

    Reads {models}/{model.path}/metrics.json of the paper's datasets. `backbone` is the configured one, used by all
    tables except Table 4. Raises MaskrdError for a file that can't be read.
    """
    cache: dict[Model, Record | None] = {}

    def find(model: Model) -> Record | None:
        if model not in cache:
            cache[model] = find_record(models, model)
        return cache[model]

    rows = []
    for question in questions():
        records = {}
        for category in question.categories:
            for seed in seeds:
                model = Model(question.dataset, category, question.variant, question.backbone or backbone, seed)
                record = find(model)
                if record and record.percentages[question.metric] is not None:
                    records[category, seed] = record
        rows.append(_row(question, records, seeds))
    retrained = {(row.table, row.method) for row in rows if row.verdict != NOT_RUN}
    return [row for row in rows if row.method == OURS or (row.table, row.method) in retrained]


def _row(question: Question, records: Records, seeds: Sequence[int]) -> Judgement:
    cell = question.cell
    seeds = _complete_seeds(question, records, seeds)
    row = Judgement(cell.table, cell.method, cell.row, cell.metric, cell.value, others=_others(question))
    if not seeds:
        categories = {category for category, _ in records}
        partly = f"{len(categories)} of {len(question.categories)} categories run: no mean" if categories else ""
        return replace(row, remarks=partly)
    records = {(category, seed): record for (category, seed), record in records.items() if seed in seeds}
    found = estimate(_means(question, records, seeds, question.metric))
    found = replace(found, low=max(found.low, 0.0), high=min(found.high, 100.0))
    differing = list(dict.fromkeys(text for record in records.values() for text in _differing(question, record)))
    other_pro = _other_pro(question, records, seeds)
    remarks = [*_precisions(records), *_pro_remark(question, other_pro), *_misprint(question)]
    remarks += [question.doubt] if question.doubt else []
    return replace(
        row,
        reproduced=found.mean,
        sd=found.sd,
        n=found.n,
        low=None if found.n == 1 else found.low,
        high=None if found.n == 1 else found.high,
        difference=None if cell.value is None else found.mean - cell.value,
        verdict=_verdict(question, found, comparable=not differing),
        runs="single run" if found.n == 1 else f"{found.n} seeds",
        conditions="; ".join(differing),
        remarks="; ".join(remarks),
        quantity=question.metric,
        other_pro=other_pro,
    )


def _others(question: Question) -> str:
    """The numbers of other code for the cell, with the paper's backbone. Only if the metric is the same quantity."""
    cell = question.cell
    found = published_by_others(cell.method, question.paper_backbone, cell.row, question.metric)
    return "; ".join(f"{other.value:.1f} ({other.repository})" for other in found)


def _verdict(question: Question, found: Estimate, comparable: bool) -> str:
    readings = [question.cell.value] + ([] if question.other_reading is None else [question.other_reading])
    if None in readings:
        return NOT_KNOWN
    if not comparable:
        return NOT_COMPARABLE
    judged = {judge(reported, found) for reported in readings}
    return judged.pop() if len(judged) == 1 else NOT_KNOWN


def _complete_seeds(question: Question, records: Records, seeds: Sequence[int]) -> list[int]:
    """The seeds that have all categories of the question."""
    return [seed for seed in seeds if all((category, seed) in records for category in question.categories)]


def _means(question: Question, records: Records, seeds: Sequence[int], metric: str) -> list[float]:
    """One value for each seed: the mean over categories. A seed without all values is left out."""
    values = [[records[category, seed].percentages[metric] for category in question.categories] for seed in seeds]
    return [fmean(found) for found in values if None not in found]


def _differing(question: Question, record: Record) -> list[str]:
    """How the model differs from the reported number's conditions. Each entry makes it not comparable."""
    training, recipe = record.training, record.training.recipe
    texts = [question.unlike] if question.unlike else []
    if training.backbone != question.paper_backbone:
        texts.append(f"{backbone_name(training.backbone)} instead of {backbone_name(question.paper_backbone)}")
    texts += map(str, compare_settings(recipe, question.settings))
    given = {key: getattr(recipe, key, None) for key in question.given}
    texts += [str(Mismatch(key, value, "some")) for key, value in given.items() if not value]
    texts += map(str, compare_settings(record.evaluation.recipe, question.evaluation))
    if recipe.leaks:
        texts.append("a checkpoint chosen on the test images")
    published = published_counts(training.dataset)[training.category]
    learned = published.train - held_out_count(published.train, getattr(recipe, "validation_fraction", 0))
    for kind, images, wanted in (
        ("training", training.images, learned),
        ("test", record.evaluation.images, published.test),
    ):
        if images != wanted:
            texts.append(f"{images} {kind} images of {training.category} instead of {wanted}")
    return texts


def _precisions(records: Records) -> list[str]:
    """A remark on precisions other than fp32, PyTorch's default when the paper was written."""
    found = sorted({record.training.recipe.precision for record in records.values()})
    return [] if found == ["fp32"] else [f"precision {' and '.join(found)}"]


def _other_pro(question: Question, records: Records, seeds: Sequence[int]) -> float | None:
    """PRO by the other definition: per image if the number is pooled; pooled for RD, whose number is per image."""
    if question.cell.metric != "aupro":
        return None
    values = _means(question, records, seeds, PER_IMAGE if question.metric == POOLED else POOLED)
    return fmean(values) if values else None


def _pro_remark(question: Question, other: float | None) -> list[str]:
    if question.metric == POOLED:
        return [] if other is None else [f"PRO per image {other:.1f}"]
    if question.metric == PER_IMAGE:
        return [f"PRO per image, as its code has it; pooled {'not measured' if other is None else f'{other:.1f}'}"]
    return []


def _misprint(question: Question) -> list[str]:
    """A remark on a reported mean that differs from the mean of the reported entries."""
    cell = question.cell
    return [
        f"reported mean; the reported entries give {row.recomputed}"
        for row in audit.rows()
        if is_mean(question) and (row.table, row.method, row.metric) == (cell.table, cell.method, cell.metric)
        if row.departs and row.explained not in ("truncated", "rounding")
    ]


def write_verdict(rows: Iterable[Judgement], path: Path) -> None:
    """Write verdict.csv with two decimals. Missing values are empty."""
    write_csv(path, (field.name for field in fields(Judgement)), map(two_decimals, rows))


def two_decimals(row: object) -> list[object]:
    """The fields of a dataclass, numbers as text with two decimals."""
    return [f"{value:z.2f}" if isinstance(value, float) else value for value in astuple(row)]
