"""Carry chains of an ECP5 netlist without the cells that nextpnr would put at their ends.

A CCU2C is two LUTs with a carry. Yosys begins each chain with a constant carry and ends it with one
that nobody reads; nextpnr brings the constant in through a CCU2C of its own, and the other one out
through a further one: four LUTs an adder. Here a chain is put together again: its first carry is
made by the first bit's own LUT, or by one that is left over where the chain has an odd number of
bits, and what nobody reads ends in nothing. See ``docs/decisions/carry-chains.md``.

Beside exported boards the file is a program by itself: ``python3 carry_chains.py NETLIST.json``
puts a netlist that Yosys wrote in its place with shorter chains.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

__all__ = ["drop_open_outputs", "shorten_carries", "shorten_file"]

Bit = int | str
_ONES = 0xFFFF
_INPUTS = "ABCD"
_NOTHING = "x"  # a port that nextpnr leaves without a net


@dataclass(frozen=True)
class _Half:
    """A LUT of a chain: ``table``'s bit A + 2B + 4C + 8D is the propagate, its lowest four bits by
    A and B the carry where that is 0; ``sum`` is the propagate XOR the carry that comes in."""

    inputs: tuple[Bit, ...]
    table: int
    sum: Bit | None

    def fixed(self, port: int) -> bool:
        return isinstance(self.inputs[port], str)

    def propagates(self, a: int, b: int) -> int:
        c, d = (int(self.inputs[port] == "1") for port in (2, 3))
        return self.table >> (a + 2 * b + 4 * c + 8 * d) & 1

    def carries(self, carry: int) -> int:
        """By A and B the carry out for a carry in, where C and D are constants."""
        found = 0
        for place in range(4):
            p = self.propagates(place & 1, place >> 1)
            found |= (carry if p else self.table >> place & 1) << place
        return found


def _carry_of(table: int, inputs: tuple[Bit, ...] = ("1", "1")) -> _Half:
    """Gives a function of A and B as the carry, whatever comes in."""
    return _Half((*inputs, "1", "1"), table, None)


def shorten_file(netlist: Path) -> None:
    """Puts a netlist that Yosys wrote (``-json``) in its place with shorter chains."""
    design = json.loads(netlist.read_bytes())
    shorten_carries(design)
    netlist.write_text(json.dumps(design, separators=(",", ":")), encoding="utf-8", newline="\n")


def drop_open_outputs(design: Mapping[str, Any]) -> None:
    """Takes away, in place, outputs that nextpnr is to leave without a net: Yosys, which reads a
    netlist for simulation, takes an undefined value for one."""
    for module in design["modules"].values():
        for cell in module["cells"].values():
            for port, wires in list(cell["connections"].items()):
                if wires == [_NOTHING] and cell["port_directions"][port] == "output":
                    del cell["connections"][port], cell["port_directions"][port]


def shorten_carries(design: Mapping[str, Any]) -> None:
    """Shortens the chains of all modules, in place.

    Parameters
    ----------
    design : mapping
        A netlist of ECP5 cells, as Yosys's ``write_json`` gives it.
    """
    for module in design["modules"].values():
        if any(cell["type"] == "CCU2C" for cell in module["cells"].values()):
            _Chains(module).shorten()


class _Chains:
    def __init__(self, module: Mapping[str, Any]) -> None:
        self._cells: dict[str, Any] = module["cells"]
        bits = [b for net in module["netnames"].values() for b in net["bits"]]
        self._uses: Counter[Bit] = Counter(b for p in module["ports"].values() for b in p["bits"])
        self._after: dict[Bit, str] = {}  # the cell that takes a carry
        for name, cell in self._cells.items():
            for port, wires in cell["connections"].items():
                bits += wires
                if cell["port_directions"][port] != "output":
                    self._uses.update(wires)
                if cell["type"] == "CCU2C" and port == "CIN":
                    self._after[wires[0]] = name
        self._next = 1 + max(b for b in bits if isinstance(b, int))

    def shorten(self) -> None:
        names = [name for name, cell in self._cells.items() if cell["type"] == "CCU2C"]
        made = {self._wire(name, "COUT") for name in names}
        starts = {name: self._wire(name, "CIN") for name in names}
        for name, start in starts.items():
            if start not in made:
                self._rebuild(list(self._chain(name)), start or "0")
            elif self._uses[start or 0] > 1:  # a carry that logic reads too
                self._end(list(self._chain(name)))

    def _wire(self, name: str, port: str) -> Bit | None:
        wires = self._cells[name]["connections"].get(port) or [None]
        found: Bit | None = wires[0]
        return None if found == _NOTHING else found

    def _chain(self, name: str) -> Iterator[str]:
        """The cells from this one on whose carries nobody else reads."""
        while True:
            yield name
            carry = self._wire(name, "COUT")
            if carry is None or carry not in self._after or self._uses[carry] != 1:
                return
            name = self._after[carry]

    def _end(self, names: list[str]) -> Bit | None:
        """The carry out of a chain, where it is read."""
        end = self._wire(names[-1], "COUT")
        if end is None or self._uses[end]:
            return end
        self._cells[names[-1]]["connections"]["COUT"] = [_NOTHING]
        return None

    def _rebuild(self, names: list[str], start: Bit) -> None:
        end = self._end(names)
        if end in self._after:
            return
        if any("YES" in self._cells[name]["parameters"][f"INJECT1_{i}"]
               for name in names for i in (0, 1)):  # fmt: skip
            return
        halves = [half for name in names for half in self._halves(name)]
        if end is not None:
            halves.append(replace(_carry_of(0), sum=end))  # the sum of a 0 is the carry
        while halves and halves[-1].sum is None:
            halves.pop()
        first = self._cells[names[0]]
        for name in names[1:]:
            del self._cells[name]
        luts, chain = self._begun(halves, start)
        if not chain:
            del self._cells[names[0]]
        for i, lut in enumerate(luts):
            self._cells[f"{names[0]}$sum{i}"] = _lut(lut, first)
        self._put(chain, names, first)

    def _halves(self, name: str) -> Iterator[_Half]:
        cell = self._cells[name]
        for i in (0, 1):
            inputs = tuple(self._wire(name, f"{port}{i}") for port in _INPUTS)
            result = self._wire(name, f"S{i}")
            used = result is not None and self._uses[result] > 0
            table = int(cell["parameters"][f"INIT{i}"], 2)
            yield _Half(
                tuple("0" if bit is None else bit for bit in inputs),  # type: ignore[misc]
                table, result if used else None,
            )  # fmt: skip

    def _begun(self, halves: list[_Half], start: Bit) -> tuple[list[_Half], list[_Half]]:
        """LUTs apart, and the halves of a chain that needs no carry at its end."""
        if not halves:
            return [], []
        if isinstance(start, int):
            return [], [_carry_of(0xA, (start, "1")), *halves]
        carry = start == "1"
        head, *rest = halves
        free = head.fixed(2) and head.fixed(3)
        alone = replace(head, table=head.table ^ (_ONES if carry else 0))
        own = [alone] if head.sum is not None else []
        if not rest:
            return own, []
        if free and len(rest) == 1 and rest[0].fixed(2) and rest[0].fixed(3):
            return [*own, _joined(head, rest[0], carry)], []
        if free and len(halves) % 2 == 0:
            return own, [_carry_of(head.carries(carry), head.inputs[:2]), *rest]
        return [], [_carry_of(0xF if carry else 0), *halves]

    def _put(self, chain: list[_Half], names: list[str], model: Mapping[str, Any]) -> None:
        """A chain as cells, under the names that its cells had."""
        carry: Bit | None = None
        for number in range(0, len(chain), 2):
            pair = (*chain[number : number + 2], _carry_of(0))[:2]
            place = number // 2
            name = names[place] if place < len(names) else f"{names[-1]}$end"
            wires: dict[str, list[Bit]] = {"CIN": [_NOTHING if carry is None else carry]}
            parameters = {"INJECT1_0": "NO", "INJECT1_1": "NO"}
            for i, half in enumerate(pair):
                wires |= {f"{p}{i}": [bit] for p, bit in zip(_INPUTS, half.inputs, strict=True)}
                parameters[f"INIT{i}"] = f"{half.table:016b}"
                wires[f"S{i}"] = [_NOTHING if half.sum is None else half.sum]
            wires["COUT"] = [_NOTHING]
            if number + 2 < len(chain):
                carry, self._next = self._next, self._next + 1
                wires["COUT"] = [carry]
            self._cells[name] = _cell("CCU2C", parameters, wires, ("S0", "S1", "COUT"), model)


def _joined(head: _Half, tail: _Half, carry: bool) -> _Half:
    """The second sum of two bits as one LUT of both bits' A and B."""
    over, table = head.carries(int(carry)), 0
    for place in range(16):
        low, a, b = place & 3, place >> 2 & 1, place >> 3
        table |= (tail.propagates(a, b) ^ (over >> low & 1)) << place
    return _Half((*head.inputs[:2], *tail.inputs[:2]), table, tail.sum)


def _lut(half: _Half, model: Mapping[str, Any]) -> dict[str, Any]:
    wires: dict[str, list[Bit]] = {p: [b] for p, b in zip(_INPUTS, half.inputs, strict=True)}
    assert half.sum is not None
    return _cell("LUT4", {"INIT": f"{half.table:016b}"}, wires | {"Z": [half.sum]}, ("Z",), model)


def _cell(
    kind: str,
    parameters: dict[str, str],
    wires: dict[str, list[Bit]],
    outputs: tuple[str, ...],
    model: Mapping[str, Any],
) -> dict[str, Any]:
    return {
        "hide_name": model.get("hide_name", 0),
        "type": kind,
        "parameters": parameters,
        "attributes": dict(model.get("attributes", {})),
        "port_directions": {p: "output" if p in outputs else "input" for p in wires},
        "connections": wires,
    }


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: carry_chains.py NETLIST.json")
    shorten_file(Path(sys.argv[1]))
