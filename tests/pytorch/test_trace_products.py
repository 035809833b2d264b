"""Models whose parts multiply, weigh or divide what they compute of the input, beyond attention: the graph
that is read computes what the model does, and the theory's kept fractions are those of sampled networks."""

from __future__ import annotations

from collections import namedtuple

import numpy as np
import pytest

import eoc_theory as eoc
from eoc_theory import layers as kinds
from eoc_theory.errors import ModelError

torch = pytest.importorskip("torch")
import graph_values  # noqa: E402

nn, F = torch.nn, torch.nn.functional
WIDTH, HEADS, SIZE = 16, 2, 8
TOKENS = SIZE * SIZE


class Model(nn.Module):
    """A block on images of 16 channels, and logits."""

    def __init__(self, forward, width=WIDTH, **parts):
        super().__init__()
        self.embed, self.head, self.body = nn.Conv2d(3, width, 1), nn.Linear(width, 5), forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        x = self.body(self, self.embed(x))
        return self.head(x.mean((2, 3)))


def layers_of(graph, kind):
    return [node.layer for node in graph.nodes if isinstance(node.layer, kind)]


def images(size=SIZE):
    return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(1))


def relative():
    """Log-spaced offsets of two pixels, (1, 15, 15, 2), and which of them belongs to each pair of 64."""
    line = torch.arange(1.0 - SIZE, SIZE)
    table = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1)
    at = torch.stack(torch.meshgrid(*[torch.arange(SIZE)] * 2, indexing="ij"), -1).reshape(-1, 2)
    apart = at[:, None] - at + SIZE - 1
    table = table.sign() * torch.log2(table.abs() + 1) / 3
    return table, (apart[..., 0] * (2 * SIZE - 1) + apart[..., 1]).reshape(-1)


# --- tokens -------------------------------------------------------------------------------------------------


def talking(m, q, k, v):
    """Talking heads (Shazeer et al. 2020): weights of heads are mixed before and after the softmax."""
    scores = m.first((q * 0.3 @ k.transpose(-2, -1)).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return m.second(scores.softmax(-1).permute(0, 2, 3, 1)).permute(0, 3, 1, 2) @ v


def linear(m, q, k, v):
    """Linear attention (Katharopoulos et al. 2020)."""
    q, k = q.relu(), k.relu()
    return q @ (k.transpose(-2, -1) @ v) / (q @ k.sum(-2, keepdim=True).transpose(-2, -1) + 1e-3)


def counted(m, q, k, v):
    """The same, the sum found as one more channel of v."""
    v = F.pad(v, (0, 1), value=1.0)
    out = q.relu() @ (k.relu().transpose(-2, -1) @ v)
    return out[..., :-1] / (out[..., -1:] + 1e-3)


def factorised(m, q, k, v):
    """Scores of channels, from keys that sum to 1 over the tokens, and a part without the first token."""
    out = q @ (k.softmax(2).transpose(-2, -1) @ v)
    return out + F.pad((q * v)[:, :, 1:], (0, 0, 1, 0))


def gated(m, q, k, v):
    """Weights of content and of place, a fixed share of each."""
    place = m.place(m.apart).permute(2, 0, 1).expand(len(q), -1, -1, -1).softmax(-1)
    share = m.share.sigmoid().view(1, -1, 1, 1)
    weights = (1 - share) * (q @ k.transpose(-2, -1)).softmax(-1) + share * place
    return (weights / weights.sum(-1, keepdim=True)) @ v


def biased(m, q, k, v):
    """Cosines, and biases that layers make of relative positions (Liu et al. 2022, Swin-V2)."""
    bias = m.narrow(m.wide(m.table).relu()).view(-1, HEADS)[m.at].view(TOKENS, TOKENS, HEADS)
    bias = 16 * bias.permute(2, 0, 1).sigmoid().unsqueeze(0)
    if m.fused:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
    return (scores * 10.0 + bias).softmax(-1) @ v


def mixed(mixing):
    def forward(m, x):
        b, c, h, w = x.shape
        x = x.flatten(2).transpose(1, 2)
        q, k, v = m.qkv(x).view(b, h * w, 3, HEADS, c // HEADS).permute(2, 0, 3, 1, 4).unbind(0)
        out = m.out(mixing(m, q, k, v).transpose(1, 2).reshape(b, h * w, c))
        return (x + out).transpose(1, 2).reshape(b, c, h, w)

    return forward


def tokens(mixing, width=WIDTH, **parts):
    own = dict(qkv=nn.Linear(width, 3 * width), out=nn.Linear(width, width))
    model = Model(mixed(mixing), width, **own, **parts)
    if mixing in (biased, gated):
        table, at = relative()
        model.register_buffer("table", table)
        model.register_buffer("at", at)
        model.register_buffer("apart", table.reshape(-1, 2)[at].view(TOKENS, TOKENS, 2))
    return model


def of_tokens(mixing, width=WIDTH):
    torch.manual_seed(0)
    parts = {}
    if mixing is talking:
        parts = dict(first=nn.Linear(HEADS, HEADS), second=nn.Linear(HEADS, HEADS))
    if mixing is gated:
        parts = dict(place=nn.Linear(2, HEADS), share=nn.Parameter(torch.ones(HEADS)))
    if mixing is biased:
        parts = dict(wide=nn.Linear(2, 24), narrow=nn.Linear(24, HEADS, bias=False), fused=False)
    return tokens(mixing, width, **parts)


@pytest.mark.parametrize("mixing", [talking, linear, counted, factorised, gated, biased])
def test_products_of_matrices_that_depend_on_the_input(mixing):
    graph = graph_values.checked(of_tokens(mixing), images())
    products, attentions = layers_of(graph, kinds.HeadProduct), layers_of(graph, kinds.Attention)
    assert (len(products), len(attentions)) == {
        talking: (2, 0), linear: (3, 0), counted: (2, 0), factorised: (2, 0), gated: (2, 0), biased: (0, 1),
    }[mixing]  # fmt: skip
    if mixing is biased:
        assert {"wide", "narrow"} <= {layer.name for layer in graph.weight_layers}


@pytest.mark.parametrize("mixing", [talking, linear])
def test_products_within_windows(mixing):
    """Four windows of 16 pixels each, in the dimension of the inputs."""

    def forward(m, x):
        b, c, h, w = x.shape
        x = x.view(b, c, 2, h // 2, 2, w // 2).permute(0, 2, 4, 3, 5, 1).reshape(-1, h * w // 4, c)
        q, k, v = m.qkv(x).view(len(x), -1, 3, HEADS, c // HEADS).permute(2, 0, 3, 1, 4).unbind(0)
        x = m.out(mixing(m, q, k, v).transpose(1, 2).reshape(x.shape))
        return x.view(b, 2, 2, h // 2, w // 2, c).permute(0, 5, 1, 3, 2, 4).reshape(b, c, h, w)

    model = of_tokens(mixing)
    model.body = forward
    graph = graph_values.checked(model, images())
    assert {layer.windows for layer in layers_of(graph, kinds.HeadProduct)} == {4}


def test_biases_that_layers_make_in_fused_attention():
    model = of_tokens(biased)
    model.fused = True
    graph_values.checked(model, images())


def test_biases_that_differ_between_inputs_are_scores():
    """They are no fourth input of attention, but a sum of two scores."""

    def doubled(m, q, k, v):
        return ((q @ k.transpose(-2, -1)) + (k @ v.transpose(-2, -1))).softmax(-1) @ v

    graph = graph_values.checked(of_tokens(doubled), images())
    assert len(layers_of(graph, kinds.HeadProduct)) == 3 and not layers_of(graph, kinds.Attention)


def test_masked_scores_that_are_used_otherwise():
    def forward(m, q, k, v):
        mask = torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril()
        weights = (q @ k.transpose(-2, -1)).masked_fill(~mask, -1e9).softmax(-1)
        return weights.square() @ v

    graph_values.checked(of_tokens(forward), images())


def outlook(m, x):
    """Outlook attention (Yuan et al. 2021): weights of 9 neighbours by a layer, overlapping patches."""
    b, c, h, w = x.shape
    v = m.v(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    v = F.unfold(v, 3, padding=1, stride=2).reshape(b, HEADS, c // HEADS, 9, -1).permute(0, 1, 4, 3, 2)
    pooled = F.avg_pool2d(x, 2).permute(0, 2, 3, 1)
    weights = m.a(pooled).reshape(b, h * w // 4, HEADS, 9, 9).permute(0, 2, 1, 3, 4).softmax(-1)
    out = (weights @ v).permute(0, 1, 4, 3, 2).reshape(b, 9 * c, -1)
    return m.o(F.fold(out, (h, w), 3, padding=1, stride=2).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def test_patches_that_overlap():
    torch.manual_seed(0)
    parts = dict(v=nn.Linear(WIDTH, WIDTH), a=nn.Linear(WIDTH, 81 * HEADS), o=nn.Linear(WIDTH, WIDTH))
    graph = graph_values.checked(Model(outlook, **parts), images())
    assert len(layers_of(graph, kinds.Scatter)) == len(layers_of(graph, kinds.HeadProduct)) == 1


# --- images -------------------------------------------------------------------------------------------------


def selective(m, x):
    """Selective kernels (Li et al. 2019): branches weighed against each other for each channel."""
    y = torch.stack([m.a(x).relu(), m.b(x).relu()], dim=1)
    gates = m.up(m.down(y.sum(1).mean((2, 3), keepdim=True)).relu())
    return (y * gates.view(len(x), 2, WIDTH, 1, 1).softmax(1)).sum(1)


def split(m, x):
    """Split attention (Zhang et al. 2020): the branches are groups of one convolution's channels."""
    y = m.pair(x).relu().reshape(len(x), 2, WIDTH, *x.shape[2:])
    gates = m.up(m.down(y.sum(1).mean((2, 3), keepdim=True)).relu()).view(len(x), 1, 2, -1)
    gates = gates.transpose(1, 2).softmax(1).reshape(len(x), -1)
    return (y * gates.view(len(x), 2, WIDTH, 1, 1)).sum(dim=1)


def responses(m, x):
    """Global response normalisation (Woo et al. 2023, ConvNeXt-V2)."""
    x = F.gelu(m.a(x).permute(0, 2, 3, 1))
    length = x.norm(p=2, dim=(1, 2), keepdim=True)
    scaled = x * (length / (length.mean(dim=-1, keepdim=True) + 1e-6))
    return (x + torch.addcmul(m.shift, m.gain, scaled)).permute(0, 3, 1, 2)


def blurred(m, x):
    x = F.conv2d(F.pad(m.a(x).relu(), (1, 1, 1, 1), mode="reflect"), m.blur, stride=2, groups=WIDTH)
    return m.b(x)


def placed(m, x):
    """Positions by a convolution of coordinates, repeated for every input."""
    return x + m.point(m.grid).repeat(len(x), 1, 1, 1)


def windowed(m, x):
    """Convolutions of 4 windows, each with zeros around it, one of them with every other row."""
    b, c, h, w = x.shape
    x = x.view(b, c, 2, h // 2, 2, w // 2).permute(0, 2, 4, 1, 3, 5).reshape(4 * b, c, h // 2, w // 2)
    x = m.b(m.a(x).relu())
    n = x.shape[-1]
    return x.view(b, 2, 2, c, n, n).permute(0, 3, 1, 4, 2, 5).reshape(b, c, 2 * n, 2 * n)


def of_images(forward):
    torch.manual_seed(0)
    conv = lambda *a, **k: nn.Conv2d(WIDTH, *a, padding=1, **k)  # noqa: E731
    up = dict(down=nn.Conv2d(WIDTH, 6, 1), up=nn.Conv2d(6, 2 * WIDTH, 1))
    parts = {
        selective: dict(a=conv(WIDTH, 3), b=conv(WIDTH, 3), **up),
        split: dict(pair=conv(2 * WIDTH, 3, groups=2), **up),
        responses: dict(
            a=conv(WIDTH, 3),
            gain=nn.Parameter(torch.full((WIDTH,), 0.5)),
            shift=nn.Parameter(torch.zeros(WIDTH)),
        ),
        blurred: dict(a=conv(WIDTH, 3), b=conv(WIDTH, 3)),
        placed: dict(point=nn.Conv2d(5, WIDTH, 1)),
        windowed: dict(a=conv(WIDTH, 3, groups=WIDTH), b=conv(WIDTH, 3, stride=2)),
    }[forward]
    model = Model(forward, **parts)
    model.register_buffer("grid", torch.rand(1, 5, SIZE, SIZE))
    taps = torch.tensor([0.25, 0.5, 0.25])
    model.register_buffer("blur", torch.outer(taps, taps).expand(WIDTH, 1, 3, 3).clone())
    return model


@pytest.mark.parametrize("forward", [selective, split, blurred, placed, windowed])
def test_what_weighs_blurs_places_and_cuts_images(forward):
    graph = graph_values.checked(of_images(forward), images())
    kind = {selective: kinds.Softmax, split: kinds.Softmax, blurred: kinds.FixedFilter}.get(forward)
    assert kind is None or len(layers_of(graph, kind)) == 1


def test_global_responses():
    """Divided by their mean; at first, with γ = 0, they are a silent branch."""
    model = of_images(responses)
    graph = graph_values.checked(model, images())
    assert [len(layers_of(graph, kind)) for kind in (kinds.Length, kinds.ChannelMean, kinds.Reciprocal)] == [
        1
    ] * 3
    nn.init.zeros_(model.gain)
    silent = graph_values.checked(model, images())
    assert any(layer.is_silent for layer in layers_of(silent, kinds.Sum))


def test_filters_that_are_no_product_of_two_are_refused():
    model = of_images(blurred)
    model.blur = model.blur.clone()
    model.blur[:, 0, 0, 0] = 0.5
    with pytest.raises(ModelError, match="weights that come from one parameter"):
        eoc.Architecture.from_torch(model, images())


def test_cubic_interpolation_and_means_over_channels():
    def forward(m, x):
        x = F.interpolate(m.a(x).relu(), size=(5, 11), mode="bicubic", align_corners=False)
        return x * m.b(torch.cat([x.mean(1, keepdim=True), x[:, :1]], 1)).sigmoid()

    torch.manual_seed(0)
    parts = dict(a=nn.Conv2d(WIDTH, WIDTH, 3), b=nn.Conv2d(2, 1, 3, padding=1))
    graph_values.checked(Model(forward, **parts), images())


# --- auxiliary heads ----------------------------------------------------------------------------------------

Outputs = namedtuple("Outputs", "logits aux")


class TwoHeaded(nn.Module):
    """An auxiliary head in training mode, as GoogLeNet and Inception have."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, WIDTH, 3), nn.Conv2d(WIDTH, WIDTH, 3)
        self.head, self.aux = nn.Linear(WIDTH, 5), nn.Linear(WIDTH, 5)

    def forward(self, x):
        x = self.a(x).relu()
        y = self.b(x).relu()
        logits = self.head(y.mean((2, 3)))
        return Outputs(logits, self.aux(x.mean((2, 3)))) if self.training else logits


def test_auxiliary_heads_are_refused_by_name():
    """Their loss is part of what is measured."""
    model, data = TwoHeaded().train(), (images(), torch.arange(3))
    with pytest.raises(ModelError, match="layer 'aux' lead to an output beside the logits"):
        eoc.predict_pruning(model, 0.5, data=data, method="theory")
    assert "aux" in eoc.predict_pruning(model, 0.5, data=data, method="sampled").layers


# --- theory against sampled networks ------------------------------------------------------------------------


def mean_error(model, x):
    y = torch.arange(len(x)) % 5
    theory, sampled = (
        eoc.predict_pruning(model, [0.8, 0.9], data=(x, y), method=method) for method in ("theory", "sampled")
    )
    assert theory.layers == sampled.layers
    return float(np.abs(theory.kept - sampled.kept).mean())


@pytest.mark.parametrize("mixing", [linear, factorised, biased])
def test_the_theory_of_products_keeps_what_sampled_networks_keep(mixing):
    x = F.interpolate(torch.randn(12, 3, 4, 4, generator=torch.Generator().manual_seed(2)), size=(8, 8))
    assert mean_error(of_tokens(mixing, 64), x) < 0.02


def test_the_theory_of_sums_of_values_that_depend_on_each_other():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(24, 96), nn.Linear(96, 96), nn.Linear(96, 96)])
            self.norms = nn.ModuleList([nn.LayerNorm(96) for _ in range(3)])
            self.gate, self.head = nn.Linear(96, 96), nn.Linear(96, 5)

        def forward(self, x):
            for layer, norm in zip(self.layers, self.norms, strict=True):
                x = norm(layer(x)).relu()
            return self.head(x + x * self.gate(x).sigmoid())

    torch.manual_seed(0)
    assert mean_error(Net(), torch.randn(16, 24, generator=torch.Generator().manual_seed(2))) < 0.02
