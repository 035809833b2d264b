"""Scores counted in bins, against the scores themselves."""

from __future__ import annotations

import numpy as np
import pytest

from eoc_theory.propagation.carried_values import OutOfRangeError, Value
from eoc_theory.propagation.score_grid import GRID
from eoc_theory.propagation.score_samples import layer_samples


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tails_of_scores_of_many_sizes(dtype, signed):
    """With strong rows and columns, as gradients have, and with a third of zeros; more negative ones."""
    rng = np.random.default_rng(0)
    rows, columns = np.exp(2 * rng.standard_normal((300, 1))), np.exp(2 * rng.standard_normal(600))
    columns[::3] = 0.0
    scores = (1e-7 * rows * columns * (rng.standard_normal((300, 600)) - 0.5)).astype(dtype)
    samples = layer_samples(Value(scores, 40), signed=signed)
    log_rms = 0.5 * np.log(np.mean(scores.astype(float) ** 2))
    for sample, counted in zip(samples, (scores, -scores) if signed else (np.abs(scores),), strict=True):
        assert sample.log_rms == pytest.approx(log_rms + 40 * np.log(2))
        assert sample.share == pytest.approx(np.mean(counted > 0))
        alive = np.sort(np.log(counted[counted > 0].astype(float))) - log_rms
        exceeded = 1.0 - np.searchsorted(alive, GRID, side="right") / len(alive)
        assert sample.tail == pytest.approx(exceeded, abs=0.003)
        assert sample.row_maxima == pytest.approx(
            np.log(counted.max(axis=1).astype(float)) - log_rms, abs=1e-5
        )


def test_layer_without_scores():
    (sample,) = layer_samples(Value(np.zeros((3, 4), np.float32)))
    assert sample.log_rms == -np.inf and sample.share == 0.0 and not sample.tail.any()
    assert (sample.row_maxima == -np.inf).all()


def test_scores_beyond_floats_are_no_scores():
    with pytest.raises(OutOfRangeError):
        layer_samples(Value(np.full((3, 4), np.inf)))


def test_values_in_other_units():
    one = Value(np.array([3e-30, 0.0]), 7)
    normal = one.normalised()
    assert 0.5 < normal.values[0] < 2.0
    assert np.ldexp(normal.values[0], normal.exponent) == pytest.approx(3e-30 * 2**7)
    assert normal.within(-50).values[0] == pytest.approx(3e-30 * 2.0**57)
    with pytest.raises(OutOfRangeError):
        normal.within(-5000)
