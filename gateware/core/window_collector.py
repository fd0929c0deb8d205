"""Windows of a map in registers, one position after the other."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from gateware.arith.activation import activation_layout
from gateware.units.line_buffer import WindowReader
from pvq_hw.engine.line_buffer import WindowSpec
from pvq_hw.engine.sliding_window import UNITS_UNDER_WAY, SlidingWindow
from pvq_hw.engine.unrolled_core import UnrolledSpec

__all__ = ["WindowCollector"]


class WindowCollector(wiring.Component):
    """Reads units of new columns from a line buffer and moves them into the window's registers.

    A unit comes in while two before it wait for the window, so three are under way at most; the
    window moves as soon as its sums are taken, or at once where a row of positions only begins.

    Members
    -------
    i : stream of activations
    frame : a window, in the order kernel row, kernel column, channel
    settled : it is one, and the core is pipelined or it has been held for ``spec.levels`` cycles
    release : strobe, only with ``settled``; it is not needed after this cycle
    """

    def __init__(self, spec: UnrolledSpec, window: WindowSpec, body: str = "behavioral") -> None:
        self.spec, self.sliding, self.body = spec, SlidingWindow(window), body
        super().__init__(
            {
                "i": In(stream.Signature(activation_layout(spec.x, window.taken))),
                "frame": Out(spec.n * spec.x.bits),
                "settled": Out(1),
                "release": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        sliding, levels = self.sliding, 0 if self.spec.pipelined else self.spec.levels
        m.submodules.reader = reader = WindowReader(sliding.reader, self.body)
        connect(m, flipped(self.i), reader.i)
        # ``whole``: a unit has come; ``full``: one waits; ``second``: another behind it. Registers
        # without a reset are data.
        coming = Signal(sliding.unit_bits, reset_less=True)
        waiting = Signal(sliding.unit_bits, reset_less=True)
        frame = Signal(len(self.frame), reset_less=True)
        behind = Signal(sliding.unit_bits, reset_less=True)
        names = ("whole", "full", "second", "held", "first_free", "move", "wait_behind", "shift")
        whole, full, second, held, first_free, move, wait_behind, shift = (
            Signal(name=name) for name in names
        )
        places = Signal(range(UNITS_UNDER_WAY + 1), init=UNITS_UNDER_WAY)
        wait = Signal(range(levels + 1), reset_less=True)
        m.d.comb += [
            reader.go.eq(places != 0),
            shift.eq(full & (~held | self.release)),
            first_free.eq(~full | shift),
            move.eq(whole & (first_free | ~second)),
            wait_behind.eq(move & (second | ~first_free)),
            self.frame.eq(frame),
            self.settled.eq(held & (wait == 0)),
        ]
        m.d.sync += [
            places.eq(places - reader.start + shift),
            whole.eq((reader.valid & reader.last) | (whole & ~move)),
            full.eq((move & ~wait_behind) | second | (full & ~shift)),
            second.eq(wait_behind | (second & ~first_free)),
            held.eq(Mux(shift, self._is_window(m, shift), held & ~self.release)),
        ]
        with m.If(reader.valid):
            m.d.sync += coming.eq(Cat(coming, reader.data)[len(reader.data) :])
        with m.If(first_free):
            m.d.sync += waiting.eq(Mux(second, behind, coming))
        with m.If(wait_behind):
            m.d.sync += behind.eq(coming)
        with m.If(shift):
            m.d.sync += [frame.eq(self._moved(frame, waiting)), wait.eq(levels)]
        with m.Elif(wait != 0):
            m.d.sync += wait.eq(wait - 1)
        return m

    def _moved(self, frame: Value, unit: Value) -> Value:
        """The window one unit further: each kernel row loses columns and gets as many."""
        rows = self.sliding.window.geometry.kernel[0]
        old, new = len(frame) // rows, len(unit) // rows
        return Cat(
            part
            for k in range(rows)
            for part in (frame[k * old + new : (k + 1) * old], unit[k * new : (k + 1) * new])
        )

    def _is_window(self, m: Module, shift: Value) -> Value:
        """Whether a row's unit that moves in completes a window."""
        lead = self.sliding.lead
        if not lead:
            return shift
        columns = self.sliding.reader.geometry.output_size[1]
        column = Signal(range(columns))
        at_end = column == columns - 1
        with m.If(shift):
            m.d.sync += column.eq(Mux(at_end, 0, column + 1))
        return column >= lead
