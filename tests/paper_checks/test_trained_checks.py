"""Paper checks that train networks: what they make of accuracies, and one small training whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from analysis import Batch, Network, Place, Study
from analysis.training import training
from paper_checks import (
    deep_sparse_training,
    image_tables,
    rescaling_training,
    trainability,
    trained_networks,
)
from paper_checks.claim import Verdict
from paper_checks.picture import draw
from paper_checks.trained_networks import Trained, trained


def one(*accuracies: float) -> Trained:
    return Trained(np.array(accuracies), np.linspace(0.1, np.mean(accuracies), 3), 0)


def test_differences_are_measured_in_standard_errors():
    low, high = one(0.1, 0.2, 0.3), one(0.7, 0.8, 0.9)
    # s.d. 0.1, three seeds, two of them: 0.6 / (0.1 √(2/3)).
    assert high.better_than(low) == pytest.approx(0.6 / (0.1 * np.sqrt(2 / 3)))
    assert low.better_than(high) == -high.better_than(low)
    assert one(0.1, 0.1, 0.1).error == 0
    assert one(0.5, 0.5).better_than(one(0.1, 0.1)) == np.inf
    assert one(0.1, 0.1).better_than(one(0.5, 0.5)) == -np.inf
    assert one(0.1, 0.1).better_than(one(0.1, 0.1)) == 0 == low.better_than(low)


def test_trainings_are_gathered_by_cell():
    study = Study(
        name="gathered",
        about="a test",
        networks=(Network("mlp", 3, 20), Network("mlp", 4, 20)),
        criteria=("random",),
        sparsities=(0.5,),
        seeds=2,
        measures=(training(epochs=2, images=100, batch=20, learning_rate=0.05),),
        batch=Batch(size=20),
    )
    found = trained(study.tasks(), lambda task: task.network.depth, Place("cpu"))
    assert set(found) == {3, 4}
    for cell in found.values():
        assert cell.accuracy.shape == (2,) and cell.history.shape == (2,) and cell.revived == 0
        assert cell.history[-1] == pytest.approx(cell.mean)


def test_a_training_that_diverged_keeps_its_last_accuracy():
    np.testing.assert_allclose(trained_networks._mean_history([[0.1], [0.3, 0.5, 0.7]]), [0.2, 0.3, 0.4])


def given(monkeypatch: pytest.MonkeyPatch, module: Any, accuracy: Any) -> None:
    """The check's trainings end with these accuracies, by cell, give or take a little."""

    def told(tasks: Any, cell: Any, place: Place) -> Mapping[Any, Trained]:
        return {key: one(accuracy(key) - 0.01, accuracy(key) + 0.01) for key in map(cell, tasks)}

    monkeypatch.setattr(module, "trained", told)


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize(
    ("helps", "verdict"),
    [
        ({"tanh": ("snip", "random"), "relu": ("snip", "random")}, Verdict.HOLDS),
        ({"tanh": ("snip", "random"), "relu": ("random",)}, Verdict.REFINED),
        ({"tanh": ("snip", "random"), "relu": ("snip",)}, Verdict.HOLDS),
        ({"tanh": ("snip", "random"), "relu": ()}, Verdict.FAILS),
        ({"tanh": ("random",), "relu": ("snip", "random")}, Verdict.FAILS),
        ({"tanh": (), "relu": ()}, Verdict.FAILS),
    ],
)
def test_the_verdict_on_rescaling_follows_from_the_accuracies(monkeypatch, helps, verdict, quick):
    def accuracy(cell: rescaling_training.Cell) -> float:
        return 0.9 if cell.rescale == "weights" and cell.criterion in helps[cell.activation] else 0.3

    given(monkeypatch, rescaling_training, accuracy)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    finding = rescaling_training.check(quick)
    assert finding.verdict is verdict
    for activation, shown in rescaling_training.SHOWN.items():
        holds = "holds" if "snip" in helps[activation] else "does not hold"
        assert f"{shown}: the claim {holds} for SNIP's masks" in finding.conclusion
    assert ("gather on the same units" in finding.conclusion) is ("snip" not in helps["relu"])
    assert "digits" in finding.conclusion and "not the paper's" in finding.conclusion
    assert finding.picture is not None
    if verdict is Verdict.HOLDS:
        draw(finding.picture)


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize(
    ("rescaled", "balanced", "verdict"),
    [(0.97, 0.97, Verdict.HOLDS), (0.5, 0.97, Verdict.REFINED), (0.5, 0.5, Verdict.FAILS)],
)
def test_the_verdict_on_deep_sparse_networks_follows_from_the_accuracies(
    monkeypatch, rescaled, balanced, verdict, quick
):
    def accuracy(cell: deep_sparse_training.Cell) -> float:
        if cell.rate not in (0.03, deep_sparse_training.QUICK_RATE):
            return 0.1  # the best of the rates counts
        if cell.remedy == deep_sparse_training.BALANCED:
            return balanced
        return rescaled if cell.remedy in deep_sparse_training.RESCALINGS else 0.2

    given(monkeypatch, deep_sparse_training, accuracy)
    finding = deep_sparse_training.check(quick)
    assert finding.verdict is verdict
    assert f"40 layers with 90% removed reach 0.20 as they are, {rescaled:.2f} with" in finding.conclusion
    assert len(finding.evidence) == 1 + (3 if quick else 4 * 6)
    assert finding.picture is not None
    if verdict is Verdict.HOLDS:
        draw(finding.picture)


@pytest.mark.parametrize(
    ("plain", "unpruned", "verdict"),
    [
        ({"snip": 0.2, "grasp": 0.3, "synflow": 0.3}, 0.88, Verdict.HOLDS),
        ({"snip": 0.2, "grasp": 0.3, "synflow": 0.3}, 0.6, Verdict.REFINED),
        ({"snip": 0.2, "grasp": 0.5, "synflow": 0.3}, 0.88, Verdict.FAILS),
        ({"snip": 0.2, "grasp": 0.3, "synflow": 0.9}, 0.6, Verdict.FAILS),
        ({"snip": 0.5, "grasp": 0.3, "synflow": 0.3}, 0.88, Verdict.FAILS),
    ],
)
@pytest.mark.parametrize("quick", [True, False])
def test_the_verdict_on_images_follows_from_the_accuracies(monkeypatch, plain, unpruned, verdict, quick):
    def accuracy(cell: image_tables.Cell) -> float:
        (kind, criterion), depth, sparsity = cell
        if kind == "vgg":
            # The claim says nothing of them.
            return {11: 0.75, 16: 0.95}[depth] if sparsity else 0.99
        if kind == "stable-resnet":
            return 0.5 if sparsity else 0.9
        return plain[criterion] if sparsity else unpruned

    given(monkeypatch, image_tables, accuracy)
    finding = image_tables.check(quick)
    assert finding.verdict is verdict
    assert "say nothing of the paper's accuracies on CIFAR-10" in finding.conclusion
    assert ("part of it is not due to pruning" in finding.conclusion) is (unpruned == 0.6)
    assert "VGG-11, as sparse, reaches 0.75 ± 0.01 (SNIP), 0.75" in finding.conclusion
    of_vgg = [one for one in finding.evidence if one.what.startswith("VGG-")]
    # Each criterion at each sparsity, and unpruned; all of it without a claim.
    assert len(of_vgg) == (4 if quick else 2 * 10)
    assert all(one.claimed is None for one in of_vgg)
    assert {round(float(one.found), 2) for one in of_vgg} == ({0.75, 0.99} if quick else {0.75, 0.95, 0.99})
    assert finding.picture is not None
    if verdict is Verdict.HOLDS:
        draw(finding.picture)


def test_ranks_share_what_is_equal_and_put_what_is_unknown_last() -> None:
    np.testing.assert_array_equal(trainability.ranks(np.array([3.0, np.nan, 1.0, 3.0])), [2.5, 0.0, 1.0, 2.5])
    assert trainability.rank_correlation(np.array([1, 2, 30]), np.array([0.1, 0.2, 0.3])) == pytest.approx(1)
    assert trainability.rank_correlation(np.array([1, 1, 1]), np.array([0.1, 0.2, 0.3])) == 0.0


def test_the_verdict_on_trainability_is_that_of_the_rank_correlations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def verdict(of: Mapping[str, float]) -> Verdict:
        found = {name: of.get(name, 0.0) + np.array([-0.01, 0.0, 0.01]) for name in trainability.MEASURES}
        reached = np.full((1, len(trainability.WAYS)), 0.5)
        monkeypatch.setattr(trainability, "correlations", lambda *_: (found, reached))
        return trainability.check(quick=True).verdict

    assert verdict({"kernel_condition": 0.9, "isometry": 0.8}) is Verdict.HOLDS
    assert verdict({"isometry": 0.8}) is Verdict.REFINED
    assert verdict({"isometry": 0.5, "kernel_condition": -0.9}) is Verdict.FAILS


def test_a_network_pruned_for_the_check_is_told_of_and_trained() -> None:
    model = trainability.pruned("synflow", "units", 0.9, 0)
    assert 0.5 < trainability.accuracy(model, 0) <= 1.0
    told = trainability.told(trainability.pruned("random", "", 0.9, 0))
    assert set(told) == set(trainability.MEASURES) and told["isometry"] > 1.0
