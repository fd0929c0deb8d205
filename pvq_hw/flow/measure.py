"""How fast a board's accelerator is by the board's own clock: frames that it repeats by itself."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pvq_hw.errors import InputError
from pvq_hw.host.link import Link
from pvq_hw.host.protocol import MOST_REPEATS, Measurement, WireFormat, output_sums
from pvq_hw.plan.plan import Plan

__all__ = ["Measured", "measure"]

_LONGEST = 1 << 32  # cycles that a board counts
_WITHIN = 0.002  # of the plan: a steady state may be a pattern of frames


@dataclass(frozen=True)
class Measured:
    """What a board measured, its input always valid and its output always ready.

    Attributes
    ----------
    frames : int
        That were run one after the other.
    interval_cycles : float
        Between two frames, the mean over the second half of them; between two batches where
        ``frames_side_by_side`` is above 1.
    latency_cycles : int
        From the first activation in to the last output out, of one frame or batch.
    clock_hz : int
        As the board says it.
    right : bool
        Whether the sums of all outputs are those of the board's own answer to that frame.
    frames_side_by_side : int
    """

    frames: int
    interval_cycles: float
    latency_cycles: int
    clock_hz: int
    right: bool
    frames_side_by_side: int = 1

    @property
    def frames_per_second(self) -> float:
        """At the board's clock, without the link."""
        return self.frames_side_by_side * self.clock_hz / self.interval_cycles

    def against(self, plan: Plan) -> str:
        """What differs from a plan, "" where nothing does."""
        if not self.right:
            return f"outputs of {self.frames} repeated frames differ"
        planned = plan.interval_cycles
        if self.latency_cycles != plan.latency_cycles:
            return (
                f"latency is {self.latency_cycles:,} cycles instead of {plan.latency_cycles:,} as "
                "planned"
            )
        if not planned - 1 < self.interval_cycles <= planned * (1 + _WITHIN):
            return f"{self.interval_cycles:,.2f} cycles between frames instead of {planned:,}"
        return ""


def measure(
    board: Link,
    frame: npt.ArrayLike,
    *,
    frames: int = 1000,
    side_by_side: int = 1,
) -> Measured:
    """Lets a board that was compiled with ``measure`` run a frame many times.

    Parameters
    ----------
    board : Link
    frame : integers (...)
        Within the input's format, channels last.
    frames : int
        2 or more; rounded up to two whole batches or more.
    side_by_side : int
        V: frames of a batch.

    Raises
    ------
    InputError
        The board does not measure, the frame is not its input's, or so many frames take more
        cycles than it counts.
    ToolError
        It does not answer.
    """
    said = board.describe()
    if not said.measures:
        raise InputError("The board must have been compiled with --measure to measure its rate")
    if not 2 <= frames <= MOST_REPEATS - 2 * side_by_side:
        raise InputError(
            f"Repeated frames must be 2 to {MOST_REPEATS - 2 * side_by_side:,}, not {frames:,}"
        )
    half = -(-frames // (2 * side_by_side)) * side_by_side
    outputs = board.infer(np.asarray(frame).reshape(1, -1))[0]
    one = board.repeat(frame, side_by_side)
    bound = one.cycles * 2 * half // side_by_side
    if bound >= _LONGEST:
        most = _LONGEST * side_by_side // one.cycles
        raise InputError(f"Repeated frames must be at most {most:,} here, not {frames:,}")
    runs = [one]
    runs += [board.repeat(frame, n, seconds=bound / said.clock_hz) for n in (half, 2 * half)]
    return Measured(
        2 * half,
        (runs[2].cycles - runs[1].cycles) * side_by_side / half,
        one.cycles,
        said.clock_hz,
        all(_right(run, said.output, outputs) for run in runs),
        side_by_side,
    )


def _right(run: Measurement, wire: WireFormat, outputs: npt.NDArray[np.int64]) -> bool:
    return run.sums == output_sums(wire, outputs, run.frames)
