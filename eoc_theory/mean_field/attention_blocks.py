"""Kernels of transformer blocks among tokens that are all alike: two numbers a layer, both ways.

Tokens have equal variance q and equal correlation p, and so do the gradients with respect to them. Full
attention, wide layers and many heads keep it so. With 1 − p = Δ, scores of s.d. β = σ_qσ_k, and the moments
s, δ, t and t' of the softmax (`eoc_theory.gaussian.softmax_tables`: square, difference, jacobian,
pair_jacobian)

- attention puts out variance σ_v²σ_o² (1 − Δ(1 − s)), of which σ_v²σ_o² Δδ differs from token to token;
- a gradient kernel with entries d (same token) and e (two tokens) comes back through the values as
  d s + (T−1) e (s − δ), through the queries as β²Δ² (d t, e t') and through the keys as β²Δ (d t + (T−1) p e
  t'), each times σ_v²σ_o²; sums over tokens pass the values unchanged, and those through the keys are 0.

The source is the kernel recursion E[A K Aᵀ] of attention at infinite width (Hron et al. 2020; Noci et al.
2022; Cowsik et al. 2024) for such a K; the MLP's maps are duals of its activation at variance 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..activations import Activation
from ..gaussian.duals import DualTable
from ..gaussian.softmax_tables import USUAL_SCALE, AttentionMoments, softmax_table

Array = NDArray[np.float64]

Norm = Literal["pre", "post"]


@dataclass(frozen=True)
class Stack:
    """A stack of transformer blocks: attention, then an MLP, each added to its input with a strength.

    Attributes:
        tokens: number T of tokens, at least 2.
        depth: number of blocks.
        norm: "pre", x + α f(LN(x)), or "post", LN(x + α f(x)).
        activation: of the MLP; None: blocks of attention alone.
        gain: σ_vσ_o, of values and output together.
        mlp_gain: standard deviation of what the MLP puts out.
        skip: factor of x in the sums; 0: no skip connections.
    """

    tokens: int
    depth: int
    norm: Norm
    activation: Activation | None
    gain: float
    mlp_gain: float
    skip: float


class Signal(NamedTuple):
    """Variance of a token and 1 − correlation of two, or the gradient's d and e: arrays of one shape."""

    same: Array
    other: Array


@dataclass(frozen=True)
class Trajectory:
    """What flows through a stack; arrays of shape (depth + 1, points), or (depth, points) for what blocks do.

    Attributes:
        variance: q of the tokens before each block, and after the last.
        gap: 1 − p there.
        entropy: of the attention weights in each block, in nats.
        log_gradient: log of the mean squared gradient at the same places, 0 after the last block.
        gradient_similarity: correlation of the gradients of two tokens.
        log_query_moment: log of the score moment of W_q, which is that of W_k: E Σ W²g² over one matrix, up
            to a factor of all; −inf where it is 0.
        log_value_moment: the same of W_v, which is that of W_o.
        log_mlp_moments: the same of the MLP's first and second matrix, shape (2, depth, points); None
            without.
    """

    variance: Array
    gap: Array
    entropy: Array
    log_gradient: Array
    gradient_similarity: Array
    log_query_moment: Array
    log_value_moment: Array
    log_mlp_moments: Array | None


def propagate_stack(
    stack: Stack, beta: Array, alpha: Array, *, similarity: float, gradient_similarity: float
) -> Trajectory:
    """The trajectory of every point (β, α), arrays (points,), from tokens of correlation `similarity`."""
    branches = _Branches(stack, beta)
    states = [Signal(np.ones_like(beta), np.full_like(beta, 1.0 - similarity))]
    seen: list[AttentionMoments] = []
    inner: list[Signal] = []
    for _ in range(stack.depth):
        seen.append(branches.moments(states[-1].other))
        inner.append(_added(stack, alpha, states[-1], branches.attention(states[-1], seen[-1])))
        alone = branches.mlp is None
        states.append(inner[-1] if alone else _added(stack, alpha, inner[-1], branches.through(inner[-1])))
    log_gradient = [np.zeros_like(beta)]
    alike = [np.full_like(beta, gradient_similarity)]
    log_moments: list[Array] = []
    for block in reversed(range(stack.depth)):
        back, moments = _backwards(
            stack, branches, alpha, (states[block], inner[block]), seen[block], alike[-1]
        )
        with np.errstate(divide="ignore"):  # without scores nothing comes back to the queries
            log_moments.append(np.log(np.maximum(moments, 0.0)) + log_gradient[-1])
        # Every block starts from a gradient of size 1, so that none overflows.
        log_gradient.append(log_gradient[-1] + np.log(back.same))
        alike.append(back.other / back.same)
    of_matrices = np.stack(log_moments[::-1], axis=1)
    return Trajectory(
        np.stack([state.same for state in states]),
        np.stack([state.other for state in states]),
        np.stack([one.entropy for one in seen]),
        np.stack(log_gradient[::-1]),
        np.stack(alike[::-1]),
        of_matrices[0],
        of_matrices[1],
        None if branches.mlp is None else of_matrices[2:],
    )


def _added(stack: Stack, alpha: Array, state: Signal, branch: Signal) -> Signal:
    """skip·x + α f: its variance and 1 − correlation; the variance is 1 again after a norm."""
    total = _variance(stack, alpha, state, branch)
    unlike = stack.skip**2 * state.same * state.other + alpha**2 * branch.same * branch.other
    return Signal(np.ones_like(total) if stack.norm == "post" else total, unlike / total)


def _variance(stack: Stack, alpha: Array, state: Signal, branch: Signal) -> Array:
    return stack.skip**2 * state.same + alpha**2 * branch.same


class _Branches:
    """Attention and MLP of a stack at scores of scale β: what they put out, and the way back."""

    def __init__(self, stack: Stack, beta: Array) -> None:
        self.stack, self.beta = stack, beta
        self.table = softmax_table(stack.tokens, bool(beta.max() > USUAL_SCALE))
        self.mlp = None if stack.activation is None else DualTable(stack.activation, 1.0)

    def moments(self, gap: Array) -> AttentionMoments:
        return self.table(self.beta, gap)

    def attention(self, state: Signal, m: AttentionMoments) -> Signal:
        gap = state.other
        same = 1.0 - gap * (1.0 - m.square)
        return Signal(self.stack.gain**2 * same, gap * m.difference / same)

    def through(self, state: Signal) -> Signal:
        """What the MLP puts out."""
        assert self.mlp is not None
        gap = np.asarray(self.mlp.deficit(state.other)) / self.mlp.phi_at_one
        return Signal(np.full_like(gap, self.stack.mlp_gain**2), gap)

    def back_through(self, state: Signal, back: Signal) -> tuple[Signal, tuple[Array, Array]]:
        """The gradient before the MLP, and the score moments of its two matrices."""
        assert self.mlp is not None
        others, p = self.stack.tokens - 1, 1.0 - state.other
        factor = self.stack.mlp_gain**2 / self.mlp.phi_at_one
        slope = np.asarray(self.mlp.dphi(one_minus_c=state.other))
        hidden = 1.0 - np.asarray(self.mlp.deficit(state.other)) / self.mlp.phi_at_one
        before = Signal(factor * self.mlp.dphi_at_one * back.same, factor * slope * back.other)
        second = self.stack.mlp_gain**2 * (back.same + others * back.other * hidden)
        return before, (before.same + others * before.other * p, second)

    def back_attention(
        self, state: Signal, m: AttentionMoments, back: Signal
    ) -> tuple[Signal, tuple[Array, Array]]:
        """The gradient before attention, and the score moments of W_q and W_v."""
        others, gap = self.stack.tokens - 1, state.other
        gain, p = self.stack.gain**2, 1.0 - gap
        value = gain * (back.same * m.square + others * back.other * (m.square - m.difference))
        value_other = (gain * (back.same + others * back.other) - value) / others
        through_softmax = gain * self.beta**2 * gap
        query = through_softmax * gap * back.same * m.jacobian
        query_other = through_softmax * gap * back.other * m.pair_jacobian
        key = through_softmax * (back.same * m.jacobian + others * p * back.other * m.pair_jacobian)
        before = Signal(value + query + key, value_other + query_other - key / others)
        return before, (query + others * p * query_other, value + others * p * value_other)


def _backwards(
    stack: Stack,
    branches: _Branches,
    alpha: Array,
    states: tuple[Signal, Signal],
    m: AttentionMoments,
    alike: Array,
) -> tuple[Signal, Array]:
    """The gradient before a block for one of size 1 after it, and score moments, (2 or 4, points)."""
    first, middle = states
    back = Signal(np.ones_like(alike), alike)
    moments: tuple[Array, ...] = ()
    if branches.mlp is not None:
        past, into = _split(stack, alpha, middle, branches.through(middle), back)
        branch, moments = branches.back_through(middle, into)
        back = _sum(past, branch, middle.same)
    past, into = _split(stack, alpha, first, branches.attention(first, m), back)
    branch, of_attention = branches.back_attention(first, m, into)
    return _sum(past, branch, first.same), np.stack([*of_attention, *moments])


def _split(stack: Stack, alpha: Array, state: Signal, branch: Signal, back: Signal) -> tuple[Signal, Signal]:
    """The gradients of the skip path and of the branch; in a post-LN block a norm follows their sum."""
    shrink = _variance(stack, alpha, state, branch) if stack.norm == "post" else np.ones_like(alpha)
    past, into = stack.skip**2 / shrink, alpha**2 / shrink
    return Signal(past * back.same, past * back.other), Signal(into * back.same, into * back.other)


def _sum(past: Signal, branch: Signal, variance: Array) -> Signal:
    """Both gradients; a norm before the branch has divided its own by the variance of what comes in.

    In a post-LN block that variance is 1.
    """
    return Signal(past.same + branch.same / variance, past.other + branch.other / variance)
