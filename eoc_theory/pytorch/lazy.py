"""torch for modules that load without it: it is imported when the first of its names is looked up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import MissingDependencyError

if TYPE_CHECKING:
    import torch as torch


def require_torch() -> Any:
    """The torch module.

    Raises:
        MissingDependencyError: torch is not installed.
    """
    try:
        import torch
    except ImportError as missing:
        raise MissingDependencyError(
            "this needs torch, which is not installed: pip install 'eoc-theory[torch]'"
        ) from missing
    return torch


class _Torch:
    """Stands for the module; every name is looked up in it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__version__":
            raise AttributeError(name)  # of whoever inspects a module's members
        return getattr(require_torch(), name)


if not TYPE_CHECKING:
    torch = _Torch()
