"""Control of a line buffer for any pauses and resets, by induction: what it reads is there.

Which words it reads one after the other is in `sim.proof.window_walks`; when it may read them is
shown here. Beside the registers the solver is given numbers that none holds, which only say what
has happened: rows of the maps that have come and that were given back, the first row that the next
window needs, and for one word of the memory, which may be any, the row that was written there last.
Of every state that the invariants allow, whatever ``valid``, ``go`` and ``rst`` are,

- rows that have come and were not given back are in the memory, in turn in its places, and of the
  row that is coming in what has come of it;
- a window starts as soon as it may and its last activation has come, never before, and what it
  needs stays until its last word is read;
- given back are the rows that no later window needs: after a map's last windows all of it;
- an activation is taken where there is a place. Where there is none, a window is read, rows are
  given back or the next window may start: no line buffer waits for what it has not taken.
"""

from typing import Any

from pvq_hw.engine.line_buffer import WindowSpec
from pvq_hw.errors import InputError
from sim.proof.claims import Claims, View
from sim.proof.cones import Bits, Cones
from sim.proof.formulas import Solver
from sim.proof.netlist import Bit, Netlist
from sim.proof.window_walks import check_window_walk

__all__ = ["check_line_buffer"]


def check_line_buffer(netlist: Netlist, spec: WindowSpec, path: str, where: str) -> int:
    """Shows what the module says, and that windows are walked as the geometry says; returns how
    many claims. Parameters and errors: `sim.proof.window_walks.check_window_walk`; raises
    InputError also where no solver is installed.
    """
    check_window_walk(netlist, spec, path, where)
    return _LineBuffer(netlist, spec, path, where).run()


class _LineBuffer(Claims):
    """The claims about one line buffer.

    Numbers that no register holds: rows that have ``come`` and are ``gone``, with their places in
    the memory; ``low``, the first row that the next window needs; ``span`` and ``right``, what the
    window needs that is read, ``span_1`` and ``right_1`` a cycle later; ``there``, the row whose
    word was written last to a place of the memory that may be any.
    """

    def __init__(self, netlist: Netlist, spec: WindowSpec, path: str, where: str) -> None:
        width = 2 * (spec.depth + sum(spec.geometry.input_shape)).bit_length() + 6
        super().__init__(netlist, f"{where}: its line buffer", width, Solver())
        self._spec, self._path = spec, path
        cones = Cones(netlist)
        # Flags of words on their way out, the one of the window that is read before them.
        self._run, *self._flags = cones.chain(self._net("valid")[0], 3 + spec.latency)
        self._steplast = cones.before(self._net("walk.last")[0])
        self._pointer = netlist.either(path + "writer.pointer", path + "w_addr")
        memories = (c for c in netlist.cells if c.type == "$mem_v2" and c.name.startswith(path))
        try:
            (self._memory,) = memories
        except ValueError:
            raise InputError("windows of a map are not kept as expected") from None
        place = self._s.unknown("row's place", width), self._s.unknown("word's place", width)
        self._slot, self._word = place
        self._facts = [
            self._below(self._slot, spec.rows),
            self._below(self._word, spec.row_words),
            self._below(self._needed(), spec.rows),
        ]
        self._ghosts = {self._start: self._first()}
        now = {name: self._s.unknown(name, width) for name in self._first()}
        self._ghosts[self._now] = now
        reset = self._now.one(netlist.port("rst")[0])
        self._ghosts[self._later] = {
            name: self._s.choose(reset, self._first()[name], term)
            for name, term in self._following().items()
        }

    # -- what is read out of a state ------------------------------------------------------------

    def _net(self, name: str) -> Bits:
        return self._n.net(self._path + name)

    def _value(self, v: View, name: str) -> Any:
        """A counter; 0 where it is none, since there is one of what it counts."""
        bits = self._n.nets.get(self._path + name, [])
        return v.wide(bits) if bits else self._const(0)

    def _right(self, v: View) -> Any:
        return self._s.resize(v.bits(self._net("walk.next_right")), self._width, signed=True)

    def _needed(self) -> Any:
        """Rows that the next window needs beyond its first one."""
        if self._path + "walk.span" in self._n.nets:
            return self._now.wide(self._net("walk.span"))
        return self._const(self._spec.bands()[0].span)  # that of all windows

    def _below(self, term: Any, limit: int) -> Any:
        return self._s.op("BV_ULT", [term, self._const(limit)])

    def _times(self, term: Any, factor: int) -> Any:
        return self._s.op("BV_MUL", [term, self._const(factor)])

    def _wrapped(self, place: Any) -> Any:
        """A row's place, of a number below twice as many."""
        rows = self._const(self._spec.rows)
        past = self._s.op("BV_UGE", [place, rows])
        return self._s.choose(past, self._s.op("BV_SUB", [place, rows]), place)

    def _pending(self, v: View) -> Any:
        """Rows to be given back that are not gone."""
        closing = v.one(self._net("walk.closing")[0])
        release = self._if(closing, v.wide(self._net("walk.release_")))
        return self._s.add(v.wide(self._net("owed")), release)

    def _come_of_row(self, v: View) -> Any:
        """Words of the row that is coming in that have come."""
        pixels = self._times(self._value(v, "writer.column"), self._spec.pixel_words)
        return self._s.add(pixels, self._value(v, "writer.word_count"))

    def _has(self, v: View, span: Any, right: Any) -> Any:
        """Whether so many rows are there, and of one more all columns up to one."""
        s, filled = self._s, v.wide(self._net("filled"))
        of_row = s.op("BV_SGT", [self._value(v, "writer.column"), right])
        return s.op("OR", [s.op("BV_UGT", [filled, span]), s.both(s.same(filled, span), of_row)])

    # -- what has happened ----------------------------------------------------------------------

    def _first(self) -> dict[str, Any]:
        """Before anything has: a word may be there from before."""
        nothing = self._const(0)
        names = ("come", "come_at", "gone", "gone_at", "low", "span", "right", "span_1", "right_1")
        return dict.fromkeys(names, nothing) | {"there": self._s.unknown("before", self._width)}

    def _following(self) -> dict[str, Any]:
        """A cycle later."""
        s, now, ghosts, one = self._s, self._now, self._ghosts[self._now], self._const(1)
        starts = now.one(self._net("walk.start")[0])
        ends, gives = self._takes_row(), self._gives()
        last = self._later.one(self._net("walk.closing")[0])
        release = self._if(s.both(starts, last), self._later.wide(self._net("walk.release_")))
        place = s.add(self._times(self._slot, self._spec.row_words), self._word)
        pointer = now.wide(self._pointer)
        here = s.both(self._takes_word(), s.same(pointer, place))
        return {
            "come": s.add(ghosts["come"], self._if(ends, one)),
            "come_at": self._wrapped(s.add(ghosts["come_at"], self._if(ends, one))),
            "gone": s.add(ghosts["gone"], self._if(gives, one)),
            "gone_at": self._wrapped(s.add(ghosts["gone_at"], self._if(gives, one))),
            "low": s.add(ghosts["low"], release),
            "span": s.choose(starts, self._needed(), ghosts["span"]),
            "right": s.choose(starts, self._right(now), ghosts["right"]),
            "span_1": ghosts["span"],
            "right_1": ghosts["right"],
            "there": s.choose(here, ghosts["come"], ghosts["there"]),
        }

    def _takes(self) -> Any:
        return self._s.both(*(self._now.one(self._net(name)[0]) for name in ("i_valid", "ready")))

    def _takes_word(self) -> Any:
        """Whether a word becomes whole."""
        parts = self._spec.width // self._spec.taken
        part = self._value(self._now, "writer.part_count")
        return self._s.both(self._takes(), self._s.same(part, self._const(parts - 1)))

    def _takes_pixel(self) -> Any:
        word = self._value(self._now, "writer.word_count")
        last = self._s.same(word, self._const(self._spec.pixel_words - 1))
        return self._s.both(self._takes_word(), last)

    def _takes_row(self) -> Any:
        column = self._value(self._now, "writer.column")
        last = self._s.same(column, self._const(self._spec.geometry.input_shape[1] - 1))
        return self._s.both(self._takes_pixel(), last)

    def _gives(self) -> Any:
        """Whether a row is given back."""
        nothing, s = self._const(0), self._s
        some = (
            self._not(s.same(self._now.wide(self._net(n)), nothing)) for n in ("owed", "filled")
        )
        return s.both(*some)

    # -- invariants -----------------------------------------------------------------------------

    def _invariants(self, v: View) -> dict[str, Any]:
        s, spec, ghosts = self._s, self._spec, self._ghosts[v]
        filled, pointer = v.wide(self._net("filled")), v.wide(self._pointer)
        run, closing = v.one(self._run), v.one(self._net("walk.closing")[0])
        row = self._times(ghosts["come_at"], spec.row_words)
        return {
            **self._counts(v),
            "places are the memory's": s.both(
                self._below(ghosts["come_at"], spec.rows), self._below(ghosts["gone_at"], spec.rows)
            ),
            "rows that are there have come and are not gone": s.both(
                s.op("BV_ULE", [filled, self._const(spec.rows)]),
                s.same(s.add(ghosts["gone"], filled), ghosts["come"]),
            ),
            "rows have their places in turn": s.same(
                self._wrapped(s.add(ghosts["gone_at"], filled)), ghosts["come_at"]
            ),
            "none comes where all rows have come": self._implies(
                s.same(filled, self._const(spec.rows)),
                s.same(self._come_of_row(v), self._const(0)),
            ),
            "words go to their row's place": s.same(pointer, s.add(row, self._come_of_row(v))),
            "rows are gone that no later window needs": s.same(
                s.add(ghosts["gone"], self._pending(v)), ghosts["low"]
            ),
            "a row of windows is closed by its last one": self._implies(closing, run),
            "no row is given back while a window is read": self._implies(
                run, s.same(v.wide(self._net("owed")), self._const(0))
            ),
            "what a window needs is there while it is read": self._implies(
                run, self._has(v, ghosts["span"], ghosts["right"])
            ),
            "what is read is there": self._implies(
                v.one(self._net("walk.valid")[0]), self._has(v, ghosts["span_1"], ghosts["right_1"])
            ),
            "words that have come are where they belong": self._kept(v),
        }

    def _counts(self, v: View) -> dict[str, Any]:
        return {
            f"{what} are those of {of}": self._below(self._value(v, name), size)
            for name, size, what, of, _ in self._levels()
        }

    def _levels(self) -> list[tuple[str, int, str, str, Any]]:
        """Counters of what comes, each with its size, what it counts of what, and its step."""
        spec = self._spec
        parts, width = spec.width // spec.taken, spec.geometry.input_shape[1]
        return [
            ("writer.part_count", parts, "transfers", "a word", self._takes()),
            ("writer.word_count", spec.pixel_words, "words", "a pixel", self._takes_word()),
            ("writer.column", width, "pixels", "a row", self._takes_pixel()),
        ]

    def _counted(self, name: str, size: int, step: Any) -> Any:
        """That a counter goes on with each step, and only then, from the last one to 0."""
        s, here, one = self._s, self._value(self._now, name), self._const(1)
        at_last = s.same(here, self._const(size - 1))
        following = s.choose(at_last, self._const(0), s.add(here, one))
        return s.same(self._value(self._later, name), s.choose(step, following, here))

    def _kept(self, v: View) -> Any:
        """That the word at any place is of the row that belongs there, if that has come."""
        s, ghosts, rows = self._s, self._ghosts[v], self._const(self._spec.rows)
        number = self._wrapped(s.op("BV_SUB", [s.add(self._slot, rows), ghosts["gone_at"]]))
        filled = v.wide(self._net("filled"))
        of_row = s.op("BV_ULT", [self._word, self._come_of_row(v)])
        there = s.op("OR", [
            s.op("BV_ULT", [number, filled]), s.both(s.same(number, filled), of_row)
        ])  # fmt: skip
        # Where all places are full, the next row's is the first one's.
        return self._implies(there, s.same(ghosts["there"], s.add(ghosts["gone"], number)))

    # -- claims ---------------------------------------------------------------------------------

    def _empty(self, v: View) -> dict[str, Any]:
        nothing = self._const(0)
        counts = ("filled", "owed", "writer.part_count", "writer.word_count", "writer.column")
        return {
            "nothing is there": self._s.both(
                *(self._s.same(self._value(v, name), nothing) for name in counts)
            ),
            "nothing is read or on its way out": self._s.both(
                *(self._not(v.one(bit)) for bit in (self._run, *self._flags))
            ),
        }

    def _steps(self) -> dict[str, Any]:
        return self._starts() | self._writes()

    def _starts(self) -> dict[str, Any]:
        s, now, later = self._s, self._now, self._later
        run, closing = now.one(self._run), now.one(self._net("walk.closing")[0])
        ready, last = now.one(self._net("ready")[0]), now.one(self._steplast)
        settled = s.same(now.wide(self._net("owed")), self._const(0))
        available = self._has(now, self._needed(), self._right(now))
        free = s.op("OR", [self._not(run), last])
        may = s.both(now.one(self._net("go")[0]), settled, self._not(closing), free)
        owed, filled = now.wide(self._net("owed")), now.wide(self._net("filled"))
        fewer = s.op("BV_SUB", [owed, self._if(self._gives(), self._const(1))])
        return {
            "a window starts as soon as it may and its last activation has come": s.same(
                now.one(self._net("walk.start")[0]), s.both(may, available)
            ),
            "a window that is read goes on": s.same(later.one(self._net("walk.valid")[0]), run),
            "rows are given back one a cycle": self._implies(
                self._not(run), s.same(later.wide(self._net("owed")), fewer)
            ),
            "an activation is taken where a row has a place": s.same(
                ready, self._not(s.same(filled, self._const(self._spec.rows)))
            ),
            "no line buffer waits for itself": s.op(
                "OR", [ready, run, self._gives(), s.both(settled, available)]
            ),
        }

    def _writes(self) -> dict[str, Any]:
        """What becomes of activations: words, in order, in the memory."""
        s, now, later, ports = self._s, self._now, self._later, self._memory.ports
        whole, enables = self._takes_word(), now.bits(ports["WR_EN"])
        size = len(ports["WR_EN"])
        payload: list[Bit] = self._net("i_payload")
        kept = self._n.nets.get(self._path + "writer.kept", [])
        word = [*kept, *payload]
        claims = {
            "a word is written when it is whole, and nothing else": s.same(
                enables, s.choose(whole, s.number(-1, size), s.number(0, size))
            ),
            "it is what came, in its place": self._implies(
                whole,
                s.both(
                    s.same(now.bits(ports["WR_DATA"]), now.bits(word)),
                    s.same(now.bits(ports["WR_ADDR"]), now.bits(self._pointer)),
                ),
            ),
            "words are read where the walk says": s.same(
                now.bits(ports["RD_ADDR"]), now.bits(self._net("walk.address"))
            ),
        }
        for name, size, what, of, step in self._levels():
            claims[f"{what} of {of} are counted"] = self._counted(name, size, step)
        if kept:
            shifted = s.choose(self._takes(), now.bits(word[len(payload) :]), now.bits(kept))
            claims["activations are put together in order"] = s.same(later.bits(kept), shifted)
        return claims
