"""What one request samples or computes once, however many of its parts ask for it; and what requests in a
row have in common.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import numpy as np

from ..signals.data import DataSummary

Made = TypeVar("Made")

#: What was sampled so far within `shared_samples`, by all that a sample depends on.
_SHARED: ContextVar[dict[Any, Any] | None] = ContextVar("shared samples", default=None)

#: Bytes of arrays that `made_recently` keeps from one request to the next, in the whole process.
RECENT_BYTES = 64 << 20
#: What it keeps, the latest last, each with its size.
_RECENT: OrderedDict[Any, tuple[Any, int]] = OrderedDict()
_lock = threading.Lock()


@contextmanager
def shared_samples() -> Iterator[None]:
    """Within it no network is sampled twice: what pruning keeps and when it collapses start with the same."""
    if _SHARED.get() is not None:
        yield
        return
    token = _SHARED.set({})
    try:
        yield
    finally:
        _SHARED.reset(token)


def made_once(key: Any, make: Callable[[], Made]) -> Made:
    """What `make` gives, within `shared_samples` once for each `key`, which tells all that it depends on."""
    shared = _SHARED.get()
    if shared is None or not _is_hashable(key):
        return make()
    if key not in shared:
        shared[key] = make()
    return shared[key]


def made_recently(key: Any, make: Callable[[], Made]) -> Made:
    """What `make` gives, or gave for an equal `key` not long ago.

    For what follows from plain data alone, and is asked for again where somebody looks at one network from
    several sides: at other sparsities, or at its collapse. Its arrays cannot be written to.
    """
    if not _is_hashable(key):
        return make()
    with _lock:
        if key in _RECENT:
            _RECENT.move_to_end(key)
            return _RECENT[key][0]
    made = make()
    size = _locked_bytes(made)
    with _lock:
        _RECENT[key] = made, size
        while sum(held for _, held in _RECENT.values()) > RECENT_BYTES:
            _RECENT.popitem(last=False)
    return made


def forget_recent() -> None:
    """Let go of all that `made_recently` keeps."""
    with _lock:
        _RECENT.clear()


def _locked_bytes(made: Any) -> int:
    """The size of a value's arrays, which are made read-only."""
    if isinstance(made, np.ndarray):
        made.flags.writeable = False
        return made.nbytes
    if isinstance(made, tuple):
        return sum(map(_locked_bytes, made))
    if is_dataclass(made):
        return sum(_locked_bytes(getattr(made, field.name)) for field in fields(made))
    return 0


def _is_hashable(key: Any) -> bool:
    """Whether a key can be looked up: a user's own criterion may hold arrays."""
    try:
        hash(key)
    except TypeError:
        return False
    return True


def digest(batch: DataSummary) -> bytes:
    """A name of the batch's inputs and classes."""
    return b"".join(hashlib.sha256(part.tobytes()).digest() for part in (batch.inputs, batch.targets))
