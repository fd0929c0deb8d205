"""A matrix of constants as adders: `pvq_hw.engine.adder_graph.AdderGraph` as a circuit."""

from dataclasses import dataclass
from typing import Protocol

from amaranth.hdl import Cat, Const, Module, Shape, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from gateware.arith.multiplier import multiplier_ports
from pvq_hw.engine.adder_graph import Adder, AdderGraph

__all__ = ["AdderNetwork", "WiredMultiplier"]


class Operand(Protocol):
    """A number's format: an activation's, or that of a sum."""

    @property
    def bits(self) -> int: ...
    @property
    def signed(self) -> bool: ...
    @property
    def binary(self) -> bool: ...


@dataclass(frozen=True)
class _Total:
    """The format of a sum."""

    bits: int
    signed: bool = True
    binary: bool = False


class AdderNetwork(wiring.Component):
    """Every row's sum of a frame, a register behind each adder; no reset, no stall.

    The registers also keep Yosys from merging adders into 3:2 compressors, which are larger.

    Parameters
    ----------
    graph : AdderGraph
        Of inputs of one format.
    x : IntFormat
        Or another with ``bits``, ``signed`` and ``binary``.
    bits : int
        Of the sums.
    balanced : bool
        True: a frame may come every cycle, its sums come ``graph.depth`` cycles later. False: there
        are no registers but the adders'; sums are right once a frame has been held for so long.

    Members
    -------
    frame : the activations as their streams carry them, the first lowest
    sums : signed; the negative of a sum that the graph has as such
    """

    def __init__(self, graph: AdderGraph, x: Operand, bits: int, *, balanced: bool) -> None:
        self.graph, self.x, self.bits, self.balanced = graph, x, bits, balanced
        super().__init__(
            {
                "frame": In(len(graph.inputs) * x.bits),
                "sums": Out(data.ArrayLayout(signed(bits), len(graph.sums))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        graph = self.graph
        # Every node's value at its level, and one for each cycle that it waits.
        nodes: list[list[Value]] = []
        for n in range(len(graph.inputs)):
            nodes.append(self._waiting(m, n, self._input(n)))
        for k, adder in enumerate(graph.adders):
            total = Signal(Shape(adder.bits, adder.low < 0), name=f"sum{k}", reset_less=True)
            a, b = (self._at(nodes, node, adder.level - 1) for node in (adder.a, adder.b))
            m.d.sync += total.eq(_added(adder, a, b))
            nodes.append(self._waiting(m, len(graph.inputs) + k, total))
        for row, part in enumerate(graph.sums):
            if part.node is None:
                continue
            value = self._at(nodes, part.node, graph.depth) << part.shift
            m.d.comb += self.sums[row].eq(value)
        return m

    def _input(self, n: int) -> Value:
        bits = self.frame.word_select(n, self.x.bits)
        if self.x.binary:  # 1 stands for -1, 0 for +1
            return Cat(Const(1, 1), bits).as_signed()
        return bits.as_signed() if self.x.signed else bits

    def _waiting(self, m: Module, node: int, value: Value) -> list[Value]:
        values = [value]
        for k in range(self.graph.delays.get(node, 0) if self.balanced else 0):
            later = Signal.like(values[-1], name=f"later{node}_{k}", reset_less=True)
            m.d.sync += later.eq(values[-1])
            values.append(later)
        return values

    def _at(self, nodes: list[list[Value]], node: int, level: int) -> Value:
        return nodes[node][level - self.graph.level(node) if self.balanced else 0]


class WiredMultiplier(wiring.Component):
    """``product = a * constant`` as adders, ``levels`` cycles later; one a cycle, no reset.

    Where the graph gives the negative, all bits are inverted: ``product = a * constant - 1``.

    Parameters
    ----------
    graph : AdderGraph
        Of one input and one sum.
    a_bits, b_bits : int
        Signed operand, and unsigned constant, which is not read.
    levels : int
        At least the graph's: what is less is made up by registers.
    """

    def __init__(self, graph: AdderGraph, a_bits: int, b_bits: int, levels: int) -> None:
        self.graph, self.a_bits, self.levels = graph, a_bits, levels
        super().__init__(multiplier_ports(a_bits, b_bits))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        operand: Value = self.a
        for k in range(self.levels - self.graph.depth):
            later = Signal.like(operand, name=f"waits{k}", reset_less=True)
            m.d.sync += later.eq(operand)
            operand = later
        bits = len(self.product)
        m.submodules.adders = adders = AdderNetwork(
            self.graph, _Total(self.a_bits), bits, balanced=True
        )
        m.d.comb += [
            adders.frame.eq(operand),
            self.product.eq(~adders.sums[0] if self.graph.sums[0].negative else adders.sums[0]),
        ]
        return m


def _added(adder: Adder, a: Value, b: Value) -> Value:
    """The sum: bits of ``a`` below the shift pass by the adder."""
    high = a >> adder.shift
    total = high - b if adder.subtract else high + b
    if not adder.shift:
        return total
    return Cat(_extended(a, adder.shift), total)


def _extended(a: Value, width: int) -> Value:
    """The lowest bits of a value, its sign repeated where it has fewer."""
    if len(a) >= width:
        return a[:width]
    top = a[-1] if a.shape().signed else Const(0, 1)
    return Cat(a, top.replicate(width - len(a)))
