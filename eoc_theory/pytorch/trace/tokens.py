"""Tokens: tables of words and positions, and tokens that a model puts before those of the input."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ...layers import (
    ClassToken,
    CountEmbedding,
    Embedding,
    Matrix,
    PositionEmbedding,
    PositionTable,
    Shape,
    Sinusoids,
)
from . import layout as lay
from .constants import number
from .known import node_of, reads_padding, sources_of, told
from .layout import CHANNELS
from .readers import reads
from .recorder import Recorder, describe
from .values import Constant, Signal, Storage
from .weights import off_mean

#: How far apart a table's kernel and that of sines and cosines may be.
_CLOSE = 0.02
#: Rows of a random table are correlated by one over the root of their length; so many times that is too much.
_CORRELATED = 3.0


@reads("embedding")
def _embedding(recorder: Recorder, weight: Any, indices: Any, padding_idx: int = -1, **rest: Any) -> Any:
    if not isinstance(weight, Constant):
        raise recorder.refuse(f"takes a parameter as its table, got {describe(weight)}")
    signal = recorder.check(indices)
    if signal.position is None or signal.position not in recorder.inputs:
        raise recorder.refuse("looks up token numbers only that are the model's input")
    rows, features = weight.sizes
    std, padding = law_of_rows(recorder, weight, padding_idx)
    own = signal.position
    source, made = recorder.looked_up.get(weight.parameter, (own, None))
    if source != own:
        raise recorder.refuse("looks up two inputs in one table")
    if made is None:
        layer = Embedding(recorder.label(_owner(weight)), rows, features, std, padding)
        made = recorder.add(layer, own)
        if weight.parameter:
            recorder.looked_up[weight.parameter] = own, made
    positions = lay.whole(1, made.shape.space[0])
    layout = signal.layout[0], positions, lay.whole(CHANNELS, made.shape.channels)
    return replace(made, layout=layout, storage=Storage())


@reads_padding("embedding")
def _counted(
    recorder: Recorder, weight: Any, indices: Any, padding_idx: int = -1, **rest: Any
) -> Signal | None:
    """Rows of positions that are counted from the first token that is known."""
    if not isinstance(weight, Constant) or len(indices.sizes) != 2:
        return None
    first, count = int(indices.known[0, 0]) - 1, indices.sizes[1]
    if not bool((indices.known == torch.arange(count) + 1 + first).all()):
        return None
    rows = indices.tensor - first
    for closed, sources in sources_of(recorder):
        if closed.shape != rows.shape:
            continue
        counts = (~closed).cumsum(1)
        of_padding = rows[closed]
        if bool((rows[~closed] != counts[~closed]).any()):
            continue
        running = bool((of_padding == counts[closed]).all())
        if not running and bool((of_padding != of_padding[0]).any()):
            continue
        std, blank = law_of_rows(recorder, weight, padding_idx)
        own = int(of_padding[0]) if 0 < int(of_padding[0]) <= count else 0
        empty = blank is not None and blank == int(of_padding[0]) + first
        layer = CountEmbedding(
            recorder.label(_owner(weight)), weight.sizes[1], std, None if running else own, empty and own == 0
        )
        made = recorder.add(layer, node_of(recorder, sources))
        positions, channels = lay.whole(1, count), lay.whole(CHANNELS, made.shape.channels)
        return replace(made, layout=(lay.whole(lay.BATCH, recorder.batch), positions, channels))
    return None


def law_of_rows(recorder: Recorder, weight: Constant, padding_idx: int) -> tuple[float, int | None]:
    """Standard deviation of the entries of a table's rows, and the number of the one that is zero, if any."""
    law, rows, table = recorder.law_of(weight), weight.sizes[0], weight.tensor.detach()
    padding = int(padding_idx) % rows if padding_idx != -1 else None
    if padding is not None and law is None and bool(table[padding].any()):
        padding = None  # a row like any other, which training only leaves as it is
    wrong = off_mean(table) if law is None and not recorder.only_structure else ""
    if wrong:
        raise recorder.refuse(f"the entries of the table {wrong}")
    drawn = rows - (padding is not None)
    return _rms(table) * math.sqrt(rows / max(drawn, 1)) if law is None else law.std, padding


def _owner(value: Constant) -> str:
    """The module of the parameter that a tensor is."""
    owner, _, own = value.parameter.rpartition(".")
    return owner if own == "weight" else ""


def _rms(tensor: Any) -> float:
    return math.sqrt(float(tensor.double().square().mean()))


def with_positions(recorder: Recorder, signal: Signal, value: Constant, factor: float) -> Signal | None:
    """A tensor plus a table of a row for each position; None where the numbers do not differ by position."""
    table, repeated = _table(signal, value), False
    if table is None:
        table = _of_windows(recorder, signal, value)
        repeated = table is not None
    if table is None:
        return None
    scale, shape = abs(factor) * _rms(table), signal.shape
    if shape.channels < 2 or shape.positions < 2 or scale == 0.0:
        return signal if scale == 0.0 else None
    if bool((table == table[:1]).all()):
        return None  # no random numbers, but one shift of all channels
    kernel = (table.T @ table / len(table)).numpy() * factor**2
    own = Sinusoids("", 1.0).table(Shape(shape.channels, (shape.positions,)))
    waves = own.T @ own / len(own)
    ratio = float(np.trace(kernel) / np.trace(waves))
    if repeated:
        layer: Any = PositionTable(recorder.label(_owner(value)), Matrix.of(factor * table.numpy()))
    elif np.allclose(kernel, ratio * waves, atol=_CLOSE * ratio):
        layer = Sinusoids(recorder.label(_owner(value)), math.sqrt(ratio))
    else:
        spread = np.sqrt(np.outer(np.diagonal(kernel), np.diagonal(kernel)))
        correlations = (kernel / np.maximum(spread, 1e-300))[~np.eye(len(kernel), dtype=bool)]
        if np.sqrt(np.mean(correlations**2)) > min(_CORRELATED / math.sqrt(shape.channels), 0.9):
            layer = PositionTable(recorder.label(_owner(value)), Matrix.of(factor * table.numpy()))
        else:
            layer = PositionEmbedding(recorder.label(_owner(value)), scale)
    made = recorder.add(layer, recorder.position(signal))
    return replace(made, layout=signal.layout)


def _table(signal: Signal, value: Constant) -> torch.Tensor | None:
    """The numbers as (channels, positions), where they differ by both."""
    tensor = value.tensor.detach().double()
    sizes = (1,) * (len(signal.sizes) - tensor.dim()) + tuple(tensor.shape)
    if len(sizes) != len(signal.sizes):
        return None
    tensor = tensor.reshape(sizes)
    if signal.layout[:1] and sizes[0] == signal.sizes[0] and bool((tensor == tensor[:1]).all()):
        tensor = tensor[:1]
    channels = lay.whole(CHANNELS, signal.shape.channels)
    if lay.of_positions(signal.layout[0]):
        return None
    places = [d for d, own in enumerate(signal.layout) if own != channels and d > 0 and own]
    axes = [f.axis for d in places for f in signal.layout[d]]
    if channels not in signal.layout[1:] or tensor.shape[0] != 1 or axes != sorted(axes):
        return None
    at = signal.layout.index(channels, 1)
    if any(tensor.shape[d] != signal.sizes[d] for d in (*places, at)) or min(axes, default=0) <= CHANNELS:
        return None
    table = tensor.movedim(at, 0).reshape(tensor.shape[at], -1)
    return None if bool((table == table[:, :1]).all()) else table


def _of_windows(recorder: Recorder, signal: Signal, value: Constant) -> torch.Tensor | None:
    """The numbers as (channels, positions) where windows, that all get the same, stand among the inputs."""
    tensor, channels = value.tensor.detach().double(), lay.whole(CHANNELS, signal.shape.channels)
    batch, windows = signal.layout[0][:1], signal.layout[0][1:]
    tensor = tensor.reshape((1,) * (len(signal.sizes) - tensor.dim()) + tuple(tensor.shape))
    if not windows or windows != lay.of_positions(windows) or batch != lay.whole(lay.BATCH, recorder.batch):
        return None
    if tensor.shape[0] != 1 or channels not in signal.layout or tensor.shape[1:] != signal.sizes[1:]:
        return None
    at = signal.layout.index(channels)
    rest = [own for d, own in enumerate(signal.layout) if d not in (0, at)]
    places = lay.places((windows, *rest), signal.shape.space)
    if any(own != lay.of_positions(own) for own in rest) or places.size != signal.shape.positions:
        return None
    own = tensor[0].movedim(at - 1, 0).flatten(1).repeat(1, lay.extent_of(windows))
    table = torch.empty_like(own)
    table[:, torch.from_numpy(places.reshape(-1))] = own
    return table


def with_class_tokens(recorder: Recorder, tensors: Any, dim: int) -> Signal | None:
    """Fixed tokens before those of the input; None where that is not what is joined."""
    *before, last = tensors
    if not isinstance(last, Signal) or not before or dim == 0:
        return None
    signal = recorder.settled(last)
    positions = [f for axis, n in enumerate(signal.shape.space, 1) for f in lay.whole(axis, n)]
    if signal.layout[dim] != lay.joined(positions) or not positions or len(signal.layout) != 3:
        return None
    if not all(isinstance(one, Constant) and not one.is_zero for one in before):
        return None
    at = signal.layout.index(lay.whole(CHANNELS, signal.shape.channels))
    table = torch.cat([one.tensor.detach().double() for one in before], dim)
    if table.shape[at] != signal.shape.channels or not bool((table == table[:1]).all()):
        raise recorder.refuse("puts tokens before those of the input that are not the same for all inputs")
    layer = ClassToken(recorder.label(), _rms(table), table.shape[dim])
    made = recorder.add(layer, recorder.position(signal))
    own = list(signal.layout)
    own[dim] = lay.whole(1, made.shape.space[0])
    return replace(made, layout=tuple(own))


@reads("ne", "eq")
def _compared(recorder: Recorder, input: Any, other: Any) -> Any:
    """Token numbers against one of them, as that of padding: a mask of attention, or no input may hold it."""
    value, source = number(other), getattr(input, "position", None)
    if source not in recorder.inputs or not isinstance(value, float):
        return recorder.elementwise(input, other)
    token, sizes, differs = int(value), recorder.check(input).sizes, recorder.operation == "ne"
    if recorder.patterns and sizes[1] > 1:
        closed = told(recorder, (source, token), sizes, source, token).closed
        return Constant(closed ^ differs, known=torch.full(sizes, differs))
    recorder.absent.setdefault(source, set()).add(token)
    return Constant(torch.full(sizes, differs))
