"""A unit's exported Verilog as word-level cells, and what a set of its bits can reach."""

import json
import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pvq_hw.errors import InputError
from pvq_hw.tools import find as tools

__all__ = [
    "Bit",
    "Cell",
    "Netlist",
    "accumulator",
    "depends",
    "each_reset",
    "parameter_register",
    "passing",
    "read_units",
]

Bit = int | str
"""A net's number, or a constant: "0", "1" or "x"."""

_TOP = "accelerator"
_BITWISE = ("$and", "$or", "$xor", "$xnor", "$not", "$mux", "$dff")
# Amaranth calls a module's port as what is first joined to it, which need not be `i__payload`.
_NO_PAYLOAD = re.compile(r"clk|rst|port_\d+_\d+|codes__\w+|flash__\w+|\w*(valid|ready)(_\d+)?")
_INNER = re.compile(r"port_\d+_\d+")
_OUTPUTS = ("Y", "Q", "RD_DATA")


@dataclass(frozen=True)
class Cell:
    """A cell: its ports' bits, least significant first."""

    name: str
    type: str
    ports: Mapping[str, list[Bit]]
    parameters: Mapping[str, str]

    def number(self, name: str) -> int:
        """An integer parameter."""
        return int(self.parameters[name], 2)

    @property
    def output(self) -> list[Bit]:
        """What it drives."""
        return next((self.ports[port] for port in _OUTPUTS if port in self.ports), [])

    @property
    def inputs(self) -> list[Bit]:
        """What it reads, its clock aside."""
        return [
            bit
            for port, bits in self.ports.items()
            if port not in (*_OUTPUTS, "CLK", "WR_CLK", "RD_CLK")
            for bit in bits
        ]

    @property
    def written(self) -> bool:
        """Whether it is a memory with a write port."""
        return self.type == "$mem_v2" and self.number("WR_PORTS") > 0


@dataclass(frozen=True)
class Netlist:
    """A flat module.

    Parameters
    ----------
    name : str
        The unit's, or the whole accelerator's.
    ports : mapping of name to (direction, bits)
    cells : list of Cell
    nets : mapping of name to bits
        With the names of the modules inside, joined by points.
    init : mapping of net number to "0" or "1"
        Of registers that start with a value.
    """

    name: str
    ports: Mapping[str, tuple[str, list[Bit]]]
    cells: list[Cell]
    nets: Mapping[str, list[Bit]]
    init: Mapping[Bit, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, name: str, module: Mapping[str, Any]) -> "Netlist":
        """A module of what Yosys's ``write_json`` wrote."""
        cells = [
            Cell(key, cell["type"], cell["connections"], cell["parameters"])
            for key, cell in module["cells"].items()
            if cell["type"] != "$scopeinfo"
        ]
        init: dict[Bit, str] = {}
        for net in module["netnames"].values():
            value = net["attributes"].get("init")
            if value is not None:
                init |= {
                    bit: digit
                    for bit, digit in zip(net["bits"], reversed(value), strict=False)
                    if digit in "01"
                }
        return cls(
            name,
            {key: (port["direction"], port["bits"]) for key, port in module["ports"].items()},
            cells,
            {key: net["bits"] for key, net in module["netnames"].items()},
            init,
        )

    def port(self, name: str) -> list[Bit]:
        """A port's bits; raises InputError where there is none."""
        if name not in self.ports:
            raise InputError(f"Module of unit {self.name!r} must have a port {name}")
        return self.ports[name][1]

    def net(self, name: str) -> list[Bit]:
        """The bits that a name within the unit has; raises InputError where there is none."""
        if name not in self.nets:
            raise InputError(f"Module of unit {self.name!r} must have a net {name}")
        return self.nets[name]

    def either(self, *names: str) -> list[Bit]:
        """The bits that the first of the names has that is there."""
        return self.net(next((name for name in names if name in self.nets), names[0]))

    @cached_property
    def payloads(self) -> list[Bit]:
        """The bits of all payloads that come in: what is no clock, reset, handshake or loader."""
        return [bit for name in self.payload_ports for bit in self.ports[name][1]]

    @property
    def payload_ports(self) -> list[str]:
        """The names of these ports."""
        return [
            name
            for name, (direction, _) in self.ports.items()
            if direction == "input" and not _NO_PAYLOAD.fullmatch(name)
        ]

    @cached_property
    def makers(self) -> dict[Bit, Cell]:
        """The cell that drives a bit."""
        return {bit: cell for cell in self.cells for bit in cell.output}

    @cached_property
    def readers(self) -> dict[Bit, list[Cell]]:
        """The cells that read a bit."""
        found: dict[Bit, list[Cell]] = defaultdict(list)
        for cell in self.cells:
            for bit in set(cell.inputs):
                if isinstance(bit, int):
                    found[bit].append(cell)
        return found

    def reached(self, bits: Iterable[Bit]) -> set[Bit]:
        """Every bit that can depend on ``bits``, through cells, registers and memories.

        Registers, multiplexers and bitwise cells are followed bit by bit, all others as if each
        output depended on each input: what is not reached depends on nothing of ``bits``.
        """
        found: set[Bit] = {bit for bit in bits if isinstance(bit, int)}
        todo = list(found)
        while todo:
            bit = todo.pop()
            for cell in self.readers[bit]:
                for out in depends(cell, bit):
                    if isinstance(out, int) and out not in found:
                        found.add(out)
                        todo.append(out)
        return found


def depends(cell: Cell, bit: Bit) -> list[Bit]:
    """Outputs of a cell that may depend on one of its inputs."""
    out = cell.output
    if cell.type == "$mem_v2":
        width = cell.number("WIDTH")
        control = [b for p in ("RD_ADDR", "RD_EN", "WR_ADDR", "WR_EN") for b in cell.ports[p]]
        if bit in control:
            return out
        lanes = {i % width for i, b in enumerate(cell.ports["WR_DATA"]) if b == bit}
        return [b for i, b in enumerate(out) if i % width in lanes]
    if cell.type not in _BITWISE or bit in cell.ports.get("S", ()):
        return out
    found = []
    for port in ("A", "B", "D"):
        bits = cell.ports.get(port, [])
        found += [out[i] for i, b in enumerate(bits) if b == bit and i < len(out)]
        if bits and bits[-1] == bit and len(bits) < len(out):
            found += out[len(bits) :]  # its sign
    return found


def each_reset(netlist: Netlist) -> list[Netlist]:
    """The netlist with each of its resets as the only one, called ``rst``: where codes are loaded,
    units are also reset while they are."""
    muxes = {name: [cell for cell in netlist.readers[bits[0]]
                    if cell.type == "$mux" and cell.ports["S"] == bits]
             for name, (direction, bits) in netlist.ports.items()
             if name == "rst" or (direction == "input" and _INNER.fullmatch(name))}  # fmt: skip
    resets = [
        name for name, found in muxes.items()
        if name == "rst" or (found and len(found) == len(netlist.readers[netlist.port(name)[0]]))
    ]  # fmt: skip
    views = []
    for name in resets:
        others = [other for other in resets if other != name]
        passed = {
            out: a
            for other in others
            for cell in muxes[other]
            for out, a in zip(cell.output, cell.ports["A"], strict=True)
        }
        ports = {k: v for k, v in netlist.ports.items() if k not in resets}
        ports["rst"] = ("input", netlist.port(name))
        views.append(passing(replace(netlist, ports=ports), passed))
    return views


def passing(netlist: Netlist, passed: Mapping[Bit, Bit]) -> Netlist:
    """The netlist without some multiplexers: other bits stand for what they give."""
    if not passed:
        return netlist

    def instead(bits: list[Bit]) -> list[Bit]:
        found = []
        for bit in bits:
            while bit in passed:
                bit = passed[bit]
            found.append(bit)
        return found

    return Netlist(
        netlist.name,
        {name: (direction, instead(bits)) for name, (direction, bits) in netlist.ports.items()},
        [
            replace(cell, ports={port: instead(bits) for port, bits in cell.ports.items()})
            for cell in netlist.cells
            if passed.keys().isdisjoint(cell.output)
        ],
        {name: instead(bits) for name, bits in netlist.nets.items()},
        netlist.init,
    )


def accumulator(netlist: Netlist, chunks: int, v: int) -> list[Bit]:
    """The bits of an accumulator's output: of every chunk the register that is last."""
    if chunks == 1:
        return netlist.either(f"accumulator{v}.o", f"accumulator{v}.difference0")
    bits: list[Bit] = []
    for j in range(chunks):
        name = f"part{j}_{chunks - 2 - j}" if j < chunks - 1 else f"difference{j}"
        bits += netlist.net(f"accumulator{v}.{name}")
    return bits


def parameter_register(netlist: Netlist, rom: str) -> str:
    """The name of the register of a parameter memory: one word for each cycle of its latency, the
    word that leaves highest."""
    pattern = re.compile(rf"{rom}(_\d+)?\.(.*\.)?pipe")
    return next((name for name in netlist.nets if pattern.fullmatch(name)), f"{rom}.pipe")


def read_units(out: Path, units: Iterable[str]) -> dict[str, Netlist]:
    """The flat netlists of an output's exported Verilog: of each unit by its name, and of the
    whole, by the name ``""``. Read by Yosys with the image's memory files in place.

    Raises
    ------
    InputError
        The Verilog lacks a unit.
    ToolError
        Yosys is missing or refuses the Verilog.
    """
    names = list(units)
    with tempfile.TemporaryDirectory(prefix="pvq_hw_") as place:
        folder = Path(place)
        for file in [*(out / "verilog").glob("*.v"), *(out / "image").glob("*.hex")]:
            shutil.copyfile(file, folder / file.name)
        sources = " ".join(sorted(file.name for file in folder.glob("*.v")))
        start = f"read_verilog {sources}\nhierarchy -check -top {_TOP}\nproc\n"
        _yosys(folder, start + f"write_json top.json\nselect -module {_TOP}\n")
        types = _instances(folder / "top.json")
        missing = [name for name in names if name not in types]
        if missing:
            raise InputError(f"Exported Verilog must have a module of unit {missing[0]!r}")
        modules = {"": _TOP} | {name: types[name] for name in names}
        script = start + "design -save all\n"
        for number, module in enumerate(modules.values()):
            script += (
                f"design -load all\nhierarchy -top {module}\nflatten\nopt_clean\n"
                f"memory_collect\nwrite_json unit{number}.json\n"
            )
        _yosys(folder, script)
        found = {}
        for number, (name, module) in enumerate(modules.items()):
            document = json.loads((folder / f"unit{number}.json").read_text(encoding="utf-8"))
            found[name] = Netlist.from_json(name, document["modules"][module])
    return found


def _yosys(folder: Path, script: str) -> None:
    (folder / "read.ys").write_text(script, encoding="ascii")
    tools.run("yosys", ["-q", "-s", "read.ys"], folder=folder, log=folder / "log")


def _instances(path: Path) -> dict[str, str]:
    """Modules of the top's instances."""
    cells = json.loads(path.read_text(encoding="utf-8"))["modules"][_TOP]["cells"]
    return {name: cell["type"] for name, cell in cells.items() if not cell["type"].startswith("$")}
