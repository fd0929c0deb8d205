"""What a core's sums are for a layer, by arithmetic: their formula, their range, their results."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pvq_hw.engine.core import CoreBase, CoreImage
from pvq_hw.engine.depthwise_core import DepthwiseSpec
from pvq_hw.engine.int8_core import Int8Spec
from pvq_hw.engine.pulse_core import CoreSpec
from pvq_hw.engine.unrolled_core import UnrolledSpec
from pvq_hw.errors import CheckError
from pvq_hw.network.layer import Dense
from pvq_hw.registry import Face

__all__ = ["Lanes", "RowSums", "row_lanes"]

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Lanes:
    """How a kind of core holds what it computes, so that all its arithmetic is linear.

    Parameters
    ----------
    lift, step : int
        An activation ``x`` is stored as ``(x + lift) / step``.
    constant : int64 array (rows, groups)
        What a sum has beside that of weights times stored activations.
    taken : int64 array (rows, groups)
        ``step * sum - taken`` is the layer's own sum.
    """

    lift: int
    step: int
    constant: IntArray
    taken: IntArray


row_lanes: Face[[Dense, CoreImage], Lanes] = Face("core", "lanes")
"""How a core's lanes hold a layer."""


@dataclass(frozen=True)
class RowSums:
    """Every row's sums as the circuit has them: ``y @ u + constant`` for each group, where ``u``
    is the activation as it is stored.

    Parameters
    ----------
    layer, spec
    lanes : Lanes
    mult : int64 array (rows, groups)
    bias : tuple of int
        What makes the results the layer's: with its bias and the rounding half.
    """

    layer: Dense
    spec: CoreBase
    lanes: Lanes
    mult: IntArray
    bias: tuple[int, ...]

    @classmethod
    def of(cls, layer: Dense, spec: CoreBase, image: CoreImage) -> "RowSums":
        """The sums by the layer's numbers; the image only tells how pulses are split."""
        lanes = row_lanes(spec, layer, image)
        scale = layer.mult.astype(np.int64)
        half = 1 << (layer.shift - 1)
        bias = layer.bias + half - (lanes.taken * scale).sum(axis=1)
        if not spec.multiplies.stored:
            bias = bias // lanes.step
        else:
            scale = scale * lanes.step
        return cls(layer, spec, lanes, scale, tuple(int(b) for b in bias))

    @property
    def constant(self) -> IntArray:
        """What a sum has beside ``y @ u``, (rows, groups)."""
        return self.lanes.constant

    def stored(self, x: IntArray) -> IntArray:
        """Activations (frames, n) as the core stores them."""
        return (x + self.lanes.lift) // self.lanes.step

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
        """The layer's activation for sums (count, groups) of a row, by the layer's own numbers."""
        layer = self.layer
        true = self.lanes.step * acc - self.lanes.taken[row]
        value = (true * layer.mult[row]).sum(axis=1) + int(layer.bias[row])
        rounded = (value + (1 << (layer.shift - 1))) >> layer.shift
        return np.asarray(layer.output.format.clamp(rounded), dtype=np.int64)

    def requantized(self, row: int, acc: IntArray) -> IntArray:
        """The same by the numbers that the core has."""
        value = (acc * self.mult[row]).sum(axis=1) + self.bias[row]
        rounded = value >> self.layer.shift
        return np.asarray(self.layer.output.format.clamp(rounded), dtype=np.int64)


@row_lanes.of(CoreSpec)
def _pulses(spec: CoreSpec, layer: Dense, image: CoreImage) -> Lanes:
    """A core of pulses adds ``~x`` for a negative pulse, which is ``-x - 1``; a binary activation
    has its own negative."""
    constant = np.zeros((spec.rows, spec.groups), dtype=np.int64)
    if not spec.x.binary:
        constant = -_negatives(spec, image)
    return Lanes(0, 1, constant, constant)


@row_lanes.of(Int8Spec)
def _int8(spec: Int8Spec, layer: Dense, image: CoreImage) -> Lanes:
    """An 8-bit core stores activations as unsigned numbers, binary ones as 0 and 1."""
    total = layer.y.sum(axis=1, keepdims=True)
    lift, step = (1, 2) if spec.x.binary else (spec.flipped, 1)
    return Lanes(lift, step, np.zeros_like(total), total * lift)


@row_lanes.of(UnrolledSpec)
def _unrolled(spec: UnrolledSpec, layer: Dense, image: CoreImage) -> Lanes:
    """Adders that give a sum's negative have it inverted, which is one less."""
    constant = np.zeros(spec.sums, dtype=np.int64)
    constant[list(spec.inverted)] = -1
    rows = constant.reshape(spec.rows, spec.groups)
    return Lanes(0, 1, rows, rows)


@row_lanes.of(DepthwiseSpec)
def _depthwise(spec: DepthwiseSpec, layer: Dense, image: CoreImage) -> Lanes:
    """Taps with negative weights add ``~x``; one outside of the map has 0, which activations can
    be."""
    constant = -np.maximum(-layer.y, 0).sum(axis=1, keepdims=True)
    return Lanes(0, 1, constant, constant)


def _negatives(spec: CoreSpec, image: CoreImage) -> IntArray:
    """Sum of ``2**shift`` over the negative pulses of every group."""
    _, sign, shift, last = spec.code.fields(image.codes)
    weight = np.where(spec.code.placed(image.codes), sign << shift, 0).sum(axis=1)
    found = np.zeros(int(last.sum()), dtype=np.int64)
    np.add.at(found, np.cumsum(last) - last, weight)
    return found.reshape(spec.rows, spec.groups)
