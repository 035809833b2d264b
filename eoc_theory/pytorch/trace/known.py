"""What a model is told of padding: by a mask among its inputs, or by a token number that it looks for.

What is computed from that alone is done twice, for a pattern of padding and for none (`Constant.known`).
Where it meets what is computed from the input, its value under the pattern shows what it does: close keys of
attention, put zeros in the place of tokens, divide by how many there are, take the last one. Anything else is
refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import torch

from ...layers import ByCount, KnownTokens, Layer, OnlyKnown, PickKnown, Product
from ...signals.parts import MASKED
from . import layout as lay
from .constants import number
from .layout import BATCH
from .nodes import Nodes
from .values import Constant, PaddingError, Signal

#: Patterns that are tried until they are such as tell functions of padding apart.
_MOST_TRIES = 10_000


@dataclass(frozen=True)
class Told:
    """What says which tokens are padding.

    Attributes:
        closed: a pattern of padding, booleans (batch, tokens); or (batch, queries, keys), of pairs.
        node: the graph's that says it.
    """

    closed: torch.Tensor
    node: int


def told(recorder: Nodes, key: Any, sizes: tuple[int, ...], source: int, padding: int) -> Told:
    """What the node `source` says of padding, whose number is `padding` there; `key` stands for both."""
    if key not in recorder.told:
        layer = KnownTokens(recorder.unique("known tokens"), padding)
        node = recorder.position(recorder.add(layer, source))
        others = [one.closed for one in recorder.told.values()]
        recorder.told[key] = Told(_pattern(recorder, sizes, others), node)
    return recorder.told[key]


def _pattern(recorder: Nodes, sizes: tuple[int, ...], others: list[torch.Tensor]) -> torch.Tensor:
    """Booleans that nothing else is: none of its rows or columns all alike, and unlike the others."""
    generator = torch.Generator().manual_seed(len(others))
    for _ in range(_MOST_TRIES):
        made = torch.rand(sizes, generator=generator) < 0.5
        mixed = all(bool(made.any(d).all() and (~made).any(d).all()) for d in (0, made.dim() - 1))
        if mixed and not any(made.shape == other.shape and bool((made == other).all()) for other in others):
            return made
    raise recorder.refuse(f"tells padding from tokens in a batch too small to see how, {sizes}")


def sources_of(recorder: Nodes) -> Iterator[tuple[torch.Tensor, tuple[Told, ...]]]:
    """Patterns of padding: of what is told, and of two of these together."""
    every = list(recorder.told.values())
    for one in every:
        yield one.closed, (one,)
    for one, other in combinations(every, 2):
        if one.closed.shape == other.closed.shape:
            yield one.closed | other.closed, (one, other)


def node_of(recorder: Nodes, sources: tuple[Told, ...]) -> int:
    """The node that says which tokens are known of all the sources."""
    nodes = sorted({one.node for one in sources})
    position = nodes[0]
    for node in nodes[1:]:
        position = recorder.position(recorder.add(Product(recorder.unique("known tokens")), position, node))
    return position


# --- keys of attention ---


def closing(
    recorder: Nodes, tensor: torch.Tensor, known: torch.Tensor, lead: lay.Layout, pairs: tuple[int, int]
) -> tuple[Told, ...] | None:
    """What tells which keys `tensor` closes beside those that `known` closes; None where it does more.

    Both are added to scores (…, queries, keys); `lead` is of the scores' dimensions before the last two.
    """
    sizes = (*map(lay.extent_of, lead), *pairs)
    factors = [factor for dimension in lead for factor in dimension]
    batch = [at for at, factor in enumerate(factors) if factor.axis == BATCH]
    if len(batch) != 1:
        return None
    cut = [
        torch.broadcast_to(one, sizes).reshape(*(f.size for f in factors), *pairs) for one in (tensor, known)
    ]
    for closed, sources in sources_of(recorder):
        own = [1] * (len(factors) + 2)
        own[batch[0]], own[-1] = closed.shape[0], closed.shape[-1]
        if closed.dim() == 3:
            own[-2] = closed.shape[1]
        if (
            any(n not in (1, m) for n, m in zip(own, cut[0].shape, strict=True))
            or closed.shape[-1] != pairs[1]
        ):
            continue
        here = closed.reshape(own).expand(cut[0].shape)
        fits = torch.where(here, cut[0] <= MASKED, cut[0] == cut[1]).all(dim=-1)
        # Queries that see no key are padding before a text: code lets them see all, or what they saw.
        blind = (here | (cut[1] <= MASKED)).all(dim=-1)
        let = (cut[0] == cut[1]).all(dim=-1) | (cut[0] == 0.0).all(dim=-1)
        if bool((fits | (blind & let)).all()):
            return sources
    return None


# --- tokens ---


Reader = Callable[..., Any]
_READERS: dict[str, Reader] = {}


def reads_padding(name: str) -> Callable[[Reader], Reader]:
    """Register a reader for an operation on what is said of padding; it gives None where it cannot."""

    def register(reader: Reader) -> Reader:
        _READERS[name] = reader
        return reader

    return register


def read(recorder: Any, name: str, given: dict[str, Any]) -> Any:
    """The value of an operation on a tensor computed from the input and on what is computed from padding.

    Raises:
        PaddingError: it is none of those that are read.
    """
    reader = _READERS.get(name)
    result = None if reader is None else reader(recorder, **given)
    if result is None:
        raise PaddingError(
            str(recorder.refuse("takes what is said of padding in a way that the theory does not describe"))
        )
    return result


@reads_padding("mul")
def _multiplied(recorder: Any, input: Any, other: Any) -> Signal | None:
    signal, factor = (input, other) if isinstance(input, Signal) else (other, input)
    return _of_tokens(recorder, signal, factor.tensor, factor.known) or _of_counts(
        recorder, signal, factor.tensor, factor.known
    )


@reads_padding("div")
def _divided(recorder: Any, input: Any, other: Any, **rest: Any) -> Signal | None:
    if not isinstance(input, Signal) or any(value is not None for value in rest.values()):
        return None
    inverse = [torch.where(t == 0, 0.0, 1.0 / t.double()) for t in (other.tensor, other.known)]
    return _of_counts(recorder, input, *inverse)


@reads_padding("masked_fill")
def _filled(recorder: Any, input: Any, mask: Any, value: Any) -> Signal | None:
    if not isinstance(input, Signal) or number(value) != 0.0:
        return None
    return _of_tokens(recorder, input, ~mask.tensor.bool(), ~mask.known.bool())


@reads_padding("where")
def _where(recorder: Any, condition: Any, input: Any, other: Any) -> Signal | None:
    signal, fill = (input, other) if isinstance(input, Signal) else (other, input)
    if not isinstance(condition, Constant) or condition.known is None or not isinstance(signal, Signal):
        return None
    if isinstance(fill, Signal) or not (number(fill) == 0.0 or (isinstance(fill, Constant) and fill.is_zero)):
        return None
    kept = [t.bool() if signal is input else ~t.bool() for t in (condition.tensor, condition.known)]
    return _of_tokens(recorder, signal, *kept)


def _by_example(recorder: Any, signal: Signal, values: torch.Tensor, tokens: bool) -> torch.Tensor | None:
    """What numbers beside a tensor are for each example, and each of its tokens, (batch, T or 1).

    None where they differ by anything else.
    """
    values = values.double().reshape((1,) * (len(signal.sizes) - values.dim()) + tuple(values.shape))
    batch, every = lay.whole(BATCH, recorder.batch), lay.whole(1, signal.shape.positions)
    if values.dim() != len(signal.sizes) or len(signal.shape.space) > 1 or batch not in signal.layout:
        return None
    kept = [signal.layout.index(batch)]
    if tokens:
        if not every or every not in signal.layout:
            return None
        kept.append(signal.layout.index(every))
    for d in range(values.dim()):
        if d not in kept and not bool((values == values.narrow(d, 0, 1)).all()):
            return None
        values = values if d in kept else values.narrow(d, 0, 1)
    if any(values.shape[d] != signal.sizes[d] for d in kept):
        return None
    order = [*kept, *(d for d in range(values.dim()) if d not in kept)]
    return values.permute(order).reshape(recorder.batch, -1)


def _of_tokens(recorder: Any, signal: Signal, tensor: torch.Tensor, known: torch.Tensor) -> Signal | None:
    """A tensor times 0 at padding and one number elsewhere."""
    signal = recorder.settled(signal)
    found = _factors(recorder, signal, tensor, known, tokens=True)
    if found is None:
        return None
    here, factor = found
    for closed, sources in sources_of(recorder):
        if closed.shape == here.shape and bool((here == torch.where(closed, 0.0, factor)).all()):
            return _times_known(recorder, signal, OnlyKnown(recorder.label()), sources, factor)
    return None


def _of_counts(recorder: Any, signal: Signal, tensor: torch.Tensor, known: torch.Tensor) -> Signal | None:
    """A tensor times one number over how many tokens of an example are known."""
    signal = recorder.settled(signal)
    found = _factors(recorder, signal, tensor, known, tokens=False)
    if found is None:
        return None
    here, factor = found
    for closed, sources in sources_of(recorder):
        if closed.dim() != 2:
            continue
        wanted = factor * closed.shape[1] / (~closed).sum(dim=1)
        if torch.allclose(here[:, 0], wanted, rtol=1e-5, atol=0.0):
            return _times_known(recorder, signal, ByCount(recorder.label()), sources, factor)
    return None


def _factors(
    recorder: Any, signal: Signal, tensor: torch.Tensor, known: torch.Tensor, tokens: bool
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """What a signal is multiplied by with padding, (B, T or 1), and the one number without, ()."""
    here, open_ = (
        _by_example(recorder, signal, t.expand(_broadcast(tensor, known)), tokens) for t in (tensor, known)
    )
    if here is None or open_ is None or not bool((open_ == open_[0, 0]).all()):
        return None
    return here, open_[0, 0]


def _times_known(recorder: Any, signal: Signal, layer: Layer, sources: Any, factor: torch.Tensor) -> Signal:
    """The signal after a layer that knows the sources' padding, times a factor."""
    made = recorder.add(layer, recorder.position(signal), node_of(recorder, sources))
    return recorder.scaled(replace(made, layout=signal.layout), float(factor))


def _broadcast(*tensors: torch.Tensor) -> torch.Size:
    return torch.broadcast_shapes(*(t.shape for t in tensors))


@reads_padding("index")
def _chosen(recorder: Any, input: Any, indices: Any) -> Signal | None:
    """``x[torch.arange(B), at]``: one token of every example, by its padding."""
    if (
        not isinstance(input, Signal)
        or len(indices) != 2
        or not all(isinstance(i, Constant) for i in indices)
    ):
        return None
    signal = recorder.settled(input)
    rows, at = indices
    standard = (lay.whole(BATCH, recorder.batch), lay.whole(1, signal.shape.positions))
    every = rows.known is None and rows.tensor.reshape(-1).tolist() == list(range(recorder.batch))
    if not every or at.known is None or signal.layout[:2] != standard or len(signal.layout) != 3:
        return None
    count = signal.shape.positions
    here, open_ = (t.reshape(-1).numpy() % count for t in (at.tensor, at.known))
    for closed, sources in sources_of(recorder):
        if closed.shape != (recorder.batch, count):
            continue
        known = (~closed).numpy().T
        for which in ("last", "count", "first"):
            layer = PickKnown("", which)
            fits = np.array_equal(layer.chosen(known), here)
            if fits and np.array_equal(layer.chosen(np.ones_like(known)), open_):
                made = recorder.add(
                    replace(layer, name=recorder.label()),
                    recorder.position(signal),
                    node_of(recorder, sources),
                )
                return replace(made, layout=(signal.layout[0], signal.layout[2]))
    return None
