"""Kernels of networks with attention, against networks sampled in plain torch and closed forms."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest

import eoc_theory as eoc
from eoc_theory.propagation.channel_kernels import propagate_channels

torch = pytest.importorskip("torch")
F = torch.nn.functional
WIDTH, HEADS, TOKENS, WORDS, INPUTS, BLOCKS = 384, 6, 10, 40, 6, 4


def ids():
    return np.random.default_rng(3).integers(WORDS, size=(INPUTS, TOKENS))


def cosines(x):
    """Mean over pairs of tokens of one input, x (B, T, d)."""
    normal = F.normalize(x, dim=-1)
    gram = normal @ normal.transpose(1, 2)
    return float((gram.sum() - INPUTS * TOKENS) / (INPUTS * TOKENS * (TOKENS - 1)))


def sampled(seeds=16, sigma_qk=1.0):
    """Mean square and token cosine of a pre-norm transformer's stream after every block, and the entropy."""
    q, similarity, entropy = [], [], []
    for seed in range(seeds):
        g = torch.Generator().manual_seed(seed)

        def weight(out, inputs, scale=1.0, g=g):
            return torch.randn(out, inputs, generator=g) * scale / math.sqrt(inputs)

        words, places = (torch.randn(n, WIDTH, generator=g) for n in (WORDS, TOKENS))
        x = words[torch.as_tensor(ids())] + places
        own = []
        for _ in range(BLOCKS):
            h = F.layer_norm(x, (WIDTH,))
            qs, ks, vs = (
                (h @ weight(WIDTH, WIDTH, scale).T).view(INPUTS, TOKENS, HEADS, -1).transpose(1, 2)
                for scale in (math.sqrt(sigma_qk), math.sqrt(sigma_qk), 1.0)
            )
            a = (qs @ ks.transpose(2, 3) / math.sqrt(WIDTH // HEADS)).softmax(-1)
            entropy.append(float(-(a * a.log()).sum(-1).mean() / math.log(TOKENS)))
            x = x + (a @ vs).transpose(1, 2).reshape(x.shape) @ weight(WIDTH, WIDTH).T
            h = F.layer_norm(x, (WIDTH,))
            x = x + F.gelu(h @ weight(4 * WIDTH, WIDTH).T) @ weight(WIDTH, 4 * WIDTH).T
            own.append((float(x.square().mean()), cosines(x)))
        q.append([one for one, _ in own])
        similarity.append([one for _, one in own])
    return np.mean(q, axis=0), np.mean(similarity, axis=0), np.mean(np.reshape(entropy, (seeds, -1)), axis=0)


@pytest.mark.parametrize("sigma_qk", [1.0, 9.0])
def test_streams_of_transformers(sigma_qk):
    q, similarity, entropy = sampled(sigma_qk=sigma_qk)
    net = eoc.transformer(BLOCKS, WIDTH, heads=HEADS, vocabulary=WORDS, tokens=TOKENS, sigma_qk=sigma_qk)
    found = net.propagate((ids(), np.arange(INPUTS)))
    last = [i for i, name in enumerate(found.sums) if name.endswith("add2")]
    assert found.sum_q[last] == pytest.approx(q, rel=0.04)
    assert found.sum_similarity[last] == pytest.approx(similarity, abs=0.02)
    assert found.entropy == pytest.approx(entropy, abs=0.02)
    assert found.layers == net.weight_layers and len(found.attentions) == BLOCKS
    for values in (found.q, found.similarity, found.log_moment, found.log_gradient, found.q_error):
        assert values.shape == (len(net),)
    assert np.isfinite(found.log_moment).all() and np.isfinite(found.log_gradient).all()
    assert (found.q_error[:-1] < 0.1 * found.q[:-1]).all()
    assert found.q[0] == pytest.approx(math.sqrt(sigma_qk) ** 2, rel=0.1)


def test_tokens_become_alike_without_residual_branches():
    """Scores that are all the same average all tokens: cosine 1 after one layer (Dong et al. 2021)."""
    net = eoc.transformer(
        3, 192, heads=3, vocabulary=WORDS, tokens=TOKENS, sigma_qk=1e-6, residual=100.0, positions=None
    )
    found = net.propagate((ids(), np.arange(INPUTS)))
    assert found.entropy == pytest.approx(1.0, abs=1e-3)
    assert found.score_std == pytest.approx(0.0, abs=1e-3)
    assert (np.diff(found.sum_similarity[::2]) > -0.02).all() and found.sum_similarity[-1] > 0.9


@pytest.mark.parametrize("causal", [False, True])
def test_sharp_scores_attend_to_one_key(causal):
    """Weights of most keys are 0 in floats, but their scores are what they are."""
    net = eoc.transformer(2, 192, heads=3, vocabulary=WORDS, tokens=TOKENS, sigma_qk=1e4, causal=causal)
    found = net.propagate((ids(), np.arange(INPUTS)))
    assert (found.entropy < 0.02).all()
    # Tokens are independent but for those that are the same word.
    assert found.score_std[0] == pytest.approx(1e4, rel=0.1)


def test_causal_scores_count_the_keys_that_are_seen():
    net = eoc.transformer(1, 192, heads=3, vocabulary=WORDS, tokens=TOKENS, sigma_qk=1e-6, causal=True)
    found = propagate_channels(net, (ids(), np.arange(INPUTS)))
    assert found.entropy == pytest.approx(1.0, abs=1e-4)


def test_images_of_many_positions_are_seen_in_patches():
    """224 × 224 positions have a covariance of 19 GiB; their 49 patches have one of 20 kB."""
    net = eoc.vit(None, depth=1, width=16, heads=2, patch=32, input_shape=(3, 224, 224), classes=10)
    data = np.random.default_rng(0).standard_normal((20, 3, 224, 224)), np.arange(20) % 10
    tracemalloc.start()
    try:
        found = net.propagate(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.5e9
    assert found.q[0] == pytest.approx(0.02**2 * 3 * 32**2, rel=0.2)
