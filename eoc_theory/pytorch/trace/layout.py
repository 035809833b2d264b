"""How a tensor's dimensions lie over the batch, the channels and the positions of a graph's value.

A graph's value has the axes (batch, channels, *positions). A tensor of the model shows the same entries in an
order of its own: channels last, positions as one dimension, channels in groups. Each of its dimensions is a
row of factors, each a stretch of one axis; reshaping cuts and joins them, permuting moves them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ...layers import Shape

#: Axes of a graph's value; that of the i-th axis of positions is i + 1. Along `EXPANDED` all entries are the
#: same one.
EXPANDED, BATCH, CHANNELS = -2, -1, 0


class Factor(NamedTuple):
    """`size` steps of `stride` entries along an axis."""

    axis: int
    stride: int
    size: int


Dimension = tuple[Factor, ...]
Layout = tuple[Dimension, ...]


def standard(batch: int, shape: Shape) -> Layout:
    """(batch, channels, *positions)."""
    extents = (batch, shape.channels, *shape.space)
    return tuple(whole(axis, extent) for axis, extent in enumerate(extents, BATCH))


def whole(axis: int, extent: int) -> Dimension:
    """All of an axis."""
    return (Factor(axis, 1, extent),) if extent > 1 else ()


def extent_of(dimension: Dimension) -> int:
    """How many entries a dimension has."""
    return math.prod(factor.size for factor in dimension)


def joined(factors: Sequence[Factor]) -> Dimension:
    """The same entries with neighbouring stretches of one axis as one."""
    made: list[Factor] = []
    for factor in factors:
        if factor.size == 1:
            continue
        if made and made[-1].axis == factor.axis and made[-1].stride == factor.stride * factor.size:
            factor = Factor(factor.axis, factor.stride, made.pop().size * factor.size)
        made.append(factor)
    return tuple(made)


def reshaped(layout: Layout, sizes: Sequence[int]) -> Layout | None:
    """The layout of the same entries, in the same order, with other sizes; None where an axis would be cut
    into parts that do not divide it."""
    left = [factor for dimension in layout for factor in dimension]
    result: list[Dimension] = []
    for size in sizes:
        taken: list[Factor] = []
        while size > 1:
            if not left:
                return None
            factor = left.pop(0)
            if size % factor.size == 0:
                taken.append(factor)
                size //= factor.size
            elif factor.size % size == 0:
                inner = factor.size // size
                taken.append(Factor(factor.axis, factor.stride * inner, size))
                left.insert(0, Factor(factor.axis, factor.stride, inner))
                size = 1
            else:
                return None
        result.append(joined(taken))
    return tuple(result) if not left else None


def flat(dimension: Dimension, shape: Shape) -> Dimension:
    """Where a dimension over all channels and positions lies in the flattened value."""
    extents = (shape.channels, *shape.space)
    inside = [math.prod(extents[axis + 1 :]) for axis in range(len(extents))]
    return joined([Factor(CHANNELS, f.stride * inside[f.axis], f.size) for f in dimension])


def axis_of(dimension: Dimension) -> int | None:
    """The one axis that a dimension lies on; None where it is none or several."""
    axes = {factor.axis for factor in dimension}
    return axes.pop() if len(axes) == 1 else None


def is_position(factor: Factor) -> bool:
    """Whether it is a stretch of an axis of positions."""
    return factor.axis > CHANNELS


def laid_anew(
    lead: Sequence[Dimension], channels: int, run: int | None = None
) -> tuple[list[Dimension], int]:
    """Dimensions whose channels are cut from so many in this order, and the stride that is left within.

    Args:
        run: positions of the first axis that theirs are cut from; None: positions stay where they are.
    """
    found = []
    for dimension in lead:
        factors = []
        for factor in dimension:
            if factor.axis == CHANNELS:
                channels //= factor.size
                factor = Factor(CHANNELS, channels, factor.size)
            elif run is not None and is_position(factor):
                run //= factor.size
                factor = Factor(1, run, factor.size)
            factors.append(factor)
        found.append(joined(factors))
    return found, channels


def of_positions(dimension: Dimension) -> Dimension:
    """A dimension's stretches of axes of positions."""
    return tuple(filter(is_position, dimension))


def places(dimensions: Sequence[Dimension], space: tuple[int, ...]) -> np.ndarray:
    """Which position, all axes as one, stands at each entry of dimensions, of the extents of their stretches
    of positions."""
    found = np.zeros((), dtype=np.int64)
    for dimension in dimensions:
        own = np.zeros(1, dtype=np.int64)
        for factor in of_positions(dimension):
            step = factor.stride * math.prod(space[factor.axis :])
            own = (own[:, None] + step * np.arange(factor.size)).reshape(-1)
        found = found[..., None] + own
    return found


def pattern(dimension: Dimension) -> tuple[object, ...]:
    """What a dimension holds, whichever positions these are: factors, and extents of positions."""
    found: list[Any] = []
    for factor in dimension:
        if not is_position(factor):
            found.append(factor)
        elif found and isinstance(found[-1], int):
            found[-1] *= factor.size
        else:
            found.append(factor.size)
    return tuple(found)
