"""What predictions say of their own error, and the map it comes from."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
from known_criteria import CRITERIA

import eoc_theory as eoc
from benchmarks import error_map
from eoc_theory.cli import main
from eoc_theory.pruning.error_model import LEVEL, evaluate, find, kind_of, size_of


@pytest.fixture(scope="module")
def found():
    return error_map.observations()


# --- the map ------------------------------------------------------------------------------------------------


def test_the_stored_map_is_what_the_measurements_say(found):
    assert error_map.build(found)[0] == error_map.MAP.read_text(encoding="utf-8")


@pytest.mark.parametrize("what", ["kept", "collapse"])
@pytest.mark.parametrize("held_out", [False, True])
def test_bounds_cover_what_was_measured(found, what, held_out):
    chosen = [one for one in found if one.what == what and (one.activation in error_map.HELD_OUT) == held_out]
    assert len({one.configuration for one in chosen}) >= 18
    under = []
    for one in chosen:
        entry, known = find(what, one.criterion, one.kind)
        assert known
        under.append(one.true_error <= entry["bound_factor"] * evaluate(entry, np.array(one.spread)))
    # Of networks that the map was not fitted to there are few: as many as chance allows one time in twenty.
    count = len({one.configuration for one in chosen})
    noise = 1.64 * np.sqrt(LEVEL * (1.0 - LEVEL) / count) if held_out else 0.05
    assert error_map.weights(chosen) @ np.array(under) >= LEVEL - noise


def test_stated_errors_are_the_measured_ones_on_average(found):
    for criterion, kind in (("snip", "chain"),):
        chosen = [
            one
            for one in found
            if (one.what, one.criterion, one.kind) == ("kept", criterion, kind)
            and one.activation not in error_map.HELD_OUT
        ]
        entry, _ = find("kept", criterion, kind)
        stated = np.array([float(evaluate(entry, np.array(one.spread))) for one in chosen])
        measured = np.array([one.true_error for one in chosen])
        weight = error_map.weights(chosen)
        assert 0.7 < (weight @ measured) / (weight @ stated) < 1.3


def test_every_criterion_has_an_entry_that_says_where_it_was_measured():
    for criterion in set(CRITERIA) - {"uniform", "erk", "smart-ratio", "grasp", "force(rounds=3)"}:
        for what in ("kept", "collapse"):
            entry, known = find(what, criterion, "chain")
            assert known and entry["configurations"] > 0 and entry["bound_factor"] >= 1
            assert entry["width"][0] < entry["width"][1] and entry["depth"][0] < entry["depth"][1]


def observation(spread, error, noise, name):
    return error_map.Observation(
        "kept", name, "snip", "tanh", "chain", 100.0, 10, (0.5,), spread, error, noise
    )


def test_fit_tells_the_error_from_the_noise_of_the_measurement():
    rng = np.random.default_rng(0)
    chosen = []
    for number in range(400):
        spread = float(rng.uniform(0.01, 0.1))
        # Errors of layers and noise of their means, both normal.
        layers = 0.3 * spread * rng.standard_normal(200) / np.sqrt(2 / np.pi) + spread * rng.standard_normal(
            200
        )
        error = float(np.abs(layers).mean())
        chosen.append(observation(spread, error, float(np.sqrt(2 / np.pi)) * spread, str(number)))
    fitted = error_map.fit(error_map.Model((), True), chosen)
    assert np.exp(fitted.constant) == pytest.approx(0.3, rel=0.05)
    powers = error_map.fit(error_map.Model(("spread",), True), chosen).powers
    assert powers["spread"] == pytest.approx(1.0, abs=0.05) and powers["width"] == 0.0


def test_leaving_out_fits_to_the_others_alone():
    chosen = [
        observation(0.1, 0.02, 0.0, "a"),
        observation(0.1, 0.04, 0.0, "b"),
        observation(0.1, 0.04, 0.0, "b"),
    ]
    expected = error_map.left_out(error_map.Model((), True), chosen)
    np.testing.assert_allclose(expected, [0.04, 0.02, 0.02], rtol=1e-6)
    np.testing.assert_allclose(error_map.weights(chosen), [0.5, 0.25, 0.25])


def test_quantile_is_the_level_that_holds_for_one_more():
    values = np.arange(1.0, 20.0)
    even = np.full(19, 1 / 19)
    assert error_map.quantile(values, even, 0.9, 19) == 18.0
    assert error_map.quantile(values[:5], even[:5] * 19 / 5, 0.9, 5) == 5.0


def test_bounds_are_rounded_up():
    assert error_map.short(1.2341) == 1.23 and error_map.short(1.2341, up=True) == 1.24
    assert error_map.short(1.2399, up=True) == 1.24 and error_map.short(2.0, up=True) == 2.0


# --- predictions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("net", "kind", "width", "depth"),
    [
        (eoc.mlp(5, 20), "chain", 20, 5),
        (eoc.cnn(4, 8), "convolutional", 8, 4),
        (eoc.vgg(11), "normalised convolutional", 8 / (1 / 64 + 1 / 128 + 2 / 256 + 4 / 512), 9),
        (eoc.resnet(8, normalisation=None), "residual", None, None),
        (eoc.resnet(8), "normalised residual", None, None),
    ],
)
def test_kind_and_size(net, kind, width, depth):
    assert kind_of(net) == kind
    if width is not None:
        assert size_of(net) == (pytest.approx(width), depth)


def test_predictions_carry_their_error():
    net = eoc.mlp(5, 50, activation="relu")
    one = eoc.predict_pruning(net, 0.9)
    several = eoc.predict_pruning(net, [0.0, 0.5, 0.9])
    assert isinstance(one.kept_error, float) and isinstance(one.kept_error_bound, float)
    assert 0 < one.kept_error < one.kept_error_bound < 0.1
    assert not one.notes and not several.notes
    errors, bounds = np.asarray(several.kept_error), np.asarray(several.kept_error_bound)
    assert errors.shape == (3,) and errors[0] == bounds[0] == 0
    assert errors[2] == pytest.approx(one.kept_error, rel=1e-12)
    assert one.to_dict()["kept_error"] == one.kept_error
    assert json.loads(several.to_json())["kept_error_bound"] == bounds.tolist()
    # Fluctuations from network to network grow with depth over width, and the error with them.
    deep_and_narrow = eoc.predict_pruning(eoc.mlp(30, 10, activation="relu"), 0.9)
    assert np.asarray(deep_and_narrow.kept_error) > 3 * one.kept_error


def test_collapse_carries_its_error():
    found = eoc.predict_collapse(eoc.mlp(5, 50, activation="relu"))
    assert 0 < found.median_error < found.median_error_bound < 1 and found.notes == ()
    assert found.to_dict()["median_error_bound"] == found.median_error_bound
    assert json.loads(found.to_json())["notes"] == []


@pytest.mark.parametrize("criterion", ["uniform", "erk", "smart-ratio"])
def test_what_is_set_has_no_error(criterion):
    net = eoc.mlp(3, 7)
    kept = eoc.predict_pruning(net, 0.9, criterion=criterion)
    collapse = eoc.predict_collapse(net, criterion=criterion)
    assert (kept.kept_error, kept.kept_error_bound, kept.notes) == (0.0, 0.0, ())
    assert (collapse.median_error, collapse.median_error_bound, collapse.notes) == (0.0, 0.0, ())


@pytest.mark.parametrize(
    ("net", "sparsity", "criterion", "words"),
    [
        (eoc.mlp(5, 4), 0.9, "snip", "width 4 (measured 10 to 1000)"),
        (eoc.mlp(120, 50), 0.9, "magnitude", "depth 120 (measured 5 to 30)"),
        (eoc.mlp(5, 50), [0.5, 0.999], "snip", "sparsity 0.999 (measured 0.5 to 0.98)"),
        (eoc.mlp(5, 50, init="pytorch"), 0.9, "snip", "uniform weights"),
        (eoc.resnet(20, normalisation="group"), 0.9, "magnitude", "group normalisation"),
        (eoc.resnet(20, training=False), 0.9, "magnitude", "batch normalisation in evaluation mode"),
        (eoc.resnet(20), 0.9, "random", "random in normalised residual networks"),
    ],
)
def test_notes_say_what_was_not_measured(net, sparsity, criterion, words):
    (note,) = [one for one in eoc.predict_pruning(net, sparsity, criterion=criterion).notes if "extra" in one]
    assert note.startswith("expected error extrapolated beyond what was measured: ") and words in note


def test_other_numbers_of_samples_are_told():
    net, said = eoc.mlp(5, 20), ("expected error is that of the default number of samples",)
    for call in (lambda **asked: eoc.predict_pruning(net, 0.9, **asked), partial(eoc.predict_collapse, net)):
        assert call(samples=4, method="theory").notes == said
        # Of sampled networks the error is that of a mean over so many.
        assert call(samples=4, method="sampled").notes == ()
    assert eoc.predict_pruning(net, 0.9, criterion="magnitude", samples=4).notes == ()


def test_command_line_prints_the_error(capsys):
    arguments = ["--activation", "relu", "--depth", "5", "--width", "50", "--sparsity", "0.9"]
    assert main(["predict", *arguments]) == 0
    assert "expected error of kept 0.0" in capsys.readouterr().out
    assert main(["predict", *arguments, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert 0 < printed["kept_error"] < printed["kept_error_bound"]
    assert main(["collapse", *arguments[:4], "--width", "4", "--method", "theory"]) == 0
    out = capsys.readouterr().out
    assert "expected error " in out and "note: expected error extrapolated" in out
    assert main(["collapse", *arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["median_error"] > 0


# --- measuring it -------------------------------------------------------------------------------------------


def test_errors_of_a_block_of_networks():
    from analysis.measures_error import collapse_errors, kept_errors

    rng = np.random.default_rng(1)
    kept = 0.3 + 0.01 * rng.standard_normal((30, 2, 60))
    predicted = np.full((2, 60), 0.3)
    predicted[1] += 0.1
    found = kept_errors(predicted, kept)
    # Half of it is nothing but the noise of the mean; the other half is far from it.
    assert found["error"][0] == pytest.approx(np.sqrt(2 / np.pi * found["noise_square"][0]), rel=0.5)
    assert found["error"][1] == pytest.approx(0.1, rel=0.05)
    np.testing.assert_allclose(found["noise_square"], 0.01**2 / 30, rtol=0.2)
    # Where all errors have one sign the jackknife is the standard error of the mean over layers.
    direct = kept[:, 1].mean(axis=1).std(ddof=1) / np.sqrt(30)
    assert found["error_deviation"][1] == pytest.approx(direct, rel=1e-9)

    logs = rng.normal(-2.0, 0.2, 400)
    seen = collapse_errors(1 - 10.0 ** (logs + 0.5), 1 - 10.0**logs, 10**6)
    assert seen["gap"] == pytest.approx(0.5) and seen["measured_spread"] == pytest.approx(0.2, rel=0.1)
    assert seen["gap_deviation"] == pytest.approx(1.2533 * 0.2 / 20, rel=0.4)


def test_the_measure_stores_little():
    from analysis import Network, Place, Study
    from analysis.measures_error import measuring_error

    study = Study(
        "one", "", (Network("mlp", 3, 10),), ("snip",), (0.5, 0.9), 1, (measuring_error(seeds=3, fewest=2),)
    )
    (task,) = study.tasks()
    found = task.measure.function(task, Place(device="cpu"))
    assert found["seeds"] == 3 and len(found["error"]) == 2 and found["layers"] == 3
    assert all(len(found[name]) == 2 for name in ("square", "noise_square", "predicted_std", "measured_std"))
    assert len(json.dumps(found)) < 600
    few = measuring_error(seeds=3, fewest=2, work=1.0)
    assert dict(few.settings)["work"] == 1.0 and not few.seeded
