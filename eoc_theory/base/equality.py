"""``==`` and ``hash`` of results that hold arrays, whose own ``==`` gives no single answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np


def answer_equality(cls: type) -> None:
    """Let a dataclass compare by its fields, arrays among them, and be hashed by identity where these are.

    What has an answer already, because no array is in it, keeps it.
    """
    plain: Any = cls
    by_fields, by_hash = plain.__eq__, plain.__hash__

    def __eq__(self: Any, other: Any) -> Any:  # noqa: N807
        try:
            return by_fields(self, other)
        except Exception:
            return same(self, other)

    def __hash__(self: Any) -> int:  # noqa: N807
        try:
            return by_hash(self)
        except TypeError:
            return object.__hash__(self)

    setattr(cls, "__eq__", __eq__)  # noqa: B010
    setattr(cls, "__hash__", __hash__)  # noqa: B010


def same(one: Any, other: Any) -> bool:
    """Whether two values hold the same, with arrays and dataclasses in them; nan is nan."""
    if one is other:
        return True
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return _same_arrays(np.asarray(one), np.asarray(other))
    if is_dataclass(one) and type(one) is type(other):
        return all(
            same(getattr(one, field.name), getattr(other, field.name))
            for field in fields(one)
            if field.compare
        )
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, (tuple, list)) and type(one) is type(other):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other) or (one != one and other != other)


def _same_arrays(one: np.ndarray, other: np.ndarray) -> bool:
    if one.shape != other.shape or one.dtype.kind != other.dtype.kind:
        return False
    return np.array_equal(one, other, equal_nan=one.dtype.kind in "fc")
