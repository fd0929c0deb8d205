"""Control of a core that reads windows of a map, for any pauses and resets, by induction, as
`sim.proof.handshakes` does it for frames that come whole. When a window starts, and which words it
reads, is in `sim.proof.line_buffers`; here is what follows its start.

A half of the banks is free, or a window is under way into it, or holds one that is not read yet:

    free + windows under way + waiting + running + windows in the pipeline = 2,

where a window is under way from its start until its last word has left the line buffer. Whatever
starts the line buffer says, no window that it starts is lost or made, and none is written into a
half that is read.
"""

from typing import Any

from pvq_hw.engine.line_buffer import WindowSpec
from pvq_hw.engine.pulse_core import CoreSpec
from pvq_hw.errors import InputError
from sim.proof.claims import View
from sim.proof.cones import Bits
from sim.proof.formulas import Solver
from sim.proof.handshakes import Finder, Induction
from sim.proof.line_buffers import check_line_buffer
from sim.proof.netlist import Bit, Netlist

__all__ = ["WindowFinder", "WindowInduction", "check_kind", "check_window_handshakes"]


def check_window_handshakes(netlist: Netlist, spec: CoreSpec, window: WindowSpec) -> int:
    """Shows by induction what the module says, and of the line buffer what
    `sim.proof.line_buffers` does; returns how many claims.

    Raises
    ------
    CheckError
        A claim does not follow.
    InputError
        The core has windows of one code word, or the solver is not installed.
    """
    check_kind(spec)
    claims = WindowInduction(netlist, spec, WindowFinder(netlist, spec), Solver()).run()
    return claims + check_line_buffer(netlist, window, "writer.reader.", f"Core {spec.name!r}")


def check_kind(spec: CoreSpec) -> None:
    """Raises InputError, with the reason, where the control is another one."""
    if spec.words == 1:
        raise InputError("control of windows of one code word is not followed")


class WindowFinder(Finder):
    """No counters of a frame's activations, but a line buffer."""

    def writer(self) -> dict[str, Any]:
        valid, last = self.words()
        lanes = range(self._spec.lanes)
        return {
            "ready": "0", "one": "0", "position": [], "last": [], "ended": last[-1],
            "wrote": valid[-1], "bank": self._n.nets.get("writer.banks", []),
            "enables": [self._n.net(f"bank{p}.w_en")[0] for p in lanes],
        }  # fmt: skip

    def words(self) -> tuple[Bits, Bits]:
        """The flags of words on their way out of the line buffer, and of windows' last ones."""
        valid, last = (self._n.net(f"writer.reader.{what}")[0] for what in ("valid", "last"))
        return self.chain(valid, 64)[1:], self.chain(last, 64)

    def free(self) -> Bits:
        """The counter of halves that are free."""
        return self.operands(self._n.net("writer.reader.go")[0], "$reduce_or")

    def run(self) -> Bit:
        """Whether a window is read."""
        valid = self._n.net("writer.reader.valid")[0]
        return self.chain(valid, 64)[0]


class WindowInduction(Induction):
    """The claims about one core."""

    def __init__(self, netlist: Netlist, spec: CoreSpec, finder: WindowFinder, s: Solver) -> None:
        self._valid, self._last = finder.words()
        self._reads, self._free = finder.run(), finder.free()
        if len(self._valid) != len(self._last):
            raise InputError("words of windows are not marked as expected")
        super().__init__(netlist, spec, finder, s)

    # -- what is read out of a state ------------------------------------------------------------

    def _ends(self, v: View) -> list[Any]:
        """Of each stage whether a window's last word is there, 0 or 1, earliest first."""
        pairs = zip(self._valid, self._last, strict=True)
        return [self._s.op("BV_AND", [v.wide([a]), v.wide([b])]) for a, b in pairs]

    def _under_way(self, v: View) -> Any:
        return self._sum([v.wide([self._reads]), *self._ends(v)])

    def _used(self, v: View) -> Any:
        """Halves that hold a whole window."""
        taken = self._s.add(v.wide(self._free), self._under_way(v))
        return self._s.op("BV_SUB", [self._const(2), taken])

    def _ended(self, v: View) -> Any:
        """Whether a window's last word leaves the line buffer."""
        return self._s.same(self._ends(v)[-1], self._const(1))

    # -- invariants -----------------------------------------------------------------------------

    def _frame_counters(self, v: View) -> dict[str, Any]:
        s, r, spec = self._s, self._r, self._spec
        address = v.wide(r.address)
        windows = self._sum([v.wide([r.waiting]), v.wide([r.run]), *(v.wide([e]) for e in r.end)])
        claims = {
            "a window starts with its first word": self._implies(
                self._not(v.one(r.run)), s.same(address, self._const(0))
            ),
            "words are a window's": s.op("BV_ULT", [address, self._const(spec.words)]),
            "the last word is known": s.same(
                v.one(r.at_end[0]), s.same(address, self._const(spec.words - 1))
            ),
            "a half is free, or holds a window": s.same(self._used(v), windows),
            "there are two halves": s.op(
                "BV_ULE", [s.add(v.wide(self._free), self._under_way(v)), self._const(2)]
            ),
        }
        # A word is of a window that is under way, whose last one is behind it.
        ends, read = self._ends(v), v.wide([self._reads])
        for i, valid in enumerate(self._valid):
            behind = self._sum([read, *ends[: i + 1]])
            claims[f"the word in stage {i} of the line buffer is a window's"] = self._implies(
                v.one(valid), self._not(s.same(behind, self._const(0)))
            )
        return claims

    def _halves(self, v: View) -> dict[str, Any]:
        s, r = self._s, self._r
        into, turn = v.bits([r.writes_to]), v.bits([r.turn])
        whole = s.op("BV_XOR", [v.bits([r.waiting]), v.bits([r.run])])
        writing = self._not(s.same(v.bits(r.enables), s.number(0, len(r.enables))))
        written = v.bits(r.w_address[-1:])
        still = s.same(written, into)
        claims = {
            "halves take turns": s.same(into, s.op("BV_XOR", [turn, whole])),
            "a word is written for a window that is under way": self._implies(
                s.both(writing, still), self._not(s.same(self._under_way(v), self._const(0)))
            ),
            "a window whose last word is written waits": self._implies(
                s.both(writing, self._not(still)), v.one(r.waiting)
            ),
        }
        turns, gone = turn, self._not(v.one(r.run))
        for i, (valid, half, end) in enumerate(zip(r.valid, r.half, r.end, strict=True)):
            turns = s.op("BV_XOR", [turns, v.bits([end])])
            gone = s.both(gone, self._not(v.one(end)))
            claims[f"stage {i} reads its window's half"] = self._implies(
                v.one(valid), s.both(s.same(v.bits([half]), turns), self._not(gone))
            )
        return claims

    # -- claims ---------------------------------------------------------------------------------

    def _empty(self, v: View) -> dict[str, Any]:
        s, r, nothing = self._s, self._r, self._const(0)
        first = [s.same(v.wide(r.bank), self._const(1))] if r.bank else []
        row = [s.same(v.wide(r.row), nothing)] if r.row else []
        return {
            "nothing is owed": s.same(self._owed(v), nothing),
            "no window is under way": s.same(self._under_way(v), nothing),
            "the next word goes to the first place": s.both(*first, *row, s.same(nothing, nothing)),
            "nothing is offered": self._not(v.one(r.offered)),
        }

    def _accounts(self) -> dict[str, Any]:
        s, r, now, later = self._s, self._r, self._now, self._later
        give = s.both(now.one(r.offered), now.one(r.takes))
        starts = now.one(self._n.net("writer.reader.start")[0])
        begun = self._if(starts, self._const(1))
        more = self._if(self._ended(now), self._const(1))
        some = self._not(s.same(now.wide(self._free), self._const(0)))
        return {
            **self._offers(give),
            "rows are owed for each window, and no others": s.same(
                s.add(self._owed(later), self._if(give, self._const(1))),
                s.add(self._owed(now), self._if(self._ended(now), self._const(self._spec.rows))),
            ),
            "each window that starts comes whole, and no others": s.same(
                s.add(self._under_way(later), more), s.add(self._under_way(now), begun)
            ),
            "a window starts where a half is free": self._implies(starts, some),
        }

    def _loaded(self) -> dict[str, Any]:
        """Also that the words of a window go into its half, from the first place on."""
        r = self._r
        ended, wrote = self._ended(self._now), self._now.one(r.wrote)
        return super()._loaded() | self._in_turn(r.bank, r.row, wrote, ended)

    def _in_turn(self, bank: Bits, row: Bits, wrote: Any, ended: Any) -> dict[str, Any]:
        """That words go to banks and rows in turn, where there are several, those of a window from
        the first ones on."""
        s, now, later = self._s, self._now, self._later
        claims = {}
        if bank:
            turned = s.choose(wrote, now.bits([bank[-1], *bank[:-1]]), now.bits(bank))
            claims["words go to the banks in turn, a window's first to the first one"] = s.same(
                later.bits(bank), s.choose(ended, s.number(1, len(bank)), turned)
            )
        if row:
            size = len(row)
            step = s.resize(now.bits(bank[-1:]), size) if bank else s.number(1, size)
            further = s.choose(wrote, s.add(now.bits(row), step), now.bits(row))
            claims["a window's words go to rows in turn"] = s.same(
                later.bits(row), s.choose(ended, s.number(0, size), further)
            )
        return claims

    def _written_to(self) -> Any:
        banks, lanes = self._r.bank, self._spec.lanes
        if not banks:
            return self._s.number((1 << lanes) - 1, lanes)
        width = lanes // len(banks)
        return self._now.bits([banks[p // width] for p in range(lanes)])
