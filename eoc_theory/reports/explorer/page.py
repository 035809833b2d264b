"""The explorer as one self-contained page: template, style, theory and tables in one file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from importlib.resources import files
from typing import Any

from ...activations import activation
from ...base.boundary import public
from ...base.progress import followed
from ...base.version import __version__
from ...errors import ArgumentError
from ..plots.pages import document, write
from .tables import activation_tables, score_table

#: The activations that the page has unless others are asked for.
DEFAULT = (
    "tanh",
    "relu",
    "gelu",
    "silu",
    "elu",
    "selu",
    "leaky_relu(0.1)",
    "mish",
    "softplus",
    "sigmoid",
    "hardtanh",
    "erf",
    "softsign",
    "atan",
    "sin",
)
#: Most activations of one page: each is some 60 kB.
MOST = 100


@public
def write_explorer(path: str | os.PathLike[str], activations: Iterable[Any] = DEFAULT) -> tuple[str, ...]:
    """Write the explorer as a page for a browser, and return the names of its activations.

    Args:
        path: a file whose name ends in .html.
        activations: anything :func:`eoc_theory.activation` accepts, one or more; tables of each are computed
            first, which takes up to some seconds for a smooth function without closed forms.

    Raises:
        ArgumentError: `path` cannot be written, or an activation jumps or is 0 everywhere (it has no χ).
        ConvergenceError: an activation is too irregular for tables.
    """
    chosen = [activation(spec) for spec in activations]
    unique = list({act.name: act for act in chosen}.values())
    if not unique:
        raise ArgumentError("activations must be one or more, got none")
    if len(unique) > MOST:
        raise ArgumentError(f"activations must be at most {MOST}, got {len(unique)}")
    write(path, lambda: explorer_page(unique))
    return tuple(act.name for act in unique)


def explorer_page(activations: Iterable[Any]) -> str:
    """The page's text."""
    tables = {"activations": list(_tables(activations)), "scores": score_table()}
    template = file_of_page("explorer.html")
    data = json.dumps(tables, separators=(",", ":"), ensure_ascii=True).replace("<", "\\u003c")
    body = [
        template,
        f"<footer>eoc-theory {__version__}</footer>",
        f'<script type="application/json" id="tables">{data}</script>',
    ]
    scripts = [file_of_page(name) for name in ("theory.js", "view.js")]
    return document("Edge of chaos explorer", file_of_page("explorer.css"), body, scripts=scripts)


def _tables(activations: Iterable[Any]) -> Iterator[dict[str, Any]]:
    chosen = [activation(spec) for spec in activations]
    for act in followed(chosen, "tables of activations", len(chosen)):
        yield activation_tables(act)


def file_of_page(name: str) -> str:
    """The text of one of the template's files."""
    return (files(__name__.rpartition(".")[0]) / name).read_text(encoding="utf-8")
