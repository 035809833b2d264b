"""What to use instead: the same network at other scales, and the instruction that sets them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from ...base.boundary import public
from ...errors import EOCError, ModelError
from ...layers import WeightLayer
from ...networks.architecture import DEFAULT_SIGMA_B, Architecture
from ...networks.critical_scales import critical_scales
from ...networks.graph import Graph, Node
from ...networks.resolve import Network
from ...propagation.observed import Runs
from ...pytorch.multiply import multiply_
from .initialisation import Reading


@dataclass(frozen=True)
class Cure:
    """A change of the initialisation.

    Attributes:
        steps: what to do, one instruction each, as code where a function does it.
        does: what that sets, in words that continue "that …".
        net: the network after it; None where the diagnosis was read from JSON.
        factors: what the weights of layers are multiplied by, by name, where that is the change.
        units: output units, as runs from … up to, of those among `factors` of which only some are multiplied:
            of a packed projection those of queries and keys.
    """

    steps: tuple[str, ...]
    does: str
    net: Network = field(default=cast(Network, None), compare=False, repr=False)
    factors: Mapping[str, float] | None = None
    units: Mapping[str, Runs] | None = None

    @public
    def apply_(self, model: Any) -> None:
        """Carry the cure out on a torch model: its weights are multiplied in place by `factors`.

        Raises:
            ModelError: the change is none of `factors` (`steps` say what it is), or `model` does not have the
            weights. It is then left as it was.
        """
        if self.factors is None:
            raise ModelError(f"cure is no multiplication of weights, but: {' and '.join(self.steps)}")
        multiply_(model, self.factors, self.units or {})


def cures(
    net: Architecture,
    reading: Reading,
    *,
    redraw: bool = True,
    biases: bool = True,
    masked: bool = False,
    silent: bool = False,
) -> list[Cure]:
    """Changes worth a prediction, the most natural first; none where scales do not matter.

    Where scales matter, each layer goes to the edge of chaos, with σ_b = 0.2 as in Hayou et al. 2021, or 0
    where an activation has no such point. Residual branches without a scale are divided by the root of
    their number (the stable ResNet of the same paper, section 4).

    Args:
        redraw: whether the scales are among what can be improved.
        biases: whether the layers have biases that can be set.
        masked: whether weights are pruned already: then what is left is rescaled, not sampled anew.
        silent: whether the scores of some layer are all exactly 0.
    """
    unscaled = len(reading.joins) > 1 and all(abs(join.scale) >= 1.0 for join in reading.joins)
    found: list[Cure] = []
    nets: list[Architecture] = []
    if redraw and reading.scaled.any():
        for sigma_b in _bias_scales(net, biases):
            try:
                scales = critical_scales(net.as_graph(), sigma_b)
            except EOCError:
                continue
            critical = at_scales(net, scales)
            call = f"eoc.initialize_(model{f', sigma_b={sigma_b:g}' if sigma_b else ''})"
            step = "eoc.rescale_(model)" if masked else call
            found.append(Cure((step,), _sets(scales, reading, sigma_b), critical))
            nets.append(critical)
    if unscaled:
        count = len(reading.joins)
        step = f"multiply each residual branch by 1/√{count}: y = x + {1 / math.sqrt(count):.3g} · F(x)"
        does = f"makes its {count} blocks a stable ResNet"
        both = [
            Cure((*cure.steps, step), f"{cure.does} and {does}", with_stable_branches(changed, reading))
            for cure, changed in zip(found, nets, strict=True)
        ]
        found = [*both, Cure((step,), does, with_stable_branches(net, reading)), *found]
    if silent:
        restored = _gradients_restored(net)
        found = [restored, *found] if restored.steps else found
    return found


def _gradients_restored(net: Architecture) -> Cure:
    """Normalisations with γ = 0 at 1, factors 0 at one over the root of their number."""
    nodes, steps = list(net.as_graph().nodes), []
    zero = [node for node in nodes if node.layer.adds and node.layer.is_silent]
    factor = 1.0 / math.sqrt(max(len(zero), 1))
    if any(node.layer.normalises and node.layer.is_silent for node in nodes):
        steps.append("set γ = 1 in the normalisations where it is 0")
    if zero:
        steps.append(f"set the factors that are 0 to {factor:.3g}")
    nodes = [Node(node.layer.heard(factor), node.inputs) for node in nodes]
    does = "lets gradients reach every layer before pruning (or train for some steps before it)"
    return Cure(tuple(steps), does, Architecture.from_graph(Graph(tuple(nodes)), net.name))


def _bias_scales(net: Architecture, biases: bool) -> tuple[float, ...]:
    """σ_b to try: homogeneous activations are critical at 0 only."""
    acts = {layer.activation for layer in net if layer.activation is not None}
    if not biases or any(act.is_homogeneous for act in acts):
        return (0.0,)
    return (DEFAULT_SIGMA_B, 0.0)


def _sets(scales: Mapping[str, tuple[float, float]], reading: Reading, sigma_b: float) -> str:
    values = sorted({sigma_w for sigma_w, _ in scales.values()})
    shown = (
        " or ".join(f"{value:.4g}" for value in values)
        if len(values) <= 3
        else (f"{values[0]:.4g} to {values[-1]:.4g}")
    )
    partly = " (which matters where no normalisation follows)" if reading.normalised.any() else ""
    return f"sets σ_w = {shown} and σ_b = {sigma_b:g}, the edge of chaos{partly}"


# --- the same network, otherwise ----------------------------------------------------------------------------


def at_scales(net: Architecture, scales: Mapping[str, tuple[float, float]]) -> Architecture:
    """`net` with normal weights and biases of scales (σ_w, σ_b) by layer name."""
    changed = {
        layer.name: replace(layer, sigma_w=scales[layer.name][0], sigma_b=scales[layer.name][1], law="normal")
        for layer in net
    }
    return with_weights(net, changed)


def with_weights(net: Architecture, weights: Mapping[str, WeightLayer]) -> Architecture:
    """`net` with other weight layers, by name."""
    if net.is_chain:
        return Architecture(tuple(weights[layer.name] for layer in net), name=net.name)
    return Architecture.from_graph(net.as_graph().with_weights(weights), net.name)


def with_stable_branches(net: Architecture, reading: Reading) -> Architecture:
    """`net` with each residual branch multiplied by 1/√(number of blocks)."""
    nodes = list(net.as_graph().nodes)
    factor = 1.0 / math.sqrt(len(reading.joins))
    for join in reading.joins:
        node = nodes[join.position]
        factors = tuple(
            value * factor if index == join.branch else value
            for index, value in enumerate(node.layer.factors(len(node.inputs)))
        )
        nodes[join.position] = Node(node.layer.with_factors(factors), node.inputs)
    return Architecture.from_graph(Graph(tuple(nodes)), net.name)
