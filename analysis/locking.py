"""A lock on a file that the operating system holds, and releases when the process dies, however it dies."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

# Locks of one process do not exclude each other, so what it holds itself is noted here.
_held: set[str] = set()
_guard = threading.Lock()


class LockedError(Exception):
    """Somebody else has the lock; the text says who, as far as is known."""


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock `path`, a file made for it and removed at the end.

    Raises:
        LockedError: it is held already, by this process or another. OSError: the file cannot be made.
    """
    name = os.path.realpath(path)
    with _guard:
        if name in _held:
            raise LockedError(f"process {os.getpid()}")
        _held.add(name)
    try:
        file = _take(path)
        try:
            yield
        finally:
            # First removed, then released: whoever waits for this file finds that it is no longer the one.
            if sys.platform == "win32":
                file.close()
                path.unlink(missing_ok=True)
            else:
                path.unlink(missing_ok=True)
                file.close()
    finally:
        with _guard:
            _held.discard(name)


def _take(path: Path) -> IO[str]:
    while True:
        file = open(path, "a+", encoding="utf-8")
        try:
            _lock(file)
        except OSError:
            file.seek(0)
            holder = file.read(80).strip()
            file.close()
            raise LockedError(holder or "another process") from None
        try:
            current = os.path.samestat(os.fstat(file.fileno()), os.stat(path))
        except FileNotFoundError:
            current = False
        if current:
            file.truncate(0)
            file.write(f"process {os.getpid()}")
            file.flush()
            return file
        file.close()  # removed by its last holder between opening and locking


if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[str]) -> None:
        # A byte far behind the text, so that others can read who holds it.
        file.seek(1 << 20)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        file.seek(0)

else:
    import fcntl

    def _lock(file: IO[str]) -> None:
        # Not flock: a process that was forked off would hold it on when this one is killed.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
