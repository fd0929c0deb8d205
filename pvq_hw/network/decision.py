"""Layers of the integer network that decide: what a network says once its scores are known."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import IntFormat, bits_for
from pvq_hw.errors import InputError
from pvq_hw.network.layer import LAYERS, IntArray, TensorSpec, Unweighted

__all__ = ["MOST_LARGEST", "Above", "Decision", "Largest"]

MOST_LARGEST = 16
"""The most values that `Largest` gives: each is a comparator."""


@dataclass(frozen=True, eq=False)
class Decision(Unweighted):
    """What the layers at a network's end share that turn its scores into decisions.

    Parameters
    ----------
    name, input : str
    output : TensorSpec
    """

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
