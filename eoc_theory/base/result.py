"""What every result can do: show itself, be compared, become plain numbers, JSON, a table or a picture."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Mapping
from html import escape
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeVar, overload

from ..errors import ArgumentError, EOCError
from ..errors.text import json_text, name, prose, shortened
from . import checks
from .boundary import public
from .codec import decode_fields, encode, type_hints
from .equality import same
from .formatting import plain
from .tables import Table, table_of
from .typing import DataFrame
from .upward import STEPS, upward

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

R = TypeVar("R", bound="Result")

#: Characters of a `repr`, at most.
LONGEST_REPR = 200


@public
class Result:
    """Base of the results: frozen dataclasses of numbers, names and arrays.

    Results are equal where all that they hold is: arrays entry by entry, nan as nan. They are hashed by
    identity. A class says what it is about in one line (`_headline`), which rows it has (`to_frame`), and,
    where these are not its fields as they stand, what `to_dict` adds (`_told`) and how its table looks
    (`_table`).
    """

    # --- what a class says of itself ---

    def _headline(self) -> str:
        """The result in one line."""
        raise NotImplementedError

    def _told(self) -> Mapping[str, Any]:
        """What follows from the fields and is told with them, by name."""
        return {}

    def _notes(self) -> tuple[str, ...]:
        """Sentences for under the table."""
        notes = getattr(self, "notes", ())
        return tuple(notes) if isinstance(notes, tuple) else ()

    def _table(self) -> Table:
        """The rows, thinned out where there are many."""
        frame = self.to_frame()
        return table_of({str(column): list(frame[column]) for column in frame})

    @classmethod
    def _hints(cls, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """The types of the fields, for reading `values`."""
        return type_hints(cls)

    # --- fields that are computed when they are first read ---

    def _postpone(self, names: tuple[str, ...], make: Callable[[], tuple[Any, ...]]) -> None:
        """Let the fields `names` be what `make` gives, from when one of them is first read."""
        for field in names:
            self.__dict__.pop(field, None)
        self.__dict__["_later"] = names, make

    if not TYPE_CHECKING:  # type checkers are to know the fields alone

        def __getattr__(self, name: str) -> Any:
            names, make = self.__dict__.get("_later") or ((), None)
            if make is None or name not in names:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            # Several threads that ask at the same time compute the same.
            self.__dict__.update(zip(names, make(), strict=True))
            self.__dict__.pop("_later", None)
            return self.__dict__[name]

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled and copied: plain values, with all that was to be computed later."""
        for field in (self.__dict__.get("_later") or ((), None))[0]:
            getattr(self, field)
        return dict(self.__dict__)

    # --- plain data ---

    def to_frame(self) -> DataFrame:
        """The result as a table, one row for each thing that it tells of."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """The attributes as plain numbers, strings, lists and dicts.

        nan is None, the infinities are the strings "inf" and "-inf", an activation is its name. `from_dict`
        takes that back.
        """
        names = (name for name in getattr(self, "__dataclass_fields__", {}))
        own = {name: encode(getattr(self, name)) for name in names}
        return own | {name: plain(value) for name, value in self._told().items() if name not in own}

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json_text(self.to_dict())

    @classmethod
    def from_dict(cls: type[R], values: Mapping[str, Any]) -> R:
        """The result that `to_dict` gave as `values`; what follows from the rest need not be there.

        Raises:
            ArgumentError: `values` are not of such a result, or hold an activation that was a function of the
                caller's own.
        """
        try:
            return decode_fields(cls, values, cls._hints(values))
        except ArgumentError:
            raise
        except (EOCError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ArgumentError(
                f"values must be what {cls.__name__}.to_dict gives, got {checks.shown(values)}: {error}"
            ) from None

    @classmethod
    def from_json(cls: type[R], text: str) -> R:
        """The result that `to_json` wrote as `text`.

        Raises:
            ArgumentError: `text` is no JSON, or not of such a result.
        """
        try:
            values = json.loads(checks.text("text", text))
        except (json.JSONDecodeError, RecursionError):
            raise ArgumentError(
                f"text must be what {cls.__name__}.to_json gives, got {checks.shown(text)}"
            ) from None
        return cls.from_dict(values)

    # --- comparison ---

    def __eq__(self, other: object) -> bool:
        """Whether both hold the same; nan is nan."""
        if type(other) is not type(self):
            return NotImplemented
        return same(self, other)

    def __hash__(self) -> int:
        return object.__hash__(self)

    # --- for readers ---

    def __repr__(self) -> str:
        """One line of at most 200 characters."""
        kind = type(self).__name__
        return f"<{kind}: {shortened(name(self._headline()), LONGEST_REPR - len(kind) - 4)}>"

    def __str__(self) -> str:
        """Headline, table and notes, as text."""
        return prose("\n".join([self._headline(), "", self._table().text(), *self._notes_shown()]))

    def _notes_shown(self) -> list[str]:
        return [f"note: {note}" for note in self._notes()]

    def _repr_html_(self) -> str:
        """Headline, what is said, picture and table, for a notebook."""
        parts = [f"<p><b>{_safe(self._headline())}</b></p>", *map(_paragraph, self._said())]
        return f"<div>{''.join(parts)}{self._shown_picture()}{self._table().html()}</div>"

    def _said(self) -> tuple[tuple[str, str], ...]:
        """Paragraphs for a notebook, each with its heading."""
        return tuple(("Note", note) for note in self._notes())

    def _shown_picture(self) -> str:
        """The picture as an HTML element, "" for none."""
        return ""


def _paragraph(said: tuple[str, str]) -> str:
    heading, text = said
    return f'<p style="max-width:50em"><i>{_safe(heading)}.</i> {escape(prose(text))}</p>'


def _safe(text: str) -> str:
    return escape(prose(text))


@public
class Drawable(Result):
    """A result with a picture of its own, in `eoc_theory.reports`."""

    @overload
    def plot(self, path: str | PathLike[str] | None = None, *, ax: None = None) -> Figure: ...
    @overload
    def plot(self, path: str | PathLike[str] | None = None, *, ax: Axes) -> Axes: ...
    def plot(self, path: str | PathLike[str] | None = None, *, ax: Axes | None = None) -> Figure | Axes:
        """Draw it.

        Args:
            path: a file to write, PNG, PDF or SVG; None: nothing is written.
            ax: matplotlib axes to draw in; None: a figure of its own. Of a picture with several panels the
                first is drawn in them.

        Returns:
            `ax` where it is given, else the figure, which a notebook shows.

        Raises:
            ArgumentError: `path` cannot be written, `ax` are no axes, or the result is too small to be drawn.
        """
        if ax is not None and not (hasattr(ax, "get_figure") and hasattr(ax, "plot")):
            raise ArgumentError(f"ax must be matplotlib axes, got {checks.shown(ax)}")
        figure = upward(self._step("plot"))(self, path, ax=ax)
        return figure if ax is None else ax

    def plot_interactive(self, path: str | PathLike[str] | None = None) -> Any:
        """Draw it as a Plotly figure, which names the layer under the pointer.

        Args:
            path: a page to write, HTML; it holds all it needs. None: nothing is written.

        Returns:
            a `plotly.graph_objects.Figure`.

        Raises:
            ArgumentError: `path` cannot be written. MissingDependencyError: Plotly is not installed (the
                extra `interactive`).
        """
        return upward("Drawable.plot_interactive")(self, path)

    def _step(self, method: str) -> str:
        names = (f"{kind.__name__}.{method}" for kind in type(self).__mro__)
        return next(step for step in names if step in STEPS)

    def _repr_png_(self) -> bytes | None:
        """The picture, for a notebook; None where there is too little to draw."""
        try:
            return upward("Drawable.<png>")(self.plot())
        except EOCError:
            return None

    def _shown_picture(self) -> str:
        drawn = self._repr_png_()
        if drawn is None:
            return ""
        alt = escape(prose(self._headline()), quote=True)
        data = b64encode(drawn).decode("ascii")
        return f'<img alt="{alt}" style="max-width:100%" src="data:image/png;base64,{data}"/>'
