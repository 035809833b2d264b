"""The law of a criterion's scores inside one layer, on a logarithmic grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ...base.progress import followed
from ...layers.activation_tables import slope_table
from ...networks.architecture import Architecture, WeightLayer
from ...propagation.chain_kernels import inputs_in_unit
from ...propagation.infinite_width import Propagation
from ...propagation.scale_statistics import ScaleStatistics, factor_statistics, gram
from ...propagation.score_grid import GRID, STEP
from ...signals.covariance import covariance_root
from ...signals.data import DataSummary

Array = np.ndarray

#: Rows δ_i and columns h_j drawn for the laws that sampled networks are compared with.
DRAWS = 512
#: Scores sampled in a layer for the law of all, and where the largest matter.
SCORES, COLLAPSE_SCORES = 80_000, 10_000_000
#: Fewest and most samples of a layer.
REPEATS = (4, 64)
#: Layers up to this many times as wide as the batch are sampled together with the next one.
JOINT_WIDTH = 4
#: Rows sampled of a wider layer.
SPARSE_ROWS = 256
#: Mean squares of gradients in single precision are larger, or those of no gradient at all.
_LEAST_SQUARE = 1e-74


@dataclass(frozen=True)
class ScoreLaws:
    """Laws of |score| of the layers.

    Attributes:
        log_rms: log of the root mean square score, shape (L,).
        nonzero: P(score ≠ 0), shape (L,).
        tail: P(log|score| − log_rms > u | score ≠ 0) for u in GRID, shape (L, U).
        max_cdf: P(every weight of the layer has log|score| − log_rms ≤ u), shape (L, U).
    """

    log_rms: Array
    nonzero: Array
    tail: Array
    max_cdf: Array


def law_layers(depth: int) -> Array:
    """Layers where the law's shape is sampled: all near both ends, where it changes fast, few in between."""
    near = np.array([0, 1, 3, 8, 20, 50, 125, 300, 750])
    chosen = np.concatenate([near, depth - 1 - near])
    return np.unique(chosen[(chosen >= 0) & (chosen < depth)])


def kernel_layers(depth: int) -> set[int]:
    """Layers whose kernels these laws are made of: those, the one before and the two that follow."""
    near = law_layers(depth)[:, None] + np.arange(-1, 3)
    return set(near[(near >= 0) & (near < depth)].tolist())


def snip_laws(
    net: Architecture, batch: DataSummary, kernels: Propagation, *, seed: int, scores: int = SCORES
) -> ScoreLaws:
    """Laws of |W_ij g_ij|, g_ij = Σ_b δ_ib h_jb, layer by layer.

    A layer is sampled with its neighbours: inputs h from their Gaussian law, its weights W, y = W h + b,
    and, where the layer is not much wider than the batch, the next layer's weights too, so that the gradient
    that they send back knows the signal that they sent forwards: δ = φ'(y) ∘ W⁺ᵀδ⁺. Units with a large output
    then have a large gradient, which makes the rows' scales more uneven than independence has it. In wider
    layers W⁺ᵀδ⁺ is drawn from its own Gaussian law.

    About `scores` scores are sampled in each layer. The same draws serve every layer, so that the laws vary
    smoothly with depth; between the layers of `law_layers` the shapes are interpolated.
    """
    draws = Draws(seed)

    # Threads have an error state of their own.
    @np.errstate(all="ignore")
    def law(layer: int) -> tuple[Array, Array, Array]:
        return _layer_law(net, batch, kernels, layer, draws, scores)

    with ThreadPoolExecutor(max_workers=2) as pool:
        layers = law_layers(net.depth).tolist()
        tables = list(followed(pool.map(law, layers), "laws of the scores, layer", len(layers)))
    nonzero, tail, max_cdf = _interpolate_layers(net.depth, tables)
    return ScoreLaws(_log_rms(kernels), nonzero, tail, max_cdf)


def _log_rms(kernels: Propagation) -> Array:
    """½ log m^l; far below all others where a layer's scores are all 0."""
    found = 0.5 * kernels.log_moment
    return np.where(np.isfinite(found), found, min(found[np.isfinite(found)], default=0.0) - 1e4)


class Draws:
    """Random numbers by name, repeat and shape, each made once and the same for every layer that asks."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._made: dict[tuple, Array] = {}

    def normal(self, name: str, repeat: int, shape: tuple[int, int]) -> Array:
        """Standard normals, single precision."""
        return self._get(name, repeat, shape, lambda rng: rng.standard_normal(shape, dtype=np.float32))

    def uniform(self, name: str, repeat: int, shape: tuple[int, int]) -> Array:
        """Uniform numbers of mean 0 and variance 1, single precision."""
        return self._get(
            name, repeat, shape, lambda rng: np.float32(12**0.5) * (rng.random(shape, dtype=np.float32) - 0.5)
        )

    def _get(
        self, name: str, repeat: int, shape: tuple[int, int], make: Callable[[np.random.Generator], Array]
    ) -> Array:
        key = (name, repeat, shape)
        if key not in self._made:
            self._made[key] = make(np.random.default_rng([self._seed, repeat, *shape, *name.encode()]))
        return self._made[key]


def factor_laws(net: Architecture, batch: DataSummary, kernels: Propagation, *, seed: int) -> ScaleStatistics:
    """What sampled networks are compared with: the same statistics of infinitely wide layers, shapes (L, …).

    DRAWS rows and columns from their Gaussian laws stand for each layer.
    """
    tables = []
    for layer, delta, h in _factors(net, batch, kernels, seed):
        grams = gram(delta[None]), gram(h[None])
        (log_rms,), (quantiles,), (dead,) = factor_statistics(
            delta[None], h[None], net.layers[layer].law, *grams
        )
        tables.append((quantiles - log_rms, dead))
    quantiles, dead = _interpolate_layers(net.depth, tables)
    log_rms = _log_rms(kernels)
    return ScaleStatistics(log_rms, log_rms[:, None] + quantiles, dead)


def _factors(
    net: Architecture, batch: DataSummary, kernels: Propagation, seed: int
) -> Iterator[tuple[int, Array, Array]]:
    """Layer, rows δ_i and columns h_j for the layers of `law_layers`, from one set of normal draws."""
    half = np.random.default_rng([seed, 0x6C617773]).standard_normal((3, DRAWS // 2, batch.size))
    # Antithetic rows and columns: with inputs alike, exactly half of the gates φ' and of the units are open.
    normals = np.concatenate([half, -half], axis=1)
    normals[1] = np.random.default_rng([seed, 0x65]).standard_normal((DRAWS, batch.size))
    for layer in law_layers(net.depth):
        delta = sample_rows(net, batch, kernels, int(layer), normals, seed)
        yield int(layer), delta, sample_columns(batch, kernels, int(layer), normals)


def _interpolate_layers(depth: int, tables: list[tuple[Array, ...]]) -> list[Array]:
    """Linear interpolation of each quantity between the layers of `law_layers`, along the first axis."""
    chosen, where = law_layers(depth), np.arange(depth)
    right = np.clip(np.searchsorted(chosen, where), 1, max(len(chosen) - 1, 1))
    left = right - 1
    if len(chosen) == 1:
        right = left
    weight = (where - chosen[left]) / np.maximum(chosen[right] - chosen[left], 1)
    columns = [np.stack(rows) for rows in zip(*tables, strict=True)]
    shaped = [weight.reshape(-1, *[1] * (table.ndim - 1)) for table in columns]
    return [t[left] * (1 - w) + t[right] * w for t, w in zip(columns, shaped, strict=True)]


def _layer_law(
    net: Architecture, batch: DataSummary, kernels: Propagation, layer: int, draws: Draws, scores: int
) -> tuple[Array, Array, Array]:
    """nonzero, tail and max_cdf of one layer, relative to √(Var W · mean g²) of the draws themselves.

    That scale is the layer's but for sampling, so that the noise of the scale drops out.
    """
    spec = net.layers[layer]
    rows, _ = _sampled_rows(net, layer, batch.size)
    repeats = int(np.clip(-(-scores // (rows * spec.fan_in)), *REPEATS))
    counts, pairs = np.zeros(len(GRID) + 1), 0
    largest = []
    sample = layer_sampler(net, batch, kernels, layer, draws)
    for repeat in range(repeats):
        bins = _bins(sample(repeat))
        counts += np.bincount(bins.ravel(), minlength=len(GRID) + 1)
        pairs += bins.size
        largest.append(np.where(bins < len(GRID), bins, 0).max(axis=1))
    alive = counts[:-1].sum()
    above = np.cumsum(counts[-2::-1])[::-1] / max(alive, 1.0)
    # Grid points are the middles of the bins: half of a bin's own count lies above it.
    tail = above - 0.5 * counts[:-1] / max(alive, 1.0)
    return np.asarray(alive / pairs), tail, max_law(np.stack(largest), spec.fan_out)


def _sampled_rows(net: Architecture, layer: int, batch: int) -> tuple[int, bool]:
    """Rows of a layer that are sampled at once, and whether together with the next layer."""
    width = net.layers[layer].fan_out
    if layer == net.depth - 1:
        return width, False
    joint = width <= JOINT_WIDTH * batch
    return (width if joint else min(width, SPARSE_ROWS)), joint


def layer_sampler(
    net: Architecture, batch: DataSummary, kernels: Propagation, layer: int, draws: Draws
) -> Callable[[int], Array]:
    """A function of the repeat's number: scores |W g| over √(Var W · mean g²) of rows of a sampled layer.

    What it returns has shape (rows, fan_in).
    """
    spec, last = net.layers[layer], net.depth - 1
    rows, joint = _sampled_rows(net, layer, batch.size)
    inputs = _root(kernels.kernels[layer - 1]) if layer else None
    # The gradient drawn as Gaussian: into this layer's outputs, or with the next layer into that one's.
    top = layer + 1 if joint else layer
    gradient = _root(kernels.gradient_into(top, net)) if top < last else None

    def weights(name: str, repeat: int, spec: WeightLayer, rows: int) -> Array:
        make = draws.normal if spec.law == "normal" else draws.uniform
        return make(name, repeat, (rows, spec.fan_in))

    def signal(name: str, repeat: int, layer: int, w: Array, h: Array) -> Array:
        """W h + b in the layer's own unit, as h is in that of its inputs."""
        spec, unit = net.layers[layer], int(kernels.exponents[layer])
        y = (w @ h) * np.float32(np.ldexp(spec.weight_std, kernels.unit_of_inputs(layer) - unit))
        return y + np.float32(np.ldexp(spec.sigma_b, -unit)) * draws.normal(name, repeat, (len(w), 1))

    def send(repeat: int, layer: int, y: Array, gradient: Array | None) -> Array:
        """δ of a layer with pre-activations y (units, B), up to its scale."""
        if gradient is None:
            delta = kernels.top.of(y.T.astype(float)).T
            return (delta / max(float(np.abs(delta).max()), np.finfo(float).tiny)).astype(np.float32)
        e = draws.normal("gradient", repeat, (len(y), batch.size)) @ gradient
        return slope_table(kernels.acting[layer])(y) * e

    def sample(repeat: int) -> Array:
        if inputs is None:
            h = inputs_in_unit(batch.inputs, kernels.input_exponent).T.astype(np.float32)
        else:
            h = draws.normal("inputs", repeat, (spec.fan_in, batch.size)) @ inputs
            h = np.asarray(kernels.acting[layer - 1](h), dtype=np.float32)
        w = weights("weights", repeat, spec, rows)
        y = signal("biases", repeat, layer, w, h)
        if joint:
            act, following = kernels.acting[layer], net.layers[layer + 1]
            back = weights("next weights", repeat, following, following.fan_out)
            u = signal("next biases", repeat, layer + 1, back, np.asarray(act(y), dtype=np.float32))
            delta = slope_table(act)(y) * (back.T @ send(repeat, layer + 1, u, gradient))
        else:
            delta = send(repeat, layer, y, gradient)
        g = delta @ h.T
        square = float(np.einsum("ij,ij->", g, g, dtype=np.float64)) / g.size
        return np.abs(w * g) * np.float32(max(square, _LEAST_SQUARE) ** -0.5)

    return sample


def _root(covariance: Array) -> Array:
    """Transposed root of a covariance, single precision: normals (n, B) @ it have that covariance."""
    return covariance_root(covariance).T.astype(np.float32)


def _bins(scores: Array) -> Array:
    """Nearest points of GRID to the scores' logarithms; past its end for scores that are zero."""
    living = scores > 1e-11
    position = (np.log(np.where(living, scores, 1.0)) - GRID[0]) / STEP + 0.5
    return np.where(living, np.clip(position, 0, len(GRID) - 1), len(GRID)).astype(np.int64)


def max_law(largest: Array, rows: int) -> Array:
    """P(largest score of `rows` rows ≤ e^u) on GRID, from bins of row maxima (repeats, sampled rows).

    P(row maximum ≤ u)^(θ rows): the rows' maxima cluster, since rows share the columns, and θ is the share of
    clusters (the extremal index), set so that the median of the sampled layers' maxima is met.
    """
    sampled = largest.shape[1]
    counts = np.bincount(largest.ravel(), minlength=len(GRID))
    above = np.cumsum(counts[::-1])[::-1] - 0.5 * counts
    with np.errstate(divide="ignore"):
        log_below = np.log1p(-above / largest.size)
    median = np.median(largest.max(axis=1))
    at_median = -sampled * np.interp(median, np.arange(len(GRID)), np.maximum(log_below, -50.0))
    theta = min(1.0, np.log(2.0) / max(float(at_median), 1e-12))
    return np.exp(theta * rows * log_below)


def sample_rows(
    net: Architecture, batch: DataSummary, kernels: Propagation, layer: int, normals: Array, seed: int
) -> Array:
    """Draws of δ^l_i over the batch, up to the layer's scale; shape (draws, B)."""
    if layer == net.depth - 1:
        delta = kernels.top.draw(-(-len(normals[0]) // batch.classes), seed + 1)
        return delta.transpose(0, 2, 1).reshape(-1, batch.size)
    y = normals[0] @ covariance_root(kernels.kernels[layer]).T
    e = normals[1] @ covariance_root(kernels.gradient_into(layer, net)).T
    return kernels.acting[layer].derivative(1)(y) * e


def sample_columns(batch: DataSummary, kernels: Propagation, layer: int, normals: Array) -> Array:
    """Draws of h^{l-1}_j over the batch, shape (draws, B); the inputs themselves for the first layer."""
    if layer == 0:
        return inputs_in_unit(batch.inputs, kernels.input_exponent).T
    return kernels.acting[layer - 1](normals[2] @ covariance_root(kernels.kernels[layer - 1]).T)
