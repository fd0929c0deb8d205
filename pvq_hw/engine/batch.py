"""Batches: V frames side by side in the cores, one after the other at the ends.

A core with ``flush_cycles`` makes batches of the frames that come to it one after the other, cores
behind it pass them on, and an `Unpack` gives the results of frame after frame.
"""

from collections.abc import Sequence

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.core import CoreBase
from pvq_hw.engine.units import UNPACKER_QUEUE, Unpack

__all__ = ["FLUSH_CYCLES", "UNPACKER_QUEUE", "last_frame_format", "make_unpack"]

FLUSH_CYCLES = 64  # a source that pauses longer between two frames does not wait for a full batch
_LOGIC_BITS = 2048


def last_frame_format(frames: int) -> IntFormat:
    """The format of the number of a batch's last frame, one less than it has frames."""
    return IntFormat(max(2, (frames - 1).bit_length()), False)


def make_unpack(name: str, wires: tuple[str, str], cores: Sequence[CoreBase]) -> Unpack:
    """The unpacker behind cores of V frames, the first of which makes the batches.

    Its memory is logic where it is small and the last core's results wait in logic too.
    """
    last = cores[-1]
    # Two in each core's banks, one in its pipeline, and what its queue holds.
    places = 4 + sum(3 + -(-core.fifo_depth // core.rows) for core in cores)
    unit = Unpack(name, wires[:1], wires[1:], last.out, last.rows, last.frames, places, "logic")
    if last.fifo_memory == "logic" and unit.width * unit.depth <= _LOGIC_BITS:
        return unit
    return Unpack(name, wires[:1], wires[1:], last.out, last.rows, last.frames, places)
