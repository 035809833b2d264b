"""Kept weights and the scales of signals and gradients, layer by layer, while a model trains.

`watch_layers` is a plain hook for any training loop; `lightning_callback` calls it for Lightning's trainer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ..base import checks
from ..base.boundary import public
from ..base.compiled_models import uncompiled
from ..base.result import Result
from ..base.tables import layer_frame
from ..base.typing import DataFrame
from ..errors import ArgumentError, MissingDependencyError
from .lazy import torch
from .mask_files import mask_on
from .models import PrunableWeight, prunable_weights


@public
@dataclass(frozen=True, repr=False, eq=False)
class LayerScales(Result):
    """What passed through each layer with weights in one forward and backward pass; arrays of shape (L,).

    Attributes:
        layers: names, in the order of the model's modules.
        kept: fraction of the layer's weights that are not 0.
        signal: mean square of the layer's output; nan where the layer was not called.
        gradient: mean square of the loss's gradient by that output; nan where no gradient came back.
    """

    layers: tuple[str, ...]
    kept: np.ndarray
    signal: np.ndarray
    gradient: np.ndarray

    def to_frame(self) -> DataFrame:
        """One row a layer."""
        names = ("kept", "signal", "gradient")
        return layer_frame(self, names)

    def _headline(self) -> str:
        known = self.signal[np.isfinite(self.signal)]
        low, high = known.min(initial=np.inf), known.max(initial=-np.inf)
        passed = f"signals {low:.3g} to {high:.3g}" if known.size else "nothing passed yet"
        return f"{len(self.layers)} layers, kept {np.mean(self.kept):.3g} on average, {passed}"

    def metrics(self, prefix: str = "eoc") -> dict[str, float]:
        """The numbers by names such as "eoc/kept/0.weight", without those that are nan: for a logger."""
        return {
            f"{prefix}/{kind}/{layer}": float(value)
            for kind in ("kept", "signal", "gradient")
            for layer, value in zip(self.layers, getattr(self, kind), strict=True)
            if np.isfinite(value)
        }


@public
class watch_layers:  # noqa: N801 - it is used as a function is: with watch_layers(model) as watch
    """Record kept weights, signals and gradients of a model's layers while the block runs.

    ::

        with eoc.watch_layers(model) as watch:
            loss_of(model(inputs), targets).backward()
        watch.scales.signal

    The hooks are there inside the block only: outside it the model is as it was, at its full speed. Of
    several passes the last one counts. Under a gradient scaler, of mixed precision, gradients are scaled.

    Args:
        model: a torch module.

    Attributes:
        scales: the `LayerScales`; inside the block what was recorded so far.

    Raises:
        ArgumentError: no torch module. ModelError: it has no weights that pruning ranks.
    """

    def __init__(self, model: Any) -> None:
        model = uncompiled(model)
        if not isinstance(model, torch.nn.Module):
            raise ArgumentError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        self._weights = prunable_weights(model)
        self._signal: dict[int, torch.Tensor] = {}
        self._gradient: dict[int, torch.Tensor] = {}
        self._handles: list[Any] = []

    def __enter__(self) -> watch_layers:
        for module in {id(weight.module): weight.module for weight in self._weights}.values():
            self._handles.append(module.register_forward_hook(self._note))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    @property
    def scales(self) -> LayerScales:
        """What was recorded."""
        return LayerScales(
            layers=tuple(weight.label for weight in self._weights),
            kept=np.array([_kept(weight) for weight in self._weights]),
            signal=self._column(self._signal),
            gradient=self._column(self._gradient),
        )

    def _column(self, found: dict[int, torch.Tensor]) -> np.ndarray:
        squares = (found.get(id(weight.module)) for weight in self._weights)
        return np.array([float("nan") if square is None else float(square) for square in squares])

    def _note(self, module: Any, args: Any, output: Any) -> None:
        from .sample.observe import first_tensor  # torch at its top

        value = first_tensor(output)
        if value is None:
            return
        # Numbers stay on the device: reading them would wait for it.
        self._signal[id(module)] = value.detach().float().square().mean()
        self._gradient.pop(id(module), None)
        if value.requires_grad and self._handles:
            self._handles.append(value.register_hook(lambda gradient: self._note_gradient(module, gradient)))

    def _note_gradient(self, module: Any, gradient: Any) -> None:
        self._gradient[id(module)] = gradient.detach().float().square().mean()


def _kept(weight: PrunableWeight) -> float:
    tensor, mask = weight.tensor.detach(), mask_on(weight)
    left = (tensor != 0) if mask is None else (tensor * mask != 0)
    return float(left.float().mean())


@public
def lightning_callback(every: int = 50, *, prefix: str = "eoc") -> Any:
    """A callback for Lightning's trainer that logs `LayerScales` at the start of training and during it.

    ``Trainer(callbacks=[eoc.lightning_callback(every=100)])`` logs "eoc/kept/LAYER", "eoc/signal/LAYER" and
    "eoc/gradient/LAYER" with the trainer's logger; the callback's `history` keeps (step, LayerScales).
    Between the batches that are looked at the model carries no hooks.

    Args:
        every: training batches from one look to the next, ≥ 1; the first batch is always looked at.
        prefix: of the names that are logged.

    Raises:
        MissingDependencyError: Lightning is not installed. ArgumentError: `every` is not a whole number ≥ 1.
    """
    every = checks.integer("every", every, 1)
    return _callback_class()(every, checks.text("prefix", prefix))


@lru_cache(maxsize=1)
def _callback_class() -> Any:
    """The class, made once: its base is Lightning's."""
    try:
        from lightning.pytorch import Callback  # pyright: ignore[reportMissingImports]
    except ImportError:
        try:
            from pytorch_lightning import Callback  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise MissingDependencyError(
                "the callback needs lightning, which is not installed: pip install 'eoc-theory[lightning]'"
            ) from None

    class ScalesCallback(Callback):
        def __init__(self, every: int, prefix: str) -> None:
            super().__init__()
            self.every, self.prefix = every, prefix
            self.history: list[tuple[int, LayerScales]] = []
            self._seen = 0
            self._watch: watch_layers | None = None

        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if self._seen % self.every == 0:
                self._watch = watch_layers(pl_module).__enter__()
            self._seen += 1

        def on_train_batch_end(
            self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            if self._watch is None:
                return
            self._watch.__exit__()
            scales, self._watch = self._watch.scales, None
            self.history.append((self._seen - 1, scales))
            if trainer.logger is not None:
                trainer.logger.log_metrics(scales.metrics(self.prefix), step=self._seen - 1)

        def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
            if self._watch is not None:
                self._watch.__exit__()
                self._watch = None

    return ScalesCallback
