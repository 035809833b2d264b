"""Fields of exchangeable inputs have the joint covariance that was estimated."""

from __future__ import annotations

import numpy as np
import pytest

from eoc_theory.propagation.gaussian_fields import FieldLaw, Panel, draw_field
from eoc_theory.signals.data import DataSummary

KERNELS = {3: (1.0, 0.6, 0.25), 2: (1.0, 0.3, 0.3)}


def batch(classes: int, members: int) -> DataSummary:
    size = classes * members
    return DataSummary(np.ones((size, 1)), np.arange(size) % classes, classes)


def joint(panel: Panel, same: np.ndarray, alike: np.ndarray, unlike: np.ndarray) -> np.ndarray:
    """Covariance over (position, input) pairs, (P·B, P·B), written out."""
    label = np.arange(panel.size) % panel.classes
    positions = len(same)
    found = np.zeros((positions, panel.size, positions, panel.size))
    for a in range(panel.size):
        for b in range(panel.size):
            found[:, a, :, b] = same if a == b else alike if label[a] == label[b] else unlike
    return found.reshape(positions * panel.size, -1)


@pytest.mark.parametrize(("classes", "members"), [(4, 3), (5, 1), (3, 2)])
def test_fields_have_the_covariance_that_was_estimated(classes, members):
    panel = Panel.of(batch(classes, members), classes * members)
    assert panel.members == members
    assert panel.classes == classes
    base = np.exp(-np.abs(np.subtract.outer(np.arange(3), np.arange(3))) / 2.0)
    same, alike, unlike = (c * base for c in KERNELS[3 if members > 1 else 2])
    wanted = joint(panel, same, alike, unlike)
    rng = np.random.default_rng(0)
    root = np.linalg.cholesky(wanted + 1e-9 * np.eye(len(wanted)))
    given = (root @ rng.standard_normal((len(wanted), 60_000))).T.reshape(-1, 3, panel.size)
    law = FieldLaw.estimated(panel, [given.astype(np.float32)])
    np.testing.assert_allclose(law.scales, 1.0, atol=0.02)
    drawn = draw_field(panel, law, law.roots(), 60_000, rng).reshape(60_000, -1) * np.exp(law.log_scale)
    np.testing.assert_allclose(drawn.T @ drawn / len(drawn), wanted, atol=0.03)


def test_scales_of_inputs_are_kept_and_chance_is_not():
    panel = Panel.of(batch(2, 4), 8)
    rng = np.random.default_rng(1)
    scales = np.linspace(0.5, 2.0, 8)
    fields = rng.standard_normal((4000, 2, 8)).astype(np.float32)
    found = FieldLaw.estimated(panel, [fields * scales.astype(np.float32)])
    np.testing.assert_allclose(found.scales * np.exp(found.log_scale), scales, rtol=0.05)
    # Differences of few channels' mean squares say nothing.
    few = FieldLaw.estimated(panel, [fields[:10]])
    observed = np.sqrt(np.mean(fields[:10] ** 2, axis=(0, 1)))
    assert np.std(few.scales) < 0.7 * np.std(observed / np.sqrt(np.mean(observed**2)))


def test_sums_over_pairs_go_from_the_panel_to_the_whole_batch():
    whole = batch(3, 6)
    panel = Panel.of(whole, 6)
    assert panel.size == 6
    products = np.array([2.0, 0.5, -0.1])
    own, total = panel.totals(products, np.ones(6))
    label = np.arange(18) % 3
    matrix = np.where(label[:, None] == label, products[1], products[2])
    np.fill_diagonal(matrix, products[0])
    assert total == pytest.approx(matrix.sum())
    assert own == pytest.approx(panel.expand(products).sum())


def test_a_field_of_nothing_is_nothing():
    panel = Panel.of(batch(2, 2), 4)
    law = FieldLaw.estimated(panel, [np.zeros((5, 3, 4), np.float32)])
    assert not draw_field(panel, law, law.roots(), 2, np.random.default_rng(0)).any()


@pytest.mark.parametrize("labels", [[0, 0, 0, 0, 0], [0, 1, 2, 3, 4], [0, 0, 0, 1, 2], [1]])
def test_any_labels_give_a_panel(labels):
    data = DataSummary(np.ones((len(labels), 1)), np.array(labels), 5)
    panel = Panel.of(data, 100)
    assert 1 <= panel.size <= len(labels)
    assert panel.counts.sum() == len(labels) ** 2
