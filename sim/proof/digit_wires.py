"""Digit-serial adders of an unrolled layer, read as cells: what each sum is of the activations.

Every register holds, from some cycle after a frame's start on, digit after digit of a node of the
adders' graph: an activation, a sum, or either some digits later. Which, is followed from the
registers that take the frame, through those that only pass bits on and those that begin with zeros.
An adder is run on every digit of both operands and every carry: its digit and the next carry must
be those of the sum, and the frame's start must set the carry. So, digit after digit, it is the sum,
modulo two to the bits of all digits; and the numbers of the graph, added up, must be the layer's.

That no frame starts before the digits of the one before are through is part of the handshakes.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.engine.adder_graph import Adder, AdderGraph
from pvq_hw.engine.unrolled_core import UnrolledSpec
from pvq_hw.errors import CheckError, InputError
from sim.proof.cones import Bits
from sim.proof.netlist import Bit, Cell, Netlist

__all__ = ["check_digit_wires"]

IntArray = npt.NDArray[np.int64]


def check_digit_wires(netlist: Netlist, spec: UnrolledSpec, graph: AdderGraph, y: IntArray) -> int:
    """Follows a frame through the adders to the sums, which must be the rows' of every weight, for
    all activations, together ``spec.sum_delay`` cycles after its start; returns how many adders.

    Parameters
    ----------
    netlist : Netlist
    spec : UnrolledSpec
    graph : AdderGraph
        Names the adders; it is not trusted.
    y : int64 array (rows, n)

    Raises
    ------
    CheckError
        An adder or a sum is another one.
    InputError
        Adders are built in another way.
    """
    _check_sums(spec, graph, y)
    digits = _Digits(netlist, spec, graph)
    digits.check_inputs()
    for level in range(1, graph.depth + 1):
        digits.check_level(level)
    digits.check_outputs()
    return len(graph.adders)


def _check_sums(spec: UnrolledSpec, graph: AdderGraph, y: IntArray) -> None:
    """That the graph's numbers are the rows' weights."""
    weights = list(np.eye(spec.n, dtype=np.int64))
    for adder in graph.adders:
        other = weights[adder.b] << adder.shift
        weights.append(weights[adder.a] - other if adder.subtract else weights[adder.a] + other)
    group = np.arange(spec.n) // (spec.n // spec.groups)
    for number, part in enumerate(graph.sums):
        wanted = np.where(group == number % spec.groups, y[number // spec.groups], 0)
        found = np.zeros_like(wanted) if part.node is None else weights[part.node] << part.shift
        sign = -1 if number in spec.inverted else 1
        if not np.array_equal(sign * found, wanted):
            row = number // spec.groups
            raise CheckError(f"Core {spec.name!r}: the adders of row {row} must have its weights")


@dataclass(frozen=True)
class _Stream:
    """In the cycle c after a frame's start a bit is number ``(c - time) * digit + place`` of a
    node's value, from c = ``time`` on and for as many cycles as there are digits; where that is
    negative it is 0, or anything unless ``zeros``."""

    node: int
    place: int
    time: int
    zeros: bool = False


class _Digits:
    """What bits are of a frame, as far as they are known."""

    def __init__(self, netlist: Netlist, spec: UnrolledSpec, graph: AdderGraph) -> None:
        self._n, self._spec, self._graph = netlist, spec, graph
        self._digit = spec.digit
        self._where = f"Core {spec.name!r}"
        self._known: dict[Bit, _Stream] = {}
        self._first: list[Bit] = [netlist.net("adders.start")[0]]
        for level in range(1, graph.depth):
            register = netlist.net(f"adders.first_{level}")[0]
            if self._before(register) != self._first[-1]:
                raise CheckError(f"{self._where}: level {level} must start with its frame")
            self._first.append(register)

    def _before(self, bit: Bit) -> Bit:
        cell = self._n.makers.get(bit)
        if cell is None or cell.type != "$dff":
            raise InputError("adders are not built as expected")
        return cell.ports["D"][cell.output.index(bit)]

    def _nodes(self, level: int) -> list[int]:
        """The nodes of a level in the order of their bits: those that wait longest first."""
        graph = self._graph
        nodes = range(len(graph.inputs) + len(graph.adders))
        found = [node for node in nodes if graph.level(node) == level]
        return sorted(found, key=lambda node: -graph.delays.get(node, 0))

    # -- activations ----------------------------------------------------------------------------

    def check_inputs(self) -> None:
        """That each activation is taken with the start and leaves digit by digit, its sign
        behind it."""
        x, digit = self._spec.x, self._digit
        frame = self._n.either("adders.frame", "frame")
        for at, node in enumerate(self._nodes(0)):
            bits: Bits = [*frame[node * x.bits : (node + 1) * x.bits]]
            if x.binary:
                bits = ["1", *bits]
            sign = bits[-1] if x.signed else "0"
            places = -(-len(bits) // digit) * digit
            bits += [sign] * (places - len(bits))
            kept = [self._n.net(f"adders.x_{j}")[at] for j in range(places)]
            after = kept[digit:] + [kept[-1] if x.signed else "0"] * digit
            for j, (bit, taken, later) in enumerate(zip(kept, bits, after, strict=True)):
                if not self._takes(self._before(bit), taken, later):
                    raise CheckError(f"{self._where}: activation {node} must be taken as it comes")
                self._known[bit] = _Stream(node, j, 1)

    def _takes(self, bit: Bit, taken: Bit, later: Bit) -> bool:
        """Whether a bit is one with a frame's start, and another one otherwise."""
        if bit == taken == later:
            return True
        cell, index = self._mux(bit, self._first[0])
        return cell.ports["B"][index] == taken and cell.ports["A"][index] == later

    def _mux(self, bit: Bit, select: Bit) -> tuple[Cell, int]:
        """The multiplexer that a bit comes from, by this strobe, and its place there."""
        cell = self._n.makers.get(bit)
        if cell is None or cell.type != "$mux" or cell.ports["S"] != [select]:
            raise InputError("adders are not built as expected")
        return cell, cell.output.index(bit)

    def _stream(self, bit: Bit) -> _Stream:
        """What a register is that passes another one's bits on, maybe behind zeros."""
        passed: list[tuple[Bit, int | None]] = []
        while bit not in self._known:
            before, level = self._before(bit), None
            maker = self._n.makers.get(before)
            if maker is not None and maker.type == "$mux":
                select = maker.ports["S"][0]
                level = self._first.index(select) if select in self._first else None
                cell, index = self._mux(before, select)
                if level is None or cell.ports["B"][index] != "0":
                    raise InputError("adders are not built as expected")
                before = cell.ports["A"][index]
            passed.append((bit, level))
            bit = before
        found = self._known[bit]
        for later, level in reversed(passed):
            found = self._later(found, level)
            self._known[later] = found
        return found

    def _later(self, stream: _Stream, level: int | None) -> _Stream:
        """A cycle later, or with zeros until the start comes to a level."""
        node, place, time, zeros = stream.node, stream.place, stream.time, stream.zeros
        if level is None:
            return _Stream(node, place, time + 1, zeros)
        place += (level - time) * self._digit
        if level + 1 < time or place >= 0:
            raise InputError("adders are not built as expected")
        return _Stream(node, place, level + 1, zeros=True)

    # -- adders ---------------------------------------------------------------------------------

    def check_level(self, level: int) -> None:
        """That a level's adders add their operands' digits as they come; highest bits that nothing
        reads may be left out."""
        count = len(self._graph.inputs)
        for at, node in enumerate(self._nodes(level)):
            adder = self._graph.adders[node - count]
            carry = self._n.net(f"adders.sum{level}_carry")[at]
            names = {j: f"adders.sum{level}_{j}" for j in range(self._digit)}
            totals = {j: self._n.net(n)[at] for j, n in names.items() if n in self._n.nets}
            self._check_adder(adder, node, level, totals, carry)
            for j, bit in totals.items():
                self._known[bit] = _Stream(node, j, level + 1)

    def _check_adder(
        self, adder: Adder, node: int, level: int, totals: dict[int, Bit], carry: Bit
    ) -> None:
        cell, index = self._mux(self._before(carry), self._first[level - 1])
        minus = "1" if adder.subtract else "0"
        outputs = {j: self._before(bit) for j, bit in totals.items()}
        outputs[self._digit] = cell.ports["A"][index]
        # What stands in the operands' digits, or in the carry.
        names: dict[Bit, tuple[int, int] | None] = {}
        for bit in self._leaves(outputs.values()):
            stream = None if bit == carry else self._stream(bit)
            right = stream is None or (stream.time == level and (stream.place >= 0 or stream.zeros))
            if not right:
                raise CheckError(f"{self._where}: adder {node} must add digits of one cycle")
            names[bit] = None if stream is None else (stream.node, stream.place)
        a = [(adder.a, j) for j in range(self._digit)]
        b = [(adder.b, j - adder.shift) for j in range(self._digit)]
        order = [None, *dict.fromkeys([*a, *b])]
        if not set(names.values()) <= set(order) or cell.ports["B"][index] != minus:
            raise CheckError(f"{self._where}: adder {node} must add its operands alone")
        values = {name: np.arange(1 << len(order)) >> k & 1 for k, name in enumerate(order)}
        first, second = (sum(values[name] << j for j, name in enumerate(names)) for names in (a, b))
        flip = (1 << self._digit) - 1 if adder.subtract else 0
        total = first + (second ^ flip) + values[None]
        run = _Run(self._n, {bit: values[name] for bit, name in names.items()})
        for j, bit in outputs.items():
            if not np.array_equal(run.of(bit) + 0 * total, total >> j & 1):
                raise CheckError(f"{self._where}: adder {node} must add its operands' digits")

    def _leaves(self, outputs: Iterable[Bit]) -> set[Bit]:
        """The registers that bits follow from."""
        todo, seen = list(outputs), set()
        found: set[Bit] = set()
        while todo:
            bit = todo.pop()
            if bit in seen or not isinstance(bit, int):
                continue
            seen.add(bit)
            cell = self._n.makers.get(bit)
            if cell is None or cell.type == "$dff":
                found.add(bit)
            else:
                todo += _operands(cell, bit)
        return found

    # -- sums -----------------------------------------------------------------------------------

    def check_outputs(self) -> None:
        """That each sum's bits are there in one cycle."""
        spec, sums = self._spec, self._n.net("adders.sums")
        digits = -(-spec.acc_bits // self._digit)
        for number, part in enumerate(self._graph.sums):
            bits = sums[number * spec.acc_bits : (number + 1) * spec.acc_bits]
            for place, bit in enumerate(bits, -part.shift):
                wanted = part.node is not None and place >= 0
                if (bit == "0") != (not wanted) or (wanted and not self._is(
                    bit, part.node, place, digits
                )):  # fmt: skip
                    row = number // spec.groups
                    raise CheckError(f"{self._where}: the sum of row {row} must be there in time")

    def _is(self, bit: Bit, node: int | None, place: int, digits: int) -> bool:
        """Whether a bit is one of a node's when sums are taken."""
        stream = self._stream(bit)
        passed = self._spec.sum_delay - stream.time
        number = passed * self._digit + stream.place
        return stream.node == node and number == place and 0 <= passed < digits


def _operands(cell: Cell, bit: Bit) -> Iterator[Bit]:
    """What a bit of a cell follows from."""
    if cell.type == "$add" and all("1" not in cell.parameters[f"{p}_SIGNED"] for p in "AB"):
        yield from cell.inputs
        return
    if cell.type not in ("$and", "$or", "$xor", "$not"):
        raise InputError(f"adders have a cell of kind {cell.type}, which is not followed")
    index = cell.output.index(bit)
    for port in ("A", "B"):
        if port in cell.ports:
            yield cell.ports[port][index]


class _Run:
    """Bits for all values of some registers side by side."""

    def __init__(self, netlist: Netlist, values: Mapping[Bit, IntArray]) -> None:
        self._n = netlist
        self._known: dict[Bit, Any] = {"0": 0, "1": 1, "x": 0, **values}

    def of(self, bit: Bit) -> Any:
        """A bit's values."""
        if bit not in self._known:
            cell = self._n.makers[bit]
            if cell.type == "$add":
                total = self._number(cell.ports["A"]) + self._number(cell.ports["B"])
                self._known |= {out: total >> k & 1 for k, out in enumerate(cell.output)}
            else:
                operands = [self.of(b) for b in _operands(cell, bit)]
                self._known[bit] = _joined(cell.type, operands)
        return self._known[bit]

    def _number(self, bits: Bits) -> Any:
        return sum(self.of(bit) << k for k, bit in enumerate(bits))


def _joined(kind: str, operands: list[Any]) -> Any:
    if kind == "$not":
        return operands[0] ^ 1
    a, b = operands
    return {"$and": a & b, "$or": a | b, "$xor": a ^ b}[kind]
