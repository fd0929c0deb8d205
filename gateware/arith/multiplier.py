"""Multipliers behind one interface: a signed factor times an unsigned one.

Bodies: ``"behavioral"`` and ``"verilog"`` are a ``*`` between registers; ``"ecp5"`` MULT18X18D and
``"ice40"`` SB_MAC16 instances, with their own registers in use. The kind ``"serial"`` has one body
for all, and is a pipeline of adders where a product is to come every cycle. Latency is the
specification's `CoreSpec.multiplier_delay`, whatever the body.
"""

from typing import Any

from amaranth.hdl import Cat, ClockSignal, Const, Instance, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from gateware.device.bodies import device_of
from pvq_hw.registry import ValueFace
from pvq_hw.target.architectures import ARCHITECTURES

__all__ = [
    "WHOLE",
    "DspMultiplier",
    "PipelinedMultiplier",
    "SerialMultiplier",
    "multiplier_block",
    "multiplier_ports",
]

WHOLE = {"keep": 1}
"""Attributes of a product's first register in Verilog for any tool: none may take it into a block.

`synth_ice40 -dsp` makes constants of a multiplication that exactly two registers follow.
"""


def multiplier_ports(a_bits: int, b_bits: int) -> dict[str, Any]:
    """Operands, the strobe that comes with them, and the product."""
    return {
        "a": In(signed(a_bits)),
        "b": In(b_bits),
        "start": In(1),
        "product": Out(signed(a_bits + b_bits)),
    }


class DspMultiplier(wiring.Component):
    """``product = a * b``, three cycles later, plus one for each part of a wide ``a`` after two.

    ``a`` is cut into parts that suit the DSP block: lower parts are unsigned, one bit narrower
    than the block's signed operand, the top one is signed. One product a cycle, no reset.

    Parameters
    ----------
    a_bits, b_bits : int
        Signed and unsigned operand.
    size : int
        18 (MULT18X18D) or 16 (SB_MAC16): width of the block's operands.
    body : str
        See `gateware.device.bodies.bodies`.
    """

    def __init__(self, a_bits: int, b_bits: int, size: int, body: str = "behavioral") -> None:
        self.a_bits, self.b_bits, self.size, self.body = a_bits, b_bits, size, body
        self.parts = max(1, -(-(a_bits - 1) // (size - 1)))
        self.delay = 3 if self.parts == 1 else 2 + self.parts
        super().__init__(multiplier_ports(a_bits, b_bits))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        step = self.size - 1
        total: Value | None = None
        for k in range(self.parts):
            low = k * step
            if k == self.parts - 1:
                part: Value = self.a[low:].as_signed()
            else:
                part = Cat(self.a[low : low + step], Const(0, 1)).as_signed()
            product = self._block(m, part, k)
            for i in range(k - 1):
                later = Signal.like(product, name=f"product{k}_{i}", reset_less=True)
                m.d.sync += later.eq(product)
                product = later
            if total is None:
                total = product
            else:
                added = Signal(signed(self.a_bits + self.b_bits), name=f"t{k}", reset_less=True)
                m.d.sync += added.eq(total + (product << low))
                total = added
        m.d.comb += self.product.eq(total)
        return m

    def _block(self, m: Module, a: Value, k: int) -> Value:
        if device_of(self.body):
            return multiplier_block(self.body, m, a, self.b, k)
        a_in = Signal(signed(len(a)), name=f"a{k}", reset_less=True)
        b_in = Signal(len(self.b), name=f"b{k}", reset_less=True)
        shape = signed(len(a) + len(self.b))
        attrs = WHOLE if self.body == "verilog" else {}
        first = Signal(shape, name=f"first{k}", reset_less=True, attrs=attrs)
        second = Signal(shape, name=f"second{k}", reset_less=True)
        m.d.sync += [a_in.eq(a), b_in.eq(self.b), first.eq(a_in * b_in), second.eq(first)]
        return second


multiplier_block: ValueFace[[Module, Value, Value, int], Value] = ARCHITECTURES.face(
    "multiplier block"
)
"""Signed times unsigned in a DSP block with registers, the k-th of its multiplier: the product,
three cycles later."""


@multiplier_block.of("ecp5")
def _mult18x18d(family: str, m: Module, a: Value, b: Value, k: int) -> Value:
    """MULT18X18D with input, pipeline and output registers; Lattice FPGA-TN-02205."""
    wide_a, wide_b = Signal(signed(18), name=f"dsp_a{k}"), Signal(18, name=f"dsp_b{k}")
    product = Signal(36, name=f"dsp_p{k}")
    m.d.comb += [wide_a.eq(a), wide_b.eq(b)]
    wires: dict[str, object] = {}
    for i in range(18):
        wires |= {f"i_A{i}": wide_a[i], f"i_B{i}": wide_b[i], f"i_C{i}": Const(0, 1)}
    for i in range(36):
        wires[f"o_P{i}"] = product[i]
    for i in range(4):
        wires |= {f"i_CLK{i}": ClockSignal("sync") if i == 0 else Const(0, 1)}
        wires |= {f"i_CE{i}": Const(1, 1), f"i_RST{i}": Const(0, 1)}
    for name in ("INPUTA", "INPUTB", "PIPELINE", "OUTPUT"):
        wires |= {f"p_REG_{name}_CLK": "CLK0", f"p_REG_{name}_CE": "CE0"}
        wires[f"p_REG_{name}_RST"] = "RST0"
    m.submodules[f"dsp{k}"] = Instance(
        "MULT18X18D",
        p_SOURCEB_MODE="B_SHIFT",
        p_MULT_BYPASS="DISABLED",
        p_GSR="DISABLED",
        p_RESETMODE="SYNC",
        i_SIGNEDA=Const(1, 1),
        i_SIGNEDB=Const(0, 1),
        i_SOURCEA=Const(0, 1),
        i_SOURCEB=Const(0, 1),
        **wires,
    )
    return product[: len(a) + len(b)].as_signed()


_MAC16_LOW = (
    *("AHOLD", "BHOLD", "CHOLD", "DHOLD", "OHOLDTOP", "OHOLDBOT"),
    *("IRSTTOP", "IRSTBOT", "ORSTTOP", "ORSTBOT", "OLOADTOP", "OLOADBOT"),
    *("ADDSUBTOP", "ADDSUBBOT", "CI", "ACCUMCI", "SIGNEXTIN"),
)


@multiplier_block.of("ice40")
def _sb_mac16(family: str, m: Module, a: Value, b: Value, k: int) -> Value:
    """SB_MAC16 as a 16 x 16 multiplier, three registers; Lattice FPGA-TN-02007, table 5."""
    wide_a, wide_b = Signal(signed(16), name=f"dsp_a{k}"), Signal(16, name=f"dsp_b{k}")
    product = Signal(32, name=f"dsp_p{k}")
    m.d.comb += [wide_a.eq(a), wide_b.eq(b)]
    zero = Const(0, 1)
    low = {f"i_{name}": zero for name in _MAC16_LOW}
    m.submodules[f"dsp{k}"] = Instance(
        "SB_MAC16",
        p_NEG_TRIGGER=Const(0, 1),
        p_A_REG=Const(1, 1),
        p_B_REG=Const(1, 1),
        p_C_REG=Const(0, 1),
        p_D_REG=Const(0, 1),
        p_TOP_8x8_MULT_REG=Const(1, 1),
        p_BOT_8x8_MULT_REG=Const(1, 1),
        p_PIPELINE_16x16_MULT_REG1=Const(1, 1),
        p_PIPELINE_16x16_MULT_REG2=Const(1, 1),
        p_TOPOUTPUT_SELECT=Const(3, 2),
        p_TOPADDSUB_LOWERINPUT=Const(0, 2),
        p_TOPADDSUB_UPPERINPUT=Const(0, 1),
        p_TOPADDSUB_CARRYSELECT=Const(0, 2),
        p_BOTOUTPUT_SELECT=Const(3, 2),
        p_BOTADDSUB_LOWERINPUT=Const(0, 2),
        p_BOTADDSUB_UPPERINPUT=Const(0, 1),
        p_BOTADDSUB_CARRYSELECT=Const(0, 2),
        p_MODE_8x8=Const(0, 1),
        p_A_SIGNED=Const(1, 1),
        p_B_SIGNED=Const(0, 1),
        i_CLK=ClockSignal("sync"),
        i_CE=Const(1, 1),
        i_A=wide_a,
        i_B=wide_b,
        i_C=Const(0, 16),
        i_D=Const(0, 16),
        o_O=product,
        **low,
    )
    return product[: len(a) + len(b)].as_signed()


class PipelinedMultiplier(wiring.Component):
    """``product = a * b``, one a cycle, by a tree of adders: for devices without DSP blocks.

    Each level adds neighbours of the partial products, ``b``'s bits times ``a``, so the product
    comes ``1 + ceil(log2(b_bits))`` cycles after the operands. A unit of `SerialMultiplier` for
    each bit of ``b`` would take three times the logic. No reset; ``start`` isn't needed.

    Parameters
    ----------
    a_bits, b_bits : int
        Signed and unsigned operand.
    """

    def __init__(self, a_bits: int, b_bits: int) -> None:
        self.a_bits, self.b_bits = a_bits, b_bits
        self.delay = 1 + (b_bits - 1).bit_length()
        super().__init__(multiplier_ports(a_bits, b_bits))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        a = Signal(signed(self.a_bits), reset_less=True)
        b = Signal(self.b_bits, reset_less=True)
        m.d.sync += [a.eq(self.a), b.eq(self.b)]
        bits = a.as_unsigned()
        parts: list[Value] = [(bits & bit.replicate(self.a_bits)).as_signed() for bit in b]
        places = 1
        while len(parts) > 1:
            sums = [
                self._sum(m, parts[k], parts[k + 1] if k + 1 < len(parts) else None, places, k)
                for k in range(0, len(parts), 2)
            ]
            parts, places = sums, 2 * places
        m.d.comb += self.product.eq(parts[0])
        return m

    @staticmethod
    def _sum(m: Module, low: Value, high: Value | None, places: int, k: int) -> Value:
        """``low + (high << places)`` a cycle later; a part without a neighbour only waits."""
        if high is None:
            later = Signal.like(low, name=f"wait{places}_{k}", reset_less=True)
            m.d.sync += later.eq(low)
            return later
        upper = low.as_signed() >> places
        total = Signal(
            signed(max(len(upper), len(high)) + 1), name=f"sum{places}_{k}", reset_less=True
        )
        lower = Signal(places, name=f"low{places}_{k}", reset_less=True)
        m.d.sync += [total.eq(upper + high), lower.eq(low[:places])]
        return Cat(lower, total).as_signed()


class SerialMultiplier(wiring.Component):
    """``product = a * b`` by shift and add, for devices without DSP blocks.

    ``ceil((b_bits + 1) / interval)`` units take turns, one bit of ``b`` a cycle each: the product
    comes ``b_bits + 1`` cycles after ``start``, one more with several units, and is there for one
    cycle. Starts may come every ``interval`` cycles; one that comes sooner spoils a product.

    Parameters
    ----------
    a_bits, b_bits : int
        Signed and unsigned operand.
    interval : int
    """

    def __init__(self, a_bits: int, b_bits: int, interval: int) -> None:
        self.a_bits, self.b_bits, self.interval = a_bits, b_bits, interval
        self.units = -(-(b_bits + 1) // interval)
        self.delay = b_bits + 1 + int(self.units > 1)
        super().__init__(multiplier_ports(a_bits, b_bits))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self.units == 1:
            m.d.comb += self.product.eq(self._unit(m, self.start, 0))
            return m
        turn = Signal(self.units, init=1)
        with m.If(self.start):
            m.d.sync += turn.eq(turn.rotate_left(1))
        result: Value = Const(0, signed(self.a_bits + self.b_bits))
        for k in range(self.units):
            load = Signal(name=f"load{k}")
            m.d.comb += load.eq(self.start & turn[k])
            product = self._unit(m, load, k)
            if k == 0:
                result = product
                continue
            done: Value = load
            for i in range(self.b_bits + 1):
                later = Signal(name=f"done{k}_{i}")
                m.d.sync += later.eq(done)
                done = later
            result = Mux(done, product, result)
        out = Signal(signed(self.a_bits + self.b_bits), reset_less=True)
        m.d.sync += out.eq(result)
        m.d.comb += self.product.eq(out)
        return m

    def _unit(self, m: Module, load: Value, k: int) -> Value:
        """``high`` is the sum above the bits of ``b`` still to come, and shifts right with ``low``.

        The addend for the next cycle is gated in this one, so that the loop is one carry chain.
        The product is read out of the registers: a sum that also went elsewhere would keep the
        registers out of the adder's cells.
        """
        a = Signal(signed(self.a_bits), name=f"a{k}", reset_less=True)
        addend = Signal(signed(self.a_bits), name=f"addend{k}", reset_less=True)
        high = Signal(signed(self.a_bits), name=f"high{k}", reset_less=True)
        low = Signal(self.b_bits, name=f"low{k}", reset_less=True)
        total = Signal(signed(self.a_bits + 1), name=f"total{k}")
        m.d.comb += total.eq(high + addend)
        with m.If(load):
            m.d.sync += [a.eq(self.a), high.eq(0), low.eq(self.b)]
            m.d.sync += addend.eq(Mux(self.b[0], self.a, 0))
        with m.Else():
            m.d.sync += [high.eq(total >> 1), low.eq(Cat(low[1:], total[0]))]
            m.d.sync += addend.eq(Mux(low[1] if self.b_bits > 1 else 0, a, 0))
        return Cat(low, high).as_signed()
