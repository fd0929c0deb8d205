"""Runs a circuit with stream ports in Amaranth's simulator, with the agents of
`sim.agents.streams`."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from amaranth.hdl import Cat, ClockDomain, Module, Signal, Value
from amaranth.sim import Simulator, SimulatorContext

from sim.agents.spi_flash import SpiFlash, seen_pins
from sim.agents.streams import Monitor, Sink, Source, Watchdog

__all__ = ["Bench"]


class Bench:
    """Drives and observes the streams of one circuit in the ``sync`` domain.

    Every attached stream is monitored and checked. Cycles count from 0 at the first clock edge
    after reset.

    Parameters
    ----------
    dut : Elaboratable
    quiet : int
        Cycles without any transfer after which the watchdog raises
        `sim.agents.streams.StreamError`.
    """

    def __init__(self, dut: Any, quiet: int = 10_000) -> None:
        self._module = Module()
        self._module.domains.sync = self._sync = ClockDomain("sync")
        self._module.submodules.dut = dut
        self._drivers: list[tuple[Any, Source | Sink, Monitor]] = []
        self.monitors: list[tuple[Any, Monitor]] = []
        self._quiet = quiet
        self._port: Any = None
        self._writes: Sequence[tuple[int, int]] = ()
        self._pins: Any = None
        self._flash: Callable[[], SpiFlash] | None = None
        self._simulator: Simulator | None = None
        self._streams: list[Any] = []
        self._seen = Signal(0)
        self._done: Callable[[], bool] = bool
        self._pending: set[int] = set()
        self.cycle = 0

    def clear(self) -> None:
        """Takes all agents away: the next run starts from power-on with those attached then, in the
        same circuit, which is elaborated and compiled once; they must be at the same streams."""
        self._drivers.clear()
        self.monitors.clear()
        self.cycle = 0

    def source(self, stream: Any, agent: Source, name: str = "i") -> Monitor:
        """Attaches a source to an input stream of the circuit; gives its monitor."""
        return self._attach(stream, agent, name)

    def sink(self, stream: Any, agent: Sink, name: str = "o") -> Monitor:
        """Attaches a sink to an output stream of the circuit; gives its monitor."""
        return self._attach(stream, agent, name)

    def monitor(self, stream: Any, name: str) -> Monitor:
        """Watches any stream, inside the circuit too."""
        monitor = Monitor(name)
        self.monitors.append((stream, monitor))
        return monitor

    def load(self, port: Any, writes: Sequence[tuple[int, int]]) -> None:
        """Has words written through a `gateware.device.spram.CODE_PORT` before cycle 0."""
        self._port, self._writes = port, writes

    def flash(self, pins: Any, make: Callable[[], SpiFlash]) -> None:
        """Attaches a flash to `gateware.link.flash.flash_pins`: a fresh one for every run."""
        self._pins, self._flash = pins, make

    def _attach(self, stream: Any, agent: Source | Sink, name: str) -> Monitor:
        monitor = self.monitor(stream, name)
        self._drivers.append((stream, agent, monitor))
        return monitor

    def _state(self) -> str:
        seen = (f"{m.name} {len(m.payloads)}" for _, m in self.monitors)
        return f"transfers so far: {', '.join(seen)}"

    def run(self, done: Callable[[], bool], resets: Iterable[int] = ()) -> None:
        """Simulates until ``done()`` holds after a clock edge.

        ``resets`` are cycles that end with a reset: what is in flight is lost, the monitors
        forget what they saw, and the sources start again with their first payload.
        """
        self._done, self._pending = done, set(resets)
        streams = [stream for stream, _ in self.monitors]
        if self._simulator is None:
            self._simulator, self._streams = self._compiled(), streams
        else:
            assert all(a is b for a, b in zip(streams, self._streams, strict=True))
            self._simulator.reset()
        self._simulator.run()

    def _compiled(self) -> Simulator:
        """The simulator, with a register of what all monitors see at a clock edge: one value to
        ask for in each cycle, since asking takes longer than computing it."""
        wires = [
            Value.cast(wire)
            for stream, _ in self.monitors
            for wire in (stream.valid, stream.ready, stream.payload)
        ]
        self._seen = Signal(sum(map(len, wires)), reset_less=True)
        self._module.d.sync += self._seen.eq(Cat(*wires))
        simulator = Simulator(self._module)
        simulator.add_clock(1e-6)
        if self._flash is not None:
            simulator.add_testbench(self._answer, background=True)
        simulator.add_testbench(self._testbench)
        return simulator

    async def _testbench(self, ctx: SimulatorContext) -> None:
        watchdog = Watchdog(self._quiet, self._state)
        for address, word in self._writes:
            ctx.set(self._port.load, 1)
            ctx.set(self._port.w_en, 1)
            ctx.set(self._port.addr, address)
            ctx.set(self._port.w_data, word)
            await ctx.tick()
        if self._writes:
            ctx.set(self._port.load, 0)
            ctx.set(self._port.w_en, 0)
        # Every change of a wire makes the simulator settle the whole circuit, so that all are
        # set at once and only where one changes; one trigger serves for all cycles.
        driven, last = self._driven(), 0
        widths = {id(stream): len(Value.cast(stream.payload)) for stream in self._streams}
        taken = [(monitor, widths[id(stream)]) for stream, monitor in self.monitors]
        given = [(agent, widths[id(stream)]) for stream, agent, _ in self._drivers]
        ticks = ctx.tick().__aiter__()
        try:
            while not self._done():
                reset = self.cycle in self._pending
                levels = self._levels(given, reset)
                if levels != last:
                    ctx.set(driven, levels)
                    last = levels
                await anext(ticks)
                if reset:
                    self._reset()
                else:
                    self._clock(taken, ctx.get(self._seen), watchdog)
                self.cycle += 1
        finally:
            await ticks.aclose()

    async def _answer(self, ctx: SimulatorContext) -> None:
        """The flash at its pins."""
        assert self._flash is not None
        chip, pins = self._flash(), self._pins
        wires = Cat(seen_pins(pins))
        level = chip.level
        ctx.set(pins.cipo, level)
        async for *_, levels in ctx.tick().sample(wires):
            chip.clock(*(levels >> k & 1 for k in range(len(wires))))
            if chip.level != level:
                level = chip.level
                ctx.set(pins.cipo, level)

    def _driven(self) -> Value:
        """All wires that the agents drive, and the reset."""
        wires: list[Any] = [self._sync.rst]
        for stream, agent, _ in self._drivers:
            source = isinstance(agent, Source)
            wires += [stream.valid, Value.cast(stream.payload)] if source else [stream.ready]
        return Cat(*wires)

    def _levels(self, given: list[tuple[Source | Sink, int]], reset: bool) -> int:
        """What `_driven` is to carry until the next clock edge; each agent's payload is so wide."""
        levels, place = int(reset), 1
        for agent, width in given:
            if isinstance(agent, Source):
                payload = agent.payload & ((1 << width) - 1)
                levels |= (payload << 1 | agent.valid) << place
                place += 1 + width
            else:
                levels |= agent.ready << place
                place += 1
        return levels

    def _clock(self, taken: list[tuple[Monitor, int]], levels: int, watchdog: Watchdog) -> None:
        """Tells all agents what was on the wires; each monitor's payload is so wide."""
        moved = False
        seen = {}
        for monitor, width in taken:
            valid, ready, payload = levels & 1, levels >> 1 & 1, levels >> 2 & ((1 << width) - 1)
            levels >>= 2 + width
            seen[id(monitor)] = (valid, ready)
            moved |= monitor.clock(self.cycle, valid, ready, payload)
        for _, agent, monitor in self._drivers:
            valid, ready = seen[id(monitor)]
            agent.clock(ready if isinstance(agent, Source) else valid)
        watchdog.clock(moved)

    def _reset(self) -> None:
        for _, monitor in self.monitors:
            monitor.reset()
        for _, agent, _ in self._drivers:
            if isinstance(agent, Source):
                agent.reset()
