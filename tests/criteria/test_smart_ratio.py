"""Smart ratio, against the paper's formula and a global threshold on its own scores."""

from __future__ import annotations

import numpy as np
import pytest

from eoc_theory import criterion
from eoc_theory.errors import ArgumentError
from eoc_theory.networks.builders import resnet, vgg
from eoc_theory.pruning.data_free import collapse_data_free, predict_data_free


@pytest.mark.parametrize("power", [0, 2])
def test_densities_are_those_of_the_paper(power: int) -> None:
    net = vgg(11, width=16) if power else resnet(20, width=8)
    spec = f"smart-ratio(power={power})"
    depth = len(net.layers)
    at = np.arange(1, depth + 1)
    ratio = ((depth - at + 1) ** 2 + depth - at + 1) / at.astype(float) ** power
    for s in (0.9, 0.95, 0.98):
        kept = predict_data_free(net, s, spec).kept[0]
        counts = kept * net.weights
        assert counts.sum() == pytest.approx(net.n_weights - round(s * net.n_weights), abs=1e-6)
        # The classifier's density does not depend on the sparsity.
        assert counts[-1] == pytest.approx(int(0.3 * net.weights[-1]))
        open_ = kept[:-1] < 1 - 1e-9
        per_unit = counts[:-1][open_] / (net.weights[:-1] * ratio[:-1])[open_]
        rounding = 1.0 / (net.weights[:-1] * ratio[:-1])[open_]
        unit = np.average(per_unit, weights=1.0 / rounding)
        assert (np.abs(per_unit - unit) <= rounding).all()
        assert (ratio[:-1][~open_] * unit >= 1 - 1e-3).all()


@pytest.mark.parametrize("net", [resnet(8, width=4), vgg(11, width=2)], ids=["resnet", "vgg"])
def test_a_threshold_on_its_scores_keeps_what_is_predicted(net) -> None:
    rule = criterion("smart-ratio(power=1, linear=0.4)")
    scores = list(rule.chance_scores(net.weight_shapes, np.random.default_rng(1)))
    assert [score.shape for score in scores] == list(net.weight_shapes)
    flat = np.sort(np.concatenate([score.ravel() for score in scores]))
    n = len(flat)
    # Fewer than the classifier holds, as many as usual, and more than all other layers have.
    for kept in (3, n // 50, n // 2, n - 5):
        least = flat[n - kept]
        found = predict_data_free(net, 1 - kept / n, rule).kept[0] * net.weights
        counted = np.array([(score >= least).sum() for score in scores])
        assert np.abs(found - counted).max() <= (counted.sum() - kept) + 1e-9
    lowest = min(score.max() for score in scores)
    drawn = collapse_data_free(net, rule, samples=1)
    assert drawn.critical_sparsity[0] == pytest.approx(np.mean(flat <= lowest), abs=1e-12)
    assert drawn.weakest_layer.argmax() == int(np.argmin([score.max() for score in scores]))


def test_options_are_checked() -> None:
    assert criterion("smart-ratio").label == "smart-ratio"
    for options in ({"power": -1.0}, {"linear": 1.0}, {"linear": "much"}):
        with pytest.raises(ArgumentError, match="of criterion 'smart-ratio'"):
            criterion("smart-ratio", **options)
