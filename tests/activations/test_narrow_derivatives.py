"""Derivatives of narrow structure far from 0: all of one function, although its place is rounded."""

import mpmath
import numpy as np
import pytest

import eoc_theory as eoc

BUMPS = {
    "exp(-({u})**2)": lambda u: mpmath.exp(-(u**2)),
    "1/(1+({u})**2)": lambda u: 1 / (1 + u**2),
    "tanh({u})": mpmath.tanh,
    "sin({u})/(2+({u})**4)": lambda u: mpmath.sin(u) / (2 + u**4),
    "log(1+exp({u}))*exp(-({u})**2)": lambda u: mpmath.log1p(mpmath.exp(u)) * mpmath.exp(-(u**2)),
}
SLOPES = {"x": 1.0, "0.7*x": 0.7, "-3*x": -3.0, "pi*x": mpmath.pi}


def draws():
    rng = np.random.default_rng(7)
    for shape in BUMPS:
        for inner in SLOPES:
            for _ in range(2):
                place, width = rng.uniform(-4, 4), 10 ** rng.uniform(-4, -1)
                yield shape, inner, round(float(place), 5), float(f"{width:.3g}")


@pytest.mark.parametrize("shape, inner, place, width", list(draws()))
def test_derivatives_are_those_of_one_bump(shape, inner, place, width):
    act = eoc.activation(shape.format(u=f"({inner}-({place}))/({width})"))
    with mpmath.workdps(40):
        slope = +mpmath.mpf(SLOPES[inner])
        points = float(place / slope) + np.linspace(-3.0, 3.0, 41) * width / float(abs(slope))

        def derivative(order):
            def value(x):
                return BUMPS[shape]((slope * x - mpmath.mpf(str(place))) / mpmath.mpf(str(width)))

            return np.array([float(mpmath.diff(value, mpmath.mpf(float(p)), order)) for p in points])

        for order in (1, 2):
            right, by_place = derivative(order), derivative(order + 1)
            off = act.derivative(order)(points) - right
            shift = (off @ by_place) / (by_place @ by_place)
            assert abs(shift) <= 4.5e-16 * abs(place / float(slope))
            np.testing.assert_allclose(off - shift * by_place, 0.0, atol=4e-14 * np.abs(right).max())
