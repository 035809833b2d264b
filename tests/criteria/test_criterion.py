"""The register of criteria, criteria in rounds, and criteria of one's own, against plain torch."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

import eoc_theory as eoc
from eoc_theory.criteria import criterion_names
from eoc_theory.criteria.criterion import CriterionName, Needs
from eoc_theory.errors import ArgumentError, CallbackError

ROOT = Path(__file__).resolve().parents[2]
NET = dict(depth=6, width=30, activation="relu", in_features=64, out_features=10)


def batch(n=60):
    x, y = eoc.digits(n=n)
    return x, y


def gradients(weights, biases, x, y, temperature=1.0):
    """∂ loss/∂W of a chain of ReLU layers, in plain torch."""
    torch = pytest.importorskip("torch")
    leaves = [w.detach().clone().requires_grad_() for w in weights]
    h = torch.as_tensor(x, dtype=torch.float64)
    for i, (w, b) in enumerate(zip(leaves, biases, strict=True)):
        h = h @ w.T + b
        h = torch.relu(h) if i < len(leaves) - 1 else h
    loss = torch.nn.functional.cross_entropy(h / temperature, torch.as_tensor(y))
    return leaves, torch.autograd.grad(loss, leaves, create_graph=True)


def parameters(model):
    torch = pytest.importorskip("torch")
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    zero = torch.zeros((), dtype=torch.float64)
    biases = [zero if m.bias is None else m.bias.detach().double() for m in linear]
    return [m.weight.detach().double() for m in linear], biases


def kept_of(scores, left):
    flat = np.concatenate([s.detach().numpy().ravel() for s in scores])
    limit = np.sort(flat)[::-1][left - 1]
    return [(s.detach().numpy() >= limit) for s in scores]


@pytest.mark.parametrize("name", criterion_names())
def test_names_and_labels_lead_back(name):
    one = eoc.criterion(name)
    assert one.label == name and eoc.criterion(one) is one and eoc.criterion(one.label) == one


@pytest.mark.parametrize(
    "name, options", [("grasp", {"temperature": 200}), ("snip", {"rounds": 7}), ("force", {"rounds": 5})]
)
def test_options_by_keyword_and_in_text(name, options):
    one = eoc.criterion(name, **options)
    ((key, value),) = options.items()
    assert one.label == f"{name}({key}={value})" and eoc.criterion(f" {name}( {key} = {value} ) ") == one
    assert hash(one) == hash(eoc.criterion(one.label))


@pytest.mark.parametrize(
    "spec, options",
    [
        ("nope", {}), ("snip", {"temperature": 2}), ("snip(rounds=0)", {}), ("snip(rounds=x)", {}),
        ("snip(rounds=1.5)", {}), ("magnitude(rounds=2)", {}), ("grasp(temperature=-1)", {}),
        ("grasp(temperature=inf)", {}), ("snip(", {}), (3, {}), (None, {}), (len, {}),
        (object(), {"rounds": 1}),
        ("snip(rounds=100000000)", {}), ("", {}), ("\x1b[31m", {}),
    ],
)  # fmt: skip
def test_what_is_no_criterion_is_refused(spec, options):
    with pytest.raises(ArgumentError):
        eoc.criterion(spec, **options)
    with pytest.raises(eoc.EOCError):
        eoc.predict_pruning(eoc.mlp(3, 8), 0.5, criterion=spec if not options else eoc.mlp)


def test_the_command_line_and_docstrings_name_every_criterion():
    helped = subprocess.run(
        [sys.executable, "-m", "eoc_theory", "predict", "--help"], cwd=ROOT, capture_output=True, text=True
    ).stdout
    for name in criterion_names():
        assert name in helped
        for function in (eoc.predict_pruning, eoc.measure_pruning):
            assert f'"{name}"' in (function.__doc__ or "")


@pytest.mark.parametrize("temperature", [1, 200])
def test_the_temperature_of_grasp_divides_the_logits(temperature):
    torch = pytest.importorskip("torch")
    model = eoc.mlp(**NET).to_torch(0)
    x, y = batch()
    found = eoc.measure_pruning(
        model, 0.9, criterion=f"grasp(temperature={temperature})", data=(x, y), dtype="float64"
    )
    weights, biases = parameters(model)
    leaves, grads = gradients(weights, biases, x, y, temperature)
    product = sum((g * g.detach()).sum() for g in grads)
    scores = [w * h for w, h in zip(leaves, torch.autograd.grad(product, leaves), strict=True)]
    n = sum(w.numel() for w in leaves)
    expected = kept_of(scores, n - round(0.9 * n))
    for name, mask in zip(found.layers, expected, strict=True):
        np.testing.assert_array_equal(found.masks[name], mask)


def in_rounds(weights, biases, x, y, left, rounds, regrows):
    """Iterative SNIP, or FORCE, in plain torch."""
    masks = [np.ones(tuple(w.shape), dtype=bool) for w in weights]
    n = sum(w.numel() for w in weights)
    for k in range(1, rounds + 1):
        torch = pytest.importorskip("torch")
        now = [w * torch.as_tensor(m) for w, m in zip(weights, masks, strict=True)]
        _, grads = gradients(now, biases, x, y)
        scores = [(w * g).abs().detach() for w, g in zip(weights if regrows else now, grads, strict=True)]
        if not regrows:
            scores = [s.masked_fill(torch.as_tensor(~m), -1.0) for s, m in zip(scores, masks, strict=True)]
        masks = kept_of(scores, left if k == rounds else round(n * (left / n) ** (k / rounds)))
    return masks


@pytest.mark.parametrize("spec", ["snip(rounds=5)", "force(rounds=5)"])
def test_rounds_are_measured_as_in_plain_torch(spec):
    model = eoc.mlp(**NET).to_torch(1)
    x, y = batch()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = eoc.measure_pruning(model, 0.9, criterion=spec, data=(x, y), collapse=False)
    weights, biases = parameters(model)
    n = sum(w.numel() for w in weights)
    expected = in_rounds(weights, biases, x, y, n - round(0.9 * n), 5, spec.startswith("force"))
    for name, mask in zip(found.layers, expected, strict=True):
        np.testing.assert_array_equal(found.masks[name], mask)
    for name, value in model.state_dict().items():
        assert (value == before[name]).all()


def test_one_round_is_one_shot():
    model = eoc.mlp(**NET).to_torch(1)
    data = batch()
    once, snip = (
        eoc.measure_pruning(model, [0.5, 0.9], criterion=spec, data=data)
        for spec in ("snip(rounds=1)", "snip")
    )
    np.testing.assert_array_equal(once.kept, snip.kept)
    assert once == snip


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["snip(rounds=5)", "force(rounds=5)", "grasp(temperature=200)"])
@pytest.mark.parametrize("kind", ["chain", "cnn"])
def test_predictions_of_new_criteria_agree_with_measurements(spec, kind):
    if kind == "chain":
        net, data = eoc.mlp(**NET), batch()
    else:
        net, data = eoc.cnn(3, 16, input_shape=(3, 8, 8)), eoc.digits_images(60, (3, 8, 8))
    predicted = eoc.predict_pruning(net, 0.9, criterion=spec, data=data, samples=10)
    measured = [
        eoc.measure_pruning(
            net.to_torch(seed), 0.9, criterion=spec, data=data, masks=False, collapse=False
        ).kept
        for seed in range(8)
    ]
    assert np.abs(predicted.kept - np.mean(measured, axis=0)).mean() < 0.03
    assert predicted.criterion == spec and np.isfinite(predicted.kept_std).all()


@pytest.mark.slow
def test_the_critical_sparsity_in_rounds_is_where_a_layer_is_lost():
    net, data = eoc.mlp(**NET), batch(40)
    predicted = eoc.predict_collapse(net, criterion="snip(rounds=3)", data=data)
    measured = [
        eoc.measure_pruning(net.to_torch(s), 0.5, criterion="snip(rounds=3)", data=data, masks=False)
        for s in range(6)
    ]
    found = np.array([one.critical_sparsity for one in measured])
    difference = np.log10(1 - predicted.quantile(0.5)) - np.median(np.log10(1 - found))
    assert abs(difference) < 0.25
    one = eoc.measure_pruning(
        net.to_torch(0),
        [found[0] - 0.02, min(found[0] + 0.02, 0.9999)],
        criterion="snip(rounds=3)",
        data=data,
    )
    assert one.kept[0].min() > 0


OWN = '''
import eoc_theory as eoc

@eoc.register_criterion
class Fisher:
    """(W g)²."""

    name = "fisher"
    needs = "gradient"

    def score(self, weight, derivative):
        return (weight * derivative) ** 2


@eoc.register_criterion
class Movement:
    """W g where it is positive."""

    name = "movement"
    needs = "gradient"
    signed = True

    def score(self, weight, derivative):
        return weight * derivative


@eoc.register_criterion
class Scaled:
    """|W|³ over the largest."""

    name = "cubed"
    needs = "weights"

    def score(self, weight, derivative):
        return abs(weight) ** 3
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Criteria that a file outside the package registers."""
    (tmp_path / "own_criteria.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    import eoc_theory.criteria.criterion  # noqa: F401
    from eoc_theory.criteria import criterion as module  # noqa: F401

    register = sys.modules["eoc_theory.criteria.criterion"]._REGISTER
    before = dict(register)
    __import__("own_criteria")
    yield
    register.clear()
    register.update(before)
    sys.modules.pop("own_criteria", None)


@pytest.mark.parametrize("name", ["fisher", "movement", "cubed"])
def test_a_criterion_of_ones_own_is_predicted_and_measured(own, name):
    net, data = eoc.mlp(**NET), batch()
    predicted = eoc.predict_pruning(net, 0.8, criterion=name, data=data)
    measured = [
        eoc.measure_pruning(net.to_torch(seed), 0.8, criterion=name, data=data, masks=False).kept
        for seed in range(8)
    ]
    assert np.abs(predicted.kept - np.mean(measured, axis=0)).mean() < 0.03
    assert predicted.method == "sampled" and 0 < predicted.kept_error < predicted.kept_error_bound < 0.03
    collapse = eoc.predict_collapse(net, criterion=name, data=data)
    assert 0.5 < collapse.critical_sparsity < 1 and collapse.criterion == name


def test_fisher_ranks_as_snip_does(own):
    """A monotone function of a score keeps the same weights."""
    model, data = eoc.mlp(**NET).to_torch(3), batch()
    squared, snip = (eoc.measure_pruning(model, 0.9, criterion=c, data=data) for c in ("fisher", "snip"))
    np.testing.assert_array_equal(squared.kept, snip.kept)
    assert squared.critical_sparsity == snip.critical_sparsity


@dataclass(frozen=True)
class Odd:
    name: str = "odd"
    needs: Needs = "gradient"
    found: object = None

    def score(self, weight, derivative):
        if self.found is None:
            raise KeyError("lost")
        return self.found


def test_what_an_own_criterion_does_wrong_is_said():
    net = eoc.mlp(3, 8)
    with pytest.raises(CallbackError, match="odd"):
        eoc.predict_pruning(net, 0.5, criterion=Odd())
    with pytest.raises(ArgumentError, match="shape"):
        eoc.predict_pruning(net, 0.5, criterion=Odd(found=np.ones(3)))
    for wrong in (Odd(name="two words"), Odd(name=""), Odd(needs="luck"), Odd(needs="nothing")):  # type: ignore[arg-type]
        with pytest.raises(ArgumentError):
            eoc.register_criterion(wrong)
    with pytest.raises(ArgumentError, match="built-in"):
        eoc.register_criterion(Odd(name="snip"))
    with pytest.raises(ArgumentError, match="measured and not predicted"):
        eoc.predict_pruning(net, 0.5, criterion=Odd(needs="paths"))


def _inverse(weight, derivative):
    """Ranks small products first, or small weights: as unlike the built-in scores as can be."""
    return 1.0 / (abs(weight if derivative is None else weight * derivative) + 1e-9)


class _Mixin:
    def score(self, weight, derivative):
        return _inverse(weight, derivative)


def _by_instance(base):
    made = type("Own", (base,), {"name": "own"})()
    object.__setattr__(made, "score", _inverse)
    return made


def _by_field(base):
    own = dataclass(frozen=True)(
        type("Own", (base,), {"__annotations__": {"score": object}, "name": "own", "score": None})
    )
    return own(score=_inverse)


OVERRIDES = {
    "method": lambda base: type("Own", (base,), {"name": "own", "score": _Mixin.score})(),
    "mixin": lambda base: type("Own", (_Mixin, base), {"name": "own"})(),
    "grandchild": lambda base: type(
        "Own", (type("Mid", (base,), {"score": _Mixin.score}),), {"name": "own"}
    )(),
    "instance": _by_instance,
    "field": _by_field,
}


@pytest.mark.parametrize("how", OVERRIDES)
@pytest.mark.parametrize("base", ["snip", "grasp", "magnitude", "synflow-oneshot", "force"])
def test_a_score_that_a_subclass_overrides_is_followed(base, how):
    """As the same score of an object that inherits nothing."""
    kind = type(eoc.criterion(base))
    own = OVERRIDES[how](kind)
    free = type("Free", (_Mixin,), {"name": "own", "needs": kind.needs, "regrows": kind.regrows})()
    free.signed, free.rounds = kind.signed, own.rounds
    net, data = eoc.mlp(3, 20, activation="relu", in_features=64, out_features=10), batch(30)
    if own.rounds > 1:
        object.__setattr__(own, "rounds", 2)
        free.rounds = 2
    for theirs, ours in ((own, free), (eoc.criterion(own), eoc.criterion(free))):
        kept = [
            eoc.measure_pruning(net.to_torch(0), 0.8, criterion=c, data=data).kept for c in (theirs, ours)
        ]
        np.testing.assert_array_equal(*kept)
    if base == "synflow-oneshot":
        with pytest.raises(ArgumentError, match="measured and not predicted"):
            eoc.predict_pruning(net, 0.8, criterion=own, data=data)
        return
    kept = [eoc.predict_pruning(net, 0.8, criterion=c, data=data, samples=2).kept for c in (own, free)]
    np.testing.assert_array_equal(*kept)


@pytest.mark.parametrize(
    ("base", "changes"),
    [
        ("snip", {"temperature": 50.0}), ("snip", {"signed": True}), ("snip", {"needs": "hessian_gradient"}),
        ("magnitude", {"needs": "gradient"}), ("grasp", {"signed": False}),
    ],
)  # fmt: skip
def test_what_scores_are_made_from_may_be_overridden(base, changes):
    kind = type(eoc.criterion(base))
    own = type("Own", (kind,), {"name": "own", **changes})()
    free = type("Free", (), {"name": "own", "needs": kind.needs, "signed": kind.signed, **changes})()
    free.score = kind().score
    net, data = eoc.mlp(3, 20, activation="relu", in_features=64, out_features=10), batch(30)
    kept = [eoc.predict_pruning(net, 0.8, criterion=c, data=data, samples=2).kept for c in (own, free)]
    np.testing.assert_array_equal(*kept)
    kept = [eoc.measure_pruning(net.to_torch(0), 0.8, criterion=c, data=data).kept for c in (own, free)]
    np.testing.assert_array_equal(*kept)


def test_what_no_score_can_be_followed_of_is_refused():
    for base in ("erk", "uniform", "random", "smart-ratio"):
        kind = type(eoc.criterion(base))
        with pytest.raises(ArgumentError, match="overrides score"):
            eoc.criterion(OVERRIDES["method"](kind))
    with pytest.raises(ArgumentError, match="overrides densities"):
        kind = type(eoc.criterion("random"))
        eoc.criterion(type("Own", (kind,), {"name": "own", "densities": lambda self, shapes: None})())
    # Rounds of scores by weights or paths are SynFlow's alone, whose score is not theirs.
    for made in (
        Odd(needs="weights"),
        Odd(needs="paths"),
        OVERRIDES["method"](type(eoc.criterion("synflow"))),
    ):
        object.__setattr__(made, "rounds", 3)
        with pytest.raises(ArgumentError, match=r"criterion\.rounds must be 1"):
            eoc.criterion(made)
    for made in (Odd(name="snip"), type("Own", (type(eoc.criterion("snip")),), {"score": _Mixin.score})()):
        with pytest.raises(ArgumentError, match="built-in"):
            eoc.criterion(made)


def test_a_subclass_that_changes_no_score_keeps_what_is_known_of_it():
    for name in criterion_names():
        kind = type(eoc.criterion(name))
        own = type("Own", (kind,), {"name": "own"})()
        assert eoc.criterion(own) is own
    claims = {"score": _Mixin.score, "is_product": False, "proportional": False, "has_kernel_law": False}
    own = type("Own", (type(eoc.criterion("snip")),), {"name": "own", **claims})()
    assert eoc.criterion(own) is own


def test_the_schedule_ends_where_it_should():
    pytest.importorskip("torch")
    from eoc_theory.pytorch.measure.gradient_rounds import schedule

    assert schedule(1000, 10, 1) == [10]
    found = schedule(1000, 10, 4)
    assert found[-1] == 10 and found == sorted(found, reverse=True)
    assert np.ptp(np.diff(np.log(found))) < 0.05


def test_type_checkers_know_the_built_in_names():
    assert sorted(get_args(CriterionName)) == sorted(criterion_names())
