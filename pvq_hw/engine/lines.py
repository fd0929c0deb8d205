"""Tables whose entries lie on two lines through 0, computed without a memory.

LeakyRelu, PRelu with one slope and the magnitude are such functions. A line is found from the
entries alone, so the circuit gives what the table says, bit for bit, or there is no line.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import IntFormat, requantize
from pvq_hw.engine.adder_graph import signed_digits

__all__ = ["LINES_DELAY", "Lines", "lines_near", "lines_of"]

LINES_DELAY = 5
"""Cycles from an activation to its value: three levels of adders, the rounding, the saturation."""

_MOST_DIGITS = 6  # of a slope
_MOST_SHIFT = 20
_MOST_TRIED = 64  # slopes of one shift
_OFF = 1 / 16  # steps of the output by which a rounded slope may be off


@dataclass(frozen=True)
class Lines:
    """``clamp((x * slope + half) >> shift)``: ``below`` is the slope of ``x < 0``, ``above`` that
    of the others.

    Parameters
    ----------
    x, out : IntFormat
    below, above : int
        In units of ``2**-shift``; sums of at most 6 powers of two.
    shift : int
        At least 1.
    """

    x: IntFormat
    out: IntFormat
    below: int
    above: int
    shift: int

    @property
    def sum_bits(self) -> int:
        """Width of the rounded product, signed."""
        most = self.x.max_abs * max(abs(self.below), abs(self.above)) + (1 << self.shift)
        return int(most).bit_length() + 1

    @property
    def adders(self) -> int:
        """Additions of terms, the rounding aside."""
        return sum(max(0, len(signed_digits(s)) - 1) for s in (self.below, self.above))

    def compute(self, x: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Values of integers, of any shape."""
        array = np.asarray(x, dtype=np.int64)
        slope = np.where(array < 0, self.below, self.above)
        return np.asarray(requantize(array, slope, 0, self.shift, self.out))


def lines_near(below: float, above: float, x: IntFormat, out: IntFormat) -> Lines | None:
    """Lines of these slopes (outputs' steps by inputs'), each rounded to the fewest digits with
    which no value is off by more than a sixteenth of a step; None where 6 are too few."""
    left, right = _rounded(below, -x.limits[0], out), _rounded(above, x.limits[1], out)
    return None if left is None or right is None else _lines(left, right, x, out)


def _lines(left: tuple[int, int], right: tuple[int, int], x: IntFormat, out: IntFormat) -> Lines:
    """Lines of two slopes (m, shift)."""
    shift = max(1, left[1], right[1])
    return Lines(x, out, left[0] << shift - left[1], right[0] << shift - right[1], shift)


def _rounded(slope: float, reach: int, out: IntFormat) -> tuple[int, int] | None:
    """(m, shift) of a slope on values of magnitudes up to ``reach``, or less where it saturates."""
    most = min(float(reach), (out.max_abs + 1) / max(abs(slope), 1e-9))
    tried = []
    for shift in range(_MOST_SHIFT):
        m = int(np.floor(slope * 2**shift + 0.5))
        if abs(m / 2**shift - slope) * most <= _OFF:
            tried.append((len(signed_digits(m)), shift, m))
    if not tried or min(tried)[0] > _MOST_DIGITS:
        return None
    _, shift, m = min(tried)
    return m, shift


@lru_cache(maxsize=64)
def lines_of(entries: tuple[int, ...], x: IntFormat, out: IntFormat) -> Lines | None:
    """The two lines that a table's entries, from the input's smallest value up, lie on, each the
    one of fewest digits; None where there are none of so few.

    A rounded line gives ``e`` at ``x`` where ``e - 0.5 <= r * x < e + 0.5``, which bounds its
    slope r; what saturates bounds it on one side.
    """
    values = np.arange(x.limits[0], x.limits[1] + 1)
    table = np.array(entries, dtype=np.int64)
    if entries[-x.limits[0]] != 0:
        return None
    left, right = (_slope(values[side], table[side], out) for side in (values < 0, values > 0))
    if left is None or right is None:
        return None
    found = _lines(left, right, x, out)
    return found if np.array_equal(found.compute(values), table) else None


def _slope(
    x: npt.NDArray[np.int64], entries: npt.NDArray[np.int64], out: IntFormat
) -> tuple[int, int] | None:
    """(m, shift) of a half's slope ``m * 2**-shift``."""
    if not len(x):
        return 0, 0
    ends = np.stack([(entries - 0.5) / x, (entries + 0.5) / x])
    low, high = ends.min(axis=0), ends.max(axis=0)
    # At the largest entry the product may be anything above, at the least anything below.
    rising = x > 0
    top, bottom = entries == out.max, entries == out.min
    high[(top & rising) | (bottom & ~rising)] = np.inf
    low[(bottom & rising) | (top & ~rising)] = -np.inf
    least, most = float(low.max()), float(high.min())
    if not (np.isfinite(least) and np.isfinite(most) and least <= most):
        return None
    tried = []
    for shift in range(1, _MOST_SHIFT + 1):
        first, last = int(np.ceil(least * 2**shift)), int(np.floor(most * 2**shift))
        for m in range(first, min(last, first + _MOST_TRIED) + 1):
            if np.array_equal(requantize(x, m, 0, shift, out), entries):
                tried.append((len(signed_digits(m)), shift, m))
    if not tried or min(tried)[0] > _MOST_DIGITS:
        return None
    _, shift, m = min(tried)
    return m, shift
