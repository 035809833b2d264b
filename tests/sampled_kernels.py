"""Kernels of really sampled wide networks, node by node, against those of the theory.

The data are such that the theory's mean over a kind of pairs loses nothing: every input has one kernel with
itself, and every two of one class, or of different classes, one with each other, exactly. What is sent back
from the logits is of the same kind and independent of the network. Left are the finite width, which falls
with it, and whatever is wrong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from torch_layers import WeightedInTorch

from eoc_theory.layers.random_numbers import Draw
from eoc_theory.signals.data import DataSummary
from eoc_theory.signals.fields import Gradient, Pairs, input_signal

#: Correlations of two inputs of one class and of different classes.
ALIKE, UNLIKE = 0.7, 0.3


@dataclass(frozen=True)
class Node:
    """Moments of one node for every group of its channels, (T, P, P), and log E[(W g)²]."""

    value: list[np.ndarray]
    gradient: list[np.ndarray] | None
    log_moment: float | None


def smooth(space, reach=1.5):
    """Covariance of a smooth image, stronger in one corner, (P, P)."""
    at = np.stack(np.meshgrid(*map(np.arange, space), indexing="ij"), -1).reshape(-1, len(space))
    kernel = np.exp(-0.5 * ((at[:, None] - at) ** 2).sum(-1) / reach**2)
    strength = 1.0 + 0.5 * at.sum(1) / at.sum(1).max()
    return kernel * strength[:, None] * strength + 0.05 * np.eye(len(at))


def draws(kernel, classes, members, channels, rng):
    """Rows (channels, B, P) whose kernels are exactly those given, channels ≥ B·P."""
    batch = classes * members
    one = np.ones((members, members))
    shared = ALIKE * np.kron(np.eye(classes), one) + UNLIKE * np.kron(1 - np.eye(classes), one)
    np.fill_diagonal(shared, 1.0)
    root = np.linalg.cholesky(np.kron(shared, kernel))
    q, _ = np.linalg.qr(rng.standard_normal((channels, len(root))))
    return (np.sqrt(channels) * q @ root.T).reshape(channels, batch, -1)


def make_batch(channels, space, classes=2, members=3, seed=0):
    x = draws(smooth(space), classes, members, channels, np.random.default_rng(seed))
    targets = np.repeat(np.arange(classes), members)
    return DataSummary(x.transpose(1, 0, 2).reshape(len(targets), -1), targets, classes)


def predicted(graph, batch):
    """`Node`s of the theory, for logits' gradients of variance 1."""
    pairs = Pairs.of(batch)
    signals = [input_signal(batch, graph.input_shape, pairs, np.float64)]
    memories = [None]
    for node in graph.nodes[1:]:
        value, memory = node.layer.forward_kernel([signals[i] for i in node.inputs], pairs)
        signals.append(value)
        memories.append(memory)
    top = np.array([1.0, ALIKE, UNLIKE])[:, None, None]
    arriving: list[Gradient | None] = [None] * len(graph.nodes)
    arriving[-1] = Gradient((top,))
    moments = {}
    for position in range(len(graph.nodes) - 1, 0, -1):
        node, gradient = graph.nodes[position], arriving[position]
        assert gradient is not None
        if node.layer.weighted is not None:
            moments[position] = memories[position].log_moment(node.layer.weight, gradient, pairs)
        for source, sent in zip(
            node.inputs, node.layer.backward_kernel(memories[position], gradient, pairs), strict=True
        ):
            before = arriving[source]
            arriving[source] = sent if before is None else before.plus(sent)
    found = []
    for position, (signal, gradient) in enumerate(zip(signals, arriving, strict=True)):
        groups = None
        if gradient is not None and gradient.latent is None and position:
            groups = [g * math.exp(gradient.log_scale) for g in gradient.groups]
        found.append(Node([f.moment for f in signal], groups, moments.get(position)))
    return signals, found


def sampled(graph, batch, signals, seeds):
    """`Node`s as means over sampled networks, their channels in the groups of `signals`."""
    pairs = Pairs.of(batch)
    shape = graph.input_shape
    images = batch.inputs.T.reshape(shape.channels, *shape.space, batch.size)
    total = None
    for seed in range(seeds):
        draw = Draw(np.random.default_rng([7, seed]), np.float32)
        values, memories = [images.astype(np.float32)], [None]
        for node in graph.nodes[1:]:
            inputs = [values[i] for i in node.inputs]
            if node.layer.weighted is not None:
                memory = WeightedInTorch(node.layer, inputs[0], draw)
                value = memory.value
            else:
                value, memory = node.layer.forward_values(inputs, draw)
            values.append(value)
            memories.append(memory)
        units = graph.output_shape.channels
        sent = draws(np.ones((1, 1)), batch.classes, batch.size // batch.classes, units, draw.rng)
        arriving: list[Gradient | None] = [None] * len(graph.nodes)
        arriving[-1] = sent[:, :, 0].astype(np.float32)
        moments = {}
        for position in range(len(graph.nodes) - 1, 0, -1):
            node, gradient = graph.nodes[position], arriving[position]
            if node.layer.weighted is not None:
                back, scores = memories[position].backwards(gradient)
                moments[position] = float(np.mean(scores.astype(float) ** 2))
                parts = [back]
            else:
                parts = node.layer.backward_values(memories[position], gradient)
            for source, part in zip(node.inputs, parts, strict=True):
                arriving[source] = part if arriving[source] is None else arriving[source] + part
        rows = []
        for position, (value, gradient) in enumerate(zip(values, arriving, strict=True)):
            signal = signals[position]
            rows.append(
                (kernels(value, signal, pairs), kernels(gradient, signal, pairs), moments.get(position, 0.0))
            )
        total = rows if total is None else [_plus(a, b) for a, b in zip(total, rows, strict=True)]
    return [
        Node([k / seeds for k in v], [k / seeds for k in g], math.log(m / seeds) if m else None)
        for v, g, m in total
    ]


def _plus(a, b):
    return (
        [x + y for x, y in zip(a[0], b[0], strict=True)],
        [x + y for x, y in zip(a[1], b[1], strict=True)],
        a[2] + b[2],
    )


def kernels(value, signal, pairs):
    """Moments of values (C, *space, B) for every group of channels, (T, P, P) each."""
    channels = [field.channels for field in signal]
    value = value.reshape(len(value), -1, value.shape[-1]).astype(np.float32)
    found, at = [], 0
    for count in channels:
        x = value[at : at + count]
        at += count
        rows = []
        for kind, pair_count in enumerate(pairs.counts):
            other = x @ (pairs.kind == kind).astype(np.float32)
            product = x.transpose(1, 0, 2).reshape(x.shape[1], -1)
            against = other.transpose(1, 0, 2).reshape(x.shape[1], -1)
            rows.append(product @ against.T / (pair_count * count))
        found.append(np.stack(rows).astype(float))
    return found


def differences(theory, measured):
    """For a kernel (T, P, P): how far each kind's matrix is off, and by which factor, relative to kind 0."""
    scale = np.linalg.norm(theory[0]) or 1.0
    apart = [float(np.linalg.norm(a - b) / scale) for a, b in zip(theory, measured, strict=True)]
    along = [float(np.sum(a * b) / max(np.sum(a * a), 1e-300)) for a, b in zip(theory, measured, strict=True)]
    return apart, along


def report(graph, theory, measured):
    for node, a, b in zip(graph.nodes, theory, measured, strict=True):
        line = f"{node.layer.name[:18]:18s}"
        for group, (x, y) in enumerate(zip(a.value, b.value, strict=True)):
            if group > 1:
                break
            apart, along = differences(x, y)
            line += " F " + " ".join(f"{e:.3f}({f:.3f})" for e, f in zip(apart, along, strict=True))
        if a.gradient is not None:
            for group, (x, y) in enumerate(zip(a.gradient, b.gradient, strict=True)):
                if group > 1:
                    break
                apart, along = differences(x, y)
                line += " B " + " ".join(f"{e:.3f}({f:.3f})" for e, f in zip(apart, along, strict=True))
        if a.log_moment is not None:
            line += f" m {a.log_moment:.3f} {b.log_moment - a.log_moment:+.3f}"
        print(line)
