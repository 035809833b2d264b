"""Argument checks shared by the public functions; each returns the checked value or raises ArgumentError.

What comes in may be any object: converting, comparing or measuring it may itself fail, in any way. These
checks take every failure for what it says of the argument: that it is not what is accepted.
"""

from __future__ import annotations

import errno
import math
import numbers
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..errors import ArgumentError, CallbackError, EOCError, TooLargeError
from ..errors.text import printable, shortened
from .suggestions import did_you_mean

T = TypeVar("T")

#: Bytes that one request may always ask for, whatever the machine; see `memory_budget`.
LEAST_BUDGET = 4 * 2**30
#: Entries that an array which is handed in may have.
MOST_ENTRIES = 10**8
#: Characters of a value that an error shows.
LONGEST_VALUE = 60


def _real(name: str, value: Any, accepted: str) -> float:
    """`value` as a finite float; booleans, strings and complex numbers are refused."""
    if type(value) is not float:
        value = _as_float(name, value, accepted)
    if not math.isfinite(value):
        raise ArgumentError(f"{name} must be {accepted}, got {value}")
    return value


def _as_float(name: str, value: Any, accepted: str) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        # NumPy's zero-dimensional arrays are scalars to their users, although not numbers.Real.
        kind = getattr(getattr(value, "dtype", None), "kind", "")
        scalar = isinstance(value, (np.ndarray, np.generic)) and value.ndim == 0
        if not scalar or kind not in ("i", "u", "f") or isinstance(value, np.ma.MaskedArray):
            raise ArgumentError(f"{name} must be {accepted}, got {shown(value)}")
    try:
        return float(value)
    except Exception:  # a whole number beyond all floats, or a class of its own
        raise ArgumentError(f"{name} must be {accepted}, got {shown(value)}") from None


def shown(value: Any) -> str:
    """A short one-line picture of any object for an error message."""
    try:
        if isinstance(value, np.ndarray) and value.size > 1000:
            return f"an array of shape {value.shape}"
        # Only the beginning of long texts: repr() of a gigabyte is another one.
        text = repr(value[:1000]) if type(value) in (str, bytes) else repr(value)
        text = printable(" ".join(shortened(text, 2000).split()))
    except Exception:  # RecursionError included
        text = f"an object of type {type(value).__name__}"
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 3] + "..."


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
    """Real numbers of any shape as float64, nan and the infinities among them; tensors too.

    A masked array is refused: nothing stands in for the entries that it hides.
    """
    try:
        array = np.asarray(off_the_graph(values))
        if array.dtype == object and all(_is_real(value) for value in array.flat):
            array = array.astype(np.float64)
        if array.size > MOST_ENTRIES:
            raise TooLargeError(f"{name} must hold at most {MOST_ENTRIES} numbers, got {array.size}")
        if (array.dtype.kind in "iuf" or not array.size) and not np.ma.is_masked(values):
            return array.astype(np.float64)
    except TooLargeError:
        raise
    except Exception:
        pass  # rows of unequal length, tensors without values, objects that cannot be looked at
    raise ArgumentError(f"{name} must be {accepted}, got {shown(values)}")


def floats_of(name: str, values: Any, accepted: str = "a number or an array of numbers") -> np.ndarray:
    """As `numbers_of`, but a float64 array is returned as it is."""
    if type(values) is np.ndarray and values.dtype == np.float64:
        return values
    return numbers_of(name, values, accepted)


def off_the_graph(values: Any) -> Any:
    """A tensor without its gradient, on this machine; anything else as it is. torch is not imported."""
    if not hasattr(values, "detach"):
        return values
    values = _plain(values.detach().cpu())
    # NumPy has no bfloat16.
    return (values.double() if values.is_floating_point() else values).numpy()


def _plain(values: Any) -> Any:
    """A tensor of numbers each in its own place: what is sparse or quantised is neither any more."""
    if getattr(values, "is_quantized", False):
        return values.dequantize()
    return values.to_dense() if str(getattr(values, "layout", "torch.strided")) != "torch.strided" else values


def for_torch(values: Any) -> Any:
    """A copy of what torch warns of or refuses: arrays that are read only or run backwards, sparse and
    quantised tensors.

    Raises ValueError for sequences that torch would go through for hours, such as long ranges.
    """
    if isinstance(values, Sequence) and len(values) > MOST_ENTRIES:
        raise ValueError("too long")
    if hasattr(values, "detach"):
        return _plain(values)
    if isinstance(values, np.ndarray) and (not values.flags.writeable or min(values.strides, default=0) < 0):
        return np.array(values)
    return values


def _is_real(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_))


def integer(name: str, value: Any, minimum: int | None = None, maximum: int | None = None) -> int:
    """A whole number, at least `minimum` and at most `maximum` where given. 3.0 is whole, True is not.

    Numbers of more than 63 bits are refused: no seed of torch and no size can be one.
    """
    accepted = "a whole number" if minimum is None else f"a whole number >= {minimum}"
    number = _real(name, value, accepted)
    if number != int(number) or (minimum is not None and number < minimum):
        raise ArgumentError(f"{name} must be {accepted}, got {shown(value)}")
    if abs(int(value)) >= 2**63:
        raise ArgumentError(f"{name} must be a whole number under 2**63, got {shown(value)}")
    if maximum is not None and int(value) > maximum:
        raise TooLargeError(f"{name} must be at most {maximum}, got {shown(value)}")
    return int(value)


def seed(value: Any) -> int:
    """A seed."""
    return integer("seed", value, minimum=0)


def flag(name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise ArgumentError(f"{name} must be True or False, got {shown(value)}")
    return bool(value)


def text(name: str, value: Any) -> str:
    """A string."""
    if not isinstance(value, str):
        raise ArgumentError(f"{name} must be a string, got {shown(value)}")
    return value


def path(name: str, value: Any) -> Path:
    """A path, as a string or a Path, that an operating system can take.

    Raises:
        ArgumentError: something else, an empty one, one with a NUL or with characters that no file has.
    """
    accepted = "a path, as a string or a Path"
    if not isinstance(value, (str, os.PathLike)):
        raise ArgumentError(f"{name} must be {accepted}, got {shown(value)}")
    try:
        spelled = os.fspath(value)
        usable = isinstance(spelled, str) and bool(spelled) and b"\0" not in os.fsencode(spelled)
    except Exception:
        usable, spelled = False, ""
    if not usable:
        raise ArgumentError(f"{name} must be {accepted}, got {shown(value)}")
    try:
        os.lstat(spelled)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise ArgumentError(f"{name} is longer than a path may be, got {shown(spelled)}") from None
    return Path(spelled)


def function(name: str, value: Any, of: str) -> Callable[..., Any] | None:
    """None, or a function whose errors are CallbackErrors that name it; `of` says of what."""
    if value is None:
        return None
    if not callable(value):
        raise ArgumentError(f"{name} must be None or a function of {of}, got {shown(value)}")

    def called(*args: Any) -> Any:
        return call(name, value, *args)

    return called


def call(name: str, function: Callable[..., Any], *args: Any) -> Any:
    """The result of a function that was handed in.

    Raises:
        CallbackError: its own error, in one line that names it.
    """
    try:
        return function(*args)
    except EOCError:
        raise
    except Exception as error:
        raise CallbackError(f"{name} raised {said(error)}") from error


def said(error: BaseException) -> str:
    """The type of an error with its text, as far as it has one."""
    try:
        text = str(error)
    except Exception:
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def items(name: str, values: Any, accepted: str, most: int) -> list[Any]:
    """The items of a collection or an iterator, at most `most` of them.

    Raises:
        ArgumentError: no collection, or one that fails. TooLargeError: more than `most`, maybe without end.
    """
    try:
        if isinstance(values, (str, bytes, bytearray)) or not isinstance(values, Iterable):
            raise TypeError
        found = list(islice(iter(values), most + 1))
    except Exception as error:
        raised = "" if isinstance(error, TypeError) else f", which raised {said(error)}"
        raise ArgumentError(f"{name} must be {accepted}, got {shown(values)}{raised}") from None
    if len(found) > most:
        raise TooLargeError(f"{name} must hold at most {most}, got more: {shown(values)}")
    return found


def extents(name: str, given: Any, axes: Collection[int], accepted: str) -> tuple[int, ...]:
    """Channels and extents: whole numbers ≥ 1, as many as one of `axes` says."""
    usable = isinstance(given, Sequence) and not isinstance(given, (str, bytes, bytearray, memoryview))
    try:
        found = tuple(given) if usable and len(given) in axes else None
    except Exception:
        found = None
    if found is None:
        raise ArgumentError(f"{name} must be {accepted}, got {shown(given)}")
    return tuple(integer(f"{name}[{i}]", extent, minimum=1) for i, extent in enumerate(found))


def memory_budget() -> int:
    """Bytes that one request may ask for: half of the machine's memory."""
    try:
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        whole = 0  # Windows does not say
    return max(LEAST_BUDGET, whole // 2)


def memory(what: str, needed: float, instead: str) -> None:
    """Refuse what needs more than `memory_budget` bytes.

    Args:
        what: the argument, with the value that was asked for. instead: what would do.

    Raises:
        TooLargeError: `needed` is more.
    """
    budget = memory_budget()
    if not needed <= budget:
        raise TooLargeError(
            f"{what} would take about {in_bytes(needed)} of memory, more than the {in_bytes(budget)} that "
            f"one request may (half of the machine's): {instead}"
        )


def in_bytes(count: float) -> str:
    """Bytes in a unit that leaves one to four digits."""
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} PiB"


def one_of(name: str, value: T, options: Collection[T]) -> T:
    """One of the listed `options`."""
    try:
        found = any(type(value) is type(option) and value == option for option in options)
    except Exception:
        found = False
    if not found:
        listed = ", ".join(repr(option) for option in options)
        meant = did_you_mean(value, options)
        raise ArgumentError(f"{name} must be one of {listed}, got {shown(value)}{meant}")
    return value
