"""Training of networks that were pruned at initialisation: SGD with momentum, what is removed stays at 0.

On a CPU in float32 by one thread, so that the same seed gives the same bits; on a GPU forward passes of a
compiled model, in bfloat16 where that is precise enough. A training that was killed goes on from its last
checkpoint.
"""

from __future__ import annotations

import contextlib
import copy
import os
import pickle
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eoc_theory.base import checks
from eoc_theory.errors import EmptyLayerError
from eoc_theory.signals.data import balanced_choice

from .study import DEFAULT_IMAGE, Batch, Measure, Network, Place, Task

if TYPE_CHECKING:
    import torch

#: Digits, classes in turn: what all classes have alike of the 1797, and of these the last are for testing.
DIGITS, DIGITS_TEST = 1740, 300
#: Images whose logits are computed at a time where nothing is learnt from them.
EVALUATED = 1000
RESCALES = ("no", "weights", "units", "signal")
ARRANGEMENTS = ("no", "random", "balanced")
#: Settings that came later, at what does nothing. There they are no part of a configuration, so that what was
#: stored before them is still found.
LATER = {"clip": None, "arrangement": "no", "sparse": False, "every": 1}
#: Digits of the losses that are stored: they are measurements.
LOSS_DIGITS = 5


@dataclass(frozen=True)
class Training:
    """How a pruned network is trained.

    Attributes:
        epochs: passes over the training images.
        batch: images in a step; an incomplete last batch is left out.
        learning_rate, momentum, weight_decay: of SGD.
        drops: the parts of the epochs after which the learning rate is divided by ten.
        rescale: whether `eoc_theory.rescale_` follows pruning: "no", "weights" (the paper's rescaling),
            "units" or "signal" (of the images that weights are scored on). A network with a collapsed layer
            is left as it is: nothing brings it back.
        images: how many training images, classes alike; None: all.
        augment: whether training images are shifted by up to 4 pixels (zeros come in) and mirrored, each anew
            in every epoch.
        compiled: whether the model is compiled on a GPU.
        mixed: whether forward passes on a GPU are in bfloat16. Its eight bits round away part of the little
            difference between inputs that a deep network without shortcuts has left.
        clip: the largest norm of a step's gradient by all that is trained, to which larger ones are
            shortened; None: they stay.
        arrangement: whether `eoc_theory.rearrange_masks` replaces the criterion's choice within each layer:
            "no", "random" or "balanced".
        every: epochs from one entry of `train_loss` and `test_accuracy` to the next; the last epoch has one.
        sparse: whether kept weights alone are stored and multiplied (`analysis.sparse_training`): a fraction
            of the time on a CPU, for fully connected tanh or ReLU networks; float32 rounds otherwise.
    """

    epochs: int = 30
    batch: int = 64
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    drops: tuple[float, ...] = (0.5, 0.75)
    rescale: str = "no"
    images: int | None = None
    augment: bool = False
    compiled: bool = True
    mixed: bool = True
    clip: float | None = None
    arrangement: str = "no"
    every: int = 1
    sparse: bool = False

    def __post_init__(self) -> None:
        checks.one_of("rescale", self.rescale, RESCALES)
        checks.one_of("arrangement", self.arrangement, ARRANGEMENTS)
        if self.clip is not None:
            object.__setattr__(self, "clip", checks.positive("clip", self.clip))
        checks.integer("epochs", self.epochs, 1)
        checks.integer("batch", self.batch, 2)
        checks.integer("every", self.every, 1)
        checks.positive("learning_rate", self.learning_rate)
        checks.non_negative("momentum", self.momentum)
        checks.non_negative("weight_decay", self.weight_decay)
        object.__setattr__(self, "drops", tuple(float(checks.fraction("drops", d)) for d in self.drops))

    def rate(self, epoch: int) -> float:
        """The learning rate in an epoch, counted from 0."""
        return self.learning_rate * 0.1 ** sum(epoch >= drop * self.epochs for drop in self.drops)


def training(**settings: Any) -> Measure:
    """The measure that trains with a `Training` of these settings, once a seed and sparsity."""
    asked = asdict(Training(**settings))
    told = tuple((name, value) for name, value in asked.items() if name not in LATER or value != LATER[name])
    return Measure("training", train, settings=told, each_sparsity=True)


def train(task: Task, place: Place) -> Mapping[str, Any]:
    """Prune at initialisation, train, test.

    Returns:
        `train_loss` (mean over an epoch's batches) and `test_accuracy` after each epoch, or every so many of
        them; `accuracy` after the last; `kept_weights` in all and `least_kept`, the fraction that the
        sparsest layer kept; `rescaled`; `revived`, the number of removed weights that were not 0 at the end
        of some such epoch; `diverged`, if a loss was not finite, which ends the training.
    """
    import torch

    settings = Training(**dict(task.measure.settings))
    torch.set_num_threads(1)
    device = _device(place.device)
    images = Images.of(task, place, settings)
    run = _kind_of_run(settings).begin(task, settings, images, device)
    path = place.checkpoint(*task.key)
    checkpoint = None if path is None else Checkpoint(path, task.key)
    if checkpoint is not None:
        run.restore(checkpoint.read(device))
    saved = time.monotonic()
    while run.epoch < settings.epochs and not run.history["diverged"]:
        run.learn()
        if checkpoint is not None and time.monotonic() - saved >= place.checkpoint_seconds:
            checkpoint.write(run.state())
            saved = time.monotonic()
    losses = [float(f"{loss:.{LOSS_DIGITS}g}") for loss in run.history["train_loss"]]
    return {
        **run.kept, **run.history, "train_loss": losses, "accuracy": run.history["test_accuracy"][-1]
    }  # fmt: skip


def _kind_of_run(settings: Training) -> type[Run]:
    if not settings.sparse:
        return Run
    from .sparse_training import SparseRun

    return SparseRun


@dataclass(frozen=True, eq=False)
class Images:
    """Inputs (n, …), float32, and targets, of training and of testing; float64 arrays to score weights on."""

    inputs: np.ndarray
    targets: np.ndarray
    test_inputs: np.ndarray
    test_targets: np.ndarray

    @classmethod
    def of(cls, task: Task, place: Place, settings: Training) -> Images:
        """The task's data set, in the shape that its network takes."""
        whole = _whole(task.batch, task.network.kind == "mlp", place.folder)
        if settings.images is None:
            return whole
        at = balanced_choice(whole.targets, settings.images, 0, task.batch.name)
        return cls(whole.inputs[at], whole.targets[at], whole.test_inputs, whole.test_targets)

    def scored(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """The training images that weights are scored on."""
        at = balanced_choice(self.targets, batch.size, batch.seed, batch.name)
        return self.inputs[at].astype(np.float64), self.targets[at]


@lru_cache(maxsize=2)
def _whole(batch: Batch, flat: bool, folder: str | None) -> Images:
    import eoc_theory as eoc

    if batch.name == "digits":
        if flat:
            inputs, targets = eoc.digits(DIGITS)
        else:
            inputs, targets = eoc.digits_images(DIGITS, batch.shape or DEFAULT_IMAGE)
        parts = (slice(None, -DIGITS_TEST), slice(-DIGITS_TEST, None))
        chosen = [(inputs[part], targets[part]) for part in parts]
    else:
        chosen = [eoc.load_images(batch.name, None, part=part, folder=folder) for part in ("train", "test")]
        if flat:
            chosen = [(inputs.reshape(len(inputs), -1), targets) for inputs, targets in chosen]
    (inputs, targets), (test_inputs, test_targets) = chosen
    return Images(inputs.astype(np.float32), targets, test_inputs.astype(np.float32), test_targets)


@dataclass(frozen=True)
class _Pruned:
    """A network with 0 where weights were removed, which they were, and how many."""

    model: Any
    masks: Mapping[str, torch.Tensor]
    kept: dict[str, Any]


@lru_cache(maxsize=16)
def _pruned(
    network: Network,
    criterion: str,
    sparsity: float,
    batch: Batch,
    seed: int,
    arrangement: str,
    rescale: str,
    images: Images,
    device: torch.device,
) -> _Pruned:
    """The network pruned and, where that is asked for, its masks rearranged and its weights rescaled."""
    import torch
    from torch.nn.utils.prune import remove

    import eoc_theory as eoc

    net = network.build(images.inputs.shape[1:], batch.classes)
    model = net.to_torch(seed)
    example = (2, *images.inputs.shape[1:])
    found = eoc.measure_pruning(
        model,
        sparsity,
        criterion=criterion,
        data=images.scored(batch),
        example_input=None if net.graph is None else example,
        device=device,
        seed=seed,
        collapse=False,
    )
    masks = found.masks
    if arrangement != "no":
        masks = eoc.rearrange_masks(masks, arrangement, seed=seed)
    eoc.prune_(model, masks)
    rescaled = False
    if rescale != "no":
        shown = images.scored(batch)[0] if rescale == "signal" else None
        with contextlib.suppress(EmptyLayerError):
            eoc.rescale_(model, by=rescale, data=shown, example_input=example)
            rescaled = True
    for name in masks:
        # The mask's hook would cost a product in each step: in training weights are set to 0 after it.
        remove(model.get_submodule(name), "weight")
    kept = {
        "kept_weights": round(float(found.kept @ found.weights)),
        "least_kept": float(found.kept.min()),
        "rescaled": rescaled,
    }
    return _Pruned(model, {name: torch.as_tensor(mask) for name, mask in masks.items()}, kept)


class Run:
    """A network on its way."""

    def __init__(self, settings: Training, seed: int, model: Any, masks: Mapping[str, torch.Tensor]) -> None:
        import torch

        self.settings, self.seed, self.epoch = settings, seed, 0
        self.model, self.forward = model, model
        parameters = dict(model.named_parameters())
        self.weights = [parameters[f"{name}.weight"] for name in masks]
        self.removed = [
            ~mask.to(weight.device) for mask, weight in zip(masks.values(), self.weights, strict=True)
        ]
        self.device = self.weights[0].device
        if self.device.type == "cuda" and settings.compiled:
            # The networks before this one count towards a limit, after which none is compiled any more.
            torch.compiler.reset()
            self.forward = torch.compile(model)
        self.optimiser = torch.optim.SGD(
            model.parameters(),
            lr=settings.learning_rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )
        self.kept: dict[str, Any] = {}
        self.history: dict[str, Any] = {
            "train_loss": [], "test_accuracy": [], "revived": 0, "diverged": False,
        }  # fmt: skip
        self.tensors: tuple[torch.Tensor, ...] = ()

    @classmethod
    def begin(cls, task: Task, settings: Training, images: Images, device: torch.device) -> Run:
        """The task's network as it is before the first step."""
        import torch

        # What trains in a second is pruned once for all of its learning rates; large networks are not kept.
        made = _pruned if settings.sparse else _pruned.__wrapped__
        pruned = made(
            task.network, task.criterion, task.sparsities[0], task.batch, task.seed, settings.arrangement,
            settings.rescale, images, device,
        )  # fmt: skip
        run = cls(settings, task.seed, copy.deepcopy(pruned.model).to(device), pruned.masks)
        run.kept = pruned.kept
        run.tensors = tuple(
            torch.as_tensor(part).to(device)
            for part in (images.inputs, images.targets, images.test_inputs, images.test_targets)
        )
        return run

    def learn(self) -> None:
        """One epoch, and what it leads to."""
        inputs = self.tensors[0]
        batch = min(self.settings.batch, len(inputs))
        # Of the epoch alone: nothing to remember but its number.
        rng = np.random.default_rng([self.seed, self.epoch, 0x6F72])
        mean = self._learn(rng.permutation(len(inputs)), batch, rng)
        self.epoch += 1
        self.history["diverged"] = not np.isfinite(mean)
        last = self.epoch == self.settings.epochs or self.history["diverged"]
        if last or self.epoch % self.settings.every == 0:
            self.history["train_loss"].append(mean)
            self.history["test_accuracy"].append(self._accuracy())
            self.history["revived"] = max(self.history["revived"], self._revived())

    def _learn(self, order: np.ndarray, batch: int, rng: np.random.Generator) -> float:
        """A step for each whole batch of the images in this order; the mean loss."""
        import torch

        inputs, targets = self.tensors[:2]
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.rate(self.epoch)
        losses = []
        self.model.train()
        for start in range(0, len(inputs) - batch + 1, batch):
            at = torch.from_numpy(order[start : start + batch]).to(self.device)
            self.optimiser.zero_grad()
            shown = shifted(inputs[at], rng) if self.settings.augment else inputs[at]
            loss = torch.nn.functional.cross_entropy(self._logits(shown), targets[at])
            loss.backward()
            self._clip()
            self.optimiser.step()
            with torch.no_grad():
                for weight, removed in zip(self.weights, self.removed, strict=True):
                    # Not a product: of a training that diverges, nan times 0 is nan.
                    weight.masked_fill_(removed, 0.0)
            losses.append(loss.detach())
        return float(torch.stack(losses).double().mean())

    def _revived(self) -> int:
        """How many of the removed weights are not 0."""
        return sum(int((w[gone] != 0).sum()) for w, gone in zip(self.weights, self.removed, strict=True))

    def _clip(self) -> None:
        """Shorten a gradient that is too long; what is removed has no part in its length."""
        import torch

        if self.settings.clip is None:
            return
        for weight, removed in zip(self.weights, self.removed, strict=True):
            assert weight.grad is not None
            weight.grad.masked_fill_(removed, 0.0)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)

    def _logits(self, inputs: torch.Tensor) -> torch.Tensor:
        import torch

        mixed = self.settings.mixed and self.device.type == "cuda"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=mixed):
            return self.forward(inputs).float()

    def _accuracy(self) -> float:
        """Part of the test images that are told right."""
        import torch

        inputs, targets = self.tensors[2:]
        self.model.eval()
        with torch.no_grad():
            told = [
                self._logits(inputs[at : at + EVALUATED]).argmax(1) for at in range(0, len(inputs), EVALUATED)
            ]
        return int((torch.cat(told) == targets).sum()) / len(inputs)

    def state(self) -> dict[str, Any]:
        """All that `restore` needs: tensors, numbers, texts, lists."""
        return {
            "epoch": self.epoch,
            "history": self.history,
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }

    def restore(self, state: Mapping[str, Any] | None) -> None:
        """Go on from a state; from the beginning where there is none."""
        if state is not None:
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(dict(state["optimiser"]))
            self.epoch, self.history = state["epoch"], dict(state["history"])


def shifted(images: torch.Tensor, rng: np.random.Generator, most: int = 4) -> torch.Tensor:
    """Each of the images (n, C, H, W) moved by up to `most` pixels either way, and half of them mirrored."""
    import torch

    n, _, height, width = images.shape
    down, right = (rng.integers(0, 2 * most + 1, n)[:, None] for _ in range(2))
    rows = down + np.arange(height)
    columns = right + np.where(rng.random(n)[:, None] < 0.5, np.arange(width), np.arange(width)[::-1])
    padded = torch.nn.functional.pad(images, (most,) * 4)
    image = torch.arange(n, device=images.device)[:, None, None]
    at = (torch.from_numpy(rows).to(images.device), torch.from_numpy(columns).to(images.device))
    # Indexed axes come first.
    return padded[image, :, at[0][:, :, None], at[1][:, None, :]].permute(0, 3, 1, 2).contiguous()


@dataclass(frozen=True)
class Checkpoint:
    """The file that a task's training is kept in while it lasts.

    Attributes:
        path: the file.
        key: of the task; a file with another one is none of ours.
    """

    path: Path
    key: tuple[str, int]

    def write(self, state: Mapping[str, Any]) -> None:
        """Replace the file as a whole: killed at any moment, the old one or the new one is there."""
        import torch

        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_suffix(".new")
        with open(new, "wb") as file:
            torch.save({"hash": self.key[0], "seed": self.key[1], **state}, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path)

    def read(self, device: torch.device) -> Mapping[str, Any] | None:
        """What is in the file; None where there is none, or it cannot be read: training then begins anew."""
        import torch

        try:
            # Tensors and plain values only: what a file says is never run.
            state = torch.load(self.path, map_location=device, weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError):
            return None
        if not isinstance(state, dict) or (state.get("hash"), state.get("seed")) != self.key:
            return None
        return state


def _device(asked: str) -> torch.device:
    import torch

    if asked == "auto":
        asked = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(asked)
