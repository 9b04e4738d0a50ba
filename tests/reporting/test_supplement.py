"""The supplement: seven tables in one document, the reported tables' errata as footnotes, and its PDF."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from maskrd.cli import app
from maskrd.config.load import parse_experiment
from maskrd.config.settings import canonical_json
from maskrd.config.view import View
from maskrd.errors import MaskrdError
from maskrd.paper import TABLES, errata
from maskrd.reporting import supplement
from maskrd.reporting.latex import escape
from maskrd.reporting.supplement import compile_pdf, write_supplement
from maskrd.reporting.tables import write_table

NO_ENGINE = not any(map(shutil.which, supplement.ENGINES))


@pytest.fixture
def reports(config: dict[str, Any], tmp_path: Path) -> list[View]:
    """The paper's tables without any model, written to tmp_path/results/tables."""
    experiment = parse_experiment(config)
    reports = [experiment.view(name) for name in TABLES]
    for report in reports:
        files = [tmp_path / f"results/tables/{report.name}.{kind}" for kind in ("csv", "tex", "html")]
        write_table(report, tmp_path / "models", *files)
    return reports


def write(reports: list[View], folder: Path) -> Path:
    path = folder / "results/supplement.tex"
    write_supplement(reports, folder / "results/tables", path)
    return path


def test_every_table_is_included_and_every_erratum_a_footnote(reports: list[View], tmp_path: Path) -> None:
    text = write(reports, tmp_path).read_text()
    assert re.findall(r"\\input\{(.*)\}", text) == [f"tables/{name}.tex" for name in TABLES]
    footnotes = re.findall(r"\((\w+)\)\.\}", text.replace(r"\_", "_"))
    assert sorted(footnotes) == sorted(erratum.id for erratum in errata())
    start, end = text.index(r"\ref{tab:table2}"), text.index("tables/table2.tex")
    assert len(re.findall(r"\\footnote\{", text[start:end])) == len(errata("table2"))
    assert "Deer 81.2 $<$ 87.1" in text


def test_the_command_reads_its_views_as_json(reports: list[View], tmp_path: Path) -> None:
    output = tmp_path / "results/by_command.tex"
    words = [word for report in reports for word in ("--view", canonical_json(report))]
    app(["tex", *words, "--tables", str(tmp_path / "results/tables"), "--output", str(output)], standalone_mode=False)
    assert output.read_text() == write(reports, tmp_path).read_text()


def test_tables_of_other_data_have_none_of_the_papers_errata(reports: list[View], tmp_path: Path) -> None:
    other = [report.model_copy(update={"name": f"{report.name}_mine"}) for report in reports]
    text = write(other, tmp_path).read_text()
    assert r"\input{tables/table7_mine.tex}" in text
    assert "footnote" not in text.lower()


def test_a_document_that_tex_could_not_find_its_tables_from_is_refused(reports: list[View], tmp_path: Path) -> None:
    with pytest.raises(MaskrdError, match="not in a folder above"):
        write_supplement(reports, tmp_path / "results/tables", tmp_path / "elsewhere/supplement.tex")


def test_text_that_small_fonts_lack_is_mathematics_or_quotes() -> None:
    assert escape('1 < 2 > "a b" ± 3') == r"1 $<$ 2 $>$ ``a b'' $\pm$ 3"


@pytest.mark.skipif(NO_ENGINE, reason="no TeX engine is installed (pdflatex or tectonic)")
def test_the_supplement_compiles(reports: list[View], tmp_path: Path) -> None:
    path = write(reports, tmp_path)
    compile_pdf(path, tmp_path / "results/supplement.pdf")
    assert (tmp_path / "results/supplement.pdf").read_bytes().startswith(b"%PDF")
    assert {file.name for file in path.parent.iterdir()} == {"tables", "supplement.tex", "supplement.pdf"}


@pytest.mark.skipif(NO_ENGINE, reason="no TeX engine is installed (pdflatex or tectonic)")
def test_what_tex_says_of_a_broken_document_is_told(tmp_path: Path) -> None:
    (tmp_path / "broken.tex").write_text("\\documentclass{article}\\begin{document}\\nonsense\\end{document}")
    with pytest.raises(MaskrdError, match="nonsense"):
        compile_pdf(tmp_path / "broken.tex", tmp_path / "broken.pdf")
    assert not (tmp_path / "broken.pdf").exists()


def test_without_a_tex_engine_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supplement.shutil, "which", lambda name: None)
    with pytest.raises(MaskrdError, match=r"no TeX engine .*results/s.tex is complete.*texlive-latex-base"):
        compile_pdf(Path("results/s.tex"), Path("results/s.pdf"))
