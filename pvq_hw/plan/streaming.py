"""What a plan's codes take of the flash that gives them anew for every frame."""

from dataclasses import dataclass
from typing import Any, ClassVar

from pvq_hw.arith.formats import significant
from pvq_hw.engine.code_stream import BIT_CYCLES, StreamedCore, stream_cycles
from pvq_hw.errors import InputError

__all__ = ["FLASH_READ_MHZ", "CodeStream"]

FLASH_READ_MHZ = 50.0
"""Clock up to which flashes take command 03h: 50 MHz of a W25Q128JV, 54 MHz of a N25Q032A."""


@dataclass(frozen=True)
class CodeStream:
    """Bits that the flash gives for a frame, and cycles.

    Parameters
    ----------
    bits : int
        Of all words.
    cycles : int
        In which the flash gives them, the command included.
    interval : int
        Cycles between frames.
    clock_hz : int
        Of the circuit.
    """

    MOST_CLOCK_MHZ: ClassVar[float] = BIT_CYCLES * FLASH_READ_MHZ

    bits: int
    cycles: int
    interval: int
    clock_hz: int

    @classmethod
    def of(cls, spec: StreamedCore, interval: int, clock_hz: int) -> "CodeStream":
        """Of a core that reads its codes from the flash."""
        return cls(spec.stream_words * spec.word_bits, stream_cycles(spec), interval, clock_hz)

    @property
    def flash_hz(self) -> float:
        """The flash's clock."""
        return self.clock_hz / BIT_CYCLES

    def verify(self, board: str) -> None:
        """Raises InputError where the flash's clock is higher than it may be."""
        if self.clock_hz > 1e6 * self.MOST_CLOCK_MHZ:
            raise InputError(
                f"Codes must come from the flash of {board} at {FLASH_READ_MHZ:g} MHz at most, not "
                f"at half of {self.clock_hz / 1e6:g} MHz; lower the clock"
            )

    def text(self) -> str:
        """In one line, for people."""
        return (
            f"{self.bits:,} bits a frame from the flash, which takes {self.cycles:,} of "
            f"{self.interval:,} cycles at {self.flash_hz / 1e6:g} MHz"
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "bits_per_frame": self.bits,
            "cycles_per_frame": self.cycles,
            "flash_hz": significant(self.flash_hz),
            "bits_per_second": significant(self.bits * self.clock_hz / self.interval),
            "flash_busy": significant(self.cycles / self.interval),
        }
