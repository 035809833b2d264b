"""Whether a pruned network can be trained: singular values of its Jacobian, and its neural tangent kernel.

Gradients reach the first layers of a network undistorted where the singular values of its input–output
Jacobian lie near each other (dynamical isometry: Saxe et al. 2014, Pennington et al. 2017); pruning spoils
that, layer by layer (Lee et al. 2020, "A signal propagation perspective for pruning neural networks at
initialization"). The neural tangent kernel's eigenvalues are the rates at which training fits a batch: a
large condition number means that part of it is not learnt (Xiao et al. 2020, "Disentangling trainability and
generalization in deep neural networks").
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..base.boundary import public
from ..base.one_thread import with_one_thread
from ..base.result import Drawable
from ..base.tables import layer_frame
from ..base.typing import DataFrame
from ..criteria.criterion import Criterion
from ..criteria.distributions.kept_weights import Choice, KeptWeights, kept_weights
from ..criteria.distributions.magnitudes import magnitude_law
from ..errors import ModelError
from ..networks.architecture import Architecture
from ..networks.naming import network_name
from ..propagation.chain_kernels import Pass, input_kernel
from ..propagation.infinite_width import chain_only, scaled_tangent_kernel
from ..propagation.jacobian_moments import jacobian_moments
from ..signals.data import DataSummary
from .prediction import predict_pruning

Array = np.ndarray

#: How a criterion chooses weights in a layer, by what it needs.
_CHOICES: dict[str, Choice] = {"nothing": "chance", "weights": "magnitude", "paths": "magnitude"}
#: Sizes of eigenvalues, relative to the largest, under which they are rounding errors: of a measured kernel,
#: and of a predicted one, whose entries are that exact.
_ROUNDING, PREDICTED_ERROR = 1e-12, 1e-5


@public
@dataclass(frozen=True, repr=False, eq=False)
class Trainability(Drawable):
    """Jacobian and neural tangent kernel of a network of L weight layers, measured or predicted.

    s is a singular value. A mean of s² is taken over the rows of a matrix: over the outputs of a layer, or
    the logits. A variance of s² is relative to the square of that mean: 0 for an isometry, 1 for a square
    matrix of independent normal entries.

    Attributes:
        layers: names of the weight layers.
        kept: fraction of each layer's weights kept, (L,).
        layer_gain: mean s² of each layer's masked weights, (L,): the effective σ_w². A convolution's kernel
            is read as a matrix (channels out, channels in × kernel).
        layer_variance: variance of s² of each layer's masked weights, (L,); layerwise dynamical isometry is
            `layer_gain` 1 and `layer_variance` 0 (Lee et al. 2020, definition 1).
        chi: mean s² of ∂y^l/∂y^{l-1}, y a layer's output before its activation (of ∂y^1/∂x in the first
            layer), (L,); nan where the network is no chain of fully connected layers.
        jacobian_log_mean: natural logarithm of the mean s² of the Jacobian from input to logits.
        jacobian_variance: variance of s² of that Jacobian; measured: the mean over inputs.
        singular_values: of that Jacobian, largest first, (n, K) for n inputs; empty where it is predicted,
            or where the inputs are no real numbers.
        kernel: the neural tangent kernel of the kept weights, mean over logits, of n inputs, divided by the
            mean of its diagonal, (n, n).
        kernel_log_scale: natural logarithm of that mean.
        method: "measured", "theory" or "sampled".
        criterion: of a prediction.
        notes: what the numbers take for granted.
        network: what the network is called.
    """

    layers: tuple[str, ...]
    kept: Array
    layer_gain: Array
    layer_variance: Array
    chi: Array
    jacobian_log_mean: float
    jacobian_variance: float
    singular_values: Array
    kernel: Array
    kernel_log_scale: float
    method: str = "measured"
    criterion: str = ""
    notes: tuple[str, ...] = ()
    network: str = ""

    @property
    def jacobian_mean(self) -> float:
        """Mean s² of the Jacobian from input to logits; 0 or inf beyond the range of floats."""
        with np.errstate(over="ignore"):
            return float(np.exp(self.jacobian_log_mean))

    @property
    def jacobian_condition(self) -> float:
        """Largest over smallest singular value, median over the inputs; nan where they are not known."""
        if not self.singular_values.size:
            return float("nan")
        top, least = self.singular_values[:, 0], self.singular_values[:, -1]
        small = least <= _ROUNDING * top
        return float(np.median(np.where(small, np.inf, top / np.where(small, 1.0, least))))

    @property
    def log_spread(self) -> float:
        """Standard deviation of log s over the singular values that are not 0; nan where there are none."""
        found = self.singular_values
        known = found[found > _ROUNDING * found.max(initial=0.0)]
        return float(np.std(np.log(known))) if known.size else float("nan")

    @property
    def eigenvalues(self) -> Array:
        """Eigenvalues of `kernel`, largest first, (n,); they sum to n."""
        return np.linalg.eigvalsh(self.kernel)[::-1]

    @property
    def kernel_condition(self) -> float:
        """Largest over smallest eigenvalue; inf where the smallest is no more than the kernel's errors."""
        values = self.eigenvalues
        floor = PREDICTED_ERROR if self.method == "theory" else _ROUNDING
        return float(values[0] / values[-1]) if values[-1] > floor * values[0] else float("inf")

    @property
    def effective_rank(self) -> float:
        """(Σλ)²/Σλ² of the kernel's eigenvalues: how many directions of the n inputs are learnt alike."""
        total = float(np.sum(self.kernel**2))
        return float(np.trace(self.kernel) ** 2 / total) if total > 0.0 else 0.0

    @property
    def off_diagonal(self) -> float:
        """Mean of `kernel` over two different inputs, whose diagonal is 1 on average."""
        n = len(self.kernel)
        return float((self.kernel.sum() - np.trace(self.kernel)) / (n * (n - 1))) if n > 1 else float("nan")

    def to_frame(self) -> DataFrame:
        """One row a layer."""
        names = ("kept", "layer_gain", "layer_variance", "chi")
        return layer_frame(self, names)

    def _told(self) -> dict[str, Any]:
        names = (
            "jacobian_mean", "jacobian_condition", "log_spread",
            "eigenvalues", "kernel_condition", "effective_rank", "off_diagonal",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}

    def _headline(self) -> str:
        named = f"{self.network}, " if self.network else ""
        how = f"{self.method}{f', {self.criterion}' if self.criterion else ''}"
        return (
            f"{named}{how}: mean s² {self.jacobian_mean:.3g}, variance {self.jacobian_variance:.3g}; "
            f"NTK condition number {self.kernel_condition:.3g}, rank {self.effective_rank:.3g}"
        )


@with_one_thread
def predict_trainability(
    net: Architecture, sparsity: float, criterion: Criterion, data: Any, seed: int, inputs: int
) -> Trainability:
    """The prediction for a chain of fully connected layers, on arguments that are checked already.

    Raises:
        ArgumentError: another network. ModelError: weights that are not independent, a signal out of range.
    """
    chain_only(net)
    if any(layer.law == "orthogonal" for layer in net):
        raise ModelError(
            "net must have independent weights for its Jacobian to be predicted, got orthogonal ones"
        )
    batch = net.summarise(data, seed=seed)
    kept = np.ones(net.depth)
    if sparsity > 0.0:
        kept = np.asarray(predict_pruning(net, sparsity, criterion=criterion, data=batch, seed=seed).kept)
    # A mean of less than a weight is one at most.
    kept = np.maximum(kept, 1.0 / net.weights)
    choice = _CHOICES.get(criterion.needs, "product")
    sizes = [
        kept_weights(magnitude_law(layer), float(part), choice) for layer, part in zip(net, kept, strict=True)
    ]
    return _of_chain(net, batch, kept, sizes, criterion if sparsity > 0.0 else None, inputs)


def _of_chain(
    net: Architecture,
    batch: DataSummary,
    kept: Array,
    sizes: list[KeptWeights],
    criterion: Criterion | None,
    inputs: int,
) -> Trainability:
    """The prediction for weights of these moments."""
    pruned = tuple(
        replace(layer, sigma_w=float(layer.sigma_w * np.sqrt(size.second)))
        for layer, size in zip(net, sizes, strict=True)
    )
    scaled = Architecture(pruned, name=net.name)
    chain = Pass(scaled, input_kernel(np.asarray(batch.inputs)[:inputs]))
    found = jacobian_moments(scaled, chain, [size.kurtosis for size in sizes])
    kernel, log_scale = scaled_tangent_kernel(scaled, chain, kept)
    mean = float(np.trace(kernel)) / len(kernel)
    return Trainability(
        layers=net.weight_layers,
        kept=kept,
        layer_gain=np.array([layer.sigma_w**2 for layer in pruned]),
        layer_variance=found.layer_variance,
        chi=found.chi,
        jacobian_log_mean=found.log_mean,
        jacobian_variance=found.variance,
        singular_values=np.empty(0),
        kernel=kernel / mean if mean > 0.0 else kernel,
        kernel_log_scale=float(np.log(mean) + log_scale) if mean > 0.0 else -np.inf,
        method="theory",
        criterion="" if criterion is None else criterion.label,
        notes=_notes(criterion),
        network=network_name(net, net),
    )


def _notes(criterion: Criterion | None) -> tuple[str, ...]:
    """What a prediction takes for granted."""
    if criterion is None or criterion.needs in ("nothing", "weights"):
        return ()
    how = "the largest weights" if criterion.needs == "paths" else "products with independent gradients"
    return (
        f"{criterion.label} is taken to keep {how} of each layer, independent of each other; those that it "
        "keeps gather on the same units, whose signals and gradients are larger, up to twice in each ReLU "
        "layer, and the NTK's condition number with them: method='sampled' has neither error",
    )
