"""Scores that need gradients of real networks, in the precision and pieces that they need."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from ...base.isolation import Twin, converted, seeded
from ...criteria.criterion import Criterion
from ...errors import EOCError, ModelError
from ..batches import Batch
from ..lazy import torch
from ..losses import IGNORED, Loss, as_loss
from ..models import PrunableWeight
from ..positive_network import full_precision
from ..running import backward_pass, check_takes
from .chain_scores import chain_scores, layers_of, needs_carrying

# Up to this many weights of Linear layers float64 costs no time that anybody notices.
_FLOAT64_LIMIT = 4_000_000
# A float32 layer whose largest score is below this has lost digits of its smaller scores to denormal numbers.
_FLOAT32_FLOOR = 1e-28
_FLOAT32_CEILING = 1e37
# Σ_b δ_b h_b may cancel over the batch (equal inputs, balanced labels); beyond this, rounding shows in the
# sum.
_FLOAT32_CANCELLATION = 1e-4
_FLOAT64_CANCELLATION = 1e-12
# Powers of two by which the loss is multiplied where scores leave the range of double precision.
_RAISED, _LOWERED = 900, -900
# The largest score is raised to this power of two where smaller ones are 0.
_TOP = 800
# Of layers whose scores are 0 beside others that are smaller than the largest by this, the scores may be
# smaller still.
_APART = 1e-200
# A signal under this, and not 0, has lost digits to denormal numbers.
_LEAST_SIGNAL = 1e-300
# Where all scores are less than so much of the largest signal, the gradients by that lose digits.
_FLOAT32_LEAST, _FLOAT64_LEAST = 1e-36, 1e-312
# What autograd may keep for one part of the batch, in bytes, where the batch can be cut at all.
_CHUNK_BYTES = 2**29
# A second backward pass keeps the first one's intermediate values too.
_GRASP_FACTOR = 4


def double_is_cheap(weights: Sequence[PrunableWeight]) -> bool:
    """Whether float64 can be used without a thought: a small network of Linear layers."""
    linear = torch.nn.Linear
    size = sum(w.size for w in weights)
    return size <= _FLOAT64_LIMIT and all(isinstance(w.module, linear) for w in weights)


class OutOfRangeError(ModelError):
    """Scores that even double precision does not hold."""


class UnusedLayersError(ModelError):
    """The loss does not depend on some of the weights."""


class PrecisionLostError(ArithmeticError):
    """Scores left the range, or lost the digits, of the arithmetic they were computed in."""


def gradient_scores(
    model: Any,
    weights: Sequence[PrunableWeight],
    criterion: Criterion,
    data: Batch | tuple[Any, Any],
    *,
    loss: Any = "cross_entropy",
    output: Any = None,
    device: Any = None,
    dtype: Any = "auto",
    seed: int = 0,
    masks: Sequence[torch.Tensor] | None = None,
    notes: list[str] | None = None,
    held: float = 0.0,
    given_up: bool = False,
    all_used: bool = True,
) -> list[torch.Tensor]:
    """Scores by the loss's gradient g, or by Hess·g, for each of `weights`, as tensors on `device`.

    The batch is cut into parts, and gradients added up, where autograd would keep more than half a GiB and
    the model treats inputs one by one. It is not cut where one input's logits depend on the others, as with
    batch normalisation over the batch's own statistics, nor where dropout draws, nor for a loss that is a
    function of the user's own: there all of it is held.

    Args:
        model: run in the mode it is in, on a double: it is not touched itself.
        criterion: one that needs "gradient" or "hessian_gradient".
        data: a `Batch`, or (inputs, targets) as tensors.
        loss: as :func:`eoc_theory.pytorch.losses.as_loss` takes it.
        output: what picks the outputs from all that the model returns.
        dtype: "float32", "float64" or "auto": float32 for large networks and for convolutions, float64 for
            small ones and where float32 would over- or underflow or lose the batch's sum to cancellation (in
            a Linear layer).
        seed: for modules that draw random numbers.
        masks: what is left of the weights, booleans of their shapes; None: all. Scores are those of the
            network that is left, at all weights where the criterion lets removed ones come back.
        notes: is given what there is to say of the scores' precision.
        held: bytes that autograd keeps of one input in single precision, where that is known.
        given_up: whether the model is the caller's no more and one that `Architecture.to_torch` made: it is
            run itself, and ends in the precision of the scores. Not with masks.
        all_used: refuse weights that no input of the batch is sent to; else they score 0.

    Raises:
        DataError, ModelError: inputs, labels or logits that do not fit, a layer that is not used, or an
        overflow.
    """
    batch = data if isinstance(data, Batch) else Batch((data[0],), {}, data[1])
    check_takes(model, batch.args, batch.kwargs)
    goal = as_loss(loss, output, criterion.temperature)
    derivatives = _gradients if criterion.needs == "gradient" else _curvatures
    said: list[str] = [] if notes is None else notes

    def attempt(precision: Any, strict: bool, power: int = 0) -> tuple[list[torch.Tensor], float]:
        with _Loss(
            model, weights, batch, goal, device, precision, seed, strict, power, held, given_up
        ) as objective:
            before = objective.prune(masks) if masks is not None else objective.leaves
            whole = before if criterion.regrows else objective.leaves
            found = derivatives(objective)
            if all_used:
                objective.check_used()
            scores = _scored(criterion, found, whole)
            _check_range(scores, objective.names, precision, strict)
            signal = objective.largest_signal
            if strict and _falls_away(scores, signal, _FLOAT32_LEAST):
                raise PrecisionLostError
            if power:
                objective.check_signals(scores)
            said[:] = objective.said
            return scores, signal

    if dtype != "auto":
        return attempt(getattr(torch, dtype), strict=False)[0]
    if not double_is_cheap(weights):
        # Twice as fast, five times with convolutions; whether it was enough is known only afterwards.
        with contextlib.suppress(PrecisionLostError):
            return attempt(torch.float32, strict=True)[0]
    return _in_range(
        partial(attempt, torch.float64, False),
        model,
        weights,
        criterion,
        batch if _is_plain(batch, goal) else None,
        device,
        said,
        masks,
    )


def _in_range(
    compute: Callable[[int], tuple[list[torch.Tensor], float]],
    model: Any,
    weights: Sequence[PrunableWeight],
    criterion: Criterion,
    batch: Batch | None,
    device: Any,
    said: list[str],
    masks: Sequence[torch.Tensor] | None,
) -> list[torch.Tensor]:
    """Scores in double precision, or where that does not hold them those of `chain_scores`.

    Of a model that is no chain they are tried once more with the loss multiplied by a power of two. `compute`
    gives them for such a power, and the largest signal; what there is to say of it is added to `said`.
    `batch` is None where it is not one that `chain_scores` takes.

    Raises ModelError where none of these gives them.
    """
    refused: OutOfRangeError | None = None
    try:
        scores, signal = compute(0)
        away = _falls_away(scores, signal, _FLOAT64_LEAST)
        top = max(float(score.abs().max()) for score in scores)
        # Where removed weights score nothing, or scores are no multiple of the derivative, there is no more.
        alone = masks is not None or not criterion.proportional
        if (_held(scores) and not away) or (alone and (top == 0 or not needs_carrying(top))):
            return scores
    except OutOfRangeError as error:
        scores, top, refused = [], math.nan, error
    carried = batch is not None and criterion.is_product and masks is None
    layers = layers_of(model, weights) if carried else None
    if layers is not None and batch is not None:
        inputs, targets = (part.detach().cpu().numpy() for part in (batch.inputs, batch.targets))
        found = chain_scores(layers, inputs.reshape(len(inputs), -1), targets, criterion)
        return [torch.from_numpy(score).to(device) for score in found]
    try:
        if masks is not None or not criterion.proportional:
            raise refused or OutOfRangeError(
                f"the model's {criterion.label} scores leave the range of float64"
            )
        power = _LOWERED
        if top < 1.0:
            # As near to the upper end as leaves room for the way back.
            power = min(_TOP - math.frexp(top)[1], _RAISED) if top > 0 else _RAISED
        again, signal = compute(power)
        if _falls_away(again, signal, _FLOAT64_LEAST):
            raise OutOfRangeError(
                f"the model's signal is {signal:.1e} where its {criterion.label} scores are at most "
                f"{max(_tops(again)):.1e}: between them lies more than double precision holds"
            )
        if _held(again):
            return again
        if scores and not needs_carrying(max(_tops(again))):
            said.append(
                "scores of some layers are smaller than double precision holds beside the largest, and count "
                "as 0"
            )
            return again
    except OutOfRangeError as error:
        refused = refused or (error if top == 0 else None)
    if refused is not None:
        raise refused
    if top > 0:
        raise ModelError(
            f"the model's {criterion.label} scores leave the range of float64, the largest is {top:.1e}: "
            "the signal dies out or explodes on its way"
        )
    return scores


def _is_plain(batch: Batch, goal: Loss) -> bool:
    """Whether the loss is the cross-entropy of class numbers, one for each vector or image."""
    return (
        goal.name == "cross_entropy"
        and goal.output is None
        and len(batch.args) == 1
        and not batch.kwargs
        and batch.inputs.is_floating_point()
        and batch.targets.ndim == 1
        and not bool((batch.targets == IGNORED).any())
    )


def _tops(scores: Sequence[torch.Tensor]) -> list[float]:
    """The largest |score| of each layer."""
    return [float(score.abs().max()) for score in scores]


def _held(scores: Sequence[torch.Tensor]) -> bool:
    """Whether double precision holds the scores, and shows none as 0 that may be no more than small."""
    tops = _tops(scores)
    least = min((top for top in tops if top > 0), default=0.0)
    return not needs_carrying(max(tops)) and (min(tops) > 0 or least > _APART * max(tops))


def _falls_away(scores: Sequence[torch.Tensor], signal: float, least: float) -> bool:
    """Whether gradients by a signal so large are under `least`, where scores keep none of their digits."""
    top = max(_tops(scores))
    return 0.0 < top < least * signal


def _scored(
    criterion: Criterion, derivatives: list[torch.Tensor], weights: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    with torch.no_grad():
        if criterion.is_product:
            # In place: a large network's gradients are as large as the network.
            scores = [d.mul_(w) for d, w in zip(derivatives, weights, strict=True)]
            return scores if criterion.signed else [score.abs_() for score in scores]
        return [criterion.score(w.detach(), d).to(d) for d, w in zip(derivatives, weights, strict=True)]


def _gradients(loss: _Loss) -> list[torch.Tensor]:
    found = loss.gradients()
    loss.check_cancellation(found)
    return found


def _curvatures(loss: _Loss) -> list[torch.Tensor]:
    parts = loss.parts(_GRASP_FACTOR)
    whole = len(parts) == 1
    # With one part its graph serves the second derivative too.
    kept = loss.part_gradients(parts[0], create_graph=True) if whole else None
    gradients = [g.detach() for g in kept] if kept is not None else loss.gradients(_GRASP_FACTOR)
    loss.check_cancellation(gradients)
    # H v for v = g/‖g‖: the norm is common to all layers, and its square may leave the floating-point range.
    top = max(float(g.abs().max()) for g in gradients)
    unit = top if 0 < top < math.inf else 1.0
    squares = (float(torch.linalg.vector_norm(g.double() / unit)) for g in gradients)
    norm = unit * math.hypot(*squares)
    if not 0 < norm < math.inf:
        if loss.strict:
            raise PrecisionLostError
        if norm == 0:
            # Nothing but zeros: who ranks the scores says why.
            return gradients
        raise OutOfRangeError(f"the gradient's norm must be finite for grasp, got {norm}")
    total: list[torch.Tensor] | None = None
    for part in parts:
        curving = kept if kept is not None else loss.part_gradients(part, create_graph=True)
        with torch.enable_grad():
            product: Any = sum((g * (d / norm)).sum() for g, d in zip(curving, gradients, strict=True))
            try:
                curved = torch.autograd.grad(product, loss.leaves, materialize_grads=True)
            except (RuntimeError, NotImplementedError) as error:
                raise ModelError(
                    "grasp needs second derivatives, which some operation of the model has not: "
                    f"{' '.join(str(error).split())[:160]}"
                ) from error
        total = _add(total, curved)
    assert total is not None
    return total


def _apart(gradients: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The gradients, each with memory of its own: those of the terms of a sum are one tensor."""
    seen: set[int] = set()
    found = []
    for gradient in gradients:
        whole = gradient.contiguous()
        found.append(whole.clone() if whole.data_ptr() in seen else whole)
        seen.add(found[-1].data_ptr())
    return found


def _add(total: list[torch.Tensor] | None, more: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    if total is None:
        return list(more)
    for t, m in zip(total, more, strict=True):
        t.add_(m)
    return total


class _Loss:
    """The mean loss as a function of leaves of its own, on a double of the model.

    To be used in a `with` statement, for the precision that it is computed in.
    """

    def __init__(
        self,
        model: Any,
        weights: Sequence[PrunableWeight],
        batch: Batch,
        goal: Loss,
        device: Any,
        dtype: Any,
        seed: int,
        strict: bool,
        power: int = 0,
        held: float = 0.0,
        given_up: bool = False,
    ) -> None:
        """`power` of two multiplies the loss; `said` is what there is to note of the result."""
        self.seed, self.strict, self.dtype = seed, strict, dtype
        self.held = held * dtype.itemsize / 4.0
        self.factor, self.said = 2.0**power, []
        # Largest |output| of each weight layer, in the order in which they run.
        self.signals: list[tuple[str, float]] = []
        self.names = [w.label for w in weights]
        self.batch, self.goal = batch.to(device, dtype), goal.placed(device, dtype)
        self.count = goal.count(batch.targets)
        self._given_up, self._undo = given_up, contextlib.ExitStack()
        if given_up:
            self.model = model.to(device=device, dtype=dtype).requires_grad_(False)
            self.leaves = [w.tensor.requires_grad_() for w in weights]
        else:
            twin = converted(model, device, dtype)
            self.model = twin.model
            self.leaves = [twin.of(w.tensor).requires_grad_() for w in weights]
        # Σ_b ‖δ_b‖‖h_b‖ per layer, noted on the way back; NaN where a layer is not Linear or was not met.
        self.addends = [math.nan] * len(weights)
        self._used = [False] * len(weights)
        self._noting = True
        self._note_linear_layers()
        self._note_signals()

    def _note_linear_layers(self) -> None:
        linear, index = torch.nn.Linear, {id(leaf): i for i, leaf in enumerate(self.leaves)}
        for module in self.model.modules():
            own = module._parameters
            at = index.get(id(own.get("weight", own.get("weight_orig"))))
            if isinstance(module, linear) and at is not None:
                self._undo.callback(module.register_forward_hook(self._hook(at)).remove)

    def _note_signals(self) -> None:
        names = {id(leaf): name for leaf, name in zip(self.leaves, self.names, strict=True)}

        def noting(name: str) -> Callable[..., None]:
            def note(module: Any, args: tuple[Any, ...], out: Any) -> None:
                values = out[0] if isinstance(out, tuple) else out
                if values.numel() and not values.is_meta:
                    self.signals.append((name, float(values.detach().abs().max())))

            return note

        for module in self.model.modules():
            own = module._parameters
            name = names.get(id(own.get("weight", own.get("weight_orig"))))
            if name is not None:
                self._undo.callback(module.register_forward_hook(noting(name)).remove)

    @property
    def largest_signal(self) -> float:
        """The largest size of an input, or of an output of a layer with weights."""
        inputs = self.batch.inputs
        first = float(inputs.abs().max()) if inputs.is_floating_point() and inputs.numel() else 0.0
        return max([first, *(size for _, size in self.signals if math.isfinite(size))])

    def check_signals(self, scores: Sequence[torch.Tensor]) -> None:
        """Raises OutOfRangeError where no score is left and the signal has fallen out of the range."""
        if any(bool(score.any()) for score in scores):
            return
        for name, size in self.signals:
            if 0 < size < _LEAST_SIGNAL:
                raise OutOfRangeError(
                    f"the signal falls under {_LEAST_SIGNAL:g} at layer {name!r}, which is less than double "
                    "precision holds: use larger weights, biases or fewer layers"
                )

    def __enter__(self) -> _Loss:
        device = self.batch.inputs.device
        self._undo.enter_context(full_precision(device))
        if device.type == "cuda" and any(isinstance(m, torch.nn.RNNBase) for m in self.model.modules()):
            # cuDNN's recurrent layers have no second derivative, and none at all in evaluation mode.
            self._undo.enter_context(torch.backends.cudnn.flags(enabled=False))
        return self

    def __exit__(self, *exception: object) -> None:
        self._undo.close()

    def prune(self, masks: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Set the leaves to 0 where masks are False; what they were before."""
        before = [leaf.detach().clone() for leaf in self.leaves]
        with torch.no_grad():
            for leaf, mask in zip(self.leaves, masks, strict=True):
                leaf.mul_(mask.to(leaf))
        return before

    def gradients(self, memory_factor: float = 1.0) -> list[torch.Tensor]:
        """∂loss/∂W of every leaf."""
        total = None
        for part in self.parts(memory_factor):
            total = _add(total, self.part_gradients(part))
        self._noting = False
        assert total is not None
        return total

    def part_gradients(self, part: slice, *, create_graph: bool = False) -> Sequence[torch.Tensor]:
        """The share of some of the inputs in those gradients."""
        with torch.enable_grad():
            outputs = self.goal.outputs(self._returned(part))
            self.said.extend(note for note in outputs.notes if note not in self.said)
            total = self.goal.total(outputs, self.batch.targets[part])
            loss = total * (self.factor / self.count) if self.factor != 1.0 else total / self.count
            if not loss.requires_grad:
                raise ModelError("the loss does not depend on any Linear or convolution weight of the model")
            with backward_pass():
                found = torch.autograd.grad(loss, self.leaves, create_graph=create_graph, allow_unused=True)
        if create_graph:
            self._noting = False  # a second derivative passes the same hooks again
        self._used = [used or g is not None for used, g in zip(self._used, found, strict=True)]
        # Where the inputs say which weights they pass, as those of experts, some pass none of a layer's.
        whole = [
            torch.zeros_like(leaf) if g is None else g for leaf, g in zip(self.leaves, found, strict=True)
        ]
        return _apart(whole)

    def check_used(self) -> None:
        """Raises UnusedLayersError where no part of the batch has passed a layer."""
        for name, used in zip(self.names, self._used, strict=True):
            if not used:
                raise UnusedLayersError(f"layer {name!r} is not used by the model's forward pass")

    def _returned(self, part: slice) -> Any:
        model = self.model
        if not self._given_up:
            # Each pass starts from the state that the model was given in, whatever another pass wrote.
            shared = {id(parameter) for parameter in model.parameters()}
            model = Twin(model, lambda t: t if id(t) in shared else t.clone()).model
        # Attention's fast kernels have no second derivative.
        with seeded(self.seed), torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return self.batch.part(part).call(model)

    def parts(self, memory_factor: float = 1.0) -> list[slice]:
        """The batch cut so that autograd keeps about `_CHUNK_BYTES` for each part, or whole."""
        total = self.batch.size
        size = self._part_size(memory_factor)
        return [slice(start, min(start + size, total)) for start in range(0, total, size)]

    def _part_size(self, memory_factor: float) -> int:
        total = self.batch.size
        # Nothing that autograd keeps of a few small inputs comes near the limit.
        if total < 4 or self.batch.nbytes < 2**16 or _uses_batch_statistics(self.model):
            return total
        if not self.goal.additive:
            return total
        size = max(1, int(_CHUNK_BYTES / (memory_factor * (self.held or self._kept_bytes()))))
        return size if size < total and self._one_by_one(size) else total

    def _kept_bytes(self) -> float:
        """What autograd keeps of one input, in bytes, as measured on two."""
        own = {parameter.untyped_storage().data_ptr() for parameter in self.model.parameters()}
        kept: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with self._silent(), torch.enable_grad():
            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                returned = self._returned(slice(0, 2))
            del returned
        return max(sum(kept.values()) / 2, 1.0)

    def _one_by_one(self, size: int) -> bool:
        """Whether an input's logits are the same beside other inputs."""
        with self._silent(), torch.no_grad():
            try:
                beside, alone = (
                    self.goal.outputs(self._returned(slice(0, n))).main for n in (2 * size, size)
                )
            except EOCError:
                return False  # an input's shape holds the number of examples; the whole batch is tried next
        if len(beside) * size != len(alone) * min(2 * size, self.batch.size) or beside.ndim != alone.ndim:
            return False
        if beside.shape[1:] != alone.shape[1:]:
            return False
        tolerance = 1e-4 if self.dtype.itemsize < 8 else 1e-8
        scale = float(alone.abs().max())
        return bool(torch.isfinite(alone).all()) and bool(
            ((beside[: len(alone)] - alone).abs() <= tolerance * scale).all()
        )

    @contextlib.contextmanager
    def _silent(self) -> Iterator[None]:
        """No notes."""
        noting, self._noting = self._noting, False
        try:
            yield
        finally:
            self._noting = noting

    def _hook(self, index: int) -> Any:
        """A forward hook that notes ‖δ_b‖‖h_b‖ when the gradient of the layer's output comes back."""

        def hook(module: Any, args: tuple[Any, ...], output: Any) -> None:
            if not self._noting or not args or not output.requires_grad:
                return
            axis = getattr(module, "features_axis", -1)
            norms = args[0].detach().double().norm(dim=axis).reshape(-1)

            def note(gradient: Any) -> None:
                if self._noting:
                    deltas = gradient.detach().double().norm(dim=axis).reshape(-1)
                    before = self.addends[index]
                    self.addends[index] = (0.0 if math.isnan(before) else before) + float(deltas @ norms)

            output.register_hook(note)

        return hook

    def check_cancellation(self, gradients: Sequence[torch.Tensor]) -> None:
        ratio = min(
            (
                float(g.norm()) / a
                for g, a in zip(gradients, self.addends, strict=True)
                if a > 0 and math.isfinite(a)
            ),
            default=1.0,
        )
        if self.strict and ratio < _FLOAT32_CANCELLATION:
            raise PrecisionLostError
        if ratio < (_FLOAT64_CANCELLATION if self.dtype.itemsize == 8 else _FLOAT32_CANCELLATION):
            self.said.append(
                f"the gradient cancels over the batch to {ratio:.1e} of its terms: rounding shows in the "
                "scores (inputs that the network no longer tells apart, with balanced labels)"
            )


def _uses_batch_statistics(model: Any) -> bool:
    return any(
        isinstance(m, torch.nn.modules.batchnorm._BatchNorm) and (m.training or m.running_mean is None)
        for m in model.modules()
    )


def _check_range(scores: list[torch.Tensor], names: list[str], dtype: Any, strict: bool) -> None:
    for name, score in zip(names, scores, strict=True):
        low, high = (float(v) for v in score.aminmax())
        top = max(-low, high)
        if strict and not (_FLOAT32_FLOOR < top < _FLOAT32_CEILING):
            raise PrecisionLostError
        if not math.isfinite(top):
            raise OutOfRangeError(
                f"the scores of layer {name!r} are not finite in {dtype}: the signal overflows"
            )
