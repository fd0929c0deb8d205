"""Layers of the integer network that decide: what a network says once its scores are known."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import IntFormat, bits_for
from pvq_hw.errors import InputError
from pvq_hw.network.layer import LAYERS, IntArray, TensorSpec, Unweighted

__all__ = [
    "MOST_LARGEST",
    "MOST_SHIFT",
    "MOST_SMOOTHED",
    "Above",
    "Decision",
    "Largest",
    "Smoothed",
]

MOST_LARGEST = 16
"""The most values that `Largest` gives: each is a comparator."""

MOST_SMOOTHED = 64
"""The most values that `Smoothed` averages: each is a register."""

MOST_SHIFT = 8
"""`Smoothed` averages over ``2**8`` frames at most."""


@dataclass(frozen=True, eq=False)
class Decision(Unweighted):
    """What the layers at a network's end share that turn its scores into decisions.

    Parameters
    ----------
    name, input : str
    output : TensorSpec
    """

    remembers: ClassVar[bool] = False
    """Whether what it gives for a frame depends on the frames before."""

    places: ClassVar[bool] = True
    """Whether a frame's first value is the place of one of its input's."""

    name: str
    input: str
    output: TensorSpec

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the input tensors."""
        return (self.input,)


@LAYERS.kind
@dataclass(frozen=True, eq=False)
class Largest(Decision):
    """The ``count`` largest of all values, largest first, of equal ones the first: their places in
    the frame, then they themselves.

    Parameters
    ----------
    name, input, output
        As in `Decision`; ``2 * count`` values, wide enough for places and values.
    count : int
        1 to 16.
    """

    kind: ClassVar[str] = "largest"

    count: int

    def compute(self, *x: IntArray) -> IntArray:
        """(frames, ...) -> (frames, 2 * count)."""
        values = np.asarray(x[0], dtype=np.int64).reshape(len(x[0]), -1)
        places = np.argsort(-values, axis=1, kind="stable")[:, : self.count]
        return np.concatenate((places, np.take_along_axis(values, places, axis=1)), axis=1)

    def unit(self, *inputs: TensorSpec) -> npt.NDArray[np.float64]:
        """Places are counted, values have the input's scale."""
        return np.repeat([1.0, inputs[0].scale], self.count)

    def verify(self, *inputs: TensorSpec) -> None:
        """Raises InputError unless places and values fit into the output."""
        where, (x,) = f"Layer {self.name!r}", inputs
        if not 1 <= self.count <= min(MOST_LARGEST, x.size):
            most = min(MOST_LARGEST, x.size)
            raise InputError(f"{where} must give 1 to {most} values, not {self.count}")
        if x.format.binary or self.output.format != self.form(x.format, x.size):
            raise InputError(f"{where} must hold its input's values and {x.size} places")
        if self.output.shape != (2 * self.count,):
            raise InputError(f"{where} must give {2 * self.count} values")

    @staticmethod
    def form(x: IntFormat, size: int) -> IntFormat:
        """The format of the output; raises InputError where none is wide enough."""
        bits = max(x.bits, bits_for(0, size - 1) + x.signed)
        if bits > 16:
            raise InputError(f"Places of {size:,} values take more than 16 bits")
        return IntFormat(bits, x.signed)


@LAYERS.kind
@dataclass(frozen=True, eq=False)
class Above(Decision):
    """Gives 1 for each value that is no less than its threshold, else 0.

    Parameters
    ----------
    name, input, output
        As in `Decision`; as many values as the input has, unsigned, of 2 bits.
    thresholds : tuple of int
        One for each value, in the input's integers. One beyond its format's largest value is
        never reached.
    """

    kind: ClassVar[str] = "above"
    places: ClassVar[bool] = False

    thresholds: tuple[int, ...]

    def compute(self, *x: IntArray) -> IntArray:
        """(frames, ...) -> (frames, n)."""
        values = np.asarray(x[0], dtype=np.int64).reshape(len(x[0]), -1)
        return (values >= np.array(self.thresholds)).astype(np.int64)

    def verify(self, *inputs: TensorSpec) -> None:
        """Raises InputError unless there is a threshold of a possible value for each input."""
        where, (x,) = f"Layer {self.name!r}", inputs
        if len(self.thresholds) != x.size or self.output.shape != (x.size,):
            raise InputError(f"{where} must have {x.size} thresholds")
        least, most = x.format.limits
        if x.format.binary or not all(least <= t <= most + 1 for t in self.thresholds):
            raise InputError(f"{where} must have thresholds from {least} to {most + 1}")
        if self.output.format != IntFormat(2, signed=False):
            raise InputError(f"{where} must give values of 2 bits")


@LAYERS.kind
@dataclass(frozen=True, eq=False)
class Smoothed(Decision):
    """The class of a stream of frames: each value's moving average, and the place of the largest,
    which another takes over once its average exceeds that of the one before by more than a margin.

    An average is ``a / 2**shift`` rounded down, where ``a`` is the first frame's value times
    ``2**shift`` and each later frame adds its value and takes away the average: its weight falls by
    ``1 - 2**-shift`` a frame. So ``a`` never leaves ``2**shift`` times the values' range. Of equal
    averages the first is the largest.

    Parameters
    ----------
    name, input, output
        As in `Decision`; two values, the place and the average there.
    shift : int
        1 to 8.
    margin : int
        Of averages, in the input's integers; at least 0.
    """

    kind: ClassVar[str] = "smoothed"
    remembers: ClassVar[bool] = True

    shift: int
    margin: int

    def compute(self, *x: IntArray) -> IntArray:
        """(frames, ...) -> (frames, 2), of frames that come one after the other from a reset on."""
        values = np.asarray(x[0], dtype=np.int64).reshape(len(x[0]), -1)
        out = np.empty((len(values), 2), dtype=np.int64)
        sums, held = values[:1].sum(axis=0) << self.shift, -1
        for frame, row in enumerate(values):
            if frame:
                sums = sums - (sums >> self.shift) + row
            best = int(sums.argmax())
            if held < 0 or sums[best] - sums[held] > self.margin << self.shift:
                held = best
            out[frame] = held, sums[held] >> self.shift
        return out

    def unit(self, *inputs: TensorSpec) -> npt.NDArray[np.float64]:
        """Places are counted, averages have the input's scale."""
        return np.array([1.0, inputs[0].scale])

    def verify(self, *inputs: TensorSpec) -> None:
        """Raises InputError unless there are values to average and the output holds place and
        average."""
        where, (x,) = f"Layer {self.name!r}", inputs
        if x.format.binary or not 2 <= x.size <= MOST_SMOOTHED:
            raise InputError(f"{where} must average 2 to {MOST_SMOOTHED} values, not {x.size}")
        if not 1 <= self.shift <= MOST_SHIFT:
            raise InputError(f"{where} must average over 2 to {1 << MOST_SHIFT} frames")
        least, most = x.format.limits
        if not 0 <= self.margin <= most - least:
            raise InputError(f"{where} must have a margin of 0 to {most - least}")
        if self.output.format != Largest.form(x.format, x.size) or self.output.shape != (2,):
            raise InputError(f"{where} must give a place and a value of its input")
