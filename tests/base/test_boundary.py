"""The guard that every public function, method and property passes through."""

from __future__ import annotations

import inspect
import json
import pickle
from functools import cached_property

import numpy as np
import pytest

import eoc_theory as eoc
from eoc_theory.base.boundary import MARK, public
from eoc_theory.errors import ArgumentError, InternalError, TooLargeError

#: Criteria are written by users, and called by functions that are guarded.
NAMES = [name for name in eoc.__all__ if name not in ("EOCError", "Criterion")]
CLASSES = [getattr(eoc, name) for name in NAMES if isinstance(getattr(eoc, name), type)]
FUNCTIONS = [getattr(eoc, name) for name in NAMES if not isinstance(getattr(eoc, name), type)]
KINDS = (property, cached_property, classmethod, staticmethod)


def is_public(member: object) -> bool:
    """Whether a function, method or property went through `public`."""
    if isinstance(member, property):
        member = member.fget
    elif isinstance(member, cached_property):
        member = member.func
    elif isinstance(member, (classmethod, staticmethod)):
        member = member.__func__
    return getattr(member, MARK, False)


@public
def failing(error: BaseException) -> None:
    raise error


@public
def dividing(by: float) -> float:
    return float(np.float64(1.0) / np.float64(by))


@public
class Thing:
    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def method(self) -> None:
        if self.error:
            raise self.error

    @property
    def value(self) -> None:
        self.method()

    @cached_property
    def kept(self) -> None:
        self.method()

    @classmethod
    def made(cls) -> None:
        raise KeyError("made")

    @staticmethod
    def free() -> None:
        raise KeyError("free")


def members(cls: type) -> dict[str, object]:
    """The public methods and properties of a class."""
    return {
        name: member
        for name, member in vars(cls).items()
        if (not name.startswith("_") or name in ("__init__", "__call__", "__iter__", "__len__", "__str__"))
        and (inspect.isfunction(member) or isinstance(member, KINDS))
    }


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_every_public_function_is_guarded(function):
    assert is_public(function)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_public_method_is_guarded(cls):
    found = members(cls)
    assert "__init__" in found
    assert [name for name, member in found.items() if not is_public(member)] == []


def test_what_is_not_public_is_told_from_what_is():
    assert not is_public(members)
    assert not is_public(Thing.__reduce__)


@pytest.mark.parametrize(
    "error", [KeyError("x"), ValueError(), ZeroDivisionError("a\nb"), AssertionError("no")]
)
def test_other_errors_become_internal_errors_of_one_line(error):
    with pytest.raises(InternalError, match=r"failing failed \(.*\): this is a bug") as caught:
        failing(error)
    assert caught.value.__cause__ is error
    assert type(error).__name__ in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [ArgumentError("n must be"), KeyboardInterrupt(), SystemExit(3)])
def test_own_errors_and_the_end_of_the_process_pass_as_they_are(error):
    with pytest.raises(type(error)) as caught:
        failing(error)
    assert caught.value is error


def test_the_end_of_memory_says_what_was_asked_for():
    with pytest.raises(
        TooLargeError, match=r"asked for more than fits into memory: .*shape \(1000000000000,"
    ):
        public(lambda: np.empty((10**12, 10**4)))()
    with pytest.raises(TooLargeError, match="out of memory"):
        failing(MemoryError())
    with pytest.raises(TooLargeError, match="CUDA out of memory"):
        failing(RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"))


def test_a_call_that_does_not_fit_the_signature_is_pythons_own_error():
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'error'"):
        failing()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="sparsity"):
        eoc.predict_pruning(eoc.mlp(3, 5))  # type: ignore[call-arg]


def test_a_type_error_inside_is_an_internal_error():
    def inner() -> None:
        len(3)  # type: ignore[arg-type]

    with pytest.raises(InternalError, match="TypeError"):
        public(inner)()


def test_methods_properties_and_class_methods_are_guarded():
    thing = Thing(KeyError("x"))
    for call in (thing.method, lambda: thing.value, lambda: thing.kept, Thing.made, Thing.free):
        with pytest.raises(InternalError):
            call()
    assert Thing().value is None


def test_no_warning_of_numpy_is_shown_and_its_state_is_left_as_it_was(recwarn):
    before = np.geterr()
    with np.errstate(divide="raise"):
        assert dividing(0.0) == np.inf
        with pytest.raises(FloatingPointError):
            _ = np.float64(1.0) / np.float64(0.0)
    assert np.geterr() == before
    assert not list(recwarn)


def test_signatures_and_pickling_are_those_of_the_function():
    assert list(inspect.signature(eoc.digits).parameters) == ["n", "seed"]
    assert pickle.loads(pickle.dumps(eoc.digits)) is eoc.digits
    assert "embedded 8×8 digits" in (eoc.digits.__doc__ or "")
    assert list(inspect.signature(eoc.MeanField).parameters)[:3] == ["activation", "sigma_w", "sigma_b"]


def results():
    """The same two results of each kind that holds arrays."""
    net = eoc.mlp(3, 6, in_features=8, out_features=3)
    for _ in range(2):
        yield [
            eoc.critical_curve("tanh", sigma_b=[0.0, 0.5]),
            eoc.phase_diagram("tanh", sigma_w=[1.0, 2.0], sigma_b=[0.1, 0.2]),
            eoc.predict_pruning(net, [0.5, 0.9], criterion="magnitude"),
            eoc.predict_collapse(net, criterion="magnitude"),
            net.summarise(),
            eoc.propagate_summary(net, batch=5),
            eoc.design(net, 0.5, criterion="magnitude", networks=0),
            eoc.propagate(net),
        ]


def test_results_with_pictures_become_json():
    ones, _ = results()
    drawn = [one for one in ones if hasattr(one, "plot")]
    assert len(drawn) == 5
    for one in drawn:
        assert json.loads(one.to_json()) == one.to_dict()
    assert ones[0].to_dict()["activation"] == "tanh"


def test_results_compare_and_can_be_kept_in_sets():
    ones, others = results()
    for one, other in zip(ones, others, strict=True):
        assert one == other and one == one
        assert not one != other
        assert one != 3 and one is not None
        assert len({one, one}) == 1
    for one in ones:
        for another in ones:
            assert (one == another) is (one is another)
    assert eoc.critical_curve("tanh", sigma_b=[0.0, 0.5]) != eoc.critical_curve("tanh", sigma_b=[0.0, 0.6])
    assert eoc.mlp(3, 6) == eoc.mlp(3, 6) and hash(eoc.mlp(3, 6)) == hash(eoc.mlp(3, 6))
