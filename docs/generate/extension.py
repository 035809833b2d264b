"""A Griffe extension that rewrites docstrings before they are parsed; mkdocs.yml names it."""

from __future__ import annotations

from typing import Any

from griffe import Extension, Object  # pyright: ignore[reportMissingImports]

from docs.generate.docstrings import linked, plain
from eoc_theory import __all__ as public


class PlainDocstrings(Extension):
    """Rewrites each docstring before it is parsed."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring is None:
            return
        parameters = getattr(obj, "parameters", ())
        names = tuple(one.name for one in parameters)
        obj.docstring.value = linked(plain(obj.docstring.value, names), public, obj.name)
