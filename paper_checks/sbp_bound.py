"""The bound on the critical sparsity of sensitivity-based pruning off the edge of chaos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import eoc_theory as eoc
from eoc_theory.networks.architecture import Architecture
from eoc_theory.pruning.paper_bounds import snip_bound

from .claim import Claim, Evidence, Finding, Verdict
from .graph_networks import mean_and_error
from .picture import Picture, Series
from .pruned_networks import Batch, critical_sparsities

WIDTH = 100
#: Depth, activation, σ_w, σ_b.
CASES = (
    (30, "tanh", 0.3, 0.2),
    (100, "tanh", 0.3, 0.2),
    (100, "tanh", 0.5, 0.2),
    (100, "tanh", 1.0, 0.2),
    (100, "tanh", 2.0, 0.2),
    (100, "tanh", 5.0, 0.2),
    (100, "tanh", 10.0, 0.2),
)
#: Networks behind a prediction in the quick form; means move by 0.005.
QUICK_SAMPLES = 16


@dataclass(frozen=True)
class Case:
    """Bound, measured and predicted mean of s_cr of one initialisation."""

    chi: float
    bound: float
    remainder: float
    mean: float
    error: float
    predicted: float
    reach: float


def case(
    net: Architecture,
    chi: float,
    seeds: int,
    data: Batch,
    *,
    predict: bool = True,
    samples: int | None = None,
) -> Case:
    """Prunes real networks, predicts, and evaluates the bound."""
    mean, error = mean_and_error(critical_sparsities(net, seeds, data))
    predicted = (
        eoc.predict_collapse(net, data=data, samples=samples, method="theory").critical_sparsity
        if predict
        else float("nan")
    )
    bound = snip_bound(net.depth, np.sqrt(net.n_weights / net.depth), chi)
    reach = mean * net.depth * abs(np.log(chi))
    return Case(chi, float(bound.value), float(bound.remainder), mean, error, predicted, reach)


def case_evidence(what: str, one: Case) -> list[Evidence]:
    """Mean s_cr beside its bound and, where there is one, beside its prediction."""
    limit = f"≤ {one.bound:.3f} + O({one.remainder:.2f})" + ("" if one.bound < 1 else " (void)")
    rows = [Evidence(f"{what}, χ = {one.chi:.3f}: mean s_cr", limit, one.mean, one.error)]
    if np.isfinite(one.predicted):
        rows.append(Evidence("    predicted by the theory", one.mean, one.predicted))
    return rows


def bound_picture(caption: str, cases: Sequence[Case], depth: int, width: float) -> Picture:
    """The bound where it says something, predictions and measurements over χ."""
    shown = sorted(cases, key=lambda c: c.chi)
    grid = np.geomspace(0.5 * shown[0].chi, 2.0 * shown[-1].chi, 400)
    limit = np.asarray(snip_bound(depth, width, grid).value)
    chis = [c.chi for c in shown]
    means, errors = [c.mean for c in shown], [c.error for c in shown]
    series = [Series("bound", grid, np.where(limit < 1.0, limit, np.nan), dashed=True, colour=1)]
    if all(np.isfinite(c.predicted) for c in shown):
        series.append(Series("predicted", chis, [c.predicted for c in shown]))
    series.append(Series("measured", chis, means, errors, points=True))
    return Picture(
        caption,
        "χ",
        "critical sparsity",
        tuple(series),
        log_x=True,
        log_y=True,
    )


def binding_range(depth: int = 100) -> tuple[float, float]:
    """The χ below and above which the bound is less than 1 at width WIDTH."""
    log_chi = np.linspace(1e-3, 20.0, 200_000)
    bound = snip_bound(depth, float(WIDTH), np.exp(log_chi))
    least = float(log_chi[np.argmax(np.asarray(bound.value) < 1.0)])
    return float(np.exp(-least)), float(np.exp(least))


def check(quick: bool) -> Finding:
    """Runs the check; see the claim's method."""
    seeds = 5 if quick else 60
    evidence, cases = [], []
    data = eoc.digits(100)
    for depth, name, sigma_w, sigma_b in CASES:
        net = eoc.mlp(depth, WIDTH, activation=name, init=(sigma_w, sigma_b))
        chi = float(eoc.MeanField(name, sigma_w, sigma_b).chi())
        one = case(net, chi, seeds, data, samples=QUICK_SAMPLES if quick else None)
        cases.append(one)
        evidence += case_evidence(f"{name} ({sigma_w:g}, {sigma_b:g}), L = {depth}", one)
    unstable = eoc.mlp(100, WIDTH, activation="relu", init=(0.6, 0.0))
    free = case(unstable, float(eoc.MeanField("relu", 0.6, 0.0).chi()), seeds, data, predict=False)
    evidence.append(
        Evidence(
            f"relu (0.6, 0), L = 100, χ = {free.chi:.3f}: mean s_cr",
            f"≤ {free.bound:.3f}?",
            free.mean,
            free.error,
        )
    )
    critical = eoc.mlp(100, WIDTH, activation="tanh")
    top, error = mean_and_error(critical_sparsities(critical, seeds))
    evidence.append(Evidence("tanh critical, L = 100: mean s_cr", "no bound", top, error))
    binding = [c for c in cases if c.bound < 1]
    kept = all(c.mean + 2 * c.error < c.bound for c in binding)
    ratios = [c.bound / c.mean for c in binding]
    reaches = [c.reach for c in cases]
    violated = free.mean - 4 * free.error > free.bound
    verdict = Verdict.FAILS
    if kept:
        verdict = Verdict.REFINED if min(ratios) > 3 or violated else Verdict.HOLDS
    void = [c for c in cases if c.bound >= 1]
    low, high = binding_range()
    conclusion = (
        f"At 100 layers of width 100 the bound says something only for χ < {low:.2f} or χ > {high:.2f} and "
        f"holds there, {min(ratios):.0f} to {max(ratios):.0f} times above the truth. Where it is void "
        f"networks collapse all the same (s_cr = {min(c.mean for c in void):.2f} to "
        f"{max(c.mean for c in void):.2f}). Measured: s_cr = a/(L |log χ|) with a = {min(reaches):.0f} to "
        f"{max(reaches):.0f}, where the bound has 8 log(κLN²) ≈ {8 * np.log(np.log(4.0) / 8 * 1e6):.0f}; on "
        f"the edge of chaos s_cr = {top:.3f}. For ReLU without biases (no fixed point of the "
        f"variance) the formula with its χ would be wrong: s_cr = {free.mean:.3f} against {free.bound:.3f}."
    )
    picture = bound_picture(
        f"Mean critical sparsity of tanh networks of 100 layers of width {WIDTH}: the bound where it says "
        "something, the prediction and measurements.",
        [c for c, at in zip(cases, CASES, strict=True) if at[0] == 100],
        100,
        float(WIDTH),
    )
    return Finding(tuple(evidence), verdict, conclusion, picture)


CLAIM = Claim(
    name="sbp-bound",
    statement="Sensitivity-based pruning off the edge of chaos: E[s_cr] ≤ (1/L)(1 + log(κLN²)/κ) + "
    "O(1/(κ²√(LN²))), κ = |log χ|/8 (Hayou et al. 2021, theorem 1).",
    method="s_cr of real networks under SNIP (torch, 100 digits, several seeds) beside its prediction and "
    "the bound's leading terms, over depth and χ; and where the theorem does not reach.",
    recorded=Verdict.REFINED,
    check=check,
)
