"""How far a prediction can be trusted: its expected error, from networks that were really pruned.

Predictions of networks of many widths and depths have been compared with measurements (`python -m analysis
run trust` and the like); `python -m benchmarks.error_map` fits what is kept in ``error_map.json``. The error
is a part of the predicted standard deviation over initialisations, by class of network and criterion: that
spread already holds what width, depth over width, the phase and the sparsity do, and powers of width and
depth beside it foretell the error no better. For a prediction rests on few sampled networks, so that most of
its error is that of their mean. Where networks differ little, with normalisation, it is one number. All this
is for the default number of samples.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np

from ..criteria.criterion import Criterion
from ..networks.architecture import Architecture
from ..networks.queries import attends, batch_norm_modes, is_normalised, is_residual
from ..networks.resolve import Network

Array = np.ndarray

#: Expected absolute error of a mean, in standard deviations of it: √(2/π).
MEAN_ERROR = 0.8
#: Expected error, and the bound for nine networks of ten, of networks that are sampled as they stand: what a
#: mean over them is off from a mean over `_MEASURED` others, in standard deviations of that difference. Of
#: what is kept, and of the median of log₁₀(1 − s_cr), which varies by a quarter more than a mean.
_KEPT_OF_MEAN, _COLLAPSE_OF_MEAN, _MEASURED = (MEAN_ERROR, 1.5), (1.0, 1.9), 12
#: What a prediction with another number of samples than the default is to say.
OWN_SAMPLES = "expected error is that of the default number of samples"
#: Part of the networks whose error is under the bound.
LEVEL = 0.9


@dataclass(frozen=True)
class Trust:
    """How far off a prediction is expected to be.

    Attributes:
        expected: expected absolute error.
        bound: what the error stays under in nine networks of ten.
        notes: in what the network is outside of what was measured.
    """

    expected: Array
    bound: Array
    notes: tuple[str, ...]


def kept_trust(
    net: Network, criterion: Criterion, sparsity: Array, spread: Array, samples: int | None = None
) -> Trust:
    """Error of the predicted mean fraction kept, averaged over the layers.

    Args:
        net: the network.
        criterion: what ranks; where it fixes densities there is no error.
        sparsity: (n_s,).
        spread: predicted standard deviation of kept, averaged over the layers, (n_s,).
        samples: number of networks that were sampled; None: none were.
    """
    if criterion.densities(net.weight_shapes) is not None:
        return Trust(np.zeros(len(sparsity)), np.zeros(len(sparsity)), ())
    if samples is not None:
        return _of_a_mean(_KEPT_OF_MEAN, spread, samples)
    assert isinstance(net, Architecture)
    found = _estimate("kept", net, criterion.label, spread, sparsity)
    # Where nothing is pruned there is nothing to be wrong about.
    pruned = np.asarray(sparsity) > 0
    return Trust(found.expected * pruned, found.bound * pruned, found.notes)


def collapse_trust(net: Network, criterion: Criterion, samples: Array, networks: int | None = None) -> Trust:
    """Error of the predicted median of log₁₀(1 − s_cr).

    `samples` are the draws of s_cr in so many `networks` that were sampled; None: none were.
    """
    if criterion.densities(net.weight_shapes) is not None:
        return Trust(np.zeros(()), np.zeros(()), ())
    spread = np.log10(np.maximum(1.0 - samples, 0.5 / net.n_weights)).std()
    if networks is not None:
        return _of_a_mean(_COLLAPSE_OF_MEAN, spread, networks)
    assert isinstance(net, Architecture)
    return _estimate("collapse", net, criterion.label, spread)


def _of_a_mean(factors: tuple[float, float], spread: Array, samples: int) -> Trust:
    """The error of a mean over `samples` networks: `factors` standard deviations of a difference of two."""
    size = np.asarray(spread, dtype=float) * np.sqrt(1.0 / max(samples, 1) + 1.0 / _MEASURED)
    expected, bound = (np.minimum(factor * size, 1.0) for factor in factors)
    return Trust(expected, bound, ())


def kind_of(net: Architecture) -> str:
    """The kind of network that errors are grouped by.

    "chain" (of fully connected layers), "attention", "convolutional", "residual", and these two "normalised".
    """
    if net.is_chain:
        return "chain"
    graph = net.as_graph()
    if attends(graph):
        return "attention"
    kind = "residual" if is_residual(graph) else "convolutional"
    return f"normalised {kind}" if is_normalised(graph) else kind


def size_of(net: Architecture) -> tuple[float, int]:
    """Width and depth: the harmonic mean of the hidden layers' units or channels, and the weight layers.

    Fluctuations at finite width add up as the sum of 1/width over the layers.
    """
    hidden = [layer.fan_out for layer in net.layers[:-1]] or [net.layers[0].fan_in]
    return round(len(hidden) / sum(1.0 / units for units in hidden), 6), net.depth


@lru_cache(maxsize=1)
def error_map() -> Mapping[str, Any]:
    """The fitted map: for "kept" and "collapse" one entry a criterion and kinds of networks."""
    return json.loads(files("eoc_theory.pruning").joinpath("error_map.json").read_text(encoding="utf-8"))


def evaluate(entry: Mapping[str, Any], spread: Array) -> Array:
    """Expected error by an entry of the map, of the shape of `spread`."""
    spread = np.asarray(spread, dtype=float)
    size = np.maximum(spread, entry["least_spread"]) if entry["proportional"] else np.ones_like(spread)
    return np.minimum(entry["constant"] * size, 1.0)


def find(what: str, criterion: str, kind: str) -> tuple[Mapping[str, Any], bool]:
    """The entry of "kept" or "collapse", and whether networks of that kind are in it."""
    entries = [entry for entry in error_map()[what] if entry["criterion"] == criterion]
    for entry in entries:
        if kind in entry["kinds"]:
            return entry, True
    return max(entries, key=lambda entry: entry["constant"] * entry["bound_factor"]), False


def _estimate(
    what: str, net: Architecture, criterion: str, spread: Array, sparsity: Array | None = None
) -> Trust:
    kind = kind_of(net)
    width, depth = size_of(net)
    if not any(entry["criterion"] == criterion for entry in error_map()[what]):
        unknown = np.full(np.shape(spread), np.nan)
        return Trust(
            unknown, unknown, (f"expected error unknown: {criterion} was not held against pruned networks",)
        )
    entry, known = find(what, criterion, kind)
    expected = evaluate(entry, spread)
    bound = np.minimum(entry["bound_factor"] * expected, 1.0)
    outside = [] if known else [f"{criterion} in {kind} networks"]
    outside += beyond("width", [width], entry["width"]) + beyond("depth", [depth], entry["depth"])
    if sparsity is not None:
        outside += beyond("sparsity", sparsity[sparsity > 0], entry["sparsity"])
    outside += _unmeasured(net)
    notes = (
        (f"expected error extrapolated beyond what was measured: {', '.join(outside)}",) if outside else ()
    )
    return Trust(expected, bound, notes)


def beyond(name: str, values: Sequence[float] | Array, measured: Sequence[float]) -> list[str]:
    """What to say where some of `values` are outside the measured range."""
    low, high = measured
    for value in sorted(values):
        # The ends are kept to three digits.
        if not low * (1.0 - 5e-3) <= value <= high * (1.0 + 5e-3):
            return [f"{name} {value:.4g} (measured {low:g} to {high:g})"]
    return []


def _unmeasured(net: Architecture) -> list[str]:
    """Layers and weight distributions that no measured network had."""
    laws = sorted({str(layer.law) for layer in net.layers} - {"normal"})
    found = [f"{law} weights" for law in laws]
    if net.is_chain:
        return found
    graph = net.as_graph()
    normalised = {node.layer.normalises for node in graph.nodes} - {"", "batch"}
    found += [f"{kind} normalisation" for kind in sorted(normalised)]
    if not all(batch_norm_modes(graph)):
        found.append("batch normalisation in evaluation mode")
    if not any(layer.kernel for layer in net.layers):
        found.append("no convolution")
    return found
