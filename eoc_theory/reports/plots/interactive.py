"""Plotly charts of the results: the layer's name and its numbers are shown under the pointer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from ...base.whole_files import check_path, replacing
from ...errors import MissingDependencyError
from ...errors.text import name, shortened
from .meanfield import check_grid
from .style import COLOURS, GREY

if TYPE_CHECKING:
    from ...mean_field.attention_phase import AttentionPhase
    from ...mean_field.edge_of_chaos import CriticalCurve
    from ...mean_field.phase_diagram import PhaseDiagram
    from ...pruning.collapse import CollapsePrediction
    from ...pruning.prediction import PruningPrediction
    from ...pytorch.measure.measure import PruningMeasurement
    from ..compare import Comparison

Array = np.ndarray
Path = str | PathLike[str] | None

_SHORTCUT = "diamond-open"
#: A colour that is read on white and on black.
GREY_ANYWHERE = "#808890"


@dataclass
class Chart:
    """What a Plotly figure is made of.

    Attributes:
        title: over the chart.
        x, y: labels of the axes.
        traces: of Plotly, as dicts.
        layout: what else there is to set.
    """

    title: str
    x: str
    y: str
    traces: list[dict[str, Any]] = field(default_factory=list)
    layout: dict[str, Any] = field(default_factory=dict)


def draw(result: Any, path: Path = None) -> Any:
    """The Plotly figure of a result; with `path` also as a page that holds all it needs.

    Raises:
        ArgumentError: `path` does not end in .html or cannot be written, or the result is too small.
        MissingDependencyError: Plotly is not installed.
    """
    target = None if path is None else check_path(path, (".html", ".htm"))
    chart, figure = _figure(result)
    if target is not None:
        _write(figure, target, chart.title)
    return figure


def in_a_page(result: Any, place: str) -> tuple[str, str]:
    """The figure for a page of our own that has an element with the id `place`: Plotly, and what draws there.

    It takes the colours of day and night alike.

    Raises:
        MissingDependencyError: Plotly is not installed.
    """
    _, figure = _figure(result)
    from plotly.offline import get_plotlyjs

    clear, line = "rgba(0,0,0,0)", "rgba(128,128,128,0.3)"
    figure.update_layout(title=None, margin={"t": 40, "l": 55, "r": 10, "b": 45})
    figure.update_layout(font={"color": GREY_ANYWHERE}, paper_bgcolor=clear, plot_bgcolor=clear)
    for axis in (figure.update_xaxes, figure.update_yaxes):
        axis(gridcolor=line, linecolor=line, zerolinecolor=line)
    drawn = figure.to_json().replace("</", "<\\/")
    settings = "{responsive: true, displayModeBar: false}"
    return get_plotlyjs(), f"const f = {drawn}; Plotly.newPlot('{place}', f.data, f.layout, {settings});"


def require_plotly() -> Any:
    """Plotly's module of figures.

    Raises MissingDependencyError where Plotly is not installed.
    """
    try:
        import plotly.graph_objects as go
    except ImportError:
        raise MissingDependencyError(
            "interactive pictures need Plotly: pip install 'eoc-theory[interactive]'"
        ) from None
    return go


def _figure(result: Any) -> tuple[Chart, Any]:
    """The chart of a result, and its Plotly figure."""
    go = require_plotly()
    chart = _CHARTS[type(result).__name__](result)
    figure = go.Figure(chart.traces)
    figure.update_layout(
        title={"text": escape(chart.title), "font": {"size": 15}},
        template="plotly_white",
        hovermode="closest",
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        margin={"t": 110, "l": 60, "r": 20, "b": 60},
    )
    figure.update_xaxes(title_text=chart.x)
    figure.update_yaxes(title_text=chart.y)
    figure.update_layout(chart.layout)
    return chart, figure


def _write(figure: Any, target: Any, title: str) -> None:
    text = figure.to_html(include_plotlyjs=True, full_html=True, config={"responsive": True})
    viewport = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    head = f"<head>{viewport}<title>{escape(title)}</title>"
    with replacing(target) as stream:
        stream.write(text.replace("<head>", head, 1).encode())


def _title(network: str, *more: str) -> str:
    return ", ".join(filter(None, (shortened(name(network), 80), *more)))


# --- layers -------------------------------------------------------------------------------------------------


def _layers(
    layers: Sequence[str],
    values: Array,
    label: str,
    colour: str,
    *,
    std: Array | None = None,
    shortcuts: Sequence[str] = (),
    points: bool = False,
    weights: Array | None = None,
) -> list[dict[str, Any]]:
    """A line through the layers of the main path, marks for the others; points for what is measured."""
    x = np.arange(1, len(layers) + 1)
    beside = np.array([layer in shortcuts for layer in layers], dtype=bool)
    made = []
    for chosen, on_path in ((~beside, True), (beside, False)):
        if not chosen.any():
            continue
        error = None if std is None else {"type": "data", "array": np.nan_to_num(std[chosen]), "thickness": 1}
        mode = "markers" if points or not on_path else "lines+markers"
        made.append(
            {
                "type": "scatter",
                "x": x[chosen],
                "y": values[chosen],
                "error_y": error,
                "mode": mode,
                "name": label if on_path else f"{label}, on a shortcut",
                "legendgroup": label,
                "showlegend": on_path,
                "marker": {
                    "symbol": "circle-open" if points else "circle" if on_path else _SHORTCUT,
                    "size": 5 if len(layers) > 40 else 7,
                },
                "line": {"color": colour},
                "text": _hovers(layers, values, std, weights, chosen),
                "hovertemplate": f"%{{text}}<extra>{escape(label)}</extra>",
            }
        )
    return made


def _hovers(
    layers: Sequence[str], values: Array, std: Array | None, weights: Array | None, chosen: Array
) -> list[str]:
    shown = []
    for i in np.flatnonzero(chosen).tolist():
        lines = [f"<b>{escape(name(str(layers[i])))}</b> (layer {i + 1})"]
        spread = "" if std is None or not np.isfinite(std[i]) else f" ± {std[i]:.3g}"
        lines.append(f"{values[i]:.4g}{spread}")
        if weights is not None:
            lines.append(f"{int(weights[i]):,} weights")
        shown.append("<br>".join(lines))
    return shown


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _kept_chart(network: str, criterion: str) -> Chart:
    chart = Chart(_title(network, criterion), "weight layer, from the input", "fraction of weights kept")
    chart.layout["yaxis"] = {"rangemode": "tozero"}
    return chart


def _prediction(found: PruningPrediction) -> Chart:
    chart = _kept_chart(found.network, found.criterion)
    kept, std = np.atleast_2d(found.kept), np.atleast_2d(found.kept_std)
    for i, sparsity in enumerate(np.ravel(found.sparsity)):
        chart.traces += _layers(
            found.layers, kept[i], f"{found.method} at {sparsity:g}", _colour(i), std=std[i],
            shortcuts=found.shortcuts, weights=found.weights,
        )  # fmt: skip
    return chart


def _measurement(found: PruningMeasurement) -> Chart:
    chart = _kept_chart(found.network, f"{found.criterion}, measured")
    kept = np.atleast_2d(found.kept)
    for i, sparsity in enumerate(np.ravel(found.sparsity)):
        label = f"measured at {sparsity:g}"
        chart.traces += _layers(found.layers, kept[i], label, _colour(i), points=True, weights=found.weights)
    return chart


def _trainability(found: Any) -> Chart:
    title = _title(found.network, *filter(None, (found.criterion, found.method)))
    chart = Chart(title, "weight layer, from the input", "mean squared singular value")
    for i, (label, values) in enumerate((("masked weights", found.layer_gain), ("χ", found.chi))):
        if np.isfinite(values).any():
            points = found.method == "measured"
            chart.traces += _layers(found.layers, values, label, _colour(i), points=points)
    chart.layout = {"yaxis": {"type": "log"}}
    return chart


def _comparison(found: Comparison) -> Chart:
    chart = _prediction(found.prediction)
    chart.title = _title(found.network, found.criterion)
    mean, std = np.atleast_2d(found.measured_kept), np.atleast_2d(found.measured_std)
    for i, sparsity in enumerate(np.ravel(found.sparsity)):
        label = f"measured at {sparsity:g}"
        chart.traces += _layers(found.layers, mean[i], label, _colour(i), std=std[i], points=True)
    return chart


def _design(found: Any) -> Chart:
    title = _title(found.network, f"{found.criterion} at s = {found.sparsity:g}")
    chart = Chart(title, "weight layer, from the input", "weights kept")
    before = np.maximum(found.before.kept * found.weights, 0.1)
    design = np.maximum(found.kept_weights, 0.1)
    for label, values, colour in (
        ("all weights", found.weights, GREY),
        ("as it is, global ranking", before, COLOURS[1]),
        ("design", design, COLOURS[0]),
    ):
        chart.traces += _layers(found.layers, np.asarray(values), label, colour, shortcuts=found.shortcuts)
    chart.layout["yaxis"] = {"type": "log"}
    return chart


def _diagnosis(found: Any) -> Chart:
    chart = _kept_chart(found.network, f"{found.criterion} at s = {found.sparsity:g}")
    for seen, label, colour in (
        (found.before, "as found", COLOURS[0]),
        (found.after, "after the cure", COLOURS[1]),
    ):
        if seen is not None:
            chart.traces += _layers(
                found.layers, seen.kept, label, colour, std=seen.kept_std, shortcuts=found.shortcuts,
                weights=found.weights,
            )  # fmt: skip
    return chart


# --- the rest -----------------------------------------------------------------------------------------------


def _collapse(found: CollapsePrediction) -> Chart:
    title = _title(found.network, found.criterion, f"weakest layer {found.weakest_layer}")
    chart = Chart(title, "fraction of weights left, 1 − s", "P(collapse)")
    samples = np.sort(found.samples)
    left = np.geomspace(max(1.0 - samples[0], 1e-12) * 1.5, max(1.0 - samples[-1], 1e-12) / 1.5, 400)
    left = np.unique(np.minimum(left, 1.0))[::-1]
    chart.traces.append(
        {
            "type": "scatter",
            "x": left,
            "y": np.asarray(found.probability(1.0 - left)),
            "mode": "lines",
            "line": {"color": COLOURS[0]},
            "name": found.method,
            "customdata": 1.0 - left,
            "hovertemplate": "sparsity %{customdata:.6g}<br>P(collapse) %{y:.3f}<extra></extra>",
        }
    )
    chart.layout["xaxis"] = {"type": "log", "autorange": "reversed"}
    return chart


def _curve(found: CriticalCurve) -> Chart:
    chart = Chart(f"{found.activation.name}: edge of chaos", "bias scale σ_b", "critical weight scale σ_w")
    stable = np.where(np.ravel(found.stable), "stable", "unstable")
    chart.traces.append(
        {
            "type": "scatter",
            "x": np.ravel(found.sigma_b),
            "y": np.ravel(found.sigma_w),
            "mode": "lines+markers",
            "line": {"color": COLOURS[0]},
            "marker": {"size": 5},
            "name": found.activation.name,
            "customdata": np.stack([np.ravel(found.q), stable.astype(object)], axis=-1),
            "hovertemplate": "σ_b %{x:.6g}<br>σ_w %{y:.10g}<br>q %{customdata[0]:.6g}, %{customdata[1]}"
            "<extra></extra>",
        }
    )
    return chart


def _phases(found: PhaseDiagram) -> Chart:
    check_grid("diagram", found.q_star.shape, {})
    chart = Chart(f"{found.activation.name}: phases and depth scales", "weight scale σ_w", "bias scale σ_b")
    chart.traces.append(
        {
            "type": "heatmap",
            "x": found.sigma_w,
            "y": found.sigma_b,
            "z": np.log10(np.clip(found.xi_c, 1e-3, 1e5)),
            "colorscale": "Cividis",
            "colorbar": {"title": {"text": "log₁₀ ξ_c"}},
            "text": found.phase,
            "customdata": np.stack([found.xi_c, found.chi, found.q_star], axis=-1),
            "hovertemplate": "σ_w %{x:.4g}, σ_b %{y:.4g}<br>%{text}<br>ξ_c %{customdata[0]:.4g} layers<br>"
            "χ %{customdata[1]:.4g}, q* %{customdata[2]:.4g}<extra></extra>",
        }
    )
    return chart


def _attention(found: AttentionPhase) -> Chart:
    check_grid("the grid", found.similarity.shape, {})
    title = f"{found.norm}-LN transformer, {found.depth} blocks, {found.tokens} tokens"
    chart = Chart(title, "score scale σ_qσ_k", "residual strength α")
    chart.traces.append(
        {
            "type": "heatmap",
            "x": found.score_scale,
            "y": found.residual_strength,
            "z": found.similarity,
            "colorscale": "Cividis",
            "colorbar": {"title": {"text": "token similarity"}},
            "text": found.phase,
            "customdata": np.stack([found.gradient_exponent, found.entropy], axis=-1),
            "hovertemplate": "σ_qσ_k %{x:.4g}, α %{y:.4g}<br>%{text}<br>similarity %{z:.4g}<br>"
            "gradient exponent %{customdata[0]:.4g}, entropy %{customdata[1]:.4g}<extra></extra>",
        }
    )
    chart.layout |= {"xaxis": {"type": "log"}, "yaxis": {"type": "log"}}
    return chart


_CHARTS: dict[str, Callable[[Any], Chart]] = {
    "AttentionPhase": _attention,
    "CollapsePrediction": _collapse,
    "Comparison": _comparison,
    "CriticalCurve": _curve,
    "Design": _design,
    "Diagnosis": _diagnosis,
    "PhaseDiagram": _phases,
    "PruningMeasurement": _measurement,
    "PruningPrediction": _prediction,
    "Trainability": _trainability,
}
