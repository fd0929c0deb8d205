"""Divider settings of the boards' PLLs: the highest frequency at or below a wish, exactly.

Ranges: iCE40 sysCLOCK PLL guide (FPGA-TN-02052) and ECP5 data sheet (FPGA-DS-02012).
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from pvq_hw.errors import InputError
from pvq_hw.registry import ValueFace
from pvq_hw.target.architectures import ARCHITECTURES
from pvq_hw.target.boards import Target

__all__ = ["CrystalClock", "Ecp5Pll", "Ice40Pll", "pll_settings", "solve_pll"]

_MHZ = 1_000_000


@dataclass(frozen=True)
class CrystalClock:
    """No PLL: the board's oscillator as it is.

    Parameters
    ----------
    reference_hz : int
    """

    reference_hz: int

    @property
    def output(self) -> Fraction:
        """Frequency, Hz."""
        return Fraction(self.reference_hz)

    @property
    def hz(self) -> int:
        """Frequency, Hz, rounded down."""
        return int(self.output)

    @property
    def preference(self) -> tuple[Fraction, int, Fraction, Fraction]:
        """The highest is taken: the highest output; of equal ones no PLL, then one output alone,
        then the fastest phase detector."""
        return self.output, 2, self.output, self.output


@dataclass(frozen=True)
class Ice40Pll(CrystalClock):
    """SB_PLL40_*, FEEDBACK_PATH = SIMPLE: ``f = reference / (divr + 1) * (divf + 1) / 2**divq``."""

    divr: int
    divf: int
    divq: int

    @property
    def pfd(self) -> Fraction:
        """Frequency of the phase detector, Hz: 10 to 133 MHz."""
        return Fraction(self.reference_hz, self.divr + 1)

    @property
    def vco(self) -> Fraction:
        """Frequency of the oscillator, Hz: 533 to 1,066 MHz."""
        return self.pfd * (self.divf + 1)

    @property
    def output(self) -> Fraction:
        """Frequency, Hz."""
        return self.vco / (1 << self.divq)

    @property
    def filter_range(self) -> int:
        """FILTER_RANGE for the phase detector's frequency."""
        limits = (17, 26, 44, 66, 101)
        return 1 + sum(self.pfd >= limit * _MHZ for limit in limits)

    @property
    def preference(self) -> tuple[Fraction, int, Fraction, Fraction]:
        """See `CrystalClock.preference`."""
        return self.output, 0, self.pfd, self.vco


@dataclass(frozen=True)
class Ecp5Pll(CrystalClock):
    """EHXPLLL with feedback from CLKOP: ``vco = reference / refdiv * fbdiv * opdiv``.

    The clock is ``vco / osdiv``: CLKOS, or CLKOP itself where both divide alike.
    """

    refdiv: int
    fbdiv: int
    opdiv: int
    osdiv: int

    @property
    def pfd(self) -> Fraction:
        """Frequency of the phase detector, Hz: 10 to 400 MHz."""
        return Fraction(self.reference_hz, self.refdiv)

    @property
    def vco(self) -> Fraction:
        """Frequency of the oscillator, Hz: 400 to 800 MHz."""
        return self.pfd * self.fbdiv * self.opdiv

    @property
    def output(self) -> Fraction:
        """Frequency, Hz."""
        return self.vco / self.osdiv

    @property
    def preference(self) -> tuple[Fraction, int, Fraction, Fraction]:
        """See `CrystalClock.preference`; CLKOP alone is one output."""
        return self.output, int(self.opdiv == self.osdiv), self.pfd, self.vco


pll_settings: ValueFace[[int, Fraction], Iterable[CrystalClock]] = ARCHITECTURES.face(
    "PLL settings"
)
"""Settings for a reference and a wish, Hz: those below the wish at least."""


@pll_settings.of("ice40")
def _ice40(family: str, reference: int, wish: Fraction) -> Iterator[Ice40Pll]:
    for divr in range(16):
        for divf in range(128):
            pll = Ice40Pll(reference, divr, divf, 1)
            if not 10 * _MHZ <= pll.pfd <= 133 * _MHZ:
                break
            if not 533 * _MHZ <= pll.vco <= 1066 * _MHZ:
                continue
            for divq in range(1, 7):
                pll = Ice40Pll(reference, divr, divf, divq)
                if 16 * _MHZ <= pll.output <= 275 * _MHZ:
                    yield pll


@pll_settings.of("ecp5")
def _ecp5(family: str, reference: int, wish: Fraction) -> Iterator[Ecp5Pll]:
    for refdiv in range(1, reference // (10 * _MHZ) + 1):
        for fbdiv in range(1, 81):
            feedback = Fraction(reference * fbdiv, refdiv)
            if feedback > 400 * _MHZ:
                break
            first, last = math.ceil(400 * _MHZ / feedback), math.floor(800 * _MHZ / feedback)
            for opdiv in range(first, min(last, 128) + 1):
                # Any smaller divider would exceed the wish or the output's 400 MHz.
                osdiv = math.ceil(feedback * opdiv / min(wish, Fraction(400 * _MHZ)))
                if osdiv <= 128:
                    yield Ecp5Pll(reference, refdiv, fbdiv, opdiv, osdiv)


def solve_pll(target: Target, clock_mhz: float) -> CrystalClock:
    """The settings that come nearest to ``clock_mhz`` from below.

    Raises
    ------
    InputError
        The wish is out of the range of the target's PLL; the message has the range.
    """
    target.check_clock(clock_mhz)
    # A wish of 66.6667 is meant as a decimal number.
    wish = Fraction(str(clock_mhz)) * _MHZ
    reference = round(target.crystal_mhz * _MHZ)
    solutions = [CrystalClock(reference), *pll_settings(target.family, reference, wish)]
    fitting = [pll for pll in solutions if pll.output <= wish]
    if not fitting:
        lowest = min(pll.output for pll in solutions) / _MHZ
        raise InputError(
            f"Clock of {target.name} must be at least {float(lowest):g} MHz, not {clock_mhz:g}"
        )
    return max(fitting, key=lambda pll: pll.preference)
