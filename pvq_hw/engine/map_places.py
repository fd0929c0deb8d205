"""Where the maps of a shared engine are: in which of its two memories, and from which word on; see
`pvq_hw.engine.map_ring` for engines with one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pvq_hw.documents import Document
from pvq_hw.errors import InputError

__all__ = ["FRAME", "Beside", "MapPlace", "Part", "Turn", "place_maps", "with_copies"]

FRAME = -1
"""The number of the map that comes in, where layers have theirs from 0 on."""


@dataclass(frozen=True)
class Beside(Document):
    """Where what a layer gives lies in a map that other layers give parts of, channels beside
    theirs.

    Parameters
    ----------
    name : str
        Of the concatenation.
    first, words : int
        Words of a pixel before its own, and of the whole pixel.
    channels, pixels : int
        Of the map.
    map : int
        Number of the layer that gives the last part: it is the map's.
    after, rank : int
        Number of the layer behind which the concatenation stands in the network, and its own among
        concatenations.
    """

    name: str
    first: int
    words: int
    channels: int
    pixels: int
    map: int = FRAME
    after: int = FRAME
    rank: int = 0


class Part(NamedTuple):
    """A copy that gives a part of a map: the map's name, the copy's words, and whether the layer
    that it copies from could give the part itself."""

    whole: str
    words: int
    direct: bool


class Turn(NamedTuple):
    """A step in the order in which they are done.

    Its number among those that were asked for, None of a copy; the maps that it reads; the number
    of the step whose part of a map it gives, that map, the turn that was the last when all its
    parts were there, and how many maps had all theirs before.
    """

    step: int | None
    reads: tuple[int, ...]
    part: int | None = None
    map: int = FRAME
    after: int = FRAME
    rank: int = 0


@dataclass(frozen=True)
class MapPlace:
    """One of the two memories, the first word, and how many there are; the words of the ``ring``
    where there is one memory, 0 where there are two."""

    memory: int
    base: int
    words: int
    ring: int = 0

    @property
    def end(self) -> int:
        """The word after its last."""
        return self.base + self.words

    def __str__(self) -> str:
        if self.ring:
            return f"ring [{self.base}:{self.end % self.ring or self.ring}]"
        return f"map {self.memory} [{self.base}:{self.end}]"


def place_maps(
    sizes: Sequence[int],
    reads: Sequence[Sequence[int]],
    where: str,
    gives: Sequence[int] | None = None,
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
    gives : sequence of int, optional
        The number of the map that each layer gives (a part of): that of the last layer that does.
        Its own unless given.

    Raises
    ------
    InputError
        A layer reads what isn't there yet, or maps of both memories, or layers that give parts of
        one map write different memories.
    """
    given = [FRAME, *(gives or range(len(reads)))]
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
        memory, own = 1 - sources.pop(), given[number + 1]
        if own in given[: number + 1]:
            places.append(places[given.index(own)])
            if places[-1].memory != memory:
                raise InputError(f"{where}: layer {number} must write where its parts are")
            continue
        kept = [
            place
            for k, place in enumerate(places)
            if place.memory == memory and last[given[k] + 1] > number
        ]
        words = sizes[own + 1]
        bases = [0, *(place.end for place in kept)]
        base = min(b for b in bases if all(b + words <= p.base or p.end <= b for p in kept))
        places.append(MapPlace(memory, base, words))
    return tuple(places)


def with_copies(reads: Sequence[Sequence[int]], parts: Sequence[Part | None] = ()) -> list[Turn]:
    """Steps that each read maps of one memory: the given ones, and copies of maps to the other
    memory where a step reads of both.

    ``reads`` are the maps of each step, `FRAME` or the numbers of steps before it; ``parts`` says
    which steps are copies that give a part of a map, all of one map's one after the other. These
    write one memory, the one that takes the fewest words copied: a map that is there already is
    given by its own layer, if that is possible.
    """
    found: list[Turn] = []
    memories, numbers = {FRAME: 0}, {FRAME: FRAME}
    targets, givers, ends = dict[str, int](), dict[str, list[int]](), dict[str, int]()

    def add(step: int | None, maps: Sequence[int], part: int | None = None) -> int:
        found.append(Turn(step, tuple(maps), part))
        memories[len(found) - 1] = 1 - memories[maps[0]]
        return len(found) - 1

    def of_part(step: int, part: Part, read: int) -> int:
        if part.whole not in targets:
            own = [
                (p, memories[numbers[maps[0]]])
                for p, maps in zip(parts, reads, strict=True)
                if p is not None and p.whole == part.whole
            ]
            costs = [
                sum(p.words * (1 if m != memory else 2 * (not p.direct)) for p, m in own)
                for memory in (0, 1)
            ]
            targets[part.whole] = int(costs[1] < costs[0])
        there = memories[read] == targets[part.whole]
        if there and part.direct:
            found[read] = found[read]._replace(part=step)
            return read
        return add(step, [add(None, [read]) if there else read], step)

    for step, asked in enumerate(reads):
        maps, part = [numbers[k] for k in asked], parts[step] if parts else None
        if part is not None:
            givers.setdefault(part.whole, []).append(of_part(step, part, maps[0]))
            numbers[step], ends[part.whole] = max(givers[part.whole]), len(found) - 1
            continue
        if len({memories[k] for k in maps}) > 1:
            latest = max(maps)
            copy = add(None, [latest])
            maps = [copy if k == latest else k for k in maps]
        numbers[step] = add(step, maps)
    for rank, (whole, own) in enumerate(givers.items()):
        for number in own:
            found[number] = found[number]._replace(map=max(own), after=ends[whole], rank=rank)
    return found
