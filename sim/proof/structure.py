"""Nothing that a payload reaches decides control: shown on the netlist of every unit."""

import re
from dataclasses import dataclass

from sim.proof.netlist import Bit, Cell, Netlist

__all__ = ["Structure", "check_structure"]

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
