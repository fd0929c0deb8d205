"""Functions that are two lines through 0: shifted additions in place of a table."""

from amaranth.hdl import Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from gateware.arith.requantizer import Saturate
from gateware.units.queue import delayed
from pvq_hw.engine.adder_graph import signed_digits
from pvq_hw.engine.lines import LINES_DELAY, Lines

__all__ = ["LinesUnit"]

_LEVELS = LINES_DELAY - 2  # of adders


class LinesUnit(wiring.Component):
    """`Lines.compute` of an activation a cycle, `LINES_DELAY` cycles later; never stalls.

    Members
    -------
    i, o : the activation's bits, and its value's
    """

    def __init__(self, spec: Lines) -> None:
        self.spec = spec
        super().__init__({"i": In(spec.x.bits), "o": Out(spec.out.bits)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        x = self.i.as_signed() if spec.x.signed else self.i
        below, above = (self._product(m, x, slope) for slope in (spec.below, spec.above))
        negative = Signal()
        m.d.comb += negative.eq(self.i[-1] if spec.x.signed else 0)
        rounded = Signal(signed(spec.sum_bits), reset_less=True)
        half = Const(1 << spec.shift - 1)
        m.d.sync += rounded.eq(Mux(delayed(m, negative, _LEVELS), below, above) + half)
        m.submodules.saturate = saturate = Saturate(spec)
        m.d.comb += [saturate.i.eq(rounded[spec.shift :]), self.o.eq(saturate.o)]
        return m

    def _product(self, m: Module, x: Value, slope: int) -> Value:
        """``x * slope``, as many cycles later as there are levels."""
        terms: list[Value] = [
            (x << shift) if sign > 0 else -(x << shift) for shift, sign in signed_digits(slope)
        ]
        terms += [Const(0)] * ((1 << _LEVELS) - len(terms))
        for _ in range(_LEVELS):
            pairs = list(zip(terms[::2], terms[1::2], strict=True))
            terms = [Signal(signed(self.spec.sum_bits), reset_less=True) for _ in pairs]
            m.d.sync += [s.eq(a + b) for s, (a, b) in zip(terms, pairs, strict=True)]
        return terms[0]
