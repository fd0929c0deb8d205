"""Codes that are read from the board's SPI flash anew for every frame: file, cycles, arrivals.

A core with ``code_memory == "flash"`` has a ring of ``code_buffer`` words in block RAM instead of
all its codes. A reader fills it word after word, pass after pass, as far as there is room; the core
reads them in the same order and gives their places back. Multipliers and biases of a layer's rows
may come before its codes, in words of the same width, and have a ring of their own.

The flash gives ``flash_bits`` bits a clock: one, two or four. Where a word isn't a multiple of
them, zeros stand before it, so that each begins with a clock.

``image/codes.bin`` is a header of 16 bytes as in `pvq_hw.engine.spram_image`, of version 2, and the
code words with these zeros one after the other, the most significant bit first, as they leave the
flash. The CRC-32 is taken over these bits in their order, so that the reader counts it bit by bit:
that of bytes whose bits are reversed, and of the last byte only the bits in use.
"""

import struct
import zlib
from collections.abc import Sequence
from typing import Any, Protocol

from pvq_hw.engine.spram_image import CODES_MAGIC, FLASH_OFFSET, HEADER_BYTES

__all__ = [
    "CLOCK_CYCLES",
    "FLASH_BITS",
    "PAUSE_CYCLES",
    "READ_COMMANDS",
    "STREAM_BENCH",
    "STREAM_FILE",
    "STREAM_INSTANCE",
    "STREAM_START",
    "WAKE_CYCLES",
    "Arrivals",
    "command_clocks",
    "first_word",
    "flash_width",
    "has_stream",
    "pass_cycles",
    "sent_bits",
    "stream_crc",
    "stream_cycles",
    "stream_file",
    "stream_startup",
    "streamed_core",
]

CLOCK_CYCLES = 2
"""Cycles of the flash's clock, which is half of the circuit's."""

READ_COMMANDS = {1: 0x03, 2: 0x3B, 4: 0x6B}
"""What asks the flash for so many bits a clock: read data, fast read dual output, fast read quad
output. Behind the address the fast ones have a dummy byte."""

FLASH_BITS = tuple(READ_COMMANDS)
"""Bits a clock that the flash can give."""

PAUSE_CYCLES = 8
"""For which the flash is released between two passes."""

_KNOWN = 4  # cycles of the pause in which a pass's CRC isn't known yet
_READ_DELAY = 3  # from the end of a word's last bit to the cycle in which the word can be read

WAKE_CYCLES = 1 << 13
"""Pause before and after the flash is woken up: 50 us or more up to 160 MHz."""

STREAM_START = FLASH_OFFSET + HEADER_BYTES
"""Where the code words begin in the flash."""

STREAM_FILE = "pvq_flash.v"
"""Of the exported Verilog, for simulations: the accelerator, as `STREAM_INSTANCE`, with a flash, in
a module that is called as it is and `STREAM_BENCH`."""

STREAM_BENCH, STREAM_INSTANCE = "_with_flash", "dut"
_VERSION = 2
_POLYNOMIAL = 0xEDB88320  # of CRC-32, reflected
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class StreamedCore(Protocol):
    """What is needed of a core's specification."""

    @property
    def word_bits(self) -> int: ...
    @property
    def stream_words(self) -> int: ...
    @property
    def stream_runs(self) -> tuple[tuple[int, int], ...]: ...
    @property
    def stream_memory(self) -> str: ...
    @property
    def params_places(self) -> int: ...
    @property
    def code_buffer(self) -> int: ...
    @property
    def flash_bits(self) -> int: ...


def command_clocks(flash_bits: int) -> int:
    """Clocks of the flash from its selection to the first bit: command, address, dummy byte."""
    return 32 if flash_bits == 1 else 40


def pass_cycles(flash_bits: int) -> int:
    """Cycles from the end of a pass's last clock to the next one's first: the pause, the command
    and what follows it."""
    return PAUSE_CYCLES + command_clocks(flash_bits) * CLOCK_CYCLES


def first_word(flash_bits: int) -> int:
    """Cycles from that in which the first frame may come, when the checked pass's CRC is known, to
    the first clock of the codes that are used."""
    return pass_cycles(flash_bits) - _KNOWN


def sent_bits(spec: StreamedCore) -> int:
    """Bits of a word and of the zeros before it, as they leave the flash."""
    return -(-spec.word_bits // spec.flash_bits) * spec.flash_bits


def _word_cycles(spec: StreamedCore) -> int:
    return sent_bits(spec) // spec.flash_bits * CLOCK_CYCLES


def has_stream(specs: Sequence[Any]) -> bool:
    """Whether a core reads its codes from the flash for every frame."""
    return any(spec.code_memory == "flash" for spec in specs)


def flash_width(specs: Sequence[Any]) -> int:
    """Bits a clock that the flash gives the core that reads its codes from there; 1 where none
    does."""
    return next((spec.flash_bits for spec in specs if spec.code_memory == "flash"), 1)


def streamed_core(
    specs: Sequence[Any], images: Sequence[Any]
) -> tuple[Any, tuple[int, ...]] | None:
    """The core that reads its codes from the flash, and all words that it reads; None where none
    does."""
    pairs = zip(specs, images, strict=True)
    found = (
        (spec, tuple(spec.contents(image)[spec.stream_memory]))
        for spec, image in pairs
        if spec.code_memory == "flash"
    )
    return next(found, None)


def stream_cycles(spec: StreamedCore) -> int:
    """Cycles in which the flash gives all words once: no frame takes fewer."""
    return spec.stream_words * _word_cycles(spec) + pass_cycles(spec.flash_bits)


def stream_startup(spec: StreamedCore) -> int:
    """About how many cycles after a reset the first frame is taken: the codes are read once."""
    return stream_cycles(spec) + 2 * WAKE_CYCLES + pass_cycles(spec.flash_bits)


def stream_crc(spec: StreamedCore, words: Sequence[int]) -> int:
    """CRC-32 of all words' bits in the order in which they leave the flash."""
    count = spec.stream_words * sent_bits(spec)
    data = _packed(spec, words)
    whole, rest = divmod(count, 8)
    state = zlib.crc32(data[:whole].translate(_REVERSED)) ^ 0xFFFFFFFF
    for bit in range(rest):
        state ^= data[whole] >> (7 - bit) & 1
        state = state >> 1 ^ (_POLYNOMIAL if state & 1 else 0)
    return state ^ 0xFFFFFFFF


def stream_file(spec: StreamedCore, words: Sequence[int]) -> bytes:
    """Header and words, as they are written into the flash at
    `pvq_hw.engine.spram_image.FLASH_OFFSET`."""
    data = _packed(spec, words)
    crc = stream_crc(spec, words)
    return struct.pack("<4sB3xII", CODES_MAGIC, _VERSION, len(data), crc) + data


def _packed(spec: StreamedCore, words: Sequence[int]) -> bytes:
    """The words' bits, zeros first where there are more, and zeros up to a whole byte."""
    size = sent_bits(spec)
    bits = "".join(f"{word:0{size}b}" for word in words)
    size = -(-len(bits) // 8)
    return int(bits.ljust(8 * size, "0"), 2).to_bytes(size, "big")


class Arrivals:
    """When code words can be read: exact cycles, 0 being that in which the first frame may come.

    Words come pass after pass, and code words are read in that order; those of rows' multipliers
    and biases, which come before the codes of their layer, are there once these are.
    """

    def __init__(self, spec: StreamedCore) -> None:
        self._is_code = [
            is_code
            for run in spec.stream_runs
            for is_code, count in zip((False, True), run, strict=True)
            for _ in range(count)
        ]
        self._depths = spec.params_places, spec.code_buffer
        self._cycles, self._pass_cycles = _word_cycles(spec), pass_cycles(spec.flash_bits)
        # Of words so far, and of the next one's first bit.
        self._count, self._start = 0, first_word(spec.flash_bits)
        # Of parameters and of codes: cycles of the words' first bits, and in which words' places
        # were given back.
        self._starts: tuple[list[int], list[int]] = [], []
        self._freed: tuple[list[int], list[int]] = [], []

    def free(self, cycle: int, words: int = 1) -> None:
        """The next code words' places are given back in this cycle."""
        self._freed[1].extend([cycle] * words)

    def free_params(self, cycle: int, words: int) -> None:
        """The places of the next words of parameters are given back in this cycle."""
        self._freed[0].extend([cycle] * words)

    def ready(self, words: int = 1) -> int:
        """The first cycle in which the next code word, or the last of so many, can be read."""
        last = len(self._freed[1]) + words - 1
        while len(self._starts[1]) <= last:
            is_code = self._is_code[self._count % len(self._is_code)]
            starts, depth = self._starts[is_code], self._depths[is_code]
            start = self._start
            if len(starts) >= depth:
                start = max(start, self._freed[is_code][len(starts) - depth] + 1)
            starts.append(start)
            self._count += 1
            self._start = start + self._cycles
            if self._count % len(self._is_code) == 0:
                self._start += self._pass_cycles
        return self._starts[1][last] + self._cycles + _READ_DELAY

    def take(self, now: int) -> int:
        """When the next word is read, which its place is given back for: now, or the first cycle
        in which it is there, for which it must be asked for again."""
        at = max(now, self.ready())
        if at == now:
            self.free(now)
        return at
