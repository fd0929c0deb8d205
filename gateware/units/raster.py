"""Windows of maps whose pixels come as in a raster: rows above and columns to the left in memories;
see `pvq_hw.engine.raster`."""

from itertools import pairwise

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from gateware.arith.activation import activation_layout
from gateware.device.memory import Ram
from pvq_hw.engine.raster import Raster

__all__ = ["Level", "RasterWalk", "WaitingQueue", "WindowMemories", "later"]


def later(m: Module, value: Value, cycles: int, name: str) -> Value:
    """A value so many cycles later."""
    for k in range(cycles):
        now = Signal(len(value), name=f"{name}_{k}", reset_less=True)
        m.d.sync += now.eq(value)
        value = now
    return value


class Level:
    """A count that is compared with a number: one carry chain, whose sign is the answer."""

    def __init__(self, m: Module, name: str, start: int, most: int, up: Value, down: Value) -> None:
        bits = max(most, -start).bit_length() + 1
        level = Signal(signed(bits), name=name, init=start)
        with m.If(up ^ down):
            m.d.sync += level.eq(level + Mux(down, -1, 1))
        self.reached = ~level[-1]


class WaitingQueue(wiring.Component):
    """Transfers that wait for their step.

    Members
    -------
    i : stream of activations
    used : strobe, the first one leaves; only with ``some``
    some, enough : there is one; there are `Raster.enough`
    data : the first one, ``spec.latency`` cycles later
    """

    def __init__(self, spec: Raster, body: str) -> None:
        self.spec, self.body = spec, body
        super().__init__(
            {
                "i": In(stream.Signature(activation_layout(spec.x, spec.width))),
                "used": In(1),
                "some": Out(1),
                "enough": Out(1),
                "data": Out(spec.bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec, depth = self.spec, self.spec.queue_depth
        m.submodules.ram = ram = Ram(
            spec.bits, depth, latency=spec.latency, kind=spec.queue_memory, body=self.body
        )
        take = Signal()
        write = Signal(range(depth))
        read = Signal(range(depth))
        full = Level(m, "room", -depth, 0, take, self.used)
        some = Level(m, "waiting", -1, depth - 1, take, self.used)
        enough = Level(m, "ahead", -spec.enough, depth - spec.enough, take, self.used)
        m.d.sync += [write.eq(write + take), read.eq(read + self.used)]
        m.d.comb += [
            self.i.ready.eq(~full.reached),
            take.eq(self.i.valid & self.i.ready),
            ram.w_en.eq(take),
            ram.w_addr.eq(write),
            ram.w_data.eq(self.i.payload.as_value()),
            ram.r_addr.eq(read),
            self.data.eq(ram.r_data),
            self.some.eq(some.reached),
            self.enough.eq(enough.reached),
        ]
        return m


class RasterWalk(wiring.Component):
    """Steps through channels and pixels: what goes in, and which windows are read.

    A pixel that takes activations waits for each of its channels; one behind a map's end, with
    which its last windows are read, takes none unless `Raster.enough` wait. A step that
    reads a window waits for a place for its result.

    Members
    -------
    some, enough : of the queue
    wants : a window is read as soon as there is a place for its result
    place : there is one; may depend on ``wants``
    advance : strobe, the last step of a channel
    used : the same, where an activation is taken
    emit : strobe, a window is read
    channel, column : numbers of the channel within the pixel, and of pixel and channel within a
        row of the map
    row : number of the word of weights
    inside : taps of the window that are within the map, kernel row by kernel row
    """

    def __init__(self, spec: Raster) -> None:
        self.spec = spec
        super().__init__(
            {
                "some": In(1),
                "enough": In(1),
                "wants": Out(1),
                "place": In(1),
                "advance": Out(1),
                "used": Out(1),
                "emit": Out(1),
                "channel": Out(range(max(2, spec.steps))),
                "column": Out(range(max(2, spec.lines[1]))),
                "row": Out(range(max(2, spec.rows))),
                "inside": Out(spec.taps),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        takes = Signal(init=1)
        emits = Signal(init=int(spec.first == 0))
        step = Signal()
        turn = Signal()
        m.d.comb += [
            self.wants.eq((self.some | ~takes) & emits),
            step.eq((self.some | ~takes) & (self.place | ~emits)),
            self.emit.eq(step & emits),
            self.advance.eq(step & self._last_row(m, step, emits)),
            self.used.eq(self.advance & takes),
            turn.eq(self.advance & _count(m, self.channel, spec.steps, self.advance)),
        ]
        _count(m, self.column, spec.lines[1], self.advance)
        _count(m, self.row, spec.rows, self.emit)
        # Nothing but the registers' enable hangs on the step: what comes next is known before.
        self._next_pixel(m, turn, takes, emits)
        return m

    def _last_row(self, m: Module, step: Value, emits: Value) -> Value:
        """Whether a channel's windows have been read for all of its rows."""
        each = self.spec.each
        if each == 1:
            return Const(1, 1)
        count = Signal(range(each))
        return _count(m, count, each, step & emits) | ~emits

    def _next_pixel(self, m: Module, turn: Value, takes: Signal, emits: Signal) -> None:
        """Whether the next pixel takes activations, and whether a window is read with it."""
        spec = self.spec
        walking = Signal()
        opens = Signal()
        ends = Signal(init=int(spec.pixels == 1))
        index = Signal(range(max(2, spec.pixels)))
        position = _WindowPosition(m, spec, turn & emits)
        goes_on = Signal()
        due = self._pause(m, turn, emits, position.row_end)
        m.d.comb += [
            self.inside.eq(position.inside()),
            goes_on.eq(Mux(emits, ~position.last, walking)),
            opens.eq(Mux(ends, int(spec.first == 0), index == (spec.first - 1) % spec.pixels)),
        ]
        with m.If(turn):
            # Where a map's last windows wait for pixels behind it, no window is there with the
            # first pixel: none begins with one that takes nothing, nor after it.
            m.d.sync += [walking.eq(goes_on), emits.eq((takes & opens) | (goes_on & due))]
            if spec.tail:
                m.d.sync += takes.eq(self.enough | ~(goes_on & (ends | ~takes)))
        with m.If(turn & takes):
            m.d.sync += [
                index.eq(Mux(ends, 0, index + 1)),
                ends.eq(Mux(ends, int(spec.pixels == 1), index == (spec.pixels - 2) % spec.pixels)),
            ]

    def _pause(self, m: Module, turn: Value, emits: Value, row_end: Value) -> Value:
        """Counts pixels without a window; whether the next one may have one."""
        across = self.spec.geometry.stride[1]
        pause = Signal(range(max(2, self.spec.turn, across)))
        with m.If(turn):
            m.d.sync += pause.eq(
                Mux(emits, Mux(row_end, self.spec.turn - 1, across - 1), pause - 1)
            )
        soon = Mux(row_end, int(self.spec.turn == 1), int(across == 1))
        return Mux(emits, soon, pause == 1)


def _count(m: Module, port: Signal, size: int, step: Value) -> Value:
    """Counts steps at ``port``, from 0 to ``size - 1``; high with the last one of a round."""
    if size == 1:
        return Const(1, 1)
    value = Signal.like(port, name=f"{port.name}_count")
    at_end = Signal(name=f"{port.name}_end")
    m.d.comb += port.eq(value)
    with m.If(step):
        m.d.sync += [value.eq(Mux(at_end, 0, value + 1)), at_end.eq(value == (size - 2) % size)]
        if size == 2:
            m.d.sync += at_end.eq(~at_end)
    return at_end


class _WindowPosition:
    """Row and column of the window that is read next."""

    def __init__(self, m: Module, spec: Raster, step: Value) -> None:
        self.geometry = g = spec.geometry
        rows, columns = g.output_size
        self.y, self.x = Signal(range(max(2, rows))), Signal(range(max(2, columns)))
        self.row_end = _count(m, self.x, columns, step)
        self.last = self.row_end & _count(m, self.y, rows, step & self.row_end)

    def inside(self) -> Value:
        """A bit for each tap."""
        rows, columns = (self._axis(axis, at) for axis, at in ((0, self.y), (1, self.x)))
        return Cat(row & column for row in rows for column in columns)

    def _axis(self, axis: int, at: Signal) -> list[Value]:
        g = self.geometry
        size, step, before = g.input_shape[axis], g.stride[axis], g.pads[axis][0]
        found = []
        for tap in range(g.kernel[axis]):
            low, high = -(-(before - tap) // step), (size - 1 + before - tap) // step
            here: Value = Const(1, 1)
            if low > 0:
                here = here & (at >= low)
            if high < g.output_size[axis] - 1:
                here = here & (at <= high)
            found.append(here)
        return found


class WindowMemories(wiring.Component):
    """The rows above and the columns to the left of what comes in.

    Members
    -------
    column, channel : where that is, see `RasterWalk`
    advance : strobe, it is to be kept
    data : what comes in, ``spec.latency`` cycles later
    window : with ``data``, pixel by pixel, kernel row by kernel row
    """

    def __init__(self, spec: Raster, body: str) -> None:
        self.spec, self.body = spec, body
        super().__init__(
            {
                "column": In(range(max(2, spec.lines[1]))),
                "channel": In(range(max(2, spec.steps))),
                "advance": In(1),
                "data": In(spec.bits),
                "window": Out(spec.taps * spec.bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        (kh, kw), bits = spec.geometry.kernel, spec.bits
        # What a write does after a reset is nothing to the windows of the map that comes then.
        write = later(m, self.advance, spec.latency, "write")
        # Of a column the lowest row first, which has just come; then the ones above.
        above = self._delayed(m, "lines", spec.lines, self.column, write, self.data)
        column = Cat(self.data, above)
        left = self._delayed(m, "columns", spec.columns, self.channel, write, column)
        window = Cat(column, left)
        m.d.comb += self.window.eq(
            Cat(
                window.word_select((kw - 1 - b) * kh + kh - 1 - a, bits)
                for a in range(kh)
                for b in range(kw)
            )
        )
        return m

    def _delayed(
        self, m: Module, name: str, size: tuple[int, int], at: Value, write: Value, new: Value
    ) -> Value:
        """What was written at the same place before, the latest lowest; ``new`` goes in at that
        end, and what was there longest goes."""
        spec, (width, depth) = self.spec, size
        if not width:
            return Const(0, 0)
        if spec.in_registers(size):
            words = [Signal(width, name=f"{name}_{k}", reset_less=True) for k in range(depth)]
            with m.If(write):
                m.d.sync += words[0].eq(Cat(new, words[-1])[:width])
                m.d.sync += [b.eq(a) for a, b in pairwise(words)]
            return words[-1]
        kind = getattr(spec, f"{name}_memory")
        ram = Ram(width, depth, latency=spec.latency, kind=kind, body=self.body)
        m.submodules[name] = ram
        m.d.comb += [
            ram.r_addr.eq(at),
            ram.w_en.eq(write),
            ram.w_addr.eq(later(m, at, spec.latency, f"{name}_at")),
            ram.w_data.eq(Cat(new, ram.r_data)[:width]),
        ]
        return ram.r_data
