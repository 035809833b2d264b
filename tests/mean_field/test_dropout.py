"""Dropout: maps and their fixed points against multiprecision, closed forms and sampled networks."""

from __future__ import annotations

import json
import math
from typing import Any

import mpmath
import numpy as np
import pytest

import eoc_theory as eoc
from eoc_theory.cli import main
from eoc_theory.errors import ArgumentError, NoCriticalPointError

CASES = [
    ("tanh", 1.3, 0.2),
    ("relu", 1.1, 0.3),
    ("gelu", 1.5, 0.8),
    ("hardtanh", 1.8, 0.1),
    ("sign", 1.2, 0.4),
]


def relu_correlation(c: Any) -> Any:
    """Cho & Saul's kernel of degree 1."""
    return (mpmath.sqrt(1 - c * c) + (mpmath.pi - mpmath.acos(c)) * c) / mpmath.pi


@pytest.mark.parametrize("p", [1e-9, 0.1, 0.5, 0.9])
def test_relu_against_multiprecision(p):
    with mpmath.workdps(40):
        keep = 1 - mpmath.mpf(p)
        c = mpmath.findroot(
            lambda x: keep * relu_correlation(x) - x, (mpmath.mpf(0), keep), solver="anderson"
        )
        slope = keep * (mpmath.pi - mpmath.acos(c)) / mpmath.pi
        gap, depth = float(1 - c), float(-1 / mpmath.log(slope))
    point = eoc.edge_of_chaos("relu", dropout=p)
    assert point.sigma_w == pytest.approx(math.sqrt(2 * (1 - p)), rel=1e-15)
    assert 1 - point.c_star == pytest.approx(gap, rel=1e-10)
    assert point.depth_scale == pytest.approx(depth, rel=1e-10)
    net = eoc.MeanField("relu", point.sigma_w, dropout=p)
    assert net.phase == "stationary" and net.chi() == pytest.approx(1.0, abs=1e-14)
    assert net.variance_map(3.0) == pytest.approx(3.0, rel=1e-14)
    assert net.depth_scales == (math.inf, point.depth_scale)


def test_erf_against_multiprecision():
    p, sigma_w, sigma_b = 0.2, 1.4, 0.3
    net = eoc.MeanField("erf", sigma_w, sigma_b, dropout=p)
    with mpmath.workdps(30):
        w, b = mpmath.mpf(sigma_w) ** 2, mpmath.mpf(sigma_b) ** 2

        def dual(q, c):  # Williams 1997
            return 2 / mpmath.pi * mpmath.asin(2 * q * c / (1 + 2 * q))

        q = mpmath.findroot(lambda x: b + w / (1 - mpmath.mpf(p)) * dual(x, 1) - x, 0.9)
        c = mpmath.findroot(lambda x: (b + w * dual(q, x)) / q - x, 0.5)
        slope = mpmath.diff(lambda x: (b + w * dual(q, x)) / q, c)
        assert net.q_star == pytest.approx(float(q), rel=1e-12)
        assert net.c_star == pytest.approx(float(c), rel=1e-10)
        assert net.depth_scales.xi_c == pytest.approx(float(-1 / mpmath.log(slope)), rel=1e-10)


@pytest.mark.parametrize("spec, sigma_w, sigma_b", CASES)
@pytest.mark.parametrize("p", [1e-4, 0.3])
def test_maps_fixed_point_and_depth_scale_belong_together(spec, sigma_w, sigma_b, p):
    net = eoc.MeanField(spec, sigma_w, sigma_b, dropout=p)
    plain = eoc.MeanField(spec, sigma_w, sigma_b)
    q = 0.7
    moment = (float(plain.variance_map(q)) - sigma_b**2) / sigma_w**2
    assert net.variance_map(q) == pytest.approx(sigma_b**2 + sigma_w**2 * moment / (1 - p), rel=1e-13)
    assert net.correlation_map(1.0, q) == pytest.approx(
        plain.variance_map(q) / net.variance_map(q), rel=1e-12
    )
    covariance = float(plain.correlation_map(0.4, q)) * float(plain.variance_map(q))
    assert net.correlation_map(0.4, q) == pytest.approx(covariance / net.variance_map(q), rel=1e-11)
    assert net.correlation_map(net.c_star) == pytest.approx(net.c_star, abs=1e-11)
    step = 1e-4 * (1 - net.c_star)
    low, high = net.correlation_map(net.c_star + step * np.array([-1.0, 1.0]))
    assert math.exp(-1 / net.depth_scales.xi_c) == pytest.approx((high - low) / (2 * step), rel=1e-5)
    assert net.iterate_correlation([0.0, 1.3], 3000)[-1] == pytest.approx(1 - net.c_star, rel=1e-9)


def test_without_dropout_nothing_changes():
    for spec, sigma_w, sigma_b in CASES:
        net, same = eoc.MeanField(spec, sigma_w, sigma_b), eoc.MeanField(spec, sigma_w, sigma_b, dropout=0)
        assert net == same and net.phase in ("ordered", "critical", "chaotic")
        # The point as it is without dropout is reached as p goes to 0, where both are continuous.
        little = eoc.MeanField(spec, sigma_w, sigma_b, dropout=1e-12)
        assert little.q_star == pytest.approx(net.q_star, rel=1e-9)
        assert little.c_star == pytest.approx(net.c_star, abs=1e-4)
    point = eoc.edge_of_chaos("tanh", sigma_b=0.2)
    assert (point.dropout, point.c_star, point.depth_scale, point.note) == (0.0, 1.0, math.inf, "")


@pytest.mark.parametrize("spec", ["tanh", "elu", "erf"])
def test_the_stationary_point_is_the_critical_one_scaled(spec):
    p, plain = 0.25, eoc.edge_of_chaos(spec, sigma_b=0.2)
    point = eoc.edge_of_chaos(spec, sigma_b=0.2, dropout=p)
    assert point.sigma_w == pytest.approx(math.sqrt(0.75) * plain.sigma_w, rel=1e-15)
    assert (point.q, point.variance_slope, point.dropout) == (plain.q, plain.variance_slope, p)
    net = eoc.MeanField(spec, point.sigma_w, 0.2, dropout=p)
    assert net.phase == "stationary" and net.chi() == pytest.approx(1.0, abs=1e-10)
    assert net.q_star == pytest.approx(point.q, rel=1e-10)
    assert (net.c_star, net.depth_scales.xi_c) == pytest.approx((point.c_star, point.depth_scale), rel=1e-9)
    assert f"c* = {point.c_star:.4g}" in point.note and point.convergence.kind == "exponential"
    by_weight = eoc.edge_of_chaos(spec, sigma_w=point.sigma_w, dropout=p)
    assert by_weight.sigma_b == pytest.approx(0.2, rel=1e-9)
    # No other σ_w lets correlations live much longer.
    around = eoc.phase_diagram(
        spec, sigma_w=point.sigma_w * np.linspace(0.5, 2, 200), sigma_b=[0.2], dropout=p
    )
    assert 1.0 <= around.xi_c.max() / point.depth_scale < 1.05


@pytest.mark.parametrize("spec", ["tanh", "relu", "elu"])
def test_phase_diagram_has_the_numbers_of_its_networks(spec):
    sigma_w, sigma_b = np.array([0.8, 1.2, 2.0]), np.array([0.0, 0.4])
    found = eoc.phase_diagram(spec, sigma_w=sigma_w, sigma_b=sigma_b, dropout=0.2)
    for i, b in enumerate(sigma_b):
        for j, w in enumerate(sigma_w):
            net = eoc.MeanField(spec, w, b, dropout=0.2)
            assert found.phase[i, j] == net.phase
            numbers = [
                found.q_star[i, j],
                found.chi[i, j],
                found.c_star[i, j],
                found.xi_q[i, j],
                found.xi_c[i, j],
            ]
            wanted = [net.q_star, float(net.chi()), net.c_star, *net.depth_scales]
            assert numbers == pytest.approx(wanted, rel=1e-8, abs=1e-12)
    assert set(found.phase.flat) <= {"vanishing", "stationary", "exploding"}
    assert np.all(found.c_star < 0.9)


def pair(
    net: eoc.MeanField, shared: bool, width: int, depth: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """q and c by layer of two signals in a sampled network with weights and masks really drawn."""
    rng = np.random.default_rng(seed)
    h, found = rng.standard_normal((width, 2)), []
    for _ in range(depth):
        weights = rng.standard_normal((width, width)) * (net.sigma_w / math.sqrt(width))
        y = weights @ h + net.sigma_b * rng.standard_normal((width, 1))
        found.append([np.mean(y * y), y[:, 0] @ y[:, 1] / np.sqrt(np.prod((y * y).sum(axis=0)))])
        masks = (rng.random((width, 2)) >= net.dropout) / (1.0 - net.dropout)
        h = net.activation(y) * (masks[:, :1] if shared else masks)
    return tuple(np.array(found).T)


def test_sampled_networks_have_these_fixed_points():
    net = eoc.MeanField("tanh", 1.8, 0.2, dropout=0.2)
    own = np.array([pair(net, False, 500, 24, seed) for seed in range(6)])[:, :, 12:].mean(axis=2)
    error = own.std(axis=0, ddof=1) / math.sqrt(6)
    assert np.all(np.abs(own.mean(axis=0) - [net.q_star, net.c_star]) < 4 * error + 0.005)
    # Under one mask the correlations of the two are those of a network without dropout and larger σ_w.
    alike = eoc.MeanField("tanh", 1.8 / math.sqrt(0.8), 0.2)
    together = np.array([pair(net, True, 500, 24, seed)[1][12:].mean() for seed in range(6)])
    assert abs(together.mean() - alike.c_star) < 4 * together.std(ddof=1) / math.sqrt(6) + 0.01


@pytest.mark.parametrize("factor", [0.9, 1.0, 1.2])
def test_sampled_gradients_grow_by_chi(factor):
    p, width, depth, slopes = 0.3, 400, 30, []
    net = eoc.MeanField(
        "tanh", factor * eoc.edge_of_chaos("tanh", sigma_b=0.2, dropout=p).sigma_w, 0.2, dropout=p
    )
    for seed in range(6):
        rng = np.random.default_rng(seed)
        h, gates = np.sqrt(net.q_star) * rng.standard_normal(width), []
        for _ in range(depth):
            weights = rng.standard_normal((width, width)) * (net.sigma_w / math.sqrt(width))
            y = weights @ h + net.sigma_b * rng.standard_normal(width)
            mask = (rng.random(width) >= p) / (1.0 - p)
            gates.append((weights, net.activation.derivative(1)(y) * mask))
            h = net.activation(y) * mask
        delta, logs = rng.standard_normal(width), []
        for weights, gate in reversed(gates):
            delta = weights.T @ (gate * delta)
            logs.append(math.log(np.mean(delta**2)))
        slopes.append((logs[-1] - logs[4]) / (depth - 5))
    wanted = math.log(float(net.chi()))
    assert np.mean(slopes) == pytest.approx(wanted, abs=4 * np.std(slopes, ddof=1) / math.sqrt(6) + 0.01)
    assert net.phase == {0.9: "vanishing", 1.0: "stationary", 1.2: "exploding"}[factor]


def test_the_graph_theory_agrees():
    torch = pytest.importorskip("torch")
    p, width = 0.2, 200
    layers = [torch.nn.Linear(20, width)]
    for _ in range(8):
        layers += [torch.nn.Tanh(), torch.nn.Dropout(p), torch.nn.Linear(width, width)]
    model = torch.nn.Sequential(*layers).train()
    for layer in model:
        if isinstance(layer, torch.nn.Linear):
            torch.nn.init.normal_(layer.weight, std=1.3 / math.sqrt(layer.in_features))
            torch.nn.init.normal_(layer.bias, std=0.2)
    inputs = np.random.default_rng(0).standard_normal((4, 20))
    found = eoc.Architecture.from_torch(model).propagate((inputs, np.arange(4)))
    net = eoc.MeanField("tanh", 1.3, 0.2, dropout=p)
    # Scales are read from drawn weights: good to about 1/width.
    assert found.q[-1] == pytest.approx(net.q_star, rel=0.03)
    assert found.c[-1] == pytest.approx(net.c_star, abs=0.03)


def test_curve_is_the_critical_one_scaled():
    sigma_b = np.array([0.0, 0.3, 1.0])
    found = eoc.critical_curve("tanh", sigma_b=sigma_b, dropout=0.19)
    assert found.sigma_w == pytest.approx(
        0.9 * eoc.critical_curve("tanh", sigma_b=sigma_b).sigma_w, rel=1e-14
    )
    assert found.dropout == 0.19 and found.stable.all()


def test_what_cannot_be_is_refused():
    for p in (1.0, -0.1, math.nan, "0.1", True):
        with pytest.raises(ArgumentError, match="dropout must be a number in"):
            eoc.edge_of_chaos("tanh", dropout=p)
        with pytest.raises(ArgumentError, match="dropout"):
            eoc.MeanField("tanh", 1.0, dropout=p)
        with pytest.raises(ArgumentError, match="dropout"):
            eoc.phase_diagram("tanh", sigma_w=[1.0], sigma_b=[0.0], dropout=p)
    with pytest.raises(NoCriticalPointError, match=r"dropout 0\.1.*sigma_w = 1\.341640786"):
        eoc.edge_of_chaos("relu", sigma_b=0.2, dropout=0.1)


def test_command_line(capsys, tmp_path):
    assert main(["init", "tanh", "--sigma-b", "0.2", "--dropout", "0.1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    point = eoc.edge_of_chaos("tanh", sigma_b=0.2, dropout=0.1)
    assert (found["sigma_w"], found["c_star"], found["depth_scale"]) == (
        point.sigma_w, point.c_star, point.depth_scale
    )  # fmt: skip
    assert found["dropout"] == 0.1 and "no edge of chaos" in found["note"]
    assert main(["init", "relu", "--dropout", "0.1"]) == 0
    shown = capsys.readouterr().out
    assert "stationary under dropout 0.1" in shown and "note: with dropout there is no edge of chaos" in shown
    assert main(["curve", "tanh", "--sigma-b", "0.2", "--dropout", "0.1"]) == 0
    shown = capsys.readouterr().out
    assert "stationary under dropout 0.1" in shown and f"{point.sigma_w:.10g}" in shown
    grid = ["--sigma-w", "0.5:3:10", "--sigma-b", "0:1:9", "--dropout", "0.1"]
    assert main(["phase", "tanh", *grid, "--plot", str(tmp_path / "phase.png")]) == 0
    shown = capsys.readouterr().out
    assert "v vanishing" in shown and "chaotic" not in shown
    assert (tmp_path / "phase.png").stat().st_size > 10_000
    assert main(["phase", "tanh", *grid, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["dropout"] == 0.1
