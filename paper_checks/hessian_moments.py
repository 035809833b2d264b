"""Score moments of Hessian-based pruning (GraSP) beside those of sensitivity-based pruning (SNIP)."""

from __future__ import annotations

from typing import Any

import numpy as np

import eoc_theory as eoc
from eoc_theory.propagation.infinite_width import propagate

from .claim import Claim, Evidence, Finding, Verdict
from .graph_networks import decay, inner_range, log_score_moments, mean_and_error
from .picture import Series
from .score_moments import moment_series, moments_picture

DEPTH, WIDTH, WIDE, INPUTS, MARGIN = 40, 100, 300, 30, 10
CRITERIA = ("snip", "grasp")
#: Activation, σ_w, σ_b off the edge of chaos.
CASES = (("tanh", 1.0, 0.2), ("tanh", 2.0, 0.2), ("elu", 0.9, 0.2), ("relu", 1.2, 0.2))


def _on_the_edge(data: Any, networks: int, evidence: list[Evidence]) -> tuple[bool, dict[str, list[str]]]:
    """Whether critical networks' moments stay bounded, and by which factors; adds evidence."""
    on_good, spans = True, {criterion: [] for criterion in CRITERIA}
    for name in ("tanh", "relu"):
        for criterion in CRITERIA:
            found = []
            for depth in (30, 100, 300):
                net = eoc.mlp(depth, WIDTH, activation=name)
                moments = propagate(net, net.summarise(data), criterion=criterion).log_moment
                found.append(inner_range(moments))
                what = f"{name} critical, {criterion}: range of log m^l, kernels, L = {depth}"
                evidence.append(Evidence(what, "bounded" if depth > 30 else None, found[-1]))
            net = eoc.mlp(DEPTH, WIDTH, activation=name)
            mean, error = mean_and_error(
                decay(log_score_moments(net, net.summarise(data), networks, criterion=criterion), MARGIN)
            )
            what = f"{name} critical, {criterion}: −d log m/dl, sampled, L = {DEPTH}"
            evidence.append(Evidence(what, 0.0, mean, error))
            on_good &= found[2] - found[1] < 0.5 and abs(mean) < 0.1
            spans[criterion].append(f"{np.exp(found[2]):.0f} ({name})")
    return on_good, spans


def check(quick: bool) -> Finding:
    """Runs the check; see the claim's method."""
    networks = 16 if quick else 60
    data = eoc.digits(INPUTS)
    evidence: list[Evidence] = []
    series: list[Series] = []
    off_good, slopes = True, {criterion: [] for criterion in CRITERIA}
    chaotic, chaotic_error = float("nan"), float("nan")
    for name, sigma_w, sigma_b in CASES:
        net = eoc.mlp(DEPTH, WIDTH, activation=name, init=(sigma_w, sigma_b))
        batch = net.summarise(data)
        log_chi = float(np.log(eoc.MeanField(name, sigma_w, sigma_b).chi()))
        for criterion in CRITERIA:
            kernels = propagate(net, batch, criterion=criterion).log_moment
            sampled = log_score_moments(net, batch, networks, criterion=criterion)
            theory = float(decay(kernels, MARGIN))
            mean, error = mean_and_error(decay(sampled, MARGIN))
            if name == "tanh":
                title = f"{name} ({sigma_w:g}, {sigma_b:g}), {criterion}"
                series += moment_series(title, kernels, sampled, len(series) // 2)
            what = f"{name} ({sigma_w:g}, {sigma_b:g}), {criterion}: −d log m/dl"
            evidence.append(Evidence(f"{what}, kernels", log_chi, theory))
            evidence.append(Evidence(f"{what}, sampled", log_chi, mean, error))
            # Kernels still carry the batch's way to its fixed point; finite width shifts exponents.
            off_good &= abs(mean - log_chi) < 4 * error + 6 / WIDTH and abs(theory - log_chi) < 0.07
            slopes[criterion].append(f"{mean:.2f}")
            if (name, sigma_w, criterion) == ("tanh", 2.0, "grasp"):
                chaotic, chaotic_error = mean, error
    wide = eoc.mlp(DEPTH, WIDE, activation="tanh", init=(2.0, 0.2))
    far, error = mean_and_error(
        decay(log_score_moments(wide, wide.summarise(data), networks // 2, criterion="grasp"), MARGIN)
    )
    log_chi = float(np.log(eoc.MeanField("tanh", 2.0, 0.2).chi()))
    evidence.append(
        Evidence(f"tanh (2, 0.2), grasp, width {WIDE}: −d log m/dl, sampled", log_chi, far, error)
    )
    on_good, spans = _on_the_edge(data, networks, evidence)
    exceeds = chaotic - log_chi > 4 * chaotic_error and far < chaotic
    verdict = Verdict.FAILS
    if off_good and on_good:
        verdict = Verdict.REFINED if exceeds else Verdict.HOLDS
    log_chis = ", ".join(f"{np.log(float(eoc.MeanField(*case).chi())):.2f}" for case in CASES)
    conclusion = (
        f"Off the edge of chaos both criteria's moments go with χ^{{L−l}}: exponents "
        f"{', '.join(slopes['grasp'])} for GraSP and {', '.join(slopes['snip'])} for SNIP where log χ = "
        f"{log_chis}. In the chaotic network GraSP's is larger than log χ at finite width, {chaotic:.3f} at "
        f"{WIDTH} and {far:.3f} at {WIDE}: the Gauss–Newton part at infinite width has log χ, the whole "
        "Hessian of a narrow network more. On the edge of chaos both stay bounded with depth, within a "
        f"factor of {' and '.join(spans['grasp'])} for GraSP and {' and '.join(spans['snip'])} for SNIP at "
        "depth 300: alike in kind, with a larger constant for GraSP."
    )
    caption = "Score moments by layer, both criteria: kernels (lines), sampled networks (points)."
    return Finding(tuple(evidence), verdict, conclusion, moments_picture(caption, series))


CLAIM = Claim(
    name="hessian-moments",
    statement="Hessian-based pruning is conditioned like sensitivity-based pruning: score moments fall or "
    "grow with χ^{L−l} off the edge of chaos and are of one order on it (Hayou et al. 2021, appendix on "
    "HBP).",
    method=f"GraSP's and SNIP's score moments: kernels at infinite width (Gauss–Newton part; depths 30, 100, "
    f"300) and sampled networks of {DEPTH} layers of width {WIDTH} with the whole Hessian, {INPUTS} digits.",
    recorded=Verdict.REFINED,
    check=check,
)
