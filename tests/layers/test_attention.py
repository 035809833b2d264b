"""What attention and token layers do to numbers, against torch's own functions and their gradients."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from eoc_theory.errors import ModelError
from eoc_theory.layers import (
    Attention,
    ChannelMean,
    ChannelNorm,
    ClassToken,
    Embedding,
    FixedFilter,
    FixedValue,
    Gather,
    HeadProduct,
    JoinPositions,
    Length,
    Matrix,
    Pick,
    PositionEmbedding,
    PositionTable,
    Reciprocal,
    Resize,
    Rotary,
    Scatter,
    Shape,
    Sinusoids,
    Softmax,
    UnitLength,
)
from eoc_theory.layers.random_numbers import Draw
from eoc_theory.signals.fields import Field, Gradient
from eoc_theory.signals.means import Means

torch = pytest.importorskip("torch")
F = torch.nn.functional


def normals(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def draw():
    return Draw(np.random.default_rng(1), np.float64)


def by_torch(function, inputs, gradient):
    """Value and gradients of a function of tensors (B, C, *space), all given and returned batch last."""
    tensors = [torch.tensor(np.moveaxis(x, -1, 0)).requires_grad_() for x in inputs]
    value = function(*tensors)
    found = torch.autograd.grad(value, tensors, torch.tensor(np.moveaxis(gradient, -1, 0)))
    return [np.moveaxis(t.detach().numpy(), 0, -1) for t in (value, *found)]


def check(layer, function, inputs, gradient):
    value, memory = layer.forward_values(inputs, draw())
    back = layer.backward_values(memory, gradient)
    expected = by_torch(function, inputs, gradient)
    for ours, theirs in zip([value, *back], expected, strict=True):
        assert ours.shape == theirs.shape
        assert np.allclose(ours, theirs, rtol=1e-9, atol=1e-11)


def heads(x, count):
    return x.flatten(2).unflatten(1, (count, -1)).transpose(2, 3)


CASES = {
    "plain": (Attention("a", 3, 3, 0.5), {}),
    "causal": (Attention("a", 3, 3, 0.7, causal=True), {"is_causal": True}),
    "grouped": (Attention("a", 6, 2, 0.4), {"enable_gqa": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_attention_is_that_of_torch(case):
    layer, options = CASES[case]
    q = normals(4 * layer.heads, 2, 3, 5)
    k, v = normals(4 * layer.kv_heads, 2, 3, 5, seed=1), normals(7 * layer.kv_heads, 2, 3, 5, seed=2)

    def attend(q, k, v):
        parts = heads(q, layer.heads), heads(k, layer.kv_heads), heads(v, layer.kv_heads)
        out = F.scaled_dot_product_attention(*parts, scale=layer.scale, **options)
        return out.transpose(2, 3).flatten(1, 2).unflatten(2, (2, 3))

    check(layer, attend, [q, k, v], normals(7 * layer.heads, 2, 3, 5, seed=3))
    assert layer.output_shape(*(Shape(len(x), (2, 3)) for x in (q, k, v))) == Shape(7 * layer.heads, (2, 3))


def test_attention_to_other_positions_under_a_mask():
    q, k, v = normals(8, 4, 3), normals(8, 6, 3, seed=1), normals(8, 6, 3, seed=2)
    mask = np.where(normals(4, 6, seed=5) > 1.0, -np.inf, normals(4, 6, seed=6))
    layer = Attention("a", 2, 2, 0.5, mask=Matrix.of(mask))

    def attend(q, k, v):
        parts = heads(q, 2), heads(k, 2), heads(v, 2)
        out = F.scaled_dot_product_attention(*parts, scale=0.5, attn_mask=torch.tensor(mask))
        return out.transpose(2, 3).flatten(1, 2)

    check(layer, attend, [q, k, v], normals(8, 4, 3, seed=3))


@pytest.mark.parametrize("causal", [False, True])
def test_attention_leaves_padding_out(causal):
    q, k, v = normals(8, 6, 3), normals(8, 6, 3, seed=1), normals(8, 6, 3, seed=2)
    known = np.arange(6)[None, :, None] < np.array([6, 2, 4])
    layer = Attention("a", 2, 2, 0.5, causal=causal, padded=True)
    closed = torch.tensor(~known).permute(2, 0, 1)[:, None]
    later = torch.ones(6, 6, dtype=torch.bool).triu(1) & causal

    def attend(q, k, v, known):
        parts = heads(q, 2), heads(k, 2), heads(v, 2)
        out = F.scaled_dot_product_attention(*parts, scale=0.5, attn_mask=~(closed | later))
        return out.transpose(2, 3).flatten(1, 2) + 0.0 * known.sum()

    check(layer, attend, [q, k, v, known.astype(float)], normals(8, 6, 3, seed=3))
    with pytest.raises(ModelError, match="padding of 6 keys"):
        layer.output_shape(*(Shape(8, (6,)),) * 3, Shape(1, (5,)))


def test_attention_within_windows_under_a_bias_of_each_head_and_window():
    q, k, v = normals(8, 2, 6, 5), normals(8, 2, 6, 5, seed=1), normals(6, 2, 6, 5, seed=2)
    mask = normals(2, 3, 4, 4, seed=5)
    mask[0, 1, :2, 2:] = -np.inf
    layer = Attention("a", 2, 2, 0.5, mask=Matrix.of(mask), windows=3)

    def attend(q, k, v):
        parts = [x.flatten(2).unflatten(2, (3, 4)).unflatten(1, (2, -1)).movedim(2, -1) for x in (q, k, v)]
        out = F.scaled_dot_product_attention(*parts, scale=0.5, attn_mask=torch.tensor(mask))
        return out.movedim(-1, 2).flatten(1, 2).flatten(2).unflatten(2, (2, 6))

    check(layer, attend, [q, k, v], normals(6, 2, 6, 5, seed=3))
    half = layer.narrowed([Shape(4, (2, 6))] * 3, [Shape(8, (2, 6))] * 3, Shape(3, (2, 6)), None)
    assert half.heads == 1 and np.array_equal(half.mask.array, mask[:1])
    with pytest.raises(ModelError, match="windows"):
        layer.output_shape(*(Shape(8, (5,)),) * 3)
    with pytest.raises(ModelError, match="a mask for"):
        replace(layer, windows=4).output_shape(*(Shape(8, (2, 6)),) * 3)


def test_attention_of_channels_to_channels():
    q, k, v = normals(8, 2, 3, 5), normals(8, 2, 3, 5, seed=1), normals(8, 2, 3, 5, seed=2)
    layer = Attention("a", 2, 2, 0.5, channelwise=True)

    def attend(q, k, v):
        parts = [x.flatten(2).unflatten(1, (2, 4)) for x in (q, k, v)]
        return F.scaled_dot_product_attention(*parts, scale=0.5).flatten(1, 2).unflatten(2, (2, 3))

    check(layer, attend, [q, k, v], normals(8, 2, 3, 5, seed=3))
    assert layer.scores([q, k]).shape == (2, 5, 1, 4, 4)


@pytest.mark.parametrize("over_positions", [False, True])
def test_vectors_of_length_one(over_positions):
    layer = UnitLength("n", 2, over_positions, eps=1e-3)
    x = normals(8, 2, 3, 5)
    x[0] *= 1e-5  # a channel that is shorter than eps

    def normalised(x):
        cut = x.flatten(2).unflatten(1, (2, 4))
        return F.normalize(cut, dim=3 if over_positions else 2, eps=1e-3).reshape(x.shape)

    check(layer, normalised, [x], normals(8, 2, 3, 5, seed=3))


@pytest.mark.parametrize("chosen", [(5, 0, 3, 1, 2, 4), (0, 0, 2, 5)])
def test_positions_are_gathered(chosen):
    layer = Gather("g", (2, len(chosen) // 2), chosen, 6)
    x = normals(4, 3, 2, 5)
    check(
        layer,
        lambda x: x.flatten(2)[:, :, list(chosen)].unflatten(2, layer.space),
        [x],
        normals(4, *layer.space, 5, seed=1),
    )
    # Kernels move like the values whose products they are.
    flat = x.reshape(4, 6, 5)
    moment = np.einsum("cpb,cqb->pq", flat, flat)[None]
    (moved,), _ = layer.forward_kernel([(Field(4, moment, np.zeros(6), (3, 2)),)], None)
    assert moved.moment == pytest.approx(moment[:, list(chosen)][:, :, list(chosen)])
    sent = normals(len(chosen), len(chosen), seed=2)[None]
    (back,) = layer.backward_kernel(None, Gradient((sent,)), None)
    taken = np.eye(6)[list(chosen)]
    assert back.groups[0] == pytest.approx(taken.T @ sent @ taken)
    with pytest.raises(ModelError, match="6 positions"):
        layer.output_shape(Shape(4, (5,)))


def test_positions_of_several_values_are_joined():
    inputs = [normals(4, 3, 2, 5), normals(4, 3, seed=1)[..., None] + np.zeros(5)]
    layer = JoinPositions("j")
    check(layer, lambda a, b: torch.cat([a.flatten(2), b], 2), inputs, normals(4, 9, 5, seed=2))
    ones = [Means.ones(4, (3, 2)), Means.ones(4, (3,)).scaled(3.0)]
    joined, memory = layer.forward_means(ones, None)
    size = math.exp(joined.log_scale) * joined.profile
    assert size == pytest.approx([1.0] * 6 + [3.0] * 3)
    assert [m.profile.shape for m in layer.backward_means(memory, joined, None)] == [(3, 2), (3,)]


def test_tables_of_positions_are_alike_where_they_were():
    table = normals(50, 6)
    added = PositionTable("p", Matrix.of(table)).forward_values([np.zeros((4000, 3, 2, 2))], draw())[0]
    assert np.array_equal(added[..., 0], added[..., 1])
    flat = added[..., 0].reshape(4000, 6)
    assert flat.T @ flat / 4000 == pytest.approx(table.T @ table / 50, abs=0.1)
    given = FixedValue("g", Matrix.of(table), (3, 2)).forward_values([normals(7, 4)], draw())[0]
    assert np.array_equal(given[..., 2].reshape(50, 6), table)


def test_dropped_attention_keeps_its_mean_and_its_gradient():
    layer = Attention("a", 2, 2, 0.5, drop=0.25)
    q, k, v = (normals(8, 5, 3, seed=s) for s in range(3))
    whole = Attention("a", 2, 2, 0.5).forward_values([q, k, v], draw())[0]
    rng = np.random.default_rng(0)
    runs = [layer.forward_values([q, k, v], Draw(rng, np.float64))[0] for _ in range(4000)]
    assert np.mean(runs, axis=0) == pytest.approx(whole, abs=0.05)
    value, memory = layer.forward_values([q, k, v], draw())
    gradient = normals(8, 5, 3, seed=4)
    back = layer.backward_values(memory, gradient)
    for at, x in enumerate((q, k, v)):
        step = normals(*x.shape, seed=7 + at)
        moved = [q, k, v]
        moved[at] = x + 1e-6 * step
        change = np.sum(gradient * (layer.forward_values(moved, draw())[0] - value)) / 1e-6
        assert change == pytest.approx(np.sum(back[at] * step), rel=1e-4)


def test_attention_says_what_does_not_fit():
    layer = Attention("blocks.0.attention", 4, 2, 0.5)
    q, kv = Shape(16, (5,)), Shape(8, (5,))
    assert layer.output_shape(q, kv, kv) == q
    for shapes in (
        (q, q, q),
        (q, kv),
        (Shape(18, (5,)), kv, kv),
        (Shape(16), kv, kv),
        (q, kv, Shape(8, (6,))),
    ):
        with pytest.raises(ModelError, match=r"blocks\.0\.attention"):
            layer.output_shape(*shapes)
    with pytest.raises(ModelError, match="multiple of kv_heads"):
        Attention("a", 4, 3, 0.5).output_shape(q, kv, kv)


@pytest.mark.parametrize(("centred", "dtype"), [(True, np.float64), (False, np.float64), (False, np.float32)])
def test_channel_norms(centred, dtype):
    layer = ChannelNorm("norm", gain=1.3, eps=1e-3, centred=centred)
    x, gradient = normals(6, 4, 3), normals(6, 4, 3, seed=1)

    def norm(x):
        x = x.movedim(1, -1)
        made = F.layer_norm(x, (6,), eps=1e-3) if centred else F.rms_norm(x, (6,), eps=1e-3)
        return 1.3 * made.movedim(-1, 1)

    value, memory = layer.forward_values([x.astype(dtype)], draw())
    (back,) = layer.backward_values(memory, gradient.astype(dtype))
    expected = by_torch(norm, [x], gradient)
    tolerance = 1e-9 if dtype is np.float64 else 1e-5
    assert value.dtype == back.dtype == dtype
    assert np.allclose(value, expected[0], rtol=tolerance, atol=tolerance)
    assert np.allclose(back, expected[1], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotations_turn_each_pair_by_its_position(interleaved):
    frequencies = (1.0, 0.3)
    layer = Rotary("rotary", 6, frequencies, interleaved)
    x = normals(12, 5, 3)

    def turn(x):
        made = x.unflatten(1, (2, 6)).clone()
        for i, frequency in enumerate(frequencies):
            a, b = (2 * i, 2 * i + 1) if interleaved else (i, i + 2)
            angle = frequency * torch.arange(5.0, dtype=torch.float64)[:, None]
            angle = angle.T if made.ndim == 3 else angle[:, 0]
            first, second = x.unflatten(1, (2, 6))[:, :, a], x.unflatten(1, (2, 6))[:, :, b]
            made[:, :, a] = first * torch.cos(angle) - second * torch.sin(angle)
            made[:, :, b] = second * torch.cos(angle) + first * torch.sin(angle)
        return made.flatten(1, 2)

    check(layer, turn, [x], normals(12, 5, 3, seed=1))


def test_tokens_that_coincide_have_one_row():
    layer = Embedding("words", 1000, 4000, 0.5)
    ids = np.array([[3, 7], [7, 3], [3, 9]], dtype=float)  # (positions, B)
    value, memory = layer.forward_values([ids], draw())
    assert value.shape == (4000, 3, 2) and layer.output_shape(Shape(3)) == Shape(4000, (3,))
    kernel = np.einsum("cpb,cqd->pbqd", value, value) / 4000
    same = ids[:, :, None, None] == ids
    assert kernel == pytest.approx(0.25 * same, abs=0.02)
    assert np.array_equal(value[:, 0, 0], value[:, 1, 1])
    (back,) = layer.backward_values(memory, value)
    assert back.shape == ids.shape and not back.any()


def test_positions_and_class_tokens_are_the_same_for_all_inputs():
    x = normals(3000, 2, 2, 4)
    added = PositionEmbedding("p", 0.7).forward_values([x], draw())[0] - x
    assert np.allclose(added, added[..., :1])
    kernel = np.einsum("cp,cq->pq", *(2 * [added[..., 0].reshape(3000, 4)])) / 3000
    assert kernel == pytest.approx(0.49 * np.eye(4), abs=0.03)
    shared = PositionEmbedding("p", 0.7, shared=True).forward_values([x], draw())[0] - x
    assert np.allclose(shared, shared[:, :1, :1, :1])
    token, memory = ClassToken("cls", 0.7, 2).forward_values([x], draw())
    assert token.shape == (3000, 6, 4) and np.allclose(token[:, 2:], x.reshape(3000, 4, 4))
    assert np.allclose(token[:, :2], token[:, :2, :1])
    gradient = normals(*token.shape, seed=3)
    (back,) = ClassToken("cls", 0.7, 2).backward_values(memory, gradient)
    assert np.array_equal(back, gradient[:, 2:].reshape(x.shape))


def test_sinusoids_are_those_of_the_paper():
    table = Sinusoids("waves", 2.0).forward_values([np.zeros((6, 5, 1))], draw())[0][..., 0]
    for p in range(5):
        for i in range(3):
            angle = p / 10_000 ** (2 * i / 6)
            assert table[2 * i, p] == pytest.approx(2 * math.sin(angle))
            assert table[2 * i + 1, p] == pytest.approx(2 * math.cos(angle))


def test_one_position_is_picked():
    check(Pick("last", -1), lambda x: x.flatten(2)[:, :, -1], [normals(5, 2, 3, 4)], normals(5, 4, seed=1))


def tokens(x, heads, windows=1):
    """(B, C, P) as (B, heads, windows, tokens, channels of a head)."""
    return x.unflatten(2, (windows, -1)).unflatten(1, (heads, -1)).permute(0, 1, 3, 4, 2)


def flat(x):
    """The reverse."""
    return x.permute(0, 1, 4, 2, 3).flatten(3).flatten(1, 2)


def scores(q, k):
    return (tokens(q, 2, 3) @ tokens(k, 2, 3).transpose(-2, -1)).flatten(3, 4).unflatten(3, (4, 4))


def mixed(a, v):
    return flat(a @ tokens(v, 2, 3)).unflatten(2, (3, 4))


def linear(q, m):
    return flat(tokens(q, 2) @ m.view(len(q), 2, 1, 4, 5))


def covariances(k, v):
    return (tokens(k, 2).transpose(-2, -1) @ tokens(v, 2)).flatten(1)


PRODUCTS = [
    (HeadProduct("p", "pc", "cp", 4, 2, 3), scores, ((8, 12), (8, 12)), (2, 3, 4, 4)),
    (HeadProduct("p", "pp", "pc", 4, 2, 3), mixed, ((2, 3, 4, 4), (10, 12)), (10, 3, 4)),
    (HeadProduct("p", "pc", "cc", 4, 2), linear, ((8, 6), (40,)), (10, 6)),
    (HeadProduct("p", "cp", "pc", 6, 2), covariances, ((8, 6), (10, 6)), (40,)),
]


@pytest.mark.parametrize(("layer", "function", "sizes", "value"), PRODUCTS)
def test_products_of_matrices_of_heads(layer, function, sizes, value):
    inputs = [normals(*size, 5, seed=i) for i, size in enumerate(sizes)]
    assert layer.output_shape(*(Shape(s[0], s[1:]) for s in sizes)) == Shape(value[0], value[1:])
    check(layer, function, inputs, normals(*value, 5))
    with pytest.raises(ModelError, match="2 heads"):
        layer.output_shape(Shape(7, sizes[0][1:]), *(Shape(s[0], s[1:]) for s in sizes[1:]))


@pytest.mark.parametrize("windows", [1, 3])
def test_attention_with_biases_that_layers_make(windows):
    def attended(q, k, v, bias):
        parts = [tokens(x, 2, windows) for x in (q, k, v)]
        bias = bias.reshape(len(q), 2, -1, *[12 // windows] * 2)
        return flat(F.scaled_dot_product_attention(*parts, attn_mask=bias, scale=0.3))

    for each in {1, windows}:
        pairs = each * (12 // windows) ** 2
        layer = Attention("a", 2, 2, 0.3, windows=windows, biased=True)
        inputs = [normals(*size, 5, seed=i) for i, size in enumerate([(8, 12)] * 3 + [(2, pairs)])]
        check(layer, attended, inputs, normals(8, 12, 5))


def test_softmax_lengths_means_and_reciprocals():
    x, g = normals(12, 4, 6, 5), normals(12, 4, 6, 5, seed=1)
    groups = Softmax("s", (2, 3, 2))
    check(groups, lambda x: x.unflatten(1, (2, 3, 2)).softmax(2).flatten(1, 3), [x], g)
    check(Softmax("s", (4, 6, 1), over_positions=True), lambda x: x.softmax(3), [x], g)
    check(Softmax("s", (1, 4, 6), over_positions=True), lambda x: x.softmax(2), [x], g)
    check(Length("n"), lambda x: x.norm(dim=(2, 3), keepdim=True), [x], normals(12, 1, 1, 5))
    check(ChannelMean("m"), lambda x: x.mean(1, keepdim=True), [x], normals(1, 4, 6, 5))
    check(Reciprocal("r"), lambda x: 1 / x, [np.abs(x) + 0.5], g)
    value, memory = Length("n").forward_values([np.zeros((2, 3, 1))], draw())
    assert not np.any(value) and not np.any(Length("n").backward_values(memory, np.ones((2, 1, 1)))[0])


def test_patches_that_overlap_blur_and_cubic_interpolation():
    at = np.arange(2)[:, None] + np.arange(3)
    layer = Scatter("s", (4,), tuple(at.reshape(-1)))
    fold = lambda x: F.fold(x.unflatten(2, (2, 3)).flatten(1, 2), (1, 4), (1, 2)).squeeze(2)  # noqa: E731
    check(layer, fold, [normals(3, 6, 5)], normals(3, 4, 5))
    cut = Scatter("s", (2,), (0, -1, 1))
    check(cut, lambda x: x[:, :, [0, 2]], [normals(3, 3, 5)], normals(3, 2, 5))
    taps = ((0.2, 0.5, 0.3), (1.0, -2.0))
    kernel = torch.outer(*(torch.tensor(t, dtype=torch.float64) for t in taps)).expand(3, 1, 3, 2)
    blur = FixedFilter("f", taps, (2, 1), (1, 0), (1, 2))
    convolved = lambda x: F.conv2d(x, kernel, None, (2, 1), (1, 0), (1, 2), 3)  # noqa: E731
    check(blur, convolved, [normals(3, 6, 7, 5)], normals(3, 3, 5, 5))
    for size, mode, aligned in (((9, 4), "cubic", False), ((3, 11), "cubic aligned", True)):
        resize = lambda x, n=size, a=aligned: F.interpolate(x, n, mode="bicubic", align_corners=a)  # noqa: E731
        check(Resize("r", size, mode), resize, [normals(2, 5, 6, 3)], normals(2, *size, 3))
