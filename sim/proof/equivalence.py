"""That a netlist is the circuit of the design it was made of: for all inputs and states.

A register of the design is a register of the netlist, its inverse, or a constant; a small memory is
the pieces that it was cut into. Given that they are so in one cycle, they are in the next one, they
begin so, and all that comes out of either circuit, or into an instance of a primitive, is the same:
then the two are one circuit, by induction over the cycles. Within a cycle the values of all wires
follow from registers and from what primitives give, as neither circuit has loops.

Which register is which is a guess (`sim/proof/matching.py`): a wrong one proves nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pvq_hw.errors import CheckError, InputError
from sim.proof.formulas import Formulas, Solver
from sim.proof.matching import Matching, Places, shared_bits
from sim.proof.netlist import Bit, Cell
from sim.proof.pieces import Piece, pieces, same_contents
from sim.proof.synthesis import MEMORY, Box, Circuit
from sim.proof.undefined import undefined_bits

__all__ = ["Counts", "UnprovenError", "check_equivalence"]

_SECONDS = 60  # that a claim may take
_TRIES = 40  # at a correspondence, where guesses were mistaken
_STATES = 100  # that are looked for in each of them
_MOST = 5  # registers in a counterexample, and claims in a message


class UnprovenError(Exception):
    """Claims are neither proven nor refuted; the text names them."""


@dataclass
class Counts:
    """Bits that were compared: of registers, into instances and out, of memories."""

    registers: int = 0
    inputs: int = 0
    memories: int = 0


@dataclass(frozen=True)
class _Claim:
    """A formula about bits of the design that holds if the circuits are the same; ``ours`` and
    ``theirs`` are what it says of the design and the netlist."""

    what: str
    bits: Sequence[Bit]
    holds: Any
    ours: Any = None
    theirs: Any = None


@dataclass(frozen=True)
class _Difference:
    what: str
    wrong: bool = True
    bits: Sequence[Bit] = ()
    when: str = ""


def check_equivalence(gold: Circuit, gate: Circuit, told: Callable[[int, int], None]) -> Counts:
    """Shows that a netlist is its design; ``told`` hears of how many registers of how many.

    Raises
    ------
    CheckError
        The netlist is another circuit: where, and when.
    InputError
        One of them is not followed, or the solver is not installed.
    UnprovenError
        Some claims are not shown.
    """
    for circuit in (gold, gate):
        circuit.check()
    matching = Matching(gold, gate)
    states: list[dict[Bit, int]] = []
    found: Places = {}
    for _ in range(_TRIES):
        before, found = found, matching.places(states)
        claims = _Equivalence(gold, gate, found)
        mistaken = claims.mistaken()
        states = [state for bit in mistaken[:_STATES] if (state := claims.where_wrong(bit))]
        if not states or found == before:
            break
    while mistaken:
        for bit in mistaken:
            del found[bit]
        claims = _Equivalence(gold, gate, found)
        mistaken = claims.mistaken()
    return claims.run(told)


class _Equivalence:
    """The claims about a design and its netlist.

    Parameters
    ----------
    gold, gate : Circuit
        The design, and what was made of it.
    places : Places
        Where the netlist has each register bit of the design.
    """

    def __init__(self, gold: Circuit, gate: Circuit, places: Places) -> None:
        self._gold, self._gate, self._places = gold, gate, places
        self._s = Solver()
        self._now = Formulas(gate.netlist, self._s)
        self._later = Formulas(gate.netlist, self._s, before=self._now)
        self._design = Formulas(gold.netlist, self._s)
        self._nets: dict[tuple[Bit, Bit, bool], bool] = {}
        self._live = gold.live()
        self._shared = dict(shared_bits(gold, gate))
        self._pieces: list[tuple[Cell, Piece]] = []
        self._still: list[tuple[Cell, int]] = []
        self._found: list[_Difference] = []
        self._free, self._doubtful = undefined_bits(gold)
        self._doubtful |= {bit for bit in gold.clocks if bit in self._live and bit not in places}
        self.count = Counts()
        self._share()

    def run(self, told: Callable[[int, int], None]) -> Counts:
        """Shows all claims but those of `mistaken`.

        Raises
        ------
        CheckError
            The netlist is another circuit: where, and when.
        UnprovenError
            Some claims are not shown.
        """
        registers = [cell for cell in self._gold.netlist.cells if cell.type == "$dff"]
        for number, cell in enumerate(registers):
            told(number, len(registers))
            self._register(cell)
        self._ends()
        for memory, piece in self._pieces:
            self._piece(memory, piece)
        for memory, bit in self._still:
            self._zeros(memory, bit)
        self._judge()
        return self.count

    def _judge(self) -> None:
        """What does not lean on registers whose counterparts are not known is wrong."""
        wrong = [d for d in self._found if d.wrong and not self._leans(d.bits)]
        if wrong:
            first, more = wrong[0], len(wrong) - 1
            rest = f", and {more:,} more" if more else ""
            raise CheckError(f"{first.what}: not as in the design{first.when}{rest}")
        if self._found:
            names = [d.what for d in self._found]
            rest = f" and {len(names) - _MOST:,} more" if len(names) > _MOST else ""
            raise UnprovenError(f"not shown of {', '.join(names[:_MOST])}{rest}")

    def _leans(self, bits: Sequence[Bit]) -> bool:
        return not self._doubtful.isdisjoint(self._cone(self._gold, bits))

    @staticmethod
    def _cone(circuit: Circuit, bits: Sequence[Bit]) -> set[Bit]:
        """Bits of a circuit from which others follow within a cycle."""
        found: set[Bit] = set()
        todo = list(bits)
        while todo:
            bit = todo.pop()
            if isinstance(bit, int) and bit not in found:
                found.add(bit)
                cell = circuit.netlist.makers.get(bit)
                if cell is not None and cell.type != "$dff":
                    todo += cell.inputs
        return found

    # -- what is the same on both sides --------------------------------------------------------

    def _share(self) -> None:
        gold, gate = self._gold, self._gate
        for name, (direction, bits) in gold.netlist.ports.items():
            if direction != "output":
                self._join(bits, gate.netlist.port(name))
        for name, box in gold.boxes.items():
            for port, (direction, bits) in box.ports.items():
                if direction != "input" and name in gate.boxes:
                    self._join(bits, gate.boxes[name].pins(port))
        for bit, place in self._places.items():
            self._define(bit, self._placed(self._now, place.bit, place.inverted))
        for memory in gold.memories.values():
            try:
                found = pieces(memory, gate)
            except InputError as reason:
                self._found.append(_Difference(str(reason), wrong=False))
                self._doubtful.update(b for b in memory.output if isinstance(b, int))
                continue
            self._pieces += [(memory, piece) for piece in found]
            self._words(memory, found)

    def _join(self, bits: Sequence[Bit], others: Sequence[Bit]) -> None:
        for bit, other in zip(bits, others, strict=False):
            self._define(bit, self._now.read([other]))

    def _define(self, bit: Bit, term: Any) -> None:
        if isinstance(bit, int):
            self._design.define(bit, term)

    def _placed(self, formulas: Formulas, bit: Bit, inverted: bool) -> Any:
        term = formulas.read([bit])
        return self._s.op("BV_NOT", [term]) if inverted else term

    def _words(self, memory: Cell, found: Sequence[Piece]) -> None:
        """What a memory of the design gives is what its pieces do."""
        wide, data = memory.number("WIDTH"), memory.ports["RD_DATA"]
        for port in range(memory.number("RD_PORTS")):
            high = self._high(memory, "RD", port, found[0])
            given: dict[int, Any] = {}
            for piece in sorted((p for p in found if p.port == port), key=lambda p: p.row):
                here = self._s.same(high, self._s.number(piece.row, high.sort().bv_size()))
                for lane, bit in piece.lanes(memory):
                    term = self._now.read([piece.read(lane)])
                    given[bit] = self._s.choose(here, term, given[bit]) if bit in given else term
            for bit in range(wide):
                if bit not in given and data[port * wide + bit] in self._live:
                    self._still.append((memory, bit))
                    given[bit] = self._s.number(0, 1)
                if bit in given:
                    self._define(data[port * wide + bit], given[bit])

    def _low(self, memory: Cell, side: str, port: int, piece: Piece) -> Any:
        """Which word of a piece is meant."""
        bits = (piece.words - 1).bit_length()
        return self._s.resize(self._design.read(_address(memory, side, port)[:bits]), bits)

    def _high(self, memory: Cell, side: str, port: int, piece: Piece) -> Any:
        """Which block of words is."""
        bits = (piece.words - 1).bit_length()
        return self._design.read(_address(memory, side, port)[bits:] or ["0"])

    # -- claims --------------------------------------------------------------------------------

    def mistaken(self) -> list[Bit]:
        """The guesses that do not follow; all others hold where these do."""
        guessed = [bit for bit, place in self._places.items() if not place.named]
        takes = self._gold.taken(guessed)
        return [bit for bit in guessed if not self._holds(bit, takes[bit])]

    def _holds(self, q: Bit, d: Bit) -> bool:
        begun, same, *_ = self._next([(q, d)])
        clocked = isinstance(self._places[q].bit, str) or self._clocked(q, self._places[q].bit)
        denied = [self._s.op("NOT", [same])]
        return begun and clocked and self._s.answer(denied, _SECONDS) == "unsat"

    def where_wrong(self, q: Bit) -> dict[Bit, int]:
        """A state of the netlist in which a mistaken guess takes another value: the bits on which
        that depends; nothing where there is none, or it begins with another one."""
        d, place = self._gold.taken([q])[q], self._places[q].bit
        _, same, *_ = self._next([(q, d)])
        denied = [self._s.op("NOT", [same])]
        if self._s.answer(denied, _SECONDS) != "sat":
            return {}
        ends: list[Bit] = [] if isinstance(place, str) else [self._gate.taken([place])[place]]
        for bit in self._cone(self._gold, [d]):
            known = self._places.get(bit)
            ends.append(self._shared.get(bit, "") if known is None else known.bit)
        makers = self._gate.netlist.makers
        cone = [
            bit
            for bit in self._cone(self._gate, ends)
            if bit not in makers or makers[bit].type in ("$dff", MEMORY)
        ]
        values = self._s.values(denied, [self._now.read([bit]) for bit in cone])
        return dict(zip(cone, values, strict=True))

    def _next(self, pairs: Sequence[tuple[Bit, Bit]]) -> tuple[bool, Any, Any, Any]:
        """Whether some register bits begin as in the netlist, and take what they do there."""
        begun = True
        for q, _ in pairs:
            place, init = self._places[q], self._gold.netlist.init.get(q)
            has: Any = place.bit
            if isinstance(place.bit, int):
                has = self._gate.netlist.init.get(place.bit)
            begun = begun and (
                init is None or (has is not None and (init != has) == place.inverted)
            )
        ours = self._design.read([d for _, d in pairs])
        places = [self._places[q] for q, _ in pairs]
        taken = [self._placed(self._later, p.bit, p.inverted) for p in places]
        theirs = self._s.concat(taken[::-1])
        if self._free.keys().isdisjoint(q for q, _ in pairs):
            return begun, self._s.same(ours, theirs), ours, theirs
        each = [self._can_be(q, d, bit) for (q, d), bit in zip(pairs, taken, strict=True)]
        return begun, self._s.both(*each), ours, theirs

    def _can_be(self, q: Bit, d: Bit, taken: Any) -> Any:
        """That a register bit takes this, whatever undefined bits of its own are taken for."""
        same = self._s.same(self._design.read([d]), taken)
        free = [self._design.read([bit]) for bit in self._free.get(q, [])]
        if not free:
            return same
        choices = [self._s.with_values(same, dict.fromkeys(free, value)) for value in (0, 1)]
        return self._s.op("OR", choices)

    def _register(self, cell: Cell) -> None:
        """A register takes, where the netlist has it, what it takes in the design."""
        pairs = [
            (q, d) for q, d in zip(cell.output, cell.ports["D"], strict=True) if q in self._places
        ]
        self.count.registers += len(pairs)
        pairs = [(q, d) for q, d in pairs if self._places[q].named]
        if not pairs:
            return
        name = f"register {self._gold.names.get(pairs[0][0], cell.name)}"
        begun, same, ours, theirs = self._next(pairs)
        if not begun:
            self._differs(f"{name} begins with another value")
        for q, _ in pairs:
            other = self._places[q].bit
            if isinstance(other, int) and not self._clocked(q, other):
                self._differs(f"{name} follows another clock or reset", [q])
                break
        self._show(_Claim(name, [d for _, d in pairs], same, ours, theirs))

    def _clocked(self, q: Bit, bit: Bit) -> bool:
        a, b = self._gold.clocks[q], self._gate.clocks[bit]
        if (a.rising, a.reset is None) != (b.rising, b.reset is None):
            return False
        if (
            a.reset is not None
            and b.reset is not None
            and not self._one(a.reset, b.reset, inverted=a.resets_at != b.resets_at)
        ):
            return False
        return self._one(a.clock, b.clock)

    def _one(self, a: Bit, b: Bit, *, inverted: bool = False) -> bool:
        """Whether a net of the design is one of the netlist."""
        if (a, b, inverted) not in self._nets:
            other = self._placed(self._now, b, inverted)
            claim = self._s.same(self._design.read([a]), other)
            self._nets[a, b, inverted] = self._s.follows([], claim)
        return self._nets[a, b, inverted]

    def _ends(self) -> None:
        """What comes out, and into instances of primitives."""
        for name, (direction, bits) in self._gold.netlist.ports.items():
            if direction == "output":
                self._same(f"output {name}", bits, self._gate.netlist.port(name))
        for name, box in self._gold.boxes.items():
            other = self._gate.boxes.get(name)
            if other is None or box.type != other.type:
                self._differs(f"{box.type} {name} is missing")
                continue
            self._box(f"{box.type} {name}", box, other)
        for name in self._gate.boxes.keys() - self._gold.boxes.keys():
            self._differs(f"{self._gate.boxes[name].type} {name} is not in the design")

    def _box(self, name: str, box: Box, other: Box) -> None:
        for key in sorted(box.parameters.keys() | other.parameters.keys()):
            if _number(box.parameters.get(key)) != _number(other.parameters.get(key)):
                self._differs(f"{key} of {name}")
        for port in sorted(box.ports.keys() | other.ports.keys()):
            if (box if port in box.ports else other).ports[port][0] != "output":
                self._same(f"{port} of {name}", box.pins(port), other.pins(port))

    def _same(self, what: str, bits: Sequence[Bit], others: Sequence[Bit]) -> None:
        self.count.inputs += len(bits)
        if len(bits) != len(others):
            self._differs(what)
        elif bits:
            ours, theirs = self._design.read(bits), self._now.read(others)
            self._show(_Claim(what, bits, self._s.same(ours, theirs), ours, theirs))

    def _piece(self, memory: Cell, piece: Piece) -> None:
        """What is written is, and where, and what it begins with; and where it is read."""
        s, cell, what = self._s, piece.cell, f"memory {piece.name}"
        lanes = list(piece.lanes(memory))
        self.count.memories += len(lanes) * piece.held(memory)
        (a, rising), (b, other_rising) = (
            (c.ports["WR_CLK"][0], c.parameters["WR_CLK_POLARITY"]) for c in (memory, cell)
        )
        if rising != other_rising or not self._one(a, b):
            self._differs(f"{what} follows another clock")
        if not same_contents(memory, piece):
            self._differs(f"{what} begins with another content")
        high = self._high(memory, "WR", 0, piece)
        here = s.same(high, s.number(piece.row, high.sort().bv_size()))
        low = self._low(memory, "WR", 0, piece)
        place = s.same(low, self._now.read(cell.ports["WR_ADDR"]))
        claims, bits = [], _address(memory, "WR", 0)
        for lane, bit in lanes:
            enable, data = memory.ports["WR_EN"][bit], memory.ports["WR_DATA"][bit]
            writes = s.both(self._design.is_set(enable), here)
            word = s.same(self._design.read([data]), self._now.read([cell.ports["WR_DATA"][lane]]))
            claims += [
                s.same(writes, self._now.is_set(cell.ports["WR_EN"][lane])),
                s.op("IMPLIES", [writes, s.both(word, place)]),
            ]
            bits += [enable, data]
        self._show(_Claim(f"what is written to {what}", bits, s.both(*claims)))
        reads = _address(memory, "RD", piece.port)
        ours = self._low(memory, "RD", piece.port, piece)
        theirs = self._now.read(cell.ports["RD_ADDR"])
        self._show(_Claim(f"where {what} is read", reads, s.same(ours, theirs), ours, theirs))

    def _zeros(self, memory: Cell, bit: int) -> None:
        """A bit of a memory that no piece holds is 0 in all words."""
        wide, ports = memory.number("WIDTH"), memory.ports
        what = f"bit {bit} of memory {memory.parameters['MEMID']}, which is in no piece"
        if "1" in memory.parameters["INIT"][::-1][bit::wide]:
            self._differs(what)
            return
        data, enable = ports["WR_DATA"][bit], ports["WR_EN"][bit]
        zero = self._s.same(self._design.read([data]), self._s.number(0, 1))
        holds = self._s.op("IMPLIES", [self._design.is_set(enable), zero])
        self._show(_Claim(what, [data, enable], holds))

    def _differs(self, what: str, bits: Sequence[Bit] = ()) -> None:
        self._found.append(_Difference(what, bits=bits))

    def _show(self, claim: _Claim) -> None:
        refuted = [self._s.op("NOT", [claim.holds])]
        answer = self._s.answer(refuted, _SECONDS)
        if answer == "unsat":
            return
        if answer != "sat":
            self._found.append(_Difference(claim.what, wrong=False))
            return
        when = self._when(claim, refuted)
        self._found.append(_Difference(claim.what, bits=claim.bits, when=when))

    def _when(self, claim: _Claim, refuted: list[Any]) -> str:
        """A state in which a claim does not hold, in the words of the design."""
        cone = self._cone(self._gold, claim.bits)
        cells = [c for c in self._gold.netlist.cells if c.type == "$dff"]
        cells = [c for c in cells if not cone.isdisjoint(c.output)][:_MOST]
        terms = [self._design.read(cell.output) for cell in cells]
        shown = [] if claim.ours is None else [claim.ours, claim.theirs]
        values = self._s.values(refuted, [*terms, *shown])
        names = [self._gold.names.get(cell.output[0], cell.name) for cell in cells]
        state = ", ".join(f"{n} = {v:,}" for n, v in zip(names, values, strict=False))
        told = f": {values[-1]:,} instead of {values[-2]:,}" if shown else ""
        return f"{told}, where {state}" if state else told


def _address(memory: Cell, side: str, port: int) -> list[Bit]:
    bits = memory.number("ABITS")
    return list(memory.ports[f"{side}_ADDR"][port * bits : (port + 1) * bits])


def _number(value: Any) -> Any:
    """A parameter, a number whatever its width."""
    binary = isinstance(value, str) and value and not set(value) - {"0", "1"}
    return int(value, 2) if binary else value
