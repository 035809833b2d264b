"""A lock on a file itself, by whatever name it is reached, that ends with its process, however that ends."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: (device, inode) of what this process holds, with the open file. A process is told of its own locks without
#: opening the file: closing it again would end the locks that SQLite has on it (POSIX ends all that a process
#: has on a file when it closes one descriptor of it).
_held: dict[tuple[int, int], int] = {}
_guard = threading.Lock()


class LockedError(Exception):
    """Somebody else has the lock; the text says who, as far as is known."""


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock on the file `path`, which must be there and is not changed.

    Raises:
        LockedError: it is held already, by this process or another. OSError: the file cannot be opened.
    """
    inode, file = _take(path)
    try:
        yield
    finally:
        with _guard:
            if _held.pop(inode, None) is not None:
                _unlock(file)
                os.close(file)


def _take(path: Path) -> tuple[tuple[int, int], int]:
    with _guard:
        status = os.stat(path)
        inode = (status.st_dev, status.st_ino)
        if inode in _held:
            raise LockedError(f"process {os.getpid()}")
        file = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
        try:
            _lock(file)
            opened = os.fstat(file)
            if (opened.st_dev, opened.st_ino) != inode:
                raise LockedError("another process, which has just put a new file there")
        except BlockingIOError:
            os.close(file)
            raise LockedError(_holder(inode)) from None
        except BaseException:
            os.close(file)
            raise
        _held[inode] = file
        return inode, file


def _forget() -> None:
    """In a process that was forked off: it must not hold on to the lock when its parent has ended."""
    for file in _held.values():
        os.close(file)
    _held.clear()


if sys.platform == "win32":
    import msvcrt

    def _lock(file: int) -> None:
        # A byte behind those that SQLite locks.
        os.lseek(file, 0x7FFFFFF0, os.SEEK_SET)
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError:
            raise BlockingIOError from None

    def _unlock(file: int) -> None:
        """Closing the file is enough."""

else:
    import fcntl

    os.register_at_fork(after_in_child=_forget)

    def _lock(file: int) -> None:
        # flock, which SQLite does not use: its own locks are apart from this one.
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(file: int) -> None:
        # Not by closing alone: a process that was forked off a moment ago may still have the file open.
        fcntl.flock(file, fcntl.LOCK_UN)


def _holder(inode: tuple[int, int]) -> str:
    """The process that holds the lock, where the system says which (Linux)."""
    device = f"{os.major(inode[0]):02x}:{os.minor(inode[0]):02x}:{inode[1]}" if hasattr(os, "major") else ""
    try:
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        lines = []
    for line in lines:
        words = line.split()
        if words[1:2] == ["FLOCK"] and device in words and int(words[4]) > 0:
            return f"process {words[4]}"
    return "another process"
