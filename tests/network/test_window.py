"""Convolutions of integers against sums that are written out."""

import numpy as np
import pytest

from pvq_hw.arith.formats import IntFormat
from pvq_hw.geometry import Geometry
from pvq_hw.network.layer import TensorSpec
from pvq_hw.network.window import Conv


def _sums(geometry, y, x):
    """Channels filtered by themselves, value by value."""
    (kh, kw), (sh, sw), (dh, dw) = geometry.kernel, geometry.stride, geometry.dilation
    padded = np.pad(x, ((0, 0), *geometry.pads, (0, 0)))
    found = np.zeros((len(x), *geometry.output_size, len(y)), dtype=np.int64)
    for f, i, j, m in np.ndindex(*found.shape):
        for r, c in np.ndindex(kh, kw):
            found[f, i, j, m] += y[m, r * kw + c] * padded[f, i * sh + r * dh, j * sw + c * dw, m]
    return found


@pytest.mark.parametrize("most", [127, (1 << 31) - 1])
def test_channels_that_are_filtered_by_themselves_have_exact_sums(most):
    geometry = Geometry((5, 7, 3), (2, 3), (2, 1), ((1, 0), (0, 2)), (1, 2))
    rng = np.random.default_rng(0)
    y = rng.integers(-9, 10, (3, 6))
    x = rng.integers(-most, most + 1, (2, 5, 7, 3))
    spec = TensorSpec("o", (*geometry.output_size, 3), IntFormat(8, True), 1.0)
    ones = np.ones((3, 1), dtype=np.int64)
    layer = Conv("c", "i", spec, geometry, 3, y, ones, ones[:, 0], 1, ones.astype(float))
    assert np.array_equal(layer.accumulate(x), _sums(geometry, y, x))
