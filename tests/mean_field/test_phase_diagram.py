"""Phase diagrams: the grid is its cells."""

from __future__ import annotations

import numpy as np
import pytest

from eoc_theory.activations import activation
from eoc_theory.errors import ArgumentError
from eoc_theory.gaussian.duals import dual
from eoc_theory.gaussian.duals.slopes import slope_dual
from eoc_theory.mean_field.edge_of_chaos import edge_of_chaos
from eoc_theory.mean_field.maps import MeanField
from eoc_theory.mean_field.phase_diagram import phase_diagram


@pytest.mark.parametrize(
    "spec",
    ["tanh", "relu", "elu", "gelu", "silu", "sin", "cos", "hardtanh", "hardswish", "step", "square", "exp"],
)
def test_grid_is_its_cells(spec):
    sigma_w, sigma_b = np.array([0.4, 1.0, 1.45, 2.6]), np.array([0.0, 0.15, 0.9])
    diagram = phase_diagram(spec, sigma_w=sigma_w, sigma_b=sigma_b)
    for i, b in enumerate(sigma_b):
        for j, w in enumerate(sigma_w):
            net = MeanField(spec, w, b)
            cell = (
                diagram.q_star[i, j],
                diagram.chi[i, j],
                diagram.c_star[i, j],
                diagram.variance_slope[i, j],
            )
            assert cell == pytest.approx(
                (net.q_star, net.chi(), net.c_star, net.variance_slope()), rel=1e-7, abs=1e-11
            )
            assert (diagram.xi_q[i, j], diagram.xi_c[i, j]) == pytest.approx(net.depth_scales, rel=1e-5)
            assert diagram.phase[i, j] == net.phase


@pytest.mark.parametrize(
    "spec",
    [
        "tanh",
        "gelu",
        "elu",
        "relu6",
        "hardswish",
        "sin",
        "mish",
        "where(x < 0, 0.2*x, tanh(x - 1) + tanh(1))",
    ],
)
def test_slope_duals_by_every_method(spec):
    q, theta = np.array([0.03, 1.3]), np.array([[1e-3, 0.1, 1.0], [0.01, 0.4, 1.57]])
    exact = dual(spec, q[:, None], q[:, None], one_minus_c=2 * np.sin(theta / 2) ** 2, order=1).value
    assert slope_dual(activation(spec), q, theta) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("spec", ["tanh", "elu", "erf"])
def test_the_boundary_is_the_edge_of_chaos(spec):
    sigma_b = np.array([0.1, 0.5, 1.0])
    sigma_w = np.linspace(0.5, 2.5, 81)
    diagram = phase_diagram(spec, sigma_w=sigma_w, sigma_b=sigma_b)
    for i, b in enumerate(sigma_b):
        edge = edge_of_chaos(spec, sigma_b=float(b)).sigma_w
        assert np.all(diagram.phase[i, sigma_w < edge - 1e-4] == "ordered")
        assert np.all(diagram.phase[i, sigma_w > edge + 1e-4] == "chaotic")
        chaotic = (sigma_w > edge + 1e-4) & np.isfinite(diagram.q_star[i])
        assert np.all(diagram.c_star[i, chaotic] < 1.0)


def test_depth_scales_diverge_at_the_edge():
    edge = edge_of_chaos("tanh", sigma_b=0.2).sigma_w
    sigma_w = edge * (1 + np.array([-1e-2, -1e-3, 0.0, 1e-3, 1e-2]))
    xi = phase_diagram("tanh", sigma_w=sigma_w, sigma_b=[0.2]).xi_c[0]
    assert np.isinf(xi[2])
    assert xi[1] == pytest.approx(10 * xi[0], rel=0.1) and xi[3] == pytest.approx(10 * xi[4], rel=0.1)


def test_nothing_is_missing_on_a_large_grid():
    diagram = phase_diagram("hardtanh", sigma_w=np.linspace(0.05, 8.0, 60), sigma_b=np.linspace(0.0, 4.0, 50))
    assert diagram.q_star.shape == (50, 60)
    for values in (diagram.q_star, diagram.chi, diagram.c_star, diagram.xi_q, diagram.xi_c):
        assert not np.any(np.isnan(values)) and np.all(values >= 0.0)
    assert np.all(diagram.c_star <= 1.0)
    assert set(np.unique(diagram.phase)) <= {"ordered", "critical", "chaotic"}


@pytest.mark.parametrize(
    "axes",
    [
        {"sigma_w": [], "sigma_b": [0.1]},
        {"sigma_w": [0.0], "sigma_b": [0.1]},
        {"sigma_w": [1.0], "sigma_b": [-0.1]},
        {"sigma_w": [[1.0]], "sigma_b": [0.1]},
        {"sigma_w": [np.nan], "sigma_b": [0.1]},
        {"sigma_w": ["a"], "sigma_b": [0.1]},
    ],
)
def test_bad_axes(axes):
    with pytest.raises(ArgumentError, match=r"^sigma_[wb] must be a 1-D array"):
        phase_diagram("tanh", **axes)
