"""Mutants of a core's control in the netlist that proofs read, which no proof may prove."""

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
from proof_cases import ship

from pvq_hw.errors import CheckError, InputError
from sim.proof.netlist import Cell, read_units

__all__ = ["WIDE", "changed", "mutants", "netlists", "refuse_all", "unit_mutants", "wrong_cell"]

MODULES = ("sequencer.", "writer.", "fifo.")
# Registers of a core by which a row's end comes to the FIFO; of one with 8-bit weights also those
# that count words, and by which activations are read.
STROBES = re.compile(r"(row_end|group_end|end|group)_?\d*")
WIDE = re.compile(rf"{STROBES.pattern}|position|at_end|address_\d")


def netlists(folder, made):
    """Of each core of a chain by its name."""
    images = dict(zip((c.name for c in made.graph.cores), made.images, strict=True))
    out = ship(folder / "out", SimpleNamespace(graph=made.graph, images=images))
    return read_units(out, [unit.name for unit in made.graph.units])


def mutants(netlist, registers=STROBES, modules=MODULES):
    """Every control cell of a core with what may be wrong with it: name, kind, and the cell
    instead."""
    rst = netlist.port("rst")
    before = strobes(netlist, registers)
    for cell in netlist.cells:
        names = [name for name, bits in netlist.nets.items() if bits == cell.output]
        if cell.name not in before and not any(n.startswith(modules) for n in names):
            continue
        name = min((n for n in names if not n.startswith("_")), key=len, default=cell.name)
        for kind, instead in variants(cell, rst):
            yield name, kind, instead


def wrong_cell(cell, kinds, memory=None):
    """The cell of another kind, by its own; a multiplexer with its inputs the wrong way round, a
    register whose bits are moved by one, a memory with the bits of this port turned round."""
    ports = dict(cell.ports)
    if cell.type == "$mux":
        ports |= {"A": ports["B"], "B": ports["A"]}
    elif cell.type == "$dff":
        ports["D"] = ports["D"][1:] + ports["D"][:1]
    elif cell.type == "$mem_v2" and memory:
        ports[memory] = ports[memory][::-1]
    return replace(cell, ports=ports, type=kinds.get(cell.type, cell.type))


def unit_mutants(netlist):
    """The same of a unit that is no core: of every cell that no payload reaches, and that decides
    more than what is written where nothing is."""
    rst, data = netlist.port("rst"), netlist.reached(netlist.payloads)
    for cell in netlist.cells:
        names = [name for name, bits in netlist.nets.items() if bits == cell.output]
        name = min(names, key=len, default=cell.name)
        idle = any("memwr" in n and "_EN" not in n for n in names)
        if idle or not data.isdisjoint(bit for bit in cell.output if isinstance(bit, int)):
            continue
        for kind, instead in variants(cell, rst):
            yield name, kind, instead


def variants(cell, rst):
    """What may be wrong with a cell."""
    a, b = cell.ports.get("A", []), cell.ports.get("B", [])
    if cell.type == "$mux" and cell.ports["S"] == rst:
        yield "not reset", passes(cell, a)
    elif cell.type == "$mux":
        yield "never", passes(cell, a)
        yield "always", passes(cell, b)
    elif cell.type in ("$and", "$or") and len(cell.output) == 1:
        yield "only A", passes(cell, a)
        yield "only B", passes(cell, b)
    elif cell.type == "$not" and len(cell.output) == 1:
        yield "not inverted", passes(cell, a)
    elif cell.type == "$add":
        yield "not counted", passes(cell, a)
    elif cell.type == "$eq" and not isinstance(b[0], int):
        other = ["0" if b[0] == "1" else "1", *b[1:]]
        yield "another number", replace(cell, ports={**cell.ports, "B": other})


def strobes(netlist, names):
    """The cells that decide registers by which a row's end comes to the FIFO."""
    # Where rows have several groups, the ends of these are for the multipliers alone.
    rows = any(name.startswith("row_end_") for name in netlist.nets)
    registers = [
        bit for name, bits in netlist.nets.items() for bit in bits
        if names.fullmatch(name) and not (rows and name.startswith("group_end"))
    ]  # fmt: skip
    found, todo = set(), [netlist.makers[b].ports["D"][netlist.makers[b].output.index(b)]
                          for b in registers if netlist.makers[b].type == "$dff"]  # fmt: skip
    while todo:
        cell = netlist.makers.get(todo.pop())
        if cell is not None and cell.type not in ("$dff", "$mem_v2") and cell.name not in found:
            found.add(cell.name)
            todo += cell.inputs
    return found


def passes(cell, bits):
    """A cell that gives these bits."""
    wide = (list(bits) + ["0"] * len(cell.output))[: len(cell.output)]
    return Cell(cell.name, "$pos", {"A": wide, "Y": cell.output}, {"A_SIGNED": "0"})


def changed(netlist, instead):
    cells = [instead if cell.name == instead.name else cell for cell in netlist.cells]
    return replace(netlist, cells=cells)


def refuse_all(netlist, found, check, same=()):
    """Fails where a mutant is proven that isn't ``same``, by its name and kind; how many there
    were."""
    count = 0
    for name, kind, cell in found:
        if not {name, (name, kind)}.isdisjoint(same):
            continue
        with pytest.raises((CheckError, InputError)):
            pytest.fail(f"{name}, {kind}: {check(changed(netlist, cell))} claims")
        count += 1
    return count
