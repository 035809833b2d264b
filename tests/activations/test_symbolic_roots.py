"""Where polynomials of high degree change branches: against roots in many digits."""

import itertools
import time

import mpmath
import numpy as np
import pytest
import sympy as sp

import eoc_theory as eoc
from eoc_theory.activations.branches import real_roots
from eoc_theory.activations.reading import x


def test_a_root_whose_refinement_did_not_end():
    act = eoc.activation("min(((x/x))**3, ((x+x)+(x)**64), where(x==(3.65-1e6), log1p(x), min(e, x, x)))")
    low, high = min(act.kinks), max(k for k in act.kinks if k < 0.9)
    assert low**64 + 2.0 * low == pytest.approx(low, rel=1e-12)
    assert -1.1 < low < high


@pytest.mark.parametrize("seed", range(20))
def test_roots_of_polynomials(seed):
    rng = np.random.default_rng(seed)
    degree = int(rng.integers(2, 65))
    inner = [round(float(c), 2) * 10.0 ** int(rng.integers(-6, 7)) for c in rng.normal(size=3)]
    powers = [degree, *sorted(map(int, rng.integers(0, degree, 3)), reverse=True)]
    terms = zip(powers, [1.0, *inner], strict=True)
    poly = sum(sp.Rational(str(c)) * x**p for p, c in terms)
    found = real_roots(poly, -1e9, 1e9, "it")
    with mpmath.workdps(60):
        coefficients = [
            mpmath.mpf(sp.Rational(c).p) / sp.Rational(c).q for c in sp.Poly(poly, x).all_coeffs()
        ]
        slopes = [c * (degree - i) for i, c in enumerate(coefficients[:-1])]
        for root in found:
            at = mpmath.mpf(root)
            value, slope = mpmath.polyval(coefficients, at), mpmath.polyval(slopes, at)
            assert root == 0.0 or abs(value) <= 2e-16 * abs(slope * at)
    signs = [mpmath.sign(mpmath.polyval(coefficients, mpmath.mpf(p))) for p in np.linspace(-3.0, 3.0, 241)]
    changes = sum(a * b < 0 for a, b in itertools.pairwise(signs))
    assert sum(-3.0 <= r <= 3.0 for r in found) >= changes


@pytest.mark.parametrize("size", [10**6, 10**12, 3 * 10**14])
@pytest.mark.parametrize("degree", [3, 17, 64])
def test_roots_far_out_are_found_at_once(degree, size):
    before = time.process_time()
    found = real_roots(sp.expand(x ** (degree - 1) * (x - size) - 7), -np.inf, np.inf, "it")
    assert max(found) == pytest.approx(size, rel=1e-15)
    assert time.process_time() - before < 20.0
