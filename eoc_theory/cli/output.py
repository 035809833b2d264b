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
    """A table, its first `left` columns aligned left and the others right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for index, heading in enumerate(headings):
        table.add_column(Text(shown_name(heading)), justify="left" if index < left else "right", no_wrap=True)
    for row in rows:
        # Text, so that brackets in an activation's name are not taken for markup.
        table.add_row(*(Text(shown_name(cell)) for cell in row))
    console = Console(file=sys.stdout, highlight=False)
    # As wide as it needs, also where a line goes on in the next one of a window: numbers cut short are none.
    console.width = max(
        console.width, console.measure(table, options=console.options.update(width=10**4)).maximum
    )
    console.print(table)
    if note:
        say(note)


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
