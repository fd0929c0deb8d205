"""Layers of the integer network that bring tensors to one scale: sums and concatenations."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import requantize
from pvq_hw.errors import InputError
from pvq_hw.network.layer import LAYERS, IntArray, TensorSpec, Unweighted

__all__ = ["PASSED", "Add", "Concat", "Outputs"]

PASSED = (2, 1)
"""Multiplier and shift that leave values as they are."""


@dataclass(frozen=True, eq=False)
class _Join(Unweighted):
    """What sums and concatenations share: a multiplier per input and one shift.

    Parameters
    ----------
    name : str
    inputs : tuple of str
    output : TensorSpec
    mult : tuple of int
        Unsigned, one per input: ``scale_in / scale_out * 2**shift``, rounded.
    shift : int
    """

    kind: ClassVar[str] = ""

    name: str
    inputs: tuple[str, ...]
    output: TensorSpec
    mult: tuple[int, ...]
    shift: int

    def scaling(self, *inputs: TensorSpec) -> list[tuple[float, int]]:
        """What its multipliers are to be, and what they are."""
        return [(x.scale / self.output.scale, m) for x, m in zip(inputs, self.mult, strict=True)]

    def verify(self, *inputs: TensorSpec) -> None:
        """Raises InputError unless there is a multiplier per input and a possible shift."""
        if len(self.mult) != len(inputs) or not inputs or min(self.mult) < 0:
            raise InputError(f"Layer {self.name!r} must have a multiplier for each of its inputs")
        if not 1 <= self.shift <= 40 or max(self.mult) >= 1 << 24:
            raise InputError(f"Layer {self.name!r} has an impossible shift or multiplier")


@LAYERS.kind
@dataclass(frozen=True, eq=False)
class Add(_Join):
    """``clamp((sum_i x_i * mult_i + half) >> shift)``; with one input, a change of format."""

    kind: ClassVar[str] = "add"

    def compute(self, *x: IntArray) -> IntArray:
        """Arrays (frames, ...) of one shape -> (frames, \\*shape)."""
        shape = (len(x[0]), *self.output.shape)
        total = np.zeros(shape, dtype=np.int64)
        for array, mult in zip(x, self.mult, strict=True):
            total += np.asarray(array).reshape(shape) * mult
        return np.asarray(requantize(total, 1, 0, self.shift, self.output.format), dtype=np.int64)

    def verify(self, *inputs: TensorSpec) -> None:
        """Raises InputError unless all shapes agree."""
        super().verify(*inputs)
        if any(t.size != self.output.size for t in inputs):
            raise InputError(f"Layer {self.name!r} must add tensors of one shape")


@LAYERS.kind
@dataclass(frozen=True, eq=False)
class Concat(_Join):
    """Channels side by side, each input brought to the output's scale."""

    kind: ClassVar[str] = "concat"

    def compute(self, *x: IntArray) -> IntArray:
        """Arrays (frames, ..., channels) -> (frames, \\*shape)."""
        lead = (len(x[0]), *self.output.shape[:-1])
        parts = [
            requantize(np.asarray(a).reshape(*lead, -1), m, 0, self.shift, self.output.format)
            for a, m in zip(x, self.mult, strict=True)
        ]
        return np.asarray(np.concatenate(parts, axis=-1), dtype=np.int64)

    def verify(self, *inputs: TensorSpec) -> None:
        """Raises InputError unless the channels add up."""
        super().verify(*inputs)
        if sum(t.size for t in inputs) != self.output.size:
            raise InputError(f"Layer {self.name!r} must join channels that add up to its output")


@LAYERS.kind
@dataclass(frozen=True, eq=False)
class Outputs(Concat):
    """The outputs of a network that has several, one after the other: integers stay as they are,
    each input's with its own scale. The output's ``scale`` is the largest of them and of no other
    meaning."""

    kind: ClassVar[str] = "outputs"

    def unit(self, *inputs: TensorSpec) -> npt.NDArray[np.float64]:
        """What 1 stands for in each value: the scale of the input that it comes from."""
        return np.repeat([t.scale for t in inputs], [t.size for t in inputs])

    def scaling(self, *inputs: TensorSpec) -> list[tuple[float, int]]:
        """None: `verify` has looked at them."""
        return []

    def verify(self, *inputs: TensorSpec) -> None:
        """Raises InputError unless every input's integers pass unchanged."""
        super().verify(*inputs)
        if len(self.output.shape) != 1:
            raise InputError(f"Layer {self.name!r} must give its outputs flat")
        limits = [limit for t in inputs for limit in t.format.limits]
        low, high = self.output.format.limits
        if {(m, self.shift) for m in self.mult} != {PASSED} or not (
            low <= min(limits) and max(limits) <= high
        ):
            raise InputError(f"Layer {self.name!r} must pass its inputs as they are")
