"""Models with attention, however they write it: the graph that is read computes what the model does."""

from __future__ import annotations

import math

import numpy as np
import pytest

import eoc_theory as eoc
from eoc_theory import layers as kinds
from eoc_theory.errors import ModelError

torch = pytest.importorskip("torch")
import graph_values  # noqa: E402

nn, F = torch.nn, torch.nn.functional
WIDTH, TOKENS, VOCABULARY = 24, 6, 50


class Heads(nn.Module):
    """Attention in one of the spellings of published code, 3 heads of 8 channels."""

    def __init__(self, spelling: str):
        super().__init__()
        self.spelling = spelling
        keys = 8 if spelling in ("grouped", "one key") else 16 if spelling == "two keys" else WIDTH
        self.heads = 2 if spelling == "two keys" else 3
        if spelling in ("packed", "chunked", "interleaved"):
            self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        else:
            self.q, self.k, self.v = (nn.Linear(WIDTH, n) for n in (WIDTH, keys, keys))
        self.o = nn.Linear(WIDTH, WIDTH)
        self.drop = nn.Dropout(0.0)
        self.register_buffer("mask", torch.ones(1, 1, 32, 32, dtype=torch.bool).tril())

    def forward(self, x):
        batch, tokens, width = x.shape
        split = (batch, tokens, -1, 8)
        if self.spelling == "packed":
            q, k, v = self.qkv(x).reshape(batch, tokens, 3, 3, 8).permute(2, 0, 3, 1, 4).unbind(0)
        elif self.spelling == "interleaved":  # heads outermost, as in GPT-NeoX
            q, k, v = self.qkv(x).view(batch, tokens, 3, 24).transpose(1, 2).chunk(3, dim=-1)
        elif self.spelling == "chunked":
            q, k, v = (p.view(split).transpose(1, 2) for p in self.qkv(x).chunk(3, dim=-1))
        else:
            q, k, v = (p(x).view(split).transpose(1, 2) for p in (self.q, self.k, self.v))
        if self.spelling == "grouped":
            k, v = (p[:, :, None].expand(batch, 1, 3, tokens, 8).reshape(batch, 3, tokens, 8) for p in (k, v))
        if self.spelling == "one key":
            k, v = (p.repeat_interleave(3, dim=1) for p in (k, v))
        if self.spelling in ("written out", "masked", "bmm", "interleaved"):
            out = self.written_out(q, k, v)
        else:
            out = F.scaled_dot_product_attention(q, k, v, is_causal=self.spelling == "chunked")
        return self.o(out.transpose(1, 2).reshape(batch, tokens, width))

    def written_out(self, q, k, v):
        tokens = q.shape[2]
        if self.spelling == "bmm":
            flat = (p.reshape(-1, tokens, 8) for p in (q, k, v))
            q3, k3, v3 = flat
            weights = torch.bmm(q3 * 8**-0.5, k3.transpose(1, 2)).softmax(-1)
            return torch.bmm(weights, v3).view(q.shape)
        scores = q @ k.transpose(-2, -1) / math.sqrt(8)
        if self.spelling == "masked":
            scores = scores.masked_fill(~self.mask[:, :, :tokens, :tokens], torch.finfo(scores.dtype).min)
        if self.spelling == "interleaved":
            scores = scores + torch.zeros(tokens, tokens).masked_fill(
                ~self.mask[0, 0, :tokens, :tokens], -1e9
            )
        return self.drop(F.softmax(scores, dim=-1)) @ v


class Block(nn.Module):
    def __init__(self, attention):
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(WIDTH), attention
        self.norm2, self.up, self.down = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 40), nn.Linear(40, WIDTH)

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Words(nn.Module):
    """Tokens, positions, blocks, and the last or mean token's logits."""

    def __init__(self, *blocks, readout="mean"):
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.places = nn.Embedding(32, WIDTH)
        self.blocks = nn.Sequential(*blocks)
        self.norm, self.head, self.readout = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 5), readout

    def forward(self, x):
        x = self.words(x) + self.places(torch.arange(x.shape[1], device=x.device))
        x = self.norm(self.blocks(x))
        if self.readout == "head first":  # as the sequence classifiers of transformers
            logits = self.head(x)
            return logits[torch.arange(len(x)), torch.full((len(x),), -1)]
        return self.head(x.mean(1) if self.readout == "mean" else x[:, -1])


def check(model, x, **tables):
    model = model.double()
    graph = eoc.Architecture.from_torch(model, x).as_graph()
    with torch.no_grad():
        expected = model(x)
        assert torch.allclose(
            graph_values.token_output(graph, model, x, tables), expected, rtol=1e-6, atol=1e-8
        )
    return graph


def ids(batch=3):
    return torch.from_numpy(np.random.default_rng(0).integers(VOCABULARY, size=(batch, TOKENS)))


def layers_of(graph, kind):
    return [node.layer for node in graph.nodes if isinstance(node.layer, kind)]


SPELLINGS = (
    "plain", "packed", "chunked", "interleaved", "grouped", "one key", "written out", "masked", "bmm",
)  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("readout", ["mean", "last", "head first"])
def test_spellings_of_attention(spelling, readout):
    torch.manual_seed(0)
    model = Words(Block(Heads(spelling)), Block(Heads(spelling)), readout=readout)
    graph = check(model, ids(), positions=model.places.weight[:TOKENS].double())
    for layer in layers_of(graph, kinds.Attention):
        assert (layer.heads, layer.kv_heads) == (3, 1 if spelling in ("grouped", "one key") else 3)
        assert layer.scale == pytest.approx(8**-0.5) or spelling == "bmm"
        assert layer.causal == (spelling in ("chunked", "masked", "interleaved"))
    assert sum("qkv" in layer.name for layer in graph.weight_layers) == (
        2 if spelling in ("packed", "chunked", "interleaved") else 0
    )


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_torchs_encoder_layers(first, batch_first):
    torch.manual_seed(0)

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            layer = nn.TransformerEncoderLayer(
                WIDTH, 3, 40, dropout=0.0, norm_first=first, batch_first=batch_first
            )
            self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.head = nn.Linear(WIDTH, 5)

        def forward(self, x):
            y = self.body(x if batch_first else x.transpose(0, 1))
            return self.head(y.mean(1 if batch_first else 0))

    graph = check(Encoder(), torch.randn(3, TOKENS, WIDTH, dtype=torch.float64))
    names = [layer.name for layer in graph.weight_layers]
    assert names[:2] == ["body.layers.0.self_attn.in_proj_weight", "body.layers.0.self_attn.out_proj"]
    assert len(names) == 2 * 4 + 1


def test_attention_that_returns_its_weights():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention, self.head = nn.MultiheadAttention(WIDTH, 3, batch_first=True), nn.Linear(WIDTH, 5)
            self.embed = nn.Linear(WIDTH, WIDTH)

        def forward(self, x):
            x = self.embed(x)
            return self.head(self.attention(x, x, x, need_weights=True)[0].mean(1))

    check(Mixed(), torch.randn(3, TOKENS, WIDTH, dtype=torch.float64))


class Patches(nn.Module):
    """A ViT in the layout of timm."""

    def __init__(self):
        super().__init__()
        self.proj = nn.Conv2d(3, WIDTH, 4, 4)
        self.cls = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.pos = nn.Parameter(torch.randn(1, 7, WIDTH))
        self.blocks = nn.Sequential(Block(Heads("packed")), Block(Heads("packed")))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 5)

    def forward(self, x):
        x = self.proj(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1) + self.pos
        return self.head(self.norm(self.blocks(x))[:, 0])


def test_class_tokens_and_patches():
    torch.manual_seed(0)
    model = Patches()
    x = torch.randn(2, 3, 8, 12, dtype=torch.float64)
    graph = check(model, x, positions=model.pos[0].double(), **{"class": model.cls[0].double()})
    (token,), (places,) = layers_of(graph, kinds.ClassToken), layers_of(graph, kinds.PositionEmbedding)
    assert token.std == pytest.approx(float(model.cls.square().mean().sqrt()))
    assert places.std == pytest.approx(float(model.pos.square().mean().sqrt()))


class Rms(nn.Module):
    """RMSNorm written out, as in transformers' Llama."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x):
        variance = x.to(torch.float64).pow(2).mean(-1, keepdim=True)
        return self.weight * (x * torch.rsqrt(variance + 1e-6))


class Rotated(nn.Module):
    """Causal attention of 3 heads with rotary positions in three spellings."""

    def __init__(self, spelling):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.spelling = spelling
        size = 4 if spelling == "partial" else 8
        self.register_buffer("inverse", 100.0 ** (-torch.arange(0, size, 2).double() / size))

    def turned(self, x):
        angles = torch.arange(x.shape[2], dtype=torch.float64)[:, None] * self.inverse
        if self.spelling == "neighbours":
            cos, sin = angles.cos().repeat_interleave(2, -1), angles.sin().repeat_interleave(2, -1)
            other = torch.stack([-x[..., 1::2], x[..., ::2]], -1).reshape(x.shape)
            return x * cos + other * sin
        cos, sin = (torch.cat([f(angles)] * 2, -1)[None, None] for f in (torch.cos, torch.sin))
        x, rest = (x[..., :4], x[..., 4:]) if self.spelling == "partial" else (x, None)
        half = x.shape[-1] // 2
        x = x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin
        return x if rest is None else torch.cat([x, rest], -1)

    def forward(self, x):
        split = (*x.shape[:2], 3, 8)
        q, k, v = (p(x).view(split).transpose(1, 2) for p in (self.q, self.k, self.v))
        out = F.scaled_dot_product_attention(self.turned(q), self.turned(k), v, is_causal=True)
        return self.o(out.transpose(1, 2).reshape(x.shape))


@pytest.mark.parametrize("spelling", ["halves", "neighbours", "partial"])
def test_rotary_positions_and_rms_norms(spelling):
    torch.manual_seed(0)
    block = Block(Rotated(spelling))
    block.norm1, block.norm2 = Rms(), nn.RMSNorm(WIDTH, eps=1e-6)
    model = Words(block, readout="last")
    graph = check(model, ids(), positions=model.places.weight[:TOKENS].double())
    turned = layers_of(graph, kinds.Rotary)
    assert len(turned) == 2
    for layer in turned:
        assert layer.head == 8 and layer.interleaved == (spelling == "neighbours")
        assert layer.frequencies == pytest.approx(model.blocks[0].attention.inverse.numpy())
    assert [layer.centred for layer in layers_of(graph, kinds.ChannelNorm)] == [False, False, True]


def test_sinusoids_are_known_in_either_order():
    class Waves(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.block = nn.Embedding(VOCABULARY, WIDTH), Block(Heads("plain"))
            own = torch.from_numpy(kinds.Sinusoids("").table(kinds.Shape(WIDTH, (TOKENS,))).T)
            self.register_buffer("waves", torch.cat([own[:, ::2], own[:, 1::2]], 1))
            self.head = nn.Linear(WIDTH, 5)

        def forward(self, x):
            return self.head(self.block(self.words(x) * 2.0 + self.waves).mean(1))

    model = Waves()
    graph = check(model, ids(), positions=model.waves.double())
    (waves,) = layers_of(graph, kinds.Sinusoids)
    assert waves.scale == pytest.approx(1.0)


def test_a_tied_head_is_read_as_weights_of_its_own():
    model = Words(Block(Heads("plain")), readout="last")
    model.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
    model.head.weight = model.words.weight
    graph = check(model, ids(), positions=model.places.weight[:TOKENS].double())
    assert graph.weight_layers[-1].name == "head"


class Products(nn.Module):
    """Products of heads that are no attention, or that no theory has."""

    def __init__(self, what):
        super().__init__()
        self.what, self.embed, self.head = what, nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 5)
        self.register_buffer("mask", torch.rand(3, 1, TOKENS, TOKENS) > 0.3)

    def forward(self, x):
        x = self.embed(x)
        h = x.view(*x.shape[:2], 3, 8).transpose(1, 2)
        if self.what == "linear attention":
            out = h @ (h.transpose(-2, -1) @ h)
        elif self.what == "masks of inputs":
            out = F.scaled_dot_product_attention(h, h, h, attn_mask=self.mask[: len(x)])
        elif self.what == "softmax over queries":
            out = (h @ h.transpose(-2, -1)).softmax(-2) @ h
        else:
            out = torch.tanh(h @ h.transpose(-2, -1)) @ h
        return self.head(out.transpose(1, 2).reshape(x.shape).mean(1))


@pytest.mark.parametrize("what", ["linear attention", "softmax over queries", "no softmax"])
def test_what_is_no_attention_is_two_products(what):
    graph = check(Products(what), torch.randn(3, TOKENS, WIDTH, dtype=torch.float64))
    assert len(layers_of(graph, kinds.HeadProduct)) == 2 and not layers_of(graph, kinds.Attention)


def test_masks_of_single_inputs_are_refused():
    with pytest.raises(ModelError, match="one mask for all inputs"):
        eoc.Architecture.from_torch(Products("masks of inputs"), (3, TOKENS, WIDTH))
