"""Dual activations over positions against exact expectations of one pair."""

from __future__ import annotations

import numpy as np
import pytest

import eoc_theory as eoc
from eoc_theory.gaussian.duals import dual
from eoc_theory.layers.position_duals import field_maps

CORRELATIONS = (-0.95, -0.5, 0.0, 0.3, 0.7, 0.9, 0.99, 0.9999)
VARIANCES = (0.01, 0.5, 1.5, 25.0)


def covariances(variances, correlations=CORRELATIONS):
    """An input with itself, and a kind for each correlation, the same for all pairs of positions."""
    root = np.sqrt(variances)
    return np.stack([np.diag(variances), *(c * np.outer(root, root) for c in correlations)])


def worst(activation, variances):
    """Largest errors of E[φφ'] and E[φ'φ'] over all pairs and correlations, relative to the mean law's."""
    _, *maps = field_maps(activation, np.zeros(len(variances)), covariances(variances))
    errors = []
    for order, found in enumerate(maps):
        middle = float(np.mean(np.sqrt(variances))) ** 2
        scale = float(dual(activation, middle, middle, 1.0, order=order).value)
        apart = [
            found[kind, a, b] - float(dual(activation, q, p, c, order=order).value)
            for kind, c in enumerate(CORRELATIONS, start=1)
            for a, q in enumerate(variances)
            for b, p in enumerate(variances[: a + 1])
        ]
        errors.append(float(np.abs(apart).max()) / scale)
    return errors


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize(
    "name", ["relu", "leaky_relu", "tanh", "elu", "gelu", "selu", "swish", "erf", "hardtanh"]
)
def test_one_variance(name, variance):
    phi, slope = worst(eoc.activation(name), np.array([variance, variance]))
    assert phi < 4e-6
    assert slope < (2e-3 if name == "hardtanh" else 6e-5)


@pytest.mark.parametrize("name", ["relu", "leaky_relu"])
def test_homogeneous_for_any_variances(name):
    phi, slope = worst(eoc.activation(name), np.array([0.5, 0.8, 1.2]))
    assert phi < 1e-6 and slope < 5e-6


@pytest.mark.parametrize(
    ("name", "variance", "bounds"),
    [
        ("tanh", 0.5, (1e-8, 1e-6)),
        ("tanh", 25.0, (3e-4, 6e-3)),
        ("elu", 1.5, (1e-6, 2e-5)),
        ("gelu", 25.0, (1e-4, 2e-3)),
        ("selu", 1.5, (1e-5, 2e-4)),
        ("swish", 1.5, (1e-7, 1e-6)),
        ("hardtanh", 1.5, (6e-4, 0.04)),
    ],
)
def test_variances_twenty_percent_apart(name, variance, bounds):
    found = worst(eoc.activation(name), variance * np.array([0.9, 1.0, 1.1]))
    assert found[0] < bounds[0] and found[1] < bounds[1]


@pytest.mark.parametrize("name", ["relu", "tanh", "elu", "hardtanh"])
@pytest.mark.parametrize("c", [-0.6, 0.5, 0.95])
def test_fields_with_a_mean(name, c):
    act = eoc.activation(name)
    mean, variance = np.array([0.4, 0.5]), np.array([1.0, 1.1])
    first, phi, slope = field_maps(act, mean, covariances(variance, (c,)))
    z = np.linspace(-8, 8, 2001)
    law = np.exp(-0.5 * z**2)
    law /= law.sum()
    u = mean[0] + np.sqrt(variance[0]) * z
    v = mean[1] + np.sqrt(variance[1]) * (c * z[:, None] + np.sqrt(1 - c**2) * z)

    def expectation(f):
        return float((law * f(u)) @ (f(v) @ law))

    wanted = expectation(act)
    assert phi[1, 0, 1] == pytest.approx(wanted, abs=2e-5 + 2e-4 * phi[0, 0, 0])
    for p in range(2):
        assert first[p] == pytest.approx(float(law @ act(mean[p] + np.sqrt(variance[p]) * z)), abs=2e-5)
    if name in ("tanh", "elu"):
        assert slope[1, 0, 1] == pytest.approx(expectation(act.derivative(1)), rel=1e-3)


@pytest.mark.parametrize("name", ["relu", "hardtanh"])
def test_slopes_with_a_mean_that_jump(name):
    """P(u > 0, v > 0) and P(|u| < 1, |v| < 1) from the bivariate normal law."""
    from scipy.stats import multivariate_normal

    act, c = eoc.activation(name), 0.9
    mean, variance = np.array([0.4, 0.4]), np.array([1.0, 1.0])
    _, _, slope = field_maps(act, mean, covariances(variance, (c,)))
    law = multivariate_normal(mean, [[1, c], [c, 1]])

    def below(a, b):
        return float(law.cdf([a, b]))

    if name == "relu":
        wanted = 1 - 2 * below(0, 50) + below(0, 0)
    else:
        wanted = below(1, 1) - 2 * below(-1, 1) + below(-1, -1)
    assert slope[1, 0, 1] == pytest.approx(wanted, abs=2e-4)


@pytest.mark.parametrize("name", ["relu", "tanh", "elu"])
def test_constant_fields_and_single_precision(name):
    act = eoc.activation(name)
    variances = np.array([0.0, 1.0])
    mean = np.array([0.7, 0.7])
    first, phi, _ = field_maps(act, mean, covariances(variances, (0.5,)))
    assert first[0] == pytest.approx(float(act(0.7)), rel=1e-6)
    assert phi[1, 0, 1] == pytest.approx(float(act(0.7)) * first[1], rel=1e-5)
    single = field_maps(act, mean.astype(np.float32), covariances(variances, (0.5,)).astype(np.float32))
    assert all(found.dtype == np.float32 for found in single)
    np.testing.assert_allclose(single[1], phi, rtol=1e-5, atol=1e-6)
