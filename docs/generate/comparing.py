"""Whether what was printed is what a page shows."""

from __future__ import annotations

import re

NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[-+]?\d+)?")
#: Stands for any text, also of several lines.
ELLIPSIS = "…"


def agrees(shown: str, printed: str) -> bool:
    """Whether `printed` is `shown`: the same text, `…` for any, numbers to one unit of the last digit shown.

    That unit is what rounding differs by from one machine to another. How wide a gap is does not count.
    """
    pattern = []
    for part in re.split(rf"({NUMBER.pattern}|{ELLIPSIS}|\s+)", shown.strip()):
        if part == ELLIPSIS:
            pattern.append(r"[\s\S]*?")
        elif NUMBER.fullmatch(part):
            pattern.append(rf"({NUMBER.pattern})")
        else:
            pattern.append(r"\s+" if part.isspace() else re.escape(part))
    found = re.fullmatch("".join(pattern), printed.strip())
    if found is None:
        return False
    return all(_close(a, b) for a, b in zip(NUMBER.findall(shown), found.groups(), strict=True))


def _close(shown: str, printed: str) -> bool:
    return abs(float(shown) - float(printed)) <= 1.001 * _unit(shown)


def _unit(shown: str) -> float:
    """One in the last digit of a number; nothing of one without a point, which counts."""
    digits, _, exponent = shown.partition("e")
    decimals = len(digits.partition(".")[2])
    return 10.0 ** (int(exponent or 0) - decimals) if decimals or exponent else 0.0
