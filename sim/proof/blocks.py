"""Blocks of a core for all inputs: leaves and requantizers value by value, adder trees by form."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from pvq_hw.engine.int8_core import Int8Spec
from pvq_hw.engine.pulse_core import CoreSpec
from pvq_hw.errors import CheckError, InputError
from sim.proof.evaluate import Evaluator, as_signed
from sim.proof.netlist import Bit, Cell, Netlist, accumulator, parameter_register
from sim.proof.sums import RowSums

__all__ = ["MOST_VALUES", "check_leaves", "check_requantizers", "check_trees", "leaf_values"]

IntArray = npt.NDArray[np.int64]

MOST_VALUES = 1 << 20
"""The most sums of a row for which its requantizer is run on each of them."""


def _leaf(netlist: Netlist, spec: CoreSpec, p: int, v: int) -> list[Bit]:
    names = ("shifted", "value") if spec.code.shift_bits else ("unit", "value")
    return netlist.either(*(f"leaf{p}_{v}.{name}" for name in names))


def check_leaves(netlist: Netlist, spec: CoreSpec) -> int:
    """Runs every leaf on all activations, signs and shifts; returns how many values.

    ``value`` must be ``+x``, ``~x`` (binary: ``-x``) or 0, times ``2**shift``.
    """
    code = np.arange(1 << spec.x.bits)
    controls = np.arange(1 << (2 + spec.code.shift_bits))
    x, control = (a.ravel() for a in np.meshgrid(code, controls))
    nonzero, negative, shift = control & 1, control >> 1 & 1, control >> 2
    value = 1 - 2 * x if spec.x.binary else as_signed(x, spec.x.bits) if spec.x.signed else x
    # An idle lane has no sign: decoders give both low.
    meant = (nonzero == 1) | (negative == 0)
    opposite = -value if spec.x.binary else ~value
    expected = nonzero * np.where(negative == 1, opposite, value) << shift
    for p in range(spec.lanes):
        held = f"controls{p}_{spec.bank_latency - 1}"
        for v in range(spec.frames):
            wanted = _leaf(netlist, spec, p, v)
            evaluator = Evaluator(
                netlist, len(x), cut=[f"leaf{p}_{v}.x", held], wanted=wanted, seed=p
            )
            evaluator.set(f"leaf{p}_{v}.x", x)
            evaluator.set(held, control)
            for _ in range(1 + (spec.code.shift_bits > 0)):
                evaluator.settle()
                evaluator.clock()
            got = as_signed(evaluator.get(wanted), spec.leaf_bits)
            if np.any((got != expected) & meant):
                raise CheckError(f"Leaf {p} of core {spec.name!r} must give +x, -x or 0, shifted")
    return int(meant.sum()) * spec.lanes * spec.frames


def leaf_values(netlist: Netlist, spec: CoreSpec) -> list[list[Bit]]:
    """What the leaves give: all lanes of one frame, then those of the next."""
    return [_leaf(netlist, spec, p, v) for v in range(spec.frames) for p in range(spec.lanes)]


def check_trees(netlist: Netlist, spec: CoreSpec | Int8Spec, values: Sequence[list[Bit]]) -> int:
    """Follows what lanes give through the adders: the tree's sum must hold each of them once, all
    of the same cycle, and no adder may be narrower than its sum. Returns how many adders.

    Parameters
    ----------
    netlist : Netlist
    spec : CoreSpec or Int8Spec
    values : sequence of lists of bits
        Of every lane, all lanes of one frame, then those of the next.
    """
    count = 0
    for v in range(spec.frames):
        leaves = list(values[v * spec.lanes : (v + 1) * spec.lanes])
        top = netlist.either(f"accumulator{v}.i", f"accumulator{v}.value")
        forms = _Forms(netlist, leaves)
        form = forms.of(top)
        if form is None or form.terms != tuple(range(spec.lanes)):
            raise CheckError(f"Adder tree {v} of core {spec.name!r} must add every leaf once")
        if form.delay != spec.tree_levels:
            raise CheckError(f"Adder tree {v} of core {spec.name!r} must take its levels' cycles")
        count += forms.adders
    return count


class _Form:
    """A sum of leaves of the same cycle: which, how long ago, and its bits."""

    def __init__(self, terms: tuple[int, ...], delay: int, bits: int) -> None:
        self.terms, self.delay, self.bits = terms, delay, bits


class _Forms:
    """What nets are in terms of leaves; None where that is no sum of leaves."""

    def __init__(self, netlist: Netlist, leaves: list[list[Bit]]) -> None:
        self.adders = 0
        self._width = len(leaves[0])
        self._known: dict[tuple[Bit, ...], _Form] = {
            _core(bits): _Form((p,), 0, len(bits)) for p, bits in enumerate(leaves)
        }
        self._makers = {b: cell for cell in netlist.cells for b in cell.output}

    def of(self, bits: list[Bit]) -> _Form | None:
        """The form of some bits, whose upper ones may repeat the sign."""
        core = _core(bits)
        if core not in self._known:
            form = self._made(core)
            if form is None:
                return None
            self._known[core] = form
        return self._known[core]

    def _made(self, bits: tuple[Bit, ...]) -> _Form | None:
        cell = self._makers.get(bits[0])
        if cell is None or tuple(cell.output[: len(bits)]) != bits:
            return None
        whole = len(cell.output) == len(bits)
        if cell.type == "$dff" and whole:
            inner = self.of(cell.ports["D"])
            return inner and _Form(inner.terms, inner.delay + 1, inner.bits)
        if cell.type == "$add" and whole:
            return self._added(cell)
        return None

    def _added(self, cell: Cell) -> _Form | None:
        a, b = self.of(cell.ports["A"]), self.of(cell.ports["B"])
        signed = all("1" in cell.parameters[f"{port}_SIGNED"] for port in ("A", "B"))
        same = len(cell.ports["A"]) == len(cell.ports["B"]) == len(cell.output)
        if a is None or b is None or a.delay != b.delay or not (signed or same):
            return None
        terms = (*a.terms, *b.terms)
        # Of n leaves: their bits and as many more as n - 1 has.
        need = self._width + (len(terms) - 1).bit_length()
        if len(cell.output) < need:
            return None
        self.adders += 1
        return _Form(tuple(sorted(terms)), a.delay, need)


def _core(bits: list[Bit]) -> tuple[Bit, ...]:
    """Bits without those that repeat the sign."""
    end = len(bits)
    while end > 1 and bits[end - 1] == bits[end - 2]:
        end -= 1
    return tuple(bits[:end])


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
    rows = [row for row in range(spec.rows) if row not in left]
    wait = spec.product_stage - spec.row_stage + spec.bias_chunks + 1
    strobe = f"group_end_{spec.row_stage}"
    roms = {name: parameter_register(netlist, name) for name in ("mult", "bias")}
    if not spec.multiplies.stored:
        del roms["mult"]
    values, junk = 0, np.random.default_rng(0)
    for v in range(spec.frames):
        wanted = netlist.either(f"requantizer{v}.saturate.o", f"requantizer{v}.saturate.value",
                                "fifo.w_data")  # fmt: skip
        parts = _parts(netlist, accumulator(netlist, spec.acc_chunks, v))
        cut = [*parts, *roms.values(), *([strobe] if spec.multiplies.paced else [])]
        for number, row in enumerate(rows):
            acc = np.arange(low[row, 0], high[row, 0] + 1)
            evaluator = Evaluator(netlist, len(acc), cut=cut, wanted=wanted, seed=row)
            # Whatever comes in other cycles: operands in the first, the bias with the product.
            for cycle in range(wait):
                here = acc if cycle == 0 else junk.permutation(acc)
                _hold(evaluator, parts, here & ((1 << spec.acc_bits) - 1))
                for name, pipe in roms.items():
                    word = int(sums.mult[row, 0]) if name == "mult" else sums.bias[row]
                    width = spec.mult_bits if name == "mult" else spec.bias_bits
                    if cycle != (0 if name == "mult" else spec.product_stage - spec.row_stage):
                        word = ~word
                    copies = len(netlist.net(pipe)) // width
                    word &= (1 << width) - 1
                    evaluator.set(pipe, sum(word << width * i for i in range(copies)))
                if spec.multiplies.paced:
                    evaluator.set(strobe, int(cycle == 0))
                evaluator.settle()
                evaluator.clock()
            evaluator.settle()
            got = np.broadcast_to(evaluator.get(wanted), acc.shape)
            result = sums.results(row, acc)
            form = spec.out
            code = (result < 0).astype(int) if form.binary else result & ((1 << form.bits) - 1)
            wrong = np.flatnonzero(got != code)
            if len(wrong):
                raise CheckError(
                    f"Requantizer of layer {sums.layer.name!r} row {row} is wrong for a sum of "
                    f"{acc[wrong[0]]}"
                )
            values += len(acc)
            progress(v * len(rows) + number + 1, spec.frames * len(rows))
    return values, left


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
