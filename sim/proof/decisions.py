"""The unit that gives a frame's largest values: its control, for any pauses and resets, and its
list.

A list is made while values come, waits when the frame is whole, and is sent. The unit owes

    results of a frame * (1 if a list waits) + results of the list that is sent

and each value that comes goes into the list behind all that are at least as large, so that the list
has the largest of those that have come, in order, of equal ones the first.
"""

from typing import Any

from pvq_hw.engine.decision import LargestUnit
from pvq_hw.errors import CheckError
from sim.proof.claims import Claims, View
from sim.proof.cones import Cones
from sim.proof.formulas import Solver
from sim.proof.netlist import Netlist

__all__ = ["check_largest", "check_largest_handshakes"]


def check_largest_handshakes(netlist: Netlist, unit: LargestUnit) -> int:
    """Shows by induction that no frame is lost or made; returns how many claims.

    Raises
    ------
    CheckError
        A claim does not follow.
    InputError
        The unit is built in another way, or the solver is not installed.
    """
    return _Control(netlist, unit).run()


def check_largest(netlist: Netlist, unit: LargestUnit) -> int:
    """Shows that what is sent are a frame's largest values and their places, sorted; returns how
    many claims. Errors: `check_largest_handshakes`."""
    return _List(netlist, unit).run()


class _Largest(Claims):
    """Where the unit's registers are."""

    def __init__(self, netlist: Netlist, unit: LargestUnit) -> None:
        width = (unit.size + 4 * unit.count).bit_length() + 4
        super().__init__(netlist, f"Unit {unit.name!r}", width, Solver())
        self._unit, self._count = unit, netlist.net("count")
        self._busy, cones = netlist.port("o__valid")[0], Cones(netlist)
        free = cones.maker(netlist.port("i__ready")[0], "$or").inputs
        flags = [cones.maker(bit, "$not").inputs[0] for bit in free]
        if self._busy not in flags or len(flags) != 2:
            raise CheckError(f"{self._where}: a value must be taken where no list waits")
        self._full = next(bit for bit in flags if bit != self._busy)

    def _take(self) -> Any:
        """Whether a value comes."""
        return self._s.both(*(self._now.one(self._n.port(f"i__{what}")[0])
                              for what in ("valid", "ready")))  # fmt: skip

    def _given(self) -> Any:
        """Whether a result leaves."""
        return self._s.both(*(self._now.one(self._n.port(f"o__{what}")[0])
                              for what in ("valid", "ready")))  # fmt: skip

    def _load(self) -> Any:
        """Whether a list goes on to be sent."""
        return self._s.both(self._now.one(self._full), self._not(self._now.one(self._busy)))

    def _invariants(self, v: View) -> dict[str, Any]:
        s, count = self._s, v.wide(self._count)
        return {
            "values are a frame's": s.op("BV_ULT", [count, self._const(self._unit.size)]),
            "a list that waits is a frame's": self._implies(
                v.one(self._full), s.same(count, self._const(0))
            ),
        }

    def _empty(self, v: View) -> dict[str, Any]:
        return {"the next value is a frame's first": self._s.same(
            v.wide(self._count), self._const(0)
        )}  # fmt: skip


class _Control(_Largest):
    """The claims about control."""

    def _left(self, v: View) -> Any:
        """Results of the list that is sent."""
        more = self._s.add(v.wide(self._n.net("left")), self._const(1))
        return self._if(v.one(self._busy), more)

    def _owed(self, v: View) -> Any:
        waits = self._if(v.one(self._full), self._const(2 * self._unit.count))
        return self._s.add(waits, self._left(v))

    def _invariants(self, v: View) -> dict[str, Any]:
        most = self._const(2 * self._unit.count)
        left = self._s.op("BV_ULE", [self._left(v), most])
        return super()._invariants(v) | {"results are a list's": left}

    def _empty(self, v: View) -> dict[str, Any]:
        nothing = self._s.same(self._owed(v), self._const(0))
        return super()._empty(v) | {"nothing is owed": nothing}

    def _steps(self) -> dict[str, Any]:
        s, now, later, one = self._s, self._now, self._later, self._const(1)
        count, take, given = now.wide(self._count), self._take(), self._given()
        last = s.same(count, self._const(self._unit.size - 1))
        following = s.choose(last, self._const(0), s.add(count, one))
        comes = self._if(s.both(take, last), self._const(2 * self._unit.count))
        stays = s.both(now.one(self._busy), self._not(given))
        output, ready = self._n.port("o__payload"), now.one(self._n.port("i__ready")[0])
        free = s.op("OR", [self._not(now.one(flag)) for flag in (self._full, self._busy)])
        moves = s.op("BV_ULT", [self._far(later), self._far(now)])
        nothing = s.same(self._far(now), s.number(0, self._far(now).sort().bv_size()))
        goes = s.both(now.one(self._n.port("o__ready")[0]), self._not(take))
        return {
            "values are counted": s.same(later.wide(self._count), s.choose(take, following, count)),
            "results are owed for each frame, and no others": s.same(
                s.add(self._owed(later), self._if(given, one)), s.add(self._owed(now), comes)
            ),
            "an offered result stays": self._implies(
                stays,
                s.both(later.one(self._busy), s.same(later.bits(output), now.bits(output))),
            ),
            "a value is taken where no list waits for another one": s.same(ready, free),
            "results move on while they are taken": self._implies(
                goes, s.op("OR", [nothing, moves])
            ),
        }

    def _far(self, v: View) -> Any:
        """How far what is owed is from the output."""
        left = self._s.resize(self._left(v), self._width)
        return self._s.concat([v.bits([self._full]), left])


class _List(_Largest):
    """The claims about values."""

    def _steps(self) -> dict[str, Any]:
        return self._inserted() | self._sent()

    def _inserted(self) -> dict[str, Any]:
        """How the list changes with a value, and with nothing else."""
        s, now, later, unit = self._s, self._now, self._later, self._unit
        (payload,) = self._n.payload_ports
        value, take = now.bits(self._n.port(payload)), self._take()
        place = s.resize(now.bits(self._count), unit.place_bits)
        stays = []
        for k in range(unit.count):
            held = now.bits(self._n.net(f"value_{k}"))
            at_least = s.op("BV_SGE" if unit.x.signed else "BV_UGE", [held, value])
            there = s.op("BV_UGT", [now.wide(self._count), self._const(k)])
            stays.append(s.both(there, at_least))
        claims = {}
        for name, new in (("value", value), ("place", place)):
            words = [self._n.net(f"{name}_{k}") for k in range(unit.count)]
            for k, word in enumerate(words):
                moved = new
                if k:
                    moved = s.choose(stays[k - 1], new, now.bits(words[k - 1]))
                moved = s.choose(stays[k], now.bits(word), moved)
                claims[f"{name} {k} of the list is that of the largest"] = s.same(
                    later.bits(word), s.choose(take, moved, now.bits(word))
                )
        return claims

    def _sent(self) -> dict[str, Any]:
        """That a frame's list is sent, places first."""
        s, now, later, unit = self._s, self._now, self._later, self._unit
        words = [self._n.port("o__payload"),
                 *(self._n.net(f"word_{k}") for k in range(1, 2 * unit.count))]  # fmt: skip
        lists = [now.bits(self._n.net(f"place_{k}")) for k in range(unit.count)]
        loaded = [s.resize(term, unit.out.bits) for term in lists]
        for k in range(unit.count):
            term = now.bits(self._n.net(f"value_{k}"))
            loaded.append(s.resize(term, unit.out.bits, signed=unit.x.signed))
        claims = {}
        for k, word in enumerate(words):
            shifted = now.bits(words[k + 1]) if k + 1 < len(words) else s.number(0, unit.out.bits)
            stays = s.choose(self._given(), shifted, now.bits(word))
            claims[f"word {k} is the list's, in order"] = s.same(
                later.bits(word), s.choose(self._load(), loaded[k], stays)
            )
        return claims
