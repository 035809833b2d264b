"""What the law of the weights changes: the edge of chaos by its variance alone, pruning by all of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import eoc_theory as eoc
from eoc_theory.gaussian import expectation
from eoc_theory.pytorch.lazy import require_torch

from .claim import OWN, Claim, Evidence, Finding, Verdict
from .picture import Picture, Series

Array = np.ndarray
Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]

ACTIVATION, SIGMA_B = "tanh", 0.2
DEPTH, FROM = 12, 7
START = 0.5
SPARSE = 0.1


@dataclass(frozen=True)
class Law:
    """A law of variance 1 and mean 0; `kurtosis` is the excess E W⁴ − 3."""

    name: str
    kurtosis: float
    draw: Draw


LAWS = (
    Law("signs ±1", -2.0, lambda rng, n: 2.0 * rng.integers(0, 2, n).astype(float) - 1.0),
    Law("uniform", -1.2, lambda rng, n: np.sqrt(12.0) * (rng.random(n) - 0.5)),
    Law("normal", 0.0, lambda rng, n: rng.standard_normal(n)),
    Law("Laplace", 3.0, lambda rng, n: rng.laplace(size=n) / np.sqrt(2.0)),
    Law("Student t, 5 degrees", 6.0, lambda rng, n: rng.standard_t(5, n) * np.sqrt(0.6)),
    Law(
        "nine in ten 0, else normal",
        3.0 / SPARSE - 3.0,
        lambda rng, n: np.where(rng.random(n) < SPARSE, rng.standard_normal(n) / np.sqrt(SPARSE), 0.0),
    ),
)
NORMAL = LAWS[2]
#: Scaled as if its variance were 1; it has none.
HEAVY = Law("Student t, 1.5 degrees", np.inf, lambda rng, n: rng.standard_t(1.5, n))


def measured(law: Law, width: int, networks: int) -> Array:
    """q and χ of the layers from FROM on, and 1 − c of the last, of each sampled network; (networks, 3)."""
    point = eoc.edge_of_chaos(ACTIVATION, sigma_b=SIGMA_B)
    act, rng = eoc.activation(ACTIVATION), np.random.default_rng([width, 7])
    found = []
    # Blocks that stay in a processor's cache.
    for size in np.diff(np.r_[np.arange(0, networks, max(1, 300_000 // width**2)), networks]):
        z = rng.standard_normal((size, width, 2))
        y = np.sqrt(point.q) * np.stack(
            [z[..., 0], START * z[..., 0] + np.sqrt(1.0 - START**2) * z[..., 1]], axis=-1
        )
        layers = []
        for layer in range(DEPTH):
            weights = law.draw(rng, (size, width, width)) * (point.sigma_w / np.sqrt(width))
            y = weights @ act(y) + SIGMA_B * rng.standard_normal((size, width, 1))
            if layer >= FROM:
                chi = point.sigma_w**2 * np.mean(act.derivative(1)(y) ** 2, axis=(1, 2))
                layers.append([np.mean(y**2, axis=(1, 2)), chi])
        gap = 1.0 - (y[..., 0] * y[..., 1]).sum(axis=1) / np.sqrt(np.prod((y**2).sum(axis=1), axis=-1))
        found.append(np.column_stack([np.mean(layers, axis=0).T, gap]))
    return np.concatenate(found)


def first_order() -> tuple[float, float]:
    """d q*/dx and d χ/dx at x = 0, x = kurtosis/width: what the weights' fourth cumulant adds.

    Given h, y is a sum with fourth cumulant x σ_w⁴ E[h⁴], and E f(y) = E f(√q Z) + (that/24) E f''''(√q Z)
    to first order (Edgeworth), with E f'''' = E[f He₄(Z)]/q². The fixed point moves by the change of V over
    1 − V'.
    """
    point = eoc.edge_of_chaos(ACTIVATION, sigma_b=SIGMA_B)
    act, q, weight = point.activation, point.q, point.sigma_w**2
    root = np.sqrt(q)
    slope = act.derivative(1)

    def hermite(y: Array) -> Array:
        z2 = (y / root) ** 2
        return z2 * z2 - 6.0 * z2 + 3.0

    fourth = weight**2 * float(expectation(lambda y: act(y) ** 4, q).value) / (24.0 * q * q)
    in_v = weight * fourth * float(expectation(lambda y: act(y) ** 2 * hermite(y), q).value)
    in_chi = weight * fourth * float(expectation(lambda y: slope(y) ** 2 * hermite(y), q).value)
    d_q = in_v / (1.0 - point.variance_slope)
    around = eoc.MeanField(ACTIVATION, point.sigma_w, SIGMA_B).chi(q * np.array([1 - 1e-4, 1 + 1e-4]))
    return d_q, in_chi + float(np.diff(around)[0]) / (2e-4 * q) * d_q


def critical_sparsity(law: Law, criterion: str, seeds: int) -> Array:
    """log₁₀(1 − s_cr) of networks on the edge of chaos, 20 layers of width 60, pruned on 50 digits."""
    torch = require_torch()
    net, data = eoc.mlp(20, 60, activation=ACTIVATION), eoc.digits(50)
    found = []
    for seed in range(seeds):
        model, rng = net.to_torch(seed), np.random.default_rng([seed, 3])
        linear = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
        with torch.no_grad():
            for module, layer in zip(linear, net.layers, strict=True):
                drawn = law.draw(rng, tuple(module.weight.shape)) * layer.weight_std
                module.weight.copy_(torch.as_tensor(drawn))
        value = eoc.measure_pruning(model, 0.9, criterion=criterion, data=data, seed=seed).critical_sparsity
        found.append(np.log10(1.0 - float(value)))
    return np.array(found)


def _mean(values: Array) -> tuple[Array, Array]:
    return values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(len(values))


def _collapse(seeds: int, evidence: list[Evidence]) -> tuple[dict[tuple[str, str], float], list[str]]:
    """log10(1 − s_cr) by criterion and law, and in words; adds evidence."""
    told = []
    net = eoc.mlp(20, 60, activation=ACTIVATION)
    changed = {}
    for criterion in ("magnitude", "snip"):
        for law in (LAWS[1], NORMAL, LAWS[3], LAWS[4]):
            mean, error = _mean(critical_sparsity(law, criterion, seeds))
            claimed = None
            if law is NORMAL:
                collapse = eoc.predict_collapse(net, criterion=criterion, data=eoc.digits(50))
                claimed = float(np.log10(1.0 - collapse.samples).mean())
            what = f"{law.name}: log10(1 − s_cr), {criterion}"
            evidence.append(Evidence(what, claimed, float(mean), float(error)))
            changed[criterion, law.name] = float(mean)
        told.append(
            f"{criterion} {changed[criterion, 'uniform']:.2f}, {changed[criterion, 'normal']:.2f}, "
            f"{changed[criterion, 'Laplace']:.2f}, {changed[criterion, LAWS[4].name]:.2f}"
        )
    return changed, told


def _picture(slope: float, points: dict[int, list[tuple[float, float, float]]]) -> Picture:
    ends = np.array([LAWS[0].kurtosis, LAWS[-1].kurtosis]) / min(points)
    return Picture(
        "What weights that are not normal change in q on the edge of chaos: their kurtosis over the width.",
        "excess kurtosis / width",
        "q − q of normal weights",
        (
            Series("first order", ends, slope * ends),
            *(
                Series(f"width {n}", *np.array(points[n]).T, points=True, colour=colour)
                for colour, n in enumerate(points, start=1)
            ),
        ),
    )


def check(quick: bool) -> Finding:
    """Runs the check; see the claim's method."""
    widths = (30, 100, 300)
    networks = (2_000, 250, 30) if quick else (20_000, 4_000, 600)
    point = eoc.edge_of_chaos(ACTIVATION, sigma_b=SIGMA_B)
    field = eoc.MeanField(ACTIVATION, point.sigma_w, SIGMA_B)
    limit = np.array([point.q, 1.0, float(field.iterate_correlation(1.0 - START, DEPTH)[-1])])
    evidence: list[Evidence] = []
    found = {
        (law.name, n): _mean(measured(law, n, many))
        for law in LAWS
        for n, many in zip(widths, networks, strict=True)
    }
    for law in LAWS:
        mean, error = found[law.name, widths[-1]]
        what = f"{law.name}, width {widths[-1]}: "
        evidence.append(Evidence(what + "q", limit[0], mean[0], error[0]))
        evidence.append(Evidence(what + "χ", limit[1], mean[1], error[1]))
        evidence.append(Evidence(what + f"1 − c at layer {DEPTH}", limit[2], mean[2], error[2]))
    slopes = first_order()
    agree, close = True, True
    points: dict[int, list[tuple[float, float, float]]] = {n: [] for n in widths}
    sparse = LAWS[-1]
    for law in LAWS:
        if law is NORMAL:
            continue
        for n in widths:
            (mean, error), (base, base_error) = found[law.name, n], found[NORMAL.name, n]
            x, gap = law.kurtosis / n, float(mean[0] - base[0])
            spread = float(np.hypot(error[0], base_error[0]))
            points[n].append((x, gap, spread))
            evidence.append(Evidence(f"{law.name}, width {n}: q less normal's", slopes[0] * x, gap, spread))
            # The next order is a few times x of the first one.
            agree &= abs(gap - slopes[0] * x) < 4 * spread + abs(slopes[0] * x) * min(1.0, 5 * abs(x))
        mean, error = found[law.name, widths[-1]]
        room = 4 * error + np.abs(limit) * (abs(law.kurtosis) + 10.0) / widths[-1]
        close &= bool(np.all(np.abs(mean - limit) < room))
    heavy = [
        float(measured(HEAVY, n, max(8, many // 4))[:, 1].mean())
        for n, many in zip(widths, networks, strict=True)
    ]
    for n, value in zip(widths, heavy, strict=True):
        evidence.append(Evidence(f"{HEAVY.name} (no variance), width {n}: χ", "no limit", value))
    changed, told = _collapse(4 if quick else 30, evidence)
    falls = heavy[0] > heavy[1] > heavy[2]
    # Uniform weights have a largest value, which the layer with the widest law alone exceeds.
    bounded = changed["magnitude", "uniform"] > changed["magnitude", "normal"] + 0.5
    good = agree and close and falls and bounded
    conclusion = (
        f"At width {widths[-1]} networks with weights of {len(LAWS)} laws have the same q, χ and "
        f"correlations but for what is left of the law: {slopes[0]:+.2f} kurtosis/width in q, "
        f"{slopes[1]:+.2f} in χ, which is 1 % of χ at width {300 * abs(slopes[1]):.0f} for Laplace weights "
        f"and at {100 * abs(slopes[1]) * sparse.kurtosis:.0f} for the sparse ones; t weights with their "
        "infinite sixth moment come to it slowly. Without a variance there "
        f"is no limit: χ is {heavy[0]:.2f}, {heavy[1]:.2f}, {heavy[2]:.2f} at widths {widths[0]}, "
        f"{widths[1]}, {widths[2]}. log10(1 − s_cr) for uniform, normal, Laplace and t weights is by "
        f"{'; by '.join(told)}: magnitudes show the whole law, SNIP's products a little of it."
    )
    picture = _picture(slopes[0], points)
    return Finding(tuple(evidence), Verdict.HOLDS if good else Verdict.FAILS, conclusion, picture)


CLAIM = Claim(
    name="weight-laws",
    statement="Beyond the paper, whose weights are normal (Hayou et al. 2021, section 2): variances, χ and "
    "correlations at infinite width, and with them the edge of chaos, depend on the distribution of the "
    "weights through its variance alone; at finite width by kurtosis/width. When a layer collapses under "
    "magnitude pruning depends on the whole distribution.",
    method=f"tanh networks of {DEPTH} layers on the edge of chaos with weights of six distributions, at "
    "widths 30, 100 and 300, beside the first order in kurtosis/width (Edgeworth); weights without variance; "
    "critical sparsities of networks of 20 layers of width 60 really pruned.",
    recorded=Verdict.HOLDS,
    check=check,
    wording=OWN,
)
