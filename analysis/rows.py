"""Rows of a store as lines of a table: what was asked, flat; which belong together; in which order."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from .store import Row

if TYPE_CHECKING:
    import pandas as pd

#: What lines are sorted by, as far as they have it.
ORDER = (
    "kind", "activation", "normalisation", "init", "depth", "width", "criterion", "sparsity", "rescale",
    "layer",
)  # fmt: skip


def number(value: Any) -> float:
    """A number as the store writes it: null is nan, the infinities are words."""
    return float("nan") if value is None else float(value)


def numbers(values: Any) -> np.ndarray:
    """The same of lists of any depth."""
    return np.array(values, dtype=float)


def described(row: Row) -> dict[str, Any]:
    """The network, criterion and data of a row, flat."""
    asked = row.asked
    init = asked["network"].pop("init")
    named = isinstance(init, str)
    return {
        **asked["network"],
        "init": init if named else f"{init[0]:g},{init[1]:g}",
        "criterion": asked["criterion"],
        "data": asked["data"]["name"],
        "batch": asked["data"]["size"],
    }


def head(row: Row, sparsity: float) -> dict[str, Any]:
    """What a line of one row and sparsity begins with."""
    return {"measure": row.measure, **described(row), "seed": row.seed, "sparsity": sparsity}


def grouped(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows of the same network, criterion, batch and sparsities, whatever was measured."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        asked = row.asked
        key = json.dumps([asked[name] for name in ("network", "criterion", "data", "sparsities")])
        groups.setdefault(key, []).append(row)
    return list(groups.values())


def of_measure(rows: Iterable[Row], measure: str) -> list[dict[str, Any]]:
    """What rows of that measure found."""
    return [row.found for row in rows if row.measure == measure]


def ordered(frame: pd.DataFrame) -> pd.DataFrame:
    """Lines of one kind of network one after the other, numbers in their own order (see `ORDER`)."""
    from pandas.api.types import is_numeric_dtype

    by = [name for name in ORDER if name in frame]
    if not by:
        return frame
    return frame.sort_values(
        by,
        key=lambda column: column if is_numeric_dtype(column) else column.astype(str),
        kind="stable",
        ignore_index=True,
    )
