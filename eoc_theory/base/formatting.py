"""Results formatted for readers: numbers with as many digits as mean something, few enough rows, JSON."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

#: More layers than this are thinned out unless every one is asked for.
FULL_TABLE = 12


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


def equals(what: str, shown: str) -> str:
    """``what = shown``, or ``what < 1e-9`` where `shown` says that it is less."""
    return f"{what} < {shown[1:]}" if shown.startswith("<") else f"{what} = {shown}"


def shown_layers(depth: int, every: bool = False) -> list[int]:
    """Indices of the layers to print: all, or the first, every k-th and the last."""
    if every or depth <= FULL_TABLE:
        return list(range(depth))
    step = next(k * 10**e for e in range(12) for k in (1, 2, 5) if depth / (k * 10**e) <= FULL_TABLE)
    return sorted({0, *range(step - 1, depth, step), depth - 1})


def plain(value: Any) -> Any:
    """Arrays as lists, numbers as JSON has them: nan becomes None, the infinities "inf" and "-inf".

    What has a name, an activation say, becomes that.
    """
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
    name = getattr(value, "name", None)
    return name if isinstance(name, str) else value
