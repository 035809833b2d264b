"""Critical sparsity against depth: on the edge of chaos, where there is no bound, and off it."""

from __future__ import annotations

import numpy as np

import eoc_theory as eoc
from eoc_theory.networks.architecture import Architecture, Init

from .claim import Claim, Evidence, Finding, Verdict
from .graph_networks import mean_and_error
from .picture import Picture, Series
from .pruned_networks import critical_sparsities

WIDTH, SAMPLES, QUICK_SAMPLES = 100, 32, 16
#: Title, activation, initialisation, on the edge of chaos.
CASES: tuple[tuple[str, str, Init, bool], ...] = (
    ("tanh critical", "tanh", "eoc", True),
    ("relu critical", "relu", "eoc", True),
    ("tanh ordered (1, 0.2)", "tanh", (1.0, 0.2), False),
    ("tanh chaotic (2, 0.2)", "tanh", (2.0, 0.2), False),
)


def predicted(net: Architecture, quick: bool) -> float:
    """Mean s_cr by the theory at finite width."""
    samples = QUICK_SAMPLES if quick else SAMPLES
    law = eoc.predict_collapse(net, data=eoc.digits(100), samples=samples, method="theory")
    return law.critical_sparsity


def _picture(left: dict[str, dict[int, float]], points: dict[str, list[tuple[int, float, float]]]) -> Picture:
    series = []
    for colour, (title, law) in enumerate(left.items()):
        x, y, errors = np.array(points[title]).T
        series.append(Series(title, list(law), list(law.values()), colour=colour))
        series.append(Series("", x, y, errors, points=True, colour=colour))
    return Picture(
        f"Share of the weights that is left when the first layer collapses, width {WIDTH}: predicted "
        "(lines) and measured (points).",
        "depth L",
        "weights left, 1 − s$_{cr}$",
        tuple(series),
        log_x=True,
        log_y=True,
    )


def check(quick: bool) -> Finding:
    """Runs the check; see the claim's method."""
    seeds = 6 if quick else 40
    evidence: list[Evidence] = []
    left: dict[str, dict[int, float]] = {}
    close, highest, worst = True, 0.0, 0.0
    points: dict[str, list[tuple[int, float, float]]] = {}
    for title, name, init, critical in CASES:
        left[title] = {}
        for depth in (10, 30, 100, 300) if critical or not quick else (10, 30, 100):
            net = eoc.mlp(depth, WIDTH, activation=name, init=init)
            theory = predicted(net, quick)
            left[title][depth] = 1.0 - theory
            what = f"{title}, {depth}×{WIDTH}: mean s_cr"
            if depth in (30, 100):
                mean, error = mean_and_error(critical_sparsities(net, seeds))
                evidence.append(Evidence(f"{what}, predicted and measured", theory, mean, error))
                points.setdefault(title, []).append((depth, 1.0 - mean, error))
                if critical:
                    highest = max(highest, 1.0 - mean)
                    worst = max(worst, (1.0 - theory) / (1.0 - mean))
                close &= abs(theory - mean) < 4 * error + 0.01
            else:
                evidence.append(Evidence(f"{what}, predicted", None, theory))
    widths = {}
    for width in (30, 300):
        widths[width] = 1.0 - predicted(eoc.mlp(100, width, activation="tanh"), quick)
        evidence.append(
            Evidence(f"tanh critical, 100×{width}: mean s_cr, predicted", None, 1.0 - widths[width])
        )
    widths[WIDTH] = left["tanh critical"][100]
    on = [left[title] for title, _, _, critical in CASES if critical]
    off = [left[title] for title, _, _, critical in CASES if not critical]
    apart = max(law[100] for law in on) < 0.1 * min(law[100] for law in off)
    # Three times the width and more: what is left at collapse falls at least by half each time.
    narrow = widths[30] > 2 * widths[WIDTH] > 4 * widths[300]
    verdict = Verdict.FAILS
    if apart and close:
        verdict = Verdict.REFINED if narrow else Verdict.HOLDS
    conclusion = (
        f"At 100 layers of width 100 a layer collapses when {max(law[100] for law in on):.1%} of the "
        f"weights are left on the edge of chaos, and already when {min(law[100] for law in off):.0%} are "
        "left off it. But it is not free of depth: what is left at collapse grows from "
        f"{on[0][10]:.2%} to {on[0][300]:.1%} (tanh) and from {on[1][10]:.2%} to {on[1][300]:.1%} (ReLU) "
        "between 10 and 300 layers, because the score moments, of one order in the mean, drift apart by "
        "chance in a network of finite width. It is a matter of width: at 100 layers of tanh "
        f"{widths[30]:.1%} are left at width 30, {widths[WIDTH]:.1%} at 100 and {widths[300]:.2%} at 300. "
        f"(Predictions; on the edge of chaos measured networks keep their layers to {highest:.2%} and fewer, "
        f"{worst:.1f} times less than predicted at the worst.)"
    )
    picture = _picture(left, points)
    return Finding(tuple(evidence), verdict, conclusion, picture)


CLAIM = Claim(
    name="critical-depth",
    statement="On the edge of chaos the network is well conditioned: κ = 0, the bound on s_cr is void, and "
    "depth by itself does not make a layer collapse (Hayou et al. 2021, theorem 1).",
    method="Mean critical sparsity under SNIP (100 digits), predicted at finite width, over "
    "depth and phase at width 100, with measured networks at depths 30 and 100; and over width.",
    recorded=Verdict.REFINED,
    check=check,
)
