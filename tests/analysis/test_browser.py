"""The page in a headless browser: its script completes without an error, and what it shows is what was analysed."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from analysed import analysed
from projects import CONFIGURATIONS
from test_page import Page

from tinypeft.analysis import Analysis, render_page

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
TIME_LIMIT = 90


@pytest.fixture(scope="module")
def browser() -> str:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed; make setup-browser")
    return found


def run(browser: str, folder: Path, page: Path, *options: str, fragment: str = "") -> str:
    """What the browser prints for `page` once its scripts have run."""
    command = [
        *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage"),
        *(f"--user-data-dir={folder / 'profile'}", "--window-size=1280,900", "--virtual-time-budget=2000"),
        *(*options, f"file://{page}{fragment}"),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=TIME_LIMIT).stdout


def dom(browser: str, folder: Path, analysis: Analysis, fragment: str = "", script: str = "") -> Page:
    """The page of `analysis` as it stands in the browser; `script` runs after the page's own."""
    path = folder / "page.html"
    path.write_text(render_page(analysis).replace("</body>", f"<script>{{{script}}}</script></body>"), encoding="utf-8")
    return Page(run(browser, folder, path, "--dump-dom", fragment=fragment))


def root(page: Page) -> dict[str, str | None]:
    """The attributes of <html>."""
    return page.elements[0][1]


@pytest.mark.parametrize("name", ["residual", "inference", "batches"])
def test_its_script_completes(browser: str, tmp_path: Path, name: str) -> None:
    analysis = analysed(name)
    assert name in CONFIGURATIONS
    page = dom(browser, tmp_path, analysis)
    assert root(page).get("data-script") == "complete" and "data-script-error" not in root(page), root(page)
    drawn = [graph for graph in analysis.graphs if graph.buffers]
    rectangles = page.of_class("buffer")
    assert len(rectangles) == sum(len(graph.buffers) for graph in drawn)
    labels = [a.get("aria-label") or "" for a in rectangles]
    for label, buffer in zip(labels, [b for graph in drawn for b in graph.buffers], strict=True):
        assert label.startswith(f"{buffer.name}, {buffer.bytes:,} B of {buffer.purpose}, address {buffer.offset:,}")
        assert re.search(r", from op \d+ .+, to (op \d+|the end)", label)
    panels = [a for a in page.of_class("graph")]
    assert ["hidden" in a for a in panels] == [False] + [True] * (len(panels) - 1)


def test_an_error_is_seen(browser: str, tmp_path: Path) -> None:
    """The attribute that the other tests look for would be there."""
    page = dom(browser, tmp_path, analysed("plain"), script="absent();")
    assert "absent is not defined" in (root(page).get("data-script-error") or "")


def test_hovering_tabs_and_keys(browser: str, tmp_path: Path) -> None:
    script = """
      document.getElementById("tab-training").click();
      const result = document.documentElement.dataset;
      result.shown = [...document.querySelectorAll(".graph")].filter((g) => !g.hidden).map((g) => g.id).join();
      const buffer = document.querySelector("#graph-training .buffer");
      const box = buffer.getBoundingClientRect();
      const at = { bubbles: true, clientX: box.x + 1, clientY: box.y + 1 };
      buffer.dispatchEvent(new PointerEvent("pointermove", at));
      const tip = document.getElementById("tip");
      result.tip = tip.hidden ? "" : tip.textContent;
      document.body.dispatchEvent(new PointerEvent("pointermove", { bubbles: true }));
      result.gone = String(tip.hidden);
      const map = document.querySelector("#graph-training .map").parentElement;
      map.focus();
      map.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
      map.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
      result.focused = document.activeElement.getAttribute("aria-label");
      result.overflow = String(document.documentElement.scrollWidth - innerWidth);
    """
    analysis = analysed("residual")
    training = analysis.graph("training")
    assert training is not None
    result = root(dom(browser, tmp_path, analysis, script=script))
    assert "data-script-error" not in result, result
    assert result["data-shown"] == "graph-training"
    first, second = training.buffers[:2]
    assert (result["data-tip"] or "").startswith(f"{first.name}\n{first.bytes:,} B of {first.purpose}\n")
    assert result["data-gone"] == "true" and (result["data-focused"] or "").startswith(f"{second.name}, ")
    assert int(result["data-overflow"] or 1) <= 0, "the page scrolls sideways"


def test_the_address_names_a_tab_and_long_names_do_not_widen_it(browser: str, tmp_path: Path) -> None:
    analysis = analysed("plain")
    long = "a" * 300
    graphs = tuple(
        dataclasses.replace(g, operations=tuple(dataclasses.replace(op, name=long) for op in g.operations))
        for g in analysis.graphs
    )
    wide = dataclasses.replace(analysis, graphs=graphs, model=dataclasses.replace(analysis.model, name=long))
    script = "document.documentElement.dataset.overflow = document.documentElement.scrollWidth - innerWidth;"
    page = dom(browser, tmp_path, wide, "#training", script)
    assert int(root(page)["data-overflow"] or 1) <= 0
    assert ["hidden" in a for a in page.of_class("graph")] == [True, False, True]  # inference, training, evaluate


def test_a_picture(browser: str, tmp_path: Path) -> None:
    """A screenshot is taken, and it is no empty page."""
    path = tmp_path / "page.html"
    path.write_text(render_page(analysed("residual")), encoding="utf-8")
    run(browser, tmp_path, path, f"--screenshot={tmp_path / 'page.png'}")
    picture = (tmp_path / "page.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 40_000
    assert int.from_bytes(picture[16:20], "big") == 1280
