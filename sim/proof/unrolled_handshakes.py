"""Control of unrolled cores for any pauses and resets, by induction.

Frames wait before the adders: one that has come whole, and one that is held for their sums. These
are taken at once and leave for the requantizers one after the other; each transfer of results has
a place in the FIFO from then on, or in a pipelined core from the frame's start. A core owes

    places * (frames before the adders + starts on their way) + transfers of the sums that are left
    + results on their way and in the FIFO.
"""

import re
from dataclasses import dataclass, replace
from typing import Any

from pvq_hw.engine.unrolled_core import UnrolledSpec
from pvq_hw.errors import CheckError, InputError
from sim.proof.claims import View
from sim.proof.cones import Bits, Cones
from sim.proof.formulas import Solver
from sim.proof.netlist import Bit, Netlist
from sim.proof.queues import QueueClaims, find_queue
from sim.proof.structure import factors

__all__ = [
    "Unrolled",
    "UnrolledFinder",
    "UnrolledRegisters",
    "check_unrolled_handshakes",
    "operand",
]

_LONGEST = 1 << 10  # cycles from a frame's start to its sums


def check_unrolled_handshakes(netlist: Netlist, spec: UnrolledSpec) -> int:
    """Shows by induction what the module says, of a core whose frames come whole; returns how many
    claims.

    Raises
    ------
    CheckError
        A claim does not follow.
    InputError
        The core is built in another way, or the solver is not installed.
    """
    return Unrolled(netlist, spec, UnrolledFinder(netlist, spec)).run()


@dataclass(frozen=True)
class UnrolledRegisters:
    """Where control is; none of what a core lacks."""

    position: Bits
    at_end: Bit
    whole: Bits
    held: Bits
    hold: Bit
    wait: Bits
    busy: Bits
    left: Bits
    load: Bit
    step: Bit
    pause: Bits  # of a multiplier that takes several cycles
    group: Bits
    starts: Bits  # frames on their way through the adders, earliest first
    spare: Bits
    between: Bits  # cycles until the next frame may start
    rested: Bits
    popped: Bits  # transfers of a frame that have left


class UnrolledFinder(Cones):
    def __init__(self, netlist: Netlist, spec: UnrolledSpec) -> None:
        super().__init__(netlist)
        self._spec = spec

    def registers(self) -> UnrolledRegisters:
        n, spec = self._n, self._spec
        # Where sums are not kept, strobes of starts are those of results: one chain.
        names = () if spec.direct else ("load", "step", "settled")
        load, step, settled = [n.net(f"shifter.{name}")[0] for name in names] or ["0", "0", "0"]
        return UnrolledRegisters(
            **self.collector(), wait=n.nets.get("collector.wait_", []),
            busy=[] if spec.direct else [self._busy(load, settled)],
            left=[] if spec.direct else self._left(), load=load, step=step,
            pause=n.nets.get("shifter.pause", []), group=n.nets.get("shifter.group", []),
            starts=self.chain(settled, _LONGEST) if spec.pipelined and not spec.direct else [],
            spare=n.either("credits.spare", "pacer.credits.spare"),
            between=self._between(), rested=n.nets.get("pacer.rested", []),
            popped=n.nets.get("pacer.left", []),
        )  # fmt: skip

    def collector(self) -> dict[str, Any]:
        """What stands before the adders."""
        hold, whole, held = self._frames()
        return {
            "position": self._position(), "at_end": self._n.nets.get("collector.at_end", ["1"])[0],
            "whole": whole, "held": held, "hold": hold,
        }  # fmt: skip

    def _between(self) -> Bits:
        """The counter of a pacer that is neither its flag nor that of results; none where a frame
        may start in each cycle."""
        others = [self._n.nets.get(f"pacer.{name}") for name in ("rested", "left")]
        registers = (cell for cell in self._n.cells if cell.type == "$dff")
        own = (c.output for c in registers if c.name.startswith("$flatten\\pacer.$"))
        return next((bits for bits in own if bits not in others), [])

    def _position(self) -> Bits:
        """The counter of a frame's transfers; none where it has one."""
        transfers = self._spec.n // self._spec.in_width
        if transfers == 1:
            return []
        at_end = self._n.net("collector.at_end")[0]
        (last,) = self.maker(self.before(at_end), "$mux").ports["B"]
        return self.compared(last, transfers - 2)

    def _left(self) -> Bits:
        """The counter of sums that is compared with 1."""
        step, last = (self._n.net(f"shifter.{what}")[0] for what in ("step", "last"))
        (bit,) = (b for b in self.maker(last, "$and").inputs if b != step)
        return [bit] if self.is_register(bit) else self.maker(bit, "$eq").ports["A"]

    def _frames(self) -> tuple[Bit, Bits, Bits]:
        """The strobe with which a frame is taken on, whether one has come, and whether one is
        held."""
        ready = self._n.port("i__ready")[0]
        if self._spec.straight:
            return ready, [], []
        no_whole, hold = self.maker(ready, "$or").inputs
        whole = self.maker(no_whole, "$not").inputs[0]
        if self._spec.pipelined:
            return hold, [whole], []
        free = next(bit for bit in self.maker(hold, "$and").inputs if bit != whole)
        no_held = self.maker(free, "$or").inputs[0]
        return hold, [whole], self.maker(no_held, "$not").inputs

    def _busy(self, load: Bit, settled: Bit) -> Bit:
        (free,) = (bit for bit, _ in factors(self._n, load) - factors(self._n, settled))
        return self.maker(self.maker(free, "$or").inputs[0], "$not").inputs[0]


def operand(netlist: Netlist, spec: UnrolledSpec, number: int) -> Bits:
    """What a requantizer multiplies, or compares; raises InputError unless it is what leaves the
    shifter for it, ``spec.row_stage`` cycles before."""
    name = f"requantizer{number or ''}"
    bits = netlist.either(f"{name}.a", f"{name}.acc")
    if spec.direct:
        return bits
    cones, back = Cones(netlist), bits
    for _ in range(spec.row_stage):
        back = [cones.before(bit, resets=False) for bit in back]
    if (
        back
        != netlist.either("shifter.kept", "shifter.o")[number * spec.acc_bits :][: spec.acc_bits]
    ):
        raise InputError("requantizers do not get sums as expected")
    return bits


def _roms(netlist: Netlist, spec: UnrolledSpec) -> dict[str, Bits]:
    """The addresses of memories of multipliers and biases, where they have several words."""
    names = {"mult": spec.steps} if spec.multiplies.stored else {}
    if not spec.multiplies.wired:
        names["bias"] = spec.frame_places
    found = {}
    for name in (name for name, words in names.items() if words > 1):
        pattern = re.compile(rf"{name}(_\d+)?\.")
        (cell,) = (c for c in netlist.cells if c.type == "$mem_v2" and pattern.match(c.name))
        found[name] = cell.ports["RD_ADDR"]
    return found


class Unrolled(QueueClaims):
    """The claims about one core."""

    def __init__(self, netlist: Netlist, spec: UnrolledSpec, finder: UnrolledFinder) -> None:
        width = (8 * spec.rows * spec.groups * spec.multiplier_interval + 64 * spec.fifo_depth
                 + 8 * spec.sum_cycles + spec.n).bit_length() + 10  # fmt: skip
        try:
            self._r = finder.registers()
        except (ValueError, StopIteration):
            raise InputError("control is not built as expected") from None
        queue = find_queue(netlist, "fifo", spec.fifo_depth)
        # Where sums leave without a pause, the registers before them are strobes too.
        earlier = {*self._r.busy, *self._r.starts}
        queue = replace(queue, after=[bit for bit in queue.after if bit not in earlier])
        super().__init__(netlist, f"Core {spec.name!r}", queue, width, Solver())
        self._spec, self._frame = spec, spec.frame_places
        self._roms = {} if spec.direct else _roms(netlist, spec)
        if len(queue.after) != self._stages():
            raise InputError("control is not built as expected")
        self._check_time()

    def _check_time(self) -> None:
        """Raises CheckError unless a frame's sums are taken when pipelined adders have them."""
        spec, starts = self._spec, self._r.starts
        if not starts:
            return
        delay = spec.bank_latency if spec.by_pixel else 0
        first = [self._n.net("pacer.start")[0], *starts][delay]
        late = len(starts) != delay + spec.sum_delay
        if late or (spec.digit and self._n.net("adders.start")[0] != first):
            raise CheckError(f"{self._where}: sums must be taken when the adders have them")

    # -- what is read out of a state ------------------------------------------------------------

    def _position(self, v: View) -> Any:
        """Transfers of the next frame that have come."""
        return v.wide(self._r.position) if self._r.position else self._const(0)

    def _before(self, v: View) -> Any:
        """Frames before the adders."""
        return self._sum([v.wide([bit]) for bit in (*self._r.whole, *self._r.held)])

    def _left(self, v: View) -> Any:
        """Transfers of sums that have not left the shifter."""
        (busy,) = self._r.busy or ["0"]
        return self._if(v.one(busy), v.wide(self._r.left)) if self._r.left else self._const(0)

    def _group(self, v: View) -> Any:
        return v.wide(self._r.group) if self._r.group else self._const(0)

    def _sums(self, v: View) -> Any:
        """Results whose sums are in the shifter."""
        groups = self._const(self._spec.groups)
        return self._s.op("BV_UDIV", [self._s.add(self._left(v), self._group(v)), groups])

    def _started(self, v: View) -> Any:
        return self._sum([v.wide([bit]) for bit in self._r.starts])

    def _frames(self, number: Any) -> Any:
        return self._s.op("BV_MUL", [number, self._const(self._frame)])

    def _claimed(self, v: View) -> Any:
        """Results that have a place, on their way or in the FIFO."""
        if not self._spec.pipelined:
            return self._results(v)
        return self._sum([self._frames(self._started(v)), self._sums(v), self._results(v)])

    def _owed(self, v: View) -> Any:
        claimed = self._claimed(v)
        rest = [] if self._spec.pipelined else [self._sums(v)]
        return self._sum([self._frames(self._before(v)), claimed, *rest])

    def _busy_for(self, v: View) -> Any:
        """Cycles in which sums of the frame in the shifter leave, at least."""
        s, r = self._s, self._r
        if not r.busy:
            return self._const(0)
        pause = v.wide(r.pause) if r.pause else self._const(0)
        interval = self._const(self._spec.multiplier_interval)
        more = s.op("BV_SUB", [v.wide(r.left), self._const(1)])
        cycles = self._sum([s.op("BV_MUL", [more, interval]), pause, self._const(1)])
        return self._if(v.one(r.busy[0]), cycles)

    # -- claims ---------------------------------------------------------------------------------

    def _invariants(self, v: View) -> dict[str, Any]:
        s, r, spec, nothing = self._s, self._r, self._spec, self._const(0)
        left, group = self._left(v), self._group(v)
        claims = {
            **self._addresses(v),
            **self._coming_frames(v),
            "sums are a frame's": s.op("BV_ULE", [left, self._const(spec.steps)]),
            "groups are a row's": s.op("BV_ULT", [group, self._const(spec.groups)]),
            "sums that are left end whole rows": s.same(
                s.op("BV_UREM", [s.add(left, group), self._const(spec.groups)]), nothing
            ),
            "each place is free, promised or taken": self._all_places(v),
        }
        for name, address in self._roms.items():
            claims[f"words of {name} follow the sums"] = self._word(v, name, address)
        if r.busy:
            some = self._not(s.same(left, nothing))
            claims["sums leave while there are some"] = s.same(v.one(r.busy[0]), some)
        if r.pause:
            most = self._const(spec.multiplier_interval)
            claims["pauses are a product's"] = s.op("BV_ULT", [v.wide(r.pause), most])
        return claims | (self._paced(v) if spec.pipelined else {})

    def _coming_frames(self, v: View) -> dict[str, Any]:
        """What is known of what comes."""
        s, position = self._s, self._position(v)
        transfers = self._const(self._spec.n // self._spec.in_width)
        last = s.op("BV_SUB", [transfers, self._const(1)])
        return {
            "transfers are a frame's": s.op("BV_ULT", [position, transfers]),
            "the last transfer is known": s.same(v.one(self._r.at_end), s.same(position, last)),
        }

    def _stages(self) -> int:
        """Cycles from the sums of a row's last group to their result's write into the FIFO."""
        spec = self._spec
        before = spec.sum_delay if spec.direct else 0
        return before + spec.product_stage + spec.bias_chunks + 1

    def _word(self, v: View, name: str, address: Bits) -> Any:
        """That the word that is read is that of the sum, or the row, which gets there next."""
        s, spec = self._s, self._spec
        group = self._const(spec.groups)
        size, left, stage = spec.steps, self._left(v), spec.row_stage
        if name == "bias":
            size, stage = self._frame, spec.product_stage
            left = s.op("BV_UDIV", [s.add(left, self._group(v)), group])
        behind = stage - spec.params_latency
        if behind and name == "mult":
            raise InputError("multipliers are not read as expected")
        coming = self._sum([v.wide([bit]) for bit in self._q.after[:behind]])
        there = s.op("BV_UREM", [s.add(v.wide(address), coming, left), self._const(size)])
        here = s.op("BV_ULT", [v.wide(address), self._const(size)])
        return s.both(here, s.same(there, self._const(0)))

    def _all_places(self, v: View) -> Any:
        s, r, free = self._s, self._r, self._free(v, self._r.spare)
        places = self._const(self._spec.credits)
        if not self._spec.pipelined:
            whole = s.add(free, self._results(v))
            return s.both(s.op("BV_ULE", [free, places]), s.same(whole, places))
        popped = v.wide(r.popped) if r.popped else self._const(0)
        frames = self._const(self._spec.credits // self._frame)
        whole = self._sum([self._frames(free), self._claimed(v), popped])
        return s.both(
            s.op("BV_ULE", [free, frames]),
            s.same(whole, places),
            s.op("BV_ULT", [popped, self._const(self._frame)]),
        )

    def _paced(self, v: View) -> dict[str, Any]:
        """That frames follow one another into the adders so that each finds the shifter free."""
        s, r, cycles = self._s, self._r, self._spec.sum_cycles
        one, stages = self._const(1), len(r.starts)
        between = v.wide(r.between) if r.between else self._const(0)
        busy_for = self._busy_for(v)
        claims = {
            "a frame waits for the one before": s.op("BV_ULT", [between, self._const(cycles)]),
            "a frame that starts finds the shifter free": s.op(
                "BV_ULE", [busy_for, self._sum([between, self._const(stages), one])]
            ),
        }
        if r.rested:
            claims["a frame may start when the pause is over"] = s.same(
                v.one(r.rested[0]), s.same(between, self._const(0))
            )
        for stage, bit in enumerate(r.starts):
            apart = [self._not(v.one(b)) for b in r.starts[stage + 1 : stage + cycles]]
            rest = max(0, cycles - 1 - stage)
            claims[f"the frame in stage {stage} is behind the one before"] = self._implies(
                v.one(bit),
                s.both(
                    *apart,
                    s.op("BV_UGE", [between, self._const(rest)]),
                    s.op("BV_ULE", [busy_for, self._const(stages - stage)]),
                ),
            )
        return claims

    def _empty(self, v: View) -> dict[str, Any]:
        nothing = self._const(0)
        return {
            "nothing is owed": self._s.same(self._owed(v), nothing),
            "the next transfer is a frame's first": self._s.same(self._position(v), nothing),
        }

    def _steps(self) -> dict[str, Any]:
        return (self._accounts() | self._taken() | self._order() | self._sums_leave()
                | self._values() | self._goes_on())  # fmt: skip

    def _take(self) -> Any:
        """Whether a transfer comes."""
        return self._s.both(*(self._now.one(self._n.port(f"i__{what}")[0])
                              for what in ("valid", "ready")))  # fmt: skip

    def _comes(self) -> Any:
        """Whether a frame comes for which results are owed from then on."""
        last = self._const(self._spec.n // self._spec.in_width - 1)
        return self._s.both(self._take(), self._s.same(self._position(self._now), last))

    def _more(self) -> Any:
        """Whether something comes that may be further from the output than all that is there."""
        return self._take()

    def _taken(self) -> dict[str, Any]:
        """How what comes is counted."""
        s, position, one = self._s, self._position(self._now), self._const(1)
        at_last = s.same(position, self._const(self._spec.n // self._spec.in_width - 1))
        following = s.choose(at_last, self._const(0), s.add(position, one))
        return {
            "a frame is so many transfers": s.same(
                self._position(self._later), s.choose(self._take(), following, position)
            )
        }

    def _accounts(self) -> dict[str, Any]:
        s, r, now, later = self._s, self._r, self._now, self._later
        more = self._if(self._comes(), self._const(self._frame))
        given = self._if(self._given(), self._const(1))
        taken: dict[str, Any] = {}
        if r.pause:
            taken |= self._spaced()
        if r.starts:
            started = now.one(r.starts[-1])
            taken["sums find the shifter free"] = self._implies(started, now.one(r.load))
        return taken | {
            "results are owed for each frame, and no others": s.same(
                s.add(self._owed(later), given), s.add(self._owed(now), more)
            ),
        }

    def _spaced(self) -> dict[str, Any]:
        """That a multiplier has its cycles for a product before the next operand comes."""
        s, pause, step = self._s, self._now.wide(self._r.pause), self._now.one(self._r.step)
        nothing = s.same(pause, self._const(0))
        fewer = s.choose(nothing, pause, s.op("BV_SUB", [pause, self._const(1)]))
        most = self._const(self._spec.multiplier_interval - 1)
        return {
            "a product has its cycles": s.both(
                self._implies(step, nothing),
                s.same(self._later.wide(self._r.pause), s.choose(step, most, fewer)),
            )
        }

    def _values(self) -> dict[str, Any]:
        """That the frame that is held is the one that came, and stays while it is added up."""
        s, r, n, now, later = self._s, self._r, self._n, self._now, self._later
        if self._spec.straight:
            return {}
        frame = n.either("collector.frame", "frame")
        coming = frame if self._spec.pipelined else n.net("collector.coming")
        (payload,) = (n.port(name) for name in n.payload_ports)
        shifted = [*coming, *payload][len(payload) :]
        hold = now.one(r.hold)
        claims = {
            "a frame is what came, in order": s.same(
                later.bits(coming), s.choose(self._take(), now.bits(shifted), now.bits(coming))
            ),
            "a frame is taken on when it has come whole": self._implies(hold, now.one(r.whole[0])),
        }
        if self._spec.pipelined:
            return claims
        claims["a frame is held until its sums are taken"] = s.same(
            later.bits(frame), s.choose(hold, now.bits(coming), now.bits(frame))
        )
        return claims | self._in_time()

    def _in_time(self) -> dict[str, Any]:
        """That sums are taken when they are those of the frame that is held."""
        s, r, now = self._s, self._r, self._now
        if not r.wait:
            return {}
        wait, one = now.wide(r.wait), self._const(1)
        fewer = self._if(self._not(s.same(wait, self._const(0))), s.op("BV_SUB", [wait, one]))
        levels = self._const(self._spec.levels)
        return {
            "a held frame's sums have their time": s.same(
                self._later.wide(r.wait), s.choose(now.one(r.hold), levels, fewer)
            ),
            "sums are taken when they are there": self._implies(
                now.one(r.load), s.both(s.same(wait, self._const(0)), now.one(r.held[0]))
            ),
        }

    def _sums_leave(self) -> dict[str, Any]:
        """That each sum, in its turn, is what its requantizer gets, a few cycles later."""
        s, r, spec, now = self._s, self._r, self._spec, self._now
        bits, sums = spec.acc_bits, self._n.net("adders.sums")
        slices = [now.bits(sums[k * bits : (k + 1) * bits]) for k in spec.sum_order]
        order = zip(spec.sum_order, slices, strict=True)
        turns = [s.op("BV_NOT", [x]) if k in spec.inverted else x for k, x in order]
        new = s.concat(turns[::-1])
        if spec.direct:
            operands = [b for k in range(spec.out_width) for b in operand(self._n, spec, k)]
            return {"each row gets its sum": s.same(now.bits(operands), new)}
        kept, together = self._n.either("shifter.kept", "shifter.o"), spec.out_width * bits
        shifted = now.bits([*kept[together:], *["0"] * together])
        going = s.choose(now.one(r.step), shifted, now.bits(kept))
        return {
            "sums leave as they were added, in order": s.same(
                self._later.bits(kept), s.choose(now.one(r.load), new, going)
            )
        }

    def _goes_on(self) -> dict[str, Any]:
        """That all goes on while results are taken and nothing comes."""
        s, before, after = self._s, self._far(self._now), self._far(self._later)
        arrived = s.same(before, s.number(0, before.sort().bv_size()))
        taken = self._now.one(self._n.port("o__ready")[0])
        return {
            "all moves on": self._implies(
                s.both(taken, self._not(self._more())),
                s.op("OR", [arrived, s.op("BV_ULT", [after, before])]),
            ),
            **self._room(),
        }

    def _far(self, v: View) -> Any:
        """How far all that is there is from the output, as a number."""
        s, r = self._s, self._r
        early = [r.whole, r.held, r.between, r.wait, *([bit] for bit in r.starts)]
        left = [s.resize(self._left(v), len(r.left))] if r.left else []
        late = [v.bits(r.pause)] if r.pause else []
        parts = [v.bits(bits) for bits in early if bits]
        return s.concat([*parts, *left, *late, self._way(v)])

    def _room(self) -> dict[str, Any]:
        """When a transfer is taken."""
        s, r, now = self._s, self._r, self._now
        if self._spec.straight:
            valid = now.one(self._n.port("i__valid")[0])
            room = s.both(valid, self._not(s.same(self._free(now, r.spare), self._const(0))))
        else:
            room = s.op("OR", [self._not(now.one(r.whole[0])), now.one(r.hold)])
        return {
            "a transfer is taken where a frame's place is free": s.same(
                now.one(self._n.port("i__ready")[0]), room
            )
        }
