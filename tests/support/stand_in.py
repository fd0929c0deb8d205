"""A small accelerator for tests of the host link: any numbers, any delay."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from gateware.link.frames import stream_of
from gateware.link.top import Top
from pvq_hw.arith.formats import IntFormat
from pvq_hw.host.protocol import Description, WireFormat

U8, S8, S16 = IntFormat(8, False), IntFormat(8, True), IntFormat(16, True)
IDENTITY = bytes.fromhex("0123456789abcdef")


SMALL_INPUT, SMALL_OUTPUT = WireFormat(6, U8), WireFormat(3, S16)


class StandIn(wiring.Component):
    """Takes a frame, waits, gives ``output.count`` values that depend on the whole frame.

    Output j is ``x[j mod N] * 37 + sum(x) + 11 j``, wrapped into the output's format. It takes no
    frame while it computes or gives one.
    """

    def __init__(self, x: WireFormat, out: WireFormat, wait: int = 3) -> None:
        self.x, self.out, self.wait = x, out, wait
        super().__init__({"i": In(stream_of(x)), "o": Out(stream_of(out))})

    def compute(self, x):
        """int64 (N,) -> int64 (outputs,)."""
        x = [-(int(v) < 0) if self.x.format.binary else int(v) for v in x]
        size = 1 << self.out.format.bits
        values = [(x[j % len(x)] * 37 + sum(x) + 11 * j) % size for j in range(self.out.count)]
        if self.out.format.binary:
            return [1 - 2 * v for v in values]
        return [v - size if self.out.format.signed and v >= size // 2 else v for v in values]

    def elaborate(self, platform):
        m = Module()
        n, count = self.x.count, self.out.count
        m.submodules.frame = frame = Memory(shape=self.x.format.bits, depth=n, init=[])
        write, read = frame.write_port(), frame.read_port(domain="comb")
        place = Signal(range(max(n, count, self.wait) + 1))
        column = Signal(range(n + 1))
        total = Signal(40)
        value = Signal(self.i.payload[0].shape())
        m.d.comb += [
            write.addr.eq(place),
            write.data.eq(self.i.payload[0]),
            read.addr.eq(column),
            value.eq(read.data),
            self.o.payload[0].eq(value * 37 + total + place * 11),
        ]
        with m.FSM():
            with m.State("LOAD"):
                m.d.comb += [self.i.ready.eq(1), write.en.eq(self.i.valid)]
                with m.If(self.i.valid):
                    m.d.sync += [place.eq(place + 1), total.eq(total + self.i.payload[0])]
                    with m.If(place == n - 1):
                        m.d.sync += place.eq(0)
                        m.next = "WAIT"
            with m.State("WAIT"):
                m.d.sync += place.eq(place + 1)
                with m.If(place == self.wait):
                    m.d.sync += [place.eq(0), column.eq(0)]
                    m.next = "GIVE"
            with m.State("GIVE"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.d.sync += [place.eq(place + 1), column.eq(column + 1)]
                    with m.If(column == n - 1):
                        m.d.sync += column.eq(0)
                    with m.If(place == count - 1):
                        m.d.sync += [place.eq(0), total.eq(0)]
                        m.next = "LOAD"
        return m


class Through(StandIn):
    """Gives its inputs as outputs, with no logic that could be slow."""

    def compute(self, x):
        return list(x)

    def elaborate(self, platform):
        m = Module()
        m.d.comb += [
            self.o.valid.eq(self.i.valid),
            self.i.ready.eq(self.o.ready),
            self.o.payload[0].eq(self.i.payload[0]),
        ]
        return m


def small_top(
    x: WireFormat = SMALL_INPUT,
    out: WireFormat = SMALL_OUTPUT,
    *,
    divisor: int = 4,
    wait: int = 3,
    window: int = 4,
    idle_clocks: int = 512,
    kind: type[StandIn] = StandIn,
    stored: bool = False,
    link: str = "uart",
) -> Top:
    """A top with a `StandIn` and few clocks a bit."""
    description = Description(x, out, divisor * 1_000_000, 1_000_000, window, IDENTITY)
    return Top(kind(x, out, wait), description, idle_clocks, stored=stored, link=link)
