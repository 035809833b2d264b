"""From whatever names a function to its :class:`Activation`."""

from __future__ import annotations

import re
from typing import Any

from ..errors import ActivationError
from . import catalogue
from .core import Activation

_CALL = re.compile(r"\s*([A-Za-z_][\w-]*(?: [A-Za-z]\w*)?)\s*(?:\(([^()]*)\))?\s*", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)


def activation(spec: Any) -> Activation:
    """The activation function that `spec` describes.

    Args:
        spec: an :class:`Activation` (returned as it is); a name, with parameters if wanted (``"tanh"``,
            ``"leaky_relu(0.1)"``, ``"elu(alpha=0.5)"``; see :func:`activation_names`); an expression in x as a string
            (``"x/(1 + exp(-x))"``) or as a SymPy expression; a ``torch.nn.Module`` or torch function; or a
            NumPy-vectorised callable, whose kinks are then detected.

    Raises:
        ActivationError: no such activation, or a callable that is not vectorised or not finite.
        ExpressionError: the text is not an expression in x, or is not finite for every real x.
    """
    if isinstance(spec, Activation):
        return spec
    if isinstance(spec, str):
        return _from_text(spec)
    if type(spec).__module__.partition(".")[0] == "sympy":
        from .symbolic import from_sympy_expression

        return from_sympy_expression(spec)
    raise ActivationError(f"activation must be a name or an expression in x, got {type(spec).__name__}")


def _from_text(text: str) -> Activation:
    match = _CALL.fullmatch(text)
    entry = catalogue.find(match.group(1)) if match else None
    if match and entry is not None:
        parameters = _parameters(entry, match.group(2))
        if parameters is not None:
            return catalogue.build(entry, *parameters)
    name = text.strip()
    if name.isidentifier() and name.isascii() and 2 < len(name) <= 40:
        near = catalogue.close_names(name)
        known = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(catalogue.activation_names())}"
        raise ActivationError(f"unknown activation {name!r} ({known}); an expression in x is accepted too")
    from .symbolic import from_text

    return from_text(" ".join(text.split()))


def _parameters(entry: catalogue.Entry, text: str | None) -> tuple[list[Any], dict[str, Any]] | None:
    """Positional and named parameters from "0.1, beta=2"; None when the text is no list of parameters."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    words = {name for name, default in entry.parameters.items() if isinstance(default, str)}
    for part in (text or "").split(",") if (text or "").strip() else ():
        name, equals, value = part.rpartition("=")
        name, value = name.strip(), value.strip().strip("'\"")
        if _NUMBER.fullmatch(value):
            parsed: Any = float(value)
        elif value.isidentifier() and (words if not equals else name in words):
            parsed = value
        else:
            return None
        if equals:
            kwargs[name] = parsed
        elif kwargs:
            raise ActivationError(f"{entry.name}: values without a name come before named ones, got {text!r}")
        else:
            args.append(parsed)
    return args, kwargs
