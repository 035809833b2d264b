"""The scale of queries and keys as a cure in sampled networks: found, promised, and carried out."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

import eoc_theory as eoc
from eoc_theory.errors import ModelError
from eoc_theory.networks.resolve import Options
from eoc_theory.pytorch.sample.door import sampled_network
from eoc_theory.pytorch.sample.score_scale import score_scales
from eoc_theory.reports.diagnosis.remedies import Cure

WIDTH, HEADS, TOKENS, WORDS, CLASSES = 32, 4, 10, 40, 5
IDS = torch.randint(0, WORDS, (16, TOKENS), generator=torch.Generator().manual_seed(5))
DATA = (IDS, torch.arange(16) % CLASSES)
DATA_12 = (np.random.default_rng(0).integers(WORDS, size=(16, 12)), np.arange(16) % CLASSES)


class Packed(nn.Module):
    """torch's own encoder, whose queries, keys and values are rows of one matrix."""

    def __init__(self, pre: bool = True) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 2 * WIDTH, dropout=0.0, batch_first=True, norm_first=pre
        )
        self.words, self.head = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, CLASSES)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, ids):
        return self.head(self.body(self.words(ids)).mean(dim=1))


class Conv1D(nn.Module):
    """As transformers' own: a Linear layer whose weight is (inputs, outputs)."""

    def __init__(self, outputs: int, inputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.02 * torch.randn(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x):
        return torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight).reshape(*x.shape[:-1], -1)


Conv1D.__module__ = "transformers.pytorch_utils"


class Apart(nn.Module):
    """Written as in transformers: attention of its own, with one Linear layer each or a packed Conv1D."""

    def __init__(self, packed: bool, causal: bool = False, normed: bool = False) -> None:
        super().__init__()
        self.packed, self.causal, self.normed = packed, causal, normed
        self.words, self.head = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, CLASSES)
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        if packed:
            self.c_attn = nn.ModuleList(Conv1D(3 * WIDTH, WIDTH) for _ in range(2))
        else:
            for name in ("query", "key", "value"):
                setattr(self, name, nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2)))
        self.out = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2))

    def forward(self, ids, **unused):
        # Control flow that depends on the data: no reader follows it.
        x = self.words(ids if int(ids.sum()) >= 0 else -ids)
        for at, norm in enumerate(self.norms):
            h = norm(x)
            if self.packed:
                q, k, v = self.c_attn[at](h).split(WIDTH, dim=-1)
            else:
                q, k, v = self.query[at](h), self.key[at](h), self.value[at](h)
            q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in (q, k, v))
            if self.normed:
                q, k = nn.functional.normalize(q, dim=-1), nn.functional.normalize(k, dim=-1)
            scores = q @ k.transpose(-2, -1) / math.sqrt(WIDTH / HEADS)
            if self.causal:
                scores = scores + torch.full((TOKENS, TOKENS), -1e9).triu(1)
            mixed = (nn.functional.softmax(scores, dim=-1) @ v).transpose(1, 2).flatten(2)
            x = x + self.out[at](mixed)
        return {"logits": self.head(x[:, -1] if self.causal else x.mean(dim=1))}


def small(model: nn.Module, std: float = 0.02) -> nn.Module:
    """With weights of the scale that GPT-2 and BERT have."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=std)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
    return model


def sharp(model: nn.Module) -> nn.Module:
    """With queries and keys so large that each query attends to single keys."""
    small(model, std=WIDTH**-0.5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "in_proj_weight" in name:
                parameter[: 2 * WIDTH] *= 6.0
            if "c_attn" in name and parameter.ndim > 1:
                parameter[:, : 2 * WIDTH] *= 6.0
    return model


MODELS = {
    "torch's encoder": lambda: sharp(Packed()),
    "own linears": lambda: small(Apart(packed=False)),
    "Conv1D, causal": lambda: sharp(Apart(packed=True, causal=True)),
}


def deviation_by_hand(scores: torch.Tensor) -> float:
    return float(scores.double().var(dim=-1).mean().sqrt())


@pytest.mark.parametrize("name", MODELS)
def test_the_cure_is_found_and_does_what_it_promised(name):
    model = MODELS[name]()
    found = eoc.diagnose(model, data=DATA, method="sampled", sparsity=0.9)
    assert found.cure is not None and "queries and keys" in found.cure.steps[0]
    assert "standard deviation of 1" in found.verdict
    left = [1.0 - one.critical_sparsity for one in (found.before, found.after)]
    assert found.problems and (left[1] < left[0] or found.signals_after.attention_entropy.min() > 0.5)
    cured = copy.deepcopy(model)
    found.cure.apply_(cured)
    again = eoc.predict_pruning(cured, 0.9, data=DATA, method="sampled", seed=7, samples=8)
    assert not any("trained" in note for note in again.notes)
    off = np.abs(again.kept - found.after.kept).mean()
    assert off < 0.012 and off < 0.5 * np.abs(found.kept - found.after.kept).mean()
    # What applies it changes queries and keys alone.
    changed = {
        key for key, value in cured.state_dict().items() if not torch.equal(value, model.state_dict()[key])
    }
    assert len(changed) == (4 if name == "own linears" else 2)
    if name == "torch's encoder":
        weight, before = (m.body.layers[0].self_attn.in_proj_weight for m in (cured, model))
        assert torch.equal(weight[2 * WIDTH :], before[2 * WIDTH :])
        assert bool((weight[: 2 * WIDTH] != before[: 2 * WIDTH]).all())
    if name == "Conv1D, causal":
        weight, before = (m.c_attn[1].weight for m in (cured, model))
        assert torch.equal(weight[:, 2 * WIDTH :], before[:, 2 * WIDTH :])
        assert bool((weight[:, : 2 * WIDTH] != before[:, : 2 * WIDTH]).all())


@pytest.mark.parametrize(("std", "gated"), [(0.01, True), (0.05, True), (0.02, False)])
def test_theory_and_sampled_networks_find_the_same_cure(std, gated):
    net = eoc.transformer(
        2, 48, heads=4, vocabulary=40, tokens=12, classes=5, causal=True, readout="last", gated=gated,
        std=std, embedding_std=0.02,
    )  # fmt: skip
    theory, seen = (eoc.diagnose(net, method=m, sparsity=0.9, data=DATA_12) for m in ("theory", "sampled"))
    assert theory.problems == seen.problems
    assert theory.cure.does == seen.cure.does
    assert set(theory.cure.factors) == set(seen.cure.factors)
    ratios = [seen.cure.factors[key] / factor for key, factor in theory.cure.factors.items()]
    assert np.allclose(ratios, 1.0, atol=0.12)
    left = [1.0 - one.after.critical_sparsity for one in (theory, seen)]
    assert abs(math.log10(left[0] / left[1])) < 0.3


def test_changes_that_theory_and_sampled_networks_rank_differently_are_as_good():
    net = eoc.transformer(
        2, 48, heads=4, vocabulary=40, tokens=12, classes=5, causal=True, readout="last", gated=True,
        std=0.02, embedding_std=0.02,
    )  # fmt: skip
    theory, seen = (eoc.diagnose(net, method=m, sparsity=0.9, data=DATA_12) for m in ("theory", "sampled"))
    assert theory.problems == seen.problems
    by_theory = eoc.predict_collapse(theory.cure.net, data=DATA_12, method="sampled").quantile(0.5)
    assert abs(math.log10((1.0 - by_theory) / (1.0 - seen.after.critical_sparsity))) < 0.2


def test_the_theorys_cure_of_a_packed_projection_is_read_again_as_promised():
    model = sharp(Packed())
    found = eoc.diagnose(model, data=DATA, method="theory", sparsity=0.9)
    runs = found.cure.units["body.layers.0.self_attn.in_proj_weight"]
    assert runs == ((0, 2 * WIDTH),)
    found.cure.apply_(model)
    theory = eoc.predict_pruning(model, 0.9, data=DATA, method="theory")
    sampled = eoc.predict_pruning(model, 0.9, data=DATA, method="sampled", samples=8)
    assert np.abs(theory.kept - found.after.kept).mean() < 0.01
    assert np.abs(theory.kept - sampled.kept).mean() < 0.02
    assert eoc.Diagnosis.from_json(found.to_json()) == found


@pytest.mark.parametrize("name", ["torch's encoder", "own linears", "Conv1D, causal"])
def test_deviations_of_scores_are_those_of_plain_torch(name):
    model = small(MODELS[name](), std=0.3).double()
    net = sampled_network(model, DATA, Options(method="sampled"))
    (first, *_), scales = score_scales(net.sampler, 1, 0), []
    drawn, _ = net.sampler.source.network([0, 0x746F7263, 0])
    ids = IDS[:8]
    if name == "torch's encoder":
        attention = drawn.body.layers[0]
        h = attention.norm1(drawn.words(ids))
        q, k = (h @ w.T for w in attention.self_attn.in_proj_weight.chunk(3)[:2])
    else:
        h = drawn.norms[0](drawn.words(ids))
        q, k = (
            (drawn.query[0](h), drawn.key[0](h))
            if name == "own linears"
            else (drawn.c_attn[0](h).split(WIDTH, dim=-1)[:2])
        )
    q, k = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in (q, k))
    scores = q @ k.transpose(-2, -1) / math.sqrt(WIDTH / HEADS)
    if name == "Conv1D, causal":
        rows = [scores[..., i, : i + 1].double().var(dim=-1) for i in range(1, TOKENS)]
        by_hand = float(torch.stack(rows).mean().sqrt())
    else:
        by_hand = deviation_by_hand(scores)
    assert first.std == pytest.approx(by_hand, rel=1e-4) and first.degree == 2
    assert not scales


def test_normalised_queries_and_excluded_layers_have_no_scale_to_set():
    options = Options(method="sampled")
    normed = sampled_network(small(Apart(packed=False, normed=True)), DATA, options)
    assert score_scales(normed.sampler, 1, 0) == []
    excluded = Options(method="sampled", exclude=("query.*",))
    (first, _) = score_scales(sampled_network(small(Apart(packed=False)), DATA, excluded).sampler, 1, 0)
    assert first.degree == 1 and set(first.weights) == {"key.0"}


def test_what_cannot_be_applied_leaves_the_model_as_it_was():
    found = eoc.diagnose(sharp(Packed()), data=DATA, method="theory", sparsity=0.9)
    other = Apart(packed=False)
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(ModelError, match="must have the weights"):
        found.cure.apply_(other)
    with pytest.raises(ModelError, match=r"torch\.nn\.Module"):
        found.cure.apply_("model")
    with pytest.raises(ModelError, match="no multiplication of weights"):
        Cure(("eoc.initialize_(model)",), "sets the edge of chaos").apply_(other)
    narrow = nn.TransformerEncoderLayer(8, 2, 16)
    with pytest.raises(ModelError):
        found.cure.apply_(narrow)
    assert all(torch.equal(value, before[key]) for key, value in other.state_dict().items())
