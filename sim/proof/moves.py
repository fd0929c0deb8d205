"""Activations and results on their way: only moved, never computed with."""

from collections.abc import Collection, Iterable, Sequence

from pvq_hw.engine.core import CoreBase
from pvq_hw.engine.line_buffer import WindowSpec
from pvq_hw.engine.pulse_core import CoreSpec
from pvq_hw.errors import CheckError
from sim.proof.netlist import Bit, Cell, Netlist

__all__ = ["check_moves", "check_results", "leaf_activations", "moved"]


def leaf_activations(netlist: Netlist, spec: CoreSpec) -> list[list[Bit]]:
    """What the leaves are given: all lanes of one frame, then those of the next."""
    return [
        netlist.net(f"leaf{p}_{v}.x") for v in range(spec.frames) for p in range(spec.lanes)
    ]  # fmt: skip


def check_moves(
    netlist: Netlist,
    spec: CoreBase,
    ends: Sequence[list[Bit]],
    inverted: int = 0,
    window: WindowSpec | None = None,
) -> int:
    """Follows payloads to where lanes take them, and requantizers' results to the output; returns
    how many bits are there.

    On the way there must be registers, memories, inverters and multiplexers that a payload does not
    choose in, nothing else, and bit k of an activation must stay bit k of one. Where constants are
    mixed in, as for the padding of windows, control chooses them.

    Parameters
    ----------
    netlist : Netlist
    spec : CoreBase
    ends : sequence of lists of bits
        An activation of each lane, all lanes of one frame, then those of the next.
    inverted : int
        A mask of the bits that are inverted once on the way.
    window : WindowSpec, optional
        Where windows of a map are read: lane p takes number ``p mod W`` of a word, which comes with
        that number of a transfer, modulo what one has.

    Raises
    ------
    CheckError
        Something else is on the way, or bits are mixed up.
    """
    where = f"core {spec.name!r}"
    payload, bits = netlist.net("i__payload"), spec.x.bits
    own = {bit: 2 * number for number, bit in enumerate(payload)}
    lanes = len(ends) // spec.frames
    slots = [at // lanes % spec.input_frames for at in range(len(ends))]
    if window is not None:
        slots = [at % lanes % window.width % window.taken for at in range(len(ends))]
    taken = {
        bit: 2 * (slot * bits + k) + (inverted >> k & 1)
        for slot, activation in zip(slots, ends, strict=True)
        for k, bit in enumerate(activation)
    }
    found = moved(netlist, own, taken, where)
    for bit, number in taken.items():
        if found.get(bit, set()) != {number}:
            raise CheckError(f"Activations of {where} must come to its leaves as they are")
    return len(taken) + check_results(netlist, spec)


def check_results(netlist: Netlist, spec: CoreBase) -> int:
    """Follows results from the requantizers to the output, as `check_moves` does; returns how many
    bits a transfer has."""
    where = f"core {spec.name!r}"
    results: dict[Bit, int] = {}
    for v in range(spec.frames):
        given = netlist.either(*(f"requantizer{n}.saturate.{end}" for n in (v, v or "")
                                 for end in ("o", "value")), "fifo.w_data")  # fmt: skip
        own_part = v % spec.output_frames
        results |= {bit: 2 * (own_part * spec.out.bits + k) for k, bit in enumerate(given)}
    output = netlist.net("o__payload")
    found = moved(netlist, results, output, where)
    for number, bit in enumerate(output):
        # Results of windows side by side leave one window after the other, some of a transfer.
        place = number % spec.out.bits if spec.row_windows else number
        if found.get(bit, set()) != {2 * place}:
            raise CheckError(f"Results of {where} must leave as they are")
    return len(output)


def moved(
    netlist: Netlist,
    sources: dict[Bit, int],
    targets: Iterable[Bit],
    where: str,
    past: Collection[str] = (),
) -> dict[Bit, set[int]]:
    """The sources' numbers that come to each bit, up to the targets and the cells named in
    ``past``: even as they are, and one more where they are inverted. Raises CheckError where
    something else is done with them."""
    ends = set(targets)
    found: dict[Bit, set[int]] = {bit: {number} for bit, number in sources.items()}
    todo = list(found)
    while todo:
        bit = todo.pop()
        if bit in ends:
            continue
        for cell in netlist.readers[bit]:
            if cell.name in past:
                continue
            for out, turned in _places(cell, bit, where):
                numbers = found.setdefault(out, set())
                come = {number ^ turned for number in found[bit]}
                if not numbers >= come:
                    numbers |= come
                    todo.append(out)
    return found


def _places(cell: Cell, bit: Bit, where: str) -> list[tuple[Bit, bool]]:
    """Where a cell that only moves puts a bit, and whether it inverts it."""
    ports, out = cell.ports, cell.output
    if cell.type == "$dff":
        return [(out[i], False) for i, b in enumerate(ports["D"]) if b == bit]
    if cell.type in ("$mux", "$pmux") and bit not in ports["S"]:
        return [
            (out[i % len(out)], False)
            for port in ("A", "B")
            for i, b in enumerate(ports[port])
            if b == bit
        ]
    if cell.type == "$not" and len(ports["A"]) == len(out):
        return [(out[i], True) for i, b in enumerate(ports["A"]) if b == bit]
    if cell.type == "$mem_v2" and not any(
        bit in ports[port] for port in ("RD_ADDR", "RD_EN", "WR_ADDR", "WR_EN")
    ):
        width = cell.number("WIDTH")
        lanes = {i % width for i, b in enumerate(ports["WR_DATA"]) if b == bit}
        return [(b, False) for i, b in enumerate(out) if i % width in lanes]
    raise CheckError(
        f"Nothing of {where} must compute with what is only moved, as {cell.type} does"
    )
