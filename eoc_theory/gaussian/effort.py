"""How much work the moments of an activation may take, counted in evaluations.

A table of moments counts what its decades take, and each decade has its own limit, so that what is in a
table does not depend on what was asked for first. Where a decade comes to its limit, panels are halved no
further and polynomials are of no higher degree; what that leaves out is in the errors.
"""

from __future__ import annotations

import math

from ..activations import Activation
from ..activations.effort import LARGEST_SIZE, size
from ..activations.evaluations import Work
from ..errors import ConvergenceError

# Evaluations, about 0.1 µs each, of one decade's moments, and of all decades together.
MOST_OF_A_DECADE, MOST = 1_500_000, 20_000_000
# … and of one table of a dual over the correlation.
MOST_OF_A_DUAL = 70_000_000
# Operations of an expression that cost as much as one evaluation, and what a rule costs where the function is
# a callable.
_OPERATIONS, _RULE = 80, 3000


def allowance(act: Activation, most: int = MOST_OF_A_DECADE) -> Work:
    """What counts the evaluations of an activation up to a limit; nothing where it is built in."""
    if act.source is None:  # their moments are cheap
        return Work(math.inf, 0, 0)
    if act.uncertainty is not None:
        return Work(most, rule=_RULE)
    expression = act.expression
    if expression is None:
        return Work(most)
    try:
        # What both share is computed once.
        operations = size(expression, expression.diff(), most=LARGEST_SIZE)
    except Exception:  # of many kinds, where SymPy meets conditions that it cannot decide
        operations = 3 * size(expression, most=LARGEST_SIZE)
    node = 2 + operations // _OPERATIONS
    return Work(most, node, node // 2)


def check(act: Activation, spent: dict[int, int]) -> None:
    """Refuse an activation whose table has taken too much work; `spent` is that of each decade of variances.

    Raises:
        ConvergenceError: it has, and on which variances.
    """
    if sum(spent.values()) <= MOST:
        return
    worst = max(spent, key=lambda decade: (spent[decade], -decade))
    raise ConvergenceError(
        f"the moments of {act.name} are too costly: they take more than {MOST} evaluations, most of them for "
        f"variances of 1e{worst} to 1e{worst + 1}; a function that is smoother there or faster is accepted"
    )
