"""Is a printed number reproduced? The verdict on every number that models at hand can answer.

A verdict compares an interval with a band: the band is the printed number +/- 0.5 percentage points, the interval is
the 95 % confidence interval of the mean over seeds (Student's t). A mean over categories is taken for each seed first,
and only where all of the paper's categories were run. No metric exceeds 100, so neither does an interval. With one
seed there is no interval: the point decides.

- reproduced: the interval lies within the band, ends included;
- lower, higher: the interval lies wholly below or above the band;
- inconclusive: the interval reaches over an end of the band, so that more seeds could decide either way;
- not comparable: the models were trained otherwise than the printed number claims (another backbone, fewer epochs, ...;
  `conditions` says how). The difference is shown, but it is no evidence for or against the paper;
- not run: no model at hand answers the number; for a mean, not all categories were run for any seed;
- not known: the paper's number can't be told from print (Table 2), or the row it belongs to can't, and each of the two
  gives another verdict (Table 7).

Only the paper's datasets are looked at, so nothing on generated data is ever called reproduced.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from scipy.special import stdtrit

from maskrd.data.counts import published_counts
from maskrd.experiment import Model, Training, held_out_count
from maskrd.files import write_csv
from maskrd.paper import OURS, TABLES, audit
from maskrd.paper.claims import ClaimResult, evaluate_claims, with_ours
from maskrd.paper.settings import Question, is_mean, questions
from maskrd.reporting.naming import backbone_name
from maskrd.reporting.runs import Run, read_run

BAND = 0.5  # percentage points around a printed number
REPRODUCED, LOWER, HIGHER, INCONCLUSIVE = "reproduced", "lower", "higher", "inconclusive"
NOT_COMPARABLE, NOT_RUN, NOT_KNOWN = "not comparable", "not run", "not known"
VERDICTS = (REPRODUCED, LOWER, HIGHER, INCONCLUSIVE, NOT_COMPARABLE, NOT_RUN, NOT_KNOWN)

Runs = Mapping[tuple[str, int], Run]  # (category, seed)


@dataclass(frozen=True)
class Estimate:
    """Mean over n seeds in percent, and its 95 % interval: for one seed the point itself, without sd."""

    mean: float
    sd: float | None
    n: int
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """One printed number and the verdict on it; percent and percentage points. The fields are verdict.csv's columns.

    `difference` is reproduced - reported. `conditions`: what makes the number not comparable; `remarks`: what a reader
    should know though the paper doesn't settle it.
    """

    table: str
    method: str
    row: str
    metric: str
    reported: float | None
    reproduced: float | None
    sd: float | None
    n: int
    low: float | None
    high: float | None
    difference: float | None
    verdict: str
    runs: str = ""
    conditions: str = ""
    remarks: str = ""


def estimate(values: Sequence[float]) -> Estimate:
    """Mean, standard deviation (n - 1) and Student's 95 % interval of one value for each seed."""
    mean, n = fmean(values), len(values)
    if n == 1:
        return Estimate(mean, None, 1, mean, mean)
    sd = stdev(values)
    margin = float(stdtrit(n - 1, 0.975)) * sd / n**0.5
    return Estimate(mean, sd, n, mean - margin, mean + margin)


def judge(reported: float, found: Estimate) -> str:
    """Compare the interval with the band, as the module's head defines it."""
    # In binary 63.9 - 64.4 is less than -0.5.
    low, high = round(found.low - reported, 9), round(found.high - reported, 9)
    if low >= -BAND and high <= BAND:
        return REPRODUCED
    if high < -BAND:
        return LOWER
    return HIGHER if low > BAND else INCONCLUSIVE


def verdicts(models: Path, backbone: str, seeds: Sequence[int]) -> list[Row]:
    """The verdict on every printed number of the paper's method, and of the baselines of which some model was run.

    Reads {models}/{model.path}/metrics.json of the paper's datasets. `backbone` is the configured one, of all tables
    but Table 4. Raises MaskrdError for a file that can't be read.
    """
    cache: dict[Model, Run | None] = {}

    def find(model: Model) -> Run | None:
        if model not in cache:
            cache[model] = read_run(models, model)
        return cache[model]

    rows = []
    for question in questions():
        runs = {}
        for category in question.categories:
            for seed in seeds:
                model = Model(question.dataset, category, question.variant, question.backbone or backbone, seed)
                run = find(model)
                if run and run.values[question.metric] is not None:
                    runs[category, seed] = run
        rows.append(_row(question, runs, seeds))
    retrained = {(row.table, row.method) for row in rows if row.verdict != NOT_RUN}
    return [row for row in rows if row.method == OURS or (row.table, row.method) in retrained]


def _row(question: Question, runs: Runs, seeds: Sequence[int]) -> Row:
    cell = question.cell
    seeds = _complete_seeds(question, runs, seeds)
    row = Row(cell.table, cell.method, cell.row, cell.metric, cell.value, None, None, 0, None, None, None, NOT_RUN)
    if not seeds:
        categories = {category for category, _ in runs}
        partly = f"{len(categories)} of {len(question.categories)} categories run: no mean" if categories else ""
        return replace(row, remarks=partly)
    runs = {(category, seed): run for (category, seed), run in runs.items() if seed in seeds}
    found = estimate(_means(question, runs, seeds, question.metric))
    found = replace(found, low=max(found.low, 0.0), high=min(found.high, 100.0))
    differing = list(dict.fromkeys(text for run in runs.values() for text in _differing(question, run)))
    remarks = [*_precisions(runs), *_other_pro(question, runs, seeds), *_misprint(question)]
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
    )


def _verdict(question: Question, found: Estimate, comparable: bool) -> str:
    readings = [question.cell.value] + ([] if question.other_reading is None else [question.other_reading])
    if None in readings:
        return NOT_KNOWN
    if not comparable:
        return NOT_COMPARABLE
    judged = {judge(reported, found) for reported in readings}
    return judged.pop() if len(judged) == 1 else NOT_KNOWN


def _complete_seeds(question: Question, runs: Runs, seeds: Sequence[int]) -> list[int]:
    """Those with which all the question's categories were run."""
    return [seed for seed in seeds if all((category, seed) in runs for category in question.categories)]


def _means(question: Question, runs: Runs, seeds: Sequence[int], metric: str) -> list[float]:
    """One value for each seed, the mean over categories; none where a category has none."""
    values = [[runs[category, seed].values[metric] for category in question.categories] for seed in seeds]
    return [fmean(found) for found in values if None not in found]


def _differing(question: Question, run: Run) -> list[str]:
    """What was otherwise than the printed number claims; each entry makes it not comparable."""
    texts = [question.unlike] if question.unlike else []
    if run.model.backbone != question.paper_backbone:
        texts.append(f"{backbone_name(run.model.backbone)} instead of {backbone_name(question.paper_backbone)}")
    # A setting that an older run doesn't record has a default: what the package did before it could be set.
    recorded = Training.parse(f"{run.model.path}/metrics.json: training.recipe", json.dumps(run.training["recipe"]))
    recipe = recorded.model_dump(mode="json")
    for key, wanted in question.settings.items():
        if recipe[key] != wanted:
            texts.append(f"{key} {_shown(recipe[key])} instead of {_shown(wanted)}")
    texts += [f"{key} {_shown(recipe[key])} instead of some" for key in question.given if not recipe[key]]
    tested = run.evaluation.get("recipe", {})
    for key, wanted in question.evaluation.items():
        if tested.get(key, wanted) != wanted:
            texts.append(f"{key} {_shown(tested[key])} instead of {_shown(wanted)}")
    if recorded.leaks:
        texts.append("a checkpoint chosen on the test images")
    published = published_counts()[run.model.dataset][run.model.category]
    learned = published.train - held_out_count(published.train, recorded.validation_fraction)
    for kind, images, wanted in (
        ("training", run.training.get("images"), learned),
        ("test", run.evaluation.get("images"), published.test),
    ):
        if images != wanted:
            texts.append(f"{images} {kind} images of {run.model.category} instead of {wanted}")
    return texts


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else str(value)


def _precisions(runs: Runs) -> list[str]:
    """Any but fp32, which PyTorch computed in when the paper was written."""
    found = sorted({run.training["recipe"].get("precision", "fp32") for run in runs.values()})
    return [] if found == ["fp32"] else [f"precision {' and '.join(found)}"]


def _other_pro(question: Question, runs: Runs, seeds: Sequence[int]) -> list[str]:
    """The other PRO: per image as RD's published code has it, or pooled. Of ours print doesn't say which it is."""
    if question.cell.metric != "aupro":
        return []
    own = question.metric == "aupro"
    values = _means(question, runs, seeds, "pro_per_image" if own else "aupro")
    found = f"{fmean(values):.1f}" if values else "not measured"
    if own:
        return [f"PRO per image {found}"] if values else []
    return [f"PRO per image, as its code has it; pooled {found}"]


def _misprint(question: Question) -> list[str]:
    """A printed mean that doesn't follow from the printed entries."""
    cell = question.cell
    return [
        f"printed mean; the printed entries give {row.recomputed}"
        for row in audit.rows()
        if is_mean(question) and (row.table, row.method, row.metric) == (cell.table, cell.method, cell.metric)
        if row.departs and row.explained not in ("truncated", "rounding")
    ]


def reproduced_claims(rows: Iterable[Row]) -> list[ClaimResult]:
    """The paper's claims judged with reproduced numbers in place of its own, table by table.

    Tables without a reproduced number are left out. The other methods' numbers stay the printed ones. Where ours were
    made under other conditions than the paper's, `numbers` says under which, and no verdict is given. As the paper,
    they compare means, however few the runs: `numbers` says how many, and the ablations' paired differences what of
    it may be chance.
    """
    results = []
    for table in TABLES:
        own = [row for row in rows if (row.table, row.method) == (table, OURS) and row.reproduced is not None]
        if own:
            numbers = with_ours(table, {(row.row, row.metric): row.reproduced for row in own})
            conditions = dict.fromkeys(row.conditions for row in own if row.conditions)
            label = f"reproduced, {' or '.join(sorted({row.runs for row in own}))}"
            label += f" ({' | '.join(conditions)})" if conditions else ""
            judged = [r for r in evaluate_claims({table: numbers}, label) if r.claim.table == table]
            results += [_not_comparable(result) for result in judged] if conditions else judged
    return results


def _not_comparable(result: ClaimResult) -> ClaimResult:
    outcome = replace(result.outcome, verdict=None, detail=f"not comparable: {result.outcome.detail}")
    return replace(result, outcome=outcome)


def judged_claims(rows: Iterable[Row]) -> list[ClaimResult]:
    """The paper's claims on its own numbers, then on the reproduced ones."""
    return [*evaluate_claims(), *reproduced_claims(rows)]


def write_verdict(rows: Iterable[Row], path: Path) -> None:
    """Write verdict.csv: two decimals, empty where there is nothing."""
    write_csv(path, (field.name for field in fields(Row)), map(two_decimals, rows))


def two_decimals(row: object) -> list[object]:
    """The fields of a dataclass, numbers as text with two decimals."""
    return [f"{value:z.2f}" if isinstance(value, float) else value for value in astuple(row)]
