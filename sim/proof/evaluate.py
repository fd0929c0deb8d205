"""Runs a netlist on many inputs side by side, and only as far as they can differ.

Where no payload reaches, all runs share one value, a Python integer of any width; elsewhere a
value is an array with an element for each run. The netlist is compiled to Python once.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.errors import InputError
from sim.proof.netlist import Bit, Cell, Netlist

__all__ = ["Evaluator", "Value", "as_signed"]

Value = int | npt.NDArray[Any]

_WIDE = 62  # bits of an array's elements; of more, they are Python integers
_JUNK = 0x5A5A5A5A5A5A5A5A
_BINARY = {
    "$add": "+", "$sub": "-", "$mul": "*", "$and": "&", "$or": "|", "$xor": "^",
}  # fmt: skip
_SHIFTS = ("$shl", "$sshl", "$shr", "$sshr", "$shift")
_COMPARE = {"$eq": "==", "$ne": "!=", "$lt": "<", "$le": "<=", "$gt": ">", "$ge": ">="}


class Evaluator:
    """A netlist with its state.

    Parameters
    ----------
    netlist : Netlist
    runs : int
        Inputs side by side.
    cut : sequence of str
        Names of nets that become inputs; all that gives them is left out, and everything else may
        differ between the runs.
    wanted : iterable of bits, optional
        What is read of it; the rest of the netlist is left out. Everything by default.
    seed : int
        Of the values of registers and memories that have no initial one: another for each run.

    Raises
    ------
    InputError
        The netlist has a cell that is not understood.
    """

    def __init__(
        self,
        netlist: Netlist,
        runs: int,
        *,
        cut: Sequence[str] = (),
        wanted: Iterable[Bit] | None = None,
        seed: int = 0,
    ) -> None:
        self.netlist, self.runs = netlist, runs
        self._random = np.random.default_rng(seed)
        self._cut = {name: netlist.net(name) for name in cut}
        stops = {bit for bits in self._cut.values() for bit in bits}
        inputs = [
            bits
            for name, (direction, bits) in netlist.ports.items()
            if direction == "input" and stops.isdisjoint(bits)
        ]
        cells = _cone(netlist, wanted, stops)
        if cut:
            self._vector = stops | {bit for cell in cells for bit in cell.output}
        else:
            self._vector = netlist.reached(netlist.payloads)
        self._place: dict[Bit, tuple[int, int]] = {}
        self._width: list[int] = []
        self._is_vector: list[bool] = []
        for bits in [*inputs, *self._cut.values(), *(cell.output for cell in cells)]:
            self._add(bits)
        self.values: list[Any] = [0] * len(self._width)
        self._memories: dict[str, Any] = {}
        self._run = self._compile(cells)
        self._registers = [
            (self._place[cell.ports["Q"][0]][0], cell) for cell in cells if cell.type == "$dff"
        ]
        for index, cell in self._registers:
            self.values[index] = self._start(index, cell.ports["Q"])

    def _add(self, bits: list[Bit]) -> None:
        index = len(self._width)
        self._width.append(len(bits))
        self._is_vector.append(any(bit in self._vector for bit in bits))
        for offset, bit in enumerate(bits):
            if isinstance(bit, int):
                if bit in self._place:
                    raise InputError(f"Net {bit} of {self.netlist.name!r} must have one driver")
                self._place[bit] = (index, offset)

    # -- state ----------------------------------------------------------------------------------

    def _start(self, index: int, bits: list[Bit]) -> Any:
        known = sum((self.netlist.init.get(b) == "1") << i for i, b in enumerate(bits))
        unknown = sum((b not in self.netlist.init) << i for i, b in enumerate(bits))
        if not self._is_vector[index]:
            return known | (unknown & self._junk(len(bits)))
        value = self._array(len(bits))
        return value & unknown | known

    def _junk(self, width: int) -> int:
        return int.from_bytes(self._random.bytes(-(-width // 8)), "little") & ((1 << width) - 1)

    def _array(self, width: int) -> Any:
        if width <= _WIDE:
            return self._random.integers(0, 1 << width, self.runs, dtype=np.int64)
        return np.array([self._junk(width) for _ in range(self.runs)], dtype=object)

    def set(self, name: str, value: Value) -> None:
        """Sets an input port or a net that was cut."""
        bits = self._cut[name] if name in self._cut else self.netlist.port(name)
        self.values[self._place[bits[0]][0]] = value

    def get(self, bits: list[Bit]) -> Value:
        """The value of some bits, unsigned."""
        total: Any = 0
        for position, bit in enumerate(bits):
            if isinstance(bit, int):
                index, offset = self._place[bit]
                total = total | ((self.values[index] >> offset) & 1) << position
            elif bit == "1":
                total = total | 1 << position
        return total

    def reader(self, nets: Sequence[list[Bit]]) -> Callable[[], list[Value]]:
        """What gives the values of several nets, as `get` does one after the other, but faster."""
        text = f"lambda v: [{', '.join(self._operand(bits) for bits in nets)}]"
        read = eval(compile(text, f"<{self.netlist.name}>", "eval"), {"O": _object})
        return lambda: list(read(self.values))

    def settle(self) -> None:
        """Computes what follows from inputs and state."""
        self._run[0](self.values, self._memories)

    def clock(self) -> None:
        """A rising edge; `settle` comes before it."""
        self._run[1](self.values, self._memories)

    # -- compilation ----------------------------------------------------------------------------

    def _compile(self, cells: list[Cell]) -> tuple[Callable[..., None], Callable[..., None]]:
        settle, clock, late = ["def settle(v, m):"], ["def clock(v, m):"], []
        for cell in self._ordered(cells):
            settle.append(f"    v[{self._place[_first(cell.output)][0]}] = {self._cell(cell)}")
        for number, cell in enumerate(cells):
            if cell.type == "$dff":
                index = self._place[_first(cell.output)][0]
                clock.append(f"    r{number} = {self._operand(cell.ports['D'])}")
                late.append(f"    v[{index}] = {self._as_is(index, f'r{number}')}")
            elif cell.written:
                late += self._write(cell, number, clock)
        text = "\n".join([*settle, "    return", *clock, *late, "    return"])
        space: dict[str, Any] = {
            "where": np.where, "take": self._take, "lookup": _lookup, "O": _object, "B": _bit,
            "array": self._broadcast, "store": _store,
        }  # fmt: skip
        exec(compile(text, f"<{self.netlist.name}>", "exec"), space)
        return space["settle"], space["clock"]

    def _ordered(self, cells: list[Cell]) -> list[Cell]:
        """Combinational cells, each after those that it reads."""
        makers = {
            bit: cell for cell in cells if cell.type != "$dff" for bit in cell.output
            if isinstance(bit, int)
        }  # fmt: skip
        done: dict[str, bool] = {}
        found: list[Cell] = []
        for start in makers.values():
            stack = [(start, False)]
            while stack:
                cell, after = stack.pop()
                if after:
                    if not done[cell.name]:
                        done[cell.name] = True
                        found.append(cell)
                    continue
                if cell.name in done:
                    if not done[cell.name] and any(c is cell and a for c, a in stack):
                        raise InputError(f"Netlist {self.netlist.name!r} must have no loops")
                    continue
                done[cell.name] = False
                stack.append((cell, True))
                bits = cell.ports["RD_ADDR"] if cell.type == "$mem_v2" else cell.inputs
                stack += [(makers[bit], False) for bit in set(bits) if bit in makers]
        return found

    def _cell(self, cell: Cell) -> str:
        kind, out = cell.type, len(cell.output)
        mask = (1 << out) - 1
        if kind == "$mem_v2":
            return self._read(cell)
        if kind == "$mux":
            a, b = self._operand(cell.ports["A"], out), self._operand(cell.ports["B"], out)
            s = self._operand(cell.ports["S"])
            if self._any(cell.ports["S"]):
                return f"where({s} != 0, {b}, {a})"
            return f"({b} if {s} else {a})"
        if kind == "$pmux":
            text = self._operand(cell.ports["A"], out)
            for i, select in enumerate(cell.ports["S"]):
                b = self._operand(cell.ports["B"][i * out : (i + 1) * out], out)
                s = self._operand([select])
                vector = self._any([select])
                text = f"where({s} != 0, {b}, {text})" if vector else f"({b} if {s} else {text})"
            return text
        a = self._operand(cell.ports["A"], out)
        if kind == "$not":
            return f"(~{self._extended(cell, 'A', out)} & {mask})"
        if kind == "$pos":
            return f"({self._extended(cell, 'A', out)} & {mask})"
        if kind == "$neg":
            return f"(-{self._extended(cell, 'A', out)} & {mask})"
        if kind == "$reduce_and":
            return f"B({a} == {(1 << len(cell.ports['A'])) - 1})"
        if kind in ("$reduce_or", "$reduce_bool"):
            return f"B({a} != 0)"
        if kind == "$logic_not":
            return f"B({a} == 0)"
        if kind in _SHIFTS:
            if "1" in cell.parameters["B_SIGNED"]:
                raise InputError(f"Cell {cell.name!r} must shift by an unsigned number")
            b = self._operand(cell.ports["B"])
            wide = self._extended(cell, "A", out)
            if kind in ("$shr", "$shift"):
                wide = f"({wide} & {(1 << max(out, len(cell.ports['A']))) - 1})"
            return f"(({wide} {'<<' if kind.endswith('shl') else '>>'} {b}) & {mask})"
        if kind in ("$logic_and", "$logic_or"):
            b = self._operand(cell.ports["B"])
            return f"B(({a} != 0) {'&' if kind == '$logic_and' else '|'} ({b} != 0))"
        if kind in _BINARY:
            x, y = self._extended(cell, "A", out), self._extended(cell, "B", out)
            return f"(({x} {_BINARY[kind]} {y}) & {mask})"
        if kind in _COMPARE:
            x, y = self._extended(cell, "A", out), self._extended(cell, "B", out)
            return f"B({x} {_COMPARE[kind]} {y})"
        raise InputError(f"Netlist {self.netlist.name!r} has a cell of unknown kind {kind}")

    def _extended(self, cell: Cell, port: str, out: int) -> str:
        """An operand with its sign, where both operands are signed; of a shift, the first one."""
        bits = cell.ports[port]
        wide = max(out, len(bits))
        text = self._operand(bits, wide)
        ports = "A" if cell.type in _SHIFTS else "AB"
        flags = [cell.parameters[f"{p}_SIGNED"] for p in ports if p in cell.ports]
        if not all("1" in flag for flag in flags):
            return text
        top = 1 << (len(bits) - 1)
        return f"(({text} ^ {top}) - {top})"

    def _any(self, bits: Iterable[Bit]) -> bool:
        return any(bit in self._vector for bit in bits)

    def _operand(self, bits: list[Bit], wide: int = 0) -> str:
        """Some bits as an expression; of arrays with wide elements, integers of Python."""
        terms, constant, at = [], 0, 0
        big = max(wide, len(bits)) > _WIDE and self._any(bits)
        while at < len(bits):
            bit, size = bits[at], 1
            if not isinstance(bit, int):
                constant |= (bit == "1") << at
                at += 1
                continue
            index, offset = self._driver(bit)
            value = f"O(v[{index}])" if big else f"v[{index}]"
            while at + size < len(bits) and bits[at + size] == bit:
                size += 1
            if size > 1:
                text = f"(-({_shifted(value, offset)} & 1) & {(1 << size) - 1})"
            else:
                while at + size < len(bits) and self._place.get(bits[at + size]) == (
                    index,
                    offset + size,
                ):
                    size += 1
                text = _shifted(value, offset)
                if offset + size < self._width[index]:
                    text = f"({text} & {(1 << size) - 1})"
            terms.append(f"({text} << {at})" if at else text)
            at += size
        if constant or not terms:
            terms.append(str(constant))
        return terms[0] if len(terms) == 1 else f"({' | '.join(terms)})"

    def _driver(self, bit: Bit) -> tuple[int, int]:
        if bit not in self._place:
            raise InputError(f"Net {bit} of {self.netlist.name!r} must have a driver")
        return self._place[bit]

    def _as_is(self, index: int, name: str) -> str:
        """A register's next value; an array where runs may differ, of the right kind."""
        return f"array({name}, {self._width[index]})" if self._is_vector[index] else name

    def _broadcast(self, value: Any, width: int) -> Any:
        kind: Any = np.int64 if width <= _WIDE else object
        if isinstance(value, np.ndarray) and value.dtype == kind:
            return value
        if isinstance(value, np.ndarray):
            return value.astype(kind)
        return np.full(self.runs, value, dtype=kind)

    # -- memories -------------------------------------------------------------------------------

    def _read(self, cell: Cell) -> str:
        if cell.number("RD_PORTS") != 1 or cell.number("RD_CLK_ENABLE") or cell.number("OFFSET"):
            raise InputError(f"Memory {cell.name!r} must have one read port without a register")
        width, size = cell.number("WIDTH"), cell.number("SIZE")
        init = cell.parameters["INIT"]
        text = init[::-1]
        words: list[Any] = []
        vector = self._any(cell.output)
        by_address = self._any(cell.ports["RD_ADDR"])
        for i in range(size):
            digits = text[i * width : (i + 1) * width][::-1]
            if digits and set(digits) <= {"0", "1"}:
                words.append(int(digits, 2))
            elif vector and not by_address:
                words.append(self._array(width))
            else:
                words.append(self._junk(width))
        self._memories[cell.name] = words
        address = self._operand(cell.ports["RD_ADDR"])
        if by_address:
            if cell.written:
                raise InputError(f"Memory {cell.name!r} must not be addressed by a payload")
            self._memories[cell.name] = np.array(words, dtype=np.int64)
            return f"lookup(m[{cell.name!r}], {address})"
        return f"take(m[{cell.name!r}], {address})"

    def _take(self, words: list[Any], address: int) -> Any:
        return words[address] if address < len(words) else _JUNK & 1

    def _write(self, cell: Cell, number: int, clock: list[str]) -> list[str]:
        if cell.number("WR_PORTS") != 1:
            raise InputError(f"Memory {cell.name!r} must have one write port")
        if self._any(cell.ports["WR_EN"]) or self._any(cell.ports["WR_ADDR"]):
            raise InputError(f"Memory {cell.name!r} must not be written as a payload says")
        clock.append(
            f"    w{number} = ({self._operand(cell.ports['WR_EN'])}, "
            f"{self._operand(cell.ports['WR_ADDR'])}, {self._operand(cell.ports['WR_DATA'])})"
        )
        return [f"    store(m[{cell.name!r}], *w{number})"]


def as_signed(value: Value, bits: int) -> npt.NDArray[np.int64]:
    """A value of so many bits in two's complement."""
    array = np.asarray(value, dtype=np.int64)
    return np.asarray((array ^ (1 << (bits - 1))) - (1 << (bits - 1)), dtype=np.int64)


def _first(bits: list[Bit]) -> Bit:
    return next(bit for bit in bits if isinstance(bit, int))


def _shifted(value: str, offset: int) -> str:
    return f"({value} >> {offset})" if offset else value


def _object(value: Any) -> Any:
    return value.astype(object) if isinstance(value, np.ndarray) else value


def _bit(value: Any) -> Any:
    return value.astype(np.int64) if isinstance(value, np.ndarray) else int(value)


def _lookup(words: npt.NDArray[np.int64], address: Any) -> Any:
    return words[np.minimum(address, len(words) - 1)]


def _store(words: list[Any], enable: int, address: int, data: Any) -> None:
    """Writes the bits that are enabled."""
    if enable and address < len(words):
        words[address] = words[address] & ~enable | data & enable


def _cone(netlist: Netlist, wanted: Iterable[Bit] | None, cut: set[Bit]) -> list[Cell]:
    """The cells that ``wanted`` depends on, as far back as ``cut``; checks every clock."""
    clock = netlist.ports["clk"][1][0] if "clk" in netlist.ports else None
    for cell in netlist.cells:
        if cell.type == "$dff" and (
            cell.ports["CLK"] != [clock] or not cell.number("CLK_POLARITY")
        ):
            raise InputError(f"Register {cell.name!r} must follow clk's rising edge")
        if cell.written and set(cell.ports["WR_CLK"]) != {clock}:
            raise InputError(f"Memory {cell.name!r} must follow clk's rising edge")
    if wanted is None:
        return netlist.cells
    makers: Mapping[Bit, Cell] = {
        bit: cell for cell in netlist.cells for bit in cell.output if isinstance(bit, int)
    }
    todo, names = list(wanted), set()
    while todo:
        bit = todo.pop()
        maker = makers.get(bit)
        if bit in cut or maker is None or maker.name in names:
            continue
        if not cut.isdisjoint(maker.output):
            raise InputError(f"Cell {maker.name!r} of {netlist.name!r} must be cut as a whole")
        names.add(maker.name)
        todo += maker.inputs
    return [cell for cell in netlist.cells if cell.name in names]
