"""Where the maps of a shared engine are: in which of its two memories, and from which word on."""

from collections.abc import Sequence
from dataclasses import dataclass

from pvq_hw.errors import InputError

__all__ = ["FRAME", "MapPlace", "place_maps", "with_copies"]

FRAME = -1
"""The number of the map that comes in, where layers have theirs from 0 on."""


@dataclass(frozen=True)
class MapPlace:
    """One of the two memories, the first word, and how many there are."""

    memory: int
    base: int
    words: int

    @property
    def end(self) -> int:
        """The word after its last."""
        return self.base + self.words

    def __str__(self) -> str:
        return f"map {self.memory} [{self.base}:{self.end}]"


def place_maps(
    sizes: Sequence[int], reads: Sequence[Sequence[int]], where: str
) -> tuple[MapPlace, ...]:
    """Places of the frame and of what each layer but the last gives.

    A layer writes the memory that it doesn't read. A map keeps its words until the last layer that
    reads it is through; another takes the lowest ones that are free meanwhile.

    Parameters
    ----------
    sizes : sequence of int
        Words of the frame, then of each layer's map.
    reads : sequence of sequences of int
        The maps that each layer reads, `FRAME` or the numbers of layers before it.
    where : str
        What is placed, for errors.

    Raises
    ------
    InputError
        A layer reads what isn't there yet, or maps of both memories.
    """
    last = [0] * len(sizes)  # the layer that reads a map at last
    for number, maps in enumerate(reads):
        for k in maps:
            if not FRAME <= k < number:
                raise InputError(f"{where}: layer {number} must read what is given before it")
            last[k + 1] = number
    places = [MapPlace(0, 0, sizes[0])]
    for number, maps in enumerate(reads):
        sources = {places[k + 1].memory for k in maps}
        if len(sources) != 1:
            raise InputError(f"{where}: layer {number} must read maps of one memory")
        if number == len(reads) - 1:
            break
        memory = 1 - sources.pop()
        kept = [
            place for k, place in enumerate(places) if place.memory == memory and last[k] > number
        ]
        words = sizes[number + 1]
        bases = [0, *(place.end for place in kept)]
        base = min(b for b in bases if all(b + words <= p.base or p.end <= b for p in kept))
        places.append(MapPlace(memory, base, words))
    return tuple(places)


def with_copies(
    reads: Sequence[Sequence[int]],
) -> list[tuple[int | None, tuple[int, ...]]]:
    """Steps that each read maps of one memory: the given ones, and copies of maps to the other
    memory where a step reads of both.

    ``reads`` are the maps of each step, `FRAME` or the numbers of steps before it. Gives each
    step's number, None of a copy, and its reads in the new numbers.
    """
    found: list[tuple[int | None, tuple[int, ...]]] = []
    memories, numbers = {FRAME: 0}, {FRAME: FRAME}

    def add(step: int | None, maps: Sequence[int]) -> int:
        found.append((step, tuple(maps)))
        memories[len(found) - 1] = 1 - memories[maps[0]]
        return len(found) - 1

    for step, asked in enumerate(reads):
        maps = [numbers[k] for k in asked]
        if len({memories[k] for k in maps}) > 1:
            latest = max(maps)
            copy = add(None, [latest])
            maps = [copy if k == latest else k for k in maps]
        numbers[step] = add(step, maps)
    return found
