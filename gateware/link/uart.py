"""Serial receiver and transmitter: 8 data bits, no parity, 1 stop bit, low bit first."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

from pvq_hw.target.baud import BaudTiming

__all__ = ["UartReceiver", "UartTransmitter"]


class UartReceiver(wiring.Component):
    """Bytes from a serial line.

    The line passes two flip-flops. A start bit shorter than half a bit is taken for a glitch; every
    bit is sampled once, in its middle, to a clock. A byte leaves in the middle of its stop bit, so
    that the other end may be 4 % faster or slower at 16 clocks a bit, 2 % at 4.

    Parameters
    ----------
    timing : BaudTiming

    Members
    -------
    rx : In(1)
        The line, high when idle; asynchronous.
    o : Out(stream of 8 bits)
        Always ready: whoever takes the bytes must be faster than the line.
    framing_error : Out(1)
        High for one cycle when a stop bit is low; the byte is dropped and the line must go high
        before the next one.
    """

    def __init__(self, timing: BaudTiming) -> None:
        self._divisor = timing.divisor
        super().__init__(
            {
                "rx": In(1, init=1),
                "o": Out(stream.Signature(8, always_ready=True)),
                "framing_error": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        rx = Signal(init=1)
        m.submodules.synchronizer = FFSynchronizer(self.rx, rx, init=1, stages=2)

        # Clocks since the last sample; only ever cleared, which costs a counter nothing.
        timer = Signal(range(self._divisor))
        due, half = Signal(), Signal()
        bits = Signal(3)
        idle, start, bit, stop, high = (Signal(init=i == 0) for i in range(5))
        m.d.sync += [
            timer.eq(timer + 1),
            due.eq(timer == self._divisor - 2),
            # The middle of the start bit is half a bit away from the line's fall.
            half.eq(start & ~half & (timer == self._divisor // 2 - 2)),
            idle.eq(rx & (idle | high | (start & half) | (stop & due))),
            start.eq((idle & ~rx) | (start & ~half)),
            bit.eq((start & half & ~rx) | (bit & ~(due & bits.all()))),
            stop.eq((bit & due & bits.all()) | (stop & ~due)),
            high.eq(~rx & (high | (stop & due))),
            self.o.valid.eq(stop & due & rx),
            self.framing_error.eq(stop & due & ~rx),
        ]
        with m.If(idle | due | half):
            m.d.sync += timer.eq(0)
        with m.If(idle):
            m.d.sync += bits.eq(0)
        with m.Elif(bit & due):
            m.d.sync += [self.o.payload.eq(Cat(self.o.payload[1:], rx)), bits.eq(bits + 1)]
        return m


class UartTransmitter(wiring.Component):
    """Bytes to a serial line: 10 bit times a byte, back to back while there are bytes.

    Parameters
    ----------
    timing : BaudTiming

    Members
    -------
    i : In(stream of 8 bits)
        Ready for one cycle at the end of each byte, and while idle.
    tx : Out(1)
        The line, from a register.
    """

    def __init__(self, timing: BaudTiming) -> None:
        self._divisor = timing.divisor
        super().__init__({"i": In(stream.Signature(8)), "tx": Out(1, init=1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        timer = Signal(range(self._divisor))
        bits = Signal(range(10))
        shift = Signal(9)
        due, more, act = Signal(init=1), Signal(), Signal()
        m.d.comb += [self.i.ready.eq(due & ~more), act.eq(due & (more | self.i.valid))]
        m.d.sync += [timer.eq(timer + 1), due.eq(due | (timer == self._divisor - 2))]
        with m.If(act):
            m.d.sync += [timer.eq(0), due.eq(0), more.eq(~more | (bits != 1))]
            with m.If(more):
                m.d.sync += [Cat(self.tx, shift).eq(Cat(shift, Const(1, 1))), bits.eq(bits - 1)]
            with m.Else():
                m.d.sync += [
                    Cat(self.tx, shift).eq(Cat(Const(0, 1), self.i.payload, Const(1, 1))),
                    bits.eq(9),
                ]
        return m
