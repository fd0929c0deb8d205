"""Accumulators for all inputs: their cells are those of a sum and a difference in carry chains.

Chunk j of an accumulator works j cycles after chunk 0. What is checked of every chunk's cells, with
``c`` the carry and ``b`` the borrow that come from the chunk below, is

- ``acc' = acc + value + c``, one bit more of which is the next chunk's ``c``,
- ``kept' = first ? acc : kept``,
- ``difference' = acc - kept - b``, whose sign is the next chunk's ``b``,

and that ``value`` and ``first`` come j cycles later, and differences as many cycles earlier than
the last chunk's. By induction over chunks and cycles the output is then the sum of all values since
the last ``first``, modulo ``2**width``, whatever values and widths are.
"""

from pvq_hw.engine.core import CoreBase
from pvq_hw.errors import CheckError
from sim.proof.netlist import Bit, Cell, Netlist, accumulator

__all__ = ["check_accumulators"]


def check_accumulators(netlist: Netlist, spec: CoreBase, *, gated: bool) -> int:
    """Compares the cells of every accumulator with their equations; returns how many chunks.

    Parameters
    ----------
    netlist : Netlist
    spec : CoreBase
    gated : bool
        Whether values count only where a strobe says so.

    Raises
    ------
    CheckError
        A chunk's cells are others.
    """
    count = 0
    for v in range(spec.frames):
        match = _Match(netlist, spec, v, gated)
        for j in range(spec.acc_chunks):
            wrong = match.chunk(j)
            if wrong:
                raise CheckError(
                    f"Accumulator {v} of core {spec.name!r} must have the {wrong} of a sum in "
                    f"chunk {j}"
                )
            count += 1
    return count


class _Match:
    """Reads the cells of one accumulator."""

    def __init__(self, netlist: Netlist, spec: CoreBase, v: int, gated: bool) -> None:
        self._netlist, self._gated, self._v = netlist, gated, v
        self._width, self._chunks = spec.acc_bits, spec.acc_chunks
        self._step = spec.carry_chunk or spec.acc_bits
        self._makers: dict[Bit, Cell] = {b: c for c in netlist.cells for b in c.output}
        self._reset = netlist.port("rst")[0] if "rst" in netlist.ports else None
        given = netlist.either(f"accumulator{v}.i", f"accumulator{v}.value")
        self._value = (given + [given[-1]] * self._width)[: self._width]
        self._out = accumulator(netlist, spec.acc_chunks, v)
        self._carry: Bit | None = None
        self._borrow: Bit | None = None

    def _net(self, name: str) -> list[Bit]:
        return self._netlist.net(f"accumulator{self._v}.{name}")

    def chunk(self, j: int) -> str:
        """What is wrong with chunk j, empty if nothing is. Chunks come in order."""
        low = j * self._step
        high = min(self._width, low + self._step)
        acc, kept = self._net(f"acc{j}"), self._net(f"kept{j}")
        if len(acc) != high - low or len(kept) != high - low:
            return "width"
        total = self._sum(acc, self._next(acc), j, low, high)
        if total is None:
            return "addition"
        first = self._net("first")
        pick = self._mux(self._next(kept))
        if pick is None or self._before(pick[0], j) != first or pick[1:] != (kept, acc):
            return "start"
        early = self._before(self._out[low:high], self._chunks - 1 - j)
        rest = self._difference(acc, kept, self._next(early))
        if rest is None:
            return "difference"
        # The next chunk finds both in registers.
        self._carry, self._borrow = self._register(total), self._register(rest)
        if high < self._width and None in (self._carry, self._borrow):
            return "carry"
        return ""

    def _sum(self, acc: list[Bit], d: list[Bit], j: int, low: int, high: int) -> Bit | None:
        """The carry out of ``acc + value + carry``, where ``d`` is that sum; else None."""
        if self._gated:
            pick = self._mux(d)
            if pick is None or pick[1] != acc or self._before(pick[0], j) != self._net("valid"):
                return None
            d = pick[2]
        operands = self._operands(d, "$add", self._carry is not None)
        if operands is None:
            return None
        a, b, out = operands
        if self._carry is not None:
            if "1" not in (a[0], b[0]) or self._carry not in (a[0], b[0]):
                return None
            if (a[0] == "1") != (a[1 : 1 + len(acc)] == acc):
                return None
            a, b = a[1:], b[1:]
        if a[: len(acc)] != acc:
            a, b = b, a
        size = len(acc)
        value = self._before(b[:size], j)
        if a[:size] != acc or value != self._value[low:high]:
            return None
        last = high == self._width
        if not last and (len(out) <= size or a[size] != "0" or b[size] != "0"):
            return None
        return out[size] if not last else "0"

    def _difference(self, acc: list[Bit], kept: list[Bit], d: list[Bit]) -> Bit | None:
        """The borrow of ``acc - kept - borrow``, where ``d`` is that; else None."""
        operands = self._operands(d, "$sub", self._borrow is not None)
        if operands is None:
            return None
        a, b, out = operands
        if self._borrow is not None:
            if a[0] != "0" or b[0] != self._borrow:
                return None
            a, b = a[1:], b[1:]
        size = len(acc)
        if a[:size] != acc or b[:size] != kept:
            return None
        if len(out) == size:
            return "0"
        return out[size] if a[size] == b[size] == "0" else None

    # -- cells ----------------------------------------------------------------------------------

    def _operands(
        self, d: list[Bit], kind: str, carried: bool
    ) -> tuple[list[Bit], list[Bit], list[Bit]] | None:
        """Operands of the adder that gives ``d``, as wide as its output and a bit, and that output
        from ``d``'s first bit on. With a carry below, ``d`` starts at its second bit."""
        cell = self._makers.get(d[0])
        if cell is None or cell.type != kind:
            return None
        out = cell.output[int(carried) :]
        if out[: len(d)] != d:
            return None
        wide = len(cell.output) + 1
        a, b = (self._extended(cell, port, wide) for port in ("A", "B"))
        return a, b, out

    def _extended(self, cell: Cell, port: str, wide: int) -> list[Bit]:
        bits = cell.ports[port]
        signed = all("1" in cell.parameters[f"{p}_SIGNED"] for p in ("A", "B"))
        top: Bit = bits[-1] if signed else "0"
        return (bits + [top] * wide)[:wide]

    def _next(self, bits: list[Bit]) -> list[Bit]:
        """What registers take at the next edge, out of reset; themselves where they are none."""
        found = []
        for bit in bits:
            cell = self._makers.get(bit)
            if cell is None or cell.type != "$dff":
                found.append(bit)
                continue
            d = cell.ports["D"][cell.ports["Q"].index(bit)]
            maker = self._makers.get(d)
            if maker is not None and maker.type == "$mux" and maker.ports["S"] == [self._reset]:
                d = maker.ports["A"][maker.output.index(d)]
            found.append(d)
        return found

    def _before(self, bits: list[Bit], cycles: int) -> list[Bit]:
        for _ in range(cycles):
            bits = self._next(bits)
        return bits

    def _mux(self, bits: list[Bit]) -> tuple[list[Bit], list[Bit], list[Bit]] | None:
        """Select and inputs of the multiplexer that gives exactly these bits."""
        cell = self._makers.get(bits[0])
        if cell is None or cell.type != "$mux" or cell.output != bits:
            return None
        return cell.ports["S"], cell.ports["A"], cell.ports["B"]

    def _register(self, bit: Bit) -> Bit | None:
        """The register that takes this bit at each edge, out of reset."""
        for cell in self._netlist.cells:
            if cell.type == "$dff":
                for q in cell.ports["Q"]:
                    if self._next([q]) == [bit] and q != bit:
                        return q
        return None
