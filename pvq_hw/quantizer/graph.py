"""Quantization of networks of any shape: convolutions, poolings, sums and concatenations.

Layer by layer in order, with the calibration data running through both the float model and the
integer network: what each layer with weights is fitted to is the float model's output on the
integer network's own inputs, at a sample of the window positions.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.arith import exact
from pvq_hw.errors import InputError
from pvq_hw.geometry import Geometry
from pvq_hw.model.activation import LINEAR
from pvq_hw.model.model import Model
from pvq_hw.model.nodes import AveragePool as AverageNode
from pvq_hw.model.nodes import Concat as ConcatNode
from pvq_hw.model.nodes import Function, Node, Window
from pvq_hw.model.nodes import MaxPool as MaxNode
from pvq_hw.network.join import Add, Concat
from pvq_hw.network.layer import Dense, Layer, TensorSpec
from pvq_hw.network.table import Table
from pvq_hw.network.window import AveragePool, Conv, MaxPool
from pvq_hw.pyramid.nearest import nearest
from pvq_hw.quantizer.autodiff import Lattice, Tape, node_geometry, node_groups
from pvq_hw.quantizer.banks import Placement, balance
from pvq_hw.quantizer.budget import round_to_multiple, shared_total, spread
from pvq_hw.quantizer.emit import OUTPUT_BITS, output_spec
from pvq_hw.quantizer.fused import Step
from pvq_hw.quantizer.given import given_codes
from pvq_hw.quantizer.importance import Felt, Weighed, felt
from pvq_hw.quantizer.layer_options import LayerOptions
from pvq_hw.quantizer.polish import Rows, polish
from pvq_hw.quantizer.pulse_moves import improve, moments, ridge_weights, within
from pvq_hw.quantizer.requantization import MULT_BITS, feasible_scale, int8_codes, requantization
from pvq_hw.quantizer.scales import round_to_lattice
from pvq_hw.quantizer.sensitivity import measured_pulses
from pvq_hw.quantizer.tables import table_input, table_layer

__all__ = ["Wanted", "joining_multipliers", "pulse_budget", "quantize_steps"]

FloatArray = npt.NDArray[Any]  # float32 where there is much, else float64
IntArray = npt.NDArray[np.int64]

_SAMPLES = 30_000  # window positions that a layer is fitted to
_SHARE = 0.65  # a layer's pulses grow with this power of its weights
_CHUNK = 1 << 22  # values of the windows of one chunk of frames
_DAMPING = 0.03  # of the layers' moments


@dataclass(frozen=True)
class Wanted:
    """What is asked of a network's quantization; see `pvq_hw.quantizer.quantize.quantize`."""

    ratio: float
    bits: int
    quantizer: str
    layers: Mapping[str, LayerOptions] = field(default_factory=dict)
    banks: Mapping[str, int] = field(default_factory=dict)
    max_gap: Mapping[str, int] = field(default_factory=dict)
    seed: int = 0
    pulses: Mapping[str, IntArray] | None = None
    sweeps: int = 0

    @property
    def calibrated(self) -> bool:
        """Whether codes, gains and biases are fitted to data."""
        return self.quantizer == "calibrated"


def pulse_budget(
    steps: tuple[Step, ...],
    ratio: float,
    layers: Mapping[str, LayerOptions],
    emphasis: Mapping[str, float] | None = None,
) -> dict[str, int]:
    """Pulses of every layer with weights, by name: as asked, else shares of the network's.

    What is lost grows with a power of N/K whatever the layer, so small layers, whose pulses cost
    little, get more of them: K in proportion to ``weights ** 0.65``, at most one a weight.
    ``emphasis`` multiplies that by layer.
    """
    sizes = {s.name: s.weight.size for s in steps if s.weighted}
    rows = {s.name: len(s.weight) for s in steps if s.weighted}
    given = {}
    for name, size in sizes.items():
        option = layers.get(name)
        if option is not None and option.encoding == "int8":
            given[name] = rows[name]  # of no meaning
        elif option is not None and option.k is not None:
            given[name] = option.k * rows[name]
        elif option is not None and option.ratio is not None:
            given[name] = max(rows[name], int(size / option.ratio + 1e-9))
    free = {name: size for name, size in sizes.items() if name not in given}
    total = shared_total({name: (rows[name], size) for name, size in free.items()}, ratio)
    low, high = 0.0, float(total) + 1
    more = emphasis or {}
    for _ in range(100):
        middle = (low + high) / 2
        if sum(_share(middle * more.get(n, 1), s, rows[n], ratio) for n, s in free.items()) > total:
            high = middle
        else:
            low = middle
    return given | {n: _share(low * more.get(n, 1), s, rows[n], ratio) for n, s in free.items()}


def _share(price: float, size: int, rows: int, ratio: float) -> int:
    most = max(size, int(size / ratio))
    return max(rows, min(most, int(price * exact.exp(_SHARE * exact.log(size)))))


@dataclass(eq=False)
class _Tensor:
    """A tensor while data runs: what the integer network and the float model have there."""

    spec: TensorSpec
    values: npt.NDArray[np.int32] | None
    exact: npt.NDArray[np.float32] | None


def quantize_steps(
    model: Model,
    steps: tuple[Step, ...],
    spec: TensorSpec,
    x: FloatArray | None,
    wanted: Wanted,
    progress: Callable[[str, float], None] | None = None,
) -> list[Layer]:
    """The integer layers of a model.

    Parameters
    ----------
    model : Model
    steps : tuple of Step
    spec : TensorSpec
        Of the network's input.
    x : float array (frames, \\*shape), optional
        Calibration inputs; without them the scales come from the model's ranges.
    wanted : Wanted
    progress : function (layer, part done), optional
    """
    if wanted.calibrated and wanted.pulses is None and x is not None:
        pulses = measured_pulses(steps, x, wanted.ratio, wanted.layers, wanted.seed, progress)
        wanted = replace(wanted, pulses=pulses)
    builder = _Builder(model, steps, wanted)
    if wanted.calibrated and x is not None:
        builder.felt = felt(steps, x.astype(np.float32), wanted.seed)
    values = None if x is None else round_to_lattice(x, spec.scale, spec.format).astype(np.int32)
    real = None if x is None else x.astype(np.float32)
    builder.tensors[spec.name] = _Tensor(spec, values, real)
    for index, step in enumerate(steps):
        builder.add(step)
        builder.forget(steps[index + 1 :])
        if progress:
            progress(step.name, 1.0)
    if not (wanted.calibrated and wanted.sweeps and x is not None):
        return builder.layers
    return _refined(steps, builder, x, spec, progress)


def _refined(
    steps: tuple[Step, ...],
    builder: "_Builder",
    x: FloatArray,
    spec: TensorSpec,
    progress: Callable[[str, float], None] | None,
) -> list[Layer]:
    """The layers with their pulses moved against the network's outputs; formats stay."""
    tape = Tape(steps, spec.name)
    tape.lattices[spec.name] = _lattice(spec)
    for layer in builder.layers:
        if not isinstance(layer, MaxPool) and layer is not builder.layers[-1]:
            tape.lattices[layer.output.name] = _lattice(layer.output)
    wanted, rows = builder.wanted, {}
    for step in steps:
        if step.name in builder.rows:
            builder.rows[step.name].put(tape, step.name)
            if not builder.is_plain(step):
                rows[step.name] = builder.rows[step.name]
    inputs = tape.lattices[spec.name].round(x.astype(np.float32))
    found, _ = polish(tape, rows, inputs, sweeps=wanted.sweeps, seed=wanted.seed, progress=progress)
    bits = {step.name: step.mult_bits for step in steps}
    specs = {spec.name: spec} | {layer.output.name: layer.output for layer in builder.layers}
    return [
        _again(layer, found[layer.name], specs[layer.inputs[0]], bits[layer.name])
        if layer.name in found
        else layer
        for layer in builder.layers
    ]


def _lattice(spec: TensorSpec) -> Lattice:
    return Lattice(spec.scale, spec.format.min, spec.format.max)


def _again(layer: Any, rows: Rows, x: TensorSpec, bits: int) -> Layer:
    """The layer with other codes, and the same output."""
    output = layer.output
    most = ((1 << bits) - 1) / 2 * output.scale / x.scale  # see `feasible_scale`
    gain = np.minimum(rows.gain, most)
    pulses = np.abs(rows.y).sum(axis=1, keepdims=True)
    numbers = requantization(
        gain, rows.bias, pulses, x.format, x.scale, output.format, output.scale, bits
    )
    return replace(  # type: ignore[no-any-return]
        layer, y=rows.y, gain=gain, mult=numbers.mult, bias=numbers.bias, shift=numbers.shift
    )


class _Builder:
    """Makes the layers one after the other, with the data as far as it has come."""

    def __init__(self, model: Model, steps: tuple[Step, ...], wanted: Wanted) -> None:
        self.model, self.wanted = model, wanted
        self.exact = Tape(steps, model.input_name)
        self.rows: dict[str, Rows] = {}
        measured = wanted.quantizer == "given" or wanted.pulses is not None
        self.felt: dict[str, Felt] = {}
        self.budget = {} if measured else pulse_budget(steps, wanted.ratio, wanted.layers)
        self.rng = np.random.default_rng(wanted.seed)
        self.layers: list[Layer] = []
        self.tensors: dict[str, _Tensor] = {}

    def forget(self, rest: tuple[Step, ...]) -> None:
        """Lets go of tensors that nothing reads any more."""
        read = {name for step in rest for name in step.inputs}
        self.tensors = {n: t for n, t in self.tensors.items() if n in read}

    def add(self, step: Step) -> None:
        """Appends the step's layer and runs the data through it."""
        inputs = [self.tensors[name] for name in step.inputs]
        raw = self._sums(step, [t.exact for t in inputs])
        if step.weighted:
            layer = self._weighted(step, inputs[0], raw)
        elif isinstance(step.node, MaxNode):
            g = _geometry(step.node)
            t = inputs[0].spec
            output = TensorSpec(step.output, (*g.output_size, g.input_shape[2]), t.format, t.scale)
            layer = MaxPool(step.name, t.name, output, g)
        elif isinstance(step.node, AverageNode):
            layer = self._average(step, inputs[0], raw)
        elif isinstance(step.node, Function):
            layer = self._table(step, step.node, inputs[0].spec, raw)
        else:
            layer = self._join(step, inputs, raw)
        self.layers.append(layer)
        values = _layer_chunks(layer, [t.values for t in inputs])
        if raw is not None and step.activation.bounded:
            raw = step.activation.compute(raw)
        self.tensors[step.output] = _Tensor(layer.output, values, raw)

    def _sums(self, step: Step, inputs: list[FloatArray | None]) -> FloatArray | None:
        """The float model's output of a step before its activation, float32."""
        arrays = [a for a in inputs if a is not None]
        if len(arrays) < len(inputs):
            return None
        size = max(1, _CHUNK // _working_set(step.node))
        parts = [
            self.exact.sums(
                step, {n: a[i : i + size] for n, a in zip(step.inputs, arrays, strict=True)}
            )
            for i in range(0, len(arrays[0]), size)
        ]
        return np.concatenate(parts)

    # -- formats ----------------------------------------------------------------------------

    def _output(
        self,
        step: Step,
        shape: tuple[int, ...],
        real: FloatArray | None,
        signed: bool,
        least: float,
    ) -> TensorSpec:
        """Format and scale of the least error on the real outputs, the scale ``least`` or more."""
        bits, ranges = self.wanted.bits, self.model.ranges
        readers = self.model.consumers(step.output)
        tables = [node.curve for node in readers if isinstance(node, Function)]
        free = step.format is None and step.activation == LINEAR and not step.last
        if tables and len(tables) == len(readers) and free:
            return table_input(step.output, shape, tables[0], real, bits, least, ranges)
        return output_spec(step, shape, real, bits, signed, least, ranges)

    # -- layers with weights ----------------------------------------------------------------

    def _weighted(self, step: Step, x: _Tensor, raw: FloatArray | None) -> Layer:
        w = step.weight
        rows = len(w)
        groups, geometry = node_groups(step.node), node_geometry(step.node)
        columns = target = None
        if raw is not None and x.values is not None:
            flat = raw.reshape(-1, rows)
            chosen = self._sample(len(flat))
            columns = _columns(geometry, x.values, chosen, groups)
            target = flat[chosen]
        if self.is_plain(step):
            y, gain = int8_codes(np.asarray(w, dtype=np.float64))
            if self.wanted.quantizer == "given" and step.format and not np.allclose(gain * y, w):
                raise InputError(
                    f"Layer {step.name!r} must have weights of -128 to 127 from their zero points "
                    "to keep them as 8-bit ones; leave it to pulses, which take any"
                )
        elif self.wanted.quantizer == "given":
            y, gain = given_codes(w, step.name)
        else:
            real_x = None if columns is None else columns * np.float32(x.spec.scale)
            y, gain = self._codes(step, w, real_x, target, self._pulses(step, rows), groups)
        bias = step.bias
        real = None
        allowed = w != 0 if self._keeps_zeros(step) else None
        if raw is not None and columns is not None and target is not None:
            sums = _products(columns, y, groups) * (x.spec.scale * gain[:, 0])
            if self.wanted.calibrated and not (step.format and self.is_plain(step)):
                bias = target.mean(axis=0) - sums.mean(axis=0)
            if self.wanted.calibrated and not self.is_plain(step):
                rows_now = Rows(y, gain, bias, self._placement(step, groups), allowed)
                found = self._weighed(step, x, raw, columns, target, rows_now)
                y, gain, bias = found.y, found.gain, found.bias
                sums = _products(columns, y, groups) * (x.spec.scale * gain[:, 0])
            real = sums + bias
        self.rows[step.name] = Rows(y, gain, bias, self._placement(step, groups), allowed)
        shape = (rows,) if geometry is None else (*geometry.output_size, rows)
        output = self._output(
            step, shape, real, True, feasible_scale(gain, x.spec.scale, 0.0, step.mult_bits)
        )
        pulses = np.abs(y).sum(axis=1, keepdims=True)
        numbers = requantization(
            gain,
            bias,
            pulses,
            x.spec.format,
            x.spec.scale,
            output.format,
            output.scale,
            step.mult_bits,
        )
        common: dict[str, Any] = {
            "name": step.name,
            "input": x.spec.name,
            "output": output,
            "y": y,
            "mult": numbers.mult,
            "bias": numbers.bias,
            "shift": numbers.shift,
            "gain": gain,
            "encoding": "int8" if self.is_plain(step) else "pvq",
        }
        if geometry is None:
            return Dense(**common)
        return Conv(geometry=geometry, groups=groups, **common)

    def _sample(self, count: int) -> IntArray:
        if count <= _SAMPLES:
            return np.arange(count)
        return np.sort(self.rng.choice(count, _SAMPLES, replace=False))

    def is_plain(self, step: Step) -> bool:
        """Whether the layer keeps 8-bit weights."""
        option = self.wanted.layers.get(step.name)
        return option is not None and option.encoding == "int8"

    def _pulses(self, step: Step, rows: int) -> IntArray:
        """K of every row."""
        multiple = self.wanted.banks.get(step.name, 1)
        if self.wanted.pulses is not None:
            return round_to_multiple(self.wanted.pulses[step.name], multiple)
        return spread(np.ones(rows), self.budget[step.name], multiple)

    def _codes(
        self,
        step: Step,
        w: FloatArray,
        columns: FloatArray | None,
        target: FloatArray | None,
        k: IntArray,
        groups: int,
    ) -> tuple[IntArray, FloatArray]:
        """Codewords (M, N) and gains (M, 1)."""
        placement = self._placement(step, groups)
        size = len(w) // groups
        ys, gains = [], []
        for g in range(groups):
            part = slice(g * size, (g + 1) * size)
            allowed = w[part] != 0 if self._keeps_zeros(step) else None
            if columns is None or target is None or not self.wanted.calibrated:
                y = _start(w[part], k[part], placement, allowed)
                square = np.maximum(np.square(y).sum(axis=1), 1)
                gain = np.maximum((w[part] * y).sum(axis=1), 0)[:, None] / square[:, None]
            else:
                m = moments(columns[g], target[:, part], w[part], _DAMPING)
                y = _start(ridge_weights(m), k[part], placement, allowed)
                y, gain = improve(m, y, placement=placement, allowed=allowed)
            ys.append(y)
            gains.append(gain)
        return np.concatenate(ys), np.concatenate(gains)

    def _weighed(
        self,
        step: Step,
        x: _Tensor,
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
        goals = raw.reshape(-1, len(y))[felt.positions]
        place, n, size = rows.placement, y.shape[1], len(y) // groups
        banks, gap = (1, 0) if place is None else (place.banks, place.max_gap or 0)
        room = np.empty((n, n))
        for g in range(groups):
            part = slice(g * size, (g + 1) * size)
            layer = Weighed(
                np.ascontiguousarray(some[g]), felt.weight[:, part], columns[g], target[:, part]
            )
            for m in range(part.start, part.stop):
                if gain[m] > 0 and y[m].any():
                    closed = np.zeros(n, dtype=bool) if rows.allowed is None else ~rows.allowed[m]
                    goal = np.asarray(step.weight[m] * scale, dtype=np.float64)
                    gain[m], bias[m] = layer.move(
                        m - part.start, y[m], float(gain[m]), float(bias[m]), goals[:, m], goal,
                        closed, banks, gap, room,
                    )  # fmt: skip
        return replace(rows, y=y, gain=gain[:, None] / scale, bias=bias)

    def _placement(self, step: Step, groups: int) -> Placement | None:
        banks = self.wanted.banks.get(step.name, 1)
        if banks == 1 or groups > 1:
            return None
        return Placement(banks, self.wanted.max_gap.get(step.name))

    def _keeps_zeros(self, step: Step) -> bool:
        option = self.wanted.layers.get(step.name)
        return option is not None and option.keep_zeros

    # -- layers without weights -------------------------------------------------------------

    def _average(self, step: Step, x: _Tensor, raw: FloatArray | None) -> AveragePool:
        node = step.node
        assert isinstance(node, AverageNode)
        g = _geometry(node)
        shape = (*g.output_size, g.input_shape[2])
        counts = np.unique(g.counts(include_pads=node.count_include_pad))
        scales = [x.spec.scale / max(1, int(c)) for c in counts]
        least = _least_scale(scales, step.mult_bits)
        output = self._output(step, shape, raw, x.spec.format.signed, least)
        mult, shift = joining_multipliers(
            [scale / output.scale for scale in scales], step.mult_bits
        )
        table = tuple((int(c), m) for c, m in zip(counts, mult, strict=True))
        return AveragePool(step.name, x.spec.name, output, g, node.count_include_pad, table, shift)

    def _table(self, step: Step, node: Function, x: TensorSpec, raw: FloatArray | None) -> Table:
        bits = OUTPUT_BITS if step.last else self.wanted.bits
        given = None
        if step.format is not None:
            given = TensorSpec(step.output, node.shape, step.format, step.scale)
        return table_layer(
            step.name, node.curve, x, step.output, node.shape, raw, bits, step.last, given
        )

    def _join(self, step: Step, inputs: list[_Tensor], raw: FloatArray | None) -> Add | Concat:
        signed = any(t.spec.format.signed for t in inputs)
        scales = [t.spec.scale for t in inputs]
        output = self._output(
            step, step.node.shape, raw, signed, _least_scale(scales, step.mult_bits)
        )
        mult, shift = joining_multipliers(
            [scale / output.scale for scale in scales], step.mult_bits
        )
        kind = Concat if isinstance(step.node, ConcatNode) else Add
        return kind(step.name, tuple(t.spec.name for t in inputs), output, mult, shift)


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


def _start(
    w: FloatArray, k: IntArray, placement: Placement | None, allowed: Any = None
) -> IntArray:
    if allowed is not None:
        return within(nearest(w * allowed, k), allowed, w)
    return nearest(w, k) if placement is None else balance(np.asarray(w), k, placement)


def _geometry(node: Node) -> Geometry:
    assert isinstance(node, Window)
    return node.geometry


def _columns(
    geometry: Geometry | None, values: npt.NDArray[np.int32], chosen: IntArray, groups: int
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


def _products(columns: FloatArray, y: IntArray, groups: int) -> FloatArray:
    """Sums of the rows' codes at the sampled positions, (positions, M): whole numbers, so exact."""
    matrix = y.reshape(groups, -1, y.shape[1]).transpose(0, 2, 1).astype(np.float64)
    sums = np.matmul(columns.astype(np.float64), matrix)
    return np.asarray(sums.transpose(1, 0, 2).reshape(columns.shape[1], -1))


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


def _layer_chunks(
    layer: Layer, inputs: list[npt.NDArray[np.int32] | None]
) -> npt.NDArray[np.int32] | None:
    """The integer layer's output, int32."""
    arrays = [a for a in inputs if a is not None]
    if len(arrays) < len(inputs):
        return None
    step = max(1, _CHUNK // _working_set(layer))
    parts = [
        layer.compute(*(a[i : i + step].astype(np.int64) for a in arrays)).astype(np.int32)
        for i in range(0, len(arrays[0]), step)
    ]
    return np.concatenate(parts)
