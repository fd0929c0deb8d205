"""A matrix of constants as digit-serial adders: the same graph, some bits a cycle."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.adder_graph import Adder, AdderGraph

__all__ = ["DigitNetwork"]


class DigitNetwork(wiring.Component):
    """Every row's sum of a frame, in digits of some bits, the lowest first; no stall.

    Activations are taken into registers as the frame starts, and leave these digit by digit, their
    signs repeated. An adder has a register for its digit and a flip-flop for its carry, which the
    start of a frame sets as it passes: nothing has to be reset. Values are modulo ``2 ** bits``,
    which is enough since the sums have no more bits than that.

    A frame may start every ``-(-bits // digit)`` cycles; its sums are there for one cycle,
    ``graph.depth`` more cycles later.

    Parameters
    ----------
    graph : AdderGraph
        Of inputs of one format.
    x : IntFormat
    bits : int
        Of the sums.
    digit : int
        Bits a cycle.

    Members
    -------
    frame : the activations as their streams carry them, the first lowest
    start : strobe, the frame is taken
    sums : signed; the negative of a sum that the graph has as such
    """

    def __init__(self, graph: AdderGraph, x: IntFormat, bits: int, digit: int) -> None:
        self.graph, self.x, self.bits, self.digit = graph, x, bits, digit
        self.digits = -(-bits // digit)
        super().__init__(
            {
                "frame": In(len(graph.inputs) * x.bits),
                "start": In(1),
                "sums": Out(data.ArrayLayout(signed(bits), len(graph.sums))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        graph = self.graph
        first = self._strobes(m)
        # Every node's digit at its level, and one for each cycle that it waits.
        nodes = [self._waiting(m, n, self._input(m, n)) for n in range(len(graph.inputs))]
        for k, adder in enumerate(graph.adders):
            a, b = (self._at(nodes, node, adder.level - 1) for node in (adder.a, adder.b))
            total = self._added(m, f"sum{k}", adder, a, b, first[adder.level - 1])
            nodes.append(self._waiting(m, len(graph.inputs) + k, total))
        whole: dict[int, Value] = {}
        for row, part in enumerate(graph.sums):
            if part.node is None:
                continue
            if part.node not in whole:
                whole[part.node] = self._whole(
                    m, part.node, self._at(nodes, part.node, graph.depth)
                )
            m.d.comb += self.sums[row].eq(whole[part.node] << part.shift)
        return m

    def _strobes(self, m: Module) -> list[Value]:
        """One strobe a level: the next digit of its nodes is a frame's lowest. A strobe that
        outlasts a reset is gone before the next frame's comes."""
        strobes: list[Value] = [self.start]
        for level in range(self.graph.depth - 1):
            later = Signal(name=f"first_{level + 1}", reset_less=True)
            m.d.sync += later.eq(strobes[-1])
            strobes.append(later)
        return strobes

    def _input(self, m: Module, n: int) -> Value:
        """An activation, digit by digit."""
        bits: Value = self.frame.word_select(n, self.x.bits)
        if self.x.binary:  # 1 stands for -1, 0 for +1
            bits = Cat(Const(1, 1), bits)
        sign = bits[-1] if self.x.signed else Const(0, 1)
        places = -(-len(bits) // self.digit) * self.digit
        kept = Signal(places, name=f"x{n}", reset_less=True)
        top = kept[-1] if self.x.signed else Const(0, 1)
        rest = Cat(kept[self.digit :], top.replicate(self.digit))
        m.d.sync += kept.eq(Mux(self.start, Cat(bits, sign.replicate(places - len(bits))), rest))
        return kept[: self.digit]

    def _added(self, m: Module, name: str, adder: Adder, a: Value, b: Value, first: Value) -> Value:
        """An adder's digit: full adders in a row, the last carry kept for the next digit."""
        total = Signal(self.digit, name=name, reset_less=True)
        carry = Signal(name=f"{name}_carry", reset_less=True)
        b = self._shifted(m, f"{name}_shifted", b, adder.shift, first)
        if adder.subtract:
            b = ~b
        if self.digit > 4:  # a carry chain is smaller than LUTs
            added = Signal(self.digit + 2, name=f"{name}_added")
            m.d.comb += added.eq(Cat(carry, a[: self.digit]) + Cat(carry, b[: self.digit]))
            bits, over = added[1:-1], added[-1]
        else:
            over, found = carry, []
            for p, q in zip(a, b, strict=True):
                found.append(p ^ q ^ over)
                over = (p & q) | (over & (p | q))
            bits = Cat(found)
        m.d.sync += [total.eq(bits), carry.eq(Mux(first, int(adder.subtract), over))]
        return total

    def _shifted(self, m: Module, name: str, value: Value, shift: int, first: Value) -> Value:
        """A value times a power of two: as many bits later, zeros before them."""
        whole, rest = divmod(shift, self.digit)
        for k in range(whole):
            later = Signal(self.digit, name=f"{name}_{k}", reset_less=True)
            m.d.sync += later.eq(Mux(first, 0, value))
            value = later
        if rest:
            below = Signal(rest, name=f"{name}_below", reset_less=True)
            m.d.sync += below.eq(Mux(first, 0, value[self.digit - rest :]))
            value = Cat(below, value[: self.digit - rest])
        return value

    def _waiting(self, m: Module, node: int, value: Value) -> list[Value]:
        values = [value]
        for k in range(self.graph.delays.get(node, 0)):
            later = Signal(self.digit, name=f"later{node}_{k}", reset_less=True)
            m.d.sync += later.eq(values[-1])
            values.append(later)
        return values

    def _at(self, nodes: list[list[Value]], node: int, level: int) -> Value:
        return nodes[node][level - self.graph.level(node)]

    def _whole(self, m: Module, node: int, value: Value) -> Value:
        """All digits of a value, in the cycle of its last one."""
        before = Signal(self.digit * (self.digits - 1), name=f"before{node}", reset_less=True)
        m.d.sync += before.eq(Cat(before, value)[self.digit :])
        return Cat(before, value)[: self.bits].as_signed()
