"""What the library states of its errors, against quadrature of our own on one generated activation.

Each check gives the sentences that say where a true error is above the stated one; none where all holds.
`run` is the driver of ``python -m tests.generated_activations``.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import optimize

import eoc_theory as eoc
from eoc_theory.errors import ConvergenceError, EOCError, NoCriticalPointError
from eoc_theory.gaussian import moments
from eoc_theory.gaussian.duals import DualTable, covariance_maps, dual
from tests import generated_activations as generated
from tests.generated_activations import Node, Series, activations, expectations, series, trusted

FORMS = ("expression", "callable")
VARIANCES = (1e-2, 1.0, 25.0)
MOMENTS = ("phi", "phi2", "dphi2", "ddphi2", "slope")
SIGMA_B = 0.3
CORRELATIONS = (-0.7, 0.3, 0.95)
PAIRS = ((1.0, 1.0), (0.5, 4.0))
TERMS = 900
#: Rounding that any double-precision result has, and that no error estimate need count.
ROUNDING = 2e-14
#: What lies beyond 13 standard deviations is not looked at.
UNSEEN = 1e-36


def form_of(node: Node, form: str) -> object:
    """The activation as it is handed in."""
    if form == "expression":
        return node.text
    return lambda x: node(x)


# --- moments ------------------------------------------------------------------------------------------------


def wrong_moments(node: Node, act: eoc.Activation) -> list[str]:
    """Moments whose true error is above the stated one."""
    wrong = []
    for q in VARIANCES:
        expected, unsure = trusted(node, q)
        found = moments(act, q)
        for name in MOMENTS:
            value, error = (float(v) for v in getattr(found, name))
            if not math.isfinite(value):
                continue  # a jump makes it infinite, which quadrature of the pieces does not see
            size = abs(expected[name])
            if name == "phi":
                size = math.sqrt(expected["phi2"])
            if name == "slope":
                size = math.sqrt(expected["phi2"] * expected["dphi2"] / q)
            if abs(value - expected[name]) > error + 3.0 * unsure[name] + ROUNDING * size + UNSEEN:
                wrong.append(f"{name} at q = {q:g}: {value} ± {error}, right {expected[name]}")
    return wrong


# --- duals --------------------------------------------------------------------------------------------------


def _pairs(node: Node) -> list[tuple[float, float, tuple[Series, Series], tuple[Series, Series]]]:
    """Variances of both factors with the coefficients of each, and the same on shorter panels."""
    made = {q: [series(node, q, TERMS, fineness) for fineness in (1.0, 0.67)] for q in set(sum(PAIRS, ()))}
    return [(a, b, (made[a][1], made[b][1]), (made[a][0], made[b][0])) for a, b in PAIRS]


def _right_dual(
    fine: tuple[Series, Series], rough: tuple[Series, Series], c: float, order: int
) -> tuple[float, float, float]:
    """The dual, by how much it is unsure, and √(E f² E g²)."""
    value, left = generated.dual(*fine, c, order)
    unsure = left + 3.0 * abs(value - generated.dual(*rough, c, order)[0])
    return value, unsure, math.sqrt(fine[0].squares[order] * fine[1].squares[order])


def wrong_duals(node: Node, act: eoc.Activation) -> list[str]:
    """Duals of φ and φ', one by one, whose true error is above the stated one."""
    wrong = []
    for a, b, fine, rough in _pairs(node):
        for c in CORRELATIONS:
            for order in (0, 1):
                value, error = (float(v) for v in dual(act, a, b, c, order=order))
                right, unsure, size = _right_dual(fine, rough, c, order)
                if abs(value - right) > error + unsure + ROUNDING * size:
                    wrong.append(
                        f"dual of order {order} at {a:g}, {b:g}, c = {c:g}: {value} ± {error}, right {right}"
                    )
    return wrong


def wrong_maps(node: Node, act: eoc.Activation) -> list[str]:
    """Maps of a covariance whose true error, relative to √(E f² E g²), is above the stated one."""
    wrong = []
    for a, b, fine, rough in _pairs(node):
        for c in CORRELATIONS:
            off = c * math.sqrt(a * b)
            found = covariance_maps(act, np.array([[a, off], [off, b]]))
            assert found.dphi is not None
            for order, values in enumerate((found.phi, found.dphi)):
                right, unsure, size = _right_dual(fine, rough, c, order)
                if abs(values[0, 1] - right) > (found.error + ROUNDING) * size + unsure:
                    wrong.append(
                        f"map of order {order} at {a:g}, {b:g}, c = {c:g}: {values[0, 1]} ± "
                        f"{found.error * size}, right {right}"
                    )
    return wrong


def wrong_table(node: Node, act: eoc.Activation) -> list[str]:
    """Values of the dual's table whose true error is above the stated one."""
    wrong = []
    a, _, fine, rough = _pairs(node)[0]
    table = DualTable(act, a)
    for c in CORRELATIONS:
        for order, value in enumerate((table.phi(c), table.dphi(c))):
            right, unsure, size = _right_dual(fine, rough, c, order)
            if abs(value - right) > (table.error[order] + ROUNDING) * size + unsure:
                wrong.append(
                    f"table of order {order} at {a:g}, c = {c:g}: {value} ± {table.error[order] * size}, "
                    f"right {right}"
                )
    return wrong


# --- points -------------------------------------------------------------------------------------------------


def _root(f: Callable[[float], float], near: float) -> float | None:
    """The root of f next to a point, or None."""
    for width in (1e-9, 1e-6, 1e-4, 1e-2):
        if f(near - width) * f(near + width) <= 0.0:
            return float(optimize.brentq(f, near - width, near + width, xtol=1e-15, rtol=1e-14))
    return None


def wrong_point(node: Node, act: eoc.Activation) -> list[str]:
    """The edge of chaos, against a root by our own quadrature next to it."""
    try:
        point = eoc.edge_of_chaos(act, sigma_b=SIGMA_B)
    except NoCriticalPointError:
        return []

    def bias(log_q: float) -> float:
        found = expectations(node, math.exp(log_q))
        return found["excess"] / found["dphi2"] - SIGMA_B**2

    root = _root(bias, math.log(point.q))
    if root is None:
        return [f"no root near q = {point.q}"]
    right = expectations(node, math.exp(root))["dphi2"] ** -0.5
    close = abs(point.sigma_w - right) <= point.error + 1e-13 * right
    return [] if close else [f"sigma_w {point.sigma_w} ± {point.error}, right {right}"]


def wrong_fixed_points(node: Node, act: eoc.Activation) -> list[str]:
    """Fixed points of the variance map, against roots by our own quadrature next to them."""
    wrong = []
    at_one = expectations(node, 1.0)
    sigma_w = 0.9 * (1.0 / at_one["phi2"]) ** 0.5
    for fixed in eoc.MeanField(act, sigma_w, SIGMA_B).fixed_points:
        if not 0.0 < fixed.q < math.inf:
            continue

        def room(log_q: float) -> float:
            q = math.exp(log_q)
            return SIGMA_B**2 / q + sigma_w**2 * expectations(node, q)["phi2"] / q - 1.0

        root = _root(room, math.log(fixed.q))
        if root is None:
            wrong.append(f"no fixed point near {fixed.q} ± {fixed.error}")
        elif abs(math.exp(root) - fixed.q) > fixed.error + 4e-15 * fixed.q:
            wrong.append(f"fixed point {fixed.q} ± {fixed.error}, right {math.exp(root)}")
    return wrong


# --- all of them --------------------------------------------------------------------------------------------

CHECKS: dict[str, Callable[[Node, eoc.Activation], list[str]]] = {
    "moments": wrong_moments,
    "duals": wrong_duals,
    "maps": wrong_maps,
    "table": wrong_table,
    "edge of chaos": wrong_point,
    "fixed points": wrong_fixed_points,
}


@dataclass
class Findings:
    """What came of all tries: counts, understated errors, and the slowest in seconds of CPU."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    slowest: dict[str, list[tuple[float, str]]] = field(default_factory=dict)

    def spent(self, what: str, seconds: float, label: str) -> None:
        kept = self.slowest.setdefault(what, [])
        kept.append((seconds, label))
        kept.sort(reverse=True)
        del kept[5:]


def attempt(node: Node, form: str, label: str, findings: Findings, checks: Sequence[str]) -> None:
    """Some checks of one form of an activation; refusals are counted."""
    start = time.process_time()
    try:
        act = eoc.activation(form_of(node, form))
    except EOCError as error:
        findings.counts[f"{form} refused: {str(error)[:60]}"] += 1
        return
    findings.spent("reading", time.process_time() - start, label)
    start = time.process_time()
    with contextlib.suppress(EOCError):
        eoc.edge_of_chaos(act, sigma_b=SIGMA_B)
    findings.spent("edge_of_chaos alone", time.process_time() - start, label)
    for name in checks:
        start = time.process_time()
        try:
            wrong = CHECKS[name](node, act)
        except ConvergenceError as error:
            findings.counts[f"{name} refused ({form})"] += 1
            findings.spent(f"refused {name}", time.process_time() - start, f"{label}: {str(error)[:150]}")
            continue
        findings.counts[f"{name} held ({form})"] += not wrong
        findings.spent(f"checking {name}", time.process_time() - start, label)
        findings.wrong += [f"{label} {node.text[:120]}: {one}" for one in wrong]


def run(
    count: int,
    seed: int,
    first: int = 0,
    forms: Sequence[str] = FORMS,
    checks: Sequence[str] = (),
    verbose: bool = False,
) -> int:
    """Try the activations of a seed in both forms, print what was found; 1 if an error was understated."""
    findings = Findings()
    for i, node in enumerate(activations(count, seed)):
        for form in forms if i >= first else ():
            before, start = len(findings.wrong), time.process_time()
            attempt(node, form, f"#{i} {form}", findings, checks or tuple(CHECKS))
            if verbose:
                print(f"#{i} {form}: {time.process_time() - start:.1f} s", flush=True)
                for line in findings.wrong[before:]:
                    print("UNDERSTATED", line, flush=True)
    for what, number in sorted(findings.counts.items()):
        print(f"{number:5} {what}")
    for what, kept in findings.slowest.items():
        for seconds, label in kept:
            print(f"{seconds:6.2f} s of CPU  {what}: {label}")
    for line in findings.wrong:
        print("UNDERSTATED", line)
    print(f"{len(findings.wrong)} understated")
    return 1 if findings.wrong else 0
