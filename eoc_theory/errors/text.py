"""Text that came from elsewhere, as it may be shown: in a terminal, a page, a picture, an error message.

Names of layers, activations, files and studies are whatever their authors wrote. A control character among
them could move a terminal's cursor, a bidirectional mark reorder a line, a line separator end it, a lone
surrogate cannot be written to a file at all. All that is shown as an escape, as Python writes it in a string.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable
from typing import Any

#: Marks that may follow one letter; more of them would grow over the lines above and below.
MOST_MARKS = 4
#: Characters of a name that are shown.
LONGEST_NAME = 200
#: Characters of an error message.
LONGEST_MESSAGE = 1000
_LONG_WORD = re.compile(rf"\S{{{LONGEST_NAME + 1},}}")


def printable(text: str) -> str:
    """`text` with everything escaped that is not a printable character or a space.

    What is escaped: control characters, line and paragraph separators, other spaces than the usual one,
    bidirectional and other invisible marks, lone surrogates, characters without a meaning, and combining
    marks beyond `MOST_MARKS` on one letter. Text of printable characters alone is returned as it is.
    """
    return _escaped(text, lambda character: character.encode("unicode_escape").decode("ascii"))


def _escaped(text: str, escape: Callable[[str], str]) -> str:
    """`text` with `escape` of what `printable` names."""
    if text.isascii() and text.isprintable():
        return text
    shown, marks = [], 0
    for character in text:
        marks = marks + 1 if unicodedata.category(character) in ("Mn", "Me") else 0
        plain = character.isprintable() and marks <= MOST_MARKS
        shown.append(character if plain else escape(character))
    return "".join(shown)


def shortened(text: str, longest: int) -> str:
    """`text`, its middle left out where it has more than `longest` characters."""
    if len(text) <= longest:
        return text
    head = (longest - 3) * 2 // 3
    return f"{text[:head]}...{text[len(text) - (longest - 3 - head) :]}"


def name(text: str) -> str:
    """A name, printable, and with its middle left out where it is very long."""
    return shortened(printable(shortened(text, 4 * LONGEST_NAME)), LONGEST_NAME)


def prose(text: str) -> str:
    """Text of several lines, each of them printable; names as long as no word is are shortened."""
    return _LONG_WORD.sub(lambda word: name(word.group()), printable_lines(text))


def printable_lines(text: str) -> str:
    """Text of several lines, each of them printable, and nothing shortened."""
    return "\n".join(map(printable, text.split("\n")))


def json_text(values: Any) -> str:
    """Standard JSON; what is not printable is escaped as JSON has it, so that nothing is lost."""
    made = json.dumps(values, allow_nan=False, ensure_ascii=False)
    return _escaped(made, lambda character: json.dumps(character)[1:-1])


def one_line(text: str) -> str:
    """A message on one line: printable, runs of white space as single spaces, not over `LONGEST_MESSAGE`."""
    if len(text) > 10 * LONGEST_MESSAGE:
        text = shortened(text, 10 * LONGEST_MESSAGE)
    return shortened(printable(" ".join(text.split())), LONGEST_MESSAGE)
