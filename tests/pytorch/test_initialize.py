"""Any model set to the edge of chaos: scales, laws, what is left alone; χ = 1 in sampled wide networks."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812
from torch.nn.utils import prune  # noqa: E402

import eoc_theory as eoc  # noqa: E402
from eoc_theory.errors import ArgumentError, EOCError, ModelError, NoCriticalPointError  # noqa: E402
from eoc_theory.pytorch.initialize import initialize_  # noqa: E402
from eoc_theory.pytorch.weights import CUT_STD, fan_in, fill_  # noqa: E402

LAWS = ("normal", "uniform", "truncated", "orthogonal")
TANH = 1.3041458400565116  # σ_w of tanh at σ_b = 0.2


class Residual(nn.Module):
    """Residual blocks with functional activations, a grouped and a depthwise convolution."""

    def __init__(self, scale=0.5):
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.norm = nn.BatchNorm2d(32)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.grouped = nn.Conv2d(32, 32, 3, padding=1, groups=4, bias=False)
        self.project = nn.Conv2d(32, 64, 1, stride=2)
        self.shortcut = nn.Conv2d(32, 64, 1, stride=2)
        self.fc1 = nn.Linear(64, 48)
        self.fc2 = nn.Linear(48, 5)
        self.scale = scale

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        y = torch.tanh(self.grouped(F.relu(self.depthwise(x))))
        x = F.relu(self.shortcut(x) + self.scale * self.project(y))
        return self.fc2(torch.tanh(self.fc1(x.mean(dim=(2, 3)))))


def scale_of(weight):
    return math.sqrt(float(weight.detach().double().square().mean()) * fan_in(weight))


def test_each_layer_takes_the_activation_that_follows():
    model = Residual()
    assert initialize_(model, seed=0) is model
    relu, tanh = math.sqrt(2), 1.0
    expected = {
        "stem": relu,
        "depthwise": relu,
        "grouped": tanh,
        "project": relu,
        "shortcut": relu,
        "fc1": tanh,
        "fc2": tanh,
    }
    for name, sigma_w in expected.items():
        weight = model.get_submodule(name).weight
        assert scale_of(weight) == pytest.approx(sigma_w, rel=5 / math.sqrt(2 * weight.numel())), name


def test_biases_and_normalisation():
    model = nn.Sequential(
        nn.Conv2d(3, 200, 3),
        nn.BatchNorm2d(200),
        nn.Tanh(),
        nn.Conv2d(200, 300, 3),
        nn.GroupNorm(4, 300),
        nn.Tanh(),
        nn.Flatten(),
        nn.LazyLinear(10),
    )
    model(torch.randn(4, 3, 8, 8) * 3 + 1)
    for module in (model[1], model[4]):
        nn.init.normal_(module.weight)
        nn.init.normal_(module.bias)
    initialize_(model, sigma_b=0.2, seed=2, example_input=(4, 3, 8, 8))
    for i in (0, 3):
        assert scale_of(model[i].weight) == pytest.approx(TANH, rel=0.05)
        assert float(model[i].bias.detach().std()) == pytest.approx(0.2, rel=0.2)
    for module in (model[1], model[4]):
        assert bool((module.weight == 1).all()) and bool((module.bias == 0).all())
    assert bool((model[1].running_mean == 0).all()) and bool((model[1].running_var == 1).all())
    assert int(model[1].num_batches_tracked) == 0


def test_linear_layers_between_weights_keep_variances():
    """A bottleneck without activation has χ = σ_w², so that its critical scale is 1."""
    model = nn.Sequential(
        nn.Linear(60, 300), nn.ReLU(), nn.Linear(300, 200), nn.Linear(200, 300), nn.ReLU(), nn.Linear(300, 60)
    )
    initialize_(model, seed=1)
    found = [scale_of(model[i].weight) for i in (0, 2, 3, 5)]
    np.testing.assert_allclose(found, [math.sqrt(2), 1.0, math.sqrt(2), math.sqrt(2)], rtol=0.03)


def test_residual_scaling_stays_and_branches_have_the_critical_scale():
    stable, plain = (eoc.resnet(8, width=8, scaling=s).to_torch(0) for s in ("stable", "none"))
    for model in (stable, plain):
        initialize_(model, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(stable.parameters(), plain.parameters(), strict=True))
    images = torch.randn(4, 3, 32, 32)
    assert not torch.allclose(stable(images), plain(images))
    assert scale_of(stable.get_submodule("stages.2.0.conv2").weight) == pytest.approx(2**0.5, rel=0.02)


class Branch(nn.Module):
    """A residual block without normalisation, activations first."""

    def __init__(self, width, factor):
        super().__init__()
        self.factor = factor
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x):
        return x + self.factor * self.second(F.relu(self.first(F.relu(x))))


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_branches_multiply_the_variance_by_one_plus_the_factor_squared(factor):
    width, blocks = 400, 8
    model = nn.Sequential(
        nn.Linear(50, width), *(Branch(width, factor) for _ in range(blocks)), nn.ReLU(), nn.Linear(width, 2)
    )
    initialize_(model, seed=0)
    x = model[0](torch.randn(40, 50, generator=torch.Generator().manual_seed(0)))
    start = float(x.detach().square().mean())
    end = float(model[1:-2](x).detach().square().mean())
    assert (end / start) ** (1 / blocks) == pytest.approx(1 + factor**2, rel=0.04)


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_before_weights_is_allowed_for(p):
    parts = [(nn.Linear(500, 500), nn.Tanh(), nn.Dropout(p)) for _ in range(8)]
    model = nn.Sequential(*(layer for part in parts for layer in part), nn.Linear(500, 10))
    initialize_(model, sigma_b=0.2, seed=0)
    expected = [TANH, *[TANH * math.sqrt(1 - p)] * 8]
    found = [scale_of(layer.weight) for layer in model if isinstance(layer, nn.Linear)]
    assert found == pytest.approx(expected, rel=0.02)
    # Variances stay at the fixed point that the network has without dropout.
    torch.manual_seed(0)
    q = eoc.edge_of_chaos("tanh", sigma_b=0.2).q
    signal = model[:-1](math.sqrt(q) / TANH * torch.randn(50, 500))
    assert float(signal.detach().square().mean()) == pytest.approx((q - 0.04) / TANH**2 / (1 - p), rel=0.1)
    # In evaluation mode dropout does nothing, and weights are scaled for that.
    initialize_(model.eval(), sigma_b=0.2, seed=0)
    assert scale_of(model[3].weight) == pytest.approx(TANH, rel=0.02)


def test_what_the_weights_were_does_not_matter():
    model = Residual()
    twin = Residual()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.fc1.weight.fill_(math.nan)
        model.norm.running_var.fill_(math.inf)
    for each in (model, twin):
        initialize_(each, sigma_b=0.0, law="uniform", seed=4)
    for a, b in zip(model.state_dict().values(), twin.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_seeds_and_torchs_global_state():
    model = Residual()
    state = torch.get_rng_state()
    initialize_(model, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    first = [p.clone() for p in model.parameters()]
    torch.manual_seed(0)
    initialize_(model)
    second = [p.clone() for p in model.parameters()]
    assert not torch.equal(first[0], second[0])
    torch.manual_seed(0)
    initialize_(model)
    assert all(torch.equal(a, b) for a, b in zip(second, model.parameters(), strict=True))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("shape", [(300, 40), (40, 300), (64, 32, 3, 3), (16, 48, 5)])
def test_every_law_has_the_same_variance(law, shape):
    weight = torch.empty(shape)
    fill_(weight, None, 1.5, 0.0, law, torch.Generator().manual_seed(0))
    # Orthogonal matrices have it exactly; the others up to sampling.
    tolerance = 1e-5 if law == "orthogonal" else 4 / math.sqrt(2 * weight.numel())
    assert scale_of(weight) == pytest.approx(1.5, rel=tolerance)
    assert abs(float(weight.mean())) < 5 * 1.5 / math.sqrt(fan_in(weight) * weight.numel())


def test_the_truncated_law_is_corrected_exactly():
    # E[Z² | |Z| < 2] by quadrature.
    z = np.linspace(-2, 2, 200_001)
    density = np.exp(-(z**2) / 2)
    assert pytest.approx(math.sqrt(np.sum(z**2 * density) / np.sum(density)), rel=1e-4) == CUT_STD
    weight = torch.empty(2000, 1000)
    fill_(weight, None, 1.0, 0.0, "truncated", torch.Generator().manual_seed(0))
    assert scale_of(weight) == pytest.approx(1.0, rel=3e-3)
    assert float(weight.abs().max()) * math.sqrt(1000) == pytest.approx(2 / CUT_STD, rel=1e-3)


def test_orthogonal_groups():
    weight = torch.empty(24, 6, 3, 3)
    fill_(weight, None, 2.0, 0.0, "orthogonal", torch.Generator().manual_seed(0), groups=4)
    for block in weight.flatten(1).chunk(4):
        torch.testing.assert_close(block @ block.T, 4.0 * torch.eye(6), atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("law", [*LAWS, "delta-orthogonal"])
def test_other_precisions(dtype, law):
    model = nn.Sequential(
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 36, 4),
    ).to(dtype)
    initialize_(model, law=law, seed=0, example_input=(1, 8, 8, 8))
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert scale_of(model[2].weight) == pytest.approx(2**0.5, rel=0.04)


# --- the edge of chaos, in sampled networks -----------------------------------------------------------------


def circular(depth, channels, activation):
    layers = [nn.Conv2d(3, channels, 3, padding=1, padding_mode="circular"), activation]
    for _ in range(depth - 2):
        layers += [nn.Conv2d(channels, channels, 3, padding=1, padding_mode="circular"), activation]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def gradient_norms(model, images, cotangent):
    """Mean squared gradient of <cotangent, values> at each activation's output."""
    values = []
    x = images
    for module in model:
        x = module(x)
        if isinstance(module, (nn.Tanh, nn.ReLU)):
            values.append(x)
    found = torch.autograd.grad((values[-1] * cotangent).sum(), values[:-1])
    return np.array([float(g.square().mean()) for g in found] + [float(cotangent.square().mean())])


@pytest.mark.parametrize("law", [*LAWS, "delta-orthogonal"])
def test_chi_is_one_in_sampled_tanh_networks(law):
    depth, channels = 14, 96
    torch.manual_seed(0)
    model = circular(depth, channels, nn.Tanh())
    initialize_(model, sigma_b=0.2, law=law, seed=0)
    generator = torch.Generator().manual_seed(1)
    # A random cotangent: its norm alone counts, and the variance starts from the fixed point's.
    images = torch.randn(2, 3, 5, 5, generator=generator) * 0.6
    values = model[:-3](images).detach()
    cotangent = torch.randn(values.shape, generator=generator)
    norms = gradient_norms(model, images, cotangent)[2:]
    # Going back, each layer multiplies by χ, and wanders by a few per cent.
    assert math.exp(-np.polyfit(np.arange(len(norms)), np.log(norms), 1)[0]) == pytest.approx(1.0, abs=0.03)
    # PyTorch's default is far in the ordered phase: χ = σ_w² = 1/3.
    default = circular(depth, channels, nn.Tanh())
    norms = gradient_norms(default, images, torch.randn(values.shape, generator=generator))[2:]
    assert math.exp(-np.polyfit(np.arange(len(norms)), np.log(norms), 1)[0]) == pytest.approx(1 / 3, abs=0.02)


def test_delta_orthogonal_keeps_norms_exactly():
    model = nn.Sequential(
        *[
            nn.Conv2d(24, 24, 3, padding=1, padding_mode=mode, bias=False)
            for mode in ("circular", "zeros", "reflect") * 10
        ]
    )
    for module in model:
        fill_(module.weight, None, 1.0, 0.0, "delta-orthogonal", torch.Generator().manual_seed(1))
    model.double()
    images = torch.randn(3, 24, 7, 7, dtype=torch.float64, requires_grad=True)
    values = model(images)
    torch.testing.assert_close(values.square().sum(dim=1), images.square().sum(dim=1), rtol=1e-4, atol=0)
    cotangent = torch.randn_like(values)
    (gradient,) = torch.autograd.grad((values * cotangent).sum(), images)
    torch.testing.assert_close(gradient.square().sum(dim=1), cotangent.square().sum(dim=1), rtol=1e-4, atol=0)
    centre = model[0].weight[:, :, 1, 1]
    assert int((model[0].weight != 0).sum()) == int((centre != 0).sum()) == 24 * 24


def test_delta_orthogonal_keeps_the_mean_square_where_channels_grow():
    weight = torch.empty(96, 32, 3, 3)
    fill_(weight, None, 1.0, 0.0, "delta-orthogonal", torch.Generator().manual_seed(0))
    x = torch.randn(2, 32, 9, 9)
    y = F.conv2d(x, weight, padding=1)
    torch.testing.assert_close(y.square().mean(1), x.square().mean(1), rtol=1e-4, atol=1e-5)
    depthwise = torch.empty(32, 1, 3, 3)
    fill_(depthwise, None, 1.0, 0.0, "delta-orthogonal", torch.Generator().manual_seed(0), groups=32)
    y = F.conv2d(x, depthwise, padding=1, groups=32)
    torch.testing.assert_close(y.abs(), x.abs())


@pytest.mark.parametrize("law", [*LAWS, "delta-orthogonal"])
def test_other_memory_formats(law):
    models = [nn.Sequential(nn.Conv2d(4, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(54, 2)) for _ in range(2)]
    models[1].to(memory_format=torch.channels_last)
    for model in models:
        initialize_(model, law=law, seed=0, example_input=(1, 4, 5, 5))
    if law in ("orthogonal", "delta-orthogonal", "truncated"):
        assert torch.equal(models[0][0].weight, models[1][0].weight)
    assert scale_of(models[1][0].weight) == pytest.approx(1.0, rel=0.3)


# --- errors -------------------------------------------------------------------------------------------------


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(x) if float(x.sum()) > 0 else self.fc(-x)


def bias_pruned_model():
    model = Residual()
    prune.random_unstructured(model.fc1, "bias", amount=0.5)
    return model


def pruned_model():
    model = Residual()
    eoc.prune_(model, {"fc1": np.ones((48, 64), dtype=bool)})
    return model


def test_lazy_layers_are_named():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.LazyLinear(2))
    with pytest.raises(ModelError, match="layer '2' is not initialised: call the model once before"):
        initialize_(model)


@pytest.mark.parametrize(
    ("model", "options", "error", "message"),
    [
        (Residual, {"law": "cauchy"}, ArgumentError, "law must be one of 'normal', .*'delta-orthogonal'"),
        (Residual, {"sigma_b": -1}, ArgumentError, "sigma_b"),
        (Residual, {"seed": -1}, ArgumentError, "seed"),
        (Residual, {"sigma_b": 0.2}, NoCriticalPointError, "relu"),
        (Residual, {"law": "delta-orthogonal", "example_input": (1, 4, 8, 8)}, ModelError, "stem"),
        (Branching, {}, ModelError, "Branching"),
        (pruned_model, {}, ModelError, "'fc1' is pruned already"),
        (bias_pruned_model, {}, ModelError, "'fc1' is pruned already"),
        (lambda: nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), {}, ModelError, "no activation"),
        (
            lambda: nn.Sequential(nn.Conv2d(8, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 30 * 30, 2)),
            {"law": "delta-orthogonal"},
            ModelError,
            "8 -> 4 in layer '0'",
        ),
        (
            lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(77, 2)),
            {},
            ModelError,
            r"example_input is needed; with inputs of shape \(2, 3, 32, 32\)",
        ),
    ],
)
def test_errors_leave_the_model_as_it_was(model, options, error, message):
    model = model()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    pointers = {k: v.data_ptr() for k, v in model.state_dict().items()}
    with pytest.raises(error, match=message) as caught:
        initialize_(model, **options)
    assert isinstance(caught.value, EOCError) and "\n" not in str(caught.value)
    after = model.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert pointers == {k: v.data_ptr() for k, v in after.items()}


@pytest.mark.parametrize("law", ["normal", "uniform", "truncated", "orthogonal"])
def test_models_that_cannot_be_read_are_initialised_by_the_signal(law):
    """Every layer's product W h has mean square 1 on the example (Mishkin & Matas 2016)."""

    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.attention = (
                nn.Embedding(12, 16),
                nn.MultiheadAttention(16, 4, batch_first=True),
            )
            self.up, self.gate = nn.Linear(16, 40), nn.Linear(16, 40)
            self.down, self.norm, self.head = nn.Linear(40, 16), nn.LayerNorm(16), nn.Linear(16, 5)

        def forward(self, ids):
            x = self.embedding(ids)
            x = self.norm(x + self.attention(x, x, x)[0])
            x = x + self.down(nn.functional.silu(self.gate(x)) * self.up(x))
            return self.head(x.mean(1))

    torch.manual_seed(0)
    model, ids = Gated(), torch.randint(0, 12, (8, 6))
    assert eoc.initialize_(model, law=law, seed=1, example_input=ids) is model
    signals = {}
    for name in ("up", "gate", "down", "head"):
        layer = getattr(model, name)
        layer.register_forward_hook(
            lambda m, args, out, name=name: signals.update({name: float(out.square().mean())})
        )
        assert not layer.bias.any()
    model(ids)
    assert list(signals.values()) == pytest.approx([1.0] * 4, rel=1e-4)
    spread = float(model.attention.in_proj_weight.detach().std()) * 4.0
    assert spread == pytest.approx(1.0, rel=0.1)
    torch.manual_seed(0)
    again = eoc.initialize_(Gated(), law=law, seed=1, example_input=ids).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in model.state_dict().items())
    with pytest.raises(eoc.EOCError, match="example_input is needed for a model that cannot be read"):
        eoc.initialize_(Gated(), law=law)
