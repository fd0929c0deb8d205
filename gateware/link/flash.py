"""Reads bytes out of a board's SPI flash."""

from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["FLASH_PINS", "WAKE_SECONDS", "FlashReader"]

WAKE_SECONDS = 50e-6  # tRES1 is 3 us of a W25Q128JV and 30 us of the slowest
_WAKE, _READ = 0xAB, 0x03

FLASH_PINS = wiring.Signature(
    {"cs_n": Out(1, init=1), "clk": Out(1), "copi": Out(1), "cipo": In(1)}
)
"""SPI in mode 0, seen from the FPGA."""


class FlashReader(wiring.Component):
    """Wakes the flash up, which configuration leaves in deep power-down, and reads on and on.

    The SPI clock is a quarter of the circuit's. Data are sampled when the clock falls, almost a
    whole SPI clock after they were asked for. A byte takes 32 cycles; nothing can stall it.

    Parameters
    ----------
    offset : int
        Address of the first byte.
    wake_clocks : int
        Pause before and after the flash is woken up, cycles (the next power of two).

    Members
    -------
    start, stop : In(1)
        Strobes: read from ``offset`` on, from the beginning if it reads already; end it.
    o : Out(stream of 8 bits), always ready
    pins : Out(`FLASH_PINS`)
        From registers.
    """

    def __init__(self, offset: int, wake_clocks: int) -> None:
        if not 0 <= offset < 1 << 24:
            raise ValueError(f"Flash offset must have 24 bits, not {offset:#x}")
        self._commands = _WAKE << 24, _READ << 24 | offset
        self._pause_bits = max(4, (wake_clocks - 1).bit_length())
        super().__init__(
            {
                "start": In(1),
                "stop": In(1),
                "o": Out(stream.Signature(8, always_ready=True)),
                "pins": Out(FLASH_PINS),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        # Pause, wake, pause, command, then data: one flip-flop each.
        before, wake, after, command, read = (Signal() for _ in range(5))
        pause = Signal(self._pause_bits + 1)
        phase, count, first = Signal(2), Signal(5), Signal()
        turn, shifts = Signal(), Signal()
        over = pause[-1]
        woken, asked = Signal(), Signal()
        texts = [Array(Const(text, 32)[31 - i] for i in range(32)) for text in self._commands]
        cipo, byte = Signal(), Signal(8)
        shifts = phase == 1
        m.d.comb += [
            turn.eq(phase == 0),
            woken.eq(wake & shifts & count[3]),
            asked.eq(command & shifts & count.all()),
            self.o.payload.eq(byte),
        ]
        m.d.sync += [
            self.pins.clk.eq(phase[1] & (wake | command | read)),
            self.pins.cs_n.eq(~(wake | command | read)),
            cipo.eq(self.pins.cipo),
            self.o.valid.eq(read & shifts & (count[:3] == 0) & ~first),
        ]
        with m.If(self.start | self.stop):
            m.d.sync += [s.eq(0) for s in (wake, after, command, read)]
            m.d.sync += before.eq(self.start)
        with m.Else():
            m.d.sync += [
                before.eq(before & ~over),
                wake.eq((before & over) | (wake & ~woken)),
                after.eq(woken | (after & ~over)),
                command.eq((after & over) | (command & ~asked)),
                read.eq(asked | read),
            ]
        with m.If((before | after) & ~over):
            m.d.sync += pause.eq(pause + 1)
        with m.Else():
            m.d.sync += pause.eq(0)
        with m.If(wake | command | read):
            m.d.sync += phase.eq(phase + 1)
        with m.Else():
            m.d.sync += [phase.eq(0), count.eq(0)]
        with m.If(turn):
            m.d.sync += self.pins.copi.eq((wake & texts[0][count]) | (command & texts[1][count]))
        with m.If(shifts):
            m.d.sync += [count.eq(count + 1), byte.eq(Cat(cipo, byte[:-1])), first.eq(~read)]
        return m
