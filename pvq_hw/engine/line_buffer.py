"""Specification of a line buffer and the windows that are read from it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import IntFormat
from pvq_hw.documents import Document
from pvq_hw.engine.core import CoreBase
from pvq_hw.errors import InputError
from pvq_hw.geometry import Geometry

__all__ = ["Band", "WindowSpec", "check_window", "make_window"]

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Band:
    """What a row of window positions needs of the map's rows.

    Parameters
    ----------
    low : int
        First row of the map that is still needed, within the map.
    span : int
        Rows from ``low`` to the last one that is needed, less one.
    release : int
        Rows that nothing needs any more after it.
    """

    low: int
    span: int
    release: int


@dataclass(frozen=True)
class WindowSpec(Document):
    """A circular buffer of some rows of a map, and the order in which windows are read from it.

    A map comes in channel-last order, some activations a transfer, and is kept in words of
    ``width`` channels. Windows leave in the order of their positions. In ``"pixel"`` order a
    window is one unit of kernel rows, kernel columns and words of channels, the last ones
    fastest; in ``"channel"`` order a window is as many units as there are channels, one
    channel's kernel rows and columns each.

    Parameters
    ----------
    geometry : Geometry
    x : IntFormat
    width : int
        W: activations of a word; divides the channels; 1 in channel order.
    rows : int
        Rows of the map that are kept: at least `least_rows`. With a stride more than that the
        map comes in while windows are read.
    order : str
        ``"pixel"`` or ``"channel"``.
    pad : int
        Value of the activations outside of the map.
    memory : str
        ``"block"`` or ``"logic"``.
    latency : int
        Of the memory, 1 or 2 cycles.
    side : int
        V: neighbors in a row of positions that are read at once, see `segment`; only in pixel
        order.
    taken : int
        Activations a transfer; divides ``width``.
    """

    geometry: Geometry
    x: IntFormat
    width: int
    rows: int
    order: str = "pixel"
    pad: int = 0
    memory: str = "block"
    latency: int = 2
    side: int = 1
    taken: int = 1

    def __post_init__(self) -> None:
        channels = self.geometry.input_shape[2]
        if self.order not in ("pixel", "channel"):
            raise InputError(f"Window order must be pixel or channel, not {self.order!r}")
        if self.width < 1 or channels % self.width:
            raise InputError(f"Window width must divide {channels} channels, not {self.width}")
        if self.taken < 1 or self.width % self.taken:
            raise InputError(
                f"Activations a transfer must divide the window width {self.width}, "
                f"not {self.taken}"
            )
        if self.order == "channel" and self.width != 1:
            raise InputError(f"Window width must be 1 in channel order, not {self.width}")
        if self.rows < self.least_rows:
            raise InputError(f"Window rows must be at least {self.least_rows}, not {self.rows}")
        if self.memory not in ("block", "logic") or self.latency not in (1, 2):
            raise InputError("Window memory must be block or logic with a latency of 1 or 2")
        columns = self.geometry.output_size[1]
        if not 1 <= self.side <= columns or (self.side > 1 and self.order != "pixel"):
            raise InputError(
                f"Windows side by side must be 1 to {columns}, a row of the map, not {self.side}"
            )
        padded = any(map(any, self.geometry.pads))
        if not self.x.contains(self.pad) and (padded or self.pad != 0):
            raise InputError(f"Window padding must be an activation, not {self.pad}")

    # -- V windows --------------------------------------------------------------------------

    @cached_property
    def segment(self) -> "WindowSpec":
        """What is read of the map in one go: a window, or all columns from the first to the last
        that V neighbors have, each once. Of a row's last windows, which may be fewer than V, the
        others are read too; they lie in the padding."""
        if self.side == 1:
            return self
        g, v = self.geometry, self.side
        (kernel, step), stride = (g.kernel[0], g.stride[0]), v * g.stride[1]
        reach = g.span[1] + (v - 1) * g.stride[1]
        left = g.pads[1][0]
        right = max(0, (self.groups - 1) * stride + reach - left - g.input_shape[1])
        read = Geometry(
            g.input_shape,
            (kernel, reach),
            (step, stride),
            (g.pads[0], (left, right)),
            (g.dilation[0], 1),
        )
        return self.reading(read)

    def reading(self, geometry: Geometry) -> "WindowSpec":
        """The same buffer, read in other units, one at a time. These may reach beyond a map without
        padding, for no window: any activation stands there where there is no zero."""
        pad = self.pad if self.x.contains(self.pad) else self.x.limits[0]
        return replace(self, geometry=geometry, side=1, pad=pad)

    @property
    def groups(self) -> int:
        """Times that V windows are read in a row of positions."""
        return -(-self.geometry.output_size[1] // self.side)

    def parts(self) -> tuple[int, ...]:
        """The windows that each column of a segment belongs to, as bits."""
        g = self.geometry
        taps = range(0, g.span[1], g.dilation[1])
        reach = g.span[1] + (self.side - 1) * g.stride[1]
        return tuple(
            sum((j - v * g.stride[1] in taps) << v for v in range(self.side)) for j in range(reach)
        )

    # -- sizes ------------------------------------------------------------------------------

    @property
    def pixel_words(self) -> int:
        """Words of a pixel."""
        return self.geometry.input_shape[2] // self.width

    @property
    def row_words(self) -> int:
        """Words of a row of the map."""
        return self.geometry.input_shape[1] * self.pixel_words

    @property
    def depth(self) -> int:
        """Words of the memory."""
        return self.rows * self.row_words

    @property
    def phases(self) -> int:
        """Units of a window."""
        return self.pixel_words if self.order == "channel" else 1

    @property
    def unit_words(self) -> int:
        """Words of a unit, which is cycles to read it."""
        taps = self.geometry.kernel[0] * self.geometry.kernel[1]
        return taps if self.order == "channel" else taps * self.pixel_words

    @property
    def units(self) -> int:
        """Units of a frame."""
        h, w = self.geometry.output_size
        return h * w * self.phases

    @property
    def read_delay(self) -> int:
        """Cycles from the step that reads a word to the word."""
        return 1 + self.latency

    @property
    def least_rows(self) -> int:
        """The fewest rows with which every window can be read."""
        return max(band.span for band in self.bands()) + 1

    def bands(self) -> tuple[Band, ...]:
        """What every row of positions needs, from the top."""
        g = self.geometry
        return _bands(g.input_shape[0], g.output_size[0], g.stride[0], g.pads[0][0], g.span[0])

    def rights(self) -> tuple[int, ...]:
        """The last column of the map that each column of positions needs; negative where it needs
        none, beyond the map where it needs all."""
        g = self.geometry
        first = g.span[1] - 1 - g.pads[1][0]
        return tuple(first + x * g.stride[1] for x in range(g.output_size[1]))

    # -- golden model -----------------------------------------------------------------------

    def compute(self, x: npt.ArrayLike) -> IntArray:
        """Maps (frames, ...) -> words (frames, units, unit_words, W), in the order of leaving."""
        array = np.asarray(x, dtype=np.int64)
        view = self.geometry.windows(array, fill=self.pad)
        order = (0, 1, 2, 3, 4, 5) if self.order == "channel" else (0, 1, 2, 4, 5, 3)
        flat = np.ascontiguousarray(view.transpose(order))
        return flat.reshape(len(array), self.units, self.unit_words, self.width)


@lru_cache(maxsize=4096)
def _bands(height: int, positions: int, stride: int, top: int, span: int) -> tuple[Band, ...]:
    """What rows of positions need of a map's rows; ``top`` rows of padding stand above it."""
    tops = [y * stride - top for y in range(positions)]
    low = [min(max(first, 0), height - 1) for first in tops]
    high = [min(max(first + span - 1, 0), height - 1) for first in tops]
    after = [*low[1:], height]
    return tuple(Band(a, b - a, c - a) for a, b, c in zip(low, high, after, strict=True))


def check_window(core: CoreBase, window: WindowSpec) -> None:
    """Raises InputError unless the core's frames are the windows."""
    where = f"Core {core.name!r}"
    if core.maps is not None:
        raise InputError(f"{where} must have no window: it takes maps")
    if window.order != "pixel" or core.x != window.x:
        raise InputError(f"{where} must take windows of its own format, one at a time")
    columns = window.geometry.output_size[1] if window.side > 1 else 0
    if (core.frames, core.row_windows) != (window.side, columns):
        raise InputError(f"{where} must take as many windows side by side as are read")
    if core.n != window.unit_words * window.width:
        raise InputError(f"{where} must have a column per activation of its window")
    if core.lanes % window.width:
        raise InputError(f"{where} must have lanes in multiples of {window.width}")


def make_window(
    geometry: Geometry,
    x: IntFormat,
    lanes: int,
    *,
    latency: int = 2,
    memory: str = "block",
    rows: int | None = None,
    side: int = 1,
    taken: int = 1,
) -> WindowSpec:
    """The windows of a convolution on ``lanes`` lanes, ``side`` of them side by side: the widest
    words, rows to read ahead; ``taken`` activations a transfer, or as many as suit the words."""
    width = max(_common(geometry.input_shape[2], lanes))
    most = max(geometry.span[0], 1) + geometry.stride[0]
    least = WindowSpec(geometry, x, 1, most, latency=latency, memory=memory).least_rows
    if rows is None:
        rows = least + min(geometry.stride[0], geometry.input_shape[0])
    taken = max(_common(taken, width))
    return WindowSpec(
        geometry, x, width, rows, latency=latency, memory=memory, side=side, taken=taken
    )


def _common(a: int, b: int) -> Iterator[int]:
    return (d for d in range(1, min(a, b) + 1) if a % d == 0 and b % d == 0)
