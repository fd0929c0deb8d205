"""Rates of the links: of the serial line whole clocks a bit, and the error that this makes."""

from dataclasses import dataclass

from pvq_hw.choices import SPI, UART
from pvq_hw.errors import InputError

__all__ = [
    "BAUDS",
    "MAX_ERROR",
    "BaudTiming",
    "byte_bits",
    "check_rate",
    "choose_baud",
    "choose_rate",
]


MAX_ERROR = 0.02  # of the 4 % or so that a receiver stands: the other end isn't exact either
MIN_DIVISOR = 4
SPI_DIVISOR = 6  # clocks in a period of the controller's clock, at least
BAUDS = (3_000_000, 2_000_000, 1_000_000, 921_600, 500_000, 460_800, 230_400, 115_200)


@dataclass(frozen=True)
class BaudTiming:
    """A circuit's bit time.

    Parameters
    ----------
    clock_hz : int
        Clock of the circuit, Hz.
    baud : int
        Symbols per second that the other end uses.

    Raises
    ------
    InputError
        A bit has fewer than 4 clocks, or the error exceeds 2 %.
    """

    clock_hz: int
    baud: int

    def __post_init__(self) -> None:
        if self.clock_hz < 1 or self.baud < 1:
            raise InputError(f"Clock and baud must be positive, not {self.clock_hz}, {self.baud}")
        if self.divisor < MIN_DIVISOR:
            raise InputError(
                f"Baud must be at most {self.clock_hz // MIN_DIVISOR:,} at a clock of "
                f"{self.clock_hz / 1e6:g} MHz, not {self.baud:,}"
            )
        if self.error > MAX_ERROR:
            raise InputError(
                f"Baud error must be at most {MAX_ERROR:.0%}, but {self.baud:,} is off by "
                f"{self.error:.1%} at a clock of {self.clock_hz / 1e6:g} MHz"
            )

    @property
    def divisor(self) -> int:
        """Clocks per bit."""
        return (2 * self.clock_hz + self.baud) // (2 * self.baud)

    @property
    def error(self) -> float:
        """Relative error of the bit rate."""
        return abs(self.clock_hz / self.divisor / self.baud - 1)


def choose_baud(clock_hz: int, at_most: int = 1_000_000) -> BaudTiming:
    """The fastest usual rate up to ``at_most`` that the clock meets."""
    for baud in (at_most, *(b for b in BAUDS if b < at_most)):
        try:
            return BaudTiming(clock_hz, baud)
        except InputError:
            continue
    raise InputError(f"Clock must allow a usual baud rate, but {clock_hz:,} Hz allows none")


def byte_bits(link: str) -> int:
    """Bits on the line for a byte, without what stuffing adds."""
    return 8 if link == SPI else 10


def check_rate(link: str, clock_hz: int, rate: int) -> int:
    """The rate of a link, bits a second, where the clock allows it; raises InputError else."""
    if link == UART:
        return BaudTiming(clock_hz, rate).baud
    if not 1 <= rate <= clock_hz // SPI_DIVISOR:
        raise InputError(
            f"SPI must have 1 to {clock_hz // SPI_DIVISOR:,} bits a second at a clock of "
            f"{clock_hz / 1e6:g} MHz, not {rate:,}"
        )
    return rate


def choose_rate(link: str, clock_hz: int, at_most: int | None = None) -> int:
    """The fastest rate up to ``at_most``: of a serial line a usual one, of SPI any."""
    most = clock_hz if at_most is None else at_most
    return choose_baud(clock_hz, most).baud if link == UART else min(most, clock_hz // SPI_DIVISOR)
