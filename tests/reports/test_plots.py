"""Pictures: what they hold, and how they are written."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import eoc_theory as eoc
from eoc_theory.errors import ArgumentError, EOCError
from eoc_theory.pruning.collapse import CollapsePrediction
from eoc_theory.pruning.prediction import PruningPrediction
from eoc_theory.reports import plots as plotting
from eoc_theory.reports.compare import Comparison
from eoc_theory.reports.plots.style import _sparsity_label, _sparsity_ticks

LAYERS = tuple(f"layers.{i}" for i in range(12))


def prediction(sparsity=(0.5, 0.9)) -> PruningPrediction:
    s = np.array(sparsity)
    kept = (1 - s)[:, None] * np.linspace(0.6, 1.4, len(LAYERS))
    zeros = np.zeros_like(kept)
    return PruningPrediction(
        "snip", s, LAYERS, np.full(len(LAYERS), 100), kept, 0.1 * kept, zeros, np.zeros(len(s)), 16
    )


def collapse(bound=None, low=0.9, high=0.9999) -> CollapsePrediction:
    samples = 1 - np.geomspace(1 - low, 1 - high, 400)
    weakest = np.full(len(LAYERS), 1 / len(LAYERS))
    return CollapsePrediction("snip", LAYERS, float(samples.mean()), samples, weakest, LAYERS[0], bound)


def comparison(seeds=7) -> Comparison:
    rng = np.random.default_rng(1)
    predicted = prediction()
    kept = np.clip(predicted.kept + 0.02 * rng.standard_normal((seeds, 2, len(LAYERS))), 0, 1)
    return Comparison(
        criterion="snip",
        sparsity=predicted.sparsity,
        layers=LAYERS,
        weights=predicted.weights,
        seeds=np.arange(seeds),
        kept=kept,
        critical_sparsity=1 - np.geomspace(1e-2, 1e-3, seeds),
        log_score_moments=np.zeros((seeds, len(LAYERS))),
        prediction=predicted,
        collapse=collapse(),
    )


def texts(figure) -> str:
    """All that is written in the figure."""
    from matplotlib.text import Text

    figure.draw_without_rendering()
    return "\n".join(t.get_text() for t in figure.findobj(Text))


@pytest.mark.parametrize(
    "result",
    [prediction, lambda: prediction([0.7]), collapse, comparison, lambda: comparison(1)],
    ids=["prediction", "one sparsity", "collapse", "comparison", "one seed"],
)
@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_every_result_writes_every_format(result, suffix, tmp_path):
    path = tmp_path / f"picture.{suffix}"
    figure = result().plot(path)
    assert path.stat().st_size > 2000
    assert {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[suffix] == path.read_bytes()[
        : 5 - (suffix != "svg")
    ]
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    for ax in figure.axes:
        assert ax.get_xlabel() and ax.get_ylabel()


def test_the_same_picture_is_the_same_file(tmp_path):
    for suffix in ("svg", "pdf", "png"):
        one, two = tmp_path / f"one.{suffix}", tmp_path / f"two.{suffix}"
        prediction().plot(one)
        prediction().plot(two)
        assert one.read_bytes() == two.read_bytes()


def test_without_a_path_nothing_is_written_and_pyplot_stays_out(tmp_path):
    code = (
        "import sys, matplotlib, numpy as np, eoc_theory as eoc\n"
        "before = matplotlib.rcParams['font.size']\n"
        "figure = eoc.critical_curve('tanh', sigma_b=np.linspace(0, 1, 5)).plot()\n"
        "assert type(figure).__name__ == 'Figure'\n"
        "assert matplotlib.rcParams['font.size'] == before != 8.0\n"
        "print('matplotlib.pyplot' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "False", done.stderr


def test_prediction_is_a_line_with_a_band_and_measurement_points_with_error_bars():
    from matplotlib.collections import PolyCollection

    found = comparison()
    figure = plotting.plot_comparison(found)
    upper, lower = figure.axes
    bands = [c for c in upper.collections if isinstance(c, PolyCollection)]
    assert len(bands) == 2
    lines = [line for line in upper.lines if len(line.get_xdata()) == 12 and line.get_linestyle() == "-"]
    np.testing.assert_allclose([line.get_ydata() for line in lines], found.prediction.kept)
    bars = [c for c in upper.containers if len(c.lines[0].get_xdata()) == 12]
    np.testing.assert_allclose([bar.lines[0].get_ydata() for bar in bars], found.measured_kept)
    written = texts(figure)
    assert "7 seeds" in written
    assert "sparsity 0.5" in written and "0.9" in written
    # The histogram holds every seed.
    heights = [p.get_data().values.sum() for p in lower.patches if hasattr(p, "get_data")]
    assert heights and np.allclose(heights, 1)


def test_the_collapse_axis_is_logarithmic_in_what_is_left():
    figure = plotting.plot_collapse(collapse(), measured=[0.99, 0.999])
    (ax,) = figure.axes
    where = ax.transData.transform([(0.9, 0.5), (0.99, 0.5), (0.999, 0.5)])[:, 0]
    assert where[1] - where[0] == pytest.approx(where[2] - where[1])
    assert "0.99" in [t.get_text() for t in ax.get_xticklabels()]


def test_the_bound_is_marked_where_there_is_one():
    assert "bound" in texts(plotting.plot_collapse(collapse(bound=0.95)))
    assert "bound" not in texts(plotting.plot_collapse(collapse()))


@pytest.mark.parametrize(
    ("low", "high"), [(0.05, 0.1), (0.2, 0.3), (0.5, 0.9), (0.6, 0.99), (0.99, 1 - 1e-7)]
)
def test_sparsity_labels_tell_the_truth(low, high):
    figure = plotting.plot_collapse(collapse(low=low, high=high))
    (ax,) = figure.axes
    left, right = ax.get_xlim()
    labels = [float(t.get_text()) for t in ax.get_xticklabels()]
    assert len(labels) >= 3
    np.testing.assert_allclose(labels, ax.get_xticks(), rtol=0, atol=1e-3 * (1 - right))
    assert all(left <= s <= right for s in labels)


def test_sparsity_ticks_of_narrow_and_wide_axes():
    for low, high in [(0.0, 1.0), (2.0, 2.1), (2.0, 9.0), (0.3, 0.9), (3.0, 3.02)]:
        kept = _sparsity_ticks(low, high)
        assert 3 <= len(kept) <= 8
        assert len({_sparsity_label(k) for k in kept}) == len(kept)


def test_measured_of_a_single_layer_network_at_sparsity_one():
    figure = plotting.plot_collapse(collapse(), measured=[0.99, 1.0])
    figure.draw_without_rendering()


def test_curves(tmp_path):
    bias = np.linspace(0, 1, 6)
    curves = [eoc.critical_curve(name, sigma_b=bias) for name in ("tanh", "relu", "gelu")]
    written = texts(plotting.plot_critical_curve(curves))
    assert "relu (one point)" in written
    assert "unstable" in written
    curves[0].plot(tmp_path / "curve.svg")
    assert "unstable" not in texts(curves[0].plot())


@pytest.mark.parametrize("name", ["tanh", "relu"])
def test_phase_diagram(name, tmp_path):
    diagram = eoc.phase_diagram(name, sigma_w=np.linspace(0.5, 3, 30), sigma_b=np.linspace(0, 1, 20))
    written = texts(diagram.plot(tmp_path / "phase.png"))
    assert "ordered" in written and "edge of chaos" in written
    assert ("chaotic" in written) == (name == "tanh")
    assert ("without bound" in written) == (name == "relu")


def test_a_phase_diagram_needs_an_area():
    line = eoc.phase_diagram("tanh", sigma_w=[1.0, 2.0], sigma_b=[0.1])
    with pytest.raises(ArgumentError, match="2 x 2"):
        line.plot()


def test_connections_are_counted_neuron_by_neuron(tmp_path):
    from eoc_theory.reports.plots.connections import incoming_fractions

    masks = {
        "a": np.array([[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]], bool),
        "b": np.array([[1, 0, 0]], bool),
    }
    table = incoming_fractions(masks)
    np.testing.assert_allclose(table[0], [0.5, 1, 0])
    np.testing.assert_allclose(table[1], [1 / 3, np.nan, np.nan])
    figure = plotting.plot_connections(
        {"critical": masks, "chaotic": masks}, tmp_path / "c.png", layers=["a"]
    )
    written = texts(figure)
    assert "critical" in written and "a: 50.0% kept" in written
    images = [ax.images[0].get_array() for ax in figure.axes if ax.images]
    np.testing.assert_allclose(np.ma.filled(images[0].astype(float), np.nan), table)


@pytest.mark.parametrize("networks", [{}, {"one": {}}, {"one": {"a": np.ones(3)}}, {"one": ({}, {})}])
def test_connections_refuse_what_is_not_masks(networks):
    with pytest.raises(ArgumentError):
        plotting.plot_connections(networks)


def test_connections_refuse_unknown_layers():
    with pytest.raises(ArgumentError, match="layers"):
        plotting.plot_connections({"one": {"a": np.ones((2, 2), bool)}}, layers=["b"])


@pytest.mark.parametrize("name", ["picture.jpg", "picture", "missing/picture.png", "folder.png"])
def test_unusable_paths_are_one_line(name, tmp_path):
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ArgumentError, match="path") as caught:
        prediction().plot(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["folder.png"]


def test_a_failure_while_writing_leaves_the_old_picture(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    path = tmp_path / "picture.png"
    path.write_bytes(b"old")

    def full(self, stream, **options):
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full)
    with pytest.raises(EOCError, match="No space left"):
        prediction().plot(path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["picture.png"]
