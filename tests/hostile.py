"""Values that no argument was meant for, made with a seed: what a fuzz of arguments draws from."""

from __future__ import annotations

import datetime
import decimal
import enum
import fractions
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import sympy
import torch
from torch import nn


class TwoLines:
    """An object whose picture has two lines."""

    def __repr__(self) -> str:
        return "<two\nlines\x1b[31m>"


class Fails:
    """Raises at everything that an argument is usually asked."""

    def _fail(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("touched\nin two lines")

    __repr__ = __str__ = __len__ = __iter__ = __float__ = __int__ = __index__ = __array__ = _fail
    __getitem__ = __eq__ = __hash__ = __bool__ = __call__ = __fspath__ = _fail  # type: ignore[assignment]


class FloatOfItsOwn(float):
    """A float whose conversion fails."""

    def __float__(self) -> float:
        raise OverflowError("no float")


class Colour(enum.Enum):
    RED = "snip"


class Deep(list):
    """A list that holds itself."""

    def __init__(self) -> None:
        super().__init__()
        self.append(self)


def raising(*args: Any, **kwargs: Any) -> Any:
    raise RuntimeError("from a function that was handed in")


def endless() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1


def failing_iterator() -> Iterator[int]:
    yield 1
    raise RuntimeError("from an iterator that was handed in")


def nested(depth: int) -> list[Any]:
    made: list[Any] = []
    for _ in range(depth):
        made = [made]
    return made


def read_only() -> np.ndarray:
    array = np.linspace(0.1, 0.9, 4)
    array.flags.writeable = False
    return array


NUMBERS: list[Callable[[], Any]] = [
    *(
        (lambda value=value: value)
        for value in (
            float("nan"),
            float("inf"),
            float("-inf"),
            -0.0,
            0,
            1,
            2,
            -1,
            0.5,
            1e308,
            -1e308,
            5e-324,
            1e-17,
            10**9,
            2**31,
            2**63,
            10**19,
            10**400,
            -(10**400),
            True,
            False,
            1j,
            complex("nan"),
            1 + 0j,
            np.int64(-1),
            np.uint8(3),
            np.float32(0.5),
            np.float16("inf"),
            np.longdouble(0.5),
            np.bool_(True),
            np.complex64(1),
            np.int64(2**62),
            decimal.Decimal("0.5"),
            decimal.Decimal("sNaN"),
            fractions.Fraction(1, 2),
            fractions.Fraction(10**400),
            FloatOfItsOwn(0.5),
            np.datetime64("2020-01-01"),
            np.timedelta64(3, "D"),
            datetime.datetime(2020, 1, 1),
            datetime.timedelta(1),
            pd.NA,
            pd.NaT,
            pd.Timestamp("2020-01-01"),
            sympy.pi,
            sympy.oo,
            sympy.Symbol("x"),
            Colour.RED,
        )
    ),
]
TEXTS: list[Callable[[], Any]] = [
    (lambda value=value: value)
    for value in (
        "",
        " ",
        "a",
        "tanh",
        "snip",
        "1",
        "nan",
        "None",
        "x" * 10_000,
        "\x1b[31mred",
        "a\x00b",
        "\ud800",
        "\u202eabc",
        "a\nb",
        "../..",
        "auto",
        "cuda:99",
        "cpu",
        np.str_("snip"),
        b"snip",
        b"\xff",
        bytearray(b"x"),
        "é" * 3,
        "0",
    )
]
OBJECTS: list[Callable[[], Any]] = [
    lambda: None,
    object,
    TwoLines,
    Fails,
    Deep,
    lambda: len,
    lambda: print,
    lambda: int,
    lambda: raising,
    lambda: lambda: 1,
    lambda: lambda x: x,
    lambda: lambda *args: None,
    lambda: lambda x: np.zeros(3),
    lambda: nn.ReLU,
    lambda: nn.ReLU(),
    lambda: nn.Linear(8, 3),
    lambda: nn.Sequential(),
    lambda: Ellipsis,
    lambda: NotImplemented,
    lambda: type,
    lambda: np,
    lambda: pathlib.Path("a"),
    lambda: pathlib.Path("no/such/folder/x.png"),
    lambda: memoryview(b"abc"),
    lambda: slice(3),
    lambda: np.dtype("f8"),
    lambda: np.random.default_rng(0),
    lambda: torch.Generator(),
    lambda: torch.device("meta"),
    lambda: torch.float16,
]
COLLECTIONS: list[Callable[[], Any]] = [
    tuple,
    list,
    dict,
    set,
    lambda: [1, 2],
    lambda: (0.1, 0.2, 0.3),
    lambda: (1, 8, 8),
    lambda: (3, -1, 2),
    lambda: [0],
    lambda: [[1, 2], [3]],
    lambda: nested(50),
    lambda: nested(3000),
    lambda: [None],
    lambda: ["0.5", 0.5],
    lambda: [True, 0.5],
    lambda: [float("nan")],
    lambda: [10**400],
    lambda: ([1.0], [2.0], [3.0]),
    lambda: {"a": 1},
    lambda: {"0": np.ones((6, 8))},
    lambda: {"0": None},
    lambda: {1: 2},
    lambda: {"0": np.ones((6, 8)), "\x1b[31m": np.ones(3)},
    lambda: frozenset({1, 2}),
    lambda: range(3),
    lambda: range(10**12),
    lambda: (i for i in range(3)),
    endless,
    failing_iterator,
    lambda: iter(()),
    lambda: map(int, "12"),
    lambda: zip([1], [2], strict=True),
    lambda: [torch.ones(2), torch.ones(3)],
    lambda: (np.ones((4, 8)), np.arange(4) % 3),
    lambda: (np.ones((4, 8)), np.array([0, 1, 2, 10**9])),
    lambda: (np.ones((4, 8)), np.full(4, -1)),
    lambda: (np.full((4, 8), np.nan), np.arange(4) % 3),
    lambda: (np.ones((4, 8)), np.full(4, np.nan)),
    lambda: (np.ones((4, 8), dtype=complex), np.arange(4) % 3),
    lambda: (np.ones((0, 8)), np.ones(0)),
    lambda: (torch.ones(4, 8, requires_grad=True), torch.arange(4) % 3),
    lambda: (pd.DataFrame(np.ones((4, 8))), pd.Series(np.arange(4) % 3)),
    lambda: (Fails(), Fails()),
]
ARRAYS: list[Callable[[], Any]] = [
    lambda: np.array(0.5),
    lambda: np.array(3),
    lambda: np.array([]),
    lambda: np.array([0.2, 0.5]),
    lambda: np.array([[0.2, 0.5], [0.1, 0.3]]),
    lambda: np.ones((2, 3, 4, 5, 6)),
    lambda: np.ones((0, 3)),
    lambda: np.array([np.nan, 0.5]),
    lambda: np.array([np.inf]),
    lambda: np.array(["x"]),
    lambda: np.array([b"x"]),
    lambda: np.array([None]),
    lambda: np.array([0.5, None], dtype=object),
    lambda: np.array([1, 2], dtype=object),
    lambda: np.array([10**400, 1], dtype=object),
    lambda: np.array([1 + 1j]),
    lambda: np.array(["2020-01-01"], dtype="datetime64[D]"),
    lambda: np.array([3], dtype="timedelta64[s]"),
    lambda: np.zeros(3, dtype=[("a", float), ("b", int)]),
    lambda: np.ma.masked_array([0.2, 0.5], mask=[True, False]),
    lambda: np.ma.masked,
    lambda: np.linspace(0.1, 0.9, 8)[::2],
    lambda: np.linspace(0.1, 0.9, 8)[::-1],
    lambda: np.asfortranarray(np.full((3, 4), 0.5)),
    read_only,
    lambda: np.array([0.2, 0.5], dtype=">f8"),
    lambda: np.array([0.2, 0.5], dtype=np.float16),
    lambda: np.array([0.2, 0.5], dtype=np.longdouble),
    lambda: np.array([True, False]),
    lambda: np.broadcast_to(np.array(0.5), (3,)),
    lambda: np.broadcast_to(np.array(0.5), (10**6, 10**6)),
    lambda: torch.tensor(0.5),
    lambda: torch.tensor(0.5, requires_grad=True),
    lambda: torch.tensor([0.2, 0.5], requires_grad=True),
    lambda: torch.ones(2, 8, requires_grad=True) * 2,
    lambda: torch.ones(2, 8, dtype=torch.bfloat16),
    lambda: torch.ones(2, 8, dtype=torch.complex64),
    lambda: torch.empty(2, 8, device="meta"),
    lambda: torch.eye(3).to_sparse(),
    lambda: torch.ones(2, 8).to(torch.int8),
    lambda: torch.tensor(3),
    lambda: torch.tensor([]),
    lambda: pd.Series([0.2, 0.5]),
    lambda: pd.Series(["a", "b"]),
    lambda: pd.DataFrame({"a": [0.2, 0.5]}),
    lambda: pd.array([0.5, None], dtype="Float64"),
    lambda: pd.Categorical(["a", "b"]),
    lambda: pd.Index([0.1, 0.5]),
]
EVERYTHING = NUMBERS + TEXTS + OBJECTS + COLLECTIONS + ARRAYS
