"""Maps, fixed points, phases and depth scales of one network."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eoc_theory.errors import ArgumentError
from eoc_theory.gaussian import moments
from eoc_theory.gaussian.duals import dual
from eoc_theory.mean_field.edge_of_chaos import edge_of_chaos
from eoc_theory.mean_field.maps import MeanField
from eoc_theory.mean_field.phase_diagram import phase_diagram


@pytest.mark.parametrize("spec", ["tanh", "relu", "elu", "sin", "hardtanh"])
def test_maps_are_the_expectations(spec):
    net, q, c = MeanField(spec, 1.3, 0.4), 0.8, np.array([-1.0, -0.3, 0.0, 0.6, 1.0])
    found = moments(spec, q)
    assert net.variance_map(q) == pytest.approx(0.16 + 1.69 * found.phi2.value, rel=1e-12)
    assert net.variance_slope(q) == pytest.approx(1.69 * found.slope.value, rel=1e-11)
    assert net.chi(q) == pytest.approx(1.69 * found.dphi2.value, rel=1e-12)
    wanted = (0.16 + 1.69 * dual(spec, q, q, c).value) / net.variance_map(q)
    assert net.correlation_map(c, q) == pytest.approx(wanted, abs=1e-11)
    assert net.correlation_map(1.0, q) == 1.0


def test_maps_are_vectorised_and_take_the_ends():
    net = MeanField("sigmoid", 2.0, 0.5)
    values = net.variance_map(np.array([[0.0, 1.0], [3.0, np.inf]]))
    assert values.shape == (2, 2)
    assert values[0, 0] == pytest.approx(0.25 + 4 * 0.25) and np.isinf(values[1, 1])
    assert net.correlation_map(np.zeros((2, 3))).shape == (2, 3)


@pytest.mark.parametrize(
    "spec, sigma_w, sigma_b, q_star",
    [("tanh", 0.9, 0.0, 0.0), ("relu", 1.2, 0.0, 0.0), ("relu", 1.5, 0.3, np.inf), ("relu", 1.5, 0.0, np.inf),
     ("exp", 1.0, 0.0, np.inf), ("square", 2.0, 0.1, np.inf), ("relu", 1.0, 1.0, 2.0)],
)  # fmt: skip
def test_dying_and_exploding_variances_are_told_apart(spec, sigma_w, sigma_b, q_star):
    assert MeanField(spec, sigma_w, sigma_b).q_star == pytest.approx(q_star, rel=1e-12)


@pytest.mark.parametrize("spec", ["tanh", "elu", "silu", "sin", "cos", "sigmoid", "softshrink", "step"])
@pytest.mark.parametrize("sigma_w, sigma_b", [(0.7, 0.0), (1.2, 0.3), (2.5, 0.1)])
def test_q_star_is_where_the_iteration_goes(spec, sigma_w, sigma_b):
    net = MeanField(spec, sigma_w, sigma_b)
    with np.errstate(over="ignore"):
        last = net.iterate_variance(1.0, 400)[-1]
    if net.q_star == 0.0:
        assert last < 1e-3
    elif np.isinf(net.q_star):
        assert last > 1e6
    else:
        assert last == pytest.approx(net.q_star, rel=1e-9)
        assert any(p.stable and p.q == pytest.approx(net.q_star, rel=1e-9) for p in net.fixed_points)


def test_all_fixed_points_and_their_stability():
    points = MeanField("silu", 1.5, 0.3).fixed_points
    assert [p.stable for p in points] == [True, False, True]
    assert points[0].q == pytest.approx(0.2593, abs=1e-4) and np.isinf(points[2].q)
    assert points[1].slope > 1 > points[0].slope
    for p in points[:2]:
        assert MeanField("silu", 1.5, 0.3).variance_map(p.q) == pytest.approx(p.q, rel=1e-12)
    points = MeanField("tanh", 1.5, 0.0).fixed_points
    assert [(p.q == 0.0, p.stable) for p in points] == [(True, False), (False, True)]
    assert [p.q for p in MeanField("relu", 1.0, 0.0).fixed_points] == [0.0]


@pytest.mark.parametrize("spec", ["tanh", "elu", "hardtanh", "gelu", "softsign"])
def test_phases_around_the_edge(spec):
    point = edge_of_chaos(spec, sigma_b=1.0)
    net = MeanField(spec, point.sigma_w, 1.0)
    assert net.phase == "critical" and net.c_star == 1.0 and np.isinf(net.depth_scales.xi_c)
    assert net.convergence(100) == pytest.approx(point.convergence(100), rel=1e-11)
    ordered, chaotic = MeanField(spec, 0.98 * point.sigma_w, 1.0), MeanField(spec, 1.02 * point.sigma_w, 1.0)
    assert (ordered.phase, chaotic.phase) == ("ordered", "chaotic")
    assert ordered.c_star == 1.0 and ordered.convergence is None
    assert ordered.depth_scales.xi_c == pytest.approx(-1 / math.log(ordered.chi()), rel=1e-12)
    if np.isfinite(chaotic.q_star):
        assert 0.5 < chaotic.c_star < 1.0


@pytest.mark.parametrize(
    "spec, sigma_w",
    [
        ("tanh", 2.0),
        ("elu", 1.4),
        ("hardtanh", 2.0),
        ("sin", 2.0),
        ("step", 1.0),
        ("sign", 3.0),
        ("softsign", 3.0),
    ],
)
def test_c_star_is_a_fixed_point_with_the_depth_scale_of_the_iteration(spec, sigma_w):
    net = MeanField(spec, sigma_w, 0.3)
    assert net.phase == "chaotic" and 0.0 < net.c_star < 1.0
    assert net.correlation_map(net.c_star) == pytest.approx(net.c_star, abs=1e-9)
    step = 1e-4 * (1 - net.c_star)
    ends = net.correlation_map(np.array([net.c_star - step, net.c_star + step]))
    slope = (ends[1] - ends[0]) / (2 * step)
    assert net.depth_scales.xi_c == pytest.approx(-1 / math.log(slope), rel=1e-5)
    gaps = net.iterate_correlation([1e-6, 1.0], 3000)[-1]
    assert gaps == pytest.approx(1 - net.c_star, rel=1e-7)


def test_depth_scale_of_the_variance_is_that_of_the_iteration():
    net = MeanField("tanh", 1.6, 0.4)
    away = net.iterate_variance(1.001 * net.q_star, 12) - net.q_star
    assert math.log(away[5] / away[12]) / 7 == pytest.approx(1 / net.depth_scales.xi_q, rel=1e-3)


def test_relu_keeps_its_asymptotic_law_through_100000_layers():
    net = MeanField("relu", math.sqrt(2.0))
    gaps = net.iterate_correlation(np.array([1.0, 1e-3]), 100_000)
    depth = np.arange(100_001)
    product = gaps[:, 0] * depth**2.0
    assert product[-1] == pytest.approx(4.5 * math.pi**2, rel=1e-3)
    assert np.all(np.diff(gaps[:, 0]) < 0)
    # The approach to the limit is log(l)/l.
    wrong = np.abs(product[[1000, 10_000, 100_000]] / (4.5 * math.pi**2) - 1)
    assert wrong[0] > 5 * wrong[1] > 25 * wrong[2]


def test_iterating_many_correlations_is_iterating_each():
    net = MeanField("tanh", 1.5, 0.2)
    start = np.linspace(0.0, 2.0, 40)
    many = net.iterate_correlation(start, 30)
    assert many.shape == (31, 40)
    assert many[:, [0, 17, 39]] == pytest.approx(net.iterate_correlation(start[[0, 17, 39]], 30), rel=1e-10)
    assert np.all(many[:, 0] == 0.0)


def test_correlations_of_dying_and_exploding_variances():
    assert MeanField("relu", 1.0, 0.0).correlation_map(0.0) == pytest.approx(1 / math.pi, rel=1e-12)
    assert MeanField("relu", 3.0, 1.0).correlation_map(0.0) == pytest.approx(1 / math.pi, rel=1e-12)
    assert MeanField("tanh", 0.5, 0.0).correlation_map(0.3) == pytest.approx(0.3, abs=1e-10)
    assert MeanField("square", 2.0, 0.1).c_star == pytest.approx(0.5, abs=1e-8)


@pytest.mark.parametrize("arguments", [(0.0, 1.0), (-1.0, 0.0), (1.0, -0.1), (float("inf"), 0.0), ("1", 0.0)])
def test_bad_arguments(arguments):
    with pytest.raises(ArgumentError):
        MeanField("tanh", *arguments)


def test_bad_correlations_and_variances():
    net = MeanField("tanh", 1.0, 0.1)
    for call in (
        lambda: net.correlation_map(1.1),
        lambda: net.variance_map(-1.0),
        lambda: net.chi(np.nan),
        lambda: net.iterate_correlation(2.1, 3),
        lambda: net.iterate_variance(1.0, -1),
    ):
        with pytest.raises(ArgumentError):
            call()


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from(["tanh", "elu", "sin"]),
    st.floats(0.3, 2.5),
    st.floats(0.05, 2.0),
    st.lists(st.floats(0.0, 1.0), min_size=2, max_size=6),
)
def test_invariants_of_the_correlation_map(spec, sigma_w, sigma_b, c):
    """C(1) = 1; C is increasing and convex on [0, 1], where all of Mehler's coefficients are ≥ 0; C(0) ≥
    0.
    """
    net = MeanField(spec, sigma_w, sigma_b)
    if not 0.0 < net.q_star < 1e3:
        return
    grid = np.linspace(0.0, 1.0, 9)
    values = net.correlation_map(grid)
    assert values[-1] == 1.0 and values[0] >= -1e-12
    assert np.all(np.diff(values) > -1e-11)
    assert np.all(np.diff(values, 2) > -1e-10)
    assert np.all(np.abs(net.correlation_map(np.array(c))) <= 1 + 1e-11)
    assert -1e-9 <= net.correlation_map(net.c_star) - net.c_star <= 1e-9


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("size", [1e-7, 1e4])
def test_correlations_have_no_scale_where_the_activation_has_none(size, dropout):
    """Fixed points of the variance that are finite and beyond the tables of moments, 1e-12 to 1e6."""
    net = MeanField("sign", 1.0, 0.5, dropout=dropout)
    far = MeanField("sign", size, 0.5 * size, dropout=dropout)
    assert far.q_star == pytest.approx(size**2 * net.q_star, rel=1e-9) and not 1e-12 < far.q_star < 1e6
    c = np.array([-1.0, 0.0, 0.5, 1.0])
    assert far.correlation_map(c) == pytest.approx(net.correlation_map(c), abs=1e-11)
    assert far.c_star == pytest.approx(net.c_star, abs=1e-8)
    assert far.depth_scales.xi_c == pytest.approx(net.depth_scales.xi_c, rel=1e-7)
    diagram = phase_diagram("sign", sigma_w=[size], sigma_b=[0.5 * size], dropout=dropout)
    assert diagram.c_star[0, 0] == pytest.approx(net.c_star, abs=1e-8)
    assert diagram.xi_c[0, 0] == pytest.approx(net.depth_scales.xi_c, rel=1e-7)


def test_strong_dropout_of_a_slow_activation_leaves_correlations_between_minus_one_and_one():
    net = MeanField("asinh", 20.0, 1.0, dropout=0.999)
    assert 1e6 < net.q_star < np.inf and 0 < net.c_star < 1e-4
    found = net.correlation_map([-1.0, 0.0, 1.0, net.c_star])
    assert found[0] == pytest.approx(-found[2], abs=1e-4) and found[2] == pytest.approx(0.001, rel=1e-3)
    assert found[3] == pytest.approx(net.c_star, abs=1e-12)
