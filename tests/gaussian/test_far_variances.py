"""Fixed points above the tables' range, q > 10⁶: variance, χ and V' against mpmath."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest

import eoc_theory as eoc
from eoc_theory.gaussian import moment_table
from eoc_theory.mean_field.maps import slopes

CASES: dict[str, tuple[float, Callable, Callable]] = {
    "tanh": (1.5, mpmath.tanh, lambda x: mpmath.sech(x) ** 2),
    "gelu": (1.2, lambda x: x * mpmath.ncdf(x), lambda x: mpmath.ncdf(x) + x * mpmath.npdf(x)),
}


def mean(f: Callable, q: float) -> Any:
    """E[f(√q Z)]."""
    root = mpmath.sqrt(q)
    ends = [mpmath.mpf(n) for n in (0, 1, 3, 10, 30, 100)]
    ends += [root * k / 8 for k in range(1, 9)] + [root * k for k in (2, 3, 5, 8, 12)]

    def both(x: Any) -> Any:
        return (f(x) + f(-x)) * mpmath.exp(-(x**2) / (2 * mpmath.mpf(q)))

    return mpmath.quad(both, sorted(ends)) / mpmath.sqrt(2 * mpmath.pi * q)


@pytest.mark.parametrize("sigma_b", [1.2e3, 1e5])
@pytest.mark.parametrize("name", CASES)
def test_fixed_points_agree_with_mpmath(name, sigma_b):
    sigma_w, f, slope = CASES[name]
    field = eoc.MeanField(name, sigma_w, sigma_b)
    q, weight = field.q_star, sigma_w**2
    assert q > 1e6
    with mpmath.workdps(25):
        assert float(sigma_b**2 + weight * mean(lambda x: f(x) ** 2, q)) == pytest.approx(q, rel=1e-13)
        chi = float(weight * mean(lambda x: slope(x) ** 2, q))
        variance_slope = float(weight * mean(lambda x: x * f(x) * slope(x), q) / q)
    assert float(field.chi()) == pytest.approx(chi, rel=1e-12)
    assert float(field.variance_slope()) == pytest.approx(variance_slope, rel=1e-12)
    last = field.fixed_points[-1]
    assert (last.q, last.slope) == pytest.approx((q, variance_slope), rel=1e-12)
    assert field.depth_scales.xi_q == pytest.approx(-1.0 / np.log(variance_slope), rel=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_critical_points_keep_their_declared_error(name):
    q = 1e8
    point = eoc.edge_of_chaos(name, q=q)
    _, f, slope = CASES[name]
    with mpmath.workdps(25):
        square = mean(lambda x: slope(x) ** 2, q)
        sigma_w = 1 / mpmath.sqrt(square)
        sigma_b = mpmath.sqrt(q - mean(lambda x: f(x) ** 2, q) / square)
        assert abs(point.sigma_w - sigma_w) <= point.error
        assert float(point.sigma_b) == pytest.approx(float(sigma_b), rel=1e-10)


def test_the_end_of_the_tables_is_no_step():
    for name in ("tanh", "gelu", "elu", "arctan", "sigmoid"):
        act = eoc.activation(name)
        below, above = (
            np.array(slopes(act, np.array([1e6 * (1.0 + side)]), np.ones(1))) for side in (-1e-9, 1e-9)
        )
        np.testing.assert_allclose(below, above, rtol=5e-9)


def test_a_diagram_has_the_fixed_points_of_single_networks():
    diagram = eoc.phase_diagram("gelu", sigma_w=[1.0, 1.3], sigma_b=[10.0, 1e3, 1e4])
    for i, sigma_b in enumerate(diagram.sigma_b):
        for j, sigma_w in enumerate(diagram.sigma_w):
            field = eoc.MeanField("gelu", sigma_w, sigma_b)
            assert diagram.q_star[i, j] == pytest.approx(field.q_star, rel=1e-14)
            assert diagram.chi[i, j] == pytest.approx(float(field.chi()), rel=1e-14)


def test_what_cannot_be_computed_there_is_left_to_the_power_law():
    table = moment_table(eoc.activation("sin"))
    value, error = table.direct(np.array([1e8, 1e20]), ("dphi2",))["dphi2"]
    assert value[0] == pytest.approx(0.5, abs=1e-10)
    assert np.isnan(value[1])
    assert np.isnan(error[1])
    assert float(eoc.MeanField("sin", 2.0, 1e10).chi()) == pytest.approx(2.0, rel=1e-6)
    grown = moment_table(eoc.activation("exp(x)")).direct(np.array([1e7]), ("phi2",))["phi2"][0]
    assert np.isnan(grown[0])
