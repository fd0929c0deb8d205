"""Requantizers for all inputs: value by value, for every sum that a row can have."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pvq_hw.engine.core import CoreBase
from pvq_hw.engine.depthwise_core import DepthwiseSpec
from pvq_hw.engine.unrolled_core import UnrolledSpec
from pvq_hw.errors import CheckError, InputError
from pvq_hw.registry import Face
from sim.proof.evaluate import Evaluator, Value
from sim.proof.netlist import Bit, Netlist, accumulator, parameter_register
from sim.proof.sums import RowSums
from sim.proof.unrolled_handshakes import operand

__all__ = ["MOST_VALUES", "check_requantizers"]

IntArray = npt.NDArray[np.int64]

MOST_VALUES = 1 << 20
"""The most sums of a row for which its requantizer is run on each of them."""


def check_requantizers(
    netlist: Netlist, sums: RowSums, progress: Callable[[int, int], None]
) -> tuple[int, list[int]]:
    """Runs the requantizer on every sum that a row can have, row by row; in all other cycles than
    the sum's and its parameters' own it gets others.

    Returns
    -------
    values : int
        Sums that were run, of all frames side by side.
    left : list of int
        Rows with more than `MOST_VALUES` of them, which were not.

    Raises
    ------
    CheckError
        An activation is not the layer's; the line names row and sum.
    InputError
        Rows have several gains.
    """
    spec = sums.spec
    if spec.groups > 1:
        raise InputError("rows of several gains are more than one sum")
    low, high = sums.bounds
    left = [row for row in range(spec.rows) if high[row, 0] - low[row, 0] >= MOST_VALUES]
    values, done, junk = 0, 0, np.random.default_rng(0)
    ways = requantizer_ways(spec, netlist)
    total = sum(len(way.rows) for way in ways)
    for way in ways:
        for row in way.rows:
            if row not in left:
                acc = way.reachable(np.arange(low[row, 0], high[row, 0] + 1))
                got = way.run(spec, sums, row, acc, junk)
                result = sums.results(row, acc)
                form = spec.out
                code = (result < 0).astype(int) if form.binary else result & ((1 << form.bits) - 1)
                wrong = np.flatnonzero(np.broadcast_to(got, acc.shape) != code)
                if len(wrong):
                    raise CheckError(
                        f"Requantizer of layer {sums.layer.name!r} row {row} is wrong for a sum of "
                        f"{acc[wrong[0]]}"
                    )
                values += len(acc)
            done += 1
            progress(done, total)
    return values, left


@dataclass(frozen=True)
class _Way:
    """A requantizer in a netlist: the rows it is there for, its operand, the strobe that comes with
    it, its memories, its place in their words, and its result."""

    netlist: Netlist
    rows: range
    parts: dict[str, list[Bit]]
    strobe: str
    roms: dict[str, str]
    place: int
    wanted: list[Bit]
    alike: tuple[Bit, ...] = ()  # the operand, where bits of it are constant or the same

    def reachable(self, acc: IntArray) -> IntArray:
        """Those of the sums that the operand's bits can be."""
        first: dict[Bit, IntArray] = {}
        for k, bit in enumerate(self.alike):
            digit = acc >> k & 1
            same = digit == (first.get(bit, digit) if isinstance(bit, int) else int(bit == "1"))
            acc, first = acc[same], {b: d[same] for b, d in (first | {bit: digit}).items()}
        return acc

    def _digits(self, acc: IntArray) -> IntArray:
        """A sum's digits that are not given by others."""
        if not self.alike:
            return acc
        (own,) = self.parts.values()
        places = [self.alike.index(bit) for bit in own]
        return np.asarray(sum((acc >> place & 1) << k for k, place in enumerate(places)))

    def run(
        self, spec: CoreBase, sums: RowSums, row: int, acc: IntArray, junk: np.random.Generator
    ) -> Value:
        """What it makes of each sum of a row."""
        paced = spec.multiplies.paced
        cut = [*self.parts, *self.roms.values(), *([self.strobe] if paced else [])]
        evaluator = Evaluator(self.netlist, len(acc), cut=cut, wanted=self.wanted, seed=row)
        # Whatever comes in other cycles: operands in the first, the bias with the product.
        for cycle in range(spec.product_stage - spec.row_stage + spec.bias_chunks + 1):
            here = acc if cycle == 0 else junk.permutation(acc)
            _hold(evaluator, self.parts, self._digits(here & ((1 << spec.acc_bits) - 1)))
            for name, pipe in self.roms.items():
                word = int(sums.mult[row, 0]) if name == "mult" else sums.bias[row]
                if cycle != (0 if name == "mult" else spec.product_stage - spec.row_stage):
                    word = ~word
                evaluator.set(pipe, self._word(spec, name, pipe, word))
            if paced:
                evaluator.set(self.strobe, int(cycle == 0))
            evaluator.settle()
            evaluator.clock()
        evaluator.settle()
        return evaluator.get(self.wanted)

    def _word(self, spec: CoreBase, name: str, pipe: str, value: int) -> int:
        """A memory's register with a value in the requantizer's place, and others in all others."""
        width = spec.mult_bits if name == "mult" else spec.bias_bits
        mask = (1 << width) - 1
        parts = len(self.netlist.net(pipe)) // width
        own = [k % spec.requantizers == self.place for k in range(parts)]
        return sum(((value if o else ~value) & mask) << width * k for k, o in enumerate(own))


requantizer_ways: Face[[Netlist], list[_Way]] = Face("core", "requantizers")
"""The requantizers of a core in its netlist."""


@requantizer_ways.of(CoreBase)
def _by_frame(spec: CoreBase, netlist: Netlist) -> list[_Way]:
    """One for each of the frames side by side, behind the accumulators."""
    return [
        _Way(
            netlist, range(spec.rows), _parts(netlist, accumulator(netlist, spec.acc_chunks, v)),
            f"group_end_{spec.row_stage}", _roms(netlist, spec), 0,
            netlist.either(f"requantizer{v}.saturate.o", f"requantizer{v}.saturate.value",
                           "fifo.w_data"),
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


def _behind(netlist: Netlist, spec: CoreBase, bits: list[Bit], number: int) -> _Way:
    """The requantizer of this number, of which ``bits`` are the operand."""
    name = f"requantizer{number or ''}"
    own: list[Bit] = list(dict.fromkeys(bit for bit in bits if isinstance(bit, int)))
    return _Way(
        replace(netlist, nets={**netlist.nets, "operand": own}),
        range(number, spec.rows, spec.out_width), {"operand": own}, f"{name}.start",
        _roms(netlist, spec), number,
        netlist.either(f"{name}.saturate.o", f"{name}.saturate.value", "fifo.w_data"),
        tuple(bits),
    )  # fmt: skip


def _roms(netlist: Netlist, spec: CoreBase) -> dict[str, str]:
    """The registers of the memories of multipliers and biases."""
    names = (["mult"] if spec.multiplies.stored else []) + ["bias"]
    names = [] if spec.multiplies.wired else names
    return {name: parameter_register(netlist, name) for name in names}


def _parts(netlist: Netlist, bits: list[Bit]) -> dict[str, list[Bit]]:
    """The registers that make up an accumulator's output, by a name that each has."""
    names = {tuple(found): name for name, found in netlist.nets.items() if "accumulator" in name}
    parts, at = {}, 0
    while at < len(bits):
        end = next(e for e in range(len(bits), at, -1) if tuple(bits[at:e]) in names)
        parts[names[tuple(bits[at:end])]] = bits[at:end]
        at = end
    return parts


def _hold(evaluator: Evaluator, parts: dict[str, list[Bit]], acc: IntArray) -> None:
    for name, bits in parts.items():
        evaluator.set(name, acc & ((1 << len(bits)) - 1))
        acc = acc >> len(bits)
