"""The tables as one document, with what is wrong in their printed originals as footnotes; and its PDF."""

import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from maskrd.errors import MaskrdError
from maskrd.experiment import Report
from maskrd.files import atomic_path, write_text
from maskrd.paper import Erratum, errata
from maskrd.reporting.latex import escape
from maskrd.reporting.layout import paper_rows

PREAMBLE = r"""\documentclass{article}
\usepackage[a4paper, margin=25mm]{geometry}
\usepackage{booktabs, amssymb, graphicx, rotating}
\renewcommand{\thetable}{S\arabic{table}}
\begin{document}
"""
LEGEND = (
    "Footnotes say what is wrong or unclear in the tables as printed. Found: it stands in the paper or a named source. "
    "Inferred: it follows by the reasoning given. Unknown: nothing published settles it."
)
# Each as often as references need to be right; the first that is installed is used.
ENGINES = {
    "pdflatex": [["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-output-directory"]] * 2,
    "tectonic": [["tectonic", "--outdir"]],
}


def write_supplement(reports: Sequence[Report], tables: Path, output: Path) -> None:
    """Write the document that includes {tables}/{report.name}.tex of every report, in their order.

    A table that answers a printed one comes with that one's errata.
    Raises MaskrdError if the tables lie beside or above the document: TeX reads by relative paths.
    """
    try:
        folder = tables.resolve().relative_to(output.parent.resolve()).as_posix()
    except ValueError:
        raise MaskrdError(f"{output}: must lie in a folder above {tables}, for TeX to find the tables.") from None
    answers = {report.name for report in reports if paper_rows(report)}
    parts = [PREAMBLE, f"\\noindent {LEGEND}\\par\\bigskip\n" if answers else ""]
    for report in reports:
        if report.name in answers:
            heading = f"What Table~\\ref{{tab:{report.name}}} answers, as printed:"
            parts.append(_paragraph(heading, errata(report.name)))
        parts.append(f"\\input{{{folder}/{report.name}.tex}}\n\\clearpage\n")
    if answers:
        parts.append(_paragraph("Elsewhere in the paper:", (e for e in errata() if e.table is None)))
    write_text(output, "\n".join([*filter(None, parts), "\\end{document}\n"]))


def _paragraph(heading: str, entries: Iterable[Erratum]) -> str:
    """The places that the errata are about, each with a footnote."""
    places = [f"{escape(entry.where)}\\footnote{{{escape(_text(entry))}}}" for entry in entries]
    return f"\\noindent\\textbf{{{heading}}}\n" + ";\n".join(places) + ".\n" if places else ""


def _text(erratum: Erratum) -> str:
    printed, certainty = erratum.printed.rstrip("."), erratum.certainty.capitalize()
    return f"Printed: {printed}. {erratum.wrong} {erratum.reading} {certainty} ({erratum.id})."


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
