"""A part of every frame: one of several inputs of a network, or a slice of an axis."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from gateware.arith.activation import activation_layout
from pvq_hw.engine.units import Pick

__all__ = ["PickUnit"]


class PickUnit(wiring.Component):
    """Passes the activations ``spec.start`` to ``spec.start + spec.count - 1`` of every
    ``spec.period`` on and takes the others at once. No latency, no storage.

    Members
    -------
    i, o : streams of activations
    """

    def __init__(self, spec: Pick) -> None:
        self.spec = spec
        signature = stream.Signature(activation_layout(spec.x, 1))
        super().__init__({"i": In(signature), "o": Out(signature)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        place = Signal(range(max(2, spec.period)))
        inside = (place >= spec.start) & (place < spec.start + spec.count)
        m.d.comb += [
            self.o.payload.eq(self.i.payload),
            self.o.valid.eq(self.i.valid & inside),
            self.i.ready.eq(self.o.ready | ~inside),
        ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += place.eq(Mux(place == spec.period - 1, 0, place + 1))
        return m
