"""`trainability`: the Jacobian and the neural tangent kernel of a network, pruned or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..base import checks
from ..base.boundary import public
from ..base.isolation import converted, isolated, seeded
from ..base.typing import DType, Method
from ..criteria.criterion import Criterion, CriterionLike
from ..criteria.criterion import criterion as as_criterion
from ..errors import ArgumentError, ModelError
from ..networks.architecture import Architecture
from ..networks.naming import network_name
from ..pruning.trainability import Trainability, predict_trainability
from .batches import Batch, as_batch
from .devices import chosen_device
from .inputs import example_shape
from .lazy import require_torch, torch
from .losses import Loss, as_loss
from .measure.gradient_scores import double_is_cheap
from .measure.measure import measure_pruning
from .models import PrunableWeight, chain, is_linear_chain, prunable_weights
from .prune import prune_
from .running import backward_pass

#: Logits that are looked at, at most, evenly spaced among all.
MOST_LOGITS = 16
#: Networks that are sampled for an `Architecture`; odd, so that one of them is the median.
NETWORKS = 5


@isolated
@public
def trainability(
    net: Any,
    masks: Mapping[str, Any] | None = None,
    *,
    sparsity: float = 0.0,
    criterion: CriterionLike = "random",
    data: Any = None,
    method: Method = "auto",
    inputs: int = 32,
    output: Any = None,
    example_input: Any = None,
    device: Any = "auto",
    dtype: DType = "auto",
    seed: int = 0,
) -> Trainability:
    """Measure or predict how well a network can be trained, by its Jacobian and neural tangent kernel (NTK).

    A torch model is measured: the singular values of the Jacobian from the input to the logits, and the NTK
    of the kept weights, exact for this network. It is run in the mode it is in.

    An `Architecture` is predicted, after pruning by `criterion` to `sparsity`. By theory, for fully connected
    layers: `eoc_theory.propagation.jacobian_moments`, and the NTK as in Jacot et al. 2018 with the kernels of
    `eoc_theory.propagate`. For random, uniform, erk and magnitude the masks are independent and the limit of
    large width is exact. The condition number depends on the smallest eigenvalue and converges last: in
    networks of 100 units that keep a tenth of their weights it is about twice as large. For other criteria
    each layer keeps the predicted fraction, as if its kept weights were independent. They are not: SNIP keeps
    weights between active units, so that in ReLU networks up to twice as much passes each layer. Otherwise
    five networks are sampled, pruned and measured. Arrays are their means, single numbers their medians, and
    the kernel is that of the network with the median condition number.

    Args:
        net: a torch model, or an `Architecture` of fully connected layers one after the other.
        masks: of a torch model, what is kept by layer name, as in ``PruningMeasurement.masks``, beside the
            masks that it carries.
        sparsity: of an `Architecture`, the fraction of weights removed, in [0, 1).
        criterion: of an `Architecture`, what ranks the weights; as in `predict_pruning`.
        data: as in `measure_pruning`; of a torch model targets do not count.
        method: of an `Architecture`, "theory", "sampled" or "auto": theory for fully connected layers whose
            weights are all kept or are kept independently of each other, else sampled.
        inputs: how many examples of `data` are looked at, the first ones.
        output: what picks the logits where a model returns more; as in `measure_pruning`. Of more than 16
            logits of an example, 16 are looked at.
        example_input: a batch of inputs, of which only the shape counts, or that shape; where no `data` are
            given and the first layer is not Linear.
        device: where a model is run; "auto": its own accelerator, else CUDA if there is one, else the CPU.
        dtype: "float32", "float64", or "auto": float64 for small networks of Linear layers.
        seed: of stand-in data and of modules that draw random numbers.

    Raises:
        ArgumentError, DataError, ModelError: an argument outside the above, or that does not go with `net`.
    """
    seed = checks.seed(seed)
    inputs = checks.integer("inputs", inputs, minimum=2)
    sparsity = checks.fraction("sparsity", sparsity)
    checks.one_of("dtype", dtype, ("auto", "float32", "float64"))
    checks.one_of("method", method, ("auto", "theory", "sampled"))
    rule = as_criterion(criterion)
    if isinstance(net, Architecture):
        if masks is not None:
            raise ArgumentError("masks go with a torch model, got them with an Architecture")
        independent = sparsity == 0.0 or rule.needs in ("nothing", "weights")
        if method == "theory" or (method == "auto" and net.is_chain and independent):
            return predict_trainability(net, sparsity, rule, data, seed, inputs)
        return _sampled(net, sparsity, rule, data, seed, inputs, device, dtype)
    if sparsity > 0.0:
        raise ArgumentError(
            f"sparsity goes with an Architecture, got {sparsity:g} with {type(net).__name__}: give masks"
        )
    if method != "auto":
        raise ArgumentError(
            f"method goes with an Architecture, got {method!r} with {type(net).__name__}, which is measured"
        )
    weights = prunable_weights(net)
    goal = as_loss("cross_entropy", output)
    batch = as_batch(net, data, example_input, seed, goal).part(slice(0, inputs))
    where = chosen_device(device, net)
    if dtype == "auto":
        dtype = "float64" if double_is_cheap(weights) else "float32"
    require_torch()
    with seeded(seed), torch.enable_grad():
        double = converted(net, where, getattr(torch, dtype)).model
        if masks is not None:
            prune_(double, masks)
        return _measured(double, batch.to(where, getattr(torch, dtype)), goal, network_name(net))


def _sampled(
    net: Architecture,
    sparsity: float,
    rule: Criterion,
    data: Any,
    seed: int,
    inputs: int,
    device: Any,
    dtype: DType,
) -> Trainability:
    """Of networks of an architecture, pruned and measured."""
    batch = net.summarise(data, seed=seed)
    example = None if net.is_chain else example_shape(net)
    found = []
    for own in np.random.SeedSequence([seed, 0x7472]).generate_state(NETWORKS):
        model, masks = net.to_torch(int(own)), None
        if sparsity > 0.0:
            masks = measure_pruning(
                model,
                sparsity,
                criterion=rule,
                data=batch,
                example_input=example,
                device=device,
                seed=int(own),
                collapse=False,
            ).masks
        found.append(
            trainability(
                model,
                masks,
                data=batch,
                inputs=inputs,
                example_input=example,
                device=device,
                dtype=dtype,
            )
        )
    single = ("jacobian_log_mean", "jacobian_variance", "kernel_log_scale")
    layers = ("kept", "layer_gain", "layer_variance", "chi")
    return replace(
        sorted(found, key=lambda one: one.kernel_condition)[NETWORKS // 2],
        **{name: float(np.median([getattr(one, name) for one in found])) for name in single},
        **{name: np.mean([getattr(one, name) for one in found], axis=0) for name in layers},
        singular_values=np.concatenate([one.singular_values for one in found]),
        method="sampled",
        criterion=rule.label if sparsity > 0.0 else "",
        notes=(f"of {NETWORKS} sampled networks", *found[0].notes),
        network=network_name(net, net),
    )


def _measured(model: Any, batch: Batch, goal: Loss, network: str) -> Trainability:
    """Of a model of ours."""
    weights = prunable_weights(model)
    for weight in weights:
        weight.tensor.requires_grad_(True)
    found = _Derivatives.of(model, weights, batch, goal)
    gains, variances, kept = zip(*(_of_layer(weight) for weight in weights), strict=True)
    mean_square = np.mean(found.singular_values**2, axis=1) if found.singular_values.size else np.zeros(0)
    fourth = np.mean(found.singular_values**4, axis=1) if found.singular_values.size else np.zeros(0)
    alive = mean_square > 0.0
    scale = float(np.trace(found.kernel)) / len(found.kernel)
    chi = np.full(len(weights), np.nan)
    if is_linear_chain(model, weights):
        with torch.enable_grad():
            chi = _chi(model, weights, batch.inputs)
    mean = float(mean_square.mean()) if mean_square.size else np.nan
    return Trainability(
        layers=tuple(weight.label for weight in weights),
        kept=np.array(kept),
        layer_gain=np.array(gains),
        layer_variance=np.array(variances),
        chi=chi,
        jacobian_log_mean=float(np.log(mean)) if mean != 0.0 else -np.inf,
        jacobian_variance=(
            float(np.mean(fourth[alive] / mean_square[alive] ** 2)) - 1.0 if alive.any() else np.nan
        ),
        singular_values=found.singular_values,
        kernel=found.kernel / scale if scale > 0.0 else found.kernel,
        kernel_log_scale=float(np.log(scale)) if scale > 0.0 else -np.inf,
        notes=(*batch.notes, *found.notes),
        network=network or f"{len(weights)} layers",
    )


@dataclass(frozen=True)
class _Derivatives:
    """Of the logits by the inputs and by the kept weights.

    Attributes:
        singular_values: of each input's Jacobian, (n, logits), padded by 0; empty where there is none.
        kernel: the neural tangent kernel, mean over the logits, (n, n).
        notes: what was left out.
    """

    singular_values: np.ndarray
    kernel: np.ndarray
    notes: tuple[str, ...]

    @classmethod
    def of(cls, model: Any, weights: Sequence[PrunableWeight], batch: Batch, goal: Loss) -> _Derivatives:
        real = [
            t.requires_grad_(True) for t in batch.tensors if t.is_floating_point() and len(t) == batch.size
        ]
        logits = goal.outputs(batch.call(model)).main
        if not isinstance(logits, torch.Tensor) or len(logits) != batch.size:
            raise ModelError("model must return one row of outputs for each input")
        logits = logits.flatten(1) if logits.ndim > 1 else logits[:, None]
        count = logits.shape[1]
        at = np.unique(np.linspace(0, count - 1, min(count, MOST_LOGITS)).round().astype(int))
        entries = [_kept_entries(weight) for weight in weights]
        size = sum(len(entry) for entry in entries)
        checks.memory(
            f"gradients of {batch.size} inputs by {size} weights",
            2.0 * logits.element_size() * batch.size * (size + sum(w.size for w in weights)),
            "fewer inputs",
        )
        kernel = np.zeros((batch.size, batch.size))
        rows = []
        for logit in at:
            by = [*real, *(weight.tensor for weight in weights)]
            found = _gradients(logits[:, int(logit)], by)
            own = [g.diagonal(dim1=0, dim2=1).movedim(-1, 0).flatten(1) for g in found[: len(real)]]
            if own:
                rows.append(torch.cat(own, dim=1))
            flat = [g.flatten(1)[:, e] for g, e in zip(found[len(real) :], entries, strict=True)]
            whole = torch.cat(flat, dim=1)
            kernel += (whole @ whole.T).double().cpu().numpy() / len(at)
        notes = () if len(at) == count else (f"{len(at)} of {count} logits were looked at",)
        if not rows:
            return cls(np.empty(0), kernel, (*notes, "inputs that are no real numbers have no Jacobian"))
        jacobians = torch.stack(rows, dim=1).double()
        values = torch.linalg.svdvals(jacobians).cpu().numpy()
        padded = np.zeros((batch.size, len(at)))
        padded[:, : values.shape[1]] = values
        return cls(padded, kernel, notes)


def _gradients(outputs: torch.Tensor, by: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The gradient of each of the outputs (n,) by each tensor, (n, *its shape); 0 where there is none."""
    one_hot = torch.eye(len(outputs), dtype=outputs.dtype, device=outputs.device)
    settings: dict[str, Any] = {"retain_graph": True, "allow_unused": True}
    try:
        found = torch.autograd.grad(outputs, by, one_hot, is_grads_batched=True, **settings)
    except RuntimeError:
        # An operation that cannot be taken for several gradients at once.
        with backward_pass():
            each = [torch.autograd.grad(outputs, by, vector, **settings) for vector in one_hot]
        found = [None if parts[0] is None else torch.stack(parts) for parts in zip(*each, strict=True)]
    zeros = (tensor.new_zeros((len(outputs), *tensor.shape)) for tensor in by)
    return [zero if one is None else one for one, zero in zip(found, zeros, strict=True)]


def _kept_entries(weight: PrunableWeight) -> torch.Tensor:
    """Places of the weights that no mask removes."""
    mask = torch.ones_like(weight.tensor) if weight.mask is None else weight.mask
    return mask.flatten().nonzero().flatten()


def _masked(weight: PrunableWeight) -> torch.Tensor:
    """A layer's weights in double precision as a matrix (outputs, inputs), 0 where they are removed."""
    value = weight.tensor.detach().double()
    return (value if weight.mask is None else value * weight.mask).flatten(1)


def _of_layer(weight: PrunableWeight) -> tuple[float, float, float]:
    """Mean s² over the rows, variance of s² over its square, and the fraction kept."""
    matrix = _masked(weight)
    rows, columns = matrix.shape
    gain = float(matrix.square().sum()) / rows
    kept = len(_kept_entries(weight)) / weight.size
    if gain == 0.0:
        return 0.0, np.nan, kept
    gram = matrix @ matrix.T if rows < columns else matrix.T @ matrix
    return gain, float(gram.square().sum()) / rows / gain**2 - 1.0, kept


def _chi(model: Any, weights: Sequence[PrunableWeight], inputs: torch.Tensor) -> np.ndarray:
    """Mean s² of W^l φ'(y^{l-1}) over inputs, (L,), of a chain of Linear layers with activations."""
    squares = {id(weight.module): _masked(weight).square() for weight in weights}
    found: list[float] = []
    before, signal = None, inputs.detach()
    for _, module in chain(model):
        if id(module) not in squares:
            signal = module(signal)
            continue
        columns = squares[id(module)].sum(dim=0)
        slope = columns.new_ones((1, len(columns)))
        if before is not None:
            (slope,) = torch.autograd.grad(signal.sum(), before)
        found.append(float((slope.double().square() @ columns).mean()) / module.out_features)
        before = module(signal.detach()).detach().requires_grad_(True)
        signal = before
    return np.array(found)
