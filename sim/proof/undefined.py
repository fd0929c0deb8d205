"""Bits of a design that are undefined, as what is read behind a memory's last word.

Synthesis may take such a bit for a 0 or for a 1, as suits it, in each state anew. Of one that only
a single register bit takes, the netlist is therefore right if what that takes is right for one of
the two values. Of one that several take, the same value would have to suit them all.
"""

from sim.proof.netlist import Bit, Netlist, depends
from sim.proof.synthesis import MEMORY, Circuit

__all__ = ["undefined_bits"]


def undefined_bits(circuit: Circuit) -> tuple[dict[Bit, list[Bit]], set[Bit]]:
    """By register bit the undefined bits that it takes, and nothing else does; and all others."""
    netlist = circuit.netlist
    takes: dict[Bit, list[Bit | None]] = {}
    for q, d in circuit.taken(circuit.clocks).items():
        takes.setdefault(d, []).append(q)
    memories = [bit for memory in circuit.memories.values() for bit in memory.inputs]
    for bit in (*circuit.ends, *memories):
        takes.setdefault(bit, []).append(None)
    made = {bit for cell in netlist.cells for bit in cell.output}.union(circuit.given)
    single: dict[Bit, list[Bit]] = {}
    others: set[Bit] = set()
    for bit in sorted((netlist.readers.keys() | takes.keys()) - made, key=str):
        if isinstance(bit, int):
            takers = [q for b in _reached(netlist, bit) for q in takes.get(b, [])]
            if len(takers) == 1 and takers[0] is not None:
                single.setdefault(takers[0], []).append(bit)
            elif takers:
                others.add(bit)
    return single, others


def _reached(netlist: Netlist, bit: Bit) -> set[Bit]:
    """What depends on a bit within a cycle."""
    found, todo = {bit}, [bit]
    while todo:
        here = todo.pop()
        for cell in netlist.readers[here]:
            if cell.type not in ("$dff", MEMORY):
                more = {out for out in depends(cell, here) if isinstance(out, int)} - found
                found |= more
                todo += more
    return found
