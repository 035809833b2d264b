"""Laws of the scores that need no data, layer by layer: magnitude, random and SynFlow in one shot.

In all three the score of a weight is scale · R · F · X: X ≥ 0 the weight's own variable, independent from
weight to weight, and R, F factors that a row and a column share (1 for magnitude and random).

SynFlow in one round (Tanaka et al. 2020, equation 2): |W_ij| R_i F_j with F_j the signal that an all-ones
input sends to neuron j through absolute weights, R_i what neuron i sends on to the outputs. In a layer of N
neurons both are sums of N terms, so they fluctuate around their mean by v/N in relative variance, v = Var
X/(E X)²: a signal's spread does not accumulate with depth, as each sum averages over the last. The total
Σ|W|RF is the same in every layer (Tanaka's conservation), so that the scale of layer l is 1/(n_l · E X), up
to the sampling error of the layer's own sum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import erfc, erfcinv

from ..architecture import Architecture

Array = np.ndarray

# Nodes for a factor's law: the integrands are smooth in its logarithm.
_NODES = 7


@dataclass(frozen=True)
class ScoreLaw:
    """The score's law in T types of layer; `kind` tells the type of each of the L layers.

    Attributes:
        kind: shape (L,), values in [0, T).
        weights: number of weights of a layer, (T,).
        bounded: X uniform on [0, 1] instead of half-normal with mean square 1, (T,).
        scale: (T,).
        row, column: nodes of the factors R and F, (T, Q); `node_weight`: their probabilities, (Q,).
        rows, columns: number of rows and columns of a layer, (T,).
        conserved: the layer's total score is fixed, so its sampled sum sets its scale.
    """

    kind: Array
    weights: Array
    bounded: Array
    scale: Array
    row: Array
    column: Array
    node_weight: Array
    rows: Array
    columns: Array
    conserved: bool

    @property
    def multiplicity(self) -> Array:
        """Number of layers of each type, (T,)."""
        return np.bincount(self.kind, minlength=len(self.weights))

    def tail(self, t: Array) -> Array:
        """P(score > t) in each type, t of shape (…, 1) or (…, T); shape (…, T)."""
        return self._mean(_survival, t)

    def pressure(self, t: Array) -> Array:
        """−dP(score > t)/d log t, shapes as in `tail`."""
        return self._mean(_log_density, t)

    def kept_score(self, t: Array) -> Array:
        """E[score 1{score > t}]/E[score], shapes as in `tail`."""
        return self._mean(_partial_mean, t, weighted=True)

    def clumping(self, t: Array) -> Array:
        """Relative variance of a layer's expected number of scores above t, given what its weights share.

        Rows and columns with a large factor hold more of the largest scores. The part linear in the factor
        drops out, because the factors' mean is fixed; what is left, and the sampling error of the layer's
        total score, is returned; t and result as in `tail`.
        """
        p = np.maximum(self.tail(t), 1e-300)
        total = np.zeros_like(p)
        if not self.conserved:
            return total
        cells = self._cells(_survival, t)
        for factor, axis, size in ((self.row, -1, self.rows), (self.column, -2, self.columns)):
            # P(score > t | factor): the other factor is averaged out.
            given = (cells * (self.node_weight if axis == -1 else self.node_weight[:, None])).sum(axis=axis)
            h = given / p[..., None] - 1.0
            x = factor - 1.0
            variance = (x**2 * self.node_weight).sum(axis=-1)
            linear = (h * x * self.node_weight).sum(axis=-1) ** 2 / np.where(variance > 0, variance, 1.0)
            total += np.maximum((h**2 * self.node_weight).sum(axis=-1) - linear, 0.0) / size
        return total + (self.pressure(t) / p) ** 2 * self.score_variance() / self.weights

    def score_variance(self) -> Array:
        """Relative variance of one score in its layer, (T,)."""
        square = np.where(self.bounded, 4.0 / 3.0, np.pi / 2)
        spread = ((self.row**2) * self.node_weight).sum(-1) * ((self.column**2) * self.node_weight).sum(-1)
        return square * spread - 1.0

    def threshold(self, kept: Array) -> Array:
        """t with Σ_l n_l P(score > t) = kept, for kept in (0, n), shape (n_s,)."""
        n = self.weights * self.multiplicity
        kept = np.asarray(kept, dtype=float)
        grid = self.grid()
        grid = np.append(grid[:-1:8], grid[-1])
        expected = self.tail(grid[:, None]) @ n
        upper = np.clip(np.searchsorted(-expected, -kept), 1, len(grid) - 1)
        low, high = grid[upper - 1], grid[upper]
        t = 0.5 * (low + high)
        for _ in range(60):
            excess = self.tail(t[:, None]) @ n - kept
            low, high = np.where(excess > 0, t, low), np.where(excess > 0, high, t)
            # Newton in log t; bisection where it leaves the bracket, as on flat stretches of bounded laws.
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                step = t * np.exp(excess / (self.pressure(t[:, None]) @ n))
            new = np.where((step > low) & (step < high), step, 0.5 * (low + high))
            if (np.abs(new - t) <= 1e-13 * t).all():
                break
            t = new
        return t

    def grid(self) -> Array:
        """Rising scores (G,) to tabulate the tails at, from 0 to where nothing is left."""
        quantiles = np.concatenate([np.linspace(1.0, 0.5, 24)[:-1], np.geomspace(0.5, 1e-22, 180)])
        points = [np.zeros(1)]
        for t in range(len(self.weights)):
            top = float(self.row[t].max() * self.column[t].max())
            if self.bounded[t]:
                x = np.concatenate(
                    [1.0 - quantiles, np.linspace(1.0, top, 60)[1:]] if top > 1 else [1.0 - quantiles]
                )
            else:
                x = np.sqrt(2.0) * erfcinv(quantiles)
                x = np.concatenate([x, np.linspace(x[-1], x[-1] * top, 30)[1:]] if top > 1 else [x])
            points.append(self.scale[t] * x)
        return np.unique(np.concatenate(points))

    def _cells(self, function: object, t: Array, weighted: bool = False) -> Array:
        """function(X's argument) for every pair of nodes, shape (…, T, Q, Q), rows first."""
        factor = self.row[:, :, None] * self.column[:, None, :]
        x = np.asarray(t)[..., None, None] / (self.scale[:, None, None] * factor)
        values = function(x, self.bounded[:, None, None])  # type: ignore[operator]
        return values * factor if weighted else values

    def _mean(self, function: object, t: Array, weighted: bool = False) -> Array:
        pair = self.node_weight[:, None] * self.node_weight
        return (self._cells(function, t, weighted) * pair).sum(axis=(-1, -2))


def _survival(x: Array, bounded: Array) -> Array:
    """P(X > x)."""
    return np.where(bounded, np.clip(1.0 - x, 0.0, 1.0), erfc(x / np.sqrt(2.0)))


def _log_density(x: Array, bounded: Array) -> Array:
    """x times the density of X."""
    normal = np.sqrt(2 / np.pi) * x * np.exp(-0.5 * np.minimum(x, 50.0) ** 2)
    return np.where(bounded, np.where(x < 1.0, x, 0.0), normal)


def _partial_mean(x: Array, bounded: Array) -> Array:
    """E[X 1{X > x}]/E[X]."""
    return np.where(bounded, np.clip(1.0 - x**2, 0.0, 1.0), np.exp(-0.5 * np.minimum(x, 50.0) ** 2))


def magnitude_law(net: Architecture) -> ScoreLaw:
    """|W|: half-normal with scale σ_w/√fan_in, or uniform up to √3 σ_w/√fan_in."""
    bounded = _bounded(net)
    std = np.array([layer.weight_std for layer in net.layers])
    one = np.ones((len(net), 1))
    return _typed(
        net, bounded, np.where(bounded, np.sqrt(3.0) * std, std), one, one, np.ones(1), conserved=False
    )


def random_law(net: Architecture) -> ScoreLaw:
    """Independent uniform scores."""
    one = np.ones((len(net), 1))
    return _typed(
        net, np.ones(len(net), dtype=bool), np.ones(len(net)), one, one, np.ones(1), conserved=False
    )


def synflow_law(net: Architecture) -> ScoreLaw:
    """|W_ij| R_i F_j of the dense network, see the module's head; factors taken as log-normal."""
    bounded = _bounded(net)
    relative = np.where(bounded, 1.0 / 3.0, np.pi / 2 - 1.0)
    fan_in = np.array([layer.fan_in for layer in net.layers])
    fan_out = np.array([layer.fan_out for layer in net.layers])
    column, row = np.zeros(len(net)), np.zeros(len(net))
    for k in range(1, len(net)):
        column[k] = (relative[k - 1] * (1 + column[k - 1])) / fan_in[k - 1]
    for k in range(len(net) - 2, -1, -1):
        row[k] = (relative[k + 1] * (1 + row[k + 1])) / fan_out[k + 1]
    z, weight = np.polynomial.hermite_e.hermegauss(_NODES)
    scale = 1.0 / (fan_in * fan_out * np.where(bounded, 0.5, np.sqrt(2 / np.pi)))
    scale = scale / scale.max()
    return _typed(
        net,
        bounded,
        scale,
        _log_normal(row, z),
        _log_normal(column, z),
        weight / weight.sum(),
        conserved=True,
    )


def _log_normal(variance: Array, z: Array) -> Array:
    """Nodes (L, Q) of a log-normal factor with mean 1."""
    log_variance = np.log1p(variance)[:, None]
    return np.exp(np.sqrt(log_variance) * z - 0.5 * log_variance)


def _bounded(net: Architecture) -> Array:
    return np.array([layer.law == "uniform" for layer in net.layers])


def _typed(
    net: Architecture,
    bounded: Array,
    scale: Array,
    row: Array,
    column: Array,
    node_weight: Array,
    *,
    conserved: bool,
) -> ScoreLaw:
    """Merge layers of the same law: a deep network has few kinds of them."""
    fan_out = np.array([layer.fan_out for layer in net.layers])
    fan_in = np.array([layer.fan_in for layer in net.layers])
    described = np.column_stack([fan_out, fan_in, bounded, scale, row[:, 0], column[:, 0]])
    _, first, kind = np.unique(described.round(12), axis=0, return_index=True, return_inverse=True)
    return ScoreLaw(
        kind=kind.reshape(-1),
        weights=net.weights[first].astype(float),
        bounded=bounded[first],
        scale=scale[first],
        row=row[first],
        column=column[first],
        node_weight=node_weight,
        rows=fan_out[first].astype(float),
        columns=fan_in[first].astype(float),
        conserved=conserved,
    )
