"""Iterative SynFlow on a graph of layers: networks of absolute weights, sampled and pruned round by round.

What is sampled. The weights are drawn; signals are not, because in SynFlow's network
(`eoc_theory.criteria.synflow.mean_flow`) all else is fixed. A signal is carried as one number a channel times
one profile over positions: each sum of signals over channels and taps is replaced by the product that has the
same means over channels and over positions. The scores keep their factor a tap, which is what zero padding
changes. So a round costs a few operations a surviving weight, and not one for every weight and position.
Networks of at most WHOLE weights are sampled whole, of others CHANNELS a level
(`eoc_theory.criteria.synflow.sampled_flow`).

Against really pruned networks the kept fractions miss by 0.005 on average (ResNet-20, CNN 128×10, VGG-11).

One path of small steps serves all sparsities: more than ENOUGH_ROUNDS change less.

Collapse. In a chain every layer has the same total score, and none collapses before hardly a weight a layer
is left, whatever the schedule. Beside other paths a layer carries but a share of the total, and can lose that
race early: a 1×1 shortcut convolution a share that is smaller by the branch's gain, or a branch beside its
shortcut. Which one does depends on the first rounds. A schedule under which a convolution collapses at one
final density often spares it at a smaller one, so that one path for all densities finds fewer collapses:
there each density that is looked at has its own schedule, and the search is that of the measured networks.
Elsewhere rounds go on along one path until the first layer is empty; what is left when too few sampled
weights are is followed on a core of few channels a level.
"""

from __future__ import annotations

import numpy as np

from ...base.progress import followed
from ...errors import TooLargeError
from ...networks.architecture import Architecture
from ...signals.means import Means, look, spread
from ..critical_search import searched_critical_sparsity
from .chain import all_or_none, schedule
from .compiled import graph_loops
from .mean_flow import mean_magnitude
from .sampled_flow import Plan, SampledWeights, plan_of

Array = np.ndarray

#: Networks of at most this many weights are simulated with all their channels.
WHOLE = 500_000
#: Of others so many channels of a level; their survivors stand for the network's down to SURVIVORS a layer.
CHANNELS = 16
SURVIVORS = 30
#: Sampled weights that a network may have: a round of them takes about a second.
MOST_SAMPLED = 100_000_000
#: Rounds after which more of them change nothing that matters.
ENOUGH_ROUNDS = 32
#: Independent runs: as many as hold BUDGET sampled weights in all, between these.
RUNS = (4, 8)
BUDGET = 1_500_000
#: Runs that the law of the critical sparsity is drawn from.
COLLAPSE_RUNS = (6, 20)
#: First and later steps of their path, in log density.
COLLAPSE_STEPS = (0.01, 0.06)
_GROWTH = 0.2
#: Relative error allowed in the number of weights left at a critical sparsity that is searched for.
RESOLUTION = 0.05
#: Up to this many survivors the threshold is exact.
FEW = 20_000
#: Relative difference of scores that rounding makes, and the smallest score there is.
_TIE = 1e-4
_TINY = np.finfo(np.float32).tiny
#: Channels a level of the core in which the last rounds of a sampled network are followed.
CORE = 10


class _Entries:
    """The surviving sampled weights of one layer in one run; the first `size` of each array."""

    def __init__(self, plan: SampledWeights, rng: np.random.Generator) -> None:
        kernel = graph_loops()
        self.row, self.column, self.tap, self.use = kernel.lay_out(
            plan.rows, plan.groups, len(plan.windows), plan.copies_in, plan.copies_out
        )
        self.value = plan.law.draw(rng, len(self.row), np.float32)
        self.score = np.empty(len(self.row), np.float32)
        self.size = len(self.row)

    def forward(self, signal: Array, tap_mean: Array, channels: int) -> tuple[Array, Array]:
        kernel = graph_loops()
        return kernel.gather(
            self.value, self.row, self.column, self.tap, self.use, self.size,
            kernel.FORWARD, signal, tap_mean, channels,
        )  # fmt: skip

    def backward(self, signal: Array, tap_mean: Array, channels: int) -> tuple[Array, Array]:
        kernel = graph_loops()
        return kernel.gather(
            self.value, self.column, self.row, self.tap, self.use, self.size,
            kernel.BACKWARD, signal, tap_mean, channels,
        )  # fmt: skip

    @property
    def scores(self) -> Array:
        return self.score[: self.size]


class Run:
    """One sampled network on its way through the rounds."""

    def __init__(self, plan: Plan, rng: np.random.Generator) -> None:
        self.plan = plan
        self.rng = rng
        self.entries = {node: _Entries(weights, rng) for node, weights in plan.weights.items()}

    def sizes(self) -> Array:
        """Surviving sampled weights a layer, (L,)."""
        return np.array([self.entries[node].size for node in self.plan.weights])

    def left(self) -> float:
        """Weights of the network that the survivors stand for."""
        return sum(w.count * self.entries[node].size for node, w in self.plan.weights.items())

    def round(self, target: float) -> float | None:
        """Score, and keep the best `target` weights.

        Returns:
            the number left at the threshold at which the first layer lost its last weight, if one did.
        """
        kernel = graph_loops()
        histogram = self._score()
        few = self.sizes().sum() <= FEW
        lost = self._weakest() if few else None
        excess = self.left() - target
        threshold, unreached = self._lowest(excess) if few else self._threshold(histogram, excess)
        if not few and self._empties(threshold, unreached):
            lost = self._weakest()
        at = 0.5
        for e in self.entries.values():
            e.size, at = kernel.drop_entries(
                e.value, e.row, e.column, e.tap, e.use, e.size, e.score, threshold, unreached, at
            )
        return lost if self.sizes().min() == 0 else None

    def _empties(self, threshold: int, unreached: float) -> bool:
        """Whether some layer has no score above the threshold."""
        top = min(e.scores.max(initial=np.float32(0.0)) for e in self.entries.values())
        return unreached == 1.0 if top == 0 else int(top.view(np.int32)) < threshold

    def _weakest(self) -> float:
        """What is left at the smallest of the layers' largest scores, which empties that layer.

        Weights of other layers that tie with it are left: at the end, with one a layer, all tie.
        """
        tops = [float(e.scores.max(initial=0.0)) for e in self.entries.values()]
        weakest = int(np.argmin(tops))
        limit = tops[weakest] * (1.0 - _TIE)
        left = np.array([float((e.scores >= limit).sum()) for e in self.entries.values()])
        left[weakest] = 0.0
        return float(self.plan.counts @ left)

    def _threshold(self, histogram: Array, excess: float) -> tuple[int, float]:
        """Bits of the threshold, and the fraction removed of the entries that score 0, to remove `excess`."""
        kernel = graph_loops()
        histogram, unreached = histogram[:-1], float(histogram[-1])
        if excess < unreached or excess <= 0:
            return 0, max(excess, 0.0) / max(unreached, 1.0)
        excess -= unreached
        gone = np.cumsum(histogram)
        b = min(int(np.searchsorted(gone, excess)), kernel.BINS - 1)
        part = (excess - (gone[b] - histogram[b])) / histogram[b] if histogram[b] > 0 else 0.0
        return int((b + min(max(part, 0.0), 1.0)) * (1 << kernel.SHIFT)), 1.0

    def _lowest(self, excess: float) -> tuple[int, float]:
        """The same for few entries, one by one: those that go get the score 0; ties go by chance."""
        scores = np.concatenate([e.scores for e in self.entries.values()])
        counts = np.repeat(self.plan.counts, self.sizes())
        order = np.lexsort((self.rng.random(len(scores)), scores))
        goes = np.empty(len(scores), dtype=bool)
        goes[order] = np.cumsum(counts[order]) <= excess + 0.5 * counts.min(initial=1.0)
        for e, part in zip(self.entries.values(), np.split(goes, np.cumsum(self.sizes())[:-1]), strict=True):
            # Other scores of 0 stay, at the smallest positive float.
            e.scores[:] = np.where(part, np.float32(0.0), np.maximum(e.scores, _TINY))
        return 1, 1.0

    def _score(self) -> Array:
        """Fill in all scores, up to one common factor; their histogram, in weights of the network, 0 last."""
        kernel = graph_loops()
        parts = self._backward(*self._forward())
        histogram = np.zeros(kernel.BINS + 1)
        logs = [
            log + np.log(taps.max() * a.max() * b.max())
            for a, b, taps, log in parts.values()
            if log > -np.inf and taps.max() > 0
        ]
        top = max(logs, default=0.0)
        for position, w in self.plan.weights.items():
            entries = self.entries[position]
            if position in parts and parts[position][3] > -np.inf:
                row, column, taps, log = parts[position]
                taps = taps * np.exp(log - top)
            else:
                row, column, taps = np.zeros(w.rows), np.zeros(w.columns), np.zeros(len(w.windows))
            kernel.score_entries(
                entries.value, entries.row, entries.column, entries.tap, entries.size,
                row, column, taps, w.count, entries.score, histogram,
            )  # fmt: skip
        return histogram

    def _forward(self) -> tuple[dict[int, Means], dict[int, object], dict[int, Array]]:
        """The means of every node's value, what layers without weights remember, what weights' taps see."""
        plan, graph = self.plan, self.plan.graph
        forward: dict[int, Means] = {}
        memories: dict[int, object] = {}
        seen: dict[int, Array] = {}
        for position in plan.steps:
            node = graph.nodes[position]
            if not node.inputs:
                forward[position] = Means.ones(plan.channels[0], graph.input_shape.space)
                continue
            inputs = [forward[plan.source[k]] for k in node.inputs]
            if position not in plan.weights:
                forward[position], memories[position] = node.layer.forward_means(inputs, mean_magnitude)
                continue
            w, x = plan.weights[position], inputs[0]
            views = look(x.profile, w.windows)
            amplitude, by_tap = self.entries[position].forward(x.amplitude, views.mean(axis=1), w.rows)
            profile = (by_tap @ views).reshape(w.out_space)
            forward[position] = _signal(amplitude, profile, x.log_scale + w.log_std)
            seen[position] = views
        return forward, memories, seen

    def _backward(
        self, forward: dict[int, Means], memories: dict[int, object], seen: dict[int, Array]
    ) -> dict[int, tuple[Array, Array, Array, float]]:
        """What the scores of each weight layer on a path are made of, by row, column and tap; a scale."""
        plan, graph = self.plan, self.plan.graph
        arriving: dict[int, list[Means]] = {position: [] for position in plan.steps}
        arriving[plan.source[-1]].append(Means.ones(plan.channels[1], ()))
        parts: dict[int, tuple[Array, Array, Array, float]] = {}
        for position in reversed(plan.steps):
            node = graph.nodes[position]
            if not arriving[position] or not node.inputs:
                continue
            signal = Means.total(arriving[position])
            if position not in plan.weights:
                sent = node.layer.backward_means(memories[position], signal, mean_magnitude)
                for source, part in zip(node.inputs, sent, strict=True):
                    arriving[plan.source[source]].append(part)
                continue
            w, source = plan.weights[position], plan.source[node.inputs[0]]
            x, flat = forward[source], signal.profile.reshape(-1)
            log = x.log_scale + signal.log_scale + w.log_std
            parts[position] = signal.amplitude, x.amplitude, seen[position] @ flat, log
            if graph.nodes[source].inputs:
                # Mean over the positions of the input of what each tap sends there.
                reach = w.inside @ flat / max(int(np.prod(w.space)), 1)
                amplitude, by_tap = self.entries[position].backward(signal.amplitude, reach, w.columns)
                profile = spread(by_tap[:, None] * (w.inside * flat), w.windows, w.space)
                arriving[source].append(_signal(amplitude, profile, signal.log_scale + w.log_std))
        return parts


def _signal(amplitude: Array, profile: Array, log_scale: float) -> Means:
    """The amplitudes are means over positions; the profile has any scale."""
    size = profile.mean()
    return Means.of(amplitude, profile / size if size > 0 else profile, log_scale)


def allocate(
    net: Architecture, kept: Array, rounds: int, rng: np.random.Generator
) -> tuple[Array, Array, Array, Array]:
    """Mean, standard deviation and P(empty) per layer (n_s, L), P(collapse) (n_s,); `kept` are left."""
    n = net.n_weights
    kept = np.asarray(kept)
    mean, std, empty, collapse = all_or_none(net, kept)
    plan = _plan(net)
    some = (kept > 0) & (kept < n)
    many = some & (kept >= _fewest(plan))
    for which in _paths(np.flatnonzero(many)[np.argsort(-kept[many], kind="stable")], rounds):
        path, reported = schedule(np.log(kept[which] / n), min(rounds, ENOUGH_ROUNDS))
        children = rng.spawn(_number(plan, RUNS))
        runs = followed(children, "simulated network", len(children))
        fractions = np.stack([_follow(plan, child, path, reported) for child in runs])
        damping = np.sqrt([w.sampled / m for w, m in zip(plan.weights.values(), net.weights, strict=True)])
        mean[which], std[which] = fractions.mean(axis=0), fractions.std(axis=0, ddof=1) * damping
        empty[which] = (fractions == 0).mean(axis=0)
        collapse[which] = (fractions == 0).any(axis=2).mean(axis=0)
    for k in np.flatnonzero(some & ~many):
        pace = float(np.log(n / kept[k])) / rounds
        core = _core(net, float(kept[k]) * np.exp(2.0 * pace))
        path = _to(core, float(kept[k]), pace)
        counts = np.stack(
            [_follow(core, child, path, np.array([len(path)]))[0] for child in rng.spawn(_number(core, RUNS))]
        ) * [w.sampled for w in core.weights.values()]
        mean[k], std[k] = counts.mean(axis=0) / net.weights, counts.std(axis=0, ddof=1) / net.weights
        empty[k], collapse[k] = (counts == 0).mean(axis=0), (counts == 0).any(axis=1).mean()
    for k in np.flatnonzero(some):
        mean[k] = _summing_to(mean[k], net.weights, float(kept[k]))
    return mean, std, empty, collapse


def critical_samples(
    net: Architecture, rounds: int, runs: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Draws of s_cr and the layers that went first, bool (runs, L), for up to `runs` networks.

    Where signals part and meet again each network is searched as real ones are, with a schedule for each
    final density. Elsewhere, and where channels stand for others, each is followed along one path, as if the
    schedules of all sparsities led along it.
    """
    plan = _plan(net)
    number = min(runs, int(np.clip(2 * BUDGET // plan.sampled, *COLLAPSE_RUNS)))
    parted = _is_whole(plan) and any(len(node.inputs) > 1 for node in plan.graph.nodes)
    one = _searched if parted else _followed
    found = [
        one(net, plan, rounds, child) for child in followed(rng.spawn(number), "simulated network", number)
    ]
    return np.array([critical for critical, _ in found]), np.stack([gone for _, gone in found])


def _searched(net: Architecture, plan: Plan, rounds: int, rng: np.random.Generator) -> tuple[float, Array]:
    """s_cr of one network, by a search over final densities with their own schedules, and who went first."""
    seed = int(rng.integers(2**62))
    n = net.n_weights

    def left_at(kept: int) -> list[int]:
        # The same network each time.
        run = Run(plan, np.random.default_rng(seed))
        for k in range(1, rounds + 1):
            run.round(float(kept if k == rounds else round(n * (kept / n) ** (k / rounds))))
            if run.sizes().min() == 0:
                break
        return [int(size) for size in run.sizes()]

    critical, weakest = searched_critical_sparsity([int(k) for k in net.weights], left_at, RESOLUTION)
    return critical, np.arange(len(net)) == weakest


def _followed(net: Architecture, plan: Plan, rounds: int, rng: np.random.Generator) -> tuple[float, Array]:
    """s_cr of one network along one path of small steps, and the layers that went first."""
    n = net.n_weights
    run = Run(plan, rng)
    at, lost = _descend(run, max(_fewest(plan), 1.0), COLLAPSE_STEPS, rounds)
    if lost is None:
        # The last weights, on a core with the pace of the whole schedule.
        pace = float(np.log(n / max(at, 1.0))) / rounds
        run = Run(_core(net, at * np.exp(2.0 * pace)), rng)
        at, lost = _descend(run, 1.0, (pace, pace), rounds)
    gone = run.sizes() == 0
    return 1.0 - (0.0 if lost is None else lost) / n, gone if gone.any() else np.ones(len(net), dtype=bool)


def _descend(run: Run, end: float, steps: tuple[float, float], rounds: int) -> tuple[float, float | None]:
    """Rounds down to `end` weights or to the first empty layer: weights left, and where the layer went.

    Steps in log density grow from the first to the second of `steps`, beyond `rounds` rounds as those of
    schedules that end there: a large first step would lose what is small beside something else.
    """
    whole = left = run.left()
    lost = None
    while lost is None and left > end:
        so_far = float(np.log(whole / left))
        step = max(min(max(_GROWTH * so_far, steps[0]), steps[1]), so_far / rounds)
        # A whole number of weights less.
        left = max(min(round(left * np.exp(-step)), np.ceil(left) - 1.0), 0.0)
        lost = run.round(left)
    return left, lost


def _plan(net: Architecture) -> Plan:
    """The sampled network. Raises TooLargeError where even that is more than can be followed."""
    plan = plan_of(net, None if net.n_weights <= WHOLE else CHANNELS)
    if plan.sampled > MOST_SAMPLED:
        widest = max(layer.fan_out for layer in net.layers)
        raise TooLargeError(
            f"width {widest}: synflow would follow {plan.sampled} sampled weights from round to round, more "
            f"than the {MOST_SAMPLED} that one network may have: a narrower network, or synflow-oneshot"
        )
    return plan


def _fewest(plan: Plan) -> float:
    """Weights left that the sampled network can stand for; any number if it is the whole one."""
    return 0.0 if _is_whole(plan) else SURVIVORS * len(plan.weights) * float(plan.counts.mean())


def _is_whole(plan: Plan) -> bool:
    """Whether no sampled weight stands for others."""
    return bool((plan.counts == 1.0).all())


def _number(plan: Plan, limits: tuple[int, int]) -> int:
    return int(np.clip(BUDGET // plan.sampled, *limits))


def _paths(order: Array, rounds: int) -> list[Array]:
    """Sparsities that share a path: all of them where rounds are many, else each has its schedule."""
    return (
        ([order] if len(order) else [])
        if rounds > ENOUGH_ROUNDS
        else [order[k : k + 1] for k in range(len(order))]
    )


def _core(net: Architecture, needed: float) -> Plan:
    """The smallest core of at least `needed` weights."""
    channels, widest = CORE, max(layer.fan_out for layer in net.layers)
    while True:
        core = plan_of(net, channels, core=True)
        if core.sampled >= needed or channels >= widest:
            return core
        channels *= 2


def _to(plan: Plan, kept: float, pace: float) -> Array:
    """Log densities of a path to `kept` weights in steps of at most `pace`."""
    whole = float(np.log(max(plan.sampled / kept, 1.0)))
    steps = max(int(np.ceil(whole / pace - 1e-9)), 1)
    return -whole * np.arange(1, steps + 1) / steps


def _follow(plan: Plan, rng: np.random.Generator, path: Array, reported: Array) -> Array:
    """Fractions kept after the reported rounds (1-based) of one run, (reports, L)."""
    run = Run(plan, rng)
    first, total = run.sizes(), run.left()
    found = []
    for k, log_density in enumerate(path, 1):
        run.round(round(total * np.exp(log_density)))
        found.extend([run.sizes() / first] * int(np.count_nonzero(reported == k)))
    return np.array(found)


def _summing_to(kept: Array, weights: Array, total: float) -> Array:
    """Fractions in proportion to `kept`, none above 1, with `total` weights in all.

    The sampled ones' threshold is interpolated and their weights stand for many: corrects by 1e-4.
    """
    result = kept
    for _ in range(len(kept) + 1):
        full = result >= 1.0
        free = float(result[~full] @ weights[~full])
        if free == 0:
            break
        result = np.where(full, 1.0, result * max(total - float(weights[full].sum()), 0.0) / free)
        if (result <= 1.0).all():
            break
    return np.minimum(result, 1.0)
