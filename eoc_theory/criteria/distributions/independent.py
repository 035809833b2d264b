"""Distributions of scores that are independent from weight to weight, given what rows and columns share.

The score of a weight is scale · R · F · place · X: X ≥ 0 the weight's own |W|, independent from weight to
weight, R and F factors that a row and a column share, and `place` what is known of the weight beforehand: its
tap in a convolution's kernel, its group of channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...networks.layer_list import LayerList
from .magnitudes import MagnitudeLaw

Array = np.ndarray

# Nodes for a factor's law: the integrands are smooth in its logarithm.
_NODES = 7
#: What no signal reaches ranks below all that one does: score relative to the smallest other scale.
_UNREACHED = 1e-12
#: Beyond so many scores (many layers, none with a sharp end), tails are tabulated at this spacing of logs.
_FINE = 3000
_SPACING = 4e-3


@dataclass(frozen=True)
class ScoreLaw:
    """The score distribution in T types of layer; `kind` tells the type of each of the L layers.

    Attributes:
        kind: shape (L,), values in [0, T).
        weights: number of weights of a layer, (T,).
        magnitudes: law of X, one a type.
        scale: (T,).
        row, column: nodes of the factors R and F, (T, Q); `node_weight`: their probabilities, (Q,).
        place: the places' factors, (T, P), and `place_weight` their shares, (T, P).
        rows, columns: number of rows and columns of a layer, (T,).
        conserved: the layer's total score is fixed, so its sampled sum sets its scale.
    """

    kind: Array
    weights: Array
    magnitudes: tuple[MagnitudeLaw, ...]
    scale: Array
    row: Array
    column: Array
    node_weight: Array
    place: Array
    place_weight: Array
    rows: Array
    columns: Array
    conserved: bool

    @property
    def multiplicity(self) -> Array:
        """Number of layers of each type, (T,)."""
        return np.bincount(self.kind, minlength=len(self.weights))

    def tail(self, t: Array) -> Array:
        """P(score > t) in each type, t of shape (…, 1) or (…, T); shape (…, T)."""
        return self._mean("survival", t)

    def pressure(self, t: Array) -> Array:
        """−dP(score > t)/d log t, shapes as in `tail`."""
        return self._mean("log_density", t)

    def kept_score(self, t: Array) -> Array:
        """E[score 1{score > t}]/E[score], shapes as in `tail`."""
        return self._mean("partial_mean", t, weighted=True)

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
        cells = self._cells("survival", t)
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
        square = np.array([law.mean**-2 for law in self.magnitudes])
        mean = (self.place * self.place_weight).sum(-1)
        spread = ((self.row**2) * self.node_weight).sum(-1) * ((self.column**2) * self.node_weight).sum(-1)
        return square * spread * (self.place**2 * self.place_weight).sum(-1) / mean**2 - 1.0

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
        quantiles = np.concatenate([np.linspace(1.0, 0.5, 24)[1:-1], np.geomspace(0.5, 1e-22, 180)])
        points = []
        for t, law in enumerate(self.magnitudes):
            x = law.upper_quantile(quantiles)
            x = x[x > 0]
            top = float(self.row[t].max() * self.column[t].max())
            if top > 1:
                x = np.concatenate([x, np.linspace(x[-1], x[-1] * top, 60)[1:]])
            reached = self.place[t][self.place_weight[t] > 0]
            points.append(np.outer(self.scale[t] * reached, x).reshape(-1))
        values = np.sort(np.concatenate(points))
        if len(values) > _FINE:
            # One of the points in each small interval, and the last of all.
            cell = np.floor(np.log(values) / _SPACING)
            values = np.append(values[:-1][np.diff(cell) > 0], values[-1])
        return np.unique(np.append(values, 0.0))

    def _cells(self, function: str, t: Array, weighted: bool = False) -> Array:
        """A function of X, averaged over places, for every pair of nodes: (…, T, Q, Q), rows first."""
        factor = self.row[:, :, None] * self.column[:, None, :]
        level = np.asarray(t) / self.scale
        total = np.zeros((*level.shape, *factor.shape[1:]))
        for law in dict.fromkeys(self.magnitudes):
            of_law = np.array([other == law for other in self.magnitudes])
            for k in range(self.place.shape[1]):
                chosen = of_law & (self.place_weight[:, k] > 0)
                if not chosen.any():
                    continue
                shared = factor[chosen] * self.place[chosen, k][:, None, None]
                values = getattr(law, function)(level[..., chosen, None, None] / shared)
                share = self.place_weight[chosen, k][:, None, None]
                total[..., chosen, :, :] += values * (shared * share if weighted else share)
        return total

    def _mean(self, function: str, t: Array, weighted: bool = False) -> Array:
        pair = self.node_weight[:, None] * self.node_weight
        mean = (self._cells(function, t, weighted) * pair).sum(axis=(-1, -2))
        return mean / (self.place * self.place_weight).sum(-1) if weighted else mean


def _log_normal(variance: Array, z: Array) -> Array:
    """Nodes (L, Q) of a log-normal factor with mean 1."""
    log_variance = np.log1p(variance)[:, None]
    return np.exp(np.sqrt(log_variance) * z - 0.5 * log_variance)


def merged(
    net: LayerList,
    magnitudes: list[MagnitudeLaw],
    scale: Array,
    *,
    row_variance: Array | None = None,
    column_variance: Array | None = None,
    places: list[tuple[Array, Array]] | None = None,
    nodes: int = _NODES,
    conserved: bool = False,
) -> ScoreLaw:
    """Merge layers of the same law: a deep network has few kinds of them."""
    if row_variance is None or column_variance is None:
        row_variance, column_variance, nodes = np.zeros(len(net)), np.zeros(len(net)), 1
    z, node_weight = np.polynomial.hermite_e.hermegauss(nodes)
    row, column = _log_normal(row_variance, z), _log_normal(column_variance, z)
    if places is None:
        places = [(np.ones(1), np.ones(1))] * len(net)
    width = max(len(values) for values, _ in places)
    place = np.array([np.pad(values, (0, width - len(values)), constant_values=1.0) for values, _ in places])
    share = np.array([np.pad(shares, (0, width - len(shares))) for _, shares in places])
    scale, place = _with_unreached(scale, place, share)
    fan_out = np.array([layer.fan_out for layer in net.layers])
    columns = np.array([layer.channels_in for layer in net.layers])
    laws = list(dict.fromkeys(magnitudes))
    described = np.column_stack(
        [
            *(
                fan_out,
                net.weights,
                columns,
                [laws.index(law) for law in magnitudes],
                row[:, 0],
                column[:, 0],
            ),
            *(scale[:, None] * place, share),
        ]
    )
    # Relative precision, whatever the unit of a column.
    described = described / np.maximum(np.abs(described).max(axis=0), 1e-300)
    _, first, kind = np.unique(described.round(12), axis=0, return_index=True, return_inverse=True)
    return ScoreLaw(
        kind=kind.reshape(-1),
        weights=net.weights[first].astype(float),
        magnitudes=tuple(magnitudes[k] for k in first),
        scale=scale[first],
        row=row[first],
        column=column[first],
        node_weight=node_weight / node_weight.sum(),
        place=place[first],
        place_weight=share[first],
        rows=fan_out[first].astype(float),
        columns=columns[first].astype(float),
        conserved=conserved,
    )


def _with_unreached(scale: Array, place: Array, share: Array) -> tuple[Array, Array]:
    """Scale and places where scores of 0 are replaced by equally small ones: their ties go evenly."""
    scores = scale[:, None] * place
    alive = (scores > 0) & (share > 0)
    if alive[share > 0].all():
        return scale, place
    floor = _UNREACHED * scores[alive].min() if alive.any() else 1.0
    dead = scale == 0
    scale = np.where(dead, floor, scale)
    place = np.where(dead[:, None], 1.0, np.where(place > 0, place, floor / scale[:, None]))
    return scale, place
