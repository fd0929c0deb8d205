"""Nothing that a payload reaches decides control: shown on the netlist of every unit."""

import re
from dataclasses import dataclass

from pvq_hw.engine.dataflow import GraphSpec
from pvq_hw.engine.units import Fork, Pick, Unit, Unpack
from pvq_hw.errors import CheckError, InputError
from sim.proof.netlist import Bit, Cell, Netlist

__all__ = [
    "Structure",
    "batch_number",
    "check_structure",
    "check_wiring",
    "control_ports",
    "factors",
]

# Modules inside a core that know nothing of activations.
_CONTROL = re.compile(
    r"(^|\.)(decoder\d+|sequencer|codes|weights|credits|walk|(mult|bias)(_\d+)?)\."
)
_STROBE = re.compile(
    r"(^|\.)(controls\d+_\d+|(group_start|group_end|row_end|word_valid)_\d+|first|start)$"
)
# How many frames a batch has is control too: it decides what an unpacker reads.
_HANDSHAKE = re.compile(r"(^|__|\.)(valid|ready|w_en|load|popped|written|release|batch__payload)$")
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


def check_structure(
    netlist: Netlist, tables: tuple[str, ...] = (), control: tuple[str, ...] = ()
) -> Structure:
    """Follows the payloads through a netlist.

    No payload may reach a ``valid``, a ``ready`` or another strobe, the address or an enable of a
    memory, a clock, or anything within decoders, sequencers, walks and parameter memories.

    Parameters
    ----------
    netlist : Netlist
    tables : tuple of str
        What the names of modules start with whose read-only memory a payload may address.
    control : tuple of str
        Input ports whose payload is control, see `control_ports`.
    """
    spared = {bit for name in control for bit in netlist.port(name)}
    reached = netlist.reached(bit for bit in netlist.payloads if bit not in spared)
    leaks = [
        f"{name} depends on a payload"
        for name, bits in sorted(netlist.nets.items())
        if any(kind.search(name) for kind in (_HANDSHAKE, _CONTROL, _STROBE))
        and not reached.isdisjoint(bits)
    ]
    kept = data = memories = looked_up = 0
    for cell in netlist.cells:
        if cell.type == "$dff":
            count = sum(bit in reached for bit in cell.ports["Q"])
            data += count
            kept += len(cell.ports["Q"]) - count
        clocks = [p for p in ("CLK", "WR_CLK", "RD_CLK") if p in cell.ports]
        pins = _pins(cell, tables)
        looked_up += cell.type == "$mem_v2" and "RD_ADDR" not in pins
        memories += cell.type == "$mem_v2" and "RD_ADDR" in pins
        leaks += [
            f"{_shown(netlist, cell)} has a {pin} that depends on a payload"
            for pin in (*clocks, *pins)
            if not reached.isdisjoint(_real(cell.ports[pin]))
        ]
    return Structure(kept, data, memories, looked_up, leaks[:_MOST])


def control_ports(netlist: Netlist, unit: Unit) -> tuple[str, ...]:
    """The input ports of a unit whose payload says how many frames a batch has, which no activation
    decides: `check_structure` of the core that counts them shows it."""
    if not isinstance(unit, Unpack):
        return ()
    number, payloads = set(batch_number(netlist)), set(netlist.payloads)
    return tuple(
        name
        for name, (_, bits) in netlist.ports.items()
        if number.issuperset(bits) and payloads.issuperset(bits)
    )


def batch_number(netlist: Netlist, prefix: str = "") -> list[Bit]:
    """What goes into an unpacker's queue of the numbers of batches' last frames: as many bits as
    the number has, with zeros above. Names start with the prefix."""
    for cell in netlist.cells:
        if cell.type == "$mem_v2" and cell.name.startswith(f"{prefix}batches.queue."):
            maker = netlist.makers.get(cell.ports["WR_DATA"][0])
            if maker is not None and maker.type == "$mux":
                return maker.ports["B"]
    raise InputError("numbers of batches are not kept as expected")


def check_wiring(netlist: Netlist, graph: GraphSpec) -> int:
    """Compares the nets of every stream where it is given and where it is taken, in the netlist of
    the whole, those of batches' sizes among them; returns how many streams. Raises CheckError where
    they are not the same ones.

    The input's ``ready`` is low in reset, and where codes are loaded neither its ``valid`` nor its
    ``ready`` goes through while they are and a cycle longer; nor where codes come from the flash
    and aren't right.
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
        for what in ("payload", "valid", "ready"):
            if what == "payload" and any(wire in unit.inputs for unit in forks):
                continue
            end = payloads[wire] if what == "payload" else giver
            given, taken = (_stream(netlist, x, what) for x in (end, readers[wire]))
            if wire == graph.input and what != "payload":
                same = _passes_gate(netlist, what, readers[wire])
            else:
                same = given == taken
                if not same and what != "payload" and "codes_right" in netlist.ports:
                    held = [factors(netlist, bits[0]) - _right(netlist) for bits in (given, taken)]
                    same = held[0] == held[1]
            if not same:
                raise CheckError(f"Stream {wire!r} must have the {what} of {giver} at its reader")
    unpackers = [unit for unit in graph.units if isinstance(unit, Unpack)]
    for unit in unpackers:
        maker = graph.batched(unit)[0]
        for what in ("payload", "valid", "ready"):
            if what == "payload":
                # Of two frames a batch, the number is one bit, and has no name but its register's.
                names = (f"{maker.name}.batch__payload", f"{maker.name}.writer.last")
                given = _real(netlist.either(*names))
                taken = _real(batch_number(netlist, f"{unit.name}."))
            else:
                given = netlist.net(f"{maker.name}.batch__{what}")
                ends = (f"{unit.name}.batch__{what}", f"{unit.name}.batches.i__{what}")
                taken = netlist.either(*ends)
            if given != taken:
                raise CheckError(
                    f"Unpacker {unit.name!r} must have the {what} of {maker.name}'s batches"
                )
    return len(givers) + len(unpackers)


Literals = frozenset[tuple[Bit, bool]]


def _passes_gate(netlist: Netlist, what: str, reader: str) -> bool:
    """Whether the reader's ``valid``, or the ``ready`` given outside, is the other end's and
    nothing but reset and loaded codes holds it back."""
    inner, outer = _stream(netlist, reader, what)[0], netlist.port(f"i__{what}")[0]
    if what == "valid":
        found, expected = factors(netlist, inner), factors(netlist, outer)
    else:
        found = factors(netlist, outer)
        expected = factors(netlist, inner) | {(netlist.port("rst")[0], True)}
    if "codes__load" in netlist.ports:
        load = netlist.port("codes__load")[0]
        later = [q for q, inverted in found - expected if inverted and _is_late(netlist, q, load)]
        expected |= {(load, True), *((q, True) for q in later[:1])}
        return found == expected and len(later) == 1
    if "codes_right" in netlist.ports:  # the engine itself holds its streams back
        return found - _right(netlist) == expected - _right(netlist)
    return found == expected


def _right(netlist: Netlist) -> Literals:
    """That the codes from the flash are right."""
    return frozenset({(netlist.port("codes_right")[0], False)})


def factors(netlist: Netlist, bit: Bit, inverted: bool = False) -> Literals:
    """The bits whose conjunction a bit, or its inverse, is; with each, whether it is inverted."""
    cell = netlist.makers.get(bit)
    if cell is not None and cell.output == [bit]:
        if cell.type == "$not":
            return factors(netlist, cell.ports["A"][0], not inverted)
        if cell.type == ("$or" if inverted else "$and"):
            a, b = (factors(netlist, cell.ports[port][0], inverted) for port in ("A", "B"))
            return a | b
    return frozenset({(bit, inverted)})


def _is_late(netlist: Netlist, bit: Bit, before: Bit) -> bool:
    """Whether a bit is another one a cycle ago, or low after reset."""
    register = netlist.makers.get(bit)
    if register is None or register.type != "$dff" or register.output != [bit]:
        return False
    d = register.ports["D"][0]
    reset = netlist.makers.get(d)
    if reset is not None and reset.type == "$mux" and reset.ports["S"] == netlist.port("rst"):
        d = reset.ports["A"][0] if reset.ports["B"] == ["0"] else d
    return d == before


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
