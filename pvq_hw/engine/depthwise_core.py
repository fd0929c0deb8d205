"""Specification of a depthwise convolution's core: one channel's window a cycle.

A row of a depthwise convolution has weights for its own channel alone. Activations come one a
cycle, channels fastest, so the windows of a pixel's channels come one after the other too. All taps
of a row are multiplied at once, bit by bit of their magnitudes, and a row's weights are one word.

How windows come to be: `pvq_hw.engine.raster`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import IntFormat, bits_for
from pvq_hw.engine.core import (
    CORES,
    CoreBase,
    CoreImage,
    IntArray,
    core_fields,
    core_image,
    core_multiplier,
)
from pvq_hw.engine.raster import Raster, raster_refusal
from pvq_hw.errors import InputError
from pvq_hw.geometry import Geometry
from pvq_hw.network.layer import Dense, TensorSpec
from pvq_hw.target.families import Family
from pvq_hw.target.families import family as find_family

__all__ = [
    "DepthwiseSpec",
    "depthwise_cycles",
    "make_depthwise_core",
    "refusal",
    "tap_weights",
]

_MOST_BITS = 8  # of a magnitude
_SMALL_BITS = 512  # memories up to this size become logic where there is distributed RAM
_KINDS = ("queue_memory", "lines_memory", "columns_memory")


@CORES.kind
@dataclass(frozen=True, kw_only=True)
class DepthwiseSpec(CoreBase):
    """Numbers of a depthwise core; validated when made. What is not said here: `CoreBase`.

    ``n`` is that of the layer's window, all channels of it; ``rows`` are a multiple of the
    channels, of which each has as many rows, one after the other.

    Parameters
    ----------
    geometry : Geometry
        Undilated, with less padding than the kernel is wide and high.
    magnitudes : tuple of int
        Of every tap, kernel row by kernel row, the bits of its largest ``|y|``; 0 where no row has
        a weight. A row's word has these bits and a sign for each, the first tap lowest.
    queue_memory, lines_memory, columns_memory : str
        ``"block"`` or ``"logic"``: of the activations that wait, the rows above, and the columns
        to the left. Of so few words that one would be read again before it is written, the last
        two are shift registers.
    """

    kind: ClassVar[str] = "depthwise"
    engine: ClassVar[str] = "depthwise"
    serial_too: ClassVar[bool] = True
    weight_memory: ClassVar[str] = "weights"
    code_memories: ClassVar[tuple[str, ...]] = ("block",)

    geometry: Geometry
    magnitudes: tuple[int, ...]
    queue_memory: str = "block"
    lines_memory: str = "block"
    columns_memory: str = "block"

    def __post_init__(self) -> None:
        self.check_ranges(_RANGES)
        super().__post_init__()
        where = f"Core {self.name!r}"
        reason = refusal(self.geometry, self.channels, self.rows, self.x)
        if reason:
            raise InputError(f"{where} must be folded: {reason}")
        if self.n != self.taps * self.channels or len(self.magnitudes) != self.taps:
            raise InputError(f"{where} must have a column for each activation of its window")
        if not all(0 <= bits <= _MOST_BITS for bits in self.magnitudes):
            raise InputError(f"{where}: magnitudes must have 0 to {_MOST_BITS} bits")
        if self.code_latency != self.bank_latency:
            raise InputError(f"{where}: code_latency must be bank_latency, {self.bank_latency}")
        if any(getattr(self, key) not in ("block", "logic") for key in _KINDS):
            raise InputError(f"{where}: memories must be block or logic")

    # -- shapes -----------------------------------------------------------------------------

    @property
    def channels(self) -> int:
        """C."""
        return self.geometry.input_shape[2]

    @property
    def taps(self) -> int:
        """Weights of a row."""
        return self.geometry.kernel[0] * self.geometry.kernel[1]

    @property
    def lanes(self) -> int:
        """All taps of a row."""
        return self.taps

    @property
    def how(self) -> str:
        """How it computes, for people."""
        return f"depthwise, a row's {self.taps} weights in a word"

    @property
    def each(self) -> int:
        """Rows of a channel."""
        return self.rows // self.channels

    @property
    def words(self) -> int:
        """Words of weights, one a row."""
        return self.rows

    @property
    def word_bits(self) -> int:
        """Width of a row's word."""
        return max(1, sum(bits + 1 for bits in self.magnitudes if bits))

    @property
    def planes(self) -> int:
        """Bits of the largest magnitude."""
        return max(self.magnitudes)

    @property
    def maps(self) -> Geometry:
        """How windows slide over the maps that are the core's frames."""
        return self.geometry

    @property
    def raster(self) -> Raster:
        """How its windows come to be."""
        return Raster(
            self.geometry,
            self.x,
            each=self.each,
            latency=self.bank_latency,
            queue_memory=self.queue_memory,
            lines_memory=self.lines_memory,
            columns_memory=self.columns_memory,
        )

    @property
    def frame_cycles(self) -> int:
        """Cycles between two maps while nothing waits."""
        return depthwise_cycles(self.geometry, self.rows)

    @property
    def address_bits(self) -> int:
        """Bits of a channel's number."""
        return max(1, (self.channels - 1).bit_length())

    @property
    def bank_words(self) -> int:
        """Depth of the memory of columns."""
        return self.channels

    @property
    def credits(self) -> int:
        """Places that results claim as their windows are read: all of the FIFO's."""
        return self.fifo_depth

    @property
    def leaf_bits(self) -> int:
        """Bits of a leaf, signed: an unsigned activation gets a sign."""
        return self.x.bits + (not self.x.signed)

    # -- latencies in cycles, after the cycle in which a window's addresses are given ------------

    @property
    def tree_levels(self) -> int:
        """Registered levels of the planes' adder trees."""
        return max(0, sum(bits > 0 for bits in self.magnitudes) - 1).bit_length()

    @property
    def plane_levels(self) -> int:
        """Registered levels of the sum of the planes."""
        return max(0, self.planes - 1).bit_length()

    @property
    def sum_stage(self) -> int:
        """When a window's sum is there."""
        return self.bank_latency + 1 + self.tree_levels + self.plane_levels

    @property
    def row_stage(self) -> int:
        """When the sum is at the multiplier's operand."""
        return max(self.sum_stage, self.params_latency)

    # -- golden model -----------------------------------------------------------------------

    def compute(self, image: CoreImage, x: npt.ArrayLike) -> IntArray:
        """Exact model from the memory contents: maps (frames, ...) -> (frames, positions * rows),
        rows fastest."""
        array = np.asarray(x, dtype=np.int64)
        y = self._rows(image)
        windows = self.geometry.windows(array.reshape(len(array), -1))
        windows = windows.reshape(len(array), -1, self.channels, self.taps)
        acc = np.einsum("fpct,cjt->fpcj", windows, y.reshape(self.channels, self.each, self.taps))
        acc = acc.reshape(len(array), -1, self.rows) - _negatives(y)
        total = acc * self.multipliers(image)[:, 0] + np.array(image.bias, dtype=np.int64)
        return np.asarray(self.out.clamp(total >> self.shift), dtype=np.int64).reshape(
            len(array), -1
        )

    def decode(self, image: CoreImage) -> IntArray:
        """The weights (rows, n) of the image's words; raises InputError on broken ones."""
        full = np.zeros((self.rows, self.taps, self.channels), dtype=np.int64)
        channel = np.arange(self.rows) // self.each
        full[np.arange(self.rows), :, channel] = self._rows(image)
        return full.reshape(self.rows, self.n)

    def _rows(self, image: CoreImage) -> IntArray:
        """The weights (rows, taps) of the image's words; raises InputError on broken ones."""
        where = f"Core {self.name!r}"
        self.check_words(image)
        y = np.zeros((self.rows, self.taps), dtype=np.int64)
        for row, word in enumerate(image.codes):
            for tap, bits in enumerate(self.magnitudes):
                size = word & ((1 << bits) - 1)
                negative = bits and word >> bits & 1
                if negative and not size:
                    raise InputError(f"{where}: weights of 0 must have no sign")
                y[row, tap] = -size if negative else size
                word >>= bits + 1 if bits else 0
            if word:
                raise InputError(f"{where}: words must have {self.word_bits} bits")
        return y

    def row_slots(self, image: CoreImage) -> tuple[int, ...]:
        """Words of every row."""
        return (1,) * self.rows


_RANGES = (
    ("groups", 1, 1),
    ("frames", 1, 1),
    ("in_width", 1, 1),
    ("out_width", 1, 1),
    ("flush_cycles", 0, 0),
    ("multiplier_interval", 1, 1),
)


def refusal(geometry: Geometry, groups: int, rows: int, x: IntFormat, most: int = 0) -> str:
    """Why a convolution can't be computed one channel's window a cycle; empty where it can.

    Parameters
    ----------
    geometry : Geometry
    groups, rows : int
        Of the convolution.
    x : IntFormat
        Its input's.
    most : int
        Largest ``|y|``, where it is known.
    """
    channels = geometry.input_shape[2]
    if groups != channels or rows % channels:
        return "its rows have weights for more than one channel"
    if reason := raster_refusal(geometry, x):
        return reason
    if most >> _MOST_BITS:
        return f"it has weights of more than {_MOST_BITS} bits"
    return ""


def depthwise_cycles(geometry: Geometry, rows: int) -> int:
    """Cycles of a map while nothing waits: one for each activation, and for each further row of a
    channel at a position."""
    height, width, channels = geometry.input_shape
    positions = int(np.prod(geometry.output_size))
    return channels * height * width + (rows - channels) * positions


def tap_weights(y: IntArray, channels: int) -> IntArray:
    """A depthwise layer's weights (rows, n) as (rows, taps), of a row's own channel."""
    rows, n = y.shape
    split = y.reshape(rows, n // channels, channels)
    channel = np.arange(rows) // (rows // channels)
    return np.asarray(split[np.arange(rows), :, channel], dtype=np.int64)


def _negatives(y: IntArray) -> IntArray:
    """Sum of the magnitudes of a row's negative weights: they add ``~x``, which is ``-x - 1``."""
    return np.asarray(np.maximum(-y, 0).sum(axis=1), dtype=np.int64)


def _words(y: IntArray, magnitudes: Sequence[int]) -> tuple[int, ...]:
    words = []
    for row in y.tolist():
        word = place = 0
        for value, bits in zip(row, magnitudes, strict=True):
            if bits:
                word |= (abs(value) | (value < 0) << bits) << place
                place += bits + 1
        words.append(word)
    return tuple(words)


def make_depthwise_core(
    layer: Dense,
    x: TensorSpec,
    geometry: Geometry,
    *,
    family: str = "ecp5",
    name: str | None = None,
    **options: Any,
) -> tuple[DepthwiseSpec, CoreImage]:
    """Specification and contents of a depthwise convolution's core; pulses and 8-bit weights alike.

    Parameters
    ----------
    layer : Dense
        One window position of the convolution, all channels' columns.
    x : TensorSpec
        Its input, a window.
    geometry : Geometry
        Of the convolution.
    family : str
        Key of `pvq_hw.target.families.FAMILIES`; sets latencies, carry chunks and multiplier.
    name : str, optional
        Stem of the memory files; the layer's name by default, reduced to letters and digits.
    **options
        Fields of `DepthwiseSpec` to set otherwise.

    Raises
    ------
    InputError
        The layer must be folded; the line says why.
    """
    fields = core_fields(layer, x, family, name)
    rows, n = layer.y.shape
    device = find_family(family)
    channels = geometry.input_shape[2]
    most = int(np.abs(layer.y).max(initial=0))
    y = tap_weights(layer.y, channels) if rows % channels == 0 == n % channels else layer.y
    groups = channels if np.abs(y).sum() == np.abs(layer.y).sum() else 1
    reason = refusal(geometry, groups, rows, x.format, most)
    if layer.groups != 1:
        reason = "it has several gains a row"
    if reason:
        raise InputError(f"Layer {layer.name!r} can't be computed channel by channel: {reason}")
    magnitudes = tuple(int(v).bit_length() for v in np.abs(y).max(axis=0))
    mult = layer.mult[:, 0]
    bias = layer.bias + (1 << (layer.shift - 1)) + mult * _negatives(y)
    spec = DepthwiseSpec(
        **fields,
        **core_multiplier(layer, family),
        geometry=geometry,
        magnitudes=magnitudes,
        code_latency=device.bank_latency,
        bank_latency=device.bank_latency,
        **_widths(layer, y, x.format, bias),
    )
    spec = replace(spec, **_memories(spec, device))
    spec = replace(spec, **options)
    if "fifo_depth" not in options:
        # A row claims its place when its window is read, and gives it back when its result leaves.
        spec = replace(spec, fifo_depth=max(16, 1 << (spec.output_delay + 1).bit_length()))
    return spec, core_image(_words(y, magnitudes), mult, bias)


def _memories(spec: DepthwiseSpec, device: Family) -> dict[str, Any]:
    most = _SMALL_BITS if device.lutram else _SMALL_BITS // 4
    raster = spec.raster
    queue = spec.x.bits, raster.queue_depth
    sizes = [w * d for w, d in (queue, raster.lines, raster.columns)]
    return {
        key: "logic" if size <= most else "block" for key, size in zip(_KINDS, sizes, strict=True)
    }


def _widths(layer: Dense, y: IntArray, x: IntFormat, bias: IntArray) -> dict[str, Any]:
    """Widths by their bounds: outside of the map there is 0, and negative weights add ``~x``."""
    low, high = min(x.limits[0], 0), max(x.limits[1], 0)
    plus, minus = np.maximum(y, 0).sum(axis=1), _negatives(y)
    least, most = plus * low - minus * (high + 1), plus * high - minus * (low + 1)
    mult = layer.mult[:, 0]
    sums = np.concatenate((least, most)) * np.tile(mult, 2) + np.tile(bias, 2)
    return {
        "acc_bits": max(2, bits_for(min(int(least.min()), -1), int(most.max()))),
        "bias_bits": bits_for(min(int(bias.min()), -1), int(bias.max())),
        "sum_bits": max(
            bits_for(min(int(sums.min()), int(bias.min()), -1), int(max(sums.max(), bias.max()))),
            layer.shift + layer.output.format.bits + 1,
        ),
    }
