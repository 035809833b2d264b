"""Large images at a lower resolution, because the cost of a prediction grows with the number of positions.

Images of more than `LARGEST` positions along an axis are averaged over squares until they fit, and the
network is taken with the smaller input. The statistics of natural images are nearly the same at every scale,
and each layer's gradient is a sum over its positions, all of which shrink alike; what changes is how far the
layers' own correlations, a kernel wide, reach across the image, the share of the padding, and that the last
of many strided layers are left with few positions.

ResNet-18 in its form for large images, 20 images of 1/f noise with 96×96 pixels taken at 48×48, where 2×2
positions are left at the end instead of 3×3: with batch normalisation log score moments differ from those at
full resolution by 0.09 (standard deviation over the convolutions, a factor common to all left out) and by 0.7
in the dense layer, χ by up to 0.36 in its logarithm; without normalisation by 0.35 and χ by up to 0.05. At
32×32, with one position left, they differ by 0.15 with batch normalisation and 1.1 without.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ModelError
from ..layers import Input, Shape
from ..signals.data import DataSummary
from .architecture import Architecture
from .graph import Graph, Node
from .queries import LARGEST, attends, has_squeezed_gates

Array = np.ndarray


def within_reach(
    net: Architecture, data: Any, *, seed: int = 0, largest: int = LARGEST, less: bool = False
) -> tuple[Architecture, DataSummary, tuple[str, ...]]:
    """The network and its batch at a resolution that can be handled, and a note where that is a lower one.

    A network that needs its full resolution is left as it is (a dense layer on flattened positions;
    attention and squeeze-and-excite, whose means depend on how many positions there are), and one without
    positions too. With `less`, for kernels alone, gates are no reason to, and one whose last layers would be
    left without positions is taken at `largest` positions along an axis, by squares of uneven sizes.
    """
    batch = net.summarise(data, seed=seed)
    if net.is_chain:
        return net, batch, ()
    graph = net.as_graph()
    if attends(graph) or (has_squeezed_gates(graph) and not less):
        return net, batch, ()
    shape = graph.input_shape
    factor = max((-(-n // largest) for n in shape.space), default=1)
    if factor == 1:
        return net, batch, ()
    smaller = _at(graph, tuple(-(-n // factor) for n in shape.space))
    if smaller is None and less:
        smaller = _at(graph, tuple(min(n, largest) for n in shape.space))
    if smaller is None:
        return net, batch, ()
    images = batch.inputs.reshape(batch.size, shape.channels, *shape.space)
    for axis, few in enumerate(smaller.input_shape.space, start=2):
        images = _averaged(images, few, axis)
    flat = images.reshape(batch.size, -1)
    # As far from 0 as before: averages of uncorrelated pixels shrink.
    flat = flat * np.sqrt(np.mean(batch.inputs**2) / max(float(np.mean(flat**2)), np.finfo(float).tiny))
    note = f"images of {shape} taken at {smaller.input_shape}"
    return (
        Architecture.from_graph(smaller),
        DataSummary(flat, batch.targets, batch.classes, batch.synthetic),
        (note,),
    )


def _at(graph: Graph, space: tuple[int, ...]) -> Graph | None:
    """The network with an input of so many positions; None where it has no such."""
    name, channels = graph.nodes[0].layer.name, graph.input_shape.channels
    try:
        return Graph((Node(Input(name, Shape(channels, space))), *graph.nodes[1:]))
    except ModelError:
        return None


def _averaged(images: Array, few: int, axis: int) -> Array:
    """Means over `few` stretches along an axis, all but the last of one size where that is possible."""
    n = images.shape[axis]
    size = -(-n // few)
    if -(-n // size) == few:
        # The last one's missing positions count as zeros, as those of a margin do.
        return np.add.reduceat(images, np.arange(0, n, size), axis=axis) / size
    starts = np.arange(few) * n // few
    counts = np.diff(starts, append=n).reshape(-1, *[1] * (images.ndim - 1 - axis))
    return np.add.reduceat(images, starts, axis=axis) / counts
