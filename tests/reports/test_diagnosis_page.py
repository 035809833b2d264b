"""The page of a diagnosis: sound HTML that loads nothing, and how a real browser shows it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import eoc_theory as eoc
from eoc_theory.errors import ArgumentError, MissingDependencyError

VOID = {"meta", "link", "br", "hr", "img", "input"}
NASTY = "a<b>&\"'</th><script>alert(1)</script>"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@pytest.fixture(scope="module")
def found() -> eoc.Diagnosis:
    net = eoc.mlp(16, 30, activation="relu", init="pytorch")
    layers = [replace(layer, name=f"{NASTY}{i}" if i == 2 else layer.name) for i, layer in enumerate(net)]
    return eoc.diagnose(eoc.Architecture(tuple(layers)), sparsity=0.9)


@pytest.fixture(scope="module")
def page(found, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    found.to_html(path, title="nets:make <one>")
    return path


class Checker(HTMLParser):
    """Collects what is wrong with a page: tags that do not match, ids that stand twice, references."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.tags: set[str] = set()
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        names = [name for name, _ in attrs]
        if len(names) != len(set(names)):
            self.wrong.append(f"an attribute of {tag} stands twice: {names}")
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("href", "src", "srcset", "data", "action"):
                self.references.append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}> closes nothing")

    def handle_data(self, data):
        self.text.append(data)


def checked(text: str) -> Checker:
    checker = Checker()
    checker.feed(text)
    checker.close()
    return checker


def test_the_page_is_sound_html(page):
    text = page.read_text(encoding="utf-8")
    seen = checked(text)
    assert text.startswith("<!DOCTYPE html>")
    assert seen.wrong == [] and seen.open == []
    assert len(seen.ids) == len(set(seen.ids))
    assert {"title", "h1", "table", "figure", "svg", "style"} <= seen.tags


def test_the_page_loads_nothing(page):
    text = page.read_text(encoding="utf-8")
    seen = checked(text)
    assert not {"script", "iframe", "object", "embed", "img", "base"} & seen.tags
    assert all(ref == "data:," or ref.startswith("#") for ref in seen.references)
    assert {ref[1:] for ref in seen.references if ref.startswith("#")} <= set(seen.ids)
    assert {name for name in re.findall(r"url\(#([^)]*)\)", text)} <= set(seen.ids)
    assert not re.search(r"https?:|//www|@import|url\((?!#)", text)


def test_names_from_the_model_are_escaped(page):
    text = page.read_text(encoding="utf-8")
    assert NASTY not in text and f"{NASTY}2" in "".join(checked(text).text)
    assert "<title>nets:make &lt;one&gt;</title>" in text


def test_the_page_tells_what_the_diagnosis_found(found, page):
    said = " ".join("".join(checked(page.read_text(encoding="utf-8")).text).split())
    assert "PyTorch's default initialisation" in said and "eoc.initialize_(model)" in said
    assert f"eoc-theory {eoc.__version__}" in said
    for layer in found.layers:
        assert layer in said
    # The verdict stands before pictures and table.
    assert (
        said.index("Verdict") < said.index("Pictures") < said.index("Layers") < said.index("How to read it")
    )


def test_the_same_diagnosis_gives_the_same_file(found, page, tmp_path):
    found.to_html(tmp_path / "again.html", title="nets:make <one>")
    assert (tmp_path / "again.html").read_bytes() == page.read_bytes()


def test_a_network_where_nothing_is_wrong(tmp_path):
    net = eoc.mlp(1, 1, in_features=20, out_features=5)
    eoc.diagnose(net, sparsity=0.5).to_html(tmp_path / "well.html")
    seen = checked((tmp_path / "well.html").read_text(encoding="utf-8"))
    assert seen.wrong == [] and "nothing to cure" in "".join(seen.text)


@pytest.mark.parametrize("name", ["report.txt", "report", "no/such/folder.html"])
def test_where_a_page_cannot_be_written(found, tmp_path, name):
    with pytest.raises(ArgumentError, match="path must"):
        found.to_html(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


# --- a real browser -----------------------------------------------------------------------------------------

FRAME = """<!DOCTYPE html><meta charset="utf-8"><body style="margin:0">
<iframe id="frame" src="report.html" style="border:0;width:{width}px;height:900px"></iframe>
<pre id="out"></pre>
<script>
window.onload = () => {{
  const inner = document.getElementById("frame").contentDocument, root = inner.documentElement;
  const box = e => e.getBoundingClientRect();
  const cut = [...inner.querySelectorAll("h1,h2,h3,p,li,dt,dd b,figcaption,svg,.card,.step,footer")]
    .filter(e => box(e).width > 0 && (box(e).right > root.clientWidth + 1 || box(e).left < -1))
    .map(e => e.tagName + " " + e.textContent.slice(0, 30));
  document.getElementById("out").textContent = JSON.stringify({{
    width: root.clientWidth, scroll: root.scrollWidth, body: inner.body.scrollWidth, cut,
    pictures: [...inner.querySelectorAll("figure svg")].map(e => [box(e).width, box(e).height]),
    back: getComputedStyle(inner.body).backgroundColor, ink: getComputedStyle(inner.body).color,
    rows: inner.querySelectorAll("tbody tr").length,
  }});
}};
</script></body>
"""


def shown(page: Path, width: int, *options: str) -> dict:
    """What a browser says of the page in a window of that width; its console must be empty."""
    browser = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("no chromium")
    frame = page.with_name(f"frame{width}.html")
    frame.write_text(FRAME.format(width=width), encoding="utf-8")
    done = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
            "--hide-scrollbars", "--enable-logging=stderr", "--virtual-time-budget=5000",
            f"--user-data-dir={page.parent / 'profile'}", f"--window-size={max(width, 500)},1000", *options,
            "--dump-dom", frame.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )  # fmt: skip
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert said == []
    told = re.search(r'<pre id="out">(.+?)</pre>', done.stdout, re.DOTALL)
    assert told, done.stderr[-2000:]
    from html import unescape

    return json.loads(unescape(told.group(1)))


@pytest.mark.slow
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_no_browser_window_is_too_narrow(page, found, width):
    seen = shown(page, width)
    assert seen["width"] == width
    assert seen["scroll"] <= width and seen["body"] <= width and seen["cut"] == []
    assert seen["rows"] == len(found.layers)
    assert len(seen["pictures"]) == 4
    widths, heights = np.array(seen["pictures"]).T
    assert (widths > 0.4 * width if width > 1000 else widths > 0.8 * width).all() and (heights > 150).all()


@pytest.mark.slow
def test_by_day_and_by_night(page):
    def brightness(colour: str) -> float:
        return sum(map(int, re.findall(r"\d+", colour)[:3])) / 765

    day = shown(page, 800)
    night = shown(page, 800, "--blink-settings=preferredColorScheme=0")
    assert brightness(day["back"]) > 0.9 > 0.3 > brightness(day["ink"])
    assert brightness(night["back"]) < 0.2 < 0.7 < brightness(night["ink"])


@pytest.fixture(scope="module")
def interactive(found, tmp_path_factory) -> Path:
    pytest.importorskip("plotly")
    path = tmp_path_factory.mktemp("interactive") / "report.html"
    found.to_html(path, title="nets:make <one>", interactive=True)
    return path


def test_an_interactive_page_runs_its_own_two_scripts_alone(interactive):
    text = interactive.read_text(encoding="utf-8")
    scripts = re.findall("<script>(.*?)</script>", text, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in scripts]
    assert len(scripts) == 2
    assert re.findall("'sha256-([^']+)'", text[: text.index("<style>")]) == digests
    assert NASTY not in text


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_draws_the_interactive_page(interactive, found, width):
    seen = shown(interactive, width)
    assert seen["scroll"] <= width and seen["body"] <= width
    # Three pictures of our own, and Plotly's.
    assert len(seen["pictures"]) > 3


def test_what_an_interactive_page_needs(found, tmp_path, monkeypatch):
    with pytest.raises(ArgumentError, match="interactive must be"):
        found.to_html(tmp_path / "a.html", interactive="yes")
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    with pytest.raises(MissingDependencyError, match="interactive pictures need Plotly"):
        found.to_html(tmp_path / "a.html", interactive=True)
    assert not (tmp_path / "a.html").exists()
