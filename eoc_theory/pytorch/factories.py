"""Networks that a user's function makes."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from typing import Any

from ..base import checks
from ..base.compiled_models import uncompiled
from ..base.isolation import seeded
from ..errors import ArgumentError
from .lazy import torch

#: One after the other: a factory draws from the process's own generators.
_making = threading.Lock()


def takes_seed(factory: Callable[..., Any]) -> bool:
    """Whether a factory is to be given its seed: it needs one argument, or takes one of that name."""
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        return False
    if "seed" in signature.parameters:
        return True
    try:
        signature.bind()
    except TypeError:
        return True
    return False


def made(factory: Callable[..., Any], seed: int, with_seed: bool | None = None, name: str = "net") -> Any:
    """A network of a factory: for a seed, or with the process's generators at that seed.

    `name` is the argument's, for errors.

    Raises:
        ArgumentError: it returns no torch module. CallbackError: it fails.
    """
    with _making, seeded(seed % 2**63):
        model = checks.call(name, _called, factory, seed, with_seed)
    if not isinstance(model, torch.nn.Module):
        raise ArgumentError(f"{name} must return a torch.nn.Module, got {type(model).__name__}")
    return uncompiled(model)


def _called(factory: Callable[..., Any], seed: int, with_seed: bool | None) -> Any:
    if not (takes_seed(factory) if with_seed is None else with_seed):
        return factory()
    return factory(seed=seed) if _by_name_alone(factory) else factory(seed)


def _by_name_alone(factory: Callable[..., Any]) -> bool:
    """Whether the seed is not the first argument."""
    names = list(inspect.signature(factory).parameters)
    return "seed" in names and names[0] != "seed"
