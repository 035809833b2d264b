"""How far long work has come, for whoever listens: a command that shows it on a terminal.

Nothing is said where nobody listens, and what is computed does not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

Item = TypeVar("Item")
#: Called with what is under way, how much of it is done, and of how much.
Listener = Callable[[str, int, int], None]

_LISTENER: ContextVar[Listener | None] = ContextVar("listener of progress", default=None)


@contextmanager
def listened_to(listener: Listener | None) -> Iterator[None]:
    """Within it, work in this thread tells `listener` how far it is."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def followed(items: Iterable[Item], what: str, total: int) -> Iterator[Item]:
    """The items, one after the other, of which the listener is told as they are done with."""
    listener = _LISTENER.get()
    for done, item in enumerate(items):
        if listener is not None:
            listener(what, done, total)
        yield item
