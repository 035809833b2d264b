"""Convolutions of images of few channels go another way than all others: both must give the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eoc_theory.layers import convolution as convolving
from eoc_theory.layers.convolution import Geometry, convolution_gradients, convolve

SIZES = st.integers(1, 12)
PADS = st.tuples(st.integers(0, 3), st.integers(0, 3))


@settings(max_examples=60, deadline=None)
@given(
    kernel=st.tuples(st.integers(2, 4), st.integers(1, 4)),
    space=st.tuples(SIZES, SIZES),
    margin=st.tuples(PADS, PADS),
    channels=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    batch=st.sampled_from([1, 3, 150]),
    store=st.sampled_from([1, 3000, 1 << 17]),
)
def test_rows_gathered_once(kernel, space, margin, channels, batch, store):
    """In however many pieces, with margins of any width, also wider than the kernel."""
    inputs, outputs = channels
    positions = [n + sum(pads) - k + 1 for n, pads, k in zip(space, margin, kernel, strict=True)]
    if min(positions) < 1:
        return
    rng = np.random.default_rng(0)
    values = rng.standard_normal((inputs, *space, batch))
    weight = rng.standard_normal((outputs, inputs * kernel[0] * kernel[1]))
    gradient = rng.standard_normal((outputs, *positions, batch))
    geometry = Geometry(kernel, (1, 1), (1, 1))

    def results() -> tuple[np.ndarray, ...]:
        found = convolution_gradients(weight, values, gradient, geometry, margin)
        return convolve(weight, values, geometry, margin), *found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convolving, "BLOCK", store)
        patch.setattr(convolving, "FEW", 0)
        wanted = results()
        patch.setattr(convolving, "FEW", 32)
        assert geometry.slides(inputs)
        found = results()
    for ours, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, other, rtol=0, atol=1e-10)


def test_what_does_not_slide():
    assert Geometry((3, 3), (1, 1), (1, 1)).slides(16)
    assert not Geometry((3, 3), (1, 1), (1, 1)).slides(512)
    for stride, dilation, groups in (((2, 1), (1, 1), 1), ((1, 1), (1, 2), 1), ((1, 1), (1, 1), 2)):
        assert not Geometry((3, 3), stride, dilation, groups).slides(16)
