"""Attention, however it is written: as one function, or as products of queries, keys and values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from ...layers import Attention, ChannelShuffle, FixedValue, HeadProduct, Matrix, Product
from ...signals.parts import MASKED
from . import layout as lay
from .constants import number
from .known import closing, node_of
from .layout import BATCH, CHANNELS, EXPANDED, Layout, is_position, of_positions, places
from .matrices import laid_out, multiplied
from .normalisation import normalised
from .positions import gathered
from .randomness import dropout
from .readers import HINTS, reads
from .recorder import Recorder, describe
from .values import Constant, Lazy, PaddingError, Signal

#: What stands for −∞ among numbers.
_CLOSED = -1e4


class Headed(NamedTuple):
    """A tensor (…, tokens, features) by heads.

    Attributes:
        node: of the graph's value, whose channels are heads one after the other, and positions windows.
        heads: in it; `repeats` is how often each stands in the tensor.
        size: channels of a head.
        windows: runs of positions that are no tokens of each other, one after the other.
        layout: the tensor's, over that value.
    """

    node: int
    heads: int
    repeats: int
    size: int
    windows: int
    layout: Layout


def headed(recorder: Recorder, signal: Any, *, swapped: bool = False) -> Headed:
    """A tensor (…, tokens, features), or with `swapped` (…, features, tokens), by heads.

    Raises:
        ModelError: its dimensions are no such ones.
    """
    signal = recorder.check(signal)
    if swapped:
        signal = _turned(signal)
    signal = _in_every_window(recorder, signal)
    layout = signal.layout
    *lead, tokens, features = layout
    before = [factor for dimension in lead for factor in dimension]
    heads = [factor for factor in before if factor.axis == CHANNELS]
    repeated = [factor for factor in before if factor.axis == EXPANDED]
    windows = tuple(filter(is_position, before))
    channels = [*heads, *features]
    whole = all(factor.axis == CHANNELS for factor in features) and (
        math.prod(f.size for f in channels) == signal.shape.channels
    )
    covered = lay.extent_of(windows) * lay.extent_of(of_positions(tokens)) == signal.shape.positions
    one_batch = lay.joined([f for f in before if f.axis == BATCH]) == lay.whole(BATCH, recorder.batch)
    if not (whole and covered and one_batch and tokens == of_positions(tokens)):
        raise recorder.refuse(
            f"attention is read over tokens of an input, head by head, got a tensor of shape "
            f"{recorder.text(signal)}"
        )
    if repeated and heads and before.index(repeated[0]) < before.index(heads[-1]):
        raise recorder.refuse("attention is read where each head of keys serves neighbouring queries")
    node, layout = _in_windows(recorder, signal, lead, windows, tokens)
    if lay.joined(channels) != lay.whole(CHANNELS, signal.shape.channels):
        by_stride = sorted(channels, key=lambda factor: -factor.stride)
        order = tuple(by_stride.index(factor) for factor in channels)
        shuffle = ChannelShuffle(recorder.label(), tuple(f.size for f in by_stride), order)
        node = recorder.position(recorder.add(shuffle, node))
    count, repeats = math.prod(f.size for f in heads), math.prod(f.size for f in repeated)
    size = lay.extent_of(features)
    return Headed(node, count, repeats, size, lay.extent_of(windows), (*layout, features))


def _turned(signal: Signal) -> Signal:
    """With its last two dimensions exchanged."""
    *lead, first, second = signal.layout
    return replace(signal, layout=(*lead, second, first))


def _in_every_window(recorder: Recorder, signal: Signal) -> Signal:
    """A tensor that is repeated before its heads, for each window, with windows of its own."""
    *lead, tokens, features = signal.layout
    before = [factor for dimension in lead for factor in dimension]
    repeated = [at for at, factor in enumerate(before) if factor.axis == EXPANDED]
    heads = [at for at, factor in enumerate(before) if factor.axis == CHANNELS]
    count, size = signal.shape.positions, lay.extent_of(tokens)
    if not repeated or not heads or max(repeated) > min(heads) or size != count or len(repeated) > 1:
        return signal
    windows = before[repeated[0]].size
    chosen = lay.places((tokens,), signal.shape.space)
    made = gathered(recorder, signal, np.tile(chosen, windows), (windows, count))
    new = [tuple(f._replace(axis=1) if f.axis == EXPANDED else f for f in dimension) for dimension in lead]
    return replace(made, layout=(*new, lay.whole(2, count), features))


def _in_windows(
    recorder: Recorder, signal: Signal, lead: Sequence[lay.Dimension], windows: lay.Dimension,
    tokens: lay.Dimension,
) -> tuple[int, Layout]:  # fmt: skip
    """The node whose positions are the tokens, those of a window together, and the layout but for the last
    dimension."""
    space = signal.shape.space
    positions = lay.joined([f for axis, n in enumerate(space, 1) for f in lay.whole(axis, n)])
    if not windows and tokens == positions and space:
        return recorder.position(signal), (*lead, tokens)
    counts = lay.extent_of(windows), lay.extent_of(tokens)
    made = gathered(recorder, signal, places((windows, tokens), space), counts)
    stride, layout = counts[0], []
    for dimension in lead:
        factors = []
        for factor in dimension:
            if is_position(factor):
                stride //= factor.size
                factor = lay.Factor(1, stride, factor.size)
            factors.append(factor)
        layout.append(lay.joined(factors))
    return recorder.position(made), (*layout, lay.whole(2, counts[1]))


def _kinds(layout: Layout) -> list[tuple[int, int]]:
    """What the dimensions before the last two hold, in order: inputs, heads, windows."""
    factors = [factor for dimension in layout[:-2] for factor in dimension]
    merged: list[tuple[int, int]] = []
    for factor in factors:
        kind = min(factor.axis, 1)
        if merged and merged[-1][0] == kind:
            merged[-1] = (kind, merged[-1][1] * factor.size)
        else:
            merged.append((kind, factor.size))
    return merged


def attend(
    recorder: Recorder, q: Headed, k: Headed, value: Any, scale: float, causal: bool = False,
    drop: float = 0.0, mask: Matrix | None = None, grouped: bool = False, channelwise: bool = False,
    biases: Sequence[int] = (), padding: int | None = None,
) -> Signal:  # fmt: skip
    """The value of attention, a tensor (…, tokens of q, features of v); or with `channelwise` the reverse."""
    v = headed(recorder, value, swapped=channelwise)
    if q.repeats > 1 or k.repeats != v.repeats or k.heads != v.heads:
        raise recorder.refuse("attention is read where keys and values have the same heads")
    if not grouped and q.heads != k.heads * k.repeats != 1:
        raise recorder.refuse(f"attention has {q.heads} heads of queries and {k.heads * k.repeats} of keys")
    if max(q.windows, k.windows, v.windows) > 1 and not (_kinds(q.layout) == _kinds(k.layout) == (
        _kinds(v.layout)
    )):  # fmt: skip
        raise recorder.refuse("attention within windows is read where queries, keys and values share them")
    layer = Attention(
        recorder.label(), q.heads, k.heads, scale, causal, drop, mask, q.windows, channelwise, bool(biases),
        padding is not None,
    )  # fmt: skip
    beside = biases if padding is None else (*biases, padding)
    made = recorder.add(layer, q.node, k.node, v.node, *beside)
    if channelwise:
        return _turned(replace(made, layout=q.layout))
    # Heads lie as those of q do, each with as many channels as v has.
    *lead, tokens, _ = q.layout
    dimensions, _ = lay.laid_anew(lead, q.heads * v.size)
    return replace(made, layout=(*dimensions, tokens, lay.whole(CHANNELS, v.size)))


@reads("scaled_dot_product_attention")
def _sdpa(
    recorder: Recorder, query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: Any = None, enable_gqa: bool = False,
) -> Any:  # fmt: skip
    turned = is_channelwise(recorder.check(query))
    q, k = headed(recorder, query, swapped=turned), headed(recorder, key, swapped=turned)
    if turned and (attn_mask is not None or is_causal or scale is None):
        raise recorder.refuse("attention of channels to channels is read with a scale and without a mask")
    scale = q.size**-0.5 if scale is None else float(number(scale))
    biases: tuple[int, ...] = ()
    if isinstance(attn_mask, Signal):
        biases, attn_mask = (_bias(recorder, attn_mask, q.layout[:-2], _pairs(q, k)),), None
    mask = _added_by(recorder, attn_mask)
    added, padding = (None, None) if mask is None else _parted(recorder, mask, q.layout[:-2], _pairs(q, k))
    causal, fixed = (False, None) if added is None else _as_mask(added)
    return attend(
        recorder, q, k, value, scale, bool(is_causal) or causal, float(dropout_p), fixed, bool(enable_gqa),
        turned, biases, padding,
    )  # fmt: skip


def is_channelwise(query: Signal) -> bool:
    """Whether what attends, in the dimension before the last, are channels, by what they are worth at the
    positions."""
    first, second = query.layout[-2:]
    return lay.axis_of(first) == CHANNELS and bool(second) and second == of_positions(second)


def _added_by(recorder: Recorder, mask: Any) -> Constant | None:
    """What a mask adds to scores, in double precision; of booleans −∞ where they are false."""
    if mask is None:
        return None
    if not isinstance(mask, Constant):
        raise recorder.refuse(f"attention takes masks that do not depend on the input, got {describe(mask)}")

    def added(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.detach()
        if tensor.dtype is torch.bool:
            return torch.zeros(tensor.shape, dtype=torch.float64).masked_fill(~tensor, -math.inf)
        return tensor.double()

    return Constant(added(mask.tensor), known=None if mask.known is None else added(mask.known))


def _parted(
    recorder: Recorder, added: Constant, lead: Layout, pairs: tuple[int, int]
) -> tuple[np.ndarray, int | None]:
    """What is added to scores (…, queries, keys) in every input, as of `_by_heads`, and the node of the keys
    that are open, where those that are padding are closed besides."""
    if added.known is None:
        return _by_heads(recorder, added.tensor, lead, pairs), None
    fixed = _by_heads(recorder, added.known, lead, pairs)
    sources = closing(recorder, added.tensor, added.known, lead, pairs)
    if sources is None:
        raise PaddingError(str(recorder.refuse("adds to scores what is no mask of padding")))
    return fixed, node_of(recorder, sources)


def _pairs(q: Headed, k: Headed) -> tuple[int, int]:
    """How many queries there are, and keys."""
    return lay.extent_of(q.layout[-2]), lay.extent_of(k.layout[-2])


def _by_heads(recorder: Recorder, tensor: torch.Tensor, lead: Layout, pairs: tuple[int, int]) -> np.ndarray:
    """What is added to scores (…, queries, keys), as (heads or 1, windows or 1, queries, keys).

    Args:
        lead: of the scores' dimensions before the last two.
    """
    sizes = (*map(lay.extent_of, lead), *pairs)
    try:
        fits = torch.broadcast_shapes(tensor.shape, sizes) == torch.Size(sizes)
    except RuntimeError:
        fits = False
    if not fits:
        raise recorder.refuse(f"adds a tensor of shape {tuple(tensor.shape)} to scores of {sizes}")
    own = (1,) * (len(sizes) - tensor.dim()) + tuple(tensor.shape)
    factors = [(f, f.size if n > 1 else 1) for d, n in zip(lead, own[:-2], strict=True) for f in d]
    cut = tensor.reshape(*(n for _, n in factors), *own[-2:])
    for at, (factor, n) in enumerate(factors):
        if n > 1 and bool((cut == cut.narrow(at, 0, 1)).all()):
            cut = cut.narrow(at, 0, 1)
        elif n > 1 and factor.axis == BATCH:
            raise recorder.refuse("attention takes one mask for all inputs, got several")
    heads = [at for at, (factor, _) in enumerate(factors) if factor.axis == CHANNELS]
    windows = [at for at, (factor, _) in enumerate(factors) if is_position(factor)]
    wanted = [1] * len(factors)
    for some in (heads, windows):
        if any(cut.shape[at] > 1 for at in some):
            for at in some:
                wanted[at] = factors[at][0].size
    others = [at for at in range(len(factors)) if at not in (*heads, *windows)]
    whole = cut.expand(*wanted, *pairs).permute(*others, *heads, *windows, -2, -1)
    counts = (math.prod(wanted[at] for at in some) for some in (heads, windows))
    return whole.reshape(*counts, *pairs).numpy()


def _bias(recorder: Recorder, signal: Signal, lead: Layout, pairs: tuple[int, int]) -> int:
    """The node of biases that layers make, (heads, windows or none, queries, keys), of scores (…, queries,
    keys).

    Raises:
        ModelError: they depend on the input, or are no such ones.
    """
    signal = recorder.check(signal)
    *own, rows, columns = signal.layout
    own = [()] * (len(lead) - len(own)) + own
    factors = [factor for dimension in own for factor in dimension]
    windows = tuple(filter(is_position, factors))
    heads = lay.joined([factor for factor in factors if factor.axis == CHANNELS])
    of_scores = [factor for dimension in lead for factor in dimension if is_position(factor)]
    alike = all(
        math.prod(f.size for f in mine if f.axis == CHANNELS)
        == math.prod(f.size for f in theirs if f.axis == CHANNELS)
        for mine, theirs in zip(own, lead, strict=False)
    )
    if (
        len(own) != len(lead) or not alike or {f.axis for f in factors} & {BATCH, EXPANDED}
        or heads != lay.whole(CHANNELS, signal.shape.channels) or signal.sizes[-2:] != pairs
        or (windows and lay.extent_of(windows) != lay.extent_of(tuple(of_scores)))
        or not (_are_tokens(rows) and _are_tokens(columns))
    ):  # fmt: skip
        raise recorder.refuse(
            "adds to the scores of attention what differs between inputs, or is not one number for each head "
            "and pair of tokens"
        )
    table = places((windows, rows, columns), signal.shape.space)
    return recorder.position(gathered(recorder, signal, table.reshape(-1), (table.size,)))


def _as_mask(added: np.ndarray) -> tuple[bool, Matrix | None]:
    """Whether what is added, (heads or 1, windows or 1, queries, keys), is the causal mask, and else that."""
    added = np.where(added <= MASKED, -np.inf, added)
    if added.shape[:2] != (1, 1):
        return False, Matrix.of(added)
    added = added[0, 0]
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
        lead: of the tensor's dimensions before the last two.
        scale: what they are multiplied by.
        added: what is added to them, (heads or 1, windows or 1, queries, keys).
        biases: node of what is added to them that layers make, if any.
        padding: the node of the keys that are open, where those that are padding are closed.
        weights: whether the softmax has been taken.
        drop: probability with which weights are dropped.
        channelwise: whether queries and keys are channels.
    """

    q: Headed
    k: Headed
    lead: Layout
    scale: float = 1.0
    added: np.ndarray | None = None
    biases: tuple[int, ...] = ()
    weights: bool = False
    drop: float = 0.0
    channelwise: bool = False
    padding: int | None = None

    takes_padding = True

    @property
    def sizes(self) -> tuple[int, ...]:
        """The tensor's."""
        return (*map(lay.extent_of, self.lead), *self.pairs)

    @property
    def pairs(self) -> tuple[int, int]:
        """How many queries there are, and keys."""
        return (self.q.size, self.k.size) if self.channelwise else _pairs(self.q, self.k)

    def read(self, recorder: Recorder, name: str, given: dict[str, Any]) -> Any:
        reader = _SCORES.get(name)
        return NotImplemented if reader is None else reader(self, recorder, **given)

    def settled(self, recorder: Recorder) -> Signal:
        """The scores or weights themselves, as a node's value."""
        if self.k.repeats > 1 or self.biases or self.padding is not None:
            raise recorder.refuse("attention is read where scores are used by a softmax over keys alone")
        if self.q.windows != self.k.windows or _kinds(self.q.layout) != _kinds(self.k.layout):
            raise recorder.refuse("products are read where both tensors have the same heads and windows")
        kinds = ("cp", "pc") if self.channelwise else ("pc", "cp")
        size = _pairs(self.q, self.k)[0] if self.channelwise else self.q.size
        layer = HeadProduct(recorder.label(), *kinds, size, self.q.heads, self.q.windows)
        made = recorder.scaled(recorder.add(layer, self.q.node, self.k.node), self.scale)
        if self.added is not None:
            table = np.maximum(self.added, _CLOSED)
            table = np.broadcast_to(table, (self.q.heads, self.q.windows, *self.pairs))
            fixed = FixedValue(
                recorder.label(), Matrix.of(table.reshape(made.shape.channels, -1)), made.shape.space
            )
            made = recorder.sum([(made, 1.0), (recorder.add(fixed, 0), 1.0)])
        axes = "cc" if self.channelwise else "pp"
        made = replace(made, layout=laid_out(self.lead, self.pairs, axes, self.q.windows, made))
        if self.weights:
            made = normalised(recorder, made, len(made.layout) - 1)
        return dropout(recorder, made, self.drop, self.drop > 0)

    def _scaled(self, recorder: Recorder, factor: Any) -> Scores:
        factor = number(factor)
        if isinstance(factor, Constant) and bool((factor.tensor == factor.tensor.reshape(-1)[0]).all()):
            factor = float(factor.tensor.reshape(-1)[0])
        if not isinstance(factor, float) or self.weights or self.biases:
            return NotImplemented
        added = None if self.added is None else self.added * factor
        return replace(self, scale=self.scale * factor, added=added)

    def _plus(self, recorder: Recorder, other: Any, factor: float = 1.0) -> Scores:
        fixed = isinstance(other, Signal) and other.is_fixed and not self.biases and not self.channelwise
        if fixed and not self.weights and factor == 1.0:
            return replace(self, biases=(_bias(recorder, other, self.lead, self.pairs),))
        if number(other) == 0.0 and not self.weights:
            return self
        if self.weights or not isinstance(other, Constant):
            return NotImplemented
        if other.tensor.dtype is torch.bool:
            raise recorder.refuse("adds a mask of booleans to the scores of attention")
        added = Constant(
            other.tensor.detach().double() * factor,
            known=None if other.known is None else other.known.detach().double() * factor,
        )
        own, padding = _parted(recorder, added, self.lead, self.pairs)
        added = own if self.added is None else self.added + own
        if padding is not None and self.padding is not None and padding != self.padding:
            both = Product(recorder.unique("known tokens"))
            padding = recorder.position(recorder.add(both, padding, self.padding))
        return replace(self, added=added, padding=self.padding if padding is None else padding)


def product(recorder: Recorder, left: Any, right: Any) -> Any:
    """The product of two tensors' last two dimensions: scores of queries and keys."""
    if isinstance(left, Constant) or isinstance(right, Constant):
        raise recorder.refuse(f"cannot be read; {HINTS['matmul']}")
    left, right = recorder.check(left), recorder.check(right)
    last = right.layout[-1]
    channelwise = is_channelwise(left) and lay.axis_of(last) == CHANNELS
    if not channelwise and not (last and _are_tokens(left.layout[-2]) and _are_tokens(last)):
        return multiplied(recorder, left, right)
    q = headed(recorder, left, swapped=channelwise)
    k = headed(recorder, right, swapped=not channelwise)
    alike = q.layout[-2] == k.layout[-2] if channelwise else q.size == k.size
    if not alike or q.heads != k.heads * k.repeats != 1:
        return multiplied(recorder, left, right)
    return Scores(q, k, q.layout[:-2], channelwise=channelwise)


def _are_tokens(dimension: lay.Dimension) -> bool:
    return dimension == of_positions(dimension)


@reads("bmm", "baddbmm")
def _bmm(
    recorder: Recorder, input: Any, mat2: Any = None, batch1: Any = None, batch2: Any = None, beta: Any = 1,
    alpha: Any = 1,
) -> Any:  # fmt: skip
    if batch1 is None:
        return product(recorder, input, mat2)
    scores = product(recorder, batch1, batch2)._scaled(recorder, alpha)
    return scores if beta == 0 else scores._plus(recorder, input, float(beta))


@reads("einsum")
def _einsum(recorder: Recorder, equation: str, tensors: Any, path: Any = None) -> Any:
    """A product over the last dimension of both (queries and keys), or of scores and values."""
    terms, _, wanted = equation.replace(" ", "").partition("->")
    parts = terms.split(",")
    if len(parts) == 2 and len(tensors) == 2 and min(map(len, parts)) > 1:
        (a, b), (left, right) = parts, tensors
        if a[:-2] == b[:-2] == wanted[:-2] and wanted[-2:] in (a[-2] + b[-2], a[-2] + b[-1]):
            if wanted[-1] == b[-2] and a[-1] == b[-1]:
                return product(recorder, left, _turned(recorder.check(right)))
            if a[-1] == b[-2] and isinstance(left, Signal):
                return product(recorder, left, right)
    raise recorder.refuse(f"cannot be read; {HINTS['einsum']}")


def _einsum_of_scores(scores: Scores, recorder: Recorder, equation: str, tensors: Any, **rest: Any) -> Any:
    terms, _, wanted = equation.replace(" ", "").partition("->")
    a, _, b = terms.partition(",")
    if len(tensors) != 2 or tensors[0] is not scores or (
        (a[:-2], a[-1], a[-2] + b[-1]) != (b[:-2], b[-2], wanted[-2:])
    ):  # fmt: skip
        return NotImplemented
    return _mixed(scores, recorder, scores, tensors[1])


def _times(scores: Scores, recorder: Recorder, input: Any, other: Any, **rest: Any) -> Any:
    return scores._scaled(recorder, other if isinstance(input, Scores) else input)


def _over(scores: Scores, recorder: Recorder, input: Any, other: Any, **rest: Any) -> Any:
    divisor = number(other)
    if isinstance(divisor, float) and divisor != 0.0 and input is scores:
        return scores._scaled(recorder, 1.0 / divisor)
    return NotImplemented


def _added(scores: Scores, recorder: Recorder, input: Any, other: Any, alpha: Any = 1) -> Any:
    if input is scores:
        return scores._plus(recorder, other, float(number(alpha)))
    return scores._plus(recorder, input)


def _filled(scores: Scores, recorder: Recorder, input: Any, mask: Any, value: Any) -> Any:
    value = number(value)
    if not isinstance(mask, Constant) or not isinstance(value, float):
        raise recorder.refuse("fills the scores of attention under a fixed mask with a number only")
    return _closed(scores, recorder, mask, value)


def _where(scores: Scores, recorder: Recorder, condition: Any, input: Any, other: Any) -> Any:
    value = number(other)
    if not isinstance(condition, Constant) or input is not scores or not isinstance(value, float):
        raise recorder.refuse("fills the scores of attention under a fixed mask with a number only")
    known = None if condition.known is None else ~condition.known.bool()
    return _closed(scores, recorder, Constant(~condition.tensor.bool(), known=known), value)


def _closed(scores: Scores, recorder: Recorder, closed: Constant, value: float) -> Scores:
    if bool(closed.tensor.any()) and value > MASKED:
        raise recorder.refuse(f"fills the scores of attention with −∞ (or −10⁴ and less) only, got {value:g}")

    def added(mask: torch.Tensor) -> torch.Tensor:
        return torch.zeros(mask.shape, dtype=torch.float64).masked_fill(mask.bool(), -math.inf)

    known = None if closed.known is None else added(closed.known)
    return scores._plus(recorder, Constant(added(closed.tensor), known=known))


def _softmaxed(scores: Scores, recorder: Recorder, input: Any, dim: int, **rest: Any) -> Any:
    if scores.weights or dim % len(scores.sizes) != len(scores.sizes) - 1:
        return NotImplemented
    return replace(scores, weights=True)


def _dropped(scores: Scores, recorder: Recorder, input: Any, p: float, train: bool, **rest: Any) -> Any:
    if not train or p == 0:
        return scores
    if not scores.weights or p >= 1:
        return NotImplemented
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
    fits = tuple(wanted[-2:]) == scores.sizes[-2:] and math.prod(wanted) == total
    lead = lay.reshaped(scores.lead, wanted[:-2]) if fits else None
    if lead is None:
        return NotImplemented
    return replace(scores, lead=lead)


def _mixed(scores: Scores, recorder: Recorder, input: Any, other: Any = None, mat2: Any = None) -> Any:
    """The product of attention weights with values."""
    value = other if other is not None else mat2
    if input is not scores or not scores.weights or not isinstance(value, (Signal, Lazy)):
        return NotImplemented
    causal, mask = (False, None) if scores.added is None else _as_mask(scores.added)
    # Values lie in the queries' dimensions, or in one that holds all heads.
    q = scores.q._replace(layout=(*scores.lead, *scores.q.layout[-2:]))
    own = scores.scale, causal, scores.drop, mask
    return attend(
        recorder, q, scores.k, value, *own, channelwise=scores.channelwise, biases=scores.biases,
        padding=scores.padding,
    )  # fmt: skip


_SCORES: dict[str, Any] = {
    "mul": _times, "div": _over, "add": _added, "masked_fill": _filled, "where": _where,
    "softmax": _softmaxed, "_softmax": _softmaxed, "dropout": _dropped, "view": _viewed, "reshape": _viewed,
    "_unsafe_view": _viewed, "expand": _viewed, "matmul": _mixed, "bmm": _mixed,
    "einsum": _einsum_of_scores,
    **dict.fromkeys(("contiguous", "to", "_to_copy", "type_as", "clone", "alias", "detach"), _same),
}  # fmt: skip
