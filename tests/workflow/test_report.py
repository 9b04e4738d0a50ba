"""The report opens in a real browser, without anything from outside, and shows what was run."""

import base64
import html
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.workflow.conftest import Workspace

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(not BROWSER, reason="no chromium here: Debian's package chromium")
# Without the shared memory of /dev/shm: in a container it may have 64 MB, and a long page hangs.
SMALL = "--disable-dev-shm-usage"
# Its own traffic, and any that a page might ask for.
OFFLINE = [
    *("--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND"),
]
OUTSIDE = re.compile(r"""(?:src|href)=["'](?!#|data:|models/)[^"']*|url\((?!["']?data:)|@import""")


def browse(address: str, folder: Path, *options: str) -> str:
    """What headless Chromium prints after opening a page; `folder` is its fresh profile."""
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", SMALL, *OFFLINE]
    command += ["--virtual-time-budget=4000", f"--user-data-dir={folder / 'profile'}", *options, address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def text_of(dom: str, section: str) -> str:
    """The words of a section, as a reader sees them."""
    content = re.search(rf'<section id="{section}">(.*?)</section>', dom, re.DOTALL)[1]
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", content)).split())


@pytest.fixture(scope="module")
def partial(tiny: dict[str, Any]) -> dict[str, Any]:
    return {**tiny, "partial": True}


@pytest.fixture(scope="module")
def reported(
    finished: Workspace, partial: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Workspace, Path]:
    """The tiny experiment with its report; not to be changed."""
    workspace = Workspace(tmp_path_factory.mktemp("reported"))
    shutil.copytree(finished.folder, workspace.folder, dirs_exist_ok=True)
    outcome = workspace.snakemake("--", "report", config=partial)
    assert outcome.code == 0, outcome.output
    assert not {"train", "evaluate"} & set(outcome.planned)
    return workspace, workspace.folder / "results/tiny/report/index.html"


@needs_browser
def test_browser_finds_the_tables_and_the_rest(reported, default_config, tmp_path):
    workspace, page = reported
    dom = browse(page.as_uri(), tmp_path, "--dump-dom")
    for name in (f"table{number}" for number in range(1, 8)):
        title = "CIFAR-10" if name == "table2" else "MVTec AD"
        caption = default_config["tables"][name]["caption"].rstrip(".").replace("{dataset}", title)
        assert caption in text_of(dom, name).replace(" .", "."), name
    frame = pd.read_csv(workspace.folder / "results/tiny/tables/table5.csv", dtype=str, index_col="variant")
    for variant in ("no FMM", "Ours"):
        assert frame.loc[variant, "image_auroc reproduced"] in text_of(dom, "table5").split()
    assert "no FMM − Ours" in text_of(dom, "table5_paired")
    assert "4, trained for" in text_of(dom, "summary")
    assert "4 models on" in text_of(dom, "overview")
    assert "Demo ResNet18" in text_of(dom, "runtime")
    assert "The mean image AUROC over the 15 MVTec AD categories is 99.1. Journal page" in text_of(dom, "verdict")
    assert "no reported number is reproduced or refuted" in text_of(dom, "verdict")
    for image in ("figure7", "curves_mvtec_ad"):
        assert 'src="data:image/png;base64,' in re.search(rf'<section id="{image}">(.*?)</section>', dom, re.S)[1]


def test_nothing_is_needed_from_outside(reported):
    _, page = reported
    text = page.read_text(encoding="utf-8")
    assert not OUTSIDE.findall(text)
    assert "default-src 'none'" in text  # and the browser refuses it
    for model in page.with_name("models").iterdir():
        links = set(re.findall(r"(?:src|href)=[\"'](?!#|data:)([^\"']*)", model.read_text(encoding="utf-8")))
        assert all((model.parent / link.partition("#")[0]).exists() for link in links)


@needs_browser
def test_screenshot_shows_text_and_figures(reported, tmp_path):
    _, page = reported
    path, height = tmp_path / "page.png", 12000  # all of it: headless Chromium leaves blank what it scrolls to
    browse(page.as_uri(), tmp_path, f"--screenshot={path}", f"--window-size=1280,{height}")
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(np.int16)
    assert pixels.shape == (height, 1280, 3)
    lines = (pixels.sum(axis=2) < 250).any(axis=1)
    assert lines[:9000].mean() > 0.15  # of text, from top to bottom
    vivid = pixels.max(axis=2) - pixels.min(axis=2) > 120
    assert vivid.sum() > 50_000  # the anomaly maps of Figure 7


def test_report_is_made_once(reported, partial):
    workspace, _ = reported
    outcome = workspace.snakemake("-n", "--", "report", config=partial)
    assert outcome.planned == {}, outcome.output


def test_an_edited_caption_rebuilds_its_table_and_the_page(reported, partial):
    workspace, _ = reported
    edited = {**partial, "tables": {"table5": {"caption": "Another.", "variants": ["no_fmm", "maskrd"]}}}
    outcome = workspace.snakemake("-n", "--", "report", config=edited)
    assert outcome.planned == {"table": 1, "paired": 1, "report": 1}


def test_tables_need_nothing_of_the_report(clone):
    planned = clone.snakemake("-n", "--", "tables").planned
    assert planned["table"] == 7
    assert not {"report", "curves"} & set(planned)


def test_a_fresh_report_waits_for_all_models(clone):
    planned = clone.snakemake("-n", "--", "report").planned
    # 205 for the tables, and 30 for Figure 7. Other tables wait until they are made.
    assert planned["evaluate"] == planned["train"] == 235
    assert planned["report"] == 1
    assert planned["curves"] == 2


@needs_browser
def test_snakemakes_own_report_has_the_same_parts(reported, partial, tmp_path):
    """Made with sockets forbidden: Snakemake brings what its page needs."""
    workspace, _ = reported
    outcome = workspace.snakemake("--report", "results/report.html", "--", "report", config=partial)
    assert outcome.code == 0, outcome.output
    page = workspace.folder / "results/report.html"
    text = page.read_text(encoding="utf-8")
    for part in ("tables/table1.html", "tables/table5_paired.html", "figures/figure7.png"):
        content = (workspace.folder / "results/tiny" / part).read_bytes()
        assert base64.b64encode(content).decode() in text, part
    assert "Ablation of the feature mask generation module" in text
    assert ">MVTec AD:<" in text
    assert "mean over the categories of MVTec AD (%)" in text
    dom = browse(page.as_uri(), tmp_path, "--dump-dom")
    menu = re.sub(r"<[^>]+>", " ", dom[dom.index("<body") :])
    assert all(category in menu for category in ("Tables", "Figures"))
