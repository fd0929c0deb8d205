"""Converters of the width of streams."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring

from gateware.arith.activation import stream_ports
from pvq_hw.engine.units import WidthConverter

__all__ = ["ConverterUnit", "Gatherer"]


class ConverterUnit(wiring.Component):
    """Gives a transfer in parts, the first activations first, or puts parts together to one.

    A part is offered in the cycle after its transfer, a transfer in the cycle after its last part;
    no cycle is lost: while the last part leaves, the next transfer is taken, and while a transfer
    leaves, the next one's first part.

    Parameters
    ----------
    spec : WidthConverter

    Members
    -------
    i : stream of ``spec.taken`` activations
    o : stream of ``spec.given`` activations
    """

    def __init__(self, spec: WidthConverter) -> None:
        self.spec = spec
        super().__init__(stream_ports(spec.x, spec.x, spec.taken, spec.given))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        part = spec.x.bits * min(spec.taken, spec.given)
        kept = Signal(spec.x.bits * max(spec.taken, spec.given), reset_less=True)
        take, leave, full = Signal(), Signal(), Signal()
        place, at_end = Signal(range(spec.parts)), Signal()
        narrows = spec.taken > spec.given
        leaves: Value = self.o.ready & at_end if narrows else self.o.ready
        m.d.comb += [
            take.eq(self.i.valid & self.i.ready),
            leave.eq(full & self.o.ready),
            at_end.eq(place == spec.parts - 1),
            self.i.ready.eq(~full | leaves),
            self.o.valid.eq(full),
            self.o.payload.eq(kept[:part] if narrows else kept),
        ]
        step = leave if narrows else take
        with m.If(step):
            m.d.sync += place.eq(Mux(at_end, 0, place + 1))
        if narrows:
            m.d.sync += full.eq(take | (full & ~(leave & at_end)))
            with m.If(take):
                m.d.sync += kept.eq(self.i.payload.as_value())
            with m.Elif(leave):
                m.d.sync += kept.eq(kept >> part)
        else:
            m.d.sync += full.eq((take & at_end) | (full & ~leave))
            with m.If(take):
                m.d.sync += kept.eq(Cat(kept, self.i.payload.as_value())[part:])
        return m


class Gatherer(wiring.Component):
    """Puts parts together to a transfer as a `ConverterUnit` does, without a path from what takes
    it to what gives them.

    No part is taken while a transfer waits, which is offered two cycles after its last part. All of
    its registers hang on one flip-flop, however many they are.

    Parameters
    ----------
    spec : WidthConverter
        Of fewer activations taken than given.

    Members
    -------
    i : stream of ``spec.taken`` activations
    o : stream of ``spec.given`` activations
    """

    def __init__(self, spec: WidthConverter) -> None:
        self.spec = spec
        super().__init__(stream_ports(spec.x, spec.x, spec.taken, spec.given))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        part = Signal(spec.x.bits * spec.taken, reset_less=True)
        kept = Signal(spec.x.bits * spec.given, reset_less=True)
        place, at_end = Signal(range(spec.parts)), Signal()
        ready, moves, whole, full = Signal(init=1), Signal(), Signal(), Signal()
        take = self.i.valid & ready
        m.d.comb += [
            at_end.eq(place == spec.parts - 1),
            self.i.ready.eq(ready),
            self.o.valid.eq(full),
            self.o.payload.eq(kept),
        ]
        m.d.sync += [
            ready.eq((ready & ~(take & at_end)) | (full & self.o.ready)),
            moves.eq(take),
            whole.eq(take & at_end),
            full.eq(whole | (full & ~self.o.ready)),
        ]
        with m.If(take):
            m.d.sync += [part.eq(self.i.payload.as_value()), place.eq(Mux(at_end, 0, place + 1))]
        with m.If(moves):
            m.d.sync += kept.eq(Cat(kept, part)[len(part) :])
        return m
