"""Maps that move over one another in one memory: which words may be written when, and where maps
are.

A layer reads its maps window by window and writes a window's results after that window is read. A
word may be written in a window if no later window reads what is in it. So a layer can give its map
over the one that it reads, so many words before it as later windows still need. The memory is a
ring, whose words need not be a power of two: the map moves down by these words from layer to layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.map_places import FRAME
from pvq_hw.errors import InputError

if TYPE_CHECKING:
    from pvq_hw.engine.map_core import MapLayer

__all__ = ["MAX_RING", "Walk", "place_ring", "walk_of"]

MAX_RING = 1 << 16  # words
_FINENESS = 128  # of a ring that is too small, the part by which the next one is larger
_ANY = IntFormat(8, False)

Array = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Walk:
    """In which windows a layer reads and writes.

    Parameters
    ----------
    reads : tuple of arrays
        For each map that it reads, of every word the number of the last window that reads it; -1
        where none does.
    words, windows : arrays
        The words that it writes, of the map that it gives (a part of), and the window whose
        results each holds.
    """

    reads: tuple[Array, ...]
    words: Array
    windows: Array

    @property
    def behind(self) -> int:
        """By how many words, 0 or more, its map must begin before the one that it reads, so that
        all that is written up to a window is before what later windows read."""
        order = np.argsort(self.windows, kind="stable")
        times, highest = self.windows[order], np.maximum.accumulate(self.words[order])
        found = 0
        for last in self.reads:
            before = np.searchsorted(times, last)  # words that are written before each is read
            read = before > 0
            ahead = highest[before[read] - 1] - np.flatnonzero(read)
            found = max(found, int(ahead.max(initial=-1)) + 1)
        return found

    def spares(self, words: int, base: int, sources: Sequence[int | None]) -> bool:
        """Whether nothing that a later window reads is written, in a ring of so many words, where
        the map that it gives is at ``base`` and those that it reads at ``sources``; None for one
        that lies elsewhere."""
        places = (base + self.words) % words
        for source, last in zip(sources, self.reads, strict=True):
            if source is None:
                continue
            needed = np.full(words, -1, dtype=np.int64)
            needed[(source + np.arange(len(last))) % words] = last
            if (needed[places] > self.windows).any():
                return False
        return True


def walk_of(layer: "MapLayer") -> Walk:
    """In which windows a layer reads and writes."""
    # Only what says how it goes over its maps, so that engines that differ otherwise share it.
    beside = layer.beside and replace(layer.beside, name="", map=FRAME, after=FRAME, rank=0)
    own = replace(
        layer, name="", pool="pool" * (layer.pool != ""), x=_ANY, out=_ANY, words=layer.parts,
        shift=1, pulses=0, codes=0, weights=0, table=0, reads=(), beside=beside,
    )  # fmt: skip
    return _walk(own)


@lru_cache(maxsize=256)
def _walk(layer: "MapLayer") -> Walk:
    windows = _given_windows(layer)
    pixel = np.arange(len(windows))
    if layer.beside is None:
        return Walk(_last_reads(layer), pixel, windows)
    each = layer.given_words // layer.beside.pixels
    words = pixel // each * layer.beside.words + layer.beside.first + pixel % each
    return Walk(_last_reads(layer), words, windows)


def _last_reads(layer: "MapLayer") -> tuple[Array, ...]:
    """Of every word of the maps that a layer reads, the last window that reads it."""
    g, columns = layer.geometry, layer.places[1]
    height, width, _ = g.input_shape
    word = np.arange(layer.pixel_words)
    if layer.chunk and layer.parts == 1 and not layer.most:  # positions are chunks of one window
        last = np.broadcast_to(word // layer.window_words, (height * width, len(word)))
        return (last.ravel(),)
    if layer.joins:
        pixel = np.arange(height * width)
        last = pixel // width // layer.side * columns + pixel % width
        return (np.repeat(last, len(word)),) * layer.joins
    (top, _), (left, _) = g.pads
    rows, across = layer.patch
    lines = _last_position(height, layer.lines, layer.side * g.stride[0], top, rows, g.dilation[0])
    places = _last_position(width, columns, g.stride[1], left, across, g.dilation[1])
    position = lines[:, None] * columns + places
    position[(lines[:, None] < 0) | (places < 0)] = -1
    last = position[:, :, None] * layer.parts + word // layer.window_words
    last[position < 0] = -1
    return (last.ravel(),)


def _last_position(
    size: int, positions: int, stride: int, pad: int, taps: int, dilation: int
) -> Array:
    """Of every place along an axis of a map the last position whose window has it, or -1."""
    found = np.full(size + pad + positions * stride + taps * dilation, -1, dtype=np.int64)
    for position in range(positions):
        start = position * stride
        found[start : start + taps * dilation : dilation] = position
    return found[pad : pad + size]


def _given_windows(layer: "MapLayer") -> Array:
    """Of every word that a layer gives, the window whose results it holds."""
    rows, columns = layer.given_places
    row, column = np.arange(rows)[:, None, None], np.arange(columns)[None, :, None]
    if not layer.pool:
        row = row // layer.side
    else:
        column = 2 * column + 1  # the right one of a pair gives the maxima
    last = np.minimum(2 * np.arange(-(-layer.channels // 2)) + 1, layer.channels - 1)
    part = last // (layer.channels // layer.parts)
    return np.asarray((row * layer.places[1] + column) * layer.parts + part).ravel()


def place_ring(
    walks: Sequence[Walk],
    sizes: Sequence[int],
    reads: Sequence[Sequence[int]],
    gives: Sequence[int],
    where: str,
) -> tuple[int, tuple[int, ...]]:
    """Words of the ring, and the first words in it of the frame and of what each layer but the last
    gives.

    Parameters
    ----------
    walks : sequence of Walk
        Of each layer.
    sizes, reads, gives, where
        As `pvq_hw.engine.map_places.place_maps` takes them.

    Raises
    ------
    InputError
        The ring would have more than `MAX_RING` words.
    """
    plan = _Places(walks, sizes, reads, gives)
    words = plan.least
    while words <= MAX_RING:
        bases = plan.bases(words)
        if bases is not None:
            return words, bases
        words += -(-words // _FINENESS)
    raise InputError(f"{where} must have maps that fit a memory of {MAX_RING:,} words")


class _Places:
    """Search for the maps' places; a map is known by the number of the layer that gives its last
    part, `FRAME` for the frame."""

    def __init__(
        self,
        walks: Sequence[Walk],
        sizes: Sequence[int],
        reads: Sequence[Sequence[int]],
        gives: Sequence[int],
    ) -> None:
        self.walks, self.sizes, self.reads, self.gives = walks, sizes, reads, gives
        self._last = {FRAME: -1}
        for number, maps in enumerate(reads):
            self._last |= dict.fromkeys(maps, number)

    def _kept(self, number: int) -> set[int]:
        """The maps that were given before a layer, and that it must leave as they are: parts of
        maps are not written over those that they are made of."""
        own, before = self.gives[number], {FRAME, *self.gives[:number]}
        whole = list(self.gives).count(own) > 1
        return {
            k
            for k in before - {own}
            if self._last.get(k, -1) > number or (whole and self._last.get(k, -1) == number)
        }

    def _over(self, number: int) -> list[int]:
        """The maps that a layer reads and may write over."""
        kept = self._kept(number)
        return [k for k in self.reads[number] if k not in kept]

    def _size(self, k: int) -> int:
        return self.sizes[k + 1]

    @property
    def least(self) -> int:
        """Words that any ring must have, as far as is plain."""
        found = [self.sizes[0]]
        for number in range(len(self.reads) - 1):
            over = dict.fromkeys(self._over(number))
            own = self._size(self.gives[number])
            read = sum(map(self._size, over)) + self.walks[number].behind * (len(over) == 1)
            found.append(sum(map(self._size, self._kept(number))) + max(own, read))
        return max(found)

    def bases(self, words: int) -> tuple[int, ...] | None:
        """The first words of all maps in a ring of so many; None where one has no place."""
        bases = {FRAME: 0}
        for number in range(len(self.reads) - 1):
            own = self.gives[number]
            if own not in bases:
                options = self._options(number, bases)
                fitting = (b % words for b in options if self._fits(number, b, bases, words))
                base = next(fitting, None)
                if base is None:
                    return None
                bases[own] = base
            elif not self._fits(number, bases[own], bases, words):
                return None
        return tuple(bases[k] for k in (FRAME, *self.gives[: len(self.reads) - 1]))

    def _options(self, number: int, bases: dict[int, int]) -> list[int]:
        """Places that are tried: right before a map that is read, then beside others."""
        behind, size = self.walks[number].behind, self._size(self.gives[number])
        found = [bases[k] - behind for k in self._over(number)]
        for k in sorted({*self._kept(number), *self.reads[number]}):
            found += [bases[k] + self._size(k), bases[k] - size]
        return found

    def _fits(self, number: int, base: int, bases: dict[int, int], words: int) -> bool:
        size = self._size(self.gives[number])
        for k in self._kept(number):
            if k in bases and not _apart(base, size, bases[k], self._size(k), words):
                return False
        over = self._over(number)
        sources = [bases[k] if k in over else None for k in self.reads[number]]
        return size <= words and self.walks[number].spares(words, base, sources)


def _apart(a: int, a_words: int, b: int, b_words: int, ring: int) -> bool:
    """Whether two runs of words of a ring have none in common."""
    return a_words + b_words <= ring and (b - a) % ring >= a_words and (a - b) % ring >= b_words
