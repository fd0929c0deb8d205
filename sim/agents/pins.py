"""Simulates a board's top from pin to pin."""

from collections.abc import Callable
from typing import Any

from amaranth.sim import Simulator, SimulatorContext

from pvq_hw.choices import SPI
from sim.agents.serial_line import SerialLine
from sim.agents.spi_controller import SpiController
from sim.agents.spi_flash import SpiFlash, seen_pins
from sim.agents.streams import StreamError

__all__ = ["PinSimulation"]


class PinSimulation:
    """Amaranth's simulator around a `gateware.link.top.Top`, with a `SerialLine` at its pins, or an
    `SpiController`.

    Parameters
    ----------
    top : Top
    line : SerialLine or SpiController, optional
        By default one at exactly the top's rate, or the fastest.
    limit : int
        Cycles after which `run` gives up.
    flash : SpiFlash, optional
        At the pins of a top that loads its codes.

    Attributes
    ----------
    line : SerialLine or SpiController
    cycle : int
    """

    def __init__(
        self,
        top: Any,
        line: SerialLine | SpiController | None = None,
        limit: int = 1_000_000,
        flash: SpiFlash | None = None,
    ) -> None:
        self._top = top
        self._flash = flash
        self._limit = limit
        if line is None:
            line = SpiController() if top.link == SPI else SerialLine(top.timing.divisor)
        self.line: Any = line
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
            chip = [] if pins is None else seen_pins(pins)
            # As in `sim.agents.bench`: all wires at once, only where one changes, with one trigger.
            taken, given = self._wires()
            flash_bit = 1 + len(Cat(*taken))
            driven = Cat(sync.rst, *taken, *([] if pins is None else [pins.cipo]))
            last = 0
            ticks = ctx.tick().sample(given, *chip).__aiter__()
            try:
                while not each_cycle():
                    levels = int(self.cycle in resets) | self.line.level << 1
                    if self._flash is not None:
                        levels |= self._flash.level << flash_bit
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

    def _wires(self) -> tuple[list[Any], Any]:
        """Those that the line drives, and the one that it sees."""
        if self._top.link == SPI:
            spi = self._top.spi
            return [spi.cs_n, spi.clk, spi.copi], spi.cipo
        return [self._top.rx], self._top.tx

    def exchange(self, requests: bytes, replies: int) -> bytes:
        """Sends bytes and waits for so many bytes of replies."""
        self.line.send(requests)
        self.run(lambda: self.line.empty and len(self.line.received) >= replies)
        return bytes(self.line.received)
