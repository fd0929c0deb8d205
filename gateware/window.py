"""Line buffer: keeps some rows of a map and reads windows from them."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from gateware.activation import activation_layout
from gateware.memory import Ram
from pvq_hw.window import WindowSpec

__all__ = ["WindowReader"]


class WindowReader(wiring.Component):
    """Writes a map into a circular buffer of rows and reads the windows' units from it.

    A row of the map is taken while there is a place for it; a unit starts as soon as ``go`` is
    high and the last activation it needs has come, and then leaves one word a cycle. Units
    follow one another without a pause within a row of positions; after its last unit the rows
    that nothing needs any more are given back, one a cycle. The first word of a unit leaves
    ``1 + spec.read_delay`` cycles after its start.

    Members
    -------
    i : stream of activations
    go : a unit may start
    start : strobe, a unit starts
    valid, last : there is a word, and it is its unit's last one
    data : W activations, the first channel in the lowest bits
    """

    def __init__(self, spec: WindowSpec, body: str = "behavioral") -> None:
        self.spec, self.body = spec, body
        super().__init__(
            {
                "i": In(stream.Signature(activation_layout(spec.x, 1))),
                "go": In(1),
                "start": Out(1),
                "valid": Out(1),
                "last": Out(1),
                "data": Out(spec.width * spec.x.bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        m.submodules.ram = ram = Ram(
            spec.width * spec.x.bits,
            spec.depth,
            latency=spec.latency,
            kind=spec.memory,
            body=self.body,
        )
        m.submodules.writer = writer = _Writer(spec)
        m.submodules.walk = walk = _Walk(spec)
        filled = Signal(range(spec.rows + 1))
        owed = Signal(range(max(band.release for band in spec.bands()) + 1))
        freed = Signal()
        m.d.comb += [
            freed.eq((owed != 0) & (filled != 0)),
            writer.i_valid.eq(self.i.valid),
            writer.i_payload.eq(self.i.payload.as_value()),
            writer.ready.eq(filled != spec.rows),
            self.i.ready.eq(writer.ready),
            ram.w_en.eq(writer.w_en),
            ram.w_addr.eq(writer.w_addr),
            ram.w_data.eq(writer.w_data),
            walk.filled.eq(filled),
            walk.column.eq(writer.column),
            walk.settled.eq(owed == 0),
            walk.go.eq(self.go),
            self.start.eq(walk.start),
            ram.r_addr.eq(walk.address),
        ]
        m.d.sync += filled.eq(filled + writer.row_done - freed)
        with m.If(walk.closed):
            m.d.sync += owed.eq(walk.release)
        with m.Elif(freed):
            m.d.sync += owed.eq(owed - 1)
        valid, last, inside = walk.valid, walk.last, walk.inside
        for i in range(spec.latency):
            flags = [Signal(name=f"{n}_{i}") for n in ("valid", "last", "inside")]
            m.d.sync += [a.eq(b) for a, b in zip(flags, (valid, last, inside), strict=True)]
            valid, last, inside = flags
        code = int(spec.pad < 0) if spec.x.binary else spec.pad & ((1 << spec.x.bits) - 1)
        pad = Cat(*[Const(code, spec.x.bits)] * spec.width)
        m.d.comb += [
            self.valid.eq(valid),
            self.last.eq(last),
            self.data.eq(Mux(inside, ram.r_data, pad)),
        ]
        return m


class _Writer(wiring.Component):
    """Puts activations together to words and counts pixels and rows.

    ``column`` counts the whole pixels of the row that is coming in; ``row_done`` is high with the
    transfer of a row's last activation.
    """

    def __init__(self, spec: WindowSpec) -> None:
        self.spec = spec
        width = spec.geometry.input_shape[1]
        super().__init__(
            {
                "i_valid": In(1),
                "i_payload": In(spec.x.bits),
                "ready": In(1),
                "column": Out(range(width)),
                "row_done": Out(1),
                "w_en": Out(1),
                "w_addr": Out(range(max(2, spec.depth))),
                "w_data": Out(spec.width * spec.x.bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        take, full, pixel = Signal(), Signal(), Signal()
        word = Signal(spec.width * spec.x.bits)
        kept = Signal((spec.width - 1) * spec.x.bits, reset_less=True)
        column = Signal.like(self.column)
        m.d.comb += [
            take.eq(self.i_valid & self.ready),
            word.eq(Cat(kept, self.i_payload)),
            full.eq(_count(m, "part", spec.width, take)),
            pixel.eq(_count(m, "word", spec.pixel_words, full)),
            self.column.eq(column),
        ]
        with m.If(take):
            m.d.sync += kept.eq(word[spec.x.bits :])
        at_end = column == spec.geometry.input_shape[1] - 1
        m.d.comb += self.row_done.eq(pixel & at_end)
        with m.If(pixel):
            m.d.sync += column.eq(Mux(at_end, 0, column + 1))
        pointer, w_addr = Signal.like(self.w_addr), Signal.like(self.w_addr)
        w_en, w_data = Signal(), Signal(len(word), reset_less=True)
        with m.If(full):
            m.d.sync += pointer.eq(Mux(pointer == spec.depth - 1, 0, pointer + 1))
        m.d.sync += [w_en.eq(full), w_addr.eq(pointer), w_data.eq(word)]
        m.d.comb += [self.w_en.eq(w_en), self.w_addr.eq(w_addr), self.w_data.eq(w_data)]
        return m


def _count(m: Module, name: str, size: int, step: Value) -> Value:
    """Counts steps from 0 to ``size - 1``; whether this step is the last one."""
    if size == 1:
        return step
    count = Signal(range(size), name=f"{name}_count")
    at_end = count == size - 1
    with m.If(step):
        m.d.sync += count.eq(Mux(at_end, 0, count + 1))
    return step & at_end


def _wrap(total: Value, size: int) -> Value:
    """``total`` below ``2 * size``, modulo ``size``."""
    return Mux(total >= size, total - size, total)


class _Walk(wiring.Component):
    """Positions of the windows, and the addresses of their words.

    Members
    -------
    filled : whole rows in the buffer, from the first one that is still needed
    column : whole pixels of the row that is coming in
    settled : no rows are to be given back
    go, start : permission and start of a unit
    closed, release : strobe with the last step of a row of positions, and its rows to give back
    address, inside, valid, last : of a word, one cycle after its step
    """

    def __init__(self, spec: WindowSpec) -> None:
        self.spec = spec
        bands = spec.bands()
        super().__init__(
            {
                "filled": In(range(spec.rows + 1)),
                "column": In(range(spec.geometry.input_shape[1])),
                "settled": In(1),
                "go": In(1),
                "start": Out(1),
                "closed": Out(1),
                "release": Out(range(max(band.release for band in bands) + 1)),
                "address": Out(range(max(2, spec.depth))),
                "inside": Out(1),
                "valid": Out(1),
                "last": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        position = _Position(m, self.spec, self.start)
        run, closing = Signal(), Signal()
        step_last = self._steps(m, position, run)
        # Of the row of positions whose last unit was started; `release` waits for its last word.
        release = Signal.like(self.release, reset_less=True)
        available = position.available(self.filled, self.column)
        m.d.comb += [
            self.start.eq(self.go & available & self.settled & ~closing & (~run | step_last)),
            self.closed.eq(closing & run & step_last),
            self.release.eq(release),
        ]
        with m.If(self.start):
            m.d.sync += [run.eq(1), closing.eq(position.last), release.eq(position.release)]
        with m.Elif(step_last):
            m.d.sync += [run.eq(0), closing.eq(0)]
        return m

    def _steps(self, m: Module, position: "_Position", run: Value) -> Value:
        """Walks a unit's words; whether this step is its last one."""
        spec = self.spec
        g = spec.geometry
        pixel = 1 if spec.order == "channel" else spec.pixel_words
        word_end = _count(m, "step_word", pixel, run)
        column_end = _count(m, "step_column", g.kernel[1], word_end)
        row_end = _count(m, "step_row", g.kernel[0], column_end)
        x, y, base, offset = position.walkers()
        m.d.sync += [self.valid.eq(run), self.last.eq(row_end)]
        m.d.sync += self.address.eq(base + offset)
        m.d.sync += self.inside.eq(position.inside(x, y))
        left_x, left_offset = (Signal.like(s, name=f"left_{s.name}") for s in (x, offset))
        with m.If(self.start):
            m.d.sync += [
                *(s.eq(v) for s, v in zip((x, y, base, offset), position.values(), strict=True)),
                left_x.eq(position.x),
                left_offset.eq(position.values()[3]),
            ]
        with m.Elif(column_end):
            m.d.sync += [
                y.eq(y + g.dilation[0]),
                base.eq(_wrap(base + g.dilation[0] % spec.rows * spec.row_words, spec.depth)),
                x.eq(left_x),
                offset.eq(left_offset),
            ]
        with m.Elif(word_end):
            m.d.sync += [
                x.eq(x + g.dilation[1]),
                offset.eq(offset + (g.dilation[1] * spec.pixel_words - (pixel - 1))),
            ]
        with m.Elif(run):
            m.d.sync += offset.eq(offset + 1)
        return row_end


class _Position:
    """Registers of the unit that starts next."""

    def __init__(self, m: Module, spec: WindowSpec, start: Value) -> None:
        self.spec = spec
        g = spec.geometry
        (height, width, _), (rows, columns) = g.input_shape, g.output_size
        (pad_top, _), (pad_left, _) = g.pads
        reach_x = (columns - 1) * g.stride[1] + g.span[1] + pad_left + width
        reach_y = (rows - 1) * g.stride[0] + g.span[0] + pad_top + height
        self._x_shape = signed(reach_x.bit_length() + 1)
        self._y_shape = signed(reach_y.bit_length() + 1)
        self._offset_shape = signed((reach_x * spec.pixel_words).bit_length() + 1)
        self.x = Signal(self._x_shape, name="next_x", init=-pad_left)
        self._offset = Signal(
            self._offset_shape, name="next_offset", init=-pad_left * spec.pixel_words
        )
        self._y = Signal(self._y_shape, name="next_y", init=-pad_top)
        top = -pad_top % spec.rows * spec.row_words
        self._base = Signal(range(max(2, spec.depth)), name="next_base", init=top)
        self._right = Signal(self._x_shape, name="next_right", init=spec.rights()[0])
        self._row = Signal(range(rows), name="next_row")
        column = Signal(range(columns), name="next_column")
        self._phase = Signal(range(spec.phases), name="next_phase")
        phase_end = self._phase == spec.phases - 1
        row_end = phase_end & (column == columns - 1)
        self.last = row_end
        frame_end = self._row == rows - 1
        jump = (height - (rows - 1) * g.stride[0]) % spec.rows * spec.row_words
        stride = g.stride[0] % spec.rows * spec.row_words
        with m.If(start):
            m.d.sync += self._phase.eq(Mux(phase_end, 0, self._phase + 1))
            with m.If(row_end):
                m.d.sync += [
                    column.eq(0),
                    self.x.eq(self.x.init),
                    self._offset.eq(self._offset.init),
                    self._right.eq(self._right.init),
                    self._row.eq(Mux(frame_end, 0, self._row + 1)),
                    self._y.eq(Mux(frame_end, -pad_top, self._y + g.stride[0])),
                    self._base.eq(_wrap(self._base + Mux(frame_end, jump, stride), spec.depth)),
                ]
            with m.Elif(phase_end):
                m.d.sync += [
                    column.eq(column + 1),
                    self.x.eq(self.x + g.stride[1]),
                    self._offset.eq(self._offset + g.stride[1] * spec.pixel_words),
                    self._right.eq(self._right + g.stride[1]),
                ]
        self._span, self.release = self._bands(m)

    def _bands(self, m: Module) -> tuple[Value, Value]:
        """Rows that the next unit needs beyond the first one, and those it may give back."""
        bands = self.spec.bands()
        usual = max(bands, key=bands.count)
        span = Signal(range(self.spec.rows + 1), name="span")
        release = Signal(range(max(band.release for band in bands) + 1), name="release_next")
        m.d.comb += [span.eq(usual.span), release.eq(usual.release)]
        with m.Switch(self._row):
            for row, band in enumerate(bands):
                if (band.span, band.release) != (usual.span, usual.release):
                    with m.Case(row):
                        m.d.comb += [span.eq(band.span), release.eq(band.release)]
        return span, release

    def available(self, filled: Value, column: Value) -> Value:
        """Whether all that the next unit needs is in the buffer."""
        here = (filled == self._span) & (column > self._right)
        return (filled > self._span) | here

    def walkers(self) -> tuple[Signal, Signal, Signal, Signal]:
        """Registers of a word: x, y, base and offset of its address."""
        return (
            Signal(self._x_shape, name="x", reset_less=True),
            Signal(self._y_shape, name="y", reset_less=True),
            Signal.like(self._base, name="base", init=0, reset_less=True),
            Signal(self._offset_shape, name="offset", reset_less=True),
        )

    def values(self) -> tuple[Value, Value, Value, Value]:
        """What the walkers start from."""
        offset: Value = self._offset
        if self.spec.phases > 1:
            offset = offset + self._phase
        return self.x, self._y, self._base, offset

    def inside(self, x: Value, y: Value) -> Value:
        """Whether a pixel is within the map."""
        g = self.spec.geometry
        height, width, _ = g.input_shape
        result: Value = Const(1, 1)
        if any(g.pads[0]):
            result = result & (y >= 0) & (y < height)
        if any(g.pads[1]):
            result = result & (x >= 0) & (x < width)
        return result
