"""The layer of the integer network that takes a part of its input."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pvq_hw.errors import InputError
from pvq_hw.network.layer import LAYERS, IntArray, TensorSpec, Unweighted

__all__ = ["Part"]


@LAYERS.kind
@dataclass(frozen=True, eq=False)
class Part(Unweighted):
    """Takes ``count`` of every ``period`` values, from ``start`` on, as they are: a slice
    of one axis, or one of the inputs of a network that has several, with a scale of its own.

    Parameters
    ----------
    name, input : str
    output : TensorSpec
        In the input's format.
    start, count, period : int
    """

    kind: ClassVar[str] = "part"

    name: str
    input: str
    output: TensorSpec
    start: int
    count: int
    period: int

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the input tensors."""
        return (self.input,)

    def compute(self, *x: IntArray) -> IntArray:
        """(frames, ...) -> (frames, \\*shape)."""
        whole = np.asarray(x[0]).reshape(len(x[0]), -1, self.period)
        part = whole[:, :, self.start : self.start + self.count]
        return np.asarray(part.reshape(len(part), *self.output.shape), dtype=np.int64)

    def verify(self, *inputs: TensorSpec) -> None:
        """Raises InputError unless the part lies within the input, in its format."""
        size = inputs[0].size
        if self.period < 1 or size % self.period or self.start < 0 or self.count < 1:
            raise InputError(f"Layer {self.name!r} must have a period that divides {size} values")
        if self.start + self.count > self.period:
            raise InputError(f"Layer {self.name!r} must lie within {self.period} values")
        if self.output.size != size // self.period * self.count:
            raise InputError(f"Layer {self.name!r} must give {size // self.period * self.count} "
                             f"values, not {self.output.size}")  # fmt: skip
        if self.output.format != inputs[0].format:
            raise InputError(f"Layer {self.name!r} must keep its input's format")
