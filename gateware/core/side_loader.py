"""Loads the banks of a core with V neighboring windows of a map, side by side."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring

from gateware.core.writer_ports import read_windows, writer_ports
from pvq_hw.engine.core import CoreBase
from pvq_hw.engine.line_buffer import WindowSpec

__all__ = ["SideLoader"]


class SideLoader(wiring.Component):
    """What `gateware.core.window_loader.WindowLoader` is for one window, for V neighbors.

    Reads all columns from the first window's first to the last one's last (`WindowSpec.segment`),
    W activations a cycle, each once, and writes them into every part of the banks whose window
    they are of. What part v is given in a row of the kernel is what part 0 was given so many
    columns before, so every part has an address of its own. A group of V starts when a half is
    free; its last write is ``segment.unit_words + segment.read_delay + 2`` cycles later, and
    ``written`` two cycles before that.

    Members
    -------
    i : stream of activations
    release : strobe, a half has been read
    written : strobe, V windows are on their way into the banks
    w_en : of every part, one bit per bank
    w_addr : of every part, to all its banks
    w_data : W activations; bank p takes number ``p mod W``
    """

    def __init__(self, spec: CoreBase, window: WindowSpec, body: str = "behavioral") -> None:
        self.spec, self.window, self.body = spec, window, body
        self.width = window.width
        super().__init__(
            writer_ports(
                spec.x,
                window.taken,
                enables=window.side * spec.lanes,
                address_bits=window.side * (spec.address_bits + 1),
                data_bits=window.width * spec.x.bits,
            )
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        side = self.window.side
        free, half = Signal(2, init=2), Signal()
        reader = read_windows(m, self, self.window.segment, free)
        # Two registers: what says whose column it is stands before the parts' addresses.
        taken, last = Signal(side), Signal()
        data, w_data = (Signal(len(self.w_data), name=n, reset_less=True) for n in ("data", "word"))
        m.d.sync += [
            taken.eq(Mux(reader.valid, self._whose(m, reader.valid), 0)),
            last.eq(self.written),
            data.eq(reader.data),
            w_data.eq(data),
            half.eq(half ^ last),
        ]
        m.d.comb += self.w_data.eq(w_data)
        for v in range(side):
            self._part(m, v, taken[v], last, half)
        return m

    def _whose(self, m: Module, valid: Value) -> Value:
        """The parts whose windows the word's column is of."""
        parts, words = self.window.parts(), self.window.pixel_words
        column, step = Signal(range(len(parts))), valid
        if words > 1:
            word = Signal(range(words))
            step = valid & (word == words - 1)
            with m.If(valid):
                m.d.sync += word.eq(Mux(step, 0, word + 1))
        with m.If(step):
            m.d.sync += column.eq(Mux(column == len(parts) - 1, 0, column + 1))
        return Array(Const(bits, self.window.side) for bits in parts)[column]

    def _part(self, m: Module, v: int, taken: Value, last: Value, half: Value) -> None:
        """Banks and addresses of a window's words, one after the other."""
        lanes, width = self.spec.lanes, self.width
        bank = Signal(lanes // width, init=1, name=f"bank{v}")
        address = Signal(self.spec.address_bits, name=f"address{v}")
        with m.If(last):
            m.d.sync += [bank.eq(1), address.eq(0)]
        with m.Elif(taken):
            m.d.sync += bank.eq(bank.rotate_left(1))
            with m.If(bank[-1]):
                m.d.sync += address.eq(address + 1)
        w_en = Signal(len(bank), name=f"w_en{v}")
        w_addr = Signal(len(address) + 1, name=f"w_addr{v}", reset_less=True)
        m.d.sync += [w_en.eq(Mux(taken, bank, 0)), w_addr.eq(Cat(address, half))]
        m.d.comb += [
            self.w_en.word_select(v, lanes).eq(
                Cat(w_en[p // width % len(bank)] for p in range(lanes))
            ),
            self.w_addr.word_select(v, len(w_addr)).eq(w_addr),
        ]
