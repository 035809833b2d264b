"""Chains of any depth and scale: signals and gradients far beyond the range of floats.

The reference is a network of NumPy matrices whose signals and gradients are divided by their size after every
layer: what is divided away is a common factor of a layer's scores, kept as a logarithm.
"""

import numpy as np
import pytest

import eoc_theory as eoc


def rescaled_scores(net, inputs, targets, rng):
    """|W g| of every layer of one sampled network up to exp of the second, by plain matrices."""
    h, log_h = inputs.T.astype(float), 0.0
    weights, signals, slopes = [], [], []
    for layer in net.layers:
        size = np.abs(h).max()
        h, log_h = h / size, log_h + np.log(size)
        w = rng.standard_normal((layer.fan_out, layer.fan_in)) / np.sqrt(layer.fan_in)
        weights.append(w)
        signals.append((h, log_h + np.log(layer.sigma_w)))
        y, log_h = w @ h, log_h + np.log(layer.sigma_w)
        if layer.activation is not None:
            left, right = tangents(layer.activation.name, log_h)
            slopes.append(np.where(y > 0, right, left))
            h = slopes[-1] * y
    logits = y * np.exp(np.clip(log_h, -600.0, 600.0))
    p = np.exp(logits - logits.max(axis=0))
    delta = p / p.sum(axis=0)
    delta[targets, np.arange(len(targets))] -= 1.0
    log_delta, scores = 0.0, []
    for index in range(net.depth - 1, -1, -1):
        h, log_h = signals[index]
        size = np.abs(delta).max()
        delta, log_delta = delta / size, log_delta + np.log(size)
        scores.append((np.abs(weights[index] * (delta @ h.T)), log_h + log_delta))
        if index:
            delta = (weights[index].T @ delta) * slopes[index - 1]
            log_delta += np.log(net.layers[index].sigma_w)
    return scores[::-1]


def tangents(name, log_size):
    """Slopes left and right of 0 that an activation has for signals of that size, all far out or all near."""
    if name == "relu":
        return 0.0, 1.0
    if name.startswith("leaky_relu"):
        return 0.3, 1.0
    small = {"tanh": (1.0, 1.0), "gelu": (0.5, 0.5), "elu": (1.0, 1.0), "relu6": (0.0, 1.0)}
    large = {"gelu": (0.0, 1.0), "elu": (0.0, 1.0), "softplus": (0.0, 1.0)}
    return (small if log_size < 0 else large)[name]


def kept_and_critical(scores, sparsity):
    """Kept fraction of every layer under a global ranking, and the critical sparsity."""
    logs = [np.log(np.maximum(s, 1e-300)) + log for s, log in scores]
    ranked = np.sort(np.concatenate([one.ravel() for one in logs]))
    limit = ranked[round(sparsity * len(ranked)) - 1]
    least = min(one.max() for one in logs)
    return np.array([np.mean(one > limit) for one in logs]), np.mean(ranked <= least)


def fewer(depth):
    """Networks that the deepest are predicted from: their cost grows with depth."""
    return 8 if depth > 100 else None


def batch(scale=1.0, size=50, features=40):
    rng = np.random.default_rng(5)
    return scale * rng.standard_normal((size, features)), np.arange(size) % 10


#: Activation, depth, σ_w and the scale of the data. Where the activation is not homogeneous, the data begin
#: where it has its limit already.
FAR = [
    ("relu", 60, 3**-0.5, 1.0),
    ("relu", 100, 4.0, 1.0),
    ("relu", 1000, 3**-0.5, 1.0),
    ("relu", 300, 4.0, 1.0),
    ("relu", 300, 0.1, 1e200),
    ("leaky_relu(0.3)", 250, 10.0, 1e-250),
    ("tanh", 200, 0.2, 1e-20),
    ("gelu", 250, 0.4, 1e-25),
    ("elu", 200, 6.0, 1e25),
    ("softplus", 200, 5.0, 1e25),
    ("relu6", 200, 0.5, 1e-20),
]


@pytest.mark.parametrize(("activation", "depth", "sigma_w", "scale"), FAR)
def test_chains_beyond_the_range_of_floats_keep_what_rescaled_networks_keep(
    activation, depth, sigma_w, scale
):
    net = eoc.mlp(depth, 40, activation=activation, init=(sigma_w, 0.0), in_features=40)
    data = batch(scale)
    prediction = eoc.predict_pruning(net, 0.9, data=data, samples=fewer(depth))
    rng = np.random.default_rng(1)
    runs = [kept_and_critical(rescaled_scores(net, *data, rng), 0.9) for _ in range(6)]
    measured = np.array([kept for kept, _ in runs])
    error = measured.std(axis=0, ddof=1) / np.sqrt(len(measured))
    assert np.abs(prediction.kept - measured.mean(axis=0)).mean() < 0.02 + 2.0 * error.mean()
    gone = np.mean(measured.min(axis=1) == 0)
    # As if the layers were independent, which deep networks show.
    assert abs(prediction.collapse_probability - gone) < 0.5


@pytest.mark.slow
@pytest.mark.parametrize(("activation", "depth", "sigma_w", "scale"), FAR[:5])
def test_chains_beyond_the_range_of_floats_collapse_as_rescaled_networks_do(
    activation, depth, sigma_w, scale
):
    depth = min(depth, 400)
    net = eoc.mlp(depth, 20, activation=activation, init=(sigma_w, 0.0), in_features=20)
    data = batch(scale, size=20, features=20)
    prediction = eoc.predict_collapse(net, data=data, samples=fewer(depth))
    rng = np.random.default_rng(1)
    critical = np.array([kept_and_critical(rescaled_scores(net, *data, rng), 0.9)[1] for _ in range(10)])
    logs, predicted = np.log10(1.0 - critical), np.log10(1.0 - prediction.samples)
    error = np.hypot(logs.std(ddof=1), predicted.std()) / np.sqrt(10)
    assert abs(np.median(predicted) - np.median(logs)) < 0.1 + 3.0 * error


@pytest.mark.parametrize("criterion", ["snip", "grasp"])
@pytest.mark.parametrize("network", ["chain", "convolutional", "residual"])
@pytest.mark.parametrize("way", [(1e-30, 1e-3), (1e-12, 1e-12), (1e25, 1e3), (1e12, 1e12)])
def test_all_small_and_all_large_logits_have_one_ranking_each(criterion, network, way):
    """Whether the scale comes with the data or with the weights, once the softmax is uniform or certain."""
    sigma_w, data_scale = way

    def kept(data_scale, sigma_w):
        if network == "chain":
            net = eoc.mlp(40, 20, activation="relu", in_features=48, init=(sigma_w, 0.0))
        elif network == "convolutional":
            net = eoc.cnn(8, 6, activation="relu", init=(sigma_w, 0.0), input_shape=(3, 4, 4))
        else:
            net = eoc.resnet(8, width=4, normalisation=None, init=(1.0, 0.0), input_shape=(3, 4, 4))
        inputs, targets = batch(data_scale, size=20, features=48)
        return eoc.predict_pruning(net, 0.8, criterion=criterion, data=(inputs, targets), samples=3).kept

    shape = 1e-40 if sigma_w < 1 else 1e40
    reference = kept(shape, np.sqrt(2.0))
    assert (
        np.abs(kept(data_scale * (shape if network == "residual" else 1.0), sigma_w) - reference).max() < 0.02
    )
