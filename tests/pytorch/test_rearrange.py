"""Masks rearranged within their layers: what stays, what is even, and what deep networks make of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import eoc_theory as eoc
from eoc_theory.errors import ArgumentError

torch: Any = pytest.importorskip("torch")

SHAPES = [(100, 100), (10, 100), (100, 7), (6, 3, 3, 3), (7, 1, 3, 3), (4, 5, 1), (50,), (3, 4, 2, 2, 2)]


def drawn(shape: tuple[int, ...], density: float) -> np.ndarray:
    """A mask whose weights gather on few rows and columns."""
    rng = np.random.default_rng(len(shape))
    scores = rng.random(shape) * rng.random((shape[0], *(1,) * (len(shape) - 1))) ** 3
    mask = np.zeros(scores.size, dtype=bool)
    mask[np.argsort(-scores.ravel())[: round(density * scores.size)]] = True
    return mask.reshape(shape)


def degrees(mask: np.ndarray, axis: int) -> np.ndarray:
    return mask.sum(axis=tuple(i for i in range(mask.ndim) if i != axis))


@pytest.mark.parametrize("density", [0.0, 0.03, 0.1, 0.5, 0.97, 1.0])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_balanced_masks_keep_the_number_and_spread_it_evenly(shape, density):
    given = drawn(shape, density)
    before = given.copy()
    found = eoc.rearrange_masks({"a": given}, "balanced", seed=1)["a"]
    assert found.dtype == bool and found.shape == shape and found.sum() == given.sum()
    np.testing.assert_array_equal(given, before)
    for axis in range(min(2, len(shape)) if len(shape) > 1 else 0):
        assert np.ptp(degrees(found, axis)) <= 1


def test_balanced_masks_have_no_pattern_beyond_that():
    """Each weight is kept equally often, and two units of a layer share inputs no oftener than by chance."""
    given = {"a": np.arange(400).reshape(20, 20) < 80}
    found = np.array([eoc.rearrange_masks(given, seed=seed)["a"] for seed in range(1000)])
    # 4 of 20: s.d. of a mean of 1000 is 0.0126; 400 weights.
    assert np.abs(found.mean(axis=0) - 0.2).max() < 4.5 * 0.0126
    shared = np.einsum("sij,skj->sik", found * 1.0, found * 1.0).mean(axis=0)
    off = shared[~np.eye(20, dtype=bool)]
    # Of the 19 others that take part in an input's 4 units 3 do: 4 · 3/19.
    assert off.mean() == pytest.approx(4 * 3 / 19, rel=1e-9)
    assert np.abs(off - off.mean()).max() < 0.15


def test_random_masks_are_shuffles_and_all_masks_answer_to_the_seed():
    given = {"a": drawn((30, 40), 0.1), "b": torch.as_tensor(drawn((8, 3, 3, 3), 0.3))}
    found = eoc.rearrange_masks(given, "random", seed=2)
    assert {name: int(mask.sum()) for name, mask in found.items()} == {"a": 120, "b": 65}
    # Binomial-like, as of chance: some rows have few, some many.
    assert np.ptp(degrees(found["a"], 0)) > 1
    for arrangement in ("random", "balanced"):
        one, again, other = (eoc.rearrange_masks(given, arrangement, seed=s) for s in (0, 0, 1))
        for name in given:
            np.testing.assert_array_equal(one[name], again[name])
            assert (one[name] != other[name]).any()


def test_what_is_no_mask_or_arrangement_is_refused():
    good = {"a": np.ones((2, 2), dtype=bool)}
    for wrong in ([np.ones(2)], {}, {"a": np.array([0.5])}, {3: np.ones(2)}, None):
        with pytest.raises(ArgumentError, match="masks"):
            eoc.rearrange_masks(wrong)
    with pytest.raises(ArgumentError, match="arrangement must be one of"):
        eoc.rearrange_masks(good, "even")
    with pytest.raises(ArgumentError, match="seed"):
        eoc.rearrange_masks(good, seed=-1)


def test_deep_relu_signals_stay_apart_after_balancing_and_not_after_snip():
    """Plain torch, from the weights and masks alone: how evenly 25 layers of a tenth of the weights pass on
    gradients, as the ratio of the first hidden layer's mean square to the last's."""
    net = eoc.mlp(depth=25, width=100, activation="relu", in_features=64, out_features=10)
    data = eoc.digits(100)

    def ratio(seed: int, arranged: bool) -> float:
        model = net.to_torch(seed)
        masks = eoc.measure_pruning(model, 0.9, data=data, collapse=False, device="cpu").masks
        if arranged:
            masks = eoc.rearrange_masks(masks, seed=seed)
        eoc.rescale_(eoc.prune_(model, masks), by="units" if arranged else "weights")
        x = torch.as_tensor(data[0])
        weights = [
            layer.weight.detach().double().numpy() for layer in model.modules() if hasattr(layer, "weight")
        ]
        squares, h = [], np.asarray(x)
        for weight in weights:
            h = h @ weight.T
            squares.append(float(np.square(h).mean()))
            h = np.maximum(h, 0.0)
        return abs(np.log10(squares[-2] / squares[0]))

    even, gathered = ([ratio(seed, arranged) for seed in range(3)] for arranged in (True, False))
    assert max(even) < 1.5 < 4.0 < min(gathered)
