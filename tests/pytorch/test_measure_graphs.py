"""Measured scores of convolutional, normalised and residual models, against autograd written out here."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from known_criteria import CRITERIA  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

import eoc_theory as eoc  # noqa: E402
from eoc_theory.errors import DataError, ModelError  # noqa: E402
from eoc_theory.pytorch.measure import gradient_scores, scoring  # noqa: E402
from eoc_theory.pytorch.measure.synflow_rounds import (  # noqa: E402
    ChainFlow,
    GraphFlow,
    synflow_critical_sparsity,
    synflow_rounds,
)
from eoc_theory.pytorch.positive_network import flow_scores  # noqa: E402
from eoc_theory.pytorch.trace import trace  # noqa: E402

SHAPE = (3, 8, 8)


class Residual(nn.Module):
    """Strides, groups, padding modes, norms, pools, a shortcut, a scaled branch, a concatenation."""

    def __init__(self, seed=0, norm=True):
        super().__init__()
        torch.manual_seed(seed)
        self.stem = nn.Conv2d(3, 8, 3, padding=1, padding_mode="circular")
        self.norm = nn.BatchNorm2d(8) if norm else nn.Identity()
        self.first = nn.Conv2d(8, 12, 3, stride=2, padding=1, bias=False)
        self.second = nn.Conv2d(12, 12, 3, padding=1, groups=3)
        self.shortcut = nn.Conv2d(8, 12, 1, stride=2)
        self.side = nn.Conv2d(12, 4, 3, padding=2, dilation=2, padding_mode="reflect")
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = torch.tanh(self.norm(self.stem(x)))
        x = self.shortcut(x) + 0.5 * self.second(functional.relu(self.first(x)))
        x = torch.cat(
            [functional.max_pool2d(x, 2), functional.avg_pool2d(functional.gelu(self.side(x)), 2)], dim=1
        )
        return self.head(x.mean((2, 3)))


def linear_forward(model, w, x):
    """`Residual` with weights `w`, without activations, biases and normalisation."""
    x = functional.conv2d(functional.pad(x, (1, 1, 1, 1), mode="circular"), w["stem"])
    inner = functional.conv2d(functional.conv2d(x, w["first"], None, 2, 1), w["second"], None, 1, 1, 1, 3)
    x = functional.conv2d(x, w["shortcut"], None, 2) + 0.5 * inner
    side = functional.conv2d(functional.pad(x, (2, 2, 2, 2), mode="reflect"), w["side"], None, 1, 0, 2)
    x = torch.cat([functional.max_pool2d(x, 2), functional.avg_pool2d(side, 2)], dim=1)
    return x.mean((2, 3)) @ w["head"].T


NAMES = ("stem", "first", "second", "shortcut", "side", "head")


def magnitudes(model):
    return {name: getattr(model, name).weight.detach().double().abs() for name in NAMES}


def batch(n=10, seed=1):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, *SHAPE)), np.arange(n) % 5


def tensors(data):
    return torch.from_numpy(data[0]), torch.from_numpy(data[1])


def brute_force_flow(model, weights):
    leaves = {name: w.clone().requires_grad_() for name, w in weights.items()}
    flow = linear_forward(model, leaves, torch.ones(1, *SHAPE, dtype=torch.float64)).sum()
    gradients = torch.autograd.grad(flow, list(leaves.values()))
    return [(w * g / flow).detach() for w, g in zip(leaves.values(), gradients, strict=True)]


@pytest.mark.parametrize("training", [True, False])
def test_snip_and_grasp_are_plain_autograd(training):
    model = Residual().train(training)
    if not training:
        model.norm.running_mean.normal_()
    data = batch()
    inputs, targets = tensors(data)
    twin = copy.deepcopy(model).double()
    weights = [getattr(twin, name).weight for name in NAMES]
    gradients = torch.autograd.grad(
        functional.cross_entropy(twin(inputs), targets), weights, create_graph=True
    )
    found = scoring.layer_scores(model, "snip", (inputs, targets), dtype="float64")
    for w, g, score in zip(weights, gradients, found, strict=True):
        torch.testing.assert_close(score, (w * g).detach().abs(), rtol=1e-9, atol=1e-15)
    square = sum(g.square().sum() for g in gradients) / 2
    curved = torch.autograd.grad(square, weights)
    norm = math.sqrt(2 * float(square.detach()))
    found = scoring.layer_scores(model, "grasp", (inputs, targets), dtype="float64")
    for w, h, score in zip(weights, curved, found, strict=True):
        torch.testing.assert_close(score, (w * h).detach() / norm, rtol=1e-8, atol=1e-13)


@pytest.mark.parametrize("criterion", ["snip", "grasp"])
def test_a_batch_in_parts_gives_the_same_scores(criterion, monkeypatch):
    model, data = Residual().eval(), tensors(batch(60))
    whole = scoring.layer_scores(model, criterion, data, dtype="float64")
    seen = []
    returned = gradient_scores._Loss._returned

    def watched(self, part):
        seen.append(part.stop - part.start)
        return returned(self, part)

    monkeypatch.setattr(gradient_scores._Loss, "_returned", watched)
    monkeypatch.setattr(gradient_scores, "_CHUNK_BYTES", 400_000)
    parts = scoring.layer_scores(model, criterion, data, dtype="float64")
    assert max(seen) < 60  # the model never saw the whole batch
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-16)


class Coupled(nn.Module):
    """One input's logits depend on the others, without any module that says so."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.linear = nn.Conv2d(3, 6, 3), nn.Linear(6 * 36, 5)

    def forward(self, x):
        x = self.conv(x)
        x = x - x.mean(0)
        return self.linear(functional.relu(x).flatten(1))


@pytest.mark.parametrize("make", [lambda: Residual().train(), Coupled])
def test_a_batch_whose_inputs_are_coupled_is_not_cut(make, monkeypatch):
    model, data = make(), tensors(batch(60))
    whole = scoring.layer_scores(model, "snip", data, dtype="float64")
    monkeypatch.setattr(gradient_scores, "_CHUNK_BYTES", 100_000)
    again = scoring.layer_scores(model, "snip", data, dtype="float64")
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))


def test_synflow_is_autograd_of_the_positive_linear_network():
    model = Residual()
    expected = brute_force_flow(model, magnitudes(model))
    found = scoring.layer_scores(model, "synflow-oneshot", example_input=(1, *SHAPE), dtype="float64")
    scale = float(found[0].sum())
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a / scale, b, rtol=1e-12, atol=0)
    # Every cut carries the whole flow (Tanaka et al. 2020, theorem 1, on a graph).
    stem, first, second, shortcut, _, head = (float(s.sum()) / scale for s in found)
    assert second + shortcut == pytest.approx(1, rel=1e-12)
    assert first == pytest.approx(second, rel=1e-12)
    assert [stem, head] == pytest.approx([1, 1], rel=1e-12)
    single = scoring.layer_scores(model, "synflow-oneshot", example_input=(1, *SHAPE), dtype="float32")
    for a, b in zip(single, expected, strict=True):
        torch.testing.assert_close((a / single[0].sum()).double(), b, rtol=1e-5, atol=0)


def test_iterative_synflow_against_masks_and_full_sorts():
    model = Residual(norm=False)
    weights = magnitudes(model)
    n, rounds = sum(w.numel() for w in weights.values()), 15
    left = {name: w.clone() for name, w in weights.items()}
    alive = torch.ones(n, dtype=torch.bool)
    for k in range(1, rounds + 1):
        keep = n - round(0.9 * n) if k == rounds else round(n * (1 - round(0.9 * n) / n) ** (k / rounds))
        scores = torch.cat([s.flatten() for s in brute_force_flow(model, left)])
        scores[~alive] = -1
        alive = torch.zeros(n, dtype=torch.bool)
        alive[scores.argsort(descending=True, stable=True)[:keep]] = True
        pieces = alive.split([w.numel() for w in weights.values()])
        left = {
            name: w * piece.reshape(w.shape) for (name, w), piece in zip(weights.items(), pieces, strict=True)
        }
    graph = trace(model, (1, *SHAPE))
    found = synflow_rounds(GraphFlow(graph, weights), round(0.9 * n), rounds)
    assert found.left() == [int(p.sum()) for p in pieces]
    for mask, w in zip(found.masks(), left.values(), strict=True):
        assert torch.equal(mask, w > 0)


def test_a_chain_is_the_same_as_a_graph_and_as_a_list_of_matrices():
    net = eoc.mlp(5, 20, in_features=12)
    model = net.to_torch(3)
    weights = {f"layers.{i}": m.weight.detach().double().abs() for i, m in enumerate(model.layers[::2])}
    graph = trace(model)
    assert list(weights) == [layer.name for layer in graph.weight_layers]
    for removed in (300, 1000):
        one = synflow_rounds(GraphFlow(graph, weights), removed, 20)
        other = synflow_rounds(ChainFlow([w.numpy() for w in weights.values()]), removed, 20)
        for a, b in zip(one.masks(), other.masks(), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("gain", [1e-12, 1e9])
def test_flows_far_outside_the_range_of_floats(gain):
    # 60 residual blocks, with weights that differ by 10^1000 between the network's ends.
    net = eoc.resnet(122, width=2, input_shape=(1, 4, 4), normalisation=None)
    graph = net.graph
    generator = torch.Generator().manual_seed(0)
    weights = {
        layer.name: torch.rand(layer.weight_shape, generator=generator, dtype=torch.float64) for layer in net
    }
    moderate = flow_scores(graph, weights)
    scaled = {
        name: w * gain if "shortcut" not in name and "conv2" in name else w for name, w in weights.items()
    }
    double = flow_scores(graph, scaled)
    single = flow_scores(graph, {name: w.float() for name, w in scaled.items()})
    index = list(weights).index("fc")
    for scores in (moderate, double, single):
        assert all(bool(torch.isfinite(s).all()) for s in scores)
        assert float(scores[0].sum()) == pytest.approx(float(scores[index].sum()), rel=1e-4)
    if gain > 1:  # nearly all of the flow goes through the branches
        for score in double[1:20]:
            assert float(score.sum()) == pytest.approx(float(double[0].sum()), rel=1e-6)
    for a, b in zip(double, single, strict=True):
        share_a, share_b = a / double[0].sum(), b.double() / float(single[0].sum())
        torch.testing.assert_close(share_b, share_a, rtol=1e-3, atol=1e-30)


def test_flow_in_exact_arithmetic():
    # One residual block of Linear layers whose branch is 10^-400 of its shortcut: by hand, in logarithms.
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.ModuleList([nn.Linear(1, 1, bias=False) for _ in range(5)])
            self.b, self.c = nn.Linear(1, 1, bias=False), nn.Linear(1, 2, bias=False)

        def forward(self, x):
            y = x
            for layer in self.a:
                y = layer(y)
            return self.c(self.b(y) + x)

    graph = trace(Block(), (1, 1))
    weights = {
        layer.name: torch.full(layer.weight_shape, 1e-80, dtype=torch.float64)
        for layer in graph.weight_layers
    }
    weights["c"] = torch.tensor([[3.0], [1.0]], dtype=torch.float64)
    weights["b"] = torch.tensor([[1e300]], dtype=torch.float64)
    scores = dict(zip(weights, flow_scores(graph, weights), strict=True))
    total = float(scores["c"].sum())
    # The branch carries 1e-400 · 1e300 = 1e-100 of the shortcut's flow, through factors out of range.
    for name in ("a.0", "a.4", "b"):
        assert float(scores[name].sum()) / total == pytest.approx(1e-100, rel=1e-9)
    assert (scores["c"][0] / scores["c"][1]).item() == pytest.approx(3.0)


def test_shortcuts_vanish_under_synflow():
    net = eoc.resnet(20, width=8, input_shape=(3, 16, 16))
    model = net.to_torch(0)
    shape = (1, 3, 16, 16)
    shortcuts = [i for i, name in enumerate(net.weight_layers) if "shortcut" in name]
    others = [i for i in range(net.depth) if i not in shortcuts]
    for criterion in ("synflow-oneshot", "synflow"):
        found = eoc.measure_pruning(model, 0.9, criterion=criterion, example_input=shape, collapse=False)
        assert max(found.kept[shortcuts]) < 0.1
        if criterion == "synflow":
            assert min(found.kept[others]) > 0.02
    magnitude = eoc.measure_pruning(model, 0.9, criterion="magnitude")
    assert min(magnitude.kept[shortcuts]) > 0.3
    one_shot = eoc.measure_pruning(model, 0.9, criterion="synflow-oneshot", example_input=shape)
    assert "shortcut" in one_shot.weakest_layer
    assert np.isnan(found.critical_sparsity) and found.weakest_layer == ""


def test_the_critical_sparsity_of_iterative_synflow_on_a_graph():
    model = Residual(norm=False)
    weights, graph = magnitudes(model), trace(model, (1, *SHAPE))
    n = sum(w.numel() for w in weights.values())
    critical, weakest = synflow_critical_sparsity(lambda: GraphFlow(graph, weights), 10)
    k = round(critical * n)
    assert synflow_rounds(GraphFlow(graph, weights), k, 10).left()[weakest] == 0
    assert min(synflow_rounds(GraphFlow(graph, weights), k - 1, 10).left()) > 0
    rough, _ = synflow_critical_sparsity(lambda: GraphFlow(graph, weights), 10, resolution=0.1)
    assert (1 - rough) / (1 - critical) == pytest.approx(1, abs=0.11)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_measures_a_graph_and_leaves_the_model_alone(criterion, training):
    model, data = Residual().train(training), batch()
    model.second.weight.grad = torch.ones_like(model.second.weight)
    model.first.weight.requires_grad_(False)
    before, state = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    found = eoc.measure_pruning(
        model, [0.3, 0.9], criterion=criterion, data=data, collapse=criterion != "synflow"
    )
    n = int(found.weights.sum())
    assert found.layers == NAMES
    assert [round(float(k @ found.weights)) for k in found.kept] == [n - round(0.3 * n), n - round(0.9 * n)]
    assert found.masks[0]["second"].shape == (12, 4, 3, 3)
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(m.training == training for m in model.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert torch.equal(model.second.weight.grad, torch.ones_like(model.second.weight))
    assert model.stem.weight.grad is None and not model.first.weight.requires_grad


@pytest.mark.parametrize("criterion", ["snip", "synflow-oneshot", "magnitude"])
def test_what_a_mask_removed_stays_removed(criterion):
    model, data = Residual().eval(), batch()
    first = eoc.measure_pruning(model, 0.5, criterion=criterion, data=data)
    eoc.prune_(model, first.masks)
    second = eoc.measure_pruning(model, 0.8, criterion=criterion, data=data)
    for name in NAMES:
        assert not (second.masks[name] & ~first.masks[name]).any()


def test_data_as_images_as_a_summary_and_as_none():
    model = Residual().eval()
    inputs, targets = batch()
    images = eoc.measure_pruning(model, 0.5, data=(inputs, targets))
    summary = eoc.DataSummary(inputs.reshape(len(inputs), -1), targets, 5)
    flat = eoc.measure_pruning(model, 0.5, data=summary, example_input=torch.zeros(1, *SHAPE))
    np.testing.assert_array_equal(images.kept, flat.kept)
    flat = eoc.measure_pruning(model, 0.5, data=(inputs.reshape(10, -1), targets), example_input=(1, *SHAPE))
    np.testing.assert_array_equal(images.kept, flat.kept)
    none = eoc.measure_pruning(model, 0.5, example_input=(1, *SHAPE))
    again = eoc.measure_pruning(model, 0.5, example_input=(1, *SHAPE))
    np.testing.assert_array_equal(none.kept, again.kept)
    # Logits from a convolution: the number of classes is seen by running the model.
    convolutional = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 6), nn.Flatten())
    assert eoc.measure_pruning(convolutional, 0.5, example_input=(1, *SHAPE)).kept.shape == (2,)


class Unused(Residual):
    def forward(self, x):
        return self.head(functional.pad(self.stem(x).mean((2, 3)), (0, 8)))


@pytest.mark.parametrize(
    ("model", "arguments", "kind", "message"),
    [
        (Residual, {}, DataError, "example_input"),
        (Residual, {"data": eoc.DataSummary(np.ones((5, 192)), np.arange(5), 5)}, DataError, "example_input"),
        (Residual, {"criterion": "synflow"}, ModelError, "example_input"),
        (Residual, {"example_input": (1, *SHAPE), "data": (np.ones((4, 7)), [0] * 4)}, DataError, "features"),
        (Unused, {"data": batch(), "criterion": "grasp", "loss": "none"}, eoc.EOCError, "loss must"),
        (Unused, {"data": batch(), "criterion": "synflow"}, ModelError, "'first'|pad"),
    ],
)  # fmt: skip
def test_unusable_arguments_are_named(model, arguments, kind, message):
    with pytest.raises(kind, match=message) as caught:
        eoc.measure_pruning(model(), 0.5, **arguments)
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_finite_are_an_error():
    model = Residual()
    with torch.no_grad():
        model.side.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(ModelError, match="side"):
        eoc.measure_pruning(model, 0.5, criterion="magnitude")
    with pytest.raises(ModelError):
        eoc.measure_pruning(model, 0.5, criterion="snip", data=batch())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("criterion", ["snip", "grasp", "magnitude", "synflow-oneshot", "synflow", "erk"])
def test_a_gpu_measures_the_same(criterion):
    model, data = Residual().eval(), batch()
    cpu, gpu = (
        eoc.measure_pruning(model, 0.7, criterion=criterion, data=data, device=d, dtype="float64")
        for d in ("cpu", "cuda")
    )
    np.testing.assert_allclose(cpu.kept, gpu.kept, atol=0.01)


@pytest.mark.parametrize("criterion", ["synflow-oneshot", "synflow"])
@pytest.mark.parametrize(
    "net",
    [
        eoc.vit(None, depth=1, width=32, heads=4, input_shape=(3, 16, 16), patch=8, classes=10),
        eoc.vit(
            None, depth=1, width=32, heads=4, input_shape=(3, 16, 16), patch=8, readout="mean", classes=10
        ),
        eoc.transformer(1, 16, vocabulary=20, tokens=6),
        eoc.gpt(None, depth=1, width=16, vocabulary=20, tokens=6),
    ],
    ids=["class token", "mean", "tokens", "causal"],
)
def test_synflow_of_attention_is_refused_by_name(net, criterion):
    example = (1, net.input_shape.channels, *net.input_shape.space)
    with pytest.raises(ModelError, match=r"no linear counterpart|integers|token"):
        eoc.measure_pruning(net.to_torch(0), 0.8, criterion=criterion, example_input=example)
