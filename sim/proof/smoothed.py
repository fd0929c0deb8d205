"""The unit that averages frames: its control, for any pauses and resets, and its averages and
decisions.

A frame's values are taken one after the other, its decision is ready two cycles after the last of
them, and moves to where it is sent from. The unit owes

    2 * (1 if a decision is made or waits) + results of the one that is sent.

The averages stand in a ring that goes round once a frame, so that the one at its end is that of the
value that comes next. Read as a list from the first value's on, one of them changes with its value,
and as the golden model says. The largest of those that have come, and the place of it, are a
comparison behind; so is the average of the class that holds.
"""

from typing import Any

from pvq_hw.engine.decision import SmoothedUnit
from pvq_hw.errors import InputError
from sim.proof.claims import Claims, View
from sim.proof.cones import Bits, Cones
from sim.proof.formulas import Solver
from sim.proof.netlist import Bit, Netlist

__all__ = ["check_smoothed", "check_smoothed_handshakes"]


def check_smoothed_handshakes(netlist: Netlist, unit: SmoothedUnit) -> int:
    """Shows by induction that no frame is lost or made; returns how many claims.

    Raises
    ------
    CheckError
        A claim does not follow.
    InputError
        The unit is built in another way, or the solver is not installed.
    """
    return _Control(netlist, unit).run()


def check_smoothed(netlist: Netlist, unit: SmoothedUnit) -> int:
    """Shows that each average is the moving average of its values from reset on, and each decision
    that of the golden model; returns how many claims. Errors: `check_smoothed_handshakes`."""
    return _Averages(netlist, unit).run()


class _Smoothed(Claims):
    """Where the unit's registers are."""

    def __init__(self, netlist: Netlist, unit: SmoothedUnit) -> None:
        width = max(unit.sum_bits, unit.place_bits) + 3
        super().__init__(netlist, f"Unit {unit.name!r}", width, Solver())
        self._unit, self._cones = unit, Cones(netlist)
        self._count, self._first = netlist.net("count"), netlist.net("first")[0]
        self._closed = self._cones.maker(netlist.port("i__ready")[0], "$not").inputs[0]
        self._final = netlist.either("final_", "final")[0]
        self._full = self._follows(self._final)
        self._busy, self._second = netlist.port("o__valid")[0], netlist.net("second")[0]
        self._words = [netlist.net(f"word_{k}") for k in range(2)]

    def _follows(self, strobe: Bit) -> Bit:
        """The flag that a strobe sets."""
        found = [
            cell.output[0]
            for cell in self._n.cells
            if cell.type == "$dff" and len(cell.output) == 1
            and self._cones.has_maker(self._cones.before(cell.output[0]), "$or")
            and strobe in self._cones.operands(self._cones.before(cell.output[0]), "$or")
        ]  # fmt: skip
        if len(found) != 1:
            raise InputError("control is not built as expected")
        return found[0]

    def _moved(self, side: str) -> Any:
        """Whether there is a transfer of a stream."""
        return self._s.both(*(self._now.one(self._n.port(f"{side}__{what}")[0])
                              for what in ("valid", "ready")))  # fmt: skip

    def _load(self) -> Any:
        """Whether a decision goes on to be sent."""
        return self._s.both(self._now.one(self._full), self._not(self._now.one(self._busy)))

    def _whole(self, v: View) -> Any:
        """Whether a frame has come whose decision is made or waits."""
        return self._s.op("OR", [v.one(self._final), v.one(self._full)])

    def _invariants(self, v: View) -> dict[str, Any]:
        s, count, nothing = self._s, v.wide(self._count), self._const(0)
        return {
            "values are a frame's": s.op("BV_ULT", [count, self._const(self._unit.size)]),
            "a decision is made or waits": self._not(
                s.both(v.one(self._final), v.one(self._full))
            ),
            "no value is taken meanwhile": s.same(v.one(self._closed), self._whole(v)),
            "what is decided is a frame's": self._implies(
                self._whole(v), s.same(count, nothing)
            ),
        }  # fmt: skip

    def _empty(self, v: View) -> dict[str, Any]:
        start = self._s.same(v.wide(self._count), self._const(0))
        return {
            "the next value is a frame's first": start,
            "the next frame begins the averages": v.one(self._first),
            "no frame waits": self._not(self._whole(v)),
        }


class _Control(_Smoothed):
    """The claims about control."""

    def _left(self, v: View) -> Any:
        """Results of the decision that is sent."""
        gone = v.wide([self._second])
        return self._if(v.one(self._busy), self._s.op("BV_SUB", [self._const(2), gone]))

    def _owed(self, v: View) -> Any:
        return self._s.add(self._if(self._whole(v), self._const(2)), self._left(v))

    def _empty(self, v: View) -> dict[str, Any]:
        nothing = self._s.same(self._owed(v), self._const(0))
        return super()._empty(v) | {"nothing is owed": nothing}

    def _steps(self) -> dict[str, Any]:
        s, now, later, one = self._s, self._now, self._later, self._const(1)
        count, take, given = now.wide(self._count), self._moved("i"), self._moved("o")
        last = s.same(count, self._const(self._unit.size - 1))
        following = s.choose(last, self._const(0), s.add(count, one))
        comes = self._if(s.both(take, last), self._const(2))
        ready = now.one(self._n.port("i__ready")[0])
        nothing = s.same(self._far(now), s.number(0, self._far(now).sort().bv_size()))
        falls = s.op("BV_ULT", [self._far(later), self._far(now)])
        goes = s.both(now.one(self._n.port("o__ready")[0]), self._not(take))
        stays = s.both(later.one(self._busy), s.same(self._offered(later), self._offered(now)))
        first = s.both(now.one(self._first), self._not(self._load()))
        return {
            "values are counted": s.same(later.wide(self._count), s.choose(take, following, count)),
            "results are owed for each frame, and no others": s.same(
                s.add(self._owed(later), self._if(given, one)), s.add(self._owed(now), comes)
            ),
            "an offered result stays": self._implies(
                s.both(now.one(self._busy), self._not(given)), stays
            ),
            "a value is taken where no decision waits": s.same(
                ready, self._not(self._whole(now))
            ),
            "the averages begin until a frame is decided": s.same(later.one(self._first), first),
            "results move on while they are taken": self._implies(
                goes, s.op("OR", [nothing, falls])
            ),
            "the class is offered, then the average": s.same(
                now.bits(self._n.port("o__payload")), self._offered(now)
            ),
        }  # fmt: skip

    def _offered(self, v: View) -> Any:
        return self._s.choose(v.one(self._second), *(v.bits(w) for w in self._words[::-1]))

    def _far(self, v: View) -> Any:
        """How far what is owed is from the output."""
        left = self._s.resize(self._left(v), 2)
        return self._s.concat([v.bits([self._final, self._full][::-1]), left])


class _Averages(_Smoothed):
    """The claims about values: of one class, which may be any."""

    def __init__(self, netlist: Netlist, unit: SmoothedUnit) -> None:
        super().__init__(netlist, unit)
        ring = netlist.net("ring")
        self._ring = [ring[k * unit.sum_bits :][: unit.sum_bits] for k in range(unit.size)]
        if [len(slot) for slot in self._ring] != [unit.sum_bits] * unit.size:
            raise InputError("averages are not held as expected")
        self._held = netlist.net("held")
        places = [c.ports["A"] for c in netlist.cells
                  if c.type == "$eq" and c.ports["B"] == self._held]  # fmt: skip
        if len(places) != 1:
            raise InputError("averages are not compared as expected")
        self._place = places[0]
        self._class = self._s.unknown("class", self._width)
        self._facts = [self._s.op("BV_ULT", [self._class, self._const(unit.size)])]

    # -- what is read out of a state ------------------------------------------------------------

    def _value(self, v: View, bits: Bits, *, signed: bool | None = None) -> Any:
        """An average, or a value, in the width of all sums."""
        signed = self._unit.x.signed if signed is None else signed
        return self._s.resize(v.bits(bits), self._width, signed=signed)

    def _average(self, v: View, place: Any) -> Any:
        """What the ring has for a class: at its end for the one whose value comes next."""
        s, count = self._s, v.wide(self._count)
        before = s.op("BV_ULT", [place, count])
        slot = s.op("BV_SUB", [place, count])
        slot = s.choose(before, s.add(slot, self._const(self._unit.size)), slot)
        found = self._value(v, self._ring[-1])
        for number, bits in enumerate(self._ring[:-1]):
            here = s.same(slot, self._const(number))
            found = s.choose(here, self._value(v, bits), found)
        return found

    def _come(self, v: View) -> Any:
        """How many values of the frame have come."""
        return self._s.choose(self._whole(v), self._const(self._unit.size), v.wide(self._count))

    def _best(self, v: View) -> tuple[Any, Any]:
        """The largest average and its place, with the one that is compared."""
        s, (best, place) = self._s, (v.bits(self._n.net(n)) for n in ("best", "best_place"))
        fresh, here = v.bits(self._n.net("fresh")), v.bits(self._place)
        larger = s.op("BV_SGT" if self._unit.x.signed else "BV_UGT", [fresh, best])
        wins = s.op("OR", [s.same(v.wide(self._place), self._const(0)), larger])
        value, at = s.choose(wins, fresh, best), s.choose(wins, here, place)
        return s.resize(value, self._width, signed=self._unit.x.signed), s.resize(at, self._width)

    def _holder(self, v: View) -> tuple[Any, Any]:
        """The average of the class that holds, and what another must exceed, with the one that is
        compared."""
        s = self._s
        fresh, here = self._value(v, self._n.net("fresh")), s.same(
            v.bits(self._place), v.bits(self._held)
        )  # fmt: skip
        kept, bound = self._kept(v)
        return s.choose(here, fresh, kept), s.choose(here, self._above(fresh), bound)

    def _kept(self, v: View) -> tuple[Any, Any]:
        kept = self._value(v, self._n.net("kept"))
        return kept, self._value(v, self._n.net("bound"), signed=True)

    def _above(self, average: Any) -> Any:
        return self._s.add(average, self._const(self._unit.margin << self._unit.shift))

    def _leads(self, v: View, value: Any, place: Any) -> Any:
        """That an average is at least that of the class, and of equal ones the first."""
        s, other = self._s, self._average(v, self._class)
        first = self._implies(s.same(other, value), s.op("BV_ULE", [place, self._class]))
        return s.both(s.op("BV_SLE", [other, value]), first)

    # -- claims ---------------------------------------------------------------------------------

    def _invariants(self, v: View) -> dict[str, Any]:
        return {**super()._invariants(v), **self._range(v), **self._compared(v), **self._kept_up(v)}

    def _range(self, v: View) -> dict[str, Any]:
        s, average = self._s, self._average(v, self._class)
        least, most = (limit << self._unit.shift for limit in self._unit.x.limits)
        has = s.op("BV_ULT", [self._class, self._come(v)])
        known = s.op("OR", [self._not(v.one(self._first)), has])
        within = s.both(
            s.op("BV_SGE", [average, self._const(least)]),
            s.op("BV_SLE", [average, self._const(most)]),
        )
        return {"an average is within the values' range": self._implies(known, within)}

    def _compared(self, v: View) -> dict[str, Any]:
        """What the largest one is of."""
        s, come = self._s, self._come(v)
        some, (value, place) = self._not(s.same(come, self._const(0))), self._best(v)
        last, fresh = v.wide(self._place), self._value(v, self._n.net("fresh"))
        best = self._value(v, self._n.net("best"))
        return {
            "the last average is compared": self._implies(
                some,
                s.both(
                    s.same(s.add(last, self._const(1)), come),
                    s.same(fresh, self._average(v, last)),
                ),
            ),
            "the largest average is that of a value that has come": self._implies(
                some,
                s.both(
                    s.op("BV_ULT", [place, come]), s.same(value, self._average(v, place))
                ),
            ),
            "no other one is larger": self._implies(
                s.op("BV_ULT", [self._class, come]), self._leads(v, value, place)
            ),
            "a decision waits with all compared": self._implies(
                v.one(self._full),
                s.both(
                    s.same(best, value),
                    s.same(v.wide(self._n.net("best_place")), place),
                ),
            ),
        }  # fmt: skip

    def _kept_up(self, v: View) -> dict[str, Any]:
        """What the class that holds has."""
        s, held, later = self._s, v.wide(self._held), self._not(v.one(self._first))
        average, bound = self._holder(v)
        own = self._average(v, held)
        kept, above = self._kept(v)
        return {
            "a class holds": self._implies(
                later, s.op("BV_ULT", [held, self._const(self._unit.size)])
            ),
            "its average is known as soon as its value has come": self._implies(
                s.both(later, s.op("BV_ULT", [held, self._come(v)])),
                s.both(s.same(average, own), s.same(bound, self._above(own))),
            ),
            "a decision waits with that known": self._implies(
                s.both(later, v.one(self._full)),
                s.both(s.same(kept, average), s.same(above, bound)),
            ),
        }

    def _steps(self) -> dict[str, Any]:
        s, now, later, unit = self._s, self._now, self._later, self._unit
        (payload,) = self._n.payload_ports
        value, old = self._value(now, self._n.port(payload)), self._average(now, self._class)
        shift = self._const(unit.shift)
        part = s.op("BV_ASHR", [old, shift])
        following = s.add(s.op("BV_SUB", [old, part]), value)
        begins = s.op("BV_SHL", [value, shift])
        new = s.choose(now.one(self._first), begins, following)
        comes = s.both(self._moved("i"), s.same(now.wide(self._count), self._class))
        return {
            "an average changes with its value alone, and as it should": s.same(
                self._average(later, self._class), s.choose(comes, new, old)
            ),
            **self._decided(),
        }

    def _decided(self) -> dict[str, Any]:
        """That what is sent is the class that holds, and its average."""
        s, now, later, unit = self._s, self._now, self._later, self._unit
        place, held = now.wide(self._n.net("best_place")), now.wide(self._held)
        largest, own, load = self._average(now, place), self._average(now, held), self._load()
        more = s.op("BV_SGT", [largest, self._above(own)])
        other = s.op("OR", [now.one(self._first), more])
        holds = s.choose(other, place, held)
        average = s.op("BV_ASHR", [s.choose(other, largest, own), self._const(unit.shift)])
        sent = [s.resize(term, unit.out.bits) for term in (holds, average)]
        claims = {
            "the largest average is found": self._implies(load, self._leads(now, largest, place)),
            "the class that holds is the golden model's": s.same(
                later.wide(self._held), s.choose(load, holds, held)
            ),
        }
        for word, term, what in zip(self._words, sent, ("class", "average"), strict=True):
            claims[f"its {what} is sent"] = s.same(
                later.bits(word), s.choose(load, term, now.bits(word))
            )
        return claims
