"""E[f(u) g(v)] against closed forms at 40 digits, references computed with mpmath, and simulation."""

from __future__ import annotations

import json
import math
from pathlib import Path

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eoc_theory.activations import activation, activation_names
from eoc_theory.errors import ArgumentError, ConvergenceError, EOCError
from eoc_theory.gaussian import Estimate
from eoc_theory.gaussian.duals import DualTable, dual, dual_deficit
from eoc_theory.gaussian.duals.quadrature import dual_quadrature, second_moment

VARIANCES = [
    (1e-12, 1e-12),
    (1e-6, 1e-3),
    (0.5, 0.5),
    (1.0, 3.0),
    (40.0, 10.0),
    (1e4, 1e4),
    (1e6, 1e2),
    (1e6, 1e6),
]
GAPS = [0.0, 1e-15, 1e-9, 1e-4, 0.1, 0.7, 1.0, 1.5, 1.99, 2 - 1e-9, 2.0]
REFERENCES = json.loads((Path(__file__).resolve().parents[1] / "dual_references.json").read_text())


def scale(name: str, q_a: float, q_b: float, m: int, n: int) -> float:
    a = activation(name)
    return math.sqrt(second_moment(a, q_a, m)) * math.sqrt(second_moment(a, q_b, n))


def check(estimate: Estimate, exact: float, size: float) -> None:
    error = abs(float(estimate.value) - exact)
    assert error <= 1e-12 * size
    assert error <= 10 * float(estimate.error)


@pytest.mark.parametrize(("q_a", "q_b"), VARIANCES)
@pytest.mark.parametrize("gap", GAPS)
def test_relu_and_its_derivative_against_the_arc_cosine_kernels(q_a: float, q_b: float, gap: float) -> None:
    with mp.workdps(40):
        c = 1 - mp.mpf(gap)
        theta = mp.acos(c)
        root = mp.sqrt(mp.mpf(q_a) * mp.mpf(q_b))
        phi = root * (mp.sin(theta) + (mp.pi - theta) * c) / (2 * mp.pi)
        dphi = (mp.pi - theta) / (2 * mp.pi)
    check(dual("relu", q_a, q_b, one_minus_c=gap), float(phi), float(root) / 2)
    check(dual("relu", q_a, q_b, one_minus_c=gap, order=1), float(dphi), 0.5)


@pytest.mark.parametrize(("q_a", "q_b"), VARIANCES)
@pytest.mark.parametrize("gap", GAPS)
def test_erf_and_its_derivatives_against_williams(q_a: float, q_b: float, gap: float) -> None:
    with mp.workdps(50):
        a, b, c = mp.mpf(q_a), mp.mpf(q_b), 1 - mp.mpf(gap)
        k = mp.sqrt(a * b) * c
        determinant = (1 + 2 * a) * (1 + 2 * b) - 4 * k**2
        exact = [
            2 / mp.pi * mp.asin(2 * k / mp.sqrt((1 + 2 * a) * (1 + 2 * b))),
            4 / mp.pi / mp.sqrt(determinant),
            16 / mp.pi * k / determinant**1.5,
        ]
    for order in range(3):
        size = scale("erf", q_a, q_b, order, order)
        check(dual("erf", q_a, q_b, one_minus_c=gap, order=order), float(exact[order]), size)


@pytest.mark.parametrize(
    "name", ["relu", "leaky_relu(0.1)", "abs", "erf", "gelu", "sin", "cos", "cube", "step", "snake"]
)
@pytest.mark.parametrize(("q_a", "q_b"), [(1e-12, 1e-12), (1e-3, 2.0), (0.5, 0.5), (40.0, 10.0)])
def test_closed_forms_and_quadrature_agree_for_every_pair_of_derivatives(
    name: str, q_a: float, q_b: float
) -> None:
    a = activation(name)
    for gap in (0.0, 1e-15, 1e-6, 0.3, 1.0, 1.8, 2.0):
        for m, n in ((0, 0), (1, 1), (2, 2), (0, 1), (1, 2), (0, 2)):
            size = scale(name, q_a, q_b, m, n)
            closed = dual(a, q_a, q_b, one_minus_c=gap, order=m, order_b=n)
            value, error = dual_quadrature(a, q_a, q_b, 1 - gap, math.sqrt(gap * (2 - gap)), m, n)
            assert abs(float(closed.value) - value) <= 2e-14 * size + 1e-300
            assert error <= 1e-11 * size


@pytest.mark.parametrize("case", REFERENCES, ids=lambda case: f"{case['activation']}-{case['order']}")
def test_duals_against_mpmath_at_30_digits(case: dict) -> None:
    name, order = case["activation"], case["order"]
    for q_a, q_b, gap, exact in case["values"]:
        estimate = dual(name, q_a, q_b, one_minus_c=gap, order=order)
        check(estimate, float(exact), scale(name, q_a, q_b, order, order))


@pytest.mark.parametrize(
    "name", [n for n in activation_names() if n not in ("exp", "monomial", "square", "cube")]
)
def test_error_estimates_stay_below_the_promise_at_extreme_variances(name: str) -> None:
    for q in (1e-12, 1.0, 1e6):
        for gap in (1e-15, 1e-3):
            for order in (0, 1):
                estimate = dual(name, q, q, one_minus_c=gap, order=order)
                assert float(estimate.error) <= 1e-12 * scale(name, q, q, order, order)


@pytest.mark.parametrize(
    "name", ["tanh", "silu", "elu", "hardtanh", "softshrink", "hardshrink", "softsign", "relu"]
)
def test_identical_arguments_give_the_second_moment(name: str) -> None:
    for q in (1e-6, 0.7, 300.0):
        for order in (0, 1):
            moment = second_moment(activation(name), q, order)
            assert float(dual(name, q, q, 1.0, order=order).value) == pytest.approx(
                moment, rel=1e-13, abs=1e-300
            )


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["tanh", "relu", "gelu", "elu", "softplus", "hardtanh", "erf"]),
    st.floats(-3, 3),
    st.floats(-3, 3),
    st.floats(-1, 1),
)
def test_duals_are_symmetric_and_obey_cauchy_schwarz(name: str, log_a: float, log_b: float, c: float) -> None:
    q_a, q_b = 10.0**log_a, 10.0**log_b
    one, other = dual(name, q_a, q_b, c), dual(name, q_b, q_a, c)
    size = scale(name, q_a, q_b, 0, 0)
    assert abs(float(one.value) - float(other.value)) <= 1e-13 * size
    assert abs(float(one.value)) <= size * (1 + 1e-13)


def test_price_theorem_links_the_duals_of_a_function_and_its_derivative() -> None:
    for name in ("tanh", "elu", "hardswish", "mish"):
        q, c, h = 1.3, 0.4, 1e-4
        up, down = dual(name, q, q, c + h).value, dual(name, q, q, c - h).value
        assert (up - down) / (2 * h * q) == pytest.approx(float(dual(name, q, q, c, order=1).value), rel=1e-7)


def test_dual_broadcasts_and_keeps_scalars() -> None:
    grid = dual("tanh", np.array([0.5, 1.0])[:, None], 2.0, np.array([-0.5, 0.0, 0.9]))
    assert grid.value.shape == (2, 3)
    assert grid.value[1, 2] == dual("tanh", 1.0, 2.0, 0.9).value
    assert np.ndim(dual("relu", 1.0, 1.0, 0.5).value) == 0


def test_arguments_out_of_range_are_named() -> None:
    with pytest.raises(ArgumentError, match="q_a"):
        dual("tanh", -1.0, 1.0, 0.5)
    with pytest.raises(ArgumentError, match=r"c must lie in \[-1, 1\]"):
        dual("tanh", 1.0, 1.0, 1.5)
    with pytest.raises(ArgumentError, match="exactly one"):
        dual("tanh", 1.0, 1.0)
    with pytest.raises(ArgumentError, match="order"):
        dual("tanh", 1.0, 1.0, 0.5, order=4)
    with pytest.raises(EOCError):
        dual("exp(x**2)", 1.0, 1.0, 0.5)


# --- deficits
# -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gap", [1e-30, 1e-20, 1e-10, 1e-5, 1e-2, 0.5, 1.0, 1.7])
def test_deficits_of_relu_sign_and_erf_are_relatively_exact(gap: float) -> None:
    with mp.workdps(80):
        e = mp.mpf(gap)
        c, theta = 1 - e, mp.acos(1 - e)
        relu = mp.mpf(3) / 2 * (1 - (mp.sin(theta) + (mp.pi - theta) * c) / mp.pi)
        sign = 2 * theta / mp.pi
        erf = 2 / mp.pi * (mp.asin(mp.mpf(6) / 7) - mp.asin(6 * c / 7))
        step_of_relu = theta / (2 * mp.pi)
    for estimate, exact in (
        (dual_deficit("relu", 3.0, gap), relu),
        (dual_deficit("sign", 3.0, gap), sign),
        (dual_deficit("erf", 3.0, gap), erf),
        (dual_deficit("relu", 3.0, gap, order=1), step_of_relu),
    ):
        assert float(estimate.value) == pytest.approx(float(exact), rel=1e-12)
        assert float(estimate.error) <= 1e-12 * float(exact)


@pytest.mark.parametrize("name", ["tanh", "elu", "hardtanh", "softsign", "hardshrink", "mish"])
@pytest.mark.parametrize("q", [1e-3, 2.0, 1e3])
def test_deficits_equal_differences_of_duals_where_these_keep_digits(name: str, q: float) -> None:
    for gap in (0.03, 1.4):
        for order in (0, 1):
            top, low = dual(name, q, q, 1.0, order=order), dual(name, q, q, one_minus_c=gap, order=order)
            deficit = dual_deficit(name, q, gap, order)
            assert abs(float(deficit.value) - float(top.value - low.value)) <= 1e-13 * float(top.value)


def test_relu_keeps_its_power_law_through_100000_layers() -> None:
    table = DualTable("relu", 1.0)
    gap = 0.5
    layers = 100_000
    for _ in range(layers):
        gap = 2.0 * table.deficit(gap)
    assert gap * layers**2 == pytest.approx(4.5 * math.pi**2, rel=2e-3)


@pytest.mark.parametrize("name", ["tanh", "relu", "gelu", "elu", "hardtanh", "sign"])
@pytest.mark.parametrize("q", [0.01, 1.0, 20.0])
def test_tables_agree_with_single_duals(name: str, q: float) -> None:
    table = DualTable(name, q)
    gaps = np.array([1e-30, 1e-8, 0.01, 0.6, 1.3, 1.95])
    for gap, phi, dphi, deficit in zip(
        gaps, table.phi(one_minus_c=gaps), table.dphi(one_minus_c=gaps), table.deficit(gaps), strict=True
    ):
        assert phi == pytest.approx(
            float(dual(name, q, q, one_minus_c=gap).value), abs=1e-12 * table.phi_at_one
        )
        exact = float(dual(name, q, q, one_minus_c=gap, order=1).value)
        assert dphi == pytest.approx(exact, abs=1e-12 * table.dphi_at_one)
        assert deficit == pytest.approx(float(dual_deficit(name, q, gap).value), rel=1e-12)
        assert table.deficit(float(gap)) == pytest.approx(deficit, rel=1e-14)
    assert DualTable(name, q) is table


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tanh", "elu", "hardshrink"])
def test_duals_against_simulation(name: str) -> None:
    rng = np.random.default_rng(0)
    z = rng.standard_normal((2, 4_000_000))
    f = activation(name)
    u, v = math.sqrt(2.0) * z[0], math.sqrt(0.5) * (0.6 * z[0] + 0.8 * z[1])
    for order in (0, 1):
        product = f.derivative(order)(u) * f.derivative(order)(v)
        spread = product.std() / math.sqrt(product.size)
        assert abs(product.mean() - float(dual(name, 2.0, 0.5, 0.6, order=order).value)) < 5 * spread


@pytest.mark.parametrize("spec", ["tanh(x)+exp(-((x-0.7)/0.01)**2)", "x+0.5/(1+((x+2.3)/0.03)**2)"])
def test_tables_of_narrow_structure_are_within_their_error(spec: str) -> None:
    """Against E[f P_c f], f and the Gaussian kernel on one grid that is much finer than either."""
    a = activation(spec)
    table = DualTable(a, 1.0)
    x = np.arange(-10.0, 10.0, 1.5e-3)
    weight = 1.5e-3 * np.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)
    slope = a.derivative(1)(x)
    for theta in (0.02, 0.05, 0.13):
        sine, cosine = math.sin(theta), math.cos(theta)
        total = 0.0
        for start in range(0, len(x), 500):
            rows = slice(start, start + 500)
            near = np.abs(x - cosine * x[rows].mean()) < 0.5 + 9.5 * sine
            kernel = np.exp(-0.5 * ((x[near] - cosine * x[rows, None]) / sine) ** 2)
            total += float((weight * slope)[rows] @ kernel @ slope[near])
        total *= 1.5e-3 / (sine * math.sqrt(2.0 * math.pi))
        right = abs(table.dphi(cosine) - total) / table.dphi_at_one
        assert right <= table.error[1] + 1e-14


@pytest.mark.slow
def test_tables_that_take_too_much_are_refused() -> None:
    bumps = "+".join(f"exp(-((x-{0.1 * k:.1f})/2e-4)**2)" for k in range(8))
    with pytest.raises(ConvergenceError, match="too costly: it takes more than 70000000 evaluations"):
        DualTable(f"tanh(x)+{bumps}", 1.0)
