"""Numbers of independent code for cells of the paper's tables (others.csv), in percent."""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class OtherValue:
    """One number, with the repository, commit and file that print it.

    `row` is a category or `mean`. `metric` is ours: STPM's PRO, which stretches both axes, is `pro_rescaled`, and so
    never stands beside a PRO of another kind.
    """

    method: str
    backbone: str
    row: str
    metric: str
    value: float
    repository: str
    commit: str
    path: str


@cache
def other_values() -> tuple[OtherValue, ...]:
    """Every number, in the order of the file."""
    lines = csv.DictReader((files("maskrd.paper") / "others.csv").read_text(encoding="utf-8").splitlines())
    return tuple(OtherValue(**{**line, "value": float(line["value"])}) for line in lines)


def published_by_others(method: str, backbone: str, row: str, metric: str) -> tuple[OtherValue, ...]:
    """The numbers for one cell with one backbone. Empty if nobody publishes one."""
    wanted = (method, backbone, row, metric)
    return tuple(other for other in other_values() if (other.method, other.backbone, other.row, other.metric) == wanted)
