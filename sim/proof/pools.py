"""Poolings for all inputs: every result is the maximum, or the rounded mean, of its window.

Shown of the cells is one cycle: what an activation makes of a partial result, where that is written
and read, and what goes into the queue. The flags that say what belongs together are the walk's,
which is a round of known steps; played through with sets in place of values, the set that each
result is made of must be its window, and no partial result may be read before it is written.
Multipliers of means are run on all sums.
"""

from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.engine.units import Pool
from pvq_hw.errors import CheckError, InputError
from pvq_hw.network.window import AveragePool
from sim.proof.claims import Claims, View
from sim.proof.cones import Bits, Cones
from sim.proof.evaluate import Evaluator
from sim.proof.formulas import Solver
from sim.proof.netlist import Netlist
from sim.proof.walks import check_pool_walk, pooled, walk

__all__ = ["check_pool"]

IntArray = npt.NDArray[np.int64]

_MOST = 1 << 20  # sums that are run


def check_pool(netlist: Netlist, unit: Pool) -> int:
    """Shows what the module says, where windows come as `sim.proof.unit_handshakes` shows of them;
    returns how many results of a frame there are.

    Raises
    ------
    CheckError
        A result is made of other activations, or in another way.
    InputError
        The pooling is built in another way, has too many sums, or no solver is installed.
    """
    where = f"Unit {unit.name!r}"
    if unit.window is None:
        check_pool_walk(netlist, unit)
        _check_sets(unit, where)
    elif (
        unit.scale is None
        and unit.window.pad != unit.x.limits[0]
        and any(map(any, unit.geometry.pads))
    ):
        raise CheckError(f"{where}: padding must be no maximum")
    (_Streamed if unit.window is None else _Windowed)(netlist, unit).run()
    if unit.scale is not None:
        _check_multipliers(netlist, unit, where)
        _check_scaled(netlist, unit, where)
    return unit.sizes()[1]


def _check_sets(unit: Pool, where: str) -> None:
    """Plays a frame through with the numbers of its activations in place of them."""
    g, flags = unit.geometry, pooled(unit)
    numbers = np.arange(int(np.prod(g.input_shape))).reshape(1, -1)
    windows = g.windows(numbers + 1)  # 0 is outside of the map
    wanted: Iterator[Any] = iter(windows.reshape(-1, unit.width, windows[0, 0, 0, 0].size))
    chain: deque[frozenset[int]] = deque([frozenset()] * unit.pixel_transfers)
    partial: dict[int, tuple[frozenset[int], int]] = {}
    first, read = ("row_first", "row_last") if unit.chained else ("first", "inside")
    for step in range(len(flags["inside"])):
        now = {name: int(values[step]) for name, values in flags.items()}
        if not now["inside"]:
            continue
        found = frozenset([step])
        if unit.chained:
            before = chain.popleft()
            found |= frozenset() if now["column_first"] else before
            chain.append(found)
        if not now[read]:
            continue
        kept, written = partial.get(now["address"], (frozenset(), -unit.latency - 2))
        if not now[first]:
            if step - written < unit.latency + 2:
                raise CheckError(f"{where}: a partial result must be written before it is read")
            found |= kept
        partial[now["address"]] = found, step
        if now["last"]:
            _check_set(unit, found, next(wanted), where)
    if next(wanted, None) is not None:
        raise CheckError(f"{where}: every window must have its result")


def _check_set(unit: Pool, found: frozenset[int], window: IntArray, where: str) -> None:
    """That transfers are those of a window: of each of its channels the activations."""
    for k in range(unit.width):
        inside = {int(number) for number in window[k] if number}
        if {step * unit.width + k + 1 for step in found} != inside:
            raise CheckError(f"{where}: a result must be of its window's activations")


class _Values(Claims):
    """What both kinds claim of one cycle."""

    def __init__(self, netlist: Netlist, unit: Pool) -> None:
        super().__init__(netlist, f"Unit {unit.name!r}", 8, Solver())
        self._unit = unit

    def _invariants(self, v: View) -> dict[str, Any]:
        return {}

    def _empty(self, v: View) -> dict[str, Any]:
        return {}

    def _bits(self, *names: str) -> Any:
        return self._now.bits(self._n.either(*names))

    def _merged(self, x: Bits, partial: Bits, first: Any) -> Any:
        """Partial results of all channels of a transfer, each with one more activation."""
        width = self._unit.width
        size, kept = len(x) // width, len(partial) // width
        parts = [
            self._merge(x[k * size : (k + 1) * size], partial[k * kept : (k + 1) * kept], first)
            for k in range(width)
        ]
        return self._s.concat(parts[::-1])

    def _merge(self, x: Bits, partial: Bits, first: Any) -> Any:
        s, unit = self._s, self._unit
        signed = unit.x.signed and not unit.x.binary
        value = s.resize(self._now.bits(x), unit.acc_bits, signed=signed)
        so_far = self._now.bits(partial)
        if unit.scale is not None:
            return s.add(s.choose(first, s.number(0, unit.acc_bits), so_far), value)
        # Binary activations: 1 stands for -1.
        wins = {(True, True): "BV_SGT", (False, True): "BV_ULT"}.get(
            (signed, unit.x.binary or signed), "BV_UGT"
        )
        return s.choose(s.op("OR", [first, s.op(wins, [value, so_far])]), value, so_far)

    def _given(self) -> dict[str, Any]:
        """What goes into the queue, and when: partial results, or what they are multiplied to."""
        s, n, now = self._s, self._n, self._now
        strobe, data = n.net("queue.w_en"), _results(n, self._unit)
        (memory,) = (c for c in n.cells if c.type == "$mem_v2" and c.name.startswith("queue."))
        for _ in range(self._unit.scale_delay):
            strobe = Cones(n).before_bits(strobe)
        if strobe != n.net("done"):
            raise CheckError(f"{self._where}: results must be written when they are there")
        return {
            "results are what they were made of": self._implies(
                now.one(n.net("queue.w_en")[0]),
                s.same(now.bits(memory.ports["WR_DATA"]), now.bits(data)),
            )
        }


def _partial(netlist: Netlist) -> str:
    """What partial results are called."""
    return "partial" if "partial" in netlist.nets else "scaler.a"


def _results(netlist: Netlist, unit: Pool) -> Bits:
    """What partial results, or multipliers, give."""
    if unit.scale is None:
        return netlist.net(_partial(netlist))
    scalers = [f"scaler{k or ''}.o" for k in range(unit.width)]
    return [bit for name in scalers for bit in netlist.net(name)]


class _Streamed(_Values):
    """The claims about a pooling of activations as they come."""

    def _source(self) -> list[tuple[str, Any]]:
        """What goes with each transfer, by the registers it goes through."""
        s, unit = self._s, self._unit
        take, inside = self._bits("walk.take"), self._bits("walk.inside_", "walk.inside")
        taken, x = s.op("BV_AND", [take, inside]), self._bits("i__payload")
        first = "first"
        if unit.chained:
            taken, first, x = (
                s.op("BV_AND", [taken, self._bits("row_last")]),
                "row_first",
                (self._chained()),
            )
        last = s.op("BV_AND", [take, self._bits("walk.last_", "walk.last")])
        return [
            ("flag0", taken),
            ("flag1", self._bits(f"walk.{first}_", f"walk.{first}")),
            ("flag2", last),
            ("flag3", self._bits("walk.address_", "walk.address")),
            ("flag4", x),
        ]

    def _chained(self) -> Any:
        """What the window's row has with what comes."""
        chain = self._n.net("chain")
        before = chain[: self._unit.acc_bits * self._unit.width]
        first = self._now.one(self._n.either("walk.column_first_", "walk.column_first")[0])
        return self._merged(self._n.net("i__payload"), before, first)

    def _steps(self) -> dict[str, Any]:
        s, n, now, later = self._s, self._n, self._now, self._later
        last = self._unit.latency - 1
        flags = [n.net(f"flag{k}_{last}") for k in range(5)]
        claims: dict[str, Any] = {}
        for name, source in self._source():
            value = source
            for i in range(last + 1):
                register = n.net(f"{name}_{i}")
                claims[f"{name} goes with its transfer, stage {i}"] = s.same(
                    later.bits(register), value
                )
                value = now.bits(register)
        merged = self._merged(flags[4], self._read(), now.one(flags[1][0]))
        registers = {_partial(n): merged, "ram.w_en": now.bits(flags[0]),
                     "w_addr": now.bits(flags[3]), "done": now.bits(flags[2])}  # fmt: skip
        for name, value in registers.items():
            claims[f"{name} is what follows from its transfer"] = s.same(
                later.bits(n.net(name)), value
            )
        return claims | self._memory() | self._row() | self._given()

    def _row(self) -> dict[str, Any]:
        """What is kept of a window's row."""
        if not self._unit.chained:
            return {}
        s, chain = self._s, self._n.net("chain")
        now, each = self._chained(), self._unit.acc_bits * self._unit.width
        moved = [self._now.bits(chain[each:])] if len(chain) > each else []
        take = s.op("BV_AND", [self._bits("walk.take"), self._bits("walk.inside_", "walk.inside")])
        return {
            "a row is kept channel by channel": s.same(
                self._later.bits(chain),
                s.choose(s.same(take, s.number(1, 1)), s.concat([now, *moved]),
                         self._now.bits(chain)),
            )
        }  # fmt: skip

    def _ram(self) -> Any:
        found = [c for c in self._n.cells if c.type == "$mem_v2" and c.name.startswith("ram.")]
        if len(found) != 1:
            raise InputError("partial results are not kept as expected")
        return found[0]

    def _read(self) -> Bits:
        """What was read with a transfer, as many cycles later."""
        bits = self._ram().output
        for _ in range(self._unit.latency):
            found = [c.output for c in self._n.readers[bits[0]]
                     if c.type == "$dff" and c.ports["D"] == bits]  # fmt: skip
            if len(found) != 1:
                raise InputError("partial results are not kept as expected")
            (bits,) = found
        return bits

    def _memory(self) -> dict[str, Any]:
        s, now, ports = self._s, self._now, self._ram().ports
        write, size = now.one(self._n.net("ram.w_en")[0]), len(ports["WR_EN"])
        return {
            "partial results are written in their places": s.both(
                s.same(
                    now.bits(ports["WR_EN"]),
                    s.choose(write, s.number(-1, size), s.number(0, size)),
                ),
                self._implies(
                    write,
                    s.both(
                        s.same(now.bits(ports["WR_DATA"]), self._bits("partial", "scaler.a")),
                        s.same(now.bits(ports["WR_ADDR"]), self._bits("w_addr")),
                    ),
                ),
            ),
            "partial results are read from their places": s.same(
                now.bits(ports["RD_ADDR"]), self._bits("walk.address_", "walk.address")
            ),
        }


class _Windowed(_Values):
    """The claims about a pooling of windows that a line buffer reads."""

    def __init__(self, netlist: Netlist, unit: Pool) -> None:
        super().__init__(netlist, unit)
        found = [
            cell.output[0]
            for cell in netlist.readers[netlist.net("reader.last")[0]]
            if cell.type == "$mux" and len(cell.output) == 1 and cell.ports["B"] == netlist.net(
                "reader.last")
        ]  # fmt: skip
        registers = [c for c in netlist.cells if c.type == "$dff" and netlist.init.get(
            c.output[0]) == "1" and len(c.output) == 1 and self._follows(c, found)]  # fmt: skip
        if len(registers) != 1:
            raise InputError("windows are not pooled as expected")
        self._first = registers[0].output

    def _follows(self, cell: Any, bits: list[Any]) -> bool:
        """Whether a register takes one of some bits out of reset."""
        maker = self._n.makers.get(cell.ports["D"][0])
        return maker is not None and not set(bits).isdisjoint([*maker.inputs, *cell.ports["D"]])

    def _empty(self, v: View) -> dict[str, Any]:
        return {"the next word is a window's first": v.one(self._first[0])}

    def _steps(self) -> dict[str, Any]:
        s, n, now, later = self._s, self._n, self._now, self._later
        valid, last, data = (n.net(f"reader.{name}") for name in ("valid", "last", "data"))
        partial = n.net(_partial(n))
        come = now.one(valid[0])
        merged = self._merged(data, partial, now.one(self._first[0]))
        return {
            "a word goes into its window's result": s.same(
                later.bits(partial), s.choose(come, merged, now.bits(partial))
            ),
            "a window begins behind another one's last word": s.same(
                later.bits(self._first), s.choose(come, now.bits(last), now.bits(self._first))
            ),
            "a window ends with its last word": s.same(
                later.bits(n.net("done")), s.op("BV_AND", [now.bits(valid), now.bits(last)])
            ),
            **self._given(),
        }


# -- means -----------------------------------------------------------------------------------------


def _mean(unit: Pool) -> AveragePool:
    layer = unit.layer()
    assert isinstance(layer, AveragePool)
    return layer


def _check_multipliers(netlist: Netlist, unit: Pool, where: str) -> None:
    """That each position has its multiplier, where these differ."""
    table = _mean(unit).multipliers()
    if (table == table[0, 0]).all():
        return
    wanted = np.repeat(table.ravel(), unit.pixel_transfers)
    found = walk(netlist, "done", {"mult": netlist.net("mult")}, len(wanted), where)["mult"]
    if not np.array_equal(found, wanted):
        raise CheckError(f"{where}: each position must have its multiplier")


def _check_scaled(netlist: Netlist, unit: Pool, where: str) -> None:
    """That every sum gives the activation that its mean rounds to, with every multiplier."""
    assert unit.scale is not None
    taps = unit.geometry.kernel[0] * unit.geometry.kernel[1]
    low, high = (end * taps for end in unit.x.limits)
    mults = np.unique(_mean(unit).multipliers())
    if (high - low + 1) * len(mults) > _MOST:
        raise InputError("it has too many sums to run")
    sums, mult = (a.ravel() for a in np.meshgrid(np.arange(low, high + 1), mults, indexing="ij"))
    partial, wanted = _partial(netlist), _results(netlist, unit)
    cut = [partial, *(["mult"] if len(mults) > 1 else [])]
    evaluator = Evaluator(netlist, len(sums), cut=cut, wanted=wanted)
    word = sums & ((1 << unit.acc_bits) - 1)
    for cycle in range(unit.scale.delay + 1):  # other ones behind each sum
        evaluator.set(partial, _each(np.roll(word, cycle), unit.acc_bits, unit.width))
        if len(mults) > 1:
            evaluator.set("mult", np.roll(mult, cycle))
        evaluator.settle()
        if cycle < unit.scale.delay:
            evaluator.clock()
    out = unit.out.clamp((sums * mult + (1 << (unit.scale.shift - 1))) >> unit.scale.shift)
    found = evaluator.get(wanted)
    wrong = np.flatnonzero(found != _each(out & ((1 << unit.out.bits) - 1), unit.out.bits,
                                          unit.width))  # fmt: skip
    if len(wrong):
        raise CheckError(f"{where}: a sum of {sums[wrong[0]]} must give {out[wrong[0]]}")


def _each(values: IntArray, bits: int, width: int) -> npt.NDArray[Any]:
    """The same value in each part of a word."""
    total = values.astype(object) if bits * width > 62 else values
    for _ in range(width - 1):
        total = total << bits | values
    return total
