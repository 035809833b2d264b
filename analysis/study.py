"""What a study is: networks, criteria, sparsities and seeds, a batch of data, and what is measured."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from itertools import chain, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eoc_theory.base import checks
from eoc_theory.errors import ArgumentError

if TYPE_CHECKING:
    import numpy as np

    from eoc_theory.networks.architecture import Architecture
    from eoc_theory.signals.data import DataSummary

KINDS = ("mlp", "cnn", "resnet", "stable-resnet", "vgg", "densenet", "vit", "gated-vit")
#: Kinds that have no normalisation to choose.
_PLAIN = ("mlp", "cnn", "vit", "gated-vit")
#: Pixels along an edge of a transformer's patch.
PATCH = 4
#: Images of convolutional networks where a batch does not say how large they are.
DEFAULT_IMAGE = (3, 32, 32)


@dataclass(frozen=True)
class Network:
    """One network of a grid.

    Attributes:
        kind: one of `KINDS`.
        depth: number of weight layers; of resnet, stable-resnet, vgg and densenet as in the name, of vit and
            gated-vit (with gated MLPs) number of blocks.
        width: units of each hidden layer, or channels (resnet, vgg: of the first stage; densenet: that each
            layer adds).
        activation: anything that `eoc_theory.activation` takes as text.
        init: "eoc", "kaiming", "pytorch" or (σ_w, σ_b).
        sigma_b: bias scale of init "eoc".
        law: law of the weights; None: the library's own choice.
        normalisation: of resnet, stable-resnet, vgg: "batch", "batch-eval" (in evaluation mode), "group",
            "layer" or None; of densenet one of the first two.
    """

    kind: str = "mlp"
    depth: int = 10
    width: int = 100
    activation: str = "tanh"
    init: str | tuple[float, float] = "eoc"
    sigma_b: float | None = None
    law: str | None = None
    normalisation: str | None = None

    def __post_init__(self) -> None:
        checks.one_of("kind", self.kind, KINDS)
        if self.normalisation is not None and self.kind in _PLAIN:
            raise ArgumentError(
                f"normalisation goes with resnet, stable-resnet, vgg and densenet, got {self.kind}"
            )
        if not isinstance(self.init, str):
            # (2, 0.2) and (2.0, 0.2) are the same network, and must be in the store.
            sigma_w, sigma_b = self.init
            object.__setattr__(self, "init", (float(sigma_w), float(sigma_b)))

    def build(self, shape: Sequence[int], classes: int) -> Architecture:
        """The architecture for inputs of `shape`, (features,) or (C, H, W).

        Raises:
            EOCError: a network that the library refuses.
        """
        import eoc_theory as eoc

        from .dense_networks import densenet

        laws: dict[str, Any] = {
            "activation": self.activation, "init": self.init, "sigma_b": self.sigma_b, "law": self.law,
        }  # fmt: skip
        if self.kind == "mlp":
            features = 1
            for extent in shape:
                features *= extent
            return eoc.mlp(self.depth, self.width, in_features=features, out_features=classes, **laws)
        laws |= {"input_shape": tuple(shape), "classes": classes}
        if self.kind == "cnn":
            return eoc.cnn(self.depth, self.width, **laws)
        if self.kind in ("vit", "gated-vit"):
            return self._transformer(shape, classes)
        training = self.normalisation != "batch-eval"
        if self.kind == "densenet":
            del laws["law"]
            return densenet(self.depth, self.width, training=training, **laws)
        normalisation = self.normalisation if training else "batch"
        laws |= {"width": self.width, "normalisation": normalisation, "training": training}
        if self.kind == "vgg":
            return eoc.vgg(self.depth, **laws)  # type: ignore[arg-type]
        return eoc.resnet(self.depth, scaling="stable" if self.kind == "stable-resnet" else "none", **laws)

    def _transformer(self, shape: Sequence[int], classes: int) -> Architecture:
        """A vision transformer with GELU, initialised as usual: kind, depth and width count."""
        import eoc_theory as eoc

        return eoc.vit(
            None,
            depth=self.depth,
            width=self.width,
            heads=4,
            patch=PATCH,
            input_shape=tuple(shape),
            classes=classes,
            gated=self.kind == "gated-vit",
        )


def grid(**axes: Any) -> tuple[Network, ...]:
    """All networks whose attributes are drawn from `axes`; a list is an axis, anything else is one value.

    ``grid(depth=[10, 30], activation="relu")`` are two networks. The last axis varies fastest.
    """
    values = [axis if isinstance(axis, list) else [axis] for axis in axes.values()]
    return tuple(Network(**dict(zip(axes, chosen, strict=True))) for chosen in product(*values))


@dataclass(frozen=True)
class Batch:
    """The images that networks are scored on: `size` of a data set, as many of each class.

    Attributes:
        name: "digits", "mnist", "fashion-mnist", "cifar10", "cifar100" or "tiny-imagenet".
        size: number of images.
        seed: of the choice.
        shape: (C, H, W) that digits are enlarged to for convolutional networks; None: 3×32×32. Fully
            connected networks take the digits' own 64 pixels. Other sets have their own shape.
    """

    name: str = "digits"
    size: int = 100
    seed: int = 0
    shape: tuple[int, ...] | None = None

    @property
    def classes(self) -> int:
        """Number of labels."""
        from eoc_theory.signals.datasets import classes_of

        return classes_of(self.name)

    @property
    def image(self) -> tuple[int, ...]:
        """(C, H, W) of an image for convolutional networks."""
        from eoc_theory.signals.datasets import SETS

        return SETS[self.name].shape if self.name in SETS else self.shape or DEFAULT_IMAGE

    def load(self, kind: str, folder: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(inputs, targets) for a network of `kind`; files are looked for in `folder`.

        Raises:
            EOCError: data that cannot be had.
        """
        import eoc_theory as eoc

        if self.name != "digits":
            from eoc_theory.signals.datasets import load_images

            return load_images(self.name, self.size, seed=self.seed, folder=folder)
        if kind == "mlp":
            return eoc.digits(self.size, seed=self.seed)
        return eoc.digits_images(self.size, self.image, seed=self.seed)


@dataclass(frozen=True)
class Place:
    """Where a task is worked on, as far as it does not belong to what is asked.

    Attributes:
        device: as in `eoc_theory.measure_pruning`.
        folder: of the data sets' files; None: scikit-learn's cache.
        checkpoints: folder for work in progress; None: a task that is killed is begun anew.
        checkpoint_seconds: how much work may be lost.
    """

    device: str = "auto"
    folder: str | None = None
    checkpoints: str | None = None
    checkpoint_seconds: float = 30.0

    def checkpoint(self, hash: str, seed: int) -> Path | None:
        """The file for the task of that key."""
        return None if self.checkpoints is None else Path(self.checkpoints) / f"{hash}-{seed}.pt"

    def discard(self, hash: str, seed: int) -> None:
        """Work in progress is needed no more once its result is stored."""
        path = self.checkpoint(hash, seed)
        if path is not None:
            for file in (path, path.with_suffix(".new")):
                file.unlink(missing_ok=True)


@dataclass(frozen=True)
class Measure:
    """Something that is found out about each network.

    Attributes:
        name: what results are filed under.
        function: of a `Task` and a `Place`; gives the result as a dictionary that JSON can hold (arrays
            included). It is sent to other processes by name, so it must be at the top of a module.
        seeded: whether it is done for every seed, or once.
        settings: its own numbers; part of a result's configuration.
        each_sparsity: whether every sparsity is a task of its own.
    """

    name: str
    function: Callable[[Task, Place], Mapping[str, Any]]
    seeded: bool = True
    settings: tuple[tuple[str, Any], ...] = ()
    each_sparsity: bool = False


@dataclass(frozen=True)
class Task:
    """One piece of work: one network, one criterion, one seed, all sparsities or one."""

    measure: Measure
    network: Network
    criterion: str
    sparsities: tuple[float, ...]
    batch: Batch
    seed: int

    def architecture(self, place: Place) -> tuple[Architecture, DataSummary]:
        """The network and the batch it is scored on."""
        return _prepared(self.network, self.batch, place.folder)

    @property
    def configuration(self) -> str:
        """All but the seed, as canonical JSON: sorted keys, no spaces."""
        settings = {
            "measure": self.measure.name,
            "settings": dict(self.measure.settings),
            "network": asdict(self.network),
            "criterion": self.criterion,
            "sparsities": self.sparsities,
            "data": asdict(self.batch),
        }
        return json.dumps(settings, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @property
    def key(self) -> tuple[str, int]:
        """SHA-256 of the configuration, and the seed."""
        return hashlib.sha256(self.configuration.encode()).hexdigest(), self.seed


@lru_cache(maxsize=8)
def _prepared(network: Network, batch: Batch, folder: str | None) -> tuple[Architecture, DataSummary]:
    """Kept, since a worker meets the same network many times."""
    inputs, targets = _loaded(batch, network.kind == "mlp", folder)
    net = network.build(inputs.shape[1:], batch.classes)
    return net, net.summarise((inputs, targets))


@lru_cache(maxsize=2)
def _loaded(batch: Batch, flat: bool, folder: str | None) -> tuple[np.ndarray, np.ndarray]:
    return batch.load("mlp" if flat else "cnn", folder)


@dataclass(frozen=True)
class Study:
    """A study: every network with every criterion, measured for every seed.

    Attributes:
        name: what the command line and the results file call it.
        about: what it is for, in one sentence.
        networks: see `grid`.
        criteria: names as in `eoc_theory.predict_pruning`.
        sparsities: fractions of the weights removed.
        seeds: seeds 0 … seeds − 1.
        measures: what is found out, in this order.
        batch: the data.
        quick_seeds: seeds of the quick form.
        quick_depth: the quick form has networks up to this depth only; None: all.
        more: studies whose tasks follow this one's, for what is no single grid.
    """

    name: str
    about: str
    networks: tuple[Network, ...]
    criteria: tuple[str, ...]
    sparsities: tuple[float, ...]
    seeds: int
    measures: tuple[Measure, ...]
    batch: Batch = field(default_factory=Batch)
    quick_seeds: int = 2
    quick_depth: int | None = None
    more: tuple[Study, ...] = ()

    def __post_init__(self) -> None:
        checks.integer("seeds", self.seeds, 1)
        for name in ("networks", "criteria", "sparsities", "measures"):
            if not getattr(self, name):
                raise ArgumentError(f"{name} of study {self.name!r} must hold at least one, got none")
        levels = tuple(float(checks.fraction("sparsities", s)) for s in self.sparsities)
        object.__setattr__(self, "sparsities", levels)

    def quick(self) -> Study:
        """Fewer seeds and no deep networks; its results are part of the whole study's."""
        more = tuple(one.quick() for one in self.more if one._shallow)
        return replace(self, networks=self._shallow, seeds=min(self.seeds, self.quick_seeds), more=more)

    @property
    def _shallow(self) -> tuple[Network, ...]:
        """The networks of the quick form."""
        if self.quick_depth is None:
            return self.networks
        return tuple(one for one in self.networks if one.depth <= self.quick_depth)

    def tasks(self) -> Iterator[Task]:
        """All pieces of work, each once."""
        seen: set[tuple[str, int]] = set()
        for task in chain(self._own_tasks(), *(one.tasks() for one in self.more)):
            if task.key not in seen:
                seen.add(task.key)
                yield task

    def _own_tasks(self) -> Iterator[Task]:
        for network, criterion, measure in product(self.networks, self.criteria, self.measures):
            groups = [(s,) for s in self.sparsities] if measure.each_sparsity else [self.sparsities]
            for sparsities, seed in product(groups, range(self.seeds if measure.seeded else 1)):
                yield Task(measure, network, criterion, sparsities, self.batch, seed)
