"""Two numbers for a batch against the whole batch's kernels."""

from __future__ import annotations

import numpy as np
import pytest

import eoc_theory as eoc
from eoc_theory.propagation.infinite_width import propagate
from eoc_theory.propagation.summary import propagate_summary
from eoc_theory.signals.data import DataSummary


@pytest.mark.parametrize(("activation", "init"), [("tanh", "eoc"), ("relu", "eoc"), ("elu", (1.0, 0.2))])
@pytest.mark.parametrize("correlation", [0.6, 0.0, -0.02])
def test_exchangeable_batches(activation, init, correlation):
    """Inputs with exactly these inner products: kernels and moments are those of the B × B recursion."""
    size, features = 30, 40
    gram = 1.5 * ((1 - correlation) * np.eye(size) + correlation) * features
    inputs = np.zeros((size, features))
    inputs[:, :size] = np.linalg.cholesky(gram)
    net = eoc.mlp(12, 50, activation=activation, init=init, in_features=features)
    whole = propagate(net, DataSummary(inputs, np.arange(size) % 10, 10))
    short = propagate_summary(net, variance=1.5, correlation=correlation, batch=size)
    assert short.q == pytest.approx(whole.q, rel=1e-4)
    assert short.c == pytest.approx(whole.c, abs=1e-4)
    # The loss's gradient is sampled in both: its common scale drops out between layers.
    assert np.diff(short.log_moment) == pytest.approx(np.diff(whole.log_moment), abs=0.05)
    assert short.log_moment == pytest.approx(whole.log_moment, abs=0.2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variance": 0.0}, "variance must be a number > 0"),
        ({"batch": 1}, "batch must be a whole number >= 2"),
        ({"correlation": -0.5}, r"correlation must lie in \[-1/\(batch-1\), 1\]"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(eoc.EOCError, match=message):
        propagate_summary(eoc.mlp(3, 10), **arguments)
