"""Phases of attention: invariants of the kernels, networks sampled in plain torch, and the result's face."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eoc_theory as eoc
from eoc_theory.errors import ArgumentError, EOCError, TooLargeError
from eoc_theory.gaussian.duals import dual
from eoc_theory.mean_field.attention_blocks import Stack, propagate_stack
from eoc_theory.mean_field.attention_phase import ATTENTION_PHASES
from paper_checks.transformers import Blocks, sample


def one(beta=1.0, alpha=1.0, **options):
    """The phase diagram of one point."""
    return eoc.attention_phase([beta], [alpha], **options)


def trajectory(beta, alpha, *, similarity=0.0, gradient_similarity=0.0, **options):
    usual = {"tokens": 16, "depth": 4, "norm": "pre", "activation": None}
    gains = {"gain": 1.0, "mlp_gain": 1.0, "skip": 1.0}
    stack = Stack(**{**usual, **gains, **options})
    point = np.array([beta]), np.array([alpha])
    return propagate_stack(stack, *point, similarity=similarity, gradient_similarity=gradient_similarity)


# --- kernels ---


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_even_attention_is_pooling(norm):
    """Without scores attention puts out the mean of all tokens, and queries get no gradient."""
    T, alpha, p = 16, 0.7, 0.25
    found = trajectory(0.0, alpha, tokens=T, depth=1, norm=norm, similarity=p, gain=1.5)
    pooled = 1.5**2 * (p + (1 - p) / T)
    total = 1 + alpha**2 * pooled
    assert found.gap[1, 0] == pytest.approx((1 - p) / total, rel=1e-9)
    assert found.variance[1, 0] == pytest.approx(total if norm == "pre" else 1.0, rel=1e-9)
    assert np.isneginf(found.log_query_moment).all()
    assert found.entropy[0, 0] == pytest.approx(np.log(T), rel=1e-9)
    # The pooled branch sends back (1/T) of every gradient: α²g²/T beside the skip path's 1.
    growth = (1 + alpha**2 * 1.5**2 / T) / (1.0 if norm == "pre" else total)
    assert np.exp(found.log_gradient[0, 0]) == pytest.approx(growth, rel=1e-9)


def test_the_mlp_follows_its_duals():
    """Blocks whose attention has no strength are residual networks with the MLP's correlation map."""
    alpha, p = 0.8, 0.3
    found = trajectory(
        1.0, alpha, activation=eoc.activation("tanh"), depth=1, gain=1e-9, mlp_gain=1.3, similarity=p
    )
    c = float(dual("tanh", 1.0, 1.0, p).value) / float(dual("tanh", 1.0, 1.0, 1.0).value)
    slope = float(dual("tanh", 1.0, 1.0, 1.0, order=1).value) / float(dual("tanh", 1.0, 1.0, 1.0).value)
    total = 1 + (alpha * 1.3) ** 2
    assert 1 - found.gap[1, 0] == pytest.approx((p + (alpha * 1.3) ** 2 * c) / total, rel=1e-8)
    assert np.exp(found.log_gradient[0, 0]) == pytest.approx(1 + (alpha * 1.3) ** 2 * slope, rel=1e-8)


@settings(max_examples=60, deadline=None)
@given(
    beta=st.floats(0.0, 30.0), alpha=st.floats(0.01, 5.0), gain=st.floats(0.1, 3.0), skip=st.floats(0.0, 1.0),
    p=st.floats(0.0, 0.99), back=st.floats(0.0, 1.0), norm=st.sampled_from(["pre", "post"]),
    act=st.sampled_from([None, "relu", "tanh"]),
)  # fmt: skip
def test_kernels_stay_kernels(beta, alpha, gain, skip, p, back, norm, act):
    found = trajectory(
        beta, alpha, gain=gain, skip=skip, norm=norm, similarity=p, gradient_similarity=back,
        activation=None if act is None else eoc.activation(act),
    )  # fmt: skip
    assert (found.variance > 0).all() and (found.gap >= 0).all() and (found.gap <= 1 + 1e-9).all()
    # A correlation of T tokens is at least −1/(T − 1).
    assert (found.gradient_similarity >= -1 / 15 - 1e-6).all()
    assert (found.gradient_similarity <= 1 + 1e-9).all()
    assert ((found.entropy >= 0) & (found.entropy <= np.log(16) + 1e-9)).all()
    if norm == "post":
        assert found.variance == pytest.approx(np.ones_like(found.variance))
    assert np.isfinite(found.log_gradient).all() or skip == 0.0


def test_the_sum_of_gradients_passes_through_attention():
    """Rows of attention sum to 1: the values pass the sum over tokens as it is, and the keys add none."""
    T = 16
    for beta, back in ((0.5, 0.0), (3.0, 0.4), (12.0, 1.0)):
        alone = trajectory(beta, 1.0, depth=1, skip=0.0, gradient_similarity=back, similarity=0.5)
        queries = trajectory(beta, 1.0, depth=1, skip=0.0, gradient_similarity=back, similarity=1 - 1e-12)
        same, other = np.exp(queries.log_gradient[0, 0]), queries.gradient_similarity[0, 0]
        assert same * (1 + (T - 1) * other) == pytest.approx(1 + (T - 1) * back, rel=1e-6)
        assert np.isfinite(alone.log_gradient).all()


def test_without_skips_tokens_collapse_cubically():
    found = trajectory(1.5, 1.0, skip=0.0, depth=4, tokens=32, similarity=0.5)
    log_gap = np.log(found.gap[:, 0])
    assert np.diff(log_gap)[2:] / np.diff(log_gap)[1:-1] == pytest.approx(3.0, rel=0.01)
    limit = 1.5**2 * (1 - 1 / 32) / 32 * found.gap[2, 0] ** 3
    assert found.gap[3, 0] == pytest.approx(limit, rel=1e-3)
    assert one(1.5, depth=40, skip=0.0).token_exponent[0, 0] == -np.inf


@pytest.mark.parametrize(
    "net",
    [
        Blocks(256, 4, 24, 4, 1.0, 1.0),
        Blocks(256, 4, 24, 4, 4.0, 0.7, norm="post", similarity=0.2),
        Blocks(256, 4, 24, 4, 2.0, 1.0, activation=None, alike=True, gain=1.3),
        Blocks(256, 4, 24, 4, 6.0, 0.5, activation="relu", alike=True, similarity=0.5, mlp_gain=0.8),
        Blocks(256, 4, 24, 4, 1.0, 0.6, activation="tanh", norm="post", skip=0.5),
    ],
    ids=lambda net: f"{net.norm} {net.activation} {net.score_scale:g}",
)
def test_sampled_networks(net):
    """Two numbers a layer and the score moments of all matrices, in six networks of plain torch."""
    theory, seen = net.theory(), [sample(net, seed) for seed in range(6)]

    def mean(what):
        return np.mean([what(one) for one in seen], axis=0)

    for name in ("gap", "variance"):
        found, law = np.array([getattr(s, name) for s in seen]), getattr(theory, name)[:, 0]
        error = found.std(axis=0, ddof=1) / np.sqrt(len(seen))
        assert (np.abs(found.mean(axis=0) - law) < 4 * error + 0.03 * law).all(), name
    assert mean(lambda s: s.entropy) == pytest.approx(theory.entropy[:, 0], abs=0.15)
    assert mean(lambda s: s.log_gradient) == pytest.approx(theory.log_gradient[:, 0], abs=0.25)
    # The sampled gradient has size 1 for every output and token.
    size = np.log(net.width * net.tokens)
    laws = {"q": theory.log_query_moment, "k": theory.log_query_moment}
    laws |= {"v": theory.log_value_moment, "o": theory.log_value_moment}
    if theory.log_mlp_moments is not None:
        laws |= dict(zip(("w1", "w2"), theory.log_mlp_moments, strict=True))
    for name, law in laws.items():
        assert mean(lambda s, n=name: s.log_moments[n]) - size == pytest.approx(law[:, 0], abs=0.35), name


# --- the result ---


def test_a_grid_is_its_points():
    options = {"tokens": 20, "depth": 6, "norm": "post", "activation": "relu", "similarity": 0.1}
    grid = eoc.attention_phase([0.0, 1.0, 7.0], [0.2, 2.0], **options)
    frame_columns = grid.to_frame().columns[2:]
    assert len(frame_columns) == 7
    for i, alpha in enumerate(grid.residual_strength):
        for j, beta in enumerate(grid.score_scale):
            point = one(beta, alpha, **options)
            for name in frame_columns:
                assert getattr(point, name)[0, 0] == getattr(grid, name)[i, j]


def test_phases_are_what_they_are_called():
    grid = eoc.attention_phase(depth=24, norm="post")
    assert set(np.unique(grid.phase).tolist()) <= set(ATTENTION_PHASES)
    assert sum(grid.share(phase) for phase in ATTENTION_PHASES) == pytest.approx(1.0)
    assert grid.share(grid.phase[0, 0]) == grid.share("trainable") > 0
    growth = grid.gradient_exponent * 24
    assert ((grid.phase == "rank-collapsed") == (grid.similarity > 0.95)).all()
    trainable = grid.phase == "trainable"
    assert trainable.any() and (np.abs(growth[trainable]) <= np.log(1000)).all()
    assert (grid.entropy[trainable] >= np.log(2)).all() and (grid.similarity[trainable] <= 0.95).all()
    # Weak branches and small scores can be trained, strong ones of a deep post-LN stack collapse.
    assert grid.phase[0, 0] == "trainable" and grid.phase[-1, 0] == "rank-collapsed"
    assert grid.phase[0, -1] == "entropy-collapsed"
    assert one(5.0, 4.0).phase[0, 0] == "exploding"
    assert one(0.5, 1.5, norm="post", activation="relu", skip=0.0).phase[0, 0] == "rank-collapsed"


def test_of_two_tokens_a_row_can_attend_to_both():
    assert one(0.3, 0.3, tokens=2).phase[0, 0] == "trainable"
    assert one(30.0, 0.3, tokens=2).phase[0, 0] == "entropy-collapsed"


def test_deep_stacks_overflow_nothing():
    grid = eoc.attention_phase([8.0], [1.0, 5.0], depth=3000, norm="post", activation=None)
    assert np.isfinite(grid.gradient_exponent).all() and np.isfinite(grid.entropy).all()


def test_result_as_table_json_and_text():
    grid = eoc.attention_phase([0.5, 1.0, 9.0], [0.1, 1.0], depth=5, skip=0.0, activation="tanh")
    frame = grid.to_frame()
    assert len(frame) == 6 and frame.score_scale.tolist() == [0.5, 1.0, 9.0] * 2
    assert frame.similarity.tolist() == grid.similarity.ravel().tolist()
    again = eoc.AttentionPhase.from_json(grid.to_json())
    assert again == grid and again.activation == grid.activation
    assert again != one()
    assert json.loads(grid.to_json())["phase"] == grid.phase.tolist()
    alone = one(activation=None)
    assert eoc.AttentionPhase.from_json(alone.to_json()) == alone and "no MLP" in repr(alone)
    assert len(repr(grid)) < 200 and "\n" not in repr(grid)
    assert "rank-collapsed" in grid.summary() and "entropy-collapsed" in grid.summary()
    for text in ("", "{}", "[1]", '{"score_scale": 1}', 3, grid.to_json().replace("tanh", "nothing")):
        with pytest.raises(ArgumentError):
            eoc.AttentionPhase.from_json(text)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"score_scale": [-1.0]}, "score_scale"),
        ({"score_scale": [65.0]}, r"score_scale must be a 1-D array of numbers in \[0, 64\]"),
        ({"score_scale": []}, "score_scale"),
        ({"score_scale": [[1.0]]}, "score_scale"),
        ({"residual_strength": [0.0]}, "residual_strength"),
        ({"residual_strength": ["a"]}, "residual_strength"),
        ({"residual_strength": [np.nan]}, "residual_strength"),
        ({"tokens": 1}, "tokens"),
        ({"depth": 0}, "depth"),
        ({"norm": "batch"}, "'pre', 'post'"),
        ({"activation": "nothing"}, "nothing"),
        ({"activation": "exp(x**2)"}, "activation"),
        ({"gain": 0.0}, "gain"),
        ({"gain": 1e9}, "gain"),
        ({"residual_strength": [1e9]}, "residual_strength"),
        ({"mlp_gain": np.inf}, "mlp_gain"),
        ({"skip": 1.5}, "skip"),
        ({"similarity": 1.0}, "similarity"),
        ({"gradient_similarity": -0.5}, "gradient_similarity"),
        ({"depth": 10**6}, "points times blocks"),
    ],
)  # fmt: skip
def test_wrong_arguments(options, named):
    with pytest.raises(EOCError, match=named):
        eoc.attention_phase(**options)


def test_sizes_have_their_own_error():
    with pytest.raises(TooLargeError):
        eoc.attention_phase(tokens=10**7)


def test_nothing_handed_in_is_changed():
    scales = np.array([2.0, 1.0])
    eoc.attention_phase(scales, [1.0])
    assert scales.tolist() == [2.0, 1.0]


def test_plot(tmp_path):
    grid = eoc.attention_phase(np.linspace(0.0, 8.0, 5), [0.1, 0.5, 2.0], norm="post")
    figure: Any = grid.plot(tmp_path / "phase.png")
    assert (tmp_path / "phase.png").read_bytes().startswith(b"\x89PNG")
    (ax,) = figure.axes
    assert "sigma_q" in ax.get_xlabel() and "post-LN, 12 blocks, 64 tokens" in ax.get_title(loc="left")
    assert grid.plot(ax=ax) is ax
    with pytest.raises(ArgumentError, match="ax must be matplotlib axes"):
        grid.plot(ax="a")
    with pytest.raises(ArgumentError, match="2 x 2"):
        one().plot()
    with pytest.raises(ArgumentError, match="rise or fall"):
        eoc.attention_phase([1.0, 3.0, 2.0], [1.0, 2.0]).plot()
