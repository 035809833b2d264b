"""The phases of attention against networks that are sampled."""

from __future__ import annotations

import math

import numpy as np

import eoc_theory as eoc
from eoc_theory.mean_field.attention_phase import (
    COLLAPSED_SIMILARITY,
    FEWEST_ATTENDED,
    GRADIENT_RANGE,
    AttentionPhase,
)

from .claim import ATTENTION, Claim, Evidence, Finding, Verdict
from .transformers import Blocks, Seen, sample

TOKENS, DEPTH, POINTS = 32, 8, 40
#: Both halves of the points: the norm, and the activation of the MLP.
STACKS: tuple[tuple[str, str | None], ...] = (("pre", None), ("post", "gelu"))
#: How far from a border a point must be: in similarity, in nats of entropy, in log of the gradients' growth.
MARGINS = (0.02, 0.15, 1.5)


def away_from_borders(found: AttentionPhase) -> np.ndarray:
    """Where no quantity that decides on the phase is close to its border, of the grid's shape."""
    growth = np.abs(found.gradient_exponent) * found.depth
    return (
        (np.abs(found.similarity - COLLAPSED_SIMILARITY) > MARGINS[0])
        & (np.abs(found.entropy - math.log(FEWEST_ATTENDED)) > MARGINS[1])
        & (np.abs(growth - math.log(GRADIENT_RANGE)) > MARGINS[2])
    )


def phase_of(seen: list[Seen]) -> str:
    """The phase of sampled networks, from what was measured in them."""
    similarity = 1.0 - np.mean([one.gap[-1] for one in seen])
    entropy = np.mean([one.entropy.mean() for one in seen])
    growth = np.mean([one.log_gradient[0] for one in seen])
    if similarity > COLLAPSED_SIMILARITY:
        return "rank-collapsed"
    if entropy < math.log(FEWEST_ATTENDED):
        return "entropy-collapsed"
    if abs(growth) > math.log(GRADIENT_RANGE):
        return "exploding" if growth > 0.0 else "vanishing"
    return "trainable"


def points(norm: str, act: str | None, count: int) -> list[tuple[float, float, str]]:
    """(σ_qσ_k, α, phase) of `count` points away from borders, as many of each phase as there are."""
    found = eoc.attention_phase(
        np.geomspace(0.1, 30.0, 40), np.geomspace(0.1, 5.0, 40), tokens=TOKENS, depth=DEPTH, norm=norm,
        activation=act,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    usable = away_from_borders(found)
    by_phase = [np.argwhere(usable & (found.phase == name)) for name in np.unique(found.phase)]
    orders = [rng.permutation(len(places)) for places in by_phase]
    chosen: list[tuple[int, int]] = []
    for turn in range(max(map(len, orders))):
        for places, order in zip(by_phase, orders, strict=True):
            if turn < len(order) and len(chosen) < count:
                i, j = places[order[turn]]
                chosen.append((int(i), int(j)))
    return [
        (float(found.score_scale[j]), float(found.residual_strength[i]), str(found.phase[i, j]))
        for i, j in chosen
    ]


def check(quick: bool) -> Finding:
    """Runs the check; see the claim's method."""
    width, networks = (192, 1) if quick else (512, 3)
    right: dict[str, list[bool]] = {}
    wrong: list[str] = []
    for norm, act in STACKS:
        for index, (scale, alpha, expected) in enumerate(points(norm, act, POINTS // 2)):
            net = Blocks(width, max(width // 32, 4), TOKENS, DEPTH, scale, alpha, norm, activation=act)
            seen = phase_of([sample(net, 100 * index + seed) for seed in range(networks)])
            right.setdefault(expected, []).append(seen == expected)
            if seen != expected:
                wrong.append(f"{norm}-LN at ({scale:.2g}, {alpha:.2g}) is {seen}, not {expected}")
    hits, count = sum(map(sum, right.values())), sum(map(len, right.values()))
    evidence = [Evidence("points whose phase is that of the networks", ">= 95 %", f"{hits} of {count}")]
    for name, cases in sorted(right.items()):
        evidence.append(Evidence(f"  {name}", len(cases), sum(cases)))
    good = hits >= 0.95 * count and len(right) >= 4
    conclusion = (
        f"{hits} of {count} points away from borders have the phase of networks of width {width}, in "
        f"{len(right)} phases" + (f"; {'; '.join(wrong)}." if wrong else ".")
    )
    return Finding(tuple(evidence), Verdict.HOLDS if good else Verdict.FAILS, conclusion)


CLAIM = Claim(
    name="attention-phases",
    statement="The scale of the scores and the strength of the residual branches say at initialisation where "
    "tokens become alike, attention one-hot, and gradients explode or vanish (Zhai et al. 2023; Cowsik et "
    "al. "
    "2024).",
    method=f"Phases of `eoc.attention_phase` at {POINTS} points away from borders against plain-torch "
    "networks "
    f"of {DEPTH} blocks and {TOKENS} tokens: pre-LN without MLP, post-LN with a GELU MLP.",
    recorded=Verdict.HOLDS,
    check=check,
    group=ATTENTION,
)
