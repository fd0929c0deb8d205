"""What a core's sums are for a layer, by arithmetic: their formula, their range, their results."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pvq_hw.engine.core import CoreBase, CoreImage
from pvq_hw.engine.int8_core import Int8Spec
from pvq_hw.engine.pulse_core import CoreSpec
from pvq_hw.errors import CheckError
from pvq_hw.network.layer import Dense

__all__ = ["RowSums"]

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RowSums:
    """Every row's sums as the circuit has them: ``y @ u + constant`` for each group, where ``u``
    is the activation as it is stored.

    A core of pulses adds ``~x`` for a negative pulse, which is ``-x - 1``; an 8-bit core stores
    activations as unsigned numbers, binary ones as 0 and 1.

    Parameters
    ----------
    layer, spec
    constant : int64 array (rows, groups)
    mult : int64 array (rows, groups)
    bias : tuple of int
        What makes the results the layer's: with its bias and the rounding half.
    """

    layer: Dense
    spec: CoreBase
    constant: IntArray
    mult: IntArray
    bias: tuple[int, ...]

    @classmethod
    def of(cls, layer: Dense, spec: CoreBase, image: CoreImage) -> "RowSums":
        """The sums by the layer's numbers; the image only tells how pulses are split."""
        constant = np.zeros((spec.rows, spec.groups), dtype=np.int64)
        mult = layer.mult.astype(np.int64)
        half = 1 << (layer.shift - 1)
        offset = np.zeros_like(constant)
        if isinstance(spec, Int8Spec):
            offset = layer.y.sum(axis=1, keepdims=True) * spec.flipped
            if spec.x.binary:
                mult = mult if spec.multiplier == "none" else 2 * mult
                offset = layer.y.sum(axis=1, keepdims=True)
        elif not spec.x.binary:
            constant = -_negatives(spec, image)
        scale = layer.mult.astype(np.int64)
        bias = layer.bias + half - ((constant + offset) * scale).sum(axis=1)
        if isinstance(spec, Int8Spec) and spec.x.binary and spec.multiplier == "none":
            bias = bias >> 1
        return cls(layer, spec, constant, mult, tuple(int(b) for b in bias))

    def stored(self, x: IntArray) -> IntArray:
        """Activations (frames, n) as the core stores them."""
        if not isinstance(self.spec, Int8Spec):
            return x
        return (x + 1) >> 1 if self.spec.x.binary else x + self.spec.flipped

    def of_frames(self, x: IntArray) -> IntArray:
        """Sums (frames, rows, groups)."""
        u = self.stored(x).reshape(len(x), self.spec.groups, -1)
        y = self.layer.y.reshape(self.spec.rows, self.spec.groups, -1)
        return np.einsum("fgn,rgn->frg", u, y) + self.constant

    @property
    def bounds(self) -> tuple[IntArray, IntArray]:
        """Least and largest sum (rows, groups) over all activations of the format's width."""
        ends = self.stored(np.array(self.spec.x.limits, dtype=np.int64)[:, None])
        y = self.layer.y.reshape(self.spec.rows, self.spec.groups, -1)
        products = np.stack([y * int(ends[0, 0]), y * int(ends[1, 0])])
        low = products.min(axis=0).sum(axis=2) + self.constant
        return low, products.max(axis=0).sum(axis=2) + self.constant

    def check_widths(self) -> None:
        """Raises CheckError where a sum, or its product with the bias, may not fit."""
        spec, (low, high) = self.spec, self.bounds
        total = np.stack([low * self.mult, high * self.mult]).sum(axis=2)
        total = np.stack([total.min(axis=0), total.max(axis=0)]) + np.array(self.bias)
        for bits, least, most, what in (
            (spec.acc_bits, low.min(), high.max(), "sums"),
            (spec.sum_bits, total.min(), total.max(), "results"),
        ):
            if least < -(1 << (bits - 1)) or most >= 1 << (bits - 1):
                raise CheckError(
                    f"Layer {self.layer.name!r} has {what} of {least} to {most}, which {bits} "
                    "bits do not hold"
                )

    def results(self, row: int, acc: IntArray) -> IntArray:
        """The layer's activation for sums of a row, by the layer's own numbers."""
        spec, layer = self.spec, self.layer
        true = acc - int(self.constant[row, 0])
        if isinstance(spec, Int8Spec):
            total = int(layer.y[row].sum())
            true = 2 * acc - total if spec.x.binary else acc - total * spec.flipped
        value = true * int(layer.mult[row, 0]) + int(layer.bias[row]) + (1 << (layer.shift - 1))
        return np.asarray(layer.output.format.clamp(value >> layer.shift), dtype=np.int64)


def _negatives(spec: CoreBase, image: CoreImage) -> IntArray:
    """Sum of ``2**shift`` over the negative pulses of every group."""
    assert isinstance(spec, CoreSpec)
    _, sign, shift, last = spec.code.fields(image.codes)
    weight = np.where(spec.code.placed(image.codes), sign << shift, 0).sum(axis=1)
    found = np.zeros(int(last.sum()), dtype=np.int64)
    np.add.at(found, np.cumsum(last) - last, weight)
    return found.reshape(spec.rows, spec.groups)
