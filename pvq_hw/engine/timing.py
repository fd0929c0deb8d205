"""Exact cycle counts of a graph of units, without simulating the circuits.

Every unit is a process over event times. A wire knows for each of its transfers when the giver
can offer it and when the reader can take it, both as far as the wire itself is not concerned;
the transfer is at the later of the two, and at least a cycle after the one before. All times are
cycles of handshakes and strobes as the circuits have them (`gateware.units.line_buffer`,
`gateware.units.queue`, `gateware.core.sequencer`), so the counts are the simulated ones.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise

from pvq_hw.engine.core import CORES, CoreBase, CoreImage
from pvq_hw.engine.dataflow import GraphSpec, chain_graph
from pvq_hw.engine.depthwise_core import DepthwiseSpec
from pvq_hw.engine.depthwise_timing import depthwise_steps
from pvq_hw.engine.int8_core import Int8Spec
from pvq_hw.engine.line_buffer import WindowSpec
from pvq_hw.engine.map_core import MapSpec
from pvq_hw.engine.map_order import MapOrder, map_order
from pvq_hw.engine.pulse_core import CoreSpec
from pvq_hw.engine.raster import Question, Raster, raster_steps
from pvq_hw.engine.row_reads import RowReads
from pvq_hw.engine.shared_core import SharedSpec
from pvq_hw.engine.shared_timing import compute_layers, map_layers, take_frames
from pvq_hw.engine.sliding_window import UNITS_UNDER_WAY, SlidingWindow
from pvq_hw.engine.units import (
    UNITS,
    UNPACKER_QUEUE,
    CoreUnit,
    Fifo,
    Fork,
    Join,
    Lookup,
    Pick,
    Pool,
    Unit,
    Unpack,
    WidthConverter,
)
from pvq_hw.engine.unrolled_core import UnrolledSpec, window_raster
from pvq_hw.errors import CheckError
from pvq_hw.registry import Face

__all__ = [
    "Note",
    "Process",
    "Timing",
    "Wire",
    "Work",
    "core_timing",
    "fifo_needs",
    "frame_ends",
    "least_depths",
    "round_ends",
    "run_frames",
    "streamed",
    "time_chain",
    "time_graph",
    "timing",
    "with_depths",
]

Process = Generator[None, None, None]
_MOST_FRAMES = 700  # a core of one row fills 256 places for results before it is held up
_ENOUGH_TRANSFERS = 100_000
_FEW_ROUNDS = 12  # that are run first, where many are asked for
_ENDLESS = 1 << 40  # rounds of a run that may always be asked for more


@dataclass(slots=True)
class Wire:
    """Times of the transfers of one wire: ``moved`` follows from the two others."""

    offers: list[int] = field(default_factory=list)
    readies: list[int] = field(default_factory=list)
    moved: list[int] = field(default_factory=list)

    def settle(self) -> None:
        """Every transfer whose both sides are known."""
        offers, readies, moved = self.offers, self.readies, self.moved
        start = len(moved)
        # Most calls find nothing new, and those that do a transfer or two: of millions, so without
        # `min` and `max`.
        if start == len(offers) or start == len(readies):
            return
        last = moved[-1] if moved else -1
        for k in range(start, min(len(offers), len(readies))):
            last += 1
            if offers[k] > last:
                last = offers[k]
            if readies[k] > last:
                last = readies[k]
            moved.append(last)

    @property
    def known(self) -> int:
        """Grows with everything that becomes known."""
        return len(self.offers) + len(self.readies) + len(self.moved)


@dataclass(frozen=True)
class Timing:
    """Exact timing of an accelerator, in cycles; where units take V frames side by side, a frame
    here is a round of V (`GraphSpec.frames`).

    Parameters
    ----------
    interval_cycles : int
        Between two frames in the steady state, input always valid, output always ready, one
        activation a clock at the input. Where the steady state is a pattern of several frames,
        their mean, rounded up.
    latency_cycles : int
        From the first input's transfer to the last output's, the accelerator empty.
    period : int
        Frames after which the steady state repeats itself.
    """

    interval_cycles: int
    latency_cycles: int
    period: int


def time_chain(specs: Sequence[CoreBase], images: Sequence[CoreImage]) -> Timing:
    """`time_graph` of cores that follow one another."""
    graph = chain_graph(specs)
    return time_graph(graph, graph.named(images))


def frame_ends(
    specs: Sequence[CoreBase], images: Sequence[CoreImage], frames: int
) -> tuple[int, ...]:
    """For cores that follow one another, the cycles from the first input's transfer to the last
    result of each of the first frames (of batches, where the cores take several side by side)."""
    graph = chain_graph(specs)
    return round_ends(graph, graph.named(images), frames)


def time_graph(spec: GraphSpec, images: Mapping[str, CoreImage]) -> Timing:
    """Interval and latency of a graph.

    Raises
    ------
    CheckError
        The graph stands still for ever.
    """
    frames = 6
    while True:
        run = _run(spec, images, frames)
        size = spec.transfers[1]
        ends = run.wires[spec.output].moved[size - 1 :: size][:frames]
        # A repeated state is a cycle: what follows is what followed before. Where frames are long
        # against all queues, equal intervals tell as much.
        period = run.repeats(ends)
        if not period and frames * run.transfers > _ENOUGH_TRANSFERS:
            period = _pattern([b - a for a, b in pairwise(ends)])
        if not period and frames >= _MOST_FRAMES:
            # Queues that take thousands of frames to fill: near the end of it all the same.
            period = frames // 2
        if period:
            interval = -(-(ends[-1] - ends[-1 - period]) // period)
            return Timing(interval, ends[0] - run.wires[spec.input].moved[0], period)
        frames *= 2


def _pattern(steps: list[int]) -> int:
    """The length of a pattern that stands three times at the end; 0 where there is none."""
    for period in range(1, len(steps) // 3 + 1):
        if steps[-period:] == steps[-2 * period : -period] == steps[-3 * period : -2 * period]:
            return period
    return 0


def run_frames(spec: GraphSpec, images: Mapping[str, CoreImage], rounds: int) -> dict[str, Wire]:
    """Every wire's transfers for some rounds of V frames; CheckError, with what waits, on a
    deadlock."""
    run = _Run(spec, images, rounds)
    run.reach(rounds)
    return run.wires


def round_ends(spec: GraphSpec, images: Mapping[str, CoreImage], rounds: int) -> tuple[int, ...]:
    """Cycles from the first input's transfer to the last output's of each of so many rounds of V
    frames; CheckError on a deadlock.

    Where a state comes again in the first of them, the rounds from the one to the other are
    repeated instead of being run.
    """
    size = spec.transfers[1]
    for count in (_FEW_ROUNDS, rounds):
        run = _run(spec, images, min(count, rounds))
        first, moved = run.wires[spec.input].moved[0], run.wires[spec.output].moved
        ends = [end - first for end in moved[size - 1 :: size]][:count]
        if count >= rounds:
            break
        period, frame = run.repeated([first + end for end in ends])
        if period and (rounds - count) % period == 0:
            long = ends[frame] - ends[frame - period]
            again = (rounds - count) // period
            middle = [
                end + turn * long
                for turn in range(1, again + 1)
                for end in ends[frame - period + 1 : frame + 1]
            ]
            tail = [end + again * long for end in ends[frame + 1 :]]
            return (*ends[: frame + 1], *middle, *tail)
    return tuple(ends[:rounds])


@dataclass
class Note:
    """Times of something within a unit: so many of them a round, of which the last few bear on
    what follows."""

    times: list[int]
    each: int
    reach: int


def _run(spec: GraphSpec, images: Mapping[str, CoreImage], rounds: int) -> "_Run":
    """A run of so many rounds or more; the last graph's is kept and goes on where it has stopped,
    since what plans a network and what writes its tests ask for the same."""
    run = _kept_run(spec, tuple(images.items()))
    run.reach(rounds)
    return run


@lru_cache(maxsize=1)
def _kept_run(spec: GraphSpec, images: tuple[tuple[str, CoreImage], ...]) -> "_Run":
    return _Run(spec, dict(images), _ENDLESS)


class _Run:
    """A graph's events in so many rounds of V frames, of which `reach` runs the first ones."""

    def __init__(self, spec: GraphSpec, images: Mapping[str, CoreImage], rounds: int) -> None:
        names = {spec.input, *(wire for unit in spec.units for wire in unit.outputs)}
        self.spec, self.rounds, self.offered = spec, rounds, 0
        self.wires = {name: Wire() for name in names}
        self.notes: list[Note] = []
        self.within: list[Wire] = []
        self.questions: list[Question] = []
        self._running = [
            (process, [self.wires[name] for name in (*unit.inputs, *unit.outputs)])
            for unit in spec.units
            for process in timing(unit, self._work(unit, images, rounds))
        ]

    def reach(self, rounds: int) -> None:
        """Goes on until all times of the first ``rounds`` are known, which are those of any longer
        run; CheckError on a deadlock."""
        # One more: a map's last activations may matter to no window, and what comes next does.
        self._offer(min(rounds + 1, self.rounds) - self.offered)
        moved = known = -1
        while self._running:
            before, moved = moved, sum([len(wire.moved) for wire in self.wires.values()])
            if moved == before:  # only then is the rest worth a look
                before, known = known, self._known()
                if known == before and rounds < self.rounds and self._reached(rounds):
                    break
                if known == before and not self._more(rounds) and not self._deny():
                    waiting = [u.name for u in self.spec.units if not self._finished(u, rounds)]
                    raise CheckError(f"The accelerator stands still: {', '.join(waiting)} wait")
            self._running = [entry for entry in self._running if not _advance(*entry)]

    def _offer(self, rounds: int) -> None:
        """Lets more rounds in, and their results out."""
        ends = self.wires[self.spec.input], self.wires[self.spec.output]
        ends[0].offers += [0] * (max(0, rounds) * self.spec.transfers[0])
        ends[1].readies += [0] * (max(0, rounds) * self.spec.transfers[1])
        self.offered += max(0, rounds)
        for wire in ends:
            wire.settle()

    def _more(self, rounds: int) -> bool:
        """Lets one more round in where that is what all wait for; whether it is."""
        wire = self.wires[self.spec.input]
        if len(wire.moved) < len(wire.offers) or self.offered >= min(2 * rounds + 8, self.rounds):
            return False
        self._offer(1)
        return True

    def _reached(self, rounds: int) -> bool:
        """Whether all times of so many rounds are known."""
        return all(self._finished(unit, rounds) for unit in self.spec.units) and all(
            len(note.times) >= rounds * note.each for note in self.notes
        )

    def _work(self, unit: Unit, images: Mapping[str, CoreImage], rounds: int) -> "Work":
        inputs = [self.wires[name] for name in unit.inputs]
        outputs = [self.wires[name] for name in unit.outputs]
        turns = self.spec.frames // unit.frames
        return Work(
            inputs, outputs, rounds * turns, turns, images, self.notes, self.within, self.questions
        )

    def _known(self) -> int:
        """Grows with everything that becomes known."""
        wires = sum(wire.known for wire in (*self.wires.values(), *self.within))
        return wires + sum(len(note.times) for note in self.notes)

    def _deny(self) -> bool:
        """Answers the earliest question that nothing else does; whether there is one."""
        waiting = [question for question in self.questions if not question.denied]
        if waiting:
            min(waiting, key=lambda question: question.time).denied = True
        return bool(waiting)

    def _given(self, unit: Unit) -> int:
        """Transfers of a round at each output of a unit."""
        return unit.transfers[1] * self.spec.frames // unit.side_by_side[1]

    def _finished(self, unit: Unit, rounds: int) -> bool:
        count = rounds * self._given(unit)
        return all(len(self.wires[wire].moved) >= count for wire in unit.outputs)

    @property
    def transfers(self) -> int:
        """Transfers of a round, over all wires."""
        return sum(map(self._given, self.spec.units)) + self.spec.transfers[0]

    def repeats(self, ends: list[int]) -> int:
        """Frames after which all times that later frames depend on come again, counted from each
        frame's end; 0 where they do not."""
        return self.repeated(ends)[0]

    def repeated(self, ends: list[int]) -> tuple[int, int]:
        """`repeats`, and the first frame whose end it is counted from; 0 and the last frame where
        nothing comes again."""
        notes = list(self.notes)
        notes.append(Note(self.wires[self.spec.input].moved, self.spec.transfers[0], 1))
        for unit in self.spec.units:
            for wire in (self.wires[name] for name in unit.outputs):
                notes.append(Note(wire.moved, self._given(unit), unit.held))
                notes.append(Note(wire.offers, self._given(unit), unit.held))
        seen: dict[tuple[int, ...], int] = {}
        found = frame = 0
        for frame, end in enumerate(ends):
            state: list[int] = []
            for note in notes:
                stop = (frame + 1) * note.each
                state += [t - end for t in note.times[max(0, stop - note.reach) : stop]]
            found = frame - seen.setdefault(tuple(state), frame)
            if found:
                break
        return found, frame


def _advance(process: Process, wires: list[Wire]) -> bool:
    """Lets a process go on as far as it can; whether it has come to its end. Its wires are settled
    before and after."""
    ended = next(process, StopIteration) is StopIteration
    for wire in wires:
        known = len(wire.moved)
        if known < len(wire.offers) and known < len(wire.readies):  # most are settled
            wire.settle()
    return ended


@dataclass(frozen=True)
class Work:
    """What a unit has to do in a run.

    Parameters
    ----------
    inputs, outputs : list of Wire
    frames : int
        In all rounds, or of V frames side by side, so many times V.
    turns : int
        The same in one round.
    images : mapping of core name to CoreImage
    notes : list of Note
        Takes the times within a unit on which what follows depends, wires' own aside.
    within : list of Wire
        Takes the wires within a unit.
    questions : list of Question
        Takes those that a unit waits with, which are denied when all others wait too.
    """

    inputs: list[Wire]
    outputs: list[Wire]
    frames: int
    turns: int
    images: Mapping[str, CoreImage]
    notes: list[Note]
    within: list[Wire]
    questions: list[Question]

    def wire(self, each: int, reach: int) -> Wire:
        """A new wire between two processes of a unit, with ``each`` transfers a turn, of which the
        last ``reach`` bear on what follows."""
        wire = Wire()
        self.within.append(wire)
        self.notes.extend(Note(t, self.turns * each, reach) for t in (wire.moved, wire.offers))
        return wire

    def note(self, each: int, reach: int) -> list[int]:
        """A new list of times, ``each`` of them a turn, of which the last ``reach`` bear on what
        follows."""
        times: list[int] = []
        self.notes.append(Note(times, self.turns * each, reach))
        return times


timing: Face[[Work], list[Process]] = UNITS.face("timing")
"""A unit's processes: each goes as far as the times that are known let it, at every `yield`."""

core_timing: Face[[CoreUnit, Work], list[Process]] = CORES.face("timing")
"""The processes of a unit's core."""


@timing.of(CoreUnit)
def _core_unit(unit: CoreUnit, work: Work) -> list[Process]:
    return core_timing(unit.core, unit, work)


@core_timing.of(UnrolledSpec)
def _unrolled_core(spec: UnrolledSpec, unit: CoreUnit, work: Work) -> list[Process]:
    if spec.by_pixel and unit.window is not None:
        return [_by_pixel(spec, window_raster(spec, unit.window), unit, work)]
    if spec.straight and unit.window is None:
        return [_straight(spec, work.inputs[0], work.outputs[0], work.frames)]
    held, loaded = work.note(unit.positions, 1), work.note(unit.positions, 1)
    run = _pipelined if spec.pipelined else _unrolled
    compute = run(spec, work.outputs[0], held, loaded, work.frames * unit.positions)
    if unit.window is None:
        return [_collect(spec, work.inputs[0], held, loaded, work.frames), compute]
    sliding = SlidingWindow(unit.window)
    places = UNITS_UNDER_WAY
    whole, moved = (work.note(sliding.reader.units, places) for _ in range(2))
    loader = _windows(sliding.reader, work, whole.append, sliding.unit_delay, moved, places)
    return [loader, _slide(sliding, whole, moved, held, loaded, work.frames), compute]


@core_timing.of(DepthwiseSpec)
def _depthwise_core(spec: DepthwiseSpec, unit: CoreUnit, work: Work) -> list[Process]:
    used = work.note(unit.sizes()[0][0], spec.raster.queue_depth)
    i, o = work.inputs[0], work.outputs[0]
    return [depthwise_steps(spec, i, o, used, work.frames, work.questions)]


@core_timing.of(SharedSpec)
def _shared_core(spec: SharedSpec, unit: CoreUnit, work: Work) -> list[Process]:
    written, released = work.note(1, 2), work.note(1, 2)
    blocked: list[set[int]] = []
    image, (i,), (o,) = work.images[spec.name], work.inputs, work.outputs
    return [
        take_frames(spec, i, written, released, blocked, work.frames),
        compute_layers(spec, image, o, written, released, blocked, work.frames),
    ]


@core_timing.of(MapSpec)
def _map_core(spec: MapSpec, unit: CoreUnit, work: Work) -> list[Process]:
    (i,), (o,) = work.inputs, work.outputs
    return [map_layers(spec, work.images[spec.name], i, o, work.frames)]


@core_timing.of(CoreSpec, Int8Spec)
def _folded_core(spec: CoreBase, unit: CoreUnit, work: Work) -> list[Process]:
    written, released = work.note(unit.walks, 2), work.note(unit.walks, 2)
    if unit.window is None:
        loader = _dense(unit, work.inputs[0], written, released, work.frames)
    else:
        read = unit.window.segment
        delay = read.unit_words + read.read_delay
        loader = _windows(read, work, written.append, delay, released, 2)
    image, order, o = work.images[spec.name], map_order(spec), work.outputs[0]
    if order is None:
        return [loader, _core(unit, image, o, written, released, work.frames)]
    inner, freed = work.wire(unit.walks * spec.rows, spec.fifo_depth), work.note(unit.walks, 2)
    return [
        loader,
        _core(unit, image, inner, written, released, work.frames),
        _map_order(order, inner, o, freed, work.frames * unit.walks),
    ]


@timing.of(Pool)
def _pooling(unit: Pool, work: Work) -> list[Process]:
    if unit.window is None:
        return [_pool(unit, work.inputs[0], work.outputs[0], work.frames)]
    delay = unit.window.unit_words + unit.result_delay + 2
    offer, pops = work.outputs[0].offers.append, work.outputs[0].moved
    return [_windows(unit.window, work, offer, delay, pops, unit.depth)]


@timing.of(Join)
def _joining(unit: Join, work: Work) -> list[Process]:
    order = [n for n, run in enumerate(unit.runs) for _ in range(run // unit.width)]
    return [streamed(work, unit.transfers[1], unit.result_delay, unit.depth, order)]


@timing.of(Lookup)
def _looking_up(unit: Lookup, work: Work) -> list[Process]:
    return [streamed(work, unit.transfers[1], unit.result_delay, unit.depth)]


@timing.of(Fork)
def _forking(unit: Fork, work: Work) -> list[Process]:
    return [_fork(work.inputs[0], work.outputs, work.frames * unit.transfers[1])]


@timing.of(Pick)
def _picking(unit: Pick, work: Work) -> list[Process]:
    return [_pick(unit, work.inputs[0], work.outputs[0], work.frames)]


@timing.of(Unpack)
def _unpacking(unit: Unpack, work: Work) -> list[Process]:
    return [_unpack(unit, work.inputs[0], work.outputs[0], work.frames)]


@timing.of(WidthConverter)
def _converting(unit: WidthConverter, work: Work) -> list[Process]:
    i, o = work.inputs[0], work.outputs[0]
    if unit.taken > unit.given:
        return [_narrowed(i, o, unit.parts, work.frames * unit.transfers[0][0])]
    return [_widened(i, o, unit.parts, work.frames * unit.transfers[1])]


def _narrowed(i: Wire, o: Wire, parts: int, total: int) -> Process:
    """A transfer is taken while the last part of the one before leaves."""
    for k in range(total):
        while len(o.moved) < k * parts:
            yield
        i.readies.append(o.moved[k * parts - 1] if k else 0)
        i.settle()
        while len(i.moved) <= k:
            yield
        o.offers += [i.moved[k] + 1] * parts
        o.settle()


def _widened(i: Wire, o: Wire, parts: int, total: int) -> Process:
    """A transfer's first part is taken while the one before leaves."""
    for k in range(total):
        while len(o.moved) < k:
            yield
        i.readies += [o.moved[k - 1] if k else 0] * parts
        i.settle()
        while len(i.moved) < (k + 1) * parts:
            yield
        o.offers.append(i.moved[-1] + 1)
        o.settle()


@timing.of(Fifo)
def _waiting(unit: Fifo, work: Work) -> list[Process]:
    return [_fifo(unit, work.inputs[0], work.outputs[0], work.frames)]


def _fifo(unit: Fifo, i: Wire, o: Wire, frames: int) -> Process:
    total = frames * unit.transfers[1]
    while len(o.offers) < total:
        yield
        start = len(i.readies)
        stop = min(total, len(o.moved) + unit.depth)
        if start < stop:
            i.readies += [0] * (min(stop, unit.depth) - start)
            past = max(start, unit.depth)
            i.readies += [t + 1 for t in o.moved[past - unit.depth : max(past, stop) - unit.depth]]
            i.settle()
        o.offers += [t + unit.delay for t in i.moved[len(o.offers) :]]


def _unpack(unit: Unpack, i: Wire, o: Wire, frames: int) -> Process:
    """Whole batches into the two halves of a memory, from which they are read result by result.

    The output must always be ready: what it holds up is not in the model, since nothing follows.
    """
    released: list[int] = []  # when each batch's last result was read
    for frame in range(frames):
        free = released[frame - 2] + 1 if frame >= 2 else 0
        i.readies += [free] * unit.size
        i.settle()
        while len(i.moved) < (frame + 1) * unit.size:
            yield
        start = max(i.moved[-1], released[-1] if released else -2) + 2
        released.append(start + unit.size * unit.batch - 1)
        o.offers += range(start + unit.delay, released[-1] + unit.delay + 1)
        o.settle()


def _map_order(order: MapOrder, i: Wire, o: Wire, freed: list[int], passes: int) -> Process:
    """V windows' rows into the two halves of a memory, from which they are read window by window;
    ``freed`` holds when each half's last result was read."""
    pops, results, delay = o.moved, 0, order.delay
    i.readies += [0] * (order.rows * min(2, passes))
    for number in range(passes):
        while len(i.moved) < (number + 1) * order.rows:
            i.settle()
            yield
        now = max(i.moved[(number + 1) * order.rows - 1] + 2, freed[-1] + 1 if freed else 0)
        for _ in range(order.words * order.counts[number % len(order.counts)]):
            while results - UNPACKER_QUEUE >= len(pops):
                yield
            if results >= UNPACKER_QUEUE and pops[results - UNPACKER_QUEUE] >= now:
                now = pops[results - UNPACKER_QUEUE] + 1
            o.offers.append(now + delay)
            now, results = now + 1, results + 1
        freed.append(now - 1)
        if number + 2 < passes:
            i.readies += [freed[-1] + 1] * order.rows
            i.settle()


def _fork(i: Wire, outputs: list[Wire], total: int) -> Process:
    while len(i.moved) < total:
        k = len(i.moved)
        while len(i.offers) <= k:
            yield
        seen = i.offers[k] if k == 0 else max(i.offers[k], i.moved[-1] + 1)
        for o in outputs:
            o.offers.append(seen)
            o.settle()
        last = 0
        for o in outputs:
            while len(o.moved) <= k:
                yield
            last = max(last, o.moved[k])
        i.readies.append(last)
        i.settle()


def _pick(unit: Pick, i: Wire, o: Wire, frames: int) -> Process:
    """What is passed on is taken when the output takes it, the rest at once."""
    for k in range(frames * unit.size):
        if unit.takes(k % unit.size):
            while len(i.offers) <= k:
                yield
            o.offers.append(max(i.offers[k], i.moved[-1] + 1 if i.moved else 0))
            o.settle()
            while len(o.moved) < len(o.offers):
                yield
            i.readies.append(o.moved[-1])
        else:
            i.readies.append(0)
        i.settle()
        while len(i.moved) <= k:
            yield


def streamed(work: Work, size: int, delay: int, depth: int, order: Sequence[int] = ()) -> Process:
    """A unit that gives an activation for one of each input, or for one of the inputs in turn.

    Parameters
    ----------
    work : Work
    size : int
        Transfers that it gives in a frame.
    delay : int
        Cycles from a transfer to the write into the queue of results.
    depth : int
        Places of that queue: nothing is taken without one.
    order : sequence of int
        Of the inputs in turn; empty for all of them at once.
    """
    o, now = work.outputs[0], -1
    for k in range(work.frames * size):
        wires = [work.inputs[order[k % len(order)]]] if order else work.inputs
        now += 1
        while k - depth >= len(o.moved):
            yield
        if k >= depth:
            now = max(now, o.moved[k - depth] + 1)
        for wire in wires:
            n = len(wire.readies)
            while len(wire.offers) <= n:
                yield
            now = max(now, wire.offers[n])
        for wire in wires:
            wire.readies.append(now)  # the cycle of the transfer, and later than all before
        o.offers.append(now + delay + 2)


def _pool(unit: Pool, i: Wire, o: Wire, frames: int) -> Process:
    """Streamed: every activation is taken while there is a place for a result."""
    ends = _window_ends(unit)
    delay, depth = unit.result_delay + 2, unit.depth
    results = 0
    for _ in range(frames):
        for end in ends:
            now = 0
            while results - depth >= len(o.moved):
                yield
            if results >= depth:
                now = o.moved[results - depth] + 1
            i.readies.append(now)
            if end:
                i.settle()
                results += 1
                k = len(i.readies) - 1
                while len(i.moved) <= k:
                    yield
                o.offers.append(i.moved[k] + delay)


def _window_ends(unit: Pool) -> list[bool]:
    """Whether each transfer of a map has the last activations of windows."""
    g = unit.geometry
    axes = []
    for axis in (0, 1):
        size = g.input_shape[axis]
        lasts = {
            min(n * g.stride[axis] - g.pads[axis][0] + g.kernel[axis], size) - 1
            for n in range(g.output_size[axis])
        }
        axes.append([place in lasts for place in range(size)])
    return [y and x for y in axes[0] for x in axes[1] for _ in range(unit.pixel_transfers)]


def _windows(
    spec: WindowSpec,
    work: Work,
    emit: Callable[[int], None],
    delay: int,
    returned: list[int],
    places: int,
) -> Process:
    """Line buffer: calls ``emit`` with the time ``delay`` after every unit's start. A unit claims
    one of some places; ``returned`` holds when places came back."""
    i, frames = work.inputs[0], work.frames
    height, width, channels = spec.geometry.input_shape
    channels //= spec.taken  # transfers of a pixel
    cleared = work.note(height, spec.rows)  # when the line buffer gave its rows back
    row_size = width * channels
    bands, rights = spec.bands(), spec.rights()
    freed = 0  # rows given back so far
    i.readies += [0] * (row_size * min(spec.rows, frames * height))
    units, clear, step_end = 0, 0, 0
    for frame in range(frames):
        for band in bands:
            base = (frame * height + band.low + band.span) * row_size
            for right in rights:
                need = base + min(width, max(0, right + 1)) * channels - 1
                if right < 0 and band.span == 0:
                    need = -1
                while len(i.moved) <= need:
                    yield
                available = i.moved[need] + 1 if need >= 0 else 0
                for _ in range(spec.phases):
                    while units - places >= len(returned):
                        yield
                    go = returned[units - places] + 1 if units >= places else 0
                    start = max(step_end, available, go, clear)
                    step_end = start + spec.unit_words
                    emit(start + delay)
                    units += 1
            clear = step_end + 1
            for _ in range(band.release):
                need = (freed + 1) * row_size - 1
                while len(i.moved) <= need:
                    yield
                when = max(clear, i.moved[need] + 1)
                if freed + spec.rows < frames * height:
                    i.readies += [when + 1] * row_size
                    i.settle()
                freed += 1
                clear = when + 1
                cleared.append(clear)


def _dense(
    unit: CoreUnit, i: Wire, written: list[int], released: list[int], frames: int
) -> Process:
    """Whole frames into the two halves of the banks; of a batch, one frame after the other."""
    n = unit.transfers[0][0] * unit.core.frames // unit.core.input_frames
    for frame in range(frames):
        while frame >= 2 and len(released) <= frame - 2:
            yield
        i.readies += [released[frame - 2] + 1 if frame >= 2 else 0] * n
        i.settle()
        while len(i.moved) < (frame + 1) * n:
            yield
        written.append(i.moved[-1])


def _collect(
    spec: UnrolledSpec, i: Wire, held: list[int], loaded: list[int], frames: int
) -> Process:
    """Whole frames, each held as soon as the sums of the one before are loaded; pipelined adders
    take them from where they come in."""
    transfers, past = spec.n // spec.in_width, loaded if spec.pipelined else held
    for frame in range(frames):
        while spec.pipelined and len(loaded) < frame:
            yield
        i.readies += [past[-1] if past else 0] * transfers
        i.settle()
        while len(i.moved) < (frame + 1) * transfers:
            yield
        if spec.pipelined:
            held.append(i.moved[-1])
            continue
        while len(loaded) < frame:
            yield
        held.append(max(i.moved[-1] + 1, loaded[-1] if loaded else 0))


def _slide(
    sliding: SlidingWindow,
    whole: list[int],
    moved: list[int],
    held: list[int],
    loaded: list[int],
    frames: int,
) -> Process:
    """Units into a window's registers, each when the window before it isn't needed any more; see
    `gateware.core.window_collector`."""
    rows, columns = sliding.reader.geometry.output_size
    for _ in range(frames * rows):
        for column in range(columns):
            while len(whole) <= len(moved) or len(loaded) < len(held):
                yield
            waits = max(whole[len(moved)], moved[-1] if moved else 0)
            moved.append(max(waits + 1, loaded[-1] if loaded else 0))
            if column >= sliding.lead:
                held.append(moved[-1])


def _unrolled(
    spec: UnrolledSpec, o: Wire, held: list[int], loaded: list[int], frames: int
) -> Process:
    """Loads the sums of a held frame when the last of the one before has left; see
    `gateware.core.unrolled_core`."""
    step, pops, rows = -spec.multiplier_interval, o.moved, spec.rows // spec.out_width
    limit, delay = spec.credits, spec.output_delay
    for frame in range(frames):
        while len(held) <= frame:
            yield
        loaded.append(max(held[frame] + 1 + spec.levels, step))
        for row in range(frame * rows, (frame + 1) * rows):
            for _ in range(spec.groups):
                step = max(step + spec.multiplier_interval, loaded[-1] + 1)
                while row - limit >= len(pops):
                    yield
                if row >= limit:
                    step = max(step, pops[row - limit] + 1)
            o.offers.append(step + delay)
            o.settle()


def _straight(spec: UnrolledSpec, i: Wire, o: Wire, frames: int) -> Process:
    """A transfer is a frame, and goes into the adders as its results have a place."""
    for frame in range(frames):
        before = frame - spec.credits  # the result that leaves room
        while before >= len(o.moved):
            yield
        i.readies.append(o.moved[before] + 1 if before >= 0 else 0)
        i.settle()
        while len(i.moved) <= frame:
            yield
        o.offers.append(i.moved[frame] + spec.sum_delay + spec.output_delay)
        o.settle()


def _pipelined(
    spec: UnrolledSpec, o: Wire, held: list[int], started: list[int], frames: int
) -> Process:
    """A held frame goes into the adders when its sums and its results will find places."""
    paced = _Paced(spec, o, started)
    for frame in range(frames):
        while len(held) <= frame:
            yield
        while paced.start(held[frame] + 1) is None:
            yield


class _Paced:
    """Frames that go into pipelined adders as they find places, which they are in ``delay`` cycles
    after their starts."""

    def __init__(self, spec: UnrolledSpec, o: Wire, started: list[int], delay: int = 0) -> None:
        self.o, self.started = o, started
        self.cycles, self.places = spec.sum_cycles, spec.frame_places
        self.room = spec.credits - spec.frame_places
        first = delay + spec.sum_delay + (not spec.direct) + spec.output_delay
        step = spec.groups * spec.multiplier_interval
        after = first + step - spec.multiplier_interval
        self.results = [after + step * place for place in range(self.places)]

    def start(self, now: int) -> int | None:
        """The first cycle from ``now`` on in which the next frame finds places, and goes in; None
        while that isn't known."""
        started, pops = self.started, self.o.moved
        start = max(now, started[-1] + self.cycles if started else 0)
        before = len(started) * self.places - self.room - 1  # the result that leaves room
        if before >= len(pops):
            return None
        if before >= 0:
            start = max(start, pops[before] + 1)
        started.append(start)
        self.o.offers += [start + after for after in self.results]
        self.o.settle()
        return start


def _by_pixel(spec: UnrolledSpec, raster: Raster, unit: CoreUnit, work: Work) -> Process:
    """A window is read with its last pixel, when its sums and its results will find places."""
    started, used = work.note(unit.positions, 1), work.note(raster.pixels, raster.queue_depth)
    paced = _Paced(spec, work.outputs[0], started, raster.latency)
    return raster_steps(raster, work.inputs[0], paced.start, used, work.frames, work.questions)


def _core(
    unit: CoreUnit,
    image: CoreImage,
    o: Wire,
    written: list[int],
    released: list[int],
    frames: int,
) -> Process:
    """Reads the code words of frame after frame; see `gateware.core.sequencer.Sequencer`."""
    spec, now = unit.core, 0
    row_slots, reads = spec.row_slots(image), RowReads(spec, o)
    for frame in range(frames * unit.walks):
        while len(written) <= frame:
            yield
        now = yield from reads.rows(max(now, written[frame] + 2), row_slots)
        released.append(now - 1 + spec.code_latency)


# -- depths of FIFOs ----------------------------------------------------------------------------


def with_depths(spec: GraphSpec, depths: Mapping[str, int]) -> GraphSpec:
    """The graph with other depths of some FIFOs."""
    units = [
        replace(unit, depth=depths[unit.name])
        if isinstance(unit, Fifo) and unit.name in depths
        else unit
        for unit in spec.units
    ]
    return replace(spec, units=tuple(units))


def fifo_needs(spec: GraphSpec, images: Mapping[str, CoreImage], frames: int = 4) -> dict[str, int]:
    """Depths with which no FIFO ever holds anything up, by name, told by some rounds of frames."""
    fifos = [unit for unit in spec.units if isinstance(unit, Fifo)]
    free = {fifo.name: frames * spec.frames * fifo.transfers[1] + 2 for fifo in fifos}
    wires = run_frames(with_depths(spec, free), images, frames)
    needs = {}
    for fifo in fifos:
        pops = wires[fifo.outputs[0]].moved
        gone = need = 0
        for k, when in enumerate(wires[fifo.inputs[0]].moved):
            while gone < len(pops) and pops[gone] < when:
                gone += 1
            need = max(need, k - gone + 1)
        needs[fifo.name] = max(2, need)
    return needs


def least_depths(spec: GraphSpec, images: Mapping[str, CoreImage]) -> dict[str, int]:
    """The smallest depths with which the graph never stands still, one FIFO after the other.

    With one place less in any of them the graph stands still, or the FIFO has but two places.
    """
    depths = fifo_needs(spec, images)
    for name in depths:
        low, high = 2, depths[name]
        while low < high:
            middle = (low + high) // 2
            try:
                run_frames(with_depths(spec, depths | {name: middle}), images, 3)
                high = middle
            except CheckError:
                low = middle + 1
        depths[name] = low
    return depths
