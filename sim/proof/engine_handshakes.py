"""Control of a shared engine of dense layers for any pauses and resets, by induction:
`sim.proof.handshakes`, where the rows of several layers pass one pipeline.

What the engine owes are the last layer's rows: all of them for a frame that waits or whose last
layer hasn't begun, those from the address on while that layer runs, and those in the pipeline and
in the FIFO. Rows of the layers before go into the banks. Shown of them, too, is that each is
written to its number's place in the region that the next layer reads, once that is through with
it:

- a layer's words are read one after the other, and no word of another one until its last result
  is written, so the word of the program, which is read at the layer's number, is the same for all
  that is in the pipeline: behind the last word, c cycles later, all stages before the c-th are
  empty;
- a layer's rows are the results that were written, those in the pipeline and those of the words
  that are left;
- the input's region is free, or holds a frame that waits, is read, or has just been read; nothing
  is written into the region that a word reads.
"""

from dataclasses import dataclass
from functools import reduce
from itertools import accumulate
from typing import Any

from pvq_hw.engine.shared_core import SharedSpec
from pvq_hw.errors import CheckError, InputError
from sim.proof.claims import View
from sim.proof.cones import Bits
from sim.proof.formulas import Solver
from sim.proof.handshakes import Finder, Induction, Registers
from sim.proof.netlist import Bit, Netlist
from sim.proof.structure import factors

__all__ = ["check_engine_handshakes", "field_bits"]


def check_engine_handshakes(netlist: Netlist, spec: SharedSpec) -> int:
    """Shows by induction what the module says; returns how many claims.

    Raises
    ------
    CheckError
        A claim does not follow.
    InputError
        The engine is of a kind that is not followed, or the solver is not installed.
    """
    reasons = {
        "an engine with maps": spec.kind != "shared",
        "an engine whose codes come from the flash": spec.code_memory == "flash",
        "an engine of one layer": len(spec.layers) == 1,
        "frames of one activation": spec.n == 1,
    }
    found = [reason for reason, is_so in reasons.items() if is_so]
    if found:
        raise InputError(f"control of {found[0]} is not followed")
    return _EngineInduction(netlist, spec, _EngineFinder(netlist, spec), Solver()).run()


@dataclass(frozen=True)
class _Steps:
    """Where it is in a netlist what tells the layer."""

    layer: Bits
    step: Bits
    turning: Bit
    turn: Bit
    count: Bits
    read: Bit
    opens: Bit
    idle: Bit
    first: Bit
    result_bank: Bits
    result_row: Bits
    given: Bits  # the activation that was taken last, a result, and what is written
    value: Bits
    data: Bits


class _EngineFinder(Finder):
    """Finds control and what tells the layer."""

    def registers(self) -> Registers:
        n, stages = self._n, self.stages
        valid = self.chain(n.net("valid")[0], stages)
        release = self.chain(n.either("sequencer.release_", "release_")[0], stages)
        ends, go = n.net("sequencer.ends")[0], self.before(valid[0])
        (run,) = (bit for bit, inverted in factors(n, go) if not inverted)
        (at_end,) = (b for b, inverted in factors(n, ends) - factors(n, go) if not inverted)
        waits = self._only_or(n.net("sequencer.starts")[0], n.net("sequencer.first")[0])
        less = n.net("sequencer.less")[0]
        (more,) = (
            b for cell in n.cells if cell.type == "$or" and less in cell.inputs
            for b in cell.inputs if b != less
        )  # fmt: skip
        group_end, _, flags, memory = self.row_ends(valid)
        (fifo,) = (c for c in n.cells if c.type == "$mem_v2" and c.name.startswith("fifo."))
        banks = {
            c.name.split(".")[0]: c
            for c in n.cells if c.type == "$mem_v2" and c.name.startswith("bank")
        }  # fmt: skip
        after = self.chain(n.net("result")[0], 64)
        return Registers(
            waiting=waits, run=run, full=n.net("sequencer.taken")[-1], go=go,
            address=n.net("sequencer.addr"), at_end=[at_end], taken=n.net("sequencer.taken"),
            more=more, less=less, valid=valid, half=valid, end=release, turn="0", flags=flags,
            memory=memory, group_end=group_end, group=[],
            after=after if group_end not in after else after[after.index(group_end) + 1 :],
            write=n.net("fifo.ram.w_addr"), read=fifo.ports["RD_ADDR"],
            following=self._following(fifo.ports["RD_ADDR"]), some=n.net("fifo.some")[0],
            **self.output(), **self.writer(), writes_to="0", w_address=n.net("writer.w_addr"),
            row=n.net("writer.input_address"),
            banks=[banks[f"bank{p}"] for p in range(self._spec.lanes)], fifo=fifo,
        )  # fmt: skip

    def writer(self) -> dict[str, Any]:
        n = self._n
        enables = n.net("writer.w_en")
        taken = self.maker(self.maker(self.before(enables[0]), "$mux").ports["A"][0], "$mux")
        return {
            "ready": self.free(), "one": "0", "position": self._position(),
            "last": n.net("writer.at_end"), "wrote": taken.ports["S"][0],
            "ended": n.net("writer.ended")[0], "bank": n.net("writer.input_bank"),
            "enables": enables,
        }  # fmt: skip

    def free(self) -> Bit:
        """Whether the input's region is free."""
        ready = factors(self._n, self._n.port("i__ready")[0])
        (free,) = (bit for bit, inverted in ready if not inverted)
        return free

    def steps(self, run: Bit) -> _Steps:
        """What tells the layer."""
        n = self._n
        turn, opens = (n.either(f"sequencer.{name}", name)[0] for name in ("turn", "opens"))
        last = self._spec.last_result_stage - 1
        count = self.compared(turn, last)
        (turning,) = (b for b, _ in factors(n, turn) if self.is_register(b) and b != run)
        return _Steps(
            layer=n.net("sequencer.program_.addr"), step=n.net("sequencer.step"),
            turning=turning, turn=turn, count=count, read=self.before(opens), opens=opens,
            idle=n.net("sequencer.idle")[0], first=n.net("sequencer.first")[0],
            result_bank=n.net("writer.result_bank"), result_row=n.net("writer.result_address"),
            given=n.net("writer.given"), value=n.net("writer.value"), data=n.net("writer.w_data"),
        )  # fmt: skip

    def _only_or(self, strobe: Bit, first: Bit) -> Bit:
        """The register that is joined with another one's inverse where a strobe is decided."""
        for cell in self.cone(strobe):
            inverses = [b for b in cell.inputs if (first, True) in factors(self._n, b)]
            if cell.type == "$or" and inverses:
                (found,) = (b for b in cell.inputs if self.is_register(b))
                return found
        raise InputError("control is not built as expected")


class _EngineInduction(Induction):
    """The claims about one engine."""

    _spec: SharedSpec

    def __init__(
        self, netlist: Netlist, spec: SharedSpec, finder: _EngineFinder, solver: Solver
    ) -> None:
        ends = list(accumulate(layer.words for layer in spec.layers))
        self._last = [end - 1 for end in ends]
        self._base = [0, *ends[:-1]]
        super().__init__(netlist, spec, finder, solver)
        try:
            self._e = finder.steps(self._r.run)
        except ValueError:  # not the one bit that was looked for
            raise InputError("control is not built as expected") from None
        self._program = self._check_program()

    def _most_counted(self) -> int:
        spec = self._spec
        rows = max(max(layer.rows, layer.n) for layer in spec.layers)
        return max(spec.words, rows + 2 * spec.lanes, len(spec.layers), spec.last_result_stage)

    # -- memories -------------------------------------------------------------------------------

    def _check_code_words(self) -> None:
        """Raises CheckError unless each layer's words end its rows, its last word one."""
        flags = self._code_flags()
        for layer, base, last in zip(self._spec.layers, self._base, self._last, strict=True):
            own = flags[base : last + 1]
            if own.count("1") != layer.rows or own[-1] != "1" or set(own) - {"0", "1"}:
                what = f"code words of layer {layer.name!r} must end {layer.rows} rows"
                raise CheckError(f"Core {self._spec.name!r}: {what}")

    def _code_facts(self, address: Any, ends_group: Any) -> list[Any]:
        """What the words just checked say of this address and the next: a layer's last word leaves
        one row, any other one as many as the next, and one more where it ends one."""
        s, left, bits = self._s, self._groups_left, address.sort().bv_size()
        flag = s.resize(ends_group(address), self._width)
        at_last = self._any(s.same(address, s.number(last, bits)) for last in self._last)
        after = left(s.add(address, s.number(1, bits)))
        begins = [
            s.same(left(s.number(base, bits)), self._const(layer.rows))
            for layer, base in zip(self._spec.layers, self._base, strict=True)
        ]
        return [
            *begins,
            s.same(left(address), s.choose(at_last, self._const(1), s.add(flag, after))),
            self._implies(at_last, s.same(flag, self._const(1))),
            s.op("BV_ULE", [left(address), self._const(max(x.rows for x in self._spec.layers))]),
        ]

    def _check_program(self) -> list[dict[str, int]]:
        """The words of the program's memory, which the word that is read is defined to be; raises
        CheckError where they are not the layers'."""
        e, spec, steps = self._e, self._spec, self._spec.steps()
        makers = {self._n.makers[self._formulas.next_bit(bit)].name for bit in e.step}
        memory = next(c for c in self._n.cells if c.name in makers)
        if len(makers) != 1 or memory.type != "$mem_v2" or memory.written:
            raise InputError("the program is not read as expected")
        read, size = memory.ports["RD_ADDR"], len(e.step)
        if read[: len(e.layer)] != e.layer or set(read[len(e.layer) :]) - {"0"}:
            raise InputError("the program is not read as expected")
        init = memory.parameters["INIT"][::-1]
        for number, step in enumerate(steps):
            word = init[number * size : (number + 1) * size]
            if word != _word(step, spec.program_fields):
                layer = spec.layers[number].name
                raise CheckError(f"Core {spec.name!r}: the program of layer {layer!r} is another")
        for bit in e.step:
            data = self._formulas.next_bit(bit)
            at = memory.output.index(data)
            own = [int(init[number * size + at]) for number in range(len(steps))]
            self._formulas.define(data, self._of_layer(self._now, own, 1))
        return steps

    # -- terms ----------------------------------------------------------------------------------

    def _any(self, formulas: Any) -> Any:
        return reduce(lambda a, b: self._s.op("OR", [a, b]), formulas)

    def _is(self, v: View, number: int) -> Any:
        """Whether a layer's number is this one."""
        return self._s.same(v.wide(self._e.layer), self._const(number))

    def _of_layer(self, v: View, values: list[int], width: int = 0) -> Any:
        """Of a number for each layer the present one's."""
        terms = [self._s.number(value, width or self._width) for value in values]
        pairs = reversed(list(enumerate(terms[:-1])))
        return reduce(
            lambda rest, p: self._s.choose(self._is(v, p[0]), p[1], rest), pairs, terms[-1]
        )

    def _at_last(self, v: View) -> Any:
        """Whether the layer is the last one."""
        return self._is(v, len(self._spec.layers) - 1)

    def _field(self, v: View, name: str) -> Any:
        """A field of the program's word that is there."""
        return v.bits(field_bits(self._e.step, self._spec.program_fields, name))

    def _step(self, v: View) -> Any:
        """The word of the present layer."""
        fields = self._spec.program_fields
        words = [int(_word(step, fields)[::-1], 2) for step in self._program]
        return self._of_layer(v, words, len(self._e.step))

    def _results(self, v: View) -> tuple[Any, Any]:
        """That one bank is the next result's, and how many results of the layer were written."""
        s, e = self._s, self._e
        one, lane = self._hot(v, e.result_bank)
        row = s.op("BV_MUL", [v.wide(e.result_row), self._const(self._spec.lanes)])
        return one, s.add(row, lane)

    def _busy(self, v: View) -> Any:
        """Whether words of the layer are read, or its last one has been."""
        return self._s.op("OR", [v.one(self._r.run), v.one(self._e.turning)])

    def _begins(self, v: View) -> Any:
        """Whether the layer's word of the program comes."""
        return self._s.op("OR", [v.one(self._e.read), v.one(self._e.opens)])

    def _empties(self, v: View, number: int) -> Any:
        """Whether a stage, of so many cycles less one behind a word's reading, has to be empty."""
        count = self._s.op("BV_UGT", [v.wide(self._e.count), self._const(number)])
        turned = self._s.both(v.one(self._e.turning), count)
        return self._any([turned, self._begins(v), v.one(self._e.idle)])

    def _nothing_read(self, v: View) -> Any:
        """Whether no word is between the code memory and the banks."""
        return self._s.same(v.bits(self._r.valid), self._s.number(0, len(self._r.valid)))

    def _frame_written(self, v: View) -> Any:
        """Whether an activation of a frame is written now."""
        s, r = self._s, self._r
        some = self._not(s.same(v.bits(r.enables), s.number(0, len(r.enables))))
        return s.both(some, s.same(self._region(v.bits(r.w_address)), s.number(0, self._regions)))

    @property
    def _regions(self) -> int:
        return self._spec.region_bits

    def _region(self, address: Any) -> Any:
        """The region of a bank's address."""
        top = address.sort().bv_size() - 1
        return self._s.op("BV_EXTRACT", [address], [top, top - self._regions + 1])

    def _between(self) -> Any:
        """Whether a result of a layer before the last one is to be written."""
        return self._s.both(self._now.one(self._r.after[-1]), self._not(self._at_last(self._now)))

    # -- what is read out of a state ------------------------------------------------------------

    def _promised(self, v: View) -> Any:
        return self._if(self._at_last(v), super()._promised(v))

    def _unpromised(self, v: View) -> Any:
        return self._if(self._at_last(v), super()._unpromised(v))

    def _left(self, v: View) -> Any:
        """Rows of the layer that the words from the address on end."""
        return self._if(v.one(self._r.run), self._groups_left(v.bits(self._r.address)))

    def _owed(self, v: View) -> Any:
        s, r, e = self._s, self._r, self._e
        rows, last = self._const(self._spec.rows), self._at_last(v)
        begins = s.both(self._begins(v), self._not(v.one(e.first)))
        comes = s.op("OR", [begins, s.both(self._busy(v), self._not(last))])
        now = s.add(self._left(v), self._sum(self._stages(v)))
        return self._sum(
            [
                self._if(v.one(r.waiting), rows),
                self._if(comes, rows),
                self._if(last, now),
                self._level(v),
            ]
        )

    # -- invariants -----------------------------------------------------------------------------

    def _invariants(self, v: View) -> dict[str, Any]:
        return {
            **self._layers(v),
            **self._pipeline(v),
            **self._activations(v),
            **self._fifo_and_places(v),
            **self._halves(v),
        }

    def _layers(self, v: View) -> dict[str, Any]:
        s, r, e = self._s, self._r, self._e
        count, last = len(self._spec.layers), self._spec.last_result_stage
        phases = self._sum([v.wide([b]) for b in (r.run, e.turning, e.read, e.opens, e.idle)])
        address, counted = v.wide(r.address), v.wide(e.count)
        within = s.both(
            s.op("BV_ULE", [self._of_layer(v, self._base), address]),
            s.op("BV_ULE", [address, self._of_layer(v, self._last)]),
        )
        following = self._of_layer(v, [*self._base[1:], 0])
        unread = s.both(v.one(e.idle), self._not(v.one(r.waiting)))
        known = s.same(v.bits(e.step), self._step(v))
        return {
            "a layer runs, turns or begins, or all wait": s.same(phases, self._const(1)),
            "layers are the engine's": s.op("BV_ULT", [v.wide(e.layer), self._const(count)]),
            "the first layer is known": s.same(v.one(e.first), self._is(v, 0)),
            "only the first layer waits": self._implies(v.one(e.idle), v.one(e.first)),
            "the program's word is the layer's": self._any([v.one(e.read), unread, known]),
            "words are the layer's": self._implies(v.one(r.run), within),
            "a layer that turns leaves the next one's first word": self._implies(
                v.one(e.turning), s.same(address, following)
            ),
            "a layer begins with its first word": self._implies(
                s.op("OR", [self._begins(v), v.one(e.idle)]),
                s.same(address, self._of_layer(v, self._base)),
            ),
            "the last word is known": self._implies(
                v.one(r.run),
                s.same(v.one(r.at_end[0]), s.same(address, self._of_layer(v, self._last))),
            ),
            "a turn is so many cycles": s.choose(
                v.one(e.turning),
                s.op("BV_ULT", [counted, self._const(last)]),
                s.same(counted, self._const(0)),
            ),
        }

    def _pipeline(self, v: View) -> dict[str, Any]:
        """What is in it, behind a layer's last word and in all."""
        s, r, e = self._s, self._r, self._e
        claims = {}
        for number, stage in enumerate(self._stages(v)):
            claims[f"stage {number} is empty behind the last word"] = self._implies(
                self._empties(v, number), s.same(stage, self._const(0))
            )
        for number, (valid, release) in enumerate(zip(r.valid, r.end, strict=True)):
            turned = s.both(
                v.one(e.turning), v.one(e.first), s.same(v.wide(e.count), self._const(number))
            )
            claims[f"no word is in stage {number} behind the last one"] = self._implies(
                self._empties(v, number), self._not(v.one(valid))
            )
            claims[f"stage {number} gives back the input's region with its last word"] = s.same(
                v.one(release), turned
            )
        one, written = self._results(v)
        rows = self._of_layer(v, [layer.rows for layer in self._spec.layers])
        all_of = self._sum([written, self._left(v), *self._stages(v)])
        between = s.both(self._busy(v), self._not(self._at_last(v)))
        return {
            **claims,
            "the next result has its bank": one,
            "a layer's rows are written, under way or left": self._implies(
                between, s.same(all_of, rows)
            ),
            "a layer's first result comes first": self._any(
                [between, s.same(written, self._const(0))]
            ),
        }

    def _halves(self, v: View) -> dict[str, Any]:
        """The regions: what is free, and that none is written that is read."""
        s, r, e = self._s, self._r, self._e
        reads = s.both(v.one(r.run), v.one(e.first))
        held = self._sum(
            [v.wide([r.waiting]), self._if(reads, self._const(1)), *(v.wide([b]) for b in r.end)]
        )
        free = s.choose(v.one(r.ready), self._const(0), self._const(1))
        unread = s.both(self._not(v.one(r.run)), self._nothing_read(v))
        wrote, first = v.one(r.wrote), v.one(e.first)
        whole = s.both(wrote, v.one(r.ended))
        return {
            "the input's region is free, or a frame waits or is read": s.same(held, free),
            "a frame that was taken waits": self._implies(whole, v.one(r.waiting)),
            "a frame that comes in has its region": self._implies(
                s.both(wrote, self._not(v.one(r.ended))), v.one(r.ready)
            ),
            "nothing is taken into what is read": self._implies(s.both(wrote, first), unread),
            "nothing is written into what is read": self._implies(
                s.both(self._frame_written(v), first), self._nothing_read(v)
            ),
            "an activation and a result never come at once": self._any(
                [self._not(wrote), self._not(v.one(r.after[-1])), self._at_last(v)]
            ),
        }

    # -- claims ---------------------------------------------------------------------------------

    def _empty(self, v: View) -> dict[str, Any]:
        return super()._empty(v) | {"all wait": v.one(self._e.idle)}

    def _loaded(self) -> dict[str, Any]:
        """What becomes of activations and of results between layers, in the banks."""
        s, r, e, now, later = self._s, self._r, self._e, self._now, self._later
        idle = s.same(later.bits(r.enables), s.number(0, len(r.enables)))
        between = self._between()
        place = s.concat([self._field(now, "target"), now.bits(e.result_row)])
        frame = now.bits([*r.row, *["0"] * self._regions])
        source, region = self._field(now, "source"), self._region(later.bits(r.w_address))
        depth = len(r.row)
        data, given, payload = e.data, e.given, self._n.port("i__payload")
        return {
            "an activation that was taken is written into its bank and row": self._implies(
                now.one(r.wrote),
                s.both(
                    s.same(later.bits(r.enables), now.bits(r.bank)),
                    s.same(later.bits(r.w_address), frame),
                ),
            ),
            "a result between layers is written into its bank, row and region": self._implies(
                between,
                s.both(
                    s.same(later.bits(r.enables), now.bits(e.result_bank)),
                    s.same(later.bits(r.w_address), place),
                ),
            ),
            "what is written is the activation that was taken, or the result": s.both(
                self._implies(now.one(r.wrote), s.same(later.bits(data), now.bits(given))),
                self._implies(between, s.same(later.bits(data), now.bits(e.value))),
            ),
            "an activation that is taken waits for its place": self._implies(
                self._taken(), s.same(later.bits(given[: len(payload)]), now.bits(payload))
            ),
            **self._watched(between),
            "nothing else is written": self._any([now.one(r.wrote), between, idle]),
            "banks are written where the writer says": s.both(
                *(
                    self._writes(bank, now.one(enable), r.w_address)
                    for bank, enable in zip(r.banks, r.enables, strict=True)
                )
            ),
            "banks are read in the layer's region": s.both(
                *(s.same(now.bits(bank.ports["RD_ADDR"][depth:]), source) for bank in r.banks)
            ),
            "nothing is written into the region that is read": self._implies(
                now.one(r.valid[-1]),
                s.op("OR", [idle, self._not(s.same(region, source))]),
            ),
            "the program's word stays while a row is under way": self._any(
                [
                    self._stays_empty(),
                    s.same(later.bits(e.step), now.bits(e.step)),
                ]
            ),
        }

    def _watched(self, between: Any) -> dict[str, Any]:
        """That each layer's results, and no others, are told to who watches it."""
        s, now = self._s, self._now
        return {
            f"results of layer {number} are its own": s.same(
                now.one(self._n.net(f"layer{number}.o__valid")[0]),
                s.both(between, self._is(now, number)),
            )
            for number in range(len(self._spec.layers) - 1)
        }

    def _taken(self) -> Any:
        valid, ready = (self._n.port(f"i__{name}")[0] for name in ("valid", "ready"))
        return self._s.both(self._now.one(valid), self._now.one(ready))

    def _stays_empty(self) -> Any:
        """Whether no word and no row is in the pipeline in the next cycle."""
        nothing = self._s.same(self._sum(self._stages(self._later)), self._const(0))
        return self._s.both(nothing, self._nothing_read(self._later))

    def _kept(self) -> dict[str, Any]:
        """What becomes of the last layer's results in the FIFO."""
        s, r, now = self._s, self._r, self._now
        comes = s.both(now.one(r.after[-1]), self._at_last(now))
        room = s.op("BV_ULT", [self._stored(now), self._const(self._spec.fifo_depth)])
        return {
            "a result finds a place": self._implies(comes, room),
            "results are written where they belong": self._writes(r.fifo, comes, r.write),
        }

    def _progress(self) -> dict[str, Any]:
        """That all goes on: words are read while there are places, layers follow one another, and
        rows move on."""
        s, r, e, now, later = self._s, self._r, self._e, self._now, self._later
        run, go, turns = now.one(r.run), now.one(r.go), now.one(e.turn)
        address, layer = now.wide(r.address), now.wide(e.layer)
        full = s.both(now.one(r.full), self._at_last(now))
        at_last = s.same(address, self._of_layer(now, self._last))
        frame_ends = s.same(address, self._const(self._spec.words - 1))
        following = s.choose(frame_ends, self._const(0), s.add(address, self._const(1)))
        after = s.choose(self._at_last(now), self._const(0), s.add(layer, self._const(1)))
        stays = s.both(s.same(later.wide(r.address), address), later.one(r.run))
        starts = s.op("OR", [now.one(r.waiting), self._not(now.one(e.first))])
        opens = s.op("OR", [now.one(e.opens), now.one(e.idle)])
        counted = s.same(later.wide(e.count), s.add(now.wide(e.count), self._const(1)))
        base = super()._progress()
        return {
            what: base[what]
            for what in ("rows move on", "no row moves back", "places are taken by rows alone")
        } | {
            "a word is read while a layer runs and there are places": s.same(
                go, s.both(run, self._not(full))
            ),
            "the next word follows": self._implies(go, s.same(later.wide(r.address), following)),
            "a layer waits for places where it is": self._implies(
                s.both(run, self._not(go)), stays
            ),
            "a layer runs to its last word": self._implies(
                s.both(go, self._not(at_last)), later.one(r.run)
            ),
            "a layer that was read turns": self._implies(s.both(go, at_last), later.one(e.turning)),
            "a turn ends": self._implies(
                now.one(e.turning),
                s.choose(turns, later.one(e.read), s.both(later.one(e.turning), counted)),
            ),
            "the next layer's word is read": self._implies(now.one(e.read), later.one(e.opens)),
            "the next layer follows": s.same(later.wide(e.layer), s.choose(turns, after, layer)),
            "a layer begins as soon as it may": self._implies(
                opens, s.choose(starts, later.one(r.run), later.one(e.idle))
            ),
            "an activation is taken where its region is free and no result comes": s.same(
                now.one(self._n.port("i__ready")[0]),
                s.both(
                    now.one(r.ready),
                    s.op("OR", [self._not(now.one(r.after[-2])), self._at_last(now)]),
                ),
            ),
        }


def field_bits(step: Bits, fields: dict[str, int], name: str) -> Bits:
    """The bits of a field in the program's word."""
    sizes = list(accumulate(fields.values(), initial=0))
    at = list(fields).index(name)
    return step[sizes[at] : sizes[at + 1]]


def _word(step: dict[str, int], fields: dict[str, int]) -> str:
    """The program's word, its lowest bit first."""
    return "".join(f"{step[name]:0{size}b}"[::-1] for name, size in fields.items() if size)
