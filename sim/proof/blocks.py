"""Blocks of a core for all inputs: leaves value by value, adder trees by form."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pvq_hw.engine.int8_core import Int8Spec
from pvq_hw.engine.pulse_core import CoreSpec
from pvq_hw.errors import CheckError
from sim.proof.evaluate import Evaluator, as_signed
from sim.proof.netlist import Bit, Cell, Netlist

__all__ = ["check_leaves", "check_trees", "leaf_values"]

IntArray = npt.NDArray[np.int64]


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
