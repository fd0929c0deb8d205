"""Nothing that a payload reaches decides control: shown on the netlist of every unit."""

import re
from dataclasses import dataclass

from pvq_hw.engine.dataflow import GraphSpec
from pvq_hw.engine.units import Fork, Pick
from pvq_hw.errors import CheckError
from sim.proof.netlist import Bit, Cell, Netlist

__all__ = ["Structure", "check_structure", "check_wiring"]

# Modules inside a core that know nothing of activations.
_CONTROL = re.compile(
    r"(^|\.)(decoder\d+|sequencer|codes|weights|credits|walk|(mult|bias)(_\d+)?)\."
)
_STROBE = re.compile(
    r"(^|\.)(controls\d+_\d+|(group_start|group_end|row_end|word_valid)_\d+|first|start)$"
)
_HANDSHAKE = re.compile(r"(^|__|\.)(valid|ready|w_en|load|popped|written|release)$")
_MOST = 5


@dataclass(frozen=True)
class Structure:
    """What a netlist's payload reaches.

    Parameters
    ----------
    control, data : int
        Bits of registers that no payload reaches, and that one does.
    memories : int
        Memories whose addresses and enables no payload reaches.
    tables : int
        Read-only memories that a payload addresses: functions of it.
    leaks : list of str
        Where a payload decides control.
    """

    control: int
    data: int
    memories: int
    tables: int
    leaks: list[str]


def check_structure(netlist: Netlist, tables: tuple[str, ...] = ()) -> Structure:
    """Follows the payloads through a netlist.

    No payload may reach a ``valid``, a ``ready`` or another strobe, the address or an enable of a
    memory, a clock, or anything within decoders, sequencers, walks and parameter memories.

    Parameters
    ----------
    netlist : Netlist
    tables : tuple of str
        What the names of modules start with whose read-only memory a payload may address.
    """
    reached = netlist.reached(netlist.payloads)
    leaks = [
        f"{name} depends on a payload"
        for name, bits in sorted(netlist.nets.items())
        if any(kind.search(name) for kind in (_HANDSHAKE, _CONTROL, _STROBE))
        and not reached.isdisjoint(bits)
    ]
    control = data = memories = looked_up = 0
    for cell in netlist.cells:
        if cell.type == "$dff":
            count = sum(bit in reached for bit in cell.ports["Q"])
            data += count
            control += len(cell.ports["Q"]) - count
        clocks = [p for p in ("CLK", "WR_CLK", "RD_CLK") if p in cell.ports]
        pins = _pins(cell, tables)
        looked_up += cell.type == "$mem_v2" and "RD_ADDR" not in pins
        memories += cell.type == "$mem_v2" and "RD_ADDR" in pins
        leaks += [
            f"{_shown(netlist, cell)} has a {pin} that depends on a payload"
            for pin in (*clocks, *pins)
            if not reached.isdisjoint(_real(cell.ports[pin]))
        ]
    return Structure(control, data, memories, looked_up, leaks[:_MOST])


def check_wiring(netlist: Netlist, graph: GraphSpec) -> int:
    """Compares the nets of every stream where it is given and where it is taken, in the netlist of
    the whole; returns how many streams. Raises CheckError where they are not the same ones.

    The input's ``ready`` is left aside, which is held low in reset.
    """
    givers, readers = {graph.input: "i"}, {graph.output: "o"}
    for unit in graph.units:
        ins, outs = unit.ports
        readers |= {w: f"{unit.name}.{port}" for w, port in zip(unit.inputs, ins, strict=True)}
        givers |= {w: f"{unit.name}.{port}" for w, port in zip(unit.outputs, outs, strict=True)}
    # Payloads pass forks and picks by.
    payloads = dict(givers)
    forks = [unit for unit in graph.units if isinstance(unit, Fork | Pick)]
    for unit in forks:
        payloads |= dict.fromkeys(unit.outputs, payloads[unit.inputs[0]])
    for wire, giver in givers.items():
        for what in ("payload", "valid", "ready")[: 2 if wire == graph.input else 3]:
            if what == "payload" and any(wire in unit.inputs for unit in forks):
                continue
            end = payloads[wire] if what == "payload" else giver
            given, taken = (_stream(netlist, x, what) for x in (end, readers[wire]))
            if given != taken:
                raise CheckError(f"Stream {wire!r} must have the {what} of {giver} at its reader")
    return len(givers)


def _stream(netlist: Netlist, end: str, what: str) -> list[Bit]:
    """A member of a stream; a FIFO's payload goes to its queue, and a table's to its address,
    without a name of its own."""
    unit, _, side = end.rpartition(".")
    names = {"i": ("w_data", "addr"), "o": ("r_data",)}.get(side, ()) if what == "payload" else ()
    inner = [f"{unit}.{name}" for name in (*names, *(f"queue.{name}" for name in names[:1]))]
    return netlist.either(f"{end}__{what}", *inner, f"{unit}.queue.{side}__{what}")


def _pins(cell: Cell, tables: tuple[str, ...]) -> tuple[str, ...]:
    """The pins of a memory by which a payload would decide what is read or written."""
    if cell.type != "$mem_v2":
        return ()
    is_table = not cell.written and any(
        re.match(rf"{re.escape(table)}\w*\.", cell.name) for table in tables
    )
    return ("RD_EN",) if is_table else ("RD_ADDR", "RD_EN", "WR_ADDR", "WR_EN")


def _real(bits: list[Bit]) -> list[Bit]:
    return [bit for bit in bits if isinstance(bit, int)]


def _shown(netlist: Netlist, cell: Cell) -> str:
    if cell.type == "$mem_v2":
        return f"memory {cell.name}"
    names = [name for name, bits in netlist.nets.items() if bits == cell.output]
    return f"register {min(names, key=len) if names else cell.name}"
