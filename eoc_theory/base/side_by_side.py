"""Independent pieces of one calculation, a few at a time in threads of the process's own.

NumPy's large operations and numba's compiled loops run without Python's lock. Each piece is computed as it
would be alone and results come in the order of the pieces, so that the same bits come out whatever the number
of threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import lru_cache
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")

#: Threads, at most.
MOST_THREADS = 4

#: Whether this thread does a piece of a calculation whose others are done beside it.
_INSIDE: ContextVar[bool] = ContextVar("piece side by side", default=False)


def side_by_side(work: Callable[[Item], Made], items: Iterable[Item]) -> list[Made]:
    """`work` of every item, in their order.

    Pieces of a piece are done one after the other: threads that waited for each other would wait for ever.
    """
    pieces = list(items)
    if len(pieces) < 2 or processors() < 2 or _INSIDE.get():
        return [work(piece) for piece in pieces]
    # NumPy's error state, and what else belongs to this thread, is the pieces' too.
    waiting = [_pool().submit(copy_context().run, _inside, work, piece) for piece in pieces]
    return [one.result() for one in waiting]


def _inside(work: Callable[[Item], Made], piece: Item) -> Made:
    _INSIDE.set(True)
    return work(piece)


@contextmanager
def meanwhile(work: Callable[[], Made]) -> Iterator[Callable[[], Made]]:
    """Within it `work` is done in a thread of its own; what is given waits for the result, or raises.

    Where there is one processor, `work` is done when its result is asked for.
    """
    if processors() < 2:
        yield work
        return
    with ThreadPoolExecutor(1, thread_name_prefix="eoc-meanwhile") as pool:
        waiting = pool.submit(copy_context().run, work)
        yield waiting.result


@lru_cache(maxsize=1)
def processors() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(processors(), MOST_THREADS), thread_name_prefix="eoc-pieces")


if hasattr(os, "register_at_fork"):
    # Threads do not survive a fork.
    os.register_at_fork(after_in_child=_pool.cache_clear)
