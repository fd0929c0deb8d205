"""Codes that are loaded after configuration: where they go, and the file that holds them.

An UltraPlus has four SPRAMs of 16,384 words of 16 bits. Cores with ``code_memory == "spram"`` get
them in order: a code word takes ``ceil(bits / 16)`` blocks side by side (the lowest bits first),
and cores of more than 16,384 words so many blocks again for each 16,384 words.

``image/codes.bin`` is a header of 16 bytes - the magic ``PVQC``, the format's version, 3 bytes of
zero, the length of what follows (4 bytes), its CRC-32 (4 bytes) - and then the used words of block
after block. Numbers are little-endian.
"""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pvq_hw.errors import InputError
from pvq_hw.target.block_ram import SPRAM_DEPTH, SPRAM_WIDTH, spram_blocks

__all__ = [
    "CODES_FILE",
    "CODES_MAGIC",
    "FLASH_OFFSET",
    "HEADER_BYTES",
    "SPRAM_FILE",
    "CodeBlock",
    "CodeLayout",
    "code_crc",
    "code_file",
    "code_layout",
    "code_words",
    "code_writes",
    "has_spram",
]

CODES_FILE = "codes.bin"
SPRAM_FILE = "pvq_spram.v"  # of the exported Verilog
CODES_MAGIC = b"PVQC"
CODES_VERSION = 1
HEADER_BYTES = 16
FLASH_OFFSET = 1 << 20
"""Where the file begins in the board's SPI flash: an UltraPlus's bitstream has 104,090 bytes, four
of them for warm boot are less than half a megabyte."""

_MASK = (1 << SPRAM_WIDTH) - 1


class SpramCore(Protocol):
    """What is needed of a core's specification."""

    @property
    def code_memory(self) -> str: ...
    @property
    def word_bits(self) -> int: ...
    @property
    def words(self) -> int: ...


@dataclass(frozen=True)
class CodeBlock:
    """One SPRAM: bits from ``bit`` on of ``words`` code words from ``word`` on of core ``core``."""

    core: int
    bit: int
    word: int
    words: int


@dataclass(frozen=True)
class CodeLayout:
    """What lies in the SPRAMs.

    Parameters
    ----------
    blocks : tuple of CodeBlock
        By the SPRAM's number.
    """

    blocks: tuple[CodeBlock, ...]

    # How words go over the line and are checked, see `pvq_hw.engine.live_image.LiveLayout`.
    flash = True
    address_bytes = 2
    word_bits = SPRAM_WIDTH
    word_bytes = 2
    block_bits = 2
    check_steps = 4
    seed = 0

    @property
    def size(self) -> int:
        """Bytes of the words of all blocks."""
        return 2 * sum(block.words for block in self.blocks)

    def first(self, core: int) -> int:
        """Number of the first block of a core."""
        return next(k for k, block in enumerate(self.blocks) if block.core == core)

    def header(self, crc: int) -> bytes:
        """The file's header."""
        return struct.pack("<4sB3xII", CODES_MAGIC, CODES_VERSION, self.size, crc)


def has_spram(specs: Sequence[Any]) -> bool:
    """Whether a core has its codes in SPRAM."""
    return any(spec.code_memory == "spram" for spec in specs)


def code_layout(specs: Sequence[SpramCore]) -> CodeLayout:
    """The blocks of all cores; raises InputError where there are more than four."""
    blocks = []
    for core, spec in enumerate(specs):
        if spec.code_memory == "spram":
            for word in range(0, spec.words, SPRAM_DEPTH):
                words = min(SPRAM_DEPTH, spec.words - word)
                for bit in range(0, spec.word_bits, SPRAM_WIDTH):
                    blocks.append(CodeBlock(core, bit, word, words))
    if len(blocks) > 4:
        needs = [spram_blocks(s.word_bits, s.words) for s in specs if s.code_memory == "spram"]
        raise InputError(f"Codes must be in 4 SPRAMs at most, but the cores need {needs}")
    return CodeLayout(tuple(blocks))


def code_words(layout: CodeLayout, images: Sequence[Any]) -> list[list[int]]:
    """The 16-bit words of every block; ``images`` are the cores' contents, in order."""
    found = []
    for block in layout.blocks:
        codes = images[block.core].codes[block.word : block.word + block.words]
        found.append([(code >> block.bit) & _MASK for code in codes])
    return found


def code_writes(layout: CodeLayout, data: bytes) -> list[tuple[int, int]]:
    """The (address, word) pairs that load a file's contents; see `gateware.device.spram.CODE_PORT`.

    Raises InputError on a file that is none, is another layout's or is damaged.
    """
    payload = data[HEADER_BYTES:]
    if data[:HEADER_BYTES] != layout.header(zlib.crc32(payload)) or len(payload) != layout.size:
        raise InputError(
            f"{CODES_FILE} must hold {layout.size:,} bytes of codes, with their checksum before"
        )
    words = iter(struct.unpack(f"<{len(payload) // 2}H", payload))
    found = []
    for number, block in enumerate(layout.blocks):
        found += [(number << 14 | at, next(words)) for at in range(block.words)]
    return found


def code_crc(layout: CodeLayout, images: Sequence[Any]) -> int:
    """CRC-32 of the words of all blocks, as in the file's header."""
    return int(struct.unpack_from("<I", code_file(layout, images), 12)[0])


def code_file(layout: CodeLayout, images: Sequence[Any]) -> bytes:
    """Header and words of all blocks."""
    words = [word for block in code_words(layout, images) for word in block]
    payload = struct.pack(f"<{len(words)}H", *words)
    return layout.header(zlib.crc32(payload)) + payload
