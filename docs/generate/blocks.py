"""The fenced blocks of a page, and the commands in them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OUTPUT = "output"
CONSOLE = "console"
PROMPT = "$ "
#: A prompt and its line, gone on with where it ends in a backslash; then lines without a prompt.
COMMAND = re.compile(r"^(\$ (?:[^\n]*\\\n)*[^\n]*\n)((?:(?!\$ )[^\n]*\n)*)", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        language: the first word after the fence.
        text: what is between the fences, with its last newline.
        start, end: where that text lies in the page.
    """

    language: str
    text: str
    start: int
    end: int


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    return [Block(found[1], found[2], *found.span(2)) for found in FENCE.finditer(page)]


@dataclass(frozen=True)
class Command:
    """A command of a console block.

    Attributes:
        spelled: its lines in the page, with the prompt.
        words: as the shell makes them; what follows a # is a comment.
        output: the lines shown below it, "" for none.
    """

    spelled: str
    words: tuple[str, ...]
    output: str


def commands(block: Block) -> list[Command]:
    """The commands of a console block. A line that ends in a backslash goes on in the next."""
    found = []
    for match in COMMAND.finditer(block.text):
        line = match[1].removeprefix(PROMPT).replace("\\\n", " ")
        found.append(Command(match[1], tuple(shlex.split(line, comments=True)), match[2]))
    return found
