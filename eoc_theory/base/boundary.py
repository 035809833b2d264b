"""The guard of every public function, method and property: only the toolkit's own errors leave it.

Arguments are checked where they are used, with `checks`; this is the last line of defence behind that. It
keeps NumPy's floating-point warnings from the terminal as well.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, copy_context
from functools import cached_property, wraps
from inspect import isfunction
from typing import Any, TypeVar

import numpy as np

from ..errors import EOCError, InternalError, TooLargeError
from .compiled_models import of_uncompiled
from .equality import answer_equality

T = TypeVar("T")

#: Special methods that a user calls, by name or by an operator.
_SPECIAL = frozenset(
    f"__{name}__" for name in ("init", "call", "len", "iter", "getitem", "contains", "eq", "str", "repr")
)
#: What torch says where memory ends, in a RuntimeError.
_MEMORY_ENDED = ("can't allocate memory", "out of memory", "not enough memory", "size calculation overflowed")
#: Attribute of functions that went through `public`.
MARK = "__is_public__"


def _numpy_error_state() -> tuple[ContextVar[Any], Any]:
    """The context variable in which NumPy keeps its error state, and its value where errors are ignored.

    Entering `np.errstate` takes as long as a small function of ours, setting the variable a fifth of that.
    NumPy before version 2 has no such variable: then one of ours, which changes nothing.
    """
    before = copy_context()
    with np.errstate(all="ignore"):
        inside = copy_context()
    changed = [name for name in inside if inside[name] is not before.get(name)]
    if len(changed) != 1:
        return ContextVar("no error state"), True
    return changed[0], inside[changed[0]]


_STATE, _QUIET = _numpy_error_state()


def public(thing: T) -> T:
    """Mark a function as public, or a class with all its public methods and properties.

    The EOCError kinds, Ctrl-C, SystemExit, and Python's own TypeError for a call that does not fit the
    signature pass. A MemoryError becomes a TooLargeError; whatever else an InternalError, with the original
    as its cause. A function of a model takes compiled ones, too.
    """
    if not isinstance(thing, type):
        return of_uncompiled(_guarded(thing))  # type: ignore[return-value, arg-type]
    if hasattr(thing, "__dataclass_fields__") and "__eq__" in vars(thing):
        answer_equality(thing)
    for name, member in list(vars(thing).items()):
        if name in _SPECIAL or not name.startswith("_"):
            _guard_member(thing, name, member)
    return thing


def _guard_member(owner: type, name: str, member: Any) -> None:
    if isinstance(member, property) and member.fget is not None:
        setattr(owner, name, property(_guarded(member.fget), member.fset, member.fdel, member.__doc__))
    elif isinstance(member, cached_property):
        member.func = _guarded(member.func)
    elif isinstance(member, (classmethod, staticmethod)):
        setattr(owner, name, type(member)(_guarded(member.__func__)))
    elif isfunction(member):
        setattr(owner, name, _guarded(member))


def _guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        if _STATE.get(None) is _QUIET:  # inside another public function
            try:
                return function(*args, **kwargs)
            except Exception as error:
                _refuse(error, function)
                raise
        before = _STATE.set(_QUIET)
        try:
            return function(*args, **kwargs)
        except Exception as error:
            _refuse(error, function)
            raise
        finally:
            _STATE.reset(before)

    setattr(guarded, MARK, True)
    return guarded


def _refuse(error: Exception, function: Callable[..., Any]) -> None:
    """Raise what leaves in place of `error`; nothing where `error` itself may leave."""
    if isinstance(error, EOCError) or _misfits_signature(error):
        return
    name = f"{function.__module__.partition('.')[0]}.{function.__qualname__}"
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or memory_ended(error):
        raise TooLargeError(
            f"{name} was asked for more than fits into memory: {text or 'out of memory'}"
        ) from error
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    raise InternalError(f"{name} failed ({said}): this is a bug of eoc-theory, please report it") from error


def _misfits_signature(error: Exception) -> bool:
    """Whether Python refused the arguments before the function began: no frame but the guard's is in it."""
    trace = error.__traceback__
    return isinstance(error, TypeError) and trace is not None and trace.tb_next is None


def memory_ended(error: Exception) -> bool:
    """Whether an error of torch's says that there was not enough memory."""
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _MEMORY_ENDED)
