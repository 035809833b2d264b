"""Torch modules of layers that torch itself has none of, for the models made of a graph.

torch is imported at module level, so this module is imported only where a model is made.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn


class PositionwiseLinear(nn.Linear):
    """A Linear layer on the channels at each position, (B, C, *positions)."""

    #: The axis of inputs and outputs that the weights act on, the last one of a Linear layer.
    features_axis = 1

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


class LayerNormOverChannels(nn.LayerNorm):
    """LayerNorm of the channels at each position, (B, C, *positions)."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


class RMSNormOverChannels(nn.Module):
    """The channels at each position to mean square 1, times a weight and plus a bias, (B, C, *positions)."""

    def __init__(self, channels: int, eps: float, *, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None
        self.eps = eps

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        value = nn.functional.rms_norm(input.movedim(1, -1), self.weight.shape, self.weight, self.eps)
        return (value if self.bias is None else value + self.bias).movedim(-1, 1)


class TokenEmbedding(nn.Embedding):
    """A row for each token number of (B, T), also where these are floats: (B, C, T)."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input.long()).movedim(-1, 1)


class CountEmbedding(nn.Embedding):
    """A row for each token by how many are known up to it, of (B, 1, T), 1 for known ones: (B, C, T)."""

    def __init__(self, rows: int, features: int, *, padding: int | None, **options: Any) -> None:
        super().__init__(rows, features, **options)
        self.padding = padding

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        known = input[:, 0] > 0.5
        counts = known.cumsum(1)
        rows = counts if self.padding is None else torch.where(known, counts, self.padding)
        return super().forward(rows).movedim(-1, 1)


class PositionEmbedding(nn.Module):
    """A vector for each position is added, or one for all where `space` holds ones, (B, C, *positions)."""

    def __init__(self, channels: int, space: tuple[int, ...]) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(channels, *space))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return input + self.table


class Sinusoids(nn.Module):
    """A fixed table (C, *positions) is added."""

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.table: torch.Tensor
        self.register_buffer("table", table)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return input + self.table


class FixedValue(nn.Module):
    """A fixed table (C, *positions), for every input."""

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.table: torch.Tensor
        self.register_buffer("table", table)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self.table.expand(len(input), *self.table.shape)


class ClassToken(nn.Module):
    """Tokens of the model's own before those of (B, C, *positions), whose positions become one axis."""

    def __init__(self, channels: int, count: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(channels, count))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.token.expand(len(input), -1, -1), input.flatten(2)], dim=2)


class Rotary(nn.Module):
    """Pairs of each head's channels turned by angles (pairs, positions), (B, C, T)."""

    def __init__(self, head: int, angles: torch.Tensor, interleaved: bool) -> None:
        super().__init__()
        self.head, self.interleaved = head, interleaved
        self.pairs = len(angles)
        self.cos: torch.Tensor
        self.sin: torch.Tensor
        self.register_buffer("cos", angles.cos().to(torch.get_default_dtype()))
        self.register_buffer("sin", angles.sin().to(torch.get_default_dtype()))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        heads = input.flatten(2).unflatten(1, (-1, self.head))
        turned, rest = heads.split([2 * self.pairs, self.head - 2 * self.pairs], dim=2)
        if self.interleaved:
            a, b = turned[:, :, ::2], turned[:, :, 1::2]
        else:
            a, b = turned.chunk(2, dim=2)
        pair = a * self.cos - b * self.sin, b * self.cos + a * self.sin
        made = torch.stack(pair, dim=3).flatten(2, 3) if self.interleaved else torch.cat(pair, dim=2)
        return torch.cat([made, rest], dim=2).reshape(input.shape)


class ChannelScale(nn.Module):
    """Each channel times a weight, and plus a bias where there are any."""

    def __init__(self, channels: int, axes: int, *, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, *(1,) * axes))
        self.bias = nn.Parameter(torch.zeros(channels, *(1,) * axes)) if bias else None

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return input * self.weight if self.bias is None else input * self.weight + self.bias


class StochasticDepth(nn.Module):
    """Whole inputs set to 0 with probability p and the others divided by 1 − p, in training mode."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def extra_repr(self) -> str:
        return f"p={self.p}"

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return input
        kept = input.new_empty((len(input), *(1,) * (input.dim() - 1))).bernoulli_(1.0 - self.p)
        return input * kept.div_(1.0 - self.p)


def multiplied(value: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """The product entry by entry; a gate of vectors is one factor for all positions."""
    return value * gate.reshape(*gate.shape, *(1,) * (value.dim() - gate.dim()))


def attended(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    bias: torch.Tensor | None,
    heads: int,
    kv_heads: int,
    scale: float,
    causal: bool = False,
    drop: float = 0.0,
    mask: tuple[Any, ...] | None = None,
    windows: int = 1,
    channelwise: bool = False,
    known: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attention of each head of q, k and v, (B, C, *positions); channels of a head are neighbours.

    `bias` (B, heads, pairs of queries and keys, of each window or of all) is added to the scores; `known` is
    0 for keys that are padding, (B, 1, *positions of k).
    """
    order, back = ((0, 1, 3, 2, 4), (0, 1, 3, 2, 4)) if channelwise else ((0, 1, 3, 4, 2), (0, 1, 4, 2, 3))
    parts = [
        x.flatten(2).unflatten(2, (windows, -1)).unflatten(1, (count, -1)).permute(order)
        for x, count in ((q, heads), (k, kv_heads), (v, kv_heads))
    ]
    if heads > kv_heads:
        parts[1:] = [x.repeat_interleave(heads // kv_heads, dim=1) for x in parts[1:]]
    added = None if mask is None else torch.tensor(mask, dtype=q.dtype, device=q.device)
    if bias is not None:
        own = bias.reshape(len(q), heads, -1, parts[0].shape[-2], parts[1].shape[-2])
        added = own if added is None else own + added
    if added is not None and causal:
        later = torch.ones(added.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        added, causal = added.masked_fill(later, -torch.inf), False
    if known is not None:
        if causal:
            later = torch.ones(parts[0].shape[-2], parts[1].shape[-2], dtype=torch.bool, device=q.device)
            added, causal = torch.zeros_like(later, dtype=q.dtype).masked_fill(later.triu(1), -1e9), False
        padded = known.reshape(len(known), 1, 1, -1, parts[1].shape[-2]) < 0.5
        added = torch.zeros_like(padded, dtype=q.dtype) if added is None else added
        added = torch.where(padded, added - 1e9, added)
    value = nn.functional.scaled_dot_product_attention(
        *parts, attn_mask=added, dropout_p=drop, is_causal=causal, scale=scale
    )
    return value.permute(back).flatten(1, 2).reshape(len(q), -1, *q.shape[2:])


def known_tokens(ids: torch.Tensor, padding: int) -> torch.Tensor:
    """1 where token numbers (B, T) are no padding, else 0, (B, 1, T)."""
    return (ids != padding).to(torch.get_default_dtype())[:, None]


def only_known(x: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """0 at tokens that are padding, of x (B, C, T) and `known` (B, 1, T)."""
    return x * known.reshape(len(known), 1, *x.shape[2:])


def by_count(x: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Times the number of tokens over that of the known ones, of x (B, C, …) and `known` (B, 1, T)."""
    known = known.flatten(1)
    share = known.shape[1] / known.sum(1).clamp(min=1.0)
    return x * share.reshape(-1, *(1,) * (x.dim() - 1))


def pick_known(x: torch.Tensor, known: torch.Tensor, which: str) -> torch.Tensor:
    """One token of each example, as `PickKnown` says, of x (B, C, T) and `known` (B, 1, T)."""
    told = (known.flatten(1) > 0.5).long()
    at = told.sum(1) - 1 if which == "count" else told.argmax(1)
    if which == "last":
        at = told.shape[1] - 1 - told.flip(1).argmax(1)
    return x[torch.arange(len(x), device=x.device), :, at]


def head_product(
    left: torch.Tensor, right: torch.Tensor, kinds: tuple[str, str], size: int, heads: int, windows: int
) -> torch.Tensor:
    """Products of matrices of each head and window of values (B, C, *positions); see `HeadProduct`."""
    order = {"pc": (0, 1, 3, 4, 2), "cp": (0, 1, 3, 2, 4), "pp": (0, 1, 2, 3, 4), "cc": (0, 1, 4, 2, 3)}
    parts = []
    for x, kind, own in ((left, kinds[0], (-1, size)), (right, kinds[1], (size, -1))):
        cut = x.unsqueeze(-1).flatten(2).unflatten(2, (windows, -1)).unflatten(1, (heads, -1))
        if kind == "pp":
            cut = cut.squeeze(2).unflatten(3, own)
        elif kind == "cc":
            cut = cut.squeeze(4).unflatten(2, own)
        parts.append(cut.permute(order[kind]))
    made, kind = parts[0] @ parts[1], kinds[0][0] + kinds[1][1]
    made = made.permute([order[kind].index(axis) for axis in range(5)])
    inner = kind.count("c")
    space = ((windows,) if windows > 1 else ()) + made.shape[3 + inner :]
    return made.flatten(1, 1 + inner).reshape(len(made), -1, *space)


def gathered(x: torch.Tensor, space: tuple[int, ...], chosen: tuple[int, ...]) -> torch.Tensor:
    """Some positions of x (B, C, *positions), all axes as one, in this order."""
    return x.unsqueeze(-1).flatten(2)[:, :, list(chosen)].unflatten(2, space)


def scattered(x: torch.Tensor, space: tuple[int, ...], targets: tuple[int, ...]) -> torch.Tensor:
    """Positions of x (B, C, *positions), all axes as one, added up at new ones; −1 leaves them out."""
    at = torch.tensor(targets, device=x.device)
    made = x.new_zeros(*x.shape[:2], math.prod(space))
    return made.index_add(2, at[at >= 0], x.flatten(2)[:, :, at >= 0]).unflatten(2, space)


class UnitLength(nn.Module):
    """Vectors brought to length 1: a head's channels at each position, or a channel's positions."""

    def __init__(
        self, heads: int, over_positions: bool, eps: float, centred: bool = False, added: float = 0.0
    ) -> None:
        super().__init__()
        self.heads, self.over_positions, self.eps = heads, over_positions, eps
        self.centred, self.added = centred, added

    def extra_repr(self) -> str:
        return f"heads={self.heads}, over_positions={self.over_positions}, centred={self.centred}"

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        cut = input.unsqueeze(-1).flatten(2).unflatten(1, (self.heads, -1))
        dim = 3 if self.over_positions else 2
        if self.centred:
            cut = cut - cut.mean(dim, keepdim=True)
        if not self.added:
            return nn.functional.normalize(cut, dim=dim, eps=self.eps).reshape(input.shape)
        length = (cut.square().sum(dim, keepdim=True) + self.added).sqrt().clamp_min(self.eps)
        return (cut / length).reshape(input.shape)


class Softmax(nn.Module):
    """Softmax over the second of three axes that channels, or positions, are laid out along."""

    def __init__(self, extents: tuple[int, ...], over_positions: bool) -> None:
        super().__init__()
        self.extents, self.over_positions = extents, over_positions

    def extra_repr(self) -> str:
        return f"extents={self.extents}, over_positions={self.over_positions}"

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        dim = 2 if self.over_positions else 1
        cut = (input.flatten(2) if self.over_positions else input).unflatten(dim, self.extents)
        return cut.softmax(dim + 1).reshape(input.shape)


class FixedFilter(nn.Module):
    """A convolution of every channel with one given filter (*kernel), (B, C, *positions)."""

    def __init__(self, filter: torch.Tensor, stride: Any, padding: Any, dilation: Any) -> None:
        super().__init__()
        self.settings = stride, padding, dilation
        self.filter: torch.Tensor
        self.register_buffer("filter", filter)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        channels, convolve = input.shape[1], getattr(nn.functional, f"conv{self.filter.dim()}d")
        weight = self.filter.expand(channels, 1, *self.filter.shape)
        return convolve(input, weight, None, *self.settings, channels)
