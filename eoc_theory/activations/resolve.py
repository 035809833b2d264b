"""From whatever names a function to its :class:`Activation`."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..base.boundary import public
from ..base.upward import upward
from ..errors import ActivationError
from . import catalogue
from .core import Activation
from .numerical import from_callable

_CALL = re.compile(r"\s*([A-Za-z_][\w-]*(?: [A-Za-z]\w*)?)(?:\s*\(([^()]*)\))?\s*", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)


@public
def activation(spec: Any, *, kinks: Iterable[float] | None = None) -> Activation:
    """The activation function that `spec` describes.

    Args:
        spec: an :class:`Activation` (returned as it is); a name, with parameters if wanted (``"tanh"``,
            ``"leaky_relu(0.1)"``, ``"elu(alpha=0.5)"``; see :func:`activation_names`; a name with a
            number in parentheses is that built-in with a parameter, ``"sin(2)"`` is sin(2x)); an expression
            in x as a string (``"x/(1 + exp(-x))"``) or as a SymPy expression; a ``torch.nn.Module`` or torch
            function; or a NumPy-vectorised callable.
        kinks: for a callable, the points where it or one of its first three derivatives jumps; None:
            detected, within ±256. For everything else they are known.

    Raises:
        ActivationError: no such activation, or a callable that is not vectorised or not finite.
        ExpressionError: the text is not an expression in x, or is not finite for every real x.
    """
    if kinks is not None:
        if isinstance(spec, Activation | str) or not callable(spec):
            raise ActivationError(
                "kinks are given for callables only; those of names and expressions are known"
            )
        return from_callable(spec, kinks)
    if isinstance(spec, Activation):
        return spec
    if isinstance(spec, str):
        return _from_text(spec)
    if any(_package(kind) == "sympy" for kind in type(spec).__mro__):
        from . import symbolic

        # sympy.tanh itself is a class: the function of x is meant.
        return symbolic.from_sympy_expression(spec if not isinstance(spec, type) else spec(symbolic.x))
    if isinstance(spec, np.ufunc):
        return _from_ufunc(spec)
    if "torch" in sys.modules and _is_torch(spec):
        return upward("activation(<of torch>)")(spec)
    if callable(spec):
        return _from_any_callable(spec)
    raise ActivationError(
        "activation must be a name, an expression in x, a NumPy-vectorised callable, a torch module or "
        f"function, got {type(spec).__name__}"
    )


def _from_any_callable(spec: Any) -> Activation:
    try:
        return from_callable(spec)
    except ActivationError as error:
        if error.__cause__ is not None and "torch" in sys.modules:
            # A function of the user's own that computes with torch refuses NumPy arrays. What it says of
            # torch's is of no interest where it is none.
            with contextlib.suppress(Exception):
                return upward("activation(<of torch>)")(spec)
        raise


def _package(thing: Any) -> str:
    return (getattr(thing, "__module__", None) or "").partition(".")[0]


def _is_torch(spec: Any) -> bool:
    """A torch module, also of a user's own class, or one of torch's own functions."""
    kinds = spec.__mro__ if isinstance(spec, type) else type(spec).__mro__
    if any(_package(kind) == "torch" for kind in kinds) or _package(spec) == "torch":
        return True
    # Functions written in C say where they come from by their __self__ alone.
    owner = getattr(spec, "__self__", None)
    return _package(owner) == "torch" or getattr(owner, "__name__", "").partition(".")[0] == "torch"


def _from_ufunc(spec: np.ufunc) -> Activation:
    """np.tanh, scipy.special.erf …: the built-in of that name if it has the same values."""
    entry = catalogue.find(spec.__name__)
    if entry is not None:
        built_in = catalogue.build(entry)
        points = np.linspace(-2.3, 2.9, 11)
        if np.allclose(spec(points), built_in(points), rtol=1e-14, atol=0.0):
            return built_in
    return from_callable(spec)


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
        known = (
            f"did you mean {' or '.join(near)}?"
            if near
            else f"known are {', '.join(catalogue.activation_names())}"
        )
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
