"""HTML from templates: pages that load nothing from the network, and their parts."""

import base64
import html
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup, escape

from maskrd.errors import MaskrdError
from maskrd.reporting.grid import Grid
from maskrd.reporting.naming import metric_name, report_name

TITLE = "Masked reverse distillation: reported and reproduced"
NUMBER = re.compile(r"[+-]?[\d.]+( (h|min|s))?|")  # with the unit of a duration; or nothing


def typeset(text: object) -> Markup:
    """Plain text with the subscript of AUROC_AD."""
    return Markup(_subscripts(str(escape(text))))


def _subscripts(markup: str) -> str:
    return re.sub(r"\bAUROC_(\w+)", r"AUROC<sub>\1</sub>", markup)


def svg_text(text: str) -> Markup:
    """As `typeset`, for text within a picture."""
    lowered = r'AUROC<tspan dy="3" font-size="9">\1</tspan><tspan dy="-3">&#8203;</tspan>'
    return Markup(re.sub(r"\bAUROC_(\w+)", lowered, str(escape(text))))


def _slug(text: str) -> str:
    return re.sub(r"\W+", "-", text.lower())


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("maskrd.reporting"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters.update(typeset=typeset, svg_text=svg_text, slug=_slug, report=report_name)
    environment.filters["metric"] = lambda name: typeset(metric_name(name))
    return environment


def render(template: str, **content: object) -> str:
    return _environment().get_template(template).render(**content).strip() + "\n"


def render_table(grid: Grid, name: str, caption: str, notes: Sequence[str]) -> str:
    """A page with one table; `caption` and `notes` are plain text. Best bold, second underlined, as in LaTeX."""
    widths = Counter(column.metric for column in grid.columns)
    texts = {"title": report_name(name), "caption": caption, "notes": notes}
    return render("table.html", grid=grid, widths=widths, **texts)


def render_records(
    title: str, caption: str, headings: Sequence[str], rows: Sequence[Sequence[str]], picture: str = ""
) -> str:
    """A page with a picture and a plain table of texts. Columns of numbers are aligned to the right."""
    return render("records.html", **_records(title, caption, headings, rows) | {"picture": picture})


def render_records_table(title: str, caption: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    """A plain table of texts, without the page around it."""
    return Markup(render("records_table.html", **_records(title, caption, headings, rows)))


def _records(title: str, caption: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, object]:
    numeric = [place for place in range(len(headings)) if all(NUMBER.fullmatch(row[place]) for row in rows)]
    texts = {"title": title, "caption": caption, "picture": ""}
    return texts | {"headings": headings, "rows": rows, "numeric": numeric}


def render_macro(name: str, **content: object) -> Markup:
    """A chart, by the macro of its name in charts.html."""
    return Markup(getattr(_environment().get_template("charts.html").module, name)(**content))


def markdown_html(text: str) -> Markup:
    """Markdown as HTML, its headings two levels lower: it is a part of a page."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(text)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{int(token.tag[1]) + 2}"
    content = markdown.renderer.render(tokens, markdown.options, {})
    # Wide tables scroll by themselves, not the page.
    content = content.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>")
    content = content.replace("<table>", '<table class="sortable">')
    return Markup(_subscripts(content))


def data_uri(png: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(png.read_bytes()).decode()}"


@dataclass(frozen=True)
class Piece:
    """A part of the report: `name` is its anchor."""

    name: str
    title: str
    content: Markup


@dataclass(frozen=True)
class Section:
    name: str
    pieces: tuple[Piece, ...]
    hint: str = ""  # what a reader can do there


def read_piece(path: Path) -> Piece:
    """The content of one of our pages, or a PNG with its name as the title."""
    if path.suffix == ".png":
        title = report_name(path.stem)
        return Piece(path.stem, title, Markup(render("figure.html", title=title, source=data_uri(path))))
    text = path.read_text(encoding="utf-8", errors="replace")
    found = re.search(r"<title>(.*?)</title>.*<main>(.*)</main>", text, re.DOTALL)
    if found is None:
        raise MaskrdError(f"{path}: not a table of this pipeline. Delete it to make it anew.")
    return Piece(path.stem, html.unescape(found[1]), Markup(found[2]))
