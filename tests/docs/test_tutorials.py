"""The tutorials: notebooks that show what their code gives in a fresh kernel, and the pages made of them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from docs.generate.notebooks import INSTALL, TUTORIALS, as_page, printed, read, repository, run, stripped

NOTEBOOKS = sorted(TUTORIALS.glob("*.ipynb"))
ROOT = Path(__file__).resolve().parents[2]


def code(notebook: dict) -> list[dict]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_there_are_five_and_the_site_lists_each():
    assert len(NOTEBOOKS) == 5
    listed = re.findall(r"tutorials/(.+)\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert sorted(listed) == [path.stem for path in NOTEBOOKS]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_whole_and_clean(path):
    notebook = read(path)
    first, install, *rest = notebook["cells"]
    assert first["source"].startswith("# ") and install["source"].startswith(INSTALL)
    assert stripped(notebook) == notebook
    shown = printed(notebook)[1:]
    assert any(shown) and not any("Error" in text for text in shown)
    for cell in rest:
        if cell["cell_type"] == "code":
            ast.parse(cell["source"].replace("%matplotlib inline", ""))
            assert len(max(cell["source"].splitlines(), key=len)) <= 110


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_shows_what_a_fresh_kernel_gives(path):
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("torch")
    kept = read(path)
    again = run(kept)
    for cell, before, after in zip(code(kept), printed(kept), printed(again), strict=True):
        # Sampling in single precision moves the last digits from one processor to another.
        assert _words(after) == _words(before), cell["source"]
        assert _numbers(after) == pytest.approx(_numbers(before), rel=0.1, abs=0.02), cell["source"]


NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*\.?\d*(?:e[+-]\d+)?")


def _numbers(text: str) -> list[float]:
    return [float(found.replace(",", "")) for found in NUMBER.findall(text)]


def _words(text: str) -> list[str]:
    return NUMBER.sub("#", text).split()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_page_has_all_of_its_notebook(path):
    notebook = read(path)
    page, pictures = as_page(path.stem, notebook, repository())
    owner = repository().removeprefix("https://github.com/")
    link = f"https://colab.research.google.com/github/{owner}/blob/main/docs/tutorials/{path.name}"
    assert page.startswith("# ") and f"[Open in Colab]({link})" in page
    for cell in code(notebook):
        assert cell["source"] in page
    assert all(content.startswith(b"\x89PNG") for content in pictures.values())
    assert re.findall(r"!\[.+?\]\((.+?)\)", page) == list(pictures)
    assert page.count("```") == 2 * (page.count("```python") + page.count("```text"))


def test_pages_with_pictures():
    assert sum(len(as_page(path.stem, read(path), repository())[1]) for path in NOTEBOOKS) >= 5
