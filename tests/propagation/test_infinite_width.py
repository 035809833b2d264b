"""Kernels and score moments against closed forms and against sampled wide networks."""

from __future__ import annotations

import numpy as np
import pytest
from sampled_networks import sampled_network

import eoc_theory as eoc
from eoc_theory.networks.architecture import mlp
from eoc_theory.propagation.infinite_width import (
    Cotangent,
    covariance_root,
    loss_gradient,
    propagate,
    propagate_batch,
    softmax,
)


def test_softmax_gradient_is_that_of_the_mean_cross_entropy():
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(4, 3)), np.array([0, 2, 1, 1])

    def loss(z):
        return -np.mean(np.log(softmax(z)[np.arange(4), targets]))

    step, gradient = 1e-6, np.zeros((4, 3))
    for index in np.ndindex(4, 3):
        up, down = logits.copy(), logits.copy()
        up[index] += step
        down[index] -= step
        gradient[index] = (loss(up) - loss(down)) / (2 * step)
    assert loss_gradient(logits, targets) == pytest.approx(gradient, abs=1e-9)


def test_relu_kernel_is_the_arc_cosine_kernel():
    inputs, targets = eoc.digits(20)
    result = propagate(mlp(3, 50, activation="relu"), (inputs, targets))
    k = 2.0 * inputs @ inputs.T / 64
    for layer in range(3):
        assert result.kernels[layer] == pytest.approx(k, rel=1e-9)
        norm = np.sqrt(np.outer(np.diag(k), np.diag(k)))
        angle = np.arccos(np.clip(k / norm, -1, 1))
        k = norm / np.pi * (np.sin(angle) + (np.pi - angle) * np.cos(angle))


@pytest.mark.parametrize("activation", ["tanh", "relu", "elu"])
def test_wide_networks_have_the_predicted_kernels_and_moments(activation):
    net = mlp(6, 1500, activation=activation)
    data = eoc.digits(30)
    theory = propagate(net, data)
    rng = np.random.default_rng(1)
    runs = [sampled_network(net, *data, rng) for _ in range(4)]
    kernels = np.mean([run[1] for run in runs], axis=0)
    assert np.abs(kernels[4] - theory.kernels[4]).mean() < 0.05 * theory.q[4]
    ratio = np.log(np.mean([run[0] for run in runs], axis=0)) - theory.log_moment
    # The scale of the loss's gradient, common to all layers, fluctuates with the ten logits.
    assert np.ptp(ratio[:-1]) < 0.12
    assert abs(ratio.mean()) < 0.4


def test_moments_grow_like_chi_off_the_edge_of_chaos():
    net = mlp(40, 50, activation="tanh", init=(0.9, 0.3))
    theory = propagate(net, eoc.digits(20))
    chi = theory.chi[30]
    assert np.diff(theory.log_moment)[20:30] == pytest.approx(-np.log(chi), rel=0.02)


def test_moments_stay_level_on_it():
    theory = propagate(mlp(100, 50, activation="relu"), eoc.digits(20))
    # Between layers of one shape, away from the input.
    assert np.ptp(theory.log_moment[40:-2]) < 2.0
    off = propagate(mlp(100, 50, activation="relu", init=(1.2, 0.1)), eoc.digits(20))
    assert np.ptp(off.log_moment[40:-2]) > 10.0


def test_covariance_root_of_singular_stacks():
    rng = np.random.default_rng(0)
    half = rng.normal(size=(3, 5, 2))
    covariance = half @ half.swapaxes(-1, -2)
    root = covariance_root(covariance)
    assert root @ root.swapaxes(-1, -2) == pytest.approx(covariance, abs=1e-8 * np.abs(covariance).max())


def test_gauss_newton_cotangent_is_the_hessian_times_the_tangent():
    rng = np.random.default_rng(0)
    targets = np.array([0, 1, 2, 1])
    tangent = np.eye(4) + 0.3
    logits = rng.normal(size=(4, 3))
    top = Cotangent(np.eye(4), targets, 3, tangent)
    velocity = tangent / 4 / 1.3 @ loss_gradient(logits, targets)
    step = 1e-6
    directional = (
        loss_gradient(logits + step * velocity, targets) - loss_gradient(logits - step * velocity, targets)
    ) / (2 * step)
    assert top.of(logits) / 4 == pytest.approx(directional, abs=1e-9)


def test_variance_beyond_floats_is_an_error_where_no_scale_can_be_carried():
    with pytest.raises(eoc.EOCError, match="sigma_w"):
        propagate(mlp(500, 10, activation="x*abs(x)", init=(100.0, 0.0)), eoc.digits(10))
    far = propagate(mlp(500, 10, activation="relu", init=(100.0, 0.0)), eoc.digits(10))
    assert np.diff(far.log_q) == pytest.approx(np.log(100.0**2 / 2))


def test_propagation_is_reproducible():
    net = mlp(5, 20, activation="gelu", init=(1.4, 0.5))
    first, second = (propagate(net, eoc.digits(20), seed=3) for _ in range(2))
    assert np.array_equal(first.log_moment, second.log_moment)


@pytest.mark.parametrize("criterion", ["snip", "grasp"])
def test_kernels_of_a_subset_are_part_of_the_whole(criterion):
    net = mlp(5, 20, activation="elu")
    batch = net.summarise(eoc.digits(20))
    chosen = batch.spread_indices(7)
    _, part = propagate_batch(net, batch, criterion=criterion, subset=chosen)
    alone = propagate(net, batch.take(chosen), criterion=criterion)
    assert part.kernels == pytest.approx(alone.kernels, rel=1e-5)
    assert np.diff(part.log_moment) == pytest.approx(np.diff(alone.log_moment), abs=1e-4)


@pytest.mark.filterwarnings("error")
def test_a_blank_image_is_correlated_with_none():
    rng = np.random.default_rng(0)
    inputs, targets = rng.standard_normal((6, 10)), np.arange(6) % 3
    net = mlp(4, 20, activation="relu", in_features=10, out_features=3)
    blank = np.vstack([inputs, np.zeros(10)])
    found = propagate(net, (blank, np.append(targets, 0)))
    assert found.c == pytest.approx(propagate(net, (inputs, targets)).c, rel=1e-12)
    assert np.isnan(propagate(net, (blank * 0, np.append(targets, 0))).c).all()
    assert np.isfinite(eoc.predict_pruning(net, 0.5, data=(blank, np.append(targets, 0))).kept).all()
