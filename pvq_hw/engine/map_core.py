"""A shared engine whose activations are maps in memories of their own: convolutions too.

Two memories hold the map that a layer reads and the one that it writes, and change their parts from
layer to layer; or one memory holds all maps, in which they move over one another
(`pvq_hw.engine.map_ring`). A word has two channels of a pixel. For every position the window is
fetched into a half of the lanes' banks, while the position before is computed from the other half.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.core import CORES, CoreImage, InnerStream, IntArray
from pvq_hw.engine.map_places import FRAME, Beside, MapPlace, place_maps
from pvq_hw.engine.map_ring import MAX_RING, place_ring, walk_of
from pvq_hw.engine.pulse_code import PulseCode
from pvq_hw.engine.pulse_core import CoreSpec, sums_of_pulses
from pvq_hw.engine.shared_core import SharedLayer, SharedSpec, share_layers
from pvq_hw.errors import InputError
from pvq_hw.geometry import Geometry
from pvq_hw.network.layer import Dense, TensorSpec
from pvq_hw.network.table import MOST_ENTRIES

__all__ = [
    "MapLayer",
    "MapSpec",
    "MapWindow",
    "banked",
    "make_map_core",
    "make_map_spec",
    "map_layer",
    "paired",
    "window_layer",
]

_PAIR = 2  # channels of a word
_MOST_JOINS = 2  # maps of a sum
_MOST_SIDE = 4  # positions that are computed together
_SPRAM_WORDS, _SPRAM_BITS = 1 << 14, 8


@dataclass(frozen=True)
class MapLayer(SharedLayer):
    """One layer of an engine with maps; ``n`` counts the columns of a window as it is in the banks,
    with a channel of zeros where there is an odd number, but one.

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
    reads : tuple of int
        Numbers of the layers whose maps it reads, `FRAME` for the frame; empty where it is the
        layer before alone.
    side : int
        V: positions, one below the other, that are computed together; 1 where there is one row of
        them.
    joins : int
        0; of a sum of maps, how many there are, and so many rows one after the other make one
        activation: the products are added, and the last one's bias. 1 of a map's copy.
    most : int
        0; of a maximum, how many activations a window has: so many rows of one pulse each, one
        after the other, make one activation, the largest of their sums. Its chunks share codes and
        rows.
    pool : str
        Empty, or the name of a maximum of 2 x 2 behind it, whose map is what is written: of two by
        two positions the largest results.
    table : int
        0, or the number, from 1 on, of the table that gives its activations for those of ``x`` that
        its sums become.
    beside : Beside, optional
        Where what it gives is a part of a map.
    """

    geometry: Geometry
    chunk: int = 0
    parts: int = 1
    reads: tuple[int, ...] = ()
    joins: int = 0
    side: int = 1
    most: int = 0
    pool: str = ""
    table: int = 0
    beside: Beside | None = None

    @property
    def sum_out(self) -> IntFormat:
        """Format of what its sums become, before a table where it has one."""
        return self.x if self.table else self.out

    @property
    def group(self) -> int:
        """Rows, one after the other, that make one activation."""
        return self.most or max(1, self.joins)

    @property
    def narrow(self) -> bool:
        """Whether a word of its map is one activation, which is in one bank of a pair."""
        return self.geometry.input_shape[2] == 1 and not self.joins

    @property
    def again(self) -> int:
        """Times that its rows are computed at a position: those of a maximum for every chunk."""
        return self.parts if self.most else 1

    @property
    def copies(self) -> bool:
        """Whether it is no layer of the network's, but takes a map to the other memory."""
        return self.joins == 1

    @property
    def places(self) -> tuple[int, int]:
        """Rows and columns of windows."""
        if self.chunk and self.parts == 1 and not self.most:
            return 1, self.geometry.input_shape[2] // self.chunk
        return self.geometry.output_size

    @property
    def positions(self) -> int:
        """Times that all rows are computed."""
        return math.prod(self.places)

    @property
    def divides(self) -> bool:
        """Whether it has V positions one below the other, and its chunks divide the channels, and
        rows and words the chunks that have their own, or a map that is one window."""
        g, channels = self.geometry, self.geometry.input_shape[2]
        most = min(_MOST_SIDE, self.places[0]) if g.dilation[0] == 1 else 1
        if not 1 <= self.side <= most:
            return False
        if self.pool and (self.side, self.channels < 2, self.places[1] < 2) != (2, False, False):
            return False
        if self.joins:
            plain = (self.chunk, self.parts, g.single) == (0, 1, True)
            return plain and self.rows == self.joins * channels and self.joins <= _MOST_JOINS
        if self.most:
            own = (self.chunk or channels) * math.prod(g.kernel)
            shared = not self.chunk or (self.chunk % _PAIR, channels % self.chunk) == (0, 0)
            chunks = channels // self.chunk if self.chunk else 1
            return shared and (self.rows, self.parts) == (own, chunks)
        if not self.chunk:
            return self.parts == 1
        even = self.chunk % _PAIR == 0 and channels % self.chunk == 0
        whole = g.kernel == g.input_shape[:2] and g.output_size == (1, 1)
        own = self.parts * self.chunk == channels and self.rows % self.parts == 0
        return even and self.words % self.parts == 0 and (whole if self.parts == 1 else own)

    @property
    def window_cycles(self) -> int:
        """Slot words of a window."""
        return self.words * self.again // self.parts

    @property
    def window_words(self) -> int:
        """Words of a pixel that a window has."""
        return self.chunk // _PAIR or self.pixel_words

    @property
    def results(self) -> int:
        """Activations that it gives in a frame."""
        return self.positions * self.channels

    @property
    def channels(self) -> int:
        """Activations that it gives at a position."""
        return self.again * (self.rows // self.group)

    @property
    def given_places(self) -> tuple[int, int]:
        """Rows and columns of the map that it gives."""
        rows, columns = self.places
        return (rows // 2, columns // 2) if self.pool else (rows, columns)

    @property
    def given_pixels(self) -> int:
        """Pixels of the map that it gives: one where its positions are chunks of a window."""
        chunks = self.chunk > 0 and self.parts == 1 and not self.most
        return 1 if chunks else math.prod(self.given_places)

    @property
    def given(self) -> int:
        """Activations of the map that it gives."""
        return math.prod(self.given_places) * self.channels

    @property
    def lines(self) -> int:
        """Rows of windows that are computed together."""
        return -(-self.places[0] // self.side)

    @property
    def times(self) -> int:
        """Times that its words are read in a frame."""
        return self.lines * self.places[1] * self.again

    @property
    def windows(self) -> int:
        """Windows that are fetched for a frame."""
        return self.lines * self.places[1] * self.parts

    @property
    def order(self) -> IntArray | None:
        """The places in the map of the activations in the order in which they are given; None
        where that is the map's."""
        if self.side == 1:
            return None
        (rows, columns), each = self.places, self.channels
        line, column, result, below = np.ogrid[: self.lines, :columns, :each, : self.side]
        row = line * self.side + below
        place = (row * columns + column) * each + result
        return np.asarray(place[np.broadcast_to(row < rows, place.shape)])

    @property
    def given_words(self) -> int:
        """Words of the map that it gives."""
        return math.prod(self.given_places) * -(-self.channels // _PAIR)

    @property
    def gap(self) -> int:
        """Words of other layers behind each pixel that it gives."""
        if self.beside is None or self.beside.pixels == 1:
            return 0
        return self.beside.words - self.given_words // self.beside.pixels

    @property
    def whole(self) -> tuple[int, int]:
        """Activations and words of the map that it gives, or gives a part of."""
        if self.beside is None:
            return self.given, self.given_words
        pixels = self.beside.pixels
        return pixels * self.beside.channels, pixels * self.beside.words

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
        return self.patch[0] * self.patch[1] * self.window_words

    @property
    def patch(self) -> tuple[int, int]:
        """Rows and columns of pixels that V windows one below the other have; of a sum, its maps
        and the pixels that V positions read of each."""
        if self.joins:
            return self.joins, self.side
        (height, width), down = self.geometry.kernel, self.geometry.stride[0]
        return height + (self.side - 1) * down, width


def paired(channels: int) -> int:
    """Channels with those of zeros that fill a word."""
    return channels + channels % _PAIR


def banked(channels: int) -> int:
    """Channels of a window as it is in the banks: one has no other beside it."""
    return paired(channels) if channels > 1 else 1


@CORES.kind
@dataclass(frozen=True, kw_only=True)
class MapSpec(SharedSpec):
    """Numbers of an engine of several layers with maps; what is not said here: `SharedSpec`.

    ``n`` are the activations of a frame. The last layer has one position.

    Parameters
    ----------
    layers : tuple of MapLayer
    map_memory : str
        ``"block"`` or ``"spram"``: two memories with one port each. ``"ring"``: one in block RAM
        with a port to read and one to write.
    tables : tuple of tuples of int
        Each one's entries, from the smallest value of its layer's input up.
    params_buffer : int
        0, or with ``code_memory == "flash"`` a power of two: rows whose multipliers and biases are
        kept, since they come from the flash too, those of a layer before its codes.
    """

    kind: ClassVar[str] = "maps"

    layers: tuple[MapLayer, ...]  # type: ignore[assignment]
    map_memory: str = "block"
    tables: tuple[tuple[int, ...], ...] = ()
    params_buffer: int = 0

    def _check_buffer(self, where: str) -> None:
        super()._check_buffer(where)
        rows = self.params_buffer
        if rows and (self.code_memory, self.params_memory) != ("flash", "block"):
            raise InputError(f"{where}: params_buffer must be 0 unless codes come from the flash")
        if rows and not (self.least_rows <= rows <= 1 << 16 and rows & (rows - 1) == 0):
            raise InputError(
                f"{where}: params_buffer must be a power of two from {self.least_rows} on, "
                f"not {rows}"
            )

    def _check_tables(self, where: str) -> None:
        for layer in self.layers:
            if not 0 <= layer.table <= len(self.tables):
                raise InputError(f"{where}: layer {layer.name!r} must have a table that there is")
            entries = self.tables[layer.table - 1] if layer.table else ()
            right = len(entries) == 1 << layer.x.bits and layer.out.contains(list(entries))
            if layer.table and not right:
                raise InputError(f"{where}: layer {layer.name!r} must have a table of its values")
        if len(self.tables) << self.index_bits > MOST_ENTRIES:
            raise InputError(f"{where} must have tables of {MOST_ENTRIES:,} entries together")

    def _check_chain(self, where: str) -> None:
        self._check_tables(where)
        first, last = self.layers[0], self.layers[-1]
        if (self.n, self.x) != (int(np.prod(first.geometry.input_shape)), first.x):
            raise InputError(f"{where} must take what its first layer takes")
        if (last.positions, last.parts) != (1, 1):
            raise InputError(f"{where}: layer {last.name!r}, its last, must have one position")
        for number, layer in enumerate(self.layers):
            read = int(np.prod(layer.geometry.input_shape))
            maps = self.read_by(number)
            if len(maps) != max(1, layer.joins) or not all(FRAME <= k < number for k in maps):
                raise InputError(f"{where}: layer {layer.name!r} must read maps before it")
            for k in maps:
                given = self.n if k == FRAME else self.layers[k].whole[0]
                form = self.form_of(k)
                fits = form.bits <= layer.x.bits if layer.joins else form == layer.x
                if given != read or not fits:
                    raise InputError(f"{where}: layer {layer.name!r} must take what is before it")
        self._check_parts(where)
        for layer in self.layers:
            g = layer.geometry
            taps = max(1, layer.joins) * math.prod(g.kernel)
            each = 1 if layer.narrow else _PAIR
            if layer.n != each * taps * layer.window_words or not layer.divides:
                raise InputError(f"{where}: layer {layer.name!r} must have the columns of a window")
            if layer.map_words > MAX_RING:
                raise InputError(f"{where}: layer {layer.name!r} must read a smaller map")
        if self.side > 1 and self.multiplies.paced:
            raise InputError(f"{where} must have a fast multiplier for positions side by side")
        if self.lanes % _PAIR:
            raise InputError(f"{where} must have an even number of lanes, not {self.lanes}")
        if self.map_memory not in ("block", "spram", "ring"):
            raise InputError(f"{where}: map_memory must be block, spram or ring")
        if self.map_memory == "spram" and not self.fits_spram:
            raise InputError(f"{where} must have maps of {_SPRAM_WORDS:,} words of two bytes")

    def _check_parts(self, where: str) -> None:
        """Raises InputError unless layers that give parts of a map give all of it, and the last of
        them is the one that others read."""
        maps = [layer.beside for layer in self.layers]
        for beside in filter(None, maps):
            numbers = [k for k, x in enumerate(maps) if x is not None and x.map == beside.map]
            same = {
                (replace(x.beside, first=0), x.out)
                for x in self.layers
                if x.beside is not None and x.beside.map == beside.map
            }
            ordered = numbers[-1] == beside.map <= beside.after < len(maps) - 1
            if len(same) > 1 or not ordered or beside.pixels < 1:
                raise InputError(f"{where}: {beside.name!r} must be one map, before the last layer")
            words = channels = 0
            for part in self.parts_of(beside.map):
                first = part.beside.first if part.beside is not None else 0
                pixels = {part.given_pixels, beside.pixels} - {1}
                beyond = _PAIR * part.given_words - part.given
                if (first, channels % _PAIR) != (words, 0) or len(pixels) > 1:
                    raise InputError(f"{where}: {beside.name!r} must have its parts side by side")
                if beyond > beside.pixels or part.given_pixels < beside.pixels:
                    raise InputError(f"{where}: {beside.name!r} must have parts of whole words")
                words += part.given_words // beside.pixels
                channels += part.given // beside.pixels
            if (words, channels) != (beside.words, beside.channels):
                raise InputError(f"{where}: {beside.name!r} must have its parts' channels")
        for number in range(len(self.layers)):
            for k in self.read_by(number):
                read = maps[k] if k != FRAME else None
                if read is not None and read.map != k:
                    raise InputError(f"{where}: {read.name!r} must be read as a whole")

    def parts_of(self, number: int) -> list[MapLayer]:
        """The layers that give a map's parts, in the order of its channels."""
        found = [
            (layer.beside.first, k, layer)
            for k, layer in enumerate(self.layers)
            if layer.beside is not None and layer.beside.map == number
        ]
        return [layer for _, _, layer in sorted(found, key=lambda x: x[:2])]

    # -- maps -------------------------------------------------------------------------------

    def read_by(self, number: int) -> tuple[int, ...]:
        """Numbers of the maps that a layer reads."""
        return self.layers[number].reads or (number - 1,)

    def form_of(self, number: int) -> IntFormat:
        """Format of a map's activations."""
        return self.x if number == FRAME else self.layers[number].out

    def signs(self, number: int) -> tuple[bool, ...]:
        """Of each map that a layer reads, whether its activations are signed."""
        return tuple(self.form_of(k).signed for k in self.read_by(number))

    @cached_property
    def places(self) -> tuple[MapPlace, ...]:
        """Where the frame is, and the map that each layer but the last gives (a part of)."""
        if self.map_memory == "ring":
            return self._ring[1]
        return _places(self.layers, f"Core {self.name!r}")

    @property
    def _ring(self) -> tuple[int, tuple[MapPlace, ...]]:
        return _ring(self.layers, f"Core {self.name!r}")

    @cached_property
    def ring_words(self) -> int:
        """Words of the one memory of all maps; 0 where there are two."""
        return self._ring[0] if self.map_memory == "ring" else 0

    def base(self, number: int) -> int:
        """The first word that a layer gives, but the last one."""
        beside = self.layers[number].beside
        return self.places[number + 1].base + (beside.first if beside is not None else 0)

    @property
    def side(self) -> int:
        """V: positions that are computed together, one below the other."""
        return max(layer.side for layer in self.layers)

    @property
    def choices(self) -> dict[str, Any]:
        """What a planner chooses of it besides lanes and gap bits, as options of its maker."""
        rows = {"params_buffer": self.params_buffer} if self.params_buffer else {}
        return super().choices | {"map_memory": self.map_memory, "side": self.side} | rows

    @property
    def last_result_stage(self) -> int:
        """When the last of a row's V results, saturated, is there after its last word; where
        maxima of results are written, a cycle later, in which these are compared."""
        return self.result_stage + self.side - 1 + (self.pooled > 0)

    @property
    def inner_streams(self) -> tuple[InnerStream, ...]:
        """What the layers of the network before the last one give, maxima and concatenations
        too."""
        found, own = list[InnerStream](), {x.instance: x for x in super().inner_streams}
        for number, layer in enumerate(self.layers[:-1]):
            found += [own[f"layer{number}"]] if f"layer{number}" in own else []
            if layer.pool:
                found.append(InnerStream(f"pool{number}", layer.pool, layer.given, layer.out, None))
            found += [self._whole_stream(x) for x in self.wholes if x.after == number]
        return tuple(found)

    @property
    def wholes(self) -> tuple[Beside, ...]:
        """The maps that several layers give parts of, in the order of the network."""
        maps = {replace(x.beside, first=0) for x in self.layers if x.beside is not None}
        return tuple(sorted(maps, key=lambda x: x.rank))

    def _whole_stream(self, whole: Beside) -> InnerStream:
        """What the layers give that give a map's parts, one after the other."""
        parts, first, order = self.parts_of(whole.map), 0, dict[str, IntArray]()
        for part in parts:
            each, own = part.given // whole.pixels, part.order
            place = np.arange(part.given) if part.pool or own is None else own
            order[part.name] = place // each * whole.channels + first + place % each
            first += each
        found = [order[x.name] for x in self.layers if x.name in order and x in parts]
        places, out = np.concatenate(found), parts[0].out
        return InnerStream(f"whole{whole.map}", whole.name, len(places), out, places)

    @property
    def joined(self) -> bool:
        """Whether products of several rows are added."""
        return any(layer.joins > 1 for layer in self.layers)

    @property
    def chosen(self) -> bool:
        """Whether the largest of several rows' sums is taken."""
        return any(layer.most > 1 for layer in self.layers)

    @property
    def pooled(self) -> int:
        """The most channels of layers whose results' maxima are written; 0 where none are."""
        return max((layer.channels for layer in self.layers if layer.pool), default=0)

    @property
    def value_memories(self) -> tuple[str, ...]:
        """Names of its memories that activations address."""
        return ("tables",) if self.tables else ()

    @property
    def index_bits(self) -> int:
        """Bits of what a table is asked for."""
        return max((layer.x.bits for layer in self.layers if layer.table), default=0)

    @property
    def result_stage(self) -> int:
        """When a row's result, saturated and looked up, is there after its last word."""
        return super().result_stage + self.bank_latency * (len(self.tables) > 0)

    @property
    def output_delay(self) -> int:
        """When a row's result is offered at ``o`` if nothing is before it."""
        return super().output_delay + self.bank_latency * (len(self.tables) > 0)

    @property
    def memories(self) -> dict[str, tuple[int, int]]:
        """ROMs by name: (width in bits, depth in words)."""
        found = super().memories
        if self.tables:
            bits = max(self.bank_bits, *(layer.out.bits for layer in self.layers if layer.table))
            found[self.memory_name("tables")] = (bits, len(self.tables) << self.index_bits)
        if self.params_buffer:
            found[self.stream_memory] = (self.word_bits, self.stream_words)
        return found

    def memory_kind(self, name: str) -> str:
        """Where a memory's words are."""
        rows = self.memory_name("mult"), self.memory_name("bias"), self.memory_name("stream")
        if self.params_buffer and name in rows:
            return "flash"
        return "block" if name == self.memory_name("tables") else super().memory_kind(name)

    def contents(self, image: CoreImage) -> dict[str, list[int]]:
        """ROM words by name, unsigned: what the memory files hold. Tables are addressed by the bits
        of an activation."""
        found = super().contents(image)
        if self.tables:
            bits, depth = self.memories[self.memory_name("tables")]
            words = [0] * depth
            for layer in self.layers:
                for value, entry in enumerate(self.tables[layer.table - 1] if layer.table else ()):
                    place = (value + layer.x.min) % (1 << self.index_bits)
                    words[(layer.table - 1 << self.index_bits) + place] = entry % (1 << bits)
            found[self.memory_name("tables")] = words
        if self.params_buffer:
            found[self.stream_memory] = self._stream(image)
        return found

    def _stream(self, image: CoreImage) -> list[int]:
        """The words that come from the flash: a row's multiplier and bias are the lower and the
        upper part of so many words, the lowest first."""
        words, low = list[int](), (1 << self.word_bits) - 1
        for part in self.parts(image):
            for mult, bias in zip(part.mult, part.bias, strict=True):
                value = mult | bias % (1 << self.bias_bits) << self.mult_bits
                words += [value >> k * self.word_bits & low for k in range(self.row_words)]
            words += part.codes
        return words

    def layer_at(self, memory: str, word: int) -> str:
        """The name of the layer that a word of a memory belongs to."""
        if self.params_buffer and memory == self.stream_memory:
            ends = accumulate(map(sum, self.stream_runs))
            return next(x.name for x, end in zip(self.layers, ends, strict=True) if word < end)
        if memory != self.memory_name("tables"):
            return super().layer_at(memory, word)
        number = 1 + (word >> self.index_bits)
        return next(layer.name for layer in self.layers if layer.table == number)

    @property
    def row_stage(self) -> int:
        """When the sum of a row, or the largest of those of several, is multiplied."""
        return super().row_stage + self.chosen

    @property
    def mixed(self) -> bool:
        """Whether some maps that are read are signed and others unsigned."""
        return len({s for k in range(len(self.layers)) for s in self.signs(k)}) > 1

    @property
    def product_stage(self) -> int:
        """When a row's product, or the sum of those of several rows, is at the bias adder."""
        return super().product_stage + self.joined

    # -- shapes -----------------------------------------------------------------------------

    @property
    def in_spram(self) -> bool:
        """Whether its codes or its maps are in SPRAM."""
        return "spram" in (self.code_memory, self.map_memory)

    @property
    def least_buffer(self) -> int:
        """Words that must be kept of codes from the flash: all of a layer's, which are read for
        every position."""
        return max(2, *(layer.words for layer in self.layers))

    @property
    def least_rows(self) -> int:
        """Rows whose multipliers and biases must be kept where they come from the flash: all of a
        layer's."""
        return max(2, *(layer.rows for layer in self.layers))

    @property
    def row_words(self) -> int:
        """Words from the flash that a row's multiplier and bias take."""
        return -(-(self.mult_bits + self.bias_bits) // self.word_bits)

    @property
    def stream_memory(self) -> str:
        """Name of the memory whose words come from the flash, where codes do."""
        return self.memory_name("stream") if self.params_buffer else super().stream_memory

    @property
    def stream_runs(self) -> tuple[tuple[int, int], ...]:
        """The words that come from the flash, in order: those of a layer's rows, if they do, and of
        its codes."""
        if not self.params_buffer:
            return super().stream_runs
        return tuple((layer.rows * self.row_words, layer.words) for layer in self.layers)

    @property
    def params_places(self) -> int:
        """Words from the flash whose multipliers and biases are kept; 0 where all are stored."""
        return self.params_buffer * self.row_words

    @property
    def freed_bits(self) -> int:
        """Bits of the number of words whose places are given back at once: a layer's."""
        return max(layer.words for layer in self.layers).bit_length()

    @property
    def fits_spram(self) -> bool:
        """Whether each of its maps fits into an SPRAM."""
        return self.bank_bits <= _SPRAM_BITS and self.map_depth <= _SPRAM_WORDS

    @cached_property
    def map_depths(self) -> tuple[int, int]:
        """Words of the first and the second memory; of a ring those up to the largest power of two,
        which take the fewest blocks, and those beyond, if any."""
        if self.map_memory == "ring":
            low = 1 << (self.ring_words.bit_length() - 1)
            return low, self.ring_words - low
        ends = [[p.end for p in self.places if p.memory == number] for number in range(2)]
        return max(ends[0]), max(ends[1], default=1)

    @property
    def map_depth(self) -> int:
        """Words of the larger memory."""
        return max(self.map_depths)

    @property
    def map_latency(self) -> int:
        """Cycles from a word's address in its map to the word: a ring's address wraps first."""
        return 1 + (self.map_memory == "ring")

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
        return self.places[self.read_by(number)[0] + 1].memory

    @property
    def bank_words(self) -> int:
        """Depth of a bank's memory, both halves."""
        most = max(self.code.bank_depth(layer.n) for layer in self.layers)
        return (1 << self.address_bits) + most

    # -- program ----------------------------------------------------------------------------

    @property
    def program_fields(self) -> dict[str, int]:
        """As `SharedSpec.program_fields`, and how the windows go over the map.

        ``codes`` is the number of slot words, where they come from the flash, ``params`` that of
        the words of the rows' multipliers and biases, where these do;
        ``start`` and ``row`` are the first slot word and the first row; ``first`` is the address of
        the first window's first pixel; ``down`` the words from one row of the map to the next,
        ``across`` those from a pixel's last word to the next pixel's first, ``right`` and ``below``
        those from one position to the next in a row and in a column; ``x`` and ``y`` the first
        window's place (signed), ``step_x`` and ``step_y`` the stride; the rest are the last numbers
        of what they count. ``joins`` are the rows, less one, that make an activation, ``others`` is
        the sign of the second map's activations where two are added, ``base`` the first word of
        what the layer gives. For a window of two maps the second one is another row of the first.
        ``most`` says that it is a maximum, ``again`` that its words are those of every chunk,
        ``least`` that what lies beyond the map is less than all that activations can be, ``narrow``
        that a word has one activation. ``pools`` says that maxima of two by two results are what
        is written, ``negative`` that these are signed; ``looks`` that a table gives them, ``table``
        its number.

        Where positions are computed together, rows of the patch from ``lower1`` on are of the
        second one's window, and so on, and rows up to ``upper0`` of the first one's; of ``sums`` a
        pixel is each one's. ``more`` are the positions below the first, ``left`` those below the
        last line's first.
        ``line`` are the words of a row of the map that the layer gives; ``past`` those from a
        pixel's last word to the next pixel's first, among which other layers' may be, ``back`` the
        same from the lowest of V positions to the first, and ``stay`` to the same pixel's next
        word, where that differs. ``far_x`` and ``far_y`` are the dilation.
        """
        g = [layer.geometry for layer in self.layers]
        edge = max(max(*x.input_shape[:2], _MOST_JOINS, self.side) for x in g).bit_length()
        # A window begins before the map, and its last tap may be as far behind it.
        sign = 1 + max(max(x.input_shape[:2]) + max(x.pads[0] + x.pads[1]) for x in g).bit_length()
        sizes = [max(layer.places) for layer in self.layers]
        lines = max(1, max(x.patch[0] - 1 for x in self.layers).bit_length())
        return {
            **super().program_fields,
            "codes": self.freed_bits if self.code_memory == "flash" else 0,
            "start": max(1, (self.words - 1).bit_length()),
            "row": 0 if self.params_buffer else max(1, (self.all_rows - 1).bit_length()),
            "params": max(own for own, _ in self.stream_runs).bit_length(),
            "first": self.map_address_bits,
            "down": self.map_address_bits,
            "right": self.map_address_bits,
            "below": self.map_address_bits,
            "x": sign,
            "y": sign,
            "width": edge,
            "height": edge,
            "step_x": max(x.stride[1] for x in g).bit_length(),
            "step_y": max(x.side * x.geometry.stride[0] for x in self.layers).bit_length(),
            "across": max(1, max(self._across(x) for x in self.layers).bit_length()),
            "parts": max(1, max(x.parts - 1 for x in self.layers).bit_length()),
            "words": max(1, max(x.window_words - 1 for x in self.layers).bit_length()),
            "taps": max(1, max(x.patch[1] - 1 for x in self.layers).bit_length()),
            "lines": lines,
            "joins": max(x.group - 1 for x in self.layers).bit_length(),
            "most": int(self.chosen),
            "again": int(any(x.again > 1 for x in self.layers)),
            "narrow": int(any(x.narrow for x in self.layers)),
            "pools": int(self.pooled > 0),
            "negative": int(any(x.pool and x.out.signed for x in self.layers)),
            "looks": int(len(self.tables) > 0),
            "table": max(0, len(self.tables) - 1).bit_length(),
            "least": int(any(self._least(x) for x in self.layers)),
            "others": int(self.joined),
            "sums": int(self.side > 1 and any(x.joins for x in self.layers)),
            **{f"upper{v}": lines for v in range(self.side - 1)},
            **{f"lower{v}": lines for v in range(1, self.side)},
            "more": (self.side - 1).bit_length(),
            "left": (self.side - 1).bit_length(),
            "far_x": _bits_beyond(x.dilation[1] for x in g),
            "far_y": _bits_beyond(x.dilation[0] for x in g),
            "line": self.map_address_bits if self.side > 1 else 0,
            "base": max(map(self.base, range(len(self.places) - 1)), default=0).bit_length(),
            "past": _bits_beyond(layer.gap + 1 for layer in self.layers),
            "back": self.map_address_bits if self.side > 1 else 0,
            "stay": self.map_address_bits if self.side > 1 and self.wholes else 0,
            "columns": max(1, max(sizes).bit_length()),
            "rows": max(1, max(sizes).bit_length()),
        }

    @property
    def map_address_bits(self) -> int:
        """Bits of an address of a map; addresses before the first word wrap. Of a ring, addresses
        go on beyond its end, and wrap in front of the memory."""
        return max(1, (max(self.map_depth, 2 * self.ring_words) - 1).bit_length())

    def steps(self) -> list[dict[str, int]]:
        """The program: the fields of every layer's word."""
        found, start, row = [], 0, 0
        bits = self.program_fields
        for number, (layer, step) in enumerate(zip(self.layers, super().steps(), strict=True)):
            places = self._walk(number) | {
                "codes": layer.words, "params": layer.rows * self.row_words, "start": start,
                "row": row, "words": layer.window_words - 1,
                "across": self._across(layer), "sums": int(layer.joins > 0),
                "columns": layer.places[1] - 1, "rows": layer.lines - 1,
                "lines": layer.patch[0] - 1, "taps": layer.patch[1] - 1,
                "more": layer.side - 1, "left": (layer.places[0] - 1) % layer.side,
                "far_x": layer.geometry.dilation[1], "far_y": layer.geometry.dilation[0],
                "line": self._line(layer), "past": layer.gap + 1,
                "back": layer.gap + 1 - (self.side - 1) * self._line(layer),
                "stay": 1 - (self.side - 1) * self._line(layer),
                "parts": layer.parts - 1, "joins": layer.group - 1, "most": int(layer.most > 0),
                "again": int(layer.again > 1), "narrow": int(layer.narrow),
                "least": int(self._least(layer)), "pools": int(layer.pool != ""),
                "negative": int(layer.out.signed), "looks": int(layer.table > 0),
                "table": max(0, layer.table - 1),
                "before": max(0, layer.window_cycles - 2),
                "single": int(layer.window_cycles == 1),
                "target": 1 - step["source"],
                "signed": int(self.signs(number)[0]), "others": int(self.signs(number)[-1]),
                "base": 0 if step["last"] else self.base(number),
            }  # fmt: skip
            down, last = layer.geometry.stride[0], layer.geometry.kernel[0] - 1
            places |= {f"upper{v}": v * down + last for v in range(self.side - 1)}
            places |= {f"lower{v}": v * down for v in range(1, self.side)}
            found.append(step | {k: v & ((1 << bits[k]) - 1) for k, v in places.items()})
            start, row = start + layer.words, row + layer.rows
        return found

    def _walk(self, number: int) -> dict[str, int]:
        """The fields of the program that say how a layer's windows go over its maps."""
        layer = self.layers[number]
        g, words = layer.geometry, layer.pixel_words
        bases = [self.places[k + 1].base for k in self.read_by(number)]
        line = g.input_shape[1] * words
        if layer.joins:
            return {
                "first": bases[0], "down": bases[-1] - bases[0], "right": words,
                "below": layer.side * line, "x": 0, "y": 0, "step_x": 0, "step_y": 0,
                "width": max(g.input_shape[1], layer.side), "height": len(bases),
            }  # fmt: skip
        (top, _), (left, _) = g.pads
        # Positions of a map that is one window are its chunks.
        chunks = layer.chunk > 0 and layer.parts == 1
        return {
            "first": bases[0] - top * line - left * words, "down": g.dilation[0] * line,
            "right": layer.chunk // _PAIR if chunks else g.stride[1] * words,
            "below": layer.side * g.stride[0] * line, "x": -left, "y": -top,
            "width": g.input_shape[1], "height": g.input_shape[0],
            "step_x": 0 if chunks else g.stride[1], "step_y": layer.side * g.stride[0],
        }  # fmt: skip

    def _least(self, layer: MapLayer) -> bool:
        """Whether what lies beyond the map must be less than 0."""
        return bool(layer.most) and layer.x.signed and any(map(any, layer.geometry.pads))

    def _line(self, layer: MapLayer) -> int:
        """Words of a row of the map that it gives, where two rows are written at a time."""
        if layer.side == 1 or layer.pool:
            return 0
        pixels = math.prod(layer.places)
        return (layer.given_words // pixels + layer.gap) * layer.places[1]

    def _across(self, layer: MapLayer) -> int:
        """Words from a pixel's last word to the first of the next one that is read in its row; of
        sums that is the one below."""
        g = layer.geometry
        next_pixel = g.input_shape[1] if layer.joins else g.dilation[1]
        return next_pixel * layer.pixel_words - layer.window_words + 1

    # -- cycles -----------------------------------------------------------------------------

    @property
    def alternates(self) -> bool:
        """A frame's map is where a layer in the middle writes its own."""
        return True

    @property
    def turn_cycles(self) -> int:
        """From a layer's last word to the start of the next one's first window."""
        return self.last_result_stage + 2

    @cached_property
    def frame_cycles(self) -> int:
        """Cycles of a frame while results don't wait, its coming in included."""
        return self.paced(self.n + 1 + sum(self.step_cycles()))

    def step_cycles(self) -> list[int]:
        """Cycles of every layer."""
        return [self.last_word(layer, 0) + self.turn_cycles for layer in self.layers]

    def first_word(self, layer: MapLayer, start: int) -> int:
        """When the first word of a layer's first window is read, for a layer that starts then."""
        return start + layer.fetched + 3 + self.map_latency

    def last_word(self, layer: MapLayer, start: int, codes: int = 0) -> int:
        """When the last word of a layer's last window is read, for a layer that starts then, and
        whose words can be read from cycle ``codes`` on."""
        through = start - self.code_latency - 1  # so that the first two windows wait for none
        state = self._window(layer, (start + 2, through, through), codes)
        left = layer.windows - 1
        while left >= 2:
            following = self._window(layer, self._window(layer, state))
            steps = {now - then for now, then in zip(following, state, strict=True)}
            state, left = following, left - 2
            if len(steps) == 1:  # windows are in step: each two take as long from here on
                more = left // 2 * steps.pop()
                state, left = (state[0] + more, state[1] + more, state[2] + more), left % 2
        return (self._window(layer, state) if left else state)[2]

    def _window(
        self, layer: MapLayer, state: tuple[int, int, int], codes: int = 0
    ) -> tuple[int, int, int]:
        """When a window may be fetched, and when the last words of the two before it are read; the
        same after it. A window takes the half of the one before the last, which must be through.
        Its words are read from cycle ``codes`` on."""
        hold, before, last = state
        done = max(hold, before + self.code_latency + 1) + layer.fetched
        first = max(done + 1 + self.map_latency, last + 1, codes)
        return done + 3, last, first + layer.window_cycles - 1

    # -- golden model -----------------------------------------------------------------------

    def trace(self, image: CoreImage, x: npt.ArrayLike) -> dict[str, IntArray]:
        """What every layer gives, (frames, positions * rows) by its name, from the memory contents
        alone."""
        array = np.asarray(x, dtype=np.int64)
        maps: list[npt.NDArray[Any]] = [array.reshape(len(array), -1)]
        found: dict[str, IntArray] = {}
        for number, (layer, part) in enumerate(zip(self.layers, self.parts(image), strict=True)):
            y = self.code.decode(part.codes, (layer.rows, layer.n))
            negatives, _ = sums_of_pulses(self.code, part.codes)
            windows = _windows([maps[k + 1] for k in self.read_by(number)], layer)
            own = y.reshape(layer.parts // layer.again, -1, layer.n)
            sums = windows @ own.transpose(0, 2, 1) - negatives.reshape(len(own), 1, -1)
            acc = sums.reshape(len(array), layer.positions, -1, layer.group)
            mult, bias = (
                np.tile(words, layer.again).reshape(-1, layer.group)
                for words in (part.mult, part.bias)
            )
            if layer.most:
                total = acc.max(axis=-1) * mult[:, -1] + bias[:, -1]
            else:
                total = (acc * mult).sum(axis=-1) + bias[:, -1]
            out = np.asarray(layer.sum_out.clamp(total >> layer.shift), dtype=np.int64)
            if layer.table:
                out = np.array(self.tables[layer.table - 1], dtype=np.int64)[out - layer.x.min]
            found[layer.name] = out.reshape(len(array), -1)
            if layer.pool:
                rows, columns = layer.given_places
                grid = out.reshape(len(array), *layer.places, -1)
                grid = grid[:, : 2 * rows, : 2 * columns].reshape(
                    len(array), rows, 2, columns, 2, -1
                )
                found[layer.pool] = grid.max(axis=(2, 4)).reshape(len(array), -1)
            maps.append(found[layer.pool or layer.name])
            beside = layer.beside
            if beside is not None and beside.map == number:
                split = [
                    found[x.pool or x.name].reshape(len(array), beside.pixels, -1)
                    for x in self.parts_of(number)
                ]
                maps[-1] = np.concatenate(split, axis=-1).reshape(len(array), -1)
                found[beside.name] = maps[-1]
        return found


def _bits_beyond(sizes: Iterable[int]) -> int:
    """Bits of the largest, 0 where all are 1."""
    most = max(sizes)
    return most.bit_length() if most > 1 else 0


@lru_cache(maxsize=64)
def _places(layers: tuple[MapLayer, ...], where: str) -> tuple[MapPlace, ...]:
    reads = [layer.reads or (number - 1,) for number, layer in enumerate(layers)]
    return place_maps(_sizes(layers), reads, where, _gives(layers))


@lru_cache(maxsize=64)
def _ring(layers: tuple[MapLayer, ...], where: str) -> tuple[int, tuple[MapPlace, ...]]:
    reads = [layer.reads or (number - 1,) for number, layer in enumerate(layers)]
    sizes, gives = _sizes(layers), _gives(layers)
    words, bases = place_ring([walk_of(x) for x in layers], sizes, reads, gives, where)
    given = (FRAME, *gives)
    return words, tuple(
        MapPlace(0, base, sizes[own + 1], words) for base, own in zip(bases, given, strict=False)
    )


def _sizes(layers: Sequence[MapLayer]) -> list[int]:
    """Words of the frame, then of the map that each layer gives (a part of)."""
    return [layers[0].map_words, *(layer.whole[1] for layer in layers)]


def _gives(layers: Sequence[MapLayer]) -> list[int]:
    """The number of the map that each layer gives (a part of)."""
    return [x.beside.map if x.beside is not None else k for k, x in enumerate(layers)]


def _windows(maps: Sequence[npt.NDArray[Any]], layer: MapLayer) -> IntArray:
    """(frames, ...) of each map -> (frames, positions, parts, 1, columns of a window as it is in
    the banks)."""
    if layer.joins > 1:
        one = replace(layer, joins=1)
        return np.concatenate([_windows([x], one) for x in maps], axis=-1)
    least = layer.x.min if layer.most else 0
    x = maps[0] - least  # so that what lies beyond the map is the least
    geometry, chunk, shape = layer.geometry, layer.chunk, (len(x), layer.positions, layer.parts, 1)
    if chunk and layer.parts == 1 and not layer.most:
        split = x.reshape(len(x), -1, layer.positions, chunk)
        return np.asarray(split.transpose(0, 2, 1, 3).reshape(*shape, -1))
    if chunk:
        taps = geometry.kernel[0] * geometry.kernel[1]
        split = geometry.columns(x)[0].reshape(len(x), layer.positions, taps, layer.parts, chunk)
        return np.asarray(split.transpose(0, 1, 3, 2, 4).reshape(*shape, -1) + least)
    h, w, c = geometry.input_shape
    more = 0 if layer.narrow else c % _PAIR
    padded: npt.NDArray[Any] = np.pad(
        x.reshape(len(x), h, w, c), ((0, 0), (0, 0), (0, 0), (0, more))
    )
    wide = replace(geometry, input_shape=(h, w, c + more))
    columns = wide.columns(padded)[0]
    return np.asarray(columns.reshape(*shape, -1) + least)


@dataclass(frozen=True, eq=False)
class MapWindow:
    """A layer as an engine with maps computes it.

    Parameters
    ----------
    dense : Dense
        What is computed of one window, with a channel of zeros where there is an odd number of
        them, but one.
    x : TensorSpec
        The window.
    geometry : Geometry
        How windows go over the map.
    weights : int
        How many the network's layer has; 0 for a pooling.
    entries : tuple of int
        Those of its table, where it has one, from the smallest value that it reads up.
    out : IntFormat, optional
        Format of what a table gives.
    chunk, parts, reads, joins, most, pool, beside
        As `MapLayer` has them.
    """

    dense: Dense
    x: TensorSpec
    geometry: Geometry
    weights: int
    chunk: int = 0
    parts: int = 1
    reads: tuple[int, ...] = ()
    joins: int = 0
    most: int = 0
    pool: str = ""
    entries: tuple[int, ...] = ()
    out: IntFormat | None = None
    beside: Beside | None = None

    @property
    def name(self) -> str:
        """The layer's."""
        return self.dense.name

    @property
    def passes(self) -> bool:
        """Whether it is a copy that leaves a map's values as they are."""
        same = self.x.format == self.dense.output.format
        return self.joins == 1 and same and bool((self.dense.mult == 1 << self.dense.shift).all())


def window_layer(window: MapWindow) -> MapWindow:
    """A layer's window with a channel of zeros where it has an odd number, but one."""
    layer, x, geometry = window.dense, window.x, window.geometry
    channels = window.chunk or geometry.input_shape[2]
    taps = geometry.kernel[0] * geometry.kernel[1] * max(1, window.joins)
    split = layer.y.reshape(len(layer.y), taps, channels)
    more = paired(channels) if window.joins else banked(channels)
    split = np.pad(split, ((0, 0), (0, 0), (0, more - channels)))
    y = split.reshape(len(split), -1)
    dense, wide = replace(layer, y=y), replace(x, shape=(y.shape[1],))
    return replace(window, dense=dense, x=wide)


def make_map_core(
    layers: Sequence[MapWindow],
    lanes: int,
    *,
    side: int = 1,
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
    side : int
        V: positions, one below the other, that are computed together where there are any.
    **options
        As `pvq_hw.engine.shared_core.make_shared_core` takes them.
    """

    tables = list(dict.fromkeys((x.x.format, x.out, x.entries) for x in layers if x.entries))

    def make(described: Sequence[SharedLayer], **fields: Any) -> MapSpec:
        found = []
        for layer, window in zip(described, layers, strict=True):
            own = vars(layer) | {
                "geometry": window.geometry, "weights": window.weights, "chunk": window.chunk,
                "parts": window.parts, "reads": window.reads, "joins": window.joins,
                "side": side, "most": window.most, "pool": window.pool,
                "out": window.out or layer.out, "beside": window.beside,
            }  # fmt: skip
            if window.entries:
                own["table"] = 1 + tables.index((window.x.format, window.out, window.entries))
            found.append(map_layer(**(own if window.weights else own | {"pulses": 0})))
        entries = tuple(table[-1] for table in tables)
        return make_map_spec(found, map_memory=map_memory, tables=entries, **fields)

    def even(number: int, core: CoreSpec, image: CoreImage) -> tuple[CoreSpec, CoreImage]:
        more = (max(1, layers[number].joins) - 1).bit_length()  # bits of the products' sum
        core = replace(core, sum_bits=core.sum_bits + more)
        shared = layers[number].most > 0
        return (core, image) if shared else _even_parts(core, image, layers[number].parts)

    pairs = [(layer.dense, layer.x) for layer in layers]
    together = [max(1, layer.most) for layer in layers]
    return share_layers(
        pairs, lanes, make, adjust=even, min_slots=side, together=together, **options
    )


def map_layer(*, geometry: Geometry, side: int, **fields: Any) -> MapLayer:
    """A layer, V of whose positions are computed together where it has them. What has one row is
    taken as one column, which is the same map."""
    if geometry.input_shape[0] == geometry.output_size[0] == geometry.kernel[0] == 1:
        h, w, c = geometry.input_shape
        geometry = Geometry(
            (w, h, c), geometry.kernel[::-1], geometry.stride[::-1], geometry.pads[::-1],
            geometry.dilation[::-1],
        )  # fmt: skip
    one = MapLayer(geometry=geometry, **fields)
    # The rows of two dilated windows don't lie in each other's.
    return replace(one, side=min(side, one.places[0]) if geometry.dilation[0] == 1 else 1)


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
    if fields.get("params_buffer"):
        fields["params_memory"] = "block"
    return MapSpec(**(fields | {"layers": tuple(layers), "n": n, "out": layers[-1].out}))
