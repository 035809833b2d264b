"""Stated errors against quadrature of our own, on activations that a generator makes; and some by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize

import eoc_theory as eoc
from eoc_theory.errors import ConvergenceError, NoCriticalPointError
from eoc_theory.gaussian import moments
from eoc_theory.gaussian.duals import covariance_maps, dual
from tests.generated_activations import activations
from tests.stated_errors import FORMS, SIGMA_B, Findings, attempt

SOME = activations(20, 7)
FAST = ("moments", "maps", "edge of chaos", "fixed points")


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("i", range(len(SOME)))
def test_stated_errors_hold(i: int, form: str) -> None:
    findings = Findings()
    attempt(SOME[i], form, f"#{i} {form}", findings, FAST)
    assert findings.wrong == []
    assert sum(findings.counts.values()) > 0


@pytest.mark.slow
@pytest.mark.parametrize("i", [0, 3, 4, 7])
def test_stated_errors_of_duals_hold(i: int) -> None:
    findings = Findings()
    attempt(SOME[i], "expression", f"#{i}", findings, ("duals", "table"))
    assert findings.wrong == []


@pytest.mark.parametrize("name", ["elu", "selu", "tanh", "silu"])
@pytest.mark.parametrize("q", [100.0, 1e4])
@pytest.mark.parametrize("gap", [0.3, 1e-2, 1e-4])
def test_covariance_maps_at_large_variances(name: str, q: float, gap: float) -> None:
    off = q * (1.0 - gap)
    maps = covariance_maps(name, np.array([[q, off], [off, q]]))
    assert maps.dphi is not None
    for order, values in enumerate((maps.phi, maps.dphi)):
        right, size = (float(dual(name, q, q, c, order=order).value) for c in (off / q, 1.0))
        assert abs(values[0, 1] - right) <= maps.error * size
    assert maps.error < 2e-6


@pytest.mark.parametrize("spec", ["x+exp(-1000*(x-0.3)**2)", "max(x,0)+exp(-1000*(x-0.3)**2)"])
def test_covariance_maps_see_a_narrow_bump(spec: str) -> None:
    maps = covariance_maps(spec, np.array([[1.0, 0.3], [0.3, 1.0]]))
    for order, values in enumerate((maps.phi, maps.dphi)):
        found = dual(spec, 1.0, 1.0, 0.3, order=order)
        assert values is not None
        size = float(dual(spec, 1.0, 1.0, 1.0, order=order).value)
        assert abs(values[0, 1] - float(found.value)) <= (maps.error + 1e-12) * size + float(found.error)


@pytest.mark.parametrize("sigma_w, sigma_b", [(0.5, 0.3), (1.5, 0.05), (3.0, 1.0)])
def test_fixed_points_state_their_error(sigma_w: float, sigma_b: float) -> None:
    for point in eoc.MeanField("erf", sigma_w, sigma_b).fixed_points:

        def room(q: float) -> float:
            inside = 2.0 * q / (1.0 + 2.0 * q)
            return sigma_b**2 + sigma_w**2 * 2.0 / math.pi * math.asin(inside) - q

        right = optimize.brentq(room, 0.99 * point.q, 1.01 * point.q, xtol=1e-16, rtol=1e-15)
        assert abs(point.q - right) <= point.error <= 1e-11 * right


BUMP = "tanh(x)+exp(-1000*(x-2)**2)"


def _bump(x: np.ndarray) -> np.ndarray:
    return np.tanh(x) + np.exp(-1000.0 * (x - 2.0) ** 2)


def _tent(x: np.ndarray) -> np.ndarray:
    return x + np.maximum(0.0, 1.0 - 1000.0 * np.abs(x - 1.3337))


@pytest.mark.parametrize("spec", [BUMP, _bump])
def test_a_narrow_bump_is_seen(spec: object) -> None:
    point = eoc.edge_of_chaos(spec, sigma_b=0.3)
    assert point.sigma_w == pytest.approx(1.12696486604, abs=1e-10)
    assert eoc.activation(spec).parity is None


def test_kinks_closer_than_the_nodes_of_a_panel_are_found() -> None:
    act = eoc.activation(_tent)
    np.testing.assert_allclose(act.kinks, (1.3327, 1.3337, 1.3347), atol=1e-9)
    # φ' is 1 ± 1000 on the two sides of the tent.
    inside = math.erf(1.3347 / math.sqrt(2.0)) - math.erf(1.3337 / math.sqrt(2.0))
    before = math.erf(1.3337 / math.sqrt(2.0)) - math.erf(1.3327 / math.sqrt(2.0))
    right = 1.0 + 0.5 * (inside * (999.0**2 - 1.0) + before * (1001.0**2 - 1.0))
    value, error = moments(act, 1.0).dphi2
    assert abs(float(value) - right) <= float(error) + 1e-9 * right


@pytest.mark.parametrize("q, right", [(1.0, 0.105047114215), (9.0, 0.17160), (25.0, 0.21848)])
def test_waves_that_die_out_do_not_go_on(q: float, right: float) -> None:
    point = eoc.edge_of_chaos("x+exp(-x**2)*sin(20*x)", q=q)
    assert point.sigma_w == pytest.approx(right, rel=3e-5 if q > 1.0 else 1e-11)
    assert point.error < 1e-9


@pytest.mark.parametrize(
    "spec", ["sin(20*x)/cosh(x)+x", "x+sin(12*x)/(1+x**2)", lambda x: x + np.sin(12.0 * x) / (1.0 + x * x)]
)
def test_every_point_of_a_fading_wave_is_one(spec: object) -> None:
    point = eoc.edge_of_chaos(spec, sigma_b=SIGMA_B)
    for p in (point, *point.others):
        found = moments(spec, p.q)
        assert p.sigma_w**2 * float(found.dphi2.value) == pytest.approx(1.0, rel=1e-9)
        assert SIGMA_B**2 + p.sigma_w**2 * float(found.phi2.value) == pytest.approx(p.q, rel=1e-9)


def test_a_wave_that_dies_out_is_no_lasting_one() -> None:
    assert eoc.activation("tanh(x)+exp(-abs(x))*sin(30*x)").oscillation == 0.0


@pytest.mark.parametrize("rate", [0.3, 0.5, 1.0])
def test_callables_that_grow_exponentially_have_no_points_where_nothing_is_known(rate: float) -> None:
    point = eoc.edge_of_chaos(lambda x: np.sinh(rate * x), sigma_b=SIGMA_B)

    def room(q: float) -> float:  # E[sinh²] and rate² E[cosh²]
        square = rate * rate
        return q - math.tanh(square * q) / square - SIGMA_B**2

    right = optimize.brentq(room, 1e-3, 100.0, xtol=1e-15)
    assert point.q == pytest.approx(right, rel=1e-9) and point.others == ()
    cosh = 0.5 * (1.0 + math.exp(2.0 * rate * rate * right))
    assert point.sigma_w == pytest.approx(1.0 / (rate * math.sqrt(cosh)), rel=1e-9)


def test_moments_that_take_too_much_are_refused() -> None:
    spec = "sin(20*x)+max(x,0)"
    with pytest.raises(ConvergenceError, match=r"too costly: .* variances of 1e"):
        eoc.edge_of_chaos(spec, sigma_b=SIGMA_B)
    field = eoc.MeanField(spec, 0.1, SIGMA_B)
    assert math.isfinite(float(field.variance_map(1.0)))  # what is asked for alone may be cheap


@pytest.mark.parametrize("spec, twice", [("sin", 2.0), ("cos", 2.0), ("sin(2)", 2.0)])
@pytest.mark.parametrize(
    "sigma_w, sigma_b",
    [
        (1000.0, 1000.0),
        (300.0, 500.0),
        (2000.0, 1e4),
        (50.0, 50.0),
        (10.0, 1e4),
        (1e4, 1.0),
        (1e4, 1e3),
        (1e5, 1e6),
    ],
)
def test_c_star_of_waves_at_large_variances(spec: str, twice: float, sigma_w: float, sigma_b: float) -> None:
    field = eoc.MeanField(spec, sigma_w, sigma_b)
    # Below c = 1 the two signals' waves are independent: V = σ_b² + σ_w²/2, of which σ_b² is shared.
    right = sigma_b**2 / (sigma_b**2 + sigma_w**2 / twice)
    assert field.phase == "chaotic"
    assert field.c_star == pytest.approx(right, abs=1e-10)
    if field.q_star < 1e10:  # beyond which the map is refused
        assert float(field.correlation_map(right)) == pytest.approx(right, abs=1e-10)
    diagram = eoc.phase_diagram(spec, sigma_w=[sigma_w], sigma_b=[sigma_b])
    assert diagram.c_star[0, 0] == pytest.approx(right, abs=1e-10)
    noisy = eoc.MeanField(spec, sigma_w, sigma_b, dropout=0.2)
    right = sigma_b**2 / (sigma_b**2 + 1.25 * sigma_w**2 / twice)
    assert noisy.c_star == pytest.approx(right, abs=1e-10)


@pytest.mark.parametrize("sigma_w", [10.15, 30.0, 122.0, 130.0, 1e4])
def test_saturating_activations_have_points_without_an_upper_end(sigma_w: float) -> None:
    point = eoc.edge_of_chaos("sigmoid", sigma_w=sigma_w)
    assert point.sigma_w == sigma_w
    assert float(moments("sigmoid", point.q).dphi2.value) * sigma_w**2 == pytest.approx(1.0, rel=1e-9)


@pytest.mark.parametrize(
    "given, said",
    [
        ({"sigma_w": 10.0}, "sigma_w >= 10.149"),
        ({"q": 40.0}, "q >= 45.6243"),
        ({"sigma_w": 10.149}, ">= 10.149"),
    ],
)
def test_refusals_name_the_range_that_exists(given: dict[str, float], said: str) -> None:
    with pytest.raises(NoCriticalPointError) as caught:
        eoc.edge_of_chaos("sigmoid", **given)
    assert said in str(caught.value)
    assert "between" not in str(caught.value)


@pytest.mark.parametrize("text", ["e**x", "expm1(x)", "sinh(x)"])
def test_exponentials_are_not_computed_in_many_digits_far_out(text: str) -> None:
    point = eoc.edge_of_chaos(text, sigma_b=0.2)
    q, right = point.q, {"e**x": lambda q: math.exp(-q)}.get(text)
    if right is not None:
        assert point.sigma_w == pytest.approx(right(q), rel=1e-12)
        assert q == pytest.approx(1.04, rel=1e-12)
    else:
        assert point.error < 1e-12
