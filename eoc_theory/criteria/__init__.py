"""Pruning criteria, one file each, and the distributions of their scores.

A file in this package that registers a criterion is all that a new one takes: every file is imported here,
and prediction, measurement, the command line and the documentation take their lists from the register.
"""

from importlib import import_module
from pkgutil import iter_modules

from .criterion import Criterion, criterion, criterion_names, register_criterion

#: In the order in which they are listed to readers; files that are not named here come after them.
_FIRST = ("snip", "grasp", "magnitude", "synflow.criteria", "random", "uniform", "erk", "smart_ratio")
for _name in (*_FIRST, *(module.name for module in iter_modules(__path__) if not module.ispkg)):
    import_module(f"{__name__}.{_name}")

__all__ = ["Criterion", "criterion", "criterion_names", "register_criterion"]
