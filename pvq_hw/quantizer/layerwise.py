"""Codes, gains, biases and formats of a network, layer by layer in order.

The calibration data runs through both the float model and the integer network: what each layer with
weights is fitted to is the float model's output on the integer network's own inputs, at a sample of
the window positions.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.exact import SINGLE
from pvq_hw.arith.formats import IntFormat
from pvq_hw.errors import InputError
from pvq_hw.geometry import Geometry
from pvq_hw.model.activation import LINEAR
from pvq_hw.model.nodes import NODES, Affine, Clip, Function, Node, Quantize, Relu
from pvq_hw.model.nodes import Add as AddNode
from pvq_hw.model.nodes import AveragePool as AverageNode
from pvq_hw.model.nodes import Concat as ConcatNode
from pvq_hw.model.nodes import Conv as ConvNode
from pvq_hw.model.nodes import Dense as DenseNode
from pvq_hw.model.nodes import MaxPool as MaxNode
from pvq_hw.model.nodes import Outputs as OutputsNode
from pvq_hw.model.nodes import Part as PartNode
from pvq_hw.network.join import PASSED, Add, Concat, Outputs
from pvq_hw.network.layer import Dense, Layer, TensorSpec
from pvq_hw.network.part import Part
from pvq_hw.network.window import AveragePool, Conv, MaxPool
from pvq_hw.pyramid.nearest import gain as gains_of
from pvq_hw.pyramid.nearest import nearest
from pvq_hw.quantizer.autodiff import Tape, node_geometry, node_groups
from pvq_hw.quantizer.banks import balance
from pvq_hw.quantizer.expansion import Rows
from pvq_hw.quantizer.fused import Step
from pvq_hw.quantizer.given import given_codes
from pvq_hw.quantizer.importance import Weighed, felt
from pvq_hw.quantizer.layer_options import Request
from pvq_hw.quantizer.lookahead import Lookahead
from pvq_hw.quantizer.options import QuantizerOptions
from pvq_hw.quantizer.pulse_moves import (
    Moments,
    improve,
    moments,
    output_error,
    ridge_weights,
    within,
)
from pvq_hw.quantizer.requantization import (
    MULT_BITS,
    Requantization,
    feasible_scale,
    int8_codes,
    requantization,
    thresholds,
)
from pvq_hw.quantizer.scales import OUTPUT_BITS, output_spec, round_to_lattice
from pvq_hw.quantizer.source import Source
from pvq_hw.quantizer.tables import table_input, table_layer
from pvq_hw.registry import Face

__all__ = ["LayerBuilder", "Tensor", "integer_layer", "integers", "joining_multipliers"]

FloatArray = npt.NDArray[Any]  # float32 where there is much, else float64
IntArray = npt.NDArray[np.int64]
Progress = Callable[[str, float], None]

_SAMPLES = 30_000  # frames that a layer is fitted to
_MAP_SAMPLES = 12_000  # window positions likewise, of which neighbors say much the same
_CHUNK = 1 << 22  # values of the windows of one chunk of frames
_DAMPING = 0.03  # of the moments: what held-out images ask for at 6,000 frames
_TRIES = 32  # starts of a layer's moves, at most
_TRIED = 6e7  # rows times squares of columns of all of them
_NOISE = 0.5  # of the starts, in pulses, at most
_FELT_TRIES = 4  # the same where the outputs feel the sums
_FELT_TRIED = 200_000_000  # positions times weights of all of them


@dataclass(eq=False)
class Tensor:
    """A tensor while data runs: what the integer network and the float model have there."""

    spec: TensorSpec
    values: npt.NDArray[np.integer[Any]] | None
    exact: npt.NDArray[np.float32] | None


class LayerBuilder:
    """Makes the layers one after the other, with the data as far as it has come.

    Parameters
    ----------
    steps : tuple of Step
    source : Source
        The network's input.
    x : float array (frames, \\*shape), optional
        Inputs that run through the network.
    asked : mapping of layer name to Request
    pulses : mapping of layer name to int64 array (M,) or (M, G)
        K of the rows of layers with pulses, or of their groups.
    ranges : mapping of tensor name to (low, high)
        Real values that a tensor takes, where scales do not come from the data.
    measured : bool
        Whether scales come from the data.

    Attributes
    ----------
    layers : list of Layer
    rows : dict of layer name to Rows
    """

    def __init__(
        self,
        steps: tuple[Step, ...],
        source: Source,
        x: FloatArray | None,
        asked: Mapping[str, Request],
        pulses: Mapping[str, IntArray],
        ranges: Mapping[str, tuple[float, float]],
        options: QuantizerOptions,
        *,
        measured: bool,
        progress: Progress | None = None,
    ) -> None:
        self.steps, self.asked, self.pulses, self.options = steps, asked, pulses, options
        self.ranges, self.measured, self.progress = dict(ranges), measured, progress
        spec, self.source = source.spec, source
        self.exact = Tape(steps, spec.name)
        self.rng = np.random.default_rng(options.seed)
        self.noise = np.random.default_rng(options.seed + 1)
        self.rows: dict[str, Rows] = {}
        self.layers: list[Layer] = []
        # Networks of vectors alone gain nothing that the sweeps don't.
        maps = any(step.node.size != step.node.shape[-1] for step in steps)
        fitted = options.calibrated and x is not None and maps
        self.felt = (
            felt(steps, x.astype(np.float32), options.seed) if fitted and x is not None else {}
        )
        self.ahead = None
        if self.felt and options.sweeps and x is not None:
            self.ahead = Lookahead.where_worth(steps, source, x, options.seed)
        self.tensors = {
            spec.name: Tensor(
                spec,
                None if x is None else _taken(x, source),
                None if x is None else x.astype(np.float32),
            )
        }

    def run(self) -> None:
        """Makes all layers."""
        for index, step in enumerate(self.steps):
            self.add(step)
            self.forget(self.steps[index + 1 :])
            if self.progress:
                self.progress(step.name, 1.0)

    def forget(self, rest: tuple[Step, ...]) -> None:
        """Lets go of tensors that nothing reads any more."""
        read = {name for step in rest for name in step.inputs}
        self.tensors = {n: t for n, t in self.tensors.items() if n in read}

    def add(self, step: Step) -> None:
        """Appends the step's layer and runs the data through it."""
        inputs = [self.tensors[name] for name in step.inputs]
        raw = self._sums(step, [t.exact for t in inputs])
        layer = integer_layer(step.node, self, step, inputs, raw)
        self.layers.append(layer)
        if self.ahead is not None:
            self.ahead.made(step, self.rows.get(step.name), layer.output)
        values = _layer_chunks(layer, [t.values for t in inputs])
        if raw is not None and (step.format is None or step.activation.bounded):
            for part in _pieces(len(raw), step.node.size):
                raw[part] = step.activation.compute(raw[part])
        self.tensors[step.output] = Tensor(layer.output, values, raw)

    def _sums(self, step: Step, inputs: list[FloatArray | None]) -> FloatArray | None:
        """The float model's output of a step before its activation, float32."""
        arrays = [a for a in inputs if a is not None]
        if len(arrays) < len(inputs):
            return None
        found = np.empty((len(arrays[0]), *step.node.shape), dtype=np.float32)
        for part in _pieces(len(found), _working_set(step.node)):
            values = {n: a[part] for n, a in zip(step.inputs, arrays, strict=True)}
            found[part] = self.exact.sums(step, values).reshape(-1, *step.node.shape)
        return found

    # -- formats ----------------------------------------------------------------------------

    def output(
        self,
        step: Step,
        shape: tuple[int, ...],
        real: FloatArray | None,
        signed: bool,
        least: float,
    ) -> TensorSpec:
        """Format and scale of the least error on the real outputs, the scale ``least`` or more, or
        the one that is given."""
        seen, bits = real if self.measured else None, self.options.activation_bits
        readers = [other.node for other in self.steps if step.output in other.inputs]
        free = step.format is None and step.activation == LINEAR and not step.last
        tables = [node.curve for node in readers if isinstance(node, Function)]
        if tables and len(tables) == len(readers) and free:
            placed = (self.options.placed or {}).get(step.name)
            found = table_input(
                step.output, shape, tables[0], seen, bits, least, self.ranges,
                placed.out_bits if placed else None,
            )  # fmt: skip
        else:
            found = output_spec(step, shape, seen, bits, signed, least, self.ranges)
        return replace(found, scale=(self.options.scales or {}).get(step.output, found.scale))

    def joined(
        self,
        step: Step,
        shape: tuple[int, ...],
        real: FloatArray | None,
        signed: bool,
        scales: list[float],
    ) -> tuple[TensorSpec, tuple[int, ...], int]:
        """Output of a sum of integers of these scales, with their multipliers and one shift."""
        least = _least_scale(scales, step.mult_bits)
        output = self.output(step, shape, real, signed, least)
        ratios = [scale / output.scale for scale in scales]
        return output, *joining_multipliers(ratios, step.mult_bits)

    # -- layers with weights ----------------------------------------------------------------

    def weighted(self, step: Step, x: Tensor, raw: FloatArray | None) -> Layer:
        w, request = step.weight, self.asked[step.name]
        parts, geometry = node_groups(step.node), node_geometry(step.node)
        columns = target = None
        if raw is not None and x.values is not None:
            flat = raw.reshape(-1, len(w))
            chosen = self._sample(len(flat), _SAMPLES if len(flat) == len(raw) else _MAP_SAMPLES)
            columns = _columns(geometry, x.values, chosen, parts)
            target = flat[chosen]
        real_x = None if columns is None else columns * np.float32(x.spec.scale)
        y, gain = self._codes(step, request, real_x, target)
        kept = request.int8 and step.format is not None  # weights and biases of a quantized file
        bias, real = step.bias, None
        if columns is not None and target is not None:
            sums = _products(columns, y, gain, parts) * x.spec.scale
            if (self.options.calibrated or self.options.mends_biases) and not kept:
                bias = target.mean(axis=0) - sums.mean(axis=0)
            real = sums + bias
        allowed = w != 0 if request.keep_zeros else None
        rows = Rows(y, gain, bias, request.placement, allowed, np.asarray(w))
        if step.name in self.felt and request.movable and raw is not None:
            assert columns is not None
            assert target is not None
            rows = self._weighed(step, x, raw, columns, target, rows)
            if self.ahead is not None:
                rows = self.ahead.moved(step.name, rows)
            y, gain, bias = rows.y, rows.gain, rows.bias
            real = _products(columns, y, gain, parts) * x.spec.scale + bias
        self.rows[step.name] = rows
        shape = (len(w),) if geometry is None else (*geometry.output_size, len(w))
        wide = self.options.multipliers(step.name, step.mult_bits)
        output = self.output(
            step, shape, real, True, feasible_scale(gain, x.spec.scale, 0.0, *wide)
        )
        numbers = integers(rows, x.spec, output, *wide)
        common: dict[str, Any] = {
            "name": step.name,
            "input": x.spec.name,
            "output": output,
            "y": y,
            "mult": numbers.mult,
            "bias": numbers.bias,
            "shift": numbers.shift,
            "gain": gain,
            "encoding": "int8" if request.int8 else "pvq",
        }
        if geometry is None:
            return Dense(**common)
        return Conv(geometry=geometry, groups=parts, **common)

    def _sample(self, count: int, most: int) -> IntArray:
        if count <= most:
            return np.arange(count)
        return np.sort(self.rng.choice(count, most, replace=False))

    def _codes(
        self, step: Step, request: Request, columns: FloatArray | None, target: FloatArray | None
    ) -> tuple[IntArray, FloatArray]:
        """Codewords (M, N) and gains (M, G)."""
        w = np.asarray(step.weight, dtype=np.float64)
        if request.int8:
            y, gain = int8_codes(w)
            given = self.options.quantizer == "given"
            if given and step.format and not np.allclose(gain * y, w):
                raise InputError(
                    f"Layer {step.name!r} must have weights of -128 to 127 from their zero points "
                    "to keep them as 8-bit ones; leave it to pulses, which take any"
                )
            return y, gain
        if self.options.quantizer == "given":
            if request.shared or request.groups > 1:
                raise InputError(
                    f"Layer {step.name!r} must have a gain per row where codes are given"
                )
            return given_codes(w, step.name)
        k = request.by_group(self.pulses[step.name])
        fitted = self.options.calibrated and not request.wide
        if columns is None or target is None or not fitted:
            y = _start(w, k, request, w != 0)
            return y, _plain_gains(w, y, request, self.options.gain_rule)
        groups = node_groups(step.node)
        size = len(w) // groups
        parts = [slice(g * size, (g + 1) * size) for g in range(groups)]
        found = [
            moments(x, target[:, p], w[p], _DAMPING) for p, x in zip(parts, columns, strict=True)
        ]
        starts = self._starts(found, parts, k, request, w != 0)
        ys, gains = [], []
        for g, (part, m) in enumerate(zip(parts, found, strict=True)):
            told = self._told(step.name, g, groups)
            y, gain = self._moved(m, starts[:, part], request, w[part] != 0, told)
            ys.append(y)
            gains.append(gain)
        return np.concatenate(ys), np.concatenate(gains)

    def _starts(
        self,
        found: list[Moments],
        parts: list[slice],
        k: IntArray,
        request: Request,
        allowed: npt.NDArray[np.bool_],
    ) -> IntArray:
        """Codewords that the moves of the groups' rows start from, (tries, M, N): the ridge
        solution's, and those of it with noise."""
        scores = [ridge_weights(m) for m in found]
        score = np.concatenate(scores)
        if request.shared:  # one gain for each group
            return np.concatenate(
                [_start(s, k[p], request, allowed[p]) for s, p in zip(scores, parts, strict=True)]
            )[None]
        start, shape = _start(score, k, request, allowed), scores[0].shape
        tries = 1 if request.groups > 1 else _tries(*shape)
        if tries == 1:
            return start[None]
        noise = [self.noise.uniform(-_NOISE, _NOISE, (tries - 1, *shape)) for _ in found]
        unit = np.abs(gains_of(score, start))[:, None]
        others = (score + unit * np.concatenate(noise, axis=1)).reshape(-1, shape[1])
        again = np.tile(np.arange(len(score)), tries - 1)
        more = _start(others, k[again], request, allowed[again])
        return np.concatenate([start[None], more.reshape(tries - 1, *start.shape)])

    def _moved(
        self,
        m: Moments,
        starts: IntArray,
        request: Request,
        allowed: npt.NDArray[np.bool_],
        progress: Callable[[float], None] | None,
    ) -> tuple[IntArray, FloatArray]:
        """Codes and gains of a group's rows by pulse moves, of each row the best of its starts,
        (tries, rows, N)."""
        tries, rows, n = starts.shape
        again = np.tile(np.arange(rows), tries)
        start = starts.reshape(-1, n)
        many = m if tries == 1 else m.rows(again)
        y, gain = improve(
            many,
            start,
            groups=request.groups,
            shared=request.shared,
            placement=request.placement,
            allowed=allowed[again] if request.keep_zeros else None,
            patience=self.options.patience,
            progress=progress,
        )
        if tries == 1:
            return y, gain
        error = output_error(many, y, gain).reshape(tries, rows)
        best = error.argmin(axis=0) * rows + np.arange(rows)
        return y[best], gain[best]

    def _weighed(
        self,
        step: Step,
        x: Tensor,
        raw: FloatArray,
        columns: FloatArray,
        target: FloatArray,
        rows: Rows,
    ) -> Rows:
        """The rows with their pulses moved where the outputs feel it, gains and biases solved."""
        assert x.values is not None
        felt, scale = self.felt[step.name], x.spec.scale
        y, bias = np.ascontiguousarray(rows.y).copy(), np.array(rows.bias, dtype=np.float64)
        gain = rows.gain[:, 0] * scale  # of whole numbers
        groups = node_groups(step.node)
        some = _columns(node_geometry(step.node), x.values, felt.positions, groups)
        goals = np.ascontiguousarray(raw.reshape(-1, len(y))[felt.positions].T)
        n, size = y.shape[1], len(y) // groups
        room = np.empty((n, n))
        tries = max(1, min(_FELT_TRIES, _FELT_TRIED // (len(felt.positions) * y.size)))
        noise = 2 * _NOISE * self.noise.uniform(-1, 1, (tries - 1, *y.shape))
        k, asked = np.abs(y).sum(axis=1, keepdims=True), self.asked[step.name]
        starts = np.stack([y, *(_start(y + some, k, asked, step.weight != 0) for some in noise)])
        for g in range(groups):
            part = slice(g * size, (g + 1) * size)
            layer = Weighed(
                np.ascontiguousarray(some[g]), felt.weight[:, part], columns[g], target[:, part]
            )
            for m in range(part.start, part.stop):
                if not (gain[m] > 0 and y[m].any()):
                    continue
                goal = np.asarray(step.weight[m] * scale, dtype=np.float64)
                found = layer.move(
                    m - part.start, starts[:, m], float(gain[m]), float(bias[m]), goals[m], goal,
                    rows.closed(m), *rows.banks, room,
                )  # fmt: skip
                best = int(np.argmin([moved.error for moved in found]))
                y[m], gain[m], bias[m] = starts[best, m], found[best].gain, found[best].bias
        return replace(rows, y=y, gain=gain[:, None] / scale, bias=bias)

    def _told(self, name: str, group: int, groups: int) -> Callable[[float], None] | None:
        tell = self.progress
        return None if tell is None else lambda part: tell(name, (group + part) / groups)


# -- a layer for every kind of node --------------------------------------------------------------

integer_layer: Face[[LayerBuilder, Step, list[Tensor], FloatArray | None], Layer] = NODES.face(
    "integer layer"
)
"""The layer of a node, by the builder that makes it, its step, what it reads, and the float model's
values before the activation (where there is data)."""


@integer_layer.of(DenseNode, ConvNode, Affine)
def _weighted(
    node: Node, builder: LayerBuilder, step: Step, x: list[Tensor], raw: FloatArray | None
) -> Layer:
    return builder.weighted(step, x[0], raw)


@integer_layer.of(MaxNode)
def _maximum(
    node: MaxNode, builder: LayerBuilder, step: Step, x: list[Tensor], raw: FloatArray | None
) -> Layer:
    g, t = node.geometry, x[0].spec
    output = TensorSpec(step.output, (*g.output_size, g.input_shape[2]), t.format, t.scale)
    return MaxPool(step.name, t.name, output, g)


@integer_layer.of(AverageNode)
def _average(
    node: AverageNode, builder: LayerBuilder, step: Step, x: list[Tensor], raw: FloatArray | None
) -> Layer:
    g, t = node.geometry, x[0].spec
    shape = (*g.output_size, g.input_shape[2])
    counts = np.unique(g.counts(include_pads=node.count_include_pad))
    scales = [t.scale / max(1, int(c)) for c in counts]
    output, mult, shift = builder.joined(step, shape, raw, t.format.signed, scales)
    table = tuple((int(c), m) for c, m in zip(counts, mult, strict=True))
    return AveragePool(step.name, t.name, output, g, node.count_include_pad, table, shift)


@integer_layer.of(Function)
def _table(
    node: Function, builder: LayerBuilder, step: Step, x: list[Tensor], raw: FloatArray | None
) -> Layer:
    seen, bits = raw if builder.measured else None, builder.options.activation_bits
    bits = OUTPUT_BITS - step.part if step.last else bits
    given = None
    if step.format is not None:
        given = TensorSpec(step.output, node.shape, step.format, step.scale)
    return table_layer(
        step.name, node.curve, x[0].spec, step.output, node.shape, seen, bits, step.last, given
    )


@integer_layer.of(AddNode, ConcatNode, Relu, Clip, Quantize)
def _join(
    node: Node, builder: LayerBuilder, step: Step, x: list[Tensor], raw: FloatArray | None
) -> Layer:
    """A sum; one tensor with other bounds is a sum of one."""
    signed = any(t.spec.format.signed for t in x)
    scales = [t.spec.scale for t in x]
    output, mult, shift = builder.joined(step, node.shape, raw, signed, scales)
    kind = Concat if isinstance(node, ConcatNode) else Add
    return kind(step.name, tuple(t.spec.name for t in x), output, mult, shift)


@integer_layer.of(PartNode)
def _part(
    node: PartNode, builder: LayerBuilder, step: Step, x: list[Tensor], raw: FloatArray | None
) -> Layer:
    """One of several inputs, with a scale of its own, or a slice in the scale of its input."""
    given = x[0].spec
    same = TensorSpec(step.output, node.shape, given.format, given.scale)
    spec = builder.source.parts.get(step.output, same)
    return Part(step.name, given.name, spec, node.start, node.count, node.period)


@integer_layer.of(OutputsNode)
def _outputs(
    node: OutputsNode, builder: LayerBuilder, step: Step, x: list[Tensor], raw: FloatArray | None
) -> Layer:
    """Several outputs one after the other, as they are."""
    parts = [t.spec for t in x]
    signed = any(spec.format.signed for spec in parts)
    bits = max(spec.format.bits + (signed and not spec.format.signed) for spec in parts)
    scale = max(spec.scale for spec in parts)
    output = TensorSpec(step.output, step.node.shape, IntFormat(bits, signed), scale)
    mult, shift = PASSED
    return Outputs(step.name, tuple(s.name for s in parts), output, (mult,) * len(parts), shift)


def _least_scale(scales: list[float], bits: int) -> float:
    """The smallest scale of an output at which `joining_multipliers` finds a shift."""
    return 2 * max(scales) / ((1 << bits) - 1)


def joining_multipliers(ratios: list[float], bits: int = MULT_BITS) -> tuple[tuple[int, ...], int]:
    """Integers of so many bits for the ratios: the largest shift at which all fit."""
    limit = (1 << bits) - 1
    largest = max(ratios)
    shift = 40
    while shift > 1 and np.floor(largest * (1 << shift) + 0.5) > limit:
        shift -= 1
    return tuple(min(limit, int(np.floor(r * (1 << shift) + 0.5))) for r in ratios), shift


def _tries(rows: int, columns: int) -> int:
    """How many starts a layer's moves are worth."""
    return max(1, min(_TRIES, int(_TRIED / (rows * columns**2))))


def _start(
    w: FloatArray, k: IntArray, request: Request, allowed: npt.NDArray[np.bool_]
) -> IntArray:
    """The nearest codewords (M, N), with K (M, G) pulses where they may be."""
    if request.keep_zeros:
        w = w * allowed
    if request.placement is not None:
        return balance(np.asarray(w), k[:, 0], request.placement)
    if request.shared:
        y = nearest(w.reshape(1, -1), np.array([k.sum()])).reshape(w.shape)
    else:
        y = nearest(w.reshape(k.size, -1), k.ravel()).reshape(w.shape)
    return within(y, allowed, w) if request.keep_zeros else y


def _plain_gains(w: FloatArray, y: IntArray, request: Request, rule: str) -> FloatArray:
    """Gains of the weights, (M, G), not negative."""
    shape = (1, -1) if request.shared else (len(y) * request.groups, -1)
    rho = np.maximum(gains_of(w.reshape(shape), y.reshape(shape), rule), 0)
    if request.shared:
        return np.full((len(y), 1), rho[0])
    return np.asarray(rho.reshape(len(y), request.groups))


def integers(
    rows: Rows, x: TensorSpec, output: TensorSpec, bits: int, shift: int | None = None
) -> Requantization:
    """Multipliers, biases and shift of a layer, from its codes, its input and its output."""
    k = np.abs(rows.y).reshape(*rows.gain.shape, -1).sum(axis=2)
    if output.format.binary and rows.gain.shape[1] == 1:
        return thresholds(rows.gain[:, 0] * x.scale, rows.bias, k[:, 0] * x.format.max_abs)
    return requantization(
        rows.gain, rows.bias, k, x.format, x.scale, output.format, output.scale, bits, shift
    )


def _columns(
    geometry: Geometry | None,
    values: npt.NDArray[np.integer[Any]],
    chosen: IntArray,
    groups: int,
) -> npt.NDArray[np.float32]:
    """What the rows multiply at some positions: whole numbers, (groups, positions, N)."""
    if geometry is None:
        return values.reshape(len(values), -1)[chosen].astype(np.float32)[None]
    view = geometry.windows(values)
    _, rows, columns, channels, kh, kw = view.shape
    f, at = np.divmod(chosen, rows * columns)
    picked = view[f, at // columns, at % columns]
    split = picked.reshape(len(chosen), groups, channels // groups, kh, kw)
    order = split.transpose(1, 0, 3, 4, 2).reshape(groups, len(chosen), -1)
    return order.astype(np.float32)


def _products(columns: FloatArray, y: IntArray, gain: FloatArray, parts: int) -> FloatArray:
    """Sums of the rows at the sampled positions, (positions, M), gains included: those of the codes
    are whole numbers, so exact."""
    groups = gain.shape[1]
    most = max(float(columns.max(initial=0)), -float(columns.min(initial=0)))
    single = most * int(np.abs(y).sum(axis=1).max(initial=0)) <= 1 << SINGLE
    kind = np.float32 if single else np.float64
    matrix = y.reshape(parts, -1, y.shape[1]).transpose(0, 2, 1).astype(kind)
    size, total = y.shape[1] // groups, np.zeros((columns.shape[1], len(y)))
    for at in _pieces(columns.shape[1], parts * y.shape[1]):
        for g in range(groups):
            part = slice(g * size, (g + 1) * size)
            seen = columns[:, at, part].astype(kind, copy=False)
            sums = np.matmul(seen, matrix[:, part])
            total[at] += sums.transpose(1, 0, 2).reshape(-1, len(y)) * gain[:, g]
    return total


def _working_set(node_or_layer: Node | Layer) -> int:
    """Values of one frame while it is computed."""
    shape = getattr(node_or_layer, "shape", None)
    if shape is None:
        shape = node_or_layer.output.shape  # type: ignore[union-attr]
    kernel = getattr(node_or_layer, "kernel", None)
    geometry = getattr(node_or_layer, "geometry", None)
    if geometry is not None:
        kernel = (*geometry.kernel, geometry.input_shape[2])
    elif kernel is not None:
        kernel = (*kernel, node_or_layer.input_shape[2])  # type: ignore[union-attr]
    return int(np.prod(shape[:2])) * int(np.prod(kernel or (1,))) + int(np.prod(shape))


def _pieces(count: int, size: int) -> Iterator[slice]:
    """Ranges of ``count`` frames or positions of so many values, few enough at a time."""
    step = max(1, _CHUNK // max(1, size))
    for start in range(0, count, step):
        yield slice(start, start + step)


def _stored(fmt: IntFormat) -> npt.DTypeLike:
    """The narrowest type that holds a format's integers."""
    for kind in (np.uint8, np.int8, np.uint16, np.int16, np.int32):
        held = np.iinfo(kind)
        if held.min <= fmt.min and fmt.max <= held.max:
            return kind
    return np.int64


def _taken(x: FloatArray, source: Source) -> npt.NDArray[np.integer[Any]]:
    """The integers that stand for inputs (frames, \\*shape)."""
    fmt = source.spec.format
    found = np.empty(x.shape, dtype=_stored(fmt))
    for part in _pieces(len(x), math.prod(x.shape[1:])):
        found[part] = round_to_lattice(x[part], source.unit(), fmt)
    return found


def _layer_chunks(
    layer: Layer, inputs: list[npt.NDArray[np.integer[Any]] | None]
) -> npt.NDArray[np.integer[Any]] | None:
    """The integer layer's output."""
    arrays = [a for a in inputs if a is not None]
    if len(arrays) < len(inputs):
        return None
    found = np.empty((len(arrays[0]), *layer.output.shape), dtype=_stored(layer.output.format))
    for part in _pieces(len(found), _working_set(layer)):
        values = layer.compute(*(a[part].astype(np.int64) for a in arrays))
        found[part] = values.reshape(-1, *layer.output.shape)
    return found
