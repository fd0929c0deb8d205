"""When a stream's source idles and its sink stalls: the same seeded pattern in every simulator."""

from collections.abc import Iterator
from dataclasses import dataclass

from pvq_hw.errors import InputError

__all__ = ["NONE", "Pattern", "draws"]

_ONE = 1 << 16
_MASK = (1 << 32) - 1


def _xorshift(state: int) -> int:
    """One step of Marsaglia's 32-bit xorshift generator (13, 17, 5); the state is never 0."""
    state ^= (state << 13) & _MASK
    state ^= state >> 17
    return state ^ (state << 5) & _MASK


@dataclass(frozen=True)
class Pattern:
    """Two-state pattern of pauses: each cycle goes over from running to pausing or back.

    The compiled model's C++ main (`sim/compiled_main.cc`) and the testbench in Verilog
    (`gateware.export.testbench`) draw the very same sequence, so that simulators can be compared
    cycle by cycle under stalls.

    Parameters
    ----------
    pause : float
        Probability, 0 to 1, of a pause after a running cycle.
    resume : float
        Probability, above 0 and up to 1, of running after a pausing cycle.
    name : str
        What `parse` read.
    steps : tuple of int
        Draws before the random ones: how many to run, to pause, to run and so on.
    """

    pause: float
    resume: float
    name: str = ""
    steps: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.pause <= 1 or not 0 < self.resume <= 1:
            raise InputError(
                f"Pattern probabilities must be 0 to 1, not {self.pause} and {self.resume}"
            )
        if any(not 0 <= cycles < 1 << 31 for cycles in self.steps):
            raise ValueError(f"Pattern steps must be 0 to 2147483647 cycles, not {self.steps}")

    @property
    def pauses(self) -> bool:
        """Whether there are pauses at all."""
        return self.pause > 0 or any(self.steps[1::2])

    @property
    def longest(self) -> int:
        """Cycles of the longest pause of `steps`, 0 without."""
        return max(self.steps[1::2], default=0)

    @classmethod
    def random(cls, p: float) -> "Pattern":
        """Every cycle pauses with probability ``p`` below 1, whatever the one before did."""
        return cls(p, 1 - p, f"random:{p:g}")

    @classmethod
    def bursts(cls, length: float) -> "Pattern":
        """Runs and pauses in turn, of a mean ``length`` of at least 1 cycle each."""
        if length < 1:
            raise InputError(f"Burst length must be at least 1, not {length:g}")
        return cls(1 / length, 1 / length, f"bursts:{length:g}")

    @classmethod
    def script(cls, *steps: int) -> "Pattern":
        """Runs and pauses for so many cycles in turn, then runs for ever."""
        return cls(0.0, 1.0, "steps:" + ",".join(map(str, steps)), steps)

    @classmethod
    def parse(cls, text: "str | Pattern") -> "Pattern":
        """``none``, ``random:P``, ``bursts:CYCLES`` or ``steps:RUN,PAUSE,RUN,...``."""
        if isinstance(text, Pattern):
            return text
        kind, _, value = text.partition(":")
        try:
            if text == "none":
                return NONE
            if kind == "random":
                return cls.random(float(value))
            if kind == "bursts":
                return cls.bursts(float(value))
            if kind == "steps":
                return cls.script(*map(int, value.split(",")))
        except ValueError:
            pass
        raise InputError(
            f"Pattern must be none, random:P, bursts:CYCLES or steps:RUN,PAUSE,..., not {text!r}"
        )

    @property
    def thresholds(self) -> tuple[int, int]:
        """Probabilities to pause and to resume, in 1/65536; the second at least 1."""
        return round(self.pause * _ONE), max(1, round(self.resume * _ONE))

    def __str__(self) -> str:
        return self.name


NONE = Pattern(0.0, 1.0, "none")


def draws(pattern: Pattern, seed: int) -> Iterator[bool]:
    """Endless: whether to pause, cycle by cycle. The same for the same pattern and seed."""
    for step, cycles in enumerate(pattern.steps):
        for _ in range(cycles):
            yield step % 2 == 1
    to_pause, to_run = pattern.thresholds
    # An odd multiplier spreads small seeds over the word; the state must not be 0.
    state = (seed * 2654435761 + 0x9E3779B9) & _MASK or 1
    pausing = False
    while True:
        state = _xorshift(state)
        draw = state >> 16
        pausing = draw >= to_run if pausing else draw < to_pause
        yield pausing
