"""Argument checks shared by the public functions; each returns the checked value or raises ArgumentError."""

from __future__ import annotations

import math
import numbers
from collections.abc import Collection
from typing import Any, TypeVar

import numpy as np

from .errors import ArgumentError

T = TypeVar("T")


def _real(name: str, value: Any, accepted: str) -> float:
    """`value` as a finite float; booleans, strings and complex numbers are refused."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        # NumPy's zero-dimensional arrays are scalars to their users, although not numbers.Real.
        kind = getattr(getattr(value, "dtype", None), "kind", "")
        if getattr(value, "ndim", None) != 0 or kind not in ("i", "u", "f"):
            raise ArgumentError(f"{name} must be {accepted}, got {shown(value)}")
    number = float(value)
    if not math.isfinite(number):
        raise ArgumentError(f"{name} must be {accepted}, got {number}")
    return number


def shown(value: Any) -> str:
    """A short one-line picture of any object for an error message."""
    try:
        text = " ".join(repr(value).split())
    except Exception:
        text = f"an object of type {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


def finite(name: str, value: Any) -> float:
    """A finite real number."""
    return _real(name, value, "a finite number")


def positive(name: str, value: Any) -> float:
    """A finite number > 0."""
    number = _real(name, value, "a number > 0")
    if number <= 0:
        raise ArgumentError(f"{name} must be a number > 0, got {number:g}")
    return number


def non_negative(name: str, value: Any) -> float:
    """A finite number ≥ 0."""
    number = _real(name, value, "a number >= 0")
    if number < 0:
        raise ArgumentError(f"{name} must be a number >= 0, got {number:g}")
    return number


def fraction(name: str, value: Any) -> float:
    """A number in [0, 1)."""
    number = _real(name, value, "a number in [0, 1)")
    if not 0 <= number < 1:
        raise ArgumentError(f"{name} must be a number in [0, 1), got {number:g}")
    return number


def numbers_of(name: str, values: Any, accepted: str = "a number or an array of numbers") -> np.ndarray:
    """Real numbers of any shape as float64, nan and the infinities among them."""
    try:
        array = np.asarray(values)
        if array.dtype.kind in "iuf" or not array.size:
            return array.astype(np.float64)
    except (TypeError, ValueError, RuntimeError):
        pass  # rows of unequal length, tensors elsewhere
    raise ArgumentError(f"{name} must be {accepted}, got {shown(values)}")


def integer(name: str, value: Any, minimum: int | None = None) -> int:
    """A whole number, at least `minimum` when given. 3.0 counts as whole, True does not.

    Numbers of more than 63 bits are refused: no seed of torch and no size can be one.
    """
    accepted = "a whole number" if minimum is None else f"a whole number >= {minimum}"
    number = _real(name, value, accepted)
    if number != int(number) or (minimum is not None and number < minimum):
        raise ArgumentError(f"{name} must be {accepted}, got {shown(value)}")
    if abs(int(value)) >= 2**63:
        raise ArgumentError(f"{name} must be a whole number under 2**63, got {shown(value)}")
    return int(value)


def one_of(name: str, value: T, options: Collection[T]) -> T:
    """One of the listed `options`."""
    if not any(type(value) is type(option) and value == option for option in options):
        listed = ", ".join(repr(option) for option in options)
        raise ArgumentError(f"{name} must be one of {listed}, got {shown(value)}")
    return value
