"""Runs a circuit with stream ports in Amaranth's simulator, with the agents of
`sim.agents.streams`."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from amaranth.hdl import Cat, ClockDomain, Module, Value
from amaranth.sim import Simulator, SimulatorContext

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
        self._simulator: Simulator | None = None
        self._done: Callable[[], bool] = bool
        self._pending: set[int] = set()
        self.cycle = 0

    def clear(self) -> None:
        """Takes all agents away: the next run starts from power-on with those attached then, in the
        same circuit, which is elaborated and compiled once."""
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
        if self._simulator is None:
            self._simulator = Simulator(self._module)
            self._simulator.add_clock(1e-6)
            self._simulator.add_testbench(self._testbench)
        else:
            self._simulator.reset()
        self._simulator.run()

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
        ticks = ctx.tick().sample(*self._watched()).__aiter__()
        try:
            while not self._done():
                reset = self.cycle in self._pending
                levels = self._levels(reset)
                if levels != last:
                    ctx.set(driven, levels)
                    last = levels
                _, _, *seen = await anext(ticks)
                if reset:
                    self._reset()
                else:
                    self._clock(seen, watchdog)
                self.cycle += 1
        finally:
            await ticks.aclose()

    def _watched(self) -> list[Value]:
        """Three wires of each monitor, as bits."""
        wires = [
            Value.cast(wire)
            for stream, _ in self.monitors
            for wire in (stream.valid, stream.ready, stream.payload)
        ]
        return [wire.as_unsigned() if wire.shape().signed else wire for wire in wires]

    def _driven(self) -> Value:
        """All wires that the agents drive, and the reset."""
        wires: list[Any] = [self._sync.rst]
        for stream, agent, _ in self._drivers:
            source = isinstance(agent, Source)
            wires += [stream.valid, Value.cast(stream.payload)] if source else [stream.ready]
        return Cat(*wires)

    def _levels(self, reset: bool) -> int:
        """What `_driven` is to carry until the next clock edge."""
        levels, place = int(reset), 1
        for stream, agent, _ in self._drivers:
            if isinstance(agent, Source):
                width = len(Value.cast(stream.payload))
                payload = agent.payload & ((1 << width) - 1)
                levels |= (payload << 1 | agent.valid) << place
                place += 1 + width
            else:
                levels |= agent.ready << place
                place += 1
        return levels

    def _clock(self, levels: list[int], watchdog: Watchdog) -> None:
        moved = False
        seen = {}
        for index, (_, monitor) in enumerate(self.monitors):
            valid, ready, payload = levels[3 * index : 3 * index + 3]
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
