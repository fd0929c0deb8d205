"""Batches: V frames side by side in the cores, one after the other at the ends."""

from collections.abc import Sequence
from dataclasses import dataclass

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.core import CoreBase

__all__ = [
    "FLUSH_CYCLES",
    "UNPACKER_QUEUE",
    "UnpackerMemory",
    "batch_places",
    "is_serial",
    "last_frame_format",
    "unpacker_delay",
    "unpacker_memory",
]

FLUSH_CYCLES = 64  # a source that pauses longer between two frames does not wait for a full batch
UNPACKER_QUEUE = 8  # more than the reads under way in the unpacker
_LOGIC_BITS = 2048


@dataclass(frozen=True)
class UnpackerMemory:
    """Two batches' results: a word is a row's V results."""

    width: int
    depth: int
    latency: int
    kind: str


def is_serial(specs: Sequence[CoreBase]) -> bool:
    """Whether frames come and go one after the other, though the cores take V at a time."""
    return specs[0].flush_cycles > 0


def last_frame_format(frames: int) -> IntFormat:
    """Of the number of a batch's last frame, which is one less than it has frames."""
    return IntFormat(max(2, (frames - 1).bit_length()), False)


def batch_places(specs: Sequence[CoreBase]) -> int:
    """Batches that can be under way between the first core's banks and the unpacker's reader."""
    # Two in each core's banks, one in its pipeline, and what its queue holds.
    return 4 + sum(3 + -(-spec.fifo_depth // spec.rows) for spec in specs)


def unpacker_memory(spec: CoreBase) -> UnpackerMemory:
    """The unpacker's memory behind the last core; logic where it is small."""
    width = spec.frames * spec.out.bits
    depth = (1 << max(1, (spec.rows - 1).bit_length())) + spec.rows
    small = spec.fifo_memory == "logic" and width * depth <= _LOGIC_BITS
    return UnpackerMemory(width, depth, 1 if small else 2, "logic" if small else "block")


def unpacker_delay(spec: CoreBase) -> int:
    """Cycles from a read of the unpacker to its transfer, the output always ready."""
    return unpacker_memory(spec).latency + 3
