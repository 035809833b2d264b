"""What a command prints: tables that read well on a terminal and in a pipe, or JSON alone."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

#: More layers than this are thinned out unless every one is asked for.
FULL_TABLE = 12


def print_json(values: dict[str, Any]) -> None:
    """Standard JSON: nan becomes null, the infinities the strings "inf" and "-inf"."""
    print(json.dumps(plain(values), allow_nan=False, ensure_ascii=False))


def plain(value: Any) -> Any:
    """Arrays as lists, numbers as JSON has them."""
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


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
        table.add_column(Text(heading), justify="left" if index < left else "right", no_wrap=True)
    for row in rows:
        # Text, so that brackets in an activation's name are not taken for markup.
        table.add_row(*(Text(cell) for cell in row))
    console = Console(file=sys.stdout, highlight=False)
    if not console.is_terminal:
        # Nobody's window: as wide as it needs.
        console.width = 200
    console.print(table)
    if note:
        print(note)


def print_facts(facts: Sequence[tuple[str, str]]) -> None:
    """Name and value, one a line, values below each other."""
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        print(f"{name:<{width}}  {value}")


def shown_layers(depth: int, every: bool) -> list[int]:
    """Indices of the layers to print: all, or the first, every k-th and the last."""
    if every or depth <= FULL_TABLE:
        return list(range(depth))
    step = next(k * 10**e for e in range(12) for k in (1, 2, 5) if depth / (k * 10**e) <= FULL_TABLE)
    return sorted({0, *range(step - 1, depth, step), depth - 1})


def thinned(depth: int, every: bool) -> str:
    """What to say about layers that are not shown."""
    shown = shown_layers(depth, every)
    return "" if len(shown) == depth else f"{len(shown)} of {depth} layers; --all-layers shows each"


def sparsity(value: float) -> str:
    """A sparsity with three digits of what it leaves."""
    left = 1.0 - value
    if left <= 0.0:
        return "1"
    digits = min(12, max(3, 2 + math.ceil(-math.log10(left))))
    return f"{value:.{digits}f}"


def probability(value: float) -> str:
    """Three decimals, or the exponent of a small one."""
    if value >= 0.0005 or value == 0.0:
        return f"{value:.3f}" if value else "0"
    return f"{value:.1e}" if value >= 1e-9 else "<1e-9"
