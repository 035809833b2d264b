"""The figures of all plots, which a notebook shows by themselves."""

from __future__ import annotations

import matplotlib.figure

from .files import as_png


class Figure(matplotlib.figure.Figure):
    """A matplotlib figure that a fresh notebook shows as a picture, without pyplot."""

    def _repr_png_(self) -> bytes:
        return as_png(self)
