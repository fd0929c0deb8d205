"""SPI peripheral, mode 0, high bit first; bytes are stuffed as `pvq_hw.host.octets` has it."""

from typing import Any

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

from pvq_hw.host.octets import ESCAPE, FILL, FLIP

__all__ = ["SPI_PINS", "SpiPeripheral"]

SPI_PINS = wiring.Signature(
    {
        "cs_n": Out(1, init=1),
        "clk": Out(1),
        "copi": Out(1),
        "cipo": In(1),
        # The peripheral drives cipo: other ones may be on the same wire.
        "selected": In(1),
    }
)
"""The bus, seen from the controller."""


class SpiPeripheral(wiring.Component):
    """Bytes to and from an SPI controller, all in the ``sync`` domain.

    The wires pass two flip-flops each and are watched for edges, so that the controller's clock may
    have any phase, and any rate up to a sixth of that of ``sync``, with levels of 2 cycles or more.
    ``copi`` is taken at the rising edge; ``cipo`` changes 3 to 4 cycles behind it rather than at
    the falling edge, which leaves the controller most of a period. The first bit is there 4 cycles
    after ``cs_n`` falls. A transaction may end after any byte: the stream goes on in the next one.
    A byte that it cuts short is dropped if it came in, and sent again if it went out.

    Members
    -------
    pins : In(SPI_PINS)
        Asynchronous.
    i : In(stream of 8 bits)
        To the controller. Ready for one cycle when a byte is taken, at most every 48 cycles.
    o : Out(stream of 8 bits)
        From the controller. Always ready: whoever takes the bytes must be faster than the line.
        ``payload`` holds until the next one, 48 cycles at least.
    framing_error : Out(1)
        High for one cycle when ``cs_n`` rises within a byte.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "pins": In(SPI_PINS),
                "i": In(stream.Signature(8)),
                "o": Out(stream.Signature(8, always_ready=True)),
                "framing_error": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        cs_n, clk, copi = Signal(init=1), Signal(), Signal()
        for name, level in (("cs_n", cs_n), ("clk", clk), ("copi", copi)):
            m.submodules[name] = FFSynchronizer(
                getattr(self.pins, name), level, init=level.init, stages=2
            )
        before, rise, byte_in = Signal(init=1), Signal(), Signal()
        place = Signal(3)
        m.d.sync += before.eq(clk)
        m.d.comb += [
            self.pins.selected.eq(~cs_n),
            rise.eq(clk & ~before),  # those of other transactions find `place` at 0
            byte_in.eq(rise & place.all()),
        ]
        m.d.sync += self.framing_error.eq(cs_n & (place != 0))
        with m.If(cs_n):
            m.d.sync += place.eq(0)
        with m.Elif(rise):
            m.d.sync += place.eq(place + 1)
        self._take(m, rise, byte_in, copi)
        self._give(m, byte_in, place, cs_n)
        return m

    def _take(self, m: Module, rise: Signal, whole: Signal, copi: Signal) -> None:
        """Bits into bytes, and these out of their stuffing."""
        shift, there, escaped = Signal(8), Signal(), Signal()
        with m.If(rise):
            m.d.sync += shift.eq(Cat(copi, shift)[:8])
        m.d.sync += [there.eq(whole), self.o.valid.eq(0)]
        with m.If(there & (shift != FILL)):
            m.d.sync += [
                escaped.eq((shift == ESCAPE) & ~escaped),
                self.o.valid.eq((shift != ESCAPE) | escaped),
                self.o.payload.eq(Mux(escaped, shift ^ FLIP, shift)),
            ]
        with m.If(self.framing_error):
            m.d.sync += escaped.eq(0)

    def _give(self, m: Module, whole: Signal, place: Signal, cs_n: Signal) -> None:
        """The byte on the line: once it is sent, or while it is fill that nobody reads, another."""
        octet, filled, second = Signal(8, init=FILL), Signal(init=1), Signal()
        turn, special = Signal(), Signal()
        m.d.comb += [
            turn.eq(whole | (filled & cs_n)),
            special.eq((self.i.payload == FILL) | (self.i.payload == ESCAPE)),
            self.i.ready.eq(turn & (~special | second)),
        ]
        m.d.sync += self.pins.cipo.eq(Array(octet[::-1])[place])
        with m.If(turn):
            m.d.sync += [octet.eq(FILL), filled.eq(~self.i.valid)]
            with m.If(self.i.valid):
                m.d.sync += [
                    second.eq(special & ~second),
                    octet.eq(Mux(special, Mux(second, self.i.payload ^ FLIP, ESCAPE),
                                 self.i.payload)),
                ]  # fmt: skip
