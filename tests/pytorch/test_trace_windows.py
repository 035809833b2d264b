"""Models that attend within windows, of channels or by other tables, however they write it: the graph that is
read computes what the model does."""

from __future__ import annotations

import pytest

import eoc_theory as eoc
from eoc_theory import layers as kinds
from eoc_theory.errors import ModelError

torch = pytest.importorskip("torch")
import graph_values  # noqa: E402

nn, F = torch.nn, torch.nn.functional
WIDTH, HEADS, SIZE, WINDOW = 16, 2, 8, 4


def layers_of(graph, kind):
    return [node.layer for node in graph.nodes if isinstance(node.layer, kind)]


def images():
    return torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


class Windows(nn.Module):
    """Attention within windows of (B, H, W, C), shifted or not, with a bias by relative position: Swin."""

    def __init__(self, spelling, shift=0, width=WIDTH):
        super().__init__()
        self.spelling, self.shift = spelling, shift
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.table = nn.Parameter(torch.randn((2 * WINDOW - 1) ** 2, HEADS))
        at = torch.stack(torch.meshgrid(*[torch.arange(WINDOW)] * 2, indexing="ij")).flatten(1)
        apart = (at[:, :, None] - at[:, None]).permute(1, 2, 0) + WINDOW - 1
        self.register_buffer("index", apart[..., 0] * (2 * WINDOW - 1) + apart[..., 1])

    def regions(self, h, w):
        """−100 between pixels of a window that a shift brought together."""
        parts = (slice(0, -WINDOW), slice(-WINDOW, -self.shift), slice(-self.shift, None))
        numbers = torch.zeros(h, w)
        for count, (rows, columns) in enumerate((a, b) for a in parts for b in parts):
            numbers[rows, columns] = count
        windows = numbers.view(h // WINDOW, WINDOW, w // WINDOW, WINDOW).permute(0, 2, 1, 3).flatten(2)
        windows = windows.flatten(0, 1)
        return (windows[:, None] != windows[:, :, None]).double() * -1e4

    def cut(self, x):
        b, h, w, c = x.shape
        if self.spelling == "grid":  # every so-manieth pixel, as in MaxViT
            x = x.view(b, WINDOW, h // WINDOW, WINDOW, w // WINDOW, c).permute(0, 2, 4, 1, 3, 5)
        else:
            x = x.view(b, h // WINDOW, WINDOW, w // WINDOW, WINDOW, c).permute(0, 1, 3, 2, 4, 5)
        return x.reshape(-1, WINDOW * WINDOW, c)

    def back(self, x, b, h, w):
        if self.spelling == "grid":
            x = x.view(b, h // WINDOW, w // WINDOW, WINDOW, WINDOW, -1).permute(0, 3, 1, 4, 2, 5)
        else:
            x = x.view(b, h // WINDOW, w // WINDOW, WINDOW, WINDOW, -1).permute(0, 1, 3, 2, 4, 5)
        return x.reshape(b, h, w, -1)

    def forward(self, x):
        b, h, w, c = x.shape
        if self.shift:
            x = torch.roll(x, (-self.shift, -self.shift), (1, 2))
        x = self.cut(x)
        n = x.shape[0]
        q, k, v = self.qkv(x).reshape(n, -1, 3, HEADS, c // HEADS).permute(2, 0, 3, 1, 4).unbind(0)
        bias = self.table[self.index.view(-1)].view(WINDOW**2, WINDOW**2, -1).permute(2, 0, 1)[None]
        if self.shift:
            mask = self.regions(h, w).to(bias)
        if self.spelling == "cosine":
            scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * 10.0 + bias
        elif self.spelling == "einsum":
            scores = torch.einsum("n h i d, n h j d -> n h i j", q, k) * (c // HEADS) ** -0.5 + bias
        else:
            scores = (q * (c // HEADS) ** -0.5) @ k.transpose(-2, -1) + bias
        if self.spelling == "fused":
            added = bias
            if self.shift:
                added = added + mask.view(1, -1, 1, *mask.shape[1:]).expand(b, -1, HEADS, -1, -1).flatten(
                    0, 1
                )
            x = F.scaled_dot_product_attention(q, k, v, attn_mask=added)
        else:
            if self.shift:
                scores = scores.view(b, -1, *scores.shape[1:]) + mask[None, :, None]
                scores = scores.view(n, *scores.shape[2:])
            weights = scores.softmax(-1)
            if self.spelling == "einsum":
                x = torch.einsum("n h i j, n h j d -> n h i d", weights, v)
            else:
                x = weights @ v
        x = self.back(self.proj(x.transpose(1, 2).reshape(n, -1, c)), b, h, w)
        return torch.roll(x, (self.shift, self.shift), (1, 2)) if self.shift else x


class Merge(nn.Module):
    """Four pixels become one, of twice as many channels."""

    def __init__(self, spelling):
        super().__init__()
        self.spelling = spelling
        self.norm, self.reduction = nn.LayerNorm(4 * WIDTH), nn.Linear(4 * WIDTH, 2 * WIDTH, bias=False)

    def forward(self, x):
        b, h, w, c = x.shape
        if self.spelling == "slices":
            x = torch.cat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], -1)
        else:
            x = x.reshape(b, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 4, 2, 5).flatten(3)
        return self.reduction(self.norm(x))


class Hierarchy(nn.Module):
    def __init__(self, spelling, merge="reshaped"):
        super().__init__()
        self.embed = nn.Conv2d(3, WIDTH, 1)
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH), nn.LayerNorm(2 * WIDTH)])
        self.first, self.second = Windows(spelling), Windows(spelling, 0 if spelling == "grid" else 2)
        self.merge, self.third = Merge(merge), Windows(spelling, width=2 * WIDTH)
        self.head = nn.Linear(2 * WIDTH, 5)

    def forward(self, x):
        x = self.embed(x).permute(0, 2, 3, 1)
        for norm, attention in zip(self.norms, (self.first, self.second), strict=False):
            b, h, w, c = x.shape
            x = (x.flatten(1, 2) + attention(norm(x)).view(b, h * w, c)).view(x.shape)
        x = self.merge(x)
        return self.head((x + self.third(self.norms[2](x))).mean((1, 2)))


@pytest.mark.parametrize("spelling", ["written out", "fused", "cosine", "grid", "einsum"])
@pytest.mark.parametrize("merge", ["reshaped", "slices"])
def test_windows(spelling, merge):
    torch.manual_seed(0)
    graph = graph_values.checked(Hierarchy(spelling, merge), images())
    attentions = layers_of(graph, kinds.Attention)
    assert [layer.windows for layer in attentions] == [4, 4, 1]
    heads, windows = attentions[1].mask.shape[:2]
    assert (heads, windows) == (HEADS, 1 if spelling == "grid" else 4)
    assert len(layers_of(graph, kinds.UnitLength)) == (6 if spelling == "cosine" else 0)


class Channels(nn.Module):
    """Attention of channels to channels, in three spellings: XCiT, DaViT."""

    def __init__(self, spelling):
        super().__init__()
        self.embed, self.qkv, self.proj = (
            nn.Conv2d(3, WIDTH, 1),
            nn.Linear(WIDTH, 3 * WIDTH),
            nn.Linear(WIDTH, 5),
        )
        self.temperature, self.spelling = nn.Parameter(torch.full((HEADS, 1, 1), 1.5)), spelling

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        b, n, c = x.shape
        cut = self.qkv(x).reshape(b, n, 3, HEADS, -1)
        if self.spelling == "plain":
            q, k, v = cut.permute(2, 0, 3, 1, 4).unbind(0)
            out = (((q * n**-0.5).transpose(-1, -2) @ k).softmax(-1) @ v.transpose(-1, -2)).transpose(-1, -2)
            out = out.transpose(1, 2)
        else:
            q, k, v = cut.permute(2, 0, 3, 4, 1).unbind(0)
            q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
            if self.spelling == "fused":
                out = F.scaled_dot_product_attention(q * self.temperature, k, v, scale=1.0)
            else:
                out = ((q @ k.transpose(-2, -1)) * self.temperature).softmax(-1) @ v
            out = out.permute(0, 3, 1, 2)
        return self.proj(out.reshape(b, n, c).mean(1))


@pytest.mark.parametrize("spelling", ["plain", "written out", "fused"])
def test_attention_of_channels(spelling):
    torch.manual_seed(0)
    (attention,) = layers_of(graph_values.checked(Channels(spelling), images()), kinds.Attention)
    assert attention.channelwise and attention.heads == HEADS
    assert attention.scale == pytest.approx(1.5 if spelling == "written out" else 1.0)


class Relative(nn.Module):
    """Scores without a factor, plus a bias by distance that two blocks share: T5. Two uses of one table."""

    def __init__(self):
        super().__init__()
        self.words, self.bias = nn.Embedding(40, WIDTH), nn.Embedding(4, HEADS)
        self.blocks = nn.ModuleList(
            nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(4)) for _ in range(2)
        )
        self.head = nn.Linear(WIDTH, 5)

    def forward(self, ids):
        x, other = self.words(ids), self.words(ids)
        at = torch.arange(ids.shape[1])
        bias = self.bias((at[None] - at[:, None]).abs().clamp(max=3)).permute(2, 0, 1)[None]
        for q, k, v, o in self.blocks:
            parts = [
                p(h).view(*x.shape[:2], HEADS, -1).transpose(1, 2)
                for p, h in ((q, x), (k, other), (v, other))
            ]
            scores = parts[0] @ parts[1].transpose(3, 2) + bias
            x = x + o((scores.softmax(-1) @ parts[2]).transpose(1, 2).reshape(x.shape))
        return self.head(x.mean(1))


def test_relative_biases_and_a_table_that_is_looked_up_twice():
    torch.manual_seed(0)
    graph = graph_values.checked(Relative(), torch.arange(18).view(3, 6) % 11)
    assert len(layers_of(graph, kinds.Embedding)) == 1
    for layer in layers_of(graph, kinds.Attention):
        assert layer.scale == 1.0 and layer.mask.shape == (HEADS, 1, 6, 6)


class Model(nn.Module):
    """A body between an embedding of pixels, (B, 16, 8, 8), and the head."""

    def __init__(self, body, **parts):
        super().__init__()
        self.embed, self.body, self.head = nn.Conv2d(3, WIDTH, 1), body, nn.Linear(WIDTH, 5)
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        x = self.body(self, self.embed(x))
        return self.head(x.flatten(2).mean(2))


def eca(m, x):
    y = m.conv(x.mean((2, 3)).view(len(x), 1, -1))
    return x * y.view(len(x), -1, 1, 1).sigmoid().expand_as(x)


def class_attention(m, x):
    tokens = x.flatten(2).transpose(1, 2)
    summary = m.pool(tokens.mean(1, keepdim=True))
    both = torch.cat([summary, tokens], 1)
    q, k, v = (
        p(h).view(len(x), -1, HEADS, 8).transpose(1, 2)
        for p, h in ((m.q, both[:, :1]), (m.k, both), (m.v, both))
    )
    out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(len(x), 1, -1)
    return torch.cat([summary + out, tokens], 1).transpose(1, 2)


def global_queries(m, x):
    cut = x.view(len(x), WIDTH, 2, 4, 2, 4).permute(0, 2, 4, 3, 5, 1).reshape(-1, 16, WIDTH)
    k, v = (p(cut).view(-1, 16, HEADS, 8).transpose(1, 2) for p in (m.k, m.v))
    q = m.q(F.avg_pool2d(x, 2).flatten(2).transpose(1, 2))
    q = q.view(-1, 16, HEADS, 8).transpose(1, 2).repeat_interleave(4, dim=0)
    out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(len(x), 2, 2, 4, 4, WIDTH)
    return out.permute(0, 5, 1, 3, 2, 4).reshape(x.shape)


def linears(*names):
    return {name: nn.Linear(WIDTH, WIDTH) for name in names}


MOVED = {
    "channels attended by a convolution": (eca, lambda: dict(conv=nn.Conv1d(1, 1, 3, padding=1, bias=False))),
    "class attention": (class_attention, lambda: linears("q", "k", "v", "pool")),
    "global queries": (global_queries, lambda: linears("q", "k", "v")),
    "a gate of each position of a pooled value": (
        lambda m, x: x * (x.mean((2, 3), keepdim=True) * m.c(x)), lambda: dict(c=nn.Conv2d(WIDTH, 1, 1))
    ),
    "gates of rows and of columns": (
        lambda m, x: x * m.a(x.mean(3, keepdim=True)).sigmoid() * m.b(x.mean(2, keepdim=True)).sigmoid(),
        lambda: dict(a=nn.Conv2d(WIDTH, WIDTH, 1), b=nn.Conv2d(WIDTH, WIDTH, 1)),
    ),
    "what is pooled is added everywhere": (
        lambda m, x: m.b(x).relu() + m.a(x.mean((2, 3), keepdim=True)),
        lambda: dict(a=nn.Conv2d(WIDTH, WIDTH, 1), b=nn.Conv2d(WIDTH, WIDTH, 1)),
    ),
    "mirrored rows": (lambda m, x: m.a(x.flip(2)).relu() , lambda: dict(a=nn.Conv2d(WIDTH, WIDTH, 3))),
    "chosen rows": (
        lambda m, x: m.a(x[:, :, torch.tensor([5, 0, 2])]).relu() , lambda: dict(a=nn.Conv2d(WIDTH, WIDTH, 3))
    ),
    "space to depth": (
        lambda m, x: m.a(F.pixel_unshuffle(x, 2)).relu(), lambda: dict(a=nn.Conv2d(4 * WIDTH, WIDTH, 1))
    ),
    "stacked branches": (
        lambda m, x: torch.stack([m.a(x).relu(), m.b(x).tanh()], 1).flatten(1, 2)[:, 8:24],
        lambda: dict(a=nn.Conv2d(WIDTH, WIDTH, 1), b=nn.Conv2d(WIDTH, WIDTH, 1)),
    ),
    "padding with channels last": (
        lambda m, x: m.a(F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 2, 2, 0)).permute(0, 3, 1, 2)).relu(),
        lambda: dict(a=nn.Conv2d(WIDTH, WIDTH, 3)),
    ),
    "an activation of a pooled activation": (
        lambda m, x: m.a(x).relu() * F.gelu(m.b(x).tanh().mean((2, 3), keepdim=True)),
        lambda: dict(a=nn.Conv2d(WIDTH, WIDTH, 1), b=nn.Conv2d(WIDTH, WIDTH, 1)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MOVED)
def test_positions_that_are_moved(name):
    torch.manual_seed(0)
    body, parts = MOVED[name]
    graph_values.checked(Model(body, **parts()), images())


class Plane(nn.Module):
    """Queries and keys turned by angles of rows and columns, and a table of coordinates: EVA-02."""

    def __init__(self):
        super().__init__()
        self.embed, self.qkv, self.head = nn.Conv2d(3, 24, 1), nn.Linear(24, 72), nn.Linear(24, 5)
        at = torch.arange(SIZE**2)
        rows, columns = (at // SIZE)[:, None].double(), (at % SIZE)[:, None].double()
        angles = torch.cat([rows * 0.3, rows * 0.1, columns * 0.3, columns * 0.1], 1)
        self.register_buffer("angles", angles)
        self.register_buffer("table", torch.cat([(0.05 * f * angles).cos() for f in range(6)], 1))

    def turned(self, x):
        cos, sin = (f(self.angles).repeat_interleave(2, -1) for f in (torch.cos, torch.sin))
        return x * cos + torch.stack([-x[..., 1::2], x[..., ::2]], -1).reshape(x.shape) * sin

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2) + self.table
        q, k, v = self.qkv(x).reshape(len(x), -1, 3, 3, 8).permute(2, 0, 3, 1, 4).unbind(0)
        out = F.scaled_dot_product_attention(self.turned(q), self.turned(k), v)
        return self.head(out.transpose(1, 2).reshape(x.shape).mean(1))


def test_positions_in_a_plane():
    torch.manual_seed(0)
    model = Plane()
    graph = graph_values.checked(model, images(), positions=model.table)
    (table,) = layers_of(graph, kinds.PositionTable)
    assert table.table.array == pytest.approx(model.table.T.numpy())
    for layer in layers_of(graph, kinds.Rotary):
        assert layer.interleaved and layer.angles.shape == (4, SIZE**2)


def test_weights_on_coordinates_are_layers_like_others():
    class Coordinates(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.place, self.head = (
                nn.Conv2d(3, WIDTH, 1),
                nn.Conv2d(2, WIDTH, 1),
                nn.Linear(WIDTH, 5),
            )

        def forward(self, x):
            at = torch.linspace(0, 1, SIZE, dtype=x.dtype)
            grid = torch.stack(torch.meshgrid(at, at, indexing="ij")).expand(len(x), -1, -1, -1)
            return self.head((self.embed(x) + self.place(grid)).relu().mean((2, 3)))

    torch.manual_seed(0)
    graph = graph_values.checked(Coordinates(), images())
    assert {layer.name for layer in graph.weight_layers} == {"embed", "place", "head"}


@pytest.mark.parametrize("residual", [False, True])
def test_weights_that_begin_at_0_are_read_and_their_zero_scores_told(residual):
    torch.manual_seed(0)
    branch = nn.Conv2d(WIDTH, WIDTH, 1)
    if residual:
        nn.init.zeros_(branch.weight)
    model = Model(lambda m, x: x + m.a(x.relu()), a=branch)
    if not residual:
        nn.init.zeros_(model.head.weight)
    net = eoc.Architecture.from_torch(model, images())
    assert [layer.sigma_w > 0 for layer in net] == ([True, False, True] if residual else [True, True, False])
    data = images(), torch.arange(3)
    if not residual:
        for method in ("theory", "sampled"):
            with pytest.raises(ModelError, match="all snip scores are 0"):
                eoc.predict_pruning(model, 0.5, data=data, method=method)
        with pytest.raises(ModelError, match="weights of layer 'head' are 0"):
            eoc.predict_pruning(net, 0.5, data=data, criterion="synflow")
        found = eoc.predict_pruning(net, 0.5, data=data, criterion="magnitude", method="theory")
        assert found.kept[2] == 0.0 and found.zero_scores.tolist() == [0.0, 0.0, 1.0]
        assert any("weights of head are 0" in note for note in found.notes)
        return
    measured = eoc.measure_pruning(model, 0.5, data=data)
    found = eoc.predict_pruning(net, 0.5, data=data, method="theory")
    order = [measured.layers.index(name) for name in found.layers]
    assert found.kept == pytest.approx(measured.kept[order], abs=0.01)
    assert found.zero_scores == pytest.approx(measured.zero_scores[order])
    with pytest.raises(ModelError, match="'a' are 0"):
        eoc.predict_pruning(net, 0.5, data=data, method="theory", criterion="grasp")


class Refused(nn.Module):
    def __init__(self, what):
        super().__init__()
        self.what, self.embed, self.head = what, nn.Conv2d(3, WIDTH, 1), nn.Linear(WIDTH, 5)

    def forward(self, x):
        x = self.embed(x)
        b, c = x.shape[:2]
        cut = x.view(b, c, 2, 4, 2, 4).permute(0, 2, 4, 3, 5, 1)
        heads = cut.reshape(-1, 16, HEADS, 8).transpose(1, 2)
        if self.what == "a mask of inputs":
            mask = torch.linspace(0, 1, b * 4 * 256, dtype=x.dtype).view(b * 4, 1, 16, 16)
            heads = F.scaled_dot_product_attention(heads, heads, heads, attn_mask=mask)
        else:
            heads = F.scaled_dot_product_attention(
                heads, heads, heads, attn_mask=heads @ heads.transpose(-2, -1)
            )
        return self.head(heads.reshape(b, -1, HEADS * 8).mean(1))


@pytest.mark.parametrize(
    ("what", "said"),
    [("a mask of inputs", "random|one mask for all inputs"), ("scores of scores", "differs between inputs")],
)
def test_what_windows_cannot_be_is_refused(what, said):
    with pytest.raises(ModelError, match=said):
        eoc.Architecture.from_torch(Refused(what), (3, 3, SIZE, SIZE))
