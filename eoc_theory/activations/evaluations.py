"""How much work evaluating an activation takes, counted: what is refused is refused on every machine.

Reading a callable and the tables of moments count the numbers at which a function is evaluated, up to a limit
of their own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from ..errors import ActivationError
from .core import Array, Function

# A call of a callable costs as much as so many numbers, some 0.1 µs each.
_CALL = 300
# Up to so many seconds a number, all callables count alike.
_USUAL = 2e-7


@dataclass
class Work:
    """Evaluations that are counted up to a limit.

    Attributes:
        limit: evaluations, about 0.1 µs of CPU time each, that may be spent.
        node: what a node of a quadrature rule costs.
        plain: what one does at which no derivatives are formed.
        rule: what a rule costs besides.
        refusal: with what to refuse a callable that goes beyond the limit; empty where others look at it.
    """

    limit: float
    node: int = 1
    plain: int = 1
    rule: int = 0
    refusal: str = ""
    spent: int = 0


_counted: ContextVar[Work | None] = ContextVar("evaluations that are counted", default=None)


@contextmanager
def counting(work: Work) -> Iterator[Work]:
    """Count the evaluations inside."""
    token = _counted.set(work)
    try:
        yield work
    finally:
        _counted.reset(token)


def spend_rule(nodes: int, plain: bool = False) -> None:
    """Count a quadrature rule."""
    work = _counted.get()
    if work is not None:
        work.spent += work.rule + (work.plain if plain else work.node) * nodes


def spend(evaluations: int) -> None:
    """Count what costs as much as so many evaluations."""
    work = _counted.get()
    if work is not None:
        work.spent += evaluations


def spend_call(numbers: int, weight: int) -> None:
    """Count one call of a callable.

    Raises:
        ActivationError: it was one too many, where there is a refusal.
    """
    work = _counted.get()
    if work is None:
        return
    work.spent += weight * (numbers + _CALL)
    require(0)


def require(evaluations: int) -> None:
    """See that so many evaluations may be spent yet.

    Raises:
        ActivationError: they would be too many, where there is a refusal.
    """
    work = _counted.get()
    if work is not None and work.refusal and work.spent + evaluations > work.limit:
        raise ActivationError(work.refusal)


def exhausted() -> bool:
    """Whether what is counted has come to its limit."""
    work = _counted.get()
    return work is not None and work.spent >= work.limit


def weight_of(call: Function, x: Array) -> int:
    """What a number costs for a callable: 1, or for a slow one a power of two."""
    seconds = math.inf
    for _ in range(3):
        start = time.thread_time()
        call(x)
        seconds = min(seconds, (time.thread_time() - start) / x.size)
    # The clock decides of slow ones alone.
    return 2 ** max(0, math.ceil(math.log2(max(seconds, 1e-12) / _USUAL)))
