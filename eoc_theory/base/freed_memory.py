"""Give memory that predictions have freed back to the system."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache


def give_back() -> None:
    """Return freed memory to the system.

    The C library keeps what one thread freed for that thread: one model after the other would each leave some
    hundred megabytes. Does nothing where the library has no such call.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


@lru_cache(maxsize=1)
def _trim() -> Callable[[int], int] | None:
    """The C library's function that gives freed memory back to the system, where it has one."""
    if sys.platform.startswith("linux"):
        with suppress(AttributeError, OSError):
            return ctypes.CDLL(None).malloc_trim
    return None
