"""What a forward pass computes from parameters and buffers alone: masks, standardised weights, tables."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from ...errors import ModelError
from .recorder import Recorder
from .values import Constant, Lazy, Mask, Signal


class ModelChangedError(ModelError):
    """A forward pass that would change the model's parameters."""


def only_constants(values: Iterable[Any]) -> bool:
    """Whether none of the arguments depends on the input or on random numbers."""
    for value in values:
        if isinstance(value, (list, tuple)):
            if not only_constants(value):
                return False
        elif isinstance(value, (Signal, Mask, Lazy)):
            return False
    return True


def is_random(target: Any) -> bool:
    """Whether an operation draws random numbers."""
    return torch.Tag.nondeterministic_seeded in getattr(target, "tags", ())


def computed(recorder: Recorder, target: Any, given: dict[str, Any], in_place: bool) -> Any:
    """The operation done, on constants.

    Raises:
        ModelError: it changes a parameter.
    """
    held = [v for value in given.values() for v in (value if isinstance(value, (list, tuple)) else (value,))]
    tensors = [value for value in held if isinstance(value, Constant)]
    if in_place and tensors and tensors[0].tensor.untyped_storage().data_ptr() in recorder.memory:
        raise ModelChangedError(str(recorder.refuse("changes a tensor of the model, which cannot be read")))
    parameters = frozenset().union(*(c.parameters for c in tensors))
    if any(one.known is not None for one in tensors):
        return _for_padding(target, given, parameters)
    with torch.no_grad():
        result = _filled(target, given)
        if result is None:
            result = target(**{key: _tensor(value) for key, value in given.items()})
    if isinstance(result, (list, tuple)):
        return [Constant(part, parameters) if isinstance(part, torch.Tensor) else part for part in result]
    if not isinstance(result, torch.Tensor):
        return result
    return Constant(result, parameters, _same(target, tensors), _masked(target, tensors))


def _for_padding(target: Any, given: dict[str, Any], parameters: frozenset[str]) -> Any:
    """The operation done twice: for a pattern of padding, and for none."""
    with torch.no_grad():
        without = target(**{key: _tensor(_unpadded(value)) for key, value in given.items()})
        result = target(**{key: _tensor(value) for key, value in given.items()})
    if isinstance(result, (list, tuple)):
        pairs = zip(result, without, strict=True)
        return [_of_padding(one, other, parameters) for one, other in pairs]
    return _of_padding(result, without, parameters)


def _of_padding(result: Any, without: Any, parameters: frozenset[str]) -> Any:
    """A value for a pattern of padding, and for none: where both are the same it says nothing of padding."""
    if not isinstance(result, torch.Tensor):
        return result
    if torch.equal(result, without):
        return Constant(result, parameters)
    return Constant(result, parameters, known=without)


def _unpadded(value: Any) -> Any:
    """The same where nothing is padding; what is changed in place is changed for both."""
    if isinstance(value, (list, tuple)):
        return [_unpadded(item) for item in value]
    if not isinstance(value, Constant):
        return value
    return Constant(value.tensor.clone() if value.known is None else value.known, value.parameters)


def run(module: Any, args: list[Any]) -> Any:
    """What a part of a forward pass that runs without gradients makes of constants."""
    parameters = frozenset().union(*(a.parameters for a in args if isinstance(a, Constant)))
    with torch.no_grad():
        result, without = (
            module(*[take(a).clone() if isinstance(a, Constant) else a for a in args])
            for take in (_tensor, lambda a: _tensor(_unpadded(a)))
        )
    return [_of_padding(*pair, parameters) for pair in zip(result, without, strict=True)]


def _tensor(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_tensor(item) for item in value]
    return value.tensor if isinstance(value, Constant) else value


#: Operations that leave a tensor what it is.
_SAME = ("detach", "alias", "contiguous", "to", "_to_copy", "clone", "view_as")


def _name(target: Any) -> str:
    return target._schema.name.partition("::")[2].rstrip("_")


def _same(target: Any, tensors: list[Constant]) -> str:
    return tensors[0].parameter if len(tensors) == 1 and _name(target) in _SAME else ""


def _masked(target: Any, tensors: list[Constant]) -> tuple[Constant, Constant] | None:
    """A parameter times zeros and ones, and these."""
    if _name(target) != "mul" or len(tensors) != 2:
        return None
    weight, mask = tensors if tensors[0].parameter else tensors[::-1]
    if not weight.parameter or mask.parameter or weight.sizes != mask.sizes:
        return None
    is_mask = bool(((mask.tensor == 0) | (mask.tensor == 1)).all())
    return (weight, mask) if is_mask else None


_FILLS = ("zeros", "zeros_like", "new_zeros", "empty", "empty_like", "new_empty")
#: Entries of a tensor that may as well be there.
_SMALL = 1 << 20


def _filled(target: Any, given: dict[str, Any]) -> torch.Tensor | None:
    """Zeros, without memory for a tensor as large as the batch."""
    name = _name(target)
    if name not in _FILLS:
        return None
    sizes = given.get("size")
    if sizes is None:
        sizes = given["self"].sizes
    if math.prod(sizes) <= _SMALL:
        return None if name.startswith("zeros") or name == "new_zeros" else torch.zeros(tuple(sizes))
    return torch.zeros((), dtype=given.get("dtype")).expand(tuple(sizes))


def number(value: Any) -> Any:
    """A float for whatever holds one number, anything else unchanged."""
    if isinstance(value, Constant):
        one = value.tensor.numel() == 1 and not value.tensor.is_complex()
        return float(value.tensor) if one else value
    if isinstance(value, (bool, np.bool_)):
        return value
    if isinstance(value, (int, float, np.integer, np.floating)):
        return float(value)
    return value
