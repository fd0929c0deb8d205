"""Whether a change of one bit of a cell ever shows in a register, a memory or an output: induction
over the states of the circuit as it is."""

from dataclasses import dataclass, replace
from typing import Any

from sim.proof.formulas import Formulas, Solver
from sim.proof.netlist import Bit, Cell, Netlist

__all__ = ["Spoiled", "never_shows"]

_HELD = ("$dff", "$mem_v2")


@dataclass(frozen=True)
class Spoiled:
    """A bit of a cell's port that is changed, as Yosys's ``mutate`` does.

    Parameters
    ----------
    cell, port : str
    bit : int
    mode : str
        ``inv``, ``const0``, ``const1``, or ``cnot0`` and ``cnot1``: inverted where bit ``control``
        of the port is 0 or 1.
    control : int
    """

    cell: str
    port: str
    bit: int
    mode: str
    control: int = 0

    def value(self, solver: Solver, whole: Any, control: Any) -> Any:
        """What the bit becomes."""
        match self.mode:
            case "const0" | "const1":
                return solver.number(int(self.mode[-1]), 1)
            case "cnot0":
                return solver.op("BV_XNOR", [whole, control])
            case "cnot1":
                return solver.op("BV_XOR", [whole, control])
        return solver.op("BV_NOT", [whole])


def never_shows(netlist: Netlist, spoiled: Spoiled, most: int = 4) -> bool:
    """Whether both circuits take the same step, from every state that the one that is as it should
    be reaches, whatever the inputs are and the memories hold. So their states are the same forever.

    False also means that it was not shown. ``most`` is the number of the induction's steps.
    """
    for steps in range(1, most + 1):
        solver = Solver()
        shown = _Unrolled(netlist, spoiled, solver, steps).same
        if solver.possible([solver.op("NOT", [solver.both(*shown)])]):
            return False
        free = Solver()
        *given, last = _Unrolled(netlist, spoiled, free, steps + 1, anywhere=True).same
        if free.follows(given, last):
            return True
    return False


class _Unrolled:
    """The circuit in some cycles, and of each one that the change does not show."""

    def __init__(
        self, netlist: Netlist, spoiled: Spoiled, solver: Solver, steps: int, *,
        anywhere: bool = False,
    ) -> None:  # fmt: skip
        self._n, self._m, self._s = netlist, spoiled, solver
        self._cell = next(cell for cell in netlist.cells if cell.name == spoiled.cell)
        self._extra = 1 + max(b for c in netlist.cells for b in (*c.inputs, *c.output)
                              if isinstance(b, int))  # fmt: skip
        self._bit = self._cell.ports[spoiled.port][spoiled.bit]
        before: Formulas | None = None
        self.same = []
        for _ in range(steps):
            formulas = Formulas(netlist, solver)
            for bit in (b for c in netlist.cells if c.type == "$dff" for b in c.output):
                if before is not None:
                    formulas.define(bit, before.later([bit]))
                elif not anywhere and bit in netlist.init:
                    formulas.define(bit, solver.number(int(netlist.init[bit]), 1))
            self.same.append(self._takes_the_same_step(formulas))
            before = formulas

    def _takes_the_same_step(self, now: Formulas) -> Any:
        """Of both circuits, in the same state and with the same inputs."""
        n, s, drives = self._n, self._s, self._bit in self._cell.output
        changed = self._changed()
        other = Formulas(
            replace(n, cells=[c if c is not self._cell else changed for c in n.cells]), s
        )
        given = [b for c in n.cells if c.type in _HELD for b in c.output]
        for bit in (*given, *(b for way, bits in n.ports.values() if way == "input" for b in bits)):
            other.define(bit, now.read([bit]))
        if drives and self._cell.type in _HELD:
            other.define(self._extra, now.read([self._bit]))
        source, seen = (self._extra, self._bit) if drives else (self._bit, self._extra)
        control = self._cell.ports[self._m.port][self._m.control]
        other.define(seen, self._m.value(s, other.read([source]), other.read([control])))
        start = [self._bit] if drives else self._cell.output
        pairs = self._ends(changed, set(start) if drives or self._cell.type not in _HELD else set())
        return s.both(*(s.same(now.read([a]), other.read([b])) for a, b in pairs),
                      s.same(s.number(0, 1), s.number(0, 1)))  # fmt: skip

    def _changed(self) -> Cell:
        """The cell, with a net of its own in place of the bit."""
        bits = list(self._cell.ports[self._m.port])
        bits[self._m.bit] = self._extra
        return replace(self._cell, ports={**self._cell.ports, self._m.port: bits})

    def _ends(self, changed: Cell, found: set[Bit]) -> list[tuple[Bit, Bit]]:
        """Bits at registers, memories and outputs that the change may reach: of both circuits."""
        todo = list(found)
        while todo:
            for cell in self._n.readers[todo.pop()]:
                if cell.type not in _HELD:
                    new = [b for b in cell.output if b not in found]
                    found.update(new)
                    todo += new
        outputs = [b for way, bits in self._n.ports.values() if way == "output" for b in bits]
        pairs = [(b, b) for b in outputs if b in found]
        for cell in self._n.cells:
            if cell.type in _HELD:
                taken = changed if cell is self._cell else cell
                pairs += [(a, b) for a, b in zip(cell.inputs, taken.inputs, strict=True)
                          if a in found or a != b]  # fmt: skip
        return pairs
