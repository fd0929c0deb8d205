"""Control of a core with 8-bit weights for any pauses and resets: `sim.proof.handshakes`, with the
ends of rows counted instead of read, and words of activations that are read some cycles later.

A half of the memory is free as soon as the sequencer's last word is under way, up to four cycles
before that word of activations is read. What is claimed of these cycles: of a half that is written
again already, at most the first word is, and the last word is all that is still to be read.
"""

from collections.abc import Callable
from typing import Any

from pvq_hw.engine.int8_core import Int8Spec
from pvq_hw.errors import InputError
from sim.proof.claims import View
from sim.proof.cones import Bits
from sim.proof.formulas import Formulas, Solver
from sim.proof.handshakes import Finder, Induction
from sim.proof.netlist import Bit, Cell, Netlist
from sim.proof.structure import factors

__all__ = ["check_wide_handshakes"]

_MOST = 4  # stages behind the sequencer, beyond which a second word may be written


def check_wide_handshakes(netlist: Netlist, spec: Int8Spec) -> int:
    """Shows by induction what `sim.proof.handshakes` does; returns how many claims.

    Raises
    ------
    CheckError
        A claim does not follow.
    InputError
        The core reads windows of a map, its frames have one word or activation, or the solver is
        not installed.
    """
    reasons = {
        "windows of a map": any("reader." in name for name in netlist.nets),
        "frames of one code word or one activation": spec.words == 1 or spec.n == 1,
        f"a wait of {spec.wait} cycles": spec.wait > _MOST,
    }
    found = [reason for reason, is_so in reasons.items() if is_so]
    if found:
        raise InputError(f"control of {found[0]} is not followed")
    return _WideInduction(netlist, spec, _WideFinder(netlist, spec), Solver()).run()


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


class _WideInduction(Induction):
    """The claims about one core."""

    def __init__(self, netlist: Netlist, spec: Int8Spec, finder: _WideFinder, s: Solver) -> None:
        self._counter = finder.lane()
        first = spec.code_latency + 1
        self._behind = [
            (netlist.net(f"word_valid_{first + i}")[0], netlist.net(f"address_{i}"))
            for i in range(spec.wait)
        ]
        super().__init__(netlist, spec, finder, s)

    # -- words and rows -------------------------------------------------------------------------

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

    # -- activations ----------------------------------------------------------------------------

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
