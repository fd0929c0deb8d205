"""A depthwise convolution's core: rows above and columns to the left in memories, one window a
cycle, all taps at once."""

from collections.abc import Sequence
from itertools import pairwise

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from gateware.arith.activation import activation_layout, stream_ports
from gateware.arith.requantizer import Requantizer
from gateware.arith.tree import AdderTree
from gateware.core.parameters import Strobe, core_rom, row_words
from gateware.core.sequencer import ResultFifo
from gateware.device.memory import Ram
from pvq_hw.engine.core import CoreImage
from pvq_hw.engine.depthwise_core import DepthwiseSpec

__all__ = ["DepthwiseCore"]


def _later(m: Module, value: Value, cycles: int, name: str) -> Value:
    for k in range(cycles):
        now = Signal(len(value), name=f"{name}_{k}", reset_less=True)
        m.d.sync += now.eq(value)
        value = now
    return value


class _Level:
    """A count that is compared with a number: one carry chain, whose sign is the answer."""

    def __init__(self, m: Module, name: str, start: int, most: int, up: Value, down: Value) -> None:
        bits = max(most, -start).bit_length() + 1
        level = Signal(signed(bits), name=name, init=start)
        with m.If(up ^ down):
            m.d.sync += level.eq(level + Mux(down, -1, 1))
        self.reached = ~level[-1]


class WaitingQueue(wiring.Component):
    """Activations that wait for their step.

    Members
    -------
    i : stream of activations
    used : strobe, the first one leaves; only with ``some``
    some, enough : there is one; there are `DepthwiseSpec.enough`
    data : the first one, ``bank_latency`` cycles later
    """

    def __init__(self, spec: DepthwiseSpec, body: str) -> None:
        self.spec, self.body = spec, body
        super().__init__(
            {
                "i": In(stream.Signature(activation_layout(spec.x, 1))),
                "used": In(1),
                "some": Out(1),
                "enough": Out(1),
                "data": Out(spec.x.bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec, depth = self.spec, self.spec.queue_depth
        m.submodules.ram = ram = Ram(
            spec.x.bits, depth, latency=spec.bank_latency, kind=spec.queue_memory, body=self.body
        )
        take = Signal()
        write = Signal(range(depth))
        read = Signal(range(depth))
        full = _Level(m, "room", -depth, 0, take, self.used)
        some = _Level(m, "waiting", -1, depth - 1, take, self.used)
        enough = _Level(m, "ahead", -spec.enough, depth - spec.enough, take, self.used)
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


class DepthwiseWalk(wiring.Component):
    """Steps through channels and pixels: what goes in, and which windows are read.

    A pixel that takes activations waits for each of its channels; one behind a map's end, with
    which its last windows are read, takes none unless `DepthwiseSpec.enough` wait. A step that
    reads a window waits for a place for its result.

    Members
    -------
    some, enough : of the queue
    place : there is a place for a result
    advance : strobe, the last step of a channel
    used : the same, where an activation is taken
    emit : strobe, a window is read
    channel, column : numbers of the channel within the pixel, and of pixel and channel within a
        row of the map
    row : number of the word of weights
    inside : taps of the window that are within the map, kernel row by kernel row
    """

    def __init__(self, spec: DepthwiseSpec) -> None:
        self.spec = spec
        super().__init__(
            {
                "some": In(1),
                "enough": In(1),
                "place": In(1),
                "advance": Out(1),
                "used": Out(1),
                "emit": Out(1),
                "channel": Out(range(max(2, spec.channels))),
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
            step.eq((self.some | ~takes) & (self.place | ~emits)),
            self.emit.eq(step & emits),
            self.advance.eq(step & self._last_row(m, step, emits)),
            self.used.eq(self.advance & takes),
            turn.eq(self.advance & _count(m, self.channel, spec.channels, self.advance)),
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

    def __init__(self, m: Module, spec: DepthwiseSpec, step: Value) -> None:
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


class TapSums(wiring.Component):
    """``o = sum over taps of |y| * (x ^ sign)``: a tree for each bit of the magnitudes, and the
    sum of these. What lies outside of the map is 0.

    Latency ``1 + spec.tree_levels + spec.plane_levels`` cycles, one sum a cycle.
    """

    def __init__(self, spec: DepthwiseSpec) -> None:
        self.spec = spec
        super().__init__(
            {
                "x": In(data.ArrayLayout(spec.x.bits, spec.taps)),
                "inside": In(spec.taps),
                "word": In(spec.word_bits),
                "o": Out(signed(spec.acc_bits)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        leaves: list[list[Value]] = [[] for _ in range(spec.planes)]
        place = 0
        for tap, bits in enumerate(spec.magnitudes):
            if not bits:
                continue
            size, negative = self.word[place : place + bits], self.word[place + bits]
            place += bits + 1
            x = Value.cast(self.x[tap]) & self.inside[tap].replicate(spec.x.bits)
            value = x ^ negative.replicate(spec.x.bits)
            if not spec.x.signed:
                value = Cat(value, negative)
            for k in range(bits):
                leaf = Signal(signed(spec.leaf_bits), name=f"leaf{tap}_{k}", reset_less=True)
                m.d.sync += leaf.eq(value & size[k].replicate(spec.leaf_bits))
                leaves[k].append(leaf)
        m.d.comb += self.o.eq(self._sum(m, [self._tree(m, k, p) for k, p in enumerate(leaves)]))
        return m

    def _tree(self, m: Module, plane: int, leaves: Sequence[Value]) -> Value:
        m.submodules[f"tree{plane}"] = tree = AdderTree(len(leaves), self.spec.leaf_bits)
        m.d.comb += [tree.i[k].eq(leaf) for k, leaf in enumerate(leaves)]
        late = self.spec.tree_levels - tree.levels
        return _later(m, tree.o, late, f"plane{plane}").as_signed()

    def _sum(self, m: Module, values: list[Value]) -> Value:
        """Planes, each worth twice the one before, added by pairs with a register after each."""
        weight = 1
        while len(values) > 1:
            sums: list[Value] = []
            for low, high in zip(values[::2], [*values[1::2], None], strict=False):
                value: Value = low
                if high is not None:
                    # The lowest bits of the lower value pass by the carry chain.
                    value = Cat(low[:weight], (low >> weight) + high).as_signed()
                total = Signal(value.shape(), name=f"sum{weight}_{len(sums)}", reset_less=True)
                m.d.sync += total.eq(value)
                sums.append(total)
            values, weight = sums, 2 * weight
        return values[0] if values else Const(0, signed(2))


class DepthwiseCore(wiring.Component):
    """Computes a depthwise convolution, map after map: `DepthwiseSpec.compute` as a circuit.

    Takes the activations of a map in order, channels fastest, and gives the rows' results of one
    position after the other. A map takes ``spec.frame_cycles`` cycles as long as activations come
    and results are taken; a result is offered ``spec.output_delay`` cycles after its window is
    read, which is at the earliest in the cycle after the transfer of its last activation.

    Back-pressure holds the reading of windows, then the input; never the adders or the requantizer.
    Reset forgets all maps.

    Parameters
    ----------
    spec : DepthwiseSpec
    image : CoreImage
    body : str
        Of memories and multipliers, see `gateware.device.memory.MEMORY_BODIES`.

    Members
    -------
    i, o : streams of activations, see `gateware.arith.activation`
    """

    def __init__(self, spec: DepthwiseSpec, image: CoreImage, *, body: str = "behavioral") -> None:
        self.spec, self.image, self.body = spec, image, body
        super().__init__(stream_ports(spec.x, spec.out))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        m.submodules.queue = queue = WaitingQueue(spec, self.body)
        m.submodules.walk = walk = DepthwiseWalk(spec)
        m.submodules.fifo = fifo = ResultFifo(spec, self.body)
        connect(m, flipped(self.i), queue.i)
        connect(m, fifo.o, flipped(self.o))
        places = _Level(m, "places", spec.credits - 1, spec.credits - 1, fifo.popped, walk.emit)
        emit = Strobe(m, "emit", walk.emit, 0)
        m.d.comb += [
            walk.some.eq(queue.some),
            walk.enough.eq(queue.enough),
            walk.place.eq(places.reached),
            queue.used.eq(walk.used),
            fifo.w_en.eq(emit(spec.product_stage + spec.bias_chunks + 1)),
            fifo.w_data.eq(
                self._result(m, self._sums(m, walk, self._window(m, queue, walk)), emit)
            ),
        ]
        return m

    def _window(self, m: Module, queue: WaitingQueue, walk: DepthwiseWalk) -> list[Value]:
        """The window's activations, kernel row by kernel row, ``bank_latency`` cycles later."""
        spec = self.spec
        (kh, kw), bits = spec.geometry.kernel, spec.x.bits
        # What a write does after a reset is nothing to the windows of the map that comes then.
        write = _later(m, walk.advance, spec.bank_latency, "write")
        # Of a column the lowest row first, which has just come; then the ones above.
        above = self._delayed(m, "lines", spec.lines, walk.column, write, queue.data)
        column = Cat(queue.data, above)
        left = self._delayed(m, "columns", spec.columns, walk.channel, write, column)
        window = Cat(column, left)
        return [
            window.word_select((kw - 1 - b) * kh + kh - 1 - a, bits)
            for a in range(kh)
            for b in range(kw)
        ]

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
        ram = Ram(width, depth, latency=spec.bank_latency, kind=kind, body=self.body)
        m.submodules[name] = ram
        m.d.comb += [
            ram.r_addr.eq(at),
            ram.w_en.eq(write),
            ram.w_addr.eq(_later(m, at, spec.bank_latency, f"{name}_at")),
            ram.w_data.eq(Cat(new, ram.r_data)[:width]),
        ]
        return ram.r_data

    def _sums(self, m: Module, walk: DepthwiseWalk, window: list[Value]) -> Value:
        spec = self.spec
        m.submodules.weights = weights = core_rom(self, "weights", spec.code_latency, "block")
        m.submodules.sums = sums = TapSums(spec)
        m.d.comb += [
            weights.addr.eq(walk.row),
            sums.word.eq(weights.data),
            sums.x.eq(Cat(window)),
            sums.inside.eq(_later(m, walk.inside, spec.bank_latency, "inside")),
        ]
        return _later(m, sums.o, spec.row_stage - spec.sum_stage, "total").as_signed()

    def _result(self, m: Module, total: Value, emit: Strobe) -> Value:
        """The requantizer, with multipliers and biases out of their ROMs."""
        spec = self.spec
        m.submodules.requantizer = requantizer = Requantizer(spec, self.body)
        mult: Value = Const(1)
        if spec.multiplier != "none":
            mult = row_words(m, self, "mult", emit, spec.row_stage)
        bias = row_words(m, self, "bias", emit, spec.product_stage)
        m.d.comb += [
            requantizer.acc.eq(total),
            requantizer.mult.eq(mult),
            requantizer.bias.eq(bias),
            requantizer.start.eq(emit(spec.row_stage)),
        ]
        return requantizer.o
