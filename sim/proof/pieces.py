"""A small memory of a design and the distributed ones that synthesis has made of it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pvq_hw.errors import InputError
from sim.proof.netlist import Bit, Cell
from sim.proof.synthesis import Circuit

__all__ = ["Piece", "pieces", "same_contents"]


@dataclass(frozen=True)
class Piece:
    """A memory of the netlist that holds some bits of some words of one of the design.

    Parameters
    ----------
    cell : Cell
    row, words : int
        The number of its block of so many words.
    bit : int
        The lowest of its bits in a word.
    port : int
        Which read port of the design it serves.
    """

    cell: Cell
    row: int
    words: int
    bit: int
    port: int

    @property
    def name(self) -> str:
        """What the netlist calls it."""
        return self.cell.parameters["MEMID"].removeprefix("\\").removesuffix(".mem")

    def lanes(self, memory: Cell) -> Iterator[tuple[int, int]]:
        """Its bits, and those of the design's words that they hold."""
        for lane in range(self.cell.number("WIDTH")):
            if self.bit + lane < memory.number("WIDTH"):
                yield lane, self.bit + lane

    def held(self, memory: Cell) -> int:
        """How many of the design's words it holds."""
        return min(self.words, memory.number("SIZE") - self.row * self.words)

    def read(self, lane: int) -> Bit:
        """A bit of what it gives."""
        return self.cell.ports["RD_DATA"][lane]


def pieces(memory: Cell, gate: Circuit) -> list[Piece]:
    """The pieces of a memory, which Yosys calls by its name, the read port and a number.

    Those of bits that are constant, or that nothing reads, are left out. Raises InputError where
    the memory is built in another way.
    """
    name = memory.parameters["MEMID"].removeprefix("\\")
    found = {}
    for key, cell in gate.memories.items():
        if match := re.fullmatch(re.escape(name) + r"\.(\d+)\.(\d+)\.mem", key):
            found[int(match[1]), int(match[2])] = cell
    if not found:
        raise InputError(f"memory {name} is not among those of the netlist")
    first = found[min(found)]
    width, words = first.number("WIDTH"), first.number("SIZE")
    columns, rows = -(-memory.number("WIDTH") // width), -(-memory.number("SIZE") // words)
    ports = memory.number("RD_PORTS")
    numbers = {(port, n) for port in range(ports) for n in range(columns * rows)}
    plain = all(
        cell.number("WIDTH") == width and cell.number("SIZE") == words
        and cell.number("WR_PORTS") == 1 and cell.number("RD_PORTS") == 1
        and not cell.number("RD_CLK_ENABLE") and not cell.number("OFFSET")
        for cell in found.values()
    )  # fmt: skip
    if not numbers.issuperset(found) or not plain or memory.number("WR_PORTS") != 1:
        raise InputError(f"memory {name} is not built as expected")
    if memory.number("RD_CLK_ENABLE") or memory.number("OFFSET") or words & (words - 1):
        raise InputError(f"memory {name} is not read as expected")
    return [
        Piece(cell, n // columns, words, n % columns * width, port)
        for (port, n), cell in found.items()
    ]


def same_contents(memory: Cell, piece: Piece) -> bool:
    """Whether a piece begins with what the design's memory does, where that says with what."""
    now, then = (c.parameters["INIT"][::-1] for c in (piece.cell, memory))
    width, wide = piece.cell.number("WIDTH"), memory.number("WIDTH")
    first = piece.row * piece.words
    return all(
        then[(first + word) * wide + bit] in ("x", now[word * width + lane])
        for word in range(piece.held(memory))
        for lane, bit in piece.lanes(memory)
    )
