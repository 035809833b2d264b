"""Logits of every token by theory, against causal transformers written and pruned in plain torch."""

from __future__ import annotations

import math

import numpy as np
import pytest

import eoc_theory as eoc
from eoc_theory.errors import DataError, ModelError

torch = pytest.importorskip("torch")
from plain_snip import kept_and_moments  # noqa: E402

nn, F = torch.nn, torch.nn.functional

SPARSITIES = np.array([0.8, 0.9, 0.95])
DEPTH, WIDTH, HEADS, TOKENS, WORDS, INPUTS, SEEDS = 3, 128, 2, 12, 40, 12, 10


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)])
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH, bias=False), nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x):
        y = self.norms[0](x)
        q, k, v = (p(y).view(len(x), TOKENS, HEADS, -1).transpose(1, 2) for p in (self.q, self.k, self.v))
        scores = q @ k.transpose(2, 3) / math.sqrt(WIDTH // HEADS)
        scores = scores.masked_fill(torch.ones(TOKENS, TOKENS, dtype=torch.bool).triu(1), -math.inf)
        x = x + self.o((scores.softmax(-1) @ v).transpose(1, 2).reshape(x.shape))
        return x + self.down(F.gelu(self.up(self.norms[1](x))))


class LanguageModel(nn.Module):
    """Logits (B, T, words)."""

    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, WIDTH), nn.Parameter(torch.randn(TOKENS, WIDTH))
        self.blocks = nn.Sequential(*(Block() for _ in range(DEPTH)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WORDS, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0.0, module.in_features**-0.5)

    def forward(self, ids):
        return self.head(self.norm(self.blocks(self.words(ids) + self.places)))


def texts(kind):
    """Token numbers and targets: the next token (the last one's is ignored), anything, or a few's."""
    ids = np.random.default_rng(0).integers(WORDS, size=(INPUTS, TOKENS))
    if kind == "next":
        return ids, np.concatenate([ids[:, 1:], np.full((INPUTS, 1), -100)], axis=1)
    targets = np.random.default_rng(1).integers(WORDS, size=ids.shape)
    if kind == "few":
        targets[:, :-3] = -100
    return ids, targets


def architecture(**options):
    own = {"heads": HEADS, "vocabulary": WORDS, "tokens": TOKENS, "causal": True, "classes": WORDS}
    return eoc.transformer(DEPTH, WIDTH, **({"readout": "tokens"} | own | options))


def measured(kind):
    """What SNIP keeps (n_s, L) and E[(W g)²] (L,), means over networks."""
    ids, targets = map(torch.as_tensor, texts(kind))
    kept, moments = [], []
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        model = LanguageModel()
        loss = F.cross_entropy(model(ids).reshape(-1, WORDS), targets.reshape(-1))
        own = kept_and_moments(model, loss, SPARSITIES)
        kept.append(own[0])
        moments.append(own[1])
    return np.mean(kept, axis=0), np.mean(moments, axis=0)


@pytest.mark.parametrize("kind", ["next", "any", "few"])
def test_what_language_models_keep(kind):
    kept, moments = measured(kind)
    net = architecture()
    predicted = eoc.predict_pruning(net, SPARSITIES, data=texts(kind), method="theory")
    assert predicted.method == "theory"
    assert np.abs(predicted.kept - kept).mean() < 0.01
    gap = net.propagate(texts(kind)).log_moment - np.log(moments)
    assert np.abs(gap - gap.mean()).max() < 0.4
    assert np.std(gap) < 0.15


def test_the_loss_is_not_that_of_one_token():
    """A head that every token shares is not the head of the last token."""
    ids, targets = texts("any")
    every = eoc.predict_pruning(architecture(), 0.9, data=(ids, targets), method="theory")
    last = architecture(readout="last")
    one = eoc.predict_pruning(last, 0.9, data=(ids, targets[:, -1]), method="theory")
    assert abs(every.kept[-1] - one.kept[-1]) > 0.05


def test_read_from_torch_as_built():
    torch.manual_seed(0)
    ids, targets = map(torch.as_tensor, texts("next"))
    read = eoc.Architecture.from_torch(LanguageModel(), ids)
    assert read.as_graph().output_shape == architecture().as_graph().output_shape
    assert [(one.fan_in, one.fan_out) for one in read] == [
        (one.fan_in, one.fan_out) for one in architecture()
    ]
    found = eoc.predict_pruning(LanguageModel(), 0.9, data=(ids, targets), method="theory")
    built = eoc.predict_pruning(architecture(), 0.9, data=texts("next"), method="theory")
    assert np.abs(found.kept - built.kept).mean() < 0.01
    sampled = eoc.predict_pruning(LanguageModel(), 0.9, data=(ids, targets), method="sampled", samples=6)
    assert found.layers == sampled.layers
    assert np.abs(found.kept - sampled.kept).mean() < 0.01


def test_sampled_networks_of_an_architecture_have_the_same_logits():
    net, data = architecture(), texts("next")
    model = net.to_torch(seed=0)
    ids = torch.as_tensor(data[0])
    assert model(ids).shape == (INPUTS, TOKENS, WORDS)
    again = eoc.Architecture.from_torch(model, ids)
    assert again.as_graph().output_shape == net.as_graph().output_shape
    theory, sampled = (
        eoc.predict_pruning(net, 0.9, data=data, method=method) for method in ("theory", "sampled")
    )
    assert np.abs(theory.kept - sampled.kept).mean() < 0.01


def test_diagnosed():
    found = eoc.diagnose(architecture(), data=texts("next"), method="theory")
    assert found.method == "theory" and found.signals.token_similarity.shape == (len(found.layers),)


def test_targets_that_do_not_fit():
    ids, targets = texts("any")
    with pytest.raises(DataError, match=r"targets must have shape \(12, 12\), got \(12,\)"):
        eoc.predict_pruning(architecture(), 0.9, data=(ids, targets[:, 0]), method="theory")
    one = eoc.transformer(1, 64, vocabulary=WORDS, tokens=TOKENS, classes=WORDS)
    with pytest.raises(DataError, match=r"targets must have shape \(12,\), got \(12, 12\)"):
        eoc.predict_pruning(one, 0.9, data=(ids, targets), method="theory")
    with pytest.raises(DataError, match="0 to 39, got"):
        eoc.predict_pruning(architecture(), 0.9, data=(ids, targets - 7), method="theory")
    with pytest.raises(DataError, match="-100"):
        eoc.predict_pruning(architecture(), 0.9, data=(ids, 0 * targets - 100), method="theory")


def test_grasp_is_refused_by_name():
    with pytest.raises(ModelError, match=r"grasp of logits of every token"):
        eoc.predict_pruning(architecture(), 0.9, criterion="grasp", data=texts("any"), method="theory")


def test_without_attention_logits_are_a_vector():
    model = nn.Sequential(nn.Embedding(WORDS, 16), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 5))
    with pytest.raises(ModelError, match="vector"):
        eoc.Architecture.from_torch(model, (4, 6))


def test_a_summary_of_tokens_shows_itself():
    ids, targets = texts("next")
    batch = eoc.DataSummary(ids.astype(float), targets, WORDS)
    assert eoc.DataSummary.from_json(batch.to_json()) == batch
    assert batch.to_frame().shape == (INPUTS, 2 * TOKENS) and "classes" in str(batch)
    assert batch.take(np.arange(3)).targets.shape == (3, TOKENS)
    stand_in = architecture().summarise()
    assert stand_in.targets.shape == (stand_in.size, TOKENS)
