"""Which connections survive at 70 % sparsity, critical against chaotic (Hayou et al. 2021, figure 1)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import eoc_theory as eoc
from eoc_theory.reports.plots import plot_connections

from .figure import FigureScript, Results
from .phases import SPARSITY, network, title

SHOWN = ("critical", "chaotic")
SEED = 0


def compute() -> Results:
    """The masks of one network of each phase as packed bits."""
    results: dict[str, np.ndarray] = {}
    for phase in SHOWN:
        found = eoc.measure_pruning(
            network(phase).to_torch(SEED), SPARSITY, data=eoc.digits(100), device="cpu"
        )
        assert isinstance(found.masks, dict)
        bits = np.concatenate([mask.reshape(-1) for mask in found.masks.values()])
        results[phase] = np.packbits(bits)
    return results


def draw(results: Results, path: Path) -> None:
    """Both networks side by side, neuron by neuron."""
    shown = {}
    for phase in SHOWN:
        net = network(phase)
        bits = np.unpackbits(results[phase], count=net.n_weights).astype(bool)
        parts = np.split(bits, np.cumsum(net.weights)[:-1])
        masks = [part.reshape(layer.fan_out, layer.fan_in) for part, layer in zip(parts, net, strict=True)]
        shown[title(phase)] = dict(zip(net.weight_layers, masks, strict=True))
    plot_connections(shown, path)


FIGURE = FigureScript(
    "surviving_connections",
    "Connections that survive SNIP at 70 % sparsity in a 100 × 100 tanh network, critical and chaotic.",
    compute,
    draw,
)
