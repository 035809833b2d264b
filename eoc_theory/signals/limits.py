"""The limit of an activation for signals far smaller or far larger than its own structure.

Next to 0 a smooth function with φ(0) = 0 is its tangent, and far out ELU, GELU or softplus are ReLU: two half
lines through the origin, to which the scale of a signal is nothing but a factor that can be carried apart.
Where there is no such limit (a function that is flat at 0, or grows faster or slower than a line) a signal
beyond what numbers hold is refused.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ..activations import Activation, activation
from ..errors import ModelError

#: Variances, as powers of two, that are left as they are; beyond them a limit takes over.
WINDOW = (-200, 200)
#: The same for a function without a limit at 0 that is 0 there: products of two signals are single precision.
LEAST_FLAT = -120
#: Sizes of a signal, as powers of two, at which a function has to have reached its limit.
_SIZES = (96, 100, 103, 130, 211, 400)
#: The same from where on a large signal is left to the limit, if reached: structure of size 1 is then
#: less of the whole than kernels are exact to.
_EARLIER = 20
#: How near, relative to the larger slope.
_NEAR, _NEAR_EARLIER = 2e-9, 4e-6


@lru_cache(maxsize=512)
def limit(act: Activation, *, large: bool, earlier: bool = False) -> Activation | None:
    """The two half lines that φ is for very large, or very small, arguments; None where there are none.

    With `earlier` it must have become them at arguments of 2^20 already.
    """
    if act.is_homogeneous:
        return act
    found = [_slopes(act, side, large, earlier) for side in (-1.0, 1.0)]
    left, right = (float(slopes[-1]) for slopes in found)
    size = max(abs(left), abs(right))
    near = _NEAR_EARLIER if earlier else _NEAR
    if not (0.0 < size < np.inf and all(np.all(abs(s - s[-1]) <= near * size) for s in found)):
        return None
    left, right = (0.0 if abs(slope) < _NEAR * size else slope for slope in (left, right))
    return activation(f"{right!r}*x" if left == right else f"where(x > 0, {right!r}*x, {left!r}*x)")


def _slopes(act: Activation, side: float, large: bool, earlier: bool) -> np.ndarray:
    """φ(x)/x and φ'(x) on one side, further and further out, or nearer and nearer to 0."""
    sizes = np.array(((_EARLIER, _EARLIER + 7) if earlier else ()) + _SIZES)
    # No multiple of anything that functions oscillate with.
    x = side * 2.0 ** (sizes * (1.0 if large else -1.0)) * (1.0 + 1.0 / 7.0)
    return np.concatenate([act(x) / x, act.derivative(1)(x)])


@lru_cache(maxsize=512)
def is_settled(act: Activation) -> bool:
    """Whether φ is a constant other than 0, of one slope, to arguments next to 0."""
    x = 2.0 ** -np.array(_SIZES, dtype=float)
    x = np.concatenate([x, -x])
    values, slopes = act(x), act.derivative(1)(x)
    size = abs(float(values[0]))
    return (
        size > 0.0
        and bool(np.all(np.abs(values - values[0]) <= _NEAR * size))
        and bool(np.all(np.abs(slopes - slopes[0]) <= _NEAR * max(1.0, abs(float(slopes[0])))))
    )


def acting(act: Activation | None, power: float, name: str) -> Activation | None:
    """What acts on a signal of variance 2^`power` in the layer `name`, where its scale is carried apart.

    None where the scale is not carried: within `WINDOW`, and for a function that is a constant to it. After
    the last layer, where `act` is None, any scale is carried, and the identity acts.

    Raises:
        ModelError: the signal is out of range and φ has no limit there.
    """
    low, high = WINDOW
    if act is None or act.is_homogeneous:
        return None if low <= power <= high else (act or activation("identity"))
    if power > high:
        found = limit(act, large=True)
        if found is None:
            raise ModelError(
                f"variance at layer {name} exceeds 2^{high}, where {act.name} is not a line: "
                "use a smaller sigma_w or depth"
            )
        return found
    if power > 2 * _EARLIER:
        # Closed forms are as exact there as anywhere.
        return None if act.closed_form is not None else limit(act, large=True, earlier=True)
    if power >= LEAST_FLAT:
        return None
    found = limit(act, large=False)
    if found is None and not is_settled(act):
        raise ModelError(
            f"variance at layer {name} falls under 2^{LEAST_FLAT}, where {act.name} is neither a line nor a "
            "constant: use a larger sigma_w or a smaller depth"
        )
    return found if power < low else None
