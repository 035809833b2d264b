"""Normalisation written out by hand, in the spellings that people use."""

from __future__ import annotations

import numpy as np
import pytest

import eoc_theory as eoc
from eoc_theory import layers as kinds
from eoc_theory.errors import ModelError

torch = pytest.importorskip("torch")
import graph_values  # noqa: E402
import plain_snip  # noqa: E402

nn, F = torch.nn, torch.nn.functional


def layers_of(graph, kind):
    return [node.layer for node in graph.nodes if isinstance(node.layer, kind)]


SPELLINGS = {
    "pow": lambda x, d: (x - x.mean(d, keepdim=True)) / torch.sqrt(
        (x - x.mean(d, keepdim=True)).pow(2).mean(d, keepdim=True) + 1e-3
    ),
    "var": lambda x, d: (
        (x - x.mean(d, keepdim=True)) * (x.var(d, keepdim=True, unbiased=False) + 1e-3) ** -0.5
    ),
    "unbiased": lambda x, d: (x - x.mean(d, keepdim=True)) / torch.sqrt(x.var(d, keepdim=True) + 1e-3),
    "std": lambda x, d: 2.0 * (x - x.mean(d, keepdim=True)) / (x.std(d, keepdim=True) + 1e-8),
    "var_mean": lambda x, d: (
        (x - torch.var_mean(x, d, keepdim=True)[1])
        * torch.rsqrt(torch.var_mean(x, d, keepdim=True, correction=0)[0] + 1e-3)
    ),
    "moments": lambda x, d: (x - x.mean(d, keepdim=True)) * torch.rsqrt(
        (x**2).mean(d, keepdim=True) - x.mean(d, keepdim=True) ** 2 + 1e-3
    ),
    "rms": lambda x, d: 3.0 * x * torch.rsqrt((x * x).mean(d, keepdim=True) + 1e-3),
    "rms of a multiple": lambda x, d: 3.0 * x / torch.sqrt((5.0 * x).square().mean(d, keepdim=True) + 1e-3),
    "length": lambda x, d: x / (x.norm(dim=d, keepdim=True) * x.shape[d] ** -0.5 + 1e-8),
    "reciprocal": lambda x, d: x * (1.0 / x.pow(2).mean(d, keepdim=True).add(1e-3).sqrt()),
    "normalize": lambda x, d: F.normalize(x, dim=d) * x.shape[d] ** 0.5,
}  # fmt: skip
CENTRED = ("pow", "var", "unbiased", "std", "var_mean", "moments")
spellings = pytest.mark.parametrize("spelling", [*SPELLINGS, "layer_norm", "rms_norm"])


def norm(spelling, x, dim=-1):
    if spelling == "layer_norm":
        return F.layer_norm(x.transpose(dim, -1), (x.shape[dim],)).transpose(dim, -1)
    if spelling == "rms_norm":
        return F.rms_norm(x.transpose(dim, -1), (x.shape[dim],), eps=1e-3).transpose(dim, -1)
    return SPELLINGS[spelling](x, dim)


class OfChannels(nn.Module):
    """Of the channels of an image after a convolution and after an activation."""

    def __init__(self, spelling):
        super().__init__()
        self.spelling = spelling
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = torch.relu(norm(self.spelling, self.first(x), 1)) + 0.5
        return self.head(norm(self.spelling, self.second(norm(self.spelling, x, 1)), 1).mean((2, 3)))


class OfHeads(nn.Module):
    """Of the queries and keys of each head."""

    def __init__(self, spelling, width=16):
        super().__init__()
        self.spelling = spelling
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.scale = nn.Parameter(torch.ones(width // 2))
        self.head = nn.Linear(width, 4)

    def forward(self, x):
        q, k, v = (layer(x).unflatten(2, (2, -1)) for layer in (self.q, self.k, self.v))
        q, k = self.scale * norm(self.spelling, q), norm(self.spelling, k) * self.scale
        made = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        return self.head(self.out(made.transpose(1, 2).flatten(2)).mean(1))


@spellings
def test_of_channels(spelling):
    torch.manual_seed(0)
    graph = graph_values.checked(OfChannels(spelling), torch.randn(2, 3, 7, 7))
    wanted = kinds.UnitLength if spelling == "normalize" else kinds.ChannelNorm
    found = layers_of(graph, wanted)
    assert [layer.centred for layer in found] == [spelling in (*CENTRED, "layer_norm")] * 3


@spellings
def test_of_vectors(spelling):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(6, 12), nn.Linear(12, 4)

        def forward(self, x):
            return self.head(torch.tanh(norm(spelling, self.body(x))))

    torch.manual_seed(0)
    graph_values.checked(Model(), torch.randn(2, 6))


@spellings
def test_of_queries_and_keys(spelling):
    torch.manual_seed(0)
    graph = graph_values.checked(OfHeads(spelling), torch.randn(2, 5, 16))
    assert [layer.heads for layer in layers_of(graph, kinds.UnitLength)] == [2, 2]


@pytest.mark.parametrize("spelling", ["rms", "layer_norm"])
def test_kept_of_normalised_queries_and_keys(spelling):
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(16, 5, 64, generator=generator), torch.arange(16) % 4
    found = eoc.predict_pruning(lambda: OfHeads(spelling, 64), 0.9, data=(x, y), method="theory", seed=0)
    measured = []
    for seed in range(12):
        torch.manual_seed(seed)
        model = OfHeads(spelling, 64)
        ((kept,), _) = plain_snip.kept_and_moments(model, F.cross_entropy(model(x), y), [0.9])
        measured.append(kept)
    assert found.kept == pytest.approx(np.mean(measured, axis=0), abs=0.02)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: x / x.std(1, keepdim=True),
        lambda x: (x - x.mean(1, keepdim=True)).abs(),
        lambda x: (x - x.mean(1, keepdim=True)) / torch.sqrt(x.flip(1).var(1, keepdim=True)),
        lambda x: x / x.var((2, 3), keepdim=True),
        lambda x: (x - 2.0 * x.mean(1, keepdim=True)) / x.std(1, keepdim=True),
        lambda x: x * torch.rsqrt((2.0 * x + 1.0).square().mean(1, keepdim=True)),
        lambda x: (x - x.mean(1, keepdim=True)) / x.pow(2).mean(1, keepdim=True).sqrt(),
    ],
)
def test_what_is_no_norm_is_refused(wrong):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)

        def forward(self, x):
            return self.head(wrong(self.body(x)).mean((2, 3)))

    with pytest.raises(ModelError):
        eoc.Architecture.from_torch(Model(), torch.randn(2, 3, 7, 7))


def test_a_mean_over_channels_that_is_used_otherwise():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.gate, self.head = (
                nn.Conv2d(3, 8, 3),
                nn.Conv2d(1, 1, 3, padding=1),
                nn.Linear(8, 4),
            )

        def forward(self, x):
            x = self.body(x)
            return self.head((x * torch.sigmoid(self.gate(x.mean(1, keepdim=True)))).mean((2, 3)))

    torch.manual_seed(0)
    graph = graph_values.checked(Gated(), torch.randn(2, 3, 7, 7))
    assert len(layers_of(graph, kinds.ChannelMean)) == 1
