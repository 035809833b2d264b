"""Gaussian expectations against mpmath at 30 digits, closed forms and each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tests.problems as problems
from eoc_theory.activations import Growth, activation
from eoc_theory.errors import ArgumentError, DivergentExpectationError
from eoc_theory.gaussian import expectation, hermite_coefficients, moment_table, moments
from eoc_theory.gaussian.expectations import evaluate
from eoc_theory.gaussian.tables import NAMES

SPECS = [problem.spec for problem in problems.PROBLEMS]
STORED = problems.oracle()["moments"]


def _cases(spec):
    for q, row in STORED[spec].items():
        for name, value in row.items():
            yield float(q), name, float(value)


def _scale(found, name, q):
    """What errors are relative to: E|f|, or the Cauchy-Schwarz bound for products."""
    if name == "phi":
        return math.sqrt(found["phi2"][0][0])
    if name == "slope" and math.isfinite(found["dphi2"][0][0]):
        return math.sqrt(found["phi2"][0][0] * found["dphi2"][0][0] / q)
    return abs(found[name][0][0])


@pytest.mark.parametrize("spec", SPECS)
def test_moments_agree_with_mpmath_to_1e_12_and_know_their_error(spec):
    act = activation(spec)
    for q, name, exact in _cases(spec):
        found = evaluate(act, np.array([q]), problems.MOMENTS)
        value, error = found[name][0][0], found[name][1][0]
        if math.isinf(value):
            # Point masses squared: the oracle holds the part between the kinks.
            assert np.any(act.jumps(0)) or np.any(act.jumps(1))
            continue
        scale = _scale(found, name, q)
        wrong = abs(value - exact)
        # The oracle itself is good to 1e-45 of E φ², which is all there is of a zero mean.
        floor = 1e-28 * max(scale, 1e-200) + 1e-24 * float(found["phi2"][0][0])
        assert wrong <= 1e-12 * scale + floor, (q, name)
        assert error >= 0.1 * wrong - floor, (q, name)


@pytest.mark.parametrize("spec", SPECS)
def test_tables_follow_direct_quadrature(spec):
    table = moment_table(spec)
    top = 1e6 if spec != "exp" else 100.0
    q = np.exp(np.random.default_rng(0).uniform(math.log(1e-12), math.log(top), 60))
    for name in NAMES:
        direct, error = evaluate(table.activation, q, (name,))[name]
        value = getattr(table, name)(q)
        assert np.array_equal(np.isfinite(value), np.isfinite(direct)), name
        good = np.isfinite(direct) & (np.abs(direct) > 1e-250)
        # A value that is the difference of large ones has an error of its own, and so have its neighbours.
        allowed = 2e-11 * np.abs(direct) + 100.0 * error
        if name in ("excess", "slope") and good.any():
            # exp(2q) near the zero of q E φ'² − E φ² at q = 1 is the hardest.
            terms = table.dphi2(q) * (q if name == "excess" else 1.0)
            allowed = allowed + (1e-9 if spec == "exp" else 1e-12) * terms
        assert np.all(np.abs(value[good] - direct[good]) <= allowed[good]), name


def test_table_for_one_variance_is_the_table_for_arrays():
    table = moment_table("tanh")
    for q in (1e-13, 1e-12, 0.3, 1.0, 999.0, 1e6, 1e8):
        value, slope = table.at(q, "phi2")
        many, slopes = table.at_log(np.array([math.log(q)]), "phi2", derivative=True)
        assert value == pytest.approx(many[0], rel=1e-12)
        assert slope == pytest.approx(slopes[0], rel=1e-9)


def test_excess_keeps_digits_where_its_terms_cancel():
    # tanh: q E φ'² − E φ² = 4/3 q³ + O(q⁴), of terms of the size of q.
    q = 1e-6
    assert float(moment_table("tanh").excess(q)) == pytest.approx(4 / 3 * q**3, rel=1e-5)
    found = evaluate(activation("elu"), np.array([0.7]), ("excess", "phi2", "dphi2"))
    assert found["excess"][0][0] == pytest.approx(0.7 * found["dphi2"][0][0] - found["phi2"][0][0], rel=1e-12)


def test_jumps_make_moments_of_derivatives_infinite():
    assert np.isinf(moments("step", 1.0).dphi2.value)
    assert np.isinf(moments("relu", 1.0).ddphi2.value)
    assert np.isfinite(moments("elu", 1.0).ddphi2.value)


def test_slope_counts_jumps():
    # d/dq of E[φ²] by differences, for a function whose square jumps.
    table, q, step = moment_table("threshold(0.5, 2)"), 0.8, 1e-5
    slope = (table.phi2(q + step) - table.phi2(q - step)) / (2 * step)
    assert moments("threshold(0.5, 2)", q).slope.value == pytest.approx(slope, rel=1e-8)


def test_fourth_moments():
    found = moments("relu", np.array([0.5, 2.0]))
    assert np.allclose(found.phi4.value, 1.5 * np.array([0.5, 2.0]) ** 2, rtol=1e-14)
    assert np.allclose(found.dphi4.value, 0.5, rtol=1e-14)
    assert moments("exp(0.2*x**2)", 0.7).phi4.value == np.inf


def test_shapes_follow_q():
    assert moments("tanh", 1.0).phi2.value.shape == ()
    assert moments("tanh", np.ones((2, 3))).phi2.value.shape == (2, 3)
    assert expectation(np.cos, np.ones((2, 1))).error.shape == (2, 1)


def test_zero_variance_is_the_limit():
    assert moments("sigmoid", 0.0).phi2.value == pytest.approx(0.25, rel=1e-15)
    assert float(moments("tanh", 0.0).phi2.value) < 1e-190
    assert moments("relu", 0.0).dphi2.value == pytest.approx(0.5, rel=1e-15)


@pytest.mark.parametrize("q", [1e-8, 0.3, 4.0])
def test_expectation_of_a_function(q):
    value, error = expectation(lambda x: np.exp(0.4 * x), q)
    assert value == pytest.approx(math.exp(0.08 * q), rel=1e-14)
    assert error < 1e-13 * value
    value, _ = expectation(np.abs, q, kinks=(0.0,))
    assert value == pytest.approx(math.sqrt(2 * q / math.pi), rel=1e-14)


def test_the_window_widens_until_the_integrand_has_died_out():
    # Growth unknown: exp(10 x) at q = 1 lives around x = 10.
    assert expectation(lambda x: np.exp(10 * x), 1.0).value == pytest.approx(math.exp(50.0), rel=1e-13)
    value = expectation(lambda x: np.exp(0.4 * x * x), 1.0).value
    assert value == pytest.approx(1 / math.sqrt(0.2), rel=1e-13)


@pytest.mark.parametrize("f", [lambda x: np.exp(x * x), lambda x: np.exp(0.6 * x * x), lambda x: 1 / (0 * x)])
def test_divergent_expectations_say_so(f):
    with pytest.raises(DivergentExpectationError, match="diverges"):
        expectation(f, 1.0)


def test_known_gaussian_growth_diverges_from_its_limit_on():
    growth = Growth("gaussian", rate=0.25)

    def f(x):
        return np.exp(0.25 * x * x)

    assert expectation(f, 1.6, growth=growth).value == pytest.approx(1 / math.sqrt(1 - 0.8), rel=1e-12)
    with pytest.raises(DivergentExpectationError, match="q < 2 only"):
        expectation(f, 2.0, growth=growth)
    with pytest.raises(DivergentExpectationError, match="diverges at q = 1"):
        moments("exp(x**2)", 1.0)


@pytest.mark.parametrize("q", [-1.0, np.nan, np.inf, "one"])
def test_bad_variances_are_one_line_errors(q):
    with pytest.raises(ArgumentError, match=r"^q must be [^\n]*$"):
        moments("tanh", q)


@pytest.mark.parametrize("spec", ["tanh", "gelu", "sin", "elu", "relu", "cube"])
@pytest.mark.parametrize("order", [0, 1])
def test_hermite_coefficients_add_up_to_the_second_moment(spec, order):
    q = np.array([1e-4, 0.3, 1.5])
    coefficients = hermite_coefficients(spec, q, 400, order=order)
    found = moments(spec, q)
    total = (found.phi2 if order == 0 else found.dphi2).value
    missing = 1 - (coefficients**2).sum(axis=1) / total
    # ReLU's a_k² fall like k^(−5/2), those of its derivative like k^(−3/2), of ELU's derivative like
    # k^(−5/2).
    assert np.all(missing > -1e-13)
    assert np.all(missing < {"relu": (1e-4, 3e-2), "elu": (1e-7, 1e-4)}.get(spec, (1e-12, 1e-12))[order])


def test_hermite_coefficients_of_a_polynomial():
    # x³ = √q³ (He₃ + 3 He₁).
    q = 2.0
    found = hermite_coefficients("cube", q, 5)[0]
    assert np.allclose(found, [0, 3 * q**1.5, 0, q**1.5 * math.sqrt(6), 0], atol=1e-13)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["tanh", "relu", "gelu", "elu", "softplus"]), st.floats(-11, 5), st.floats(0.01, 5))
def test_second_moment_bounds(spec, exponent, factor):
    """E[φ]² ≤ E[φ²]; the Gaussian Poincaré inequality Var φ ≤ q E φ'²; scaling φ scales its moments."""
    q = 10.0**exponent
    found = moments(spec, q)
    mean, second, slope = (float(m.value) for m in (found.phi, found.phi2, found.dphi2))
    assert mean**2 <= second * (1 + 1e-12)
    assert second - mean**2 <= q * slope * (1 + 1e-12) + 1e-14 * second
    act = activation(spec)
    scaled = expectation(lambda x: (factor * act(x)) ** 2, q, kinks=act.kinks, length_scale=act.length_scale)
    assert scaled.value == pytest.approx(factor**2 * second, rel=1e-12)
