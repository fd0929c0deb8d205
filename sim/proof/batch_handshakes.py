"""Control of a core that gathers frames into batches, for any pauses and resets, by induction:
`sim.proof.handshakes`, where V frames that come one after the other share a half of the banks.

Which activation comes next is the bank, the row and the part of the banks that it goes to: a number
within its frame, and the frames of the batch that have come. A batch is closed with its V-th
frame's last activation, or between two of its frames, when none has come for so many cycles; then
the layer's rows are owed, and in the next cycle it is told how many frames it has.
"""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from pvq_hw.engine.pulse_core import CoreSpec
from pvq_hw.errors import InputError
from sim.proof.claims import View
from sim.proof.cones import Bits
from sim.proof.formulas import Solver
from sim.proof.handshakes import Finder, Induction, Registers, check_kind
from sim.proof.netlist import Bit, Netlist
from sim.proof.structure import factors

__all__ = ["check_batch_handshakes"]


def check_batch_handshakes(netlist: Netlist, spec: CoreSpec) -> int:
    """Shows by induction what the module says; returns how many claims. Errors:
    `sim.proof.handshakes.check_handshakes`."""
    check_kind(netlist, spec, batches=True)
    return _BatchInduction(netlist, spec, _BatchFinder(netlist, spec)).run()


class _BatchFinder(Finder):
    """What the writer has: where the next activation goes, and the one that was taken last."""

    def registers(self) -> Registers:
        """The one that was taken last stands for the writer's bank, row and half."""
        return replace(super().registers(), writes_to=self.placed()[-1])

    def writer(self) -> dict[str, Any]:
        enables = self._n.net("writer.w_en")
        cell = self.maker(self.before(enables[0]), "$mux")
        return {
            "ready": self._n.port("i__ready")[0], "one": "0", "position": [], "last": [],
            "wrote": self.wrote(enables), "ended": "0", "enables": enables,
            "bank": cell.ports["B"][: len(enables)],
        }  # fmt: skip

    def placed(self) -> Bits:
        """Row and half of the one that was taken last."""
        return self.before_bits(self._n.net("writer.w_addr"))

    def free(self) -> Bits:
        """The counter of halves that are free."""
        left = self.maker(self.before(self._n.port("i__ready")[0]), "$reduce_or").ports["A"]
        less = self.maker(left[0], "$sub").ports["A"]
        return self.maker(less[0], "$add").ports["A"]

    def flag(self, strobe: Bit, known: Collection[Bit] = ()) -> Bit:
        """The one register beside those known that a strobe takes as it is."""
        found = [
            bit for bit, inverted in factors(self._n, strobe)
            if not inverted and bit not in known and self.is_register(bit)
        ]  # fmt: skip
        if len(found) != 1:
            raise InputError("control is not built as expected")
        return found[0]

    def number(self) -> Bits:
        """The number that is told, of a batch's last frame."""
        return self._n.either("batch__payload", "writer.last")

    def told(self) -> Bits:
        """The counter of a batch's frames behind the number that is told."""
        payload = self.number()
        new = self.maker(self.before(payload[0]), "$mux").ports["B"]
        old = self.maker(new[0], "$mux").ports["A"]
        return old[: sum(isinstance(bit, int) for bit in payload)]


class _BatchInduction(Induction):
    """The claims about one core."""

    def __init__(self, netlist: Netlist, spec: CoreSpec, finder: _BatchFinder) -> None:
        super().__init__(netlist, spec, finder, Solver())
        self._free, self._placed = finder.free(), finder.placed()
        self._part_placed = finder.before_bits(netlist.net("writer.w_part"))
        self._bank = finder.before_bits(self._r.bank)
        self._part, address = map(finder.before_bits, (self._part_placed, self._placed))
        *self._row, self._half = address
        ended = netlist.net("writer.ended")[0]
        self._at_end = finder.flag(ended, [*self._bank, self._r.ready])
        self._told, self._last_told = finder.told(), finder.number()
        self._expired = finder.flag(netlist.net("writer.flush")[0])
        self._pauses = finder.flag(finder.before(self._expired))
        self._count = netlist.net("writer.count")

    # -- what is read out of a state ------------------------------------------------------------

    def _row_number(self, v: View) -> Any:
        return v.wide(self._row) if self._row else self._const(0)

    def _position(self, v: View) -> Any:
        """The number of the next activation within its frame."""
        _, lane = self._hot(v, self._bank)
        row = self._s.op("BV_MUL", [self._row_number(v), self._const(self._spec.lanes)])
        return self._s.add(row, lane)

    def _frames(self, v: View) -> Any:
        """Frames of the batch that have come."""
        return self._hot(v, self._part)[1]

    def _between(self, v: View) -> Any:
        """Whether a batch has some frames, and nothing of the next one."""
        s, nothing = self._s, self._const(0)
        some = self._not(s.same(self._frames(v), nothing))
        return s.both(s.same(self._position(v), nothing), some)

    def _used(self, v: View) -> Any:
        return self._s.op("BV_SUB", [self._const(2), v.wide(self._free)])

    def _write_half(self, v: View) -> Any:
        return v.bits([self._half])

    def _whole(self, v: View) -> Any:
        s, r = self._s, self._r
        still = s.same(v.bits([r.writes_to]), v.bits([self._half]))
        return s.both(v.one(r.wrote), self._not(still))

    def _take(self) -> Any:
        return self._s.both(
            self._now.one(self._n.port("i__valid")[0]), self._now.one(self._r.ready)
        )

    def _ended(self) -> Any:
        """Whether a frame's last activation is taken."""
        at_last = self._s.same(self._position(self._now), self._const(self._spec.n - 1))
        return self._s.both(self._take(), at_last)

    def _full(self) -> Any:
        """Whether that is its batch's last one."""
        at_last = self._s.same(self._frames(self._now), self._const(self._spec.frames - 1))
        return self._s.both(self._ended(), at_last)

    def _late(self) -> Any:
        """Whether a batch is closed since no activation came for so many cycles."""
        last = self._number(self._spec.flush_cycles - 1)
        counted = self._s.same(self._now.bits(self._count), last)
        return self._s.both(self._between(self._now), counted, self._not(self._take()))

    def _closed(self) -> Any:
        return self._s.op("OR", [self._full(), self._late()])

    def _number(self, value: int) -> Any:
        """A number of the cycles of a pause."""
        return self._s.number(value, len(self._count))

    # -- invariants -----------------------------------------------------------------------------

    def _activations(self, v: View) -> dict[str, Any]:
        s, spec, nothing = self._s, self._spec, self._const(0)
        position, frames, free = self._position(v), self._frames(v), v.wide(self._free)
        begun = s.op("OR", [self._not(s.same(n, nothing)) for n in (position, frames)])
        last_row = s.same(self._row_number(v), self._const(spec.bank_depth - 1))
        return {
            "one bank is next": self._hot(v, self._bank)[0],
            "one part is next": self._hot(v, self._part)[0],
            "activations are a frame's": s.op("BV_ULT", [position, self._const(spec.n)]),
            "the last row is known": s.same(v.one(self._at_end), last_row),
            "a batch's frames are counted": s.same(v.wide(self._told), frames),
            "there are two halves": s.op("BV_ULE", [free, self._const(2)]),
            "an activation is taken while a half is free": s.same(
                v.one(self._r.ready), self._not(s.same(free, nothing))
            ),
            "a batch that has begun has its half": self._implies(
                begun, self._not(s.same(free, nothing))
            ),
            **self._timed(v),
        }

    def _timed(self, v: View) -> dict[str, Any]:
        """That a pause between frames of a batch is counted up to its end."""
        s, between, count = self._s, self._between(v), v.bits(self._count)
        last = self._number(self._spec.flush_cycles - 1)
        return {
            "pauses are between frames of a batch": s.same(v.one(self._pauses), between),
            "a pause has its length": self._implies(between, s.op("BV_ULE", [count, last])),
            "the end of a pause is known": s.same(
                v.one(self._expired), s.both(between, s.same(count, last))
            ),
        }

    # -- claims ---------------------------------------------------------------------------------

    def _empty(self, v: View) -> dict[str, Any]:
        s, nothing = self._s, self._const(0)
        return {
            "nothing is owed": s.same(self._owed(v), nothing),
            "the next activation is a batch's first": s.both(
                s.same(self._position(v), nothing), s.same(self._frames(v), nothing)
            ),
            "nothing is offered": self._not(v.one(self._r.offered)),
            "nothing is told": self._not(v.one(self._n.port("batch__valid")[0])),
        }

    def _accounts(self) -> dict[str, Any]:
        s, r, now, later, one = self._s, self._r, self._now, self._later, self._const(1)
        give = s.both(now.one(r.offered), now.one(r.takes))
        closed, ended, nothing = self._closed(), self._ended(), self._const(0)
        position, frames = self._position(now), self._frames(now)
        following = s.choose(ended, nothing, s.add(position, one))
        more = self._if(closed, self._const(self._spec.rows))
        return {
            **self._offers(give),
            "rows are owed for each batch, and no others": s.same(
                s.add(self._owed(later), self._if(give, one)), s.add(self._owed(now), more)
            ),
            "a frame is so many activations": s.same(
                self._position(later), s.choose(self._take(), following, position)
            ),
            "a batch is so many frames": s.same(
                self._frames(later),
                s.choose(closed, nothing, s.add(frames, self._if(ended, one))),
            ),
            **self._told_frames(),
            **self._paused(),
            **self._bound(),
        }

    def _told_frames(self) -> dict[str, Any]:
        """That it is told how many frames a batch has: the number of the last one."""
        s, now, later = self._s, self._now, self._later
        (valid,) = self._n.port("batch__valid")
        before = s.op("BV_SUB", [self._frames(now), self._const(1)])
        last = s.choose(self._full(), self._const(self._spec.frames - 1), before)
        return {
            "each batch is told, and no others": s.same(later.one(valid), self._closed()),
            "its last frame's number is told": self._implies(
                self._closed(), s.same(later.wide(self._last_told), last)
            ),
        }

    def _paused(self) -> dict[str, Any]:
        """That the cycles of a pause are counted from a frame's end on."""
        s, now, later = self._s, self._now, self._later
        count, following = now.bits(self._count), later.bits(self._count)
        goes_on = s.both(self._between(now), self._not(self._take()), self._not(self._late()))
        return {
            "a pause begins with a frame's end": self._implies(
                s.both(self._ended(), self._not(self._full())),
                s.same(following, self._number(0)),
            ),
            "cycles of a pause are counted": self._implies(
                goes_on, s.same(following, s.add(count, self._number(1)))
            ),
        }

    def _loaded(self) -> dict[str, Any]:
        s, r, now, later, take = self._s, self._r, self._now, self._later, self._take()
        pairs = ((r.bank, self._bank), (self._part_placed, self._part),
                 (self._placed, [*self._row, self._half]))  # fmt: skip
        claims = {
            "an activation that is taken is on its way": s.same(later.one(r.wrote), take),
            "it keeps its bank, part, row and half": s.both(
                *(s.same(later.bits(a), now.bits(b)) for a, b in pairs)
            ),
            "its part is written": s.same(
                later.bits(self._n.net("writer.w_part")), now.bits(self._part_placed)
            ),
        }
        return super()._loaded() | claims | {"each part of the banks is written": self._banks()}

    def _banks(self) -> Any:
        """That the bank of a lane and a part is written with both, where the writer says."""
        now, parts = self._now, self._n.net("writer.w_part")
        banks = {bank.name: bank for bank in self._r.banks}
        claims = []
        for p, lane in enumerate(self._r.enables):
            for v, part in enumerate(parts):
                enable = self._s.both(now.one(lane), now.one(part))
                claims.append(self._writes(banks[f"bank{p}_{v}.mem"], enable, self._r.w_address))
        return self._s.both(*claims)
