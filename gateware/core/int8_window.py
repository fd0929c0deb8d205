"""Loads the activation memory of an 8-bit core with one window of a map after the other."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import Member

from gateware.core.writer_ports import read_windows, writer_ports
from pvq_hw.engine.int8_core import Int8Spec
from pvq_hw.engine.line_buffer import WindowSpec

__all__ = ["WideLoader", "wide_ports"]


def wide_ports(spec: Int8Spec, taken: int = 1) -> dict[str, Member]:
    """Ports of what gathers activations, so many a transfer, into words of all lanes and writes
    them."""
    return writer_ports(
        spec.x, taken, enables=1, address_bits=spec.address_bits + 1,
        data_bits=spec.x.bits * spec.lanes,
    )  # fmt: skip


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
        super().__init__(wide_ports(spec, window.taken))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec, width = self.spec, self.window.width
        free = Signal(2, init=2)
        reader = read_windows(m, self, self.window, free)
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
