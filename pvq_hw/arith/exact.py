"""Matrix products that are the same whoever computes them: kernels, threads, machines.

Sums of floats depend on their order, and linear algebra libraries choose it by processor and number
of threads. Both sides are therefore first rounded to multiples of a power of two, coarse enough
that no partial sum needs more than the 53 bits of a float64: whatever the order, nothing is ever
rounded, and the product is exact. The rounding itself (18 bits a side over 60,000 frames, 21 over
1,000 columns) is far below what calibration data can tell. Whole numbers that are small enough
need no rounding, and only the 24 bits of a float32, which is twice as quick.

Elementwise arithmetic and NumPy's own sums need no such care: their order is part of NumPy. Its
logarithms and exponentials do, since they differ in last digits by instruction set.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "DOUBLE",
    "SINGLE",
    "exp",
    "grid",
    "grid_bits",
    "grid_shift",
    "log",
    "product",
    "span_bits",
    "sums",
]

FloatArray = npt.NDArray[np.float64]
DOUBLE, SINGLE = 53, 24
"""Significant bits of a float64 and a float32: no partial sum may need more."""

_PIECE = 2048  # rows at a time, where float64 copies of a whole array would be large


def span_bits(count: float) -> int:
    """Bits that a sum of ``count`` equal terms needs beyond those of a term."""
    return max(1, math.ceil(count) - 1).bit_length()


def grid_bits(length: int) -> int:
    """Bits of magnitude for each side of a sum of ``length`` products that must be exact."""
    return (DOUBLE - span_bits(length)) // 2


def grid(
    values: npt.NDArray[Any], bits: int, dtype: npt.DTypeLike = np.float64
) -> npt.NDArray[Any]:
    """``values`` at multiples of the power of two that gives the largest magnitude ``bits`` bits.

    Integers of at most ``bits`` bits stay what they are.
    """
    values = np.asarray(values)
    top = max(float(values.max(initial=0)), -float(values.min(initial=0)))
    if top == 0.0:
        return np.array(values, dtype=dtype)
    shift = grid_shift(top, bits, dtype)
    if shift is not None:
        v = np.add(values, shift, dtype=dtype)
        v -= shift
        return v
    step = _step(top, bits, dtype)
    v = np.array(values, dtype=dtype)
    v /= step
    np.rint(v, out=v)
    v *= step
    return v


def grid_shift(top: float, bits: int, dtype: npt.DTypeLike) -> float | None:
    """What, added and taken away again, rounds values up to ``top`` as `grid` does: beside it
    nothing finer than a step can be held, so the sum is rounded as `rint` rounds. None where there
    is none."""
    held = np.finfo(dtype)
    shift = 1.5 * 2.0**held.nmant * _step(top, bits, dtype)
    return shift if bits < held.nmant and shift < held.max else None


def _step(top: float, bits: int, dtype: npt.DTypeLike) -> float:
    """The power of two that gives ``top`` so many bits."""
    return max(2.0 ** (math.frexp(top)[1] - bits), float(np.finfo(dtype).tiny))


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


_LN2 = (0.6931471803691238, 1.9082149292705877e-10)
"""The logarithm of 2: 32 bits of it, so that small multiples are exact, and the rest."""


def exp(x: npt.ArrayLike) -> FloatArray:
    """``e ** x``, to 2e-16 of it, by a series whose terms are added in this order."""
    x = np.asarray(x, dtype=np.float64)
    power = np.rint(x / sum(_LN2))
    rest = (x - power * _LN2[0]) - power * _LN2[1]
    value = np.ones(x.shape)
    for i in range(14, 0, -1):
        value = 1 + value * rest / i
    return np.asarray(np.ldexp(value, power.astype(np.int64)))


def log(x: npt.ArrayLike) -> FloatArray:
    """The natural logarithm of positive numbers, to about 2e-16, as `exp` computes."""
    part, power = np.frexp(np.asarray(x, dtype=np.float64))
    low = part < math.sqrt(0.5)
    part, power = np.where(low, 2 * part, part), power - low
    s = (part - 1) / (part + 1)
    square, value = s * s, np.zeros(s.shape)
    for i in range(21, 0, -2):
        value = 1 / i + value * square
    return np.asarray((2 * s * value + power * _LN2[1]) + power * _LN2[0])
