"""Specifications of the units that decide: their values, widths and exact timing."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import IntFormat, bits_for
from pvq_hw.engine.timing import Process, Wire, Work, streamed, timing
from pvq_hw.engine.units import UNITS, IntArray, Queued, Unit
from pvq_hw.errors import InputError
from pvq_hw.network.decision import (
    MOST_LARGEST,
    MOST_SHIFT,
    MOST_SMOOTHED,
    Above,
    Largest,
    Smoothed,
)
from pvq_hw.network.layer import TensorSpec

__all__ = ["AboveUnit", "LargestUnit", "SmoothedUnit"]


@UNITS.kind
@dataclass(frozen=True)
class LargestUnit(Unit):
    """The largest values of a frame, sorted as they come: `pvq_hw.network.decision.Largest`.

    An activation a cycle; after the last one the list moves, in a cycle, to where it is sent from,
    as soon as the list before is gone.

    Parameters
    ----------
    x : IntFormat
    size : int
        Activations of a frame.
    count : int
        Values that it gives.
    """

    kind: ClassVar[str] = "largest"

    x: IntFormat
    size: int
    count: int

    def __post_init__(self) -> None:
        if self.x.binary or not 1 <= self.count <= min(MOST_LARGEST, self.size):
            raise InputError(f"Unit {self.name!r} must give 1 to {MOST_LARGEST} of its values")

    @property
    def out(self) -> IntFormat:
        """Format of what it gives: places and values share one."""
        return Largest.form(self.x, self.size)

    @property
    def place_bits(self) -> int:
        """Bits of a place in a frame."""
        return bits_for(0, max(1, self.size - 1))

    @property
    def waiting(self) -> int:
        """Results that can wait in it without a pause between them: those of the list that is
        sent."""
        return 2 * self.count

    @property
    def rounds(self) -> int:
        """Frames that it may hold: lists that are sent, wait and are made."""
        return 3

    @property
    def held(self) -> int:
        """Transfers of the output on which its later timing can depend."""
        return 4 * self.count

    def layer(self) -> Largest:
        """The golden model, scales aside."""
        out = TensorSpec(self.name, (2 * self.count,), self.out, 1.0)
        return Largest(self.name, "x", out, self.count)

    def compute(self, *x: npt.ArrayLike) -> IntArray:
        """(frames, ...) -> (frames, 2 * count)."""
        return self.layer().compute(np.asarray(x[0]))

    def sizes(self) -> tuple[tuple[int, ...], int]:
        """Activations of a frame: of the input, and of the output."""
        return (self.size,), 2 * self.count

    def formats(self) -> tuple[tuple[IntFormat, ...], IntFormat]:
        """Formats of the input, and of the output."""
        return (self.x,), self.out


@UNITS.kind
@dataclass(frozen=True)
class AboveUnit(Queued):
    """Compares every value with a threshold: `pvq_hw.network.decision.Above`.

    Parameters
    ----------
    x : IntFormat
    thresholds : tuple of int
        Of the values of a frame in turn.
    depth : int
        Of the queue of results.
    queue_memory : str
        Of that queue.
    """

    kind: ClassVar[str] = "above"

    x: IntFormat
    thresholds: tuple[int, ...]
    depth: int = 16
    queue_memory: str = "logic"

    def __post_init__(self) -> None:
        if self.x.binary or not self.thresholds:
            raise InputError(f"Unit {self.name!r} must compare values with thresholds")

    @property
    def out(self) -> IntFormat:
        """0 or 1."""
        return IntFormat(2, signed=False)

    @property
    def result_delay(self) -> int:
        """Cycles from a transfer to the write into the queue."""
        return 1

    def layer(self) -> Above:
        """The golden model, scales aside."""
        out = TensorSpec(self.name, (len(self.thresholds),), self.out, 1.0)
        return Above(self.name, "x", out, self.thresholds)

    def compute(self, *x: npt.ArrayLike) -> IntArray:
        """(frames, ...) -> (frames, n)."""
        return self.layer().compute(np.asarray(x[0]))

    def sizes(self) -> tuple[tuple[int, ...], int]:
        """Activations of a frame: of the input, and of the output."""
        return (len(self.thresholds),), len(self.thresholds)

    def formats(self) -> tuple[tuple[IntFormat, ...], IntFormat]:
        """Formats of the input, and of the output."""
        return (self.x,), self.out


@UNITS.kind
@dataclass(frozen=True)
class SmoothedUnit(Unit):
    """Averages over frames, and the class that holds: `pvq_hw.network.decision.Smoothed`.

    An activation a cycle. Two cycles after a frame's last one its decision is ready, and moves, in
    a cycle, to where it is sent from, as soon as the one before is gone; until then no further
    activation is taken. A reset forgets the averages: the first frame after it begins them.

    Parameters
    ----------
    x : IntFormat
    size : int
        Activations of a frame.
    shift : int
        Logarithm of the frames that are averaged over.
    margin : int
        Of averages, in integers.
    """

    kind: ClassVar[str] = "smoothed"
    remembers: ClassVar[bool] = True

    x: IntFormat
    size: int
    shift: int
    margin: int

    def __post_init__(self) -> None:
        if self.x.binary or not 2 <= self.size <= MOST_SMOOTHED:
            raise InputError(f"Unit {self.name!r} must average 2 to {MOST_SMOOTHED} values")
        least, most = self.x.limits
        if not 1 <= self.shift <= MOST_SHIFT or not 0 <= self.margin <= most - least:
            raise InputError(f"Unit {self.name!r} must average over 2 to {1 << MOST_SHIFT} frames")

    @property
    def out(self) -> IntFormat:
        """Format of what it gives: place and average share one."""
        return Largest.form(self.x, self.size)

    @property
    def place_bits(self) -> int:
        """Bits of a place in a frame."""
        return bits_for(0, self.size - 1)

    @property
    def sum_bits(self) -> int:
        """Bits of an average times ``2**shift``: as many more than the values have."""
        return self.x.bits + self.shift

    @property
    def waiting(self) -> int:
        """Results that can wait in it without a pause between them: those that are sent."""
        return 2

    @property
    def rounds(self) -> int:
        """Frames that it may hold: decisions that are sent and wait, and one to be made."""
        return 3

    @property
    def held(self) -> int:
        """Transfers of the output on which its later timing can depend."""
        return 4

    def layer(self) -> Smoothed:
        """The golden model, scales aside."""
        out = TensorSpec(self.name, (2,), self.out, 1.0)
        return Smoothed(self.name, "x", out, self.shift, self.margin)

    def compute(self, *x: npt.ArrayLike) -> IntArray:
        """(frames, ...) -> (frames, 2), from a reset on."""
        return self.layer().compute(np.asarray(x[0]))

    def sizes(self) -> tuple[tuple[int, ...], int]:
        """Activations of a frame: of the input, and of the output."""
        return (self.size,), 2

    def formats(self) -> tuple[tuple[IntFormat, ...], IntFormat]:
        """Formats of the input, and of the output."""
        return (self.x,), self.out


@timing.of(LargestUnit)
def _sorting(unit: LargestUnit, work: Work) -> list[Process]:
    return [_largest(unit, work.inputs[0], work.outputs[0], work.frames)]


def _largest(unit: LargestUnit, i: Wire, o: Wire, frames: int) -> Process:
    """A frame's first value is taken once the list before has moved on, which is when the one
    before that has been sent."""
    moved = 0  # when the list of the frame before moved on
    for frame in range(frames):
        i.readies += [moved] + [0] * (unit.size - 1)
        i.settle()
        while len(i.moved) < (frame + 1) * unit.size:
            yield
        while len(o.moved) < 2 * unit.count * frame:
            yield
        sent = o.moved[-1] + 1 if frame else 0
        moved = max(i.moved[(frame + 1) * unit.size - 1] + 1, sent)
        o.offers += [moved + 1] * (2 * unit.count)
        o.settle()


@timing.of(SmoothedUnit)
def _averaging(unit: SmoothedUnit, work: Work) -> list[Process]:
    return [_smoothed(unit, work.inputs[0], work.outputs[0], work.frames)]


def _smoothed(unit: SmoothedUnit, i: Wire, o: Wire, frames: int) -> Process:
    """A frame's first value is taken once the decision before has moved on, which is when the one
    before that has been sent."""
    ready = 0
    for frame in range(frames):
        i.readies += [ready] + [0] * (unit.size - 1)
        i.settle()
        while len(i.moved) < (frame + 1) * unit.size:
            yield
        while len(o.moved) < 2 * frame:
            yield
        sent = o.moved[-1] + 1 if frame else 0
        moved = max(i.moved[(frame + 1) * unit.size - 1] + 2, sent)
        ready = moved + 1
        o.offers += [moved + 1] * 2
        o.settle()


@timing.of(AboveUnit)
def _comparing(unit: AboveUnit, work: Work) -> list[Process]:
    return [streamed(work, len(unit.thresholds), unit.result_delay, unit.depth)]
