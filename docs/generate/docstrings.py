"""Docstrings as the documentation's reader of them wants them: one item a line, no roles."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

ROLE = re.compile(r":(?:func|class|meth|mod|attr|data|exc):`~?([^`]+)`")
SECTION = re.compile(r"(?P<head>^(?P<name>Args|Raises):\n)(?P<items>(?:(?:    .*)?(?:\n|\Z))+)", re.MULTILINE)
#: Before an item of "Raises": one or several errors, which kind they are, a colon.
ERROR = re.compile(r"(?:^|(?<=[.;]) )(?=[A-Z]\w*Error(?:, [A-Z]\w*Error)*(?: \([^)]*\))?: )")
#: The name of something in code style, as seen from a user's program or whole.
NAME = re.compile(r"(?<![`\[])`(?:eoc\.|eoc_theory\.(?:\w+\.)*)?(\w+)`(?![`\]])")


def plain(text: str, parameters: Sequence[str] = ()) -> str:
    """A docstring's text with Sphinx's roles as code, and each argument and error in a line of its own.

    Args:
        text: the docstring, its indentation taken off.
        parameters: names that an argument can have.
    """

    def item_lines(section: re.Match[str]) -> str:
        items = section["items"]
        rest = items[len(items.rstrip("\n")) :]
        if section["name"] == "Raises":
            one_line = " ".join(items.split())
            lines = [part.strip() for part in ERROR.split(one_line) if part.strip()]
            return section["head"] + "\n".join(f"    {line}" for line in lines) + rest
        if not parameters:
            return section[0]
        name = "|".join(map(re.escape, parameters))
        after = re.compile(rf"(^    \S.*?\.) +(?=(?:{name})(?:, (?:{name}))*: )", re.MULTILINE)
        while after.search(items):
            items = after.sub(r"\1\n    ", items)
        return section["head"] + items

    return SECTION.sub(item_lines, ROLE.sub(r"`\1`", text))


def linked(text: str, public: Collection[str], own: str) -> str:
    """A docstring's text where the package's public names lead to their place in the reference.

    Args:
        text: the docstring.
        public: the names.
        own: the name of what is described, which needs no link.
    """

    def link(found: re.Match[str]) -> str:
        name = found[1]
        return f"[{found[0]}][eoc_theory.{name}]" if name in public and name != own else found[0]

    return NAME.sub(link, text)
