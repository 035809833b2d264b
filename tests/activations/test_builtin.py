"""Values and derivatives of the built-in activations against mpmath at 40 digits, and their description."""

from __future__ import annotations

import pickle
import subprocess
import sys
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
    "gelu_tanh": lambda x: (
        x * _logistic(2 * mpmath.sqrt(2 / mpmath.pi) * (x + mpmath.mpf("0.044715") * x**3))
    ),
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
    """Orders 0..4 at x by central differences so fine that no kink lies within them."""
    with mp.workdps(400):
        at, step = mpmath.mpf(x), mpmath.mpf(10) ** -40
        v = [function(at + k * step) for k in (-2, -1, 0, 1, 2)]
        return [
            +v[2],
            (v[0] - 8 * v[1] + 8 * v[3] - v[4]) / (12 * step),
            (-v[0] + 16 * v[1] - 30 * v[2] + 16 * v[3] - v[4]) / (12 * step**2),
            (-v[0] + 2 * v[1] - 2 * v[3] + v[4]) / (2 * step**3),
            (v[0] - 4 * v[1] + 6 * v[2] - 4 * v[3] + v[4]) / step**4,
        ]


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
            # What a rounding of the argument alone would do, and the size of the value.
            condition = abs(x * float(row[order + 1])) + abs(float(row[order]))
            error = abs(float(mpmath.mpf(float(value)) - row[order]))
            assert error <= 4e-15 * condition + 1e-230, (order, x, value)


def test_every_builtin_has_an_oracle() -> None:
    aliases = {"monomial", "prelu", "rrelu"}
    assert {name.partition("(")[0] for name in ORACLES} | aliases == set(activation_names())


@pytest.mark.parametrize("name", sorted(ORACLES))
def test_jumps_are_the_differences_across_each_kink(name: str) -> None:
    function = activation(name)
    kinks = np.array(function.kinks)
    for order in range(4):
        derivative = function.derivative(order)
        across = derivative(kinks + 1e-9) - derivative(kinks - 1e-9)
        np.testing.assert_allclose(function.jumps(order), across, atol=1e-7)
        assert function.jumps(order).shape == kinks.shape


@pytest.mark.parametrize("name", sorted(ORACLES))
def test_smooth_away_from_the_kinks(name: str) -> None:
    function = activation(name)
    x = np.linspace(-7.3, 7.9, 1500)
    x = x[np.min(np.abs(x[:, None] - np.array([*function.kinks, 1e9])), axis=1) > 1e-2]
    h = 1e-5
    for order in range(3):
        value = function.derivative(order)
        slope = (value(x + h) - value(x - h)) / (2 * h)
        exact = function.derivative(order + 1)(x)
        np.testing.assert_allclose(slope, exact, atol=2e-7 * max(1.0, np.abs(exact).max()))


@pytest.mark.parametrize("name", sorted(ORACLES))
def test_parity_slopes_and_growth_hold(name: str) -> None:
    function = activation(name)
    x = np.concatenate([np.logspace(-6, 2.5, 40), [0.0]])
    right, left = function(x), function(-x)
    if function.parity is not None:
        np.testing.assert_array_equal(left, right if function.parity == "even" else -right)
    else:
        assert not np.allclose(right, left, rtol=1e-10)
        assert not np.allclose(right, -left, rtol=1e-10)
    homogeneous = np.allclose(function(3.0 * x), 3.0 * right) and np.allclose(function(-3.0 * x), 3.0 * left)
    assert function.is_homogeneous == homogeneous
    if function.slopes is not None:
        np.testing.assert_allclose(right, function.slopes[1] * x)
        np.testing.assert_allclose(left, -function.slopes[0] * x)
    with np.errstate(over="ignore"):
        bound = x**function.growth.degree + 1.0
        if function.growth.kind == "exponential":
            bound = np.exp(function.growth.rate * x)
    assert np.all(np.maximum(np.abs(left), np.abs(right)) <= 8.0 * bound)
    assert np.all(np.diff([-np.inf, *function.kinks, np.inf]) > 0)


def _closed(form: tuple[Any, ...], x: np.ndarray) -> np.ndarray:
    family, *p = form
    return {
        "leaky": lambda: np.where(x > 0, p[-1] * x, p[0] * x),
        "erf": lambda: np.array([float(mpmath.erf(p[0] * v)) for v in x]),
        "gelu": lambda: np.array([float(v * _phi(mpmath.mpf(v))) for v in x]),
        "sin": lambda: np.sin(p[0] * x),
        "cos": lambda: np.cos(p[0] * x),
        "exp": lambda: np.exp(p[0] * x),
        "polynomial": lambda: np.polynomial.polynomial.polyval(x, p),
        "step": lambda: np.where(x > 0, p[-1], p[0]),
    }[family]()


@pytest.mark.parametrize("name", [n for n in sorted(ORACLES) if activation(n).closed_form])
def test_closed_form_is_the_function(name: str) -> None:
    form = activation(name).closed_form
    assert form is not None
    x = np.linspace(-3.1, 3.3, 41)
    np.testing.assert_allclose(activation(name)(x), _closed(form, x), rtol=1e-14, atol=1e-300)


def test_names_aliases_and_parameters() -> None:
    assert activation("tanh") is activation(" Tanh ") is activation("TANH()")
    assert activation("swish") is activation("SiLU") is activation("silu(beta=1)")
    assert activation("LeakyReLU") is activation("leaky-relu") is activation("leaky_relu(0.01)")
    assert activation("leaky_relu(negative_slope=0.1)").name == "leaky_relu(0.1)"
    assert activation("hardtanh(-2, max_val=2)").name == "hardtanh(-2, 2)"
    assert activation("gelu(tanh)") is activation("gelu_tanh") is activation("gelu(approximate='tanh')")
    assert activation("prelu") is activation("leaky_relu(0.25)")
    assert activation("arctan") is activation("atan")
    assert list(activation_names()) == sorted(activation_names())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("tanhh", "unknown activation 'tanhh' (did you mean tanh"),
        ("swisch", "did you mean swish"),
        ("qqqq", "known are abs, asinh"),
        ("relu(0.1)", "relu takes no parameters; got 1 values"),
        ("leaky_relu(0.1, 2)", "leaky_relu takes negative_slope=0.01; got 2 values"),
        ("leaky_relu(slope=0.1)", "got the parameter 'slope'"),
        ("leaky_relu(0.1, negative_slope=0.1)", "got negative_slope twice"),
        ("hardtanh(0, min_val=1)", "got min_val twice"),
        ("hardtanh(min_val=1, 2)", "values without a name come before named ones"),
        ("hardtanh(2, 1)", "min_val must be below max_val"),
        ("softplus(-1)", "beta must be a number > 0, got -1"),
        ("gelu(erf)", "approximate must be one of 'none', 'tanh', got 'erf'"),
        ("monomial(2.5)", "degree must be a whole number"),
        ("elu(1e400)", "alpha must be a finite number"),
    ],
)
def test_wrong_names_and_parameters(text: str, problem: str) -> None:
    with pytest.raises(ActivationError) as caught:
        activation(text)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", [None, 3, 2.5, ["tanh"], b"tanh"])
def test_wrong_types(spec: Any) -> None:
    with pytest.raises(ActivationError, match="activation must be a name, an expression in x"):
        activation(spec)


def test_orders_and_shapes() -> None:
    tanh = activation("tanh")
    for order in (-1, 4, 1.5):
        with pytest.raises(ValueError, match="order must be"):
            tanh.derivative(order)  # type: ignore[arg-type]
    for name in ("tanh", "relu", "hardshrink"):
        for x in (0.3, [1, 2], np.ones((2, 3, 1)), np.float32(1.0)):
            assert np.shape(activation(name)(x)) == np.shape(x)
            assert activation(name).derivative(2)(x).dtype == np.float64
        assert np.isnan(activation(name)(np.nan))


def test_values_at_jumps() -> None:
    assert activation("sign")(0.0) == 0.0
    assert activation("step")(0.0) == 0.5
    assert list(activation("hardshrink")([-0.5, 0.5])) == [0.0, 0.0]
    assert activation("threshold(1, 5)")(1.0) == 5.0


def test_softplus_threshold_counts_only_where_it_shows() -> None:
    assert activation("softplus(1, 20)").kinks == ()
    low = activation("softplus(2, 4)")
    assert low.kinks == (2.0,)
    assert low(2.5) == 2.5
    np.testing.assert_allclose(low.jumps(0), -np.log1p(np.exp(-4.0)) / 2.0)


def test_identity_hash_repr_and_pickle() -> None:
    for name in ("tanh", "leaky_relu(0.1)", "hardtanh(-2, 2)"):
        function = activation(name)
        assert activation(function) is function
        assert pickle.loads(pickle.dumps(function)) is function
        assert repr(function) == f"Activation({name})"
        assert {function: 1}[activation(name)] == 1
    assert isinstance(activation("tanh"), Activation)
    with pytest.raises(AttributeError):
        activation("tanh").name = "other"  # type: ignore[misc]


def test_built_ins_need_no_sympy_and_no_torch() -> None:
    code = (
        "import sys; import eoc_theory.activations as a; "
        "[a.activation(n)(0.3) for n in a.activation_names()]; "
        "print([m for m in ('sympy', 'torch', 'numba', 'matplotlib', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
