"""Activations from NumPy callables: detected kinks, derivatives with their stated errors, clear refusals."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from scipy import special

from eoc_theory.activations import activation, activation_names, evaluations
from eoc_theory.activations.numerical import from_callable
from eoc_theory.errors import ActivationError

GRID = np.unique(
    np.concatenate([np.logspace(-8, 1.9, 80), -np.logspace(-8, 1.9, 80), np.linspace(-9, 9, 301)])
)
ROUNDING = (1e-15, 1e-12, 5e-11, 5e-9)  # what the fits reach at least, relative to the largest value


@pytest.mark.parametrize("name", activation_names())
def test_built_ins_as_callables(name: str) -> None:
    exact = activation(name)
    made = from_callable(lambda x: exact(x))
    assert made.kinks == exact.kinks
    slope = np.max(np.abs(exact.derivative(1)(GRID)))
    for order in range(4):
        expected, got = exact.derivative(order)(GRID), made.derivative(order)(GRID)
        scale = max(float(np.max(np.abs(expected))), slope)
        error = float(np.max(np.abs(got - expected)))
        assert error <= ROUNDING[order] * scale, (order, error)
        assert made.derivative_error(order) <= ROUNDING[order]
        # The stated error is of the true one's size.
        assert error <= 10.0 * made.derivative_error(order) * scale + 2e-13 * 30**order * scale
        np.testing.assert_allclose(made.jumps(order), exact.jumps(order), atol=1e-7 * max(scale, 1.0))
    assert made.slopes == exact.slopes or made.slopes == pytest.approx(exact.slopes)
    assert made.parity == exact.parity
    assert made.growth.kind == exact.growth.kind
    assert made.oscillation == pytest.approx(exact.oscillation, abs=0.1)


@pytest.mark.parametrize(
    ("function", "kinks"),
    [
        (lambda x: np.abs(np.abs(x) - 1.3), (-1.3, 0.0, 1.3)),
        (lambda x: np.where(x > 1 / 3, x**2, 0.0), (1 / 3,)),
        (lambda x: np.maximum(x, 0) ** 2, (0.0,)),
        (lambda x: np.maximum(x, 0) ** 3, (0.0,)),
        (lambda x: np.maximum(x - 0.7, 0) ** 3 + x, (0.7,)),
        (lambda x: np.where(x > 0, x, np.expm1(x)) + 1, (0.0,)),
        (lambda x: np.clip(x, -100.0, 150.0), (-100.0, 150.0)),
        (lambda x: np.abs(np.tanh(x) - 0.5), (math.atanh(0.5),)),
        (lambda x: np.tanh(10 * (x - 3)), ()),
        (lambda x: np.tanh(300 * x), ()),
        (lambda x: np.sin(20 * x) + x, ()),
        (lambda x: np.exp(-(x**2) * 50), ()),
        (lambda x: np.exp(x**2 / 100), ()),
        (lambda x: x / (1 + np.exp(-x)), ()),
    ],
)
def test_kinks_are_detected(function, kinks) -> None:
    made = activation(function)
    assert len(made.kinks) == len(kinks)
    np.testing.assert_allclose(made.kinks, kinks, atol=1e-9)


def test_given_kinks_are_taken() -> None:
    made = activation(lambda x: np.where(x > 2, x - 2, np.sin(x) * (x < -1)), kinks=(2, -1))
    assert made.kinks == (-1.0, 2.0)
    np.testing.assert_allclose(made.jumps(0), [-np.sin(-1.0), 0.0], atol=1e-12)
    np.testing.assert_allclose(made.jumps(1), [-np.cos(-1.0), 1.0], atol=1e-11)
    with pytest.raises(ActivationError, match="kinks must be finite numbers"):
        activation(np.tanh, kinks=("a",))  # type: ignore[arg-type]
    with pytest.raises(ActivationError, match="kinks must be finite numbers"):
        activation(np.tanh, kinks=(np.nan,))


def test_simple_pieces_are_recognised() -> None:
    assert activation(lambda x: np.maximum(x, 0.1 * x)).closed_form == ("leaky", 0.1, 1.0)
    assert activation(lambda x: np.where(x > 0, 3.0, -1.0)).closed_form == ("step", -1.0, 3.0)
    assert activation(lambda x: 2.0 * x).closed_form == ("polynomial", 0.0, 2.0)
    clipped = activation(lambda x: np.clip(x, -1, 1))
    assert clipped.derivative_error(3) == 0.0
    assert list(clipped.derivative(1)([-2.0, 0.3, 2.0])) == [0.0, 1.0, 0.0]


def test_structure_is_found() -> None:
    sharp = activation(lambda x: np.tanh(10 * (x - 3)))
    assert sharp.length_scale == pytest.approx(0.1, rel=0.1)
    assert min(abs(np.array(sharp.scale_points) - 3.0)) < 0.2
    assert activation(lambda x: np.sin(20 * x) + x).oscillation == pytest.approx(20.0, abs=0.1)
    assert activation(lambda x: np.exp(x**2 / 100)).growth.rate == pytest.approx(0.01)


def test_ufuncs_are_the_built_ins() -> None:
    for ufunc, name in [
        (np.tanh, "tanh"), (np.arctan, "atan"), (np.abs, "abs"), (np.sign, "sign"), (special.erf, "erf"),
        (special.expit, "sigmoid"), (np.square, "square"),
    ]:  # fmt: skip
        assert activation(ufunc) is activation(name)


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (lambda x: np.log(x), "is not finite at x = 0: got -inf"),
        (lambda x: 1 / x, "is not finite at x = 0"),
        (lambda x: np.sqrt(x), "is not finite at x = -1e-08: got nan"),
        (lambda x: x.astype(np.float32), "must compute in float64, got float32"),
        (lambda x: x / x.sum(), "must be elementwise"),
        (lambda x: np.sort(x), "must be elementwise"),
        (lambda x: x + np.random.default_rng().normal(size=x.shape), "deterministic"),
        (lambda x: 3.0, "must return an array of its argument's shape (5,), got shape ()"),
        (lambda x: x[:2], "got shape (2,)"),
        (lambda x: x * 1j, "must return real numbers, got dtype complex128"),
        (lambda x: None, "got shape ()"),
        (lambda x: 0 * x, "does not depend on x"),
        (lambda x, y: x, "raised TypeError"),
        (math.tanh, "must be a NumPy-vectorised callable"),
        (lambda x: np.floor(x), "more than 63 kinks"),
    ],
)
def test_unusable_callables(function, problem: str) -> None:
    with pytest.raises(ActivationError) as caught:
        activation(function)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def _cubic(x: np.ndarray) -> np.ndarray:
    return x + 0.1 * x**3


def test_callables_are_made_once_and_travel() -> None:
    made = activation(_cubic)
    assert activation(_cubic) is made
    assert made.name == "_cubic"
    assert pickle.loads(pickle.dumps(made)) is made
    x = np.ones((2, 3))
    assert made.derivative(2)(x).shape == (2, 3)
    assert np.shape(made.derivative(1)(0.5)) == ()


def test_a_callable_that_writes_into_its_argument_does_no_harm() -> None:
    def careless(x: np.ndarray) -> np.ndarray:
        x *= 2.0
        return np.tanh(x)

    made, x = activation(careless), np.linspace(-1, 1, 5)
    np.testing.assert_array_equal(made(x), np.tanh(2 * np.linspace(-1, 1, 5)))
    np.testing.assert_array_equal(x, np.linspace(-1, 1, 5))


def test_functions_vectorised_by_numpy_are_taken() -> None:
    act = activation(np.vectorize(lambda v: math.tanh(v) if v > -50.0 else -1.0))
    assert act.kinks == () and float(act(0.5)) == math.tanh(0.5)


@pytest.mark.parametrize("weight", [32, 256])
def test_a_slow_callable_is_refused_before_the_fine_grid(weight: int, monkeypatch) -> None:
    monkeypatch.setattr(evaluations, "weight_of", lambda call, x: weight)
    seen = 0

    def slow(x: np.ndarray) -> np.ndarray:
        nonlocal seen
        seen += x.size
        return np.tanh(x) + 0.1 * x

    with pytest.raises(ActivationError, match="too costly to read"):
        from_callable(slow)
    assert seen < 10_000


@pytest.mark.parametrize("frequency", [20.0, 60.0])
def test_lasting_waves_are_read_with_few_evaluations(frequency: float) -> None:
    seen = 0

    def wave(x: np.ndarray) -> np.ndarray:
        nonlocal seen
        seen += x.size
        return x + np.sin(frequency * x)

    act = activation(wave)
    assert seen < 26_000_000
    x = np.linspace(-30.0, 30.0, 997)
    right = 1.0 + frequency * np.cos(frequency * x)
    assert np.abs(act.derivative(1)(x) - right).max() <= 1e-9 * frequency
    bend = -(frequency**2) * np.sin(frequency * x)
    assert np.abs(act.derivative(2)(x) - bend).max() <= 1e-7 * frequency**2
