"""A netlist's cells as formulas over bit vectors, for a solver: now and a cycle later."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pvq_hw.errors import InputError
from sim.proof.netlist import Bit, Cell, Netlist

__all__ = ["Formulas", "Solver", "solver_version"]

_COMPARE = {"$lt": "BV_ULT", "$le": "BV_ULE", "$gt": "BV_UGT", "$ge": "BV_UGE"}
_COMPARE_SIGNED = {"$lt": "BV_SLT", "$le": "BV_SLE", "$gt": "BV_SGT", "$ge": "BV_SGE"}
_SHIFTS = {
    "$shl": "BV_SHL",
    "$sshl": "BV_SHL",
    "$shr": "BV_SHR",
    "$sshr": "BV_ASHR",
    "$shift": "BV_SHR",
}
_JOIN = {"$and": "BV_AND", "$or": "BV_OR", "$xor": "BV_XOR", "$add": "BV_ADD", "$sub": "BV_SUB",
         "$mul": "BV_MUL"}  # fmt: skip


def solver_version() -> str | None:
    """Bitwuzla's version, or None where it is not installed."""
    try:
        import bitwuzla
    except ImportError:
        return None
    return str(bitwuzla.version())


class Solver:
    """Terms of bit vectors and a solver of them: Bitwuzla.

    Raises
    ------
    InputError
        Bitwuzla is not installed.
    """

    def __init__(self) -> None:
        try:
            import bitwuzla
        except ImportError:
            raise InputError(
                "what holds for any pauses takes a solver: pip install 'pvq-hw[prove]'"
            ) from None
        self._b: Any = bitwuzla
        self._terms = bitwuzla.TermManager()

    def op(self, kind: str, terms: Sequence[Any], indices: Sequence[int] = ()) -> Any:
        """A term of one of Bitwuzla's kinds."""
        return self._terms.mk_term(getattr(self._b.Kind, kind), list(terms), list(indices))

    def number(self, value: int, width: int) -> Any:
        """A constant."""
        return self._terms.mk_bv_value(self._terms.mk_bv_sort(width), value % (1 << width))

    def unknown(self, name: str, width: int) -> Any:
        """A variable."""
        return self._terms.mk_const(self._terms.mk_bv_sort(width), name)

    def function(self, name: str, width: int, result: int) -> Callable[[Any], Any]:
        """An unknown function of a bit vector."""
        sorts = [self._terms.mk_bv_sort(w) for w in (width, result)]
        symbol = self._terms.mk_const(self._terms.mk_fun_sort(sorts[:1], sorts[1]), name)
        return lambda argument: self.op("APPLY", [symbol, argument])

    def concat(self, terms: Sequence[Any]) -> Any:
        """Terms side by side, the first one highest."""
        return self.op("BV_CONCAT", terms) if len(terms) > 1 else terms[0]

    def array(self, name: str, address: int, width: int) -> Any:
        """A memory of unknown contents, given the bits of an address and of a word."""
        sorts = [self._terms.mk_bv_sort(bits) for bits in (address, width)]
        return self._terms.mk_const(self._terms.mk_array_sort(*sorts), name)

    def word(self, memory: Any, address: Any) -> Any:
        """What a memory holds at an address."""
        return self.op("ARRAY_SELECT", [memory, address])

    def resize(self, term: Any, width: int, *, signed: bool = False) -> Any:
        """The low bits, or with zeros or its sign above."""
        has = term.sort().bv_size()
        if has > width:
            return self.op("BV_EXTRACT", [term], [width - 1, 0])
        kind = "BV_SIGN_EXTEND" if signed else "BV_ZERO_EXTEND"
        return term if has == width else self.op(kind, [term], [width - has])

    def add(self, *terms: Any) -> Any:
        """The sum of terms of one width."""
        total = terms[0]
        for term in terms[1:]:
            total = self.op("BV_ADD", [total, term])
        return total

    def both(self, *formulas: Any) -> Any:
        """Their conjunction."""
        return self.op("AND", formulas) if len(formulas) > 1 else formulas[0]

    def same(self, a: Any, b: Any) -> Any:
        """Equality."""
        return self.op("EQUAL", [a, b])

    def choose(self, condition: Any, a: Any, b: Any) -> Any:
        """``condition ? a : b``."""
        return self.op("ITE", [condition, a, b])

    def with_values(self, formula: Any, values: Mapping[Any, int]) -> Any:
        """A formula in which some variables have values."""
        terms = {t: self.number(value, t.sort().bv_size()) for t, value in values.items()}
        return self._terms.substitute_term(formula, terms)

    def follows(self, given: Sequence[Any], claim: Any) -> bool:
        """Whether a claim holds wherever all that is given does."""
        return self.answer([*given, self.op("NOT", [claim])]) == "unsat"

    def possible(self, given: Sequence[Any]) -> bool:
        """Whether all that is given can hold at once."""
        return self.answer(given) == "sat"

    def answer(self, formulas: Sequence[Any], seconds: int = 0) -> str:
        """``"sat"``, ``"unsat"``, or ``"unknown"`` where it takes longer than so many seconds."""
        return str(self._asked(formulas, seconds=seconds).check_sat())

    def values(self, formulas: Sequence[Any], terms: Sequence[Any]) -> list[int]:
        """Values of terms with which all formulas hold, as they can."""
        solver = self._asked(formulas, models=True)
        solver.check_sat()
        return [int(solver.get_value(term).value(10)) for term in terms]

    def _asked(self, formulas: Sequence[Any], *, seconds: int = 0, models: bool = False) -> Any:
        options = self._b.Options()
        if seconds:
            options.set(self._b.Option.TIME_LIMIT_PER, 1000 * seconds)
        if models:
            options.set(self._b.Option.PRODUCE_MODELS, True)
        solver = self._b.Bitwuzla(self._terms, options)
        for formula in formulas:
            solver.assert_formula(formula)
        return solver


class Formulas:
    """A netlist's bits as terms.

    Registers and inputs are variables, cells what they compute from them. What a memory gives, or a
    cell of another kind, is a variable too, which may be anything: a claim that holds for it holds
    for the circuit.

    Parameters
    ----------
    netlist : Netlist
    solver : Solver
    before : Formulas, optional
        The cycle before: registers have what they took in it, and are no variables.
    """

    def __init__(self, netlist: Netlist, solver: Solver, before: "Formulas | None" = None) -> None:
        self._netlist, self._solver, self._before = netlist, solver, before
        self._known: dict[Bit, Any] = {}

    def define(self, bit: Bit, term: Any) -> None:
        """Says what a bit is, in place of what the netlist says; before it is read."""
        self._known[bit] = term

    def memory(self, cell: Cell) -> tuple[Any, Any]:
        """The contents of a memory with one port of each kind, now and after the next edge; before
        what it gives is read. Raises InputError where it has others."""
        ports, s = cell.ports, self._solver
        one = all(cell.number(f"{side}_PORTS") == 1 for side in ("RD", "WR"))
        if not one or cell.number("RD_CLK_ENABLE") or cell.number("OFFSET"):
            raise InputError(f"Memory {cell.name!r} must have one port to read and one to write")
        now = s.array(f"memory {cell.name}", len(ports["WR_ADDR"]), cell.number("WIDTH"))
        word = s.word(now, s.resize(self.read(ports["RD_ADDR"]), len(ports["WR_ADDR"])))
        for i, bit in enumerate(cell.output):
            self.define(bit, s.op("BV_EXTRACT", [word], [i, i]))
        enable, place, data = (self.read(ports[p]) for p in ("WR_EN", "WR_ADDR", "WR_DATA"))
        kept = s.op("BV_AND", [s.word(now, place), s.op("BV_NOT", [enable])])
        new = s.op("BV_OR", [kept, s.op("BV_AND", [data, enable])])
        return now, s.op("ARRAY_STORE", [now, place, new])

    def read(self, bits: Sequence[Bit]) -> Any:
        """Their value, the first bit lowest."""
        terms = [self._bit(bit) for bit in reversed(bits)]
        return self._solver.concat(terms)

    def later(self, bits: Sequence[Bit]) -> Any:
        """The value after the next edge of bits that are registers."""
        return self.read([self.next_bit(bit) for bit in bits])

    def is_set(self, bit: Bit) -> Any:
        """Whether a bit is 1."""
        return self._solver.same(self._bit(bit), self._solver.number(1, 1))

    def next_bit(self, bit: Bit) -> Bit:
        """What a register takes at the next edge; a constant stays."""
        if not isinstance(bit, int):
            return bit
        cell = self._netlist.makers.get(bit)
        if cell is None or cell.type != "$dff":
            raise InputError(f"Net {bit} of {self._netlist.name!r} must be a register")
        return cell.ports["D"][cell.output.index(bit)]

    def _bit(self, bit: Bit) -> Any:
        if not isinstance(bit, int):
            return self._solver.number(int(bit == "1"), 1)
        if bit not in self._known:
            self._settle(bit)
        return self._known[bit]

    def _settle(self, wanted: int) -> None:
        """Makes the terms of all that a bit follows from, without recursion."""
        makers, todo = self._netlist.makers, [wanted]
        while todo:
            bit = todo[-1]
            cell = makers.get(bit)
            inner = cell is not None and cell.type not in ("$dff", "$mem_v2")
            missing = [
                b for b in (cell.inputs if inner and cell else ())
                if isinstance(b, int) and b not in self._known
            ]  # fmt: skip
            if bit in self._known:
                todo.pop()
            elif missing:
                todo += missing
            else:
                term = self._term(cell) if inner and cell else None
                if self._before and cell is not None and cell.type == "$dff":
                    self._known[bit] = self._before.read([self.next_bit(bit)])
                elif term is None or cell is None:
                    self._known[bit] = self._solver.unknown(f"net{bit}", 1)
                else:
                    for i, out in enumerate(cell.output):
                        if isinstance(out, int) and out not in self._known:
                            self._known[out] = self._solver.op("BV_EXTRACT", [term], [i, i])
                todo.pop()

    def _term(self, cell: Cell) -> Any | None:
        """What a cell gives, or None where its kind isn't known."""
        s, out, kind = self._solver, len(cell.output), cell.type
        one, nought = s.number(1, 1), s.number(0, 1)

        def port(name: str) -> Any:
            return self.read(cell.ports[name])

        def operand(name: str, width: int) -> Any:
            return s.resize(port(name), width, signed=_signed(cell))

        def truth(formula: Any) -> Any:
            return s.resize(s.choose(formula, one, nought), out)

        def any_of(term: Any) -> Any:
            return s.op("NOT", [s.same(term, s.number(0, term.sort().bv_size()))])

        if kind == "$mux":
            return s.choose(any_of(port("S")), port("B"), port("A"))
        if kind == "$pmux":
            term = port("A")
            for i, select in enumerate(cell.ports["S"]):
                part = self.read(cell.ports["B"][i * out : (i + 1) * out])
                term = s.choose(self.is_set(select), part, term)
            return term
        if kind == "$not":
            return s.op("BV_NOT", [operand("A", out)])
        if kind == "$neg":
            return s.op("BV_NEG", [operand("A", out)])
        if kind == "$pos":
            return operand("A", out)
        if kind in _JOIN:
            return s.op(_JOIN[kind], [operand("A", out), operand("B", out)])
        if kind in _SHIFTS and "1" not in cell.parameters["B_SIGNED"]:
            return self._shifted(cell, port("A"), port("B"))
        if kind == "$reduce_and":
            return truth(s.same(s.op("BV_NOT", [port("A")]), s.number(0, len(cell.ports["A"]))))
        if kind in ("$reduce_or", "$reduce_bool"):
            return truth(any_of(port("A")))
        if kind == "$logic_not":
            return truth(s.op("NOT", [any_of(port("A"))]))
        if kind in ("$logic_and", "$logic_or"):
            join = "AND" if kind == "$logic_and" else "OR"
            return truth(s.op(join, [any_of(port("A")), any_of(port("B"))]))
        wide = max((len(cell.ports[p]) for p in ("A", "B") if p in cell.ports), default=0)
        if kind in ("$eq", "$ne"):
            equal = s.same(operand("A", wide), operand("B", wide))
            return truth(equal if kind == "$eq" else s.op("NOT", [equal]))
        if kind in _COMPARE:
            names = _COMPARE_SIGNED if _signed(cell) else _COMPARE
            return truth(s.op(names[kind], [operand("A", wide), operand("B", wide)]))
        return None

    def _shifted(self, cell: Cell, a: Any, b: Any) -> Any:
        """What a cell that shifts gives: its first operand is as wide as its result at least."""
        s, out, signed = self._solver, len(cell.output), "1" in cell.parameters["A_SIGNED"]
        right = _SHIFTS[cell.type] if signed else _SHIFTS[cell.type].replace("ASHR", "SHR")
        a = s.resize(a, max(len(cell.ports["A"]), out), signed=signed)
        wide = max(a.sort().bv_size(), len(cell.ports["B"]))
        a = s.resize(a, wide, signed=right == "BV_ASHR")
        return s.resize(s.op(right, [a, s.resize(b, wide)]), out)


def _signed(cell: Cell) -> bool:
    return all("1" in cell.parameters[f"{p}_SIGNED"] for p in ("A", "B") if p in cell.ports)
