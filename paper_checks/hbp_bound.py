"""A bound on the critical sparsity of Hessian-based pruning, whose scores have signs."""

from __future__ import annotations

import numpy as np

import eoc_theory as eoc
from eoc_theory.networks.architecture import Architecture
from eoc_theory.pruning.paper_bounds import snip_bound
from eoc_theory.pytorch.batches import as_batch
from eoc_theory.pytorch.measure.scoring import layer_scores

from .claim import OWN, Claim, Evidence, Finding, Verdict
from .graph_networks import mean_and_error
from .picture import Picture, Series
from .pruned_networks import Batch, critical_sparsities

DEPTH, WIDTH, INPUTS = 100, 60, 40
#: σ_w of tanh networks at σ_b = 0.2, and of critical ones None.
SCALES = (0.3, 0.5, 1.0, 2.0, 10.0)


def negative_share(net: Architecture, seeds: int, data: Batch) -> float:
    """The part of all scores W ∘ (Hess·g) that is below 0, mean over networks."""
    shares = []
    for seed in range(seeds):
        model = net.to_torch(seed)
        scores = layer_scores(model, "grasp", as_batch(model, data), dtype="float64")
        below = sum(int((score < 0).sum()) for score in scores)
        shares.append(below / net.n_weights)
    return float(np.mean(shares))


def check(quick: bool) -> Finding:
    """Runs the check; see the claim's method."""
    seeds = 3 if quick else 30
    data = eoc.digits(INPUTS)
    evidence: list[Evidence] = []
    rows = []
    for sigma_w in SCALES:
        net = eoc.mlp(DEPTH, WIDTH, activation="tanh", init=(sigma_w, 0.2))
        chi = float(eoc.MeanField("tanh", sigma_w, 0.2).chi())
        share = negative_share(net, 2, data)
        mean, error = mean_and_error(critical_sparsities(net, seeds, data, "grasp"))
        snip = float(critical_sparsities(net, seeds, data).mean())
        free = float(snip_bound(DEPTH, np.sqrt((1.0 - share) * net.n_weights / DEPTH), chi).value)
        bound = share + (1.0 - share) * min(free, 1.0)
        rows.append((chi, share, mean, error, snip, bound))
        name = f"tanh ({sigma_w:g}, 0.2), χ = {chi:.3f}"
        void = " (void)" if bound >= 1.0 else ""
        evidence.append(Evidence(f"{name}: part of the scores below 0", 0.5, share))
        evidence.append(
            Evidence(f"{name}: mean s_cr of GraSP", f"{share:.3f} ≤ … ≤ {bound:.3f}{void}", mean, error)
        )
        evidence.append(
            Evidence("    p + (1 − p) · s_cr of SNIP in the same networks", mean, share + (1 - share) * snip)
        )
    critical = eoc.mlp(DEPTH, WIDTH, activation="tanh")
    top, error = mean_and_error(critical_sparsities(critical, seeds, data, "grasp"))
    evidence.append(Evidence("tanh critical: mean s_cr of GraSP", "no bound", top, error))
    chi, share, mean, errors, snip, bound = (np.array(column) for column in zip(*rows, strict=True))
    inside = (share - 1e-3 <= mean) & (mean - 2 * errors < bound)
    even = np.abs(share - 0.5).max()
    near = np.abs(mean - share - (1 - share) * snip).max()
    good = bool(inside.all()) and even < 0.05 and near < 0.1 and top > mean.max()
    binding = bound < 1.0
    conclusion = (
        f"Half of the scores are negative (p = {share.min():.3f} to {share.max():.3f}) and go first, so that "
        f"no bound below ½ can exist: GraSP loses no layer before half of all weights are gone, however far "
        f"off the edge of chaos. The positive half has SNIP's exponents. The bound p + (1 − p)·B holds "
        f"(s_cr = {mean.min():.2f} to {mean.max():.2f}, {top:.2f} on the edge of chaos) and says something "
        f"in {int(binding.sum())} of {len(rows)} cases; p + (1 − p) times SNIP's own s_cr is within "
        f"{near:.2f} of GraSP's. At the same density of the positive half GraSP and SNIP collapse together."
    )
    order = np.argsort(chi)
    picture = Picture(
        f"Mean critical sparsity under GraSP of tanh networks of {DEPTH} layers of width {WIDTH}.",
        "χ",
        "critical sparsity",
        (
            Series(
                "bound p + (1 − p)·B", chi[order], np.where(binding, bound, np.nan)[order],
                dashed=True, colour=1,
            ),
            Series("p + (1 − p)·s$_{cr}$ of SNIP", chi[order], (share + (1 - share) * snip)[order]),
            Series("measured", chi[order], mean[order], errors[order], points=True),
        ),
        log_x=True,
    )  # fmt: skip
    return Finding(tuple(evidence), Verdict.HOLDS if good else Verdict.FAILS, conclusion, picture)


CLAIM = Claim(
    name="hbp-bound",
    statement="Hessian-based pruning, which keeps the largest of the signed scores W ∘ (Hess·g), loses no "
    "layer before the part p ≈ ½ of negative scores is gone, and off the edge of chaos p ≤ E[s_cr] ≤ p + "
    "(1 − p)·B, with B the bound of SBP for the positive scores: (1/L)(1 + log(κL(1−p)N²)/κ), κ = |log χ|/8 "
    "(carried over from theorem 1 of Hayou et al. 2021).",
    method=f"s_cr of real tanh networks of {DEPTH} layers of width {WIDTH} (torch, the whole Hessian, "
    f"{INPUTS} digits, several seeds) under GraSP and SNIP, and the part of the scores that is negative. The "
    "bound: the largest score of a layer is positive, positive scores fall or grow with χ^{L−l} as SNIP's do "
    "(claim hessian-moments), and the argument for SBP is then that for (1 − p)N² weights a layer.",
    recorded=Verdict.HOLDS,
    check=check,
    wording=OWN,
)
