"""Where transformers can be trained: phases over the scale of scores and the strength of residual branches.

Dong et al. 2021 (rank collapse), Noci et al. 2022 (its effect on the gradients of queries and keys), Zhai et
al. 2023 (entropy collapse), Cowsik et al. 2024 (exponents of tokens and gradients), Giorlandino & Goldt 2026
(the transition at many tokens).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..activations import Activation
from ..activations import activation as resolve
from ..base import checks
from ..base.boundary import public
from ..base.result import Drawable
from ..base.tables import Table, frame
from ..errors import ArgumentError, EOCError, TooLargeError
from ..gaussian.duals import DualTable
from ..gaussian.softmax_tables import LARGEST_SCALE
from .attention_blocks import Norm, Stack, Trajectory, propagate_stack

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

#: Points times blocks: some microseconds each.
MOST_STEPS = 100_000_000
#: Points that are followed at once.
CHUNK = 4096
#: Tokens that a table is made for.
MOST_TOKENS = 1_000_000

#: Of gains and strengths.
LARGEST_FACTOR = 1e6

#: Tokens that share more of their variance than this after the last block are alike: rank collapse.
COLLAPSED_SIMILARITY = 0.95
#: A row of attention that attends to fewer tokens than this (e to its entropy) is nearly one-hot.
FEWEST_ATTENDED = 2.0
#: Factor between the mean squared gradients of the first and the last block that still can be trained.
GRADIENT_RANGE = 1000.0

#: The phases, in the order in which they are judged.
ATTENTION_PHASES: tuple[str, ...] = (
    "rank-collapsed",
    "entropy-collapsed",
    "exploding",
    "vanishing",
    "trainable",
)


@public
@dataclass(frozen=True, repr=False, eq=False)
class AttentionPhase(Drawable):
    """Transformers at initialisation on a grid; arrays are (len(residual_strength), len(score_scale)).

    Attributes:
        score_scale: σ_qσ_k, the standard deviation of attention scores between uncorrelated tokens.
        residual_strength: α, the factor of every branch before it is added.
        similarity: correlation p of two tokens after the last block.
        gap: 1 − p there, with digits of its own where tokens are nearly alike.
        token_exponent: mean of log((1 − p') / (1 − p)) over a block, p and p' the correlations before and
            after it, over the second half of the blocks: negative where tokens become alike, −inf where
            faster than exponentially, 0 where they stay as they are.
        gradient_exponent: mean growth of the log of the mean squared gradient over a block, towards the
            input: positive where gradients explode, negative where they vanish.
        entropy: of a row of attention weights in nats, mean over blocks.
        query_share: log of the score moment of W_q over that of W_v, mean over blocks; W_k has that of W_q,
            and W_o that of W_v. Strongly negative where queries and keys are starved of gradient.
        phase: the first of these that applies. "rank-collapsed": similarity over 0.95. "entropy-collapsed":
            e^entropy below 2, a row attends to fewer than two tokens (of two or three: below √T).
            "exploding", "vanishing": the mean squared gradient of the first block is more than 1,000 times
            that of the last, or less than 1/1,000.
            "trainable": none of them.
        tokens, depth, norm, activation, gain, mlp_gain, skip: of the blocks, see `attention_phase`.
        input_similarity, gradient_similarity: correlations of two tokens at the input, and of their gradients
            after the last block.
    """

    score_scale: Array
    residual_strength: Array
    similarity: Array
    gap: Array
    token_exponent: Array
    gradient_exponent: Array
    entropy: Array
    query_share: Array
    phase: NDArray[np.str_]
    tokens: int
    depth: int
    norm: str
    activation: Activation | None
    gain: float
    mlp_gain: float
    skip: float
    input_similarity: float
    gradient_similarity: float

    def share(self, phase: str) -> float:
        """The share of the grid's points in a phase.

        Raises:
            ArgumentError: there is no phase of that name.
        """
        name = str(phase) if isinstance(phase, np.str_) else phase  # as the entries of `phase` are
        return float(np.mean(self.phase == checks.one_of("phase", name, ATTENTION_PHASES)))

    def to_frame(self) -> pd.DataFrame:
        """One row a point, residual strength by residual strength."""
        axes = {
            "score_scale": np.tile(self.score_scale, len(self.residual_strength)),
            "residual_strength": np.repeat(self.residual_strength, len(self.score_scale)),
        }
        return frame({**axes, **{name: np.ravel(getattr(self, name)) for name in _ON_GRID}})

    def summary(self) -> str:
        """The blocks, the share of each phase, and the score scales that can be trained, as text."""
        lines = [self._headline()]
        for phase in ATTENTION_PHASES:
            where = self.phase == phase
            if not where.any():
                continue
            scales, strengths = self.score_scale[where.any(axis=0)], self.residual_strength[where.any(axis=1)]
            lines.append(
                f"{phase:<18}{where.mean():>5.0%}  score scale {scales.min():.3g} to {scales.max():.3g}, "
                f"residual strength {strengths.min():.3g} to {strengths.max():.3g}"
            )
        return "\n".join(lines)

    def _headline(self) -> str:
        mlp = "no MLP" if self.activation is None else f"{self.activation.name} MLP"
        return (
            f"{self.norm}-LN transformer, {self.depth} blocks, {self.tokens} tokens, {mlp}: "
            f"{len(self.score_scale)} x {len(self.residual_strength)} points, "
            f"{self.share('trainable'):.0%} trainable"
        )

    def _table(self) -> Table:
        """The share of each phase, and where it is."""
        rows = []
        for phase in ATTENTION_PHASES:
            where = self.phase == phase
            if where.any():
                scales = self.score_scale[where.any(axis=0)]
                strengths = self.residual_strength[where.any(axis=1)]
                spans = (f"{axis.min():.3g} to {axis.max():.3g}" for axis in (scales, strengths))
                rows.append((phase, f"{where.mean():.0%}", *spans))
        return Table(("phase", "share", "score scale", "residual strength"), tuple(rows))


@public
def attention_phase(
    score_scale: ArrayLike | None = None,
    residual_strength: ArrayLike | None = None,
    *,
    tokens: int = 64,
    depth: int = 12,
    norm: str = "pre",
    activation: Any = "gelu",
    gain: float = 1.0,
    mlp_gain: float = 1.0,
    skip: float = 1.0,
    similarity: float = 0.0,
    gradient_similarity: float = 0.0,
) -> AttentionPhase:
    """Compute rank collapse, entropy collapse and the trainable region of a transformer at initialisation.

    A block is attention, then an MLP, each added to its input: x + α f(LN(x)), "pre", or LN(x + α f(x)),
    "post". Widths and numbers of heads are infinite; attention is full, with scores q·k/√d_k. Nothing is
    sampled.

    Args:
        score_scale: σ_qσ_k, numbers in [0, 64], 1-D; σ is the standard deviation of a weight times √fan_in.
            None: 50 from 0.1 to 32.
        residual_strength: α, numbers in (0, 10⁶], 1-D. None: 50 from 0.05 to 5.
        tokens: number of tokens, at least 2.
        depth: number of blocks.
        norm: where LayerNorm or RMSNorm stands, "pre" or "post".
        activation: of the MLP, anything :func:`eoc_theory.activation` accepts; its hidden units have
            variance 1. None: no MLP.
        gain: σ_vσ_o, of value and output matrix together, in [10⁻⁶, 10⁶].
        mlp_gain: standard deviation of the MLP's output, in [10⁻⁶, 10⁶].
        skip: factor of x in the sums, in [0, 1]; 0: no skip connections.
        similarity: correlation of two tokens at the input, in [0, 1).
        gradient_similarity: correlation of the gradients of two tokens after the last block, in [0, 1]: 0
            for a loss at every token, 1 for a mean over tokens.

    Raises:
        ArgumentError: an argument outside the above. TooLargeError: more than 10⁸ points times blocks.
    """
    scales = _axis("score_scale", np.geomspace(0.1, 32.0, 50) if score_scale is None else score_scale)
    strengths = _axis(
        "residual_strength", np.geomspace(0.05, 5.0, 50) if residual_strength is None else residual_strength
    )
    stack = Stack(
        checks.integer("tokens", tokens, minimum=2, maximum=MOST_TOKENS),
        checks.integer("depth", depth, minimum=1),
        cast("Norm", checks.one_of("norm", norm, ("pre", "post"))),
        None if activation is None else resolve(activation),
        _gain("gain", gain),
        _gain("mlp_gain", mlp_gain),
        _between("skip", skip),
    )
    alike = checks.fraction("similarity", similarity)
    alike_back = _between("gradient_similarity", gradient_similarity)
    if scales.size * strengths.size * stack.depth > MOST_STEPS:
        raise TooLargeError(
            f"score_scale, residual_strength and depth must make at most {MOST_STEPS} points times blocks, "
            f"got {scales.size} x {strengths.size} x {stack.depth}"
        )
    _check_moments(stack.activation)
    grids = _on_grid(stack, scales, strengths, alike, alike_back)
    made: dict[str, Any] = dict(zip(_NUMBERS_ON_GRID, grids, strict=True)) | vars(stack)
    return AttentionPhase(
        scales,
        strengths,
        phase=_phases(
            stack.tokens, made["similarity"], made["entropy"], made["gradient_exponent"] * stack.depth
        ),
        input_similarity=alike,
        gradient_similarity=alike_back,
        **made,
    )


def _on_grid(stack: Stack, scales: Array, strengths: Array, alike: float, alike_back: float) -> list[Array]:
    """The facts of every point, each of shape (len(strengths), len(scales))."""
    beta, alpha = np.tile(scales, strengths.size), np.repeat(strengths, scales.size)
    parts: list[tuple[Array, ...]] = []
    for first in range(0, beta.size, CHUNK):
        some = slice(first, first + CHUNK)
        with np.errstate(all="ignore"):
            found = propagate_stack(
                stack, beta[some], alpha[some], similarity=alike, gradient_similarity=alike_back
            )
            parts.append(_facts(found))
    shape = (strengths.size, scales.size)
    return [np.concatenate(column).reshape(shape) for column in zip(*parts, strict=True)]


def _check_moments(activation: Activation | None) -> None:
    """Refuse an activation that puts out nothing or no finite variance."""
    if activation is None:
        return
    try:
        table = DualTable(activation, 1.0)
        usable = 0.0 < table.phi_at_one < math.inf and math.isfinite(table.dphi_at_one)
    except EOCError:
        usable = False
    if not usable:
        raise ArgumentError(
            f"activation must have finite moments > 0 under N(0, 1), got {checks.shown(activation.name)}"
        )


def _facts(found: Trajectory) -> tuple[Array, ...]:
    """Similarity, gap, token exponent, gradient exponent, entropy and share of the queries of every point."""
    depth = len(found.entropy)
    half = depth // 2
    log_gap = np.log(found.gap)
    exponent = (log_gap[-1] - log_gap[half]) / (depth - half)
    exponent = np.where(found.gap[-1] > 0.0, exponent, -np.inf)
    share = (found.log_query_moment - found.log_value_moment).mean(axis=0)
    return (
        1.0 - found.gap[-1],
        found.gap[-1],
        exponent,
        found.log_gradient[0] / depth,
        found.entropy.mean(axis=0),
        np.where(np.isnan(share), -np.inf, share),
    )


def _phases(tokens: int, similarity: Array, entropy: Array, growth: Array) -> NDArray[np.str_]:
    """The phase of every point, the first of ATTENTION_PHASES that applies."""
    range_ = math.log(GRADIENT_RANGE)
    conditions = (
        similarity > COLLAPSED_SIMILARITY,
        entropy < min(math.log(FEWEST_ATTENDED), 0.5 * math.log(tokens)),
        growth > range_,
        growth < -range_,
    )
    return np.select(conditions, ATTENTION_PHASES[:4], ATTENTION_PHASES[4]).astype(np.str_)


def _axis(name: str, values: ArrayLike) -> Array:
    lowest = name == "score_scale"
    accepted = (
        f"a 1-D array of numbers in [0, {LARGEST_SCALE:g}]"
        if lowest
        else "a 1-D array of numbers in (0, 1e6]"
    )
    array = checks.numbers_of(name, values, accepted)
    if array.ndim != 1 or array.size == 0:
        raise ArgumentError(f"{name} must be {accepted}, got shape {array.shape}")
    inside = (
        (array >= 0.0) & (array <= LARGEST_SCALE) if lowest else (array > 0.0) & (array <= LARGEST_FACTOR)
    )
    if not inside.all():
        raise ArgumentError(f"{name} must be {accepted}, got {array[~inside][0]:g}")
    return array


def _gain(name: str, value: Any) -> float:
    number = checks.positive(name, value)
    if not 1.0 / LARGEST_FACTOR <= number <= LARGEST_FACTOR:
        raise ArgumentError(f"{name} must be a number in [1e-6, 1e6], got {number:g}")
    return number


def _between(name: str, value: Any) -> float:
    number = checks.finite(name, value)
    if not 0.0 <= number <= 1.0:
        raise ArgumentError(f"{name} must be a number in [0, 1], got {number:g}")
    return number


def _numbers(values: Any) -> Array:
    """Lists of numbers as `to_dict` has them: None is nan, the infinities are text."""
    array = np.array(values, dtype=object)
    flat = [math.nan if value is None else float(value) for value in array.ravel()]
    return np.array(flat).reshape(array.shape)


_NUMBERS_ON_GRID = ("similarity", "gap", "token_exponent", "gradient_exponent", "entropy", "query_share")
_ON_GRID = (*_NUMBERS_ON_GRID, "phase")
