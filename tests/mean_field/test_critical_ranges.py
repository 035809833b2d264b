"""Ranges that refusals name, of activations whose E[φ'²] at large variances has a limit in closed form."""

import re

import numpy as np
import pytest

import eoc_theory as eoc
from eoc_theory.errors import NoCriticalPointError
from eoc_theory.gaussian import moments
from eoc_theory.mean_field.critical_ranges import ranges

#: Slopes to the left and to the right, far out.
BASES = {"x": (1.0, 1.0), "relu(x)": (0.0, 1.0), "0.3*x+0.2*abs(x)": (0.1, 0.5), "gelu(x)": (0.0, 1.0)}
#: What is added, and whether it is a wave: of amplitude 1 it adds half the square of its frequency.
ADDED = {"tanh({b}*x)": False, "softsign({b}*x)": False, "exp(-x**2)*sin({b}*x)": False, "cos({b}*x)": True}


def draws():
    rng = np.random.default_rng(3)
    for added in ADDED:
        for base in BASES:
            yield base, added, *(float(f"{v:.3g}") for v in (rng.uniform(0.1, 1.5), rng.uniform(0.3, 3.0)))


@pytest.mark.parametrize("base, added, a, b", list(draws()))
def test_an_end_is_the_limit_of_large_variances(base, added, a, b):
    act = eoc.activation(f"{a}*({base})+{added.format(b=b)}")
    left, right = BASES[base]
    limit = (a * a * (left**2 + right**2) / 2 + (b * b / 2 if ADDED[added] else 0.0)) ** -0.5
    found = ranges(act, "sigma_w")
    if not found:
        with pytest.raises(NoCriticalPointError, match="would be negative for every variance"):
            eoc.edge_of_chaos(act, sigma_w=limit)
        return
    (low, high), q = found[-1], np.geomspace(1e-12, 1e6, 91)
    seen = moments(act, q).dphi2.value ** -0.5
    assert low * (1 - 1e-5) <= limit <= high * (1 + 1e-5)
    # Nothing beyond what the curve and its limit reach.
    assert high <= max(limit, seen.max()) * (1 + 2e-3)
    assert found[0][0] >= min(limit, seen.min()) * (1 - 2e-3)
    for outside in (0.98 * found[0][0], 1.02 * high):
        with pytest.raises(NoCriticalPointError, match="there are some for sigma_w") as refusal:
            eoc.edge_of_chaos(act, sigma_w=outside)
        numbers = [float(n) for n in re.findall(r"(?:between|and|>=) (\d[\d.e+-]*)", str(refusal.value))]
        assert numbers
        np.testing.assert_allclose(numbers[-1], high, rtol=2e-5)
