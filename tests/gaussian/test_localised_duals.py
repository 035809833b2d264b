"""E[φ'(u) φ'(v)] of saturating activations at large variances, against mpmath and adaptive quadrature."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest

from eoc_theory.activations import activation
from eoc_theory.gaussian.duals import DualTable
from eoc_theory.gaussian.duals.localised import localised_slope
from eoc_theory.gaussian.duals.quadrature import dual_quadrature

#: Angles θ = arccos c: u and v apart by far less than φ' is wide, by about as much, and by far more.
ANGLES = (1e-6, 1e-3, 0.03, 1.0, 2.5)


def reference(q: float, angle: float) -> float:
    """E[sech²(u) sech²(v)] with 20 digits."""
    with mpmath.workdps(20):
        step = mpmath.mpf("0.2")
        c, apart = mpmath.cos(angle), mpmath.sqrt(q) * mpmath.sin(angle)
        f = {k: mpmath.sech(k * step) ** 2 for k in range(-100, 101)}
        total = mpmath.mpf(0)
        for k, here in f.items():
            if k < 0:
                continue  # (−x, −y) is as likely as (x, y)
            x = k * step
            if apart > 1:
                inner = (step / apart) * mpmath.fsum(
                    there * mpmath.exp(-((j * step - c * x) ** 2) / (2 * apart**2)) for j, there in f.items()
                )
            else:
                inner = mpmath.fsum(
                    mpmath.exp(-(mpmath.mpf(j) ** 2) / 32) * mpmath.sech(c * x + apart * j / 4) ** 2 / 4
                    for j in range(-36, 37)
                )
            total += (1 if k == 0 else 2) * here * mpmath.exp(-(x**2) / (2 * q)) * inner
        return float(total * step / (2 * mpmath.pi * mpmath.sqrt(q)))


@pytest.mark.parametrize("angle", ANGLES)
@pytest.mark.parametrize("q", [1e6, 1e8])
def test_tanh_agrees_with_mpmath(q, angle):
    exact = reference(q, angle)
    table = DualTable("tanh", q)
    found = table.dphi(one_minus_c=2.0 * math.sin(0.5 * angle) ** 2)
    assert found == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "x*exp(-x**2)"])
def test_the_grid_agrees_with_adaptive_quadrature(name):
    act = activation(name)
    found = localised_slope(act, 1e4)
    assert found is not None
    angles = np.array([1e-7, 1e-3, 0.004, 0.005, 0.1, 1.0, 2.0, 3.1])
    scale = dual_quadrature(act, 1e4, 1e4, 1.0, 0.0, 1, 1)[0]
    adaptive = [dual_quadrature(act, 1e4, 1e4, math.cos(t), math.sin(t), 1, 1)[0] for t in angles]
    np.testing.assert_allclose(found.dual(1e4, angles), adaptive, rtol=0, atol=1e-13 * scale)


@pytest.mark.parametrize("name", ["relu", "gelu", "arctan", "softsign", "elu", "sin", "hardtanh"])
def test_slopes_that_have_kinks_or_do_not_vanish_are_left_to_quadrature(name):
    assert localised_slope(activation(name), 1e8) is None


def test_small_variances_are_left_to_quadrature():
    act = activation("tanh")
    found = localised_slope(act, 1e6)
    assert found is not None
    assert localised_slope(act, 0.99 * found.end**2) is None


def test_the_table_is_continuous_where_the_grid_takes_over():
    found = localised_slope(activation("tanh"), 1e6)
    assert found is not None
    below, above = (DualTable("tanh", found.end**2 * (1.0 + side * 1e-13)) for side in (-1, 1))
    gaps = np.array([1e-9, 1e-5, 1e-2, 0.5, 1.0, 1.7, 2.0])
    for kind in ("dphi", "phi"):
        one, other = (getattr(table, kind)(one_minus_c=gaps) for table in (below, above))
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12 * float(np.abs(one).max()))
