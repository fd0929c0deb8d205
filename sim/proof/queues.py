"""Queues in front of outputs, read out of their registers as lists of values."""

from dataclasses import dataclass
from typing import Any

from sim.proof.claims import Claims, View
from sim.proof.cones import Bits, Cones
from sim.proof.formulas import Solver
from sim.proof.netlist import Bit, Cell, Netlist

__all__ = ["Queue", "QueueClaims", "find_queue"]

_LONGEST = 64  # stages in front of a queue


@dataclass(frozen=True)
class Queue:
    """Where a queue of results is in a netlist.

    Parameters
    ----------
    depth : int
    memory : Cell
    write, read : bits
        Addresses of the next value that comes, and of the next one that is offered.
    following : bits
        Address after ``read``, where that is a register.
    held : bits
        Address of the value on offer; none where that has a register of its own.
    waiting : bits
        How many values wait behind it; where there is none, ``some`` says whether any do.
    some, offered, written : bit
        Whether any wait, one is offered, and one comes. Where values are offered out of the memory,
        none is offered in front of those that wait.
    payload : bits
    after : bits
        Strobes of results that are on their way to it, earliest first.
    """

    depth: int
    memory: Cell
    write: Bits
    read: Bits
    following: Bits
    held: Bits
    waiting: Bits
    some: Bit
    offered: Bit
    written: Bit
    payload: Bits
    after: Bits


def find_queue(netlist: Netlist, name: str, depth: int) -> Queue:
    """The queue of this name in front of the output ``o``; raises InputError where it is built in
    another way."""
    cones = Cones(netlist)
    (memory,) = (c for c in netlist.cells if c.type == "$mem_v2" and c.name.startswith(f"{name}."))
    read, held = memory.ports["RD_ADDR"], netlist.nets.get(f"{name}.held", [])
    following: Bits = []
    if held:
        read = cones.maker(read[0], "$mux").ports["B"]
    else:
        following = cones.maker(cones.before(read[0]), "$mux").ports["B"]
    some, offered = netlist.nets.get(f"{name}.some", ["0"])[0], netlist.port("o__valid")[0]
    written = netlist.net(f"{name}.w_en")[0]
    return Queue(
        depth=depth, memory=memory, write=netlist.net(f"{name}.ram.w_addr"),
        read=read, following=following, held=held,
        waiting=netlist.nets.get(f"{name}.waiting", []),
        some=some, offered="0" if offered == some else offered, written=written,
        payload=netlist.port("o__payload"),
        after=cones.chain(written, _LONGEST) if cones.is_register(written) else [],
    )  # fmt: skip


class QueueClaims(Claims):
    """What holds of every circuit that ends with a queue whose places are promised before a result
    is on its way: none is lost, they leave in order, and they move on.

    A subclass says which registers count the free places, and what becomes a result.
    """

    def __init__(
        self, netlist: Netlist, where: str, queue: Queue, width: int, solver: Solver
    ) -> None:
        super().__init__(netlist, where, width, solver)
        self._q = queue
        now, later = self._formulas.memory(queue.memory)
        self._contents = {self._now: now, self._later: later}

    # -- what is read out of a state ------------------------------------------------------------

    def _wrapped(self, place: Any, places: int = 0) -> Any:
        """A place of the memory, or of one of so many places, of a number below twice its depth."""
        depth = self._const(places or self._q.depth)
        past = self._s.op("BV_UGE", [place, depth])
        return self._s.choose(past, self._s.op("BV_SUB", [place, depth]), place)

    def _stored(self, v: View) -> Any:
        """Values that wait behind the one on offer."""
        s, q = self._s, self._q
        if q.waiting:
            return v.wide(q.waiting)
        bits = len(q.write)
        gap = s.op("BV_SUB", [v.bits(q.write), v.bits(q.read)])
        count = s.resize(s.op("BV_SUB", [gap, s.number(1, bits)]), self._width)
        return self._if(v.one(q.some), s.add(count, self._const(1)))

    def _level(self, v: View) -> Any:
        return self._s.add(self._stored(v), v.wide([self._q.offered]))

    def _free(self, v: View, spare: Bits) -> Any:
        """Free places, of the register that says one less."""
        less_one = self._s.resize(v.bits(spare), self._width, signed=True)
        return self._s.add(less_one, self._const(1))

    def _coming(self, v: View) -> Any:
        """Results that are on their way to the queue."""
        return self._sum([v.wide([bit]) for bit in self._q.after])

    def _results(self, v: View) -> Any:
        """Results on their way, in the queue and on offer."""
        return self._s.add(self._coming(v), self._level(v))

    def _value(self, v: View, place: Any) -> Any:
        """The value at a place of the list that the queue holds, the one on offer first."""
        s, q = self._s, self._q
        offered = v.wide([q.offered])
        behind = self._wrapped(s.add(v.wide(q.read), s.op("BV_SUB", [place, offered])))
        stored = s.word(self._contents[v], s.resize(behind, len(q.write)))
        if q.offered == "0":
            return stored
        first = s.both(v.one(q.offered), s.same(place, self._const(0)))
        return s.choose(first, v.bits(q.payload), stored)

    def _way(self, v: View) -> Any:
        """How far results are from the output, as a number: those on their way, the earliest
        highest, how many wait, and whether one is offered."""
        bits = [self._s.resize(self._stored(v), len(self._q.write) + 1), v.bits([self._q.offered])]
        return self._s.concat([*(v.bits([b]) for b in self._q.after), *bits])

    def _given(self) -> Any:
        """Whether a result is taken in this cycle."""
        return self._s.both(
            *(self._now.one(self._n.port(f"o__{what}")[0]) for what in ("valid", "ready"))
        )

    # -- claims ---------------------------------------------------------------------------------

    def _addresses(self, v: View) -> dict[str, Any]:
        s, q = self._s, self._q
        depth, one = self._const(q.depth), self._const(1)
        read, write = v.wide(q.read), v.wide(q.write)
        claims = {
            "addresses are the queue's": s.both(
                s.op("BV_ULT", [read, depth]), s.op("BV_ULT", [write, depth])
            ),
            "what waits is what was written and not read": s.same(
                self._wrapped(s.add(read, self._stored(v))), write
            ),
        }
        if q.held:
            held = v.wide(q.held)
            claims["the value on offer is the one before"] = self._implies(
                v.one(q.offered),
                s.both(
                    s.op("BV_ULT", [held, depth]), s.same(self._wrapped(s.add(held, one)), read)
                ),
            )
            if v in self._contents:
                claims["what is offered is what was written"] = self._implies(
                    v.one(q.offered),
                    s.same(v.bits(q.payload), s.word(self._contents[v], v.bits(q.held))),
                )
        if q.following:
            claims["the next address follows"] = s.same(
                v.bits(q.following), s.add(v.bits(q.read), s.number(1, len(q.read)))
            )
        if not q.waiting:
            claims["some values wait, or none"] = s.op(
                "OR", [v.one(q.some), s.same(v.bits(q.write), v.bits(q.read))]
            )
        return claims

    def _order(self) -> dict[str, Any]:
        """That the queue holds what was written and not taken, in order."""
        s, q, now, later = self._s, self._q, self._now, self._later
        place = s.unknown("place", self._width)
        gone = self._if(self._given(), self._const(1))
        level = self._level(now)
        before = s.add(place, gone)
        data = now.bits(q.memory.ports["WR_DATA"])
        new = s.choose(s.same(before, level), data, self._value(now, before))
        return {
            "a result finds a place": self._implies(
                now.one(q.written), s.op("BV_ULT", [level, self._const(q.depth)])
            ),
            "the queue grows by what comes and shrinks by what is taken": s.same(
                s.add(self._level(later), gone),
                s.add(level, self._if(now.one(q.written), self._const(1))),
            ),
            "results leave as they came, in order": self._implies(
                s.op("BV_ULT", [place, self._level(later)]),
                s.same(self._value(later, place), new),
            ),
            **self._offers(),
        }

    def _offers(self) -> dict[str, Any]:
        """That a result is offered as soon as may be, and stays until it is taken."""
        s, q, now, later = self._s, self._q, self._now, self._later
        nothing, given = self._const(0), self._given()
        if q.offered == "0":
            first = self._value(now, nothing)
            some = self._not(s.same(self._level(now), nothing))
            return {
                "the first result is offered": s.both(
                    s.same(now.one(q.some), some),
                    self._implies(some, s.same(now.bits(q.payload), first)),
                )
            }
        return {
            "a stored result is offered as soon as none is": self._implies(
                s.both(
                    self._not(s.same(self._stored(now), nothing)),
                    s.op("OR", [self._not(now.one(q.offered)), given]),
                ),
                later.one(q.offered),
            ),
            "an offered result stays": self._implies(
                s.both(now.one(q.offered), self._not(given)),
                s.both(later.one(q.offered), s.same(later.bits(q.payload), now.bits(q.payload))),
            ),
        }

    def _moves(self, comes: Any) -> dict[str, Any]:
        """That results move on while they are taken and no other comes."""
        back = self._s.op("BV_ULE", [self._way(self._later), self._way(self._now)])
        return {
            "results move on": self._move_on(self._way, comes),
            "no result moves back": self._implies(self._not(comes), back),
        }
