"""Loads the activation memory of an 8-bit core with one window of a map after the other."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Member, Out, connect, flipped

from gateware.arith.activation import activation_layout
from gateware.units.line_buffer import WindowReader
from pvq_hw.engine.int8_core import Int8Spec
from pvq_hw.engine.line_buffer import WindowSpec

__all__ = ["WideLoader", "writer_ports"]


def writer_ports(spec: Int8Spec, taken: int = 1) -> dict[str, Member]:
    """Ports of what gathers activations, so many a transfer, into words of all lanes and writes
    them."""
    return {
        "i": In(stream.Signature(activation_layout(spec.x, taken))),
        "release": In(1),
        "written": Out(1),
        "w_en": Out(1),
        "w_addr": Out(spec.address_bits + 1),
        "w_data": Out(spec.x.bits * spec.lanes),
    }


class WideLoader(wiring.Component):
    """What `gateware.core.int8_core.WideWriter` is for whole frames, for the windows of a map.

    Gathers W columns a cycle, where W divides P, into words of P, the last of which may be short.
    Its strobes are those of `gateware.core.window_loader.WindowLoader`; a word's write is the cycle
    after its last columns.

    Members
    -------
    i : stream of activations
    release : strobe, a half has been read
    written : strobe, a window is on its way into the memory
    w_en, w_addr, w_data : to the memory
    """

    def __init__(self, spec: Int8Spec, window: WindowSpec, body: str = "behavioral") -> None:
        self.spec, self.window, self.body = spec, window, body
        super().__init__(writer_ports(spec, window.taken))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec, width = self.spec, self.window.width
        m.submodules.reader = reader = WindowReader(self.window, self.body)
        connect(m, flipped(self.i), reader.i)
        free = Signal(2, init=2)
        m.d.comb += [reader.go.eq(free != 0), self.written.eq(reader.valid & reader.last)]
        m.d.sync += free.eq(free + self.release - reader.start)
        steps = spec.lanes // width
        step, full = Signal(range(steps)), Signal(init=int(steps == 1))
        address, half = Signal(spec.address_bits), Signal()
        done = reader.valid & (full | reader.last)
        with m.If(reader.valid):
            m.d.sync += step.eq(Mux(full | reader.last, 0, step + 1))
            if steps > 1:
                m.d.sync += full.eq((step == steps - 2) & ~reader.last)
        with m.If(done):
            m.d.sync += [
                address.eq(Mux(reader.last, 0, address + 1)),
                half.eq(half ^ reader.last),
            ]
        word = Signal(len(self.w_data), reset_less=True)
        flip = Cat(spec.flipped >> k & 1 for _ in range(width) for k in range(spec.x.bits))
        with m.If(reader.valid):
            m.d.sync += word.eq(Cat(word, reader.data ^ flip)[width * spec.x.bits :])
        w_en = Signal()
        w_addr = Signal(spec.address_bits + 1, reset_less=True)
        m.d.sync += [w_en.eq(done), w_addr.eq(Cat(address, half))]
        m.d.comb += [self.w_en.eq(w_en), self.w_addr.eq(w_addr), self.w_data.eq(word)]
        return m
