"""Nothing that a caller hands in is changed: copies of torch models to work on, random states that are kept.

A model's forward pass may write to anything the model holds: buffers, weights, lists, counters, attributes of
its own. Whatever runs or sets up a model here does so on a double of it, which has the same structure, names,
modes and hooks and tensors of its own, so that the model itself is not touched at any time: not by an error,
an interrupt or another thread. What the double shares with the model are objects that are no part of a
network (settings, loggers, compiled code).
"""

from __future__ import annotations

import contextlib
import copy
import functools
import random
import sys
import types
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

from ..errors import ModelError
from .equality import same

if TYPE_CHECKING:
    import torch

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

_CONTAINERS = (list, dict, set, deque)
_ATOMS = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    type,
    types.ModuleType,
    types.BuiltinFunctionType,
)
_GENERATORS = (random.Random, np.random.Generator, np.random.RandomState)
#: Packages whose functions and objects belong to no model in particular.
_SHARED_PACKAGES = frozenset({"torch", "numpy", "sympy", "scipy", "pandas", "matplotlib", "eoc_theory"})


class Twin:
    """A double of a model, with every tensor replaced by what `tensor` makes of it, once for each tensor.

    Modules and tensors that the model holds in several places are one in the double too, and so are those
    that its modules hold in lists, tuples, dicts and closures.

    Attributes:
        model: the double; of a compiled model a double of what was compiled.
    """

    def __init__(self, model: Any, tensor: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """`tensor` gives a tensor's replacement, or the tensor itself where it may be shared.

        Raises:
            ModelError: a module that has no Python attributes to be doubled (torch.jit).
        """
        self._tensor = tensor
        # Originals are held too: the identity of what is collected may be given to something else.
        self._made: dict[int, tuple[Any, Any]] = {}
        self._unfilled: list[Callable[[], None]] = []
        self.model = self._double(model)
        while self._unfilled:
            self._unfilled.pop()()
        self._originals = {id(made): original for original, made in self._made.values()}

    def of(self, thing: Any) -> Any:
        """The double of a module or tensor of the model."""
        return self._made[id(thing)][1]

    def original(self, double: Any) -> Any:
        """The module that this is the double of."""
        return self._originals[id(double)]

    def _keep(self, thing: Any, made: Any) -> Any:
        self._made[id(thing)] = (thing, made)
        return made

    def _double(self, thing: Any) -> Any:
        if isinstance(thing, _ATOMS):
            return thing
        known = self._made.get(id(thing))
        if known is not None:
            return known[1]
        torch = sys.modules["torch"]
        if isinstance(thing, torch.Tensor):
            return self._keep(thing, self._tensor(thing))
        if isinstance(thing, torch.nn.Module):
            return self._module(thing)
        if isinstance(thing, _CONTAINERS):
            return self._container(thing)
        if isinstance(thing, tuple):
            return self._tuple(thing)
        if isinstance(thing, (types.MethodType, types.FunctionType, functools.partial, weakref.ref)):
            return self._callable(thing)
        if isinstance(thing, torch.Generator):
            made = torch.Generator(thing.device)
            made.set_state(thing.get_state())
            return self._keep(thing, made)
        if isinstance(thing, (np.ndarray, *_GENERATORS)):
            return self._keep(thing, copy.deepcopy(thing))
        return self._object(thing)

    def _module(self, module: Any) -> Any:
        torch = sys.modules["torch"]
        if isinstance(module, torch.jit.ScriptModule):
            raise ModelError(f"model must be given before torch.jit, got {type(module).__name__}")
        if "_orig_mod" in module.__dict__.get("_modules", {}):
            return self._keep(module, self._double(module._orig_mod))
        try:
            made = object.__new__(type(module))
        except TypeError as error:
            raise ModelError(f"module {type(module).__name__} cannot be copied: {error}") from None
        self._fill_attributes(module, made)
        return self._keep(module, made)

    def _fill_attributes(self, thing: Any, made: Any) -> None:
        def fill() -> None:
            made.__dict__.update({name: self._double(value) for name, value in thing.__dict__.items()})
            # A call that was compiled would run the original's code.
            if made.__dict__.get("_compiled_call_impl") is not None:
                made.__dict__["_compiled_call_impl"] = None

        self._unfilled.append(fill)

    def _container(self, thing: Any) -> Any:
        made = self._keep(thing, copy.copy(thing))

        def fill() -> None:
            kind = _built_in_kind(thing)
            kind.clear(made)
            if kind in (dict, OrderedDict):
                for key, value in kind.items(thing):
                    kind.__setitem__(made, self._entry(key), self._double(value))
            elif kind is set:
                kind.update(made, [self._entry(entry) for entry in set.__iter__(thing)])
            else:
                kind.extend(made, [self._double(entry) for entry in kind.__iter__(thing)])

        self._unfilled.append(fill)
        return made

    def _entry(self, key: Any) -> Any:
        """The double of what is found by its hash; only modules and tensors hash before they are filled."""
        torch = sys.modules["torch"]
        return self._double(key) if isinstance(key, (torch.nn.Module, torch.Tensor)) else key

    def _tuple(self, thing: tuple[Any, ...]) -> Any:
        entries = [self._double(entry) for entry in thing]
        if all(new is old for new, old in zip(entries, thing, strict=True)):
            return thing
        named = getattr(type(thing), "_make", None)
        return self._keep(thing, named(entries) if named is not None else tuple(entries))

    def _callable(self, thing: Any) -> Any:
        if isinstance(thing, weakref.ref):
            target = thing()
            known = isinstance(target, (sys.modules["torch"].nn.Module, sys.modules["torch"].Tensor))
            return self._keep(thing, weakref.ref(self._double(target)) if known else thing)
        if isinstance(thing, types.MethodType):
            function, owner = self._double(thing.__func__), self._double(thing.__self__)
            return self._keep(thing, types.MethodType(function, owner))
        if isinstance(thing, functools.partial):
            given = [self._double(part) for part in (thing.func, *thing.args)]
            named = {name: self._double(part) for name, part in thing.keywords.items()}
            return self._keep(thing, functools.partial(*given, **named))
        compiled = getattr(thing, "_torchdynamo_orig_callable", None)
        return self._function(thing) if compiled is None else self._double(compiled)

    def _function(self, function: Any) -> Any:
        """The function itself, or one with the same code that refers to the double's parts."""
        self._keep(function, function)
        cells = function.__closure__ or ()
        held = [cell.cell_contents for cell in cells if _is_filled(cell)]
        held += [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
        if _is_shared(function) or all(self._double(thing) is thing for thing in held):
            return function
        made = types.FunctionType(
            function.__code__,
            function.__globals__,
            function.__name__,
            self._double(function.__defaults__),
            tuple(self._cell(cell) for cell in cells) or None,
        )
        made.__kwdefaults__ = self._double(function.__kwdefaults__)
        made.__dict__.update(function.__dict__)
        return self._keep(function, made)

    def _cell(self, cell: Any) -> Any:
        if id(cell) in self._made:
            return self._made[id(cell)][1]
        made = self._keep(cell, types.CellType())

        def fill() -> None:
            made.cell_contents = self._double(cell.cell_contents)

        if _is_filled(cell):
            self._unfilled.append(fill)
        return made

    def _object(self, thing: Any) -> Any:
        """An object of a class of the user's own, which a forward pass may write to; any other is shared."""
        kind = type(thing)
        if _is_shared(kind) or not hasattr(thing, "__dict__") or hasattr(kind, "__members__"):
            return self._keep(thing, thing)
        try:
            made = object.__new__(kind)
        except TypeError:
            return self._keep(thing, thing)
        self._fill_attributes(thing, made)
        return self._keep(thing, made)


def _built_in_kind(container: Any) -> Any:
    """The built-in type whose methods read and fill a container, whatever a subclass makes of them."""
    return next(kind for kind in (OrderedDict, *_CONTAINERS) if isinstance(container, kind))


def _is_shared(thing: Any) -> bool:
    package = (getattr(thing, "__module__", None) or "builtins").partition(".")[0]
    return package in _SHARED_PACKAGES or package in sys.stdlib_module_names


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def converted(model: Any, device: Any = None, dtype: Any = None) -> Twin:
    """A double with tensors of its own, on `device` and those of real numbers in `dtype`; None keeps either.

    They are detached, and no parameter requires a gradient.
    """
    torch = sys.modules["torch"]

    def move(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.is_meta or torch.nn.parameter.is_lazy(tensor):
            raise ModelError(
                "model holds tensors without values: call it once before, not on the meta device"
            )
        kind = dtype if tensor.is_floating_point() else tensor.dtype
        if dtype is not None and tensor.is_complex():
            kind = dtype.to_complex()
        moved = tensor.detach().to(device=device, dtype=kind)
        # Never the memory of the model's own, which a forward pass may write.
        moved = moved.clone() if moved.data_ptr() == tensor.data_ptr() or tensor.is_sparse else moved
        return (
            torch.nn.Parameter(moved, requires_grad=False)
            if isinstance(tensor, torch.nn.Parameter)
            else moved
        )

    return Twin(model, move)


# --- states of the process


def _loaded_torch() -> Any:
    """torch where it is imported, else None; waits while another thread imports it."""
    if sys.modules.get("torch") is None:
        return None
    import torch

    return torch


class RandomStates:
    """The states of Python's, NumPy's and, where torch is there, torch's global generators."""

    def __init__(self) -> None:
        torch = _loaded_torch()
        self.python, self.numpy = random.getstate(), np.random.get_state(legacy=False)
        self.torch = None if torch is None else torch.random.get_rng_state()
        on_gpu = torch is not None and torch.cuda.is_initialized()
        self.cuda = torch.cuda.get_rng_state_all() if torch is not None and on_gpu else []

    def restore(self) -> None:
        """Set them back."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        if self.torch is not None:
            sys.modules["torch"].random.set_rng_state(self.torch)
        if self.cuda:
            sys.modules["torch"].cuda.set_rng_state_all(self.cuda)

    def same(self) -> bool:
        """Whether nothing was drawn on the CPU since."""
        now = RandomStates()
        return (
            self.python == now.python
            and same(self.numpy, now.numpy)
            and (self.torch is None or bool(sys.modules["torch"].equal(self.torch, now.torch)))
        )


@contextlib.contextmanager
def states_kept() -> Iterator[None]:
    """Give the global random states, and torch's gradient mode, back as they were.

    torch's inference mode, in which no gradient can be taken, is left inside.
    """
    states = RandomStates()
    torch = _loaded_torch()
    with contextlib.ExitStack() as modes:
        if torch is not None:
            modes.callback(torch.set_grad_enabled, torch.is_grad_enabled())
            if torch.is_inference_mode_enabled():
                modes.enter_context(torch.inference_mode(False))
        try:
            yield
        finally:
            states.restore()


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers of all global generators from `seed` on, and their states as before afterwards."""
    torch = sys.modules["torch"]
    with states_kept():
        torch.default_generator.manual_seed(seed)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        yield


def isolated(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """A function that is handed models or data, with the states of the process as they were afterwards."""

    @functools.wraps(function)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        with states_kept():
            return function(*args, **kwargs)

    return run


@contextlib.contextmanager
def all_or_nothing(model: Any) -> Iterator[None]:
    """For what changes a model on purpose: an error or interrupt inside leaves it as it was."""
    saved = []
    for module in model.modules():
        own = dict(module.__dict__)
        tables = {key: dict(value) for key, value in own.items() if isinstance(value, dict)}
        saved.append((module, own, tables))
    torch = sys.modules["torch"]
    tensors = [(t, t.detach().clone()) for t in (*model.parameters(), *model.buffers()) if not t.is_meta]
    try:
        yield
    except BaseException:
        for module, own, tables in saved:
            module.__dict__.clear()
            module.__dict__.update(own)
            for key, table in tables.items():
                own[key].clear()
                own[key].update(table)
        for tensor, value in tensors:
            with torch.inference_mode(tensor.is_inference()), torch.no_grad():
                tensor.copy_(value)
        raise
