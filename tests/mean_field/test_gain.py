"""The gain: σ_w of the edge of chaos, and the weights that initialisers of other libraries make of it."""

from __future__ import annotations

import json
import math
import os
import pickle
from copy import deepcopy

import numpy as np
import pytest
from scipy.integrate import quad

import eoc_theory as eoc
from eoc_theory.cli import main


def mean_square_slope(derivative, q: float) -> float:
    """E[φ'(√q Z)²] by scipy."""
    value, _ = quad(
        lambda z: derivative(math.sqrt(q) * z) ** 2 * math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi), -12, 12
    )
    return value


@pytest.mark.parametrize("q", [0.3, 1.0, 4.0])
def test_gain_keeps_gradients(q):
    gain = eoc.gain("tanh", q=q)
    assert gain**2 * mean_square_slope(lambda x: 1 / math.cosh(x) ** 2, q) == pytest.approx(1.0, abs=1e-9)
    assert gain.sigma_b**2 == pytest.approx(q - float(gain) ** 2 * tanh_square(q), abs=1e-9)


def tanh_square(q: float) -> float:
    return quad(lambda z: math.tanh(math.sqrt(q) * z) ** 2 * math.exp(-z * z / 2), -12, 12)[0] / math.sqrt(
        2 * math.pi
    )


def test_gain_is_a_float_that_knows_its_point():
    gain = eoc.gain("relu")
    assert gain == math.sqrt(2.0) and isinstance(gain, float) and gain.sigma_b == 0.0
    assert f"{gain:.3f}" == "1.414" and str(gain) == repr(float(gain))
    assert repr(gain) == f"Gain({math.sqrt(2.0)!r}, activation='relu', sigma_b=0.0)"
    assert json.dumps(gain) == repr(math.sqrt(2.0))
    for copy in (pickle.loads(pickle.dumps(gain)), deepcopy(gain)):
        assert type(copy) is type(gain) and copy == gain and copy.point == gain.point
    assert eoc.gain("tanh", 0.2) == eoc.edge_of_chaos("tanh", sigma_b=0.2).sigma_w
    assert eoc.gain("relu", dropout=0.5) == pytest.approx(1.0)


def test_what_has_no_gain_is_refused():
    with pytest.raises(eoc.EOCError, match=r"relu has no critical point with sigma_b = 0\.2"):
        eoc.gain("relu", 0.2)
    with pytest.raises(eoc.EOCError, match="give one of sigma_b"):
        eoc.gain("tanh", 0.2, q=1.0)
    with pytest.raises(eoc.EOCError, match="fan_in must be"):
        eoc.gain("relu").std(0)


def test_torch_initialisers_take_it():
    torch = pytest.importorskip("torch")
    gain = eoc.gain("tanh", 0.2)
    torch.manual_seed(0)
    weight = torch.empty(400, 400)
    for fill in (
        lambda: torch.nn.init.orthogonal_(weight, gain=gain),
        lambda: torch.nn.init.xavier_normal_(weight, gain=gain),
        lambda: torch.nn.init.xavier_uniform_(weight, gain=gain),
        lambda: torch.nn.init.normal_(weight, std=gain.std(400)),
    ):
        fill()
        assert float(weight.std()) * 20.0 == pytest.approx(float(gain), rel=0.01)


def test_variance_scaling_keeps_the_variance_that_jax_and_keras_document():
    """Both sample a normal law truncated at ±2 with standard deviation √(scale/fan_in)/0.8796…, its own."""
    scaling = eoc.gain("gelu", q=1.0).variance_scaling
    assert scaling["mode"] == "fan_in" and scaling["distribution"] == "truncated_normal"
    inside = quad(lambda z: math.exp(-z * z / 2), -2, 2)[0]
    truncated = quad(lambda z: z * z * math.exp(-z * z / 2), -2, 2)[0] / inside
    std = math.sqrt(scaling["scale"] / 50) / 0.87962566103423978
    assert std * math.sqrt(truncated) == pytest.approx(eoc.gain("gelu", q=1.0).std(50), rel=1e-12)


def test_jax_and_keras_make_weights_of_that_scale():
    jax = pytest.importorskip("jax")
    gain = eoc.gain("tanh", 0.2)
    make = jax.nn.initializers.variance_scaling(**gain.variance_scaling)
    weight = np.asarray(make(jax.random.PRNGKey(0), (500, 300)))  # (fan_in, fan_out)
    assert weight.std() * math.sqrt(500) == pytest.approx(float(gain), rel=0.01)
    os.environ.setdefault("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    weight = np.asarray(keras.initializers.VarianceScaling(**gain.variance_scaling, seed=0)((500, 300)))
    assert weight.std() * math.sqrt(500) == pytest.approx(float(gain), rel=0.01)


def test_flax_layers_take_it():
    jax = pytest.importorskip("jax")
    linen = pytest.importorskip("flax.linen")
    gain = eoc.gain("tanh", 0.2)
    layer = linen.Dense(
        300,
        kernel_init=jax.nn.initializers.variance_scaling(**gain.variance_scaling),
        bias_init=jax.nn.initializers.normal(gain.sigma_b),
    )
    weights = layer.init(jax.random.PRNGKey(0), np.ones((1, 500)))["params"]
    assert np.asarray(weights["kernel"]).std() * math.sqrt(500) == pytest.approx(float(gain), rel=0.01)
    assert np.asarray(weights["bias"]).std() == pytest.approx(0.2, rel=0.15)


def test_command_prints_what_it_computes(capsys):
    assert main(["gain", "tanh", "--sigma-b", "0.2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    gain = eoc.gain("tanh", 0.2)
    assert found["gain"] == float(gain) and found["sigma_b"] == 0.2
    assert found["variance_scaling"] == gain.variance_scaling
    assert main(["gain", "gelu", "--q", "1"]) == 0
    out = capsys.readouterr().out
    assert f"gain={float(eoc.gain('gelu', q=1))!r}" in out and "VarianceScaling(scale=" in out
    assert main(["gain", "relu", "--sigma-b", "1"]) == 2
    assert "homogeneous" in capsys.readouterr().err
