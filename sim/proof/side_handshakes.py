"""Control of a core that computes several neighboring windows of a map side by side, for any pauses
and resets, by induction: `sim.proof.window_handshakes`, where each window has a part of the banks,
and what puts results in the order of the map.

A word of the columns that the windows have together is written into the parts whose windows it is
of, each at a place of its own: two registers further than that of one window. Behind the FIFO the
results of all windows go into one half of a memory while those in the other one leave, window by
window, without those beyond the end of a row of the map.
"""

from typing import Any

import numpy as np

from pvq_hw.engine.line_buffer import WindowSpec
from pvq_hw.engine.map_order import MapOrder, map_order
from pvq_hw.engine.pulse_core import CoreSpec
from pvq_hw.errors import CheckError, InputError
from sim.proof.claims import View
from sim.proof.cones import Bits, Cones
from sim.proof.formulas import Solver
from sim.proof.halves import HalvesClaims
from sim.proof.line_buffers import check_line_buffer
from sim.proof.netlist import Bit, Netlist
from sim.proof.walks import walk
from sim.proof.window_handshakes import WindowFinder, WindowInduction, check_kind

__all__ = ["check_side_handshakes"]

_FURTHEST = 3  # halves behind the one of a group: two that are whole, behind one that is read


def check_side_handshakes(netlist: Netlist, spec: CoreSpec, window: WindowSpec) -> int:
    """Shows by induction what the module says; returns how many claims. Errors:
    `sim.proof.window_handshakes.check_window_handshakes`."""
    check_kind(spec)
    where, order = f"Core {spec.name!r}", map_order(spec)
    assert order is not None
    core = _SideInduction(netlist, spec, _SideFinder(netlist, spec), window)
    _check_columns(netlist, core.taken, window, where)
    claims = _Order(netlist, order, where).run() + core.run()
    return claims + check_line_buffer(netlist, window.segment, "writer.reader.", where)


def _check_columns(netlist: Netlist, taken: Bits, window: WindowSpec, where: str) -> None:
    """That each word is taken for the windows whose column it is of; raises CheckError otherwise.

    A segment has whole rounds of columns: it ends where they do."""
    cones = Cones(netlist)
    wanted = {"taken": cones.before_bits(taken)}
    parts = np.repeat(window.parts(), window.pixel_words)
    found = walk(netlist, "writer.reader.valid", wanted, len(parts), where)["taken"]
    wrong = np.flatnonzero(found != parts)
    if len(wrong):
        raise CheckError(f"{where}: word {wrong[0]} of a row must be of other windows")


class _SideFinder(WindowFinder):
    """Banks of several parts, and results that do not leave at once."""

    def output(self) -> dict[str, Any]:
        net = self._n.net
        return {
            "offered": net("order.i__valid")[0], "takes": net("order.i__ready")[0],
            "result": net("fifo.o__payload"),
        }  # fmt: skip

    def writer(self) -> dict[str, Any]:
        valid, last = self.words()
        parts = range(self._spec.frames)
        return {
            "ready": "0", "one": "0", "position": [], "last": [], "ended": last[-1],
            "wrote": valid[-1], "bank": [],
            "enables": [bit for v in parts for bit in self._n.net(f"writer.w_en{v}")],
        }  # fmt: skip

    def taken(self, v: int) -> Bit:
        """Whether there is a word for a part."""
        enable = self._n.net(f"writer.w_en{v}")[0]
        return self.maker(self.before(enable), "$mux").ports["S"][0]

    def written(self) -> Bit:
        """Whether that is a segment's last one."""
        half = self._n.net("writer.half")[0]
        (bit,) = (b for b in self.operands(self.before(half), "$xor") if b != half)
        return bit


class _SideInduction(WindowInduction):
    """The claims about one core up to its FIFO."""

    def __init__(
        self, netlist: Netlist, spec: CoreSpec, finder: _SideFinder, window: WindowSpec
    ) -> None:
        self.taken = [finder.taken(v) for v in range(spec.frames)]
        self._done, self._width_of_words = finder.written(), window.width
        super().__init__(netlist, spec, finder, Solver())
        # A segment has two columns or more, so its last word has no other one behind it.
        valid, last = self._valid[0], self._last[0]
        (after,) = (finder.before(bit) for bit in self._last[:1])
        ends = self._s.both(self._now.one(valid), self._now.one(last))
        self._facts.append(self._not(self._s.both(ends, self._now.one(after))))

    def _part(self, name: str, v: int) -> Bits:
        return self._n.net(f"writer.{name}{v}")

    def _parts(self) -> range:
        return range(self._spec.frames)

    # -- invariants -----------------------------------------------------------------------------

    def _halves(self, v: View) -> dict[str, Any]:
        s, r = self._s, self._r
        done, under_way = v.one(self._done), self._not(s.same(self._under_way(v), self._const(0)))
        into = s.op("BV_XOR", [v.bits([r.writes_to]), v.bits([self._done])])
        turn, nothing = v.bits([r.turn]), self._const(0)
        whole = s.op("BV_XOR", [v.bits([r.waiting]), v.bits([r.run])])
        some = s.op("OR", [v.one(bit) for bit in self.taken])
        starts = s.both(v.one(r.run), s.same(v.wide(r.address), nothing))
        claims = {
            "halves take turns": s.same(into, s.op("BV_XOR", [turn, whole])),
            "windows whose last word is there wait": self._implies(done, v.one(r.waiting)),
            "a word is there for windows that are under way": self._implies(
                some, s.op("OR", [done, under_way])
            ),
        }
        for part in self._parts():
            enables, address = self._part("w_en", part), self._part("w_addr", part)
            writing = self._not(s.same(v.bits(enables), s.number(0, len(enables))))
            still = s.same(v.bits(address[-1:]), v.bits([r.writes_to]))
            claims[f"part {part} is written for windows that are under way"] = self._implies(
                s.both(writing, still), s.op("OR", [done, under_way])
            )
            claims[f"part {part} is written before its window is read"] = self._implies(
                s.both(writing, self._not(still)), s.op("OR", [v.one(r.waiting), starts])
            )
        return claims | self._read_halves(v)

    def _read_halves(self, v: View) -> dict[str, Any]:
        """Which halves words in the pipeline read."""
        s, r = self._s, self._r
        turns, gone = v.bits([r.turn]), self._not(v.one(r.run))
        first, ended = s.same(v.wide(r.address), self._const(0)), []
        claims = {}
        for i, (valid, half, end) in enumerate(zip(r.valid, r.half, r.end, strict=True)):
            turns = s.op("BV_XOR", [turns, v.bits([end])])
            gone = s.both(gone, self._not(v.one(end)))
            ended.append(v.one(end))
            claims[f"stage {i} reads its windows' half"] = self._implies(
                v.one(valid), s.both(s.same(v.bits([half]), turns), self._not(gone))
            )
            before = s.op("OR", ended) if len(ended) > 1 else ended[0]
            claims[f"stage {i} is of windows before where none is begun"] = self._implies(
                s.both(v.one(valid), first), before
            )
        return claims

    # -- claims ---------------------------------------------------------------------------------

    def _empty(self, v: View) -> dict[str, Any]:
        s = self._s
        first = {
            f"part {part} is written from the first place on": s.both(
                s.same(v.wide(self._part("bank", part)), self._const(1)),
                s.same(v.wide(self._part("address", part)), self._const(0)),
            )
            for part in self._parts()
        }
        return super()._empty(v) | first

    def _loaded(self) -> dict[str, Any]:
        """What becomes of words, part by part."""
        s, r, now, later = self._s, self._r, self._now, self._later
        done, claims = now.one(self._done), {"banks are read in the windows' half": self._read()}
        for part in self._parts():
            takes, half = now.one(self.taken[part]), now.bits(r.half[-1:])
            bank, row = self._part("bank", part), self._part("address", part)
            enables, address = self._part("w_en", part), self._part("w_addr", part)
            idle = s.same(later.bits(enables), s.number(0, len(enables)))
            other = self._not(s.same(later.bits(address[-1:]), half))
            mine = {
                "a word is written into its bank and row": self._implies(
                    takes,
                    s.both(
                        s.same(later.bits(enables), now.bits(bank)),
                        s.same(later.bits(address), now.bits([*row, r.writes_to])),
                    ),
                ),
                "nothing else is written": s.op("OR", [takes, idle]),
                "banks are written where the writer says": self._banks(part),
                "nothing is written into the half that is read": self._implies(
                    now.one(r.valid[-1]), s.op("OR", [idle, other])
                ),
                **self._in_turn(bank, row, takes, done),
            }
            claims |= {f"part {part}: {what}": claim for what, claim in mine.items()}
        return claims

    def _banks(self, part: int) -> Any:
        """That each bank of a part is written with its enable, where that says."""
        s, now, enables = self._s, self._now, self._part("w_en", part)
        address, claims = self._part("w_addr", part), []
        banks = {bank.name: bank for bank in self._r.banks}
        for p in range(self._spec.lanes):
            bank = banks.get(f"bank{p}_{part}.mem")
            if bank is None:
                raise InputError("banks are not built as expected")
            enable = now.one(enables[p // self._width_of_words % len(enables)])
            claims.append(self._writes(bank, enable, address))
        return s.both(*claims)


class _Order(HalvesClaims):
    """What takes the results of V windows, a row of V at a time, and gives one window's after the
    other."""

    def __init__(self, netlist: Netlist, order: MapOrder, where: str) -> None:
        width = (8 * order.words * order.side + 4 * len(order.counts)).bit_length() + 8
        super().__init__(
            netlist, f"{where}: its results", "order.", order.words, order.out_width, width
        )
        self._spec = order
        self._last, self._run = netlist.net("order.last"), netlist.net("order.run")[0]
        self._group = netlist.nets.get("order.group", [])
        some = [b for b in Cones(netlist).operands(netlist.net("order.start")[0], "$and")
                if netlist.makers[b].type == "$reduce_or"]  # fmt: skip
        if len(some) != 1:
            raise InputError("results are not put in order as expected")
        self._whole = Cones(netlist).operands(some[0], "$reduce_or")
        self._payload = netlist.net("fifo.o__payload")

    # -- what is read out of a state ------------------------------------------------------------

    def _now_group(self, v: View) -> Any:
        return v.wide(self._group) if self._group else self._const(0)

    def _after(self, group: Any, steps: Any) -> Any:
        """A group some places behind another one."""
        s, size = self._s, len(self._spec.counts)
        place, groups = s.add(group, steps), self._const(size)
        for _ in range(-(-_FURTHEST // size)):
            past = s.op("BV_UGE", [place, groups])
            place = s.choose(past, s.op("BV_SUB", [place, groups]), place)
        return place

    def _count(self, group: Any, words: int = 1) -> Any:
        """Windows of a group that are within the row of the map, or their transfers."""
        counts = self._spec.counts
        last = self._s.same(group, self._const(len(counts) - 1))
        first, rest = (self._const(counts[k] * words) for k in (0, -1))
        return self._s.choose(last, rest, first)

    def _transfers(self, group: Any) -> Any:
        return self._count(group, self._spec.words)

    def _owed(self, v: View) -> Any:
        """Transfers of halves that are whole, of the one that is read, and on their way."""
        s, whole, group = self._s, v.wide(self._whole), self._now_group(v)
        running = v.wide([self._run])
        waiting = [
            self._if(
                s.op("BV_UGT", [whole, self._const(k)]),
                self._transfers(self._after(group, s.add(running, self._const(k)))),
            )
            for k in range(2)
        ]
        return self._sum([*waiting, self._left(v), self._results(v)])

    # -- claims ---------------------------------------------------------------------------------

    def _invariants(self, v: View) -> dict[str, Any]:
        s, order, last = self._s, self._spec, v.wide(self._last)
        group, start = self._now_group(v), s.same(v.wide(self._frame), self._const(0))
        return super()._invariants(v) | {
            "groups are a row's": s.op("BV_ULT", [group, self._const(len(order.counts))]),
            "the last window within the row is known": s.same(
                last, s.op("BV_SUB", [self._count(group), self._const(1)])
            ),
            "a half is read from its first window on": s.op("OR", [v.one(self._run), start]),
            "windows are a group's": s.op("BV_ULE", [v.wide(self._frame), last]),
        }

    def _empty(self, v: View) -> dict[str, Any]:
        s, nothing = self._s, self._const(0)
        return super()._empty(v) | {
            "nothing is owed": s.same(self._owed(v), nothing),
            "the next window is a group's first": s.same(v.wide(self._frame), nothing),
            "the next group is a row's first": s.same(self._now_group(v), nothing),
        }

    def _steps(self) -> dict[str, Any]:
        s, now, later = self._s, self._now, self._later
        written = self._written()
        number = s.add(now.wide(self._whole), now.wide([self._run]))
        more = self._if(written, self._transfers(self._after(self._now_group(now), number)))
        given = self._if(self._given(), self._const(1))
        return {
            "results are owed for windows within the row, and no others": s.same(
                s.add(self._owed(later), given), s.add(self._owed(now), more)
            ),
            "a half that is whole is read as soon as none is": self._implies(
                s.both(
                    self._not(s.same(now.wide(self._whole), self._const(0))),
                    s.op("OR", [self._not(now.one(self._run)), self._released()]),
                ),
                later.one(self._run),
            ),
            **self._walks(),
            **self._memory(),
            **self._order(),
            **self._goes_on(written),
        }

    def _walks(self) -> dict[str, Any]:
        s, now, order = self._s, self._now, self._spec
        at_row = s.same(now.wide(self._row), self._const(order.words - 1))
        claims = super()._walks() | {
            "windows are read in turn": self._counted(
                self._frame, self._count(self._now_group(now)), s.both(self._issued(), at_row)
            )
        }
        if self._group:
            size = len(order.counts)
            claims["groups are read in turn"] = self._counted(self._group, size, self._released())
        return claims
