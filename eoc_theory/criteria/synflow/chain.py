"""Iterative SynFlow (Tanaka et al. 2020, algorithm 1): what each layer keeps, and when one collapses.

Why the homogeneous theory fails. With R = F = 1 everywhere, each round truncates half-normals further, and
only the layers' totals matter; that misses real networks by up to 0.04. Neurons differ by their signals F
(from the inputs) and R (to the outputs), by 1/√N at first. A weight is kept above τ = t/(R F), and a neuron's
signal through what is kept is ∝ exp(−τ²/2): a neuron with a signal higher by x keeps outgoing weights that
send on R higher by τ² x, which feeds back into F with the same gain. Beyond τ = 1 (density 0.32) the gain per
round exceeds 1: the rich get richer, and pruning goes on by emptying the weakest neurons, while the strongest
lose hardly anything.

What is computed instead. A population of neurons: M ≈ 16 of each level's N are sampled, each with all its N
weights, as N/M parallel weights to each of the M sampled neurons of the next level. Degrees, and so the
fluctuation of the signals, are the network's own; a layer costs N·M instead of N² operations; what differs is
of relative order 1/M, less than 0.003 of kept on average over a network's layers. A sampled layer's
fluctuation over runs is larger by √(N/M), divided out. Equal layers far from both ends behave alike:
a run of equal layers is represented by 10 of them. Between the limit of many rounds and 48 rounds the kept
fractions differ by less than 0.002, so a path of small steps serves all sparsities at once.

Collapse. All layers have the same total score, so a layer with m weights left holds one with score ≥ C/m, and
no layer collapses while K ≫ L weights are left: s_cr is close to its upper limit, 1 − (L−1)/n. How close
depends on the last rounds alone, on the few strongest neurons of each layer: they are simulated weight by
weight on a core of 10 neurons a level with the network's own pace (the fraction removed per round).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...base import checks
from ...base.progress import followed
from ...networks.architecture import Architecture
from ..distributions.magnitudes import MagnitudeLaw, magnitude_law
from .compiled import chain_loops

Array = np.ndarray

#: Sampled neurons of a level, and how many survivors an average sampled layer shall hold at the end.
NEURONS = 16
SURVIVORS = 30
#: Of a run of equal layers: kept apart at either end, and standing for all between.
EDGE = 3
MIDDLE = 4
#: Rounds after which more of them change nothing that matters.
ENOUGH_ROUNDS = 48
#: Independent runs, which give the spread; down to half as many where they hold more weights than this.
RUNS = 24
BUDGET = 2_000_000
#: The core in which the last rounds are simulated, and how many of them.
CORE = 10
CORE_RUNS = 48
#: No collapse was ever seen with more than this many weights a layer left, at a small pace.
CORE_LIMIT = 3.0
#: Networks of at most this many weights are simulated as they are.
SMALL = 4000


@dataclass(frozen=True)
class _Sample:
    """A network's sampled counterpart, the arguments of `synflow_chain`, and the map back to its L layers.

    Attributes:
        laws: of the layers' |W|.
        damping: standard deviation of a layer's kept fraction over that of its sampled counterpart.
        groups: (sampled layers, layers of the network that they stand for).
    """

    neurons: Array
    copies: Array
    copies_in: Array
    copies_out: Array
    laws: tuple[MagnitudeLaw, ...]
    count: Array
    share: Array
    damping: Array
    groups: tuple[tuple[Array, Array], ...]

    @property
    def sizes(self) -> Array:
        """Sampled weights of each layer."""
        return self.neurons[1:] * self.neurons[:-1] * self.copies

    @property
    def weights(self) -> int:
        return int(self.sizes.sum())


def all_or_none(net: Architecture, kept: Array) -> tuple[Array, Array, Array, Array]:
    """What `allocate` returns where all weights are kept or none is, at every sparsity."""
    whole = kept >= net.n_weights
    mean = np.repeat(whole.astype(float)[:, None], len(net), axis=1)
    return mean, np.zeros(mean.shape), 1.0 - mean, np.where(whole, 0.0, 1.0)


def allocate(
    net: Architecture, kept: Array, rounds: int, rng: np.random.Generator
) -> tuple[Array, Array, Array, Array]:
    """Mean, standard deviation and P(empty) per layer (n_s, L), P(collapse) (n_s,); `kept` are left."""
    n = net.n_weights
    kept = np.asarray(kept)
    mean, std, empty, collapse = all_or_none(net, kept)
    many = []
    for k in np.flatnonzero((kept > 0) & (kept < n)):
        pace = float(np.log(n / kept[k]) / rounds)
        if n > SMALL and kept[k] > CORE_LIMIT * len(net) * np.exp(2.0 * pace):
            many.append(k)
            continue
        counts = np.stack([_core(net, int(kept[k]), pace, child) for child in rng.spawn(CORE_RUNS)])
        mean[k], std[k] = counts.mean(axis=0) / net.weights, counts.std(axis=0, ddof=1) / net.weights
        empty[k], collapse[k] = (counts == 0).mean(axis=0), (counts == 0).any(axis=1).mean()
    if many:
        mean[many], std[many] = _sampled(net, kept[many], rounds, rng)
        empty[many], collapse[many] = 0.0, 0.0
    return mean, std, empty, collapse


def _sampled(net: Architecture, kept: Array, rounds: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Mean and standard deviation of the kept fraction, (n_s, L), from the sampled chain; 0 < kept < n."""
    mean, std = np.empty((2, len(kept), len(net)))
    order = np.argsort(-kept, kind="stable")
    targets = np.log(kept[order] / net.n_weights)
    # Few rounds: the schedule itself, for each sparsity. Many: one path through all of them.
    plans = (
        [(order[k : k + 1], *schedule(targets[k : k + 1], rounds)) for k in range(len(order))]
        if rounds <= ENOUGH_ROUNDS
        else [(order, *schedule(targets, ENOUGH_ROUNDS))]
    )
    sample = _sample(net, int(kept.min()))
    number = int(np.clip(BUDGET // sample.weights, RUNS // 2, RUNS))
    for which, path, reported in plans:
        runs = np.stack([_run(sample, child, path, reported) for child in rng.spawn(number)])
        for sampled, layers in sample.groups:
            part = runs[:, :, sampled]  # (runs, reports, sampled layers that stand for `layers`)
            spread = part.std(axis=0, ddof=1) * sample.damping[sampled]
            mean[np.ix_(which, layers)] = part.mean(axis=(0, 2))[:, None]
            std[np.ix_(which, layers)] = np.sqrt((spread**2).mean(axis=-1))[:, None]
    # The chain's levels are whole numbers of neurons, its threshold is interpolated: corrects by 1e-4.
    return mean * (kept / (mean @ net.weights))[:, None], std


def _run(sample: _Sample, rng: np.random.Generator, path: Array, reported: Array) -> Array:
    value = _magnitudes(rng, sample.sizes, sample.laws, np.float32)
    return chain_loops().synflow_chain(
        value,
        sample.neurons,
        sample.copies,
        sample.copies_in,
        sample.copies_out,
        sample.count,
        sample.share,
        path,
        reported,
    )


def _magnitudes(rng: np.random.Generator, sizes: Array, laws: Sequence[MagnitudeLaw], dtype: type) -> Array:
    """|W| of all layers in one array, each layer in a scale of its own: SynFlow does not see it."""
    checks.memory(f"synflow on {int(np.sum(sizes))} sampled weights", 40.0 * float(np.sum(sizes)), "fewer")
    return np.concatenate([law.draw(rng, int(size), dtype) for law, size in zip(laws, sizes, strict=True)])


def _laws(net: Architecture) -> tuple[MagnitudeLaw, ...]:
    return tuple(magnitude_law(layer) for layer in net.layers)


def schedule(targets: Array, rounds: int) -> tuple[Array, Array]:
    """Log densities after each round of a path through falling `targets`, and the rounds that reach them.

    A target is approached in steps as small as those of `rounds` rounds of its own.
    """
    path: list[float] = []
    reported = []
    before = 0.0
    for target in targets:
        steps = max(int(np.ceil((before - target) / (-target / rounds) - 1e-9)), 0)
        path.extend(before + (target - before) * np.arange(1, steps + 1) / max(steps, 1))
        reported.append(len(path))
        before = target
    return np.array(path), np.array(reported, dtype=np.int64)


def _sample(net: Architecture, kept: int) -> _Sample:
    sizes = [net.in_features] + [layer.fan_out for layer in net.layers]
    laws = _laws(net)
    # A level's copies: neurons that one sampled neuron stands for; inputs and outputs are all there.
    wanted = SURVIVORS * len(net) / kept
    copies = [1, *(max(1, round(size / max(NEURONS, wanted * size))) for size in sizes[1:-1]), 1]
    neurons = [-(-size // copy) for size, copy in zip(sizes, copies, strict=True)]

    chosen, multiplicity, groups = _represent(net)
    level = [chosen[0], *[k + 1 for k in chosen]]
    inward = np.array([copies[k] for k in chosen])
    outward = np.array([copies[k + 1] for k in chosen])
    # What flows back to the inputs, and on from the outputs, is not used: one number of copies will do.
    outward[0] = inward[0]
    inward[-1] = outward[-1]
    between = np.maximum(inward, outward)
    sampled_neurons = np.array([neurons[k] for k in level])
    sampled = sampled_neurons[1:] * sampled_neurons[:-1] * between
    weights = net.weights[chosen]
    share = weights / sampled
    return _Sample(
        neurons=sampled_neurons,
        copies=between,
        copies_in=inward,
        copies_out=outward,
        laws=tuple(laws[k] for k in chosen),
        count=share * multiplicity,
        share=share,
        damping=np.sqrt(sampled / weights) * threshold_correction(net.weights, weights, multiplicity),
        groups=groups,
    )


def _represent(net: Architecture) -> tuple[list[int], Array, tuple[tuple[Array, Array], ...]]:
    """Layers that are simulated, what each counts for, and (simulated positions, layers they stand for)."""
    signature = [(layer.fan_in, layer.fan_out, layer.law) for layer in net.layers]
    chosen: list[int] = []
    multiplicity: list[float] = []
    groups: list[tuple[Array, Array]] = []
    first = 0
    while first < len(net):
        last = first
        while last + 1 < len(net) and signature[last + 1] == signature[first]:
            last += 1
        inner = range(first + EDGE, last + 1 - EDGE)
        for at in range(first, last + 1):
            if at not in inner:
                groups.append((np.array([len(chosen)]), np.array([at])))
                chosen.append(at)
                multiplicity.append(1.0)
            elif at == inner[0]:
                simulated = inner[:MIDDLE]
                groups.append((np.arange(len(chosen), len(chosen) + len(simulated)), np.array(inner)))
                chosen.extend(simulated)
                multiplicity.extend([len(inner) / len(simulated)] * len(simulated))
        first = last + 1
    return chosen, np.array(multiplicity), tuple(groups)


def threshold_correction(weights: Array, sampled_weights: Array, multiplicity: Array) -> Array:
    """Spread of a layer in the network over the sampled one's, whose few layers move the threshold more.

    The threshold follows the layers' fluctuations so that the number kept is fixed: of a layer's own variance
    the part 1 − 2 w + Σ w² is left, w the layers' shares in the whole.
    """
    whole = weights / weights.sum()
    part = sampled_weights * multiplicity / weights.sum()
    own = sampled_weights / weights.sum()
    left = 1.0 - 2.0 * own + (whole**2).sum()
    sampled = 1.0 - 2.0 * part + (part**2).sum()
    # A network of one layer has no spread at all.
    return np.sqrt(np.maximum(left, 0.0) / np.where(sampled > 1e-12, sampled, 1.0))


def critical_samples(
    net: Architecture, rounds: int, runs: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Samples of s_cr (runs,) and the layers collapsed there, bool (runs, L), by bisection on the number."""
    n = net.n_weights
    left = np.empty(runs)
    gone = np.empty((runs, len(net)), dtype=bool)
    for r, child in enumerate(followed(rng.spawn(runs), "simulated network", runs)):
        seed = int(child.integers(2**62))

        def layers_at(kept: int, seed: int = seed) -> Array:
            # The same core for every `kept`, as one network has one critical sparsity.
            return _core(net, kept, np.log(n / kept) / rounds, np.random.default_rng(seed))

        # With fewer weights than layers some layer must be empty; which one is seen at the largest such
        # number.
        collapsed, safe = len(net) - 1, min(int(CORE_LIMIT * len(net)), n)
        while safe < n and layers_at(safe).min() == 0:
            collapsed, safe = safe, min(2 * safe, n)
        while safe - collapsed > 1:
            middle = min(max(round(np.sqrt(safe * collapsed)), collapsed + 1), safe - 1)
            if layers_at(middle).min() == 0:
                collapsed = middle
            else:
                safe = middle
        left[r] = collapsed
        gone[r] = layers_at(collapsed) == 0 if collapsed > 0 else np.ones(len(net), dtype=bool)
    return 1.0 - left / n, gone


def _core(net: Architecture, kept: int, pace: float, rng: np.random.Generator) -> Array:
    """Weights left per layer, (L,), after the last rounds at `pace`, −log of what one leaves."""
    sizes = np.array([net.in_features] + [layer.fan_out for layer in net.layers])
    needed = net.n_weights if net.n_weights <= SMALL else min(kept * np.exp(2.0 * pace), net.n_weights)
    width = CORE
    while (np.minimum(sizes[1:], width) * np.minimum(sizes[:-1], width)).sum() < needed:
        width *= 2
    neurons = np.minimum(sizes, width)
    sizes_of_layers = neurons[1:] * neurons[:-1]
    size = int(sizes_of_layers.sum())
    rounds = max(int(np.ceil(np.log(size / kept) / pace - 1e-9)), 1) if kept < size else 1
    remaining = np.minimum(
        np.rint(kept * np.exp(pace * np.arange(rounds - 1, -1, -1))).astype(np.int64), size
    )
    return chain_loops().synflow_exact(
        _magnitudes(rng, sizes_of_layers, _laws(net), np.float64), neurons, remaining
    )
