"""SynFlow in one round: the distribution of its scores from the network's shapes and initialisation alone.

|W_ij| R_i F_j (Tanaka et al. 2020, equation 2), with F_j the signal that an input of ones sends to neuron j
through absolute weights, R_i what neuron i sends on to the outputs. In a layer of N neurons both are sums of
N terms, so they fluctuate around their mean by v/N in relative variance, v = Var X/(E X)²: a signal's
deviation does not accumulate with depth, as each sum averages over the last. In a chain the total Σ|W|RF is
the same in every layer (Tanaka's conservation), so that the scale of layer l is 1/(n_l · E X), up to the
sampling error of the layer's own sum. On a graph the mean signals follow its edges (`mean_flow`), and zero
padding makes the taps at a kernel's rim smaller.
"""

from __future__ import annotations

import numpy as np

from ...networks.architecture import Architecture
from ..distributions.independent import ScoreLaw, merged
from ..distributions.magnitudes import magnitude_law
from .mean_flow import LayerFlow, mean_flow

Array = np.ndarray

#: Nodes for a factor's law on graphs: a convolution's channels sum over k² times as many weights, and there
#: are more places to go through.
_GRAPH_NODES = 3
#: Places told apart in a layer.
_PLACES = 12


def synflow_scores(net: Architecture) -> ScoreLaw:
    """|W| R F of the dense network, see the module's head; the factors taken as log-normal."""
    magnitudes = [magnitude_law(layer) for layer in net.layers]
    if not net.is_chain:
        flow = mean_flow(net)
        logs = np.array([f.log_scale for f in flow])
        top = logs[np.isfinite(logs)].max(initial=-np.inf)
        scale = np.exp(logs - top) if np.isfinite(top) else np.zeros(len(net))
        places = [_places(f) for f in flow]
        return merged(
            net,
            magnitudes,
            scale * np.array([layer.weight_std for layer in net.layers]),
            row_variance=np.array([f.row_variance for f in flow]),
            column_variance=np.array([f.column_variance for f in flow]),
            places=places,
            nodes=_GRAPH_NODES,
            conserved=True,
        )
    mean = np.array([law.mean for law in magnitudes])
    relative = 1.0 / mean**2 - 1.0
    fan_in = np.array([layer.fan_in for layer in net.layers])
    fan_out = np.array([layer.fan_out for layer in net.layers])
    column, row = np.zeros(len(net)), np.zeros(len(net))
    for k in range(1, len(net)):
        column[k] = (relative[k - 1] * (1 + column[k - 1])) / fan_in[k - 1]
    for k in range(len(net) - 2, -1, -1):
        row[k] = (relative[k + 1] * (1 + row[k + 1])) / fan_out[k + 1]
    scale = 1.0 / (net.weights * mean)
    return merged(
        net, magnitudes, scale / scale.max(), row_variance=row, column_variance=column, conserved=True
    )


def _places(flow: LayerFlow) -> tuple[Array, Array]:
    """Factors and shares of a layer's places: groups of rows and columns, and taps; at most _PLACES."""
    rows, columns = flow.row.reshape(flow.groups, -1), flow.column.reshape(flow.groups, -1)
    values, shares = np.ones(1), np.ones(1)
    pieces = [_binned(r, np.ones(r.size)) for r in rows], [_binned(c, np.ones(c.size)) for c in columns]
    pairs = [_product(r, c) for r, c in zip(*pieces, strict=True)]
    values = np.concatenate([pair[0] for pair in pairs])
    shares = np.concatenate([pair[1] for pair in pairs])
    values, shares = _binned(values, shares)
    return _binned(*_product((values, shares), _binned(flow.tap, np.ones(flow.tap.size))))


def _product(first: tuple[Array, Array], second: tuple[Array, Array]) -> tuple[Array, Array]:
    return np.outer(first[0], second[0]).reshape(-1), np.outer(first[1], second[1]).reshape(-1)


def _binned(values: Array, shares: Array) -> tuple[Array, Array]:
    """At most _PLACES factors that stand for all, with their shares; what is 0 stays apart."""
    shares = shares / shares.sum()
    kept: list[tuple[float, float]] = []
    alive = values > 0
    if not alive.all():
        kept.append((0.0, float(shares[~alive].sum())))
    if alive.any():
        values, shares = values[alive], shares[alive]
        logs = np.log(values)
        # Equal but for rounding is one place.
        _, cell = np.unique(logs.round(9), return_inverse=True)
        if cell.max() >= _PLACES - len(kept):
            low, high = logs.min(), logs.max()
            bins = _PLACES - len(kept)
            cell = np.minimum(((logs - low) / (high - low) * bins).astype(int), bins - 1)
        share = np.bincount(cell, shares)
        mean = np.bincount(cell, shares * values)
        kept.extend((m / s, s) for m, s in zip(mean, share, strict=True) if s > 0)
    return np.array([k[0] for k in kept]), np.array([k[1] for k in kept])
