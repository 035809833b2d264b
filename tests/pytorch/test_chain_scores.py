"""Scores of chains by matrices that carry their scale, against autograd where that is in range."""

import numpy as np
import pytest

import eoc_theory as eoc
from eoc_theory.pytorch.measure.chain_scores import chain_scores, layers_of
from eoc_theory.pytorch.models import prunable_weights

torch = pytest.importorskip("torch")


def autograd_scores(model, inputs, targets, criterion):
    """Scores by torch alone, in double precision."""
    model = model.double()
    weights = [m.weight for m in model.modules() if isinstance(m, torch.nn.Linear)]
    loss = torch.nn.functional.cross_entropy(model(torch.tensor(inputs)), torch.tensor(targets))
    gradients = torch.autograd.grad(loss, weights, create_graph=True)
    if criterion == "snip":
        return [(w * g).abs().detach().numpy() for w, g in zip(weights, gradients, strict=True)]
    product = sum((g * g.detach()).sum() for g in gradients)
    curved = torch.autograd.grad(product, weights)
    return [(w * h).detach().numpy() for w, h in zip(weights, curved, strict=True)]


def batch(size=15, features=12, scale=1.0):
    rng = np.random.default_rng(2)
    return scale * rng.standard_normal((size, features)), np.arange(size) % 4


def network(activation, depth, sigma_w, sigma_b=0.0, width=11):
    return eoc.mlp(
        depth, width, activation=activation, in_features=12, out_features=4, init=(sigma_w, sigma_b)
    )


@pytest.mark.parametrize("criterion", ["snip", "grasp"])
@pytest.mark.parametrize(
    ("activation", "sigma_w", "sigma_b"),
    [
        ("relu", 1.4, 0.0),
        ("tanh", 1.3, 0.4),
        ("gelu", 2.0, 0.1),
        ("leaky_relu(0.2)", 1.2, 0.3),
        ("sin", 1.5, 0.2),
    ],
)
def test_scores_are_those_of_autograd(criterion, activation, sigma_w, sigma_b):
    model = network(activation, 6, sigma_w, sigma_b).to_torch(3).double()
    inputs, targets = batch()
    found = chain_scores(layers_of(model, prunable_weights(model)), inputs, targets, eoc.criterion(criterion))
    wanted = autograd_scores(model, inputs, targets, criterion)
    ratios = [np.sum(a * b) / np.sum(b * b) for a, b in zip(found, wanted, strict=True)]
    assert ratios == pytest.approx([ratios[0]] * len(ratios), rel=1e-9)
    for one, other in zip(found, wanted, strict=True):
        assert one == pytest.approx(ratios[0] * other, abs=1e-11 * np.abs(one).max())


@pytest.mark.parametrize("criterion", ["snip", "grasp"])
@pytest.mark.parametrize("depth", [40, 450])
@pytest.mark.parametrize("sigma_w", [3**-0.5, 0.1, 4.0])
def test_the_weights_scale_does_not_matter_to_homogeneous_chains(criterion, depth, sigma_w):
    """Once all logits are tiny, or all are huge, whatever makes them so."""
    far = 1e-250 if sigma_w < 1 else 1e250
    measured = [
        eoc.measure_pruning(
            network("relu", depth, scale).to_torch(0).double(),
            0.8,
            criterion=criterion,
            data=batch(scale=far),
        )
        for scale in (sigma_w, np.sqrt(2.0))
    ]
    # Weights are drawn in single precision, and multiplied by their scale there.
    assert measured[0].kept == pytest.approx(measured[1].kept, abs=0.02)
    assert measured[0].critical_sparsity == pytest.approx(measured[1].critical_sparsity, abs=5e-3)
    assert measured[0].zero_scores.max() < 1.0


@pytest.mark.parametrize("criterion", ["snip", "grasp"])
def test_signals_that_die_out_on_their_way_are_measured_as_lines(criterion):
    """Far below their length scale tanh is the identity, and ReLU6 is ReLU."""
    for small, line in (("tanh", "identity"), ("relu6", "relu")):
        found, wanted = (
            eoc.measure_pruning(
                network(name, 250, 0.2, width=40).to_torch(1).double(),
                0.8,
                criterion=criterion,
                data=batch(scale=1e-9),
            )
            for name in (small, line)
        )
        assert found.kept == pytest.approx(wanted.kept, abs=1e-3)


def test_scores_that_double_precision_does_not_hold_are_those_of_the_chain_elsewhere():
    class Wrapped(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.inner = model

        def forward(self, x):
            return self.inner(x) * 1.0

    plain = network("relu", 480, 0.1).to_torch(0).double()
    whole = eoc.measure_pruning(plain, 0.5, data=batch(scale=1e290))
    found = eoc.measure_pruning(Wrapped(plain), 0.5, data=batch(scale=1e290))
    np.testing.assert_allclose(found.kept, whole.kept, atol=0.01)
