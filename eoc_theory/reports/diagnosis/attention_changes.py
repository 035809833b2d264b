"""Changes of scale that networks with attention are tried with, the same by theory and in sampled networks.

Each is a multiplication of weights. By theory the changed network is an architecture, else one that samples
networks; what is changed, and the words for it, are the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...errors import EOCError
from ...layers import WeightLayer
from ...networks.architecture import Architecture
from ...networks.critical_scales import critical_scales
from ...propagation.observed import Runs, ScoreScale, scaled_layer
from .remedies import Cure

#: Standard deviations of attention's scores that are as good as 1.
AS_GOOD = (0.5, 2.0)
#: How the multiplication is carried out.
APPLY = "`found.cure.apply_(model)`"


@dataclass(frozen=True)
class Change:
    """A multiplication of weights.

    Attributes:
        step, does: as of a `Cure`.
        factors: of the weights, by name.
        units: output units that a factor is for, where it is not for all, by name.
    """

    step: str
    does: str
    factors: Mapping[str, float]
    units: Mapping[str, Runs] = field(default_factory=dict)

    def scaled(self, layer: WeightLayer) -> WeightLayer:
        """A layer's weights after it; of a few units' factor the scale of all together."""
        return scaled_layer(layer, self.factors.get(layer.name, 1.0), self.units.get(layer.name, ()))

    def cure(self, net: Any) -> Cure:
        """The cure that makes `net` of the network as found."""
        return Cure((self.step,), self.does, net, dict(self.factors), dict(self.units) or None)


def attention_changes(
    scales: Callable[[], Iterable[ScoreScale]],
    ends: Sequence[str],
    critical: Callable[[], Mapping[str, float]],
) -> Iterator[Change]:
    """Changes worth a try, the most natural first.

    Args:
        scales: makes those of the scores of each attention.
        ends: names of the layers that end a branch of a residual sum.
        critical: makes factors that bring layers to the edge of chaos, by name; see `critical_factors`.
    """
    even = _even_scores(scales())
    if even is not None:
        yield even
    stable = stable_branches(ends)
    if stable is not None:
        yield stable
    to_edge = critical()
    if not to_edge:
        return
    does = "sets the edge of chaos of the activations, biases as they are"
    if stable is not None:
        yield each_layer(times(to_edge, stable.factors), f"{does}, with {branches(len(ends))}")
    yield each_layer(to_edge, does)


def _even_scores(scales: Iterable[ScoreScale]) -> Change | None:
    """Queries and keys whose scores have a standard deviation of 1."""
    wanted: dict[str, list[float]] = {}
    units: dict[str, Runs] = {}
    for one in scales:
        if 0.0 < one.std < math.inf and not AS_GOOD[0] <= one.std <= AS_GOOD[1]:
            for name, runs in one.weights.items():
                wanted.setdefault(name, []).append(-math.log(one.std) / one.degree)
                if runs:
                    units[name] = runs
    if not wanted:
        return None
    # A layer that several attentions share suits them on average.
    factors = {name: math.exp(sum(logs) / len(logs)) for name, logs in wanted.items()}
    step = f"multiply the weights of queries and keys by {_span(factors.values())} ({APPLY})"
    return Change(step, "gives the scores of attention a standard deviation of 1", factors, units)


def stable_branches(ends: Sequence[str]) -> Change | None:
    """The last weights of L residual branches by 1/√L: the paper's Stable ResNet, as GPT-2 has it."""
    if len(ends) < 2:
        return None
    factors = dict.fromkeys(ends, 1.0 / math.sqrt(len(ends)))
    return Change(f"multiply {branches(len(ends))} ({APPLY})", "keeps the residual sums in bounds", factors)


def branches(count: int) -> str:
    return f"the last weights of the {count} residual branches by 1/√{count} = {1.0 / math.sqrt(count):.3g}"


def each_layer(factors: Mapping[str, float], does: str) -> Change:
    """Each layer's weights times a number of its own."""
    return Change(f"multiply the weights of each layer by {_span(factors.values())} ({APPLY})", does, factors)


def times(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    """Both multiplications, one after the other."""
    return {name: one.get(name, 1.0) * other.get(name, 1.0) for name in dict.fromkeys((*one, *other))}


def _span(factors: Iterable[float]) -> str:
    """The least and the largest of some factors."""
    known = list(factors)
    low, high = f"{min(known):.3g}", f"{max(known):.3g}"
    return low if low == high else f"{low} to {high}"


def critical_factors(net: Architecture, layers: Iterable[WeightLayer]) -> dict[str, float]:
    """Factors of weights that bring `layers`, those that have weights, to the edge of chaos, by name.

    Biases stay as they are, and so do laws. Empty where the activations have no such point.
    """
    try:
        scales = critical_scales(net.as_graph(), 0.0)
    except EOCError:
        return {}
    return {
        layer.name: scales[layer.name][0] / layer.sigma_w
        for layer in layers
        if layer.name in scales and layer.sigma_w > 0.0
    }
