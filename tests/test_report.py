"""The report is one file that a browser shows without an error, sorts, and prints; text of others is escaped."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from scotl_matgl import Ranking, TransferabilityRanker, TransferRegressor, load_example
from scotl_matgl.cli.main import app
from scotl_matgl.storage import file_sha256

pytest.importorskip("matplotlib")

_ATTACK = '<script>document.title="attacked"</script>'


class Page(HTMLParser):
    """Tags with their attributes, and the text of the page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def ranked() -> tuple[Ranking, pd.DataFrame]:
    table = load_example().sample(80, random_state=0)
    bad = pd.DataFrame({"formula": [_ATTACK], "target": [1.0]})
    table = pd.concat([table[["formula", "target"]], bad], ignore_index=True)
    sources = ["MEGNet-MP-2018*", "Shotgun-*-1", "M3GNet*"]
    ranker = TransferabilityRanker(sources, head="kernel ridge", on_error="skip", target_unit="eV/atom", max_measured=4)
    return ranker.fit(table["formula"], table["target"]).ranking_, table


@pytest.fixture(scope="module")
def page(ranked, tmp_path_factory) -> Path:
    ranking, table = ranked
    path = tmp_path_factory.mktemp("report") / "report.html"
    ranking.report(path, formulas=table["formula"], origin={"table": _ATTACK, "command": "scotl-matgl rank '<b>'"})
    return path


@pytest.mark.slow
def test_the_page_holds_answer_table_figures_reasons_and_references(ranked, page) -> None:
    ranking, _ = ranked
    html = page.read_text(encoding="utf-8")
    read = Page(html)
    assert ranking.summary() in read.text
    assert all(name in read.text for name in (*ranking.sources, *(result.source for result in ranking.screened)))
    assert ranking.skipped[0].reason in read.text
    assert "@misc{chen2019" in read.text
    assert ranking.settings["descriptor_fingerprint"] in read.text
    assert "scotl-matgl rank '<b>'" in read.text
    headings = [tag for tag, _ in read.tags if re.fullmatch(r"h\d", tag)]
    assert headings == ["h1"] + ["h2"] * 6
    pictures = [attrs for tag, attrs in read.tags if tag == "svg" and attrs.get("role") == "img"]
    assert len(pictures) == 3
    assert f"{ranking.sources[0]} {100 * ranking.relative_gain:+.1f} %" in pictures[0]["aria-label"]


@pytest.mark.slow
def test_the_page_asks_nothing_of_the_network_and_escapes(page) -> None:
    read = Page(page.read_text(encoding="utf-8"))
    assert [tag for tag, _ in read.tags].count("script") == 1
    for tag, attrs in read.tags:
        for name in ("src", "href", "xlink:href", "action"):
            assert (attrs.get(name) or "#").startswith(("#", "data:")), (tag, attrs)
    identifiers = [attrs["id"] for _, attrs in read.tags if "id" in attrs]
    assert len(identifiers) == len(set(identifiers))


def test_without_matplotlib_the_page_says_what_to_install(ranked, monkeypatch) -> None:
    import sys

    ranking, table = ranked
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    read = Page(ranking.report(formulas=table["formula"]))
    assert read.text.count("pip install 'scotl-matgl[plot]'") == 3
    assert ranking.summary() in read.text


@pytest.fixture(scope="module")
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None and shutil.which("apt-get"):
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"]
        done = subprocess.run(install, capture_output=True, check=False, timeout=300)  # noqa: S603
        found = shutil.which("chromium") if done.returncode == 0 else None
    if found is None:
        pytest.skip("there is no chromium, and apt-get cannot install it here")
    return found


def browse(chromium: str, folder: Path, page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Open a page without a window and without a network."""
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"]
    command += [f"--user-data-dir={folder / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND", *options, str(page)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=180)  # noqa: S603


@pytest.mark.slow
def test_a_browser_shows_it_without_errors_and_sorts(page, chromium, tmp_path) -> None:
    clicks = """<script>
      const table = document.querySelector("table.sortable");
      const at = Array.from(table.tHead.rows[0].cells).findIndex(cell => cell.textContent === "error");
      const column = () => Array.from(table.tBodies[0].rows, row => row.cells[at].textContent).join(" ");
      const told = [column()];
      for (const _ of [1, 2]) { table.tHead.rows[0].cells[at].querySelector("button").click(); told.push(column()); }
      told.push(table.tHead.rows[0].cells[at].getAttribute("aria-sort"));
      document.body.dataset.told = told.join("|");
    </script>"""
    clicked = tmp_path / "clicked.html"
    clicked.write_text(page.read_text(encoding="utf-8").replace("</body>", clicks + "</body>"), encoding="utf-8")
    done = browse(chromium, tmp_path, clicked, "--dump-dom")
    assert "CONSOLE" not in done.stderr
    given, ascending, descending, state = re.search(r'data-told="([^"]*)"', done.stdout).group(1).split("|")
    errors = sorted(map(float, given.split()))
    assert len(errors) == 12 + 2  # the first twelve, the first together, no transfer
    assert list(map(float, ascending.split())) == errors
    assert list(map(float, descending.split())) == errors[::-1]
    assert state == "descending"
    assert "<title>attacked" not in done.stdout


@pytest.mark.slow
def test_it_prints_to_a_pdf_that_can_be_read(ranked, page, chromium, tmp_path) -> None:
    if shutil.which("pdftotext") is None:
        pytest.skip("pdftotext (poppler-utils) is not installed")
    ranking, _ = ranked
    browse(chromium, tmp_path, page, f"--print-to-pdf={tmp_path / 'report.pdf'}", "--no-pdf-header-footer")
    layout = ["pdftotext", "-layout", str(tmp_path / "report.pdf"), "-"]
    text = subprocess.run(layout, capture_output=True, text=True, check=True, timeout=60).stdout  # noqa: S603
    words = " ".join(text.split())
    assert " ".join(ranking.summary().split()[:6]) in words
    for heading in ("What to do next", "Sources", "Figures", "What was skipped", "How it was computed", "What to cite"):
        assert heading in words
    assert ranking.results[-1].source in words.replace("- ", "-")  # what is folded on the screen is open on paper


@pytest.mark.slow
def test_commands_report_what_they_did(tmp_path) -> None:
    table = tmp_path / "table.csv"
    load_example().sample(60, random_state=1).to_csv(table, index=False)
    out, model = tmp_path / "rank.html", tmp_path / "model.skops"
    common = ["--sources", "MEGNet-MP-2018*", "--head", "kernel ridge", "--unit", "eV/atom"]
    done = CliRunner().invoke(app, ["rank", str(table), *common, "--report", str(out)])
    assert done.exit_code == 0, done.output
    text = Page(out.read_text(encoding="utf-8")).text
    assert file_sha256(table) in text
    assert "table.csv" in text
    arguments = ["fit", str(table), "-o", str(model), *common, "--report", str(tmp_path / "fit.html")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    fitted = TransferRegressor.load(model)
    text = Page((tmp_path / "fit.html").read_text(encoding="utf-8")).text
    assert all(sentence in text for sentence in fitted.summary().sentences)
    assert f"{fitted.error_:.4g}" in text
    assert fitted.target_unit == "eV/atom"
    wrong = CliRunner().invoke(app, ["rank", str(table), "--report", str(tmp_path / "none" / "x.html")])
    assert "there is no folder" in str(wrong.exception)
