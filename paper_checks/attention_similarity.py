"""Similarity of tokens through transformer blocks: two numbers a layer against sampled networks."""

from __future__ import annotations

import numpy as np

from .claim import ATTENTION, Claim, Evidence, Finding, Verdict
from .picture import Picture, Series
from .transformers import Blocks, sample

TOKENS = 32
#: What is called right: of q and of p, relative to themselves, as a mean over the blocks.
TOLERANCE = 0.03
#: σ_qσ_k, α, norm, activation, similarity at the input.
CASES: tuple[tuple[float, float, str, str | None, float], ...] = (
    (1.0, 1.0, "pre", "gelu", 0.0),
    (9.0, 0.7, "pre", "relu", 0.0),
    (4.0, 0.5, "post", "gelu", 0.2),
    (2.0, 1.0, "pre", None, 0.0),
)


def check(quick: bool) -> Finding:
    """Runs the check; see the claim's method."""
    width, networks, depth = (256, 12, 6) if quick else (1024, 12, 12)
    evidence: list[Evidence] = []
    series: list[Series] = []
    errors: list[float] = []
    good = True
    for index, (scale, alpha, norm, act, p) in enumerate(CASES):
        net = Blocks(width, width // 64, TOKENS, depth, scale, alpha, norm, activation=act, similarity=p)
        theory = net.theory()
        seen = [sample(net, seed, gradients=False) for seed in range(networks)]
        found = 1.0 - np.array([one.gap for one in seen])
        variance = np.array([one.variance for one in seen])
        law, mean = 1.0 - theory.gap[:, 0], found.mean(axis=0)
        error = found.std(axis=0, ddof=1) / np.sqrt(networks)
        there = law > 0.05
        wrong = np.abs(mean / np.where(there, law, 1.0) - 1.0)[there]
        of_q = np.abs(variance.mean(axis=0) / theory.variance[:, 0] - 1.0)
        noise = (error / np.where(there, law, 1.0))[there]
        # Chance moves the mean of few narrow networks further than the theory is off.
        good &= bool(wrong.mean() < TOLERANCE + 2.0 * noise.mean()) and bool(of_q.mean() < TOLERANCE)
        errors.append(float(wrong.mean()))
        name = f"{norm}-LN, {act or 'no MLP'}, σ_qσ_k = {scale:g}, α = {alpha:g}"
        last = float(law[-1]), float(mean[-1]), float(error[-1])
        evidence.append(Evidence(f"{name}: p after {depth} blocks", *last))
        evidence.append(Evidence("  error of p, mean over blocks", "< 0.03", float(wrong.mean())))
        evidence.append(Evidence("  largest error of p in one block", None, float(wrong.max())))
        evidence.append(Evidence("  error of q, mean over blocks", "< 0.03", float(of_q.mean())))
        blocks = np.arange(depth + 1)
        series.append(Series(name, blocks, law, colour=index))
        series.append(Series("", blocks, mean, error, points=True, colour=index))
    verdict = Verdict.HOLDS if good else Verdict.FAILS
    conclusion = (
        f"Two numbers a layer follow {networks} networks of width {width} through {depth} blocks: similarity "
        f"is off by {min(errors):.1%} to {max(errors):.1%} of itself, as a mean over blocks. Nothing in the "
        "theory is sampled; the softmax enters through its moments at finite T."
    )
    picture = Picture(
        f"Token similarity by block: kernels (lines), networks of width {width} (points).",
        "block",
        "similarity p",
        tuple(series),
    )
    return Finding(tuple(evidence), verdict, conclusion, picture)


CLAIM = Claim(
    name="token-similarity",
    statement="At infinite width the similarity of tokens follows a deterministic map E[A K Aᵀ] from block "
    "to "
    "block, whatever the scale of the scores (Noci et al. 2022; Cowsik et al. 2024).",
    method=f"Variance q and similarity p of {TOKENS} tokens in plain-torch transformers of width 256, 6 "
    "blocks "
    "(full: 1,024 and 12), pre-LN and post-LN, with and without MLP, against the kernels.",
    recorded=Verdict.HOLDS,
    check=check,
    group=ATTENTION,
)
