"""What every result can do: become plain numbers, JSON or a plot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors.text import json_text
from .boundary import public
from .formatting import plain
from .upward import STEPS, upward

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@public
class Result:
    """Base of the results: frozen dataclasses of numbers, names and arrays."""

    def to_dict(self) -> dict[str, Any]:
        """The attributes as plain numbers, strings and lists; nan is None, the infinities are text."""
        return plain({name: getattr(self, name) for name in getattr(self, "__dataclass_fields__", {})})

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json_text(self.to_dict())


@public
class Drawable(Result):
    """A result with a picture of its own, in `eoc_theory.reports.plots`."""

    def plot(self, path: Any = None) -> Figure:
        """Draw it.

        Args:
            path: a file to write, PNG, PDF or SVG; None: only the matplotlib figure is returned.
        """
        names = (f"{kind.__name__}.plot" for kind in type(self).__mro__)
        return upward(next(name for name in names if name in STEPS))(self, path)
