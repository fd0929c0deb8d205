"""What a shared engine does for a network, step by step: layers, averages, maxima, tables, sums,
copies of maps."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.map_core import MapWindow, banked, paired
from pvq_hw.engine.map_places import FRAME, Beside, Part, with_copies
from pvq_hw.engine.shared_core import refuse_shared
from pvq_hw.errors import InputError
from pvq_hw.geometry import Geometry
from pvq_hw.network.join import PASSED, Add, Concat
from pvq_hw.network.layer import Dense, Layer, TensorSpec
from pvq_hw.network.network import Network
from pvq_hw.network.part import Part as MapPart
from pvq_hw.network.table import MOST_ENTRIES, Table
from pvq_hw.network.window import AveragePool, Conv, MaxPool
from pvq_hw.plan.candidates import FoldLayer, Passed
from pvq_hw.plan.core_layers import CoreLayer, core_layers
from pvq_hw.registry import Face

__all__ = ["SharedStep", "network_chain", "reckoned_steps", "steps_of", "window_columns"]

Shape = tuple[int, int, int]
S = TypeVar("S", "SharedStep", MapWindow)

_CHUNKS = (8, 6, 4, 2)
_FEW_COLUMNS = 48  # of a maximum's window: each is a word, if it is near the bank's beginning


@dataclass(frozen=True)
class SharedStep:
    """A layer as an engine is reckoned for it; the rest as `pvq_hw.engine.map_core.MapLayer` has
    it."""

    layer: FoldLayer
    reads: tuple[int, ...] = ()
    joins: int = 0
    most: int = 0
    pool: str = ""
    entries: tuple[int, ...] = ()
    beside: Beside | None = None

    @property
    def name(self) -> str:
        """The layer's."""
        return self.layer.name

    @property
    def passes(self) -> bool:
        """Whether what it reads is what it gives, as far as is known before quantization."""
        return False

    @property
    def geometry(self) -> Geometry | None:
        """Of its windows."""
        return self.layer.geometry


def _pooled(steps: Sequence[S]) -> list[S]:
    """The steps with each maximum of 2 x 2 as a part of the step before it, if only the maximum
    reads what that gives, and isn't the network's output."""
    found, numbers = list[S](), {FRAME: FRAME}
    for number, step in enumerate(steps):
        read = number - 1
        alone = [x for x in steps if read in x.reads] == [step]
        if 0 < number < len(steps) - 1 and alone and _pools(steps[read], step):
            numbers[number] = numbers[read]
            found[-1] = replace(found[-1], pool=step.name)
            continue
        reads = tuple(numbers[k] for k in step.reads)
        numbers[number] = len(found)
        found.append(replace(step, reads=reads))
    return found


def _pools(before: S, step: S) -> bool:
    """Whether a step's results can be written as the maxima that the next step asks for."""
    g, own = step.geometry, before.geometry
    if not step.most or g is None or own is None or before.most or own.dilation[0] > 1:
        return False
    if before.beside is not None:
        return False
    square = (g.kernel, g.stride, g.dilation) == ((2, 2), (2, 2), (1, 1))
    return square and not any(map(any, g.pads)) and g.input_shape[2] > 1


def _complete(steps: Sequence[S], copied: Callable[[Sequence[S], int], S]) -> list[S]:
    """The steps with copies of maps where one reads of both memories, and where a part of a map
    isn't given by its own layer; ``copied`` makes that of a map, by its number among the steps so
    far."""
    done: list[S] = []
    for turn in with_copies([x.reads for x in steps], [_part(steps, x) for x in steps]):
        if turn.step is None:
            done.append(copied(done, turn.reads[0]))
        else:
            done.append(replace(steps[turn.step], reads=turn.reads))
        beside = None if turn.part is None else steps[turn.part].beside
        if beside is not None:
            beside = replace(beside, map=turn.map, after=turn.after, rank=turn.rank)
            done[-1] = replace(done[-1], beside=beside)
    return done


def _part(steps: Sequence[S], step: S) -> Part | None:
    """A step that copies a part of a map; the layer that it reads could give that itself if nobody
    else reads it and it isn't changed."""
    if step.beside is None or step.geometry is None:
        return None
    (read,) = step.reads
    alone = sum(other.reads.count(read) for other in steps) == 1
    own = read != FRAME and steps[read].beside is None
    words = math.prod(step.geometry.input_shape[:2]) * -(-step.geometry.input_shape[2] // 2)
    return Part(step.beside.name, words, alone and own and step.passes)


def window_columns(step: SharedStep) -> tuple[int, int, int]:
    """Columns of a window in the banks, the channels of a chunk, and how many of these there are
    with rows of their own."""
    layer = step.layer
    g = layer.geometry
    if g is None:
        return banked(layer.n), 0, 1
    channels, taps = g.input_shape[2], math.prod(g.kernel)
    if step.joins:
        return step.joins * paired(channels), 0, 1
    chunk = 0 if layer.n == taps * channels else layer.n // taps
    if step.most:
        return taps * (chunk or banked(channels)), chunk, channels // chunk if chunk else 1
    if layer.given is None and not chunk:
        chunk = _row_chunk(channels, layer.groups)
    if not chunk:
        return taps * banked(channels), 0, 1
    return taps * chunk, chunk, 1 if layer.rows == chunk else channels // chunk


# -- before quantization ----------------------------------------------------------------------


def reckoned_steps(layers: Sequence[FoldLayer], side: int = 1) -> list[SharedStep]:
    """What an engine of V positions (``side``) does for layers that aren't quantized yet.

    Raises
    ------
    InputError
        Between two layers is what an engine can't do.
    """
    if not all(layer.gives for layer in layers):
        return [SharedStep(layer) for layer in _with_pools(layers)]
    found: list[SharedStep] = []
    numbers = {layers[0].reads: FRAME}

    def number(name: str, reader: str) -> int:
        if name not in numbers:
            raise _refused(reader, _not_given(name))
        return numbers[name]

    for layer in layers:
        found.append(SharedStep(replace(layer, then=()), (number(layer.reads, layer.name),)))
        numbers[layer.gives] = len(found) - 1
        for passed in layer.then:
            reads = tuple(number(name, passed.name) for name in passed.inputs)
            forms = [layers[0].x if k == FRAME else found[k].layer.out for k in reads]
            shapes = [
                _frame_shape(layers[0]) if k == FRAME else _given_shape(found[k]) for k in reads
            ]
            found += _passed_steps(passed, reads, forms, shapes)
            numbers[passed.output] = len(found) - 1
    found = _pooled(found) if side == 2 else found
    if all((step.reads, step.beside) == ((k - 1,), None) for k, step in enumerate(found)):
        return found

    def copied(done: Sequence[SharedStep], k: int) -> SharedStep:
        if k == FRAME:
            return _sum_step(
                "input copied", _frame_shape(layers[0]), [layers[0].x], layers[0].x, (k,)
            )
        of = done[k].layer
        return _sum_step(f"{of.name} copied", _given_shape(done[k]), [of.out], of.out, (k,))

    return _complete(found, copied)


def _refused(name: str, why: str) -> InputError:
    return InputError(f"Layer {name!r} can't be on a shared engine: {why}")


_SEVERAL_INPUTS = "it is one of several inputs, and an engine takes one"
_PART = "it takes a part of a map, and layers of an engine read whole ones"


def _not_given(name: str) -> str:
    return (
        f"it reads {name!r}, which is another input, or made of one before the first layer with "
        "weights"
    )


def _frame_shape(first: FoldLayer) -> Shape:
    return (1, 1, first.n) if first.geometry is None else first.geometry.input_shape


def _shape_of(step: SharedStep) -> Shape:
    """The map that a step gives."""
    layer, g = step.layer, step.layer.geometry
    if g is None:
        return 1, 1, layer.rows
    if step.joins:
        return g.input_shape
    if step.most:
        return (*g.output_size, g.input_shape[2])
    if step.pool:
        rows, columns = g.output_size
        return rows // 2, columns // 2, layer.rows
    whole = g.output_size == (1, 1) and g.kernel == g.input_shape[:2]
    pooled = layer.rows == layer.groups and layer.gives == "" and whole
    return (*g.output_size, g.input_shape[2] if pooled else layer.rows)


def _given_shape(step: SharedStep) -> Shape:
    """The map that a step gives, or that it gives a part of."""
    rows, columns, channels = _shape_of(step)
    return rows, columns, channels if step.beside is None else step.beside.channels


def _passed_steps(
    passed: Passed, reads: tuple[int, ...], forms: Sequence[IntFormat], shapes: Sequence[Shape]
) -> list[SharedStep]:
    if passed.op != "Concat":
        return [_passed_step(passed, reads, forms)]
    places, why = _side_by_side(passed.name, passed.shape, shapes)
    if why:
        raise _refused(passed.name, why)
    return [
        replace(_sum_step(part.name, shape, [form], passed.out, (read,)), beside=part.beside)
        for part, shape, form, read in zip(places, *(shapes, forms, reads), strict=True)
    ]


def _passed_step(passed: Passed, reads: tuple[int, ...], forms: Sequence[IntFormat]) -> SharedStep:
    if passed.op == "Add":
        return _sum_step(passed.name, passed.shape, forms, passed.out, reads)
    if passed.op == "MaxPool" and passed.geometry is not None:
        return _maximum(passed.name, passed.geometry, forms[0], reads)
    if passed.op == "Function":
        channels, g = passed.shape[2], Geometry(passed.shape, (1, 1))
        groups = 1 if g.output_size == (1, 1) else channels
        layer = FoldLayer(
            passed.name, channels, channels, 1, forms[0], passed.out, geometry=g, groups=groups
        )
        return SharedStep(layer, reads, entries=(0,) * (1 << forms[0].bits))
    if passed.op == "Part":
        raise _refused(passed.name, _PART)
    if passed.op != "AveragePool" or passed.geometry is None:
        raise _refused(passed.name, f"it is of kind {passed.op.lower()}: {_KINDS}")
    return SharedStep(_average(passed.name, passed.geometry, forms[0], passed.out), reads)


_KINDS = (
    "only dense layers, convolutions, averages, maxima, tables, sums and concatenations share one"
)


def _maximum(name: str, g: Geometry, x: IntFormat, reads: tuple[int, ...]) -> SharedStep:
    """A maximum, of some channels at a time, whose rows are a pulse each."""
    taps, size = math.prod(g.kernel), _choice_chunk(g)
    layer = FoldLayer(name, size * taps, size * taps, 1, x, x, geometry=g)
    return SharedStep(layer, reads, most=taps)


def _choice_chunk(g: Geometry) -> int:
    """Channels of a maximum that are computed together: so many that most pulses are near the
    beginning of their banks."""
    channels, taps = g.input_shape[2], math.prod(g.kernel)
    if taps * paired(channels) <= _FEW_COLUMNS:
        return channels
    sizes = [c for c in _CHUNKS if channels % c == 0 and c < channels]
    few = [c for c in sizes if taps * c <= _FEW_COLUMNS]
    return (few or sizes[-1:] or [channels])[0]


def _sum_step(
    name: str, shape: Shape, forms: Sequence[IntFormat], out: IntFormat, reads: tuple[int, ...]
) -> SharedStep:
    """A sum of maps, or a copy of one, whose rows are a pulse each."""
    count, channels = len(forms), shape[2]
    layer = FoldLayer(
        name, channels * count, channels * count, 1, _widest(forms), out,
        geometry=Geometry(shape, (1, 1)),
    )  # fmt: skip
    return SharedStep(layer, reads, count)


def _average(name: str, g: Geometry, x: IntFormat, out: IntFormat) -> FoldLayer:
    """An average as a layer of ones: of a whole map, some channels at a time."""
    channels, taps = g.input_shape[2], math.prod(g.kernel)
    if g.kernel == g.input_shape[:2] and g.output_size == (1, 1):
        channels = _chunk(channels)
    groups = channels if channels < g.input_shape[2] else 1
    return FoldLayer(name, channels, channels * taps, taps, x, out, geometry=g, groups=groups)


def _with_pools(layers: Sequence[FoldLayer]) -> list[FoldLayer]:
    """The layers, and before quantization a pooling of the whole map where only that makes what a
    layer gives what the next one reads."""
    found: list[FoldLayer] = []
    for layer in layers:
        before = found[-1] if found else None
        if before is not None and before.geometry is not None and layer.given is None:
            rows, columns = before.geometry.output_size
            read = layer.n if layer.geometry is None else math.prod(layer.geometry.input_shape)
            if read != rows * columns * before.rows:
                if read != before.rows:
                    raise InputError(
                        f"Layer {layer.name!r} can't be on a shared engine: between it and "
                        f"{before.name!r} is more than an average of the whole map"
                    )
                whole = Geometry((rows, columns, before.rows), (rows, columns))
                found.append(_average(f"{before.name} pooled", whole, before.out, layer.x))
        found.append(layer)
    return found


# -- known networks ---------------------------------------------------------------------------


def network_chain(network: Network, side: int = 1) -> tuple[list[MapWindow], bool]:
    """The layers as an engine of V positions (``side``) computes them, without channels of zeros,
    and whether there are maps; raises InputError where a layer can't be on a shared engine."""
    tensors = network.tensors()
    numbers = {network.input.name: FRAME}
    cores = {layer.name: layer for layer in core_layers(network)}
    found, maps = list[MapWindow](), False
    for layer in network.layers:
        inputs = [tensors[name] for name in layer.inputs]
        steps, why = _steps(layer, cores.get(layer.name), inputs)
        lacking = [name for name in layer.inputs if name not in numbers]
        if layer.name in {part.name for part in network.inputs}:
            why = _SEVERAL_INPUTS
        if not why and lacking:
            why = _not_given(lacking[0])
        if not why and layer is network.layers[-1] and steps[-1].beside is not None:
            why = "it joins channels at the network's end"
        if why:
            raise _refused(layer.name, why)
        core = cores.get(layer.name)
        maps = maps or core is None or core.geometry is not None
        reads = tuple(numbers[name] for name in layer.inputs)
        for number, step in enumerate(steps):
            found.append(replace(step, reads=reads if step.beside is None else (reads[number],)))
        numbers[layer.output.name] = len(found) - 1
    if not maps:
        return found, False
    found = _pooled(found) if side == 2 else found

    def copied(done: Sequence[MapWindow], k: int) -> MapWindow:
        name = network.input.name if k == FRAME else done[k].pool or done[k].name
        tensor = next((t.output for t in network.layers if t.name == name), network.input)
        return replace(
            _sum(f"{name} copied", [tensor], tensor, (PASSED[0],), PASSED[1]), reads=(k,)
        )

    return _complete(found, copied), True


Steps = tuple[list[MapWindow], str]

steps_of: Face[[CoreLayer | None, Sequence[TensorSpec]], Steps] = Face(
    "layer", "steps of a shared engine"
)
"""What an engine computes for a layer, given its core, where it has one, and its inputs; and why it
can't, in words. Of several steps each copies one of the inputs."""


def _steps(layer: Layer, core: CoreLayer | None, inputs: Sequence[TensorSpec]) -> Steps:
    """What an engine computes for a layer, and why it can't."""
    if steps_of.has(type(layer)):
        return steps_of(layer, core, inputs)
    kind = str(getattr(layer, "kind", type(layer).__name__))
    return [], f"it is of kind {kind}: {_KINDS}"


@steps_of.of(Dense, Conv)
def _weighted_step(
    layer: Dense | Conv, core: CoreLayer | None, inputs: Sequence[TensorSpec]
) -> Steps:
    assert core is not None
    dense, window, chunk, parts = _in_chunks(core)
    why = refuse_shared(dense, window, layer.output)
    geometry = core.geometry
    if geometry is None:
        shape = _map_shape(inputs[0])
        geometry = Geometry(shape, shape[:2])
    return [MapWindow(dense, window, geometry, core.source.y.size, chunk, parts)], why


@steps_of.of(AveragePool)
def _average_step(
    layer: AveragePool, core: CoreLayer | None, inputs: Sequence[TensorSpec]
) -> Steps:
    dense, window, why = _ones(layer, inputs[0])
    chunk = dense.y.shape[0] if len(dense.y) < layer.output.shape[-1] else 0
    return [MapWindow(dense, window, layer.geometry, 0, chunk, 1)], why


@steps_of.of(MaxPool)
def _maximum_step(layer: MaxPool, core: CoreLayer | None, inputs: Sequence[TensorSpec]) -> Steps:
    """Of every channel a row of one pulse for each activation of the window."""
    g, x = layer.geometry, inputs[0]
    taps, channels, size = math.prod(g.kernel), g.input_shape[2], _choice_chunk(g)
    row = np.arange(size * taps)
    y = np.zeros((len(row), len(row)), dtype=np.int64)
    y[row, row % taps * size + row // taps] = 1
    mult = np.full(len(row), PASSED[0], dtype=np.int64)
    dense = _unit_rows(layer.name, layer.input, layer.output, y, mult, PASSED[1])
    chunk, parts = (size, channels // size) if size < channels else (0, 1)
    window = replace(x, shape=(len(row),))
    why = "its activations are signs" if x.format.binary else ""
    return [MapWindow(dense, window, g, 0, chunk, parts, most=taps)], why


@steps_of.of(Table)
def _table_step(layer: Table, core: CoreLayer | None, inputs: Sequence[TensorSpec]) -> Steps:
    """Of every channel a row of one pulse, whose sum a table is asked for."""
    x, shape = inputs[0], _map_shape(inputs[0])
    channels = shape[2]
    size = channels if shape[:2] == (1, 1) else _row_chunk(channels, channels) or channels
    row = np.arange(channels)
    y = np.zeros((channels, size), dtype=np.int64)
    y[row, row % size] = 1
    mult = np.full(channels, PASSED[0], dtype=np.int64)
    sums = replace(layer.output, format=x.format)
    dense = _unit_rows(layer.name, layer.input, sums, y, mult, PASSED[1])
    chunk, parts = (size, channels // size) if size < channels else (0, 1)
    why = "it has a table for each channel" if len(layer.entries) > 1 else ""
    if len(layer.entries[0]) > MOST_ENTRIES >> 4:
        why = f"it looks up activations of {x.format.bits} bits"
    window = MapWindow(
        dense, replace(x, shape=(size,)), Geometry(shape, (1, 1)), 0, chunk, parts,
        entries=tuple(layer.entries[0].tolist()), out=layer.output.format,
    )  # fmt: skip
    return [window], why


@steps_of.of(Add)
def _added_step(layer: Add, core: CoreLayer | None, inputs: Sequence[TensorSpec]) -> Steps:
    why = "it adds more than two maps" if len(inputs) > 2 else ""
    if layer.output.format.binary or any(x.format.binary for x in inputs):
        why = "its activations are signs"
    step = _sum(layer.name, inputs, layer.output, layer.mult, layer.shift)
    return [replace(step, joins=len(inputs) if len(inputs) > 1 else 0)], why


@steps_of.of(Concat)
def _joined_steps(layer: Concat, core: CoreLayer | None, inputs: Sequence[TensorSpec]) -> Steps:
    """Copies of the inputs, each to its channels of one map."""
    shapes = [_map_shape(x) for x in inputs]
    places, why = _side_by_side(layer.name, _map_shape(layer.output), shapes)
    if layer.output.format.binary or any(x.format.binary for x in inputs):
        why = "its activations are signs"
    steps = []
    for part, x, mult in zip(places, inputs, layer.mult, strict=False):
        own = replace(layer.output, shape=part.shape)
        step = _sum(part.name, [x], own, (mult,), layer.shift)
        steps.append(replace(step, beside=part.beside))
    return steps, why


@steps_of.of(MapPart)
def _part_steps(layer: MapPart, core: CoreLayer | None, inputs: Sequence[TensorSpec]) -> Steps:
    return [], _PART


@dataclass(frozen=True)
class _JoinedPart:
    """A part of a concatenation: the name of what copies it, its map, and its place."""

    name: str
    shape: Shape
    beside: Beside


def _side_by_side(
    name: str, whole: Shape, shapes: Sequence[Shape]
) -> tuple[list[_JoinedPart], str]:
    """Where the channels of maps lie in one map, and why they can't."""
    found, words, channels = [], 0, 0
    pixels, total = whole[0] * whole[1], paired(whole[2]) // 2
    for number, (rows, columns, own) in enumerate(shapes, 1):
        flat = pixels == 1 and rows * columns > 1
        if channels % 2 or (flat and own % 2):
            return [], "it has an odd number of channels before others"
        shape = (1, 1, rows * columns * own) if flat else (rows, columns, own)
        beside = Beside(name, words, total, whole[2], pixels)
        found.append(_JoinedPart(f"{name} part {number}", shape, beside))
        words, channels = words + paired(shape[2]) // 2, channels + shape[2]
    return found, ""


def _map_shape(x: TensorSpec) -> Shape:
    if len(x.shape) == 3:
        return x.shape[0], x.shape[1], x.shape[2]
    return 1, 1, x.size


def _widest(forms: Sequence[IntFormat]) -> IntFormat:
    """The format that bounds the activations of all."""
    return max(forms, key=lambda form: (form.bits, not form.signed))


def _sum(
    name: str, inputs: Sequence[TensorSpec], output: TensorSpec, mult: Sequence[int], shift: int
) -> MapWindow:
    """Maps times a multiplier each: of every channel a row for each map, of one pulse."""
    shape, count = _map_shape(output), len(inputs)
    channels = shape[2]
    row = np.arange(channels * count)
    y = np.zeros((len(row), len(row)), dtype=np.int64)
    y[row, row % count * channels + row // count] = 1
    factors = np.tile(np.array(mult, dtype=np.int64), channels)
    dense = _unit_rows(name, inputs[0].name, output, y, factors, shift)
    x = replace(inputs[0], shape=(len(row),), format=_widest([t.format for t in inputs]))
    return MapWindow(dense, x, Geometry(shape, (1, 1)), 0, joins=count)


def _unit_rows(
    name: str, source: str, output: TensorSpec, y: npt.NDArray[np.int64],
    mult: npt.NDArray[np.int64], shift: int,
) -> Dense:  # fmt: skip
    """Rows of a pulse each, with their multipliers."""
    return Dense(
        name=name, input=source, output=replace(output, shape=(len(y),)), y=y, mult=mult[:, None],
        bias=np.zeros(len(y), dtype=np.int64), shift=shift, gain=np.ones((len(y), 1)),
    )  # fmt: skip


def _in_chunks(core: CoreLayer) -> tuple[Dense, TensorSpec, int, int]:
    """What is computed of a window, the channels of a chunk, and how many there are: rows that read
    the channels of their group alone need no windows of all."""
    layer, groups, g = core.source, core.conv_groups, core.geometry
    size = 0 if g is None else _row_chunk(g.input_shape[2], groups)
    if g is None or not size:
        return core.dense, core.x, 0, 1
    rows, taps, channels = len(layer.y), g.kernel[0] * g.kernel[1], g.input_shape[2]
    width = channels // groups
    group = np.arange(rows) // (rows // groups) % (size // width)
    y = np.zeros((rows, taps, size // width, width), dtype=np.int64)
    y[np.arange(rows), :, group] = layer.y.reshape(rows, taps, width)
    window = replace(core.x, shape=(taps * size,))
    return replace(core.dense, y=y.reshape(rows, -1)), window, size, channels // size


def _row_chunk(channels: int, groups: int) -> int:
    """Channels of a window where rows read some alone; 0 where it has all."""
    fits = (c for c in _CHUNKS if channels % c == 0 and c % (channels // groups) == 0)
    found = next(fits, channels) if groups > 1 else channels
    return found if found < channels else 0


def _ones(layer: AveragePool, x: TensorSpec) -> tuple[Dense, TensorSpec, str]:
    """An average as a layer of ones, channel by channel, of a whole map of some channels; and why
    it can't be one."""
    g = layer.geometry
    counts = np.unique(g.counts(include_pads=layer.include_pads)).tolist()
    channels, taps = g.input_shape[2], g.kernel[0] * g.kernel[1]
    if g.kernel == g.input_shape[:2] and g.output_size == (1, 1):
        channels = _chunk(channels)
    y = np.zeros((channels, taps, channels), dtype=np.int64)
    y[np.arange(channels), :, np.arange(channels)] = 1
    dense = Dense(
        name=layer.name,
        input=layer.input,
        output=replace(layer.output, shape=(channels,)),
        y=y.reshape(channels, -1),
        mult=np.full((channels, 1), dict(layer.mult)[counts[0]], dtype=np.int64),
        bias=np.zeros(channels, dtype=np.int64),
        shift=layer.shift,
        gain=np.ones((channels, 1)),
    )
    why = "it averages windows of different sizes" if len(counts) > 1 else ""
    return dense, replace(x, shape=(taps * channels,)), why


def _chunk(channels: int) -> int:
    """Channels whose averages over a whole map are computed together: all have the same codes."""
    return next((c for c in _CHUNKS if channels % c == 0), channels)
