"""Tables: functions of single activations."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring

from gateware.arith.activation import stream_ports
from gateware.device.live import LiveBus
from gateware.device.memory import Rom
from gateware.units.lines import LinesUnit
from gateware.units.queue import add_queue, delayed
from pvq_hw.engine.units import Lookup

__all__ = ["LookupUnit"]


class LookupUnit(wiring.Component):
    """`Lookup.compute` as a circuit: takes an activation a cycle as long as there is a place for
    the result, which is written ``spec.result_delay`` cycles later.

    The tables are constants of the circuit, like the multipliers of sums: exported Verilog holds
    them. Entries on two lines may be added up instead.

    Members
    -------
    i, o : streams of activations

    Attributes
    ----------
    live : LiveBus or None
        Over which tables in block RAM are loaded; set before elaboration.
    """

    live: LiveBus | None = None

    def __init__(self, spec: Lookup, body: str = "behavioral") -> None:
        self.spec, self.body = spec, body
        super().__init__(stream_ports(spec.x, spec.out, spec.width))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        queue, credits = add_queue(
            m, self.o, spec.out, spec.depth, spec.queue_memory, self.body, spec.width
        )
        take = Signal()
        channel = self._channel(m, take)
        values = []
        for lane in range(spec.width):
            x = self.i.payload.as_value().word_select(lane, spec.x.bits)
            values.append(self._value(m, lane, x, channel))
        m.d.comb += [
            self.i.ready.eq(credits.some),
            take.eq(self.i.valid & credits.some),
            credits.claim.eq(take),
        ]
        done = delayed(m, take, spec.latency)
        m.d.comb += [queue.w_en.eq(done), queue.w_data.eq(Cat(*values))]
        return m

    def _value(self, m: Module, lane: int, x: Value, channel: Value) -> Value:
        """The function's value, ``latency`` cycles after its activation."""
        spec = self.spec
        if spec.memory == "lines":
            assert spec.lines is not None
            m.submodules[f"lines{lane or ''}"] = lines = LinesUnit(spec.lines)
            m.d.comb += lines.i.eq(x)
            return lines.o
        name = spec.tables[lane]
        m.submodules[name] = table = Rom(
            f"{spec.name}_{name}",
            spec.out.bits,
            spec.words,
            spec.contents(lane),
            latency=spec.latency,
            kind=spec.memory,
            body="behavioral" if self.body == "verilog" else self.body,
            live=self.live,
        )
        m.d.comb += table.addr.eq(Cat(x, channel))
        return table.data

    def _channel(self, m: Module, take: Value) -> Value:
        """The number of the table, where there are several."""
        tables = self.spec.tables_each
        channel = Signal((tables - 1).bit_length())
        if tables > 1:
            with m.If(take):
                m.d.sync += channel.eq(Mux(channel == tables - 1, 0, channel + 1))
        return channel
