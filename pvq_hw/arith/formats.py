"""Integer formats, the one rounding function and the one width rule.

The golden model and the specifications of the circuits call these functions and no others, so
that rounding, saturation and widths are written once.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pvq_hw.documents import Document
from pvq_hw.errors import InputError

__all__ = [
    "LARGEST",
    "IntFormat",
    "accumulator_bits",
    "bits_for",
    "requantize",
    "rounding_shift",
    "significant",
]

LARGEST = 1e100
"""Largest magnitude of data and activations: float64 holds its square, and sums of them."""


@dataclass(frozen=True)
class IntFormat(Document):
    """Format of an activation: ``bits`` wide, signed (two's complement) or unsigned.

    Parameters
    ----------
    bits : int
        2 to 16; 1 stands for binary activations, whose values are -1 and +1.
    signed : bool
        Binary activations are signed.
    low, high : int, optional
        What values saturate at where that is within the width: files with asymmetric zero points
        ask for it. From ``low <= 0`` to ``high >= 0``.
    """

    bits: int
    signed: bool
    low: int | None = None
    high: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 16:
            raise InputError(f"Activation width must be 1 to 16 bits, not {self.bits}")
        if self.bits == 1 and not self.signed:
            raise InputError("Binary activations must be signed: their values are -1 and +1")
        if self.bounded:
            least, most = self.limits
            if self.binary or not least <= self.min <= 0 <= self.max <= most:
                raise InputError(
                    f"Activations of {self.bits} bits must saturate between {least} and {most}, "
                    f"around 0, not at {self.min} and {self.max}"
                )

    @classmethod
    def between(cls, low: int, high: int) -> "IntFormat":
        """The narrowest format that saturates at ``low <= 0`` and ``high >= 0``."""
        width = cls(max(2, bits_for(low, high)), low < 0)
        if (width.min, width.max) == (low, high):
            return width
        return cls(width.bits, width.signed, low, high)

    @property
    def bounded(self) -> bool:
        """Whether values saturate within the width."""
        return self.low is not None or self.high is not None

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest value of the width."""
        if self.binary:
            return -1, 1
        return -(1 << self.bits - 1) if self.signed else 0, (1 << self.bits - self.signed) - 1

    @property
    def binary(self) -> bool:
        """Whether the values are -1 and +1 only. On the wire, 1 stands for -1 and 0 for +1."""
        return self.bits == 1

    @property
    def min(self) -> int:
        """Smallest value."""
        return self.limits[0] if self.low is None else self.low

    @property
    def max(self) -> int:
        """Largest value."""
        return self.limits[1] if self.high is None else self.high

    @property
    def max_abs(self) -> int:
        """Largest magnitude of the width, ``max|x|`` of the accumulator bound."""
        least, most = self.limits
        return max(-least, most)

    def clamp(self, value: Any) -> Any:
        """Saturates integers to the format; binary: the sign, with 0 taken as +1."""
        if self.binary:
            return np.where(np.asarray(value) < 0, -1, 1)
        return np.clip(value, self.min, self.max)

    def contains(self, value: Any) -> bool:
        """Whether every integer of ``value`` is in the format."""
        array = np.asarray(value)
        if array.size == 0:
            return True
        if self.binary:
            return bool(np.all(np.abs(array) == 1))
        return bool(array.min() >= self.min and array.max() <= self.max)

    def to_json(self) -> dict[str, Any]:
        """The format as JSON values."""
        bounds = {"low": self.min, "high": self.max} if self.bounded else {}
        return {"bits": self.bits, "signed": self.signed, **bounds}


def bits_for(low: int, high: int) -> int:
    """Width in bits of the two's complement (``low < 0``) or unsigned integer range low..high."""
    if low < 0:
        return max((-low - 1).bit_length(), high.bit_length()) + 1
    return max(1, high.bit_length())


def accumulator_bits(k: int, x: IntFormat, *, inverted_leaves: bool = False) -> int:
    """Width in bits, sign included, of a row's accumulator: ``|acc| <= K * max|x|`` in any order.

    With ``inverted_leaves`` a negative pulse adds ``~x = -x - 1`` and the row's constant makes it
    good later; then ``|acc| <= K * (max|x| + 1)``.
    """
    bound = k * (x.max_abs + (1 if inverted_leaves else 0))
    return bits_for(-max(bound, 1), max(bound, 1))


def rounding_shift(value: Any, shift: int) -> Any:
    """``(value + half) >> shift`` with ``half = 1 << (shift - 1)``: rounds to nearest, ties up.

    ``value`` is an int or an int64 array; ``shift >= 1``. The shift is arithmetic.
    """
    return (value + (1 << (shift - 1))) >> shift


def requantize(acc: Any, mult: Any, bias: Any, shift: int, out: IntFormat) -> Any:
    """The one multiplication per output: ``clamp((acc * mult + bias + half) >> shift)``.

    ``acc``, ``mult`` and ``bias`` are integers or int64 arrays that broadcast; the callers keep
    ``|acc * mult + bias| < 2**62``, so int64 is exact.
    """
    return out.clamp(rounding_shift(acc * mult + bias, shift))


def significant(value: float, digits: int = 6) -> float:
    """A figure to some significant digits: what it is good for, the same on every machine, also
    where libraries add in another order."""
    return float(f"{float(value):.{digits}g}")
