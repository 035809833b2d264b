"""The tensors that a model's forward pass sees while it is traced."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Proxy
from torch.fx.proxy import Attribute

from ...errors import ModelError


class Traced(Proxy):
    """A tensor of the traced model: torch.fx records what is done with it, its shape is known."""

    __array_ufunc__ = None  # np.float64(2) * x then calls x.__rmul__

    def __init__(self, node: Any, tracer: Any, value: Any) -> None:
        super().__init__(node, tracer)
        self.value = value

    def _sizes(self) -> torch.Size:
        recorder = self.tracer.recorder  # type: ignore[attr-defined]
        return torch.Size((recorder.batch, *self.value.sizes))

    def size(self, dim: int | None = None) -> Any:
        return self._sizes() if dim is None else self._sizes()[dim]

    def dim(self) -> int:
        return len(self._sizes())

    def numel(self) -> int:
        return self._sizes().numel()

    def __len__(self) -> int:
        return self._sizes()[0]

    def is_floating_point(self) -> bool:
        return True

    def is_contiguous(self, *args: Any, **kwargs: Any) -> bool:
        return True

    ndimension, nelement = dim, numel
    shape = property(_sizes)
    ndim = property(dim)
    dtype = property(lambda self: self.tracer.dtype)
    device = property(lambda self: self.tracer.device)
    is_cuda = property(lambda self: self.tracer.device.type == "cuda")
    requires_grad = property(lambda self: True)

    # Without these x += y would be x = x + y, and other names of the same tensor keep the old value.
    def __iadd__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_method", "__iadd__", (self, other), {})

    def __isub__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_method", "__isub__", (self, other), {})

    def __imul__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_method", "__imul__", (self, other), {})

    def __itruediv__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_method", "__itruediv__", (self, other), {})

    def __setitem__(self, index: Any, value: Any) -> None:
        self.tracer.create_proxy("call_method", "__setitem__", (self, index, value), {})


def values(thing: Any) -> Any:
    if isinstance(thing, Traced):
        return thing.value
    if isinstance(thing, Attribute):
        place = thing.tracer.recorder.place  # type: ignore[attr-defined]
        raise ModelError(f"tensor attribute {thing.attr!r} in {place} cannot be read")
    if isinstance(thing, (tuple, list)):
        found = [values(item) for item in thing]
        return found if isinstance(thing, list) else tuple(found)
    if isinstance(thing, dict):
        return {key: values(item) for key, item in thing.items()}
    return thing


def holds_signal(thing: Any) -> bool:
    if isinstance(thing, (tuple, list)):
        return any(map(holds_signal, thing))
    if isinstance(thing, dict):
        return any(map(holds_signal, thing.values()))
    return isinstance(thing, Traced)
