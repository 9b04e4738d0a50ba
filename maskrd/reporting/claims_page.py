"""The paper's claims for the eye: what it says, beside what printed and reproduced numbers say."""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from maskrd.files import write_text
from maskrd.paper import TABLES, rows
from maskrd.paper.claims import CLAIMS, VERDICTS, ClaimResult
from maskrd.reporting.html import render
from maskrd.reporting.naming import metric_name, row_name, variant_name
from maskrd.reporting.runs import METRICS


def write_claims_page(results: Sequence[ClaimResult], path: Path) -> None:
    """Write a page of the claims; `results` are those of claims.csv."""
    claims = []
    for claim in CLAIMS:
        judged = [result for result in results if result.claim.id == claim.id]
        reproduced = [result for result in judged if result.numbers.startswith("reproduced")]
        claims.append((claim, [result for result in judged if result not in reproduced], reproduced))
    page = render("claims.html", title="The paper's claims", claims=claims, verdicts=VERDICTS, named=named)
    write_text(path, page)


def named(text: str) -> str:
    """The detail of an outcome with the paper's names in place of our identifiers."""
    return re.sub(r"\w+", lambda word: _names().get(word[0], word[0]), text)


@cache
def _names() -> dict[str, str]:
    categories = {row: row_name(row) for table in TABLES[:4] for row in rows(table)}
    variants = {row: variant_name(row) for table in TABLES[4:] for row in rows(table)}
    return categories | variants | {metric: metric_name(metric) for metric in METRICS}
