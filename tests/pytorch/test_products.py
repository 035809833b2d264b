"""Which parameters of a model are weights, of layers of any class and of a module's own."""

import copy

import numpy as np
import pytest

import eoc_theory as eoc

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

F = nn.functional


class Own(nn.Module):
    """A module whose parameters enter products in many ways, and some that enter none."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 7)
        self.positions = nn.Parameter(torch.randn(1, 4, 7))
        self.gate = nn.Parameter(torch.ones(7, 7))
        self.down, self.up = nn.Parameter(torch.randn(7, 2)), nn.Parameter(torch.randn(2, 7))
        self.experts = nn.Parameter(torch.randn(3, 7, 5))
        self.masked = nn.Parameter(torch.randn(5, 7))
        self.register_buffer("mask", torch.ones(5, 7))
        self.unused = nn.Parameter(torch.randn(5, 5))
        self.head = nn.Linear(5, 4)

    def forward(self, ids):
        x = (self.embedding(ids) + self.positions) * self.gate[:1]
        x = x + x @ (self.down @ self.up)
        y = torch.einsum("btc,ecd->btd", x, self.experts)
        y = y + F.linear(x, (self.masked - self.masked.mean()) * self.mask)
        return self.head(y.mean(1))


def test_own_parameters_count_where_they_enter_products():
    torch.manual_seed(0)
    model, x, y = Own(), torch.randint(0, 10, (6, 4)), torch.arange(6) % 4
    found = eoc.measure_pruning(model, 0.5, data=(x, y))
    assert set(found.layers) == {"down", "up", "experts", "masked", "head"}
    assert set(found.uncounted) == {"embedding.weight", "positions", "gate", "unused"}
    weights = dict(model.named_parameters())
    chosen = {name: weights.get(name, weights.get(f"{name}.weight")) for name in found.layers}
    gradients = torch.autograd.grad(F.cross_entropy(model(x), y), list(chosen.values()))
    scores = [(w * g).abs().detach() for w, g in zip(chosen.values(), gradients, strict=True)]
    flat = torch.cat([s.flatten() for s in scores]).sort().values
    cut = flat[len(flat) - len(flat) // 2 - 1]
    assert np.allclose(found.kept, [float((s > cut).double().mean()) for s in scores], atol=0.02)


LAYERS = {
    "attention": (lambda: nn.MultiheadAttention(8, 2, batch_first=True), {"0.in_proj_weight", "0.out_proj"}),
    "attention of other sizes": (
        lambda: nn.MultiheadAttention(8, 2, kdim=8, vdim=6, batch_first=True),
        {"0.q_proj_weight", "0.k_proj_weight", "0.v_proj_weight", "0.out_proj"},
    ),
    "lstm": (
        lambda: nn.LSTM(8, 6, proj_size=3, batch_first=True),
        {"0.weight_ih_l0", "0.weight_hh_l0", "0.weight_hr_l0"},
    ),
    "gru": (
        lambda: nn.GRU(8, 6, bidirectional=True, batch_first=True),
        {f"0.weight_{a}_l0{b}" for a in ("ih", "hh") for b in ("", "_reverse")},
    ),
    "transposed": (lambda: nn.ConvTranspose1d(8, 6, 3), {"0"}),
    "weight norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(8, 6)), {"0"}),
    "spectral norm": (lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(8, 6)), {"0"}),
    "old weight norm": (lambda: nn.utils.weight_norm(nn.Linear(8, 6)), {"0"}),
}


class Around(nn.Sequential):
    """A layer whatever it takes and returns, and a head over the mean of its outputs."""

    def forward(self, x):
        layer = self[0]
        if isinstance(layer, nn.ConvTranspose1d):
            x = x.transpose(1, 2)
        if isinstance(layer, nn.MultiheadAttention):
            y = layer(x, x, x[..., : layer.vdim])
        else:
            y = layer(x)
        y = y[0] if isinstance(y, tuple) else y
        return self[1](y.flatten(1).mean(1, keepdim=True) * y.new_ones(1, 5))


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", LAYERS)
def test_weights_of_layers_count_in_measuring_and_in_prediction(name):
    make, wanted = LAYERS[name]
    torch.manual_seed(0)
    model = Around(make(), nn.Linear(5, 3))
    data = torch.randn(6, 4, 8), torch.arange(6) % 3
    for criterion in ("snip", "magnitude"):
        measured = eoc.measure_pruning(model, 0.5, criterion=criterion, data=data)
        predicted = eoc.predict_pruning(model, 0.5, criterion=criterion, data=data)
        assert set(measured.layers) == wanted | {"1"}
        assert predicted.layers == measured.layers
        assert np.array_equal(predicted.weights, measured.weights)


def test_the_terms_of_a_sum_have_scores_of_their_own():
    """Automatic differentiation gives both the same tensor."""

    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other = nn.Parameter(torch.randn(5, 6)), nn.Parameter(torch.randn(5, 6))

        def forward(self, x):
            return F.linear(x, self.one + self.other)

    torch.manual_seed(0)
    model, x, y = Sum(), torch.randn(7, 6), torch.arange(7) % 5
    found = eoc.measure_pruning(model, 0.5, data=(x, y))
    loss = F.cross_entropy(model(x), y)
    gradients = torch.autograd.grad(loss, (model.one, model.other))
    scores = [(w * g).abs() for w, g in zip((model.one, model.other), gradients, strict=True)]
    cut = torch.cat([s.flatten() for s in scores]).sort().values[29]
    assert np.allclose(found.kept, [float((s > cut).double().mean()) for s in scores])


def test_tied_weights_count_once_with_the_whole_gradient():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.body = nn.Embedding(12, 6), nn.Linear(6, 6)
            self.head = nn.Linear(6, 12, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, ids):
            return self.head(torch.tanh(self.body(self.embedding(ids))))

    torch.manual_seed(0)
    model, ids, targets = Tied(), torch.randint(0, 12, (5, 7)), torch.randint(0, 12, (5, 7))
    found = eoc.measure_pruning(model, 0.5, data=(ids, targets))
    assert found.layers == ("body", "head")
    loss = F.cross_entropy(model(ids).flatten(0, 1), targets.flatten())
    g = torch.autograd.grad(loss, (model.body.weight, model.head.weight))
    scores = [(w * d).abs() for w, d in zip((model.body.weight, model.head.weight), g, strict=True)]
    moments = [float((s.detach().double() ** 2).mean().log()) for s in scores]
    assert np.allclose(np.diff(found.log_score_moments), np.diff(moments), atol=1e-5)


def test_layers_that_the_loss_does_not_depend_on_are_named_and_not_ranked():
    class Extra(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.auxiliary, self.head = nn.Linear(5, 6), nn.Linear(6, 2), nn.Linear(6, 3)

        def forward(self, x):
            h = torch.relu(self.body(x))
            return self.head(h), self.auxiliary(h)

    data = torch.randn(8, 5), torch.arange(8) % 3
    for found in (
        eoc.measure_pruning(Extra(), 0.5, data=data),
        eoc.predict_pruning(Extra(), 0.5, data=data, method="sampled"),
    ):
        assert found.layers == ("body", "head")
        assert any("auxiliary" in note and "not counted" in note for note in found.notes)
    other = eoc.measure_pruning(Extra(), 0.5, data=(data[0], data[1] % 2), output=1)
    assert other.layers == ("body", "auxiliary")


@pytest.mark.parametrize(
    ("exclude", "left"),
    [
        ("head", ("body.0", "body.2")),
        (["body.0"], ("body.2", "head")),
        ("body.*", ("head",)),
        ("body", ("head",)),
        (["*.2", "head"], ("body.0",)),
        ("module", ("head",)),
    ],
)
def test_excluded_layers_stay_dense_and_the_others_are_ranked_together(exclude, left):
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 6))
    model = nn.Sequential()
    model.add_module("body", body)
    model.add_module("head", nn.Linear(6, 3))
    exclude = body if exclude == "module" else exclude
    data = torch.randn(9, 5), torch.arange(9) % 3
    measured = eoc.measure_pruning(model, 0.5, data=data, exclude=exclude)
    predicted = eoc.predict_pruning(model, 0.5, data=data, exclude=exclude)
    assert measured.layers == predicted.layers == left
    assert predicted.method == "sampled"
    total = measured.weights.sum()
    assert float(measured.kept @ measured.weights) == total - round(0.5 * total)


@pytest.mark.parametrize("exclude", ["nothing", ["body.0", "x*"], 3, [3], nn.Linear(2, 2)])
def test_what_excludes_nothing_is_an_error_that_names_it(exclude):
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
    data = torch.randn(9, 5), torch.arange(9) % 3
    for call in (eoc.measure_pruning, eoc.predict_pruning, eoc.predict_collapse):
        given = {} if call is eoc.predict_collapse else {"sparsity": 0.5}
        with pytest.raises(eoc.EOCError, match="exclude must"):
            call(model, data=data, exclude=exclude, **given)


def test_excluding_everything_is_an_error():
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
    with pytest.raises(eoc.EOCError, match="exclude leaves no layer"):
        eoc.measure_pruning(model, 0.5, data=(torch.randn(9, 5), torch.arange(9) % 3), exclude="*")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", sorted(set(LAYERS) - {"old weight norm"}))
def test_masks_act_on_any_weight_through_training_copies_and_saving(name):
    torch.manual_seed(0)
    make, wanted = LAYERS[name]
    model = Around(make(), nn.Linear(5, 3))
    x, y = torch.randn(6, 4, 8), torch.arange(6) % 3
    found = eoc.measure_pruning(model, 0.5, data=(x, y))
    assert found.masks is not None
    eoc.prune_(model, found.masks)
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for _ in range(3):
        optimiser.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimiser.step()
    after = model.state_dict()
    masks = [key for key in after if key.endswith("_mask")]
    assert len(masks) == len(wanted) + 1
    for key in masks:
        original = key.removesuffix("_mask") + "_orig"
        gone = after[key] == 0
        assert torch.equal(after[original][gone], before[original][gone])  # no gradient comes where it is 0
        assert not torch.equal(after[original], before[original])
    again = eoc.measure_pruning(model, 0.5, data=(x, y))
    assert np.allclose(again.kept, found.kept, atol=1.5 / found.weights.min())
    twin = copy.deepcopy(model)
    assert torch.equal(twin.eval()(x), model.eval()(x))


def test_a_mask_on_old_weight_normalisation_is_refused():
    with pytest.warns(FutureWarning):
        model = nn.Sequential(nn.utils.weight_norm(nn.Linear(5, 4)))
    with pytest.raises(eoc.EOCError, match="'weight_v' by a hook"):
        eoc.prune_(model, {"0": np.ones((4, 5))})
