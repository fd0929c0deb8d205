"""Matrix products that are the same whoever computes them: kernels, threads, machines.

Sums of floats depend on their order, and linear algebra libraries choose it by processor and number
of threads. Both sides are therefore first rounded to multiples of a power of two, coarse enough
that no partial sum needs more than the 53 bits of a float64: whatever the order, nothing is ever
rounded, and the product is exact. The rounding itself (18 bits a side over 60,000 frames, 21 over
1,000 columns) is far below what calibration data can tell.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["grid", "grid_bits", "product", "sums"]

FloatArray = npt.NDArray[np.float64]
_SIGNIFICANT = 53
_PIECE = 2048  # rows at a time, where float64 copies of a whole array would be large


def grid_bits(length: int) -> int:
    """Bits of magnitude for each side of a sum of ``length`` products that must be exact."""
    return (_SIGNIFICANT - max(1, length - 1).bit_length()) // 2


def grid(values: npt.NDArray[Any], bits: int) -> FloatArray:
    """``values`` at multiples of the power of two that gives the largest magnitude ``bits`` bits.

    Integers of at most ``bits`` bits stay what they are.
    """
    v = np.array(values, dtype=np.float64)
    top = max(float(v.max(initial=0.0)), -float(v.min(initial=0.0)))
    if top == 0.0:
        return v
    step = max(2.0 ** (math.frexp(top)[1] - bits), 2.0**-1022)
    v /= step
    np.rint(v, out=v)
    v *= step
    return v


def product(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> FloatArray:
    """``a @ b``, of matrices rounded so that it is exact; a vector may stand on either side."""
    bits = grid_bits(a.shape[-1])
    return np.asarray(grid(a, bits) @ grid(b, bits))


def sums(
    x: npt.NDArray[Any],
    weight: npt.NDArray[Any],
    bias: npt.NDArray[Any],
    dtype: npt.DTypeLike = np.float32,
) -> npt.NDArray[Any]:
    """``x @ weight.T + bias``, (frames, M), with every piece of 2,048 frames on its own grid."""
    bits = grid_bits(x.shape[1])
    columns = np.ascontiguousarray(grid(weight, bits).T)
    result = np.empty((len(x), len(weight)), dtype=dtype)
    for start in range(0, len(x), _PIECE):
        part = slice(start, start + _PIECE)
        result[part] = grid(x[part], bits) @ columns + bias
    return result
