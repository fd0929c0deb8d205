"""What a block RAM holds: as the words of its circuit, and as the text of the bitstream tools.

Lattice FPGA-TN-02002 describes SB_RAM40_4K, FPGA-TN-02204 DP16KD. The bits of a block are numbered
as the tools write them: `block_bits` says where a word's are.
"""

import re
from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from pvq_hw.errors import InputError
from pvq_hw.registry import ValueFace
from pvq_hw.target.architectures import ARCHITECTURES, architecture

__all__ = [
    "bit_places",
    "block_bits",
    "block_words",
    "parse_section",
    "section_lines",
    "sections",
]

Bits = npt.NDArray[np.uint8]


bit_places: ValueFace[[npt.NDArray[np.int64], int], npt.NDArray[np.int64]] = ARCHITECTURES.face(
    "bit places"
)
"""The number (words, width) of each bit of ``word`` (words, 1), words of ``width`` bits."""


@bit_places.of("ice40")
def _shared_rows(family: str, word: npt.NDArray[np.int64], width: int) -> npt.NDArray[np.int64]:
    # Narrow words share a row of 16 bits: the upper bits of the address choose the bit.
    return 16 * (word & 255) + 16 // width * np.arange(width) + (word >> 8)


@bit_places.of("ecp5")
def _in_turn(family: str, word: npt.NDArray[np.int64], width: int) -> npt.NDArray[np.int64]:
    bit = np.arange(width)
    if width >= 9:
        return word * width + bit
    # Words of 1, 2 or 4 bits fill 8 of every 9 bits.
    per = 8 // width
    return word // per * 9 + word % per * width + bit


@cache
def _places(width: int, family: str) -> npt.NDArray[np.int64]:
    """(words, width): the number of each bit."""
    depth = dict(architecture(family).block_shapes)[width]
    return bit_places(family, np.arange(depth)[:, None], width)


def block_bits(words: Sequence[int], width: int, family: str) -> Bits:
    """All bits of a block that holds ``words`` of ``width`` bits, zeros behind."""
    bits = np.zeros(architecture(family).block_bits, dtype=np.uint8)
    value = np.array(words, dtype=np.int64)[:, None] >> np.arange(width) & 1
    bits[_places(width, family)[: len(words)]] = value
    return bits


def block_words(bits: Bits, width: int, family: str) -> npt.NDArray[np.int64]:
    """All words of a block; the inverse of `block_bits`."""
    return bits[_places(width, family)].astype(np.int64) @ (1 << np.arange(width))


def section_lines(bits: Bits, family: str) -> list[str]:
    """The lines of a block's contents in the text of a placed design."""
    count, per, size, digits = architecture(family).section
    octets = np.packbits(bits.reshape(count * per, size), axis=1, bitorder="little")
    words = [f"{int.from_bytes(row.tobytes(), 'little'):0{digits}x}" for row in octets]
    return [" ".join(words[i : i + per]) for i in range(0, len(words), per)]


def parse_section(lines: Sequence[str], family: str) -> Bits:
    """The inverse of `section_lines`; raises InputError on anything else."""
    count, per, size, digits = architecture(family).section
    words = [word for line in lines for word in line.split()]
    whole = re.compile(rf"[0-9a-f]{{{digits}}}")
    if len(words) != count * per or not all(map(whole.fullmatch, words)):
        raise InputError(f"A block RAM must have {count * per} words of {size} bits")
    bits = [np.frombuffer(f"{int(word, 16):0{size}b}".encode()[::-1], np.uint8) for word in words]
    return np.concatenate(bits) - ord("0")


def sections(text: str, family: str) -> dict[str, Bits]:
    """The contents of every block RAM in the text of a placed design, by heading.

    A section is ``.ram_data X Y`` on iCE40 and ``.bram_init N`` on ECP5. Raises InputError where
    one is broken.
    """
    device = architecture(family)
    heading, count = re.compile(device.heading), device.section[0]
    lines = text.split("\n")
    return {
        line: parse_section(lines[number + 1 : number + 1 + count], family)
        for number, line in enumerate(lines)
        if heading.fullmatch(line)
    }
