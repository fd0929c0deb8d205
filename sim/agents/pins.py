"""Simulates a board's top from serial pin to serial pin."""

from collections.abc import Callable
from typing import Any

from amaranth.sim import Simulator, SimulatorContext

from sim.agents.serial_line import SerialLine
from sim.agents.spi_flash import SpiFlash
from sim.agents.streams import StreamError

__all__ = ["PinSimulation"]


class PinSimulation:
    """Amaranth's simulator around a `gateware.link.top.Top`, with a `SerialLine` at its pins.

    Parameters
    ----------
    top : Top
    line : SerialLine, optional
        By default one at exactly the top's rate.
    limit : int
        Cycles after which `run` gives up.
    flash : SpiFlash, optional
        At the pins of a top that loads its codes.

    Attributes
    ----------
    line : SerialLine
    cycle : int
    """

    def __init__(
        self,
        top: Any,
        line: SerialLine | None = None,
        limit: int = 1_000_000,
        flash: SpiFlash | None = None,
    ) -> None:
        self._top = top
        self._flash = flash
        self._limit = limit
        self.line = line or SerialLine(top.timing.divisor)
        self.cycle = 0

    def run(self, each_cycle: Callable[[], bool], resets: frozenset[int] = frozenset()) -> None:
        """Simulates from reset until ``each_cycle()``, called before every clock edge, says so.

        ``resets`` are cycles with the reset on. Raises `StreamError` at the limit of cycles.
        """
        from amaranth.hdl import Cat, ClockDomain, Module

        module = Module()
        module.domains.sync = sync = ClockDomain("sync")
        module.submodules.top = self._top
        simulator = Simulator(module)
        simulator.add_clock(1e-6)

        async def testbench(ctx: SimulatorContext) -> None:
            pins = self._top.flash if self._flash is not None else None
            chip = [] if pins is None else [pins.cs_n, pins.clk, pins.copi]
            # As in `sim.agents.bench`: all wires at once, only where one changes, with one trigger.
            driven = Cat(sync.rst, self._top.rx, *([] if pins is None else [pins.cipo]))
            last = 0
            ticks = ctx.tick().sample(self._top.tx, *chip).__aiter__()
            try:
                while not each_cycle():
                    levels = int(self.cycle in resets) | self.line.level << 1
                    if self._flash is not None:
                        levels |= self._flash.level << 2
                    if levels != last:
                        ctx.set(driven, levels)
                        last = levels
                    _, _, tx, *seen = await anext(ticks)
                    self.line.clock(tx)
                    if self._flash is not None:
                        self._flash.clock(*seen)
                    self.cycle += 1
                    if self.cycle > self._limit:
                        raise StreamError(f"The pins were not done within {self._limit:,} cycles")
            finally:
                await ticks.aclose()

        simulator.add_testbench(testbench)
        simulator.run()

    def exchange(self, requests: bytes, replies: int) -> bytes:
        """Sends bytes and waits for so many bytes of replies."""
        self.line.send(requests)
        self.run(lambda: self.line.empty and len(self.line.received) >= replies)
        return bytes(self.line.received)
