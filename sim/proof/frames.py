"""A core's sums on frames that tell every weight, from its exported Verilog under stalls."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.pulse_core import CoreSpec
from pvq_hw.engine.units import CoreUnit
from pvq_hw.errors import CheckError
from sim.proof.evaluate import Evaluator, Value, as_signed
from sim.proof.netlist import Bit, Netlist, accumulator, parameter_register
from sim.proof.sums import RowSums
from sim.proof.traced_sums import TracedSums, coded_frames

__all__ = ["Frames", "check_frames"]

IntArray = npt.NDArray[np.int64]

_RANDOM = 16  # frames beside those that tell the weights
_ROUNDS = 3  # frames one after the other: both halves of the banks, and what was there before


@dataclass(frozen=True)
class Frames:
    """What was run: frames, sums compared, clock cycles."""

    frames: int
    sums: int
    cycles: int


def check_frames(
    netlist: Netlist, unit: CoreUnit, sums: RowSums, progress: Callable[[int, int], None]
) -> Frames:
    """Runs frames through a core under random pauses and compares every sum and every result.

    The frames are one of all-least activations, for each activation one in which it alone is
    another, the two of every row that reach its largest and least sum, and random ones. They
    determine a linear function: no other one than ``y @ u + constant`` has these sums. Of windows
    of pulses they are few, and the weights are followed from the leaves (`TracedSums`). Multipliers
    and biases must be those of the sums that they meet.

    Raises
    ------
    CheckError
        A sum or result differs; the line names the row.
    """
    spec = unit.core
    traced = unit.window is not None and isinstance(spec, CoreSpec)
    x = _frames(unit, sums, traced)
    evaluator = Evaluator(netlist, len(x), seed=1)
    meaning = _Meaning(evaluator, unit, sums, x) if traced else None
    windows = x.reshape(len(x), 1, -1)
    if unit.window is not None:
        windows = unit.window.compute(x).reshape(len(x), -1, spec.n)
    positions = windows.shape[1]
    outputs = np.stack([sums.layer.compute(windows[:, p]) for p in range(positions)], axis=1)
    outputs = _codes(outputs.reshape(len(x), -1), spec.out)
    together = _side_by_side(x, unit) if spec.row_windows else windows[:, :, None]
    expected = sums.of_frames(together.reshape(-1, spec.n)).reshape(*together.shape[:3], -1)
    expected = expected.transpose(0, 1, 3, 2).reshape(len(x), -1, together.shape[2])
    rounds = 1 if unit.window is not None and positions > 2 else _ROUNDS
    orders = [np.roll(np.arange(len(x)), 7 * k) for k in range(rounds)]
    taps = [accumulator(netlist, spec.acc_chunks, v) for v in range(spec.frames)]
    ends = netlist.net(f"group_end_{spec.row_stage}")
    roms, meant = _parameters(netlist, sums)
    done, given, cycles = 0, 0, 0
    total = rounds * expected.shape[1]
    for cycle, payload in _run(evaluator, unit, [x[order] for order in orders]):
        cycles = cycle
        if meaning is not None:
            meaning.traced.watch(cycle)
        for (strobe, bits), words in zip(roms, meant, strict=True):
            if evaluator.get(strobe):
                if evaluator.get(bits) != words[0]:
                    raise CheckError(f"Parameters of core {spec.name!r} must meet their rows' sums")
                words.append(words.pop(0))
        if payload is not None:
            turn, index = divmod(given, outputs.shape[1])
            if turn >= rounds:
                raise CheckError(f"Core {spec.name!r} must give no results without a frame")
            _check_results(payload, outputs[:, index:], orders[turn], unit, index)
            given += spec.out_width
        if not evaluator.get(ends):
            continue
        turn, index = divmod(done, expected.shape[1])
        if turn >= rounds:
            raise CheckError(f"Core {spec.name!r} must give no results without a frame")
        for v, bits in enumerate(taps):
            part, frame = (v, 0) if spec.row_windows else (0, v)
            wanted = expected[np.roll(orders[turn], -frame), index, part]
            got = as_signed(evaluator.get(bits), spec.acc_bits)
            if not np.array_equal(np.broadcast_to(got, wanted.shape), wanted):
                row = index // spec.groups % spec.rows
                raise CheckError(
                    f"Sums of layer {sums.layer.name!r} row {row} are not its weights'"
                )
            if meaning is not None:
                meaning.check(cycle, v, index, orders[turn])
        done += 1
        progress(done, total)
    if done != total:
        raise CheckError(f"Core {spec.name!r} must give {total} sums, not {done}")
    return Frames(len(x), total * len(x) * spec.frames, cycles)


class _Meaning:
    """The weights that every sum must have, of the activations of a map."""

    def __init__(
        self, evaluator: Evaluator, unit: CoreUnit, sums: RowSums, frames: IntArray
    ) -> None:
        assert isinstance(unit.core, CoreSpec)
        assert unit.window is not None
        self.traced = TracedSums(evaluator, unit.core, frames)
        self._sums, self._groups, self._rows = sums, unit.core.groups, unit.core.rows
        numbers = np.arange(1, frames.shape[1] + 1)[None]
        if unit.core.row_windows:
            self._columns = _side_by_side(numbers, unit)[0]
        else:
            self._columns = unit.window.compute(numbers).reshape(-1, 1, unit.core.n)

    def check(self, cycle: int, v: int, index: int, order: IntArray) -> None:
        """Compares the sum that accumulator v gives in this cycle, number ``index`` of a frame."""
        layer, groups = self._sums.layer, self._groups
        found, constant = self.traced.weights(cycle, v, order)
        place, sum_ = divmod(index, self._rows * groups)
        row, group = divmod(sum_, groups)
        own = np.array_split(np.arange(layer.y.shape[1]), groups)[group]
        columns = self._columns[place, v if len(self._columns[place]) > 1 else 0, own]
        wanted = np.zeros(len(found) + 1, dtype=np.int64)
        np.add.at(wanted, columns, layer.y[row, own])  # number 0 is what lies outside of the map
        if not np.array_equal(found, wanted[1:]) or constant != self._sums.constant[row, group]:
            raise CheckError(f"Sums of layer {layer.name!r} row {row} are not its weights'")


def _check_results(
    payload: Value, outputs: IntArray, order: IntArray, unit: CoreUnit, index: int
) -> None:
    """Compares a transfer: of some frames side by side, or some rows of one, ``index`` and on."""
    spec = unit.core
    frames = spec.output_frames
    for place in range(frames * spec.out_width):
        v, row = place % frames, place // frames
        got = payload >> place * spec.out.bits & ((1 << spec.out.bits) - 1)
        if not np.array_equal(got, outputs[np.roll(order, -v), row]):
            row = (index + row) % spec.rows
            raise CheckError(f"Results of core {spec.name!r} row {row} are wrong")


def _side_by_side(x: IntArray, unit: CoreUnit) -> IntArray:
    """Windows of frames of maps as they are computed, (frames, passes, V, columns): those beyond a
    row of the map too, which reach into the padding further than any other."""
    assert unit.window is not None
    window, g = unit.window, unit.window.geometry
    (left, right), columns = g.pads[1], window.groups * window.side
    reach = (columns - 1) * g.stride[1] + g.span[1] - left - g.input_shape[1]
    wide = replace(g, pads=(g.pads[0], (left, max(right, reach))))
    found = replace(window, geometry=wide, side=1).compute(x)
    return found.reshape(len(x), -1, window.side, unit.core.n)


def _parameters(
    netlist: Netlist, sums: RowSums
) -> tuple[list[tuple[list[Bit], list[Bit]]], list[list[int]]]:
    """Multipliers and biases: the strobe with which a word is taken and its bits, and the
    words in the order in which they must come."""
    spec = sums.spec
    kind = "group_end" if spec.groups == 1 else "row_end"
    bias = netlist.net(parameter_register(netlist, "bias"))[-spec.bias_bits :]
    roms = [(netlist.net(f"{kind}_{spec.product_stage}"), bias)]
    meant = [[word & ((1 << spec.bias_bits) - 1) for word in sums.bias]]
    if spec.multiplies.stored:
        mult = netlist.net(parameter_register(netlist, "mult"))[-spec.mult_bits :]
        roms.append((netlist.net(f"group_end_{spec.row_stage}"), mult))
        meant.append([int(word) for word in sums.mult.ravel()])
    return roms, meant


def _frames(unit: CoreUnit, sums: RowSums, traced: bool) -> IntArray:
    """(frames, activations) of the unit's input."""
    form, size = unit.core.x, unit.sizes()[0][0]
    least, most = form.limits
    random = np.random.default_rng(0).integers(least, most + 1, (_RANDOM, size))
    random = np.where(random < 1, -1, 1) if form.binary else random
    if traced:
        ends = np.array([[least], [most]]) * np.ones((1, size), dtype=np.int64)
        return np.concatenate([coded_frames(size, form), ends, random]).astype(np.int64)
    single = np.full((size, size), least, dtype=np.int64)
    np.fill_diagonal(single, most)
    found = [np.full((1, size), least), single, np.full((1, size), most)]
    if unit.window is None:
        high = np.where(sums.layer.y > 0, most, least)
        found += [high, np.where(sums.layer.y > 0, least, most)]
    return np.concatenate([*found, random]).astype(np.int64)


def _run(
    evaluator: Evaluator, unit: CoreUnit, rounds: list[IntArray]
) -> Iterator[tuple[int, Value | None]]:
    """Drives the streams; yields every cycle, settled, with the result that is taken in it, until
    all are out."""
    spec, netlist = unit.core, evaluator.netlist
    taken_together = unit.window.taken if unit.window is not None else 1
    payloads: list[Value] = [
        _payload(
            [
                np.roll(x, -v - turn, axis=0)[:, n + k]
                for k in range(taken_together)
                for v in range(spec.input_frames)
            ],
            spec.x,
        )
        for x in rounds
        for turn in range(spec.frames if spec.flush_cycles else 1)  # gathered one by one
        for n in range(0, x.shape[1], taken_together)
    ]
    generator = np.random.default_rng(2)
    taken = given = quiet = paused = cycle = 0
    results = len(rounds) * unit.sizes()[1] // spec.out_width
    ready, valid = netlist.port("i__ready"), netlist.port("o__valid")
    offered = False
    evaluator.set("rst", 0)
    evaluator.set("i__valid", 0)
    evaluator.set("i__payload", payloads[0])
    while given < results or quiet < 2 * spec.output_delay:
        if not offered and taken < len(payloads):
            # A longer pause would close a batch.
            offered = generator.random() < 0.8 or paused == spec.flush_cycles - 2
        paused = 0 if offered else paused + 1
        if offered:
            evaluator.set("i__payload", payloads[taken])
        evaluator.set("i__valid", int(offered))
        takes = int(generator.random() < 0.8)
        evaluator.set("o__ready", takes)
        evaluator.settle()
        moved, result = False, None
        if offered and evaluator.get(ready):
            offered, taken, moved = False, taken + 1, True
        if takes and evaluator.get(valid):
            given, moved = given + 1, True
            result = evaluator.get(netlist.port("o__payload"))
        quiet = 0 if moved else quiet + 1
        if quiet > 4 * (spec.words + spec.n) + 1000:
            raise CheckError(f"Core {spec.name!r} must go on, but nothing moves")
        yield cycle, result
        evaluator.clock()
        cycle += 1


def _codes(values: IntArray, form: IntFormat) -> IntArray:
    return (values < 0).astype(np.int64) if form.binary else values & ((1 << form.bits) - 1)


def _payload(values: list[IntArray], form: IntFormat) -> Value:
    total: Value = 0
    wide = len(values) * form.bits > 62
    for v, value in enumerate(values):
        code = _codes(value, form)
        total = total | (code.astype(object) if wide else code) << form.bits * v
    return total
