"""The base of what watches torch's operations one by one.

torch is imported at module level, so this module is imported only where a model is run.
"""

from __future__ import annotations

from torch.utils._python_dispatch import TorchDispatchMode


class Watching(TorchDispatchMode):
    """A mode whose `__torch_dispatch__` is called for every operation within it."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Not wrapped against torch.compile: for that torch imports all of its compiler, 4 s at first use.

        Nothing is compiled here: of a compiled model the module that it was made of is run.
        """
        return False
