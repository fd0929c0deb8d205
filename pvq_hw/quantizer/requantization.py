"""Multiplier, bias and shift of a layer: the gains, the scales and the bias as integers."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import IntFormat
from pvq_hw.quantizer.given import whole_rows

__all__ = [
    "FILE_BITS",
    "FILE_JOIN_BITS",
    "MOST_GAIN_DIGITS",
    "MULT_BITS",
    "Requantization",
    "feasible_scale",
    "few_digits",
    "int8_codes",
    "requantization",
    "thresholds",
]

MULT_BITS = 15
"""Width of the largest multiplier: 15 bits unsigned are 16 signed, which suits SB_MAC16 (16 x 16)
and MULT18X18D (18 x 18)."""

FILE_BITS = 27
"""The same of layers whose output's scale is a quantized file's: 15 bits alone would round 1 to 3 %
of a small network's outputs otherwise than the file. Rows share a shift, so that those of small
gains have fewer bits: with 22, MobileNet's outputs were two steps off in 1.5 % of values. The
multipliers are serial, or of LUTs, then."""

FILE_JOIN_BITS = 22
"""The same of sums, concatenations and means, whose multipliers are all of about one size."""

MOST_GAIN_DIGITS = 4
"""Signed digits to which multipliers may be rounded: four are within 0.6 % of any of 15 bits."""

_MAX_SHIFT = 40


@dataclass(frozen=True, eq=False)
class Requantization:
    """``out = clamp((sum_g acc[g] * mult[m, g] + bias[m] + half) >> shift)``.

    Parameters
    ----------
    mult : int64 array (M, G)
        Unsigned, below ``2**bits``; the largest of the layer uses all the bits.
    bias : int64 array (M,)
    shift : int
        1 to 40, one for all rows.
    """

    mult: npt.NDArray[np.int64]
    bias: npt.NDArray[np.int64]
    shift: int


def int8_codes(
    w: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Plain weights of -127 to 127 and the scale of each row: (M, N), (M, 1).

    Rows that are a gain times whole numbers of -128 to 127, as in quantized files, stay so.
    """
    scale = np.maximum(np.abs(w).max(axis=1, keepdims=True) / 127, 1e-30)
    y = np.rint(w / scale).astype(np.int64)
    if w.shape[1] > 1:
        whole, gain, _ = whole_rows(w)
        kept = (gain[:, 0] > 0) & (whole.min(axis=1) >= -128) & (whole.max(axis=1) <= 127)
        y[kept], scale[kept] = whole[kept], gain[kept]
    return y, scale


def feasible_scale(
    gain: npt.NDArray[np.float64],
    scale_in: float,
    scale_out: float,
    bits: int = MULT_BITS,
    shift: int | None = None,
) -> float:
    """``scale_out``, or the larger one that the shift asks for: of at least 1, or a given one."""
    largest = float(gain.max(initial=0.0)) * scale_in
    return max(scale_out, (1 << (shift or 1)) * largest / ((1 << bits) - 1))


def requantization(
    gain: npt.NDArray[np.float64],
    bias: npt.NDArray[np.float64],
    k: npt.NDArray[np.int64],
    x: IntFormat,
    scale_in: float,
    out: IntFormat,
    scale_out: float,
    bits: int = MULT_BITS,
    shift: int | None = None,
) -> Requantization:
    """Integers for ``out = (rho * acc * scale_in + bias) / scale_out``.

    The shift is the largest at which every multiplier fits, unless it is given. A bias beyond what
    the products can bring back into the output's range is cut to that, which changes no output and
    bounds its width: ``|bias| <= sum_g K*max|x|*mult + (max|out| + 2) * 2**shift``.

    Parameters
    ----------
    gain : float64 array (M, G)
        ``rho``, not negative; ``scale_out`` as `feasible_scale` gives it.
    bias : float64 array (M,)
        Real biases.
    k : int64 array (M, G)
        ``sum |y|`` of every row and group.
    bits : int
        Of the largest multiplier; more where a given shift and scale ask for more.
    shift : int, optional
    """
    ratio = gain * (scale_in / scale_out)
    largest = float(ratio.max(initial=0.0))
    limit = (1 << bits) - 1
    if shift is None:
        shift = _MAX_SHIFT
        while shift > 1 and np.floor(largest * (1 << shift) + 0.5) > limit:
            shift -= 1
    elif largest * (1 << shift) > limit + 0.5:
        limit = (1 << 31) - 1
    mult = np.minimum(np.floor(ratio * (1 << shift) + 0.5), limit).astype(np.int64)
    mult[k == 0] = 0
    room = (k * x.max_abs * mult).sum(axis=1) + ((out.max_abs + 2) << shift)
    real = np.floor(bias / scale_out * (1 << shift) + 0.5)
    if out.binary:  # the sign of the sum, not of what it is rounded to
        real -= 1 << (shift - 1)
    return Requantization(mult, np.clip(real, -room, room).astype(np.int64), shift)


def few_digits(values: npt.NDArray[np.int64], digits: int, limit: int) -> npt.NDArray[np.int64]:
    """The nearest integers of 0 to ``limit`` that are sums of at most so many signed powers of two,
    the lower one of two as near: a multiplication by one is that many additions less one."""
    powers = 1 << np.arange(limit.bit_length() + 1, dtype=np.int64)
    terms = np.concatenate([[0], powers, -powers])
    found = np.zeros(1, dtype=np.int64)
    for _ in range(digits):
        found = np.unique(found[:, None] + terms)
    found = found[(found >= 0) & (found <= limit)]
    above = np.clip(np.searchsorted(found, values), 1, len(found) - 1)
    low, high = found[above - 1], found[above]
    return np.where(high - values < values - low, high, low)


def thresholds(
    unit: npt.NDArray[np.float64],
    bias: npt.NDArray[np.float64],
    most: npt.NDArray[np.int64],
) -> Requantization:
    """Integers of rows whose output is a sign: ``unit * acc + bias >= 0`` where and only where
    ``acc + floor(bias / unit) >= 0``, so gains vanish (V. Liguori, "Pyramid Vector Quantization
    for Deep Learning", arXiv 1704.02681, section on binary activations). Multipliers are 1.

    Parameters
    ----------
    unit : float64 array (M,)
        Real value of 1 in the row's sum, not negative.
    bias : float64 array (M,)
    most : int64 array (M,)
        Largest magnitude of the sum; a threshold beyond it is cut to that.
    """
    room = most + 1.0
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        low = np.floor(bias / unit)
    low = np.where(unit > 0, low, np.where(bias < 0, -room, room))
    place = np.clip(low, -room, room).astype(np.int64)
    # The half that rounding adds is 1 at a shift of 1.
    return Requantization(np.ones((len(bias), 1), dtype=np.int64), place - 1, 1)
