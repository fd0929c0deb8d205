"""Poolings: maxima and averages of windows, channel by channel."""

from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from gateware.arith.activation import stream_ports
from gateware.arith.scaler import Scaler
from gateware.device.memory import Ram
from gateware.units.line_buffer import WindowReader
from gateware.units.queue import Credits, add_queue, delayed
from pvq_hw.engine.units import Pool
from pvq_hw.geometry import Geometry
from pvq_hw.network.window import AveragePool

__all__ = ["PoolUnit"]


class PoolUnit(wiring.Component):
    """`Pool.compute` as a circuit.

    Streamed, it takes a transfer a cycle as long as there is a place for a result, which is
    written ``spec.result_delay`` cycles after its window's last activation. With a line buffer,
    it reads an activation a cycle, each window's result after its last one.

    Members
    -------
    i, o : streams of activations
    """

    def __init__(self, spec: Pool, body: str = "behavioral") -> None:
        self.spec, self.body = spec, body
        super().__init__(stream_ports(spec.x, spec.out, spec.width))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        queue, credits = add_queue(
            m, self.o, spec.out, spec.depth, spec.queue_memory, self.body, spec.width
        )
        stage = self._stream if spec.window is None else self._windows
        result, done = stage(m, credits)
        if spec.scale is not None:
            result, done = self._scaled(m, result, done)
        m.d.comb += [queue.w_en.eq(done), queue.w_data.eq(result)]
        return m

    # -- activations as they come -------------------------------------------------------------

    def _stream(self, m: Module, credits: Credits) -> tuple[Value, Value]:
        spec = self.spec
        m.submodules.walk = walk = _StreamWalk(spec)
        m.submodules.ram = ram = Ram(
            spec.acc_bits * spec.width,
            spec.partials,
            latency=spec.latency,
            kind=spec.memory,
            body=self.body,
        )
        m.d.comb += [
            self.i.ready.eq(credits.some),
            walk.take.eq(self.i.valid & credits.some),
            credits.claim.eq(walk.take & walk.last),
            ram.r_addr.eq(walk.address),
        ]
        taken, x, first = walk.take & walk.inside, self.i.payload.as_value(), walk.first
        if spec.chained:
            x, taken, first = self._row(m, walk), taken & walk.row_last, walk.row_first
        flags: list[Value] = [taken, first, walk.take & walk.last]
        flags += [walk.address, x]
        for i in range(spec.latency):
            later = [Signal(len(f), name=f"flag{k}_{i}") for k, f in enumerate(flags)]
            m.d.sync += [a.eq(b) for a, b in zip(later, flags, strict=True)]
            flags = list(later)
        inside, first, last, address, x = flags
        partial = Signal(spec.acc_bits * spec.width, reset_less=True)
        w_en, done = Signal(), Signal()
        w_addr = Signal(len(ram.w_addr), reset_less=True)
        m.d.sync += [
            partial.eq(self._merged(x, ram.r_data, first)),
            w_en.eq(inside),
            w_addr.eq(address),
            done.eq(last),
        ]
        m.d.comb += [ram.w_en.eq(w_en), ram.w_addr.eq(w_addr), ram.w_data.eq(partial)]
        return partial, done

    def _row(self, m: Module, walk: "_StreamWalk") -> Value:
        """What the window's row has so far, in registers: one for each transfer of a pixel."""
        spec = self.spec
        chain = Signal(spec.acc_bits * spec.width * spec.pixel_transfers, reset_less=True)
        before = chain[: spec.acc_bits * spec.width]
        now = self._merged(self.i.payload.as_value(), before, walk.column_first)
        with m.If(walk.take & walk.inside):
            m.d.sync += chain.eq(Cat(chain, now)[len(now) :])
        return now

    def _merged(self, x: Value, partial: Value, first: Value) -> Value:
        """W partial results, each with one more activation, or with that of a row."""
        width, bits = self.spec.width, len(x) // self.spec.width
        return Cat(
            Value.cast(
                self._merge(
                    x.word_select(k, bits), partial.word_select(k, self.spec.acc_bits), first
                )
            )[: self.spec.acc_bits]
            for k in range(width)
        )

    def _merge(self, x: Value, partial: Value, first: Value) -> Value:
        """The partial result with one more activation."""
        spec = self.spec
        value = _typed(x, spec.x.signed and not spec.x.binary)
        so_far = _typed(partial, spec.x.signed and not spec.x.binary)
        if spec.scale is not None:
            return Mux(first, 0, so_far) + value
        # Binary activations: 1 stands for -1, so the largest has the smallest code.
        wins = value < so_far if spec.x.binary else value > so_far
        return Mux(first | wins, value, so_far)

    # -- windows from a line buffer -----------------------------------------------------------

    def _windows(self, m: Module, credits: Credits) -> tuple[Value, Value]:
        spec = self.spec
        assert spec.window is not None
        m.submodules.reader = reader = WindowReader(spec.window, self.body)
        connect(m, flipped(self.i), reader.i)
        partial = Signal(spec.acc_bits, reset_less=True)
        first, done = Signal(init=1), Signal()
        m.d.comb += [reader.go.eq(credits.some), credits.claim.eq(reader.start)]
        m.d.sync += done.eq(reader.valid & reader.last)
        with m.If(reader.valid):
            m.d.sync += [
                partial.eq(self._merge(reader.data, partial, first)),
                first.eq(reader.last),
            ]
        return partial, done

    # -- averages -----------------------------------------------------------------------------

    def _scaled(self, m: Module, result: Value, done: Value) -> tuple[Value, Value]:
        spec = self.spec
        assert spec.scale is not None
        mult, results = self._multiplier(m, done), []
        for k in range(spec.width):
            m.submodules[f"scaler{k or ''}"] = scaler = Scaler(spec.scale, 1, self.body)
            m.d.comb += [
                scaler.a[0].eq(_typed(result.word_select(k, spec.acc_bits), spec.x.signed)),
                scaler.mult[0].eq(mult),
            ]
            results.append(scaler.o)
        return Cat(*results), delayed(m, done, spec.scale.delay)

    def _multiplier(self, m: Module, done: Value) -> Value:
        """The multiplier of the position whose sum is done: by its row and its column."""
        spec, layer = self.spec, self.spec.layer()
        assert spec.scale is not None
        assert isinstance(layer, AveragePool)
        table = layer.multipliers()
        if (table == table[0, 0]).all():
            return Const(int(table[0, 0]), spec.scale.mult_bits)
        channel_end = _Counter(m, "done_channel", spec.pixel_transfers, done)
        column = _Counter(m, "done_column", table.shape[1], channel_end.end)
        row = _Counter(m, "done_row", table.shape[0], column.end)
        mult = Signal(spec.scale.mult_bits)
        usual = table[table.shape[0] // 2, table.shape[1] // 2]
        m.d.comb += mult.eq(int(usual))
        with m.Switch(Cat(column.value, row.value)):
            for y in range(table.shape[0]):
                for x in range(table.shape[1]):
                    if table[y, x] != usual:
                        with m.Case(x | y << len(column.value)):
                            m.d.comb += mult.eq(int(table[y, x]))
        return mult


def _typed(value: Value, signed: bool) -> Value:
    return value.as_signed() if signed else value.as_unsigned()


class _Counter:
    """Counts steps modulo ``size``: ``end`` is high with the last one of a round."""

    def __init__(self, m: Module, name: str, size: int, step: Value) -> None:
        self.value = Signal(Shape.cast(range(max(2, size))), name=name)
        at_end = self.value == size - 1
        self.end = step & at_end
        with m.If(step):
            m.d.sync += self.value.eq(Mux(at_end, 0, self.value + 1))


class _StreamWalk(wiring.Component):
    """Which window an activation belongs to.

    Members
    -------
    take : an activation is taken
    address : of the partial result
    inside, first, last : whether it is in a window, the first and the last one of it
    column_first, row_first, row_last : whether it is of a window's first column, of its first row,
        of its last column
    """

    def __init__(self, spec: Pool) -> None:
        self.spec = spec
        super().__init__(
            {
                "take": In(1),
                "address": Out(range(max(2, spec.partials))),
                "inside": Out(1),
                "first": Out(1),
                "last": Out(1),
                "column_first": Out(1),
                "row_first": Out(1),
                "row_last": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        g = self.spec.geometry
        height, width, _ = g.input_shape
        channels = self.spec.pixel_transfers
        channel = _Counter(m, "channel", channels, self.take)
        x = _Axis(m, "x", width, g, 1, channel.end)
        y = _Axis(m, "y", height, g, 0, x.end)
        start = Signal.like(self.address)
        m.d.comb += [
            self.address.eq(start + channel.value),
            self.inside.eq(x.inside & y.inside),
            self.first.eq(x.first & y.first),
            self.last.eq(x.last & y.last),
            self.column_first.eq(x.first),
            self.row_first.eq(y.first),
            self.row_last.eq(x.last),
        ]
        with m.If(x.end):
            m.d.sync += start.eq(0)
        with m.Elif(channel.end & x.last):
            m.d.sync += start.eq(start + channels)
        return m


class _Axis:
    """Place along one axis: whether it is in a window, first or last in it; ``end`` of the axis."""

    def __init__(
        self, m: Module, name: str, size: int, g: Geometry, axis: int, step: Value
    ) -> None:
        kernel, stride = g.kernel[axis], g.stride[axis]
        pad, count = g.pads[axis][0], g.output_size[axis]
        place = _Counter(m, f"{name}_place", size, step)
        tap = Signal(range(max(2, stride)), name=f"{name}_tap", init=pad)
        window = Signal(range(count + 1), name=f"{name}_window")
        self.end = place.end
        counted = window != count
        self.inside = (tap < kernel) & counted
        self.first = (tap == 0) | (place.value == 0)
        # The last window may end at the border of the map, before its last tap.
        ends = (tap == kernel - 1) | (place.value == size - 1)
        self.last = ends & self.inside
        with m.If(place.end):
            m.d.sync += [tap.eq(pad), window.eq(0)]
        with m.Elif(step):
            m.d.sync += tap.eq(Mux(tap == stride - 1, 0, tap + 1))
            with m.If(tap == stride - 1):
                m.d.sync += window.eq(Mux(counted, window + 1, count))
