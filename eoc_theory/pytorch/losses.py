"""What is made of a model's outputs: the loss that gradients are taken of.

A built-in loss is a sum over the examples, divided by how many terms the whole batch has. So gradients of
parts of a batch add up to those of all of it. A function of the user's own is evaluated on the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..base import checks
from ..base.isolation import converted
from ..errors import ArgumentError, DataError, ModelError
from ..pruning.vanishing import ONE_LOGIT
from ..signals.data import IGNORED
from .lazy import torch

#: Losses that are known by name.
LOSSES = ("cross_entropy", "mse", "bce")
#: Where the logits are among several outputs, in this order.
_MAIN = ("logits", "out")
#: The weight of auxiliary outputs: GoogLeNet and Inception v3 were trained with it (Szegedy et al. 2015,
#: section 5); and that of "aux" beside "out", with which torchvision trains its segmentation models.
_AUXILIARY, _AUXILIARY_MAP = 0.3, 0.5
# How far probabilities may be from a sum of 1: those of half precision are.
_SUM_TOLERANCE = 1e-2


@dataclass(frozen=True)
class Outputs:
    """What the loss takes of all that a model returns.

    Attributes:
        main: the outputs that the targets belong to; a tensor for every built-in loss.
        auxiliary: outputs of auxiliary heads, by name.
        weight: of their losses.
    """

    main: Any
    auxiliary: tuple[tuple[str, torch.Tensor], ...] = ()
    weight: float = 0.0

    @property
    def notes(self) -> tuple[str, ...]:
        """What a result says of auxiliary heads."""
        if not self.auxiliary:
            return ()
        names = ", ".join(name for name, _ in self.auxiliary)
        return (f"the loss of the auxiliary outputs ({names}) is added with weight {self.weight:g}",)


@dataclass(frozen=True)
class Loss:
    """The loss of a model's outputs; `as_loss` makes it.

    Attributes:
        name: "cross_entropy", "mse", "bce" or "callable".
        function: of (outputs, targets), for "callable".
        output: what picks the outputs from all that the model returns: a name, an index, a function or None.
        temperature: what divides the logits; of cross-entropy alone.
    """

    name: str = "cross_entropy"
    function: Callable[[Any, Any], Any] | None = None
    output: Any = None
    temperature: float = 1.0

    @property
    def additive(self) -> bool:
        """Whether it is a sum over examples, so that a batch may be cut."""
        return self.function is None

    def placed(self, device: Any, dtype: Any) -> Loss:
        """The same; a module's tensors (weights of classes) on `device`, real numbers in `dtype`."""
        if not isinstance(self.function, torch.nn.Module):
            return self
        return Loss(self.name, converted(self.function, device, dtype).model, self.output, self.temperature)

    def outputs(self, returned: Any) -> Outputs:
        """The outputs that the loss is of.

        With `output` those that it picks. Else: a tensor; the attribute or entry "logits" or "out"; the only
        tensor of a dict; or the first of a tuple. Fields of a named tuple that begin with "aux" are
        auxiliary heads, and so is "aux" beside "out" in a dict.

        Raises:
            ModelError: there are no such outputs, or no tensor of real numbers where one is needed.
        """
        if self.output is not None:
            found = Outputs(_picked(returned, self.output))
        else:
            found = Outputs(_main(returned), *_auxiliary(returned))
        if self.function is None:
            if not isinstance(found.main, torch.Tensor):
                got = f"{type(found.main).__name__}{_choices(returned)}"
                raise ModelError(f"model must return logits as one tensor, got {got}")
            if not found.main.is_floating_point():
                raise ModelError(f"model must return outputs of real numbers, got {found.main.dtype}")
        return found

    def count(self, targets: torch.Tensor) -> int:
        """How many terms the loss of a whole batch has, by which its sum is divided.

        Targets that are not ignored for class numbers, one for each probability distribution; else the number
        of entries. 1 for a function of the user's own.

        Raises:
            DataError: there are none.
        """
        if self.function is not None:
            return 1
        if self.name != "cross_entropy":
            return _some(targets.numel())
        if targets.is_floating_point():
            return _some(targets.numel() // targets.shape[_distribution_axis(targets)])
        return _some(int((targets != IGNORED).sum()))

    def total(self, outputs: Outputs, targets: torch.Tensor) -> torch.Tensor:
        """The sum over the examples at hand, a scalar; of a user's own function its value.

        Raises:
            DataError, ModelError: targets and outputs that do not fit together.
            ArgumentError, CallbackError: a function of the user's own that returns no scalar, or fails.
        """
        value = self._of(outputs.main, targets)
        for _, auxiliary in outputs.auxiliary:
            value = value + outputs.weight * self._of(auxiliary, targets)
        return value

    def _of(self, outputs: Any, targets: torch.Tensor) -> torch.Tensor:
        if self.function is not None:
            return _scalar(checks.call("loss", self.function, outputs, targets))
        if self.name == "cross_entropy":
            return self._cross_entropy(outputs, targets)
        targets = _of_shape(outputs, targets, self.name).to(outputs)
        if self.name == "mse":
            return torch.nn.functional.mse_loss(outputs, targets, reduction="sum")
        low, high = (float(t) for t in targets.aminmax())
        if low < 0 or high > 1:
            raise DataError(f"targets must lie in [0, 1] for loss 'bce', got {low:g} to {high:g}")
        return torch.nn.functional.binary_cross_entropy_with_logits(outputs, targets, reduction="sum")

    def _cross_entropy(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if targets.is_floating_point():
            logits, targets = _beside_probabilities(logits, targets)
        else:
            logits, targets = _beside_classes(logits, targets)
        classes = logits.shape[1]
        if classes == 1:
            raise ModelError(f"all scores are 0, so that there is nothing to rank: {ONE_LOGIT}")
        if not targets.is_floating_point():
            _check_classes(targets, classes)
        if self.temperature != 1.0:
            logits = logits / self.temperature
        return torch.nn.functional.cross_entropy(logits, targets, reduction="sum", ignore_index=IGNORED)


def as_loss(loss: Any = "cross_entropy", output: Any = None, temperature: float = 1.0) -> Loss:
    """The loss that the arguments `loss` and `output` of public functions mean.

    Args:
        loss: "cross_entropy" (targets are class numbers, or probabilities of the outputs' shape), "mse",
            "bce" (targets in [0, 1] of the outputs' shape, which are logits), or a function
            (outputs, targets) → scalar, such as a torch module; a `Loss` keeps its own output.
        output: None; a key or attribute, an index, or a function of what the model returns.
        temperature: divides the logits of cross-entropy.

    Raises:
        ArgumentError: neither.
    """
    if isinstance(loss, Loss):
        return Loss(loss.name, loss.function, loss.output if output is None else output, temperature)
    if (
        output is not None
        and not callable(output)
        and (isinstance(output, bool) or not isinstance(output, (str, int)))
    ):
        raise ArgumentError(f"output must be a name, an index or a function, got {checks.shown(output)}")
    if callable(loss) and not isinstance(loss, type):
        return Loss("callable", loss, output, temperature)
    if not isinstance(loss, str) or loss not in LOSSES:
        listed = ", ".join(repr(name) for name in LOSSES)
        raise ArgumentError(
            f"loss must be one of {listed} or a function (outputs, targets), got {checks.shown(loss)}"
        )
    return Loss(loss, None, output, temperature)


# --- outputs


def _picked(returned: Any, output: Any) -> Any:
    if callable(output):
        return checks.call("output", output, returned)
    try:
        if isinstance(output, str) and not isinstance(returned, Mapping):
            return getattr(returned, output)
        return returned[output]
    except Exception:
        raise ModelError(
            f"output {output!r} is not among what the model returns ({type(returned).__name__}"
            f"{_choices(returned)})"
        ) from None


def _main(returned: Any) -> Any:
    if isinstance(returned, torch.Tensor):
        return returned
    for name in _MAIN:
        entry = returned.get(name) if isinstance(returned, Mapping) else getattr(returned, name, None)
        if isinstance(entry, torch.Tensor):
            return entry
    if isinstance(returned, Mapping):
        tensors = [entry for entry in returned.values() if isinstance(entry, torch.Tensor)]
        return tensors[0] if len(tensors) == 1 else returned
    if isinstance(returned, (tuple, list)) and len(returned):
        return _main(returned[0])
    return returned


def _auxiliary(returned: Any) -> tuple[tuple[tuple[str, torch.Tensor], ...], float]:
    if isinstance(returned, Mapping):
        named: dict[str, Any] = {"aux": returned.get("aux")} if "out" in returned else {}
        weight = _AUXILIARY_MAP
    else:
        fields: Sequence[str] = getattr(returned, "_fields", ()) if isinstance(returned, tuple) else ()
        named = {name: getattr(returned, name) for name in fields if name.startswith("aux")}
        weight = _AUXILIARY
    heads = [(k, v) for k, v in named.items() if isinstance(v, torch.Tensor) and v.ndim > 1]
    return tuple(heads), weight


def _choices(returned: Any) -> str:
    """What there is to pick, for messages."""
    if isinstance(returned, Mapping):
        names = [str(key) for key in returned]
    else:
        names = list(getattr(returned, "_fields", ()))
    return f" with {', '.join(map(repr, names[:8]))}: pick one by output=" if names else ""


# --- targets beside outputs


def _beside_classes(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits with the classes on axis 1, beside class numbers.

    Classes are on the axis without which the logits have the targets' shape. Where that is true of axis 1 and
    of the last one alike, it is the last of three axes (tokens), and axis 1 of four and more (images).
    """
    if logits.ndim == 2 and targets.ndim > 1 and len(logits) == targets.numel():
        return logits, targets.reshape(-1)  # positions were put into one axis by the model
    if logits.ndim == targets.ndim + 1:
        last, second = logits.shape[:-1] == targets.shape, _without(logits, 1) == tuple(targets.shape)
        if last and (logits.ndim <= 3 or not second):
            return logits.movedim(-1, 1) if logits.ndim > 2 else logits, targets
        if second:
            return logits, targets
    wanted = ", ".join(map(str, targets.shape))
    raise ModelError(f"model must return logits of shape ({wanted}, classes), got {tuple(logits.shape)}")


def _beside_probabilities(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both with the classes on axis 1."""
    if logits.shape != targets.shape:
        raise ModelError(
            f"model must return logits of the targets' shape {tuple(targets.shape)}, got "
            f"{tuple(logits.shape)}"
        )
    axis = _distribution_axis(targets)
    return logits.movedim(axis, 1), targets.movedim(axis, 1)


def _distribution_axis(targets: torch.Tensor) -> int:
    """The axis along which probabilities sum to 1; of several as `_beside_classes` has it.

    Raises:
        DataError: there is none, or some are under 0.
    """
    if targets.ndim > 1 and float(targets.min()) >= 0:
        for axis in (-1, 1) if targets.ndim <= 3 else (1, -1):
            if float((targets.double().sum(axis) - 1).abs().max()) <= _SUM_TOLERANCE:
                return axis
    raise DataError(
        "targets must be class numbers, or probabilities that sum to 1 over the classes, got "
        f"{str(targets.dtype).removeprefix('torch.')} of shape {tuple(targets.shape)}; of several labels at "
        "once use loss='bce'"
    )


def _check_classes(targets: torch.Tensor, classes: int) -> None:
    if targets.is_meta:
        return  # no values: they were checked where they have some
    counted = targets[targets != IGNORED]
    if not counted.numel():
        return
    low, high = (int(t) for t in counted.aminmax())
    if high >= classes or low < 0:
        raise DataError(f"targets must be classes 0 to {classes - 1}, got {low} to {high}")


def _of_shape(outputs: torch.Tensor, targets: torch.Tensor, name: str) -> torch.Tensor:
    """The targets in the outputs' shape; an axis of extent 1 at the end makes no difference."""
    if outputs.shape == targets.shape:
        return targets
    if outputs.shape == (*targets.shape, 1) or targets.shape == (*outputs.shape, 1):
        return targets.reshape(outputs.shape)
    raise DataError(
        f"targets must have the shape of the outputs {tuple(outputs.shape)} for loss {name!r}, "
        f"got {tuple(targets.shape)}"
    )


def _without(tensor: torch.Tensor, axis: int) -> tuple[int, ...]:
    return tuple(n for i, n in enumerate(tensor.shape) if i != axis)


def _some(count: int) -> int:
    if not count:
        raise DataError(f"targets must hold some that count, got none but {IGNORED}, which is ignored")
    return count


def _scalar(value: Any) -> torch.Tensor:
    if not isinstance(value, torch.Tensor) or value.numel() != 1 or not value.is_floating_point():
        got = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        raise ArgumentError(f"loss must return one real number as a tensor, got {got}")
    return value.reshape(())
