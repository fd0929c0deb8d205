"""Exact cycle counts of a graph of units, without simulating the circuits.

Every unit is a process over event times. A wire knows for each of its transfers when the giver
can offer it and when the reader can take it, both as far as the wire itself is not concerned;
the transfer is at the later of the two, and at least a cycle after the one before. All times are
cycles of handshakes and strobes as the circuits have them (`gateware.window`, `.queue`,
`.sequencer`), so the counts are the simulated ones.
"""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise

from pvq_hw.core import CoreImage
from pvq_hw.errors import CheckError
from pvq_hw.graph import GraphSpec
from pvq_hw.units import CoreUnit, Fifo, Fork, Join, Pool, Unit
from pvq_hw.window import WindowSpec

__all__ = ["GraphTiming", "fifo_needs", "least_depths", "run_frames", "time_graph"]

Process = Generator[None, None, None]
_MOST_FRAMES = 64


@dataclass
class Wire:
    """Times of the transfers of one wire: ``moved`` follows from the two others."""

    offers: list[int] = field(default_factory=list)
    readies: list[int] = field(default_factory=list)
    moved: list[int] = field(default_factory=list)

    def settle(self) -> None:
        """Every transfer whose both sides are known."""
        offers, readies, moved = self.offers, self.readies, self.moved
        last = moved[-1] if moved else -1
        for k in range(len(moved), min(len(offers), len(readies))):
            last = max(offers[k], readies[k], last + 1)
            moved.append(last)

    @property
    def known(self) -> int:
        """Grows with everything that becomes known."""
        return len(self.offers) + len(self.readies) + len(self.moved)


@dataclass(frozen=True)
class GraphTiming:
    """Exact timing of an accelerator, in cycles.

    Parameters
    ----------
    interval_cycles : int
        Between two frames in the steady state, input always valid, output always ready. Where
        the steady state is a pattern of several frames, their mean, rounded up.
    latency_cycles : int
        From the first input's transfer to the last output's, the accelerator empty.
    """

    interval_cycles: int
    latency_cycles: int


def time_graph(spec: GraphSpec, images: Mapping[str, CoreImage]) -> GraphTiming:
    """Interval and latency of a graph.

    Raises
    ------
    CheckError
        The graph stands still for ever, or comes to no steady state.
    """
    frames = 6
    while True:
        wires = run_frames(spec, images, frames)
        size = spec.out[0]
        ends = wires[spec.output].moved[size - 1 :: size]
        steps = [b - a for a, b in pairwise(ends)]
        for period in range(1, len(steps) // 3 + 1):
            if steps[-period:] == steps[-2 * period : -period] == steps[-3 * period : -2 * period]:
                interval = -(-sum(steps[-period:]) // period)
                return GraphTiming(interval, ends[0] - wires[spec.input].moved[0])
        if frames >= _MOST_FRAMES:
            raise CheckError("The accelerator comes to no steady interval")
        frames *= 2


def run_frames(spec: GraphSpec, images: Mapping[str, CoreImage], frames: int) -> dict[str, Wire]:
    """Every wire's transfers for some frames; CheckError, with what waits, on a deadlock."""
    names = {spec.input, *(wire for unit in spec.units for wire in unit.outputs)}
    wires = {name: Wire() for name in names}
    wires[spec.input].offers += [0] * (frames * spec.x[0])
    wires[spec.output].readies += [0] * (frames * spec.out[0])
    running = [
        (process, [wires[name] for name in (*unit.inputs, *unit.outputs)])
        for unit in spec.units
        for process in _processes(unit, images, wires, frames)
    ]
    known = -1
    while running:
        before, known = known, sum(wire.known for wire in wires.values())
        if known == before:
            waiting = [u.name for u in spec.units if not _finished(u, wires, frames)]
            raise CheckError(f"The accelerator stands still: {', '.join(waiting)} wait")
        running = [entry for entry in running if not _advance(*entry)]
    return wires


def _advance(process: Process, wires: list[Wire]) -> bool:
    """Lets a process go on as far as it can; whether it has come to its end."""
    for wire in wires:
        wire.settle()
    ended = next(process, StopIteration) is StopIteration
    for wire in wires:
        wire.settle()
    return ended


def _finished(unit: Unit, wires: dict[str, Wire], frames: int) -> bool:
    return all(len(wires[wire].moved) >= frames * unit.sizes()[1] for wire in unit.outputs)


def _processes(
    unit: Unit, images: Mapping[str, CoreImage], wires: dict[str, Wire], frames: int
) -> list[Process]:
    inputs = [wires[name] for name in unit.inputs]
    outputs = [wires[name] for name in unit.outputs]
    if isinstance(unit, CoreUnit):
        written: list[int] = []
        released: list[int] = []
        if unit.window is None:
            loader = _dense(unit, inputs[0], written, released, frames)
        else:
            delay = unit.window.unit_words + unit.window.read_delay
            loader = _windows(unit.window, inputs[0], written.append, delay, released, 2, frames)
        compute = _core(unit, images[unit.core.name], outputs[0], written, released, frames)
        return [loader, compute]
    if isinstance(unit, Pool) and unit.window is not None:
        delay = unit.window.unit_words + unit.result_delay + 2
        offer, pops = outputs[0].offers.append, outputs[0].moved
        return [_windows(unit.window, inputs[0], offer, delay, pops, unit.depth, frames)]
    if isinstance(unit, Pool):
        return [_pool(unit, inputs[0], outputs[0], frames)]
    if isinstance(unit, Join):
        return [_join(unit, inputs, outputs[0], frames)]
    if isinstance(unit, Fork):
        return [_fork(inputs[0], outputs, frames * unit.size)]
    return [_fifo(unit, inputs[0], outputs[0], frames)]


def _fifo(unit: Fifo, i: Wire, o: Wire, frames: int) -> Process:
    total = frames * unit.size
    while len(o.offers) < total:
        yield
        start = len(i.readies)
        stop = min(total, len(o.moved) + unit.depth)
        if start < stop:
            i.readies += [0] * (min(stop, unit.depth) - start)
            past = max(start, unit.depth)
            i.readies += [t + 1 for t in o.moved[past - unit.depth : max(past, stop) - unit.depth]]
            i.settle()
        o.offers += [t + 2 for t in i.moved[len(o.offers) :]]


def _fork(i: Wire, outputs: list[Wire], total: int) -> Process:
    while len(i.moved) < total:
        k = len(i.moved)
        while len(i.offers) <= k:
            yield
        seen = i.offers[k] if k == 0 else max(i.offers[k], i.moved[-1] + 1)
        for o in outputs:
            o.offers.append(seen)
            o.settle()
        while any(len(o.moved) <= k for o in outputs):
            yield
        i.readies.append(max(o.moved[k] for o in outputs))
        i.settle()


def _join(unit: Join, inputs: list[Wire], o: Wire, frames: int) -> Process:
    order = _turns(unit)
    delay, depth = unit.result_delay + 2, unit.depth
    now = -1
    for k in range(frames * unit.size):
        wires = [inputs[order[k % len(order)]]] if order else inputs
        now += 1
        while k - depth >= len(o.moved):
            yield
        if k >= depth:
            now = max(now, o.moved[k - depth] + 1)
        for wire in wires:
            n = len(wire.readies)
            while len(wire.offers) <= n:
                yield
            now = max(now, wire.offers[n], wire.moved[n - 1] + 1 if n else 0)
        for wire in wires:
            wire.readies.append(now)
            wire.settle()
        o.offers.append(now + delay)
        o.settle()


def _turns(unit: Join) -> list[int]:
    """Of a concatenation: the input of every activation of a round."""
    return [n for n, run in enumerate(unit.runs) for _ in range(run)]


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
            i.settle()
            if end:
                results += 1
                k = len(i.readies) - 1
                while len(i.moved) <= k:
                    yield
                o.offers.append(i.moved[k] + delay)
                o.settle()


def _window_ends(unit: Pool) -> list[bool]:
    """For every activation of a map whether it is the last one of a window."""
    g = unit.geometry
    axes = []
    for axis in (0, 1):
        size = g.input_shape[axis]
        lasts = {
            min(n * g.stride[axis] - g.pads[axis][0] + g.kernel[axis], size) - 1
            for n in range(g.output_size[axis])
        }
        axes.append([place in lasts for place in range(size)])
    return [y and x for y in axes[0] for x in axes[1] for _ in range(g.input_shape[2])]


def _windows(
    spec: WindowSpec,
    i: Wire,
    emit: Callable[[int], None],
    delay: int,
    returned: list[int],
    places: int,
    frames: int,
) -> Process:
    """Line buffer: calls ``emit`` with the time ``delay`` after every unit's start. A unit claims
    one of some places; ``returned`` holds when places came back."""
    height, width, channels = spec.geometry.input_shape
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


def _dense(
    unit: CoreUnit, i: Wire, written: list[int], released: list[int], frames: int
) -> Process:
    """Whole frames into the two halves of the banks."""
    n = unit.core.n
    for frame in range(frames):
        while frame >= 2 and len(released) <= frame - 2:
            yield
        i.readies += [released[frame - 2] + 1 if frame >= 2 else 0] * n
        i.settle()
        while len(i.moved) < (frame + 1) * n:
            yield
        written.append(i.moved[-1])


def _core(
    unit: CoreUnit,
    image: CoreImage,
    o: Wire,
    written: list[int],
    released: list[int],
    frames: int,
) -> Process:
    """Reads code words while results have places; see `gateware.sequencer.Sequencer`."""
    spec = unit.core
    row_slots = spec.row_slots(image)
    limit, pops = spec.credits, o.moved
    strobes: list[int] = []  # rows' ends at the output of the code ROM
    counted = 0
    now = 0
    for frame in range(frames * unit.frames):
        while len(written) <= frame:
            yield
        now = max(now, written[frame] + 2)
        for slots in row_slots:
            left = slots
            while left:
                seen = now - 1  # the credit counter registers its strobes first
                while counted < len(strobes) and strobes[counted] < seen:
                    counted += 1
                if counted >= limit:
                    while len(pops) <= counted - limit:
                        yield
                    if pops[counted - limit] >= seen:
                        now = pops[counted - limit] + 2
                        continue
                # Without rows under way the rest of the row is read without a stop.
                step = left if counted == len(strobes) else 1
                now += step
                left -= step
            strobes.append(now - 1 + spec.code_latency)
            o.offers.append(now - 1 + spec.output_delay)
        o.settle()
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
    """Depths with which no FIFO ever holds anything up, by name."""
    fifos = [unit for unit in spec.units if isinstance(unit, Fifo)]
    free = {fifo.name: frames * fifo.size + 2 for fifo in fifos}
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
