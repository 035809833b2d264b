"""Gradients of queries and keys beside those of values and outputs, by depth."""

from __future__ import annotations

import numpy as np

from .claim import ATTENTION, Claim, Evidence, Finding, Verdict
from .picture import Picture, Series
from .transformers import Blocks, sample

TOKENS = 32
#: Norm, σ_qσ_k, α, skip.
CASES = (("pre", 1.0, 1.0, 1.0), ("post", 1.0, 0.7, 1.0), ("post", 4.0, 0.7, 1.0))


def log_ratios(net: Blocks, networks: int) -> np.ndarray:
    """log of the score moments of W_q and W_k over those of W_v and W_o, (networks, blocks)."""
    seen = [sample(net, seed).log_moments for seed in range(networks)]
    return np.array([0.5 * (one["q"] + one["k"] - one["v"] - one["o"]) for one in seen])


def check(quick: bool) -> Finding:
    """Runs the check; see the claim's method."""
    width, networks, depth = (256, 6, 8) if quick else (512, 12, 12)
    evidence: list[Evidence] = []
    series: list[Series] = []
    good, drops = True, []
    for index, (norm, scale, alpha, skip) in enumerate(CASES):
        net = Blocks(width, width // 32, TOKENS, depth, scale, alpha, norm, skip, "relu")
        theory = net.theory()
        law = (theory.log_query_moment - theory.log_value_moment)[:, 0]
        found = log_ratios(net, networks)
        mean, error = found.mean(axis=0), found.std(axis=0, ddof=1) / np.sqrt(networks)
        wrong = np.abs(mean - law)
        good &= bool(wrong.mean() < 0.25 + 2.0 * error.mean())
        p = 1.0 - theory.gap[:, 0]
        name = f"{norm}-LN, σ_qσ_k = {scale:g}, α = {alpha:g}"
        drops.append(float(law[-1] - law[0]))
        evidence.append(Evidence(f"{name}: log m_q/m_v in block 1", float(law[0]), mean[0], error[0]))
        evidence.append(Evidence(f"  in block {depth}, p = {p[-2]:.2f}", float(law[-1]), mean[-1], error[-1]))
        evidence.append(Evidence("  error, mean over blocks", "< 0.25", float(wrong.mean())))
        blocks = np.arange(1, depth + 1)
        series.append(Series(name, blocks, law, colour=index))
        series.append(Series("", blocks, mean, error, points=True, colour=index))
        good &= law[-1] < law[0] - 0.5
    conclusion = (
        "The gradients of queries and keys go with (1 − p)² beside those of values and outputs, and fall "
        "with "
        f"depth as tokens become alike: by {-max(drops):.1f} to {-min(drops):.1f} in log m within {depth} "
        "blocks. W_q and W_k have the same score moment, and so have W_v and W_o. Large scores put it off. "
        "Where "
        "tokens are nearly alike the kernels are off by the order of T/width."
    )
    picture = Picture(
        f"Score moments of W_q beside W_v by block: kernels (lines), networks of width {width} (points).",
        "block",
        "log m$_q$/m$_v$",
        tuple(series),
    )
    return Finding(tuple(evidence), Verdict.HOLDS if good else Verdict.FAILS, conclusion, picture)


CLAIM = Claim(
    name="query-gradients",
    statement="As tokens become alike the gradients of queries and keys vanish, those of values and outputs "
    "do "
    "not (Noci et al. 2022, theorem 3.2).",
    method="log score moments of W_q, W_k, W_v and W_o in plain-torch transformers, by block, against the "
    "kernels; pre-LN and post-LN, two scales of the scores.",
    recorded=Verdict.HOLDS,
    check=check,
    group=ATTENTION,
)
