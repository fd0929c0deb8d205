"""Control of units around the cores, for any pauses and resets: shown by induction.

Most of them take a transfer when a place of their queue is free, and a few cycles later write a
result into it. Of each such unit it is shown of every state that the invariants allow, whatever
``valid``, ``ready`` and ``rst`` are, that free places, results on their way, in the queue and on
offer are together as many as the queue has; that what was taken makes as many results as it is to
make, and nothing else makes any; that results leave in the order in which they were written, each
once, and stay until they are taken; and that all goes on while they are.

Which transfers make a result is a walk through a frame, see `sim.proof.walks`.
"""

from typing import Any

from pvq_hw.engine.batch import last_frame_format
from pvq_hw.engine.decision import AboveUnit, LargestUnit, SmoothedUnit
from pvq_hw.engine.units import (
    DEEP_QUEUE,
    UNITS,
    Fifo,
    Fork,
    Join,
    Lookup,
    Pick,
    Pool,
    Unit,
    Unpack,
    WidthConverter,
)
from pvq_hw.errors import CheckError, InputError
from pvq_hw.registry import Face
from sim.proof.claims import Claims, View
from sim.proof.cones import Bits, Cones
from sim.proof.decisions import check_largest_handshakes
from sim.proof.formulas import Solver
from sim.proof.line_buffers import check_line_buffer
from sim.proof.netlist import Netlist
from sim.proof.queues import QueueClaims, find_queue
from sim.proof.smoothed import check_smoothed_handshakes
from sim.proof.unpackers import UnpackClaims, number_queue
from sim.proof.walks import check_pool_walk

__all__ = ["check_unit_handshakes"]

_LONGEST = 64  # stages of words of windows

check_unit_handshakes: Face[[Netlist], int] = UNITS.face("control_proof")
"""Shows by induction what the module says of a unit; how many claims. Raises CheckError where one
does not follow, InputError where the kind of unit is not followed or no solver is installed."""


@check_unit_handshakes.of(Unit)
def _unknown(unit: Unit, netlist: Netlist) -> int:
    raise InputError(f"control of a unit of kind {unit.kind} is not followed")


class _Queued(QueueClaims):
    """A unit that takes a transfer of its one input where a place of its queue is free."""

    def __init__(self, netlist: Netlist, unit: Any, places: int = 0) -> None:
        width = unit.depth.bit_length() + 9
        queue = find_queue(netlist, "queue", places or unit.depth)
        super().__init__(netlist, f"Unit {unit.name!r}", queue, width, Solver())
        self._unit = unit
        self._spare = netlist.net("credits.spare")

    def _places(self, v: View) -> Any:
        return self._free(v, self._spare)

    def _invariants(self, v: View) -> dict[str, Any]:
        whole = self._s.add(self._places(v), self._results(v))
        depth = self._const(self._q.depth)
        return {
            **self._addresses(v),
            "places are the queue's": self._s.op("BV_ULE", [self._places(v), depth]),
            "each place is free, promised or taken": self._s.same(whole, depth),
            **self._counts(v),
        }

    def _empty(self, v: View) -> dict[str, Any]:
        nothing = self._const(0)
        return {
            "nothing is owed": self._s.same(self._results(v), nothing),
            "the next transfer is a frame's first": self._s.both(
                *(self._s.same(count, nothing) for count in self._place(v))
            ),
        }

    def _steps(self) -> dict[str, Any]:
        made = self._made()
        owed = self._s.add(self._results(self._later), self._if(self._given(), self._const(1)))
        more = self._s.add(self._results(self._now), self._if(made, self._const(1)))
        return {
            "results are owed for what was taken, and no others": self._s.same(owed, more),
            **self._taken(),
            **self._order(),
            **self._moves(made),
        }

    # -- what units differ in -------------------------------------------------------------------

    def _counts(self, v: View) -> dict[str, Any]:
        """Invariants of counters of a unit's own."""
        return {}

    def _place(self, v: View) -> list[Any]:
        """Counters of a frame, which start at 0."""
        return [self._const(0)]

    def _take(self, port: str = "i") -> Any:
        """Whether a transfer of an input is taken."""
        return self._s.both(*(self._now.one(self._n.port(f"{port}__{what}")[0])
                              for what in ("valid", "ready")))  # fmt: skip

    def _some(self) -> Any:
        """Whether a place is free."""
        return self._not(self._s.same(self._places(self._now), self._const(0)))

    def _made(self) -> Any:
        """Whether what is taken makes a result."""
        return self._take()

    def _taken(self) -> dict[str, Any]:
        """When inputs are taken, and what becomes of the counters."""
        ready = self._now.one(self._n.port("i__ready")[0])
        return {"a transfer is taken where a place is free": self._s.same(ready, self._some())}

    def _counted(self, count: Bits, size: int, step: Any) -> Any:
        """That a counter goes on with each step, and only then, from the last one to 0."""
        s, here = self._s, self._now.wide(count)
        one = self._const(1)
        following = s.choose(s.same(here, self._const(size - 1)), self._const(0), s.add(here, one))
        return s.same(self._later.wide(count), s.choose(step, following, here))


class _Carries(_Queued):
    """A FIFO."""

    def _taken(self) -> dict[str, Any]:
        (payload,) = (self._n.port(name) for name in self._n.payload_ports)
        written = self._now.bits(self._q.memory.ports["WR_DATA"])
        return super()._taken() | {
            "what is written is what came": self._implies(
                self._take(), self._s.same(written, self._now.bits(payload))
            )
        }


class _ReadAhead(_Queued):
    """A FIFO whose memory is read ahead into the queue: a ring in front of it, whose values make
    the queue's results, through as many registers as the memory's latency says."""

    def __init__(self, netlist: Netlist, unit: Fifo) -> None:
        super().__init__(netlist, unit, DEEP_QUEUE)
        self._ring = next(
            cell
            for cell in netlist.cells
            if cell.type == "$mem_v2" and cell.name.startswith("ram.")
        )
        now, later = self._formulas.memory(self._ring)
        self._stored_words = {self._now: now, self._later: later}
        self._all, self._ring_count = netlist.net("places.spare"), netlist.net("stored")
        self._ring_write, self._ring_read = netlist.net("ram.w_addr"), self._ring.ports["RD_ADDR"]
        words = self._read = netlist.net("queue.w_data")
        for _ in range(unit.latency):
            words = [self._formulas.next_bit(bit) for bit in words]
        if words != self._ring.output or len(self._q.after) != unit.latency:
            raise CheckError(f"{self._where}: what is read must follow its strobe to the queue")

    def _invariants(self, v: View) -> dict[str, Any]:
        s, depth = self._s, self._const(self._unit.depth)
        free, count = self._free(v, self._all), v.wide(self._ring_count)
        read, write = v.wide(self._ring_read), v.wide(self._ring_write)
        whole = s.add(free, count, self._results(v))
        return super()._invariants(v) | {
            "all places are the FIFO's": s.both(
                *(s.op("BV_ULE", [n, depth]) for n in (free, count))
            ),
            "each of them is free or taken": s.same(whole, depth),
            "the ring's addresses are its own": s.both(
                *(s.op("BV_ULT", [at, depth]) for at in (read, write))
            ),
            "the ring holds what came and has not moved": s.same(
                self._wrapped(s.add(read, count), self._unit.depth), write
            ),
        }

    def _empty(self, v: View) -> dict[str, Any]:
        nothing = self._s.same(v.wide(self._ring_count), self._const(0))
        return super()._empty(v) | {"the ring is empty": nothing}

    def _made(self) -> Any:
        """Whether a value moves on to the queue."""
        return self._now.one(self._n.net("credits.claim")[0])

    def _taken(self) -> dict[str, Any]:
        s, now, later = self._s, self._now, self._later
        some = self._not(s.same(self._free(now, self._all), self._const(0)))
        ready = now.one(self._n.port("i__ready")[0])
        count, one = now.wide(self._ring_count), self._const(1)
        move = s.both(self._not(s.same(count, self._const(0))), self._some())
        moved, came = self._if(self._made(), one), self._if(self._take(), one)
        place = s.unknown("place in the ring", self._width)
        before = s.add(place, moved)
        (payload,) = (self._n.port(name) for name in self._n.payload_ports)
        new = s.choose(s.same(before, count), now.bits(payload), self._word(now, before))
        return {
            "a transfer is taken where a place is free": s.same(ready, some),
            "a value moves where there is one, and a place": s.same(self._made(), move),
            "the ring grows by what comes and shrinks by what moves": s.same(
                s.add(later.wide(self._ring_count), moved), s.add(count, came)
            ),
            "what is written is what was read": self._implies(
                now.one(self._q.written),
                s.same(now.bits(self._q.memory.ports["WR_DATA"]), now.bits(self._read)),
            ),
            "values move as they came, in order": self._implies(
                s.op("BV_ULT", [place, later.wide(self._ring_count)]),
                s.same(self._word(later, place), new),
            ),
        }

    def _word(self, v: View, place: Any) -> Any:
        """The value at a place of the list that the ring holds."""
        at = self._wrapped(self._s.add(v.wide(self._ring_read), place), self._unit.depth)
        return self._s.word(self._stored_words[v], self._s.resize(at, len(self._ring_write)))


class _Counted(_Queued):
    """A unit that does with each activation of a round what its number says."""

    def __init__(self, netlist: Netlist, unit: Any, count: str, size: int) -> None:
        super().__init__(netlist, unit)
        self._size, self._count = size, netlist.net(count) if size > 1 else []

    def _place(self, v: View) -> list[Any]:
        return [v.wide(self._count)] if self._count else super()._place(v)

    def _counts(self, v: View) -> dict[str, Any]:
        if not self._count:
            return {}
        (place,) = self._place(v)
        return {"numbers are a round's": self._s.op("BV_ULT", [place, self._const(self._size)])}

    def _taken(self) -> dict[str, Any]:
        claims = super()._taken()
        if self._count:
            counted = self._counted(self._count, self._size, self._take())
            claims["activations are counted in rounds"] = counted
        return claims


class _Sum(_Queued):
    """A sum: one transfer of each input at once."""

    def _made(self) -> Any:
        return self._s.both(*(self._take(port) for port in self._unit.ports[0]))

    def _taken(self) -> dict[str, Any]:
        ports, now = self._unit.ports[0], self._now
        offered = [now.one(self._n.port(f"{port}__valid")[0]) for port in ports]
        goes = self._s.both(self._some(), *offered)
        return {
            f"{port} is taken with the others, where a place is free": self._s.same(
                now.one(self._n.port(f"{port}__ready")[0]), goes
            )
            for port in ports
        }


class _Concatenation(_Queued):
    """A concatenation: so many transfers of each input in turn."""

    def __init__(self, netlist: Netlist, unit: Join) -> None:
        super().__init__(netlist, unit)
        self._runs = [run // unit.width for run in unit.runs]
        self._which = netlist.net("which")
        self._count = netlist.net("count")

    def _place(self, v: View) -> list[Any]:
        return [v.wide(self._which), v.wide(self._count)]

    def _run(self, v: View) -> Any:
        """Transfers of the input whose turn it is."""
        which, _ = self._place(v)
        run = self._const(self._runs[-1])
        for number, size in enumerate(self._runs[:-1]):
            run = self._s.choose(self._s.same(which, self._const(number)), self._const(size), run)
        return run

    def _counts(self, v: View) -> dict[str, Any]:
        which, count = self._place(v)
        return {
            "an input has its turn": self._s.op("BV_ULT", [which, self._const(len(self._runs))]),
            "transfers are a turn's": self._s.op("BV_ULT", [count, self._run(v)]),
        }

    def _made(self) -> Any:
        return self._s.op("OR", [self._take(port) for port in self._unit.ports[0]])

    def _taken(self) -> dict[str, Any]:
        s, now, one = self._s, self._now, self._const(1)
        (which, count), made = self._place(now), self._made()
        claims = {
            f"{port} is taken in its turn, where a place is free": s.same(
                now.one(self._n.port(f"{port}__ready")[0]),
                s.both(self._some(), s.same(which, self._const(number))),
            )
            for number, port in enumerate(self._unit.ports[0])
        }
        last = s.both(made, s.same(s.add(count, one), self._run(now)))
        count_on = s.choose(made, s.add(count, one), count)
        return claims | {
            "transfers of a turn are counted": s.same(
                self._later.wide(self._count), s.choose(last, self._const(0), count_on)
            ),
            "turns follow one another": self._counted(self._which, len(self._runs), last),
        }


class _Streamed(_Queued):
    """A pooling of activations as they come: the last one of a window makes a result."""

    def _made(self) -> Any:
        return self._s.both(self._take(), self._now.one(self._n.net("walk.last")[0]))

    def _taken(self) -> dict[str, Any]:
        steps = self._now.one(self._n.net("walk.take")[0])
        return super()._taken() | {
            "the walk goes on with each transfer": self._s.same(steps, self._take())
        }


class _Windows(_Queued):
    """A pooling that reads windows from a line buffer: each makes a result."""

    def __init__(self, netlist: Netlist, unit: Pool) -> None:
        super().__init__(netlist, unit)
        cones = Cones(netlist)
        self._run, *valid = cones.chain(netlist.net("reader.valid")[0], _LONGEST)
        last = cones.chain(netlist.net("reader.last")[0], _LONGEST)
        if len(valid) != len(last):
            raise InputError("words of windows are not marked as expected")
        self._ends = list(zip(valid, last, strict=True))
        self._read = cones.before(last[0])  # a window's last word

    def _end(self, v: View, stage: int) -> Any:
        """Whether a window's last word is there, one bit."""
        return self._s.op("BV_AND", [v.bits([bit]) for bit in self._ends[stage]])

    def _coming(self, v: View) -> Any:
        ends = [self._s.resize(self._end(v, k), self._width) for k in range(len(self._ends))]
        return self._sum([super()._coming(v), v.wide([self._run]), *ends])

    def _way(self, v: View) -> Any:
        ends = [self._end(v, k) for k in range(len(self._ends))]
        return self._s.concat([*ends, super()._way(v)])

    def _made(self) -> Any:
        return self._now.one(self._n.net("reader.start")[0])

    def _taken(self) -> dict[str, Any]:
        go = self._now.one(self._n.net("reader.go")[0])
        return {"a window may start where a place is free": self._s.same(go, self._some())}

    def _moves(self, comes: Any) -> dict[str, Any]:
        """From a window's last word on: that words are read one a cycle is the line buffer's."""
        return super()._moves(self._now.one(self._read))


@check_unit_handshakes.of(Fifo)
def _fifo(unit: Fifo, netlist: Netlist) -> int:
    return (_ReadAhead if unit.latency > 1 else _Carries)(netlist, unit).run()


@check_unit_handshakes.of(Lookup)
def _lookup(unit: Lookup, netlist: Netlist) -> int:
    return _Counted(netlist, unit, "channel", unit.tables_each).run()


@check_unit_handshakes.of(AboveUnit)
def _above(unit: AboveUnit, netlist: Netlist) -> int:
    several = len(set(unit.thresholds)) > 1
    return _Counted(netlist, unit, "place", len(unit.thresholds) if several else 1).run()


@check_unit_handshakes.of(LargestUnit)
def _largest(unit: LargestUnit, netlist: Netlist) -> int:
    return check_largest_handshakes(netlist, unit)


@check_unit_handshakes.of(SmoothedUnit)
def _smoothed(unit: SmoothedUnit, netlist: Netlist) -> int:
    return check_smoothed_handshakes(netlist, unit)


@check_unit_handshakes.of(Join)
def _join(unit: Join, netlist: Netlist) -> int:
    return (_Concatenation if unit.runs else _Sum)(netlist, unit).run()


@check_unit_handshakes.of(Pool)
def _pool(unit: Pool, netlist: Netlist) -> int:
    if unit.window is not None:
        claims = _Windows(netlist, unit).run()
        return claims + check_line_buffer(netlist, unit.window, "reader.", f"Unit {unit.name!r}")
    check_pool_walk(netlist, unit)
    return _Streamed(netlist, unit).run()


@check_unit_handshakes.of(Unpack)
def _unpack(unit: Unpack, netlist: Netlist) -> int:
    numbers = number_queue(netlist)
    form = last_frame_format(unit.batch)
    queue = Fifo(f"{unit.name}.batches", ("i",), ("o",), form, 1, unit.places)
    return UnpackClaims(netlist, unit).run() + _Carries(numbers, queue).run()


# -- units without a queue ---------------------------------------------------------------------


class _Fork(Claims):
    """Each output takes each transfer once; the input goes on with the last one that does.

    Taken for granted is that the input is held until it is taken, as every unit is shown to do.
    """

    def __init__(self, netlist: Netlist, unit: Fork) -> None:
        super().__init__(netlist, f"Unit {unit.name!r}", 2, Solver())
        self._outputs = unit.ports[1]
        self._held = {port: netlist.net(f"taken{k}")[0] for k, port in enumerate(self._outputs)}
        valid = self._now.one(netlist.port("i__valid")[0])
        comes = self._s.same(self._s.unknown("valid later", 1), self._s.number(1, 1))
        self._valid = {self._now: valid, self._later: comes}
        stays = self._not(self._now.one(netlist.port("i__ready")[0]))
        reset = self._now.one(netlist.port("rst")[0])
        given = self._s.both(valid, stays, self._not(reset))
        self._facts = [self._implies(given, comes)]

    def _invariants(self, v: View) -> dict[str, Any]:
        if v not in self._valid:
            return {}
        return {
            f"{port} has taken what is offered": self._implies(v.one(bit), self._valid[v])
            for port, bit in self._held.items()
        }

    def _empty(self, v: View) -> dict[str, Any]:
        return {f"{p} has taken nothing": self._not(v.one(b)) for p, b in self._held.items()}

    def _steps(self) -> dict[str, Any]:
        s, n, now, later = self._s, self._n, self._now, self._later
        one, ready = self._const(1), now.one(n.port("i__ready")[0])
        goes = self._if(s.both(self._valid[now], ready), one)
        claims: dict[str, Any] = {}
        waiting = []
        for port, bit in self._held.items():
            offered, takes = (now.one(n.port(f"{port}__{w}")[0]) for w in ("valid", "ready"))
            took = self._if(s.both(offered, takes), one)
            claims[f"{port} takes each transfer once"] = s.same(
                s.add(later.wide([bit]), goes), s.add(now.wide([bit]), took)
            )
            claims[f"{port} is offered what it has not taken"] = s.same(
                offered, s.both(self._valid[now], self._not(now.one(bit)))
            )
            waiting.append(s.both(self._not(now.one(bit)), self._not(takes)))
        claims["the input waits for those that wait alone"] = s.same(
            ready, self._not(s.op("OR", [*waiting, s.same(one, self._const(0))]))
        )
        return claims


class _Pick(Claims):
    """Counts activations and passes a part of every round on."""

    def __init__(self, netlist: Netlist, unit: Pick) -> None:
        width = unit.period.bit_length() + 2
        super().__init__(netlist, f"Unit {unit.name!r}", width, Solver())
        self._unit, self._count = unit, netlist.net("place")

    def _invariants(self, v: View) -> dict[str, Any]:
        within = self._s.op("BV_ULT", [v.wide(self._count), self._const(self._unit.period)])
        return {"places are a round's": within}

    def _empty(self, v: View) -> dict[str, Any]:
        start = self._s.same(v.wide(self._count), self._const(0))
        return {"the next transfer is a round's first": start}

    def _steps(self) -> dict[str, Any]:
        s, n, unit = self._s, self._n, self._unit
        valid, ready, given, takes = (
            self._now.one(n.port(name)[0])
            for name in ("i__valid", "i__ready", "o__valid", "o__ready")
        )
        place, one = self._now.wide(self._count), self._const(1)
        inside = s.both(
            s.op("BV_UGE", [place, self._const(unit.start)]),
            s.op("BV_ULT", [place, self._const(unit.start + unit.count)]),
        )
        following = s.choose(
            s.same(place, self._const(unit.period - 1)), self._const(0), s.add(place, one)
        )
        return {
            "what is within the part is offered": s.same(given, s.both(valid, inside)),
            "only that waits until it is taken": s.same(
                ready, s.op("OR", [self._not(inside), takes])
            ),
            "places are counted": s.same(
                self._later.wide(self._count), s.choose(s.both(valid, ready), following, place)
            ),
        }


class _Converter(Claims):
    """A list of parts: those of what is kept that have come and not left, in order."""

    def __init__(self, netlist: Netlist, unit: WidthConverter) -> None:
        width = unit.parts.bit_length() + 3
        super().__init__(netlist, f"Unit {unit.name!r}", width, Solver())
        self._unit, self._narrows = unit, unit.taken > unit.given
        self._part = unit.x.bits * min(unit.taken, unit.given)
        self._kept = netlist.net("kept")
        self._full = netlist.either("o__valid", "full")[0]
        self._count = self._found_count()

    def _found_count(self) -> Bits:
        """The counter of parts: the only other register."""
        known = {self._full, *self._kept}
        counts = [
            c.output for c in self._n.cells if c.type == "$dff" and known.isdisjoint(c.output)
        ]
        if len(counts) != 1:
            raise InputError("control is not built as expected")
        return counts[0]

    def _parts(self, v: View) -> Any:
        """How many parts are in the list."""
        s, parts = self._s, self._const(self._unit.parts)
        place = v.wide(self._count)
        if self._narrows:
            return self._if(v.one(self._full), s.op("BV_SUB", [parts, place]))
        return s.choose(v.one(self._full), parts, place)

    def _listed(self, v: View, number: Any) -> Any:
        """A part of the list: those that leave next are lowest, those that came last highest."""
        s, parts = self._s, self._unit.parts
        at = number
        if not self._narrows:
            missing = s.op("BV_SUB", [self._const(parts), self._parts(v)])
            at = s.add(number, missing)
        return self._chosen([self._kept[k * self._part :][: self._part] for k in range(parts)],
                            at, v)  # fmt: skip

    def _chosen(self, words: list[Bits], at: Any, v: View) -> Any:
        term = v.bits(words[-1])
        for number, word in enumerate(words[:-1]):
            term = self._s.choose(self._s.same(at, self._const(number)), v.bits(word), term)
        return term

    def _invariants(self, v: View) -> dict[str, Any]:
        s, place = self._s, v.wide(self._count)
        empty = v.one(self._full) if not self._narrows else self._not(v.one(self._full))
        return {
            "parts are a transfer's": s.op("BV_ULT", [place, self._const(self._unit.parts)]),
            "the next part is a transfer's first": self._implies(
                empty, s.same(place, self._const(0))
            ),
        }

    def _empty(self, v: View) -> dict[str, Any]:
        return {"nothing is kept": self._s.same(self._parts(v), self._const(0))}

    def _steps(self) -> dict[str, Any]:
        s, n, now, later = self._s, self._n, self._now, self._later
        valid, ready, takes = (
            now.one(n.port(name)[0]) for name in ("i__valid", "i__ready", "o__ready")
        )
        full = now.one(self._full)
        parts, one = self._const(self._unit.parts), self._const(1)
        come = self._if(s.both(valid, ready), parts if self._narrows else one)
        gone = self._if(s.both(full, takes), one if self._narrows else parts)
        number = s.unknown("number", self._width)
        before, here = s.add(number, gone), self._parts(now)
        (payload,) = (n.port(name) for name in n.payload_ports)
        words = [payload[k : k + self._part] for k in range(0, len(payload), self._part)]
        new = self._chosen(words, s.op("BV_SUB", [before, here]), now)
        listed = s.choose(s.op("BV_ULT", [before, here]), self._listed(now, before), new)
        output = n.port("o__payload")
        first = self._kept[: len(output)]
        free = s.op("BV_ULE", [s.op("BV_SUB", [here, gone]), self._const(0)])
        whole = s.op("BV_ULT", [s.op("BV_SUB", [here, gone]), parts])
        return {
            "parts come with transfers and leave with them": s.same(
                s.add(self._parts(later), gone), s.add(here, come)
            ),
            "parts leave as they came, in order": self._implies(
                s.op("BV_ULT", [number, self._parts(later)]),
                s.same(self._listed(later, number), listed),
            ),
            "the first parts are offered": s.same(now.bits(output), now.bits(first)),
            "parts are offered where they make a transfer": s.same(
                full, s.op("BV_UGE", [here, one if self._narrows else parts])
            ),
            "a transfer is taken where it finds a place": s.same(
                ready, free if self._narrows else whole
            ),
        }


@check_unit_handshakes.of(Fork)
def _fork(unit: Fork, netlist: Netlist) -> int:
    return _Fork(netlist, unit).run()


@check_unit_handshakes.of(Pick)
def _pick(unit: Pick, netlist: Netlist) -> int:
    return _Pick(netlist, unit).run()


@check_unit_handshakes.of(WidthConverter)
def _converter(unit: WidthConverter, netlist: Netlist) -> int:
    return _Converter(netlist, unit).run()
