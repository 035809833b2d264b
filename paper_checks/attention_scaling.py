"""Score moments of transformers under the residual scaling of Stable ResNets."""

from __future__ import annotations

import numpy as np

from .claim import ATTENTION, OWN, Claim, Evidence, Finding, Verdict
from .picture import Picture, Series
from .transformers import Blocks, sample

TOKENS = 32
DEPTHS = (8, 32, 128, 512)
#: Within this factor the moments of a matrix are of one order in all blocks, whatever the depth.
LARGEST_RANGE = 30.0
CASES = (("pre", 1.0), ("post", 1.0), ("post", 4.0))


def log_moments(norm: str, scale: float, depth: int, stable: bool) -> np.ndarray:
    """log m of q, v, w₁ and w₂ in every block, by kernels, shape (4, depth)."""
    alpha = depth**-0.5 if stable else 1.0
    found = Blocks(1, 1, TOKENS, depth, scale, alpha, norm).theory()
    assert found.log_mlp_moments is not None
    own = np.stack([found.log_query_moment[:, 0], found.log_value_moment[:, 0]])
    return np.concatenate([own, found.log_mlp_moments[:, :, 0]])


def check(quick: bool) -> Finding:
    """Runs the check; see the claim's method."""
    evidence: list[Evidence] = []
    series: list[Series] = []
    good, slopes, ranges, free = True, [], [], []
    for index, (norm, scale) in enumerate(CASES):
        name = f"{norm}-LN, σ_qσ_k = {scale:g}"
        stable = [log_moments(norm, scale, depth, True) for depth in DEPTHS]
        means = np.array([one.mean(axis=1) for one in stable])
        slope = np.polyfit(np.log(DEPTHS), means, 1)[0]
        widest = max(float(np.ptp(one, axis=1).max()) for one in stable)
        loose = float(np.ptp(log_moments(norm, scale, DEPTHS[-2], False), axis=1).max())
        slopes += slope.tolist()
        ranges.append(np.exp(widest))
        free.append(loose)
        words = f"{slope.min():.2f} … {slope.max():.2f}"
        evidence.append(Evidence(f"{name}, α² = 1/L: power of L in m, q v w₁ w₂", "−1", words))
        evidence.append(Evidence("  largest over smallest m of a matrix", "bounded", float(np.exp(widest))))
        evidence.append(Evidence(f"  the same for α = 1, {DEPTHS[-2]} blocks, log", None, loose))
        good &= bool(np.abs(slope + 1.0).max() < 0.1) and widest < np.log(LARGEST_RANGE)
        for colour, depth in ((2 * index, DEPTHS[0]), (2 * index + 1, DEPTHS[2])):
            m = log_moments(norm, scale, depth, True)[0] + np.log(depth)
            series.append(Series(f"{name}, L = {depth}", (np.arange(depth) + 0.5) / depth, m, colour=colour))
    width, depth, networks = (128, 16, 4) if quick else (256, 32, 8)
    net = Blocks(width, width // 32, TOKENS, depth, 1.0, depth**-0.5, "post")
    seen = [sample(net, seed).log_moments for seed in range(networks)]
    law = log_moments("post", 1.0, depth, True) + np.log(width * TOKENS)
    for row, matrix in enumerate(("q", "v", "w1", "w2")):
        found = np.array([one[matrix] for one in seen])
        wrong = float(np.abs(found.mean(axis=0) - law[row]).mean())
        what = f"post-LN, {depth} blocks of width {width}: error of log m, {matrix}, sampled"
        evidence.append(Evidence(what, "< 0.3", wrong))
        good &= wrong < 0.3
    conclusion = (
        f"With branches times 1/√L the score moments of all matrices fall like L to the power "
        f"{min(slopes):.2f} to {max(slopes):.2f}, and those of one matrix stay within a factor of "
        f"{max(ranges):.0f} over all blocks up to {DEPTHS[-1]}: Θ(1/L), pre-LN and post-LN. With α = 1 they "
        f"spread by a factor of e^{min(free):.0f} (pre-LN) to e^{max(free):.0f} (post-LN, rank collapse)."
    )
    picture = Picture(
        "Score moments of W_q times L by place in the stack, α² = 1/L, by kernels: of one order.",
        "block over L",
        "log L·m$_q$",
        tuple(series),
    )
    return Finding(tuple(evidence), Verdict.HOLDS if good else Verdict.FAILS, conclusion, picture)


CLAIM = Claim(
    name="transformer-scaling",
    statement="The scaling of Stable ResNets, branches times 1/√L, makes score moments Θ(1/L) in "
    "transformers "
    "too (Hayou et al. 2021 say so of residual networks).",
    method=f"Kernels of {DEPTHS[0]} to {DEPTHS[-1]} blocks with a GELU MLP: power of L in the moments of q, "
    "v and "
    "both MLP matrices, and their range over blocks; sampled networks beside them.",
    recorded=Verdict.HOLDS,
    check=check,
    group=ATTENTION,
    wording=OWN,
)
