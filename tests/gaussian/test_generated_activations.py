"""Stated errors against quadrature of our own, on activations that a generator makes; and some by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize

import eoc_theory as eoc
from eoc_theory.errors import ConvergenceError, NoCriticalPointError
from eoc_theory.gaussian import moments
from tests.generated_activations import Node, activations, expectations, trusted

VARIANCES = (1e-2, 1.0, 25.0)
SIGMA_B = 0.3
SOME = activations(20, 7)


def _form(node: Node, form: str) -> object:
    if form == "expression":
        return node.text
    return lambda x: node(x)


def _wrong_moments(node: Node, act: eoc.Activation) -> list[str]:
    """Moments whose true error is above the stated one."""
    wrong = []
    for q in VARIANCES:
        expected, unsure = trusted(node, q)
        found = moments(act, q)
        for name in ("phi", "phi2", "dphi2", "ddphi2"):
            value, error = (float(v) for v in getattr(found, name))
            if not math.isfinite(value):
                continue  # a jump makes it infinite, which quadrature of the pieces does not see
            size = math.sqrt(expected["phi2"]) if name == "phi" else abs(expected[name])
            if abs(value - expected[name]) > error + 3.0 * unsure[name] + 2e-14 * size:
                wrong.append(f"{name} at q = {q:g}: {value} ± {error}, right {expected[name]}")
    return wrong


def _wrong_point(node: Node, act: eoc.Activation) -> list[str]:
    """The edge of chaos against a root by our own quadrature next to it."""
    try:
        point = eoc.edge_of_chaos(act, sigma_b=SIGMA_B)
    except (NoCriticalPointError, ConvergenceError):
        return []

    def bias(log_q: float) -> float:
        found = expectations(node, math.exp(log_q))
        return found["excess"] / found["dphi2"] - SIGMA_B**2

    log_q = math.log(point.q)
    for width in (1e-6, 1e-4, 1e-2):
        if bias(log_q - width) * bias(log_q + width) < 0.0:
            root = optimize.brentq(bias, log_q - width, log_q + width, xtol=1e-15, rtol=1e-14)
            right = expectations(node, math.exp(root))["dphi2"] ** -0.5
            close = abs(point.sigma_w - right) <= point.error + 1e-13 * right
            return [] if close else [f"sigma_w {point.sigma_w} ± {point.error}, right {right}"]
    return [f"no root near q = {point.q}"]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["expression", "callable"])
@pytest.mark.parametrize("i", range(len(SOME)))
def test_stated_errors_hold(i: int, form: str) -> None:
    node = SOME[i]
    act = eoc.activation(_form(node, form))
    assert _wrong_moments(node, act) == []
    if form == "expression" or not node.frequency:
        assert _wrong_point(node, act) == []


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


@pytest.mark.parametrize("spec, twice", [("sin", 2.0), ("cos", 2.0), ("sin(2)", 2.0)])
@pytest.mark.parametrize("sigma_w, sigma_b", [(1000.0, 1000.0), (300.0, 500.0), (2000.0, 1e4), (50.0, 50.0)])
def test_c_star_of_waves_at_large_variances(spec: str, twice: float, sigma_w: float, sigma_b: float) -> None:
    field = eoc.MeanField(spec, sigma_w, sigma_b)
    # Below c = 1 the two signals' waves are independent: V = σ_b² + σ_w²/2, of which σ_b² is shared.
    right = sigma_b**2 / (sigma_b**2 + sigma_w**2 / twice)
    assert field.c_star == pytest.approx(right, abs=1e-8)
    diagram = eoc.phase_diagram(spec, sigma_w=[sigma_w], sigma_b=[sigma_b])
    assert diagram.c_star[0, 0] == pytest.approx(right, abs=1e-8)


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
