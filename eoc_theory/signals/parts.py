"""Several inputs of one network, such as tokens and a mask, as one vector an example."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..base import checks
from ..errors import DataError

#: What is added to the scores of a masked pair, at most: published code adds −10⁴ or less.
MASKED = -5e3
#: What masks hold where a token counts, and where it is padding, as models take them.
MASKS = {"keeps": (1.0, 0.0), "closes": (0.0, 1.0), "added": (0.0, -math.inf)}


@dataclass(frozen=True)
class InputPart:
    """One of several inputs.

    Attributes:
        name: that of the model's argument.
        shape: of one example, () for a number.
        at: place among the arguments by position.
        role: "values": numbers, or token numbers; a mask that is 1 where tokens count ("keeps"), where they
            are padding ("closes"), or that is added to scores ("added"): 0, or −5,000 and less; "fixed": the
            same for all examples.
        vocabulary: of token numbers, how many there are; 0 of other values.
        absent: token numbers that no example may hold.
        fixed: the values of a "fixed" one.
    """

    name: str
    shape: tuple[int, ...]
    at: int
    role: str = "values"
    vocabulary: int = 0
    absent: tuple[int, ...] = ()
    fixed: tuple[float, ...] = ()

    @property
    def size(self) -> int:
        """Entries of one example."""
        return math.prod(self.shape)

    def entries(self, values: Any, batch: int) -> np.ndarray:
        """Of a batch, (B, size): of a mask 1 where tokens count, else 0.

        Raises:
            DataError: values of another shape, or that the network was not read for.
        """
        try:
            array = np.asarray(checks.off_the_graph(values)).astype(np.float64)
        except Exception:
            raise DataError(f"input {self.name!r} must be numbers, got {checks.shown(values)}") from None
        if self.role == "fixed" and array.shape == self.shape:
            array = np.broadcast_to(array, (batch, *self.shape))
        if array.shape != (batch, *self.shape):
            raise DataError(f"input {self.name!r} must have shape {(batch, *self.shape)}, got {array.shape}")
        array = array.reshape(batch, self.size)
        if self.role in MASKS:
            array = self._counted(array)
        self.check(array)
        return array

    def _counted(self, array: np.ndarray) -> np.ndarray:
        counts, padding = MASKS[self.role]
        closed = array <= MASKED if self.role == "added" else array == padding
        odd = array[~closed & (array != counts)]
        if odd.size:
            wanted = "0, or −5,000 or less" if self.role == "added" else "0 or 1"
            raise DataError(
                f"input {self.name!r} is read as a mask of {wanted}, got {odd[0]:g} (method='sampled' has it)"
            )
        return np.where(closed, 0.0, 1.0)

    def check(self, array: np.ndarray) -> None:
        """Refuse entries (B, size) that the network was not read for."""
        if not np.isfinite(array).all():
            raise DataError(f"input {self.name!r} must be finite, got nan or inf")
        if self.role in MASKS:
            if ((array != 0.0) & (array != 1.0)).any():
                raise DataError(f"input {self.name!r} must be 1 where tokens count and 0 where they do not")
            empty = ~array.any(axis=1)
            if empty.any():
                raise DataError(
                    f"input {self.name!r} leaves no token of example {int(empty.argmax())}, got padding alone"
                )
        if self.vocabulary:
            check_tokens(array, self.vocabulary)
            check_absent(array, self.absent)
        if self.role == "fixed" and (array != np.array(self.fixed)).any():
            raise DataError(
                f"input {self.name!r} must be the same as the network was read with: what a model makes of "
                "others is not described (method='sampled' takes them)"
            )


def check_parts(inputs: np.ndarray, parts: Sequence[InputPart]) -> None:
    """Refuse a batch (B, features) with entries that the network was not read for.

    Raises:
        DataError: it has such.
    """
    start = 0
    for part in parts:
        part.check(inputs[:, start : start + part.size])
        start += part.size


def joined(
    args: Sequence[Any], named: Mapping[str, Any], parts: Sequence[InputPart], batch: int
) -> np.ndarray:
    """The inputs of a batch side by side, (B, features); masks that are not given leave all tokens.

    Raises:
        DataError: inputs that are missing, unknown, or not as the network was read.
    """
    given = {**dict(enumerate(args)), **named}
    columns = []
    for part in parts:
        value = given.pop(part.at, None)
        value = given.pop(part.name, None) if value is None else value
        if value is not None:
            columns.append(part.entries(value, batch))
        elif part.role in MASKS:
            columns.append(np.ones((batch, part.size)))
        elif part.role == "fixed":
            columns.append(np.broadcast_to(np.array(part.fixed), (batch, part.size)))
        else:
            known = ", ".join(repr(one.name) for one in parts)
            raise DataError(f"data must have the inputs {known}, got none for {part.name!r}")
    left = [key for key, value in given.items() if hasattr(value, "shape")]
    if left:
        what = repr(left[0]) if isinstance(left[0], str) else f"number {left[0] + 1}"
        known = ", ".join(repr(one.name) for one in parts)
        raise DataError(
            f"data must have the inputs {known} that the network was read with, got input {what} too"
        )
    return np.concatenate(columns, axis=1)


def check_absent(inputs: np.ndarray, absent: tuple[int, ...]) -> None:
    """Refuse inputs with tokens that a network was read without what it does with them.

    A model that compares token numbers with one of them masks that one as a rule: it is padding. How many
    tokens of each input are left is not described.

    Raises:
        DataError: an input holds one.
    """
    for token in absent:
        held = (inputs == token).reshape(len(inputs), -1).any(axis=1)
        if held.any():
            raise DataError(
                f"inputs must not hold token {token}, which the model masks (padding): the network is read "
                f"without its mask, and {int(held.sum())} of {len(inputs)} inputs hold it; give the model "
                "itself with method='sampled'"
            )


def check_tokens(inputs: np.ndarray, vocabulary: int) -> None:
    """Refuse inputs that are no token numbers."""
    outside = (inputs < 0) | (inputs >= vocabulary) | (inputs != np.rint(inputs))
    if outside.any():
        raise DataError(
            f"inputs must be token numbers from 0 to {vocabulary - 1}, got {inputs[outside][0]:g}"
        )
