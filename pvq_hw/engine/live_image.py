"""Weights that are loaded while a board runs: which block RAMs they fill, and their checksum.

The board takes the words of one block RAM after the other, reads all of them back and works out
their CRC-32. The last memory is what the board says of itself, the network's identity included, and
behind that a checksum by which the CRC over everything is a constant of the circuit: so a set of
contents carries its own proof, the one that the bitstream brings as well as those loaded later. The
CRC starts from the circuit's own hash, so that contents of another circuit are never right.
"""

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from pvq_hw.documents import write
from pvq_hw.engine.core import CoreImage
from pvq_hw.engine.dataflow import GraphSpec
from pvq_hw.engine.roms import emptied, rom_contents, rom_shapes
from pvq_hw.target.architectures import architecture
from pvq_hw.target.block_ram import memory_layout

__all__ = ["TOLD", "LiveBlock", "LiveLayout", "LiveMemory", "live_contents", "live_layout"]

TOLD = "description"
"""Name of the memory that holds what the board says of itself."""

_RESIDUE = 0x2144DF1C  # CRC-32 of anything with its own CRC behind it, low byte first
_CRC_BYTES = 4


@dataclass(frozen=True)
class LiveMemory:
    """A ROM: ``depth`` words of ``width`` bits."""

    name: str
    width: int
    depth: int


@dataclass(frozen=True)
class LiveBlock:
    """One block RAM: ``bits`` bits from ``bit`` on, of ``words`` words from ``word`` on of a
    memory."""

    memory: str
    bit: int
    bits: int
    word: int
    words: int


@dataclass(frozen=True)
class LiveLayout:
    """The block RAMs that are loaded, in the order of their numbers.

    Parameters
    ----------
    memories : tuple of LiveMemory
        The board's description comes last.
    family : str
        A key of `pvq_hw.target.architectures.ARCHITECTURES`.
    circuit : bytes
        Tells circuits apart.
    """

    memories: tuple[LiveMemory, ...]
    family: str
    circuit: bytes

    flash = False
    address_bytes = 4

    @cached_property
    def blocks(self) -> tuple[LiveBlock, ...]:
        """The pieces of all memories."""
        return tuple(
            LiveBlock(memory.name, piece.bit, piece.bits, piece.word, piece.words)
            for memory in self.memories
            for piece in memory_layout(memory.width, memory.depth, self.family)
        )

    def first(self, name: str) -> int:
        """Number of the first block of a memory."""
        return next(k for k, block in enumerate(self.blocks) if block.memory == name)

    @property
    def word_bits(self) -> int:
        """Bits of the widest block's word."""
        return architecture(self.family).block_shapes[0][0]

    @property
    def word_bytes(self) -> int:
        """Bytes of a word on the line."""
        return -(-self.word_bits // 8)

    @property
    def block_bits(self) -> int:
        """Bits of a block's number."""
        return max(1, (len(self.blocks) - 1).bit_length())

    @property
    def check_steps(self) -> int:
        """Cycles in which a word is read back and goes into the CRC."""
        return 8 if self.word_bytes == 2 else 16

    @property
    def size(self) -> int:
        """Bytes of the words of all blocks."""
        return self.word_bytes * sum(block.words for block in self.blocks)

    @property
    def told_bytes(self) -> int:
        """Bytes of the description in one of its words."""
        return self.word_bytes // 2 * 2

    @property
    def seed(self) -> int:
        """What the CRC starts from."""
        return zlib.crc32(self.circuit)

    @property
    def right(self) -> int:
        """The CRC over all words, in the blocks' order, of contents that are whole."""
        return zlib.crc32(bytes(self.word_bytes - self.told_bytes), _RESIDUE)

    def encoded(self, words: Sequence[int]) -> bytes:
        """Words as they go over the line."""
        return b"".join(word.to_bytes(self.word_bytes, "little") for word in words)

    def decoded(self, data: bytes) -> tuple[tuple[int, ...], ...]:
        """The words of every block; inverse of `encoded` over all of them."""
        words, at, found = _numbers(data, self.word_bytes), 0, []
        for block in self.blocks:
            found.append(words[at : at + block.words])
            at += block.words
        return tuple(found)

    def said(self, blocks: Sequence[Sequence[int]]) -> bytes:
        """What the last memory holds, the description first."""
        return b"".join(word.to_bytes(self.told_bytes, "little") for word in blocks[-1])

    def told(self, contents: Mapping[str, Sequence[int]], description: bytes) -> tuple[int, ...]:
        """The words of the last memory: the description, and the checksum of everything."""
        size = self.told_bytes
        depth = self.memories[-1].depth - _CRC_BYTES // size
        padded = description.ljust(depth * size, b"\0")
        words = [
            int.from_bytes(padded[k : k + size], "little") for k in range(0, len(padded), size)
        ]
        before = b"".join(
            self.encoded(words) for words in self._split({**contents, TOLD: words}) if words
        )
        crc = zlib.crc32(before, self.seed).to_bytes(_CRC_BYTES, "little")
        words += [int.from_bytes(crc[k : k + size], "little") for k in range(0, _CRC_BYTES, size)]
        return tuple(words)

    def words(
        self, contents: Mapping[str, Sequence[int]], description: bytes
    ) -> tuple[tuple[int, ...], ...]:
        """The words of every block, for contents of all other memories by name."""
        return self._split({**contents, TOLD: self.told(contents, description)})

    def _split(self, contents: Mapping[str, Sequence[int]]) -> tuple[tuple[int, ...], ...]:
        return tuple(
            tuple(
                word >> block.bit & ((1 << block.bits) - 1)
                for word in contents[block.memory][block.word : block.word + block.words]
            )
            for block in self.blocks
        )


def _numbers(data: bytes, size: int) -> tuple[int, ...]:
    """Little-endian numbers of so many bytes each."""
    return tuple(int.from_bytes(data[k : k + size], "little") for k in range(0, len(data), size))


def live_contents(
    graph: GraphSpec, images: Sequence[CoreImage], blocks: str
) -> dict[str, tuple[int, ...]]:
    """Words of the ROMs of cores and tables by their names."""
    return {rom.name: rom.words for rom in rom_contents(graph, images, blocks)}


def live_layout(graph: GraphSpec, blocks: str, described: int) -> LiveLayout:
    """The block RAMs of a circuit whose description has ``described`` bytes."""
    memories = [LiveMemory(rom.name, rom.width, rom.depth) for rom in rom_shapes(graph, blocks)]
    circuit = replace(graph, units=tuple(map(emptied, graph.units)))
    text = json.dumps([write(circuit), blocks, described], sort_keys=True)
    bare = LiveLayout(tuple(memories), blocks, hashlib.sha256(text.encode()).digest())
    size = bare.told_bytes
    told = LiveMemory(TOLD, 8 * size, -(-described // size) + _CRC_BYTES // size)
    return replace(bare, memories=(*memories, told))
