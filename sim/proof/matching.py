"""Which register of a netlist each one of the design has become: a guess, from names and values.

Synthesis keeps the names of most registers. The others (of an iCE40 those that begin with 1, which
are kept inverted) are told by what they do, as in C. A. J. van Eijk, "Sequential equivalence
checking based on structural similarities", IEEE TCAD 19(7), 2000: all of them are taken to be one
and the same, random states tell those apart that then become different, and what is left together
is taken to be the same register, of several the one whose name is likest. A state in which such a
guess proves wrong is looked at as well the next time. Nothing rests on the guess: the claims of
`sim/proof/equivalence.py` are proven of it or not.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from difflib import SequenceMatcher
from typing import Any, NamedTuple

import numpy as np

from pvq_hw.errors import InputError
from sim.proof.evaluate import Evaluator
from sim.proof.netlist import Bit, Netlist
from sim.proof.pieces import pieces
from sim.proof.synthesis import MEMORY, Circuit

__all__ = ["Matching", "Place", "Places", "shared_bits"]


class Place(NamedTuple):
    """A register's bit of the netlist, or a constant, that stands for one of the design.

    Parameters
    ----------
    bit : Bit
    inverted : bool
    named : bool
        Whether it has a name of the other one.
    """

    bit: Bit
    inverted: bool = False
    named: bool = False


Places = dict[Bit, Place]
_Groups = dict[tuple[str, Bit], int]

_DENSITY = np.tile(np.array([0.5, 0.03, 0.97, 0.3, 0.7, 0.15, 0.85, 0.01, 0.99, 0.5]), 100)
"""The share of ones in each random state of a round: where most bits are 1, long carries occur."""
_RUNS = len(_DENSITY)
_CALM = 5  # rounds in which nothing more is told apart
_NEAR, _ASTRAY = 8, 0.1  # a state that was told, with others that have some of its bits
_NOTHING = "0"
_FEW = 40  # states that do not tell registers apart


class Matching:
    """Guesses at a design and its netlist, each better than the one before.

    Parameters
    ----------
    gold, gate : Circuit
        The design, and what was made of it.
    """

    def __init__(self, gold: Circuit, gate: Circuit) -> None:
        live = gold.live()
        self._named = _by_name(gold, gate)
        self._left = [bit for bit in gold.clocks if bit in live and bit not in self._named]
        self._states = _States(gold, gate, self._left) if self._left else None
        self._groups: _Groups = {}

    def places(self, told: Sequence[Mapping[Bit, int]] = ()) -> Places:
        """By register bit of the design the bit of the netlist, or constant, and whether it is the
        inverse; without the registers that have none, or on which nothing depends.

        ``told`` are states of the netlist, as far as they matter, in which what was guessed before
        takes another value.
        """
        found, left, states = dict(self._named), self._left, self._states
        if states:
            states.tell(told)
        groups = self._groups
        while left and states:
            # Those that nothing else has become; then those that share one with another register.
            taken = {place.bit for place in found.values()}
            free = [bit for bit in states.every if bit not in taken]
            more = _by_value(states, found, left, free, groups) or _merged(states, found, left)
            if not more:
                break
            found |= more
            left = [bit for bit in left if bit not in found]
            groups = {}
        return found


def _by_name(gold: Circuit, gate: Circuit) -> Places:
    """Names of modules further out come first: those within a primitive may have moved."""
    found: Places = {}
    nets = gate.netlist.nets
    for name in sorted(gold.netlist.nets, key=lambda name: (name.count("."), name)):
        for bit, other in zip(gold.netlist.nets[name], nets.get(name, ()), strict=False):
            if bit not in gold.clocks:
                continue
            if other in gate.clocks and (bit not in found or isinstance(found[bit].bit, str)):
                found[bit] = Place(other, named=True)
            elif other == gold.netlist.init.get(bit):
                found.setdefault(bit, Place(other, named=True))
    return found


def _by_value(
    states: "_States", found: Places, left: list[Bit], free: list[Bit], group: _Groups
) -> Places:
    """Registers that become what one that is not taken yet becomes, or a constant; ``group``, those
    that were not told apart so far, is brought up to date."""
    if not group:
        group["", _NOTHING] = 0
        group |= {(side, bit): 0 for side, bits in (("a", left), ("b", free)) for bit in bits}
    calm = 0
    while calm < _CALM:
        drawn = {number: states.draw() for number in set(group.values())}
        for (side, bit), number in reversed(group.items()):
            if side == "b":
                drawn[number] = states.told(bit, drawn[number], states.begins(side, bit))
        drawn[group["", _NOTHING]] = np.zeros(_RUNS, dtype=np.int64)
        begun = {key: drawn[n] ^ states.begins(*key) for key, n in group.items() if key[0]}
        states.start({bit: value for (side, bit), value in begun.items() if side == "b"})
        now = states.design(found, {bit: begun["a", bit] for bit in left})
        values = {("a", bit): now[bit] ^ states.begins("a", bit) for bit in left}
        values |= {("b", bit): states.takes[bit] ^ states.begins("b", bit) for bit in free}
        values["", _NOTHING] = np.zeros(_RUNS, dtype=np.int64)
        numbers: dict[Any, int] = {}
        fresh = {
            key: numbers.setdefault((n, values[key].tobytes()), len(numbers))
            for key, n in group.items()
        }
        same = len(set(fresh.values())) == len(set(group.values()))
        calm = calm + 1 if same else 0
        group |= fresh
    sides: dict[int, dict[str, list[Bit]]] = {}
    for (side, bit), number in group.items():
        sides.setdefault(number, {"": [], "a": [], "b": []})[side].append(bit)
    places: Places = {}
    for members in sides.values():
        ours, theirs = members["a"], members["b"]
        if members[""]:
            places |= {bit: Place(str(states.begins("a", bit))) for bit in ours}
        elif theirs:
            for bit, other in states.pairs(ours, theirs):
                inverted = states.begins("a", bit) != states.begins("b", other)
                places[bit] = Place(other, inverted)
    return places


def _merged(states: "_States", found: Places, left: list[Bit]) -> Places:
    """Registers that take what any register of the netlist takes, wherever that does not depend on
    those whose places are not known."""
    states.start({})
    every = list(states.takes)
    taken = np.array([states.takes[bit] for bit in every], dtype=np.int8)
    tries = []
    for _ in range(2):
        fill = {bit: states.draw() for bit in left}
        tries += [
            states.design(found, {bit: value ^ flip for bit, value in fill.items()})
            for flip in (0, 1)
        ]
    places: Places = {}
    for bit in left:
        first, *others = (values[bit] for values in tries)
        known = np.all([first == other for other in others], axis=0)
        if known.sum() < _FEW:
            continue
        for inverted in (False, True):
            at = np.flatnonzero(np.all(taken[:, known] == (first ^ inverted)[known], axis=1))
            if len(at):
                places.setdefault(bit, Place(every[int(at[0])], inverted))
    return places


class _States:
    """Random states of both circuits that agree wherever registers are taken to be the same.

    ``takes`` is what each register of the netlist takes after the last one.
    """

    def __init__(self, gold: Circuit, gate: Circuit, left: list[Bit]) -> None:
        self._circuits = {"a": gold, "b": gate}
        live = gate.live()
        self.every = [bit for bit in gate.clocks if bit in live]
        self._next = {"a": gold.taken(left), "b": gate.taken(self.every)}
        self._design = _Logic(gold, self._next["a"].values())
        self._netlist = _Logic(gate, self._next["b"].values())
        self._random = np.random.default_rng(0)
        self._told: dict[Bit, list[tuple[int, int]]] = {}
        self._drawn: list[Any] = []
        self._shared = dict(shared_bits(gold, gate))
        self._state: dict[Bit, Any] = {}
        self.takes: dict[Bit, Any] = {}

    def begins(self, side: str, bit: Bit) -> int:
        """What a register begins with."""
        return int(self._circuits[side].netlist.init.get(bit, "0"))

    def start(self, state: dict[Bit, Any]) -> None:
        """Another random state of the netlist, in which some registers have values."""
        self._state = dict(state)
        self._netlist.settle(self._value)
        self.takes = {q: self._netlist.value(d, self._value) for q, d in self._next["b"].items()}

    def _value(self, bit: Bit) -> Any:
        if bit not in self._state:
            self._state[bit] = self.told(bit, self.draw())
        return self._state[bit]

    def pairs(self, ours: list[Bit], theirs: list[Bit]) -> list[tuple[Bit, Bit]]:
        """Each of some registers of the design with one of some of the netlist: another one as far
        as they go, the likest names first."""
        if len(theirs) == 1:
            return [(bit, theirs[0]) for bit in ours]
        names = [[self._circuits[side].names.get(bit, "").rpartition(".")[2] for bit in bits]
                 for side, bits in (("a", ours), ("b", theirs))]  # fmt: skip
        alike = {
            (i, j): SequenceMatcher(None, a, b, autojunk=False).find_longest_match().size
            for i, a in enumerate(names[0])
            for j, b in enumerate(names[1])
        }
        found: dict[int, int] = {}
        for free in (set(range(len(theirs))), set()):
            for i, j in sorted(alike, key=alike.__getitem__, reverse=True):
                if i not in found and (j in free or not free):
                    found[i] = j
                    free.discard(j)
        return [(ours[i], theirs[j]) for i, j in found.items()]

    def tell(self, states: Sequence[Mapping[Bit, int]]) -> None:
        """States of the netlist that are among the random ones from now on."""
        self._told = {}
        for number, state in enumerate(states[-_RUNS // _NEAR :]):
            for bit, value in state.items():
                kept = self._random.random(_NEAR) > _ASTRAY
                kept[0] = True
                runs = (number * _NEAR + np.flatnonzero(kept)).tolist()
                self._told.setdefault(bit, []).extend((run, value) for run in runs)

    def told(self, bit: Bit, values: Any, flip: int = 0) -> Any:
        """Values of a bit of the netlist with those of the states that were told."""
        if bit not in self._told:
            return values
        runs, known = zip(*self._told[bit], strict=True)
        values = values.copy()
        values[list(runs)] = np.array(known) ^ flip
        return values

    def design(self, found: Places, fill: Mapping[Bit, Any]) -> dict[Bit, Any]:
        """What registers of the design take in the state that corresponds: those whose places are
        not known, given what they hold."""

        def read(bit: Bit) -> Any:
            if bit in fill:
                return fill[bit]
            place = found.get(bit) or Place(self._shared.get(bit, ""))
            if place.bit == "":
                return self.draw()
            value = self._value(place.bit) if isinstance(place.bit, int) else _constant(place.bit)
            return value ^ place.inverted

        self._design.settle(read)
        return {q: self._design.value(self._next["a"][q], read) for q in fill}

    def draw(self) -> Any:
        """A random bit of each state."""
        if not len(self._drawn):
            drawn = self._random.random((1024, _RUNS), dtype=np.float32) < _DENSITY
            self._drawn = list(drawn.astype(np.int64))
        return self._drawn.pop()


def _constant(bit: str) -> Any:
    return np.full(_RUNS, int(bit == "1"), dtype=np.int64)


def shared_bits(gold: Circuit, gate: Circuit) -> Iterable[tuple[Bit, Bit]]:
    """Bits that come from outside, of both circuits."""
    for name, (direction, bits) in gold.netlist.ports.items():
        if direction != "output" and name in gate.netlist.ports:
            yield from zip(bits, gate.netlist.ports[name][1], strict=False)
    for name, box in gold.boxes.items():
        for port, (direction, bits) in box.ports.items():
            if direction != "input" and name in gate.boxes:
                yield from zip(bits, gate.boxes[name].pins(port), strict=False)
    for memory in gold.memories.values():
        with suppress(InputError):
            for piece in pieces(memory, gate):
                for lane, bit in (
                    piece.lanes(memory) if memory.number("SIZE") <= piece.words else ()
                ):
                    place = piece.port * memory.number("WIDTH") + bit
                    yield memory.ports["RD_DATA"][place], piece.read(lane)


class _Logic:
    """What registers take, of all that they can depend on."""

    def __init__(self, circuit: Circuit, wanted: Iterable[Bit]) -> None:
        cells = [c for c in circuit.netlist.cells if c.type not in ("$dff", MEMORY, "$scopeinfo")]
        driven = {bit for cell in cells for bit in cell.output}
        ends = [bit for bit in wanted if bit in driven]
        used = {bit for cell in cells for bit in cell.inputs if isinstance(bit, int)}
        self._sources = {str(bit): bit for bit in sorted(used - driven, key=str)}
        netlist = Netlist(
            circuit.netlist.name, {}, cells, {name: [bit] for name, bit in self._sources.items()}
        )
        self._driven = driven
        self._run = Evaluator(netlist, _RUNS, cut=list(self._sources), wanted=ends)

    def settle(self, read: Any) -> None:
        for name, bit in self._sources.items():
            self._run.set(name, read(bit))
        self._run.settle()

    def value(self, bit: Bit, read: Any) -> Any:
        if not isinstance(bit, int):
            return _constant(bit)
        found = self._run.get([bit]) if bit in self._driven else read(bit)
        return found if isinstance(found, np.ndarray) else np.full(_RUNS, found, dtype=np.int64)
