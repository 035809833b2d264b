"""The device that a computation runs on."""

from __future__ import annotations

from typing import Any

from ..base import checks
from ..errors import ArgumentError
from .lazy import torch


def chosen_device(device: Any, model: Any) -> Any:
    """The torch device that `device` means: "auto" is the model's own accelerator, else CUDA, else the CPU.

    Raises:
        ArgumentError: no device that can be used here.
    """
    own = next(model.parameters()).device
    if isinstance(device, str) and device == "auto":
        # MPS knows no float64, which deep networks need.
        if own.type in ("cpu", "mps"):
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return own
    try:
        where = torch.device(device)
        torch.empty(0, device=where)
    except Exception as error:
        reason = checks.said(error).splitlines()[0]
        raise ArgumentError(
            f"device must be 'auto' or a device that torch can use here, got {checks.shown(device)} "
            f"({reason})"
        ) from error
    if where.type == "meta":
        raise ArgumentError("device must be one that holds values, got 'meta'")
    return where
