"""Every result: short in a REPL, a table and a picture in a notebook, compared by value, JSON and back."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from every_result import DRAWN, RESULTS, SETUP

import eoc_theory as eoc
from eoc_theory.base.result import Drawable, Result
from eoc_theory.errors import ArgumentError, EOCError, MissingDependencyError

pytest.importorskip("torch")

CASES = [(kind, text) for kind, texts in RESULTS.items() for text in texts]
IDS = [f"{kind} {index}" for kind, texts in RESULTS.items() for index in range(len(texts))]


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    """Every example, made once."""
    names: dict[str, Any] = {}
    exec(SETUP, names)
    made: dict[str, Any] = {}

    def of(text: str) -> Any:
        if text not in made:
            made[text] = eval(text, names)
        return made[text]

    return type("Made", (), {"__getitem__": lambda self, text: of(text)})()  # type: ignore[return-value]


@pytest.fixture(params=CASES, ids=IDS)
def case(request: pytest.FixtureRequest, results: Any) -> tuple[str, Any]:
    kind, text = request.param
    return kind, results[text]


def test_every_public_result_has_an_example():
    import importlib

    for module in (
        "mean_field.maps",
        "reports.design",
        "reports.diagnosis",
        "pytorch.rescale",
        "pytorch.watch",
    ):
        importlib.import_module(f"eoc_theory.{module}")
    public = {getattr(eoc, name) for name in eoc.__all__}
    classes = {one.__name__ for one in public if isinstance(one, type) and issubclass(one, Result)}
    assert classes <= RESULTS.keys()

    def below(cls: type) -> set[type]:
        return {cls, *(one for sub in cls.__subclasses__() for one in below(sub))}

    own = {one.__name__ for one in below(Result) if one.__module__.startswith("eoc_theory")}
    assert own - {"Result", "Drawable"} == RESULTS.keys()
    assert {one.__name__ for one in below(Drawable)} & own - {"Drawable"} == set(DRAWN)


def test_its_class_is_that_of_the_table(case):
    kind, result = case
    assert type(result).__name__ == kind


def test_a_repr_is_one_short_line_that_says_what_it_is(case):
    kind, result = case
    shown = repr(result)
    assert shown.startswith(f"<{kind}: ") and shown.endswith(">")
    assert len(shown) <= 200 and shown.isprintable()


def test_text_has_a_table_below_its_first_line(case):
    _, result = case
    lines = str(result).splitlines()
    assert len(lines) >= 4
    assert len(lines) < 80


def test_a_notebook_gets_a_headline_and_a_table(case):
    kind, result = case
    page = ElementTree.fromstring(result._repr_html_())
    assert page.findall(".//table/tbody/tr") and page.findall(".//table/thead/tr/th")
    columns = len(page.findall(".//table/thead/tr/th"))
    assert {len(row) for row in page.findall(".//table/tbody/tr")} == {columns}
    pictures = page.findall(".//img")
    assert len(pictures) == (kind in DRAWN)
    assert all(picture.get("alt") for picture in pictures)
    if isinstance(result, Drawable):
        drawn = result._repr_png_()
        assert drawn is not None and drawn.startswith(b"\x89PNG")


def test_equal_results_are_equal_and_hashed_by_identity(case):
    _, result = case
    again = type(result)(**{f.name: getattr(result, f.name) for f in fields(result) if f.init})
    assert result == again and not result != again
    assert hash(result) != hash(again) and len({result, again}) == 2
    assert result != 3 and result is not None and result != "text"


def test_json_gives_the_result_back(case):
    _, result = case
    text = result.to_json()
    assert json.loads(text) == result.to_dict()
    again = type(result).from_json(text)
    assert again == result
    assert again.to_json() == text
    for field in fields(result):
        one, other = getattr(result, field.name), getattr(again, field.name)
        assert type(one) is type(other) or isinstance(one, np.generic), field.name
        if isinstance(one, np.ndarray):
            assert one.dtype.kind == other.dtype.kind and one.shape == other.shape, field.name


def test_a_frame_has_rows(case):
    _, result = case
    frame = result.to_frame()
    assert len(frame) >= 1 and len(frame.columns) >= 2
    assert len(set(frame.columns)) == len(frame.columns)


def test_other_texts_are_refused_in_one_line(case):
    _, result = case
    kind: Any = type(result)
    for wrong in ("", "no", "[1]", "3", "{}", '{"layers": 3}', "[" * 10**5):
        with pytest.raises(ArgumentError) as caught:
            kind.from_json(wrong)
        assert "\n" not in str(caught.value) and kind.__name__ in str(caught.value)
    with pytest.raises(ArgumentError):
        kind.from_json(3)
    values = result.to_dict()
    for name in [field.name for field in fields(result)][:3]:
        with pytest.raises(EOCError):
            kind.from_dict({**values, name: {"type": "os.system"}})


def test_figure_or_axes_as_asked(case, tmp_path):
    from matplotlib.figure import Figure

    _, result = case
    if not isinstance(result, Drawable):
        pytest.skip("no picture")
    path = tmp_path / "picture.svg"
    figure = result.plot(path)
    assert isinstance(figure, Figure) and path.stat().st_size > 1000
    ax = Figure().subplots()
    assert result.plot(ax=ax) is ax and ax.has_data()
    for wrong in (3, "ax", figure):
        with pytest.raises(ArgumentError, match="ax must be"):
            result.plot(ax=wrong)  # type: ignore[call-overload]


def test_a_picture_has_a_title_text_as_text_and_no_overlapping_ticks(case, tmp_path):
    _, result = case
    if not isinstance(result, Drawable):
        pytest.skip("no picture")
    path = tmp_path / "picture.svg"
    figure: Any = result.plot(path)
    # matplotlib writes the text of labels with formulas character by character.
    written = "".join("".join(ElementTree.parse(path).getroot().itertext()).split())
    own: Any = result
    named = getattr(own, "network", "") or own.activation.name
    assert named in figure.get_suptitle() + figure.axes[0].get_title(loc="left")
    assert any(word in written for word in ("weight", "sparsity", "score"))
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            boxes = [label.get_window_extent() for label in axis.get_ticklabels() if label.get_text()]
            boxes = [box for box in boxes if box.width and box.height]
            shown = figure.bbox
            boxes = [box for box in boxes if shown.contains((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2)]
            for one, other in pairwise(boxes):
                assert not one.overlaps(other)


def test_layers_of_residual_networks_have_names_and_no_line_leads_through_a_shortcut(results):
    found = results["eoc.predict_pruning(residual, [0.5, 0.9], samples=2)"]
    assert [name for name in found.layers if "shortcut" in name] == list(found.shortcuts)
    (ax,) = found.plot().axes
    assert [label.get_text() for label in ax.get_xticklabels()] == [
        name if len(name) <= 22 else f"{name[:12]}...{name[-7:]}" for name in found.layers
    ]
    beside = [found.layers.index(name) + 1 for name in found.shortcuts]
    lines = [line for line in ax.lines if line.get_linestyle() == "-" and len(line.get_xdata()) > 3]
    assert len(lines) == 2
    for line, kept in zip(lines, found.kept, strict=True):
        at = line.get_xdata().astype(int)
        assert not set(at) & set(beside)
        np.testing.assert_allclose(line.get_ydata(), kept[at - 1])
    marked = [bar.lines[0].get_xdata() for bar in ax.containers if len(bar.lines[0].get_xdata())]
    assert [list(x) for x in marked] == [beside, beside]


def test_plotly_names_the_layer_under_the_pointer(case, tmp_path):
    pytest.importorskip("plotly")
    _, result = case
    if not isinstance(result, Drawable):
        pytest.skip("no picture")
    figure = result.plot_interactive(tmp_path / "chart.html")
    page = (tmp_path / "chart.html").read_text()
    assert "src=" not in page.split("<body>")[0] and "Plotly.newPlot" in page
    assert len(figure.data) >= 1
    layers = getattr(result, "layers", ())
    hovers = "".join(text for trace in figure.data for text in np.ravel(trace.text) if isinstance(text, str))
    if hovers and layers:
        assert all(f"<b>{layer}</b>" in hovers for layer in layers)
    with pytest.raises(ArgumentError, match=r"\.html"):
        result.plot_interactive(tmp_path / "chart.png")


def test_without_plotly_the_extra_is_named(results, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    with pytest.raises(MissingDependencyError, match="interactive"):
        results["eoc.critical_curve('relu', sigma_b=[0, 0.5])"].plot_interactive()


def test_nan_and_the_infinities_have_the_same_text_everywhere():
    field = eoc.MeanField("relu", 2.0, 0.1)
    told = json.loads(field.to_json())
    assert told["q_star"] == "inf" and math.isinf(field.q_star)
    diagram = eoc.phase_diagram("relu", sigma_w=[1.0, 2.0], sigma_b=[0.0, 0.1])
    assert diagram.to_dict()["q_star"][1][1] == "inf"
    again = eoc.PhaseDiagram.from_json(diagram.to_json())
    assert np.isinf(again.q_star[1, 1]) and again == diagram
    curve = eoc.critical_curve("relu", sigma_b=[0.0, 0.5])
    assert curve.to_dict()["sigma_w"][1] is None
    assert np.isnan(eoc.CriticalCurve.from_json(curve.to_json()).sigma_w[1])


def test_masks_come_back_bit_for_bit(results):
    found = results["eoc.measure_pruning(module, [0.5, 0.9], data=batch, collapse=False)"]
    again = eoc.PruningMeasurement.from_json(found.to_json())
    for one, other in zip(found.masks, again.masks, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
    with pytest.raises(ArgumentError, match="masks"):
        eoc.PruningMeasurement.from_dict({**found.to_dict(), "masks": {"a": {"shape": [3], "bits": "??"}}})


def test_an_activation_of_ones_own_is_named_where_it_cannot_be_read_back():
    point = eoc.edge_of_chaos(lambda x: np.tanh(2.0 * x), sigma_b=0.1)
    with pytest.raises(ArgumentError, match="activation must be a name or an expression"):
        eoc.CriticalPoint.from_json(point.to_json())


def test_a_design_keeps_which_candidate_it_chose(results):
    found = results["eoc.design(net, 0.9, networks=1)"]
    again = eoc.Design.from_json(found.to_json())
    assert again.chosen is again.candidates[found.candidates.index(found.chosen)]
    assert again.before is again.candidates[0] and again.verdict == found.verdict
    assert again.architecture == found.architecture and again.steps == found.steps


def test_a_small_diagram_has_a_table_and_no_picture():
    line = eoc.phase_diagram("tanh", sigma_w=[1.0], sigma_b=[0.1])
    assert line._repr_png_() is None and "<img" not in line._repr_html_()


def test_hostile_names_are_escaped_in_a_notebook():
    name = "<script>alert(1)</script>\x1b[31m"
    layers = (name, "b")
    found = eoc.PruningPrediction(
        "snip", 0.5, layers, np.array([4, 4]), np.full(2, 0.5), np.zeros(2), np.zeros(2), 0.0, 0, network=name
    )
    shown = found._repr_html_()
    assert "<script>" not in shown and "\x1b" not in shown
    assert "\x1b" not in repr(found) + str(found)


def test_networks_are_called_what_their_authors_call_them(tmp_path: Path):
    import torch

    class TinyNet(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = torch.nn.Linear(6, 5), torch.nn.Linear(5, 3)

        def forward(self, x: Any) -> Any:
            return self.two(torch.tanh(self.one(x)))

    def make_tiny(seed: int) -> Any:
        torch.manual_seed(seed)
        return TinyNet()

    assert eoc.predict_pruning(TinyNet(), 0.5).network == "TinyNet"
    assert eoc.compare(make_tiny, 0.5, seeds=1).network == "make_tiny"
    assert eoc.Architecture.from_torch(TinyNet()).name == "TinyNet"
    assert eoc.predict_pruning(eoc.resnet(8, width=4), 0.5, criterion="magnitude").network == "ResNet-8"
    assert eoc.mlp(3, 6) == eoc.Architecture(eoc.mlp(3, 6).layers) and eoc.mlp(3, 6).name != ""
    chain = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
    assert eoc.predict_pruning(chain, 0.5).network == "tanh, 2 layers of width 5"
    assert len(repr(eoc.resnet(50))) <= 200
