"""What a network's graph says of its layers' scales: χ, and whether a normalisation divides the scale out.

`UnknownScales` answers for models that no graph describes, `GraphScales` for those that have one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..networks.graph import Graph
from ..networks.queries import is_divided_out


class UnknownScales:
    """Nothing is known of what stands between the layers."""

    def shaped(self, inputs: Any) -> Any:
        """A batch of inputs as the model takes it."""
        return inputs

    def normalised(self, bias_squares: Sequence[float]) -> np.ndarray:
        """Whether each layer's output is normalised before anything else, (L,), given mean b² of each."""
        return np.zeros(len(bias_squares), dtype=bool)

    def chi(self, sigma_w: Sequence[float], bias_squares: Sequence[float], q_input: float) -> np.ndarray:
        """χ of each weight layer under these scales, (L,); nan where nothing says what is between them."""
        return np.full(len(sigma_w), math.nan)


class GraphScales(UnknownScales):
    """The same of a network's graph."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def shaped(self, inputs: Any) -> Any:
        """Images for a network of Linear layers are flattened."""
        return inputs if self._graph.input_shape.space else inputs.flatten(1)

    def normalised(self, bias_squares: Sequence[float]) -> np.ndarray:
        layers = zip(self._graph.weighted, bias_squares, strict=True)
        return np.array([is_divided_out(self._graph, position, bias) for position, bias in layers])

    def chi(self, sigma_w: Sequence[float], bias_squares: Sequence[float], q_input: float) -> np.ndarray:
        squares = self._mean_square_signals(sigma_w, bias_squares, q_input)
        gains = [
            scale**2 * self._slope(i, squares) for i, scale in zip(self._graph.weighted, sigma_w, strict=True)
        ]
        return np.where(self.normalised(bias_squares), math.nan, gains)

    def _slope(self, position: int, squares: list[float]) -> float:
        """Mean square derivative of what stands between a layer and the weights, sum or input before it."""
        factor, here = 1.0, self._graph.nodes[position].inputs[0]
        while True:
            node = self._graph.nodes[here]
            if node.layer.weighted is not None:
                return factor
            factor *= node.layer.variance_gain(squares[node.inputs[0]]) if node.inputs else math.nan
            if node.layer.nonlinearity is not None or math.isnan(factor):
                return factor
            (here,) = node.inputs

    def _mean_square_signals(
        self, sigma_w: Sequence[float], bias_squares: Sequence[float], q_input: float
    ) -> list[float]:
        """Mean square of every node's value, terms of sums taken as uncorrelated."""
        scales = iter(zip(sigma_w, bias_squares, strict=True))
        squares: list[float] = []
        for node in self._graph.nodes:
            inputs = [squares[i] for i in node.inputs]
            if not inputs:
                squares.append(q_input)
            elif node.layer.weighted is not None:
                scale, bias = next(scales)
                squares.append(bias + scale**2 * inputs[0])
            else:
                squares.append(node.layer.mean_square(inputs, [self._graph.shapes[i] for i in node.inputs]))
        return squares
