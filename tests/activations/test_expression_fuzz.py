"""Some hundreds of random and damaged expressions, and the families of those that once went wrong.

More with ``python -m tests.fuzz_expressions``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sympy as sp

import eoc_theory as eoc
from tests.fuzz_expressions import Findings, attempt, run


@pytest.mark.slow
def test_random_expressions_are_right_or_refused() -> None:
    findings = run(200, seed=20)
    assert findings.wrong == []
    assert findings.counts["accepted"] > 40
    assert findings.counts["points"] > 400
    # A limit for hangs, several times what the counted work allows.
    assert findings.slowest[0][0] < 20, findings.slowest[0]


CANCELLING = [
    *(f"sqrt(x**2+{c})-x" for c in ("1", "1e-6", "1e6")),
    *(f"log({c}+exp(x))-x" for c in ("1", "3")),
    *(f"(max(x,{c})+(e-x))**{k}" for c in ("1e30", "1e12") for k in (2, 3)),
    *(f"(1+1/cosh({k}*x))*cosh({k}*x)" for k in ("1", "0.5", "2")),
    *(f"x*cosh({k}*x)/(1+cosh({k}*x))" for k in ("1", "0.5")),
    *("1e8*x**3-1e8*x", "(x-1e6)**2", "x**3-3*x**2+3*x-1", "(x-10)**8", "x-sin(x)-x**3/6"),
]
UNDERFLOWING = [
    "hardtanh(sinh(1/x)*(1e-300*atan(gelu(x))))",
    *(f"atan(exp(x)*({c}*atan(exp(-x))))" for c in ("1e-300", "1e-200")),
    *(f"x+(1e-200*x)*(1e-200*x)*1e{k}" for k in (99, 100)),
]
EQUAL_THROUGHOUT = [
    "silu(where(expm1(x)<elu(x), 7*x, 1))-x",
    *(f"where(sin({k}*x)**2+cos({k}*x)**2{op}1, tanh(x), x)" for k in (1, 3) for op in ("<", "<=", "==")),
    "where(exp(x)*exp(-x)>=1, x, 2*x)",
    "where(where(x>0, 1, 2)*where(x>0, 2, 1)!=2, sin(x), x**2)",
]


@pytest.mark.parametrize("text", [*CANCELLING, *UNDERFLOWING, *EQUAL_THROUGHOUT])
def test_digits_that_cancel_underflow_or_are_equal(text: str) -> None:
    findings = Findings()
    attempt(text, findings, np.random.default_rng(3))
    assert findings.wrong == []
    assert findings.counts["accepted"] == 1
    assert findings.counts["points"] > 8


@pytest.mark.parametrize("place", [1.0, 0.1, -2.5, 0.0])
@pytest.mark.parametrize("inner", ["x", "tanh(x)", "x**2+1"])
def test_isolated_values_are_kept(place: float, inner: str) -> None:
    plain = eoc.activation(inner)
    points = np.array([place, np.nextafter(place, 9.0), np.nextafter(place, -9.0), place + 0.5])
    expected = plain(points)
    expected[0] = 5.0
    for text in (f"where(x=={place}, 5, {inner})", f"where(x!={place}, {inner}, 5)"):
        np.testing.assert_allclose(eoc.activation(text)(points), expected, rtol=1e-15)
    product = eoc.activation(f"sign(x-({place}))**2*({inner})")
    np.testing.assert_allclose(product(points), np.where(points == place, 0.0, expected), rtol=1e-15)


@pytest.mark.parametrize(
    "noise", ["1" * 1900, "a" * 1900, "b" * 900 + "(x)", "\u202e" * 900, "x*0+1" + "+1" * 900]
)
def test_errors_are_short(noise: str) -> None:
    for text in (noise, f"x+{noise}", f"({noise}", f"{noise}*x"):
        try:
            eoc.activation(text)
        except eoc.EOCError as error:
            assert len(str(error)) < 600 and "\n" not in str(error)


@pytest.mark.parametrize(
    "text",
    ["1e8*x**3-1e8*x", "(x-10)**8", "(x**2-1)**16", "x**6-15*x**4+45*x**2-15", "x**3-3*x", "(x+1e8)**3-1e24"],
)
@pytest.mark.parametrize("q", [0.5, 3.0, 100.0, 1e4])
def test_polynomials_on_the_edge_of_chaos(text: str, q: float) -> None:
    """σ_w within its stated error, σ_b with the digits of its difference, by exact moments."""
    x = sp.Symbol("x", real=True)
    phi = sp.Poly(sp.sympify(text, rational=True).subs(sp.Symbol("x"), x), x)

    def mean_square(poly: Any) -> Any:
        powers = enumerate(reversed((poly * poly).all_coeffs()))
        return sum(c * sp.factorial2(k - 1) * sp.Rational(q) ** (k // 2) for k, c in powers if k % 2 == 0)

    slope2 = mean_square(phi.diff(x))
    sigma_w, bias = float(sp.N(1 / sp.sqrt(slope2), 30)), float(q - mean_square(phi) / slope2)
    if bias < 0.0:
        with pytest.raises(eoc.EOCError):
            eoc.edge_of_chaos(text, q=q)
        return
    point = eoc.edge_of_chaos(text, q=q)
    assert abs(point.sigma_w - sigma_w) <= 1.01 * point.error + 4e-16 * sigma_w
    assert abs(point.sigma_b**2 - bias) <= 1e-9 * bias + 1e-13 * q


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("x*log1p(1e-300)", 1.5e-300),
        ("x*log1p(-1e-250)", -1.5e-250),
        ("x/log(log1p(1e-300))", 1.5 / np.log(1e-300)),
        ("x + log1p(-1e-20)*1e20", 0.5),
        ("x*log1p(0.5)", 1.5 * np.log1p(0.5)),
    ],
)
def test_logarithms_of_nearly_one_are_no_zeros(text, wanted):
    """SymPy takes log(1 + 10⁻³⁰⁰) for 0 at any precision."""
    assert eoc.activation(text)(1.5) == pytest.approx(wanted, rel=1e-14)
