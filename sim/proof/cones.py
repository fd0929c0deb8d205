"""Registers and what decides them, found in a netlist by how cells are joined."""

from collections.abc import Iterator

from pvq_hw.errors import InputError
from sim.proof.netlist import Bit, Cell, Netlist

__all__ = ["Bits", "Cones"]

Bits = list[Bit]


class Cones:
    """Looks around in a netlist; raises InputError where another cell is than is looked for."""

    def __init__(self, netlist: Netlist) -> None:
        self._n = netlist
        self._rst = netlist.port("rst")[0]

    def maker(self, bit: Bit, kind: str) -> Cell:
        """The cell of this kind that gives a bit."""
        cell = self._n.makers.get(bit)
        if cell is None or cell.type != kind:
            raise InputError(f"control has another cell than {kind} where that is expected")
        return cell

    def is_register(self, bit: Bit) -> bool:
        """Whether a register gives a bit."""
        return self.has_maker(bit, "$dff")

    def has_maker(self, bit: Bit, kind: str) -> bool:
        """Whether a cell of this kind gives a bit."""
        cell = self._n.makers.get(bit)
        return cell is not None and cell.type == kind

    def before(self, bit: Bit, *, resets: bool = True) -> Bit:
        """What a register takes out of reset."""
        cell = self.maker(bit, "$dff")
        d = cell.ports["D"][cell.output.index(bit)]
        maker = self._n.makers.get(d)
        if not resets or maker is None or maker.type != "$mux" or maker.ports["S"] != [self._rst]:
            return d
        return maker.ports["A"][maker.output.index(d)]

    def before_bits(self, bits: Bits) -> Bits:
        """What some registers take out of reset."""
        return [self.before(bit) for bit in bits]

    def chain(self, bit: Bit, most: int, *, resets: bool = True) -> Bits:
        """Registers of one bit each, up to this one, earliest first."""
        found = [bit]
        while len(found) < most:
            before = self.before(found[0], resets=resets)
            if not self.is_register(before):
                break
            found.insert(0, before)
        return found

    def operands(self, bit: Bit, kind: str) -> Bits:
        """What the cell of this kind reads that gives a bit."""
        return self.maker(bit, kind).inputs

    def cone(self, start: Bit) -> Iterator[Cell]:
        """The cells that decide a bit, back to registers, memories and inputs."""
        todo, seen = [start], set()
        while todo:
            cell = self._n.makers.get(todo.pop())
            if cell is None or cell.type in ("$dff", "$mem_v2") or cell.name in seen:
                continue
            seen.add(cell.name)
            yield cell
            todo += cell.inputs

    def compared(self, bit: Bit, wanted: int) -> Bits:
        """What is compared with a number where a bit is decided."""
        for cell in self.cone(bit):
            if cell.type == "$eq" and _constant(cell.ports["B"]) == wanted:
                return cell.ports["A"]
        for cell in self.cone(bit):
            if cell.type == "$logic_not" and wanted == 0:
                return cell.ports["A"]
        raise InputError("a frame's activations are not counted as expected")


def _constant(bits: Bits) -> int | None:
    if any(isinstance(bit, int) or bit == "x" for bit in bits):
        return None
    return sum((bit == "1") << i for i, bit in enumerate(bits))
