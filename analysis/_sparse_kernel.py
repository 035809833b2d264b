"""Steps of SGD on the kept weights of fully connected networks, compiled by numba.

A module of its own because importing it imports numba; only training with `sparse` does.

The kept weights of all layers stand one after the other, those of one unit together: the u-th of all units,
from 0, has the weights from ends[u] up to ends[u + 1]; they come from the units `sources` of the layer below.
Signals are (units, batch), so that one weight multiplies a row that lies in one piece.
"""

from __future__ import annotations

import math

import numba
import numpy as np

RELU, TANH = 0, 1

#: tanh(x) = x p(x²)/q(x²) where |x| is at most `_FAR`, to a few roundings of float32: the coefficients of
#: Eigen's `generic_fast_tanh_float`, the highest power first.
_FAR = np.float32(7.90531110763549805)
_P = np.array([
    -2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08,
    1.48572235717979e-05, 6.37261928875436e-04, 4.89352455891786e-03,
], dtype=np.float32)  # fmt: skip
_Q = np.array(
    [1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03], np.float32
)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _tanh(signal: np.ndarray) -> None:
    """tanh of a row in place; without a branch or a call, so that several numbers are computed at a time.

    Hence NumPy's errors: Python's would look for a division by 0.
    """
    for b in range(len(signal)):
        x = min(max(signal[b], -_FAR), _FAR)
        s = x * x
        above = ((((((_P[0] * s + _P[1]) * s + _P[2]) * s + _P[3]) * s + _P[4]) * s + _P[5]) * s + _P[6]) * x
        signal[b] = above / (((_Q[0] * s + _Q[1]) * s + _Q[2]) * s + _Q[3])


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def forward(
    widths: np.ndarray,
    ends: np.ndarray,
    sources: np.ndarray,
    weights: np.ndarray,
    biases: np.ndarray,
    kind: int,
    signals: np.ndarray,
) -> None:
    """Fill `signals`, (layers + 1, units, batch), from its first entry: inputs of each layer, and logits."""
    unit, batch, last = 0, signals.shape[2], len(widths) - 1
    for layer in range(last):
        below, here = signals[layer], signals[layer + 1]
        for i in range(widths[layer + 1]):
            out = here[i]
            out[:] = biases[unit]
            for e in range(ends[unit], ends[unit + 1]):
                source, weight = below[sources[e]], weights[e]
                for b in range(batch):
                    out[b] += weight * source[b]
            if layer < last - 1:
                if kind == RELU:
                    for b in range(batch):
                        out[b] = max(out[b], np.float32(0.0))
                else:
                    _tanh(out)
            unit += 1


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def backward(
    widths: np.ndarray,
    ends: np.ndarray,
    sources: np.ndarray,
    weights: np.ndarray,
    kind: int,
    signals: np.ndarray,
    gradients: np.ndarray,
    of_weights: np.ndarray,
    of_biases: np.ndarray,
) -> None:
    """Gradients of weights and biases; `gradients`, two of (units, batch), begins with the logits' in its
    first."""
    unit, batch, last = len(ends) - 1, signals.shape[2], len(widths) - 1
    for layer in range(last - 1, -1, -1):
        below = signals[layer]
        here, passed = gradients[(last - 1 - layer) % 2], gradients[(last - layer) % 2]
        passed[: widths[layer]] = 0.0
        unit -= widths[layer + 1]
        for i in range(widths[layer + 1]):
            out, total = here[i], np.float32(0.0)
            for b in range(batch):
                total += out[b]
            of_biases[unit + i] = total
            for e in range(ends[unit + i], ends[unit + i + 1]):
                source, into, weight = below[sources[e]], passed[sources[e]], weights[e]
                total = np.float32(0.0)
                for b in range(batch):
                    total += out[b] * source[b]
                    into[b] += weight * out[b]
                of_weights[e] = total
        if layer == 0:
            return
        for j in range(widths[layer]):
            for b in range(batch):
                h = below[j, b]
                if kind == RELU:
                    passed[j, b] = passed[j, b] if h > 0 else np.float32(0.0)
                else:
                    passed[j, b] *= np.float32(1.0) - h * h


@numba.njit(cache=True, nogil=True)
def cross_entropy(logits: np.ndarray, targets: np.ndarray, gradient: np.ndarray) -> float:
    """Mean over the batch; fills its gradient by the logits, (classes, batch) like these."""
    classes, batch = logits.shape
    loss = 0.0
    for b in range(batch):
        top = logits[0, b]
        for k in range(1, classes):
            top = max(top, logits[k, b])
        total = 0.0
        for k in range(classes):
            total += math.exp(logits[k, b] - top)
        loss += math.log(total) + top - logits[targets[b], b]
        for k in range(classes):
            share = math.exp(logits[k, b] - top) / total
            gradient[k, b] = (share - (k == targets[b])) / batch
    return loss / batch


@numba.njit(cache=True, nogil=True)
def step(
    values: np.ndarray,
    gradients: np.ndarray,
    velocities: np.ndarray,
    rate: float,
    momentum: float,
    decay: float,
    shorter: float,
) -> None:
    """SGD with momentum as torch has it; gradients are multiplied by `shorter` first."""
    for i in range(len(values)):
        slope = np.float32(shorter) * gradients[i] + np.float32(decay) * values[i]
        velocities[i] = np.float32(momentum) * velocities[i] + slope
        values[i] -= np.float32(rate) * velocities[i]


@numba.njit(cache=True, nogil=True)
def length(of_weights: np.ndarray, of_biases: np.ndarray) -> float:
    """Euclidean norm of both together."""
    total = 0.0
    for value in of_weights:
        total += float(value) ** 2
    for value in of_biases:
        total += float(value) ** 2
    return math.sqrt(total)


@numba.njit(cache=True, nogil=True)
def epoch(
    widths: np.ndarray,
    ends: np.ndarray,
    sources: np.ndarray,
    weights: np.ndarray,
    biases: np.ndarray,
    velocities: tuple[np.ndarray, np.ndarray],
    kind: int,
    inputs: np.ndarray,
    targets: np.ndarray,
    order: np.ndarray,
    batch: int,
    recipe: tuple[float, float, float, float],
) -> np.ndarray:
    """One step for each whole batch of the order; returns their losses.

    Args:
        inputs: (images, features); `order` indexes them.
        recipe: learning rate, momentum, weight decay, and the largest norm of a gradient (inf: any).
    """
    rate, momentum, decay, clip = recipe
    steps, units, classes = len(order) // batch, widths.max(), widths[-1]
    signals = np.zeros((len(widths), units, batch), dtype=np.float32)
    gradients = np.zeros((2, units, batch), dtype=np.float32)
    of_weights, of_biases = np.zeros_like(weights), np.zeros_like(biases)
    seen = np.zeros(batch, dtype=np.int64)
    losses = np.zeros(steps)
    for s in range(steps):
        for b in range(batch):
            at = order[s * batch + b]
            seen[b] = targets[at]
            for i in range(widths[0]):
                signals[0, i, b] = inputs[at, i]
        forward(widths, ends, sources, weights, biases, kind, signals)
        losses[s] = cross_entropy(signals[-1, :classes], seen, gradients[0, :classes])
        backward(widths, ends, sources, weights, kind, signals, gradients, of_weights, of_biases)
        norm = length(of_weights, of_biases)
        # As torch.nn.utils.clip_grad_norm_.
        shorter = min(1.0, clip / (norm + 1e-6)) if clip < np.inf else 1.0
        step(weights, of_weights, velocities[0], rate, momentum, decay, shorter)
        step(biases, of_biases, velocities[1], rate, momentum, decay, shorter)
    return losses
