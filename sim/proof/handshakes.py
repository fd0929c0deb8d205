"""Control of a core for any pauses and resets: an account of its rows, by induction.

What is followed is a core whose frames come one after the other into two halves of its banks. Read
out of its registers is a number of rows that it owes,

    owed = rows * waiting + (running ? rows from the address on : 0) + rows in the pipeline
           + results in the FIFO,

where the words of a row with several gains end several groups, which are counted until the last
one of them ends the row. Of every state that the invariants allow, whatever ``valid``, ``ready``
and ``rst`` are, a solver shows that in the next cycle

- the invariants hold again, as they do after configuration and after any reset;
- ``owed`` has grown by the layer's rows if a frame's last activation was taken, and fallen by one
  if a result was;
- an offered result stays as it is until it is taken;
- no result finds the FIFO full, and no activation is written into the half that is read;
- while results are taken, a running frame's next word is read, or what is in pipeline and FIFO has
  moved on.

So ``owed`` is exactly what has been taken and not given: no frame is lost or made, and it falls to
0 where results are taken. Pipeline and FIFO keep their order by their making: a chain of
registers, and two counters.

The names by which registers are found are hints: what is found wrongly breaks the induction.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pvq_hw.engine.core import CoreBase
from pvq_hw.engine.pulse_core import CoreSpec
from pvq_hw.errors import CheckError, InputError
from sim.proof.claims import Claims, View
from sim.proof.cones import Bits, Cones
from sim.proof.formulas import Formulas, Solver
from sim.proof.netlist import Bit, Cell, Netlist
from sim.proof.structure import factors

__all__ = ["Finder", "Induction", "check_handshakes", "check_kind", "most_owed"]


def check_handshakes(netlist: Netlist, spec: CoreSpec) -> int:
    """Shows by induction what the module says; returns how many claims.

    Raises
    ------
    CheckError
        A claim does not follow.
    InputError
        The core is of a kind that is not followed, or the solver is not installed.
    """
    check_kind(netlist, spec)
    return Induction(netlist, spec, Finder(netlist, spec), Solver()).run()


def check_kind(netlist: Netlist, spec: CoreSpec, *, batches: bool = False) -> None:
    """Raises InputError, with the reason, where the control is another one."""
    reasons = {
        "frames that are gathered into batches": spec.flush_cycles > 0 and not batches,
        "windows of a map": spec.row_windows > 0 or any("reader." in name for name in netlist.nets),
        "streams of several activations": spec.in_width * spec.out_width > 1,
        "frames of one code word or one activation": spec.words == 1 or spec.n == 1,
    }
    found = [reason for reason, is_so in reasons.items() if is_so]
    if found:
        raise InputError(f"control of {found[0]} is not followed")


def most_owed(spec: CoreBase) -> int:
    """Rows that a core can owe: of a frame that waits, of one that runs, and those that have
    places."""
    return 2 * spec.rows + spec.fifo_depth


@dataclass(frozen=True)
class Registers:
    """Where the control of a core is in its netlist; stages of the pipeline from the code memory
    on, the strobes that end a row there with their words' flags."""

    waiting: Bit
    run: Bit
    full: Bit
    go: Bit
    address: Bits
    at_end: Bits
    taken: Bits
    more: Bit
    less: Bit
    valid: Bits
    half: Bits
    end: Bits
    turn: Bit  # the half that is read next
    flags: Bits
    memory: Cell | None  # of the codes, where these tell the ends
    group_end: Bit
    group: Bits  # counts the groups of a row that have ended; none where it has one
    after: Bits
    write: Bits
    read: Bits
    following: Bits
    some: Bit
    offered: Bit  # a result, and whether it is taken
    takes: Bit
    result: Bits
    ready: Bit
    one: Bit
    position: Bits
    last: Bits
    wrote: Bit
    ended: Bit
    writes_to: Bit
    enables: Bits
    w_address: Bits
    bank: Bits
    row: Bits
    banks: list[Cell]
    fifo: Cell


class Finder(Cones):
    """Finds them."""

    def __init__(self, netlist: Netlist, spec: Any) -> None:
        super().__init__(netlist)
        self._spec = spec
        self.stages: int = spec.code_latency

    def registers(self) -> Registers:
        n, stages = self._n, self._spec.code_latency
        valid, half, end = (
            self.chain(n.net(f"sequencer.{what}")[0], stages) for what in ("valid", "half", "end_")
        )
        go = self.before(valid[0])
        full = n.net("sequencer.taken")[-1]
        (run,) = (bit for bit, inverted in factors(n, go) if not inverted)
        (waiting,) = (b for b in self.operands(self.before(run), "$or") if self.is_register(b))
        less = n.net("sequencer.less")[0]
        (more,) = (
            b for cell in n.cells if cell.type == "$or" and less in cell.inputs
            for b in cell.inputs if b != less
        )  # fmt: skip
        after = self.chain(n.net("fifo.w_en")[0], 64)
        group_end, group, flags, memory = self.row_ends(valid)
        (fifo,) = (c for c in n.cells if c.type == "$mem_v2" and c.name.startswith("fifo."))
        banks = [c for c in n.cells if c.type == "$mem_v2" and c.name.startswith("bank")]
        return Registers(
            waiting=waiting, run=run, full=full, go=go,
            address=n.net("sequencer.addr"), at_end=n.net("sequencer.at_end"),
            taken=n.net("sequencer.taken"), more=more, less=less,
            valid=valid, half=half, end=end, turn=self.before(half[0]),
            flags=flags, memory=memory, group_end=group_end, group=group,
            after=after if group_end not in after else after[1:],
            write=n.net("fifo.ram.w_addr"), read=fifo.ports["RD_ADDR"],
            following=self._following(fifo.ports["RD_ADDR"]), some=n.net("fifo.some")[0],
            **self.output(), writes_to=n.net("writer.half")[0],
            row=self.before_bits(n.net("writer.w_addr")[:-1]),
            w_address=n.net("writer.w_addr"), banks=banks, fifo=fifo, **self.writer(),
        )  # fmt: skip

    def output(self) -> dict[str, Any]:
        """Where the FIFO's results leave."""
        port = self._n.port
        return {
            "offered": port("o__valid")[0], "takes": port("o__ready")[0],
            "result": port("o__payload"),
        }  # fmt: skip

    def writer(self) -> dict[str, Any]:
        """What tells which activation comes next, and which one is on its way."""
        n = self._n
        return {
            "ready": n.port("i__ready")[0], "one": n.net("writer.one")[0],
            "position": self._position(), "last": n.net("writer.at_end"),
            "wrote": self.wrote(n.net("writer.w_en")), "ended": n.net("writer.ended")[0],
            "bank": n.nets.get("writer.bank", []), "enables": n.net("writer.w_en"),
        }  # fmt: skip

    def row_ends(self, valid: Bits) -> tuple[Bit, Bits, Bits, Cell | None]:
        """The strobe that ends a group, the counter of groups, and the words' flags with their
        memory."""
        group_end, group = self._n.net("sequencer.row_end")[0], []
        stages = self._spec.code_latency
        if self._spec.groups > 1:
            group_end = self.before(self._n.net(f"group_end_{stages + 1}")[0])
            group = self._n.net("group")
        flag = self._group_flag(group_end, valid)
        flags = self.chain(flag, max(1, stages - 1), resets=False)
        memory = self.maker(self.before(flags[0], resets=False), "$mem_v2")
        return group_end, group, flags, memory

    def wrote(self, enables: Bits) -> Bit:
        """Whether an activation is on its way to a bank."""
        return self.maker(self.before(enables[0]), "$mux").ports["S"][0]

    def _group_flag(self, group_end: Bit, valid: Bits) -> Bit:
        """The bit of a word in the code memory's last register that tells a group's end."""
        near = valid[max(0, self._spec.code_latency - 2)]
        ends = self.before(group_end) if self.is_register(group_end) else group_end
        (flag,) = {bit for bit, _ in factors(self._n, ends)} - {near}
        return flag

    def _following(self, read: Bits) -> Bits:
        """The register of the address after the one that is read."""
        cell = self.maker(self.before(read[0]), "$mux")
        return cell.ports["B"]

    def _position(self) -> Bits:
        """The counter that a frame's last place but one is compared with."""
        return self.compared(self.before(self._n.net("writer.at_end")[0]), self._spec.n - 2)


def _found(finder: Finder) -> Registers:
    """The registers of a core's control; raises InputError where they are not found."""
    try:
        found = finder.registers()
    except ValueError:  # not the one cell of a kind that was looked for
        found = None
    chains = (found.valid, found.half, found.end) if found else ()
    if found is None or any(len(chain) != finder.stages for chain in chains):
        raise InputError("control is not built as expected")
    return found


class Induction(Claims):
    """The claims about one core.

    Parameters
    ----------
    netlist : Netlist
    spec : CoreSpec, or what has the same streams and sequencer
    finder : Finder
    solver : Solver
    """

    def __init__(self, netlist: Netlist, spec: Any, finder: Finder, solver: Solver) -> None:
        self._spec, self._r = spec, _found(finder)
        self._groups = spec.rows * spec.groups
        most = 4 * max(self._groups, self._most_counted()) + 64 * spec.fifo_depth
        super().__init__(netlist, f"Core {spec.name!r}", most.bit_length() + 8, solver)
        self._check_code_words()
        bits = len(self._r.address)
        ends_group = solver.function("ends_group", bits, 1)
        self._groups_left = solver.function("groups_left", bits, self._width)
        address = self._now.bits(self._r.address)
        self._define(self._formulas, ends_group(address))
        self._facts = self._code_facts(address, ends_group)

    def _most_counted(self) -> int:
        """The largest number beside rows that sums are made of, where there are such."""
        return 0

    # -- the code memory ------------------------------------------------------------------------

    def _define(self, formulas: Formulas, ends: Any) -> None:
        """Says what the memory's output is that tells a group's last word."""
        formulas.define(self._code_bit(), ends)

    def _code_bit(self) -> Bit:
        cell = self._n.makers[self._r.flags[0]]
        return cell.ports["D"][cell.output.index(self._r.flags[0])]

    def _check_code_words(self) -> None:
        """Raises CheckError unless the words end as many groups as there are, the last word one."""
        flags = self._code_flags()
        if flags.count("1") != self._groups or flags[-1] != "1" or set(flags) - {"0", "1"}:
            what = "rows" if self._spec.groups == 1 else "groups of rows"
            raise CheckError(f"Core {self._spec.name!r}: code words must end {self._groups} {what}")

    def _code_flags(self) -> str:
        """Whether each word ends a group, as the memory says."""
        memory, address = self._r.memory, self._r.address
        if memory is None or memory.written:
            raise InputError("codes are not read as expected")
        read = memory.ports["RD_ADDR"]
        if read[: len(address)] != address or set(read[len(address) :]) - {"0"}:
            raise InputError("codes are not read as expected")
        width, init = memory.number("WIDTH"), memory.parameters["INIT"][::-1]
        return init[memory.output.index(self._code_bit()) :: width][: self._spec.words]

    def _code_facts(self, address: Any, ends_group: Callable[[Any], Any]) -> list[Any]:
        """What the words just checked say of this address and the next: so many groups are left as
        after it, and one more where it ends one."""
        s, words, left = self._s, self._spec.words, self._groups_left
        bits = address.sort().bv_size()
        flag = s.resize(ends_group(address), self._width)
        at_last = s.same(address, s.number(words - 1, bits))
        after = left(s.add(address, s.number(1, bits)))
        return [
            s.same(left(s.number(0, bits)), s.number(self._groups, self._width)),
            s.same(left(address), s.choose(at_last, s.number(1, self._width), s.add(flag, after))),
            s.op("IMPLIES", [at_last, s.same(flag, s.number(1, self._width))]),
            s.op("BV_ULE", [left(address), s.number(self._groups, self._width)]),
        ]

    # -- what is read out of a state ------------------------------------------------------------

    def _early(self, v: View) -> list[Any]:
        """Groups that end in each stage of the code memory, 0 or 1, earliest first; the last one's
        place is being promised where its latency is 1."""
        s = self._s
        pairs = zip(self._r.valid, self._r.flags, strict=False)
        return [s.op("BV_AND", [v.wide([valid]), v.wide([flag])]) for valid, flag in pairs]

    def _uncounted(self, v: View) -> list[Any]:
        """Groups in each stage before the strobe that ends a row, 0 or 1, earliest first."""
        strobe = [] if self._spec.code_latency == 1 else [v.wide([self._r.group_end])]
        return [*self._early(v), *strobe]

    def _stages(self, v: View) -> list[Any]:
        """These, and rows in each stage from there up to the FIFO."""
        return [*self._uncounted(v), *(v.wide([bit]) for bit in self._r.after)]

    def _ending(self, v: View) -> Any:
        """Groups of the frames that run, those of a row's that have ended among them."""
        left = self._if(v.one(self._r.run), self._groups_left(v.bits(self._r.address)))
        ended = [v.wide(self._r.group)] if self._r.group else []
        return self._sum([left, *self._uncounted(v), *ended])

    def _promised(self, v: View) -> Any:
        """Rows on their way to the FIFO whose places are promised."""
        return self._sum([v.wide([bit]) for bit in self._r.after])

    def _unpromised(self, v: View) -> Any:
        """Groups on their way there whose places aren't yet."""
        return self._sum(self._uncounted(v))

    def _stored(self, v: View) -> Any:
        """Results in the FIFO's memory."""
        s, r = self._s, self._r
        bits = len(r.write)
        gap = s.op("BV_SUB", [v.bits(r.write), v.bits(r.read)])
        less_one = s.op("BV_SUB", [gap, s.number(1, bits)])
        count = s.add(s.resize(less_one, self._width), self._const(1))
        return self._if(v.one(r.some), count)

    def _level(self, v: View) -> Any:
        return self._s.add(self._stored(v), v.wide([self._r.offered]))

    def _owed(self, v: View) -> Any:
        r, spec = self._r, self._spec
        running = self._ending(v)
        if spec.groups > 1:
            running = self._s.op("BV_UDIV", [running, self._const(spec.groups)])
        return self._sum(
            [
                self._if(v.one(r.waiting), self._const(spec.rows)),
                running,
                *(v.wide([bit]) for bit in r.after),
                self._level(v),
            ]
        )

    def _way(self, v: View) -> Any:
        """How far rows of pipeline and FIFO are from the output, a number: the pipeline's bits, the
        earliest highest, then how many are stored, then what is offered, then strobes that wait."""
        r = self._r
        rows = [self._s.resize(row, 1) for row in self._stages(v)]
        stored = self._s.resize(self._stored(v), len(r.write) + 1)
        return self._s.op("BV_CONCAT", [*rows, stored, v.bits([r.less, r.more, r.offered])])

    def _places(self, v: View) -> Any:
        """Places that are counted as taken or promised."""
        first = self._start.wide(self._r.taken)
        return self._s.op("BV_SUB", [v.wide(self._r.taken), first])

    def _used(self, v: View) -> Any:
        """Halves of the banks that hold a whole frame."""
        ready, one = v.one(self._r.ready), v.wide([self._r.one])
        return self._s.choose(ready, one, self._const(2))

    def _write_half(self, v: View) -> Any:
        """The half that the next activation to be taken goes into."""
        s, r = self._s, self._r
        turns = s.op("BV_AND", [v.bits([r.wrote]), v.bits([r.ended])])
        return s.op("BV_XOR", [v.bits([r.writes_to]), turns])

    def _whole(self, v: View) -> Any:
        """Whether the activation on its way to a bank is the last one of its half."""
        return self._s.both(v.one(self._r.wrote), v.one(self._r.ended))

    # -- invariants -----------------------------------------------------------------------------

    def _invariants(self, v: View) -> dict[str, Any]:
        return {
            **self._frame_counters(v),
            **self._row_ends(v),
            **self._fifo_and_places(v),
            **self._halves(v),
        }

    def _frame_counters(self, v: View) -> dict[str, Any]:
        s, r, spec = self._s, self._r, self._spec
        address = v.wide(r.address)
        frames = self._sum([v.wide([r.waiting]), v.wide([r.run]), *(v.wide([e]) for e in r.end)])
        return {
            "a frame starts with its first word": self._implies(
                self._not(v.one(r.run)), s.same(address, self._const(0))
            ),
            "words are a frame's": s.op("BV_ULT", [address, self._const(spec.words)]),
            "the last word is known": s.same(
                v.one(r.at_end[0]), s.same(address, self._const(spec.words - 1))
            ),
            "a half holds each frame": s.same(self._used(v), frames),
            **self._activations(v),
        }

    def _activations(self, v: View) -> dict[str, Any]:
        """Which activation comes next, and where it goes."""
        s, r, spec = self._s, self._r, self._spec
        position = v.wide(r.position)
        return {
            "activations are a frame's": s.op("BV_ULT", [position, self._const(spec.n)]),
            "the last activation is known": s.same(
                v.one(r.last[0]), s.same(position, self._const(spec.n - 1))
            ),
            "an activation on its way is known for the last": self._implies(
                v.one(r.wrote), s.same(v.one(r.ended), s.same(position, self._const(0)))
            ),
            "the next activation has its bank and row": self._place(v),
            "a half is free or none": s.op("OR", [v.one(r.ready), self._not(v.one(r.one))]),
        }

    def _row_ends(self, v: View) -> dict[str, Any]:
        """That whole rows are left, where a row has several groups."""
        s, groups = self._s, self._const(self._spec.groups)
        if self._spec.groups == 1:
            return {}
        rest = s.op("BV_UREM", [self._ending(v), groups])
        return {
            "groups are a row's": s.op("BV_ULT", [v.wide(self._r.group), groups]),
            "groups that are left end whole rows": s.same(rest, self._const(0)),
        }

    def _place(self, v: View) -> Any:
        """That bank and address are those of the first activation that is not on its way yet."""
        s, r, spec = self._s, self._r, self._spec
        position = v.wide(r.position)
        before = s.op("BV_SUB", [position, self._const(1)])
        first = s.same(position, self._const(0))
        last = s.choose(first, self._const(spec.n - 1), before)
        index = s.choose(v.one(r.wrote), last, position)
        row = s.op("BV_MUL", [v.wide(r.row), self._const(spec.lanes)]) if r.row else self._const(0)
        known, lane = self._lane(v)
        return s.both(known, s.same(s.add(row, lane), index))

    def _hot(self, v: View, bits: Bits) -> tuple[Any, Any]:
        """That one bit is on, and which."""
        number = [self._if(v.one(bit), self._const(k)) for k, bit in enumerate(bits)]
        one = self._s.same(self._sum([v.wide([bit]) for bit in bits]), self._const(1))
        return one, self._sum(number)

    def _lane(self, v: View) -> tuple[Any, Any]:
        """That one bank is on, and which."""
        return self._hot(v, self._r.bank)

    def _written_to(self) -> Any:
        """The enables that the activation on its way brings."""
        return self._now.bits(self._r.bank)

    def _fifo_and_places(self, v: View) -> dict[str, Any]:
        s, r, spec = self._s, self._r, self._spec
        bits = len(r.read)
        counted = s.add(self._places(v), v.wide([r.more]))
        after, uncounted = self._promised(v), self._unpromised(v)
        most = spec.credits + spec.code_latency + 1
        return {
            "the FIFO's addresses follow": s.same(
                v.bits(r.following), s.add(v.bits(r.read), s.number(1, bits))
            ),
            "each result and row behind its promise has a place": s.same(
                counted, s.add(self._level(v), after, v.wide([r.less]))
            ),
            "one strobe waits, or none": self._not(s.both(v.one(r.more), v.one(r.less))),
            "places are promised up to a bound": s.op(
                "BV_ULE", [s.add(counted, uncounted), self._const(most)]
            ),
            "some results are stored, or none": s.op(
                "OR", [v.one(r.some), s.same(v.bits(r.write), v.bits(r.read))]
            ),
        }

    def _halves(self, v: View) -> dict[str, Any]:
        s, r = self._s, self._r
        taking, wrote = v.one(r.ready), v.one(r.wrote)
        ended = self._whole(v)
        into, turn, writes_to = self._write_half(v), v.bits([r.turn]), v.bits([r.writes_to])
        whole = s.op("BV_XOR", [v.bits([r.waiting]), v.bits([r.run])])
        writing = s.op("NOT", [s.same(v.bits(r.enables), s.number(0, len(r.enables)))])

        def other(a: Any, b: Any) -> Any:
            return self._not(s.same(a, b))

        claims = {
            "halves take turns": s.same(into, s.op("BV_XOR", [turn, whole])),
            "a frame that was taken waits": self._implies(ended, v.one(r.waiting)),
            "a frame that comes in has its half": self._implies(
                s.both(wrote, self._not(ended)),
                s.op("BV_ULE", [self._used(v), self._const(1)]),
            ),
            "none is written into the half that is next": self._implies(
                v.one(r.run),
                s.both(
                    self._implies(taking, other(turn, into)),
                    self._implies(wrote, other(turn, writes_to)),
                ),
            ),
        }
        turns, gone = turn, s.op("NOT", [v.one(r.run)])
        for i, (valid, half, end) in enumerate(zip(r.valid, r.half, r.end, strict=True)):
            read = v.bits([half])
            turns = s.op("BV_XOR", [turns, v.bits([end])])
            gone = s.both(gone, self._not(v.one(end)))
            claims[f"stage {i} reads its frame's half"] = self._implies(
                v.one(valid), s.both(s.same(read, turns), self._not(gone))
            )
            claims[f"none is written into the half that stage {i} reads"] = self._implies(
                v.one(valid),
                s.both(
                    self._implies(taking, other(read, into)),
                    self._implies(wrote, other(read, writes_to)),
                    self._implies(writing, other(read, v.bits(r.w_address[-1:]))),
                ),
            )
        return claims

    # -- claims ---------------------------------------------------------------------------------

    def _steps(self) -> dict[str, Any]:
        return self._accounts() | self._hazards() | self._progress()

    def _empty(self, v: View) -> dict[str, Any]:
        r = self._r
        return {
            "nothing is owed": self._s.same(self._owed(v), self._const(0)),
            "the next activation is a frame's first": self._s.same(
                v.wide(r.position), self._const(0)
            ),
            "nothing is offered": self._not(v.one(r.offered)),
        }

    def _taken(self) -> Any:
        """Whether an activation is taken."""
        valid = self._n.port("i__valid")[0]
        return self._s.both(self._now.one(valid), self._now.one(self._r.ready))

    def _accounts(self) -> dict[str, Any]:
        """What transfers change, and that an offered result stays."""
        s, r, now, later = self._s, self._r, self._now, self._later
        take = self._taken()
        give = s.both(now.one(r.offered), now.one(r.takes))
        at_last = s.same(now.wide(r.position), self._const(self._spec.n - 1))
        more = self._if(s.both(take, at_last), self._const(self._spec.rows))
        less = self._if(give, self._const(1))
        next_place = s.choose(at_last, self._const(0), s.add(now.wide(r.position), self._const(1)))
        return {
            **self._offers(give),
            "rows are owed for each frame, and no others": s.same(
                s.add(self._owed(later), less), s.add(self._owed(now), more)
            ),
            "a frame is so many activations": s.same(
                later.wide(r.position), s.choose(take, next_place, now.wide(r.position))
            ),
            **self._bound(),
        }

    def _bound(self) -> dict[str, Any]:
        """How much is owed at most, which tells how many batches can be under way."""
        if self._spec.frames == 1:
            return {}
        most = self._s.op("BV_ULE", [self._owed(self._now), self._const(most_owed(self._spec))])
        return {"what is owed has a bound": most}

    def _offers(self, give: Any) -> dict[str, Any]:
        """How results are offered, of which one is taken if ``give`` holds."""
        s, r, now, later = self._s, self._r, self._now, self._later
        payload, stored = r.result, r.fifo.output
        follows = s.both(now.one(r.some), s.op("OR", [self._not(now.one(r.offered)), give]))
        return {
            "a stored result is offered as soon as none is": self._implies(
                follows,
                s.both(later.one(r.offered), s.same(later.bits(payload), now.bits(stored))),
            ),
            "an offered result stays": self._implies(
                s.both(now.one(r.offered), self._not(give)),
                s.both(later.one(r.offered), s.same(later.bits(payload), now.bits(payload))),
            ),
        }

    def _hazards(self) -> dict[str, Any]:
        """What must never meet in the FIFO and in the banks."""
        return self._kept() | self._loaded()

    def _kept(self) -> dict[str, Any]:
        """What becomes of results in the FIFO."""
        s, r, now = self._s, self._r, self._now
        return {
            "a result finds a place": self._implies(
                now.one(r.after[-1]),
                s.op("BV_ULT", [self._stored(now), self._const(self._spec.fifo_depth)]),
            ),
            "results are written where they belong": s.both(
                self._written(r.fifo, r.after[-1:], r.write),
                self._implies(now.one(r.after[-1]), now.one(r.fifo.ports["WR_EN"][0])),
            ),
        }

    def _loaded(self) -> dict[str, Any]:
        """What becomes of activations in the banks."""
        s, r, now, later = self._s, self._r, self._now, self._later
        half, written = r.half[-1], later.bits(r.w_address[-1:])
        idle = s.same(later.bits(r.enables), s.number(0, len(r.enables)))
        return {
            "banks are read in the frame's half": self._read(),
            "an activation that was taken is written into its bank and row": self._implies(
                now.one(r.wrote),
                s.both(
                    s.same(later.bits(r.enables), self._written_to()),
                    s.same(later.bits(r.w_address), now.bits([*r.row, r.writes_to])),
                ),
            ),
            "nothing else is written": s.op("OR", [now.one(r.wrote), idle]),
            "banks are written where the writer says": s.both(
                *(self._written(bank, r.enables, r.w_address) for bank in r.banks)
            ),
            "nothing is written into the half that is read": self._implies(
                now.one(r.valid[-1]),
                s.op("OR", [idle, self._not(s.same(written, now.bits([half])))]),
            ),
        }

    def _read(self) -> Any:
        s, r = self._s, self._r
        half = self._now.bits(r.half[-1:])
        return s.both(
            *(s.same(self._later.bits(bank.ports["RD_ADDR"][-1:]), half) for bank in r.banks)
        )

    def _written(self, memory: Cell, strobes: Bits, address: Bits) -> Any:
        """That it is written with one of the strobes alone, at the address."""
        s, now = self._s, self._now
        none = s.same(now.bits(memory.ports["WR_EN"]), s.number(0, len(memory.ports["WR_EN"])))
        strobe = self._not(s.same(now.bits(strobes), s.number(0, len(strobes))))
        there = s.same(now.bits(memory.ports["WR_ADDR"]), now.bits(address))
        return s.op("OR", [none, s.both(strobe, there)])

    def _writes(self, memory: Cell, enable: Any, address: Bits) -> Any:
        """That all of a word is written if this holds, and nothing else, at the address."""
        s, now, size = self._s, self._now, len(memory.ports["WR_EN"])
        whole = s.choose(enable, s.number(-1, size), s.number(0, size))
        there = s.same(now.bits(memory.ports["WR_ADDR"]), now.bits(address))
        written = s.same(now.bits(memory.ports["WR_EN"]), whole)
        return s.both(written, self._implies(enable, there))

    def _progress(self) -> dict[str, Any]:
        """That all goes on: words are read while there are places, and rows move on."""
        s, r, now, later = self._s, self._r, self._now, self._later
        full, run, go = now.one(r.full), now.one(r.run), now.one(r.go)
        address = now.wide(r.address)
        at_last = s.same(address, self._const(self._spec.words - 1))
        following = s.choose(at_last, self._const(0), s.add(address, self._const(1)))
        before, after = self._way(now), self._way(later)
        arrived = s.same(before, s.number(0, before.sort().bv_size()))
        taken = now.one(r.takes)
        stays = s.both(s.same(later.wide(r.address), address), later.one(r.run))
        return {
            "a word is read while a frame runs and there are places": s.same(
                go, s.both(run, self._not(full))
            ),
            "the next word follows": self._implies(go, s.same(later.wide(r.address), following)),
            "a frame runs to its last word": self._implies(
                s.both(run, s.op("OR", [full, self._not(at_last)])), later.one(r.run)
            ),
            "a frame waits for places where it is": self._implies(s.both(run, full), stays),
            "a frame that waits runs as soon as none does": self._implies(
                s.both(now.one(r.waiting), self._not(run)), later.one(r.run)
            ),
            "rows move on": self._implies(
                s.both(taken, self._not(go)),
                s.op("OR", [arrived, s.op("BV_ULT", [after, before])]),
            ),
            "no row moves back": self._implies(self._not(go), s.op("BV_ULE", [after, before])),
            "places are taken by rows alone": self._implies(full, self._not(arrived)),
        }
