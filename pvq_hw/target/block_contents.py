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
from pvq_hw.target.block_ram import BLOCK_SHAPES

__all__ = ["BLOCK_BITS", "block_bits", "block_words", "parse_section", "section_lines", "sections"]

BLOCK_BITS = {"ice40": 4096, "ecp5": 18432}
"""Bits of a block."""

_HEADINGS = {"ice40": r"\.ram_data \d+ \d+", "ecp5": r"\.bram_init \d+"}
# Lines of a section: their number, and a line's words of so many bits in so many digits.
_LINES = {"ice40": (16, 1, 256, 64), "ecp5": (256, 8, 9, 3)}

Bits = npt.NDArray[np.uint8]


@cache
def _places(width: int, family: str) -> npt.NDArray[np.int64]:
    """(words, width): the number of each bit."""
    depth = dict(BLOCK_SHAPES[family])[width]
    word, bit = np.arange(depth)[:, None], np.arange(width)
    if family == "ice40":
        # Narrow words share a row of 16 bits: the upper bits of the address choose the bit.
        return 16 * (word & 255) + 16 // width * bit + (word >> 8)
    if width >= 9:
        return word * width + bit
    # Words of 1, 2 or 4 bits fill 8 of every 9 bits.
    per = 8 // width
    return word // per * 9 + word % per * width + bit


def block_bits(words: Sequence[int], width: int, family: str) -> Bits:
    """The bits (`BLOCK_BITS`,) of a block that holds ``words`` of ``width`` bits, zeros behind."""
    bits = np.zeros(BLOCK_BITS[family], dtype=np.uint8)
    value = np.array(words, dtype=np.int64)[:, None] >> np.arange(width) & 1
    bits[_places(width, family)[: len(words)]] = value
    return bits


def block_words(bits: Bits, width: int, family: str) -> npt.NDArray[np.int64]:
    """All words of a block; the inverse of `block_bits`."""
    return bits[_places(width, family)].astype(np.int64) @ (1 << np.arange(width))


def section_lines(bits: Bits, family: str) -> list[str]:
    """The lines of a block's contents in the text of a placed design."""
    count, per, size, digits = _LINES[family]
    octets = np.packbits(bits.reshape(count * per, size), axis=1, bitorder="little")
    words = [f"{int.from_bytes(row.tobytes(), 'little'):0{digits}x}" for row in octets]
    return [" ".join(words[i : i + per]) for i in range(0, len(words), per)]


def parse_section(lines: Sequence[str], family: str) -> Bits:
    """The inverse of `section_lines`; raises InputError on anything else."""
    count, per, size, digits = _LINES[family]
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
    heading, count = re.compile(_HEADINGS[family]), _LINES[family][0]
    lines = text.split("\n")
    return {
        line: parse_section(lines[number + 1 : number + 1 + count], family)
        for number, line in enumerate(lines)
        if heading.fullmatch(line)
    }
