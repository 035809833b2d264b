"""Theory of networks with attention, against transformers written and pruned in plain torch."""

from __future__ import annotations

import math

import numpy as np
import pytest

import eoc_theory as eoc
from eoc_theory.errors import ArgumentError, ModelError
from eoc_theory.networks.queries import attends
from eoc_theory.propagation.channel_plan import LEAST_INPUTS, planned
from eoc_theory.pruning.graph_theory import theory_laws
from eoc_theory.pruning.prediction import allocate_graph

torch = pytest.importorskip("torch")
from plain_snip import kept_and_moments  # noqa: E402

nn, F = torch.nn, torch.nn.functional

SPARSITIES = np.array([0.8, 0.9, 0.95])
DEPTH, WIDTH, HEADS, TOKENS, WORDS, INPUTS, SEEDS = 3, 128, 2, 12, 60, 24, 10


class Block(nn.Module):
    """Attention and an MLP, with LayerNorm before or after, or as Llama has them."""

    def __init__(self, form):
        super().__init__()
        self.form, hidden = form, 8 * WIDTH // 3 if form == "llama" else 4 * WIDTH
        norm = (lambda: nn.RMSNorm(WIDTH, eps=1e-5)) if form == "llama" else (lambda: nn.LayerNorm(WIDTH))
        self.norms = nn.ModuleList([norm(), norm()])
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
        if form == "llama":
            self.gate = nn.Linear(WIDTH, hidden, bias=False)
        self.up, self.down = nn.Linear(WIDTH, hidden, bias=False), nn.Linear(hidden, WIDTH, bias=False)

    def attention(self, x):
        q, k, v = (p(x).view(len(x), TOKENS, HEADS, -1).transpose(1, 2) for p in (self.q, self.k, self.v))
        scores = q @ k.transpose(2, 3) / math.sqrt(WIDTH // HEADS)
        if self.form == "llama":
            scores = scores.masked_fill(torch.ones(TOKENS, TOKENS, dtype=torch.bool).triu(1), -math.inf)
        return self.o((scores.softmax(-1) @ v).transpose(1, 2).reshape(x.shape))

    def mlp(self, x):
        inside = F.silu(self.gate(x)) * self.up(x) if self.form == "llama" else F.gelu(self.up(x))
        return self.down(inside)

    def forward(self, x):
        for norm, branch in zip(self.norms, (self.attention, self.mlp), strict=True):
            x = norm(x + branch(x)) if self.form == "post" else x + branch(norm(x))
        return x


class Network(nn.Module):
    def __init__(self, form):
        super().__init__()
        self.form, self.words = form, nn.Embedding(WORDS, WIDTH)
        self.places = nn.Parameter(torch.randn(TOKENS, WIDTH))
        self.blocks = nn.Sequential(*(Block(form) for _ in range(DEPTH)))
        self.norm = {"pre": nn.LayerNorm(WIDTH), "post": nn.Identity()}.get(form, nn.RMSNorm(WIDTH, eps=1e-5))
        self.head = nn.Linear(WIDTH, 10, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0.0, module.in_features**-0.5)

    def forward(self, x):
        x = self.norm(self.blocks(self.words(x) + self.places))
        return self.head(x[:, -1] if self.form == "llama" else x.mean(1))


def data():
    return np.random.default_rng(0).integers(WORDS, size=(INPUTS, TOKENS)), np.arange(INPUTS) % 10


def architecture(form, **options):
    own = {
        "causal": True, "norm": "rms", "gated": True, "activation": "silu", "readout": "last"
    } if form == "llama" else {"placement": form}  # fmt: skip
    return eoc.transformer(DEPTH, WIDTH, heads=HEADS, vocabulary=WORDS, tokens=TOKENS, **(own | options))


@pytest.fixture(scope="module")
def pruned():
    """Fraction kept (n_s, L) by SNIP and E[(W g)²] (L,), means over networks, of each form."""
    ids, targets = map(torch.as_tensor, data())
    found = {}
    for form in ("pre", "post", "llama"):
        kept, moments = [], []
        for seed in range(SEEDS):
            torch.manual_seed(seed)
            model = Network(form)
            loss = F.cross_entropy(model(ids), targets)
            own = kept_and_moments(model, loss, SPARSITIES)
            kept.append(own[0])
            moments.append(own[1])
        found[form] = np.mean(kept, axis=0), np.mean(moments, axis=0)
    return found


@pytest.mark.parametrize("form", ["pre", "post", "llama"])
def test_what_transformers_keep(pruned, form):
    kept, _ = pruned[form]
    predicted = eoc.predict_pruning(architecture(form), SPARSITIES, data=data(), method="theory")
    assert predicted.method == "theory"
    assert np.abs(predicted.kept - kept).mean() < 0.01
    assert np.abs(predicted.kept - kept).max() < 0.08
    # What is kept differs by far more than that between matrices.
    assert kept[1].max() > 10 * kept[1].min()


@pytest.mark.parametrize("form", ["pre", "llama"])
def test_score_moments_of_every_matrix(pruned, form):
    _, moments = pruned[form]
    found = architecture(form).propagate(data())
    gap = found.log_moment - np.log(moments)
    assert np.abs(gap - gap.mean()).max() < 0.35
    assert np.std(gap) < 0.15 < np.std(np.log(moments))


def test_sampled_and_theory_agree_and_count_the_same_weights():
    net = architecture("pre")
    theory = eoc.predict_pruning(net, SPARSITIES, data=data(), method="theory")
    sampled = eoc.predict_pruning(net, SPARSITIES, data=data(), method="sampled", samples=6)
    assert theory.layers == sampled.layers == net.weight_layers
    assert np.array_equal(theory.weights, sampled.weights)
    assert np.abs(theory.kept - sampled.kept).mean() < 0.01
    collapse = [eoc.predict_collapse(net, data=data(), method=method) for method in ("theory", "sampled")]
    medians = [np.log10(1.0 - one.quantile(0.5)) if hasattr(one, "quantile") else None for one in collapse]
    assert medians[0] is None or abs(medians[0] - medians[1]) < 0.3


def test_a_read_model_counts_the_weights_that_torch_has():
    layer = nn.TransformerEncoderLayer(24, 3, 40, dropout=0.0, batch_first=True)

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = (
                nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
                nn.Linear(24, 5),
            )

        def forward(self, x):
            return self.head(self.body(x).mean(1))

    torch.manual_seed(0)
    model = Encoder()
    inputs = np.random.default_rng(0).standard_normal((20, 6, 24)), np.arange(20) % 5
    theory, sampled = (
        eoc.predict_pruning(model, 0.9, data=inputs, method=method) for method in ("theory", "sampled")
    )
    measured = eoc.measure_pruning(model, 0.9, data=inputs)
    assert theory.layers == sampled.layers == tuple(measured.layers)
    assert np.array_equal(theory.weights, measured.weights)
    assert np.abs(theory.kept - sampled.kept).mean() < 0.03


@pytest.mark.parametrize("criterion", ["magnitude", "grasp", "random"])
def test_other_criteria(criterion):
    net = architecture("pre")
    found = eoc.predict_pruning(net, 0.9, criterion=criterion, data=data(), method="theory")
    total = float((found.kept * found.weights).sum() / found.weights.sum())
    assert total == pytest.approx(0.1, abs=0.01)


def test_synflow_says_that_it_has_no_theory_of_attention():
    with pytest.raises(ModelError, match=r"no SynFlow"):
        eoc.predict_pruning(architecture("pre"), 0.9, criterion="synflow", data=data(), method="theory")


def test_large_networks_are_drawn_with_fewer_heads_and_inputs():
    net = eoc.gpt("llama-2-70b", tokens=16)
    ids = np.random.default_rng(0).integers(32_000, size=(64, 16)), np.zeros(64, dtype=int)
    plan = planned(net, net.summarise(ids), 0)
    assert attends(plan.graph) and not plan.alike and plan.inputs == LEAST_INPUTS
    assert plan.drawn.weight_layers[0].fan_out == 8192 // 8 and plan.drawn.weight_layers[1].fan_out == 128
    assert plan.notes and plan.graph.weight_layers == net.layers
    small = planned(architecture("pre"), architecture("pre").summarise(data()), 0)
    assert small.drawn is small.graph and small.inputs == INPUTS and small.repeats > 1


def test_the_same_bits_for_the_same_seed():
    net = architecture("llama")
    one, two, other = (
        allocate_graph(theory_laws(net, "snip", data(), seed=seed).laws, SPARSITIES)[0] for seed in (1, 1, 2)
    )
    assert np.array_equal(one, two) and not np.array_equal(one, other)


def test_theory_only_options():
    with pytest.raises(ArgumentError, match="method"):
        eoc.predict_pruning(architecture("pre"), 0.9, criterion="snip(rounds=3)", method="theory")
