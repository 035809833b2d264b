"""What one request samples or computes once, however many of its parts ask for it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from ..signals.data import DataSummary

Made = TypeVar("Made")

#: What was sampled so far within `shared_samples`, by all that a sample depends on.
_SHARED: ContextVar[dict[Any, Any] | None] = ContextVar("shared samples", default=None)


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
