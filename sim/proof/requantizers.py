"""Requantizers for all inputs, in two steps: from sums to their products with the rows'
multipliers, and from products to activations.

What follows a product, bias, rounding, shift and clamp, is shown by the solver for every product
and every bias at once. So are the products of DSP blocks, for every sum and every multiplier: with
a sum cut into parts, each part times the multiplier, and these added in their places, which is the
product. Other multipliers are run on every sum that a row can have.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.core import CoreBase
from pvq_hw.engine.depthwise_core import DepthwiseSpec
from pvq_hw.engine.unrolled_core import UnrolledSpec
from pvq_hw.errors import CheckError
from pvq_hw.registry import Face
from sim.proof.cones import Bits, Cones
from sim.proof.evaluate import Evaluator, Value
from sim.proof.formulas import Formulas, Solver
from sim.proof.netlist import Netlist, accumulator, parameter_register
from sim.proof.sums import RowSums
from sim.proof.unrolled_handshakes import operand

__all__ = [
    "MOST_VALUES",
    "bias_operand",
    "block_product",
    "check_block_product",
    "check_finish",
    "check_requantizers",
]

IntArray = npt.NDArray[np.int64]

MOST_VALUES = 1 << 24
"""The most sums of a row that are run on a multiplier that is no DSP block."""

_MOST_CYCLES = 1 << 17  # of pieces, for all rows of a core
_PIECE = 1 << 15  # sums that are run side by side
_SAMPLES = 256  # of a row's sums


def check_requantizers(
    netlist: Netlist, sums: RowSums, progress: Callable[[int, int], None]
) -> tuple[int, list[int]]:
    """Shows that every sum that a row can have gives its activation; see the module.

    Returns
    -------
    values : int
        Sums that rows, or their groups, can have, of all frames side by side.
    left : list of int
        Rows with more than are run.

    Raises
    ------
    CheckError
        An activation is not the layer's.
    InputError
        A requantizer is built in another way, or the solver is not installed.
    """
    spec = sums.spec
    low, high = sums.bounds
    sizes = high - low + 1
    by_run = not spec.multiplies.blocks and spec.multiplies.stored
    left = _too_many(spec, sizes) if by_run else []
    ways = requantizer_ways(spec, netlist)
    values = 0
    where = f"Requantizer of layer {sums.layer.name!r}"
    _check_parameters(sums, where)
    for number, way in enumerate(ways):
        biases = [sums.bias[row] for row in way.rows]
        less = _check_rounding(way, spec, sums.layer.shift, spec.out, biases, where)
        if not by_run:
            _check_product(way, spec, way.product(spec), where)
        else:
            _run(way, sums, left, where, less)
        values += int(sum(sizes[row].sum() for row in way.rows if row not in left))
        progress(number + 1, len(ways))
    return values, left


def _check_parameters(sums: RowSums, where: str) -> None:
    """Raises CheckError unless the core's multipliers and biases give the layer's activations: both
    are the same formula, so some sums tell."""
    low, high = sums.bounds
    for row in range(sums.spec.rows):
        acc = np.linspace(low[row], high[row], _SAMPLES).astype(np.int64)
        wrong = np.flatnonzero(sums.results(row, acc) != sums.requantized(row, acc))
        if len(wrong):
            raise CheckError(f"{where} row {row} is wrong for a sum of {acc[wrong[0], 0]}")


def _too_many(spec: CoreBase, sizes: IntArray) -> list[int]:
    """Rows that have more sums than are run."""
    pieces = -(-sizes // _PIECE)
    pieces = np.where((sizes > MOST_VALUES).any(axis=1), 0, pieces.sum(axis=1))
    cycles = np.cumsum(pieces) * _period(spec) * _units(spec) * spec.frames
    return [int(row) for row in np.flatnonzero((pieces == 0) | (cycles > _MOST_CYCLES))]


def _period(spec: CoreBase) -> int:
    """Cycles from one sum to the next, at least: others are between them."""
    return max(2, spec.multiplier_interval if spec.multiplies.paced else 1)


def _units(spec: CoreBase) -> int:
    """Multipliers that take turns."""
    if not spec.multiplies.paced or spec.multiplier_interval == 1:
        return 1
    return -(-(spec.mult_bits + 1) // spec.multiplier_interval)


@dataclass(frozen=True)
class _Way:
    """A requantizer in a netlist.

    Parameters
    ----------
    netlist : Netlist
    rows : range
        Those that it is there for.
    name : str
        Of its module.
    operand : list of bits
        The sum.
    strobe : str
        What comes with it.
    roms : mapping of str to str
        Registers of the memories of multipliers and biases.
    place : int
        In their words.
    """

    netlist: Netlist
    rows: range
    name: str
    operand: Bits
    strobe: str
    roms: dict[str, str]
    place: int

    def total(self, spec: CoreBase) -> Bits:
        """Products of a row, with all groups, to which the bias is added: what goes into the
        adder's carry chains."""
        adder, cones = f"{self.name}.adder", Cones(self.netlist)
        size = min(spec.carry_chunk or spec.sum_bits, spec.sum_bits)
        (first, *_) = self.netlist.net(f"{adder}.total0")
        bits = cones.maker(cones.before(first, resets=False), "$add").ports["A"][:size]
        for j in range(1, spec.bias_chunks):
            later = self.netlist.net(f"{adder}.a{j}_0")
            bits = [*bits, *(cones.before(bit, resets=False) for bit in later)]
        return bits

    @property
    def result(self) -> Bits:
        """The activation."""
        ends = (f"{self.name}.saturate.o", f"{self.name}.saturate.value", "fifo.w_data")
        return self.netlist.either(*ends)

    def parameter(self, spec: CoreBase, name: str) -> Bits:
        """A multiplier or bias in the register of its memory: the word that leaves."""
        width = spec.mult_bits if name == "mult" else spec.bias_bits
        pipe = self.netlist.net(self.roms[name])
        start = len(pipe) - width * (spec.requantizers - self.place)
        return pipe[start : start + width]

    def product(self, spec: CoreBase) -> Bits:
        """The multiplier's result, the same as `total` where rows have one gain. Raises CheckError
        unless products of several are added up: each, where it is there, to those of its row."""
        total = self.total(spec)
        if spec.groups == 1:
            return total
        cones = Cones(self.netlist)
        register = cones.maker(total[0], "$dff")
        chosen = cones.maker(register.ports["D"][0], "$mux")
        added = cones.maker(chosen.ports["B"][0], "$add")
        rest = cones.maker(added.ports["A"][0], "$mux")
        a, b = added.ports["A"], added.ports["B"]
        right = (
            chosen.ports["A"] == total == rest.ports["A"] == register.output
            and register.ports["D"] == chosen.output
            and chosen.ports["B"] == added.output[: len(total)]
            and chosen.ports["S"] == self.netlist.net(f"{self.name}.add")
            and a[: len(total)] == rest.output
            and set(rest.ports["B"]) == {"0"}
            and "1" in added.parameters["A_SIGNED"]
            and len(b) >= len(total)
        )
        if not right:
            raise CheckError(f"Requantizer {self.name!r} must add up the products of a row")
        return b[: len(total)]


requantizer_ways: Face[[Netlist], list[_Way]] = Face("core", "requantizers")
"""The requantizers of a core in its netlist."""


@requantizer_ways.of(CoreBase)
def _by_frame(spec: CoreBase, netlist: Netlist) -> list[_Way]:
    """One for each of the frames side by side, behind the accumulators."""
    return [
        _Way(
            netlist, range(spec.rows), f"requantizer{v}",
            accumulator(netlist, spec.acc_chunks, v),
            f"group_end_{spec.row_stage}", _roms(netlist, spec), 0,
        )
        for v in range(spec.frames)
    ]  # fmt: skip


@requantizer_ways.of(UnrolledSpec)
def _side_by_side(spec: UnrolledSpec, netlist: Netlist) -> list[_Way]:
    """One for each row of a transfer, behind the sums that leave at once."""
    return [_behind(netlist, spec, operand(netlist, spec, k), k) for k in range(spec.out_width)]


@requantizer_ways.of(DepthwiseSpec)
def _one(spec: DepthwiseSpec, netlist: Netlist) -> list[_Way]:
    """One, behind the adders."""
    return [_behind(netlist, spec, netlist.either("requantizer.a", "requantizer.acc"), 0)]


def _behind(netlist: Netlist, spec: CoreBase, bits: Bits, number: int) -> _Way:
    """The requantizer of this number, of which ``bits`` are the operand."""
    name, rows = f"requantizer{number or ''}", range(number, spec.rows, spec.out_width)
    return _Way(netlist, rows, name, bits, f"{name}.start", _roms(netlist, spec), number)


def _roms(netlist: Netlist, spec: CoreBase) -> dict[str, str]:
    """The registers of the memories of multipliers and biases."""
    names = (["mult"] if spec.multiplies.stored else []) + ["bias"]
    names = [] if spec.multiplies.wired else names
    return {name: parameter_register(netlist, name) for name in names}


# -- by the solver ---------------------------------------------------------------------------------


class _Later:
    """What some bits are a few cycles after others, which may be anything."""

    def __init__(self, netlist: Netlist, free: list[Bits], cycles: int) -> None:
        self.s = Solver()
        self.first = frame = Formulas(netlist, self.s)
        for number in range(cycles + 1):
            for bit in dict.fromkeys(bit for bits in free for bit in bits):
                if isinstance(bit, int):
                    frame.define(bit, self.s.unknown(f"free{bit}_{number}", 1))
            self.last, frame = frame, Formulas(netlist, self.s, before=frame)

    def follows(self, bits: Bits, wanted: Any) -> bool:
        """Whether they are the low bits of a term, or that with its sign, in the last cycle."""
        term = self.s.resize(wanted, len(bits), signed=True)
        return self.s.follows([], self.s.same(self.last.read(bits), term))


def check_finish(netlist: Netlist, spec: CoreBase, out: IntFormat, shift: int) -> None:
    """Shows that every product and every bias give the activation that their sum has after a shift,
    in a requantizer that is called the first one. Raises CheckError where one doesn't."""
    way = _Way(netlist, range(0), "requantizer0", [], "", _roms(netlist, spec), 0)
    _check_rounding(way, spec, shift, out, [], f"Finish of core {spec.name!r}")


def check_block_product(netlist: Netlist, spec: CoreBase, operand: Bits, *, added: bool) -> None:
    """Shows that DSP blocks multiply every operand by every multiplier, in a requantizer that is
    called the first one. Raises CheckError where they don't.

    Parameters
    ----------
    netlist : Netlist
    spec : CoreBase
    operand : list of bits
    added : bool
        Whether products are added up before they go to the adder of the bias.
    """
    way = _Way(netlist, range(0), "requantizer0", operand, "", _roms(netlist, spec), 0)
    product = block_product(netlist, spec) if added else way.total(spec)
    _check_product(way, spec, product, f"Multiplier of core {spec.name!r}")


def block_product(netlist: Netlist, spec: CoreBase) -> Bits:
    """What DSP blocks give, in a requantizer that is called the first one."""
    last = len(_starts(spec)) - 1
    return netlist.net(f"requantizer0.multiplier.{f't{last}' if last else 'second0'}")


def bias_operand(netlist: Netlist, spec: CoreBase) -> Bits:
    """What the bias is added to, in a requantizer that is called the first one."""
    return _Way(netlist, range(0), "requantizer0", [], "", {}, 0).total(spec)


def _check_rounding(
    way: _Way, spec: CoreBase, shift: int, out: IntFormat, biases: list[int], where: str
) -> int:
    """Shows that every product and bias give the activation that their sum has; returns what a
    wired multiplier's product is less than it should be, which its bias is more. Raises CheckError
    where one gives another.
    """
    wired = spec.multiplies.wired
    bias = [] if wired else [way.parameter(spec, "bias")]
    total = way.total(spec)
    later = _Later(way.netlist, [total, *bias], spec.bias_chunks + 1)
    s, read = later.s, later.first.read
    products = s.resize(read(total), spec.sum_bits, signed=True)
    for less in (0, 1) if wired else (0,):
        if wired:
            (number,) = biases
            term = s.number(number + less, spec.sum_bits)
        else:
            term = s.resize(read(bias[0]), spec.sum_bits, signed=True)
        value = s.op("BV_EXTRACT", [s.add(products, term)], [spec.sum_bits - 1, shift])
        if later.follows(way.result, _activation(s, value, out)):
            return less
    raise CheckError(f"{where} must add its bias, round, shift and clamp")


def _activation(s: Solver, value: Any, out: IntFormat) -> Any:
    """The code of the activation that a shifted sum becomes."""
    width = max(value.sort().bv_size(), out.bits + 1) + 1
    value = s.resize(value, width, signed=True)
    if out.binary:
        return s.op("BV_EXTRACT", [value], [width - 1, width - 1])
    low, high = (s.number(limit, width) for limit in out.limits)
    value = s.choose(s.op("BV_SLT", [value, low]), low, value)
    return s.resize(s.choose(s.op("BV_SGT", [value, high]), high, value), out.bits)


def _check_product(way: _Way, spec: CoreBase, product: Bits, where: str) -> None:
    """Shows that DSP blocks multiply every sum by every multiplier, or that there is none. Raises
    CheckError where they don't."""
    mult = [way.parameter(spec, "mult")] if spec.multiplies.stored else []
    later = _Later(way.netlist, [way.operand, *mult], spec.multiplier_delay)
    wanted = acc = later.first.read(way.operand)
    if mult:
        wanted = _parts(spec, later.s, acc, later.first.read(mult[0]))
    if not later.follows(product, wanted):
        raise CheckError(f"{where} must multiply each sum by its row's multiplier")


def _parts(spec: CoreBase, s: Solver, acc: Any, mult: Any) -> Any:
    """The product: a sum's parts, each times the multiplier, added in their places. The top one
    has the sign."""
    step, width = spec.multiplies.bits - 1, spec.acc_bits + spec.mult_bits
    starts = _starts(spec)
    total = s.number(0, width)
    for low in starts:
        top = low == starts[-1]
        end = spec.acc_bits if top else low + step
        part = s.op("BV_EXTRACT", [acc], [end - 1, low])
        part = part if top else s.resize(part, step + 1)
        size = part.sort().bv_size() + spec.mult_bits
        factors = [s.resize(part, size, signed=True), s.resize(mult, size)]
        product = s.resize(s.op("BV_MUL", factors), width, signed=True)
        total = s.add(total, s.op("BV_SHL", [product, s.number(low, width)]))
    return total


def _starts(spec: CoreBase) -> range:
    """The lowest bits of the parts of a sum."""
    return range(0, max(1, spec.acc_bits - 1), spec.multiplies.bits - 1)


# -- sum by sum ------------------------------------------------------------------------------------


def _run(way: _Way, sums: RowSums, left: list[int], where: str, less: int) -> None:
    """Multiplies every sum that rows can have, but for those that are left. Raises CheckError where
    a product isn't right, or not so much less."""
    spec = sums.spec
    mask = (1 << spec.sum_bits) - 1
    pieces = _pieces(way, sums, [row for row in way.rows if row not in left])
    for row, group, acc, got in _products(way, spec, sums, pieces):
        wrong = np.flatnonzero(got != ((acc * int(sums.mult[row, group]) - less) & mask))
        if len(wrong):
            raise CheckError(f"{where} row {row} is wrong for a sum of {acc[wrong[0]]}")


def _pieces(way: _Way, sums: RowSums, rows: list[int]) -> Iterator[tuple[int, int, IntArray]]:
    """Rows, groups and their sums, so many at a time, those that the operand's bits can be: once
    for each of the multipliers that take turns."""
    low, high = sums.bounds
    size = int(min(_PIECE, (high - low + 1)[rows].max())) if rows else 0
    for row in rows:
        for group in range(sums.spec.groups):
            acc = _reachable(way.operand, np.arange(low[row, group], high[row, group] + 1))
            for at in range(0, len(acc), size):
                for _ in range(_units(sums.spec)):
                    yield row, group, np.resize(acc[at : at + size], size)


def _reachable(bits: Bits, acc: IntArray) -> IntArray:
    """Those of the sums that the operand's bits can be, where some are constant or the same."""
    first: dict[Any, IntArray] = {}
    if len(set(bits)) == len(bits) and all(isinstance(bit, int) for bit in bits):
        return acc
    for k, bit in enumerate(bits):
        digit = acc >> k & 1
        same = digit == (first.get(bit, digit) if isinstance(bit, int) else int(bit == "1"))
        acc, first = acc[same], {b: d[same] for b, d in (first | {bit: digit}).items()}
    return acc


def _products(
    way: _Way, spec: CoreBase, sums: RowSums, pieces: Iterator[tuple[int, int, IntArray]]
) -> Iterator[tuple[int, int, IntArray, Value]]:
    """What the multiplier makes of sums that come one piece after the other, with other sums and
    multipliers in the cycles between them."""
    own: Bits = list(dict.fromkeys(bit for bit in way.operand if isinstance(bit, int)))
    places = [way.operand.index(bit) for bit in own]
    whole = places == list(range(len(places)))
    netlist = replace(way.netlist, nets={**way.netlist.nets, "operand": own})
    paced, mult, wanted = spec.multiplies.paced, way.roms.get("mult"), way.product(spec)
    cut = ["operand", *([mult] if mult else []), *([way.strobe] if paced else [])]
    waiting: deque[tuple[int, int, int, IntArray]] = deque()
    piece, cycle, start = next(pieces, None), 0, 0
    pauses = np.random.default_rng(0)
    if piece is None:
        return
    last, evaluator = piece, Evaluator(netlist, len(piece[2]), cut=cut, wanted=wanted)
    while piece or waiting:
        due = piece is not None and cycle == start
        last = piece or last
        digits = last[2] if due else np.roll(last[2], 1) ^ 1
        if not whole:
            digits = np.asarray(sum((digits >> place & 1) << k for k, place in enumerate(places)))
        evaluator.set("operand", digits & ((1 << len(own)) - 1))
        if mult:
            number = int(sums.mult[last[0], last[1]])
            evaluator.set(mult, _words(way, spec, number if due else ~number))
        if paced:
            evaluator.set(way.strobe, int(due))
        if due:
            waiting.append((cycle + spec.multiplier_delay, *last))
            piece = next(pieces, None)
            start += _period(spec) + (int(pauses.integers(_period(spec) + 1)) if paced else 0)
        evaluator.settle()
        if waiting and waiting[0][0] == cycle:
            yield *waiting.popleft()[1:], evaluator.get(wanted)
        evaluator.clock()
        cycle += 1


def _words(way: _Way, spec: CoreBase, value: int) -> int:
    """The register of multipliers with a value in the requantizer's place, and others elsewhere."""
    width, mask = spec.mult_bits, (1 << spec.mult_bits) - 1
    parts = len(way.netlist.net(way.roms["mult"])) // width
    own = [k % spec.requantizers == way.place for k in range(parts)]
    return sum(((value if o else ~value) & mask) << width * k for k, o in enumerate(own))
