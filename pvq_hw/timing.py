"""Exact cycle counts of a chain of cores, without simulating the circuits.

The model follows the events that the control of `gateware.sequencer` follows: words read, rows
finished, results taken, halves of the banks filled and freed. All times are cycles; a time is the
cycle in which the event's handshake or strobe is seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from pvq_hw.batch import is_serial, unpacker_delay
from pvq_hw.core_base import CoreBase, CoreImage
from pvq_hw.errors import InputError

__all__ = ["CoreTiming", "Timing", "frame_ends", "simulate_timing"]

_MAX_FRAMES = 600  # a core of one row fills the 256 results that `_Chain.state` looks back at


@dataclass(frozen=True)
class CoreTiming:
    """Of one core, in cycles.

    Parameters
    ----------
    name : str
    words : int
        Code words, which is cycles of work per bank word of V frames.
    busy : float
        Part of the steady interval in which the core reads code words.
    """

    name: str
    words: int
    busy: float


@dataclass(frozen=True)
class Timing:
    """Exact timing of an accelerator, in cycles, of batches of V frames (V = 1: of frames).

    Parameters
    ----------
    interval_cycles : int
        Between two batches in the steady state, input always valid, output always ready, one
        activation a clock at the input. Where the steady state is a pattern of several batches,
        their mean, rounded up.
    latency_cycles : int
        From the first input's transfer to the last output's, the pipeline empty.
    period : int
        Batches after which the steady state repeats itself: 1 but for cores of very few rows.
    layers : tuple of CoreTiming
    """

    interval_cycles: int
    latency_cycles: int
    period: int
    layers: tuple[CoreTiming, ...]

    def to_json(self) -> dict[str, Any]:
        """The timing as JSON values."""
        return {
            "interval_cycles": self.interval_cycles,
            "latency_cycles": self.latency_cycles,
            "period_batches": self.period,
            "layers": [
                {"name": c.name, "words": c.words, "busy": round(c.busy, 4)} for c in self.layers
            ],
        }


class _Core:
    """Event times of one core, frame after frame."""

    def __init__(self, spec: CoreBase, image: CoreImage) -> None:
        self.spec = spec
        self.row_slots = spec.row_slots(image)
        if len(self.row_slots) != spec.rows or sum(self.row_slots) != spec.words:
            raise InputError(f"Core {spec.name!r} must have {spec.rows} rows of codes")
        self.limit = spec.credits
        self.released: list[int] = []  # strobe of each frame's end
        self.read_end = -1  # when the last word of the frame before was read
        self.row_ends: list[int] = []  # strobes at the code ROM's output, of all frames
        self.pops: list[int] = []  # when results left, of all frames
        self.promised = self.left = 0  # how many of those the credit counter has seen

    def free_from(self, frame: int) -> int:
        """First cycle in which an activation of ``frame`` can be taken."""
        return self.released[frame - 2] + 1 if frame >= 2 else 0

    def frame(self, written: int, free: int) -> list[int]:
        """Runs a frame whose last activation came at ``written``; results are taken from ``free``.

        Returns the cycles in which the results leave.
        """
        spec = self.spec
        now = max(self.read_end + 1, written + 2)
        start = len(self.pops)
        for slots in self.row_slots:
            now = self._read(slots, now)
            pop = max(now - 1 + spec.output_delay, free)
            if self.pops:
                pop = max(pop, self.pops[-1] + 1)
            self.row_ends.append(now - 1 + spec.code_latency)
            self.pops.append(pop)
        self.read_end = now - 1
        self.released.append(self.read_end + spec.code_latency)
        return self.pops[start:]

    def _read(self, slots: int, now: int) -> int:
        """Reads the words of a row from cycle ``now`` on; gives the cycle after the last."""
        while slots:
            seen = now - 1  # the credit counter registers its strobes first
            while self.promised < len(self.row_ends) and self.row_ends[self.promised] < seen:
                self.promised += 1
            while self.left < len(self.pops) and self.pops[self.left] < seen:
                self.left += 1
            if self.promised - self.left >= self.limit:
                now = self.pops[self.left] + 2
            elif self.promised == len(self.row_ends):
                return now + slots  # no promise can come before this row's own
            else:
                now, slots = now + 1, slots - 1
        return now


class _Unpacker:
    """Event times of `gateware.batch.Unpacker`, batch after batch, all of them full."""

    def __init__(self, spec: CoreBase) -> None:
        self.results = spec.rows * spec.frames
        self.delay = unpacker_delay(spec)
        self.released: list[int] = []  # when each batch's last result was read

    def free_from(self, batch: int) -> int:
        """First cycle in which a row of ``batch`` can be taken."""
        return self.released[batch - 2] + 1 if batch >= 2 else 0

    def batch(self, whole: int) -> int:
        """When the last result of a batch leaves whose last row came at ``whole``."""
        start = max(whole, self.released[-1] if self.released else -2) + 2
        self.released.append(start + self.results - 1)
        return self.released[-1] + self.delay


class _Chain:
    """Cores in a chain, input always valid and output always ready."""

    def __init__(self, specs: Sequence[CoreBase], images: Sequence[CoreImage]) -> None:
        if not specs or len(specs) != len(images):
            raise InputError("Timing must have a specification and an image per core")
        for before, after in pairwise(specs):
            if (before.rows, before.frames) != (after.n, after.frames):
                raise InputError(f"Core {after.name!r} must take what {before.name!r} gives")
        self.cores = [_Core(spec, image) for spec, image in zip(specs, images, strict=True)]
        self.unpacker = _Unpacker(specs[-1]) if is_serial(specs) else None
        self.taken = -1
        self.frames = 0

    def frame(self) -> int:
        """Runs the next frame; gives the cycle in which its last result leaves."""
        first = max(self.taken + 1, self.cores[0].free_from(self.frames))
        spec = self.cores[0].spec
        self.taken = first + spec.n * (spec.frames if self.unpacker else 1) - 1
        end = self.taken
        for core, after in zip(self.cores, [*self.cores[1:], self.unpacker], strict=True):
            free = after.free_from(self.frames) if after else 0
            end = core.frame(end, free)[-1]
        if self.unpacker:
            end = self.unpacker.batch(end)
        self.frames += 1
        return end

    def state(self, end: int) -> tuple[int, ...]:
        """The times that later frames depend on, relative to ``end``."""
        times = [self.taken]
        for core in self.cores:
            depth = core.spec.fifo_depth
            times += [core.read_end, *core.released[-2:]]
            times += core.pops[-depth:] + core.row_ends[-depth:]
        if self.unpacker:
            times += self.unpacker.released[-2:]
        return tuple(t - end for t in times)


def frame_ends(
    specs: Sequence[CoreBase], images: Sequence[CoreImage], frames: int
) -> tuple[int, ...]:
    """Cycles from the first input's transfer to the last result of each of the first batches."""
    chain = _Chain(specs, images)
    return tuple(chain.frame() for _ in range(frames))


def simulate_timing(specs: Sequence[CoreBase], images: Sequence[CoreImage]) -> Timing:
    """The exact timing of the cores in a chain; equals what `gateware.accelerator` does."""
    chain = _Chain(specs, images)
    ends: list[int] = []
    seen: dict[tuple[int, ...], int] = {}
    start = 0
    for frame in range(_MAX_FRAMES):
        ends.append(chain.frame())
        # A repeated state is a cycle: what follows is what followed before.
        start = seen.setdefault(chain.state(ends[-1]), frame)
        if start != frame:
            break
    period = max(1, len(ends) - 1 - start)
    interval = -(-(ends[-1] - ends[-1 - period]) // period)
    cores = tuple(_core_timing(c, interval) for c in chain.cores)
    return Timing(interval, ends[0], period, cores)


def _core_timing(core: _Core, interval: int) -> CoreTiming:
    words = core.spec.words
    return CoreTiming(core.spec.name, words, words / max(1, interval))
