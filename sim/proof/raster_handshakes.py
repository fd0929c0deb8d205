"""Control of cores that read windows as pixels come, for any pauses and resets: unrolled
convolutions and depthwise ones.

Activations wait in a queue, which is followed as a list; a step of the walk takes one of them, or
none where the pixel is of nothing, and reads a window where one is complete and a place for its
result is free. Which windows these are is in `sim.proof.raster_walks`. With each step what came
goes into the memories of the rows above and of the columns to the left: each has, a row or a pixel
later, what it had then and what has come since, so that what stands side by side is a window.
"""

import re
from typing import Any

from pvq_hw.engine.depthwise_core import DepthwiseSpec
from pvq_hw.engine.line_buffer import WindowSpec
from pvq_hw.engine.raster import Raster
from pvq_hw.engine.unrolled_core import UnrolledSpec, window_raster
from pvq_hw.errors import CheckError, InputError
from sim.proof.claims import Claims, View
from sim.proof.cones import Bits, Cones
from sim.proof.formulas import Solver
from sim.proof.netlist import Cell, Netlist
from sim.proof.queues import QueueClaims, find_queue
from sim.proof.raster_walks import check_raster_walk
from sim.proof.roms import read_rom
from sim.proof.unrolled_handshakes import Unrolled, UnrolledFinder

__all__ = ["check_depthwise_handshakes", "check_pixel_windows"]


def check_pixel_windows(netlist: Netlist, spec: UnrolledSpec, window: WindowSpec) -> int:
    """Shows by induction what the module says of an unrolled convolution; returns how many claims.

    Raises
    ------
    CheckError
        A claim does not follow, or another window is read.
    InputError
        The core is built in another way, its map is too large, or the solver is not installed.
    """
    raster = window_raster(spec, window)
    parts = _Raster(netlist, raster, "collector.", f"collector.inside_{raster.latency - 1}")
    check_raster_walk(netlist, raster, "collector.walk.", parts.inside, f"Core {spec.name!r}")
    return _Pixels(netlist, spec, _Finder(netlist, spec), parts).run()


def check_depthwise_handshakes(netlist: Netlist, spec: DepthwiseSpec) -> int:
    """Shows by induction what the module says of a depthwise convolution; returns how many claims.
    Errors: `check_pixel_windows`."""
    parts = _Raster(netlist, spec.raster, "", "sums.inside_")
    check_raster_walk(netlist, spec.raster, "walk.", parts.inside, f"Core {spec.name!r}")
    return _Depthwise(netlist, spec, parts).run()


class _Raster:
    """Where the queue, the walk and the window memories are in a netlist."""

    def __init__(self, netlist: Netlist, raster: Raster, path: str, inside: str) -> None:
        self.raster, self.path, self._n = raster, path, netlist
        self._cones = Cones(netlist)
        names = (re.match(rf"{path}window(_\d+)?\.", name) for name in netlist.nets)
        modules = {match.group() for match in names if match}
        if len(modules) != 1:
            raise InputError("windows of a map are not kept as expected")
        (self.module,) = modules
        self.last_inside = netlist.net(inside)
        self.inside = self._before(self.last_inside, raster.latency)
        self.queue = self.memory(f"{path}queue.")
        self.data = self.after(self.queue.output, raster.latency)
        strobes = (f"{self.module}w_en", f"{self.module}write_{raster.latency - 1}")
        self.write = netlist.either(*strobes)
        if self._before(self.write, raster.latency) != netlist.net(f"{path}walk.advance"):
            raise InputError("windows of a map are not kept as expected")

    def memory(self, start: str) -> Cell:
        """The memory of a module."""
        found = [c for c in self._n.cells if c.type == "$mem_v2" and c.name.startswith(start)]
        if len(found) != 1:
            raise InputError("windows of a map are not kept as expected")
        return found[0]

    def _before(self, bits: Bits, cycles: int) -> Bits:
        for _ in range(cycles):
            bits = [self._cones.before(bit, resets=False) if isinstance(bit, int) else bit
                    for bit in bits]  # fmt: skip
        return bits

    def after(self, bits: Bits, cycles: int) -> Bits:
        """What was somewhere so many cycles before."""
        for _ in range(cycles):
            readers = self._n.readers[bits[0]]
            found = [c.output for c in readers if c.type == "$dff" and c.ports["D"] == bits]
            if len(found) != 1:
                raise InputError("windows of a map are not kept as expected")
            (bits,) = found
        return bits

    def place(self, name: str, at: str) -> tuple[Bits, Bits]:
        """Where a memory is read, and where it is written: there, some cycles later."""
        now = self._n.nets.get(f"{self.path}walk.{at}", ["0"])
        later = self._n.nets.get(f"{self.module}{name}_at_{self.raster.latency - 1}", ["0"])
        if self._before(later, self.raster.latency) != now:
            raise InputError("windows of a map are not kept as expected")
        return now, later


class _Coming(Claims):
    """What both kinds claim of activations that come: a part of their claims."""

    _parts: _Raster

    def _use(self, parts: _Raster) -> None:
        self._parts = parts
        queue = parts.path + "queue."
        self._counts_of = {
            name: self._n.net(queue + name)
            for name in ("waiting", "room", "ahead") if queue + name in self._n.nets
        }  # fmt: skip
        self._ends = {name: self._n.net(f"{queue}{name}") for name in ("w_addr", "r_addr")}
        now, later = self._formulas.memory(parts.queue)
        self._waiting = {self._now: now, self._later: later}

    def _flag(self, name: str) -> Any:
        """A flag of the walk; set where it is none."""
        bits = self._n.nets.get(f"{self._parts.path}walk.{name}", ["1"])
        return self._now.one(bits[0])

    def _count(self, v: View, name: str) -> Any:
        return self._s.resize(v.bits(self._counts_of[name]), self._width, signed=True)

    def _number(self, v: View) -> Any:
        """Transfers that wait."""
        return self._s.add(self._count(v, "waiting"), self._const(1))

    def _step(self) -> Any:
        """Whether the walk makes a step."""
        s = self._s
        pixel = s.op("OR", [self._flag("some"), self._not(self._flag("takes"))])
        window = s.op("OR", [self._flag("place"), self._not(self._flag("emits"))])
        return s.both(pixel, window)

    def _taken_in(self) -> Any:
        return self._s.both(*(self._now.one(self._n.port(f"i__{what}")[0])
                              for what in ("valid", "ready")))  # fmt: skip

    def _queue_invariants(self, v: View) -> dict[str, Any]:
        s, raster, number = self._s, self._parts.raster, self._number(v)
        depth = raster.queue_depth
        gap = s.op("BV_SUB", [v.bits(self._ends["w_addr"]), v.bits(self._ends["r_addr"])])
        claims = {
            "no more transfers wait than have places": s.op("BV_ULE", [number, self._const(depth)]),
            "transfers that wait were written and not read": s.same(
                gap, s.resize(number, len(self._ends["w_addr"]))
            ),
            "free places are counted": s.same(
                self._count(v, "room"), s.op("BV_SUB", [number, self._const(depth)])
            ),
        }
        if "ahead" in self._counts_of:
            enough = s.op("BV_SUB", [number, self._const(raster.enough)])
            claims["enough for the next map are counted"] = s.same(self._count(v, "ahead"), enough)
        return claims

    def _queue_empty(self, v: View) -> dict[str, Any]:
        nothing = self._s.same(self._number(v), self._const(0))
        return {"no activation waits": nothing}

    def _queue_steps(self) -> dict[str, Any]:
        s, now, number = self._s, self._now, self._number(self._now)
        raster, queue = self._parts.raster, self._parts.queue
        take, used = self._taken_in(), self._flag("used")
        (payload,) = (self._n.port(name) for name in self._n.payload_ports)
        place = s.unknown("place", self._width)
        before = s.add(place, self._if(used, self._const(1)))
        some = self._not(s.same(number, self._const(0)))
        enough = s.op("BV_UGE", [number, self._const(raster.enough)])
        claims = {
            "a transfer is taken while it finds a place": s.same(
                now.one(self._n.port("i__ready")[0]),
                s.op("BV_ULT", [number, self._const(raster.queue_depth)]),
            ),
            "an activation is used where one waits": s.both(
                s.same(self._flag("some"), some), self._implies(used, some)
            ),
            "activations are used in order": self._implies(
                s.op("BV_ULT", [place, self._number(self._later)]),
                s.same(
                    self._listed(self._later, place),
                    s.choose(
                        s.op("BV_ULT", [before, number]),
                        self._listed(now, before),
                        now.bits(payload),
                    ),
                ),
            ),
            "activations come with transfers and go with steps": s.same(
                s.add(self._number(self._later), self._if(used, self._const(1))),
                s.add(number, self._if(take, self._const(1))),
            ),
            "the first one that waits is read": s.same(
                now.bits(queue.ports["RD_ADDR"]), now.bits(self._ends["r_addr"])
            ),
        }
        if "ahead" in self._counts_of:
            claims["it is known whether enough wait"] = s.same(self._flag("enough"), enough)
        return claims | self._windows()

    def _listed(self, v: View, place: Any) -> Any:
        """What waits at a place of the queue."""
        bits = len(self._ends["r_addr"])
        number = self._s.add(v.bits(self._ends["r_addr"]), self._s.resize(place, bits))
        return self._s.word(self._waiting[v], number)

    # -- window memories ------------------------------------------------------------------------

    def _windows(self) -> dict[str, Any]:
        """What is kept of what has come, and that windows are of it."""
        parts, raster = self._parts, self._parts.raster
        (kh, kw), bits = raster.geometry.kernel, raster.bits
        claims: dict[str, Any] = {}
        above: Bits = []
        if kh > 1:
            above, claims["rows above are kept"] = self._kept(
                "lines", raster.lines, "column", parts.data
            )
        column: Bits = [*parts.data, *above]
        left: Bits = []
        if kw > 1:
            left, claims["columns to the left are kept"] = self._kept(
                "columns", raster.columns, "channel", column
            )
        window = [*column, *left]
        places = [(kw - 1 - b) * kh + kh - 1 - a for a in range(kh) for b in range(kw)]
        taps = [bit for place in places for bit in window[place * bits : (place + 1) * bits]]
        return claims | self._framed(taps)

    def _framed(self, taps: Bits) -> dict[str, Any]:
        """That what has come and what is kept are a window's taps."""
        found = self._n.net(f"{self._parts.path}window")
        return {"windows are what has come": self._s.same(
            self._now.bits(found), self._now.bits(taps)
        )}  # fmt: skip

    def _kept(self, name: str, size: tuple[int, int], at: str, new: Bits) -> tuple[Bits, Any]:
        """What was written at a place before, and that it is: what comes goes in at the lowest
        end, and what was there longest goes."""
        parts, s, now = self._parts, self._s, self._now
        write, (width, depth) = now.one(parts.write[0]), size
        if parts.raster.in_registers(size):
            words = [self._n.net(f"{parts.module}{name}_{k}") for k in range(depth)]
            given = [[*new, *words[-1]][:width], *words[:-1]]
            moves = (
                s.same(self._later.bits(word), s.choose(write, now.bits(into), now.bits(word)))
                for word, into in zip(words, given, strict=True)
            )
            return words[-1], s.both(*moves, s.same(write, write))
        memory = parts.memory(f"{parts.module}{name}.")
        old = parts.after(memory.output, parts.raster.latency)
        read, written = parts.place(name, at)
        ports, all_bits = memory.ports, len(memory.ports["WR_EN"])
        claim = s.both(
            s.same(
                now.bits(ports["WR_EN"]),
                s.choose(write, s.number(-1, all_bits), s.number(0, all_bits)),
            ),
            self._implies(
                write,
                s.both(
                    s.same(now.bits(ports["WR_ADDR"]), now.bits(written)),
                    s.same(now.bits(ports["WR_DATA"]), now.bits([*new, *old][:width])),
                ),
            ),
            s.same(now.bits(ports["RD_ADDR"]), now.bits(read)),
        )
        return old, claim


class _Finder(UnrolledFinder):
    """Windows in place of frames that come: none waits before the adders."""

    def collector(self) -> dict[str, Any]:
        hold = self._n.net("pacer.start")[0]
        return {"position": [], "at_end": "1", "whole": [], "held": [], "hold": hold}


class _Pixels(_Coming, Unrolled):
    """The claims about an unrolled core."""

    def __init__(
        self, netlist: Netlist, spec: UnrolledSpec, finder: _Finder, parts: _Raster
    ) -> None:
        super().__init__(netlist, spec, finder)
        self._use(parts)

    def _stages(self) -> int:
        return super()._stages() + (self._spec.bank_latency if self._spec.direct else 0)

    def _coming_frames(self, v: View) -> dict[str, Any]:
        return self._queue_invariants(v)

    def _empty(self, v: View) -> dict[str, Any]:
        return super()._empty(v) | self._queue_empty(v)

    def _comes(self) -> Any:
        return self._now.one(self._r.hold)

    def _more(self) -> Any:
        return self._comes()

    def _taken(self) -> dict[str, Any]:
        s = self._s
        reads = s.both(self._step(), self._flag("emits"))
        return self._queue_steps() | {
            "a window that is read goes into the adders": s.same(self._comes(), reads)
        }

    def _framed(self, taps: Bits) -> dict[str, Any]:
        """Also that taps outside of the map are 0."""
        bits = self._parts.raster.bits
        inside = [bit for bit in self._parts.last_inside for _ in range(bits)]
        frame = self._n.either("adders.frame", "frame")
        masked = self._s.op("BV_AND", [self._now.bits(taps), self._now.bits(inside)])
        return super()._framed(taps) | {
            "a frame is a window": self._s.same(self._now.bits(frame), masked)
        }

    def _values(self) -> dict[str, Any]:
        """Nothing: no frame is held."""
        return {}

    def _room(self) -> dict[str, Any]:
        s, r, now = self._s, self._r, self._now
        free = self._not(s.same(self._free(now, r.spare), self._const(0)))
        rested = [now.one(r.rested[0])] if r.rested else []
        pixel = s.op("OR", [self._flag("some"), self._not(self._flag("takes"))])
        may = s.both(pixel, self._flag("emits"), free, *rested)
        return {"a window is read as soon as it is complete and has a place": s.same(
            self._comes(), may
        )}  # fmt: skip


class _Depthwise(_Coming, QueueClaims):
    """The claims about a depthwise core."""

    def __init__(self, netlist: Netlist, spec: DepthwiseSpec, parts: _Raster) -> None:
        queue = find_queue(netlist, "fifo", spec.fifo_depth)
        most = 64 * spec.fifo_depth + 4 * parts.raster.queue_depth
        super().__init__(netlist, f"Core {spec.name!r}", queue, most.bit_length() + 4, Solver())
        self._spec = spec
        self._use(parts)
        if len(queue.after) != spec.product_stage + spec.bias_chunks + 1:
            raise CheckError(f"{self._where}: results must be written when they are there")
        stages = {"mult": spec.row_stage} if spec.multiplies.stored else {}
        stages["bias"] = spec.product_stage
        latency = spec.params_latency
        self._roms = {
            name: (read_rom(netlist, name, latency).address, stage - latency)
            for name, stage in stages.items()
            if spec.rows > 1
        }

    def _free_places(self, v: View) -> Any:
        return self._free(v, self._n.net("places"))

    def _reads(self) -> Any:
        return self._now.one(self._n.net("walk.emit")[0])

    def _invariants(self, v: View) -> dict[str, Any]:
        s, places, free = self._s, self._const(self._spec.credits), self._free_places(v)
        return {
            **self._addresses(v),
            **self._queue_invariants(v),
            "places are the queue's": s.op("BV_ULE", [free, places]),
            "each place is free, promised or taken": s.same(s.add(free, self._results(v)), places),
        } | self._words(v)

    def _words(self, v: View) -> dict[str, Any]:
        """Where words of multipliers and biases are read."""
        if not self._roms:
            return {}
        s, rows, row = self._s, self._spec.rows, v.wide(self._n.net("walk.row"))
        last = s.same(row, self._const(rows - 1))
        claims = {
            "rows are a position's": s.op("BV_ULT", [row, self._const(rows)]),
            "a position's last row is known": s.same(v.one(self._n.net("walk.row_end")[0]), last),
        }
        for name, (address, behind) in self._roms.items():
            claims[f"words of {name} follow the rows"] = self._word(v, address, behind)
        return claims

    def _word(self, v: View, address: Bits, behind: int) -> Any:
        """That the word that is read is that of the first row on its way there, or the next one."""
        s, rows = self._s, self._const(self._spec.rows)
        coming = self._sum([v.wide([bit]) for bit in self._q.after[:behind]])
        there = s.op("BV_UREM", [s.add(v.wide(address), coming), rows])
        row = v.wide(self._n.net("walk.row"))
        return s.both(s.op("BV_ULT", [v.wide(address), rows]), s.same(there, row))

    def _empty(self, v: View) -> dict[str, Any]:
        nothing = self._s.same(self._results(v), self._const(0))
        return {"nothing is owed": nothing} | self._queue_empty(v)

    def _steps(self) -> dict[str, Any]:
        s, reads, one = self._s, self._reads(), self._const(1)
        owed = s.add(self._results(self._later), self._if(self._given(), one))
        more = s.add(self._results(self._now), self._if(reads, one))
        free = self._not(s.same(self._free_places(self._now), self._const(0)))
        return {
            "results are owed for what was read, and no others": s.same(owed, more),
            "a window is read with a step that has one": s.same(
                reads, s.both(self._step(), self._flag("emits"))
            ),
            "a window may be read where a place is free": s.same(self._flag("place"), free),
            **self._queue_steps(),
            **self._order(),
            **self._moves(reads),
        }
