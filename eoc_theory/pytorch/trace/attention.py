"""Attention, however it is written: as one function, or as products of queries, keys and values."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from ...layers import Attention, ChannelShuffle, Matrix
from . import layout as lay
from .constants import number
from .layout import BATCH, CHANNELS, EXPANDED, Layout
from .readers import HINTS, reads
from .recorder import Recorder, describe
from .values import Constant, Lazy, Signal

#: What is added to the scores of a masked pair, at most: published code adds −10⁴ or less.
_MASKED = -5e3


class Headed(NamedTuple):
    """A tensor (…, tokens, features) by heads.

    Attributes:
        node: of the graph's value, whose channels are heads one after the other.
        heads: in it; `repeats` is how often each stands in the tensor.
        size: channels of a head.
        layout: the tensor's.
    """

    node: int
    heads: int
    repeats: int
    size: int
    layout: Layout


def headed(recorder: Recorder, signal: Any, *, swapped: bool = False) -> Headed:
    """A tensor (…, tokens, features), or with `swapped` (…, features, tokens), by heads.

    Raises:
        ModelError: its dimensions are no such ones.
    """
    signal = recorder.check(signal)
    layout = signal.layout
    if swapped:
        layout = (*layout[:-2], layout[-1], layout[-2])
    *lead, tokens, features = layout
    before = [factor for dimension in lead for factor in dimension]
    heads = [factor for factor in before if factor.axis == CHANNELS]
    repeated = [factor for factor in before if factor.axis == EXPANDED]
    channels = [*heads, *features]
    positions = lay.joined([f for axis, n in enumerate(signal.shape.space, 1) for f in lay.whole(axis, n)])
    whole = all(factor.axis == CHANNELS for factor in features) and (
        math.prod(f.size for f in channels) == signal.shape.channels
    )
    one_batch = lay.joined([f for f in before if f.axis == BATCH]) == lay.whole(BATCH, recorder.batch)
    if tokens != positions or not whole or not one_batch or len(before) != (
        len(heads) + len(repeated) + sum(f.axis == BATCH for f in before)
    ):  # fmt: skip
        raise recorder.refuse(
            f"attention is read over all tokens of an input, head by head, got a tensor of shape "
            f"{recorder.text(signal)}"
        )
    if repeated and heads and before.index(repeated[0]) < before.index(heads[-1]):
        raise recorder.refuse("attention is read where each head of keys serves neighbouring queries")
    node = recorder.position(signal)
    if lay.joined(channels) != lay.whole(CHANNELS, signal.shape.channels):
        by_stride = sorted(channels, key=lambda factor: -factor.stride)
        order = tuple(by_stride.index(factor) for factor in channels)
        shuffle = ChannelShuffle(recorder.label(), tuple(f.size for f in by_stride), order)
        node = recorder.position(recorder.add(shuffle, node))
    count = math.prod(f.size for f in heads)
    return Headed(node, count, math.prod(f.size for f in repeated), lay.extent_of(features), layout)


def attend(
    recorder: Recorder, q: Headed, k: Headed, value: Any, scale: float, causal: bool = False,
    drop: float = 0.0, mask: Matrix | None = None, grouped: bool = False,
) -> Signal:  # fmt: skip
    """The value of attention, a tensor (…, tokens of q, features of v)."""
    v = headed(recorder, value)
    if q.repeats > 1 or k.repeats != v.repeats or k.heads != v.heads:
        raise recorder.refuse("attention is read where keys and values have the same heads")
    if not grouped and q.heads != k.heads * k.repeats:
        raise recorder.refuse(f"attention has {q.heads} heads of queries and {k.heads * k.repeats} of keys")
    layer = Attention(recorder.label(), q.heads, k.heads, scale, causal, drop, mask)
    made = recorder.add(layer, q.node, k.node, v.node)
    # Heads lie as those of q do, each with as many channels as v has.
    *lead, tokens, _ = q.layout
    stride = q.heads * v.size
    dimensions = []
    for dimension in lead:
        factors = []
        for factor in dimension:
            if factor.axis == CHANNELS:
                stride //= factor.size
                factor = lay.Factor(CHANNELS, stride, factor.size)
            factors.append(factor)
        dimensions.append(lay.joined(factors))
    return replace(made, layout=(*dimensions, tokens, lay.whole(CHANNELS, v.size)))


@reads("scaled_dot_product_attention")
def _sdpa(
    recorder: Recorder, query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: Any = None, enable_gqa: bool = False,
) -> Any:  # fmt: skip
    q, k = headed(recorder, query), headed(recorder, key)
    scale = q.size**-0.5 if scale is None else float(number(scale))
    causal, mask = fixed_mask(recorder, attn_mask, q, k, boolean_keeps=True)
    return attend(
        recorder, q, k, value, scale, bool(is_causal) or causal, float(dropout_p), mask, bool(enable_gqa)
    )


def fixed_mask(
    recorder: Recorder, mask: Any, q: Headed, k: Headed, *, boolean_keeps: bool
) -> tuple[bool, Matrix | None]:
    """Whether a mask is the causal one, and what else it adds to the scores."""
    if mask is None:
        return False, None
    if not isinstance(mask, Constant):
        raise recorder.refuse(f"attention takes masks that do not depend on the input, got {describe(mask)}")
    tensor = mask.tensor.detach()
    if tensor.dtype is torch.bool:
        closed = ~tensor if boolean_keeps else tensor
        tensor = torch.zeros(tensor.shape).masked_fill(closed, -math.inf)
    sizes = tuple(lay.extent_of(layout[-2]) for layout in (q.layout, k.layout))
    tensor = tensor.double().expand(torch.broadcast_shapes(tensor.shape, sizes))
    flat = tensor.reshape(-1, *sizes)
    if not bool((flat == flat[:1]).all()):
        raise recorder.refuse("attention takes one mask for all inputs and heads, got several")
    return _as_mask(flat[0].numpy())


def _as_mask(added: np.ndarray) -> tuple[bool, Matrix | None]:
    added = np.where(added <= _MASKED, -np.inf, added)
    if not added.any():
        return False, None
    later = np.triu(np.ones(added.shape, dtype=bool), 1)
    if np.array_equal(added == -np.inf, later) and not added[~later].any():
        return True, None
    return False, Matrix.of(added)


# --- written out: softmax(q·kᵀ) v ---


@dataclass(frozen=True, eq=False)
class Scores(Lazy):
    """Products of queries and keys, (…, queries, keys), and what was done to them so far.

    Attributes:
        q, k: of which heads.
        sizes: the tensor's.
        scale: what they are multiplied by.
        added: what is added to all heads', (queries, keys).
        weights: whether the softmax has been taken.
        drop: probability with which weights are dropped.
    """

    q: Headed
    k: Headed
    sizes: tuple[int, ...]
    scale: float = 1.0
    added: np.ndarray | None = None
    weights: bool = False
    drop: float = 0.0

    def read(self, recorder: Recorder, name: str, given: dict[str, Any]) -> Any:
        reader = _SCORES.get(name)
        if reader is None:
            raise recorder.refuse(f"of products of two tensors cannot be read; {HINTS['matmul']}")
        return reader(self, recorder, **given)

    def _scaled(self, recorder: Recorder, factor: Any) -> Scores:
        factor = number(factor)
        if not isinstance(factor, float) or self.weights:
            raise recorder.refuse(f"multiplies attention by numbers only, got {describe(factor)}")
        added = None if self.added is None else self.added * factor
        return replace(self, scale=self.scale * factor, added=added)

    def _plus(self, recorder: Recorder, other: Any, factor: float = 1.0) -> Scores:
        if self.weights or not isinstance(other, Constant):
            raise recorder.refuse(
                f"adds to the scores of attention what is fixed only, got {describe(other)}"
            )
        tensor = other.tensor.detach().double() * factor
        if tensor.dtype is torch.bool or not _fits(tensor, self.sizes):
            raise recorder.refuse(f"adds a tensor of shape {tuple(tensor.shape)} to scores of {self.sizes}")
        own = _one_matrix(recorder, tensor, self.sizes[-2:])
        return replace(self, added=own if self.added is None else self.added + own)


def _fits(tensor: torch.Tensor, sizes: tuple[int, ...]) -> bool:
    try:
        return torch.broadcast_shapes(tensor.shape, sizes) == torch.Size(sizes)
    except RuntimeError:
        return False


def _one_matrix(recorder: Recorder, tensor: torch.Tensor, sizes: tuple[int, ...]) -> np.ndarray:
    flat = tensor.expand(torch.broadcast_shapes(tensor.shape, sizes)).reshape(-1, *sizes)
    if not bool((flat == flat[:1]).all()):
        raise recorder.refuse("attention takes one mask for all inputs and heads, got several")
    return flat[0].numpy()


def product(recorder: Recorder, left: Any, right: Any) -> Any:
    """The product of two tensors' last two dimensions: scores of queries and keys."""
    if isinstance(left, Constant) or isinstance(right, Constant):
        raise recorder.refuse(f"cannot be read; {HINTS['matmul']}")
    axis = lay.axis_of(recorder.check(right).layout[-1])
    if axis is None or axis <= CHANNELS:
        raise recorder.refuse(f"cannot be read; {HINTS['matmul']}")
    q, k = headed(recorder, left), headed(recorder, right, swapped=True)
    if q.size != k.size or q.heads != k.heads * k.repeats:
        raise recorder.refuse(f"cannot be read; {HINTS['matmul']}")
    sizes = (*recorder.check(left).sizes[:-1], recorder.check(right).sizes[-1])
    return Scores(q, k, sizes)


@reads("bmm", "baddbmm")
def _bmm(
    recorder: Recorder, input: Any, mat2: Any = None, batch1: Any = None, batch2: Any = None, beta: Any = 1,
    alpha: Any = 1,
) -> Any:  # fmt: skip
    if batch1 is None:
        return product(recorder, input, mat2)
    scores = product(recorder, batch1, batch2)._scaled(recorder, alpha)
    return scores if beta == 0 else scores._plus(recorder, input, float(beta))


def _times(scores: Scores, recorder: Recorder, input: Any, other: Any, **rest: Any) -> Any:
    return scores._scaled(recorder, other if isinstance(input, Scores) else input)


def _over(scores: Scores, recorder: Recorder, input: Any, other: Any, **rest: Any) -> Any:
    divisor = number(other)
    if isinstance(divisor, float) and divisor != 0.0 and input is scores:
        return scores._scaled(recorder, 1.0 / divisor)
    raise recorder.refuse(f"divides attention by numbers only, got {describe(other)}")


def _added(scores: Scores, recorder: Recorder, input: Any, other: Any, alpha: Any = 1) -> Any:
    if input is scores:
        return scores._plus(recorder, other, float(number(alpha)))
    return scores._plus(recorder, input)


def _filled(scores: Scores, recorder: Recorder, input: Any, mask: Any, value: Any) -> Any:
    value = number(value)
    if not isinstance(mask, Constant) or not isinstance(value, float):
        raise recorder.refuse("fills the scores of attention under a fixed mask with a number only")
    return _closed(scores, recorder, mask.tensor.bool(), value)


def _where(scores: Scores, recorder: Recorder, condition: Any, input: Any, other: Any) -> Any:
    value = number(other)
    if not isinstance(condition, Constant) or input is not scores or not isinstance(value, float):
        raise recorder.refuse("fills the scores of attention under a fixed mask with a number only")
    return _closed(scores, recorder, ~condition.tensor.bool(), value)


def _closed(scores: Scores, recorder: Recorder, closed: torch.Tensor, value: float) -> Scores:
    if bool(closed.any()) and value > _MASKED:
        raise recorder.refuse(f"fills the scores of attention with −∞ (or −10⁴ and less) only, got {value:g}")
    mask = torch.zeros(closed.shape, dtype=torch.float64).masked_fill(closed, -math.inf)
    return scores._plus(recorder, Constant(mask))


def _softmaxed(scores: Scores, recorder: Recorder, input: Any, dim: int, **rest: Any) -> Any:
    if scores.weights or dim % len(scores.sizes) != len(scores.sizes) - 1:
        raise recorder.refuse("is read over the keys of attention only")
    return replace(scores, weights=True)


def _dropped(scores: Scores, recorder: Recorder, input: Any, p: float, train: bool, **rest: Any) -> Any:
    if not train or p == 0:
        return scores
    if not scores.weights or p >= 1:
        raise recorder.refuse("drops attention weights after the softmax only")
    return replace(scores, drop=1.0 - (1.0 - scores.drop) * (1.0 - float(p)))


def _same(scores: Scores, recorder: Recorder, input: Any, **rest: Any) -> Any:
    return scores


def _viewed(
    scores: Scores, recorder: Recorder, input: Any, size: Any = None, shape: Any = None, **rest: Any
) -> Any:
    wanted = list(size if size is not None else shape)
    total = math.prod(scores.sizes)
    if -1 in wanted:
        wanted[wanted.index(-1)] = total // -math.prod(wanted)
    if tuple(wanted[-2:]) != scores.sizes[-2:] or math.prod(wanted) != total:
        raise recorder.refuse(f"scores of attention {scores.sizes} cannot be given the shape {tuple(wanted)}")
    return replace(scores, sizes=tuple(wanted))


def _mixed(scores: Scores, recorder: Recorder, input: Any, other: Any = None, mat2: Any = None) -> Any:
    """The product of attention weights with values."""
    value = other if other is not None else mat2
    if input is not scores or not scores.weights or not isinstance(value, (Signal, Lazy)):
        raise recorder.refuse(f"cannot be read; {HINTS['matmul']}")
    causal, mask = (False, None) if scores.added is None else _as_mask(scores.added)
    # Values lie in the queries' dimensions, or in one that holds all heads.
    return attend(recorder, scores.q, scores.k, value, scores.scale, causal, scores.drop, mask)


_SCORES: dict[str, Any] = {
    "mul": _times, "div": _over, "add": _added, "masked_fill": _filled, "where": _where,
    "softmax": _softmaxed, "_softmax": _softmaxed, "dropout": _dropped, "view": _viewed, "reshape": _viewed,
    "_unsafe_view": _viewed, "expand": _viewed, "matmul": _mixed, "bmm": _mixed,
    **dict.fromkeys(("contiguous", "to", "_to_copy", "type_as", "clone", "alias", "detach"), _same),
}  # fmt: skip
