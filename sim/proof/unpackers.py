"""What gives the frames of a batch one after the other, for any pauses and resets, by induction:
its control, and that what it gives are the results that came.

Rows of V results go into two halves of a memory in turn, and numbers that say how many frames the
batches have into a queue of their own. A half that is whole is read, frame by frame, as soon as its
number is there: so many results leave as its frames have rows, each the part of its frame of the
row that came.

The queue of numbers never waits. That there is always a place follows from how much the cores
before it can owe (`sim.proof.handshakes.most_owed`): a batch whose number is there and that is not
read yet is owed by one of them, or whole.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pvq_hw.engine.core import CoreBase
from pvq_hw.engine.units import Unpack
from pvq_hw.errors import CheckError, InputError
from sim.proof.claims import View
from sim.proof.cones import Bits, Cones
from sim.proof.halves import HalvesClaims
from sim.proof.handshakes import most_owed
from sim.proof.netlist import Netlist
from sim.proof.structure import batch_number, control_ports, factors

__all__ = ["UnpackClaims", "check_places", "check_unpacked", "number_queue"]

_NUMBERS = "batches."


def check_places(unit: Unpack, cores: Sequence[CoreBase]) -> int:
    """Compares the places for numbers of batches with how many batches can be under way in the
    cores before the unpacker; returns that. Raises CheckError where there are fewer."""
    halves = 2
    batches = halves + sum(-(-most_owed(core) // core.rows) for core in cores)
    if batches > unit.places:
        raise CheckError(
            f"Unit {unit.name!r} must have places for the numbers of {batches} batches, not "
            f"{unit.places}"
        )
    return batches


def number_queue(netlist: Netlist) -> Netlist:
    """The queue of the batches' numbers by itself, as a FIFO's netlist."""
    net = netlist.net
    ports = {
        **{name: netlist.ports[name] for name in ("clk", "rst")},
        "i__valid": ("input", net("batches.i__valid")),
        "i__ready": ("output", net("batches.i__ready")),
        "i__payload": ("input", batch_number(netlist)),
        "o__valid": ("output", net("batches.o__valid")),
        "o__ready": ("input", net("batches.o__ready")),
        "o__payload": ("output", net("batches.o__payload")),
    }
    cells = [
        replace(cell, name=cell.name.removeprefix(_NUMBERS))
        for cell in netlist.cells
        if cell.type != "$mem_v2" or cell.name.startswith(_NUMBERS)
    ]
    nets = {
        name.removeprefix(_NUMBERS): bits
        for name, bits in netlist.nets.items()
        if name.startswith(_NUMBERS)
    }
    return replace(netlist, ports=ports, cells=cells, nets=nets)


def check_unpacked(netlist: Netlist, unit: Unpack) -> int:
    """Shows that each result that is given is that of its row and its frame as it came; returns how
    many claims.

    Raises
    ------
    CheckError
        A claim does not follow.
    InputError
        The unit is built in another way, or the solver is not installed.
    """
    return _Values(netlist, unit).run()


class UnpackClaims(HalvesClaims):
    """The claims about control."""

    def __init__(self, netlist: Netlist, unit: Unpack) -> None:
        width = (4 * unit.size * (unit.batch + 1)).bit_length() + 8
        super().__init__(netlist, f"Unit {unit.name!r}", "", unit.size, 1, width)
        self._unit = unit
        self._begins, self._number = (netlist.net(f"batches.o__{x}") for x in ("ready", "payload"))
        self._known = netlist.net("batches.o__valid")[0]
        self._find_reader(Cones(netlist))
        number = control_ports(netlist, unit)
        payloads = [name for name in netlist.payload_ports if name not in number]
        if len(payloads) != 1:
            raise InputError("batches are not taken as expected")
        self._payload = netlist.port(payloads[0])

    def _find_reader(self, cones: Cones) -> None:
        """The flag and the counters of the half that is read."""
        starts = factors(self._n, self._begins[0])
        runs = [bit for bit, inverted in starts if inverted and cones.is_register(bit)]
        some = [b for b, _ in starts if cones.has_maker(b, "$reduce_or")]
        lasts = [c.ports["B"] for c in self._n.cells
                 if c.type == "$eq" and c.ports["A"] == self._frame]  # fmt: skip
        if [len(found) for found in (runs, some, lasts)] != [1, 1, 1]:
            raise InputError("batches are not read as expected")
        self._run, self._last = runs[0], lasts[0]
        self._whole = cones.operands(some[0], "$reduce_or")

    # -- claims ---------------------------------------------------------------------------------

    def _starts(self) -> Any:
        """Whether a batch begins to be read: one is whole, and its number is there."""
        now = self._now
        some = self._not(self._s.same(now.wide(self._whole), self._const(0)))
        return self._s.both(self._not(now.one(self._run)), some, now.one(self._known))

    def _invariants(self, v: View) -> dict[str, Any]:
        within = self._s.op("BV_ULE", [v.wide(self._frame), v.wide(self._last)])
        return super()._invariants(v) | {
            "frames are a batch's": self._implies(v.one(self._run), within)
        }

    def _empty(self, v: View) -> dict[str, Any]:
        s, nothing = self._s, self._const(0)
        owed = self._sum([v.wide(self._whole), self._left(v), self._results(v)])
        return super()._empty(v) | {"nothing is owed": s.same(owed, nothing)}

    def _steps(self) -> dict[str, Any]:
        return {
            **self._accounts(),
            **self._walks(),
            **self._memory(),
            **self._order(),
            **self._goes_on(self._s.op("OR", [self._written(), self._waits()])),
        }

    def _waits(self) -> Any:
        """Whether a batch is whole before its number is there."""
        now = self._now
        some = self._not(self._s.same(now.wide(self._whole), self._const(0)))
        idle = [self._not(now.one(bit)) for bit in (self._run, self._known)]
        return self._s.both(some, *idle)

    def _accounts(self) -> dict[str, Any]:
        s, now, later, one = self._s, self._now, self._later, self._const(1)
        start, issued, written = self._starts(), self._issued(), self._written()
        goes = self._if(issued, one)
        begun, given = self._if(start, one), self._if(self._given(), one)
        frames = s.add(s.resize(now.bits(self._number[: len(self._last)]), self._width), one)
        results = s.op("BV_MUL", [frames, self._const(self._words)])
        runs = s.op("OR", [start, s.both(now.one(self._run), self._not(self._released()))])
        return {
            "a batch is read as soon as it is whole and its number there": s.both(
                s.same(now.one(self._begins[0]), start), s.same(later.one(self._run), runs)
            ),
            "batches are read once they are whole, and no others": s.same(
                s.add(later.wide(self._whole), begun),
                s.add(now.wide(self._whole), self._if(written, one)),
            ),
            "so many frames are read as a batch has": s.same(
                s.add(self._left(later), goes), s.choose(start, results, self._left(now))
            ),
            "results are owed for what is read, and no others": s.same(
                s.add(self._results(later), given), s.add(self._results(now), goes)
            ),
        }

    def _walks(self) -> dict[str, Any]:
        s, now = self._s, self._now
        at_row = s.same(now.wide(self._row), self._const(self._words - 1))
        step = s.both(self._issued(), at_row, self._not(self._released()))
        here = now.wide(self._frame)
        following = s.choose(step, s.add(here, self._const(1)), here)
        first = self._implies(self._starts(), s.same(self._later.wide(self._frame), self._const(0)))
        goes_on = self._implies(
            s.both(now.one(self._run), self._not(self._released())),
            s.same(self._later.wide(self._frame), following),
        )
        return super()._walks() | {"frames are read in turn": s.both(first, goes_on)}


class _Values(UnpackClaims):
    """The claims about values: which part of which word goes to the queue."""

    def __init__(self, netlist: Netlist, unit: Unpack) -> None:
        super().__init__(netlist, unit)
        self._ram = self._rams[0]
        now, later = self._formulas.memory(self._ram)
        self._words_held = {self._now: now, self._later: later}
        self._result = netlist.net("queue.w_data")
        self._check_latency(Cones(netlist))

    def _check_latency(self, cones: Cones) -> None:
        """Raises CheckError unless word, frame and strobe come to the queue in the same cycle."""
        latency, (first, *_) = self._unit.latency, self._q.after
        word: Bits = self._n.net("r_data")
        self._late_frame = self._n.net(f"frame_{latency - 1}")
        self._late_word = word
        frame = self._late_frame
        for _ in range(latency):
            word = [self._formulas.next_bit(bit) for bit in word]
            frame = [self._formulas.next_bit(bit) for bit in frame]
        strobe = self._n.net("credits.claim")[0]
        together = (word, frame, cones.before(first), len(self._q.after))
        if together != (self._ram.output, self._frame, strobe, latency + 1):
            raise CheckError(f"{self._where}: what is read must follow its strobe to the queue")

    def _steps(self) -> dict[str, Any]:
        s, now, later, unit = self._s, self._now, self._later, self._unit
        written, taken = now.one(self._q.written), self._taken()
        size, bits = len(self._ram.ports["WR_ADDR"]), unit.x.bits
        place = s.unknown("place in the memory", size)
        here = now.bits([*self._net["write_row"], *self._net["write_half"]])
        came = s.both(taken, s.same(place, s.resize(here, size)))
        parts = [self._late_word[v * bits :][:bits] for v in range(unit.batch)]
        result = now.bits(parts[-1])
        for v, part in enumerate(parts[:-1]):
            mine = s.same(s.resize(now.bits(self._late_frame), self._width), self._const(v))
            result = s.choose(mine, now.bits(part), result)
        known = s.op("BV_ULT", [
            s.resize(now.bits(self._late_frame), self._width), self._const(unit.batch)
        ])  # fmt: skip
        return {
            "rows stay as they came until others come": s.same(
                s.word(self._words_held[later], place),
                s.choose(came, now.bits(self._payload), s.word(self._words_held[now], place)),
            ),
            "a result is its frame's part of the word": self._implies(
                known, s.same(later.bits(self._result), result)
            ),
            "that is written": self._implies(
                written,
                s.same(now.bits(self._q.memory.ports["WR_DATA"]), now.bits(self._result)),
            ),
        }
