"""Sums of windows by what each lane adds to them: activation by activation, cycle by cycle.

A map has thousands of activations, and as many frames would be needed to tell each one's weight in
a sum. But a leaf is given activations as they came, or constants (*moves*), and a bit that is the
copy of one activation's bit is known by its values in a few frames, in which no two activations
have the same ones and none is constant. So of each leaf and cycle it is read which activation it
is given, and what the leaf makes of it, a number times it and a constant (*leaves*). What is added
up from one ``first`` to the next (*adder trees*, *accumulators*) is the sum, whose weights then are
the sums of those numbers.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.pulse_core import CoreSpec
from pvq_hw.errors import CheckError
from sim.proof.blocks import leaf_values
from sim.proof.evaluate import Evaluator, Value, as_signed
from sim.proof.moves import leaf_activations
from sim.proof.netlist import accumulator

__all__ = ["TracedSums", "coded_frames"]

IntArray = npt.NDArray[np.int64]


def coded_frames(size: int, form: IntFormat) -> IntArray:
    """Frames (count, size) that tell activations apart: number i has 1 in all of its bits where
    i + 1 has one, and 0 elsewhere; none is the same in all frames."""
    count = (size + 1).bit_length()
    bits = np.arange(1, size + 1) >> np.arange(count)[:, None] & 1
    return np.where(bits == 1, *_ends(form)).astype(np.int64)


def _ends(form: IntFormat) -> tuple[int, int]:
    """The activations whose bits are all 1, and all 0."""
    if form.binary:
        return -1, 1
    return (-1, 0) if form.signed else ((1 << form.bits) - 1, 0)


_Term = tuple[int | None, int, int]


@dataclass(frozen=True)
class _Cycle:
    """What the leaves were given and gave, all lanes of one window, then those of the next."""

    given: list[Value]
    gave: list[Value]


class TracedSums:
    """Watches a core of pulses while frames run through it side by side.

    Parameters
    ----------
    evaluator : Evaluator
    spec : CoreSpec
    frames : int64 array (runs, size)
        The first ones are `coded_frames`.
    """

    def __init__(self, evaluator: Evaluator, spec: CoreSpec, frames: IntArray) -> None:
        self._spec, self._frames = spec, frames
        self._coded = (frames.shape[1] + 1).bit_length()
        netlist = evaluator.netlist
        self._given = evaluator.reader(leaf_activations(netlist, spec))
        self._gave = evaluator.reader(leaf_values(netlist, spec))
        firsts = [netlist.net(f"accumulator{v}.first") for v in range(spec.frames)]
        self._first = evaluator.reader(firsts)
        self._sums = evaluator.reader(
            [accumulator(netlist, spec.acc_chunks, v) for v in range(spec.frames)]
        )
        self._late = 1 + (spec.code.shift_bits > 0)
        self._held: list[list[Value]] = []
        self._cycles: dict[int, _Cycle] = {}
        self._starts: list[list[int]] = [[] for _ in firsts]
        self._known: dict[tuple[bytes, bytes, int], _Term] = {}

    def watch(self, cycle: int) -> None:
        """Reads a cycle, after it has settled."""
        self._held.append(self._given())
        if len(self._held) > self._late:
            # By the time that the accumulators take it.
            at = cycle + self._spec.tree_levels
            self._cycles[at] = _Cycle(self._held.pop(0), self._gave())
        for starts, first in zip(self._starts, self._first(), strict=True):
            if first:
                starts.append(cycle)

    def weights(self, cycle: int, v: int, order: IntArray) -> tuple[IntArray, int]:
        """Of the sum that accumulator v gives in this cycle: the weight of each activation
        (size,), and what it has beside them.

        ``order`` are the frames that the runs have now.

        Raises
        ------
        CheckError
            It is another sum than that of what the leaves gave, or a leaf was given something else
            than an activation of these frames, or a constant.
        """
        spec = self._spec
        end = cycle - 1 - spec.acc_chunks
        starts = self._starts[v]
        while len(starts) > 1 and starts[1] <= end:
            starts.pop(0)
        weights = np.zeros(self._frames.shape[1], dtype=np.int64)
        constant, total = 0, np.zeros(len(order), dtype=np.int64)
        for at in range(starts[0] if starts else 0, end + 1):
            found = self._cycles.get(at)
            for lane in range(v * spec.lanes, (v + 1) * spec.lanes) if found else ():
                assert found is not None
                gave = as_signed(found.gave[lane], spec.leaf_bits)
                if not gave.any():
                    continue
                total = total + gave
                number, weight, rest = self._term(found.given[lane], gave, order)
                constant += rest
                if number is not None:
                    weights[number] += weight
        got = as_signed(self._sums()[v], spec.acc_bits)
        if np.any((total - got) & ((1 << spec.acc_bits) - 1)):
            raise CheckError(f"Sums of core {spec.name!r} must be those of what its leaves give")
        self._forget()
        return weights, constant

    def _forget(self) -> None:
        """What lies before all sums that are still to come."""
        oldest = min((starts[0] for starts in self._starts if starts), default=0)
        for at in [at for at in self._cycles if at < oldest]:
            del self._cycles[at]

    def _term(self, value: Value, gave: IntArray, order: IntArray) -> _Term:
        """The activation that a leaf was given, what it made of it, and a constant."""
        given = np.asarray(value, dtype=np.int64)
        key = given.tobytes(), gave.tobytes(), int(order[0])
        if key not in self._known:
            shape = order.shape
            given, gave = np.broadcast_to(given, shape), np.broadcast_to(gave, shape)
            self._known[key] = self._read(given, gave, order)
        return self._known[key]

    def _read(self, given: IntArray, gave: IntArray, order: IntArray) -> _Term:
        spec = self._spec
        if (given == given[0]).all() and (gave == gave[0]).all():
            return None, 0, int(gave[0])
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        coded = place[: self._coded]
        high = given[coded] == (1 << spec.x.bits) - 1
        number = int((high << np.arange(self._coded)).sum()) - 1
        if not 0 <= number < self._frames.shape[1]:
            raise self._mixed()
        x = self._frames[order, number]
        stored = (x < 0).astype(np.int64) if spec.x.binary else x & ((1 << spec.x.bits) - 1)
        most, least = _ends(spec.x)
        one, zero = int(gave[coded][high][0]), int(gave[coded][~high][0])
        weight = (one - zero) // (most - least)
        constant = zero - weight * least
        if np.any(given != stored) or np.any(gave != weight * x + constant):
            raise self._mixed()
        return number, weight, constant

    def _mixed(self) -> CheckError:
        return CheckError(
            f"Leaves of core {self._spec.name!r} must be given activations of their window"
        )
