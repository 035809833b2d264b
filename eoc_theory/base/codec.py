"""Results as plain data, and back.

Plain data are what JSON has: numbers, strings, lists, dicts with strings as keys, True, False and None. nan
becomes None; the infinities become "inf" and "-inf"; arrays become lists, an activation its name. What a
field was is known from the type that its class declares: nothing in the text says what to run.
"""

from __future__ import annotations

import math
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from ..errors import ArgumentError, EOCError
from .formatting import plain
from .upward import upward

#: Name of the class of a value whose field may hold several.
KIND = "type"
_WORDS = {"inf": math.inf, "-inf": -math.inf}


def encode(value: Any) -> Any:
    """`value` as plain data; dataclasses become dicts that name their class."""
    if hasattr(value, "from_dict"):  # a result inside of another
        return value.to_dict()
    if is_dataclass(value) and not isinstance(value, type) and not _is_activation(type(value)):
        own = {field.name: encode(getattr(value, field.name)) for field in fields(value) if field.init}
        return {KIND: type(value).__name__, **own}
    if isinstance(value, Mapping):
        return {str(key): encode(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(entry) for entry in value]
    return plain(value)


def decode(hint: Any, value: Any) -> Any:
    """The value of a field of type `hint` that `encode` turned into `value`.

    Raises:
        ValueError, TypeError, KeyError: it is not that.
    """
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if isinstance(hint, TypeVar):
        return _decode_union(hint.__constraints__, value)
    if is_dataclass(origin):  # of a generic class
        hint = origin
    if origin in (Union, UnionType):
        return _decode_union(args, value)
    if origin is Literal:
        if value not in args:
            raise ValueError(f"{value!r} is none of {args}")
        return value
    if hint is np.ndarray or origin is np.ndarray:
        return _decode_array(args, value)
    if isinstance(origin, type) and issubclass(origin, tuple):
        return _decode_tuple(args, value)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {args[0](key): decode(args[1], entry) for key, entry in _mapping(value).items()}
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return [decode(args[0], entry) for entry in _listed(value)]
    return _decode_plain(hint, value)


def decode_fields(cls: type, values: Any, hints: Mapping[str, Any] | None = None) -> Any:
    """An object of the dataclass `cls`, or of the subclass that `values` names, from a dict of its fields.

    What else the dict holds is left alone: values that follow from the fields.
    """
    values = _mapping(values)
    cls = _named(cls, values.get(KIND))
    hints = hints or type_hints(cls)
    given = {
        field.name: decode(hints[field.name], values[field.name])
        for field in fields(cls)
        if field.init and field.name in values
    }
    return cls(**given)


def packed(mask: np.ndarray) -> dict[str, Any]:
    """A boolean array as its shape and its bits, eight a byte, in base64."""
    bits = b64encode(np.packbits(mask.ravel()).tobytes()).decode("ascii")
    return {"shape": list(mask.shape), "bits": bits}


def unpacked(values: Mapping[str, Any]) -> np.ndarray:
    """The array that `packed` gave.

    Raises:
        ValueError, TypeError, KeyError: it is not that.
    """
    shape = tuple(int(extent) for extent in values["shape"])
    flat = np.unpackbits(np.frombuffer(b64decode(values["bits"], validate=True), dtype=np.uint8))
    return flat[: math.prod(shape)].astype(bool).reshape(shape)


@lru_cache(maxsize=256)
def type_hints(cls: type) -> Mapping[str, Any]:
    """The types that a dataclass declares for its fields."""
    return get_type_hints(cls)


def _named(cls: type, name: Any) -> type:
    if name is None or name == cls.__name__:
        return cls
    below = list(cls.__subclasses__())
    while below:
        one = below.pop()
        if one.__name__ == name:
            return one
        below.extend(one.__subclasses__())
    raise ValueError(f"{name!r} is no {cls.__name__}")


def _decode_union(args: tuple[Any, ...], value: Any) -> Any:
    if value is None and NoneType in args:
        return None
    # Of a number and an array a list is the array; of several classes the one that takes it.
    options = [arg for arg in args if arg is not NoneType]
    options.sort(key=lambda arg: _is_list(arg) != isinstance(value, list))
    for option in options[:-1]:
        try:
            return decode(option, value)
        except (ValueError, TypeError, KeyError):
            continue
    return decode(options[-1], value)


def _is_list(hint: Any) -> bool:
    origin = get_origin(hint) or hint
    return isinstance(origin, type) and issubclass(origin, (np.ndarray, tuple, list))


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r:.60} is no list")
    return value


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{value!r:.60} is no object")
    return value


def _decode_tuple(args: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    values = _listed(value)
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(decode(args[0], entry) for entry in values)
    return tuple(decode(arg, entry) for arg, entry in zip(args, values, strict=True))


def _decode_array(args: tuple[Any, ...], value: Any) -> np.ndarray:
    """Lists of any depth; what they hold says which kind of numbers, where the type does not."""
    flat: list[Any] = []

    def numbers(entry: Any) -> Any:
        if isinstance(entry, list):
            return [numbers(inner) for inner in entry]
        number = math.nan if entry is None else _WORDS.get(entry, entry) if isinstance(entry, str) else entry
        flat.append(number)
        return number

    made = numbers(_listed(value))
    wanted = get_args(args[1])[0] if len(args) > 1 and get_args(args[1]) else None
    if wanted is np.str_ or any(isinstance(number, str) for number in flat):
        return np.array(made, dtype=np.str_)
    if wanted is np.bool_ or (flat and all(isinstance(number, bool) for number in flat)):
        return np.array(made, dtype=np.bool_)
    whole = bool(flat) and all(type(number) is int for number in flat) and wanted is not np.float64
    return np.array(made, dtype=np.int64 if whole else np.float64)


def _decode_plain(hint: Any, value: Any) -> Any:
    if hint is float:
        number = math.nan if value is None else _WORDS.get(value, value) if isinstance(value, str) else value
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise TypeError(f"{value!r:.60} is no number")
        return float(number)
    if hint in (int, bool, str):
        if type(value) is not hint:
            raise TypeError(f"{value!r:.60} is no {hint.__name__}")
        return value
    if _is_activation(hint):
        return _activation(value)
    if is_dataclass(hint) and isinstance(hint, type):
        own = getattr(hint, "from_dict", None)
        return decode_fields(hint, value) if own is None else own(value)
    raise TypeError(f"no plain data become {hint}")


def _is_activation(hint: Any) -> bool:
    return isinstance(hint, type) and hint.__module__ == "eoc_theory.activations.core"


def _activation(name: Any) -> Any:
    if not isinstance(name, str):
        raise TypeError(f"{name!r:.60} is no activation")
    try:
        return upward("Activation.__reduce__")(name)
    except EOCError:
        raise ArgumentError(
            f"activation must be a name or an expression to be read back, got {name!r:.60}, a function of "
            "your own"
        ) from None
