"""The adders of an unrolled layer, read as cells: what each sum is of the activations."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.unrolled_core import UnrolledSpec
from pvq_hw.errors import CheckError
from sim.proof.netlist import Bit, Cell, Netlist

__all__ = ["Forms", "check_wires"]

IntArray = npt.NDArray[np.int64]
Bits = tuple[Bit, ...]


def check_wires(netlist: Netlist, spec: UnrolledSpec, y: IntArray) -> int:
    """Follows the held frame through the adders to the sums: each must be its row's, of every
    weight, for all activations, at most ``spec.levels`` registers later. Returns how many adders.

    Raises
    ------
    CheckError
        A sum is another one, or a width too small for it; the line names the row.
    """
    frame = netlist.either("adders.frame", "frame")
    inputs = [tuple(frame[k : k + spec.x.bits]) for k in range(0, len(frame), spec.x.bits)]
    forms = Forms(netlist, spec.x, inputs, in_step=spec.pipelined)
    sums, width = netlist.net("adders.sums"), spec.acc_bits
    group = np.arange(spec.n) // (spec.n // spec.groups)
    for number in range(spec.sums):
        row = number // spec.groups
        where = f"Core {spec.name!r}: the adders of row {row}"
        form = forms.total(tuple(sums[number * width : (number + 1) * width]))
        if form is None:
            raise CheckError(f"{where} must add activations in widths that hold their sum")
        sign = -1 if number in spec.inverted else 1
        wanted = sign * np.where(group == number % spec.groups, y[row], 0)
        if not np.array_equal(form.weights, wanted):
            column = int(np.flatnonzero(form.weights != wanted)[0])
            raise CheckError(f"{where} must have the layer's weight of column {column}")
        late = form.level > spec.levels
        if late or (spec.pipelined and form.weights.any() and form.level != spec.levels):
            most = "" if spec.pipelined else " at most"
            raise CheckError(f"{where} must take {spec.levels} cycles{most}, not {form.level}")
    return forms.adders


@dataclass(frozen=True)
class Form:
    """``weights @ inputs``, which some bits have exactly, ``level`` registers behind them."""

    weights: IntArray
    low: int
    high: int
    level: int


class Forms:
    """What bits are of some inputs; None where that is no sum of them.

    Bits stand for the sum itself, unsigned where it can't be negative: every adder is as wide as
    that takes, and its operands are extended as their signs ask for.

    Parameters
    ----------
    netlist : Netlist
    x : IntFormat
        The inputs'.
    inputs : list of bits
    in_step : bool
        Whether all that is added must be of one and the same cycle.
    """

    def __init__(
        self, netlist: Netlist, x: IntFormat, inputs: list[Bits], *, in_step: bool
    ) -> None:
        self._x, self._in_step, self.adders = x, in_step, 0
        self._makers = netlist.makers
        self._known: dict[Bits, Form | None] = {}
        for column, bits in enumerate(inputs):
            weights = np.zeros(len(inputs), dtype=np.int64)
            weights[column] = 1
            own: Bits = ("1", *bits) if x.binary else bits
            self._known[own] = self._form(weights, 0)
        self._nothing = np.zeros(len(inputs), dtype=np.int64)

    def _form(self, weights: IntArray, level: int) -> Form:
        ends = np.outer(self._x.limits, weights)
        return Form(weights, int(ends.min(axis=0).sum()), int(ends.max(axis=0).sum()), level)

    def total(self, bits: Bits) -> Form | None:
        """A row's sum: a form with zeros below it, or 0."""
        zeros = 0
        while zeros < len(bits) and bits[zeros] == "0":
            zeros += 1
        if zeros == len(bits):
            return self._form(self._nothing, 0)
        form = self.of(bits[zeros:])
        return form and self._form(form.weights << zeros, form.level)

    def of(self, bits: Bits) -> Form | None:
        """The form of some bits, which may repeat their sign or end with zeros."""
        end = len(bits)
        if bits in self._known:
            return self._known[bits]
        while end > 1 and bits[end - 1] == "0":
            end -= 1
        if end < len(bits):
            form = self.of(bits[:end])
            return form if form is not None and form.low >= 0 else None
        while end > 1 and bits[end - 1] == bits[end - 2]:
            end -= 1
        if end < len(bits):
            form = self.of(bits[:end])
            return form if form is not None and form.high < 1 << (end - 1) else None
        form = self._made(bits)
        # The sum must be what the bits say.
        if form is not None and not _fits(form, len(bits)):
            form = None
        self._known[bits] = form
        return form

    def _made(self, bits: Bits) -> Form | None:
        cell = self._makers.get(bits[-1])
        if cell is None:
            return None
        output = tuple(cell.output)
        if cell.type == "$dff" and output == bits:
            form = self.of(tuple(cell.ports["D"]))
            return form and self._form(form.weights, form.level + 1)
        below = bits.index(output[0]) if output[0] in bits else len(bits)
        width = len(bits) - below  # upper bits of the adder may be left out
        if cell.type not in ("$add", "$sub") or bits[below:] != output[:width]:
            return None
        # Bits of the first operand below the second one pass by the adder.
        a = self.of(bits[:below] + tuple(cell.ports["A"]))
        b = self.of(tuple(cell.ports["B"]))
        if a is None or b is None or (self._in_step and a.level != b.level):
            return None
        if not (_reaches(a, cell, "A", width, below) and _reaches(b, cell, "B", width)):
            return None
        self.adders += 1
        other = b.weights << below
        weights = a.weights - other if cell.type == "$sub" else a.weights + other
        return self._form(weights, max(a.level, b.level))


def _fits(form: Form, width: int) -> bool:
    if form.low < 0:
        return -(1 << (width - 1)) <= form.low and form.high < 1 << (width - 1)
    return form.high < 1 << width


def _reaches(form: Form, cell: Cell, port: str, width: int, below: int = 0) -> bool:
    """Whether an operand is extended to some bits as its sign asks for."""
    own = len(cell.ports[port])
    if own >= width:
        return True
    if all("1" in cell.parameters[f"{p}_SIGNED"] for p in ("A", "B")):
        return form.high < 1 << (own + below - 1)
    return form.low >= 0
