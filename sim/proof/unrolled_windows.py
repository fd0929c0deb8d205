"""Control of unrolled convolutions for any pauses and resets, by induction: what
`sim.proof.unrolled_handshakes` says of frames, of windows that move through registers.

A line buffer gives units of new columns. Up to three are under way: read, on their way out, whole,
behind another one that waits, or waiting for the window to move on. They are the next ones of a
row of positions, as the column of the one that waits says; where a row begins, the first ones only
fill the window. A window is owed for each of the others from the start of its unit on.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.line_buffer import WindowSpec
from pvq_hw.engine.sliding_window import UNITS_UNDER_WAY, SlidingWindow
from pvq_hw.engine.unrolled_core import UnrolledSpec
from pvq_hw.errors import CheckError, InputError
from sim.proof.claims import View
from sim.proof.cones import Bits
from sim.proof.line_buffers import check_line_buffer
from sim.proof.netlist import Netlist
from sim.proof.unrolled_handshakes import Unrolled, UnrolledFinder

__all__ = ["check_unrolled_windows"]

_LONGEST = 64  # stages of words of windows
_READER = "collector.reader."


def check_unrolled_windows(netlist: Netlist, spec: UnrolledSpec, window: WindowSpec) -> int:
    """Shows by induction what the module says, of a core that reads windows from a line buffer;
    returns how many claims.

    Raises
    ------
    CheckError
        A claim does not follow.
    InputError
        The core is built in another way, or the solver is not installed.
    """
    sliding = SlidingWindow(window)
    _check_units(sliding, f"Core {spec.name!r}")
    claims = _Sliding(netlist, spec, _Finder(netlist, spec), sliding).run()
    return claims + check_line_buffer(netlist, sliding.reader, _READER, f"Core {spec.name!r}")


def _check_units(sliding: SlidingWindow, where: str) -> None:
    """That units put together are windows, with the places of a map in place of its activations;
    raises CheckError otherwise."""
    window, reader = sliding.window, sliding.reader
    size = int(np.prod(window.geometry.input_shape))
    places = np.arange(1, size + 1).reshape(1, -1)
    positions, columns = window.geometry.output_size, reader.geometry.output_size[1]
    rows, each = window.geometry.kernel[0], window.pixel_words * window.width
    # (rows of positions, units, kernel rows, activations of a unit in one)
    form = IntFormat(8, signed=True)  # whatever the activations are
    units = replace(reader, x=form, pad=0).compute(places).reshape(positions[0], columns, rows, -1)
    kept = window.geometry.kernel[1] * each
    wanted = replace(window, x=form, pad=0).compute(places).reshape(*positions, rows, -1)
    for column in range(sliding.lead, columns):
        first = max(0, column - sliding.lead)
        found = np.concatenate(list(units[:, first : column + 1].transpose(1, 0, 2, 3)), axis=2)
        if not np.array_equal(found[:, :, -kept:], wanted[:, column - sliding.lead]):
            raise CheckError(f"{where}: units must make windows")


class _Finder(UnrolledFinder):
    """A window that moves on in place of frames that come."""

    def collector(self) -> dict[str, Any]:
        net, held = self._n.net, self._n.either("collector.held", "collector.settled")
        return {
            "position": [], "at_end": "1", "whole": [], "held": held,
            "hold": net("collector.shift")[0],
        }  # fmt: skip


class _Sliding(Unrolled):
    """The claims about one core."""

    def __init__(
        self, netlist: Netlist, spec: UnrolledSpec, finder: _Finder, sliding: SlidingWindow
    ) -> None:
        self._sliding = sliding
        chains = (
            finder.chain(netlist.net(_READER + what)[0], _LONGEST) for what in ("valid", "last")
        )
        (self._run, *self._valid), self._last = chains
        if len(self._valid) != len(self._last):
            raise InputError("words of windows are not marked as expected")
        self._columns = sliding.reader.geometry.output_size[1]
        names = ("full", "second", "whole", "places", "move", "shift", "coming", "waiting",
                 "behind", "frame")  # fmt: skip
        self._c = {name: netlist.net(f"collector.{name}") for name in names}
        super().__init__(netlist, spec, finder)

    # -- what is read out of a state ------------------------------------------------------------

    def _ends(self, v: View) -> list[Any]:
        """Of each stage whether a unit's last word is there, 0 or 1, earliest first."""
        pairs = zip(self._valid, self._last, strict=True)
        return [self._s.op("BV_AND", [v.wide([a]), v.wide([b])]) for a, b in pairs]

    def _units(self, v: View) -> list[Any]:
        """Where units may be, 0 or 1 each, the next one that moves the window first."""
        places = [v.wide(self._c[name]) for name in ("full", "second", "whole")]
        return [*places, *reversed(self._ends(v)), v.wide([self._run])]

    def _column(self, v: View, before: Any) -> Any:
        """The column of a unit with so many before it."""
        s, columns = self._s, self._const(self._columns)
        place = s.add(v.wide(self._n.net("collector.column")), before)
        for _ in range(-(-UNITS_UNDER_WAY // self._columns)):
            past = s.op("BV_UGE", [place, columns])
            place = s.choose(past, s.op("BV_SUB", [place, columns]), place)
        return place

    def _ends_window(self, v: View, before: Any) -> Any:
        """Whether a unit with so many before it completes a window."""
        lead = self._const(self._sliding.lead)
        if not self._sliding.lead:
            return self._s.same(lead, lead)
        return self._s.op("BV_UGE", [self._column(v, before), lead])

    def _before(self, v: View) -> Any:
        """Windows before the adders: the one that stands there, and those of units."""
        found, before = [v.wide(self._r.held)], self._const(0)
        for unit in self._units(v):
            found.append(self._if(self._ends_window(v, before), unit))
            before = self._s.add(before, unit)
        return self._sum(found)

    def _under_way(self, v: View) -> Any:
        return self._sum(self._units(v))

    def _now_one(self, name: str) -> Any:
        return self._now.one(self._n.net(name)[0])

    # -- claims ---------------------------------------------------------------------------------

    def _coming_frames(self, v: View) -> dict[str, Any]:
        s, nothing, places = self._s, self._const(0), v.wide(self._c["places"])
        most = self._const(UNITS_UNDER_WAY)
        claims = {
            "each unit has a place": s.both(
                s.op("BV_ULE", [places, most]), s.same(s.add(places, self._under_way(v)), most)
            ),
            "a unit stands behind one that waits": self._implies(
                v.one(self._c["second"][0]), v.one(self._c["full"][0])
            ),
            **self._known_columns(v),
        }
        ends = self._ends(v)
        for i, valid in enumerate(self._valid):
            behind = self._sum([v.wide([self._run]), *ends[: i + 1]])
            claims[f"the word in stage {i} of the line buffer is a unit's"] = self._implies(
                v.one(valid), self._not(s.same(behind, nothing))
            )
        return claims

    def _known_columns(self, v: View) -> dict[str, Any]:
        """That the column is that of the walk, of the unit behind all that are under way."""
        if not self._sliding.lead:
            return {}
        s, reader = self._s, self._sliding.reader
        column = v.wide(self._n.net("collector.column"))
        right = s.resize(v.bits(self._n.net(_READER + "walk.next_right")), self._width, signed=True)
        step = self._const(reader.geometry.stride[1])
        moved = s.op("BV_MUL", [self._column(v, self._under_way(v)), step])
        return {
            "columns are a row's": s.op("BV_ULT", [column, self._const(self._columns)]),
            "the next unit's column is known": s.same(
                right, s.add(self._const(reader.rights()[0]), moved)
            ),
        }

    def _empty(self, v: View) -> dict[str, Any]:
        column = self._n.nets.get("collector.column", [])
        claims = {"no unit is under way": self._s.same(self._under_way(v), self._const(0))}
        if column:
            claims["the next unit is a row's first"] = self._s.same(v.wide(column), self._const(0))
        return super()._empty(v) | claims

    def _comes(self) -> Any:
        now = self._now
        return self._s.both(
            self._now_one(_READER + "start"), self._ends_window(now, self._under_way(now))
        )

    def _more(self) -> Any:
        """Whether a unit is whole in this cycle: its words come one a cycle before."""
        return self._s.same(self._ends(self._now)[-1], self._const(1))

    def _taken(self) -> dict[str, Any]:
        s, free = self._s, self._now.wide(self._c["places"])
        whole, moves = (self._now.one(self._c[name][0]) for name in ("whole", "move"))
        come = self._now.one(self._valid[-1])
        return {
            "a unit may start where it has a place": s.same(
                self._now_one(_READER + "go"), self._not(s.same(free, self._const(0)))
            ),
            "a unit that is whole moves on before the next one's words come": self._implies(
                s.both(whole, come), moves
            ),
        }

    # -- what windows hold ----------------------------------------------------------------------

    def _values(self) -> dict[str, Any]:
        s, now, later, shift = self._s, self._now, self._later, self._now.one(self._r.hold)
        data, coming, frame = self._n.net("collector.data"), self._c["coming"], self._c["frame"]
        words = now.bits([*coming, *data][len(data) :])
        moved = now.bits(self._moved(frame, self._c["waiting"]))
        return {
            "a unit is what came, in order": s.same(
                later.bits(coming),
                s.choose(now.one(self._valid[-1]), words, now.bits(coming)),
            ),
            "a window moves on by the unit that waits, and only then": s.same(
                later.bits(frame), s.choose(shift, moved, now.bits(frame))
            ),
            "a window moves on as soon as its sums are taken, or it is none": s.same(
                shift,
                s.both(
                    now.one(self._c["full"][0]),
                    s.op("OR", [self._not(now.one(self._r.held[0])),
                                self._now_one("collector.release_")]),
                ),
            ),
            **self._units_in_order(words),
            **self._in_time(),
        }  # fmt: skip

    def _units_in_order(self, words: Any) -> dict[str, Any]:
        """That units wait as they came, in order, until each has moved the window."""
        s, now, later = self._s, self._now, self._later
        number, one = s.unknown("number", self._width), self._const(1)
        gone = self._if(now.one(self._r.hold), one)
        stand = ("full", "second", "whole")

        def listed(v: View, place: Any) -> Any:
            """The unit at a place of the list of those that are whole."""
            full, second = v.wide(self._c["full"]), v.wide(self._c["second"])
            behind = s.choose(s.same(place, full), v.bits(self._c["behind"]),
                              v.bits(self._c["coming"]))  # fmt: skip
            last = s.same(place, s.add(full, second))
            first = s.both(v.one(self._c["full"][0]), s.same(place, self._const(0)))
            rest = s.choose(last, v.bits(self._c["coming"]), behind)
            return s.choose(first, v.bits(self._c["waiting"]), rest)

        here, there = (self._sum([v.wide(self._c[n]) for n in stand]) for v in (now, later))
        before = s.add(number, gone)
        ended = self._if(self._more(), one)
        return {
            "units that are whole are those that came and have not moved the window": s.same(
                s.add(there, gone), s.add(here, ended)
            ),
            "units wait as they came, in order": self._implies(
                s.op("BV_ULT", [number, there]),
                s.same(
                    listed(later, number),
                    s.choose(s.op("BV_ULT", [before, here]), listed(now, before), words),
                ),
            ),
        }

    def _moved(self, frame: Bits, unit: Bits) -> Bits:
        """The window one unit further: each kernel row loses columns and gets as many."""
        rows = self._sliding.window.geometry.kernel[0]
        old, new = len(frame) // rows, len(unit) // rows
        return [
            bit
            for k in range(rows)
            for bit in (*frame[k * old + new : (k + 1) * old], *unit[k * new : (k + 1) * new])
        ]

    def _far(self, v: View) -> Any:
        units = [v.bits(self._c[name]) for name in ("whole", "second", "full")]
        return self._s.concat([*units, super()._far(v)])

    def _room(self) -> dict[str, Any]:
        """Nothing: the line buffer takes what comes."""
        return {}
