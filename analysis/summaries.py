"""What `python -m analysis summary` prints: one table for each kind of thing that a store holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from . import tables, tables_error, tables_layers
from .rows import ORDER
from .store import Store

if TYPE_CHECKING:
    import pandas as pd

#: Layers of a network that are printed, from the first to the last.
LAYERS = 5
#: Headings, and how a line's value is written.
Columns = tuple[tuple[str, Callable[[Any], str]], ...]


@dataclass(frozen=True)
class Summary:
    """A table.

    Attributes:
        name: its key in JSON.
        title: what it is, printed above it.
        lines: makes it of a store, a line each; empty where the store has nothing for it.
        groups: columns on the left; what a line has in common with the one before is left blank.
        columns: the others.
        shown: the lines that are printed; None: all.
    """

    name: str
    title: str
    lines: Callable[[Store], pd.DataFrame]
    groups: Columns
    columns: Columns
    shown: Callable[[pd.DataFrame], pd.DataFrame] | None = None


def show(summary: Summary, frame: pd.DataFrame) -> None:
    """Print the table, if it has lines."""
    from eoc_theory.cli.output import print_table, say

    if frame.empty:
        return
    say(summary.title)
    rows, before = [], [""] * len(summary.groups)
    lines: Any = frame if summary.shown is None else summary.shown(frame)
    for one in lines.itertuples():
        group = [written(one) for _, written in summary.groups]
        cells = [written(one) for _, written in summary.columns]
        rows.append((*_without_repeats(group, before), *cells))
        before = group
    headings = [heading for heading, _ in (*summary.groups, *summary.columns)]
    print_table(headings, rows, left=len(summary.groups))
    say()


def _without_repeats(group: Sequence[str], before: Sequence[str]) -> list[str]:
    """Blank as far as it begins like the line before."""
    same = next((i for i, (one, other) in enumerate(zip(group, before, strict=True)) if one != other), None)
    return [""] * len(group) if same is None else [""] * same + list(group[same:])


def network(one: Any) -> str:
    """A network in a few letters."""
    normalised = f" {one.normalisation}" if isinstance(one.normalisation, str) else ""
    return f"{one.kind} {one.activation} {one.depth}x{one.width}{normalised}"


def sparsity(value: float) -> str:
    """Four decimals, or two digits of 1 − s where these are more."""
    if value == 1.0:
        return "1"
    digits = 4
    while digits < 15 and round(1.0 - value, digits) < 10.0 ** (1 - digits):
        digits += 1
    return "–" if value != value else f"{value:.{digits}f}"


def _number(name: str, form: str = ".4f") -> Callable[[Any], str]:
    """The value of a column; a dash for nan."""

    def written(one: Any) -> str:
        value = getattr(one, name)
        return "–" if value != value else format(value, form)

    return written


def _word(name: str) -> Callable[[Any], str]:
    def written(one: Any) -> str:
        value = getattr(one, name)
        return value if isinstance(value, str) else "–"

    return written


def _sparsity(name: str) -> Callable[[Any], str]:
    return lambda one: sparsity(getattr(one, name))


def _some_layers(frame: pd.DataFrame) -> pd.DataFrame:
    """The first layer of each network, the last, and some between at equal distances."""
    networks = [name for name in (*ORDER, "data", "batch") if name in frame and name != "layer"]
    last = frame.groupby(networks, dropna=False)["layer"].transform("max").to_numpy()
    at = np.round(np.linspace(0.0, 1.0, LAYERS) * last[:, None])
    return frame.loc[(frame["layer"].to_numpy()[:, None] == at).any(axis=1)]


_NETWORK: Columns = (("network", network), ("init", _word("init")), ("criterion", _word("criterion")))
_AT: Columns = (*_NETWORK, ("sparsity", _number("sparsity", "g")))

SUMMARIES = (
    Summary(
        "networks",
        "Critical sparsity, predicted and measured (± standard error), and the mean error of kept per layer:",
        tables.summarise,
        _NETWORK,
        (
            ("seeds", _number("seeds", "d")),
            ("s_cr", _sparsity("critical_sparsity")),
            ("measured", _sparsity("measured_critical_sparsity")),
            ("±", _number("standard_error", ".1g")),
            ("kept error", _number("kept_error")),
            ("seconds", _number("seconds", ".1f")),
        ),
    ),
    Summary(
        "trained",
        "Test accuracy after training (± standard error):",
        tables.summarise_training,
        _AT,
        (
            ("rearranged", _word("arrangement")),
            ("rescaled", _word("rescale")),
            ("rate", _number("learning_rate", "g")),
            ("seeds", _number("seeds", "d")),
            ("test accuracy", _number("accuracy")),
            ("±", _number("standard_error")),
        ),
    ),
    Summary(
        "collapses",
        "Critical sparsity: predicted quantiles, measured median, error Δ of the median (± standard error):",
        tables.collapses_frame,
        _NETWORK,
        (
            ("s_cr 10 %", _sparsity("low")),
            ("median", _sparsity("median")),
            ("90 %", _sparsity("high")),
            ("measured", _sparsity("measured_median")),
            ("seeds", _number("seeds", "d")),
            ("Δ log₁₀(1−s)", _number("gap", "+.2f")),
            ("±", _number("gap_error", ".2f")),
            ("first to go", _word("weakest_layer")),
            ("measured", _word("measured_weakest_layer")),
        ),
    ),
    Summary(
        "errors",
        "Error of kept per layer, mean over sparsities and at the worst one (± standard error); error Δ of "
        "the\nmedian of log₁₀(1 − s_cr) (± standard error); spreads of both between networks, predicted and "
        "measured:",
        tables_error.summarise_errors,
        _NETWORK,
        (
            ("seeds", _number("networks", "d")),
            ("kept error", _number("kept_error")),
            ("worst", _number("worst_error")),
            ("±", _number("standard_error")),
            ("at s", _number("worst_at", "g")),
            ("s.d. kept", _number("predicted_std")),
            ("measured", _number("measured_std")),
            ("Δ log₁₀(1−s)", _number("gap", "+.2f")),
            ("±", _number("gap_error", ".2f")),
            ("s.d.", _number("predicted_spread", ".2f")),
            ("measured", _number("measured_spread", ".2f")),
        ),
    ),
    Summary(
        "kept",
        "Error of kept, mean over layers (± standard error) and in the worst one; spread of kept between "
        "networks,\npredicted and measured; error of log₁₀ of the score moment, mean over layers:",
        tables_layers.summarise_kept,
        _AT,
        (
            ("seeds", _number("seeds", "d")),
            ("kept error", _number("kept_error")),
            ("±", _number("standard_error")),
            ("worst", _number("worst_error")),
            ("in layer", _word("worst_layer")),
            ("s.d.", _number("kept_std")),
            ("measured", _number("measured_kept_std")),
            ("moment error", _number("moment_error", ".2f")),
        ),
    ),
    Summary(
        "layers",
        f"Kept, and log₁₀ of the score moment beside the last layer's, in {LAYERS} layers of each network "
        "(--json has all):\nprediction with its spread between networks, measurement (± standard error) with "
        "its own:",
        tables_layers.summarise_layers,
        (*_AT, ("layer", _word("name"))),
        (
            ("kept", _number("kept")),
            ("s.d.", _number("kept_std")),
            ("measured", _number("measured_kept")),
            ("±", _number("kept_error")),
            ("s.d.", _number("measured_kept_std")),
            ("log₁₀ m", _number("log_moment", ".2f")),
            ("s.d.", _number("log_moment_std", ".2f")),
            ("measured", _number("measured_log_moment", ".2f")),
            ("±", _number("log_moment_error", ".2f")),
            ("s.d.", _number("measured_log_moment_std", ".2f")),
        ),
        _some_layers,
    ),
)
