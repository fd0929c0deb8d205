"""A netlist after synthesis and the design that synthesis was given, both as word-level cells.

The netlist's LUTs, carries, flip-flops and distributed memories are replaced by what Yosys's own
models of them say, read by Yosys. Instances of other primitives (block RAM, DSP blocks, pins, PLL)
are left on both sides: they are the same ones, and what matters is what comes into them.
"""

import copy
import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

from gateware.board.carry_chains import drop_open_outputs
from pvq_hw.errors import InputError
from pvq_hw.registry import ValueFace
from pvq_hw.target.architectures import ARCHITECTURES
from pvq_hw.tools import find as tools
from sim.backends.netlist import primitives
from sim.proof.netlist import Bit, Cell, Netlist

__all__ = ["MEMORY", "Box", "Circuit", "read_circuits"]

_TOP = "top"
_MODELS = "models.v"
MEMORY = "$mem_v2"


@dataclass(frozen=True)
class Box:
    """An instance of a primitive that is looked at from outside: each port's direction and bits."""

    type: str
    parameters: Mapping[str, Any]
    ports: Mapping[str, tuple[str, list[Bit]]]

    def pins(self, port: str) -> list[Bit]:
        """A port's bits; none where nothing is joined to it."""
        return self.ports[port][1] if port in self.ports else []


@dataclass(frozen=True)
class Clock:
    """What makes a register or a memory take its next value, and what does so at once."""

    clock: Bit
    rising: bool
    reset: Bit | None = None
    resets_at: bool = True


@dataclass(frozen=True)
class Circuit:
    """A flat circuit with boxes.

    Parameters
    ----------
    netlist : Netlist
        Registers are ``$dff``; an asynchronous reset is in what they take too. A bit that is
        undefined is a net that nothing drives.
    boxes : mapping of name to Box
    clocks : mapping of register bit to Clock
    """

    netlist: Netlist
    boxes: Mapping[str, Box]
    clocks: Mapping[Bit, Clock]

    @cached_property
    def names(self) -> dict[Bit, str]:
        """A name of each bit, the shortest."""
        found: dict[Bit, str] = {}
        for name in sorted(self.netlist.nets, key=lambda n: (len(n), n), reverse=True):
            found.update(dict.fromkeys(self.netlist.nets[name], name))
        return found

    def taken(self, registers: Iterable[Bit]) -> dict[Bit, Bit]:
        """What each of some register bits takes."""
        wanted = set(registers)
        return {
            q: d
            for cell in self.netlist.cells
            if cell.type == "$dff"
            for q, d in zip(cell.output, cell.ports["D"], strict=True)
            if q in wanted
        }

    @cached_property
    def ends(self) -> list[Bit]:
        """The bits that come out, or into a box, and those that registers follow."""
        found = [b for d, bits in self.netlist.ports.values() if d != "input" for b in bits]
        for box in self.boxes.values():
            found += [b for d, bits in box.ports.values() if d != "output" for b in bits]
        clocks = self.clocks.values()
        return found + [b for c in clocks for b in (c.clock, c.reset) if b is not None]

    @cached_property
    def given(self) -> list[Bit]:
        """The bits that come in, or out of a box."""
        found = [b for d, bits in self.netlist.ports.values() if d == "input" for b in bits]
        for box in self.boxes.values():
            found += [b for d, bits in box.ports.values() if d == "output" for b in bits]
        return found

    def live(self) -> set[Bit]:
        """All bits on which an output, or what comes into a box, can depend."""
        takes, makers = self.taken(self.clocks), self.netlist.makers
        todo = list(self.ends)
        found: set[Bit] = set()
        while todo:
            bit = todo.pop()
            if bit in found or not isinstance(bit, int):
                continue
            found.add(bit)
            if bit in takes:
                todo.append(takes[bit])
            elif bit in makers:
                todo += makers[bit].inputs
        return found

    def check(self) -> None:
        """Raises InputError where a bit has several drivers, or depends on itself in a cycle."""
        made = [*self.given, *(bit for cell in self.netlist.cells for bit in cell.output)]
        many = [bit for bit, times in Counter(made).items() if times > 1 and isinstance(bit, int)]
        if many:
            raise InputError(f"net {self.names.get(many[0])} has several drivers")
        makers = {b: c for b, c in self.netlist.makers.items() if c.type != "$dff"}
        done: set[Bit] = set()
        for start in makers:
            path: list[tuple[Bit, bool]] = [(start, False)]
            open_bits: set[Bit] = set()
            while path:
                bit, after = path.pop()
                if after:
                    open_bits.discard(bit)
                    done.add(bit)
                elif bit in open_bits:
                    raise InputError(f"net {self.names.get(bit)} of a loop is not followed")
                elif bit not in done:
                    open_bits.add(bit)
                    path.append((bit, True))
                    cell = makers[bit]
                    reads = cell.ports["RD_ADDR"] if cell.type == MEMORY else cell.inputs
                    path += [(b, False) for b in reads if b in makers]

    @property
    def memories(self) -> dict[str, Cell]:
        """The memories by their names."""
        return {_plain(c.parameters["MEMID"]): c for c in self.netlist.cells if c.type == MEMORY}


def _plain(name: str) -> str:
    return name.removeprefix("\\")


@dataclass(frozen=True)
class Primitives:
    """An architecture's primitives in Yosys.

    Parameters
    ----------
    libraries : tuple of str
        Yosys's files of them, as its synthesis reads them.
    dissolved : str
        A pattern of those of which logic, registers and small memories are made.
    renamed : str
        A script that makes of those with other names the ones that they stand for.
    """

    libraries: tuple[str, ...]
    dissolved: str
    renamed: str = ""


yosys_primitives: ValueFace[[], Primitives] = ARCHITECTURES.face("Yosys primitives")
"""What is known of an architecture's primitives in Yosys."""


@yosys_primitives.of("ice40")
def _ice40(family: str) -> Primitives:
    return Primitives(("+/ice40/cells_sim.v",), r"SB_LUT4|SB_CARRY|SB_DFF\w*")


@yosys_primitives.of("ecp5")
def _ecp5(family: str) -> Primitives:
    return Primitives(
        ("+/lattice/cells_sim_ecp5.v", "+/lattice/cells_bb_ecp5.v"),
        r"LUT[24]|PFUMX|L6MUX21|CCU2C|TRELLIS_FF|TRELLIS_DPR16X4|INV",
        "techmap -map +/lattice/cells_io.vh\n",
    )


def read_circuits(design: str, netlist: Mapping[str, Any], family: str) -> tuple[Circuit, Circuit]:
    """The design and its netlist.

    Parameters
    ----------
    design : str
        RTLIL, as synthesis reads it.
    netlist : mapping
        What place and route reads: Yosys's JSON.
    family : str

    Raises
    ------
    InputError
        A register or a memory is of a kind that is not followed.
    ToolError
        Yosys is missing or refuses one of them.
    """
    known = yosys_primitives(family)
    with tempfile.TemporaryDirectory(prefix="pvq_hw_") as place:
        folder = Path(place)
        (folder / _MODELS).write_text(_models(family, known.dissolved), encoding="utf-8")
        (folder / "top.il").write_text(design, encoding="utf-8")
        modules = {_TOP: copy.deepcopy(netlist["modules"][_TOP])}
        drop_open_outputs({"modules": modules})
        (folder / "top.json").write_text(json.dumps({**netlist, "modules": modules}))
        read = "".join(f"read_verilog -lib {name}\n" for name in known.libraries)
        read += f"read_verilog -overwrite {_MODELS}\n"
        flat = f"hierarchy -check -top {_TOP}\nproc\nflatten\n"
        gate = _run(folder, f"{read}read_json top.json\n{flat}memory_collect\n")
        gold = _run(
            folder,
            f"{read}read_rtlil top.il\n{flat}opt_clean\n{known.renamed}memory_nordff\n"
            f"memory_collect\n{_exploded(gate)}opt_clean\n",
        )
        return _circuit("design", gold), _circuit("netlist", gate)


def _models(family: str, pattern: str) -> str:
    """Yosys's models of the primitives that are dissolved."""
    text = primitives(family)
    defines = re.split(r"^module ", text, maxsplit=1, flags=re.M)[0]
    found = re.findall(rf"^module (?:{pattern}) ?\(.*?^endmodule", text, re.M | re.S)
    return "\n".join([defines, *found])


def _exploded(gate: Mapping[str, Any]) -> str:
    """Makes registers of the memories of which synthesis made them, and logic of constant ones."""
    names = {name.removesuffix("[0]") for name in gate["netnames"] if name.endswith("[0]")}
    script = "select -set few t:$mem_v2 r:WR_PORTS=0 %i\n"
    for name in sorted(names):
        script += f"select -set few @few t:$mem_v2 r:MEMID=\\\\{name} %i %u\n"
    return script + "memory_map @few\n"


def _run(folder: Path, script: str) -> dict[str, Any]:
    (folder / "run.ys").write_text(
        f"{script}select {_TOP}\nwrite_json -selected out.json\n", encoding="utf-8"
    )
    tools.run("yosys", ["-q", "-s", "run.ys"], folder=folder, log=folder / "log")
    found = json.loads((folder / "out.json").read_bytes())["modules"][_TOP]
    (folder / "out.json").unlink()
    return found


def _circuit(name: str, module: Mapping[str, Any]) -> Circuit:
    """A flat module, its registers and boxes told apart."""
    bits = [b for net in module["netnames"].values() for b in net["bits"]]
    for cell in module["cells"].values():
        bits += [b for found in cell["connections"].values() for b in found]
    fresh = count(1 + max((b for b in bits if isinstance(b, int)), default=1))
    boxes: dict[str, Box] = {}
    cells: dict[str, Any] = {}
    clocks: dict[Bit, Clock] = {}
    inner: set[str] = set()
    for key, cell in module["cells"].items():
        if cell["attributes"].get("module_src", "").startswith(_MODELS):
            inner.add(key)
        cell["connections"] = {
            port: [bit if isinstance(bit, int) or bit in "01" else next(fresh) for bit in found]
            for port, found in cell["connections"].items()
        }
        if cell["type"].startswith("$"):
            cells[key] = cell
            continue
        ports = {p: (cell["port_directions"][p], b) for p, b in cell["connections"].items()}
        boxes[key] = Box(cell["type"], cell["parameters"], ports)
    netlist = Netlist.from_json(name, {**module, "cells": cells})
    made: list[Cell] = []
    for cell in netlist.cells:
        made += _registers(cell, clocks, fresh)
    nets = {key: bits for key, bits in netlist.nets.items() if not _within(key, inner)}
    return Circuit(replace(netlist, cells=made, nets=nets), boxes, clocks)


def _within(name: str, scopes: set[str]) -> bool:
    """Whether a net is of one of some modules, or of one within."""
    while name := name.rpartition(".")[0]:
        if name in scopes:
            return True
    return False


def _registers(cell: Cell, clocks: dict[Bit, Clock], fresh: Iterator[int]) -> list[Cell]:
    """A cell; of a register with an asynchronous reset two, what it takes and a plain one."""
    if cell.type not in ("$dff", "$adff"):
        if re.fullmatch(r"\$\w*(ff|latch|sr)\w*", cell.type):
            raise InputError(f"register {cell.name!r} of kind {cell.type} is not followed")
        return [cell]
    clock = Clock(cell.ports["CLK"][0], cell.parameters["CLK_POLARITY"].endswith("1"))
    if cell.type == "$dff":
        clocks.update(dict.fromkeys(cell.output, clock))
        return [cell]
    at = cell.parameters["ARST_POLARITY"].endswith("1")
    clock = replace(clock, reset=cell.ports["ARST"][0], resets_at=at)
    clocks.update(dict.fromkeys(cell.output, clock))
    value: list[Bit] = list(reversed(cell.parameters["ARST_VALUE"]))
    data = cell.ports["D"]
    taken: list[Bit] = [next(fresh) for _ in cell.output]
    a, b = (data, value) if at else (value, data)
    ports = {"A": a, "B": b, "S": cell.ports["ARST"], "Y": taken}
    return [
        Cell(f"{cell.name}$reset", "$mux", ports, {}),
        replace(cell, type="$dff", ports={**cell.ports, "D": taken}),
    ]
