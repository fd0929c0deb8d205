"""Control of a core with 8-bit weights for any pauses and resets: `sim.proof.handshakes`, with the
ends of rows counted instead of read, and words of activations that are read some cycles later.

A half of the memory is free as soon as the sequencer's last word is under way, up to four cycles
before that word of activations is read. What is claimed of these cycles: of a half that is written
again already, at most the first word is, and the last word is all that is still to be read.
"""

from collections.abc import Callable
from typing import Any

from pvq_hw.engine.int8_core import Int8Spec
from pvq_hw.engine.line_buffer import WindowSpec
from pvq_hw.errors import InputError
from sim.proof.claims import View
from sim.proof.cones import Bits
from sim.proof.formulas import Formulas, Solver
from sim.proof.handshakes import Finder, Induction
from sim.proof.line_buffers import check_line_buffer
from sim.proof.netlist import Bit, Cell, Netlist
from sim.proof.structure import factors
from sim.proof.window_handshakes import WindowFinder, WindowInduction

__all__ = ["check_wide_handshakes"]

_MOST = 4  # stages behind the sequencer, beyond which a second word may be written


def check_wide_handshakes(
    netlist: Netlist, spec: Int8Spec, window: WindowSpec | None = None
) -> int:
    """Shows by induction what `sim.proof.handshakes` does, or where windows of a map are read
    `sim.proof.window_handshakes`; returns how many claims.

    Raises
    ------
    CheckError
        A claim does not follow.
    InputError
        Frames have one word or activation, or the solver is not installed.
    """
    reasons = {
        "frames of one code word or one activation": spec.words == 1 or spec.n == 1,
        f"a wait of {spec.wait} cycles": spec.wait > _MOST,
    }
    found = [reason for reason, is_so in reasons.items() if is_so]
    if found:
        raise InputError(f"control of {found[0]} is not followed")
    if window is None:
        return _WideInduction(netlist, spec, _WideFinder(netlist, spec), Solver()).run()
    claims = _WideWindows(netlist, spec, _WideWindowFinder(netlist, spec), window).run()
    return claims + check_line_buffer(netlist, window, "writer.reader.", f"Core {spec.name!r}")


class _WideFinder(Finder):
    """No flags in a code memory, and one bank."""

    def row_ends(self, valid: Bits) -> tuple[Bit, Bits, Bits, Cell | None]:
        return self._n.net("sequencer.row_end")[0], [], [], None

    def wrote(self, enables: Bits) -> Bit:
        (taken,) = (
            bit for bit, inverted in factors(self._n, self.before(enables[0]))
            if self.is_register(bit) and not inverted
        )  # fmt: skip
        return taken

    def lane(self) -> Bits:
        """The counter of a word's activations; none where it has one."""
        if self._spec.lanes == 1:
            return []
        full = self.before(self._n.net("writer.full")[0])
        return self.compared(full, self._spec.lanes - 2)


class _WideWords(Induction):
    """What is claimed of words and rows, and of what is read."""

    def __init__(self, netlist: Netlist, spec: Int8Spec, finder: Finder, s: Solver) -> None:
        first = spec.code_latency + 1
        self._behind = [
            (netlist.net(f"word_valid_{first + i}")[0], netlist.net(f"address_{i}"))
            for i in range(spec.wait)
        ]
        super().__init__(netlist, spec, finder, s)

    def _check_code_words(self) -> None:
        """Nothing in the words tells the ends of rows."""

    def _define(self, formulas: Formulas, ends: Any) -> None:
        """No output of a memory is looked at."""

    def _code_facts(self, address: Any, ends_group: Callable[[Any], Any]) -> list[Any]:
        """Also the place in its row of this word and the next, of which a row has so many."""
        s, bits = self._s, address.sort().bv_size()
        self._phase = s.function("phase", bits, self._width)
        here, one = self._phase(address), self._const(1)
        row = self._const(self._spec.row_words)
        ends = s.same(s.add(here, one), row)
        return [
            *super()._code_facts(address, ends_group),
            s.same(self._phase(s.number(0, bits)), self._const(0)),
            s.op("BV_ULT", [here, row]),
            s.same(ends, s.same(ends_group(address), s.number(1, 1))),
            s.same(
                self._phase(s.add(address, s.number(1, bits))),
                s.choose(ends, self._const(0), s.add(here, one)),
            ),
        ]

    def _word(self, v: View) -> Any:
        """The place in its row of the word that leaves the sequencer."""
        return v.wide(self._n.net("position")) if self._spec.row_words > 1 else self._const(0)

    def _is_last(self, word: Any) -> Any:
        return self._s.same(word, self._const(self._spec.row_words - 1))

    def _early(self, v: View) -> list[Any]:
        ends = self._s.both(v.one(self._r.valid[0]), self._is_last(self._word(v)))
        return [self._if(ends, self._const(1))]

    def _row_ends(self, v: View) -> dict[str, Any]:
        s, r, words = self._s, self._r, self._spec.row_words
        word, following = self._word(v), s.add(self._word(v), self._const(1))
        next_word = s.choose(self._is_last(word), self._const(0), following)
        claims = {
            "words are a row's": s.op("BV_ULT", [word, self._const(words)]),
            "rows end where their last words are": s.same(
                self._phase(v.bits(r.address)), s.choose(v.one(r.valid[0]), next_word, word)
            ),
            "a frame ends with a row's last word": self._implies(
                v.one(r.end[0]), self._is_last(word)
            ),
        }
        if words > 1:
            claims["a row's last word is known"] = s.same(
                v.one(self._n.net("at_end")[0]), self._is_last(word)
            )
        return claims

    def _read(self) -> Any:
        """That words of activations are read in the order in which words left the sequencer."""
        s, now, later = self._s, self._now, self._later
        (bank,) = self._r.banks
        alone: Bits = ["0"] * self._spec.address_bits  # where a row has one word
        place = [*self._n.nets.get("position", alone), self._r.half[-1]]
        claims = []
        for _, address in self._behind:
            claims.append(s.same(later.bits(address), now.bits(place)))
            place = address
        claims.append(s.same(now.bits(bank.ports["RD_ADDR"]), now.bits(place)))
        return s.both(*claims)


class _WideInduction(_WideWords):
    """The claims about a core whose frames come whole."""

    def __init__(self, netlist: Netlist, spec: Int8Spec, finder: _WideFinder, s: Solver) -> None:
        self._counter = finder.lane()
        super().__init__(netlist, spec, finder, s)

    def _full(self, v: View) -> Any:
        return self._s.same(self._lane(v)[1], self._const(self._spec.lanes - 1))

    def _lane(self, v: View) -> tuple[Any, Any]:
        """That a word's last activation is known, and which is next."""
        s, lanes = self._s, self._spec.lanes
        if lanes == 1:
            return s.same(self._const(0), self._const(0)), self._const(0)
        lane = v.wide(self._counter)
        known = s.same(v.one(self._n.net("writer.full")[0]), s.same(lane, self._const(lanes - 1)))
        return s.both(known, s.op("BV_ULT", [lane, self._const(lanes)])), lane

    def _written_to(self) -> Any:
        s, now = self._s, self._now
        whole = s.op("OR", [self._full(now), now.one(self._r.ended)])
        return s.choose(whole, s.number(1, 1), s.number(0, 1))

    def _halves(self, v: View) -> dict[str, Any]:
        """Also of the words whose activations are still to be read."""
        s, r = self._s, self._r
        position, wrote = v.wide(r.position), v.one(r.wrote)
        writing = self._not(s.same(v.bits(r.enables), s.number(0, 1)))
        nothing, w_row = self._const(0), v.wide(r.w_address[:-1])
        claims = super()._halves(v) | {
            "no frame is begun where there is no half": s.op(
                "OR", [v.one(r.ready), s.same(position, nothing)]
            )
        }
        for i, (valid, address) in enumerate(self._behind[: _MOST - 1]):
            half, last = v.bits(address[-1:]), self._is_last(v.wide(address[:-1]))
            begun = {
                "is taken": (v.one(r.ready), self._write_half(v), s.same(position, nothing)),
                "is on its way": (wrote, v.bits([r.writes_to]), s.same(position, self._const(1))),
                "is written": (writing, v.bits(r.w_address[-1:]), s.same(w_row, nothing)),
            }
            for number, (what, (does, into, first)) in enumerate(begun.items()):
                same = s.both(v.one(valid), does, s.same(half, into))
                name = f"what {what} {i + 1} cycles after a word leaves its half's words alone"
                if number > i:
                    claims[name] = self._not(same)
                elif number == i:
                    alone = number < 2 or self._spec.lanes == 1
                    claims[name] = (
                        self._implies(same, s.both(first, last)) if alone else self._not(same)
                    )
        return claims

    def _hazards(self) -> dict[str, Any]:
        """Also that no word is written before it was read, and that words hold what came."""
        s, r, now = self._s, self._r, self._now
        writing = self._not(s.same(now.bits(r.enables), s.number(0, 1)))
        word = self._n.net("writer.w_data")
        longer = [*word, *self._n.net("writer.payload")][self._spec.x.bits :]
        claims = super()._hazards() | {
            "a word is what came, in order": s.same(
                self._later.bits(word),
                s.choose(now.one(r.wrote), now.bits(longer), now.bits(word)),
            )
        }
        for i, (valid, address) in enumerate(self._behind[:-1]):
            there = s.same(now.bits(r.w_address), now.bits(address))
            claims[f"no word is written that is read {len(self._behind) - 1 - i} cycles later"] = (
                self._not(s.both(writing, now.one(valid), there))
            )
        return claims


class _WideWindowFinder(WindowFinder):
    """No flags in a code memory, and one bank."""

    def row_ends(self, valid: Bits) -> tuple[Bit, Bits, Bits, Cell | None]:
        return self._n.net("sequencer.row_end")[0], [], [], None

    def writer(self) -> dict[str, Any]:
        valid, last = self.words()
        return {
            "ready": "0", "one": "0", "position": [], "last": [], "ended": last[-1],
            "wrote": valid[-1], "bank": [], "enables": self._n.net("writer.w_en"),
        }  # fmt: skip

    def full(self, parts: int) -> tuple[Bit, Bits]:
        """That a word lacks one part, and the counter of its parts; of one part none."""
        if parts == 1:
            return "1", []
        (full,) = self._n.net("writer.full")
        return full, self.compared(self.before(full), parts - 2)


class _WideWindows(_WideWords, WindowInduction):
    """The claims about a core that reads windows of a map."""

    def __init__(
        self, netlist: Netlist, spec: Int8Spec, finder: _WideWindowFinder, window: WindowSpec
    ) -> None:
        self._parts, self._together = spec.lanes // window.width, window.width * spec.x.bits
        self._full, self._counter = finder.full(self._parts)
        super().__init__(netlist, spec, finder, Solver())

    def _part(self, v: View) -> Any:
        """Parts of the word that is put together."""
        return v.wide(self._counter) if self._counter else self._const(0)

    def _halves(self, v: View) -> dict[str, Any]:
        """Also that words whose activations are still to be read are left alone: a window that was
        started since their half was freed has come so far at most."""
        s, r = self._s, self._r
        last = self._const(self._parts - 1)
        claims = super()._halves(v) | {
            "parts are a word's": s.op("BV_ULE", [self._part(v), last]),
            "a word's last part is known": s.same(v.one(self._full), s.same(self._part(v), last)),
        }
        writing = self._not(s.same(v.bits(r.enables), s.number(0, 1)))
        # Where words of windows are on their way, and the halves they go into.
        stages = [(v.one(self._reads), self._into(v, 0))]
        stages += [(v.one(bit), self._into(v, i + 1)) for i, bit in enumerate(self._valid)]
        stages += [(writing, v.bits(r.w_address[-1:]))]
        for k, (valid, address) in enumerate(self._behind):
            for j, (comes, half) in enumerate(stages[k:], k):
                same = s.same(half, v.bits(address[-1:]))
                claims[f"what is read {k + 1} cycles later is left alone in stage {j}"] = self._not(
                    s.both(v.one(valid), comes, same)
                )
        return claims

    def _into(self, v: View, stage: int) -> Any:
        """The half that a word in a stage of the line buffer goes into: after those of the windows
        whose last words are before it."""
        half = v.bits([self._r.writes_to])
        for end in self._ends(v)[stage:]:
            half = self._s.op("BV_XOR", [half, self._s.resize(end, 1)])
        return half

    def _loaded(self) -> dict[str, Any]:
        s, r, n, now, later = self._s, self._r, self._n, self._now, self._later
        come, last, full = now.one(r.wrote), now.one(r.ended), now.one(self._full)
        whole = s.both(come, s.op("OR", [full, last]))
        row, part, one = now.wide(r.row), self._part(now), self._const(1)
        word, data = n.net("writer.w_data"), n.net("writer.reader.data")
        flip = [self._spec.flipped >> k % self._spec.x.bits & 1 for k in range(len(data))]
        signs = s.number(sum(bit << k for k, bit in enumerate(flip)), len(data))
        coming = s.op("BV_XOR", [now.bits(data), signs])
        kept = [now.bits(word[self._together :])] if len(word) > self._together else []
        following = s.choose(last, self._const(0), s.add(row, one))
        parts = s.choose(s.op("OR", [full, last]), self._const(0), s.add(part, one))
        (bank,) = r.banks
        idle = s.same(later.bits(r.enables), s.number(0, 1))
        other = self._not(s.same(later.bits(r.w_address[-1:]), now.bits(r.half[-1:])))
        return {
            "nothing is written into the half that is read": self._implies(
                now.one(r.valid[-1]), s.op("OR", [idle, other])
            ),
            "words of activations are read as words left": self._read(),
            "a word is written when it is whole, or its window's last": s.same(
                s.same(later.bits(r.enables), s.number(1, 1)), whole
            ),
            "a word goes to its row and half": self._implies(
                whole, s.same(later.bits(r.w_address), now.bits([*r.row, r.writes_to]))
            ),
            "the bank is written where the writer says": self._written(
                bank, r.enables, r.w_address
            ),
            "a window's words go to rows in turn": s.same(
                later.wide(r.row), s.choose(whole, s.resize(
                    s.resize(following, len(r.row)), self._width), row)
            ),
            "parts of a word are counted": s.same(
                self._part(later), s.choose(come, parts, part)
            ) if self._counter else s.same(one, one),
            "a word is what came, in order": s.same(
                later.bits(word), s.choose(come, s.concat([coming, *kept]), now.bits(word))
            ),
        }  # fmt: skip
