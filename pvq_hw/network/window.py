"""Layers of the integer network that slide a window: convolutions and poolings."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import requantize
from pvq_hw.documents import HEX
from pvq_hw.errors import InputError
from pvq_hw.geometry import Geometry
from pvq_hw.network.layer import LAYERS, IntArray, TensorSpec, Unweighted, Weighted

__all__ = ["AveragePool", "Conv", "MaxPool"]


@LAYERS.kind
@dataclass(frozen=True, eq=False)
class Conv(Weighted):
    """Convolution, zero padded: at each position a dense layer over the window.

    Row m gives ``clamp((sum_n y[m,n] * x[n] * mult[m] + bias[m] + half) >> shift)`` with n over
    (kernel row, kernel column, channel of the group).

    Parameters
    ----------
    name, input : str
    output : TensorSpec
        Shape (rows, columns, M).
    geometry : Geometry
    groups : int
        Output channel m reads the input channels of group ``m // (M / groups)``.
    y : int64 array (M, kh * kw * C / groups)
    mult : int64 array (M, 1)
    bias : int64 array (M,)
    shift : int
    gain : float64 array (M, 1)
    encoding : str
        ``"pvq"`` or ``"int8"``.
    """

    kind: ClassVar[str] = "conv"

    name: str
    input: str
    output: TensorSpec
    geometry: Geometry
    groups: int
    y: IntArray
    mult: IntArray
    bias: IntArray
    shift: int
    gain: Annotated[npt.NDArray[np.float64], HEX]
    encoding: str = "pvq"

    def accumulate(self, x: IntArray) -> IntArray:
        """Exact sums: ``x`` (frames, ...) -> (frames, rows, columns, M)."""
        most = int(np.abs(x).max(initial=0)) * int(self.k.max(initial=0))
        dtype = np.float32 if most <= 1 << 24 else np.float64  # in which every sum is exact
        if self.groups == len(self.y) == self.geometry.input_shape[2]:
            return self._separate_sums(x.astype(dtype)).astype(np.int64)
        columns = self.geometry.columns(x.astype(dtype), self.groups)
        matrix = self.y.astype(dtype).reshape(self.groups, -1, self.y.shape[1])
        acc = np.matmul(columns, matrix.transpose(0, 2, 1))
        return acc.transpose(1, 0, 2).reshape(len(x), *self.output.shape).astype(np.int64)

    def _separate_sums(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """`accumulate` of channels that are filtered by themselves, tap by tap: a quarter of the
        time that their windows take as matrices."""
        view, width = self.geometry.windows(x), self.geometry.kernel[1]
        acc = np.zeros(view.shape[:4], dtype=x.dtype)
        for tap, weight in enumerate(self.y.T.astype(x.dtype)):
            acc += view[..., tap // width, tap % width] * weight
        return acc

    def products(self, x: IntArray) -> IntArray:
        """``x`` (frames, ...) -> (frames, rows, columns, M)."""
        return self.accumulate(x) * self.mult[:, 0]

    def compute(self, *x: IntArray) -> IntArray:
        """(frames, ...) -> (frames, rows, columns, M), exact."""
        acc = self.accumulate(np.asarray(x[0]))
        out = requantize(acc, self.mult[:, 0], self.bias, self.shift, self.output.format)
        return np.asarray(out, dtype=np.int64)

    def verify(self, *inputs: TensorSpec) -> None:
        """Raises InputError unless shapes agree and every intermediate value fits 62 bits."""
        where, g = f"Layer {self.name!r}", self.geometry
        m, n = self.y.shape
        if inputs[0].size != int(np.prod(g.input_shape)):
            raise InputError(f"{where} must read {g.input_shape}, not {inputs[0].shape}")
        channels = g.input_shape[2]
        if self.groups < 1 or channels % self.groups or m % self.groups:
            raise InputError(f"{where} must have groups that divide its channels")
        if n != g.kernel[0] * g.kernel[1] * channels // self.groups:
            raise InputError(f"{where} has {n} columns for a window of {g.kernel}")
        if self.output.shape != (*g.output_size, m):
            raise InputError(f"{where} must give {(*g.output_size, m)}, not {self.output.shape}")
        if self.mult.shape != (m, 1) or self.bias.shape != (m,) or self.gain.shape != (m, 1):
            raise InputError(f"{where} has multipliers, biases or gains of a wrong shape")
        if inputs[0].format.binary and any(map(any, g.pads)):
            raise InputError(f"{where} must not pad binary activations: they have no zero")
        self.check_numbers(self.k[:, None] * inputs[0].format.max_abs)


@dataclass(frozen=True, eq=False)
class _Pool(Unweighted):
    """What poolings share: no weights, a window per channel."""

    kind: ClassVar[str] = ""

    name: str
    input: str
    output: TensorSpec
    geometry: Geometry

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the input tensors."""
        return (self.input,)

    def verify(self, *inputs: TensorSpec) -> None:
        """Raises InputError unless shapes agree."""
        g = self.geometry
        if inputs[0].size != int(np.prod(g.input_shape)):
            raise InputError(f"Layer {self.name!r} must read {g.input_shape}")
        if self.output.shape != (*g.output_size, g.input_shape[2]):
            raise InputError(f"Layer {self.name!r} must give {(*g.output_size, g.input_shape[2])}")


@LAYERS.kind
@dataclass(frozen=True, eq=False)
class MaxPool(_Pool):
    """Largest integer of each window; the output has the input's format and scale.

    Padding never wins: it counts as the format's smallest value.
    """

    kind: ClassVar[str] = "maxpool"

    def compute(self, *x: IntArray) -> IntArray:
        """(frames, ...) -> (frames, rows, columns, channels)."""
        view = self.geometry.windows(np.asarray(x[0]), fill=self.output.format.min)
        return np.asarray(view.max(axis=(4, 5)), dtype=np.int64)

    def verify(self, *inputs: TensorSpec) -> None:
        """Raises InputError unless shapes, formats and scales agree."""
        super().verify(*inputs)
        if (inputs[0].format, inputs[0].scale) != (self.output.format, self.output.scale):
            raise InputError(f"Layer {self.name!r} must keep its input's format and scale")


@LAYERS.kind
@dataclass(frozen=True, eq=False)
class AveragePool(_Pool):
    """Mean of each window, rounded once: ``clamp((sum * mult[count] + half) >> shift)``.

    Parameters
    ----------
    include_pads : bool
        Whether padding counts as zeros.
    mult : tuple of (count, multiplier)
        Per number of values that a position averages: ``scale_in / scale_out / count *
        2**shift``, rounded; unsigned.
    shift : int
    """

    kind: ClassVar[str] = "averagepool"

    include_pads: bool
    mult: tuple[tuple[int, int], ...]
    shift: int

    def sums(self, x: IntArray) -> IntArray:
        """Exact sums of the windows, (frames, rows, columns, channels)."""
        return np.asarray(self.geometry.windows(np.asarray(x)).sum(axis=(4, 5)), dtype=np.int64)

    def multipliers(self) -> IntArray:
        """Multiplier of every position, (rows, columns)."""
        table = dict(self.mult)
        counts = self.geometry.counts(include_pads=self.include_pads)
        return np.vectorize(table.__getitem__, otypes=[np.int64])(counts)

    def compute(self, *x: IntArray) -> IntArray:
        """(frames, ...) -> (frames, rows, columns, channels)."""
        mult = self.multipliers()[:, :, None]
        out = requantize(self.sums(x[0]), mult, 0, self.shift, self.output.format)
        return np.asarray(out, dtype=np.int64)

    def scaling(self, *inputs: TensorSpec) -> list[tuple[float, int]]:
        """What its multipliers are to be, and what they are."""
        return [(inputs[0].scale / max(1, c) / self.output.scale, m) for c, m in self.mult]

    def verify(self, *inputs: TensorSpec) -> None:
        """Raises InputError unless shapes agree and every count has its multiplier."""
        super().verify(*inputs)
        counts = set(np.unique(self.geometry.counts(include_pads=self.include_pads)).tolist())
        if not counts <= {c for c, _ in self.mult} or min(m for _, m in self.mult) < 0:
            raise InputError(f"Layer {self.name!r} must have a multiplier per count {counts}")
        if not 1 <= self.shift <= 48:
            raise InputError(f"Layer {self.name!r}: the shift must be 1 to 48, not {self.shift}")
