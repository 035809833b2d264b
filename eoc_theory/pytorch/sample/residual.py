"""Which modules end a branch of a residual sum: seen where tensors are added."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_ADD = frozenset(
    (
        torch.add,
        torch.Tensor.add,
        torch.Tensor.add_,
        torch.Tensor.__add__,
        torch.Tensor.__radd__,
        torch.Tensor.__iadd__,
    )
)
#: Steps between a layer and the sum that leave it the branch's last: changes of shape, dropout, factors.
_BETWEEN = (
    *("View", "Reshape", "Transpose", "Permute", "Dropout", "Mul", "Div", "Expand", "Clone", "Squeeze"),
    *("Slice", "Roll", "Copy", "Contiguous", "TBackward"),
)
#: Steps that are looked back at most.
_REACH = 24


class BranchEnds(TorchFunctionMode):
    """Notes, while it is entered, modules whose output is added to something that is no module's output.

    Attributes:
        found: ids of the modules, in the order of the sums.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[int] = []
        # Nodes of the graph have a name of their own only while they are held.
        self._made_by: dict[Any, int] = {}

    def note(self, module: Any, output: Any) -> None:
        """`output` is `module`'s."""
        if output.grad_fn is not None:
            self._made_by[output.grad_fn] = id(module)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _ADD and len(args) > 1 and all(_is_signal(one) for one in args[:2]):
            self._sum(args[0], args[1])
        return func(*args, **(kwargs or {}))

    def _sum(self, first: Any, second: Any) -> None:
        if first.shape != second.shape:
            return
        ends = [self._end(one.grad_fn) for one in (first, second)]
        # A sum of two layers' outputs is no shortcut.
        if (ends[0] is None) != (ends[1] is None):
            (end,) = (one for one in ends if one is not None)
            if end not in self.found:
                self.found.append(end)

    def _end(self, node: Any) -> int | None:
        for _ in range(_REACH):
            if node is None:
                return None
            if node in self._made_by:
                return self._made_by[node]
            sources = list(_sources(node))
            if len(sources) != 1 or not any(name in node.name() for name in _BETWEEN):
                return None
            node = sources[0]
        return None


def _is_signal(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and not isinstance(value, torch.nn.Parameter)


def _sources(node: Any) -> Iterator[Any]:
    for source, _ in node.next_functions:
        if source is not None and "AccumulateGrad" not in source.name():
            yield source
