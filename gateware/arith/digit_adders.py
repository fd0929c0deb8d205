"""A matrix of constants as digit-serial adders: the same graph, some bits a cycle.

All adders of a level stand side by side: bit j of all of their digits is one row of bits, and one
operation computes it for all. The circuit is that of the single adders; of thousands of them,
Amaranth and Yosys have a tenth of the work.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.adder_graph import Adder, AdderGraph

__all__ = ["DigitNetwork"]


class _Nodes:
    """Where the digits of a graph's nodes are.

    Attributes
    ----------
    levels : list of list of int
        Nodes of each level in the order of their bits. Those that wait long come first, so those
        that still wait are the first of a row.
    rows : dict of (level, cycles waited) to list of Value
        Bit j of the digits of a level's nodes, or of as many as wait so long.
    """

    def __init__(self, graph: AdderGraph) -> None:
        self.graph = graph
        self.levels: list[list[int]] = [[] for _ in range(graph.depth + 1)]
        for node in range(len(graph.inputs) + len(graph.adders)):
            self.levels[graph.level(node)].append(node)
        for nodes in self.levels:
            nodes.sort(key=lambda node: -graph.delays.get(node, 0))
        self._place = {node: at for nodes in self.levels for at, node in enumerate(nodes)}
        self.rows: dict[tuple[int, int], list[Value]] = {}

    def bit(self, node: int, j: int, level: int) -> Value:
        """Bit j of a node's digit when that of nodes of this level is there."""
        own = self.graph.level(node)
        return self.rows[own, level - own][j][self._place[node]]


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
        graph, nodes = self.graph, _Nodes(self.graph)
        first = self._strobes(m)
        self._waiting(m, nodes, 0, self._inputs(m, nodes.levels[0]))
        for level in range(1, graph.depth + 1):
            self._waiting(m, nodes, level, self._added(m, nodes, level, first[level - 1]))
        whole: dict[int, Value] = {}
        for row, part in enumerate(graph.sums):
            if part.node is None:
                continue
            if part.node not in whole:
                digit = [nodes.bit(part.node, j, graph.depth) for j in range(self.digit)]
                whole[part.node] = self._whole(m, part.node, Cat(digit))
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

    def _inputs(self, m: Module, order: list[int]) -> list[Value]:
        """The activations' digits, one row for each bit."""
        count, width = len(order), self.x.bits
        bits: list[Value] = [Cat(self.frame[n * width + j] for n in order) for j in range(width)]
        if self.x.binary:  # 1 stands for -1, 0 for +1
            bits.insert(0, Const(-1, count))
        sign = bits[-1] if self.x.signed else Const(0, count)
        places = -(-len(bits) // self.digit) * self.digit
        bits += [sign] * (places - len(bits))
        kept = [Signal(count, name=f"x_{j}", reset_less=True) for j in range(places)]
        top = kept[-1] if self.x.signed else Const(0, count)
        rest = [*kept[self.digit :], *[top] * self.digit]
        for row, bit, after in zip(kept, bits, rest, strict=True):
            m.d.sync += row.eq(Mux(self.start, bit, after))
        return [*kept[: self.digit]]

    def _added(self, m: Module, nodes: _Nodes, level: int, first: Value) -> list[Value]:
        """The digits of a level's adders: full adders in a row, the last carry kept for the next
        digit."""
        graph, order = self.graph, nodes.levels[level]
        adders = [graph.adders[node - len(graph.inputs)] for node in order]
        count, digits = len(adders), range(self.digit)
        totals = [Signal(count, name=f"sum{level}_{j}", reset_less=True) for j in digits]
        carry = Signal(count, name=f"sum{level}_carry", reset_less=True)
        minus = Const(sum(adder.subtract << n for n, adder in enumerate(adders)), count)
        a = [Cat(nodes.bit(adder.a, j, level - 1) for adder in adders) for j in digits]
        b = [row ^ minus for row in self._shifted(m, nodes, level, adders, first)]
        if self.digit > 4:  # a carry chain is smaller than LUTs
            found, over = self._chains(m, level, a, b, carry)
        else:
            over, found = carry, []
            for p, q in zip(a, b, strict=True):
                found.append(p ^ q ^ over)
                over = (p & q) | (over & (p | q))
        m.d.sync += [total.eq(bits) for total, bits in zip(totals, found, strict=True)]
        m.d.sync += carry.eq(Mux(first, minus, over))
        return [*totals]

    def _chains(
        self, m: Module, level: int, a: list[Value], b: list[Value], carry: Value
    ) -> tuple[list[Value], Value]:
        """Rows of sums and the carries after them, each adder by itself."""
        added = []
        for n in range(len(carry)):
            total = Signal(self.digit + 2, name=f"sum{level}_{n}_added")
            p, q = (Cat(carry[n], *(row[n] for row in rows)) for rows in (a, b))
            m.d.comb += total.eq(p + q)
            added.append(total)
        rows: list[Value] = [Cat(total[j] for total in added) for j in range(1, self.digit + 2)]
        return rows[:-1], rows[-1]

    def _shifted(
        self, m: Module, nodes: _Nodes, level: int, adders: list[Adder], first: Value
    ) -> list[Value]:
        """The second operands times their powers of two: as many bits later, zeros before them."""
        digit = self.digit
        # Bits of the operands, by adder and place, at the time and some digits later.
        bits: list[dict[tuple[int, int], Value]] = [
            {(n, j): nodes.bit(adder.b, j, level - 1) for n, adder in enumerate(adders)
             for j in range(digit)}
        ]  # fmt: skip
        while True:
            # Where a shift goes beyond this digit: all of it, or the end that the next one gets.
            wanted = [
                (n, j) for n, j in bits[-1]
                if j + adders[n].shift >= len(bits) * digit
            ]  # fmt: skip
            if not wanted:
                break
            later = Signal(len(wanted), name=f"sum{level}_shifted_{len(bits)}", reset_less=True)
            m.d.sync += later.eq(Mux(first, 0, Cat(bits[-1][key] for key in wanted)))
            bits.append(dict(zip(wanted, later, strict=True)))
        rows: list[Value] = []
        for j in range(digit):
            places = [divmod(j - adder.shift, digit) for adder in adders]
            rows.append(Cat(bits[-turn][n, at] for n, (turn, at) in enumerate(places)))
        return rows

    def _waiting(self, m: Module, nodes: _Nodes, level: int, row: list[Value]) -> None:
        """A level's digits and, of those that wait, each cycle's."""
        nodes.rows[level, 0] = row
        waits = [self.graph.delays.get(node, 0) for node in nodes.levels[level]]
        for k in range(max(waits, default=0)):
            count = sum(wait > k for wait in waits)
            names = [f"later{level}_{k}_{j}" for j in range(self.digit)]
            later = [Signal(count, name=name, reset_less=True) for name in names]
            m.d.sync += [bit.eq(before[:count]) for bit, before in zip(later, row, strict=True)]
            row = nodes.rows[level, k + 1] = [*later]

    def _whole(self, m: Module, node: int, value: Value) -> Value:
        """All digits of a value, in the cycle of its last one."""
        before = Signal(self.digit * (self.digits - 1), name=f"before{node}", reset_less=True)
        m.d.sync += before.eq(Cat(before, value)[self.digit :])
        return Cat(before, value)[: self.bits].as_signed()
