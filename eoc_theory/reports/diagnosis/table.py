"""The table of a diagnosis, for terminals, pages and ``print``."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...base.formatting import probability, shown_layers
from ...base.tables import Table
from ...errors.text import name

if TYPE_CHECKING:
    from ...propagation.observed import Observed
    from .diagnosis import Diagnosis

#: What is between two columns of plain text and of a terminal's table, and the widest a line may be.
GAP = 2
TEXT_WIDTH = 100


@dataclass(frozen=True)
class Column:
    """A heading and a cell for each layer.

    Attributes:
        left: aligned left.
    """

    heading: str
    cells: tuple[str, ...]
    left: bool = False

    @property
    def width(self) -> int:
        return max(len(self.heading), *map(len, self.cells))

    def aligned(self, text: str) -> str:
        return text.ljust(self.width) if self.left else text.rjust(self.width)


def columns(found: Diagnosis, layers: Sequence[int] | None = None) -> list[Column]:
    """All columns, with cells for the `layers` at these positions (default: all)."""
    positions = range(len(found.layers)) if layers is None else layers

    def column(heading: str, cells: Sequence[str], *, left: bool = False) -> Column:
        return Column(heading, tuple(cells[i] for i in positions), left)

    made = [
        column("layer", [name(layer) for layer in found.layers], left=True),
        column("type", [name(kind) for kind in found.kinds], left=True),
        column("weights", [str(n) for n in found.weights]),
        column("fan_in", [str(n) for n in found.fan_in]),
        column("law", found.laws, left=True),
        column("sigma_w", [_number(x) for x in found.sigma_w]),
    ]
    own = _of_scales(found) if found.signals is None else _of_signals(found, found.signals)
    made += [column(heading, cells) for heading, cells in own]
    made += [
        column("log10 m", [_signed(x) for x in found.log10_moment]),
        column("kept", [f"{x:.4f}" for x in found.kept]),
        column("± s.d.", [f"{x:.4f}" for x in found.kept_std]),
        column("P(empty)", [probability(float(x)) for x in found.empty_probability]),
    ]
    if found.after is not None:
        made.append(column("cured: kept", [f"{x:.4f}" for x in found.after.kept]))
        empty = [probability(float(x)) for x in found.after.empty_probability]
        made.append(column("cured: P(empty)", empty))
    return made


def _of_scales(found: Diagnosis) -> list[tuple[str, list[str]]]:
    """Heading and cells of what theory says of scales."""
    edge = [
        "any" if normal else _number(scale)
        for scale, normal in zip(found.sigma_w_edge, found.reading.normalised, strict=True)
    ]
    return [
        ("on edge", edge),
        ("sigma_b", [_number(x) for x in found.sigma_b]),
        ("chi", [_number(x) for x in found.chi]),
    ]


def _of_signals(found: Diagnosis, seen: Observed) -> list[tuple[str, list[str]]]:
    """The same of what sampled networks show."""
    zeros = np.nan_to_num(found.before.zero_scores)
    made = [("signal", [_number(x) for x in seen.signal])]
    made.append(("gradient", [_number(x) for x in seen.gradient]))
    if seen.has_tokens:
        made.append(("tokens", [_number(x) for x in seen.token_similarity]))
    if zeros.any():
        made.append(("zero scores", [f"{x:.4f}" for x in zeros]))
    return made


#: What the headings mean, for a line under the table and for a page.
LEGEND = (
    ("sigma_w, sigma_b", "scales found: s.d. of a weight times √fan_in, s.d. of a bias"),
    ("on edge", "σ_w on the edge of chaos of the activation that follows; any: a normalisation follows"),
    ("signal, gradient", "mean squares of the layer's output and of the loss's gradient by it, sampled"),
    ("tokens", "mean cosine between the output's tokens of one input; 1: all alike"),
    ("chi", "what the layer multiplies the gradient's variance by, σ_w² E[φ'²]; 1 on the edge of chaos"),
    ("log10 m", "second moment of the layer's SNIP scores over the last layer's, as a power of ten"),
    ("kept", "predicted fraction of weights kept, with its standard deviation over initialisations"),
    ("P(empty)", "probability that the layer collapses: that it keeps no weight"),
    ("cured", "the same after the change that the verdict names"),
)


def legend(found: Diagnosis) -> list[tuple[str, str]]:
    """The entries of `LEGEND` for the columns that this diagnosis has."""
    shown = {column.heading for column in columns(found, [0])}
    shown |= {"cured"} if found.after is not None else set()
    return [(names, text) for names, text in LEGEND if shown & set(names.split(", "))]


def table(found: Diagnosis) -> Table:
    """The columns for a notebook, a deep network's layers thinned out."""
    shown = shown_layers(len(found.layers))
    made = columns(found, shown)
    rows = tuple(zip(*(column.cells for column in made), strict=True))
    count = len(found.layers)
    note = "" if len(shown) == count else f"{len(shown)} of {count} layers; to_frame() holds each"
    return Table(tuple(column.heading for column in made), rows, note=note)


def as_text(found: Diagnosis) -> str:
    """Verdict and table; a deep network's layers thinned out."""
    shown = shown_layers(len(found.layers))
    made = columns(found, shown)
    lines = [*textwrap.wrap(found.verdict, TEXT_WIDTH, break_long_words=False), ""]
    lines.append((" " * GAP).join(column.aligned(column.heading) for column in made).rstrip())
    for row in range(len(shown)):
        lines.append((" " * GAP).join(column.aligned(column.cells[row]) for column in made).rstrip())
    if len(shown) < len(found.layers):
        lines.append(f"{len(shown)} of {len(found.layers)} layers; to_frame() holds each")
    return "\n".join(lines)


def _number(value: float) -> str:
    """Four digits, "–" for none."""
    if not math.isfinite(value):
        return "–" if np.isnan(value) else str(value)
    return f"{value:.3f}" if 0.01 <= abs(value) < 100 or value == 0 else f"{value:.2g}"


def _signed(value: float) -> str:
    """A power of ten, "–" for none; what rounds to nothing has no sign."""
    if not math.isfinite(value):
        return "–"
    text = f"{value:+.2f}"
    return "0.00" if text in ("+0.00", "-0.00") else text
