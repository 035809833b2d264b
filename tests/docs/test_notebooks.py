"""Results in a fresh kernel: a table or a picture for each."""

from __future__ import annotations

import pytest
from every_result import DRAWN, RESULTS, SETUP

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
pytest.importorskip("torch")


def run(cells: list[str]) -> list[list[dict]]:
    """What the cells of a notebook show, run one after the other in a fresh kernel."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in (SETUP, *cells)])
    nbclient.NotebookClient(book, timeout=400, kernel_name="python3").execute()
    return [cell.outputs for cell in book.cells[1:]]


def shown(outputs: list[dict]) -> dict[str, str]:
    """The data of the only output."""
    (one,) = outputs
    assert one["output_type"] == "execute_result"
    return one["data"]


@pytest.mark.slow
def test_a_result_at_the_end_of_a_cell_is_a_table_or_a_picture():
    cells = [text for texts in RESULTS.values() for text in texts]
    kinds = [kind for kind, texts in RESULTS.items() for _ in texts]
    for kind, outputs in zip(kinds, run(cells), strict=True):
        data = shown(outputs)
        assert "<table" in data["text/html"], kind
        assert len(data["text/plain"]) <= 200
        assert ("image/png" in data) == (kind in DRAWN)
        assert ("data:image/png;base64," in data["text/html"]) == (kind in DRAWN)


@pytest.mark.slow
def test_plot_at_the_end_of_a_cell_is_a_picture():
    cells = [f"{text}.plot()" for kind in DRAWN for text in RESULTS[kind][:1]]
    for outputs in run(cells):
        assert shown(outputs)["image/png"].startswith("iVBOR")
