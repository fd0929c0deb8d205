"""Claims about a circuit's control, shown by induction: of every state that invariants allow, what
holds in the next cycle."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pvq_hw.errors import CheckError
from sim.proof.formulas import Formulas, Solver
from sim.proof.netlist import Bit, Netlist

__all__ = ["Claims", "View"]


class View:
    """Registers at one moment, as terms."""

    def __init__(self, solver: Solver, read: Callable[[Sequence[Bit]], Any], width: int) -> None:
        self._s, self._width = solver, width
        self.bits = read

    def wide(self, bits: Sequence[Bit]) -> Any:
        """Their value, in the width of all sums."""
        return self._s.resize(self.bits(bits), self._width)

    def one(self, bit: Bit) -> Any:
        """Whether a bit is set."""
        return self._s.same(self.bits([bit]), self._s.number(1, 1))


class Claims(ABC):
    """An induction about one circuit.

    Parameters
    ----------
    netlist : Netlist
    where : str
        What begins the message of a claim that does not follow: ``"Core 'fc0'"``.
    width : int
        Bits of all sums: more than any of them takes.
    solver : Solver
    """

    def __init__(self, netlist: Netlist, where: str, width: int, solver: Solver) -> None:
        self._n, self._where, self._width, self._s = netlist, where, width, solver
        self._formulas = Formulas(netlist, solver)
        self._now = View(solver, self._formulas.read, width)
        self._later = View(solver, self._formulas.later, width)
        self._start = View(solver, self._initial, width)
        self._facts: list[Any] = []

    @abstractmethod
    def _invariants(self, v: View) -> dict[str, Any]:
        """What holds in every state."""

    @abstractmethod
    def _empty(self, v: View) -> dict[str, Any]:
        """What holds after configuration and after reset too."""

    @abstractmethod
    def _steps(self) -> dict[str, Any]:
        """What holds from one cycle to the next, out of reset."""

    def run(self) -> int:
        """Shows all claims; returns how many. Raises CheckError where one does not follow."""
        for what in self.broken():
            raise CheckError(f"{self._where}: it does not follow that {what}")
        return sum(len(claims) for _, _, claims in self._cases())

    def broken(self) -> Iterator[str]:
        """The claims that do not follow. Raises CheckError where anything would."""
        for when, given, claims in self._cases():
            if not self._s.possible(given):
                raise CheckError(f"{self._where}: the invariants allow no state")
            for what, claim in claims.items():
                if not self._s.follows(given, claim):
                    yield when + what

    def _cases(self) -> list[tuple[str, list[Any], dict[str, Any]]]:
        """When claims must hold, what is given then, and the claims."""
        later, reset = self._invariants(self._later), self._now.one(self._n.port("rst")[0])
        start = self._invariants(self._start) | self._empty(self._start)
        holds = [*self._facts, *self._invariants(self._now).values(), self._not(reset)]
        return [
            ("after configuration, ", self._facts, start),
            ("after reset, ", [*self._facts, reset], later | self._empty(self._later)),
            ("", holds, later | self._steps()),
        ]

    def _move_on(self, way: Callable[[View], Any], comes: Any) -> Any:
        """That results move on while they are taken and no other comes: a number of the state, 0
        where there are none, falls."""
        s, before, after = self._s, way(self._now), way(self._later)
        arrived = s.same(before, s.number(0, before.sort().bv_size()))
        taken = self._now.one(self._n.port("o__ready")[0])
        falls = s.op("BV_ULT", [after, before])
        return self._implies(s.both(taken, self._not(comes)), s.op("OR", [arrived, falls]))

    def _initial(self, bits: Sequence[Bit]) -> Any:
        """Registers after configuration; those without a value may have any."""
        return self._s.concat([self._initial_bit(bit) for bit in reversed(bits)])

    def _initial_bit(self, bit: Bit) -> Any:
        if not isinstance(bit, int):
            return self._s.number(int(bit == "1"), 1)
        known = self._n.init.get(bit)
        return self._s.number(int(known), 1) if known else self._s.unknown(f"start{bit}", 1)

    # -- terms ----------------------------------------------------------------------------------

    def _const(self, value: int) -> Any:
        return self._s.number(value, self._width)

    def _sum(self, terms: Sequence[Any]) -> Any:
        return self._s.add(self._const(0), *terms)

    def _not(self, formula: Any) -> Any:
        return self._s.op("NOT", [formula])

    def _if(self, condition: Any, term: Any) -> Any:
        return self._s.choose(condition, term, self._const(0))

    def _implies(self, condition: Any, claim: Any) -> Any:
        return self._s.op("IMPLIES", [condition, claim])
