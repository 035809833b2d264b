"""SynFlow of models that no graph describes, by running the model itself (Tanaka et al. 2020).

What the paper's own code does (`Pruners/pruners.py` of github.com/ganguli-lab/Synaptic-Flow): the absolute
value of everything in the state dict, evaluation mode, double precision, R = Σ outputs for one input of ones,
scores |w ∂R/∂w|. Activations and biases stay. Where it has no meaning it departs from that code: layers that
normalise by their input's own statistics are left out, since the sum of what they return is constant; what an
embedding looks up is an input of ones. Weights of which R is no increasing function carry no flow: refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ...base.isolation import Twin, converted, seeded
from ...errors import ModelError
from ..batches import Batch
from ..losses import Loss
from ..models import PrunableWeight
from ..positive_network import full_precision
from ..running import backward_pass, failing_module
from .synflow_rounds import DenseFlow

RUN_NOTE = (
    "the model cannot be read, so SynFlow runs it: |parameters|, biases and activations in place, evaluation "
    "mode, layer, group and instance normalisations left out"
)

#: ∂R/∂|w| below 0 by no more than this part of the layer's largest is rounding.
_ROUNDING = 1e-9
_NORMALISATIONS = frozenset(
    {functional.layer_norm, functional.group_norm, functional.instance_norm}
    | {functional.rms_norm, functional.local_response_norm}
    | {torch.layer_norm, torch.group_norm, torch.instance_norm, torch.rms_norm}
)
_TABLES = frozenset({functional.embedding, functional.embedding_bag, torch.embedding})
_BATCH_NORMALISATIONS = frozenset({functional.batch_norm, torch.batch_norm})
#: Parts of the names of operations that have no counterpart in a positive network.
_SELECTING = ("softmax", "attention")


class RunFlow(DenseFlow):
    """Any model; `model` itself is not touched.

    Args:
        weights: what is scored: plain parameters, under masks or not.
        batch: shows one example of the model's inputs: real numbers are set to 1, others stay.
        loss: whose outputs of all that the model returns are summed.
        device: where to compute.

    Raises:
        ModelError: a model that has no flow; see `_first`.
    """

    def __init__(
        self, model: Any, weights: Sequence[PrunableWeight], batch: Batch, loss: Loss, device: Any
    ) -> None:
        twin = converted(model, device, torch.float64)
        self._model, self._outputs = twin.model.eval(), loss.outputs
        self._names = [w.label for w in weights]
        self._leaves = [twin.of(w.tensor) for w in weights]
        _take_sizes(self._model)
        for leaf, weight in zip(self._leaves, weights, strict=True):
            if weight.mask is not None:
                leaf.mul_(weight.mask.to(leaf))
            leaf.requires_grad_()
        self._batch = _ones(batch.part(slice(0, 1))).to(device, torch.float64)
        super().__init__(self._leaves)
        self._first()

    def _first(self) -> None:
        """Looks at a pass over the whole network, and at its scores.

        Raises:
            ModelError: as `_total` and `_checked`; or a layer's scores are all 0.
        """
        with _Refusing():
            scores = self.dense()
        for name, score, value in zip(self._names, scores, self.values, strict=True):
            if bool(value.any()) and not bool(score.any()):
                raise ModelError(
                    f"the synflow scores of layer {name!r} are all 0 where the model is run on ones with "
                    "|parameters|: its activations saturate there, or what it leads to cancels"
                )

    def dense(self) -> list[torch.Tensor]:
        """|W| ∂R/∂|W| of all weights, 0 where nothing is left.

        Raises:
            ModelError: derivatives that are not finite, or below 0.
        """
        with torch.no_grad():
            for leaf, value in zip(self._leaves, self.values, strict=True):
                leaf.copy_(value)
        # Each pass starts from the state that the model was given in, whatever another pass wrote.
        shared = {id(parameter) for parameter in self._model.parameters()}
        model = Twin(self._model, lambda t: t if id(t) in shared else t.clone()).model
        with full_precision(self.values[0].device), torch.enable_grad(), seeded(0):
            total = self._total(model)
            with backward_pass():
                found = torch.autograd.grad(total, self._leaves, materialize_grads=True, allow_unused=True)
        return [self._checked(*one) for one in zip(self._names, found, self.values, strict=True)]

    def _total(self, model: Any) -> torch.Tensor:
        """R.

        Raises:
            ModelError: the model selects by softmax, draws random numbers, or depends on no weight.
        """
        try:
            with _LeftOut():
                returned = self._batch.call(model)
        except _RefusedError as error:
            raise ModelError(f"there is no SynFlow of {error} ({failing_module(model, error)})") from None
        outputs = self._outputs(returned)
        heads = [outputs.main, *(head for _, head in outputs.auxiliary)]
        total = sum(part.sum() for head in heads for part in _tensors(head))
        if not (isinstance(total, torch.Tensor) and total.requires_grad):
            raise ModelError("the sum of the model's outputs depends on no weight: there is no SynFlow of it")
        return total

    def _checked(self, name: str, derivative: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        low, high = (float(end) for end in derivative.aminmax())
        if not abs(low) + abs(high) < float("inf"):
            raise ModelError(f"the synflow scores of layer {name!r} leave the range of float64")
        if low < -_ROUNDING * max(high, 0.0):
            raise ModelError(
                f"there is no SynFlow of this model: the sum of its outputs falls where |weights| of layer "
                f"{name!r} grow (a gate, difference or normalisation), so that these carry no flow"
            )
        return derivative.clamp(min=0.0) * value


def _tensors(outputs: Any) -> Iterator[torch.Tensor]:
    """The tensors of real numbers among outputs."""
    if isinstance(outputs, torch.Tensor):
        yield from (outputs,) if outputs.is_floating_point() else ()
    elif isinstance(outputs, (Mapping, list, tuple)):
        for part in outputs.values() if isinstance(outputs, Mapping) else outputs:
            yield from _tensors(part)


def _take_sizes(model: Any) -> None:
    """Replace everything in the state dict by its absolute value."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_complex():
                raise ModelError(f"synflow is for models of real numbers, got complex ones in {name!r}")
            if tensor.dtype is not torch.bool:
                tensor.abs_()


def _ones(batch: Batch) -> Batch:
    return batch._mapped(lambda value: torch.ones_like(value) if value.is_floating_point() else value)


class _LeftOut(TorchFunctionMode):
    """Passes signals by what normalises them by their own statistics; tables give 1."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        own = func in _NORMALISATIONS or (func in _BATCH_NORMALISATIONS and _by_batch(args, kwargs))
        if own:
            return args[0] if args else kwargs["input"]
        result = func(*args, **kwargs)
        return torch.ones_like(result) if func in _TABLES else result


def _by_batch(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a batch normalisation goes by its input's own statistics."""
    known = kwargs.get("running_mean", args[1] if len(args) > 1 else None)
    return known is None or bool(kwargs.get("training", args[5] if len(args) > 5 else False))


class _Refusing(TorchDispatchMode):
    """Refuses a softmax, since which values it passes on is no flow, and random numbers."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(part in func.name() for part in _SELECTING):
            raise _RefusedError("networks with attention or another softmax")
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise _RefusedError("models that draw random numbers in evaluation mode")
        return func(*args, **(kwargs or {}))


class _RefusedError(ModelError):
    """An operation of which there is no flow; the text names what has it."""
