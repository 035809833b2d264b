"""One thread a matrix product while a prediction is computed.

How many threads share a product can change its last bits, so that a result would depend on the machine, on
OMP_NUM_THREADS and on what else runs. Predictions run several networks at a time instead. The number is one
of the whole process: of several predictions at a time the first sets it and the last puts it back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar

T = TypeVar("T", bound=Callable[..., Any])

_lock = threading.Lock()
_inside = 0
_limits: Any = None


@contextmanager
def one_thread_products() -> Iterator[None]:
    """Within it every matrix product of the process has one thread."""
    global _inside, _limits
    with _lock:
        if _inside == 0:
            from threadpoolctl import threadpool_limits

            _for_any_thread()
            _limits = threadpool_limits(1, user_api="blas")
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _for_any_thread()
                _limits.restore_original_limits()
                _for_any_thread()
                _limits = None


def _for_any_thread() -> None:
    """Let this thread set OpenBLAS' number of threads, which another one has set before.

    In newer threadpoolctl the first thread that sets it keeps the right to, and calls of others do nothing.
    """
    import threadpoolctl

    clear = getattr(getattr(threadpoolctl, "OpenBLASController", None), "clear_controlling_thread", None)
    if clear is not None:
        clear(force=True)


def with_one_thread(function: T) -> T:
    """The function, run within `one_thread_products`."""

    @wraps(function)
    def alone(*args: Any, **kwargs: Any) -> Any:
        with one_thread_products():
            return function(*args, **kwargs)

    return alone  # type: ignore[return-value]
