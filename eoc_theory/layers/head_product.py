"""Products of two matrices that both depend on the input, one for each head."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import ModelError
from .drawn import DrawnLayer
from .layer import Array, Shape, Width
from .random_numbers import Draw


@dataclass(frozen=True)
class HeadProduct(DrawnLayer):
    """A·B of matrices for each head and window: scores qkᵀ, linear attention q(kᵀv), weights times values.

    Rows and columns are channels of a head ("c") or positions of a window ("p"): (…, tokens, features) is
    "pc", its transpose "cp", scores of pairs of tokens are "pp". Channels are laid out along heads, then
    along what the matrix has of them, rows before columns; positions along windows, then alike.

    Attributes:
        left, right: what rows and columns of A and of B are.
        size: terms of a sum: columns of A and rows of B.
        heads: groups of channels, one after the other.
        windows: runs of positions, one after the other.
    """

    left: str
    right: str
    size: int
    heads: int = 1
    windows: int = 1

    def output_shape(self, *inputs: Shape) -> Shape:
        if len(inputs) != 2 or {*self.left, *self.right} - {*"pc"}:
            raise self.refuse("two inputs, of rows and columns 'p' or 'c'", f"{len(inputs)}")
        found = []
        for shape, kind, own in zip(inputs, (self.left, self.right), (1, 0), strict=True):
            channels, positions = shape.channels / self.heads, shape.positions / self.windows
            sizes = self._sizes(kind, own, channels, positions)
            if not all(n == int(n) > 0 for n in sizes) or sizes[own] != self.size:
                raise self.refuse(
                    f"{self.heads} heads and {self.windows} windows of {kind!r} with {self.size} terms", shape
                )
            found.append((int(sizes[0]), int(sizes[1])))
        return self._made(found[0][0], found[1][1])

    def _sizes(self, kind: str, own: int, channels: float, positions: float) -> tuple[float, float]:
        """Rows and columns of a matrix of this kind of which `own` has the terms."""
        if kind == "pc":
            sizes = positions, channels
        elif kind == "cp":
            sizes = channels, positions
        else:
            whole, none = (positions, channels) if kind == "pp" else (channels, positions)
            if none != 1:
                return 0.0, 0.0
            sizes = (whole / self.size, self.size) if own else (self.size, whole / self.size)
        return sizes

    def _made(self, rows: int, columns: int) -> Shape:
        sizes = tuple(zip(self.left[0] + self.right[1], (rows, columns), strict=True))
        channels = self.heads * math.prod(n for kind, n in sizes if kind == "c")
        space = tuple(n for kind, n in sizes if kind == "p")
        return Shape(channels, ((self.windows,) if self.windows > 1 else ()) + space)

    @property
    def multiplies(self) -> bool:
        return True

    @property
    def head_groups(self) -> int:
        return self.heads

    def mean_square(self, inputs: Sequence[float], shapes: Sequence[Shape]) -> float:
        return self.size * inputs[0] * inputs[1]

    def variance_gain(self, mean_square: float) -> float:
        return math.nan

    def narrowed(
        self, inputs: Sequence[Shape], whole: Sequence[Shape], value: Shape, width: Width
    ) -> HeadProduct:
        # Heads keep their channels, and are fewer.
        both = zip(inputs, whole, strict=True)
        heads = {now.channels * self.heads / before.channels for now, before in both}
        if len(heads) > 1 or min(heads) < 1 or min(heads) != int(min(heads)):
            raise ModelError(f"layer {self.name!r} has heads that cannot be narrowed")
        return replace(self, heads=int(heads.pop()))

    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        a, b = self._matrices(inputs)
        shape = self.output_shape(*(Shape(len(x), x.shape[1:-1]) for x in inputs))
        made = self._flat(a @ b, self.left[0] + self.right[1])
        return made.reshape(shape.channels, *shape.space, -1), tuple(inputs)

    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        a, b = self._matrices(memory)
        rows, columns = a.shape[-2], b.shape[-1]
        sent = self._matrix(gradient, self.left[0] + self.right[1], rows, columns)
        return [
            self._flat(sent @ b.swapaxes(-1, -2), self.left).reshape(memory[0].shape),
            self._flat(a.swapaxes(-1, -2) @ sent, self.right).reshape(memory[1].shape),
        ]

    def _matrices(self, inputs: Sequence[Array]) -> tuple[Array, Array]:
        found = []
        for x, kind, own in zip(inputs, (self.left, self.right), (1, 0), strict=True):
            positions = math.prod(x.shape[1:-1]) / self.windows
            sizes = self._sizes(kind, own, len(x) / self.heads, positions)
            found.append(self._matrix(x, kind, int(sizes[0]), int(sizes[1])))
        return found[0], found[1]

    def _matrix(self, x: Array, kind: str, rows: int, columns: int) -> Array:
        """(channels, *space, B) as (heads, B, windows, rows, columns)."""
        sizes = tuple(zip(kind, (rows, columns), strict=True))
        channels = tuple(n for own, n in sizes if own == "c")
        places = tuple(n for own, n in sizes if own == "p")
        cut = x.reshape(self.heads, *channels, self.windows, *places, -1)
        return np.ascontiguousarray(cut.transpose(self._order(kind)))

    def _flat(self, matrix: Array, kind: str) -> Array:
        """The reverse: heads, channels, windows, positions and inputs in this order."""
        return np.ascontiguousarray(matrix.transpose(np.argsort(self._order(kind))))

    @staticmethod
    def _order(kind: str) -> tuple[int, ...]:
        """Where heads, inputs, windows, rows and columns stand among heads, channels, windows, positions,
        inputs."""
        return {
            "pc": (0, 4, 2, 3, 1), "cp": (0, 4, 2, 1, 3), "pp": (0, 4, 1, 2, 3), "cc": (0, 4, 3, 1, 2),
        }[kind]  # fmt: skip
