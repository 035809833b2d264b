"""Score distributions of graphs at infinite width, against networks pruned in plain torch."""

from __future__ import annotations

import numpy as np
import pytest

import eoc_theory as eoc
from eoc_theory.criteria.criterion import criterion as as_criterion
from eoc_theory.errors import ArgumentError, ModelError
from eoc_theory.propagation.gaussian_graph import weight_gradient
from eoc_theory.propagation.score_grid import GRID
from eoc_theory.pruning.allocation import kept_fractions, threshold
from eoc_theory.pruning.graph_theory import NETWORKS, theory_laws
from eoc_theory.pruning.prediction import allocate_graph
from eoc_theory.pruning.theory_error import theory_errors, theory_trust
from eoc_theory.signals.data import DataSummary

SPARSITIES = np.array([0.8, 0.9, 0.95, 0.98])


def images(size: int, inputs: int = 50, seed: int = 0):
    """1/f noise in three channels, made here; labels in turn."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    shape = np.fft.rfft2(
        rng.standard_normal((inputs, 3, size, size)) + rng.standard_normal((inputs, 1, size, size))
    )
    found = np.fft.irfft2(shape / np.maximum(frequency, 1.0 / size), s=(size, size))
    found -= found.mean(axis=0)
    return found / np.sqrt(np.mean(found**2)), np.arange(inputs) % 10


def torch_resnet(torch, blocks: int, width: int):
    """A CIFAR ResNet with batch normalisation, as its users write it; normal weights, variance 2/fan_in."""
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self, before, after, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(after)
            self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(after)
            self.short = nn.Sequential()
            if stride > 1 or before != after:
                self.short = nn.Sequential(
                    nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
                )

        def forward(self, x):
            y = torch.relu(self.bn1(self.conv1(x)))
            return torch.relu(self.bn2(self.conv2(y)) + self.short(x))

    layers = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    before = width
    for stage in range(3):
        for index in range(blocks):
            layers.append(Block(before, width << stage, 2 if stage and not index else 1))
            before = width << stage
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10))


def torch_vgg(torch, plan, width: int):
    nn = torch.nn
    layers, before = [], 3
    for channels in plan:
        if channels == 0:
            layers.append(nn.MaxPool2d(2))
            continue
        layers += [nn.Conv2d(before, channels * width, 3, 1, 1), nn.BatchNorm2d(channels * width), nn.ReLU()]
        before = channels * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10))


def torch_cnn(torch, depth: int, channels: int, activation):
    nn = torch.nn
    layers = []
    for index in range(depth - 1):
        before = 3 if index == 0 else channels
        layers += [nn.Conv2d(before, channels, 3, 1, 1, padding_mode="circular"), activation()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def initialise(torch, model, sigma_w: float, sigma_b: float):
    for module in model.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            fan_in = module.weight[0].numel()
            torch.nn.init.normal_(module.weight, 0.0, sigma_w / fan_in**0.5)
            if module.bias is not None:
                torch.nn.init.normal_(module.bias, 0.0, sigma_b)


def measured(torch, make, scales, data, seeds: int) -> np.ndarray:
    """Fraction kept (n_s, L) by SNIP, mean over networks."""
    x, y = torch.as_tensor(data[0], dtype=torch.float32), torch.as_tensor(data[1])
    found = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        model = make()
        initialise(torch, model, *scales)
        loss = torch.nn.functional.cross_entropy(model(x), y)
        weights = [m.weight for m in model.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]
        gradients = torch.autograd.grad(loss, weights)
        scores = [(w * g).detach().abs().numpy().ravel() for w, g in zip(weights, gradients, strict=True)]
        together = np.sort(np.concatenate(scores))
        limits = [together[round(s * len(together))] for s in SPARSITIES]
        found.append([[float((one >= t).mean()) for one in scores] for t in limits])
    return np.mean(found, axis=0)


VGG11 = (1, 0, 2, 0, 4, 4, 0, 8, 8, 0, 8, 8, 0)
#: Factory of the model, (σ_w, σ_b), extent of the images, their number, seeds, and the error asked for.
MODELS = {
    "resnet20": (lambda torch: torch_resnet(torch, 3, 16), (2**0.5, 0.0), 16, 100, 8, 0.015),
    "vgg11": (lambda torch: torch_vgg(torch, VGG11, 32), (2**0.5, 0.0), 32, 50, 8, 0.015),
    "cnn5 tanh": (lambda torch: torch_cnn(torch, 5, 256, torch.nn.Tanh), (1.30415, 0.2), 8, 50, 8, 0.02),
    "cnn5 relu": (lambda torch: torch_cnn(torch, 5, 256, torch.nn.ReLU), (2**0.5, 0.0), 8, 50, 8, 0.02),
    "cnn10 relu": (lambda torch: torch_cnn(torch, 10, 256, torch.nn.ReLU), (2**0.5, 0.0), 8, 50, 8, 0.02),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_kept_is_what_networks_pruned_in_torch_keep(name):
    torch = pytest.importorskip("torch")
    make, scales, size, inputs, seeds, bar = MODELS[name]
    data = images(size, inputs)
    model = make(torch)
    torch.manual_seed(0)
    initialise(torch, model, *scales)
    net = eoc.Architecture.from_torch(model, torch.zeros(1, 3, size, size))
    kept, *_ = allocate_graph(theory_laws(net, "snip", data, seed=0).laws, SPARSITIES)
    error = np.abs(kept - measured(torch, lambda: make(torch), scales, data, seeds)).mean()
    assert error < bar


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vgg", "resnet", "cnn"])
def test_grasp_keeps_what_real_networks_keep(name):
    pytest.importorskip("torch")
    net = {
        "vgg": lambda: eoc.vgg(11, width=16),
        "resnet": lambda: eoc.resnet(20, input_shape=(3, 16, 16)),
        "cnn": lambda: eoc.cnn(5, 128, input_shape=(3, 8, 8), activation="tanh", sigma_b=0.2),
    }[name]()
    data = images(net.input_shape.space[0])
    runs = [
        eoc.measure_pruning(net.to_torch(seed), SPARSITIES, criterion="grasp", data=data, masks=False).kept
        for seed in range(5)
    ]
    kept, *_ = allocate_graph(theory_laws(net, "grasp", data, seed=0).laws, SPARSITIES)
    assert np.abs(kept - np.mean(runs, axis=0)).mean() < 0.03


def test_weight_gradients_are_those_of_torch():
    torch = pytest.importorskip("torch")
    net = eoc.cnn(3, 6, input_shape=(2, 7, 9), padding_mode="zeros", strides=(1,))
    graph = net.as_graph()
    position = graph.weighted[1]
    layer = graph.weighted_layer(position)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, 7, 9, 4))
    delta = rng.standard_normal((6, *graph.shapes[position].space, 4))
    weight = torch.zeros(6, 6, 3, 3, dtype=torch.float64, requires_grad=True)
    value = torch.nn.functional.conv2d(torch.as_tensor(x.transpose(3, 0, 1, 2)), weight, stride=2, padding=1)
    (wanted,) = torch.autograd.grad(value, weight, torch.as_tensor(delta.transpose(3, 0, 1, 2)))
    np.testing.assert_allclose(weight_gradient(layer, delta, x), wanted.numpy().reshape(6, -1), atol=1e-10)


def test_one_linear_layer_has_the_law_of_a_product_of_normals():
    """g = Σ_b e_b x_b for fixed data and small logits: W g is a normal times a number that e and x fix."""
    rng = np.random.default_rng(0)
    inputs = 1e-3 * rng.standard_normal((20, 40))
    targets = np.arange(20) % 10
    net = eoc.mlp(1, 1, in_features=40, out_features=10, sigma_w=1.0, sigma_b=0.0)
    (laws,) = theory_laws(net, "snip", (inputs, targets), seed=0).laws
    error = (0.1 - np.eye(10)[targets]) / 20
    gradient = np.abs(error.T @ inputs).ravel()
    gradient /= np.sqrt(np.mean(gradient**2))
    scores = np.abs(rng.standard_normal((2000, gradient.size))) * gradient
    logs = np.log(np.sort(scores.ravel()))
    wanted = 1.0 - np.searchsorted(logs, GRID) / logs.size
    np.testing.assert_allclose(laws.tail[0], wanted, atol=0.02)


def test_scores_of_a_hidden_layer_go_with_its_kernels():
    """Linear networks: log moments differ by what fans and variances say, whatever the data."""
    inputs = np.random.default_rng(0).standard_normal((30, 20))
    net = eoc.mlp(4, 400, activation="identity", in_features=20, sigma_w=1.0, sigma_b=0.0)
    (laws,) = theory_laws(net, "snip", (inputs, np.arange(30) % 10), seed=0).laws
    middle = laws.t[:, 1:3, 5].mean(axis=0) - laws.u[1:3, 5]
    assert middle[0] == pytest.approx(middle[1], abs=0.1)
    # m = σ²/fan_in Σ Γ H with Γ·fan_out the same in all layers: the first has fan_in 20, and 400 rows.
    first, second = (laws.t[:, at, 5].mean() - laws.u[at, 5] for at in (0, 1))
    assert first - second == pytest.approx(0.5 * np.log(400 / 20), abs=0.15)


NETS = {
    "chain": lambda: eoc.mlp(4, 30),
    "conv1d": lambda: eoc.cnn(4, 12, input_shape=(3, 20)),
    "reflect": lambda: eoc.cnn(4, 12, input_shape=(3, 8, 8), padding_mode="reflect"),
    "strided flat": lambda: eoc.cnn(4, 12, input_shape=(3, 8, 8), strides=(1,), head="flatten"),
    "group": lambda: eoc.resnet(8, width=8, input_shape=(3, 8, 8), normalisation="group"),
    "layer": lambda: eoc.resnet(8, width=8, input_shape=(3, 8, 8), normalisation="layer"),
    "padded shortcut": lambda: eoc.resnet(8, width=8, input_shape=(3, 8, 8), shortcut="pad"),
    "evaluation": lambda: eoc.resnet(8, width=8, input_shape=(3, 8, 8), training=False),
}
CRITERIA = ("snip", "grasp", "grasp(temperature=200)")


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("name", NETS)
def test_laws_add_up(name, criterion):
    net = NETS[name]()
    rng = np.random.default_rng(0)
    data = rng.standard_normal((20, net.in_features)), np.arange(20) % 10
    before = data[0].copy()
    found = theory_laws(net, criterion, data, seed=1)
    kept, std, empty, collapse = allocate_graph(found.laws, SPARSITIES)
    np.testing.assert_allclose(kept @ net.weights / net.n_weights, 1.0 - SPARSITIES, atol=2e-3)
    assert np.isfinite(std).all()
    assert ((empty >= 0) & (empty <= 1)).all()
    assert ((collapse >= 0) & (collapse <= 1)).all()
    assert len(found.laws) == (1 if criterion == "snip" else 2)
    assert found.samples == NETWORKS
    np.testing.assert_array_equal(data[0], before)
    again = theory_laws(net, criterion, data, seed=1)
    np.testing.assert_array_equal(again.laws[0].t, found.laws[0].t)
    other = theory_laws(net, criterion, data, seed=2)
    assert not np.array_equal(other.laws[0].t, found.laws[0].t)


@pytest.mark.parametrize(
    "labels", ["one input", "one class", "each its own", "uneven", "more than are drawn"]
)
def test_any_batch_gives_laws(labels):
    size, targets = {
        "one input": (1, [3]),
        "one class": (8, [2] * 8),
        "each its own": (8, list(range(8))),
        "uneven": (12, [0] * 7 + [1, 1, 2, 3, 3]),
        "more than are drawn": (200, [n % 10 for n in range(200)]),
    }[labels]
    inputs = np.random.default_rng(0).standard_normal((size, 3 * 64))
    for net in (eoc.cnn(3, 8, input_shape=(3, 8, 8)), eoc.resnet(8, width=8, input_shape=(3, 8, 8))):
        (laws,) = theory_laws(net, "snip", (inputs, np.array(targets)), seed=0).laws
        kept = kept_fractions(laws, SPARSITIES, threshold(laws, SPARSITIES))
        np.testing.assert_allclose(
            kept @ net.weights / net.n_weights, np.tile(1 - SPARSITIES, (NETWORKS, 1)), atol=2e-3
        )


class _Squared:
    """SNIP's ranking by another score: what is kept must be the same."""

    name, needs = "squared", "gradient"

    def score(self, weight, derivative):
        return (weight * derivative) ** 2


class _Size:
    name, needs = "size", "weights"

    def score(self, weight, derivative):
        assert derivative is None
        return weight**2


def test_a_score_of_ones_own_ranks_as_it_says():
    net = eoc.cnn(4, 16, input_shape=(3, 8, 8))
    data = images(8, 30)
    snip, squared = (
        allocate_graph(theory_laws(net, c, data, seed=0).laws, SPARSITIES)[0] for c in ("snip", _Squared())
    )
    np.testing.assert_allclose(squared, snip, atol=0.02)
    size = allocate_graph(theory_laws(net, _Size(), data, seed=0).laws, SPARSITIES)[0]
    wanted = eoc.predict_pruning(net, SPARSITIES, criterion="magnitude").kept
    np.testing.assert_allclose(size, wanted, atol=0.02)


def test_what_has_no_law_is_refused():
    net = eoc.cnn(3, 4, input_shape=(3, 4, 4))
    for criterion in ("synflow", "random"):
        with pytest.raises(ArgumentError, match="criterion"):
            theory_laws(net, criterion, None, seed=0)
    huge = eoc.cnn(200, 4, input_shape=(3, 4, 4), activation="relu", sigma_w=100.0, sigma_b=0.0)
    with pytest.raises(ModelError, match="sigma_w"):
        theory_laws(huge, "snip", None, seed=0)


@pytest.mark.parametrize("sigma_w", [0.5, 4.0])
def test_depth_neither_vanishes_nor_overflows(sigma_w):
    net = eoc.cnn(60, 8, input_shape=(3, 4, 4), activation="relu", sigma_w=sigma_w, sigma_b=0.0)
    (laws,) = theory_laws(net, "snip", images(4, 20), seed=0).laws
    assert np.isfinite(laws.t).all()
    kept = kept_fractions(laws, SPARSITIES, threshold(laws, SPARSITIES))
    np.testing.assert_allclose(
        kept @ net.weights / net.n_weights, np.tile(1 - SPARSITIES, (NETWORKS, 1)), atol=2e-3
    )


def test_a_blank_batch_has_no_scores():
    net = eoc.cnn(3, 4, input_shape=(3, 4, 4), activation="relu", sigma_w=1.0, sigma_b=0.0)
    batch = DataSummary(np.zeros((20, 48)), np.arange(20) % 10, 10)
    (laws,) = theory_laws(net, "snip", batch, seed=0).laws
    assert not laws.nonzero.any()


def test_fluctuations_shrink_with_width():
    spread = []
    for channels in (16, 64):
        net = eoc.cnn(5, channels, input_shape=(3, 6, 6), activation="relu", sigma_w=2**0.5, sigma_b=0.0)
        (laws,) = theory_laws(net, "snip", images(6, 20), seed=0).laws
        spread.append(np.std(laws.t[:, 2, 5] - laws.t[:, 1, 5]))
    assert 1.5 < spread[0] / spread[1] < 2.7


def test_the_stated_error_of_attention_is_larger_without_normalisation():
    snip = as_criterion("snip")
    errors = {
        norm: theory_trust(eoc.transformer(2, 192, norm=norm), snip, SPARSITIES)
        for norm in ("layer", "rms", None)
    }
    assert (errors[None].bound > 2 * errors["layer"].bound).all()
    assert (errors["rms"].bound == errors["layer"].bound).all()
    assert "without normalisation" in errors[None].notes[0]


def test_the_stated_error_falls_with_width():
    snip = as_criterion("snip")
    errors = [theory_trust(eoc.cnn(8, width, input_shape=(3, 8, 8)), snip, SPARSITIES) for width in (64, 256)]
    assert (errors[1].expected < errors[0].expected).all()
    assert all((one.bound >= one.expected).all() for one in errors)
    assert not theory_trust(eoc.cnn(8, 64, input_shape=(3, 8, 8)), snip, np.zeros(1)).expected.any()
    wide = theory_trust(eoc.cnn(8, 4096, input_shape=(3, 8, 8)), snip, SPARSITIES)
    assert "width" in wide.notes[0]
    unknown = theory_trust(eoc.cnn(8, 64, input_shape=(3, 8, 8)), as_criterion("grasp"), SPARSITIES)
    assert np.isnan(unknown.expected).all()
    assert unknown.notes
    assert {kind for entry in theory_errors()["kept"] for kind in entry["kinds"]} >= {
        "convolutional",
        "residual",
    }
