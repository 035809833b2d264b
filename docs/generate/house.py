"""The drawing of the packages, from the linter's contract and their docstrings.

``python -m docs.generate.house`` writes it to docs/house.svg; a test compares that file with what is drawn.
"""

from __future__ import annotations

import ast
import re
import textwrap
from configparser import ConfigParser
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[2]
CONTRACT = ROOT / ".importlinter"
DRAWING = ROOT / "docs" / "house.svg"

#: Lengths in pixels: margin, a line of text, between rows, the columns beside the rows, the rows themselves.
MARGIN, LINE, GAP, SIDE, ROW = 14, 18, 6, 34, 820
#: Width of the column of names, and of a letter of the descriptions.
NAMES, LETTER = 118, 7.1
BACKGROUND, EDGE, TEXT, FAINT = "#ffffff", "#c5cae9", "#1a237e", "#3c4043"
FILL = {True: "#e8eaf6", False: "#fff3e0"}


@dataclass(frozen=True)
class House:
    """The contract's packages.

    Attributes:
        layers: highest first; packages of the same layer do not import each other.
        order: name of the contract that orders them.
        light: the packages of the contract that forbids torch.
        lightness: its name.
    """

    layers: tuple[tuple[str, ...], ...]
    order: str
    light: frozenset[str]
    lightness: str


def read_house(contract: str) -> House:
    """The packages of a contract of import-linter.

    Args:
        contract: text of an ``.importlinter`` file with the contracts ``house`` and ``theory``.
    """
    parser = ConfigParser()
    parser.read_string(contract)
    house, theory = parser["importlinter:contract:house"], parser["importlinter:contract:theory"]
    rows = [line for line in house["layers"].split("\n") if line]
    layers = tuple(tuple(name.strip(" ()") for name in re.split(r"[|:]", row)) for row in rows)
    light = frozenset(name.rpartition(".")[2] for name in theory["source_modules"].split())
    return House(layers, house["name"], light, theory["name"])


def description(package: str, root: Path = ROOT / "eoc_theory") -> str:
    """The first sentence of a package's docstring, without its marks of code."""
    source = (root / package / "__init__.py").read_text(encoding="utf-8")
    text = ast.get_docstring(ast.parse(source)) or ""
    first = re.split(r"(?<=[.])\s", text.partition("\n\n")[0], maxsplit=1)[0]
    return " ".join(first.replace("`", "").split())


def draw(house: House, descriptions: dict[str, str]) -> str:
    """The drawing, as the text of an SVG file: a row for each layer, highest first."""
    top = MARGIN
    rows, spans = [], []
    for layer in house.layers:
        width = (ROW - GAP * (len(layer) - 1)) / len(layer)
        columns = int((width - NAMES - 10) / LETTER)
        texts = [textwrap.wrap(descriptions[name], columns) for name in layer]
        height = LINE * max(map(len, texts)) + 14
        for place, (name, lines) in enumerate(zip(layer, texts, strict=True)):
            left = MARGIN + SIDE + place * (width + GAP)
            rows.append(_box(name, lines, FILL[name in house.light], (left, top, width, height)))
        spans.append((top, height))
        top += height + GAP
    bottom = top - GAP
    right = MARGIN + SIDE + ROW + 12
    light = [span for layer, span in zip(house.layers, spans, strict=True) if set(layer) <= house.light]
    parts = [
        _arrow(MARGIN + 20, MARGIN, bottom),
        _beside(house.order, MARGIN + 10, (MARGIN + bottom) / 2),
        *rows,
        _bracket(right, light[0][0], light[-1][0] + light[-1][1]),
        _beside(house.lightness, right + 20, (light[0][0] + light[-1][0] + light[-1][1]) / 2),
    ]
    return _page(right + 20 + MARGIN, bottom + MARGIN, parts)


def drawing() -> str:
    """The drawing of the packages as they are."""
    house = read_house(CONTRACT.read_text(encoding="utf-8"))
    return draw(house, {name: description(name) for layer in house.layers for name in layer})


def _page(width: float, height: float, parts: list[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" role="img" font-family="Helvetica, Arial, sans-serif" font-size="13">\n'
        "<title>The packages of eoc_theory, each above those that it may import</title>\n"
        f'<rect width="{width:g}" height="{height:g}" rx="8" fill="{BACKGROUND}"/>\n'
    )
    return head + "\n".join(parts) + "\n</svg>\n"


def _box(name: str, lines: list[str], fill: str, place: tuple[float, float, float, float]) -> str:
    """A package: its name, and beside it what it is."""
    left, top, width, height = place
    first = top + (height - LINE * len(lines)) / 2 + 13
    parts = [
        f'<rect x="{left:g}" y="{top:g}" width="{width:g}" height="{height:g}" rx="4" fill="{fill}" '
        f'stroke="{EDGE}"/>',
        f'<text x="{left + 12:g}" y="{top + height / 2 + 5:g}" font-weight="bold" font-size="14" '
        f'fill="{TEXT}">{escape(name)}</text>',
    ]
    parts += [
        f'<text x="{left + NAMES:g}" y="{first + LINE * row:g}" fill="{FAINT}">{escape(line)}</text>'
        for row, line in enumerate(lines)
    ]
    return "\n".join(parts)


def _arrow(x: float, top: float, bottom: float) -> str:
    tip = f"M{x - 5:g} {bottom - 9:g}L{x:g} {bottom:g}L{x + 5:g} {bottom - 9:g}"
    return f'<path d="M{x:g} {top:g}V{bottom:g}{tip}" fill="none" stroke="{FAINT}" stroke-width="1.5"/>'


def _bracket(x: float, top: float, bottom: float) -> str:
    line = f"M{x - 6:g} {top:g}H{x:g}V{bottom:g}H{x - 6:g}"
    return f'<path d="{line}" fill="none" stroke="{FAINT}" stroke-width="1.5"/>'


def _beside(text: str, x: float, y: float) -> str:
    """Text that reads upwards."""
    return (
        f'<text transform="translate({x:g} {y:g}) rotate(-90)" text-anchor="middle" '
        f'fill="{FAINT}">{escape(text)}</text>'
    )


if __name__ == "__main__":
    DRAWING.write_text(drawing(), encoding="utf-8")
