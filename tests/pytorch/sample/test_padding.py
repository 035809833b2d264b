"""Batches of texts of unlike lengths: sampled networks against plain torch, and what theory reads."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

import eoc_theory as eoc
from eoc_theory.criteria.criterion import criterion
from eoc_theory.errors import EOCError
from eoc_theory.networks.resolve import Options
from eoc_theory.pytorch.sample.door import sampled_network
from eoc_theory.pytorch.sample.observe import observe

WORDS, WIDTH, HEADS, CLASSES, SIZE, TOKENS = 40, 16, 2, 4, 6, 9
GENERATOR = torch.Generator().manual_seed(2)
IDS = torch.randint(1, WORDS, (SIZE, TOKENS), generator=GENERATOR)
LENGTHS = torch.tensor([9, 3, 5, 9, 2, 7])
KEPT = torch.arange(TOKENS)[None] < LENGTHS[:, None]
LABELS = torch.arange(SIZE) % CLASSES
PADDED = IDS.masked_fill(~KEPT, 0)
NEXT = torch.roll(IDS, -1, 1).masked_fill(~KEPT, -100) % WORDS * KEPT + -100 * ~KEPT


class Own(nn.Module):
    """Written as in transformers: inputs by name, a mask that is added to the scores, logits in an object."""

    def __init__(self, language: bool = False) -> None:
        super().__init__()
        self.language = language
        self.words = nn.Embedding(WORDS, WIDTH)
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.head = nn.Linear(WIDTH, WORDS if language else CLASSES)

    def forward(self, input_ids, attention_mask=None):
        x = self.words(input_ids)
        q, k, v = (
            one(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for one in (self.query, self.key, self.value)
        )
        scores = q @ k.transpose(-2, -1) / math.sqrt(WIDTH / HEADS)
        if attention_mask is not None:
            scores = scores + (1.0 - attention_mask[:, None, None].to(scores.dtype)) * -1e4
        x = x + self.out((scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2))
        if self.language:
            return SimpleNamespace(logits=self.head(x))
        kept = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        pooled = (x * kept[..., None]).sum(1) / kept.sum(1, keepdim=True)
        return SimpleNamespace(logits=self.head(pooled))


class Torchs(nn.Module):
    """torch's own encoder; a mask of its own from token 0, or one that is given, or none."""

    def __init__(self, own: bool = False) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 2 * WIDTH, dropout=0.0, batch_first=True)
        self.words, self.head, self.own = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, CLASSES), own
        self.body = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def forward(self, ids, padding=None):
        padding = ids == 0 if self.own else padding
        return self.head(self.body(self.words(ids), src_key_padding_mask=padding)[:, 0])


CASES = {
    "transformers": (lambda: Own(), {"input_ids": PADDED, "attention_mask": KEPT.long(), "labels": LABELS}),
    "language": (
        lambda: Own(language=True),
        {"input_ids": PADDED, "attention_mask": KEPT.long(), "labels": NEXT},
    ),
    "torch's": (lambda: Torchs(), ((PADDED, ~KEPT), LABELS)),
    "of its own": (lambda: Torchs(own=True), (PADDED, LABELS)),
}


def alone(model: nn.Module, at: int) -> torch.Tensor:
    """The loss's sum over one text's targets, of the text without its padding and without a mask."""
    length = int(LENGTHS[at])
    if isinstance(model, Torchs):
        model.own = False
        return F.cross_entropy(model(IDS[at : at + 1, :length]), LABELS[at : at + 1], reduction="sum")
    logits = model(IDS[at : at + 1, :length]).logits
    if model.language:
        return F.cross_entropy(logits[0], NEXT[at, :length], reduction="sum")
    return F.cross_entropy(logits, LABELS[at : at + 1], reduction="sum")


@pytest.mark.parametrize("name", CASES)
def test_scores_are_those_of_the_texts_without_padding(name):
    make, data = CASES[name]
    torch.manual_seed(0)
    net = sampled_network(make(), data, Options(method="sampled"))
    sampling = net.sampler.sample(criterion("snip"), 1, 0, 1, 1)
    model, weights = net.sampler.source.network([0, 0x746F7263, 0])
    model = model.double().requires_grad_(True)
    count = int((NEXT >= 0).sum()) if name == "language" else SIZE
    loss = sum(alone(model, at) for at in range(SIZE)) / count
    gradients = torch.autograd.grad(loss, [weight.tensor for weight in weights])
    for weight, gradient, seen in zip(weights, gradients, sampling.networks[0].signs[0], strict=True):
        by_hand = float((weight.tensor * gradient).detach().square().mean().log()) / 2
        assert seen.log_rms == pytest.approx(by_hand, abs=1e-3), weight.name


def test_tokens_of_padding_are_none_of_an_inputs_tokens():
    make, data = CASES["transformers"]
    torch.manual_seed(0)
    net = sampled_network(make(), data, Options(method="sampled"))
    found = observe(net.sampler, 1, 0)
    model, _ = net.sampler.source.network([0, 0x746F7263, 0])
    cosines = []
    for at in range(SIZE):
        rows = F.normalize(model.value(model.words(IDS[at, : LENGTHS[at]])), dim=-1)
        pairs = (rows @ rows.T)[torch.triu_indices(len(rows), len(rows), 1).unbind()]
        cosines.append(float(pairs.mean()))
    at = [layer.name for layer in net].index("value")
    assert found.token_similarity[at] == pytest.approx(np.mean(cosines), abs=1e-5)
    assert np.isfinite(found.attention_entropy).all()


def test_a_network_that_was_read_without_a_mask_takes_none():
    read = eoc.Architecture.from_torch(Torchs(), PADDED)
    with pytest.raises(EOCError, match=r"attention mask.*method='sampled'"):
        eoc.predict_pruning(read, 0.5, data=((PADDED, ~KEPT), LABELS))


class Silenced(Torchs):
    """Padding halves, which is no mask of attention."""

    def forward(self, ids):
        known = (ids != 0).unsqueeze(-1)
        return self.head(self.body(self.words(ids) * (0.5 + 0.5 * known))[:, 0])


class Spelled(nn.Module):
    """Two layers of attention whose keys of padding are closed in one of the spellings of published code."""

    def __init__(self, spelling: str) -> None:
        super().__init__()
        self.spelling, self.causal = spelling, "causal" in spelling
        self.words, self.head = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, CLASSES)
        self.qkv = nn.ModuleList(nn.Linear(WIDTH, 3 * WIDTH) for _ in range(2))
        self.out = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2))

    def forward(self, ids):
        x, known = self.words(ids), ids != 0
        later = torch.full((TOKENS, TOKENS), -math.inf, dtype=x.dtype).triu(1)
        for qkv, out in zip(self.qkv, self.out, strict=True):
            q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in qkv(x).chunk(3, dim=-1))
            scores = q @ k.transpose(-2, -1) / math.sqrt(WIDTH / HEADS)
            if self.spelling == "one function":
                mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=known[:, None, None, :])
            elif self.spelling == "one function, causal":
                both = known[:, None, None, :] & (later == 0)
                mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=both)
            elif self.spelling == "filled":
                mixed = scores.masked_fill(~known[:, None, None], -1e9).softmax(dim=-1) @ v
            elif self.spelling == "where":
                closed = torch.tensor(-1e9, dtype=x.dtype)
                mixed = torch.where(known.unsqueeze(1).unsqueeze(2), scores, closed).softmax(dim=-1) @ v
            else:
                added = (1.0 - known[:, None, None, :].to(x.dtype)) * torch.finfo(torch.float32).min
                scores = scores + added
                mixed = (scores + later if self.causal else scores).softmax(dim=-1) @ v
            x = x + out(mixed.transpose(1, 2).flatten(2))
        return self.head(x[:, -1] if self.causal else x[:, 0])


SPELLINGS = ("one function", "one function, causal", "filled", "where", "added", "added, causal")


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_masks_of_padding_are_read_in_every_spelling(spelling):
    torch.manual_seed(0)
    model = Spelled(spelling)
    read = eoc.Architecture.from_torch(model, PADDED)
    attending = [node for node in read.as_graph().nodes if node.layer.attends]
    assert len(attending) == 2 and all(len(node.inputs) == 4 for node in attending)
    assert all(node.layer.causal == ("causal" in spelling) for node in attending)
    # The network that is built is the same function once it has the same weights.
    built, own = read.to_torch(0).double(), dict(model.double().named_parameters())
    shared = {name.replace(".weight.weight", ".weight"): value for name, value in built.named_parameters()}
    with torch.no_grad():
        for name, parameter in shared.items():
            parameter.copy_(own[name])
        assert torch.allclose(built(PADDED), model(PADDED), atol=1e-6)
        assert not torch.allclose(built(IDS), model(PADDED), atol=1e-3)


@pytest.mark.parametrize("how", ["padding", "causal"])
def test_the_theory_of_padding_is_that_of_sampled_networks(how):
    generator = torch.Generator().manual_seed(4)
    lengths = torch.randint(2, 6, (24,), generator=generator)
    ids = torch.randint(1, WORDS, (24, TOKENS), generator=generator)
    ids = ids.masked_fill(torch.arange(TOKENS)[None] >= lengths[:, None], 0)
    labels = torch.arange(24) % CLASSES
    torch.manual_seed(0)
    model = Spelled("added, causal" if how == "causal" else "one function")
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
        else:
            nn.init.zeros_(parameter)
    nn.init.normal_(model.words.weight)
    theory = eoc.predict_pruning(model, 0.8, data=(ids, labels), method="theory")
    seen = eoc.predict_pruning(model, 0.8, data=(ids, labels), method="sampled", samples=48)
    assert theory.method == "theory" and np.abs(theory.kept - seen.kept).mean() < 0.025
    read = eoc.Architecture.from_torch(model, ids).propagate((ids, labels))
    sampled = eoc.diagnose(model, data=(ids, labels), method="sampled", sparsity=0.2).signals
    np.testing.assert_allclose(read.entropy, sampled.attention_entropy, atol=0.08)
    at = [name.startswith("out") for name in read.layers]
    # So narrow a network has tokens that are less alike than wide ones'; with padding among them all are.
    np.testing.assert_allclose(read.similarity[at], sampled.token_similarity[at], atol=0.2)


@pytest.mark.parametrize("method", ["theory", "sampled"])
def test_a_network_that_was_read_without_its_mask_takes_no_padding(method):
    read = eoc.Architecture.from_torch(Silenced(), IDS)
    with pytest.raises(EOCError, match=r"token 0, which the model masks.*4 of 6 inputs"):
        eoc.predict_pruning(read, 0.5, data=(PADDED, LABELS), method=method)
    with pytest.raises(EOCError, match="must not hold token 0"):
        read.propagate((PADDED, LABELS))
    # Texts without padding are described, and so are stand-ins for them.
    given = eoc.predict_pruning(read, 0.5, data=(IDS, LABELS), method=method)
    assert given.method == method
    assert not (read.summarise().inputs == 0).any()


def test_a_row_of_padding_in_a_table_is_zero():
    torch.manual_seed(0)
    model = Torchs()
    model.words = nn.Embedding(WORDS, WIDTH, padding_idx=0)
    nn.init.normal_(model.words.weight, std=0.5)
    with torch.no_grad():
        model.words.weight[0] = 0.0
    layer = eoc.Architecture.from_torch(model, PADDED).as_graph().nodes[1].layer
    assert layer.padding == 0 and layer.std == pytest.approx(0.5, rel=0.1)
    theory, seen = (
        eoc.predict_pruning(model, 0.7, data=(PADDED, LABELS), method=m, **options)
        for m, options in (("theory", {}), ("sampled", {"samples": 16}))
    )
    built = eoc.Architecture.from_torch(model, PADDED).to_torch(3)
    assert not any(p[0].any() for p in built.parameters() if tuple(p.shape) == (WORDS, WIDTH))
    assert np.abs(theory.kept - seen.kept).mean() < 0.03
