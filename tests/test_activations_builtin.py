"""Values and derivatives of the built-in activations against mpmath at 40 digits, and their description."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest

from eoc_theory.activations import Activation, activation, activation_names
from eoc_theory.errors import ActivationError

mp = mpmath.mp

POINTS = [1e-30, 1e-15, 1e-8, 1e-5, 1e-3, 0.01, 0.1, 0.2, 0.35, 0.49, 0.7, 0.95, 1.05, 1.3, 1.9, 2.5, 2.95]
POINTS += [3.05, 4.2, 5.9, 6.1, 8.5, 12.0, 17.3, 25.0, 38.0, 60.0, 100.3, 354.0, 1e3, 1e4]


def _logistic(x: Any) -> Any:
    return 1 / (1 + mpmath.exp(-x))


def _phi(x: Any) -> Any:
    return mpmath.erfc(-x / mpmath.sqrt(2)) / 2


SELU_ALPHA, SELU_SCALE = mpmath.mpf(1.6732632423543772), mpmath.mpf(1.0507009873554805)

# Each function once more, in mpmath, from its definition.
ORACLES: dict[str, Callable[[Any], Any]] = {
    "identity": lambda x: x,
    "relu": lambda x: x if x > 0 else 0 * x,
    "leaky_relu(0.1)": lambda x: x if x > 0 else mpmath.mpf(0.1) * x,
    "abs": lambda x: x if x > 0 else -x,
    "relu6": lambda x: min(max(x, mpmath.mpf(0)), mpmath.mpf(6)),
    "hardtanh": lambda x: min(max(x, mpmath.mpf(-1)), mpmath.mpf(1)),
    "hardsigmoid": lambda x: min(max(x / 6 + mpmath.mpf(1) / 2, mpmath.mpf(0)), mpmath.mpf(1)),
    "hardswish": lambda x: x * min(max(x + 3, mpmath.mpf(0)), mpmath.mpf(6)) / 6,
    "softshrink": lambda x: x - 0.5 if x > 0.5 else x + 0.5 if x < -0.5 else 0 * x,
    "hardshrink": lambda x: x if abs(x) > 0.5 else 0 * x,
    "threshold(0.25, -2)": lambda x: x if x > 0.25 else mpmath.mpf(-2),
    "step": lambda x: mpmath.mpf(1 if x > 0 else 0),
    "sign": lambda x: mpmath.mpf(1 if x > 0 else -1),
    "square": lambda x: x**2,
    "cube": lambda x: x**3,
    "monomial(5)": lambda x: x**5,
    "tanh": mpmath.tanh,
    "sigmoid": _logistic,
    "log_sigmoid": lambda x: -mpmath.log1p(mpmath.exp(-x)),
    "softsign": lambda x: x / (1 + x) if x > 0 else x / (1 - x),
    "erf": mpmath.erf,
    "erf(2)": lambda x: mpmath.erf(2 * x),
    "atan": mpmath.atan,
    "asinh": mpmath.asinh,
    "tanhshrink": lambda x: x - mpmath.tanh(x),
    "elu": lambda x: x if x > 0 else mpmath.expm1(x),
    "elu(0.5)": lambda x: x if x > 0 else mpmath.expm1(x) / 2,
    "celu(2)": lambda x: x if x > 0 else 2 * mpmath.expm1(x / 2),
    "selu": lambda x: SELU_SCALE * (x if x > 0 else SELU_ALPHA * mpmath.expm1(x)),
    "gelu": lambda x: x * _phi(x),
    "gelu_tanh": lambda x: x
    * _logistic(2 * mpmath.sqrt(2 / mpmath.pi) * (x + mpmath.mpf("0.044715") * x**3)),
    "silu": lambda x: x * _logistic(x),
    "silu(2)": lambda x: x * _logistic(2 * x),
    "mish": lambda x: x * mpmath.tanh(mpmath.log1p(mpmath.exp(x))),
    "softplus": lambda x: mpmath.log1p(mpmath.exp(x)),
    "softplus(2)": lambda x: mpmath.log1p(mpmath.exp(2 * x)) / 2,
    "bent_identity": lambda x: (mpmath.sqrt(x**2 + 1) - 1) / 2 + x,
    "sin": mpmath.sin,
    "cos": mpmath.cos,
    "snake(0.5)": lambda x: x + 2 * mpmath.sin(x / 2) ** 2,
    "exp": mpmath.exp,
    "exp(-0.5)": lambda x: mpmath.exp(-x / 2),
}


def _derivatives(function: Callable[[Any], Any], x: float) -> list[Any]:
    """Orders 0..4 at x by central differences so fine, and in so many digits, that no kink lies within them."""
    with mp.workdps(650):
        at, step = mpmath.mpf(x), mpmath.mpf(10) ** -60
        v = [function(at + k * step) for k in (-2, -1, 0, 1, 2)]
        return [
            +v[2],
            (v[0] - 8 * v[1] + 8 * v[3] - v[4]) / (12 * step),
            (-v[0] + 16 * v[1] - 30 * v[2] + 16 * v[3] - v[4]) / (12 * step**2),
            (-v[0] + 2 * v[1] - 2 * v[3] + v[4]) / (2 * step**3),
            (v[0] - 4 * v[1] + 6 * v[2] - 4 * v[3] + v[4]) / step**4,
        ]


@pytest.fixture(scope="module")
def errors() -> dict[str, float]:
    return {}


@pytest.mark.parametrize("name", sorted(ORACLES))
def test_values_and_derivatives_to_the_last_digits(name: str) -> None:
    function, oracle = activation(name), ORACLES[name]
    points = [sign * p for p in POINTS for sign in (1, -1)]
    if name.startswith("exp"):
        points = [p for p in points if abs(p) <= 354]
    exact = [_derivatives(oracle, p) for p in points]
    for order in range(4):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            values = function.derivative(order)(np.array(points))
        for x, value, row in zip(points, values, exact, strict=True):
            # What a rounding of the argument alone would do, and near a zero of the function the size of its terms.
            condition = abs(x * float(row[order + 1])) + abs(float(row[order]))
            error = abs(float(mpmath.mpf(float(value)) - row[order]))
            assert error <= 4e-15 * condition + 1e-290, (order, x, value)


def test_every_builtin_has_an_oracle() -> None:
    aliases = {"monomial", "prelu", "rrelu"}
    assert {name.partition("(")[0] for name in ORACLES} | aliases == set(activation_names())
