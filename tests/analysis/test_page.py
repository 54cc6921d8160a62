"""The HTML page: complete, self-contained, deterministic, safe against names, and written whole or not at all."""

from __future__ import annotations

import dataclasses
import html.parser
import re
from pathlib import Path

import pytest
from analysed import analysed
from projects import CONFIGURATIONS

from tinypeft.analysis import Analysis, render_page, write_page
from tinypeft.analysis.report import Fit, WayFacts
from tinypeft.errors import OutputError

#: Elements that have no end
_VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(html.parser.HTMLParser):
    """Counts elements and collects attributes; refuses tags that are closed in another order than opened."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def of_class(self, name: str) -> list[dict[str, str | None]]:
        """The attributes of all elements of that class."""
        return [a for _, a in self.elements if name in (a.get("class") or "").split()]


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_everything_is_drawn(name: str) -> None:
    analysis = analysed(name)
    page = Page(render_page(analysis))
    drawn = [graph for graph in analysis.graphs if graph.buffers]
    assert len(page.of_class("buffer")) == sum(len(graph.buffers) for graph in drawn)
    assert len(page.of_class("node")) == sum(len(graph.operations) for graph in drawn)
    assert len(page.of_class("kernel")) == sum(len(graph.operations) for graph in drawn)
    assert len(page.of_class("bar-fill")) == 2
    text = "".join(page.text)
    for graph in drawn:
        assert f"Memory map of {graph.name}" in text
        for buffer in graph.buffers:
            assert f"address {buffer.offset:,} to {buffer.offset + buffer.bytes:,} of {buffer.memory}" in text
    identifiers = [a["id"] for _, a in page.elements if "id" in a]
    assert len(identifiers) == len(set(identifiers))


def test_rectangles_do_not_overlap() -> None:
    """What the plan keeps apart is apart in the drawing, too, and inside its frame."""
    page = Page(render_page(analysed("classifier_only")))
    frames = [a for a in page.of_class("plot")]
    names = ("x", "y", "width", "height")
    places = [tuple(float(a[n] or "") for n in names) for a in page.of_class("buffer")]
    counts = [len(g.buffers) for g in analysed("classifier_only").graphs if g.buffers]
    assert len(frames) == len(counts)
    start = 0
    for frame, count in zip(frames, counts, strict=True):
        left, top, width, height = (float(frame[n] or "") for n in names)
        group = places[start : start + count]
        start += count
        for i, (x, y, w, h) in enumerate(group):
            assert left <= x and x + w <= left + width + 0.1 and top - 0.1 <= y and y + h <= top + height + 0.1
            for x2, y2, w2, h2 in group[:i]:
                gap = 0.05
                assert x + w <= x2 + gap or x2 + w2 <= x + gap or y + h <= y2 + gap or y2 + h2 <= y + gap


def test_it_is_deterministic_and_needs_no_network() -> None:
    text = render_page(analysed("residual"))
    assert text == render_page(analysed("residual"))
    page = Page(text)
    for tag, attributes in page.elements:
        assert tag not in ("link", "img", "iframe", "object") and not {"src", "href", "srcset"} & set(attributes), tag
    assert not re.search(r"https?:|url\(|@import|fetch\(|XMLHttpRequest", text)
    policy = next(a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and "default-src 'none'" in policy


def test_it_is_accessible() -> None:
    """A language, names on drawings, panels that the keyboard can scroll, tabs that name their panel."""
    page = Page(render_page(analysed("plain")))
    assert page.elements[0] == ("html", {"lang": "en"}) and "title" in [tag for tag, _ in page.elements[:8]]
    assert all(a.get("aria-label") for tag, a in page.elements if tag == "svg")
    assert all(a.get("tabindex") == "0" and a.get("aria-label") for a in page.of_class("scroll") if a.get("role"))
    identifiers = {a.get("id") for _, a in page.elements}
    tabs = [a for _, a in page.elements if a.get("role") == "tab"]
    assert len(tabs) == 3 and {t["aria-controls"] for t in tabs} <= identifiers
    assert sum(t["aria-selected"] == "true" for t in tabs) == 1
    labelled = [a["aria-labelledby"] for _, a in page.elements if "aria-labelledby" in a]
    assert labelled and set(labelled) <= identifiers


def _hostile(analysis: Analysis) -> Analysis:
    name = "</script><script>alert(1)</script>\"'&[bold]"
    graphs = []
    for graph in analysis.graphs:
        operations = tuple(dataclasses.replace(op, name=name, layer=name) for op in graph.operations)
        buffers = tuple(dataclasses.replace(b, name=f"{name}{i}") for i, b in enumerate(graph.buffers))
        graphs.append(dataclasses.replace(graph, operations=operations, buffers=buffers))
    model = dataclasses.replace(analysis.model, file=name)
    return dataclasses.replace(analysis, graphs=tuple(graphs), model=model, notes=(name,))


def test_names_cannot_break_out() -> None:
    text = render_page(_hostile(analysed("plain")))
    assert "<script>alert" not in text and text.count("<script>") == 2
    assert "".join(Page(text).text).count("alert(1)") > 10


def test_what_would_fit_is_told() -> None:
    way = WayFacts("rank 1 instead of 4", "--r 1", 1234, 5678, 910, -77)
    for ways, expected in (
        ((way,), ["rank 1 instead of 4", "--r 1", "1,234 B", "5,678", "910", "-77"]),
        ((), ["smaller model"]),
    ):
        analysis = dataclasses.replace(analysed("plain"), fit=Fit(False, ways))
        text = "".join(Page(render_page(analysis)).text)
        assert "does not fit" in text and all(part in text for part in expected)


def test_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("earlier")
    write_page(path, analysed("plain"))
    assert path.read_text(encoding="utf-8") == render_page(analysed("plain"))
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask(tmp_path)


def _umask(folder: Path) -> int:
    other = folder / "other"
    other.touch()
    return 0o666 & ~(other.stat().st_mode & 0o777)


@pytest.mark.parametrize("case", ["no folder", "a folder", "full"])
def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    path = tmp_path / "page.html"
    if case == "no folder":
        path = tmp_path / "absent" / "page.html"
    elif case == "a folder":
        (path / "inside").mkdir(parents=True)
    else:

        def full(*arguments: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("tinypeft.files.os.replace", full)
    before = sorted(p.name for p in tmp_path.rglob("*"))
    with pytest.raises(OutputError, match=f"cannot write {re.escape(str(path))}"):
        write_page(path, analysed("plain"))
    assert sorted(p.name for p in tmp_path.rglob("*")) == before
