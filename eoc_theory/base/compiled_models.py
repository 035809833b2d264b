"""Models that ``torch.compile`` returned: what a function is to be given is the model inside."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

#: What public functions call a model.
_NAMES = ("model", "net")


def uncompiled(model: Any) -> Any:
    """The model inside of a compiled one; anything else as it is.

    Its layers have the names that its author gave them, it can be doubled and traced, and shares all its
    parameters with the compiled one, which sees every change.
    """
    wrapper = getattr(sys.modules.get("torch._dynamo.eval_frame"), "OptimizedModule", None)
    return model._orig_mod if wrapper is not None and isinstance(model, wrapper) else model


def of_uncompiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of a model that takes compiled ones, too, and returns the one it was given."""

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        if "torch._dynamo.eval_frame" not in sys.modules:  # nothing was compiled
            return function(*args, **kwargs)
        named = next((name for name in _NAMES if name in kwargs), None)
        given = args[0] if args else kwargs.get(named) if named else None
        model = uncompiled(given)
        if model is given:
            return function(*args, **kwargs)
        if args:
            returned = function(model, *args[1:], **kwargs)
        else:
            returned = function(**{**kwargs, str(named): model})
        return given if returned is model else returned

    return run
