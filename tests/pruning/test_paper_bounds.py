"""The paper's two bounds: against their definitions in mpmath, against simulation, and their monotonicity."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eoc_theory.errors import ArgumentError
from eoc_theory.networks.architecture import Architecture, WeightLayer, mlp
from eoc_theory.pruning.paper_bounds import (
    MagnitudeBound,
    SnipBound,
    bound_for,
    magnitude_bound,
    snip_bound,
)


@pytest.mark.parametrize("gamma", [1.05, 1.5, 2.0, 8.0])
@pytest.mark.parametrize("size", [100.0, 1e4, 1e7])
def test_magnitude_bound_is_the_infimum_over_epsilon(gamma: float, size: float) -> None:
    bound = magnitude_bound([1.0, gamma, 0.5], [1.0, 1.0, 1.0], math.sqrt(size))
    with mpmath.workdps(40):

        def value(epsilon: float) -> float:
            # The definition: x by root finding in t = Q_x, and the theorem's formula.
            power = mpmath.mpf(gamma) ** (2 - mpmath.mpf(epsilon))

            def u(t: Any) -> Any:
                return -mpmath.log(mpmath.erfc(t / mpmath.sqrt(2)))

            low, high = mpmath.mpf("1e-12"), mpmath.mpf(60)
            for _ in range(80):
                t = mpmath.sqrt(low * high)
                low, high = (low, t) if u(gamma * t) > power * u(t) else (t, high)
            left = mpmath.erfc(high / mpmath.sqrt(2))
            return float(1 - left + size / (1 + power) * left ** (1 + power))

        values = [value(e) for e in np.linspace(0.03, 0.99, 25)]
        assert bound.value <= min(values) * (1 + 1e-9)
        assert value(bound.epsilon) == pytest.approx(bound.value, rel=1e-7)
    assert bound.layer == 1 and bound.gamma == pytest.approx(gamma)
    assert bound.binding == (bound.value < 1)


@given(st.floats(1.01, 30.0), st.floats(0.01, 5.0), st.floats(10.0, 1e4))
def test_magnitude_bound_is_monotone(gamma: float, more: float, width: float) -> None:
    """Smaller weights in l0 are lost earlier; more of them last longer."""
    value = magnitude_bound([1.0, gamma], [1.0, 1.0], width).value
    assert magnitude_bound([1.0, gamma + more], [1.0, 1.0], width).value <= value * (1 + 1e-9)
    assert magnitude_bound([1.0, gamma], [1.0, 1.0 + more], width).value >= value * (1 - 1e-9)


def test_magnitude_bound_is_void_without_a_single_smallest_layer() -> None:
    bound = bound_for(mlp(5, 100, init=(1.0, 0.0)), "magnitude")
    assert isinstance(bound, MagnitudeBound)
    assert bound.value == math.inf and not bound.binding and bound.gamma == 1.0


def with_one_small_layer(widths: tuple[int, ...], scales: tuple[float, ...]) -> Architecture:
    act = mlp(2, 3, init=(1.0, 0.0)).layers[0].activation
    last = len(scales) - 1
    return Architecture(
        tuple(
            WeightLayer(f"layers.{i}", widths[i], widths[i + 1], scale, 0.0, act if i < last else None)
            for i, scale in enumerate(scales)
        )
    )


def critical_sparsities(net: Architecture, seeds: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    critical = []
    for _ in range(seeds):
        weights = [np.abs(rng.normal(0, layer.weight_std, layer.n_weights)) for layer in net.layers]
        top = min(w.max() for w in weights)
        critical.append(np.mean(np.concatenate(weights) <= top))
    return np.array(critical)


@pytest.mark.parametrize(
    ("widths", "scales"),
    [
        ((40,) * 13, (1.0,) * 6 + (0.5,) + (1.0,) * 5),  # by its scale
        ((30,) * 8 + (120,) + (30,) * 2, (1.0,) * 10),  # by its fan_in
        ((60,) * 4, (1.0, 0.25, 1.0)),
    ],
)
def test_magnitude_pruning_collapses_below_the_bound(
    widths: tuple[int, ...], scales: tuple[float, ...]
) -> None:
    net = with_one_small_layer(widths, scales)
    bound = bound_for(net, "magnitude")
    assert isinstance(bound, MagnitudeBound)
    critical = critical_sparsities(net, 60)
    assert critical.mean() < bound.whole < 1
    if net.weights[bound.layer] < 0.1 * net.n_weights:
        assert critical.mean() < bound.value < bound.whole


def test_the_theorem_leaves_out_the_emptied_layers_own_weights() -> None:
    """Three layers, γ = 4: E[s_cr] is above the theorem's value by ten times its remainder."""
    net = with_one_small_layer((60,) * 4, (1.0, 0.25, 1.0))
    bound = bound_for(net, "magnitude")
    assert isinstance(bound, MagnitudeBound)
    critical = critical_sparsities(net, 60)
    error = critical.std() / math.sqrt(len(critical))
    assert critical.mean() - 4 * error > bound.value + 5 * bound.remainder
    assert bound.whole == pytest.approx(1 / 3 + 2 / 3 * bound.value, rel=1e-12)


@pytest.mark.parametrize("chi", [0.3, 0.9, 1.2, 3.0])
def test_snip_bound_is_the_formula(chi: float) -> None:
    with mpmath.workdps(30):
        kappa = abs(mpmath.log(mpmath.mpf(chi))) / 8
        expected = (1 + mpmath.log(kappa * 100 * 300**2) / kappa) / 100
    bound = snip_bound(100, 300, chi)
    assert bound.value == pytest.approx(float(expected), rel=1e-13)
    assert bound.remainder == pytest.approx(float(1 / (kappa**2 * math.sqrt(100 * 300**2))), rel=1e-13)
    assert bound.binding == (expected < 1)


@given(st.integers(2, 1000), st.integers(10, 1000), st.floats(0.01, 0.9), st.floats(0.01, 0.9))
def test_snip_bound_is_monotone(depth: int, width: int, chi: float, factor: float) -> None:
    """The further from the edge of chaos, and the deeper, the earlier the collapse; both phases alike."""
    value = snip_bound(depth, width, chi).value
    assert snip_bound(depth, width, chi * factor).value <= value
    assert snip_bound(2 * depth, width, chi).value <= value
    assert snip_bound(depth, 2 * width, chi).value >= value
    assert snip_bound(depth, width, 1 / chi).value == pytest.approx(value, rel=1e-12)


@settings(max_examples=30)
@given(st.floats(0, 1e-4))
def test_snip_bound_is_void_near_the_edge_of_chaos(kappa: float) -> None:
    bound = snip_bound(100, 100, kappa=kappa)
    assert bound.value > 1 and not bound.binding


def test_snip_bound_broadcasts() -> None:
    bound = snip_bound(np.array([[10], [100]]), 100, np.array([0.01, 1.0, 0.5]))
    assert isinstance(bound.value, np.ndarray) and bound.value.shape == (2, 3)
    assert np.isinf(bound.value[:, 1]).all() and bound.value[1, 0] < 1
    assert np.asarray(bound.binding).tolist()[1][0] is True
    net = mlp(30, 100, init=(1.0, 0.1))
    same = bound_for(net, "snip", chi=0.2)
    assert isinstance(same, SnipBound)
    assert same.value == snip_bound(30, math.sqrt(net.n_weights / 30), 0.2).value


def test_snip_bound_holds_for_the_score_moments_it_assumes() -> None:
    """Scores |W g| with moments χ^{L−l}, independent normal factors: the mean s_cr is below the bound."""
    depth, width, chi = 60, 20, 0.2
    rng = np.random.default_rng(1)
    scale = chi ** (0.5 * np.arange(depth)[:, None])
    critical = []
    for _ in range(20):
        scores = (
            np.abs(rng.standard_normal((depth, width**2)) * rng.standard_normal((depth, width**2))) * scale
        )
        critical.append(np.mean(scores <= scores.max(axis=1).min()))
    bound = snip_bound(depth, width, chi)
    assert np.mean(critical) < bound.value < 1


@pytest.mark.parametrize(
    "call",
    [
        lambda: snip_bound(0, 100, 0.5),
        lambda: snip_bound(10, 100, -1.0),
        lambda: snip_bound(10, 100),
        lambda: snip_bound(10, 100, 0.5, kappa=0.1),
        lambda: magnitude_bound([1.0], [1.0], 10),
        lambda: magnitude_bound([1.0, 2.0], [1.0], 10),
        lambda: magnitude_bound([1.0, -2.0], [1.0, 1.0], 10),
        lambda: bound_for(mlp(3, 10, init=(1.0, 0.0)), "snip"),
        lambda: bound_for(mlp(3, 10, init=(1.0, 0.0)), "random"),
        lambda: bound_for(mlp(3, 10, init="pytorch"), "magnitude"),
        lambda: bound_for(mlp(1, 10, init=(1.0, 0.0)), "magnitude"),
    ],
)
def test_unusable_arguments_are_one_line(call) -> None:
    with pytest.raises(ArgumentError) as caught:
        call()
    assert "\n" not in str(caught.value)
