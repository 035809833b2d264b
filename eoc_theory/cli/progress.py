"""Progress of long work, on stderr and only where that is a terminal."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Seconds between two changes of what is shown, and until the time left is estimated.
_PAUSE, _ESTIMATED_AFTER = 0.2, 2.0


@contextmanager
def working(text: str) -> Iterator[Callable[[str], None] | None]:
    """A spinner with `text` while the work inside goes on, and how far it is where the work tells.

    Gives a function that says what it is at.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.markup import escape

    from ..base.progress import listened_to
    from ..errors.text import name

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
def bar(text: str, after: str) -> Iterator[Callable[[int, int], None] | None]:
    """A function of (done, total) that moves a progress bar; its label becomes `after` when all is done."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    from ..base.progress import listened_to

    with Progress(console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(after, total=None)

        def move(done: int, total: int) -> None:
            label = after if done == total else f"{text} {done} of {total}"
            shown.update(task, completed=done, total=total, description=label)

        def say(now: str) -> None:
            shown.update(task, description=escape(f"{after}: {now}"))

        with listened_to(Stages(say)):
            yield move
