"""How much work reading an expression may take, counted in operations: the answer is the same everywhere.

No clock is asked: what is refused on one machine is refused on all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from ..errors import ExpressionError

MOST_WORK = 1_900_000  # operations in many digits, about a microsecond each
LARGEST_SIZE = 15_000  # operations of an expression or one of its first three derivatives
# Operations that a call and a function in many digits count for. Error functions count their own.
CALL, _FUNCTION = 30, 20

_spent: ContextVar[list[int] | None] = ContextVar("work spent on reading", default=None)


@contextmanager
def counted() -> Iterator[None]:
    """Count the work inside, from 0."""
    token = _spent.set([0])
    try:
        yield
    finally:
        _spent.reset(token)


def spend(operations: int) -> None:
    """Count some operations.

    Raises:
        ExpressionError: there were too many, inside :func:`counted`.
    """
    spent = _spent.get()
    if spent is None:
        return
    spent[0] += operations
    if spent[0] > MOST_WORK:
        raise ExpressionError(
            f"the expression is too costly to read: its kinks and values took more than {MOST_WORK} "
            "operations in many digits; a simpler expression or a NumPy callable is accepted"
        )


def parts(*expressions: Any) -> Iterator[Any]:
    """The distinct parts of SymPy expressions, each once however often it occurs."""
    seen, stack = set(expressions), list(dict.fromkeys(expressions))
    while stack:
        node = stack.pop()
        yield node
        fresh = [argument for argument in node.args if argument not in seen]
        seen.update(fresh)
        stack += dict.fromkeys(fresh)


def size(*expressions: Any, most: int) -> int:
    """How many operations evaluating SymPy expressions together takes, counted up to `most`."""
    total = 0
    for node in parts(*expressions):
        if node.is_Function:
            total += _FUNCTION
        else:
            total += 3 * len(node.args)
        if total > most:
            break
    return total


def check_size(expression: Any, what: str) -> int:
    """The size of an expression, once it is found small enough to go on with."""
    found = size(expression, most=LARGEST_SIZE)
    if found > LARGEST_SIZE:
        raise ExpressionError(
            f"the expression is too costly to read: {what} has more than {LARGEST_SIZE} operations; "
            "a simpler expression or a NumPy callable is accepted"
        )
    return found
