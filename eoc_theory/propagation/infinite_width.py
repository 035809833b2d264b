"""Kernels of a batch forwards and backwards through a network, at infinite width.

``y^l = W^l h^{l-1} + b^l``, ``h^l = φ(y^l)``, ``h^0 = x``, for L weight layers; over a batch of B inputs
``K^l_ab = E[y^l_a y^l_b]``, ``H^l_ab = E[h^l_a h^l_b]`` (one unit each) and, for the gradients
``δ^l = ∂loss/∂y^l`` of the mean cross-entropy, ``Γ^l_ab = E[δ^l_a δ^l_b]``:

    K^l = σ_b² + σ_w² H^{l-1},      Γ^l = σ_w² (fan_out/fan_in)_{l+1} Γ^{l+1} ∘ E[φ'(u_a) φ'(u_b)],

the second under gradient independence (Poole et al. 2016, Schoenholz et al. 2017; Hayou et al. 2021,
appendix). The score moment is ``m^l = E[(W^l g^l)²] = (σ_w²/fan_in) Σ_ab Γ^l_ab H^{l-1}_ab``.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..activations import Activation
from ..base import checks
from ..base.boundary import public
from ..base.one_thread import with_one_thread
from ..base.progress import followed
from ..base.result import Result
from ..base.tables import layer_frame
from ..errors import ArgumentError, ModelError
from ..networks.architecture import Architecture
from ..signals.covariance import covariance_root
from ..signals.data import DataSummary
from .chain_kernels import Kernel, LayerStep, Pass, input_kernel, split

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray

#: Draws of the logits for the mean gradient kernel of the loss; they are antithetic pairs.
LOGIT_DRAWS = 256
_EPS = float(np.finfo(float).eps)


#: Criteria whose kernels there are, and whether what is sent backwards is the Hessian times the gradient.
_HESSIAN = {"snip": False, "grasp": True}


@public
@dataclass(frozen=True, repr=False, eq=False)
class Propagation(Result):
    """The kernels of a batch, layer by layer, at infinite width.

    The kernels are arrays of all layers or, where few are needed, dicts by the layer's position.

    Attributes:
        layers: names, first to last; L of them.
        q: mean variance of the pre-activations, shape (L,); 0 or inf beyond the range of floats.
        log_q: its logarithm at any scale, shape (L,).
        c: mean correlation of two different inputs' pre-activations, shape (L,), of those that are not 0; nan
            where there are no two.
        chi: mean of σ_w² E[φ'²] that the *next* layer's gradient is multiplied by, shape (L,); the last is
            nan.
        log_moment: log m^l, shape (L,).
        kernels: K^l divided by 4^exponents[l], shape (L, B, B).
        inputs: H^{l-1}, the kernel of each layer's inputs, divided by 4^exponents[l − 1], by 4^input_exponent
            in the first layer; shape (L, B, B).
        gradients: Γ^l divided by exp(log_gradient[l]), shape (L, B, B).
        log_gradient: shape (L,).
        slopes: E[φ'φ'] after each layer but the last, shape (L−1, B, B).
        top: what is sent backwards from the logits.
        exponents: of 2, the scale of a signal that is carried apart, shape (L,): 0 for ordinary signals.
        input_exponent: the same of the data.
        acting: the activation after each layer but the last: φ itself, or its limit (`signal_limits`) for a
            signal whose scale is carried apart.
    """

    layers: tuple[str, ...]
    q: Array
    log_q: Array
    c: Array
    chi: Array
    log_moment: Array
    kernels: Array | Mapping[int, Array]
    inputs: Array | Mapping[int, Array]
    gradients: Array | Mapping[int, Array]
    log_gradient: Array
    slopes: Array | Mapping[int, Array]
    top: Cotangent
    exponents: Array
    input_exponent: int
    acting: tuple[Activation, ...]

    def to_frame(self) -> pd.DataFrame:
        """One row a layer: variance, correlation, χ and the logarithms of score moment and gradient."""
        return layer_frame(self, ("q", "c", "chi", "log_moment", "log_gradient"))

    def _headline(self) -> str:
        return f"{len(self.layers)} layers of {ends(self.q, 'q')}, {ends(self.c, 'c')}"

    def gradient_into(self, layer: int, net: Architecture) -> Array:
        """Kernel of ``W^T δ``, the gradient at the outputs h of `layer`, up to a positive factor."""
        layer = self._position(layer, len(self.layers) - 2)
        chain_only(net)
        following = net.layers[layer + 1]
        number, exponent = math.frexp(following.sigma_w)
        sigma_w = following.sigma_w if abs(exponent) <= 20 else number
        return self.gradients[layer + 1] * (sigma_w**2 * following.fan_out / following.fan_in)

    def unit_of_inputs(self, layer: int) -> int:
        """Power of two by which the signal into `layer` is larger than `inputs` has it."""
        layer = self._position(layer, len(self.layers))
        return int(self.exponents[layer - 1]) if layer else self.input_exponent

    @staticmethod
    def _position(layer: int, last: int) -> int:
        layer = checks.integer("layer", layer, minimum=0)
        if layer > last:
            raise ArgumentError(f"layer must be at most {last}, got {layer}")
        return layer


def ends(values: Array, symbol: str) -> str:
    """The first and the last of the values, in words."""
    return f"{symbol} {values[0]:.4g} to {values[-1]:.4g}"


@public
def propagate(net: Architecture, data: Any = None, *, seed: int = 0, criterion: str = "snip") -> Propagation:
    """Compute kernels, gradient kernels and score moments of `net` on `data` at infinite width.

    Args:
        net: fully connected layers one after the other; ``net.propagate`` serves other networks too.
        data: None, ``(inputs, targets)`` or a `DataSummary`; see `eoc_theory.signals.data.as_data`.
        seed: of the data that stand in, and of the sampled logits (the gradient of the loss has no closed
            form).
        criterion: "snip" propagates the gradient g, "grasp" the Gauss–Newton part of (Hessian)·g.

    Raises:
        ArgumentError: another network. DataError: data that do not fit. ModelError: a signal out of range
        where its activation has no limit, or a loss without a gradient.
    """
    checks.one_of("criterion", criterion, tuple(_HESSIAN))
    seed = checks.seed(seed)
    batch = chain_only(net).summarise(data, seed=seed)
    return propagate_batch(net, batch, seed=seed, criterion=criterion)[0]


@with_one_thread
def propagate_batch(
    net: Architecture,
    batch: DataSummary,
    *,
    seed: int = 0,
    criterion: str = "snip",
    keep: Collection[int] | None = None,
    subset: Array | None = None,
) -> tuple[Propagation, Propagation | None]:
    """As `propagate`, and the same for the inputs at the positions `subset` alone.

    A kernel's entries concern two inputs only, so that those of a subset are part of the whole's; the
    gradient of the loss is the subset's own.

    Args:
        keep: positions of the layers whose kernels are kept, None for all. Memory goes with their number and
            the root of the depth.
    """
    kept = range(net.depth) if keep is None else sorted(keep)
    chain = Pass(net, input_kernel(batch.inputs))
    seen = [_Forward(net, kept, chosen) for chosen in (None, subset)][: 1 if subset is None else 2]
    forwards = followed(chain.forwards(), "kernels forwards, layer", net.depth)
    for index, step in enumerate(forwards):
        for one in seen:
            one.see(index, step)
    tangent = tangent_kernel(net, chain) if _HESSIAN[criterion] else None
    return_trips = [_Backward(net, one, one.top(batch, tangent), seed) for one in seen]
    for index, step in followed(chain.backwards(), "kernels backwards, layer", net.depth):
        for trip in return_trips:
            trip.see(index, step)
    found = [trip.result(stacked=keep is None) for trip in return_trips]
    return found[0], found[1] if subset is not None else None


def chain_only(net: Any) -> Architecture:
    """`net`, which must be an architecture of fully connected layers one after the other.

    Raises ArgumentError for anything else.
    """
    if not isinstance(net, Architecture):
        raise ArgumentError(
            f"net must be an Architecture (of a torch model: Architecture.from_torch), got "
            f"{type(net).__name__}"
        )
    if not net.is_chain:
        raise ArgumentError(
            "net must be fully connected layers one after the other, got a graph (net.propagate() takes it)"
        )
    return net


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
        tangent: Θ up to a factor, shape (B, B), or None for e itself.
        exponent: the logits are 2^exponent times as large as `logits` has them.
    """

    logits: Array
    targets: Array
    classes: int
    tangent: Array | None = None
    exponent: int = 0

    def of(self, logits: Array, exponent: int | None = None) -> Array:
        """The cotangent for logits · 2^exponent, by default its own, of shape (…, B, classes), same shape.

        Logits far below 1 give all classes the same probability; far above, one class all of it.
        """
        exponent = self.exponent if exponent is None else exponent
        if exponent:
            logits = np.ldexp(logits, int(np.clip(exponent, -1000, 900)))
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

    def kernel(self, seed: int) -> Array:
        """Γ^L_ab, the mean over draws and output units of the products, shape (B, B)."""
        flat = self.draw(LOGIT_DRAWS, seed).transpose(1, 0, 2).reshape(len(self.targets), -1)
        return flat @ flat.T / flat.shape[1]


def tangent_kernel(net: Architecture, chain: Pass) -> Array:
    """The neural tangent kernel Θ of the weights up to a factor; see `scaled_tangent_kernel`."""
    return scaled_tangent_kernel(net, chain)[0]


def scaled_tangent_kernel(
    net: Architecture, chain: Pass, density: Array | None = None
) -> tuple[Array, float]:
    """Θ = Σ_l d_l fan_in_l H^{l-1} ∘ P^l with P^l_ab = Σ_i (∂y^L/∂y^l_i)_a (∂y^L/∂y^l_i)_b, of one logit.

    Args:
        density: d_l, the fraction of layer l's weights that there are; None: all. Their scale is `net`'s.

    Returns:
        values and a logarithm: Θ is values · exp(logarithm).
    """
    path: Any = None
    total: Any = None
    power = lost = 0
    log_scale = 0.0
    share = np.ones(net.depth) if density is None else density
    for index, step in chain.backwards():
        if path is None:
            path, total = np.ones_like(step.inputs.values), np.zeros_like(step.inputs.values)
            power = 2 * step.inputs.exponent
        elif step.slopes is not None:
            sigma_w, exponent = split(net.layers[index + 1].sigma_w)
            path = path * step.slopes * sigma_w**2
            lost += 2 * exponent
            # A chaotic network's is kept in range by taking its scale out.
            scale = max(1.0, float(np.abs(path).max()))
            path, total = path / scale, total / scale
            log_scale += math.log(scale)
            if float(np.abs(path).max()) < 2.0**-500:
                path, lost = np.ldexp(path, 500), lost - 500
        # In the unit of the larger of the two.
        own = 2 * step.inputs.exponent + lost
        unit = max(own, power)
        entries = float(net.layers[index].fan_in * share[index])
        total = _lowered(total, unit - power) + _lowered(entries * step.inputs.values * path, unit - own)
        power = unit
    assert total is not None  # a network has a layer
    return total, log_scale + power * math.log(2.0)


def _lowered(values: Array, power: int) -> Array:
    """values · 2^−power."""
    return values if power == 0 else np.ldexp(values, -min(power, 4000))


class _Forward:
    """What a report and the backward pass need of the forward pass, for all inputs or for some of them."""

    def __init__(self, net: Architecture, keep: Collection[int], chosen: Array | None) -> None:
        self._net, self.keep = net, frozenset(keep)
        self.chosen = chosen
        depth = net.depth
        self.q, self.log_q, self.c, self.chi = np.empty(depth), np.empty(depth), *np.full((2, depth), np.nan)
        self.exponents = np.zeros(depth, dtype=np.int64)
        self.input_exponent = 0
        self.acting: list[Activation] = []
        self.kernels: dict[int, Array] = {}
        self._last = Kernel(np.zeros((1, 1)))

    def part(self, kernel: Array) -> Array:
        """The chosen inputs' entries of (B, B)."""
        return kernel if self.chosen is None else kernel[np.ix_(self.chosen, self.chosen)]

    def see(self, index: int, step: LayerStep) -> None:
        kernel = self.part(step.kernel.values)
        self.exponents[index] = step.kernel.exponent
        if index == 0:
            self.input_exponent = step.inputs.exponent
        self._measure(index, kernel, step)
        if step.activation is not None:
            self.acting.append(step.activation)
        if index in self.keep:
            self.kernels[index] = kernel
        self._last = Kernel(kernel, step.kernel.exponent)

    def _measure(self, index: int, kernel: Array, step: LayerStep) -> None:
        diagonal = np.diagonal(kernel)
        mean = diagonal.mean()
        with np.errstate(all="ignore"):
            self.q[index] = np.ldexp(mean, 2 * step.kernel.exponent)
            self.log_q[index] = np.log(mean) + 2 * step.kernel.exponent * math.log(2.0)
        # A signal that is 0, of a blank image where there are no biases, is correlated with none.
        alive = int((diagonal > 0.0).sum())
        root = np.sqrt(diagonal)
        norms = root[:, None] * root[None, :]
        correlation = np.divide(kernel, norms, out=np.zeros_like(kernel), where=norms > 0.0)
        if alive > 1:
            self.c[index] = (correlation.sum() - alive) / (alive * (alive - 1))
        if step.slopes is not None:
            own = np.diagonal(step.slopes)
            own = own if self.chosen is None else own[self.chosen]
            self.chi[index] = self._net.layers[index + 1].sigma_w ** 2 * own.sum() / len(kernel)

    def top(self, batch: DataSummary, tangent: Array | None) -> Cotangent:
        """What the logits send back."""
        targets = batch.targets if self.chosen is None else batch.targets[self.chosen]
        tangent = None if tangent is None else self.part(tangent)
        return Cotangent(self._last.values, targets, batch.classes, tangent, self._last.exponent)


class _Backward:
    """The backward pass of the gradient's kernel, and the moments on it."""

    def __init__(self, net: Architecture, forward: _Forward, top: Cotangent, seed: int) -> None:
        self._net, self._forward, self._top = net, forward, top
        self._current, self._total = loss_kernel(top, seed), 0.0
        depth = net.depth
        self._moment, self._input_power = np.empty(depth), np.empty(depth)
        self._log_gradient = np.empty(depth)
        self._kept_layers = forward.keep
        self._kept: dict[str, dict[int, Array]] = {"gradients": {}, "inputs": {}, "slopes": {}}

    def see(self, index: int, step: LayerStep) -> None:
        slopes = None if step.slopes is None else self._forward.part(step.slopes)
        current, more = backward_step(self._net, index, self._current, slopes)
        self._current = current
        self._total += more
        self._log_gradient[index] = self._total
        inputs = self._forward.part(step.inputs.values)
        products = current * inputs
        # Kernels that cancel (balanced labels, equal inputs) may leave a rounding error under zero.
        self._moment[index] = max(float(products.sum()), _EPS * float(np.abs(products).sum()))
        self._input_power[index] = 2 * step.inputs.exponent
        for name, value in (("gradients", current), ("inputs", inputs), ("slopes", slopes)):
            if index in self._kept_layers and value is not None:
                self._kept[name][index] = value

    def result(self, *, stacked: bool) -> Propagation:
        """All that was found; `stacked` as arrays of all layers."""
        forward, shape = self._forward, self._current.shape
        kept: dict[str, Any] = {"kernels": forward.kernels, **self._kept}
        if stacked:
            kept = {
                name: np.reshape([found[index] for index in sorted(found)], (len(found), *shape))
                for name, found in kept.items()
            }
        weights = [split(layer.sigma_w) for layer in self._net.layers]
        fan_in = [layer.fan_in for layer in self._net.layers]
        variance = np.array([number**2 / n for (number, _), n in zip(weights, fan_in, strict=True)])
        power = self._input_power + [2 * exponent for _, exponent in weights]
        with np.errstate(divide="ignore"):
            log_moment = np.log(variance) + np.log(self._moment) + self._log_gradient
        return Propagation(
            layers=self._net.weight_layers,
            q=forward.q,
            log_q=forward.log_q,
            c=forward.c,
            chi=forward.chi,
            log_moment=log_moment + power * math.log(2.0),
            **kept,
            log_gradient=self._log_gradient,
            top=self._top,
            exponents=forward.exponents,
            input_exponent=forward.input_exponent,
            acting=tuple(forward.acting),
        )


def loss_kernel(top: Cotangent, seed: int) -> Array:
    """Γ^L. Raises ModelError where logits are too large for the loss to have a gradient."""
    kernel = top.kernel(seed)
    if top.classes > 1 and not np.trace(kernel) > 0.0:
        why = (
            "the logits are so large that every input has its own class for certain"
            if top.tangent is None
            else "the logits are so large that the softmax has no curvature"
        )
        raise ModelError(f"there are no scores to rank, the loss has no gradient: {why}")
    return kernel


def backward_step(
    net: Architecture, index: int, following: Array, slopes: Array | None
) -> tuple[Array, float]:
    """Γ of the layer at `index` with its scale taken out, and the logarithm of the scale.

    From `following`, that of the next layer, and E[φ'φ'] between them; None behind the last layer.
    """
    current, extra = following, 0.0
    if slopes is not None:
        layer = net.layers[index + 1]
        sigma_w, exponent = split(layer.sigma_w)
        current = following * slopes * (sigma_w**2 * layer.fan_out / layer.fan_in)
        extra = 2 * exponent * math.log(2.0)
    scale = max(float(np.trace(current)) / len(current), np.finfo(float).tiny)
    return current / scale, np.log(scale) + extra
