"""SynFlow of models that no graph describes, against the paper's own recipe in plain torch."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import eoc_theory as eoc  # noqa: E402
from eoc_theory.errors import ModelError  # noqa: E402
from eoc_theory.pytorch.measure import scoring  # noqa: E402
from eoc_theory.pytorch.measure.run_flow import RUN_NOTE, RunFlow  # noqa: E402

nn, F = torch.nn, torch.nn.functional


class Ones(nn.Module):
    """What an embedding gives SynFlow."""

    def __init__(self, features):
        super().__init__()
        self.features = features

    def forward(self, ids):
        return torch.ones(*ids.shape, self.features, dtype=torch.float64)


def tanaka(model, inputs, names, sparsity, rounds):
    """Masks by the code of Tanaka et al. (Pruners/pruners.py, prune.py): top scores in each of the rounds."""
    model = copy.deepcopy(model).double().eval()
    for module in [m for m in model.modules() if isinstance(m, (nn.LayerNorm, nn.GroupNorm))]:
        module.forward = lambda x: x
    for name, module in list(model.named_children()):
        if isinstance(module, nn.Embedding):
            setattr(model, name, Ones(module.embedding_dim))
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.abs_()
    own = dict(model.named_parameters())
    weights = [own[name] for name in names]
    masks = [torch.ones_like(w, dtype=torch.bool) for w in weights]
    total = sum(w.numel() for w in weights)
    density = 1 - round(sparsity * total) / total
    for k in range(1, rounds + 1):
        model.zero_grad()
        model(*inputs).sum().backward()
        scores = torch.cat([(w.grad * w).detach().abs().flatten() for w in weights])
        alive = torch.cat([m.flatten() for m in masks])
        scores = torch.where(alive, scores, torch.full_like(scores, -1.0))
        keep = torch.zeros_like(alive)
        keep[scores.topk(round(total * density ** (k / rounds))).indices] = True
        parts = keep.split([w.numel() for w in weights])
        masks = [part.reshape(w.shape) for part, w in zip(parts, weights, strict=True)]
        with torch.no_grad():
            for weight, mask in zip(weights, masks, strict=True):
                weight.mul_(mask)
    return [mask.numpy() for mask in masks]


class Upsampling(nn.Module):
    """An encoder and decoder with transposed convolutions, group and batch normalisation."""

    def __init__(self):
        super().__init__()
        self.a, self.n = nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.b, self.g = nn.Conv2d(8, 12, 3, padding=1), nn.GroupNorm(3, 12)
        self.u, self.o = nn.ConvTranspose2d(12, 8, 2, 2), nn.Conv2d(16, 3, 1)

    def forward(self, x):
        one = F.relu(self.n(self.a(x)))
        two = F.relu(self.g(self.b(F.max_pool2d(one, 2))))
        return self.o(torch.cat([one, self.u(two)], 1))


class Messages(nn.Module):
    """A network of nodes whose edges are buffers."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.register_buffer("edges", torch.randint(0, 12, (2, 40), generator=generator))
        self.a, self.b, self.o = nn.Linear(5, 16), nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x):
        source, target = self.edges % len(x)
        x = torch.tanh(self.a(x))
        return self.o(x.index_add(0, target, F.relu(self.b(x))[source]))


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.e, self.r = nn.Embedding(20, 6), nn.LSTM(6, 8, batch_first=True)
        self.o = nn.Linear(8, 3)

    def forward(self, x):
        return self.o(self.r(self.e(x))[0].mean(1))


class Points(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.o = nn.Conv1d(3, 12, 1), nn.Conv1d(12, 16, 1), nn.Linear(16, 4)

    def forward(self, x):
        return self.o(F.relu(self.b(F.silu(self.a(x)))).max(2).values)


class Own(nn.Module):
    """Parameters of its own, scaled as they are used, and one matrix used twice."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(16, 8))
        self.v = nn.Parameter(torch.randn(16, 16))
        self.o = nn.Linear(16, 3)

    def forward(self, x):
        x = F.relu(x @ self.w.T / 8**0.5)
        for _ in range(2):
            x = F.relu(x @ self.v.T / 4.0)
        return self.o(x)


def images():
    return torch.randn(6, 2, 8, 8), torch.randint(0, 3, (6, 8, 8))


CASES = {
    "upsampling": (Upsampling, images),
    "messages": (Messages, lambda: (torch.randn(12, 5), torch.arange(12) % 3)),
    "words": (Words, lambda: (torch.randint(0, 20, (6, 5)), torch.arange(6) % 3)),
    "points": (Points, lambda: (torch.randn(6, 3, 10), torch.arange(6) % 4)),
    "own": (Own, lambda: (torch.randn(6, 8), torch.arange(6) % 3)),
}


def made(name):
    torch.manual_seed(3)
    kind, data = CASES[name]
    return kind(), data()


def parameters_of(layers, model):
    """Names of the parameters that results call by their layer."""
    known = dict(model.named_parameters())
    return [name if name in known else f"{name}.weight" for name in layers]


@pytest.mark.parametrize("criterion", ["synflow-oneshot", "synflow(rounds=20)"])
@pytest.mark.parametrize("name", CASES)
def test_masks_are_those_of_the_papers_recipe(name, criterion):
    model, data = made(name)
    before = copy.deepcopy(model.state_dict())
    found = eoc.measure_pruning(model, 0.7, criterion=criterion, data=data, collapse=False)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert model.training
    assert any(note.startswith(RUN_NOTE) for note in found.notes)
    one = data[0][:1]
    names = parameters_of(found.layers, model)
    rounds = 1 if "oneshot" in criterion else 20
    ones = torch.ones_like(one, dtype=torch.float64) if one.is_floating_point() else one
    expected = tanaka(model, (ones,), names, 0.7, rounds)
    differ = sum(int((m != e).sum()) for m, e in zip(found.masks.values(), expected, strict=True))
    assert differ <= 2  # at the threshold a score may round either way


@pytest.mark.parametrize("name", ["messages", "words"])
def test_predicted_is_what_networks_of_other_seeds_keep(name):
    kind, _ = CASES[name]
    model, batch = made(name)
    options = {"criterion": "synflow(rounds=10)", "data": batch}
    predicted = eoc.predict_pruning(model, [0.6, 0.8], **options)
    assert any(note.startswith(RUN_NOTE) for note in predicted.notes)
    measured = []
    for seed in range(8):
        torch.manual_seed(100 + seed)
        one = eoc.measure_pruning(kind(), [0.6, 0.8], **options, masks=False, collapse=False)
        measured.append(one.kept[:, [one.layers.index(layer) for layer in predicted.layers]])
    mean, spread = np.mean(measured, 0), np.std(measured, 0, ddof=1)
    standard = np.hypot(spread, predicted.kept_std) / 8**0.5
    assert np.all(np.abs(predicted.kept - mean) < 5 * standard + 0.03)
    collapse = eoc.predict_collapse(model, **options)
    own = eoc.measure_pruning(model, 0.5, **options).critical_sparsity
    assert np.log10(1 - collapse.samples[0]) > np.log10(1 - own) - 0.5


def test_a_relu_network_that_can_be_read_has_the_same_scores_when_it_is_run():
    torch.manual_seed(0)
    parts = [nn.Conv2d(2, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)]
    model = nn.Sequential(*parts, nn.Conv2d(8, 8, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))
    nn.init.zeros_(model[-1].bias)
    example = torch.zeros(1, 2, 8, 8)
    weights = scoring.prunable_weights(model)
    read = scoring.synflow_start(model, weights, example, dtype="float64").scores()
    batch = eoc.pytorch.batches.as_batch(model, None, example)
    run = RunFlow(model, weights, batch, eoc.pytorch.losses.as_loss(), "cpu").scores()
    factor = float(read[0].sum() / run[0].sum())
    for one, other in zip(read, run, strict=True):
        assert torch.allclose(one, other * factor, rtol=1e-4)  # batch normalisation divides by √(1 + 10⁻⁵)


class Attends(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.o = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = self.a(x)
        return self.o((torch.softmax(x @ x.transpose(1, 2), -1) @ x).max(1).values)


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.r, self.o = nn.GRU(6, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        return self.o(self.r(x)[0][:, -1])


class Drawing(Gated):
    def forward(self, x):
        x = super().forward(x)
        return x + torch.randn_like(x)


class Differs(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.o = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.o((self.a(x[:, 0]) - self.a(x[:, 1])).abs())


class Saturates(Differs):
    def forward(self, x):
        return self.o(F.hardtanh(1e3 * self.a(x)).max(1).values)


class Large(Differs):
    def forward(self, x):
        return self.o(torch.exp(1e3 * self.a(x).max(1).values))


@pytest.mark.parametrize("call", [eoc.measure_pruning, eoc.predict_pruning])
@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Attends, "attention or another softmax"),
        (Gated, "falls where .weights. of layer 'r.weight_ih_l0' grow"),
        (Drawing, "draw random numbers in evaluation mode"),
        (Differs, "scores of layer 'a' are all 0"),
        (Saturates, "scores of layer 'a' are all 0"),
        (Large, "leave the range of float64"),
    ],
)
def test_a_model_without_a_flow_is_refused_by_name(kind, text, call):
    torch.manual_seed(0)
    data = torch.randn(8, 4, 6), torch.arange(8) % 3
    for criterion in ("synflow", "synflow-oneshot"):
        with pytest.raises(ModelError, match=text):
            call(kind(), 0.5, criterion=criterion, data=data)


def test_excluded_layers_keep_their_place_in_the_flow():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 3))
    for criterion in ("synflow-oneshot", "synflow(rounds=5)"):
        options = {"criterion": criterion, "exclude": ["0"], "example_input": (1, 2, 8, 8)}
        found = eoc.measure_pruning(model, 0.5, **options)
        nn.init.zeros_(model[0].bias), nn.init.zeros_(model[2].bias), nn.init.zeros_(model[4].bias)
        rounds = 5 if "rounds" in criterion else 1
        ones = torch.ones(1, 2, 8, 8, dtype=torch.float64)
        expected = tanaka(model, (ones,), ["2.weight", "4.weight"], 0.5, rounds)
        assert found.layers == ("2", "4")
        assert sum(int((m != e).sum()) for m, e in zip(found.masks.values(), expected, strict=True)) <= 2
        predicted = eoc.predict_pruning(model, 0.5, **options)
        assert predicted.layers == found.layers
        assert np.abs(predicted.kept - found.kept).max() < 0.06
