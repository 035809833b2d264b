"""Models of which only shapes and laws of weights are made, however many weights they have.

A factory is run with large tensors on torch's meta device, which takes no memory, while what fills them is
recorded (`sample.recorder`). The theory needs nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from ..base import checks
from ..base.isolation import isolated
from ..errors import EOCError, ModelError
from ..networks.architecture import Architecture
from .factories import made
from .read import read_with
from .sample.laws import ParameterLaw
from .sample.recorder import Recorder

#: Entries from which on a tensor is not made.
LARGE = 1 << 20
#: Weights of a model that is made whole where its laws cannot be recorded, at most.
_MOST_WEIGHTS = 5e8


class _LargeOnMeta(TorchFunctionMode):
    """Within it large tensors that are made to be filled, as layers make theirs, are on the meta device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty and kwargs.get("device") is None and _entries(args, kwargs) >= LARGE:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def _entries(args: Any, kwargs: dict[str, Any]) -> int:
    size = args if args else (kwargs.get("size", ()),)
    if len(size) == 1 and isinstance(size[0], (tuple, list)):
        size = tuple(size[0])
    return math.prod(size) if all(isinstance(n, int) for n in size) else 0


@isolated
def read_network(
    net: Any, data: Any = None, example_input: Any = None, *, only_structure: bool = False
) -> Architecture:
    """The architecture of a model or of what a factory makes, as `read.read_network` reads it.

    Large tensors of a factory's model are not made.
    """
    model, known = (net, {}) if isinstance(net, torch.nn.Module) else weightless(net)
    return read_with(model, data, example_input, known, only_structure=only_structure)


def weightless(factory: Callable[..., Any]) -> tuple[Any, dict[str, ParameterLaw]]:
    """What a factory makes, and the laws of those of its parameters that were not filled, by their names.

    Such parameters are zeros that share one number of memory.

    Raises:
        ArgumentError, CallbackError: the factory makes no model. ModelError: too many weights, of which some
            are filled in a way that is not recorded.
    """
    model, problem = None, "its forward pass"
    try:
        with Recorder() as recorder, _LargeOnMeta():
            model = made(factory, 0)
        known = recorder.laws(model)
        absent = [name for name, parameter in model.named_parameters() if parameter.is_meta]
        unknown = [name for name in absent if name not in known or known[name].law == "shuffled"]
        on_meta = [name for name, buffer in model.named_buffers() if buffer.is_meta]
        if not unknown and not on_meta:
            _without_memory(model)
            return model, {name: known[name] for name in absent}
        problem = (unknown or on_meta)[0]
        count = sum(parameter.numel() for parameter in model.parameters())
        if count > _MOST_WEIGHTS:
            raise ModelError(
                f"net makes {count} weights, too many to draw, and fills {checks.shown(problem)} in a way "
                "that is not known: use torch.nn.init"
            )
    except EOCError:
        if model is not None:
            raise
    return made(factory, 0), {}


def _without_memory(model: torch.nn.Module) -> None:
    """Put zeros that take no memory where parameters have no values; shared ones stay shared."""
    done: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is None or not parameter.is_meta:
                continue
            if id(parameter) not in done:
                zeros = torch.zeros((), dtype=parameter.dtype).expand(parameter.shape)
                done[id(parameter)] = torch.nn.Parameter(zeros, requires_grad=False)
            module._parameters[name] = done[id(parameter)]
