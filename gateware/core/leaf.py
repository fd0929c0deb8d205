"""Leaf of the adder tree: an activation becomes +x, ~x or 0, shifted by the pulse's weight."""

from amaranth.hdl import Cat, Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from pvq_hw.arith.formats import IntFormat

__all__ = ["Leaf"]


class Leaf(wiring.Component):
    """``value = ((x & nonzero) ^ negative) << shift``, registered.

    A negative pulse gives ``~x = -x - 1``: no carry chain and no sign multiplexer. What is
    missing, ``2**shift`` per negative pulse, is a constant of the row. Binary activations (1
    stands for -1, 0 for +1) are negated exactly. An idle lane gives 0.

    Latency 1 cycle, 2 with shifts. One value a cycle.

    Parameters
    ----------
    x : IntFormat
    shift_bits : int
    """

    def __init__(self, x: IntFormat, shift_bits: int = 0) -> None:
        self.format, self.shift_bits = x, shift_bits
        extra = int(not x.signed or x.binary)
        self.base_bits = x.bits + extra
        self.bits = self.base_bits + (1 << shift_bits) - 1
        super().__init__(
            {
                "x": In(x.bits),
                "nonzero": In(1),
                "negative": In(1),
                "shift": In(shift_bits),
                "value": Out(signed(self.bits)),
            }
        )

    @property
    def delay(self) -> int:
        """Cycles from operands to value."""
        return 2 if self.shift_bits else 1

    def elaborate(self, platform: object) -> Module:
        m = Module()
        unit = Signal(signed(self.base_bits), reset_less=True)
        if self.format.binary:
            minus = (self.x ^ self.negative) & self.nonzero
            m.d.sync += unit.eq(Cat(self.nonzero, minus))
        else:
            bits = (self.x & self.nonzero.replicate(len(self.x))) ^ self.negative.replicate(
                len(self.x)
            )
            m.d.sync += unit.eq(bits if self.format.signed else Cat(bits, self.negative))
        if not self.shift_bits:
            m.d.comb += self.value.eq(unit)
            return m
        shift = Signal(self.shift_bits, reset_less=True)
        shifted = Signal(signed(self.bits), reset_less=True)
        m.d.sync += [shift.eq(self.shift), shifted.eq(unit << shift)]
        m.d.comb += self.value.eq(shifted)
        return m
