"""Argument checks return the value or raise one line that names argument, value and what is accepted."""

from __future__ import annotations

import math

import numpy as np
import pytest

from eoc_theory import checks
from eoc_theory.errors import ArgumentError, EOCError


@pytest.mark.parametrize(
    ("check", "value", "result"),
    [
        (checks.positive, 2, 2.0),
        (checks.positive, np.float32(0.5), 0.5),
        (checks.positive, np.array(3.0), 3.0),
        (checks.non_negative, 0, 0.0),
        (checks.fraction, 0.0, 0.0),
        (checks.fraction, 0.999, 0.999),
        (checks.finite, -1e30, -1e30),
        (checks.integer, 3.0, 3),
        (checks.integer, np.int64(-2), -2),
    ],
)
def test_accepted(check, value, result) -> None:
    got = check("name", value)
    assert got == result
    assert type(got) is type(result)


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (checks.positive, 0.0),
        (checks.positive, math.inf),
        (checks.positive, math.nan),
        (checks.positive, "1"),
        (checks.positive, True),
        (checks.positive, None),
        (checks.positive, 1j),
        (checks.positive, np.array([1.0, 2.0])),
        (checks.non_negative, -1e-9),
        (checks.fraction, 1.0),
        (checks.fraction, -0.1),
        (checks.integer, 2.5),
        (checks.integer, True),
    ],
)
def test_refused(check, value) -> None:
    with pytest.raises(ArgumentError, match=r"^sigma_b must be [^\n]*, got [^\n]*$"):
        check("sigma_b", value)


def test_integer_minimum() -> None:
    assert checks.integer("depth", 2, 2) == 2
    with pytest.raises(ArgumentError, match="depth must be a whole number >= 2, got 1"):
        checks.integer("depth", 1, 2)


def test_one_of() -> None:
    assert checks.one_of("law", "normal", ("normal", "uniform")) == "normal"
    with pytest.raises(ArgumentError, match="law must be one of 'normal', 'uniform', got 'cauchy'"):
        checks.one_of("law", "cauchy", ("normal", "uniform"))
    with pytest.raises(ArgumentError):
        checks.one_of("law", ["normal"], ("normal", "uniform"))  # type: ignore[arg-type]


def test_every_error_is_a_value_error() -> None:
    assert issubclass(EOCError, ValueError)
    assert issubclass(ArgumentError, EOCError)
