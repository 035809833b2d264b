"""Models whose inputs say which weights they pass, and models of several inputs."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import eoc_theory as eoc  # noqa: E402


class Experts(nn.Module):
    """Each input goes to the one of `count` experts that a router chooses, and is scaled by its score."""

    def __init__(self, count):
        super().__init__()
        self.router, self.first = nn.Linear(6, count), nn.Linear(6, 8)
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(count))
        self.last = nn.Linear(8, 3)

    def forward(self, x):
        score, chosen = self.router(x).max(-1)
        hidden = torch.relu(self.first(x))
        out = hidden
        for number, expert in enumerate(self.experts):
            rows = (chosen == number).nonzero().squeeze(-1)
            if len(rows):
                out = out.index_add(0, rows, expert(hidden[rows]) * score[rows, None])
        return self.last(out)


def made(count, seed):
    torch.manual_seed(seed)
    return Experts(count)


@pytest.mark.parametrize("count", [3, 6])
def test_experts_that_few_inputs_reach_are_ranked(count):
    torch.manual_seed(5)
    data = torch.randn(48, 6), torch.arange(48) % 3
    predicted = eoc.predict_pruning(made(count, 0), 0.7, data=data, method="sampled", samples=12)
    measured = [eoc.measure_pruning(made(count, 20 + seed), 0.7, data=data) for seed in range(12)]
    whole = [one for one in measured if len(one.layers) == count + 3]
    assert len(whole) > 8
    assert set(predicted.layers) == set(whole[0].layers)
    columns = [whole[0].layers.index(layer) for layer in predicted.layers]
    kept = np.array([one.kept[columns] for one in whole])
    error = np.hypot(kept.std(axis=0, ddof=1), predicted.kept_std) / len(whole) ** 0.5
    assert np.all(np.abs(predicted.kept - kept.mean(axis=0)) < 5 * error + 0.02)


def test_a_sampled_network_in_which_no_input_reaches_an_expert_scores_it_0():
    torch.manual_seed(5)
    data = torch.randn(5, 6), torch.arange(5) % 3
    models = (made(3, seed) for seed in range(99))
    model = next(m for m in models if len(m.router(data[0]).argmax(1).unique()) == 3)
    found = eoc.predict_pruning(model, 0.5, data=data, method="sampled", samples=12)
    assert set(found.layers) == set(eoc.measure_pruning(model, 0.5, data=data).layers)
    # In some networks no input reaches it, and in some of the units no input opens.
    assert 0 < found.zero_scores[found.layers.index("experts.0")] < 0.9


class Twins(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.last = (
            nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 8)),
            nn.Linear(8, 2),
        )

    def forward(self, one, other):
        return self.last((self.encoder(one) - self.encoder(other)).abs())


def test_models_of_several_inputs_are_initialised_on_them():
    torch.manual_seed(1)
    one, other = torch.randn(64, 6), torch.randn(64, 6)
    for example in ((one, other), {"one": one, "other": other}):
        model = eoc.initialize_(Twins(), seed=3, example_input=example)
        signal = model.encoder[0](one).detach()
        assert float(signal.square().mean()) == pytest.approx(1.0, rel=1e-3)


def test_what_torch_says_of_guessed_shapes_is_not_shown(capfd):
    class Strict(nn.Module):
        def __init__(self):
            super().__init__()
            self.c, self.o = nn.Conv2d(10, 4, 3, padding=1), nn.Linear(4, 3)

        def forward(self, x):
            both = torch.cat([x[:, 0], x.new_zeros(len(x), 8, 8, 8)], 1)
            return self.o(self.c(both).mean((2, 3)))

    with pytest.raises(eoc.EOCError, match="example_input is needed"):
        eoc.initialize_(Strict())
    shown = capfd.readouterr()
    assert "Traceback" not in shown.err + shown.out
