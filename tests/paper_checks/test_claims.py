"""The paper checks: how claims are run and shown, the sampled networks they rest on, and quick ones whole."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import erf

import eoc_theory as eoc
from analysis.estimates import multiplications
from benchmarks import published
from benchmarks.images import photo_images
from eoc_theory.errors import MissingDependencyError
from paper_checks.__main__ import main
from paper_checks.claim import (
    ATTENTION,
    OWN,
    PUBLISHED,
    RESTATED,
    Claim,
    Evidence,
    Finding,
    Verdict,
    measured,
    run,
)
from paper_checks.convergence_rates import extrapolated_constant
from paper_checks.eoc_constants import SIGMA_B, exact_point, iterate
from paper_checks.extreme_values import (
    expected_largest,
    normal_bound,
    number_above,
    product_bound,
    product_distribution,
)
from paper_checks.graph_networks import decay
from paper_checks.graph_networks import log_score_moments as graph_log_score_moments
from paper_checks.infinite_width import off
from paper_checks.magnitude_bound import exact_critical_sparsity, sampled_critical_sparsity
from paper_checks.networks import forward, log_score_moments
from paper_checks.page import page
from paper_checks.picture import Picture, Series
from paper_checks.pruned_networks import Chain, alignment, masks_of
from paper_checks.registry import CLAIMS
from paper_checks.rescaling_cnn import log_gradients as convolution_gradients
from paper_checks.residual_networks import residual_cnn, residual_mlp
from paper_checks.sbp_bound import binding_range
from paper_checks.surviving_connections import survivors


def make_claim(name: str, found: Verdict, recorded: Verdict = Verdict.HOLDS) -> Claim:
    """A claim whose check costs nothing; its evidence says whether it was quick."""

    def check(quick: bool) -> Finding:
        rows = (Evidence("quick", None, str(quick)), Evidence("a number", 1.0, 1.25, 0.125))
        return Finding(rows, found, "Because.")

    return Claim(name, "A statement.", "A method.", recorded, check)


GOOD = make_claim("good", Verdict.HOLDS)
BAD = make_claim("bad", Verdict.FAILS)


def test_registry_names_are_unique_and_complete():
    names = [claim.name for claim in CLAIMS]
    assert len(set(names)) == len(names)
    for claim in CLAIMS:
        assert claim.statement.endswith(".") and claim.method.endswith(".")
        assert "Hayou" in claim.statement or claim.group in (ATTENTION, PUBLISHED)


def test_text_shows_statement_evidence_and_verdict():
    text = run(GOOD).to_text()
    for part in ("good", "A statement.", "Wording: ours;", "A method.", "1.25 ± 0.12", "HOLDS. Because."):
        assert part in text
    assert "NEWS" not in text
    assert "NEWS" in run(BAD).to_text()


def test_every_claim_says_whose_wording_it_is_in():
    by_wording = {claim.name: claim.wording for claim in CLAIMS}
    for claim in CLAIMS:
        told = run(replace(claim, check=GOOD.check))
        assert claim.wording and not claim.wording.endswith(".")
        assert f"Wording: {claim.wording}." in told.to_text()
        assert told.to_dict()["wording"] == claim.wording
    # Theorems of others are restated here; what nobody else says is said to be ours.
    assert by_wording["sbp-bound"] == by_wording["magnitude-bound"] == RESTATED
    assert by_wording["weight-laws"] == OWN


def test_json_holds_one_object_a_claim(capsys):
    assert main(["--json"], [GOOD, GOOD]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["name"] for row in rows] == ["good", "good"]
    assert rows[0]["evidence"][1] == {"what": "a number", "claimed": 1.0, "found": 1.25, "error": 0.125}
    assert rows[0]["verdict"] == rows[0]["recorded"] == "holds" and rows[0]["agrees"] is True


def test_exit_status_tells_a_verdict_that_is_not_the_recorded_one(capsys):
    assert main([], [GOOD, BAD]) == 1
    assert main(["good"], [GOOD, BAD]) == 0
    assert main([], [make_claim("known", Verdict.FAILS, Verdict.FAILS)]) == 0
    capsys.readouterr()


def test_quick_is_the_default_and_full_the_other(capsys):
    for arguments, quick in (([], "True"), (["--quick"], "True"), (["--full"], "False")):
        main([*arguments, "--json"], [GOOD])
        assert json.loads(capsys.readouterr().out)["evidence"][0]["found"] == quick


@pytest.mark.slow
def test_claims_come_in_their_order_and_with_the_same_bits_from_any_number_of_processes(capsys):
    names = ["erk-densities", "attention-transition", "magnitude-bound"]
    found = []
    for workers in ("1", "2"):
        assert main([*names, "--json", "--workers", workers]) == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        found.append([{key: value for key, value in row.items() if key != "seconds"} for row in rows])
    assert found[0] == found[1]
    assert [row["name"] for row in found[0]] == names


@pytest.mark.parametrize(
    ("given", "told"), [("0", "must be from 1 to 64, got 0"), ("65", "got 65"), ("two", "two")]
)
def test_numbers_of_processes_are_checked(capsys, given, told):
    with pytest.raises(SystemExit) as stopped:
        main(["--workers", given], [GOOD])
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert "--workers" in message and told in message and message.count("\n") == 1


def test_layers_are_set_to_a_scale_of_their_own():
    rng = np.random.default_rng(0)
    weights = tuple(rng.standard_normal(shape) for shape in ((7, 5), (6, 7)))
    one = Chain(weights, (np.zeros((7, 1)), np.zeros((6, 1))), eoc.activation("tanh"))
    for weight in one.with_scale(1.3).weights:
        assert weight.shape[1] * np.mean(weight**2) == pytest.approx(1.3**2)
    assert one.distance(one) == 0.0
    moved = Chain((weights[0] + 0.01, weights[1]), one.biases, one.activation)
    largest = max(np.abs(weight).max() for weight in weights)
    assert one.distance(moved) == pytest.approx(0.01 / largest)


def test_unknown_names_are_refused_in_one_line(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["nonsense"], [GOOD])
    assert stopped.value.code == 2
    assert "NAME must be one of good; got 'nonsense'" in capsys.readouterr().err


def test_help_lists_every_claim():
    shown = subprocess.run(
        [sys.executable, "-m", "paper_checks", "--help"], capture_output=True, text=True, check=True
    )
    assert all(claim.name in shown.stdout and claim.brief in shown.stdout for claim in CLAIMS)


def test_briefly_a_claim_is_its_statement_without_sources():
    brief = {claim.name: claim.brief for claim in CLAIMS}
    assert brief["relu-point"] == "For ReLU the edge of chaos is the single point (σ_w, σ_b) = (√2, 0)."
    # What stands behind a source is part of the claim.
    assert brief["gradient-independence"].endswith("forwards, also where depth is comparable to width.")
    assert brief["weight-laws"].startswith("Beyond the paper, whose weights are normal: variances, χ")
    assert [name for name, text in brief.items() if "et al." in text] == ["eoc-constants"]


@pytest.mark.parametrize("name", ["tanh", "relu"])
def test_sampled_networks_have_the_gradients_of_autograd(name):
    torch = pytest.importorskip("torch")
    net = eoc.mlp(5, 12, activation=name, in_features=7, out_features=4, init=(1.3, 0.0))
    rng = np.random.default_rng(0)
    batch = net.summarise((rng.standard_normal((9, 7)), np.arange(9) % 4))
    sampled = forward(net, batch, 2, seed=3)
    found = log_score_moments(net, batch, sampled)
    for index in range(2):
        weights = [torch.tensor(W[index], requires_grad=True) for W in sampled.weights]
        h = torch.tensor(batch.inputs.T)
        for W in weights[:-1]:
            h = getattr(torch, name)(W @ h)
        loss = torch.nn.functional.cross_entropy((weights[-1] @ h).T, torch.tensor(batch.targets))
        gradients = torch.autograd.grad(loss, weights)
        expected = [
            ((W * g).detach() ** 2).mean().log().item() for W, g in zip(weights, gradients, strict=True)
        ]
        np.testing.assert_allclose(found[index], expected, rtol=1e-10)


def test_independent_weights_leave_the_last_gradient_alone():
    net = eoc.mlp(3, 10, activation="tanh", in_features=5, out_features=3)
    batch = net.summarise((np.random.default_rng(0).standard_normal((4, 5)), np.arange(4) % 3))
    sampled = forward(net, batch, 3, seed=0)
    own, fresh = log_score_moments(net, batch, sampled), log_score_moments(net, batch, sampled, independent=1)
    assert not np.isclose(own, fresh).any()
    np.testing.assert_array_equal(fresh, log_score_moments(net, batch, sampled, independent=1))


@pytest.mark.parametrize("name", ["tanh", "elu"])
def test_edge_of_chaos_agrees_with_quadrature_at_30_digits(name):
    point = eoc.edge_of_chaos(name, sigma_b=SIGMA_B)
    assert exact_point(name) == pytest.approx((point.sigma_w, point.q), rel=1e-11)


def test_monte_carlo_iteration_converges_unless_stopped_early():
    act, point = eoc.activation("tanh"), eoc.edge_of_chaos("tanh", sigma_b=SIGMA_B)
    full = iterate(act, 0.0, runs=200)
    assert abs(full.sigma_w.mean() - point.sigma_w) < 5 * full.sigma_w.std() / np.sqrt(200)
    early = iterate(act, 0.003, runs=200)
    assert early.steps.max() < 60
    assert np.median(early.sigma_w) < point.sigma_w - 0.004


@pytest.mark.parametrize("exponent", [1, 2])
def test_constants_are_extrapolated_through_a_square_root_term(exponent):
    layer = np.arange(1.0, 4002.0)
    gap = (7.0 ** (-1 / exponent) * layer + 0.3 * np.sqrt(layer) + 2.0) ** -exponent
    assert extrapolated_constant(gap, exponent) == pytest.approx(7.0, rel=1e-4)


def test_survivors_counts_layers_neurons_and_paths():
    first = np.array([[1, 1], [1, 0], [0, 0]], dtype=bool)
    second = np.array([[1, 0, 1], [0, 0, 1]], dtype=bool)
    found = survivors({"a": first, "b": second})
    np.testing.assert_allclose(found.kept, [0.5, 0.5])
    assert found.empty_layers == 0
    # Neuron 1 has no way out and neuron 2 no way in.
    assert found.cut_neurons == pytest.approx(2 / 3)
    # Inputs 0 and 1 → neuron 0 → output 0: three of six.
    assert found.connected == pytest.approx(3 / 6)
    cut = survivors({"a": first, "b": np.zeros_like(second)})
    assert cut.empty_layers == 1 and cut.connected == 0.0


def test_bound_binds_for_strongly_ordered_or_chaotic_networks_only():
    low, high = binding_range()
    assert low * high == pytest.approx(1.0)
    assert 0.3 < low < 0.5


def with_picture(quick: bool) -> Finding:
    """A finding with a picture, markup in its text and a number that is infinite."""
    series = (Series("theory", [1, 2], [1.0, 2.0]), Series("", [1, 2], [1.1, 1.9], [0.1, 0.1], points=True))
    rows = (Evidence("m^l <b>", "< 0", float("inf")),)
    return Finding(rows, Verdict.REFINED, "χ^{L−l} & σ_w.", Picture("A caption.", "l", "y", series))


PICTURED = Claim("pictured", "A <i>claim</i>. (Hayou et al.)", "A method.", Verdict.REFINED, with_picture)


def test_page_shows_verdicts_numbers_and_pictures_and_loads_nothing(tmp_path, capsys):
    target = tmp_path / "checks.html"
    assert main(["--html", str(target)], [GOOD, BAD, PICTURED]) == 1
    text = target.read_text()
    assert text.count("<section") == 3 and text.count("<svg") == 1
    assert text.count('class="mark warn">holds with a correction<') == 2
    assert text.count('class="mark bad">on record: holds<') == 1
    assert (
        "A &lt;i&gt;claim&lt;/i&gt;" in text and "<i>claim" not in text and "m<sup>l</sup> &lt;b&gt;" in text
    )
    assert "χ<sup>L−l</sup> &amp; σ<sub>w</sub>" in text and "1.25 ± 0.12" in text
    assert "<script" not in text and "http://" not in text and "https://" not in text
    identifiers = re.findall(r'\bid="([^"]+)"', text)
    assert len(identifiers) == len(set(identifiers))
    assert page([run(PICTURED)], quick=True).count("(0 s)") == 1
    capsys.readouterr()


@pytest.mark.parametrize("name", ["checks.txt", "nowhere/checks.html"])
def test_page_that_cannot_be_written_is_refused_before_the_work(name, tmp_path, capsys):
    def never(quick: bool) -> Finding:
        raise AssertionError("was run")

    with pytest.raises(SystemExit) as stopped:
        main(["--html", str(tmp_path / name)], [Claim("c", "s.", "m.", Verdict.HOLDS, never)])
    assert stopped.value.code == 2
    shown = capsys.readouterr()
    assert "paper_checks: --html must" in shown.err and not shown.out


def test_stopped_and_failed_runs_keep_what_was_finished(tmp_path, capsys):
    def stop(quick: bool) -> Finding:
        raise KeyboardInterrupt

    def lack(quick: bool) -> Finding:
        raise MissingDependencyError("torch is missing")

    for check, status, said in ((stop, 130, "1 of 2"), (lack, 2, "error: torch is missing")):
        target = tmp_path / "checks.html"
        bad = Claim("bad", "s.", "m.", Verdict.HOLDS, check)
        assert main(["--html", str(target)], [GOOD, bad]) == status
        shown = capsys.readouterr()
        assert said in shown.err and "HOLDS. Because." in shown.out
        assert target.read_text().count("<section") == 1
        target.unlink()


def test_json_is_valid_where_a_number_is_infinite(capsys):
    def refuse(word: str) -> None:
        raise AssertionError(word)

    assert main(["--json"], [PICTURED]) == 0
    row = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert row["evidence"][0]["found"] == "inf"


def test_errors_decide_how_many_digits_are_shown():
    assert measured(Evidence("x", None, 0.117783, 0.0022)) == "0.1178 ± 0.0022"
    assert measured(Evidence("x", None, 1234.5, 67.0)) == "1234 ± 67"
    assert measured(Evidence("x", None, 0.117783)) == "0.117783"


def test_claims_are_named_once_in_the_order_of_the_registry(capsys):
    with pytest.raises(SystemExit):
        main(["rescalin"])
    error = capsys.readouterr().err
    assert all(claim.name in error for claim in CLAIMS)


def test_sampled_graphs_have_the_gradients_of_torch():
    torch = pytest.importorskip("torch")
    net = residual_mlp(3, 9, 1.1, scaling="decreasing")
    batch = net.summarise(eoc.digits(10))
    found = graph_log_score_moments(net, batch, 1, seed=5)[0]
    parameters = dict(net.to_torch(5000).named_parameters())
    drawn = [parameters[f"{layer.name}.weight"].detach().double() for layer in net.layers]
    weights = [weight.requires_grad_() for weight in drawn]
    y = weights[0] @ torch.tensor(batch.inputs.T)
    for block, weight in enumerate(weights[1:-1], start=1):
        y = y + weight @ torch.relu(y) / (np.sqrt(block) * np.log(block + 1))
    loss = torch.nn.functional.cross_entropy((weights[-1] @ torch.relu(y)).T, torch.tensor(batch.targets))
    gradients = torch.autograd.grad(loss, weights)
    expected = [((W * g).detach() ** 2).mean().log().item() for W, g in zip(weights, gradients, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_decay_is_the_slope_between_the_margins():
    line = np.stack([0.3 * np.arange(20.0), -0.1 * np.arange(20.0)])
    line[:, [0, -1]] = 100.0
    np.testing.assert_allclose(decay(line, 3), [-0.3, 0.1])


def test_magnitudes_that_are_drawn_follow_the_exact_law():
    alphas = np.array([1.0, 3.0, 1.0, 1.5])
    drawn = sampled_critical_sparsity(alphas, 20, 800, seed=0)
    exact = exact_critical_sparsity(alphas, 20, 8000, seed=1)
    error = np.hypot(drawn.std() / np.sqrt(800), exact.std() / np.sqrt(8000))
    assert abs(drawn.mean() - exact.mean()) < 4 * error
    assert error < 0.005


@pytest.fixture(scope="module")
def pruned_chain():
    pytest.importorskip("torch")
    net = eoc.mlp(12, 40, activation="relu")
    data = eoc.digits(30)
    model = net.to_torch(3)
    full = Chain.of_model(model, eoc.activation("relu"))
    return full, full.masked(masks_of(model, 0.7, "snip", data, 0)), data, model


def test_chains_have_the_gradients_of_torch(pruned_chain):
    full, _, data, model = pruned_chain
    import torch

    kept = []
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(lambda _m, _i, out: (out.retain_grad(), kept.append(out))[0])
    model.double()
    loss = torch.nn.functional.cross_entropy(model(torch.tensor(data[0])), torch.tensor(data[1]))
    loss.backward()
    squares = np.log([float((y.grad**2).mean()) for y in kept])
    np.testing.assert_allclose(full.log_gradients(data), squares - squares[-1], atol=1e-9)


def test_rescaled_chains_have_the_scale_asked_for(pruned_chain):
    full, pruned, data, _ = pruned_chain
    for weight, wanted in zip(pruned.with_scale_of(full).weights, full.weights, strict=True):
        assert np.mean(weight**2) == pytest.approx(np.mean(wanted**2))
    for weight in pruned.with_rows_of(1.3).weights:
        sums = np.sum(weight**2, axis=1)
        np.testing.assert_allclose(sums[sums > 0], 1.69)
    signal = pruned.with_signal_of(full, data[0])
    pairs = zip(signal.preactivations(data[0]), full.preactivations(data[0]), strict=True)
    for got, wanted in pairs:
        assert np.mean(got**2) == pytest.approx(np.mean(wanted**2))


def test_snip_masks_are_aligned_with_relu_and_random_ones_are_not(pruned_chain):
    full, pruned, data, _ = pruned_chain
    rng = np.random.default_rng(0)
    blind = full.masked([rng.random(weight.shape) < 0.3 for weight in full.weights])
    assert alignment(full, pruned, data) > 0.5
    assert abs(alignment(full, blind, data)) < 0.15


def test_bounds_on_the_largest_score_hold_and_are_near():
    for n in (3, 300, 30_000):
        rng = np.random.default_rng(n)
        drawn = np.abs(rng.standard_normal((2, 200, n)))
        normal, product = drawn[0].max(axis=1), drawn.prod(axis=0).max(axis=1)
        for largest, distribution, bound in (
            (normal, lambda x: erf(x / np.sqrt(2.0)), normal_bound(n)),
            (product, product_distribution, product_bound(n)),
        ):
            exact = expected_largest(distribution, n, 60.0)
            assert abs(exact - largest.mean()) < 5 * largest.std() / np.sqrt(200)
            assert exact < bound < 2.3 * exact


def test_costs_of_erk_are_those_of_each_layer_by_hand():
    net = eoc.resnet(8, width=4, input_shape=(3, 8, 8))
    by_name = dict(zip(net.weight_layers, multiplications(net), strict=True))
    assert by_name["conv1"] == 4 * 3 * 9 * 64 and by_name["fc"] == 16 * 10
    assert by_name["stages.1.0.conv1"] == 4 * 8 * 9 * 16 and by_name["stages.1.0.shortcut.0"] == 4 * 8 * 16


def test_kept_predictions_of_published_results_are_of_this_table():
    rows = published.stored()
    assert [(row.case, row.mode) for row in rows] == [
        (case, mode) for case in published.CASES for mode in published.MODES
    ]
    for row in rows:
        assert 0 <= row.median - row.on_grid < 2 * published.STEP
        assert (row.images, row.networks) == published.CASES[row.case][2:]
    # What takes no time is as it is kept.
    assert published.predict("magnitude", "evaluation").median == rows[2].median


def test_pieces_of_photographs_are_standardised():
    images, targets = photo_images(40, 16, seed=1, classes=7)
    assert images.shape == (40, 3, 16, 16)
    np.testing.assert_allclose(images.mean(axis=(0, 2, 3)), 0.0, atol=1e-12)
    np.testing.assert_allclose(images.std(axis=(0, 2, 3)), 1.0)
    # They differ in brightness, as 1/f noise hardly does.
    assert images.mean(axis=(1, 2, 3)).std() > 0.3
    np.testing.assert_array_equal(targets, np.arange(40) % 7)
    np.testing.assert_array_equal(images, photo_images(40, 16, seed=1)[0])


def test_large_scores_come_in_rows_and_columns():
    found = number_above(20, 3000, 0)
    assert found.mean() - 1.0 > 5 * found.std() / np.sqrt(3000)


def test_the_distance_to_kernels_takes_the_noise_of_its_mean_off():
    pytest.importorskip("torch")
    bias, error, spread = off(eoc.mlp(4, 60, activation="tanh"), eoc.digits(6), 12)
    assert 0.05 < spread < 0.5 and bias < 0.6 * spread and error < spread


def test_gradients_by_layer_are_those_of_differences():
    torch = pytest.importorskip("torch")
    model = eoc.cnn(3, 4, input_shape=(1, 4, 4), activation="tanh").to_torch(0).double()
    data = np.random.default_rng(0).standard_normal((5, 1, 4, 4)), np.arange(5)
    found = convolution_gradients(model, data)
    first = next(one for one in model.modules() if isinstance(one, torch.nn.Conv2d))
    nudge = torch.zeros(5, 4, 4, 4, dtype=torch.float64)
    squares = 0.0
    hook = first.register_forward_hook(lambda _m, _i, out: out + nudge)
    with torch.no_grad():
        for at in np.ndindex(*nudge.shape):
            losses = []
            for step in (1e-5, -1e-5):
                nudge[at] = step
                logits = model(torch.as_tensor(data[0]))
                losses.append(float(torch.nn.functional.cross_entropy(logits, torch.as_tensor(data[1]))))
            nudge[at] = 0.0
            squares += ((losses[0] - losses[1]) / 2e-5) ** 2
    hook.remove()
    last = [one for one in model.modules() if isinstance(one, torch.nn.Conv2d)][-1]
    assert last is not first and found[-1] == 0.0
    kept = []
    last.register_forward_hook(lambda _m, _i, out: (out.retain_grad(), kept.append(out))[0])
    torch.nn.functional.cross_entropy(model(torch.as_tensor(data[0])), torch.as_tensor(data[1])).backward()
    top = float(kept[0].grad.square().sum())
    assert found[0] == pytest.approx(np.log(squares / top), abs=1e-6)


def test_convolutional_residual_networks_are_the_recursion():
    torch = pytest.importorskip("torch")
    net = residual_cnn(3, 5, 1.2, (2, 4, 4), scaling="stable")
    model = net.to_torch(1).double()
    weights = {name: value.detach() for name, value in model.named_parameters()}
    x = torch.as_tensor(np.random.default_rng(0).standard_normal((3, 2, 4, 4)))

    def convolved(name, h):
        padded = torch.nn.functional.pad(h, (1, 1, 1, 1), mode="circular")
        return torch.nn.functional.conv2d(padded, weights[f"{name}.weight"])

    y = convolved("first", x)
    for block in (1, 2, 3):
        y = y + convolved(f"blocks.{block}", torch.relu(y)) / np.sqrt(3)
    expected = torch.relu(y).mean((2, 3)) @ weights["last.weight"].T
    np.testing.assert_allclose(model(x).detach().numpy(), expected.numpy(), rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["relu-point", "convergence-rates", "magnitude-bound", "extreme-values", "erk-densities"]
)
def test_quick_claims_have_their_recorded_verdicts(name):
    outcome = run({claim.name: claim for claim in CLAIMS}[name])
    assert outcome.agrees, outcome.to_text()
