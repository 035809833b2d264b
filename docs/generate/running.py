"""Running the code of a page, block by block, as a reader would type it."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .blocks import CONSOLE, OUTPUT, Block, blocks, commands
from .comparing import agrees
from .invoking import call, is_ours


class PageError(Exception):
    """Code of a page that does not run."""


@dataclass(frozen=True)
class Difference:
    """A place where a page shows something else than its code prints.

    Attributes:
        start, end: of the text in the page.
        shown: that text.
        printed: what should stand there.
    """

    start: int
    end: int
    shown: str
    printed: str

    def __str__(self) -> str:
        return f"shown:\n{self.shown}\nprinted:\n{self.printed}"


def run_page(
    page: str,
    name: str,
    folder: Path,
    names: dict[str, Any] | None = None,
    *,
    all_shown: bool = True,
) -> list[Difference]:
    """Runs the Python blocks of a page, one after the other, and the commands whose output it shows.

    A Python block's output is the ``output`` block right after it, a command's what follows its line. A
    command without output below it is not run: it may take long, or install something.

    Args:
        page: its text.
        name: of the page, for tracebacks.
        folder: where the code runs, and leaves its files.
        names: that the code takes for granted; those that it makes are added.
        all_shown: whether a block may print only what the page shows.

    Returns:
        the places where the page shows something else.

    Raises:
        PageError: a block raises, or a command fails.
    """
    names = {} if names is None else names
    names["__name__"] = "__main__"
    found = blocks(page)
    differences = []
    with _inside(folder):
        for index, block in enumerate(found):
            if block.language == "python":
                printed = _run(block, name, names)
                after = found[index + 1] if index + 1 < len(found) else None
                if after is not None and after.language == OUTPUT:
                    if not agrees(after.text, printed):
                        differences.append(Difference(after.start, after.end, after.text, printed))
                elif all_shown and printed.strip():
                    raise PageError(
                        f"{name}: the page does not show what this prints\n{block.text}\n{printed}"
                    )
            elif block.language == CONSOLE:
                printed = _run_commands(block, name)
                if not agrees(block.text, printed):
                    differences.append(Difference(block.start, block.end, block.text, printed))
    return differences


def _run(block: Block, name: str, names: dict[str, Any]) -> str:
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            exec(compile(block.text, name, "exec"), names)
    except (Exception, SystemExit) as error:  # a page that exits would end the check of all pages
        raise PageError(f"{name}: {type(error).__name__}: {error}\n{block.text}") from error
    return printed.getvalue()


def _run_commands(block: Block, name: str) -> str:
    """The block again, with the output that its commands have."""
    parts = []
    for command in commands(block):
        parts += [command.spelled, command.output]
        if command.output.strip() and is_ours(command.words):
            code, parts[-1] = call(command.words)
            if code:
                raise PageError(f"{name}: {command.spelled}exit status {code}\n{parts[-1]}")
    return "".join(parts)


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Works in a folder, where matplotlib opens no windows."""
    import matplotlib

    before, backend = Path.cwd(), matplotlib.get_backend()
    os.chdir(folder)
    matplotlib.use("Agg")
    try:
        yield
    finally:
        os.chdir(before)
        matplotlib.use(backend)
