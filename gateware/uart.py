"""Serial receiver and transmitter: 8 data bits, no parity, 1 stop bit, low bit first."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

from pvq_hw.baud import BaudTiming

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

        # The timer is due when it has gone below 0: its sign needs no comparison.
        timer = Signal(range(-1, self._divisor))
        due = Signal()
        bits = Signal(3)
        m.d.comb += due.eq(timer[-1])
        m.d.sync += timer.eq(timer - 1)
        with m.If(due):
            m.d.sync += timer.eq(self._divisor - 2)
        m.d.sync += [self.o.valid.eq(0), self.framing_error.eq(0)]

        with m.FSM():
            with m.State("IDLE"):
                # The middle of the start bit is half a bit away from here.
                m.d.sync += [timer.eq(self._divisor // 2 - 2), bits.eq(0)]
                with m.If(~rx):
                    m.next = "START"
            with m.State("START"), m.If(due):
                with m.If(rx):
                    m.next = "IDLE"
                with m.Else():
                    m.next = "DATA"
            with m.State("DATA"), m.If(due):
                m.d.sync += [self.o.payload.eq(Cat(self.o.payload[1:], rx)), bits.eq(bits + 1)]
                with m.If(bits == 7):
                    m.next = "STOP"
            with m.State("STOP"), m.If(due):
                m.d.sync += [self.o.valid.eq(rx), self.framing_error.eq(~rx)]
                m.next = "HIGH"
                with m.If(rx):
                    m.next = "IDLE"
            with m.State("HIGH"), m.If(rx):
                m.next = "IDLE"
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
        # Below 0 when a bit is over, as in the receiver.
        timer = Signal(range(-1, self._divisor), init=-1)
        bits = Signal(range(10))
        shift = Signal(9)
        with m.If(~timer[-1]):
            m.d.sync += timer.eq(timer - 1)
        with m.Elif(bits != 0):
            m.d.sync += [
                Cat(self.tx, shift).eq(Cat(shift, Const(1, 1))),
                timer.eq(self._divisor - 2),
                bits.eq(bits - 1),
            ]
        with m.Else():
            m.d.comb += self.i.ready.eq(1)
            with m.If(self.i.valid):
                m.d.sync += [
                    Cat(self.tx, shift).eq(Cat(Const(0, 1), self.i.payload, Const(1, 1))),
                    timer.eq(self._divisor - 2),
                    bits.eq(9),
                ]
        return m
