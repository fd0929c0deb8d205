"""Sums of the dense layers of a shared engine, from its exported Verilog under pauses.

A layer's activations are what its results before were, so frames can't be chosen for it. They are
fed instead: where a result between layers is written into the banks, which *handshakes* is about,
an activation is written that was chosen for the next layer. So each layer gets frames that tell
every weight of a linear function, as `sim.proof.frames` says of one layer's core.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gateware.core.shared_core import finish_of
from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.core import CoreImage
from pvq_hw.engine.shared_core import SharedSpec
from pvq_hw.errors import CheckError, InputError
from pvq_hw.network.layer import Dense
from sim.proof.cones import Bits, Cones
from sim.proof.engine_handshakes import field_bits
from sim.proof.evaluate import Evaluator, as_signed
from sim.proof.frames import Frames
from sim.proof.moves import moved
from sim.proof.netlist import Bit, Cell, Netlist, accumulator, parameter_register

__all__ = ["EngineLayers", "check_engine_moves", "check_engine_sums"]

IntArray = npt.NDArray[np.int64]

_RANDOM = 16  # frames beside those that tell the weights
_ROUNDS = 3  # frames one after the other
_FED = "fed__payload"


@dataclass(frozen=True)
class EngineLayers:
    """The layers of an engine by the network's numbers, and the words of its multipliers and
    biases.

    Parameters
    ----------
    spec : SharedSpec
    layers : sequence of Dense
        In order.
    image : CoreImage
    """

    spec: SharedSpec
    layers: Sequence[Dense]
    image: CoreImage

    def __post_init__(self) -> None:
        wide = {layer.x.bits for layer in self.spec.layers}
        if wide != {self.spec.bank_bits}:
            raise InputError("activations of several widths in one engine are not followed")

    def constants(self, number: int) -> IntArray:
        """What each row's sum has beside ``y @ x``: ``~x`` is ``-x - 1``."""
        return np.asarray(-np.maximum(-self.layers[number].y, 0).sum(axis=1), dtype=np.int64)

    def check_widths(self) -> tuple[int, int]:
        """The least and the largest sum of all layers; raises CheckError where one, or its product
        with the bias, may not fit."""
        spec, found, row = self.spec, list[int](), 0
        for number, layer in enumerate(self.layers):
            least, most = spec.layers[number].x.limits
            positive, negative = np.maximum(layer.y, 0).sum(1), np.maximum(-layer.y, 0).sum(1)
            ends = np.stack(
                [positive * least - negative * most, positive * most - negative * least]
            )
            ends = ends + self.constants(number)
            rows = slice(row, row + len(layer.y))
            mult = np.array(self.image.mult[rows], dtype=np.int64).reshape(-1)
            total = ends * mult + np.array(self.image.bias[rows], dtype=np.int64)
            for bits, values, what in (
                (spec.acc_bits, ends, "sums"), (spec.sum_bits, total, "results"),
            ):  # fmt: skip
                low, high = int(values.min()), int(values.max())
                if low < -(1 << (bits - 1)) or high >= 1 << (bits - 1):
                    name = spec.layers[number].name
                    raise CheckError(
                        f"Layer {name!r} has {what} of {low} to {high}, which {bits} bits do not "
                        "hold"
                    )
            found += [int(ends.min()), int(ends.max())]
            row = rows.stop
        return min(found), max(found)


def check_engine_moves(netlist: Netlist, spec: SharedSpec, leaves: Sequence[Bits]) -> int:
    """Follows activations that come in, and what the finishes give, to the leaves, to where they
    wait for their places in the banks and to the output, as `sim.proof.moves.check_moves` does;
    returns how many bits are there.

    Parameters
    ----------
    netlist : Netlist
    spec : SharedSpec
    leaves : sequence of lists of bits
        What each lane's leaf is given. Of an engine whose layers differ in the sign of what they
        read, the highest bit is the one below, or 0, as the program says.
    """
    where, bits = f"core {spec.name!r}", spec.bank_bits
    _, value = _written(netlist)
    ends = {bit: k for leaf in leaves for k, bit in enumerate(leaf[:bits])}
    own = {bit: 2 * k for given in (netlist.net("i__payload"), value)
           for k, bit in enumerate(given)}  # fmt: skip
    found = moved(netlist, own, ends, where, past=_signs(netlist, spec, leaves))
    for bit, k in ends.items():
        if found.get(bit, set()) != {2 * k}:
            raise CheckError(f"Activations of {where} must come to its leaves as they are")
    last = spec.finishes.index(finish_of(spec, len(spec.layers) - 1))
    outputs = netlist.net("o__payload")
    for targets, numbers in (
        (outputs, {last}),
        (value, {spec.finishes.index(finish_of(spec, k)) for k in range(len(spec.layers) - 1)}),
    ):
        results = {
            bit: 2 * k
            for number in numbers for k, bit in enumerate(_saturated(netlist, number))
        }  # fmt: skip
        found = moved(netlist, results, [*outputs, *value], where)
        for k, bit in enumerate(targets):
            if found.get(bit, {2 * k} if results.get(bit) == 2 * k else set()) != {2 * k}:
                raise CheckError(f"Results of {where} must be kept and leave as they are")
    return len(ends) + len(outputs) + len(value)


def _saturated(netlist: Netlist, number: int) -> Bits:
    return netlist.either(f"saturate{number}.o", f"saturate{number}.value")


def _signs(netlist: Netlist, spec: SharedSpec, leaves: Sequence[Bits]) -> set[str]:
    """The cells that give leaves a sign of their own; raises InputError where they are others."""
    if not spec.mixed:
        return set()
    (sign,) = field_bits(netlist.net("sequencer.step"), spec.program_fields, "signed")
    found = set()
    for leaf in leaves:
        cell = netlist.makers.get(leaf[-1])
        if cell is None or cell.type != "$and" or set(cell.inputs) != {leaf[-2], sign}:
            raise InputError("leaves of an engine are not built as expected")
        found.add(cell.name)
    return found


def _written(netlist: Netlist) -> tuple[Cell, Bits]:
    """The cell that chooses what is written into the banks, and the result that it chooses."""
    cones = Cones(netlist)
    data = netlist.net("writer.w_data")
    cell = cones.maker(cones.before(data[0], resets=False), "$mux")
    if cell.ports["B"] != netlist.net("writer.value"):
        raise InputError("results are not written as expected")
    return cell, cell.ports["B"]


def _fed(netlist: Netlist) -> Netlist:
    """The netlist with another input that is written into the banks in place of results."""
    cell, value = _written(netlist)
    free = max(bit for c in netlist.cells for bit in c.output if isinstance(bit, int)) + 1
    new: list[Bit] = list(range(free, free + len(value)))
    instead = replace(cell, ports={**cell.ports, "B": new})
    cells = [instead if c is cell else c for c in netlist.cells]
    return replace(
        netlist, cells=cells, ports={**netlist.ports, _FED: ("input", new)},
        nets={**netlist.nets, _FED: new},
    )  # fmt: skip


def check_engine_sums(
    netlist: Netlist, layers: EngineLayers, progress: Callable[[int, int], None]
) -> Frames:
    """Runs frames through an engine under random pauses, each layer with frames that tell its
    weights, and compares every sum, every result, and the multipliers and biases that they meet.

    Raises
    ------
    CheckError
        A sum, result or parameter differs; the line names layer and row.
    """
    return _Run(netlist, layers, progress).run()


class _Run:
    """One run: what each layer is given in each round, and what must come of it."""

    def __init__(
        self, netlist: Netlist, layers: EngineLayers, progress: Callable[[int, int], None]
    ) -> None:
        spec = layers.spec
        self._spec, self._layers, self._progress = spec, layers, progress
        self._runs = max(layer.n for layer in spec.layers) + 2 + _RANDOM
        self._x = [_frames(layer.x, layer.n, self._runs, k) for k, layer in enumerate(spec.layers)]
        self._sums = [
            x @ layer.y.T + layers.constants(k)
            for k, (x, layer) in enumerate(zip(self._x, layers.layers, strict=True))
        ]
        self._out = [layer.compute(x) for x, layer in zip(self._x, layers.layers, strict=True)]
        self._orders = [np.roll(np.arange(self._runs), 7 * k) for k in range(_ROUNDS)]
        self._rows = [(k, r) for k, layer in enumerate(spec.layers) for r in range(layer.rows)]
        self._netlist = _fed(netlist)
        self._e = Evaluator(self._netlist, self._runs, seed=1)
        self._done = self._finished = self._given = 0

    def run(self) -> Frames:
        """Drives the streams until all results are out."""
        spec, e, net = self._spec, self._e, self._netlist
        ends = net.net(f"row_end_{spec.row_stage}")
        bias_at = net.net(f"row_end_{spec.product_stage}")
        result = net.net("result")
        acc = _accumulated(net, spec)
        mult, bias = (net.net(parameter_register(net, rom)) for rom in ("mult", "bias"))
        mult, bias = mult[-spec.mult_bits :], bias[-spec.bias_bits :]
        ready, valid = net.port("i__ready"), net.port("o__valid")
        inputs = [(order, n) for order in self._orders for n in range(spec.n)]
        generator = np.random.default_rng(2)
        taken = cycle = biased = quiet = 0
        offered, total = False, _ROUNDS * len(self._rows)
        for name in ("rst", "i__valid", "i__payload", _FED):
            e.set(name, 0)
        while (
            self._given < _ROUNDS * spec.rows or quiet < 2 * spec.result_stage + spec.output_delay
        ):
            offered = taken < len(inputs) and (offered or generator.random() < 0.8)
            if offered:
                order, n = inputs[taken]
                e.set("i__payload", _codes(self._x[0][order, n], spec.x))
            takes = int(generator.random() < 0.8)
            e.set("i__valid", int(offered))
            e.set("o__ready", takes)
            finishes = e.get(result)
            if finishes:
                self._feed()
            e.settle()
            moved_on = False
            if offered and e.get(ready):
                offered, taken, moved_on = False, taken + 1, True
            if takes and e.get(valid):
                self._leaves(e.get(net.port("o__payload")))
                moved_on = True
            if finishes:
                self._result(e.get(net.net("writer.value")))
                moved_on = True
            if e.get(bias_at):
                self._parameter("bias", e.get(bias), self._layers.image.bias, biased)
                biased += 1
            if e.get(ends):
                self._parameter("mult", e.get(mult), self._layers.image.mult, self._done)
                self._sum(as_signed(e.get(acc), spec.acc_bits))
                self._progress(self._done, total)
            quiet = 0 if moved_on else quiet + 1
            if quiet > 4 * (spec.words + spec.n) + 1000:
                raise CheckError(f"Core {spec.name!r} must go on, but nothing moves")
            e.clock()
            cycle += 1
        if (self._done, self._finished, biased) != (total, total, total):
            raise CheckError(f"Core {spec.name!r} must give {total} sums, not {self._done}")
        return Frames(self._runs, total * self._runs, cycle)

    def _place(self, index: int) -> tuple[IntArray, int, int]:
        """The order of the frames, the layer and the row of a sum by its number."""
        turn, at = divmod(index, len(self._rows))
        if turn >= _ROUNDS:
            raise CheckError(f"Core {self._spec.name!r} must give no results without a frame")
        layer, row = self._rows[at]
        return self._orders[turn], layer, row

    def _wrong(self, what: str, layer: int, row: int) -> CheckError:
        name = self._spec.layers[layer].name
        return CheckError(f"{what} of layer {name!r} row {row} are not the network's")

    def _parameter(self, rom: str, got: object, words: Sequence[object], index: int) -> None:
        _, layer, row = self._place(index)
        word = int(np.asarray(words[index % len(self._rows)]).reshape(-1)[0])
        bits = self._spec.mult_bits if rom == "mult" else self._spec.bias_bits
        if not isinstance(got, int) or got != word & ((1 << bits) - 1):
            raise self._wrong("Multipliers and biases", layer, row)

    def _sum(self, got: IntArray) -> None:
        order, layer, row = self._place(self._done)
        wanted = self._sums[layer][order, row]
        if not np.array_equal(np.broadcast_to(got, wanted.shape), wanted):
            raise self._wrong("Sums", layer, row)
        self._done += 1

    def _feed(self) -> None:
        """Gives what is written in place of the result that comes now."""
        order, layer, row = self._place(self._finished)
        if layer + 1 < len(self._x):
            x = self._spec.layers[layer + 1].x
            self._e.set(_FED, _codes(self._x[layer + 1][order, row], x))

    def _result(self, kept: object) -> None:
        order, layer, row = self._place(self._finished)
        self._finished += 1
        out = self._spec.layers[layer].out
        if layer + 1 < len(self._x) and not _are(kept, self._out[layer][order, row], out):
            raise self._wrong("Results", layer, row)

    def _leaves(self, payload: object) -> None:
        turn, row = divmod(self._given, self._spec.rows)
        if turn >= _ROUNDS:
            raise CheckError(f"Core {self._spec.name!r} must give no results without a frame")
        last = len(self._x) - 1
        if not _are(payload, self._out[last][self._orders[turn], row], self._spec.out):
            raise self._wrong("Results", last, row)
        self._given += 1


def _accumulated(netlist: Netlist, spec: SharedSpec) -> Bits:
    """The accumulator's output."""
    nets = {
        name.replace("accumulator.", "accumulator0."): bits for name, bits in netlist.nets.items()
    }
    return accumulator(replace(netlist, nets=nets), spec.acc_chunks, 0)


def _codes(values: IntArray, form: IntFormat) -> IntArray:
    return values & ((1 << form.bits) - 1)


def _are(payload: object, values: IntArray, form: IntFormat) -> bool:
    """Whether bits, of which those above a format's are its sign, are these values."""
    got = np.broadcast_to(np.asarray(payload, dtype=np.int64), values.shape)
    return np.array_equal(got & ((1 << form.bits) - 1), _codes(values, form))


def _frames(form: IntFormat, size: int, runs: int, seed: int) -> IntArray:
    """(runs, activations): all least, each alone at its largest, all largest, and random ones."""
    least, most = form.limits
    found = np.random.default_rng(seed).integers(least, most + 1, (runs, size))
    found[: size + 2] = least
    found[np.arange(size), np.arange(size)] = most
    found[size + 1] = most
    return np.asarray(found, dtype=np.int64)
