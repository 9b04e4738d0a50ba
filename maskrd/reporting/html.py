"""HTML pages that need no other file: a table, records, Markdown, and all of them together."""

import base64
import html
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup, escape

from maskrd.files import write_text
from maskrd.reporting.layout import Layout
from maskrd.reporting.naming import metric_name, report_name

TITLE = "Masked reverse distillation: reported and reproduced"
NUMBER = re.compile(r"[+-]?[\d.]+( (h|min|s))?|")  # with the unit of a duration; or nothing


def typeset(text: object) -> Markup:
    """Plain text with the subscript of AUROC_AD."""
    return Markup(_subscripts(str(escape(text))))


def _subscripts(markup: str) -> str:
    return re.sub(r"\bAUROC_(\w+)", r"AUROC<sub>\1</sub>", markup)


def _slug(text: str) -> str:
    return re.sub(r"\W+", "-", text.lower())


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("maskrd.reporting"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters.update(typeset=typeset, slug=_slug, report=report_name)
    environment.filters["metric"] = lambda name: typeset(metric_name(name))
    return environment


def render(template: str, **content: object) -> str:
    return _environment().get_template(template).render(**content).strip() + "\n"


def render_table(layout: Layout, name: str, caption: str, notes: Sequence[str]) -> str:
    """A page with one table; `caption` and `notes` are plain text. Best bold, second underlined, as in LaTeX."""
    widths = Counter(column.metric for column in layout.columns)
    texts = {"title": report_name(name), "caption": caption, "notes": notes}
    return render("table.html", layout=layout, widths=widths, **texts)


def render_records(title: str, caption: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A page with a plain table of texts; columns that hold nothing but numbers are aligned to the right."""
    numeric = [place for place in range(len(headings)) if all(NUMBER.fullmatch(row[place]) for row in rows)]
    return render("records.html", title=title, caption=caption, headings=headings, rows=rows, numeric=numeric)


def render_markdown(title: str, text: str) -> str:
    """A page from Markdown, its headings two levels lower: it is a part of a report."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(text)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{int(token.tag[1]) + 2}"
    content = markdown.renderer.render(tokens, markdown.options, {})
    # Wide tables scroll by themselves, not the page.
    content = content.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>")
    return render("page.html", title=title, content=Markup(_subscripts(content)))


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


def read_piece(path: Path) -> Piece:
    """A page of ours without what is around its content, or a PNG with its name for a title."""
    if path.suffix == ".png":
        title = report_name(path.stem)
        return Piece(path.stem, title, Markup(render("figure.html", title=title, source=data_uri(path))))
    text = path.read_text(encoding="utf-8")
    title = html.unescape(re.search(r"<title>(.*?)</title>", text, re.DOTALL)[1])
    return Piece(path.stem, title, Markup(re.search(r"<main>(.*)</main>", text, re.DOTALL)[1]))


def write_report(contents: Mapping[str, Sequence[str]], path: Path) -> None:
    """One page of all pieces; `contents`: name of a section -> its files. Sections without a file are left out."""
    sections = [Section(name, tuple(read_piece(Path(file)) for file in files)) for name, files in contents.items()]
    write_text(path, render("report.html", title=TITLE, sections=[s for s in sections if s.pieces]))
