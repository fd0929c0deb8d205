"""How fast a plan is asked to be."""

import math
import re
from dataclasses import dataclass
from typing import Any

from pvq_hw.errors import InputError
from pvq_hw.naming import quoted

__all__ = ["NO_GOAL", "SpeedGoal", "microseconds"]

_LEAST, _MOST = 1e-6, 1e12
_UNITS = {"": 1.0, "ns": 1e-3, "us": 1.0, "ms": 1e3, "s": 1e6}
_TIME = re.compile(r"([0-9.]{1,20}(?:e[-+]?[0-9]{1,3})?) ?(|ns|us|ms|s)", re.ASCII)


def microseconds(text: str) -> float:
    """``"50"``, ``"50us"``, ``"1.5 ms"``, ``"800ns"`` or ``"2s"`` as microseconds; raises
    InputError for anything else."""
    found = _TIME.fullmatch(text.strip().lower())
    try:
        if found:
            return float(found[1]) * _UNITS[found[2]]
    except ValueError:
        pass
    raise InputError(
        f"Latency must be a time such as 50us, 1.5ms or 50 (microseconds), not {quoted(text)}"
    )


@dataclass(frozen=True)
class SpeedGoal:
    """The speed that the smallest plan is looked for at; 0 asks for nothing.

    Parameters
    ----------
    inferences_per_second : float
        At least, by the circuit's clock; the serial link may be slower.
    max_latency_us : float
        Microseconds at most from the first activation in to the last result out.
    """

    inferences_per_second: float = 0.0
    max_latency_us: float = 0.0

    def __post_init__(self) -> None:
        for what, value in (
            ("Inferences a second", self.inferences_per_second),
            ("Latency (microseconds)", self.max_latency_us),
        ):
            if value != 0 and not _LEAST <= value <= _MOST:
                raise InputError(f"{what} must be {_LEAST:g} to {_MOST:g}, not {value:g}")

    def __bool__(self) -> bool:
        return bool(self.inferences_per_second or self.max_latency_us)

    def pace(self, clock_hz: int) -> int:
        """The most cycles that an inference may take: no interval above it reaches the rate, nor
        the latency, which is no shorter than an interval."""
        cycles = []
        if self.inferences_per_second:
            cycles.append(clock_hz / self.inferences_per_second)
        if self.max_latency_us:
            cycles.append(clock_hz * self.max_latency_us / 1e6)
        return max(1, math.floor(min(cycles))) if cycles else 0

    def reached(self, inferences_per_second: float, latency_us: float) -> bool:
        """Whether a plan is as fast as asked."""
        most = self.max_latency_us or math.inf
        return inferences_per_second >= self.inferences_per_second and latency_us <= most

    def excess(self, inferences_per_second: float, latency_us: float) -> float:
        """How many times too slow a plan is; at most 1 where it is fast enough."""
        rate = self.inferences_per_second / inferences_per_second
        return max(rate, latency_us / self.max_latency_us if self.max_latency_us else 0.0)

    def text(self) -> str:
        """What is asked for, in words."""
        parts = []
        if self.inferences_per_second:
            parts.append(f"{_shown(self.inferences_per_second)} inferences a second")
        if self.max_latency_us:
            parts.append(f"a latency of at most {_shown(self.max_latency_us)} us")
        return " and ".join(parts)

    def found(self, inferences_per_second: float, latency_us: float) -> str:
        """The figures of a plan that are asked for, in words."""
        parts = []
        if self.inferences_per_second:
            parts.append(f"{_shown(inferences_per_second)} inferences a second")
        if self.max_latency_us:
            parts.append(f"a latency of {_shown(latency_us)} us")
        return " and ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """JSON values; None where nothing is asked."""
        return {name: value or None for name, value in vars(self).items()}


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


NO_GOAL = SpeedGoal()
