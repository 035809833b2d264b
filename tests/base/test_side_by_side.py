"""Pieces side by side: in order, in the caller's error state, one after the other on one processor."""

from __future__ import annotations

import threading
import warnings

import numpy as np
import pytest

from eoc_theory.base import side_by_side as module
from eoc_theory.base.side_by_side import meanwhile, side_by_side


@pytest.mark.parametrize("processors", [1, 2])
def test_results_come_in_order(processors, monkeypatch):
    monkeypatch.setattr(module, "processors", lambda: processors)
    assert side_by_side(lambda n: n * n, range(20)) == [n * n for n in range(20)]
    assert side_by_side(str, []) == []


def test_errors_leave_and_the_error_state_is_the_callers(monkeypatch):
    monkeypatch.setattr(module, "processors", lambda: 2)
    with pytest.raises(KeyError):
        side_by_side({1: 2}.__getitem__, [1, 7])
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("error")
        assert np.isinf(side_by_side(lambda x: np.ones(3) / x, [np.zeros(3)] * 4)).all()


def test_two_callers_at_a_time(monkeypatch):
    monkeypatch.setattr(module, "processors", lambda: 2)
    found = {}
    callers = [
        threading.Thread(target=lambda n=n: found.update({n: side_by_side(lambda k: n + k, range(50))}))
        for n in range(4)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(10.0)
    assert found == {n: [n + k for k in range(50)] for n in range(4)}


def test_pieces_of_pieces_do_not_wait_for_each_other(monkeypatch):
    monkeypatch.setattr(module, "processors", lambda: 2)
    rows = side_by_side(lambda n: side_by_side(lambda k: n * k, range(20)), range(20))
    assert rows == [[n * k for k in range(20)] for n in range(20)]


@pytest.mark.parametrize("processors", [1, 2])
def test_work_done_meanwhile(processors, monkeypatch):
    monkeypatch.setattr(module, "processors", lambda: processors)
    with np.errstate(all="ignore"), meanwhile(lambda: np.ones(2) / np.zeros(2)) as found:
        assert np.isinf(found()).all()
    with pytest.raises(KeyError), meanwhile(lambda: {}["missing"]) as found:
        found()
    # What goes wrong within comes first.
    with pytest.raises(ValueError, match="within"), meanwhile(lambda: {}["missing"]):
        raise ValueError("within")
