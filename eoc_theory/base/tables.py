"""A table of text, for terminals and for notebooks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from ..errors.text import name, printable
from .formatting import shown_layers
from .typing import DataFrame

#: Between two columns of text.
GAP = 2


@dataclass(frozen=True)
class Table:
    """Headings and rows of text.

    Attributes:
        headings: of the columns.
        rows: each with a cell for every heading.
        left: how many columns, from the first, are aligned left; the others are aligned right.
        note: a line for under the table, "" for none.
    """

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: int = 1
    note: str = ""

    def text(self) -> str:
        """The table in lines, its columns below each other."""
        lines = [[name(cell) for cell in row] for row in (self.headings, *self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        made = [(" " * GAP).join(map(self._aligned, range(len(widths)), line, widths)) for line in lines]
        return "\n".join([line.rstrip() for line in made] + ([self.note] if self.note else []))

    def html(self) -> str:
        """The table as an HTML element, which a notebook styles as it does its own."""
        head = "".join(f'<th scope="col"{self._side(i)}>{_safe(h)}</th>' for i, h in enumerate(self.headings))
        rows = [
            "<tr>" + "".join(f"<td{self._side(i)}>{_safe(cell)}</td>" for i, cell in enumerate(row)) + "</tr>"
            for row in self.rows
        ]
        note = f'<p style="margin:0.3em 0">{_safe(self.note)}</p>' if self.note else ""
        body = "".join(rows)
        return f'<table class="dataframe"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{note}'

    def _aligned(self, column: int, cell: str, width: int) -> str:
        return cell.ljust(width) if column < self.left else cell.rjust(width)

    def _side(self, column: int) -> str:
        return f' style="text-align:{"left" if column < self.left else "right"}"'


def _safe(text: str) -> str:
    return escape(name(text))


def cell(value: Any, digits: int = 4) -> str:
    """A value as it stands in a table: so many digits of a number, "–" for none."""
    if value is None:
        return "–"
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (float, np.floating)):
        return "–" if math.isnan(value) else f"{value:.{digits}g}"
    return printable(str(value))


def table_of(columns: Mapping[str, Sequence[Any]]) -> Table:
    """A table of columns that are equally long, its rows thinned out where there are many.

    Args:
        columns: heading → values.
    """
    count = len(next(iter(columns.values())))
    shown = shown_layers(count)
    rows = tuple(tuple(cell(values[i]) for values in columns.values()) for i in shown)
    note = "" if len(shown) == count else f"{len(shown)} of {count} rows; to_frame() holds each"
    return Table(tuple(columns), rows, note=note)


def facts(values: Mapping[str, Any]) -> Table:
    """A table of names and values, one a line."""
    return Table(("", "value"), tuple((key, cell(value, 10)) for key, value in values.items()))


def frame(rows: Any) -> DataFrame:
    """A pandas frame of equally long columns by name, or of rows; imports pandas, which takes a while."""
    import pandas as pd

    if isinstance(rows, Mapping):
        rows = {key: _writable(column) for key, column in rows.items()}
    return pd.DataFrame(rows)


def _writable(column: Any) -> Any:
    """A column whose texts pandas takes: a lone surrogate in one is shown as an escape."""
    if isinstance(column, str):
        return column.encode("utf-8", "backslashreplace").decode()
    if isinstance(column, np.ndarray) and column.dtype.kind == "U":
        return [_writable(value) for value in column.tolist()]
    if isinstance(column, (list, tuple)):
        return [_writable(value) if isinstance(value, str) else value for value in column]
    return column


def sparsity_frame(result: Any, columns: Mapping[str, Any]) -> DataFrame:
    """One row for each sparsity and layer of a result with L layers, with its name, weights and sparsity.

    Args:
        columns: heading → values that broadcast to (n_s, L).
    """
    sparsity = np.atleast_1d(result.sparsity)
    shape = len(sparsity), len(result.layers)
    own = {"layer": np.array(result.layers), "weights": result.weights, "sparsity": sparsity[:, None]}
    return frame(
        {name: np.ravel(np.broadcast_to(column, shape)) for name, column in {**own, **columns}.items()}
    )


def layer_frame(result: Any, names: Sequence[str]) -> DataFrame:
    """One row a layer of the result's `layers`, with its attributes of these names."""
    return frame({"layer": result.layers, **{name: getattr(result, name) for name in names}})
