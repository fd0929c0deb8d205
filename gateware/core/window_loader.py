"""Loads the banks of a layer's core with one window after the other."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring

from gateware.core.writer_ports import read_windows, writer_ports
from pvq_hw.engine.core import CoreBase
from pvq_hw.engine.line_buffer import WindowSpec

__all__ = ["WindowLoader"]


class WindowLoader(wiring.Component):
    """What `gateware.core.sequencer.BankWriter` is for whole frames, for the windows of a map.

    Takes a map and writes each window to a half of the banks, W columns a cycle: column n to
    bank ``n mod P``, where W divides P. A window starts when a half is free; its last write is
    ``spec.unit_words + window.read_delay + 1`` cycles later, and ``written`` the cycle before.

    Members
    -------
    i : stream of activations
    release : strobe, a half has been read
    written : strobe, a window is on its way into the banks
    w_en : one bit per bank
    w_addr : to all banks
    w_data : W activations; bank p takes number ``p mod W``
    """

    def __init__(self, spec: CoreBase, window: WindowSpec, body: str = "behavioral") -> None:
        self.spec, self.window, self.body = spec, window, body
        self.width = window.width
        super().__init__(
            writer_ports(
                spec.x,
                window.taken,
                enables=spec.lanes,
                address_bits=spec.address_bits + 1,
                data_bits=window.width * spec.x.bits,
            )
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec, width = self.spec, self.width
        free = Signal(2, init=2)
        reader = read_windows(m, self, self.window, free)
        banks = Signal(spec.lanes // width, init=1)
        address, half = Signal(spec.address_bits), Signal()
        with m.If(self.written):
            m.d.sync += [banks.eq(1), address.eq(0), half.eq(~half)]
        with m.Elif(reader.valid):
            m.d.sync += banks.eq(banks.rotate_left(1))
            with m.If(banks[-1]):
                m.d.sync += address.eq(address + 1)
        w_en = Signal(len(banks))
        w_addr = Signal(spec.address_bits + 1, reset_less=True)
        w_data = Signal(len(self.w_data), reset_less=True)
        m.d.sync += [
            w_en.eq(Mux(reader.valid, banks, 0)),
            w_addr.eq(Cat(address, half)),
            w_data.eq(reader.data),
        ]
        m.d.comb += [
            self.w_en.eq(Cat(w_en[p // width] for p in range(spec.lanes))),
            self.w_addr.eq(w_addr),
            self.w_data.eq(w_data),
        ]
        return m
