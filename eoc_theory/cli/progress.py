"""Progress of long work, on stderr and only where that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def working(text: str) -> Iterator[Callable[[str], None] | None]:
    """A spinner with `text` while the work inside goes on; gives a function that says what it is at."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.markup import escape

    from ..errors.text import name

    with Console(stderr=True).status(text) as status:
        # Markup is ours alone: names may have brackets.
        yield lambda now: status.update(escape(name(f"{text}: {now}")))


@contextmanager
def bar(text: str, after: str) -> Iterator[Callable[[int, int], None] | None]:
    """A function of (done, total) that moves a progress bar; its label becomes `after` when all is done."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(text, total=None)

        def move(done: int, total: int) -> None:
            label = after if done == total else f"{text} {done} of {total}"
            shown.update(task, completed=done, total=total, description=label)

        yield move
