"""Predictions from sampled networks against networks that plain torch draws, scores and ranks."""

import math

import numpy as np
import pytest

import eoc_theory as eoc

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

F = nn.functional
SPARSITIES = (0.8, 0.9, 0.95)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(30, 16), nn.LSTM(16, 40, 2, batch_first=True)
        self.head = nn.Linear(40, 6)

    def forward(self, ids):
        return self.head(self.lstm(self.embedding(ids))[0][:, -1])


class Block(nn.Module):
    """Pre-LN attention and MLP, weights of 0.02 as in GPT-2."""

    def __init__(self, width, heads, causal):
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        for layer in (self.qkv, self.out, self.up, self.down):
            nn.init.trunc_normal_(layer.weight, std=0.05)
            nn.init.zeros_(layer.bias)

    def forward(self, x):
        batch, tokens, width = x.shape
        shape = (batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = self.qkv(self.norm1(x)).reshape(shape).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.out(y.transpose(1, 2).reshape(batch, tokens, width))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Language(nn.Module):
    """Logits of every token, with a tied head; returned as transformers' models return them."""

    def __init__(self):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(40, 32), nn.Parameter(torch.empty(12, 32))
        nn.init.normal_(self.positions, std=0.02)
        self.blocks = nn.ModuleList([Block(32, 2, True) for _ in range(2)])
        self.head = nn.Linear(32, 40, bias=False)
        nn.init.normal_(self.tokens.weight, std=0.02)
        self.head.weight = self.tokens.weight

    def forward(self, input_ids, attention_mask=None):
        x = self.tokens(input_ids) + self.positions
        for block in self.blocks:
            x = block(x)
        return {"logits": self.head(F.layer_norm(x, (32,)))}


class Gated(nn.Module):
    """A convolution with a squeeze-and-excite gate and dense shortcuts, batch normalisation as it is set."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 12, 3, padding=1), nn.BatchNorm2d(12)
        self.down, self.up = nn.Linear(12, 4), nn.Linear(4, 12)
        self.grow = nn.Conv2d(12, 8, 3, padding=1, groups=2)
        self.head = nn.Linear(20, 5)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        gate = torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3))))))
        y = self.grow(x * gate[..., None, None])
        return self.head(torch.cat([x, F.silu(y)], 1).amax((2, 3)))


def ids(batch, tokens, vocabulary):
    return torch.randint(0, vocabulary, (batch, tokens), generator=torch.Generator().manual_seed(3))


IMAGES = torch.randn(24, 2, 8, 8, generator=torch.Generator().manual_seed(4))
PROBLEMS = {
    "recurrent": (Recurrent, (ids(24, 9, 30), torch.arange(24) % 6), "cross_entropy"),
    "language": (Language, {"input_ids": ids(6, 12, 40), "labels": ids(6, 12, 40).flip(0)}, "cross_entropy"),
    "gated, training": (Gated, (IMAGES, torch.arange(24) % 5), "cross_entropy"),
    "gated, evaluation": (lambda: Gated().eval(), (IMAGES, torch.arange(24) % 5), "cross_entropy"),
    "regression": (Gated, (IMAGES, torch.randn(24, 5, generator=torch.Generator().manual_seed(5))), "mse"),
}


def loss_of(model, data, loss):
    """By hand."""
    if isinstance(data, dict):
        logits = model(data["input_ids"])["logits"]
        return F.cross_entropy(logits.flatten(0, 1), data["labels"].flatten())
    return getattr(F, {"mse": "mse_loss"}.get(loss, loss))(model(data[0]), data[1])


def weights_of(model):
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            found[name] = module.weight
        if isinstance(module, nn.LSTM):
            found |= {f"{name}.{key}": p for key, p in module.named_parameters() if "weight" in key}
    return found


def measured(make, data, loss, seeds, criterion="snip"):
    """Fractions kept (seeds, sparsities, layers) and critical sparsities of networks made by plain torch."""
    kept, critical = [], []
    for seed in seeds:
        torch.manual_seed(1000 + seed)
        model = make().double()
        data_ = (
            data
            if isinstance(data, dict)
            else tuple(d.double() if d.is_floating_point() else d for d in data)
        )
        weights = weights_of(model)
        if criterion == "magnitude":
            scores = [w.detach().abs() for w in weights.values()]
        else:
            gradients = torch.autograd.grad(loss_of(model, data_, loss), list(weights.values()))
            scores = [(w * g).detach().abs() for w, g in zip(weights.values(), gradients, strict=True)]
        flat = torch.cat([s.flatten() for s in scores]).sort().values
        cuts = [flat[round(s * len(flat)) - 1] for s in SPARSITIES]
        kept.append([[float((s > cut).double().mean()) for s in scores] for cut in cuts])
        lowest = min(float(s.max()) for s in scores)
        critical.append(float((flat <= lowest).double().mean()))
    return list(weights), np.array(kept), np.array(critical)


@pytest.mark.parametrize("source", ["model", "factory"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_kept_and_critical_sparsity_are_those_of_networks_of_plain_torch(name, source):
    make, data, loss = PROBLEMS[name]
    names, kept, critical = measured(make, data, loss, range(24))
    torch.manual_seed(7)
    net = make() if source == "model" else lambda: make()
    found = eoc.predict_pruning(net, SPARSITIES, data=data, loss=loss, samples=16)
    assert found.method == "sampled" and found.samples == 16
    order = [found.layers.index(one) for one in names]
    assert sorted(order) == list(range(len(found.layers)))
    off = np.abs(found.kept[:, order] - kept.mean(axis=0))
    noise = kept.std(axis=0) * math.sqrt(1 / 24 + 1 / 16)
    # A scale read off one model is off where no named initialisation says it.
    assert (off < 4.0 * noise + 0.01).all(), off / noise
    assert (off.mean(axis=1) < 2.0 * noise.mean(axis=1) + 0.005).all()
    law = eoc.predict_collapse(net, data=data, loss=loss, samples=16)
    logs = np.log10(1 - critical)
    apart = abs(np.median(np.log10(1 - law.samples)) - np.median(logs))
    assert apart < 0.05 + 4.0 * logs.std() * math.sqrt(1 / 24 + 1 / 16)


@pytest.mark.parametrize("name", ["recurrent", "language"])
def test_magnitude_has_a_closed_form_where_the_distributions_are_known(name):
    make, data, loss = PROBLEMS[name]
    names, kept, _ = measured(make, data, loss, range(12), "magnitude")
    torch.manual_seed(7)
    found = eoc.predict_pruning(make(), SPARSITIES, criterion="magnitude", data=data)
    assert found.method == "theory" and found.samples == 0
    order = [found.layers.index(one) for one in names]
    assert np.abs(found.kept[:, order] - kept.mean(axis=0)).mean() < 0.002


def test_the_same_seed_gives_the_same_bits_whatever_the_threads():
    make, data, _ = PROBLEMS["gated, training"]
    torch.manual_seed(7)
    model = make()
    threads = torch.get_num_threads()
    found = []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            found.append(eoc.predict_pruning(model, 0.9, data=data, seed=3))
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(threads)
    assert all(np.array_equal(found[0].kept, other.kept) for other in found)
    assert not np.array_equal(found[0].kept, eoc.predict_pruning(model, 0.9, data=data, seed=4).kept)


def test_a_part_of_the_inputs_stands_for_all(monkeypatch):
    """Where the gradients of inputs cancel each other in part: E[g²] = α + β/B."""
    from eoc_theory.pytorch.sample import sampler

    torch.manual_seed(7)
    model = nn.Sequential(
        nn.Conv2d(2, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 5)
    )
    x = torch.randn(256, 2, 8, 8, generator=torch.Generator().manual_seed(4))
    data = x, torch.arange(256) % 5
    whole = eoc.predict_pruning(model, SPARSITIES, data=data, samples=12)
    assert whole.notes == ()
    cost = eoc_cost(model, data)
    monkeypatch.setattr(sampler, "MOST", 12 * 48 * cost)
    part = eoc.predict_pruning(model, SPARSITIES, data=data, samples=12)
    assert part.notes == ("sampled on 40 of 256 inputs, and extrapolated to all",)
    # Inputs of one network are the others of the next: the difference is that of 12 networks.
    assert np.abs(part.kept - whole.kept).mean() < 0.01
    monkeypatch.setattr(sampler.Sampler, "_shift", lambda *_: np.zeros(3))
    raw = eoc.predict_pruning(model, SPARSITIES, data=data, samples=12)
    assert np.abs(part.kept - whole.kept).mean() < np.abs(raw.kept - whole.kept).mean()


def eoc_cost(model, data):
    from eoc_theory.networks.resolve import Options, as_network

    return as_network(model, data, Options(method="sampled")).sampler.multiplications


def test_a_trained_model_is_said_to_be_shuffled():
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 60), nn.ReLU(), nn.Linear(60, 2)
    model, x = nn.Sequential(*layers), torch.randn(200, 1, 6, 6)
    x[:, :, 3:] = 0
    y = (x[:, 0, 0, 0] > 0).long()
    optimiser = torch.optim.AdamW(model.parameters(), 0.01, weight_decay=0.3)
    for _ in range(300):
        optimiser.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimiser.step()
    found = eoc.predict_pruning(model, 0.8, data=(x, y))
    assert any("no known distribution (trained?)" in note for note in found.notes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "guess"}, "method must be one of 'auto', 'theory', 'sampled', got 'guess'"),
        ({"method": "theory"}, "."),
        ({"method": "theory", "exclude": "head"}, "exclude goes with method='sampled', got method='theory'"),
        ({"method": "theory", "loss": "mse"}, "loss goes with method='sampled'"),
        ({"loss": "hinge"}, "loss must be one of"),
        ({"dtype": "float16"}, "dtype must be one of"),
        ({"device": "abacus"}, "device must be 'auto' or a device"),
        ({"output": 3.5}, "output must be"),
    ],
)
def test_unusable_arguments_are_named_in_one_line(arguments, message):
    make, data, _ = PROBLEMS["recurrent"]
    with pytest.raises(eoc.EOCError, match=message) as caught:
        eoc.predict_pruning(make(), 0.5, **{"data": data, **arguments})
    assert "\n" not in str(caught.value) and "bug" not in str(caught.value)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (lambda: 3, "net must return a torch.nn.Module, got int"),
        (lambda: 1 / 0, "net"),
        (int, "net must return a torch.nn.Module, got int"),
        (3, "net must be an Architecture, a torch.nn.Module or a function that returns one, got int"),
    ],
)
def test_factories_that_make_no_networks_are_named(factory, message):
    with pytest.raises(eoc.EOCError, match=message) as caught:
        eoc.predict_pruning(factory, 0.5, data=PROBLEMS["recurrent"][1])
    assert "\n" not in str(caught.value) and "bug" not in str(caught.value)


def test_a_factory_of_changing_networks_is_refused():
    widths = iter(range(8, 40))

    def factory():
        width = next(widths)
        return nn.Sequential(nn.Conv1d(2, width, 3), nn.ReLU(), nn.Flatten(), nn.Linear(width * 4, 3))

    with pytest.raises(eoc.EOCError, match="net must make the same layers every time"):
        eoc.predict_pruning(factory, 0.5, data=(torch.randn(5, 2, 6), torch.arange(5) % 3))
