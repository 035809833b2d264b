"""Arguments that nobody meant: an answer, or an EOCError of one line, whatever comes in."""

from __future__ import annotations

import contextlib
import inspect
import sys
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest

torch = pytest.importorskip("torch")

import eoc_theory as eoc  # noqa: E402
from eoc_theory.errors import (  # noqa: E402
    CallbackError,
    EOCError,
    InternalError,
    MissingDependencyError,
    TooLargeError,
)
from tests import argument_fuzz as fuzz  # noqa: E402


@pytest.mark.slow
@pytest.mark.parametrize("seed", [11, 12, 13])
def test_every_function_refuses_in_one_line_what_it_cannot_take(seed):
    assert fuzz.failures(seed, 1500) == []


def test_the_fuzz_reaches_every_public_function_and_method():
    reached = {target.name for target in fuzz.targets()}
    for name in eoc.__all__:
        thing = getattr(eoc, name)
        if name in ("EOCError", "Criterion"):
            continue  # to be caught, and to be made by users
        assert name in reached
        if isinstance(thing, type):
            assert {f"{name}.{method}" for method in fuzz._methods(thing)} <= reached


def test_the_fuzz_gives_arguments_that_are_taken_where_it_tries_none():
    with fuzz.sandbox():
        for target in fuzz.targets():
            given = target.arguments()
            missing = [
                parameter.name
                for parameter in inspect.signature(target.call).parameters.values()
                if parameter.default is parameter.empty and parameter.name not in given
            ]
            if not missing:
                # Of an extra that is not installed.
                with contextlib.suppress(MissingDependencyError):
                    target.call(**given)


def test_the_fuzz_finds_what_it_looks_for():
    def warns() -> None:
        np.array([1.0]).astype(int)
        import warnings

        warnings.warn("w", UserWarning, stacklevel=1)

    def hangs() -> None:
        while True:
            pass

    def fails() -> None:
        raise KeyError("x")

    def internal() -> None:
        raise InternalError("x")

    assert "UserWarning" in str(fuzz.outcome(warns))
    assert "did not end" in str(fuzz.outcome(hangs, patience=0.2))
    assert "KeyError" in str(fuzz.outcome(fails))
    assert "InternalError" in str(fuzz.outcome(internal))
    assert "printed to stderr" in str(fuzz.outcome(lambda: print("x", file=sys.stderr)))
    assert fuzz.outcome(lambda: eoc.digits(-1)) is None


#: Calls that ended in an exception of Python, NumPy or torch once.
REFUSED = {
    "folder": lambda: eoc.load_images("mnist", folder=3),
    "seed": lambda: eoc.digits(seed=-1),
    "seed must be a whole number": lambda: eoc.digits(seed=float("nan")),
    "one_minus_c0": lambda: eoc.MeanField("tanh", 1.5).iterate_correlation("a", 3),
    "x must be": lambda: eoc.activation("tanh")("text"),
    "factory": lambda: eoc.compare(len, 0.5, seeds=1),
    "depth, width and chi": lambda: eoc.snip_bound(np.ones(2), np.ones(3), 0.5),
    "width must lie between 1 and": lambda: eoc.magnitude_bound([1.0, 2.0], [1.0, 1.0], 1e308),
    "sigma_w": lambda: eoc.edge_of_chaos("tanh", sigma_w=10**400),
    "x must": lambda: eoc.activation("tanh")(np.ma.masked_array([0.2, 0.5], mask=[True, False])),
    "dropout": lambda: eoc.critical_curve("tanh", sigma_b=[], dropout="x"),
    "sigma_w must lie": lambda: eoc.edge_of_chaos("tanh", sigma_w=1e-320),
    "data must be inputs": lambda: eoc.rescale_(
        eoc.prune_(fuzz.dense(), fuzz.masks()), by="signal", data=range(10**12)
    ),
    "path": lambda: eoc.critical_curve("tanh", sigma_b=[0.1]).plot(3),
    "title": lambda: eoc.diagnose(fuzz.dense(), (2, 8), sparsity=0.5).to_html("x.html", title=3),
    "chosen": lambda: fuzz.net().summarise(fuzz.batch()).take([10**6]),
    "layers must be": lambda: eoc.Architecture(3),
    "graph must be": lambda: eoc.Architecture.from_graph(3),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_the_argument(name):
    with pytest.raises(EOCError, match=name) as caught:
        REFUSED[name]()
    assert not isinstance(caught.value, InternalError)


def test_a_seed_of_minus_zero_is_zero():
    one, other = (eoc.measure_pruning(fuzz.dense(), 0.5, seed=seed, device="cpu") for seed in (0, -0.0))
    np.testing.assert_array_equal(one.kept, other.kept)


def test_functions_that_are_handed_in_are_named_where_they_fail():
    def failing(*args):
        raise RuntimeError("two\nlines")

    for name, call in {
        "progress": lambda: eoc.compare(fuzz.net(), 0.5, seeds=1, device="cpu", progress=failing),
        "factory": lambda: eoc.compare(failing, 0.5, seeds=1),
    }.items():
        with pytest.raises(CallbackError, match=rf"^{name} raised RuntimeError: two lines$") as caught:
            call()
        assert isinstance(caught.value.__cause__, RuntimeError)
    with pytest.raises(CallbackError, match=r"^progress raised"):
        eoc.design(fuzz.net(), 0.5, criterion="magnitude", networks=0, progress=failing)


#: The same numbers in other clothes: the same answer to the bit.
NUMBERS = {
    "float64": np.float64,
    "0-d": np.array,
    "fraction": lambda value: Fraction(value),
    "longdouble": np.longdouble,
}
ARRAYS = {
    "tuple": tuple,
    "array": np.array,
    "strided": lambda values: np.repeat(values, 2)[::2],
    "backwards": lambda values: np.array(values)[::-1].copy()[::-1],
    "big-endian": lambda values: np.array(values, dtype=">f8"),
    "read-only": lambda values: np.broadcast_to(np.array(values), (len(values),)),
    "objects": lambda values: np.array(values, dtype=object),
    "series": pd.Series,
    "tensor": lambda values: torch.tensor(values, dtype=torch.float64),
    "tensor with gradient": lambda values: torch.tensor(values, dtype=torch.float64, requires_grad=True),
    "masked array without a mask": lambda values: np.ma.masked_array(values, mask=False),
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_of_any_kind_give_the_same_bits(kind):
    made = NUMBERS[kind]
    assert eoc.edge_of_chaos("tanh", sigma_b=made(0.25)) == eoc.edge_of_chaos("tanh", sigma_b=0.25)
    assert eoc.MeanField("tanh", made(1.5), made(0.25)).q_star == eoc.MeanField("tanh", 1.5, 0.25).q_star
    assert eoc.snip_bound(made(10.0), made(100.0), made(0.5)) == eoc.snip_bound(10, 100.0, 0.5)


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_of_any_kind_give_the_same_bits(kind):
    values, made = [0.1, 0.5, 0.75], ARRAYS[kind]
    given = made(values)
    act, field = eoc.activation("gelu"), eoc.MeanField("tanh", 1.5, 0.3)
    np.testing.assert_array_equal(act(given), act(np.array(values)))
    for method in (field.variance_map, field.correlation_map, field.chi, field.correlation_deficit):
        np.testing.assert_array_equal(method(given), method(np.array(values)))
    np.testing.assert_array_equal(
        field.iterate_correlation(given, 3), field.iterate_correlation(np.array(values), 3)
    )
    bound = eoc.snip_bound(10, 100.0, given)
    np.testing.assert_array_equal(bound.value, eoc.snip_bound(10, 100.0, np.array(values)).value)


def test_iterators_without_end_are_refused():
    with pytest.raises(TooLargeError, match=r"seeds must hold at most 100000"):
        eoc.compare(fuzz.net(), 0.5, seeds=iter(int, 1))
    with pytest.raises(EOCError, match="kinks must hold at most"):
        eoc.activation(np.tanh, kinks=iter(float, 1.0))
