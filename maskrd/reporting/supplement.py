"""The supplement: all tables in one LaTeX document, with the paper's errata as footnotes, and its PDF."""

import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from maskrd.config.view import View
from maskrd.errors import MaskrdError
from maskrd.files import atomic_path, write_text
from maskrd.paper import Erratum, errata
from maskrd.reporting.grid import paper_rows
from maskrd.reporting.latex import escape

PREAMBLE = r"""\documentclass{article}
\usepackage[a4paper, margin=25mm]{geometry}
\usepackage{booktabs, amssymb, graphicx, rotating}
\renewcommand{\thetable}{S\arabic{table}}
\begin{document}
"""
LEGEND = (
    "Footnotes say what is wrong or unclear in the reported tables. Found: the paper or a named source says so. "
    "Inferred: it follows from the reasoning given. Unknown: nothing published settles it."
)
# The first engine that is installed is used. pdflatex runs twice, so that references are right.
ENGINES = {
    "pdflatex": [["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-output-directory"]] * 2,
    "tectonic": [["tectonic", "--outdir"]],
}


def write_supplement(views: Sequence[View], tables: Path, output: Path) -> None:
    """Write the document that includes {tables}/{view.name}.tex of every view, in their order.

    The errata of a reported table come before the table that reproduces it.
    Raises MaskrdError if the tables aren't in a folder below the document's: TeX needs relative paths.
    """
    try:
        folder = tables.resolve().relative_to(output.parent.resolve()).as_posix()
    except ValueError:
        raise MaskrdError(f"{output}: not in a folder above {tables}, so TeX can't find the tables.") from None
    answers = {view.name for view in views if paper_rows(view)}
    parts = [PREAMBLE, f"\\noindent {LEGEND}\\par\\bigskip\n" if answers else ""]
    for view in views:
        if view.name in answers:
            heading = f"The paper's table that Table~\\ref{{tab:{view.name}}} reproduces:"
            parts.append(_paragraph(heading, errata(view.name)))
        parts.append(f"\\input{{{folder}/{view.name}.tex}}\n\\clearpage\n")
    if answers:
        parts.append(_paragraph("Elsewhere in the paper:", (e for e in errata() if e.table is None)))
    write_text(output, "\n".join([*filter(None, parts), "\\end{document}\n"]))


def _paragraph(heading: str, entries: Iterable[Erratum]) -> str:
    """The places that the errata are about, each with a footnote."""
    places = [f"{escape(entry.where)}\\footnote{{{escape(_text(entry))}}}" for entry in entries]
    return f"\\noindent\\textbf{{{heading}}}\n" + ";\n".join(places) + ".\n" if places else ""


def _text(erratum: Erratum) -> str:
    reported, certainty = erratum.reported.rstrip("."), erratum.certainty.capitalize()
    return f"Reported: {reported}. {erratum.wrong} {erratum.reading} {certainty} ({erratum.id})."


def compile_pdf(tex: Path, output: Path) -> None:
    """Make a PDF of a document by the TeX engine that is installed.

    Raises MaskrdError if there is none, or with the end of its output if it fails.
    """
    engine = next(filter(shutil.which, ENGINES), None)
    if engine is None:
        raise MaskrdError(
            f"There is no TeX engine ({' or '.join(ENGINES)}) to make {output}; {tex} is complete. Install one, on "
            "Debian texlive-latex-base and texlive-latex-recommended, or compile the document elsewhere."
        )
    with TemporaryDirectory() as folder:
        for command in ENGINES[engine]:
            done = subprocess.run(
                [*command, folder, tex.name], cwd=tex.parent, capture_output=True, text=True, errors="replace"
            )
            if done.returncode:
                raise MaskrdError(f"{engine} fails on {tex}:\n{(done.stdout + done.stderr)[-2000:]}")
        with atomic_path(output) as temporary:
            shutil.copy(Path(folder) / tex.with_suffix(".pdf").name, temporary)
