"""The door: whatever a caller passes as a network becomes an `Architecture` here, once.

From here on the network travels as plain data.
"""

from __future__ import annotations

from typing import Any

from ..base.upward import upward
from ..errors import ArgumentError
from .architecture import Architecture


def as_architecture(
    net: Any, data: Any = None, example_input: Any = None, *, name: str = "net"
) -> Architecture:
    """`net` itself, or the architecture of a torch model.

    Args:
        data, example_input: show the shape of a model's inputs; the example counts where both are given.
        name: the argument's, for the error.

    Raises:
        ArgumentError: `net` is neither. ModelError: the model cannot be read.
    """
    if isinstance(net, Architecture):
        return net
    if any(base.__module__.startswith("torch.nn") for base in type(net).__mro__):
        return upward("net=<torch model>")(net, data, example_input)
    raise ArgumentError(f"{name} must be an Architecture or a torch.nn.Module, got {type(net).__name__}")
