"""``clamp((sum_i a_i * mult_i + half) >> shift)`` of poolings and joins."""

from amaranth.hdl import Const, Module, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from gateware.arith.multiplier import DspMultiplier
from gateware.arith.requantizer import Saturate
from pvq_hw.engine.units import Scale

__all__ = ["Scaler"]


class Scaler(wiring.Component):
    """One result a cycle, ``spec.delay`` cycles after its operands; never stalls, no reset.

    Parameters
    ----------
    spec : Scale
    products : int
        Products of a sum.

    Members
    -------
    a : signed operands
    mult : unsigned multipliers
    o : the activation's bits
    """

    def __init__(self, spec: Scale, products: int = 1, body: str = "behavioral") -> None:
        self.spec, self.products = spec, products
        logic = not spec.multiplies.blocks and body != "verilog"
        self.body = "behavioral" if logic else body
        super().__init__(
            {
                "a": In(data.ArrayLayout(signed(spec.acc_bits), products)),
                "mult": In(data.ArrayLayout(spec.mult_bits, products)),
                "o": Out(spec.out.bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        total: Value = Const(1 << (spec.shift - 1))
        for k in range(self.products):
            multiplier = DspMultiplier(spec.acc_bits, spec.mult_bits, spec.size, self.body)
            m.submodules[f"multiplier{k}"] = multiplier
            m.d.comb += [multiplier.a.eq(self.a[k]), multiplier.b.eq(self.mult[k])]
            total = total + multiplier.product
        m.submodules.saturate = saturate = Saturate(spec)
        rounded = Signal(signed(spec.sum_bits), reset_less=True)
        m.d.sync += rounded.eq(total)
        m.d.comb += [saturate.i.eq(rounded[spec.shift :]), self.o.eq(saturate.o)]
        return m
