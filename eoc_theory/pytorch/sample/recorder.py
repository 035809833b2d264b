"""The distributions of a factory's parameters, recorded while it draws them: exact, and not estimated.

`torch.nn.init` and the constructors of layers end in a few operations that fill a tensor in place. These are
watched. What is not understood (decompositions, values computed from others) is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils._pytree import tree_flatten

from ..watching import Watching
from ..weights import CUT, CUT_STD
from .laws import ParameterLaw

#: Bounds of a normal law beyond so many standard deviations cut off nothing that could be seen.
_BEYOND = 3.5


@dataclass(frozen=True)
class _Drawn:
    """What a tensor holds: `law`, or steps of drawing a truncated normal law that are not finished.

    `bounds` are numbers that all entries have been compared with, as `torch.nn.init.trunc_normal_` does: it
    draws anew what lies outside of them, and copies the result to where it belongs.
    """

    law: ParameterLaw | None
    steps: tuple[float, ...] = ()
    bounds: tuple[float, ...] = ()


class Recorder(Watching):
    """Inside it, operations that fill tensors are recorded; `laws` then describes a model's parameters."""

    def __init__(self) -> None:
        super().__init__()
        self._held: dict[int, _Drawn] = {}
        # Tensors that are followed stay alive, or another could take their memory and their name.
        self._alive: list[Any] = []

    def laws(self, model: Any) -> dict[str, ParameterLaw]:
        """The laws that are known for certain, by the names of the model's parameters."""
        found = {}
        for name, parameter in model.named_parameters():
            drawn = self._held.get(_key(parameter))
            if drawn is not None and drawn.law is not None and _is_whole(parameter):
                found[name] = drawn.law
        return found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name, given = func.overloadpacket.__name__, {**_named(func, args), **(kwargs or {})}
        if name.endswith("_") and args and isinstance(args[0], torch.Tensor):
            self._fill(args[0], name, given)
        else:
            self._make(name, args, given, out)
        return out

    def _fill(self, tensor: Any, name: str, given: dict[str, Any]) -> None:
        """An operation in place."""
        if not _is_whole(tensor):
            before = self._held.get(_key(tensor))
            if name == "zero_" or (name == "fill_" and given.get("value") == 0):
                # Rows that are set to 0, as an embedding's padding is.
                law = None if before is None else before.law
                drawn = law is not None and law.law in ("normal", "uniform", "truncated")
                self._keep(tensor, replace(law, zeros=True) if drawn else law)  # type: ignore[type-var]
            elif name not in _HARMLESS:
                self._keep(tensor, None)
            return
        before = self._held.get(_key(tensor), _Drawn(None))
        if name == "copy_" and isinstance(given.get("src"), torch.Tensor):
            self._keep(tensor, _within(self._held.get(_key(given["src"]), _Drawn(None))))
        elif name not in _HARMLESS:
            self._held[_key(tensor)] = _after(name, given, before)
            self._alive.append(tensor)

    def _make(self, name: str, args: Any, given: dict[str, Any], out: Any) -> None:
        """An operation that makes a new tensor."""
        if name in ("lt", "gt") and isinstance(given.get("other"), (int, float)):
            compared = self._held.get(_key(args[0]))
            if compared is not None and compared.law is not None:
                bounds = (*compared.bounds, float(given["other"]))
                self._held[_key(args[0])] = replace(compared, bounds=bounds)
            return
        if not isinstance(out, torch.Tensor) or not _is_whole(out):
            return
        if name in _MADE:
            self._keep(out, _MADE[name])
            return
        if name == "where" and len(args) == 3:
            new, old = (self._held.get(_key(one), _Drawn(None)) for one in args[1:])
            known = new.law is not None and new.law == old.law
            self._held[_key(out)] = (
                _Drawn(new.law, bounds=new.bounds or old.bounds) if known else _Drawn(None)
            )
            self._alive.append(out)
            return
        tensors = [one for one in tree_flatten(args)[0] if isinstance(one, torch.Tensor)]
        before = self._held.get(_key(tensors[0])) if len(tensors) == 1 else None
        if before is None or _key(out) == _key(tensors[0]):
            return
        if name in ("clone", "_to_copy", "detach", "contiguous"):
            self._held[_key(out)] = before
            self._alive.append(out)
        elif name in ("mul", "div"):
            self._held[_key(out)] = _after(f"{name}_", given, before)
            self._alive.append(out)

    def _keep(self, tensor: Any, law: ParameterLaw | None) -> None:
        self._held[_key(tensor)] = _Drawn(law)
        self._alive.append(tensor)


#: Operations in place that leave values as they are.
_HARMLESS = frozenset(("requires_grad_", "detach_", "set_", "resize_"))
#: What new tensors hold.
_MADE = {
    "randn": ParameterLaw("normal", 1.0),
    "rand": ParameterLaw("uniform", 1.0 / math.sqrt(12.0), 0.5),
    "zeros": ParameterLaw("fixed"),
    "ones": ParameterLaw("fixed"),
    "full": ParameterLaw("fixed"),
    "zeros_like": ParameterLaw("fixed"),
    "ones_like": ParameterLaw("fixed"),
}


def _after(name: str, given: dict[str, Any], before: _Drawn) -> _Drawn:
    """What a tensor holds after an operation on all of it."""
    if name == "normal_":
        return _Drawn(_random("normal", given.get("mean", 0.0), given.get("std", 1.0)))
    if name == "uniform_":
        low, high = float(given.get("from", 0.0)), float(given.get("to", 1.0))
        law = _random("uniform", (low + high) / 2.0, (high - low) / math.sqrt(12.0))
        return _Drawn(law, (low, high))
    if name in ("fill_", "zero_"):
        return _Drawn(ParameterLaw("fixed"))
    number = given.get("other")
    plain = isinstance(number, (int, float)) and not isinstance(number, bool)
    if name == "erfinv_" and len(before.steps) == 2:
        return _Drawn(None, (*before.steps, 1.0))
    if len(before.steps) >= 3:
        return _truncating(name, number if plain else None, given, before)
    if name in ("mul_", "div_") and plain and before.law is not None and number:
        factor = abs(float(number)) if name == "mul_" else 1.0 / abs(float(number))
        sign = math.copysign(1.0, float(number))
        return _Drawn(_scaled(before.law, factor, sign))
    return _Drawn(None)


def _truncating(name: str, number: Any, given: dict[str, Any], before: _Drawn) -> _Drawn:
    """The steps of `torch.nn.init.trunc_normal_`: uniform, erfinv, times σ√2, plus the mean, clamp."""
    low, high, scale = before.steps[:3]
    if name == "mul_" and number is not None and len(before.steps) == 3:
        return _Drawn(None, (low, high, float(number)))
    if name == "add_" and number is not None and float(number) == 0.0:
        return before
    if name in ("clamp_", "clamp_min_", "clamp_max_"):
        return _Drawn(_truncated(low, high, scale / math.sqrt(2.0)))
    return _Drawn(None)


def _truncated(low: float, high: float, std: float) -> ParameterLaw | None:
    """The law of a normal one of which the uniform numbers lay between `low` and `high` of ±1."""
    if not math.isclose(low, -high, rel_tol=1e-6):
        return None
    bound = math.inf if high >= 1.0 else float(torch.special.erfinv(torch.tensor(high))) * math.sqrt(2.0)
    return _cut(bound, std)


def _within(drawn: _Drawn) -> ParameterLaw | None:
    """The law of what was drawn anew until it lay within its bounds."""
    law, bounds = drawn.law, set(drawn.bounds)
    if not bounds or law is None:
        return law
    if law.law != "normal" or law.mean != 0.0 or len(bounds) != 2 or min(bounds) != -max(bounds):
        return None
    return _cut(max(bounds) / law.std, law.std)


def _cut(bound: float, std: float) -> ParameterLaw | None:
    """A normal law cut at so many of its standard deviations."""
    if bound > _BEYOND:
        return ParameterLaw("normal", std)
    return ParameterLaw("truncated", std * CUT_STD) if abs(bound - CUT) < 1e-3 else None


def _random(law: str, mean: Any, std: Any) -> ParameterLaw | None:
    try:
        mean, std = float(mean), float(std)
    except (TypeError, ValueError):
        return None
    return ParameterLaw("fixed") if std == 0.0 else ParameterLaw(law, std, mean)


def _scaled(law: ParameterLaw, factor: float, sign: float) -> ParameterLaw | None:
    if law.law not in ("normal", "uniform", "truncated", "fixed"):
        return None
    return replace(law, std=law.std * factor, mean=law.mean * factor * sign)


def _key(tensor: Any) -> int:
    return tensor.untyped_storage()._cdata


def _is_whole(tensor: Any) -> bool:
    """Whether a tensor has all that its memory holds."""
    return tensor.numel() * tensor.element_size() >= tensor.untyped_storage().nbytes()


def _named(func: Any, args: Any) -> dict[str, Any]:
    """Positional arguments by their names."""
    names = [argument.name for argument in func._schema.arguments]
    return dict(zip(names, args, strict=False))
