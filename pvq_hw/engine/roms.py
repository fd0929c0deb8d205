"""The ROMs that hold what follows from the weights, as the circuits build them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pvq_hw.engine.core import CoreImage
from pvq_hw.engine.dataflow import GraphSpec
from pvq_hw.engine.units import Lookup, Unit

__all__ = ["RomContents", "RomShape", "emptied", "rom_contents", "rom_shapes"]


@dataclass(frozen=True)
class RomContents:
    """Words of a ROM in block RAM.

    Parameters
    ----------
    owner : str
        The core or unit that it is in.
    memory : str
        What its words are of: a memory of the core, or a table.
    name : str
        The ROM's own, by which the circuits call it.
    width : int
        Bits of a word.
    first : int
        Number of its first word in the memory, which may be cut into several ROMs.
    words : tuple of int
    """

    owner: str
    memory: str
    name: str
    width: int
    first: int
    words: tuple[int, ...]


@dataclass(frozen=True)
class RomShape:
    """A ROM in block RAM, whatever it holds: ``depth`` words, else as in `RomContents`."""

    owner: str
    memory: str
    name: str
    width: int
    first: int
    depth: int


def rom_shapes(graph: GraphSpec, blocks: str) -> Iterator[RomShape]:
    """The ROMs in block RAM of a graph's cores and tables, in order.

    ``blocks`` is a key of `pvq_hw.target.architectures.ARCHITECTURES`.
    """
    for spec in graph.cores:
        for memory, (width, words) in spec.memories.items():
            codes = memory == spec.memory_name("weights")
            if spec.memory_kind(memory) != "block":
                continue
            depths = spec.weight_roms(blocks) if codes else (words,)
            for number, depth in enumerate(depths):
                name = memory if depth == words else f"{memory}_{number}"
                yield RomShape(spec.name, memory, name, width, sum(depths[:number]), depth)
    for unit in graph.units:
        if isinstance(unit, Lookup) and unit.memory == "block":
            for table in unit.tables:
                name = f"{unit.name}_{table}"
                yield RomShape(unit.name, name, name, unit.out.bits, 0, unit.words)


def rom_contents(
    graph: GraphSpec, images: Sequence[CoreImage], blocks: str
) -> Iterator[RomContents]:
    """`rom_shapes` with their words; ``images`` are the contents of the cores, in order."""
    words: dict[str, Sequence[int]] = {}
    for spec, image in zip(graph.cores, images, strict=True):
        words |= spec.contents(image)
    for unit in graph.units:
        if isinstance(unit, Lookup):
            words |= {f"{unit.name}_{t}": unit.contents(k) for k, t in enumerate(unit.tables)}
    for rom in rom_shapes(graph, blocks):
        part = tuple(words[rom.memory][rom.first : rom.first + rom.depth])
        yield RomContents(rom.owner, rom.memory, rom.name, rom.width, rom.first, part)


def emptied(unit: Unit) -> Unit:
    """A table in a memory with as many entries, all 0; any other unit as it is."""
    if not isinstance(unit, Lookup) or unit.memory == "lines":
        return unit
    return replace(unit, entries=tuple((0,) * len(row) for row in unit.entries))
