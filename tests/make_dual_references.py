"""Writes tests/dual_references.json: duals by mpmath at 30 digits, independently of the library's quadrature.

usage: python tests/make_dual_references.py   (about twenty minutes)

The inner integral runs over v given u, the outer one over u, both split at kinks and around them; functions
are written for mpmath here and share no code with the library. Two rules of different order give each value;
their difference, printed beside it, bounds the error of the lower one.
"""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path

import mpmath as mp

mp.mp.dps = 30
HALF = mp.mpf(1) / 2


def sigmoid(x):
    return 1 / (1 + mp.exp(-x))


def sech2(x):
    return mp.sech(x) ** 2


FUNCTIONS = {
    # name: (φ, φ', kinks)
    "tanh": (mp.tanh, sech2, ()),
    "silu": (lambda x: x * sigmoid(x), lambda x: sigmoid(x) * (1 + x * (1 - sigmoid(x))), ()),
    "elu": (lambda x: x if x > 0 else mp.expm1(x), lambda x: mp.mpf(1) if x > 0 else mp.exp(x), (0,)),
    "hardtanh": (lambda x: max(-1, min(1, x)), lambda x: mp.mpf(1 if -1 < x < 1 else 0), (-1, 1)),
    "hardshrink": (
        lambda x: x if abs(x) > HALF else mp.mpf(0),
        lambda x: mp.mpf(1 if abs(x) > HALF else 0),
        (-HALF, HALF),
    ),
    "softsign": (lambda x: x / (1 + abs(x)), lambda x: 1 / (1 + abs(x)) ** 2, (0,)),
}
POINTS = [
    # q_a, q_b, 1 − c
    (0.5, 0.5, 0.3),
    (2.0, 0.25, 1.4),
    (1.0, 1.0, 1e-6),
    (100.0, 400.0, 0.5),
    (1e-6, 1e-3, 0.2),
    (1e6, 1e6, 0.01),
]


def splits(kinks, root, width, shift=0, stretch=1):
    """Ends of subintervals in a standard normal variable t, x = root (shift + stretch t)."""
    reach = 13
    ends = {mp.mpf(-reach), mp.mpf(reach), *(mp.mpf(k) for k in range(-12, 13, 3))}
    for k in (*kinks, 0):
        centre = (mp.mpf(k) / root - shift) / stretch
        offsets, offset = [mp.mpf(0)], width / (root * stretch)
        while offset < 3:
            offsets += [offset, -offset]
            offset *= 3
        ends |= {centre + o for o in offsets if abs(centre + o) < reach}
    return sorted(ends)


def gauss(f, ends, points):
    total = mp.mpf(0)
    for a, b in pairwise(ends):
        half, middle = (b - a) / 2, (a + b) / 2
        total += half * sum(w * f(middle + half * x) for x, w in points)
    return total


def rule(n):
    """Gauss–Legendre points by Newton's method on the Legendre polynomial."""
    points = []
    for i in range(n):
        x = mp.cos(mp.pi * (i + mp.mpf(3) / 4) / (n + HALF))
        for _ in range(8):
            p, before = mp.mpf(1), mp.mpf(0)
            for k in range(n):
                p, before = ((2 * k + 1) * x * p - k * before) / (k + 1), p
            slope = n * (x * p - before) / (x * x - 1)
            x -= p / slope
        points.append((x, 2 / ((1 - x * x) * slope**2)))
    return points


def reference(f, kinks, q_a, q_b, gap, points):
    q_a, q_b, gap = mp.mpf(q_a), mp.mpf(q_b), mp.mpf(gap)
    c, s = 1 - gap, mp.sqrt(gap * (2 - gap))
    a, b = mp.sqrt(q_a), mp.sqrt(q_b)
    density = lambda t: mp.exp(-t * t / 2) / mp.sqrt(2 * mp.pi)  # noqa: E731

    def inner(z):
        ends = splits(kinks, b, 1, c * z, s)
        return gauss(lambda t: f(b * (c * z + s * t)) * density(t), ends, points)

    ends = set(splits(kinks, a, 1))
    # The inner integral has the kinks' structure, smoothed on the scale s.
    for k in (*kinks, 0):
        centre = mp.mpf(k) / (b * c) if c else mp.mpf(0)
        offset = max(s, mp.mpf(10) ** -4 if not kinks else mp.mpf(0)) / max(abs(c), mp.mpf("0.1"))
        offset = max(offset, mp.mpf(10) ** -4)
        ends |= {centre}
        while offset < 3:
            ends |= {centre + offset, centre - offset}
            offset *= 3
    ends = sorted(e for e in ends if abs(e) <= 13)
    return gauss(lambda z: f(a * z) * inner(z) * density(z), ends, points)


def main() -> None:
    coarse, fine = rule(10), rule(15)
    path = Path(__file__).parent / "dual_references.json"
    results = []
    for name, (phi, dphi, kinks) in FUNCTIONS.items():
        for order, f in enumerate((phi, dphi)):
            values = []
            for q_a, q_b, gap in POINTS:
                value = reference(f, kinks, q_a, q_b, gap, fine)
                difference = abs(value - reference(f, kinks, q_a, q_b, gap, coarse))
                shown = (name, order, q_a, q_b, gap, mp.nstr(value, 20), mp.nstr(difference, 3))
                print(*shown, file=sys.stderr, flush=True)
                values.append([q_a, q_b, gap, mp.nstr(value, 20)])
            results.append({"activation": name, "order": order, "values": values})
            path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
