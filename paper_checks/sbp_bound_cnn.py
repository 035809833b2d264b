"""The bound on the critical sparsity of sensitivity-based pruning, in convolutional networks."""

from __future__ import annotations

import numpy as np

import eoc_theory as eoc

from .claim import Claim, Evidence, Finding, Verdict
from .graph_networks import mean_and_error
from .pruned_networks import critical_sparsities
from .sbp_bound import Case, bound_picture, case, case_evidence

CHANNELS, INPUTS, SHAPE = 12, 10, (1, 8, 8)
#: Networks that a prediction samples, in the full form.
SAMPLES = 8
#: Depth, σ_w; all tanh, σ_b = 0.2, from deep in the ordered to deep in the chaotic phase.
CASES = ((80, 0.3), (80, 0.5), (80, 1.0), (80, 2.0), (80, 10.0))


def check(quick: bool) -> Finding:
    """Runs the check; see the claim's method."""
    seeds = 3 if quick else 30
    data = eoc.digits_images(INPUTS, SHAPE)
    evidence: list[Evidence] = []
    cases: list[Case] = []
    for depth, sigma_w in CASES:
        net = eoc.cnn(depth, CHANNELS, input_shape=SHAPE, init=(sigma_w, 0.2))
        chi = float(eoc.MeanField("tanh", sigma_w, 0.2).chi())
        cases.append(case(net, chi, seeds, data, predict=not quick, samples=SAMPLES))
        evidence += case_evidence(f"tanh ({sigma_w:g}, 0.2), L = {depth}", cases[-1])
    depth = CASES[0][0]
    critical = eoc.cnn(depth, CHANNELS, input_shape=SHAPE)
    top, error = mean_and_error(critical_sparsities(critical, seeds, data))
    evidence.append(Evidence(f"tanh critical, L = {depth}: mean s_cr", "no bound", top, error))
    binding = [c for c in cases if c.bound < 1]
    void = [c for c in cases if c.bound >= 1]
    kept = all(c.mean + 2 * c.error < c.bound for c in binding)
    ratios = [c.bound / c.mean for c in binding]
    verdict = Verdict.FAILS
    if kept and top > max(c.mean for c in binding):
        verdict = Verdict.REFINED if min(ratios) > 3 else Verdict.HOLDS
    width = float(np.sqrt(critical.n_weights / critical.depth))
    reaches = [c.reach for c in cases]
    conclusion = (
        f"With N² the number of weights of a layer, 9·{CHANNELS}² here, the bound holds where it says "
        f"something ({len(binding)} of {len(cases)} cases) and lies {min(ratios):.0f} to {max(ratios):.0f} "
        f"times above the truth. Where it is void s_cr is {min(c.mean for c in void):.2f} to "
        f"{max(c.mean for c in void):.2f}, and on the edge of chaos {top:.2f}. As in fully connected "
        f"networks s_cr = a/(L |log χ|), with a = {min(reaches):.0f} to {max(reaches):.0f}: which weights "
        "share a kernel plays no part in the exponent."
    )
    picture = bound_picture(
        f"Mean critical sparsity of tanh networks of {depth} convolutions of {CHANNELS} channels: the bound "
        "where it says something, and measurements.",
        cases,
        depth,
        width,
    )
    return Finding(tuple(evidence), verdict, conclusion, picture)


CLAIM = Claim(
    name="sbp-bound-cnn",
    statement="Sensitivity-based pruning of convolutional networks off the edge of chaos: E[s_cr] ≤ (1/L)(1 "
    "+ log(κLN²)/κ) + O(1/(κ²√(LN²))), κ = |log χ|/8, N² the weights of a layer (Hayou et al. 2021, theorem "
    "1).",
    method=f"s_cr of real networks of 3×3 convolutions of {CHANNELS} channels with periodic boundary (torch, "
    f"{INPUTS} digits of 8×8, several seeds) under SNIP beside the bound's leading terms, over χ; in the "
    f"full form beside the prediction from {SAMPLES} sampled networks too.",
    recorded=Verdict.REFINED,
    check=check,
)
