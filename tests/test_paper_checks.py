"""The paper checks: how claims are run and shown, the sampled networks they rest on, and quick ones whole."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

import eoc_theory as eoc
from paper_checks.__main__ import main
from paper_checks.claim import Claim, Evidence, Finding, Verdict, run
from paper_checks.convergence_rates import extrapolated_constant
from paper_checks.eoc_constants import SIGMA_B, exact_point, iterate
from paper_checks.networks import forward, log_score_moments
from paper_checks.registry import CLAIMS
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
        assert "Hayou" in claim.statement


def test_text_shows_statement_evidence_and_verdict():
    text = run(GOOD).to_text()
    for part in ("good", "A statement.", "A method.", "1.25 ± 0.12", "HOLDS. Because."):
        assert part in text
    assert "NEWS" not in text
    assert "NEWS" in run(BAD).to_text()


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


def test_unknown_names_are_refused_in_one_line(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["nonsense"], [GOOD])
    assert stopped.value.code == 2
    assert "NAME must be one of good; got 'nonsense'" in capsys.readouterr().err


def test_help_lists_every_claim():
    shown = subprocess.run(
        [sys.executable, "-m", "paper_checks", "--help"], capture_output=True, text=True, check=True
    )
    assert all(claim.name in shown.stdout for claim in CLAIMS)


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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["relu-point", "convergence-rates"])
def test_quick_claims_have_their_recorded_verdicts(name):
    outcome = run({claim.name: claim for claim in CLAIMS}[name])
    assert outcome.agrees, outcome.to_text()
