"""A decision on pins, for LEDs or for other chips."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["DecisionPins"]


class DecisionPins(wiring.Component):
    """Holds a frame's decision until that of the next one; all pins change in one cycle, the one
    after the transfer that tells the last of them. They are 0 before the first.

    Parameters
    ----------
    bits : int
        Of a value.
    count : int
        Values of a frame.
    pins : int
    place : bool
        Whether the first value is a place, whose low bits are shown; else the lowest bit of each
        value has a pin, as far as there are pins.

    Members
    -------
    value, moved : In
        What is transferred, and whether it is.
    pins : Out
    """

    def __init__(self, bits: int, count: int, pins: int, place: bool) -> None:
        self._count, self._place = count, place
        super().__init__({"value": In(bits), "moved": In(1), "pins": Out(pins)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        index = Signal(range(max(2, self._count)))
        with m.If(self.moved):
            with m.If(index == self._count - 1):
                m.d.sync += index.eq(0)
            with m.Else():
                m.d.sync += index.eq(index + 1)
        if self._place:
            with m.If(self.moved & (index == 0)):
                m.d.sync += self.pins.eq(self.value)
            return m
        shown = min(self._count, len(self.pins))
        kept, seen = Signal(shown), Signal(shown)
        m.d.comb += seen.eq(kept)
        m.d.sync += kept.eq(seen)
        for k in range(shown):
            with m.If(self.moved & (index == k)):
                m.d.comb += seen[k].eq(self.value[0])
        with m.If(self.moved & (index == shown - 1)):
            m.d.sync += self.pins.eq(seen)
        return m
