"""Argument checks return the value or raise one line that names argument, value and what is accepted."""

from __future__ import annotations

import math

import numpy as np
import pytest

import eoc_theory as eoc
from eoc_theory.base import checks
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
        (checks.integer, 2**63 - 1, 2**63 - 1),
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
        (checks.integer, 2**63),
        (checks.integer, -(2**70)),
        (checks.integer, 1e30),
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


@pytest.mark.parametrize("values", [2, 0.5, [1, 2], [[0.5], [float("nan")]], [], np.float32(3), np.arange(3)])
def test_numbers_of_any_shape(values) -> None:
    found = checks.numbers_of("name", values)
    assert found.dtype == np.float64 and np.array_equal(found, np.asarray(values), equal_nan=True)


WRONG = ["a", None, 1j, [[1, 2], [3]], {1: 2}, ["0.5"], [None], True]


@pytest.mark.parametrize("values", WRONG)
def test_what_are_no_numbers(values) -> None:
    with pytest.raises(ArgumentError, match="name must be a number or an array of numbers") as caught:
        checks.numbers_of("name", values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("values", ["a", [[1, 2], [3]], 1j])
def test_functions_of_arrays_name_their_argument(values) -> None:
    field = eoc.MeanField("tanh", 1.5, 0.2)
    law = eoc.predict_collapse(eoc.mlp(2, 5, activation="tanh"), criterion="magnitude")
    for name, call in (
        ("sigma_b", lambda: eoc.critical_curve("tanh", sigma_b=values)),
        ("q", lambda: field.variance_map(values)),
        ("q", lambda: field.chi(values)),
        ("c", lambda: field.correlation_map(values)),
        ("p", lambda: law.quantile(values)),
        ("sparsity", lambda: law.probability(values)),
    ):
        with pytest.raises(ArgumentError, match=f"^{name} must be a number or an array of numbers"):
            call()


def test_the_probability_at_no_sparsity_is_an_error() -> None:
    law = eoc.predict_collapse(eoc.mlp(2, 5, activation="tanh"), criterion="magnitude")
    with pytest.raises(ArgumentError, match="sparsity must be a number, got nan"):
        law.probability([0.5, float("nan")])


def test_an_init_that_is_an_array_is_named() -> None:
    with pytest.raises(ArgumentError, match="init must be"):
        eoc.mlp(2, 5, activation="tanh", init=np.array([]))
