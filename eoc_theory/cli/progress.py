"""Progress of long work, on stderr and only where that is a terminal."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..base.progress import listened_to
from ..errors.text import name
from .output import say

#: Seconds between two lines where there is no terminal.
_BETWEEN_LINES = 2.0
#: Seconds between two changes of what is shown, and until the time left is estimated.
_PAUSE, _ESTIMATED_AFTER = 0.2, 2.0


def _tells(shown: bool | None) -> bool:
    return sys.stderr.isatty() if shown is None else shown


@contextmanager
def _lines(text: str) -> Iterator[Callable[..., None]]:
    """A function that says how far the work is in lines on stderr, one in some seconds."""

    before = -_BETWEEN_LINES

    def show(now: str, *, last: bool = False) -> None:
        nonlocal before
        if last or time.monotonic() - before >= _BETWEEN_LINES:
            before = time.monotonic()
            say(f"{text}: {now}", file=sys.stderr)

    say(f"{text} …", file=sys.stderr)
    with listened_to(Stages(show)):
        yield show


@contextmanager
def working(text: str, shown: bool | None = None) -> Iterator[Callable[[str], None] | None]:
    """A spinner with `text` while the work inside goes on, and how far it is where the work tells.

    Gives a function that says what it is at.

    Args:
        shown: True: tell it where there is no terminal too, in lines; False: tell nothing; None: on a
            terminal alone.
    """
    if not _tells(shown):
        yield None
        return
    if not sys.stderr.isatty():
        with _lines(text) as said:
            yield said
        return
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status(text) as status:

        def show(now: str) -> None:
            # Markup is ours alone: names may have brackets.
            status.update(escape(name(f"{text}: {now}")))

        with listened_to(Stages(show)):
            yield show


class Stages:
    """Words on how far the work is, stage by stage, with the time that the rest of the stage will take."""

    def __init__(self, show: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._show, self._clock = show, clock
        self._stage, self._began, self._shown = "", 0.0, -_PAUSE

    def __call__(self, what: str, done: int, total: int) -> None:
        """`done` of `total` are behind us."""
        now = self._clock()
        if what != self._stage or done == 0:
            self._stage, self._began = what, now
        if total < 2 or now - self._shown < _PAUSE:
            return
        self._shown = now
        gone = now - self._began
        rest = ""
        if done and gone > _ESTIMATED_AFTER:
            rest = f", about {math.ceil(gone / done * (total - done))} s left of this"
        self._show(f"{what} {done + 1} of {total}{rest}")


@contextmanager
def bar(text: str, after: str, shown: bool | None = None) -> Iterator[Callable[[int, int], None] | None]:
    """A function of (done, total) that moves a progress bar; its label becomes `after` when all is done.

    Args:
        shown: as of `working`.
    """
    if not _tells(shown):
        yield None
        return
    if not sys.stderr.isatty():
        with _lines(after) as said:
            # The last line always comes, however fast the work was.
            yield lambda done, total: said(f"{text} {done} of {total}", last=done == total)
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(after, total=None)

        def move(done: int, total: int) -> None:
            label = after if done == total else f"{text} {done} of {total}"
            bars.update(task, completed=done, total=total, description=label)

        def say(now: str) -> None:
            bars.update(task, description=escape(f"{after}: {now}"))

        with listened_to(Stages(say)):
            yield move
