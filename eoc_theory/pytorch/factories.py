"""Networks that a user's function makes."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from typing import Any

from ..base import checks
from ..base.isolation import seeded
from ..errors import ArgumentError
from .models import require_torch

#: One after the other: a factory draws from the process's own generators.
_making = threading.Lock()


def takes_seed(factory: Callable[..., Any]) -> bool:
    """Whether a factory must be given one argument, its seed."""
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        return False
    try:
        signature.bind()
    except TypeError:
        return True
    return False


def made(factory: Callable[..., Any], seed: int, with_seed: bool | None = None) -> Any:
    """A network of a factory: for a seed, or with the process's generators at that seed.

    Raises:
        ArgumentError: it returns no torch module. CallbackError: it fails.
    """
    torch = require_torch()
    with _making, seeded(seed % 2**63):
        given = (seed,) if (takes_seed(factory) if with_seed is None else with_seed) else ()
        model = checks.call("net", factory, *given)
    if not isinstance(model, torch.nn.Module):
        raise ArgumentError(f"net must return a torch.nn.Module, got {type(model).__name__}")
    return model
