"""Masks, types and positions that are inputs of a model: read by the theory, and held against plain torch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

import eoc_theory as eoc
from eoc_theory.layers import PositionEmbedding
from eoc_theory.pytorch.layer_modules import CountEmbedding

WORDS, WIDTH, HEADS, CLASSES, SIZE, TOKENS = 60, 96, 4, 5, 24, 10
SPARSITIES = (0.8, 0.9, 0.95)
GENERATOR = torch.Generator().manual_seed(3)
IDS = torch.randint(1, WORDS, (SIZE, TOKENS), generator=GENERATOR)
LENGTHS = torch.randint(2, TOKENS + 1, (SIZE,), generator=GENERATOR)
RIGHT = torch.arange(TOKENS)[None] < LENGTHS[:, None]
LEFT = RIGHT.flip(1)
TYPES = (torch.arange(TOKENS)[None] >= (LENGTHS[:, None] // 2)).long()
LABELS = torch.arange(SIZE) % CLASSES
NEXT = torch.randint(CLASSES, (SIZE, TOKENS), generator=GENERATOR).masked_fill(~RIGHT, -100)
EARLIER = torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril()
PAIRS = RIGHT[:, None] & EARLIER
LOW = torch.finfo(torch.float32).min


def drawn(model: nn.Module) -> nn.Module:
    """Weights N(0, 1/fan_in), rows of tables N(0, 1) or, of positions and types, N(0, 0.25)."""
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            std = {"words": 1.0, "types": 0.5, "places": 0.5}.get(name.partition(".")[0])
            nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5 if std is None else std)
        elif "norm" not in name:
            nn.init.zeros_(parameter)
    return model


class Torchs(nn.Module):
    """torch's own encoder with a mask that is true where padding is."""

    def __init__(self, first: bool, readout: str) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 2 * WIDTH, dropout=0.0, batch_first=True, norm_first=first
        )
        self.words, self.readout = nn.Embedding(WORDS, WIDTH), readout
        self.places = nn.Parameter(torch.zeros(TOKENS, WIDTH))
        self.body = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, CLASSES)
        drawn(self)

    def forward(self, ids, padding):
        x = self.body(self.words(ids) + self.places, src_key_padding_mask=padding)
        if self.readout == "mean":
            known = (~padding).unsqueeze(-1).to(x.dtype)
            x = (x * known).sum(1) / known.sum(1).clamp(min=1e-9)
        elif self.readout == "filled":
            x = x.masked_fill(padding[..., None], 0.0).sum(1) / (~padding).sum(1, keepdim=True)
        elif self.readout == "every":
            x = x.mean(1)
        else:
            x = x[:, 0]
        return self.head(x)


class Own(nn.Module):
    """Written out, with the inputs' names of transformers."""

    def __init__(self, form: str, readout: str, first: bool = True, counted: bool = False) -> None:
        super().__init__()
        self.form, self.readout, self.first, self.counted = form, readout, first, counted
        self.words, self.types = nn.Embedding(WORDS, WIDTH), nn.Embedding(2, WIDTH)
        self.places = nn.Embedding(40, WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(WIDTH) for _ in range(3))
        self.head = nn.Linear(WIDTH, CLASSES)
        drawn(self)

    def attention(self, x, mask):
        q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        if self.form == "function":
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None].bool())
            return self.out(mixed.transpose(1, 2).flatten(2))
        scores = q @ k.transpose(-2, -1) / math.sqrt(WIDTH / HEADS)
        if "causal" in self.form:
            scores = scores.masked_fill(~EARLIER, -1e9)
        if "added" in self.form:
            scores = scores + (1.0 - mask[:, None, None].to(x.dtype)) * LOW
        elif "filled" in self.form:
            scores = scores.masked_fill(mask[:, None, None] == 0, -1e9)
        elif self.form == "float":
            scores = scores + mask[:, None, None]
        elif self.form == "pairs":
            scores = torch.where(mask[:, None], scores, torch.tensor(-1e9, dtype=x.dtype))
        else:
            scores = scores + mask
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))

    def forward(self, input_ids, attention_mask=None, token_type_ids=None, position_ids=None):
        x, mask = self.words(input_ids), attention_mask
        if token_type_ids is not None:
            x = x + self.types(token_type_ids)
        if self.counted:
            position_ids = (torch.cumsum(mask, dim=1) * mask).long() + 1
        x = x + (self.places.weight[:TOKENS] if position_ids is None else self.places(position_ids))
        if self.first:
            x = x + self.attention(self.norm1(x), mask)
            x = x + self.down(F.gelu(self.up(self.norm2(x))))
        else:
            x = self.norm1(x + self.attention(x, mask))
            x = self.norm2(x + self.down(F.gelu(self.up(x))))
        x = self.norm3(x)
        if self.readout == "mean":
            weights = mask.unsqueeze(-1).expand(x.size()).to(x.dtype)
            x = (x * weights).sum(1) / torch.clamp(weights.sum(1), min=1e-9)
        elif self.readout == "end":
            x = x[torch.arange(len(x)), mask.sum(1) - 1]
        elif self.readout != "tokens":
            x = x[:, -1 if self.readout == "last" else 0]
        return self.head(x)


KNOWN = RIGHT.long()


def named(mask=KNOWN, **others):
    return {"input_ids": IDS, "attention_mask": mask, **others}


OPEN = torch.zeros(SIZE, TOKENS)
COUNTED = (LEFT.long().cumsum(1) - 1).clamp(min=0)
CASES = {
    "torch's, pre-norm": (lambda: Torchs(True, "first"), (IDS, ~RIGHT)),
    "torch's, post-norm, mean": (lambda: Torchs(False, "mean"), (IDS, ~RIGHT)),
    "torch's, filled, left": (lambda: Torchs(True, "filled"), (IDS, ~LEFT)),
    "torch's, mean of all": (lambda: Torchs(True, "every"), (IDS, ~RIGHT)),
    "types": (lambda: Own("added", "first"), named(token_type_ids=TYPES)),
    "post-norm": (lambda: Own("filled", "first", first=False), named(token_type_ids=TYPES)),
    "mean": (lambda: Own("function", "mean"), named(RIGHT)),
    "causal, left, positions": (
        lambda: Own("added causal", "last"), named(LEFT.long(), position_ids=COUNTED),
    ),
    "causal, right": (lambda: Own("filled causal", "end"), named()),
    "causal, tokens": (lambda: Own("added causal", "tokens"), named()),
    "one row of positions": (
        lambda: Own("added", "first"), named(position_ids=torch.arange(TOKENS).expand(SIZE, TOKENS)),
    ),
    "counted positions": (lambda: Own("added", "first", counted=True), named(LEFT.long())),
    "float": (lambda: Own("float", "first"), named(OPEN.masked_fill(~RIGHT, -math.inf))),
    "pairs": (lambda: Own("pairs", "last"), named(PAIRS)),
    "pairs, float": (lambda: Own("pairs, float", "last"), named(
        torch.zeros(SIZE, 1, TOKENS, TOKENS).masked_fill(~PAIRS[:, None], LOW))),
}  # fmt: skip
#: Held against networks of plain torch in every run; the others are marked slow.
QUICK = ("torch's, post-norm, mean", "types", "causal, left, positions", "causal, tokens")


def labels_of(name: str) -> torch.Tensor:
    return NEXT if "tokens" in name else LABELS


def called(model: nn.Module, inputs) -> torch.Tensor:
    """The model in double precision on the inputs."""
    cast = {True: lambda t: t.double(), False: lambda t: t}
    if isinstance(inputs, tuple):
        return model(*(cast[t.is_floating_point()](t) for t in inputs))
    return model(**{name: cast[t.is_floating_point()](t) for name, t in inputs.items()})


def data_of(name: str):
    inputs = CASES[name][1]
    return (inputs, LABELS) if isinstance(inputs, tuple) else {**inputs, "labels": labels_of(name)}


@pytest.mark.parametrize("name", CASES)
def test_the_network_that_is_read_is_the_same_function(name):
    make, inputs = CASES[name]
    torch.manual_seed(0)
    model = make().double()
    read = eoc.Architecture.from_torch(model, inputs)
    built, own = read.to_torch(0).double(), dict(model.named_parameters())
    # Tables of positions in one piece are drawn, not taken over.
    names = {
        n: n.replace(".weight.weight", ".weight").replace(".bias.bias", ".bias")
        for n, _ in built.named_parameters()
    }
    if any(isinstance(node.layer, PositionEmbedding) for node in read.as_graph().nodes):
        own = {
            key: value.detach().mul_(0.0) if key.startswith("places") else value for key, value in own.items()
        }
    with torch.no_grad():
        for key, parameter in built.named_parameters():
            source = own.get(names[key])
            if source is None:
                source = own.get(
                    names[key].removesuffix(".weight"), own.get(names[key].removesuffix(".bias") + "_bias")
                )
            if source is not None and isinstance(built.get_submodule(key.rpartition(".")[0]), CountEmbedding):
                source = source[1:]  # whose rows count from 1 here
            if source is not None and source.shape[1:] == parameter.shape[1:]:
                source = source[: len(parameter)]
            parameter.zero_() if source is None or source.shape != parameter.shape else parameter.copy_(
                source
            )
    flat = torch.from_numpy(read.summarise(data_of(name)).inputs)
    with torch.no_grad():
        assert torch.allclose(built(flat), called(model, inputs), atol=1e-6)


def measured(name: str, seeds: int) -> tuple[list[str], np.ndarray]:
    """Layers, and the fractions of them that SNIP in plain torch keeps, (n_s, L), mean over networks."""
    make, inputs = CASES[name]
    found = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        model = make().double()
        loss = F.cross_entropy(called(model, inputs).flatten(0, -2), labels_of(name).flatten())
        weights = {
            key: value for key, value in model.named_parameters()
            if value.ndim > 1 and key.partition(".")[0] not in ("words", "types", "places")
        }  # fmt: skip
        gradients = torch.autograd.grad(loss, list(weights.values()))
        scores = [
            (w * g).detach().abs().numpy().ravel() for w, g in zip(weights.values(), gradients, strict=True)
        ]
        together = np.sort(np.concatenate(scores))
        limits = [together[round(s * len(together))] for s in SPARSITIES]
        found.append([[float((one >= limit).mean()) for one in scores] for limit in limits])
    return [key.removesuffix(".weight") for key in weights], np.mean(found, axis=0)


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_what_is_kept_is_that_of_plain_torch(name):
    theory = eoc.predict_pruning(CASES[name][0], SPARSITIES, data=data_of(name), method="theory")
    layers, kept = measured(name, 12)
    assert theory.method == "theory"
    at = [layers.index(layer) for layer in theory.layers]
    assert (np.abs(theory.kept - kept[:, at]).mean(axis=1) <= theory.kept_error_bound).all()


def test_a_mask_changes_what_is_kept():
    make, _ = CASES["mean"]
    torch.manual_seed(0)
    model = make()
    short = torch.arange(TOKENS)[None].expand(SIZE, TOKENS) < 2
    kept = [
        eoc.predict_pruning(model, 0.9, data={**named(mask), "labels": LABELS}, method="theory").kept
        for mask in (short, torch.ones_like(short))
    ]
    # Without a mask all tokens are known.
    read = eoc.Architecture.from_torch(model, named(short))
    alone = eoc.predict_pruning(read, 0.9, data={"input_ids": IDS, "labels": LABELS}, method="theory").kept
    assert np.abs(kept[0] - kept[1]).max() > 0.02
    np.testing.assert_array_equal(alone, kept[1])


class Odd(Torchs):
    """A mask that does what is no mask's way."""

    def __init__(self, how: str) -> None:
        super().__init__(True, "first")
        self.how = how

    def forward(self, ids, padding):
        x = self.words(ids)
        if self.how == "shifts":
            x = x + padding[..., None].to(x.dtype)
        elif self.how == "halves":
            x = x * (1.0 - 0.5 * padding[..., None].to(x.dtype))
        elif self.how == "root":
            return self.head(self.body(x).sum(1) / (~padding).sum(1, keepdim=True).to(x.dtype).sqrt())
        elif self.how == "next":
            padding = padding.roll(1, 1)
        elif self.how == "later":
            padding = padding.cumsum(1) > 0
        elif self.how == "rows":
            x = torch.where(padding.any(1)[:, None, None], 0.0 * x, x)
        elif self.how == "without gradients":
            with torch.no_grad():
                shift = padding.to(x.dtype)[..., None] * 2.0
            x = x + shift
        elif self.how == "weights":
            return self.head(self.body(x)[:, 0]) + F.linear(padding.to(x.dtype), self.head.weight[:, :TOKENS])
        return self.head(self.body(x, src_key_padding_mask=padding)[:, 0])


@pytest.mark.parametrize(
    "how", ["shifts", "halves", "root", "next", "later", "rows", "without gradients", "weights"]
)
def test_what_is_no_mask_is_refused(how):
    torch.manual_seed(0)
    with pytest.raises(eoc.EOCError, match="padding"):
        eoc.predict_pruning(Odd(how), 0.9, data=((IDS, ~RIGHT), LABELS), method="theory")


BAD = {
    "nothing left": (named(RIGHT.long() * (torch.arange(SIZE) != 3)[:, None]), "no token of example 3"),
    "another shape": (named(RIGHT[:, 1:].long()), r"shape \(24, 10\), got \(24, 9\)"),
    "twos": (named(2 * RIGHT.long()), "'attention_mask' is read as a mask of 0 or 1, got 2"),
    "a type that is none": (named(token_type_ids=TYPES + 1), "from 0 to 1, got 2"),
    "no types": (named(), "none for 'token_type_ids'"),
    "more": (named(token_type_ids=TYPES, more=TYPES), "got input 'more' too"),
}


@pytest.mark.parametrize("name", BAD)
def test_inputs_that_do_not_fit_are_refused_by_name(name):
    inputs, said = BAD[name]
    inputs.setdefault("token_type_ids", TYPES) if name != "no types" else None
    torch.manual_seed(0)
    read = eoc.Architecture.from_torch(Own("added", "first"), named(token_type_ids=TYPES))
    with pytest.raises(eoc.EOCError, match=said):
        read.summarise({**inputs, "labels": LABELS})


def test_shapes_alone_will_do_for_an_example():
    torch.manual_seed(0)
    for model, example in (
        (Own("added", "mean"), {"input_ids": (4, TOKENS), "attention_mask": (4, TOKENS)}),
        (Torchs(True, "mean"), ((4, TOKENS), (4, TOKENS))),
    ):
        batch = eoc.Architecture.from_torch(model, example).summarise()
        assert batch.inputs.shape[1] == 2 * TOKENS and (batch.inputs[:, TOKENS:] == 1.0).all()


def test_the_same_batch_is_predicted_measured_and_diagnosed():
    make, _ = CASES["types"]
    data = data_of("types")

    def factory(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return make()

    found = eoc.compare(factory, 0.8, data=data, method="theory", seeds=3)
    assert found.prediction.method == "theory"
    assert np.abs(found.kept.mean(axis=0) - found.prediction.kept).mean() < 0.02
    assert eoc.diagnose(factory, data=data, method="theory").layers


class Cache:
    """Keys and values of earlier calls, of a class that torch does not know."""

    def __init__(self) -> None:
        self.keys = torch.zeros(0)


class Output:
    def __init__(self, logits: torch.Tensor, cache: Cache) -> None:
        self.logits, self.cache = logits, cache


class Published(Own):
    """As causal models of transformers classify: a cache, and logits at the last token that is no padding."""

    def attention(self, x, mask):
        self.cache = Cache()
        empty = self.cache.keys.to(x.dtype)
        q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        k, v = torch.cat([empty, k], dim=-2), torch.cat([empty, v], dim=-2)
        both = EARLIER & (mask[:, None, None] != 0)
        both = both | ~both.any(-1, keepdim=True)  # rows that see nothing see all
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=both)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def forward(self, input_ids, attention_mask=None, use_cache=True):
        x = self.words(input_ids) + self.places.weight[:TOKENS]
        x = x + self.attention(self.norm1(x), attention_mask)
        x = x + self.down(F.gelu(self.up(self.norm2(x))))
        logits, known = self.head(self.norm3(x)), (input_ids != 0).to(torch.int32)
        last = (torch.arange(TOKENS) * known).argmax(-1)
        return Output(logits[torch.arange(len(x)), last], self.cache)


@pytest.mark.parametrize("side", ["left", "right"])
def test_masks_and_token_numbers_that_both_tell_padding(side):
    mask = LEFT if side == "left" else RIGHT
    torch.manual_seed(0)
    model = Published("published", "")
    inputs = {"input_ids": IDS * mask, "attention_mask": mask.long(), "use_cache": True}
    data = {**inputs, "labels": LABELS}
    read = eoc.Architecture.from_torch(model, inputs)
    assert sum(node.layer.tells_padding for node in read.as_graph().nodes) == 2
    theory = eoc.predict_pruning(model, 0.9, data=data, method="theory")
    seen = eoc.predict_pruning(model, 0.9, data=data, method="sampled", samples=12)
    assert np.abs(theory.kept - seen.kept).mean() < theory.kept_error_bound
