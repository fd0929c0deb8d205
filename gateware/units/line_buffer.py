"""Line buffer: keeps some rows of a map and reads windows from them."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal, Value, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from gateware.arith.activation import activation_layout
from gateware.device.memory import Ram
from pvq_hw.engine.line_buffer import WindowSpec

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
                "i": In(stream.Signature(activation_layout(spec.x, spec.taken))),
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
                "i_payload": In(spec.taken * spec.x.bits),
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
        together = spec.taken * spec.x.bits
        kept = Signal(len(word) - together, reset_less=True)
        column = Signal.like(self.column)
        m.d.comb += [
            take.eq(self.i_valid & self.ready),
            word.eq(Cat(kept, self.i_payload)),
            full.eq(_Counter(m, "part", spec.width // spec.taken, take).end),
            pixel.eq(_Counter(m, "word", spec.pixel_words, full).end),
            self.column.eq(column),
        ]
        with m.If(take):
            m.d.sync += kept.eq(word[together:])
        at_end = column == spec.geometry.input_shape[1] - 1
        m.d.comb += self.row_done.eq(pixel & at_end)
        with m.If(pixel):
            m.d.sync += column.eq(Mux(at_end, 0, column + 1))
        pointer = Signal.like(self.w_addr)
        with m.If(full):
            m.d.sync += pointer.eq(Mux(pointer == spec.depth - 1, 0, pointer + 1))
        m.d.comb += [self.w_en.eq(full), self.w_addr.eq(pointer), self.w_data.eq(word)]
        return m


class _Counter:
    """Counts steps from 0 to ``size - 1``: ``end`` is high with the last one of a round."""

    def __init__(self, m: Module, name: str, size: int, step: Value) -> None:
        self.value: Value = Const(0, 1)
        self.end = step
        if size > 1:
            self.value = count = Signal(range(size), name=f"{name}_count")
            at_end = count == size - 1
            self.end = step & at_end
            with m.If(step):
                m.d.sync += count.eq(Mux(at_end, 0, count + 1))


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
        word = _Counter(m, "step_word", pixel, run)
        column = _Counter(m, "step_column", g.kernel[1], word.end)
        row_end = _Counter(m, "step_row", g.kernel[0], column.end).end
        place = _Place(m, spec, position, word.value)
        m.d.sync += [self.valid.eq(run), self.last.eq(row_end)]
        m.d.sync += [self.address.eq(place.address), self.inside.eq(place.inside())]
        with m.If(self.start):
            m.d.sync += place.load(position)
        with m.Elif(column.end):
            m.d.sync += place.next_row()
        with m.Elif(word.end):
            m.d.sync += place.next_column()
        with m.Elif(run):
            m.d.sync += place.next_word()
        return row_end


class _Shapes:
    """Shapes of coordinates: of a window's last column and of rows, padding included."""

    def __init__(self, spec: WindowSpec) -> None:
        g = spec.geometry
        (height, width, _), (rows, columns) = g.input_shape, g.output_size
        reach_x = (columns - 1) * g.stride[1] + g.span[1] + g.pads[1][0] + width
        reach_y = (rows - 1) * g.stride[0] + g.span[0] + g.pads[0][0] + height
        self.x = signed(reach_x.bit_length() + 1)
        self.y = signed(reach_y.bit_length() + 1)
        self.offset = signed((reach_x * spec.pixel_words).bit_length() + 1)
        # Where a pixel's words are a power of two, addresses of pixels are enough.
        self.aligned = not spec.pixel_words & (spec.pixel_words - 1)
        self.unit = spec.pixel_words if self.aligned else 1
        self.base = Shape.cast(range(max(2, spec.depth // self.unit)))


class _Place:
    """Pixel and address of the word that is read next.

    The address is ``base``, where the pixel's row begins, and the words before it in the row: a
    register of their own, or, where pixels are a power of two words, the pixel's x and a number
    within the pixel.
    """

    def __init__(self, m: Module, spec: WindowSpec, position: "_Position", word: Value) -> None:
        self.spec, self.shapes = spec, _Shapes(spec)
        shapes = self.shapes
        self.x = Signal(shapes.x, name="x", reset_less=True)
        self.y = Signal(shapes.y, name="y", reset_less=True)
        self.base = Signal(shapes.base, name="base", reset_less=True)
        self.offset = Signal(shapes.offset, name="offset", reset_less=True)
        self.phase = Signal(range(max(2, spec.phases)), name="phase", reset_less=True)
        self.address: Value
        if shapes.aligned:
            low = (spec.pixel_words - 1).bit_length()
            within = self.phase if spec.order == "channel" else word
            pixel = Signal(len(self.base), name="pixel")
            m.d.comb += pixel.eq(self.base + self.x)
            self.address = Cat(within[:low], pixel)
        else:
            self.address = self.base + self.offset

    def load(self, position: "_Position") -> list[Any]:
        """Starts a unit."""
        reach = self.spec.geometry.span[1] - 1
        statements = [
            self.x.eq(position.right - reach),
            self.y.eq(position.y),
            self.base.eq(position.base),
        ]
        if self.spec.phases > 1:
            statements.append(self.phase.eq(position.phase))
        if not self.shapes.aligned:
            statements.append(self.offset.eq(position.offset + position.phase))
        return statements

    def next_row(self) -> list[Any]:
        """To the kernel's next row, first column."""
        spec, g = self.spec, self.spec.geometry
        down = g.dilation[0] % spec.rows * spec.row_words // self.shapes.unit
        back = (g.kernel[1] - 1) * g.dilation[1]
        return [
            self.y.eq(self.y + g.dilation[0]),
            self.base.eq(_wrap(self.base + down, spec.depth // self.shapes.unit)),
            self.x.eq(self.x - back),
            self.offset.eq(self.offset - (back * spec.pixel_words + self._within())),
        ]

    def next_column(self) -> list[Any]:
        """To the kernel's next column, first word."""
        step = self.spec.geometry.dilation[1]
        forth = step * self.spec.pixel_words - self._within()
        return [self.x.eq(self.x + step), self.offset.eq(self.offset + forth)]

    def next_word(self) -> list[Any]:
        """To the pixel's next word."""
        return [self.offset.eq(self.offset + 1)]

    def _within(self) -> int:
        """Words from a pixel's first to its last one that a unit reads."""
        return 0 if self.spec.order == "channel" else self.spec.pixel_words - 1

    def inside(self) -> Value:
        """Whether the pixel is within the map."""
        g = self.spec.geometry
        height, width, _ = g.input_shape
        result: Value = Const(1, 1)
        if any(g.pads[0]):
            result = result & (self.y >= 0) & (self.y < height)
        if any(g.pads[1]):
            result = result & (self.x >= 0) & (self.x < width)
        return result


class _Position:
    """Registers of the unit that starts next.

    ``right`` is its window's last column and ``y`` its first row, ``base`` where that row begins,
    ``offset`` the words before its first column, ``phase`` its number within the window.
    """

    def __init__(self, m: Module, spec: WindowSpec, start: Value) -> None:
        self.spec = spec
        g, shapes = spec.geometry, _Shapes(spec)
        height, left = g.input_shape[0], -g.pads[1][0]
        tops = [row * g.stride[0] - g.pads[0][0] for row in range(g.output_size[0])]
        size, row_unit = spec.depth // shapes.unit, spec.row_words // shapes.unit
        self.right = Signal(shapes.x, name="next_right", init=spec.rights()[0])
        self.y = Signal(shapes.y, name="next_y", init=tops[0])
        self.base = Signal(shapes.base, name="next_base", init=tops[0] % spec.rows * row_unit)
        self.offset = Signal(shapes.offset, name="next_offset", init=left * spec.pixel_words)
        self.phase = Signal(range(spec.phases), name="next_phase")
        phase_end = self.phase == spec.phases - 1
        self.last = row_end = phase_end & (self.right == spec.rights()[-1])
        frame_end = self.y == tops[-1]
        jump = (height - (len(tops) - 1) * g.stride[0]) % spec.rows * row_unit
        stride = g.stride[0] % spec.rows * row_unit
        with m.If(start):
            m.d.sync += self.phase.eq(Mux(phase_end, 0, self.phase + 1))
            with m.If(row_end):
                m.d.sync += [
                    self.right.eq(self.right.init),
                    self.offset.eq(self.offset.init),
                    self.y.eq(Mux(frame_end, tops[0], self.y + g.stride[0])),
                    self.base.eq(_wrap(self.base + Mux(frame_end, jump, stride), size)),
                ]
            with m.Elif(phase_end):
                m.d.sync += [
                    self.right.eq(self.right + g.stride[1]),
                    self.offset.eq(self.offset + g.stride[1] * spec.pixel_words),
                ]
        self._span, self.release = self._bands(m, tops)

    def _bands(self, m: Module, tops: list[int]) -> tuple[Value, Value]:
        """Rows that the next unit needs beyond the first one, and those it may give back."""
        bands = self.spec.bands()
        usual = max(bands, key=bands.count)
        span = Signal(range(self.spec.rows + 1), name="span")
        release = Signal(range(max(band.release for band in bands) + 1), name="release_next")
        m.d.comb += [span.eq(usual.span), release.eq(usual.release)]
        for top, band in zip(tops, bands, strict=True):
            if (band.span, band.release) != (usual.span, usual.release):
                with m.If(self.y == top):
                    m.d.comb += [span.eq(band.span), release.eq(band.release)]
        return span, release

    def available(self, filled: Value, column: Value) -> Value:
        """Whether all that the next unit needs is in the buffer."""
        here = (filled == self._span) & (column > self.right)
        return (filled > self._span) | here
