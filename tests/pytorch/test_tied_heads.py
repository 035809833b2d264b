"""Language models whose last layer's weights are the table of their tokens, against plain torch."""

from __future__ import annotations

import numpy as np
import pytest

import eoc_theory as eoc

torch = pytest.importorskip("torch")
import plain_snip  # noqa: E402

nn, F = torch.nn, torch.nn.functional
TOKENS, VOCABULARY = 12, 150


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.up, self.down = nn.Linear(width, 2 * width, bias=False), nn.Linear(2 * width, width, bias=False)

    def forward(self, x):
        h = self.first(x)
        parts = [
            layer(h).unflatten(2, (self.heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v)
        ]
        x = x + self.o(F.scaled_dot_product_attention(*parts, is_causal=True).transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.second(x))))


class Language(nn.Module):
    """Pre-norm blocks between a table of tokens and the same table, transposed."""

    def __init__(self, width, std, scale=1.0, depth=2):
        super().__init__()
        self.table, self.scale = nn.Embedding(VOCABULARY, width), scale
        self.blocks = nn.ModuleList(Block(width, 4) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, VOCABULARY, bias=False)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=std)
        self.head.weight = self.table.weight

    def forward(self, ids):
        x = self.scale * self.table(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def text(count, seed=0):
    ids = torch.randint(VOCABULARY, (count, TOKENS + 1), generator=torch.Generator().manual_seed(seed))
    return ids[:, :-1], ids[:, 1:]


def measured(make, x, y, sparsities, seeds=12):
    """What SNIP keeps of each Linear layer, (sparsities, layers); the gradient of the head is the table's."""
    found = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        model = make()
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        found.append(plain_snip.kept_and_moments(model, loss, sparsities)[0])
    return np.mean(found, axis=0)


@pytest.mark.parametrize(
    ("width", "std", "scale"),
    [(64, 0.02, 1.0), (128, 0.02, 1.0), (128, 0.08, 1.0), (64, 0.02, 8.0), (128, 0.02, 128**0.5)],
)
def test_kept(width, std, scale):
    x, y = text(8)
    expected = measured(lambda: Language(width, std, scale), x, y, (0.8, 0.95))
    found = eoc.predict_pruning(
        lambda: Language(width, std, scale), [0.8, 0.95], data=(x, y), method="theory", seed=0
    )
    assert found.layers[-1].endswith("head")
    assert np.abs(found.kept - expected).mean() < 0.007
    assert np.abs(found.kept - expected)[:, -1].max() < 0.02


def test_kept_where_some_of_the_inputs_are_drawn():
    x, y = text(160)
    expected = measured(lambda: Language(64, 0.02), x, y, (0.9,))
    found = eoc.predict_pruning(lambda: Language(64, 0.02), [0.9], data=(x, y), method="theory", seed=0)
    assert np.abs(found.kept - expected).mean() < 0.01
