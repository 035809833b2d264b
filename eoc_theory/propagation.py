"""Kernels of a batch forwards and backwards through a network, at infinite width.

``y^l = W^l h^{l-1} + b^l``, ``h^l = φ(y^l)``, ``h^0 = x``, for L weight layers; over a batch of B inputs
``K^l_ab = E[y^l_a y^l_b]``, ``H^l_ab = E[h^l_a h^l_b]`` (one unit each) and, for the gradients
``δ^l = ∂loss/∂y^l`` of the mean cross-entropy, ``Γ^l_ab = E[δ^l_a δ^l_b]``:

    K^l = σ_b² + σ_w² H^{l-1},      Γ^l = σ_w² (fan_out/fan_in)_{l+1} Γ^{l+1} ∘ E[φ'(u_a) φ'(u_b)],

the second under gradient independence (Poole et al. 2016, Schoenholz et al. 2017; Hayou et al. 2021,
appendix). The score moment is ``m^l = E[(W^l g^l)²] = (σ_w²/fan_in) Σ_ab Γ^l_ab H^{l-1}_ab``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .architecture import Architecture
from .boundary import public
from .duals import covariance_maps
from .errors import ArgumentError, ModelError

Array = np.ndarray

#: Accuracy asked of the dual activations, relative to their scale: far under what a score's law can show.
KERNEL_TOLERANCE = 1e-5
#: Products of two variances must stay within float64.
LARGEST_VARIANCE = 1e150
#: Draws of the logits for the mean gradient kernel of the loss; they are antithetic pairs.
LOGIT_DRAWS = 256


@public
@dataclass(frozen=True)
class Propagation:
    """What a batch becomes, layer by layer, at infinite width.

    Attributes:
        layers: names, first to last; L of them.
        q: mean variance of the pre-activations, shape (L,).
        c: mean correlation of two different inputs' pre-activations, shape (L,), of those that are not 0; nan
            where there are no two.
        chi: mean of σ_w² E[φ'²] that the *next* layer's gradient is multiplied by, shape (L,); the last is
            nan.
        log_moment: log m^l, shape (L,).
        kernels: K^l, shape (L, B, B).
        inputs: H^{l-1}, the kernel of each layer's inputs, shape (L, B, B).
        gradients: Γ^l divided by exp(log_gradient[l]), shape (L, B, B).
        log_gradient: shape (L,).
        slopes: E[φ'φ'] after each layer but the last, shape (L−1, B, B).
        top: what is sent backwards from the logits.
    """

    layers: tuple[str, ...]
    q: Array
    c: Array
    chi: Array
    log_moment: Array
    kernels: Array
    inputs: Array
    gradients: Array
    log_gradient: Array
    slopes: Array
    top: Cotangent

    def gradient_into(self, layer: int, net: Architecture) -> Array:
        """Kernel of ``W^T δ``, the gradient at the outputs h of `layer`, up to the scale left out."""
        following = net.layers[layer + 1]
        return self.gradients[layer + 1] * (following.sigma_w**2 * following.fan_out / following.fan_in)


@public
def propagate(net: Architecture, data: Any = None, *, seed: int = 0, criterion: str = "snip") -> Propagation:
    """Kernels, gradient kernels and score moments of `net` on `data`.

    Args:
        net: fully connected layers one after the other; ``net.propagate`` serves other networks too.
        data: None, ``(inputs, targets)`` or a `DataSummary`; see `eoc_theory.data.as_data`.
        seed: of the stand-in data and of the draws of the logits (the loss's gradient has no closed law).
        criterion: "snip" propagates the gradient g, "grasp" the Gauss–Newton part of (Hessian)·g.

    Raises:
        ArgumentError: another network. DataError: data that do not fit. ModelError: the variance leaves the
        range of float64.
    """
    batch = chain_only(net).summarise(data, seed=seed)
    kernels, inputs, slopes = forward_kernels(net, batch.covariance)
    tangent = tangent_kernel(net, inputs, slopes) if criterion == "grasp" else None
    top = Cotangent(kernels[-1], batch.targets, batch.classes, tangent)
    return send_back(net, kernels, inputs, slopes, top, seed)


def chain_only(net: Any) -> Architecture:
    """`net`, which must be an architecture of fully connected layers one after the other.

    Raises ArgumentError for anything else.
    """
    if not isinstance(net, Architecture):
        raise ArgumentError(
            f"net must be an Architecture (of a torch model: Architecture.from_torch), got "
            f"{type(net).__name__}"
        )
    if net.graph is not None:
        raise ArgumentError(
            "net must be fully connected layers one after the other, got a graph (net.propagate() takes it)"
        )
    return net


def restrict(net: Architecture, whole: Propagation, chosen: Array, *, seed: int = 0) -> Propagation:
    """`propagate` for the inputs at the positions `chosen` alone, without computing a kernel again.

    A kernel's entries concern two inputs only, so that those of a subset are part of the whole's; the
    gradient of the loss is the subset's own.
    """
    part = np.ix_(np.arange(net.depth), chosen, chosen)
    slopes = whole.slopes[:, chosen[:, None], chosen]
    tangent = whole.top.tangent
    top = Cotangent(
        whole.top.logits[np.ix_(chosen, chosen)],
        whole.top.targets[chosen],
        whole.top.classes,
        None if tangent is None else tangent[np.ix_(chosen, chosen)],
    )
    return send_back(net, whole.kernels[part], whole.inputs[part], slopes, top, seed)


def forward_kernels(net: Architecture, covariance: Array) -> tuple[Array, Array, Array]:
    """K^l and H^{l-1} of every layer, shapes (L, B, B), and E[φ'φ'] after each but the last, (L−1, B, B).

    From the kernel H^0 of the inputs, `covariance`, shape (B, B).
    """
    inputs = [covariance]
    kernels: list[Array] = []
    slopes: list[Array] = []
    for layer in net.layers:
        kernels.append(layer.sigma_b**2 + layer.sigma_w**2 * inputs[-1])
        if not np.abs(kernels[-1]).max() < LARGEST_VARIANCE:
            raise ModelError(
                f"variance at layer {layer.name} exceeds {LARGEST_VARIANCE:g}: use a smaller sigma_w or depth"
            )
        if layer.activation is not None:
            maps = covariance_maps(layer.activation, kernels[-1], derivative=True, tolerance=KERNEL_TOLERANCE)
            assert maps.dphi is not None  # it was asked for
            inputs.append(maps.phi)
            slopes.append(maps.dphi)
    shape = (net.depth - 1, *covariance.shape)
    return np.stack(kernels), np.stack(inputs), np.reshape(slopes, shape)


def covariance_root(covariance: Array, jitter: float = 1e-10) -> Array:
    """R with R Rᵀ = covariance, lower triangular; works on stacks and where the matrix is singular.

    Kernels lose rank with depth; `jitter`, relative to the mean variance, keeps Cholesky's method going.
    """
    scale = np.trace(covariance, axis1=-2, axis2=-1) / covariance.shape[-1]
    scale = np.maximum(scale, np.finfo(float).tiny)[..., None, None]
    eye = np.eye(covariance.shape[-1])
    for grown in (jitter, 1e2 * jitter, 1e4 * jitter):
        try:
            return np.linalg.cholesky(covariance / scale + grown * eye) * np.sqrt(scale)
        except np.linalg.LinAlgError:
            continue
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0.0))[..., None, :]


def softmax(logits: Array) -> Array:
    """Along the last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def loss_gradient(logits: Array, targets: Array) -> Array:
    """δ^L of the mean cross-entropy, softmax − onehot over B. Logits of shape (…, B, classes)."""
    batch = len(targets)
    delta = softmax(logits)
    delta[..., np.arange(batch), targets] -= 1.0
    return delta / batch


@dataclass(frozen=True)
class Cotangent:
    """What is sent backwards from the logits: e = softmax − onehot over B, or for GraSP S Θ e.

    The Gauss–Newton part of Hess·g is Jᵀ S J Jᵀ e with J the Jacobian of the logits, S the softmax Hessian
    over B and Θ = J Jᵀ the neural tangent kernel of the weights, the same for every class at infinite width.

    Attributes:
        logits: kernel K^L of the logits, shape (B, B).
        targets: shape (B,). classes: number of outputs.
        tangent: Θ, shape (B, B), or None for e itself.
    """

    logits: Array
    targets: Array
    classes: int
    tangent: Array | None = None

    def of(self, logits: Array) -> Array:
        """The cotangent for logits of shape (…, B, classes), same shape."""
        error = loss_gradient(logits, self.targets)
        if self.tangent is None:
            return error
        velocity = self.tangent / np.trace(self.tangent) @ error
        p = softmax(logits)
        return p * (velocity - (p * velocity).sum(axis=-1, keepdims=True))

    def draw(self, draws: int, seed: int) -> Array:
        """Draws at antithetic logits, whose classes are rows of N(0, K^L); shape (draws, B, C)."""
        rng = np.random.default_rng([seed, 0x6C6F6769])
        half = rng.standard_normal((-(-draws // 2), self.classes, len(self.logits)))
        half = half @ covariance_root(self.logits).T
        return self.of(np.concatenate([half, -half])[:draws].transpose(0, 2, 1))

    def kernel(self, seed: int, draws: int = LOGIT_DRAWS) -> Array:
        """Γ^L_ab, the mean over draws and output units of the products, shape (B, B)."""
        flat = self.draw(draws, seed).transpose(1, 0, 2).reshape(len(self.targets), -1)
        return flat @ flat.T / flat.shape[1]


def tangent_kernel(net: Architecture, inputs: Array, slopes: Array) -> Array:
    """Θ = Σ_l fan_in_l H^{l-1} ∘ P^l with P^l_ab = Σ_i (∂y^L/∂y^l_i)_a (∂y^L/∂y^l_i)_b; (B, B)."""
    path = np.ones_like(inputs[0])
    total = np.zeros_like(inputs[0])
    for index in range(net.depth - 1, -1, -1):
        layer = net.layers[index]
        total += layer.fan_in * inputs[index] * path
        if index:
            path = path * slopes[index - 1] * layer.sigma_w**2
            # Only Θ's direction matters: a chaotic network's is kept in range by taking its scale out.
            scale = max(1.0, float(np.abs(path).max()))
            path, total = path / scale, total / scale
    return total


def backward_kernels(net: Architecture, slopes: Array, loss: Array) -> tuple[Array, Array]:
    """Γ^l of every layer with its scale taken out, (L, B, B), and the logarithm of the scale, (L,)."""
    depth = net.depth
    gradients = np.empty((depth, *loss.shape))
    log_scale = np.empty(depth)
    current, total = loss, 0.0
    for index in range(depth - 1, -1, -1):
        if index < depth - 1:
            following = net.layers[index + 1]
            current = current * slopes[index] * (following.sigma_w**2 * following.fan_out / following.fan_in)
        scale = max(float(np.trace(current)) / len(current), np.finfo(float).tiny)
        current = current / scale
        total += np.log(scale)
        gradients[index], log_scale[index] = current, total
    return gradients, log_scale


def send_back(
    net: Architecture, kernels: Array, inputs: Array, slopes: Array, top: Cotangent, seed: int
) -> Propagation:
    """The way back for given forward kernels, and the per-layer numbers."""
    gradients, log_gradient = backward_kernels(net, slopes, top.kernel(seed))
    batch = kernels.shape[-1]
    diagonal = np.diagonal(kernels, axis1=1, axis2=2)
    # A signal that is 0, of a blank image where there are no biases, is correlated with none.
    alive = (diagonal > 0.0).sum(axis=1)
    root = np.sqrt(diagonal)
    norms = root[:, :, None] * root[:, None, :]
    correlation = np.divide(kernels, norms, out=np.zeros_like(kernels), where=norms > 0.0)
    c = np.full(net.depth, np.nan)
    np.divide(correlation.sum(axis=(1, 2)) - alive, alive * (alive - 1), out=c, where=alive > 1)
    chi = np.full(net.depth, np.nan)
    for index, slope in enumerate(slopes):
        chi[index] = net.layers[index + 1].sigma_w ** 2 * np.trace(slope) / batch
    variance = np.array([layer.sigma_w**2 / layer.fan_in for layer in net.layers])
    # Kernels that cancel (balanced labels, equal inputs) may leave a rounding error under zero.
    moment = np.maximum((gradients * inputs).sum(axis=(1, 2)), np.finfo(float).tiny)
    return Propagation(
        layers=net.weight_layers,
        q=diagonal.mean(axis=1),
        c=c,
        chi=chi,
        log_moment=np.log(variance) + np.log(moment) + log_gradient,
        kernels=kernels,
        inputs=inputs,
        gradients=gradients,
        log_gradient=log_gradient,
        slopes=slopes,
        top=top,
    )
