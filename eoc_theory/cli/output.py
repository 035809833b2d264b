"""What a command prints: tables for a terminal or a pipe, or only JSON."""

from __future__ import annotations

import io
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from ..base.formatting import plain, shown_layers
from ..errors import EOCError
from ..errors.text import json_text, one_line, prose
from ..errors.text import name as shown_name

#: Between two columns of a table.
GAP = 3
#: What the shell says of a command that Ctrl-C ended.
INTERRUPTED = 130


def run_command(name: str, call: Callable[[], int]) -> int:
    """The exit status of `call`, where what ends it early is one line on stderr: 1, or 130 for Ctrl-C."""
    prepare_streams()
    try:
        status = call()
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        drop_output()
        return 1
    except (EOCError, MemoryError, OSError) as error:
        say(f"{name}: {one_line(str(error)) or 'out of memory'}", file=sys.stderr)
        try:
            sys.stdout.flush()
        except OSError:
            drop_output()  # the disk is full: what is left would be tried once more at exit
        return 1


def prepare_streams() -> None:
    """A terminal or pipe that knows no σ gets a question mark, not an error; a closed one swallows all."""
    # Python has None for a stream that is closed; print() would take another for it.
    sys.stdout = sys.stdout or open(os.devnull, "w")
    sys.stderr = sys.stderr or open(os.devnull, "w")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def drop_output() -> None:
    """After a BrokenPipeError: the reader, `head` for one, has seen enough; or where no more can be written.

    Python must not find that out once more at exit, which would end with status 120.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(text: str = "", *, end: str = "\n", file: TextIO | None = None) -> None:
    """Print text that may quote names: a terminal obeys none of their characters."""
    print(prose(text), end=end, file=file)


def print_json(values: dict[str, Any]) -> None:
    """Standard JSON: nan becomes null, the infinities the strings "inf" and "-inf"."""
    print(json_text(plain(values)))


def print_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1, note: str = ""
) -> None:
    """A table, its first `left` columns aligned left and the others right.

    Where the window is too narrow for all columns, they stand in several tables below each other, each with
    the first `left` columns.
    """
    shown = [[shown_name(cell) for cell in row] for row in (headings, *rows)]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for number, chosen in enumerate(_folds(widths, left, line_width())):
        if number:
            say()
        _print_columns(shown, chosen, left)
    if note:
        say(note)


def _folds(widths: Sequence[int], left: int, width: int) -> list[list[int]]:
    """Which columns stand beside each other; the first ones are repeated where the others do not fit."""
    fixed = list(range(max(left, 1)))
    taken = sum(widths[i] + GAP for i in fixed)
    folds, room = [list(fixed)], width - taken
    for column in range(len(fixed), len(widths)):
        if widths[column] > room and len(folds[-1]) > len(fixed):
            folds.append(list(fixed))
            room = width - taken
        folds[-1].append(column)
        room -= widths[column] + GAP
    return folds


def _print_columns(shown: Sequence[Sequence[str]], chosen: Sequence[int], left: int) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    headings, *rows = shown
    for index in chosen:
        table.add_column(Text(headings[index]), justify="left" if index < left else "right", no_wrap=True)
    for row in rows:
        # Text, so that brackets in an activation's name are not taken for markup.
        table.add_row(*(Text(row[index]) for index in chosen))
    console = Console(file=sys.stdout, highlight=False)
    # As wide as it needs, also where a line goes on in the next one of a window: numbers cut short are none.
    console.width = max(
        console.width, console.measure(table, options=console.options.update(width=10**4)).maximum
    )
    console.print(table)


def line_width() -> int:
    """Characters in a line: of the terminal, or 200 where nobody's window is written to."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 200


def print_prose(heading: str, text: str, width: int) -> None:
    """A paragraph under its heading."""
    say(heading)
    say(
        textwrap.fill(
            prose(text), width, initial_indent="  ", subsequent_indent="  ", break_long_words=False,
            break_on_hyphens=False,
        )
    )  # fmt: skip
    print()


def print_facts(facts: Sequence[tuple[str, str]]) -> None:
    """Name and value, one a line, values below each other."""
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        say(f"{name:<{width}}  {value}")


def thinned(depth: int, every: bool) -> str:
    """What to say about layers that are not shown."""
    shown = shown_layers(depth, every)
    return "" if len(shown) == depth else f"{len(shown)} of {depth} layers; --all-layers shows each"


def method(name: str, samples: int) -> str:
    """How a prediction came about."""
    return f"{samples} sampled networks" if name == "sampled" and samples else name
