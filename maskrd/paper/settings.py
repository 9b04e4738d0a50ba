"""Which trained model belongs to which reported number, and the settings that it must have (settings.yaml)."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from maskrd.config.settings import PAPER_BACKBONE
from maskrd.data.registry import published_counts
from maskrd.paper.tables import MEAN, OURS, TABLES, ReportedValue, reported_values, value

BACKBONE_TABLE = "table4"
VARIANT_TABLES = ("table5", "table6", "table7")


@dataclass(frozen=True)
class Question:
    """A reported number and the models that answer it: one for each of `categories` and seed.

    `backbone` None is the configured one; `paper_backbone`, `settings` (values), `given` (neither null nor 0) and
    `evaluation` are what the reported number stands for. `metric` answers it, unless `unlike` says why nothing does.
    `doubt`: what the paper leaves open about the row. `other_reading`: the number if the row is another one.
    """

    cell: ReportedValue
    dataset: str
    variant: str
    backbone: str | None
    paper_backbone: str
    categories: tuple[str, ...]
    settings: dict[str, Any]
    given: tuple[str, ...]
    evaluation: dict[str, Any]
    metric: str
    unlike: str
    doubt: str
    other_reading: float | None


@cache
def _content() -> dict[str, Any]:
    return yaml.safe_load((files("maskrd.paper") / "settings.yaml").read_text(encoding="utf-8"))


def dataset_of(table: str) -> str:
    return "cifar10" if table == "table2" else "mvtec_ad"


def paper_categories(dataset: str) -> tuple[str, ...]:
    return tuple(published_counts(dataset))


def questions() -> Iterator[Question]:
    """Every reported number of the paper's method and of the baselines that we can train, in the paper's order."""
    for table in TABLES:
        for cell in reported_values(table):
            known = _content()["methods"].get(cell.method, {}).get(dataset_of(table))
            if known and (cell.value is not None or cell.method == OURS):
                yield _question(cell, known)


def _question(cell: ReportedValue, known: dict[str, Any]) -> Question:
    dataset, every = dataset_of(cell.table), paper_categories(dataset_of(cell.table))
    backbone, variant = known["backbone"], known["variant"]
    if cell.table == BACKBONE_TABLE:
        backbone = cell.row
    elif cell.table in VARIANT_TABLES:
        variant = cell.row
    doubt = _content()["doubts"].get(cell.table, {}).get(cell.row, {}) if cell.method == OURS else {}
    return Question(
        cell=cell,
        dataset=dataset,
        variant=variant,
        backbone=backbone,
        paper_backbone=backbone or PAPER_BACKBONE,
        categories=(cell.row,) if cell.row in every else every,
        settings=known["settings"] | (_content()["rows"][variant] if cell.method == OURS else {}),
        given=tuple(known.get("given", ())),
        evaluation=known.get("evaluation", {}),
        metric=known.get("metrics", {}).get(cell.metric, cell.metric),
        unlike=known.get("unlike", {}).get(cell.metric, ""),
        doubt=doubt.get("text", ""),
        other_reading=value(cell.table, cell.method, doubt["or"], cell.metric) if "or" in doubt else None,
    )


def reported_metric(method: str, dataset: str, metric: str) -> str:
    """Our metric for what the paper reports of a method under the name of `metric`; "" if we have none."""
    known = _content()["methods"].get(method, {}).get(dataset, {})
    return "" if metric in known.get("unlike", {}) else known.get("metrics", {}).get(metric, metric)


def is_mean(question: Question) -> bool:
    """Whether the number is a mean over all categories: a line `mean`, or any line of Tables 4-7."""
    return question.cell.row == MEAN or question.cell.table not in TABLES[:3]
