"""Diagnoses of networks with attention by theory, held against sampled networks of the same shape."""

from __future__ import annotations

import numpy as np
import pytest

import eoc_theory as eoc
from eoc_theory.errors import ArgumentError
from eoc_theory.propagation.channel_plan import Plan
from eoc_theory.reports.diagnosis import attention, sampled

torch = pytest.importorskip("torch")

SHAPE = {"depth": 2, "width": 48, "heads": 4, "vocabulary": 40, "tokens": 12, "classes": 5}
NETS = {
    "even": eoc.transformer(**SHAPE),
    "peaked": eoc.transformer(**SHAPE, sigma_qk=40.0),
    "causal, gated": eoc.transformer(**SHAPE, causal=True, gated=True, readout="last", sigma_qk=2.0),
    "GPT's small weights": eoc.transformer(**SHAPE, std=0.02, embedding_std=0.02),
    "post-LN": eoc.transformer(**SHAPE, placement="post"),
}


@pytest.fixture(scope="module")
def found() -> dict[str, eoc.Diagnosis]:
    return {name: eoc.diagnose(net, method="theory", sparsity=0.9) for name, net in NETS.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_theory_tells_what_sampled_networks_show(found, name):
    theory = found[name]
    seen = eoc.diagnose(NETS[name], method="sampled", sparsity=0.9)
    assert (theory.method, seen.method) == ("theory", "sampled")
    for problem in ("rank collapse", "entropy collapse", "vanishing", "exploding", "silent"):
        assert (problem in theory.problems) == (problem in seen.problems), problem
    ours, theirs = theory.signals, seen.signals
    place = [seen.layers.index(layer) for layer in theory.layers]
    assert np.abs(ours.attention_entropy - theirs.attention_entropy).max() < 0.06
    both = np.isfinite(ours.token_similarity) & np.isfinite(theirs.token_similarity[place])
    assert both.sum() == len(theory.layers) - 1
    assert np.abs(ours.token_similarity - theirs.token_similarity[place])[both].max() < 0.12
    assert np.abs(np.log(ours.signal / theirs.signal[place])).max() < 0.6
    gradients = np.log(ours.gradient / theirs.gradient[place])
    assert np.abs(gradients - np.median(gradients)).max() < 1.0
    assert np.array_equal(ours.entries, theirs.entries[place])
    assert [theory.layers[n] for n in ours.residual] == [seen.layers[n] for n in theirs.residual]


def test_entropy_collapse_is_named_and_cured(found):
    one = found["peaked"]
    assert "entropy collapse" in one.problems
    assert "entropy collapse" not in found["even"].problems
    assert "queries and keys" in one.cure.steps[0]
    assert "Entropy collapse" in one.verdict and "No network was sampled" in one.verdict
    names = {f"blocks.{block}.attention.{side}" for block in range(2) for side in "qk"}
    assert set(one.cure.factors) == names and max(one.cure.factors.values()) < 0.3
    assert one.signals_after.attention_entropy.min() > 0.5


@pytest.mark.slow
def test_the_cure_does_what_is_predicted_to_sampled_networks(found):
    one = found["GPT's small weights"]
    assert one.cure is not None and set(one.problems) & {"collapse", "risk", "starved"}
    # Attention so even that scores carry nothing: queries and keys are starved, and their scale is the cure.
    assert min(one.cure.factors.values()) > 1.5
    seen = eoc.predict_pruning(one.cure.net, 0.9, method="sampled", samples=6)
    assert np.abs(seen.kept - one.after.kept).mean() < 0.02
    assert seen.collapse_probability < 0.05
    before = eoc.predict_collapse(NETS["GPT's small weights"], method="sampled", samples=8)
    after = eoc.predict_collapse(one.cure.net, method="sampled", samples=8)
    assert np.median(1 - after.samples) < 0.5 * np.median(1 - before.samples)


def test_no_network_is_sampled(monkeypatch):
    def refuse(*_args, **_options):
        raise AssertionError("a network was sampled")

    monkeypatch.setattr("eoc_theory.pytorch.sample.sampler.Sampler.sample", refuse)
    monkeypatch.setattr("eoc_theory.networks.architecture.Architecture.to_torch", refuse)
    one = eoc.diagnose(NETS["even"], method="theory", sparsity=0.5)
    assert one.method == "theory" and one.signals is not None


def test_channels_are_drawn_once_a_network_and_few_of_them_to_compare_cures(monkeypatch):
    drawn = []
    process = Plan.process

    def counted(plan, *args, **options):
        drawn.append(plan.repeats)
        return process(plan, *args, **options)

    monkeypatch.setattr(Plan, "process", counted)
    net = eoc.transformer(**(SHAPE | {"width": 256, "heads": 4}), std=0.02, embedding_std=0.02)
    one = eoc.diagnose(net, method="theory", sparsity=0.9)
    assert one.cure is not None
    # As found, each change with few channels, and the best of them with all.
    assert len(drawn) <= 2 + attention.MOST_TRIED
    assert drawn[0] == drawn[-1] == 4 and set(drawn[1:-1]) == {1}
    for changed, seen in ((net, one.before), (one.cure.net, one.after)):
        alone = eoc.predict_pruning(changed, 0.9, method="theory")
        assert np.array_equal(alone.kept, seen.kept)


class Tall(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = torch.nn.Embedding(50, 32)
        self.block = torch.nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
        self.head = torch.nn.Linear(32, 4)

    def forward(self, ids):
        return self.head(self.block(self.emb(ids)).mean(dim=1))


def test_a_factory_is_read_and_not_sampled(monkeypatch):
    ids = torch.arange(48).reshape(6, 8) % 50
    data = (ids, torch.arange(6) % 4)
    monkeypatch.setattr(sampled, "diagnose_by_sampling", None)
    one = eoc.diagnose(lambda: Tall(), data=data, method="theory", sparsity=0.8)
    assert one.method == "theory"
    assert len(one.signals.attention_entropy) == 1
    chain = eoc.diagnose(lambda: torch.nn.Linear(5, 3), method="theory", sparsity=0.5)
    assert chain.method == "theory" and chain.signals is None


def test_round_trip_text_and_page(found, tmp_path):
    one = found["peaked"]
    assert eoc.Diagnosis.from_json(one.to_json()) == one
    assert "attention" in str(one)
    one.to_html(tmp_path / "page.html")
    assert "entropy collapse" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert {"token_similarity", "gradient"} <= set(one.to_frame().columns)


def test_criteria_that_the_theory_does_not_know_are_refused():
    with pytest.raises(ArgumentError):
        eoc.diagnose(NETS["even"], method="theory", criterion="snip(rounds=3)")


def test_the_weights_at_the_end_of_a_branch():
    graph = NETS["even"].as_graph()
    sums = [node for node in graph.nodes if node.layer.adds and len(node.inputs) == 2]
    ends = {attention.last_weights(graph, at) for node in sums for at in node.inputs}
    expected = {f"blocks.{b}.{end}" for b in range(2) for end in ("attention.o", "mlp.down")}
    assert expected <= ends
