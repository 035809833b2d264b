"""The infinite-width approximation: how wrong at which width, in the three kinds of network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import eoc_theory as eoc
from eoc_theory.networks.architecture import Architecture

from .claim import Claim, Evidence, Finding, Verdict
from .graph_networks import log_score_moments
from .picture import Picture, Series
from .pruned_networks import Batch
from .residual_networks import residual_cnn

Array = np.ndarray
DEPTH, INPUTS = 10, 10
#: Noise of as many channels as hidden layers have. Kernels are means over the inputs: with one channel pairs
#: of positions differ from these means by as much as they are, and the first layer is off at every width.
SHAPE, ONE_CHANNEL = (32, 8, 8), (1, 8, 8)
#: Units of a fully connected layer, and channels of a convolution.
WIDTHS, CHANNELS = (25, 50, 100, 200), (8, 16, 32, 64)


def _ffnn(width: int) -> Architecture:
    return eoc.mlp(DEPTH, width, activation="tanh")


def _relu(width: int) -> Architecture:
    return eoc.mlp(DEPTH, width, activation="relu")


def _cnn(channels: int, shape: tuple[int, int, int] = SHAPE) -> Architecture:
    return eoc.cnn(DEPTH, channels, activation="relu", input_shape=shape)


def _resnet(channels: int) -> Architecture:
    return residual_cnn(DEPTH - 2, channels, float(np.sqrt(2.0)), SHAPE, scaling="stable")


def noise(shape: tuple[int, int, int]) -> Batch:
    """Independent normal images, each of another class."""
    return np.random.default_rng(0).standard_normal((INPUTS, *shape)), np.arange(INPUTS)


KINDS: dict[str, tuple[Callable[[int], Architecture], tuple[int, ...]]] = {
    "FFNN, tanh": (_ffnn, WIDTHS),
    "FFNN, ReLU": (_relu, WIDTHS),
    "CNN, ReLU": (_cnn, CHANNELS),
    "Stable ResNet of convolutions": (_resnet, CHANNELS),
}


def off(net: Architecture, data: Batch, networks: int) -> tuple[float, float, float]:
    """How far m^l relative to the other layers' is from that of the kernels: of the mean, its error, and
    of one network.

    Root mean square over layers of log m^l less its mean over layers, which cancels in a global ranking. The
    mean over networks has its own noise taken off.
    """
    batch = net.summarise(data)
    kernels = net.propagate(batch).log_moment
    sampled = log_score_moments(net, batch, networks)
    gap = sampled - kernels
    gap -= gap.mean(axis=1, keepdims=True)
    noise = gap.var(axis=0, ddof=1) / networks
    squared = float((gap.mean(axis=0) ** 2 - noise).mean())
    # Of a square of a mean with this noise, layers taken as one.
    error = float(np.sqrt((2.0 * noise**2 + 4.0 * noise * gap.mean(axis=0) ** 2).mean() / len(kernels)))
    bias = float(np.sqrt(max(squared, 0.0)))
    return bias, error / (2.0 * max(bias, np.sqrt(error))), float(np.sqrt((gap**2).mean()))


def power(widths: tuple[int, ...], values: Array) -> float:
    """Of the width, fitted to the logarithms."""
    return float(np.polyfit(np.log(widths), np.log(values), 1)[0])


def _picture(series: list[Series]) -> Picture:
    return Picture(
        f"Distance of log m$^l$ from the kernels', root mean square over {DEPTH} layers; lines go with "
        "1/√width.",
        "width",
        "distance",
        tuple(series),
        log_x=True,
        log_y=True,
    )


def check(quick: bool) -> Finding:
    """Runs the check; see the claim's method."""
    networks = 12 if quick else 150
    evidence: list[Evidence] = []
    series: list[Series] = []
    told, powers, biases = [], {}, {}
    for colour, (name, (build, widths)) in enumerate(KINDS.items()):
        flat = name.startswith("FFNN")
        data = eoc.digits(INPUTS) if flat else noise(SHAPE)
        # Dense networks cost little, and vary as much.
        drawn = max(networks, 40) if flat else networks
        rows = np.array([off(build(width), data, drawn) for width in widths])
        unit = "units" if flat else "channels"
        for width, (bias, error, spread) in zip(widths, rows, strict=True):
            what = f"{name}, {width} {unit}: log m^l off the kernels'"
            evidence.append(Evidence(f"{what}, one network", None, spread))
            evidence.append(Evidence("    mean over networks", "→ 0", bias, error))
        powers[name] = power(widths, rows[:, 2])
        biases[name] = rows[:, 0]
        evidence.append(Evidence(f"{name}: power of the width, one network", -0.5, powers[name]))
        told.append(
            f"{name} {rows[0, 2]:.2f} at {widths[0]} and {rows[-1, 2]:.2f} at {widths[-1]} {unit} "
            f"(in the mean {rows[0, 0]:.2f} and {rows[-1, 0]:.2f})"
        )
        series += [
            Series(name, widths, rows[:, 2], points=True, colour=colour),
            Series("", widths, rows[-1, 2] * np.sqrt(widths[-1] / np.array(widths)), colour=colour),
        ]
    dense = [name for name in KINDS if name.startswith("FFNN")]
    others = [name for name in KINDS if name not in dense]
    single = off(_cnn(CHANNELS[-1], ONE_CHANNEL), noise(ONE_CHANNEL), networks)[0]
    evidence.append(
        Evidence(
            f"CNN, ReLU, {CHANNELS[-1]} channels on images of one channel: mean over networks", None, single
        )
    )
    falls = max(powers.values()) < -0.1 and all(abs(powers[name] + 0.5) < 0.25 for name in dense)
    clear = min(biases[name][-1] for name in others) > 0.1
    verdict = Verdict.FAILS
    if falls:
        verdict = Verdict.REFINED if clear else Verdict.HOLDS
    conclusion = (
        f"log m^l relative to the other layers', after {DEPTH} layers, is off the kernels' by: "
        + "; ".join(told)
        + ". In fully connected networks one network is off by the width's power "
        + " and ".join(f"{powers[name]:.2f}" for name in dense)
        + " and the mean over networks by far less. Convolutional networks are off in the mean, and that "
        "falls slowly ("
        + " and ".join(f"{powers[name]:.2f}" for name in others)
        + "): deep layers' inputs are nearly alike, the gradients of a batch nearly cancel, and what is left "
        "of them at a finite number of channels falls like its root. Kernels order convolutional layers; "
        f"fractions kept of narrow ones take sampled networks. On images of one channel it is {single:.2f}."
    )
    picture = _picture(series)
    return Finding(tuple(evidence), verdict, conclusion, picture)


CLAIM = Claim(
    name="infinite-width",
    statement="Signals, gradients and score moments of wide networks are those of infinite width (the "
    "infinite-width approximation, Hayou et al. 2021, section 2); a network of width N is off by O(1/√N).",
    method=f"log m^l of sampled networks of {DEPTH} layers beside kernels of the same {INPUTS} inputs, less "
    f"its mean over layers: fully connected ones of {WIDTHS[0]} to {WIDTHS[-1]} units on digits, plain and "
    f"Stable residual convolutional ones of {CHANNELS[0]} to {CHANNELS[-1]} channels on noise of {SHAPE[0]} "
    "channels.",
    recorded=Verdict.REFINED,
    check=check,
)
