"""A shared engine whose activations are maps in memories of their own: convolutions too.

Two memories hold the map that a layer reads and the one that it writes, and change their parts from
layer to layer. A word has two channels of a pixel. For every position the window is fetched into a
half of the lanes' banks, while the position before is computed from the other half.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from pvq_hw.engine.core import CORES, CoreImage, IntArray
from pvq_hw.engine.pulse_code import PulseCode
from pvq_hw.engine.pulse_core import CoreSpec, sums_of_pulses
from pvq_hw.engine.shared_core import SharedLayer, SharedSpec, share_layers
from pvq_hw.errors import InputError
from pvq_hw.geometry import Geometry
from pvq_hw.network.layer import Dense, TensorSpec

__all__ = [
    "MapLayer",
    "MapSpec",
    "MapWindow",
    "make_map_core",
    "make_map_spec",
    "paired",
    "window_layer",
]

_PAIR = 2  # channels of a word
_SPRAM_WORDS, _SPRAM_BITS = 1 << 14, 8
_MOST_WORDS = 1 << 16  # of a map


@dataclass(frozen=True)
class MapLayer(SharedLayer):
    """One layer of an engine with maps; ``n`` counts the columns of a window as it is in the banks,
    with a channel of zeros where there is an odd number.

    Parameters
    ----------
    geometry : Geometry
        Of its windows; a dense layer has one, of the whole map.
    chunk : int
        0, or channels of a window where it doesn't have all: the windows of a position are then
        those of some channels after the others.
    parts : int
        How many chunks have rows of their own, which is all of them where rows read some channels
        only. 1 of the average of a whole map, whose chunks share codes and rows and are counted
        as positions.
    """

    geometry: Geometry
    chunk: int = 0
    parts: int = 1

    @property
    def places(self) -> tuple[int, int]:
        """Rows and columns of windows."""
        if self.chunk and self.parts == 1:
            return 1, self.geometry.input_shape[2] // self.chunk
        return self.geometry.output_size

    @property
    def positions(self) -> int:
        """Times that all rows are computed."""
        return math.prod(self.places)

    @property
    def divides(self) -> bool:
        """Whether its chunks divide the channels, and rows and words the chunks that have their
        own, or a map that is one window."""
        g, channels = self.geometry, self.geometry.input_shape[2]
        if not self.chunk:
            return self.parts == 1
        even = self.chunk % _PAIR == 0 and channels % self.chunk == 0
        whole = g.kernel == g.input_shape[:2] and g.output_size == (1, 1)
        own = self.parts * self.chunk == channels and self.rows % self.parts == 0
        return even and self.words % self.parts == 0 and (whole if self.parts == 1 else own)

    @property
    def window_cycles(self) -> int:
        """Slot words of a window."""
        return self.words // self.parts

    @property
    def window_words(self) -> int:
        """Words of a pixel that a window has."""
        return self.chunk // _PAIR or self.pixel_words

    @property
    def results(self) -> int:
        """Activations that it gives in a frame."""
        return self.positions * self.rows

    @property
    def pixel_words(self) -> int:
        """Words of a pixel of the map that it reads."""
        return -(-self.geometry.input_shape[2] // _PAIR)

    @property
    def map_words(self) -> int:
        """Words of the map that it reads."""
        height, width, _ = self.geometry.input_shape
        return height * width * self.pixel_words

    @property
    def fetched(self) -> int:
        """Words of a window."""
        kernel = self.geometry.kernel
        return kernel[0] * kernel[1] * self.window_words


def paired(channels: int) -> int:
    """Channels with those of zeros that fill a word."""
    return channels + channels % _PAIR


@CORES.kind
@dataclass(frozen=True, kw_only=True)
class MapSpec(SharedSpec):
    """Numbers of an engine of several layers with maps; what is not said here: `SharedSpec`.

    ``n`` are the activations of a frame. The last layer has one position.

    Parameters
    ----------
    layers : tuple of MapLayer
    map_memory : str
        ``"block"`` or ``"spram"``.
    """

    kind: ClassVar[str] = "maps"

    layers: tuple[MapLayer, ...]  # type: ignore[assignment]
    map_memory: str = "block"

    def _check_chain(self, where: str) -> None:
        first, last = self.layers[0], self.layers[-1]
        if (self.n, self.x) != (int(np.prod(first.geometry.input_shape)), first.x):
            raise InputError(f"{where} must take what its first layer takes")
        if (last.positions, last.parts) != (1, 1):
            raise InputError(f"{where}: layer {last.name!r}, its last, must have one position")
        for before, layer in pairwise(self.layers):
            given = before.positions * before.rows
            read = int(np.prod(layer.geometry.input_shape))
            if (given, before.out) != (read, layer.x):
                raise InputError(f"{where}: layer {layer.name!r} must take what is before it")
        for layer in self.layers:
            g = layer.geometry
            if layer.n != _PAIR * layer.fetched or not layer.divides:
                raise InputError(f"{where}: layer {layer.name!r} must have the columns of a window")
            if g.dilation != (1, 1):
                raise InputError(f"{where}: layer {layer.name!r} must not be dilated")
            if layer.map_words > _MOST_WORDS:
                raise InputError(f"{where}: layer {layer.name!r} must read a smaller map")
        if self.lanes % _PAIR:
            raise InputError(f"{where} must have an even number of lanes, not {self.lanes}")
        if self.map_memory not in ("block", "spram"):
            raise InputError(f"{where}: map_memory must be block or spram")
        if self.map_memory == "spram":
            if self.code_memory != "spram":
                raise InputError(f"{where} must have its codes in SPRAM where its maps are")
            if not self.fits_spram:
                raise InputError(f"{where} must have maps of {_SPRAM_WORDS:,} words of two bytes")

    # -- shapes -----------------------------------------------------------------------------

    @property
    def fits_spram(self) -> bool:
        """Whether each of its maps fits into an SPRAM."""
        return self.bank_bits <= _SPRAM_BITS and self.map_depth <= _SPRAM_WORDS

    @property
    def map_depth(self) -> int:
        """Words of each of the two memories."""
        return max(layer.map_words for layer in self.layers)

    @property
    def map_bits(self) -> int:
        """Width of a word of a map."""
        return _PAIR * self.bank_bits

    @property
    def regions(self) -> int:
        """Halves of a bank."""
        return 2

    def region(self, number: int) -> int:
        """The memory that layer ``number`` reads."""
        return number % 2

    @property
    def bank_words(self) -> int:
        """Depth of a bank's memory, both halves."""
        most = max(self.code.bank_depth(layer.n) for layer in self.layers)
        return (1 << self.address_bits) + most

    # -- program ----------------------------------------------------------------------------

    @property
    def program_fields(self) -> dict[str, int]:
        """As `SharedSpec.program_fields`, and how the windows go over the map.

        ``start`` and ``row`` are the first slot word and the first row; ``first`` is the address of
        the first window's first pixel; ``down`` the words from one row of the map to the next,
        ``across`` those from a pixel's last word to the next pixel's first, ``right`` and ``below``
        those from one position to the next in a row and in a column; ``x`` and ``y`` the first
        window's place (signed), ``step_x`` and ``step_y`` the stride; the rest are the last numbers
        of what they count.
        """
        g = [layer.geometry for layer in self.layers]
        edge = max(max(x.input_shape[:2]) for x in g).bit_length()
        # A window begins before the map, and its last tap may be as far behind it.
        sign = 1 + max(max(x.input_shape[:2]) + max(x.pads[0] + x.pads[1]) for x in g).bit_length()
        sizes = [max(layer.places) for layer in self.layers]
        return {
            **super().program_fields,
            "start": max(1, (self.words - 1).bit_length()),
            "row": max(1, (self.all_rows - 1).bit_length()),
            "first": self.map_address_bits,
            "down": self.map_address_bits,
            "right": self.map_address_bits,
            "below": self.map_address_bits,
            "x": sign,
            "y": sign,
            "width": edge,
            "height": edge,
            "step_x": max(x.stride[1] for x in g).bit_length(),
            "step_y": max(x.stride[0] for x in g).bit_length(),
            "across": max(1, max(x.pixel_words for x in self.layers).bit_length()),
            "parts": max(1, max(x.parts - 1 for x in self.layers).bit_length()),
            "words": max(1, max(x.window_words - 1 for x in self.layers).bit_length()),
            "taps": max(1, max(x.kernel[1] - 1 for x in g).bit_length()),
            "lines": max(1, max(x.kernel[0] - 1 for x in g).bit_length()),
            "columns": max(1, max(sizes).bit_length()),
            "rows": max(1, max(sizes).bit_length()),
        }

    @property
    def map_address_bits(self) -> int:
        """Bits of an address of a map; addresses before the first word wrap."""
        return max(1, (self.map_depth - 1).bit_length())

    def steps(self) -> list[dict[str, int]]:
        """The program: the fields of every layer's word."""
        found, start, row = [], 0, 0
        for layer, step in zip(self.layers, super().steps(), strict=True):
            g, words = layer.geometry, layer.pixel_words
            (top, _), (left, _) = g.pads
            down, places = g.input_shape[1] * words, layer.places
            # Positions of a map that is one window are its chunks.
            chunks = layer.chunk > 0 and layer.parts == 1
            right = layer.chunk // _PAIR if chunks else g.stride[1] * words
            fields = {
                "start": start, "row": row, "first": -top * down - left * words, "down": down,
                "right": right, "below": g.stride[0] * down, "x": -left, "y": -top,
                "width": g.input_shape[1], "height": g.input_shape[0],
                "step_x": 0 if chunks else g.stride[1], "step_y": g.stride[0],
                "across": words - layer.window_words + 1, "words": layer.window_words - 1,
                "taps": g.kernel[1] - 1, "lines": g.kernel[0] - 1,
                "columns": places[1] - 1, "rows": places[0] - 1, "parts": layer.parts - 1,
                "before": max(0, layer.window_cycles - 2),
                "single": int(layer.window_cycles == 1),
            }  # fmt: skip
            bits = self.program_fields
            found.append(step | {k: v & ((1 << bits[k]) - 1) for k, v in fields.items()})
            start, row = start + layer.words, row + layer.rows
        return found

    # -- cycles -----------------------------------------------------------------------------

    @property
    def turn_cycles(self) -> int:
        """From a layer's last word to the start of the next one's first window."""
        return self.result_stage + 2

    @property
    def frame_cycles(self) -> int:
        """Cycles of a frame while results don't wait, its coming in included."""
        now = self.n + 1
        for layer in self.layers:
            now = self.windows(layer, now)[-1] + self.turn_cycles
        return now

    def windows(self, layer: MapLayer, start: int) -> list[int]:
        """When the last word of every window is read, for a layer that starts then."""
        ends: list[int] = []
        hold = start + 2
        for number in range(layer.positions * layer.parts):
            done = self.fetch(layer, hold, ends, number)
            hold = done + 3
            ends.append(max(done + 2, ends[-1] + 1 if ends else 0) + layer.window_cycles - 1)
        return ends

    def fetch(self, layer: MapLayer, hold: int, ends: Sequence[int], number: int) -> int:
        """When the last word of a window is fetched that could be begun after ``hold``; it takes
        the half of the window before the last, which must be through."""
        free = ends[number - 2] + self.code_latency + 1 if number >= 2 else 0
        return max(hold, free) + layer.fetched

    # -- golden model -----------------------------------------------------------------------

    def trace(self, image: CoreImage, x: npt.ArrayLike) -> dict[str, IntArray]:
        """What every layer gives, (frames, positions * rows) by its name, from the memory contents
        alone."""
        array = np.asarray(x, dtype=np.int64)
        value: npt.NDArray[Any] = array.reshape(len(array), -1)
        found = {}
        for layer, part in zip(self.layers, self.parts(image), strict=True):
            y = self.code.decode(part.codes, (layer.rows, layer.n))
            negatives, _ = sums_of_pulses(self.code, part.codes)
            windows = _windows(value, layer)
            sums = windows @ y.reshape(layer.parts, -1, layer.n).transpose(0, 2, 1)
            acc = sums.reshape(len(array), layer.positions, layer.rows) - negatives
            total = acc * np.array(part.mult) + np.array(part.bias)
            out = np.asarray(layer.out.clamp(total >> layer.shift), dtype=np.int64)
            found[layer.name] = value = out.reshape(len(array), -1)
        return found


def _windows(x: npt.NDArray[Any], layer: MapLayer) -> IntArray:
    """(frames, ...) -> (frames, positions, parts, 1, columns of a window as it is in the banks)."""
    geometry, chunk, shape = layer.geometry, layer.chunk, (len(x), layer.positions, layer.parts, 1)
    if chunk and layer.parts == 1:
        split = x.reshape(len(x), -1, layer.positions, chunk)
        return np.asarray(split.transpose(0, 2, 1, 3).reshape(*shape, -1))
    if chunk:
        taps = geometry.kernel[0] * geometry.kernel[1]
        split = geometry.columns(x)[0].reshape(len(x), layer.positions, taps, layer.parts, chunk)
        return np.asarray(split.transpose(0, 1, 3, 2, 4).reshape(*shape, -1))
    h, w, c = geometry.input_shape
    maps: npt.NDArray[Any] = np.pad(
        x.reshape(len(x), h, w, c), ((0, 0), (0, 0), (0, 0), (0, c % _PAIR))
    )
    wide = replace(geometry, input_shape=(h, w, paired(c)))
    columns = wide.columns(maps)[0]
    return np.asarray(columns.reshape(*shape, -1))


@dataclass(frozen=True, eq=False)
class MapWindow:
    """A layer as an engine with maps computes it.

    Parameters
    ----------
    dense : Dense
        Of one window, with a channel of zeros where there is an odd number of them.
    x : TensorSpec
        The window.
    geometry : Geometry
        How windows go over the map.
    weights : int
        Of the network's layer; 0 of a pooling.
    chunk, parts : int
        As `MapLayer` has them.
    """

    dense: Dense
    x: TensorSpec
    geometry: Geometry
    weights: int
    chunk: int = 0
    parts: int = 1


def window_layer(window: MapWindow) -> MapWindow:
    """A layer's window with a channel of zeros where it has an odd number."""
    layer, x, geometry = window.dense, window.x, window.geometry
    channels = window.chunk or geometry.input_shape[2]
    taps = geometry.kernel[0] * geometry.kernel[1]
    split = layer.y.reshape(len(layer.y), taps, channels)
    split = np.pad(split, ((0, 0), (0, 0), (0, channels % _PAIR)))
    y = split.reshape(len(split), -1)
    dense, wide = replace(layer, y=y), replace(x, shape=(y.shape[1],))
    return replace(window, dense=dense, x=wide)


def make_map_core(
    layers: Sequence[MapWindow],
    lanes: int,
    *,
    map_memory: str = "block",
    **options: Any,
) -> tuple[MapSpec, CoreImage]:
    """Specification and contents of an engine of several layers with maps.

    Parameters
    ----------
    layers : sequence of MapWindow
        As `window_layer` gives them.
    lanes : int
        P, even.
    **options
        As `pvq_hw.engine.shared_core.make_shared_core` takes them.
    """

    def make(described: Sequence[SharedLayer], **fields: Any) -> MapSpec:
        found = []
        for layer, window in zip(described, layers, strict=True):
            own = vars(layer) | {
                "geometry": window.geometry, "weights": window.weights, "chunk": window.chunk,
                "parts": window.parts,
            }  # fmt: skip
            found.append(MapLayer(**(own if window.weights else own | {"pulses": 0})))
        return make_map_spec(found, map_memory=map_memory, **fields)

    def even(number: int, core: CoreSpec, image: CoreImage) -> tuple[CoreSpec, CoreImage]:
        return _even_parts(core, image, layers[number].parts)

    pairs = [(layer.dense, layer.x) for layer in layers]
    return share_layers(pairs, lanes, make, adjust=even, **options)


def _even_parts(core: CoreSpec, image: CoreImage, parts: int) -> tuple[CoreSpec, CoreImage]:
    """As many words for each part of a layer's rows: idle ones follow the last row's."""
    if parts == 1:
        return core, image
    slots = np.array(core.row_slots(image)).reshape(parts, -1).sum(axis=1)
    most, start, words = int(slots.max()), 0, list[int]()
    last = 1 << (core.code.word_bits - 1)
    assert isinstance(core.code, PulseCode)
    idle = core.code.idle
    for count in slots.tolist():
        own = list(image.codes[start : start + count])
        missing = most - count
        if missing:
            own = [*own[:-1], own[-1] - last, *[idle] * (missing - 1), idle + last]
        words += own
        start += count
    return replace(core, words=len(words)), replace(image, codes=tuple(words))


def make_map_spec(layers: Sequence[MapLayer], **fields: Any) -> MapSpec:
    """The specification of an engine; it takes what the first layer's map has."""
    n = int(np.prod(layers[0].geometry.input_shape))
    return MapSpec(**(fields | {"layers": tuple(layers), "n": n}))
