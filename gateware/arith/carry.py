"""An adder of the ECP5 as instances: Yosys leaves two inputs of each of its LUTs unused."""

from amaranth.hdl import Cat, Const, Instance, Module, Signal, Value

__all__ = ["gated_sum"]

# Lattice FPGA-TN-02200 (slices in ripple mode): the upper half of the truth table, with D high, is
# what is added to the carry; the lowest four entries are what is carried on where that is 0, by A
# and B alone. With D high: A ^ (B & ~C) over C, B, A; below: A.
_A_PLUS_B_UNLESS_C = 0xA6AA


def gated_sum(m: Module, a: Value, b: Value, off: Value) -> Value:
    """``a + (b & ~off)`` modulo ``2**len(b)`` in one carry chain, the gates in its own LUTs."""
    size = len(b)
    padded = size + size % 2
    a = Cat(a, Const(0, padded))[:padded]
    b = Cat(b, Const(0, padded))[:padded]
    total = Signal(padded, name="gated_sum")
    carry: Value = Const(0, 1)
    for i in range(0, padded, 2):
        out = Signal(name=f"carry_{i}")
        m.submodules += Instance(
            "CCU2C",
            p_INIT0=Const(_A_PLUS_B_UNLESS_C, 16),
            p_INIT1=Const(_A_PLUS_B_UNLESS_C, 16),
            p_INJECT1_0="NO",
            p_INJECT1_1="NO",
            i_CIN=carry,
            **{
                f"i_{pin}{k}": value
                for k in range(2)
                for pin, value in (("A", a[i + k]), ("B", b[i + k]), ("C", off), ("D", Const(1, 1)))
            },
            o_S0=total[i],
            o_S1=total[i + 1],
            o_COUT=out,
        )
        carry = out
    return total[:size]
