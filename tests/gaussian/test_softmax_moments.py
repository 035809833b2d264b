"""Moments of attention rows: Monte Carlo of its own, limits, and the table that interpolates them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import entr

from eoc_theory.gaussian.softmax_moments import pair_moments, row_moments
from eoc_theory.gaussian.softmax_tables import softmax_table


def rows(tokens, scale, correlation, count, seed):
    """Two attention rows for each of `count` draws of scores."""
    rng = np.random.default_rng(seed)
    first = rng.standard_normal((count, tokens))
    second = correlation * first + np.sqrt(1 - correlation**2) * rng.standard_normal((count, tokens))

    def softmax(scores):
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    return softmax(scale * first), softmax(scale * second)


@pytest.mark.parametrize(
    ("tokens", "scale", "correlation"),
    [
        (2, 1.0, 0.5), (8, 0.3, 0.9), (8, 3.0, 0.3), (32, 2.0, 0.8), (32, 10.0, 0.95), (64, 20.0, 0.5),
        (5, 50.0, 0.9), (16, 0.1, 0.99), (300, 2.5, 0.0),
    ],
)  # fmt: skip
def test_moments_are_those_of_sampled_rows(tokens, scale, correlation):
    A, B = rows(tokens, scale, correlation, 30_000, seed=tokens)
    square, overlap = (A**2).sum(axis=1), (A * B).sum(axis=1)
    row, pair = row_moments(tokens, scale), pair_moments(tokens, scale, correlation)
    for found, samples in (
        (row.square, square),
        (row.jacobian, (A**2 * (1 - 2 * A + square[:, None])).sum(axis=1)),
        (row.entropy, entr(A).sum(axis=1)),
        (pair.overlap, overlap),
        (pair.jacobian, (A * B * (1 - A - B + overlap[:, None])).sum(axis=1)),
    ):
        assert abs(found - samples.mean()) < 5 * samples.std() / np.sqrt(len(samples)) + 1e-9


def test_two_tokens_by_gauss_hermite():
    """Of two tokens a row is a sigmoid of one number, g₁ − g₂ ~ N(0, 2 s²)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(120)
    weights = weights / weights.sum()
    for scale in (0.2, 1.0, 2.0):
        a = 1 / (1 + np.exp(-np.sqrt(2) * scale * nodes))
        row = row_moments(2, scale)
        assert row.square == pytest.approx(weights @ (a**2 + (1 - a) ** 2), rel=1e-7)
        # diag(A) − AAᵀ of two tokens has four entries of size a(1 − a); a row's share of squares is two.
        assert row.jacobian == pytest.approx(4 * weights @ (a * (1 - a)) ** 2, abs=1e-6)
        entropy = entr(a) + entr(1 - a)
        assert row.entropy == pytest.approx(weights @ entropy, rel=1e-7)


@pytest.mark.parametrize("tokens", [2, 7, 64, 4096])
def test_without_scores_attention_is_uniform(tokens):
    row = row_moments(tokens, 0.0)
    assert row.square == pytest.approx(1 / tokens, rel=1e-9)
    assert row.entropy == pytest.approx(np.log(tokens), rel=1e-9)
    assert row.jacobian == pytest.approx((1 - 1 / tokens) / tokens, rel=1e-8)
    assert pair_moments(tokens, 0.0, 0.5).overlap == pytest.approx(1 / tokens, rel=1e-9)


def test_under_large_scores_attention_is_one_hot():
    for scale in (100.0, 400.0):
        row = row_moments(16, scale)
        assert row.square == pytest.approx(1.0, abs=3 / scale)
        assert row.entropy == pytest.approx(0.0, abs=6 / scale)
        assert 0 <= row.jacobian < 3 / scale


def test_rows_are_independent_or_the_same_in_the_limits():
    for scale in (0.1, 1.0, 6.0):
        assert pair_moments(20, scale, 0.0).overlap == pytest.approx(1 / 20, rel=1e-6)
        row, pair = row_moments(20, scale), pair_moments(20, scale, 1 - 1e-10)
        assert pair.overlap == pytest.approx(row.square, rel=1e-6)
        assert pair.jacobian == pytest.approx(row.jacobian, rel=1e-4)


@settings(max_examples=40, deadline=None)
@given(
    tokens=st.integers(2, 3000), scale=st.floats(0.0, 15.0), correlation=st.floats(0.0, 1.0),
    more=st.floats(1.01, 2.0),
)  # fmt: skip
def test_bounds_and_order(tokens, scale, correlation, more):
    row, pair = row_moments(tokens, scale), pair_moments(tokens, scale, correlation)
    assert 1 / tokens * (1 - 1e-6) <= pair.overlap <= row.square + 1e-7 <= 1 + 1e-6
    assert 0 <= row.entropy <= np.log(tokens) + 1e-9
    # E Σ A² ≥ e^{−entropy} by Jensen; larger scores concentrate attention.
    assert row.square >= np.exp(-row.entropy) * (1 - 1e-6)
    wider = row_moments(tokens, scale * more)
    assert wider.square >= row.square * (1 - 1e-7) and wider.entropy <= row.entropy + 1e-7
    assert -1e-6 <= pair.jacobian <= row.jacobian + 1e-6


@pytest.mark.parametrize("tokens", [2, 16, 256])
def test_the_table_is_the_moments(tokens):
    table, rng = softmax_table(tokens), np.random.default_rng(0)
    for _ in range(60):
        beta = float(np.sinh(rng.uniform(0.05, np.arcsinh(30.0))))
        gap = float(rng.choice([rng.uniform(0.02, 1.0), 10 ** rng.uniform(-4, 0)]))
        found = table(np.array([beta]), np.array([gap]))
        scale = beta * np.sqrt(gap)
        row, pair = row_moments(tokens, scale), pair_moments(tokens, scale, 1 - gap)
        assert found.square[0] == pytest.approx(row.square, rel=1e-3)
        assert found.jacobian[0] == pytest.approx(row.jacobian, rel=1e-3)
        assert found.entropy[0] == pytest.approx(row.entropy, rel=1e-3)
        assert found.pair_jacobian[0] == pytest.approx(pair.jacobian, rel=1e-2)
        if scale > 0.1 and gap > 0.01:
            assert found.difference[0] == pytest.approx(row.square - pair.overlap, rel=2e-3)


def test_nearly_equal_tokens_keep_the_digits_of_their_difference():
    """The difference of two rows goes with the scores' difference, through the softmax's derivative."""
    beta, gap = np.full(5, 2.0), 10.0 ** -np.arange(3, 28, 5)
    found = softmax_table(32)(beta, gap)
    assert found.difference == pytest.approx(4.0 * gap**2 * (1 - 1 / 32) / 32, rel=0.02)
    assert found.difference[1:] == pytest.approx(4.0 * gap[1:] ** 2 * (1 - 1 / 32) / 32, rel=1e-3)


def test_the_transition_at_many_tokens():
    """Scores of variance b² log T freeze at b = √2: b(1 − E Σ A²) goes to √2 above (random energy model)."""
    tokens = 2 ** np.arange(4, 13)
    log_t = np.log(tokens)
    for b in (2.0, 3.0):
        squares = [row_moments(int(t), b * np.sqrt(np.log(t))).square for t in tokens]
        basis = np.stack([np.ones_like(log_t), 1 / log_t, np.log(log_t) / log_t], axis=1)
        limit = np.linalg.lstsq(basis, b * (1 - np.array(squares)), rcond=None)[0][0]
        assert limit == pytest.approx(np.sqrt(2), rel=0.01)
