"""Lane multipliers of the 8-bit core: P products of a signed weight and an unsigned activation."""

from amaranth.hdl import Cat, ClockSignal, Const, Instance, Module, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from gateware.arith.multiplier import WHOLE, DspMultiplier
from pvq_hw.engine.int8_core import WEIGHT_BITS, Int8Spec
from pvq_hw.registry import ValueFace

__all__ = ["LaneProducts", "dual_multiplier"]


class LaneProducts(wiring.Component):
    """``o[p] = w[p] * x[p]``, ``spec.product_delay`` cycles later, all lanes every cycle.

    No reset: what is under way belongs to words that control has forgotten.

    Parameters
    ----------
    spec : Int8Spec
    body : str
        See `gateware.device.bodies.bodies`.
    """

    def __init__(self, spec: Int8Spec, body: str = "behavioral") -> None:
        self.spec, self.body = spec, body
        super().__init__(
            {
                "w": In(data.ArrayLayout(signed(WEIGHT_BITS), spec.lanes)),
                "x": In(data.ArrayLayout(spec.x.bits, spec.lanes)),
                "o": Out(data.ArrayLayout(signed(spec.product_bits), spec.lanes)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self.spec.products == "mult18":
            self._mult18(m)
        elif self.spec.products == "mac16" and dual_multiplier.has(self.body):
            self._pairs(m)
        else:
            for p in range(self.spec.lanes):
                product = self._rows(m, p) if self.spec.products == "logic" else self._plain(m, p)
                m.d.comb += self.o[p].eq(product)
        return m

    def _mult18(self, m: Module) -> None:
        for p in range(self.spec.lanes):
            lane = DspMultiplier(WEIGHT_BITS, self.spec.x.bits, 18, self.body)
            m.submodules[f"lane{p}"] = lane
            # DSP blocks are a row across the device: the tree has its first registers beside it.
            product = Signal(signed(self.spec.product_bits), name=f"product{p}", reset_less=True)
            m.d.sync += product.eq(lane.product)
            m.d.comb += [lane.a.eq(self.w[p]), lane.b.eq(self.x[p]), self.o[p].eq(product)]

    def _plain(self, m: Module, p: int) -> Value:
        w = Signal(signed(WEIGHT_BITS), name=f"w{p}", reset_less=True)
        x = Signal(self.spec.x.bits, name=f"x{p}", reset_less=True)
        shape = signed(self.spec.product_bits)
        product = Signal(shape, name=f"product{p}", reset_less=True, attrs=WHOLE)
        m.d.sync += [w.eq(self.w[p]), x.eq(self.x[p]), product.eq(w * x)]
        return product

    def _rows(self, m: Module, p: int) -> Value:
        """A row of ``w`` per bit of ``x``, summed by pairs with a register after each step."""
        values: list[Value] = []
        for i in range(self.spec.x.bits):
            row = Signal(signed(WEIGHT_BITS), name=f"row{p}_{i}", reset_less=True)
            m.d.sync += row.eq(Value.cast(self.w[p]) & self.x[p][i].replicate(WEIGHT_BITS))
            values.append(row)
        weight = 1
        while len(values) > 1:
            sums: list[Value] = []
            for low, high in zip(values[::2], [*values[1::2], None], strict=False):
                name = f"sum{p}_{weight}_{len(sums)}"
                bits = len(low) if high is None else len(high) + weight + 1
                total = Signal(signed(bits), name=name, reset_less=True)
                # The lowest bits of the lower value pass by the carry chain.
                upper = low if high is None else (low >> weight) + high
                m.d.sync += total.eq(low if high is None else Cat(low[:weight], upper))
                sums.append(total)
            values, weight = sums, weight * 2
        return values[0]

    def _pairs(self, m: Module) -> None:
        """Two lanes in one DSP block."""
        pairs = -(-self.spec.lanes // 2)
        for k in range(pairs):
            a, b = Signal(16, name=f"dsp_a{k}"), Signal(16, name=f"dsp_b{k}")
            product = Signal(32, name=f"dsp_p{k}")
            lanes = range(2 * k, min(2 * k + 2, self.spec.lanes))
            for half, p in enumerate(lanes):
                m.d.comb += [
                    a[8 * half : 8 * half + 8].eq(self.w[p]),
                    b[8 * half : 8 * half + self.spec.x.bits].eq(self.x[p]),
                    self.o[p].eq(product[16 * half : 16 * half + 16]),
                ]
            m.submodules[f"dsp{k}"] = dual_multiplier(self.body, a, b, product)


_LOW = (
    *("AHOLD", "BHOLD", "CHOLD", "DHOLD", "OHOLDTOP", "OHOLDBOT"),
    *("IRSTTOP", "IRSTBOT", "ORSTTOP", "ORSTBOT", "OLOADTOP", "OLOADBOT"),
    *("ADDSUBTOP", "ADDSUBBOT", "CI", "ACCUMCI", "SIGNEXTIN"),
)


dual_multiplier = ValueFace[[Value, Value, Value], Instance]("architecture", "dual multiplier")
"""A DSP block that multiplies the two signed bytes of ``a`` by the unsigned ones of ``b``, input
and product registers in use; an architecture without it multiplies one pair in a block."""


@dual_multiplier.of("ice40")
def _dual_mac16(family: str, a: Value, b: Value, product: Value) -> Instance:
    """Lattice FPGA-TN-02007, mode 8 x 8, all pipelined."""
    zero, one = Const(0, 1), Const(1, 1)
    ones = ("A_REG", "B_REG", "TOP_8x8_MULT_REG", "BOT_8x8_MULT_REG", "PIPELINE_16x16_MULT_REG1")
    zeros = (
        *("NEG_TRIGGER", "C_REG", "D_REG", "PIPELINE_16x16_MULT_REG2", "B_SIGNED"),
        *("TOPADDSUB_UPPERINPUT", "BOTADDSUB_UPPERINPUT"),
    )
    selects = [f"{h}ADDSUB_{s}" for h in ("TOP", "BOT") for s in ("LOWERINPUT", "CARRYSELECT")]
    return Instance(
        "SB_MAC16",
        **{f"p_{name}": one for name in (*ones, "MODE_8x8", "A_SIGNED")},
        **{f"p_{name}": zero for name in zeros},
        **{f"p_{name}": Const(0, 2) for name in selects},
        p_TOPOUTPUT_SELECT=Const(2, 2),
        p_BOTOUTPUT_SELECT=Const(2, 2),
        i_CLK=ClockSignal("sync"),
        i_CE=one,
        i_A=a,
        i_B=b,
        i_C=Const(0, 16),
        i_D=Const(0, 16),
        o_O=product,
        **{f"i_{name}": zero for name in _LOW},
    )
