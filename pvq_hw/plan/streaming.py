"""What a plan's codes take of the flash that gives them anew for every frame."""

from dataclasses import dataclass
from typing import Any

from pvq_hw.arith.formats import significant
from pvq_hw.engine.code_stream import CLOCK_CYCLES, StreamedCore, sent_bits, stream_cycles
from pvq_hw.errors import InputError

__all__ = ["FLASH_MHZ", "CodeStream"]

FLASH_MHZ = {1: 50.0, 2: 104.0, 4: 104.0}
"""Clocks up to which flashes give so many bits: command 03h 50 MHz of a W25Q128JV, 54 MHz of a
N25Q032A; 3Bh and 6Bh 133 MHz and 108 MHz, and 104 MHz of a W25Q128FV."""


@dataclass(frozen=True)
class CodeStream:
    """Bits that the flash gives for a frame, and cycles.

    Parameters
    ----------
    width : int
        Bits that the flash gives a clock.
    bits : int
        Of all words, and the zeros between them.
    cycles : int
        In which the flash gives them, the command included.
    interval : int
        Cycles between frames.
    clock_hz : int
        Of the circuit.
    """

    width: int
    bits: int
    cycles: int
    interval: int
    clock_hz: int

    @classmethod
    def of(cls, spec: StreamedCore, interval: int, clock_hz: int) -> "CodeStream":
        """Of a core that reads its codes from the flash."""
        bits = spec.stream_words * sent_bits(spec)
        return cls(spec.flash_bits, bits, stream_cycles(spec), interval, clock_hz)

    @property
    def flash_hz(self) -> float:
        """The flash's clock."""
        return self.clock_hz / CLOCK_CYCLES

    @property
    def most_clock_mhz(self) -> float:
        """The circuit's clock at which the flash's is as high as it may be."""
        return CLOCK_CYCLES * FLASH_MHZ[self.width]

    def verify(self, board: str) -> None:
        """Raises InputError where the flash's clock is higher than it may be."""
        if self.clock_hz > 1e6 * self.most_clock_mhz:
            raise InputError(
                f"Codes must come from the flash of {board} at {FLASH_MHZ[self.width]:g} MHz at "
                f"most, not at half of {self.clock_hz / 1e6:g} MHz; lower the clock"
            )

    def text(self) -> str:
        """In one line, for people."""
        return (
            f"{self.bits:,} bits a frame from the flash, {self.width} a clock, which takes "
            f"{self.cycles:,} of {self.interval:,} cycles at {self.flash_hz / 1e6:g} MHz"
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "bits_per_clock": self.width,
            "bits_per_frame": self.bits,
            "cycles_per_frame": self.cycles,
            "flash_hz": significant(self.flash_hz),
            "bits_per_second": significant(self.bits * self.clock_hz / self.interval),
            "flash_busy": significant(self.cycles / self.interval),
        }
