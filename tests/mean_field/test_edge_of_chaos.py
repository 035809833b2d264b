"""The edge of chaos against mpmath, closed forms and the definition."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tests.problems as problems
from eoc_theory.activations import activation
from eoc_theory.errors import ArgumentError, ConvergenceError, EOCError, NoCriticalPointError
from eoc_theory.gaussian import moments
from eoc_theory.mean_field.edge_of_chaos import critical_curve, edge_of_chaos
from eoc_theory.mean_field.maps import MeanField


@pytest.mark.parametrize("spec, sigma_b, sigma_w, q", problems.critical_cases())
def test_sigma_w_agrees_with_mpmath(spec, sigma_b, sigma_w, q):
    point = edge_of_chaos(spec, sigma_b=sigma_b)
    assert point.sigma_w == pytest.approx(sigma_w, rel=1e-12)
    assert point.q == pytest.approx(q, rel=1e-9)
    assert point.error >= 0.1 * abs(point.sigma_w - sigma_w)
    assert point.is_stable and point.note == ""


@pytest.mark.parametrize(
    "spec, sigma_w, q", [("tanh", 1.30415, 0.51208), ("elu", 1.22925, 1.10693), ("silu", 1.67953, 0.68945)]
)
def test_reference_values(spec, sigma_w, q):
    point = edge_of_chaos(spec, sigma_b=0.2)
    assert point.sigma_w == pytest.approx(sigma_w, abs=5e-6)
    assert point.q == pytest.approx(q, abs=5e-6)


@pytest.mark.parametrize("spec", ["tanh", "gelu", "elu", "sin", "hardtanh", "x/(1+exp(-x))", "sigmoid"])
def test_a_critical_point_satisfies_its_definition(spec):
    for sigma_b in (0.1, 0.7):
        point = edge_of_chaos(spec, sigma_b=sigma_b)
        for p in (point, *point.others):
            found = moments(spec, p.q)
            assert p.sigma_w**2 * found.dphi2.value == pytest.approx(1.0, rel=1e-11)
            assert sigma_b**2 + p.sigma_w**2 * found.phi2.value == pytest.approx(p.q, rel=1e-11)
            assert p.sigma_w**2 * found.slope.value == pytest.approx(p.variance_slope, rel=1e-9)
            assert p.sigma_b == sigma_b and p.chi == 1.0


@pytest.mark.parametrize("left", [0.0, 0.01, 0.25, -1.0])
def test_homogeneous_activations_have_one_point(left):
    spec = {0.0: "relu", -1.0: "abs"}.get(left, f"leaky_relu({left})")
    point = edge_of_chaos(spec, sigma_b=0.0)
    assert point.sigma_w == pytest.approx(math.sqrt(2 / (1 + left**2)), rel=1e-15)
    assert point.sigma_b == 0.0 and point.q == 1.0 and point.is_stable
    assert edge_of_chaos(spec, q=7.0).q == 7.0
    assert edge_of_chaos(spec, sigma_w=point.sigma_w).sigma_b == 0.0
    with pytest.raises(NoCriticalPointError, match="homogeneous it has only sigma_b = 0"):
        edge_of_chaos(spec, sigma_b=0.1)
    with pytest.raises(NoCriticalPointError, match="homogeneous"):
        edge_of_chaos(spec, sigma_w=3.0)


@pytest.mark.parametrize("spec, slope", [("tanh", 1.0), ("erf", 2 / math.sqrt(math.pi)), ("atan", 1.0)])
def test_smooth_odd_activations_without_bias(spec, slope):
    point = edge_of_chaos(spec, sigma_b=0.0)
    assert point.q == 0.0 and point.is_stable
    assert point.sigma_w == pytest.approx(1 / slope, rel=1e-15)
    # The limit is reached continuously.
    near = edge_of_chaos(spec, sigma_b=1e-6)
    assert near.sigma_w == pytest.approx(1 / slope, rel=2e-4)
    assert near.q < 1e-3


@pytest.mark.parametrize("sigma_b", [1e-10, 1e-7, 1e-4])
def test_tiny_biases_keep_the_accuracy(sigma_b):
    # tanh at small q: σ_b² = 4/3 q³, σ_w = 1 + q, to leading order.
    point = edge_of_chaos("tanh", sigma_b=sigma_b)
    q = (0.75 * sigma_b**2) ** (1 / 3)
    assert point.q == pytest.approx(q, rel=20 * q)
    assert point.sigma_w - 1 == pytest.approx(q, rel=20 * q + 1e-16 / q)


def test_the_three_questions_answer_each_other():
    point = edge_of_chaos("tanh", sigma_b=0.3)
    assert edge_of_chaos("tanh", q=point.q).sigma_w == pytest.approx(point.sigma_w, rel=1e-12)
    assert edge_of_chaos("tanh", q=point.q).sigma_b == pytest.approx(0.3, rel=1e-10)
    assert edge_of_chaos("tanh", sigma_w=point.sigma_w).sigma_b == pytest.approx(0.3, rel=1e-10)


def test_several_solutions_are_all_reported():
    # Snake's σ_b²(q) is not monotone; every solution is found by a dense scan with SciPy too.
    act = activation("snake(3)")
    q = np.geomspace(1e-4, 50, 4000)
    found = moments(act, q)
    bias = q - found.phi2.value / found.dphi2.value
    target = 0.5 * (bias[bias > 0].min() + np.median(bias[(q > 0.01) & (q < 1)]))
    crossings = np.flatnonzero(np.diff(np.sign(bias - target)))
    point = edge_of_chaos(act, sigma_b=math.sqrt(target))
    inside = [p for p in (point, *point.others) if 1e-4 < p.q < 50]
    assert len(inside) == len(crossings)
    assert sorted(p.q for p in inside) == pytest.approx(q[crossings], rel=1e-2)


def test_an_unstable_point_says_so():
    point = edge_of_chaos("gelu", sigma_b=0.2)
    assert not point.is_stable and point.variance_slope > 1.05
    assert "gelu" in point.note and "1.09" in point.note
    assert edge_of_chaos("gelu", sigma_b=1.0).is_stable
    assert not edge_of_chaos("exp", sigma_b=0.5).is_stable


@pytest.mark.parametrize(
    "spec, given, why",
    [
        ("softplus", {"sigma_b": 0.2}, "negative for every variance"),
        ("step", {"sigma_b": 0.2}, "step jumps"),
        ("hardshrink", {"sigma_w": 1.0}, "jumps"),
        ("tanh", {"sigma_w": 0.5}, "sigma_w >= 1 only"),
        ("sigmoid", {"q": 0.1}, "q >= 45.6243 only"),
        ("relu", {"sigma_b": 1.0}, "sigma_w = 1.414213562"),
    ],
)
def test_no_critical_point_says_why(spec, given, why):
    with pytest.raises(NoCriticalPointError, match=re.escape(why)) as caught:
        edge_of_chaos(spec, **given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [{"sigma_b": -1}, {"sigma_w": 0}, {"q": float("nan")}, {"sigma_b": 0.1, "q": 1.0}, {"sigma_b": "a"}],
)
def test_bad_arguments(given):
    with pytest.raises(ArgumentError):
        edge_of_chaos("tanh", **given)


def test_unbounded_growth():
    with pytest.raises(EOCError):
        edge_of_chaos("exp(x**2)", q=1.0)


@pytest.mark.parametrize(
    "spec, sigma_b, kind, exponent",
    [
        ("tanh", 0.2, "smooth", 1),
        ("elu", 0.2, "smooth", 1),
        ("softsign", 0.2, "smooth", 1),
        ("relu", 0.0, "kinked", 2),
        ("selu", 0.2, "kinked", 2),
        ("hardtanh", 0.5, "kinked", 2),
        ("relu6", 0.5, "kinked", 2),
    ],
)
def test_convergence_laws_are_those_of_the_iterated_map(spec, sigma_b, kind, exponent):
    point = edge_of_chaos(spec, sigma_b=sigma_b)
    law = point.convergence
    assert (law.kind, law.exponent) == (kind, exponent)
    depth = 20000
    gap = MeanField(spec, point.sigma_w, point.sigma_b).iterate_correlation(0.5, depth, q=point.q)[-1]
    assert gap == pytest.approx(law(depth), rel=0.05)


def test_convergence_constants():
    assert edge_of_chaos("relu").convergence.constant == pytest.approx(9 * math.pi**2 / 2, rel=1e-14)
    assert edge_of_chaos("identity").convergence.kind == "linear"


def test_curve_is_the_points():
    sigma_b = np.array([[0.0, 0.05, 0.3], [1.0, 2.0, 3.0]])
    curve = critical_curve("tanh", sigma_b=sigma_b)
    assert curve.sigma_w.shape == sigma_b.shape and curve.stable.all()
    assert np.all(np.diff(curve.sigma_w.ravel()) > 0)
    assert curve.sigma_w[0, 2] == edge_of_chaos("tanh", sigma_b=0.3).sigma_w
    mixed = critical_curve("relu", sigma_b=[0.0, 1.0])
    assert np.isfinite(mixed.sigma_w).tolist() == [True, False]
    with pytest.raises(NoCriticalPointError):
        critical_curve("softplus", sigma_b=[0.1, 0.2])
    with pytest.raises(ArgumentError, match=r"-0\.1"):
        critical_curve("tanh", sigma_b=[0.1, -0.1])


@settings(max_examples=30, deadline=None)
@given(st.floats(-6, 4), st.floats(0.2, 5.0))
def test_scaling_the_output_scales_sigma_w(exponent, factor):
    """φ → a φ moves σ_w to σ_w/a and leaves σ_b and q."""
    q = 10.0**exponent
    plain = edge_of_chaos("tanh", q=q)
    scaled = edge_of_chaos(f"{factor!r}*tanh(x)", q=q)
    assert scaled.sigma_w == pytest.approx(plain.sigma_w / factor, rel=1e-11)
    assert scaled.sigma_b == pytest.approx(plain.sigma_b, rel=1e-8)


LIMITS = {"tanh": 1.0, "erf": math.sqrt(math.pi) / 2.0, "silu": 2.0, "elu": 1.0}


@pytest.mark.parametrize("spec", LIMITS)
@pytest.mark.parametrize("sigma_b", [1e-17, 1e-26, 1e-100])
def test_tiny_biases_have_the_point_of_the_limit(spec, sigma_b):
    point = edge_of_chaos(spec, sigma_b=sigma_b)
    assert point.sigma_b == sigma_b and 0.0 < point.q < 1e-10
    # What E[φ'²] differs by at that q: q of smooth ones, √q where φ'' jumps.
    moved = 6.0 * math.sqrt(point.q) if spec == "elu" else 2.0 * point.q
    assert abs(point.sigma_w - LIMITS[spec]) <= point.error + moved
    if spec == "tanh":  # σ_b² = 4 q³/3 in the limit
        assert point.q == pytest.approx((0.75 * sigma_b**2) ** (1 / 3), rel=1e-2)


@pytest.mark.parametrize("sigma_b", [0.2, 1.0])
def test_points_are_not_found_in_noise(sigma_b):
    """At variances above 1e5 a callable's waves cost too much, and σ_b² is known to some hundred only."""

    def act(x):
        return np.logaddexp(0.0, (x - 0.4934) / 0.3277) + 0.1681 * np.sin((x + 0.9924) / 1.095)

    found = edge_of_chaos(act, sigma_b=sigma_b)
    right = edge_of_chaos("log(1+exp((x-0.4934)/0.3277))+0.1681*sin((x+0.9924)/1.095)", sigma_b=sigma_b)
    assert (found.sigma_w, found.q) == pytest.approx((right.sigma_w, right.q), rel=1e-8)
    assert not found.others and not right.others


@pytest.mark.parametrize("text", ["1e-300*pi*x", "max(x,0)*1e-200", "abs(x)*1e250", "x*1e-170"])
@pytest.mark.parametrize("given", [{}, {"sigma_b": 0.3}, {"q": 2.0}, {"sigma_w": 1.5}])
def test_slopes_beyond_the_range_of_floats_are_refused(text: str, given: dict[str, float]) -> None:
    with pytest.raises(EOCError):
        edge_of_chaos(text, **given)


@pytest.mark.parametrize(
    "text", ["erf(x-1e6)", "expm1(where(tanh(x)*(x-x)<1, (1e30+x)*(1-2), min(x/3, x/1e-300, x*x)))"]
)
def test_what_overflows_or_underflows_is_refused_in_words(text: str) -> None:
    with pytest.raises(EOCError) as caught:
        edge_of_chaos(text, sigma_b=0.3)
    assert "bug" not in str(caught.value)


@pytest.mark.parametrize("rate", [1e5, 1e9, 1e30])
@pytest.mark.parametrize("wave", ["sin", "cos", "snake"])
def test_waves_too_fast_for_quadrature_are_refused_at_once(wave: str, rate: float) -> None:
    """They took minutes and gigabytes, or asked for more points than any array has."""
    with pytest.raises(ConvergenceError, match="angular frequency"):
        edge_of_chaos(f"{wave}({rate!r})", sigma_b=0.2)
