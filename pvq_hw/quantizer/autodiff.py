"""Values and gradients of a network's steps in single precision, as the quantizer needs them.

Every step is a node with its activation function; weights may be others than the model's, and an
output may be rounded to its lattice, which gradients pass straight through where it does not
saturate.

All matrix products are exact (`pvq_hw.arith.exact`): of codes and of inputs on a lattice they are
sums of whole numbers, which fit single precision; what is real is rounded for double precision.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.exact import DOUBLE, SINGLE, grid, grid_bits, grid_shift, span_bits
from pvq_hw.geometry import Geometry
from pvq_hw.model.nodes import (
    NODES,
    Add,
    Affine,
    AveragePool,
    Clip,
    Concat,
    Conv,
    Function,
    MaxPool,
    Node,
    Part,
    Quantize,
    Relu,
)
from pvq_hw.network.layer import TensorSpec
from pvq_hw.quantizer.fused import Step
from pvq_hw.registry import Face

__all__ = [
    "Columns",
    "Lattice",
    "Tape",
    "derivatives",
    "forward",
    "frames_together",
    "gradient",
    "node_geometry",
    "node_groups",
]

FloatArray = npt.NDArray[np.float32]

_LEAST_BITS = 12  # of gradients, where their products with codes are to fit single precision
_WHOLE = 127  # largest weight of a row where all are whole numbers of 8 bits
_PIECE = 1 << 21  # values at a time, where float64 copies of a whole array would be large


@dataclass(frozen=True)
class Lattice:
    """Where an output's values lie: multiples of ``scale`` from ``low`` to ``high`` of them.

    ``binary``: only those two, -1 and +1.
    """

    scale: float
    low: int
    high: int
    binary: bool = False

    @classmethod
    def of(cls, spec: TensorSpec) -> "Lattice":
        """Where a tensor's values lie."""
        return cls(spec.scale, spec.format.min, spec.format.max, spec.format.binary)

    def round(self, z: FloatArray) -> FloatArray:
        """The nearest values of the lattice, ties up, in place."""
        if self.binary:
            z[:] = np.where(z < 0, np.float32(-self.scale), np.float32(self.scale))
            return z
        z *= np.float32(1 / self.scale)
        z += np.float32(0.5)
        np.floor(z, out=z)
        np.clip(z, self.low, self.high, out=z)
        z *= np.float32(self.scale)
        return z


@dataclass(frozen=True, eq=False)
class Columns:
    """What the rows of a weighted step multiply.

    Parameters
    ----------
    values : float32 array (groups, positions, N)
        Multiples of a power of two, at most ``2**bits`` of them.
    unit : float
        What a value of 1 stands for.
    bits : int
        At most 24.
    """

    values: FloatArray
    unit: float
    bits: int

    def at(self, positions: npt.NDArray[np.int64]) -> "Columns":
        """The same at some positions only."""
        return Columns(self.values[:, positions], self.unit, self.bits)


class Tape:
    """The steps of a network, run forwards and backwards on a few frames at a time.

    Parameters
    ----------
    steps : tuple of Step
    source : str
        Name of the network's input tensor.

    Attributes
    ----------
    weights, biases : dict
        Of each weighted step by its name, float32 (M, N) and (M,); the model's own at first.
    gains : dict
        Of steps whose weights are codes, so whole numbers: what each row's sum is multiplied by,
        float64 (M,).
    lattices : dict
        Of tensors by name; a tensor without one is not rounded.
    """

    def __init__(self, steps: tuple[Step, ...], source: str) -> None:
        self.steps, self.source = steps, source
        weighted = [step for step in steps if step.weighted]
        self.weights = {s.name: s.weight.astype(np.float32) for s in weighted}
        self.biases = {s.name: s.bias.astype(np.float32) for s in weighted}
        self.gains: dict[str, npt.NDArray[np.float64]] = {}
        self.lattices: dict[str, Lattice] = {}
        self._coarse = False
        self._makers = {step.output: step for step in steps}
        self._open: dict[str, npt.NDArray[np.bool_]] = {}

    def in_single(self) -> "Tape":
        """Itself with all weights as whole numbers of 8 bits times a gain, and inputs of as many
        bits as let products fit single precision: for derivatives and for steps whose weights will
        be codes, which ask for no more."""
        self._coarse = True
        for name, w in self.weights.items():
            top = np.abs(w).max(axis=1, initial=0.0).astype(np.float64)
            gain = np.where(top > 0, top, 1.0) / _WHOLE
            self.weights[name] = np.rint(w / gain[:, None]).astype(np.float32)
            self.gains[name] = gain
        return self

    @property
    def output(self) -> str:
        """Name of the output tensor."""
        return self.steps[-1].output

    def forward(self, x: FloatArray, *, keep: bool = False) -> dict[str, FloatArray]:
        """Every tensor by its name, from inputs (frames, ...); ``keep`` for `backward` and
        `slopes`."""
        return self.resume({self.source: x}, self.steps[0].name, keep=keep)

    def resume(
        self,
        values: dict[str, FloatArray],
        since: str,
        *,
        keep: bool = False,
        until: str | None = None,
    ) -> dict[str, FloatArray]:
        """``values`` and what the steps from ``since`` on make of them, up to the step ``until``,
        which is not run."""
        values, running = dict(values), False
        for step in self.steps:
            if step.name == until:
                break
            running = running or step.name == since
            if running:
                z = self._apply(step, [values[name] for name in step.inputs])
                values[step.output] = self._activate(step, z, keep)
        return values

    def needed(self, since: str) -> set[str]:
        """Tensors that the steps from ``since`` on read."""
        names = [step.name for step in self.steps]
        return {n for step in self.steps[names.index(since) :] for n in step.inputs}

    def outputs(self, x: FloatArray, chunk: int) -> FloatArray:
        """The outputs of all frames, (frames, C), computed ``chunk`` at a time."""
        parts = [self.forward(x[i : i + chunk])[self.output] for i in range(0, len(x), chunk)]
        return np.concatenate(parts).reshape(len(x), -1)

    def sums(self, step: Step, values: dict[str, FloatArray]) -> FloatArray:
        """A step's sums, before its activation function."""
        return self._apply(step, [values[name] for name in step.inputs])

    def columns(self, step: Step, x: FloatArray) -> Columns:
        """What a weighted step's rows multiply where its input is ``x`` (frames, ...)."""
        values, unit, bits = self._whole(step, x)
        geometry = node_geometry(step.node)
        if geometry is None:
            return Columns(values.reshape(1, len(x), -1), unit, bits)
        columns = geometry.columns(values, node_groups(step.node))
        return Columns(np.ascontiguousarray(columns), unit, bits)

    def _whole(self, step: Step, x: FloatArray) -> tuple[FloatArray, float, int]:
        """A weighted step's input as multiples of a unit, that unit, and the bits of them."""
        lattice = self._lattice(step.inputs[0])
        if lattice is None or step.name not in self.gains:
            unit, bits = 1.0, min(SINGLE, grid_bits(self.weights[step.name].shape[1]))
            if self._coarse and step.name in self.gains:
                spare = SINGLE - span_bits(float(np.abs(self.weights[step.name]).sum(axis=1).max()))
                bits = spare if spare >= _LEAST_BITS else bits
            values = grid(x, bits, np.float32)
        else:
            unit, bits = lattice.scale, max(-lattice.low, lattice.high).bit_length()
            values = np.multiply(x, np.float32(1 / unit))
            np.rint(values, out=values)
        return values, unit, bits

    def _lattice(self, tensor: str) -> Lattice | None:
        """The lattice on which a tensor's values lie, if there is one."""
        if tensor not in self.lattices:
            step = self._makers.get(tensor)
            if step is not None and step.node.keeps:
                return self._lattice(step.inputs[0])
        return self.lattices.get(tensor)

    def _activate(self, step: Step, z: FloatArray, keep: bool) -> FloatArray:
        if step.activation.binary:
            if keep:
                self._open[step.output] = step.activation.passes(z)
            return step.activation.compute(z)
        lattice = self.lattices.get(step.output)
        activation = step.activation
        low, high = (np.float32(end) for end in activation.ends)
        if lattice is not None:
            low = np.float32((lattice.low - 0.5) * lattice.scale)
            high = np.float32((lattice.high + 0.5) * lattice.scale)
            if lattice.low == 0:
                low = np.float32(0)
        if keep:
            self._open[step.output] = (z > low) & (z < high)
        if lattice is not None:
            return lattice.round(z)
        return np.clip(z, low, high, out=z) if np.isfinite([low, high]).any() else z

    def _apply(self, step: Step, inputs: list[FloatArray]) -> FloatArray:
        """The node's output before its activation function; a new array."""
        node, x = step.node, inputs[0]
        if not step.weighted:
            return forward(node, inputs)
        if _separate(node):
            return self._separate_sums(step, x)
        return self.products(step, self.columns(step, x)).reshape(len(x), *node.shape)

    def products(self, step: Step, columns: Columns) -> FloatArray:
        """Sums of a weighted step's rows, (positions, M)."""
        weight = self._factors(step, columns.bits)
        groups, positions, n = columns.values.shape
        matrix = weight.reshape(groups, -1, n).transpose(0, 2, 1)
        out = np.matmul(columns.values.astype(weight.dtype, copy=False), matrix)
        return self._scaled(step, out.transpose(1, 0, 2).reshape(positions, -1), columns.unit)

    def _factors(self, step: Step, bits: int) -> npt.NDArray[Any]:
        """A step's weights, of which no sum of products with values of some bits is rounded."""
        weight = self.weights[step.name]
        if step.name not in self.gains:
            return grid(weight, DOUBLE - bits - span_bits(weight.shape[1]))
        single = bits + span_bits(float(np.abs(weight).sum(axis=1).max())) <= SINGLE
        return weight.astype(np.float32 if single else np.float64, copy=False)

    def _scaled(self, step: Step, sums: npt.NDArray[Any], unit: float) -> FloatArray:
        """Sums of products as they are in real numbers, the bias added."""
        gain = self.gains.get(step.name)
        if gain is not None:
            sums *= (unit * gain).astype(sums.dtype)
        sums += self.biases[step.name]
        return sums.astype(np.float32, copy=False)

    def _separate_sums(self, step: Step, x: FloatArray) -> FloatArray:
        """Sums of a step whose channels are filtered by themselves, tap by tap."""
        from pvq_hw.quantizer import kernels

        values, unit, bits = self._whole(step, x)
        weight, geometry = self._factors(step, bits), node_geometry(step.node)
        assert geometry is not None
        sums = np.zeros((len(x), *geometry.output_size, len(weight)), dtype=weight.dtype)
        taps = np.ascontiguousarray(weight.T)
        kernels.filter_channels(_pad(geometry, values, 0), taps, *_walk(geometry), sums)
        return self._scaled(step, sums, unit)

    def backward(
        self,
        values: dict[str, FloatArray],
        gradients: dict[str, FloatArray],
    ) -> dict[str, FloatArray]:
        """Gradients of a scalar by every step's sums (before the activation), by its name.

        Parameters
        ----------
        values : dict
            What `forward` gave, with ``keep``.
        gradients : dict
            Of the scalar by tensors, at least by the output; is filled with all of them.
        """
        result = {}
        for step in reversed(self.steps):
            if step.output not in gradients:
                continue
            g = gradients[step.output].reshape(len(gradients[step.output]), *step.node.shape)
            g = g * self._open[step.output]
            result[step.name] = g
            inputs = [values[name] for name in step.inputs]
            for name, part in zip(step.inputs, self._back(step, inputs, g), strict=True):
                if name == self.source:
                    continue
                part = part.reshape(values[name].shape)
                gradients[name] = gradients[name] + part if name in gradients else part
        return result

    def slopes(self, values: dict[str, FloatArray], seed: FloatArray, name: str) -> FloatArray:
        """Gradients by the sums of step ``name`` of scalars whose gradients by the output are
        ``seed`` (scalars times frames, ...), all frames of the first scalar first; nothing before
        that step is looked at."""
        after = self._after(name)
        gradients = {self.output: seed}
        for step in reversed(self.steps):
            if step.output not in gradients:
                continue
            g, opened = gradients.pop(step.output), self._open[step.output]
            g = (g.reshape(-1, *opened.shape) * opened).reshape(len(seed), *step.node.shape)
            if step.name == name:
                return np.asarray(g)
            inputs = [values[n] for n in step.inputs]
            for n, part in zip(step.inputs, self._back(step, inputs, g), strict=True):
                if n in after:
                    part = part.reshape(len(seed), *values[n].shape[1:])
                    gradients[n] = gradients[n] + part if n in gradients else part
        raise KeyError(name)

    def _after(self, name: str) -> set[str]:
        """Tensors that depend on what step ``name`` gives, its own included."""
        found: set[str] = set()
        for step in self.steps:
            if step.name == name or any(n in found for n in step.inputs):
                found.add(step.output)
        return found

    def _back(self, step: Step, inputs: list[FloatArray], g: FloatArray) -> list[FloatArray]:
        """Gradients by the node's inputs; of ``g`` there may be several for every frame."""
        node = step.node
        if not step.weighted:
            return gradient(node, inputs, g)
        if step.inputs[0] == self.source:
            return [np.zeros(0, dtype=np.float32)]
        if _separate(node):
            return [self._back_separate(step, g)]
        columns = self._back_to_columns(step, g)
        geometry = node_geometry(node)
        return [columns[0] if geometry is None else _fold(geometry, columns, len(g))]

    def _back_separate(self, step: Step, g: FloatArray) -> FloatArray:
        """Gradients by the input of a step whose channels are filtered by themselves."""
        from pvq_hw.quantizer import kernels

        geometry = node_geometry(step.node)
        assert geometry is not None
        weight = self.weights[step.name]
        if step.name in self.gains:
            weight = weight * self.gains[step.name].astype(np.float32)[:, None]
        height, width, _ = geometry.input_shape
        (top, _), (left, _) = geometry.pads
        back = np.zeros(_pad_shape(geometry, len(g)), dtype=np.float32)
        taps = np.ascontiguousarray(weight.T)
        kernels.filter_channels_back(g, taps, *_walk(geometry), back)
        return back[:, top : top + height, left : left + width]

    def _back_to_columns(self, step: Step, g: FloatArray) -> FloatArray:
        """Gradients by what a weighted step's rows multiply, (groups, positions, N)."""
        weight, gain = self.weights[step.name], self.gains.get(step.name)
        groups = node_groups(step.node)
        matrix = weight.reshape(groups, -1, weight.shape[1])
        flat = g.reshape(-1, groups, matrix.shape[1])
        if gain is None:
            bits = grid_bits(matrix.shape[1])
            flat, matrix = grid(flat, bits), grid(matrix, bits)
        else:
            spare = span_bits(float(np.abs(matrix).sum(axis=1).max()))
            single = SINGLE - spare >= _LEAST_BITS
            dtype, bits = (np.float32, SINGLE) if single else (np.float64, DOUBLE)
            flat = _scaled_grid(flat, np.asarray(gain, dtype=np.float32), bits - spare, dtype)
            matrix = matrix.astype(dtype, copy=False)
        return np.matmul(flat.transpose(1, 0, 2), matrix).astype(np.float32, copy=False)


forward: Face[[list[FloatArray]], FloatArray] = NODES.face("forward")
"""A node's values before its activation, float32, in a new array; nodes with weights are the
tape's own."""

gradient: Face[[list[FloatArray], FloatArray], list[FloatArray]] = NODES.face("gradient")
"""Gradients by a node's inputs, by those of its output, of which there may be several for every
frame: all frames of the first scalar first."""


@forward.of(MaxPool)
def _maximum(node: MaxPool, inputs: list[FloatArray]) -> FloatArray:
    return _largest(node.geometry, inputs[0])


@gradient.of(MaxPool)
def _back_maximum(node: MaxPool, inputs: list[FloatArray], g: FloatArray) -> list[FloatArray]:
    x = inputs[0]
    parts = np.split(g, len(g) // len(x))
    return [np.concatenate([_to_largest(node.geometry, x, part) for part in parts])]


@forward.of(AveragePool)
def _mean(node: AveragePool, inputs: list[FloatArray]) -> FloatArray:
    sums = node.geometry.windows(inputs[0]).sum(axis=(4, 5))
    return np.asarray(sums / node.counts().astype(np.float32), dtype=np.float32)


@gradient.of(AveragePool)
def _back_mean(node: AveragePool, inputs: list[FloatArray], g: FloatArray) -> list[FloatArray]:
    part = np.asarray(g / node.counts().astype(np.float32), dtype=np.float32)
    geometry = node.geometry
    wide = np.broadcast_to(
        part[:, :, :, None, None, :], (*part.shape[:3], *geometry.kernel, part.shape[3])
    )
    return [_fold_windows(geometry, wide)]


@forward.of(Function)
def _curve(node: Function, inputs: list[FloatArray]) -> FloatArray:
    x = inputs[0].reshape(len(inputs[0]), *node.shape)
    return np.asarray(node.curve(x), dtype=np.float32)


@gradient.of(Function)
def _back_curve(node: Function, inputs: list[FloatArray], g: FloatArray) -> list[FloatArray]:
    x = inputs[0]
    slope = node.curve.slope(x.reshape(len(x), *node.shape)).astype(np.float32)
    return [g * np.tile(slope, (len(g) // len(x), *(1,) * len(node.shape)))]


@forward.of(Part)
def _part(node: Part, inputs: list[FloatArray]) -> FloatArray:
    whole = inputs[0].reshape(len(inputs[0]), -1, node.period)
    part = whole[:, :, node.start : node.start + node.count]
    return part.reshape(len(part), *node.shape).copy()


@gradient.of(Part)
def _back_part(node: Part, inputs: list[FloatArray], g: FloatArray) -> list[FloatArray]:
    runs = inputs[0][0].size // node.period
    whole = np.zeros((len(g), runs, node.period), dtype=np.float32)
    whole[:, :, node.start : node.start + node.count] = g.reshape(len(g), runs, -1)
    return [whole]


@forward.of(Concat)
def _side_by_side(node: Concat, inputs: list[FloatArray]) -> FloatArray:
    lead = (len(inputs[0]), *node.shape[:-1])
    return np.concatenate([a.reshape(*lead, -1) for a in inputs], axis=-1)


@gradient.of(Concat)
def _back_side_by_side(node: Concat, inputs: list[FloatArray], g: FloatArray) -> list[FloatArray]:
    ends = np.cumsum([a.size * g.shape[-1] // (node.size * len(a)) for a in inputs])
    return np.split(g, ends[:-1], axis=-1)


@forward.of(Add, Relu, Clip, Quantize)
def _sum(node: Node, inputs: list[FloatArray]) -> FloatArray:
    shape = (len(inputs[0]), *node.shape)
    total = inputs[0].reshape(shape).copy()
    for other in inputs[1:]:
        total += other.reshape(shape)
    return total


@gradient.of(Add, Relu, Clip, Quantize)
def _back_sum(node: Node, inputs: list[FloatArray], g: FloatArray) -> list[FloatArray]:
    return [g] * len(inputs)


def _scaled_grid(
    x: FloatArray, gain: FloatArray, bits: int, dtype: npt.DTypeLike
) -> npt.NDArray[Any]:
    """``x`` (positions, groups, rows) times the rows' gains, at multiples as `exact.grid` takes
    them."""
    from pvq_hw.quantizer import kernels

    if dtype != np.float32:
        return grid(x * gain.reshape(x.shape[1:]), bits, dtype)
    flat = np.ascontiguousarray(x.reshape(len(x), -1))
    top = float(kernels.largest_scaled(flat, gain))
    if top == 0.0:
        return np.zeros(x.shape, dtype=dtype)
    shift = grid_shift(top, bits, dtype)
    if shift is None:
        return grid(x * gain.reshape(x.shape[1:]), bits, dtype)
    found = np.empty_like(flat)
    kernels.round_scaled(flat, gain, np.float32(shift), found)
    return found.reshape(x.shape)


def derivatives(slopes: FloatArray, columns: Columns) -> FloatArray:
    """Derivatives of scalars of each frame by the weights and biases of rows, their sums' given.

    Parameters
    ----------
    slopes : float32 array (groups, frames, scalars, positions, rows)
    columns : Columns
        What the rows multiply, frame by frame.

    Returns
    -------
    float32 array (groups, rows, frames, scalars, N + 1), by the bias in the last column.
    """
    groups, frames, scalars, positions, rows = slopes.shape
    right = columns.values.reshape(groups, frames, positions, -1)
    n = right.shape[3]
    found = np.empty((groups, rows, frames, scalars, n + 1), dtype=np.float32)
    bits = DOUBLE - columns.bits - span_bits(positions)
    step = frames_together(groups, scalars, positions, rows, n)
    for start in range(0, frames, step):
        part = slice(start, start + step)
        left = grid(np.ascontiguousarray(slopes[:, part].transpose(0, 1, 4, 2, 3)), bits)
        flat = left.reshape(groups, -1, rows * scalars, positions)
        product = np.matmul(flat, right[:, part].astype(np.float64)) * columns.unit
        split = product.reshape(groups, -1, rows, scalars, n)
        found[:, :, part, :, :n] = split.transpose(0, 2, 1, 3, 4)
        found[:, :, part, :, n] = left.sum(axis=4).transpose(0, 2, 1, 3)
    return found


def frames_together(groups: int, scalars: int, positions: int, rows: int, n: int) -> int:
    """Frames whose slopes `derivatives` rounds to one grid, from its first frame on."""
    return max(1, _PIECE // (groups * positions * max(n, scalars * rows)))


def node_geometry(node: Node) -> Geometry | None:
    """How a weighted node's window slides; None for dense layers."""
    if isinstance(node, Affine):
        lead = (1, 1, *node.shape)[-3:]
        return Geometry((lead[0], lead[1], lead[2]), (1, 1))
    return node.geometry if isinstance(node, Conv) else None


def node_groups(node: Node) -> int:
    """Groups of a weighted node's channels; 1 for dense layers."""
    if isinstance(node, Affine):
        return len(node.scale)
    return node.groups if isinstance(node, Conv) else 1


def _separate(node: Node) -> bool:
    """Whether a node filters every channel by itself, into one."""
    return isinstance(node, Conv) and node.groups == node.input_shape[2] == len(node.weight)


def _fold(geometry: Geometry, columns: FloatArray, frames: int) -> FloatArray:
    """Adjoint of `Geometry.columns`: (groups, positions, N) -> (frames, \\*input_shape)."""
    kh, kw = geometry.kernel
    h, w = geometry.output_size
    groups = len(columns)
    if groups == 1 and geometry.single:
        return columns[0]
    if groups == 1:
        return _fold_windows(geometry, columns.reshape(frames, h, w, kh, kw, -1))
    split = columns.reshape(groups, frames, h, w, kh, kw, -1)
    wide = np.moveaxis(split, 0, 5).reshape(frames, h, w, kh, kw, -1)
    return _fold_windows(geometry, wide)


def _fold_windows(geometry: Geometry, windows: FloatArray) -> FloatArray:
    """Adds windows (frames, rows, columns, kh, kw, channels) up to maps."""
    height, width, _ = geometry.input_shape
    (top, _), (left, _) = geometry.pads
    frames, h, w = windows.shape[:3]
    padded = np.zeros(_pad_shape(geometry, frames), dtype=np.float32)
    for i, j, part in _taps(geometry, padded, h, w):
        part += windows[:, :, :, i, j]
    return padded[:, top : top + height, left : left + width]


def _taps(geometry: Geometry, padded: FloatArray, h: int, w: int) -> Any:
    """(kernel row, kernel column, a view of what it sees in all windows)."""
    (sh, sw), (dh, dw) = geometry.stride, geometry.dilation
    for i in range(geometry.kernel[0]):
        for j in range(geometry.kernel[1]):
            rows = slice(i * dh, i * dh + (h - 1) * sh + 1, sh)
            yield i, j, padded[:, rows, j * dw : j * dw + (w - 1) * sw + 1 : sw]


def _walk(geometry: Geometry) -> tuple[int, int, int, int, int]:
    """Width of the kernel, strides and dilations, as `pvq_hw.quantizer.kernels` takes them."""
    return (geometry.kernel[1], *geometry.stride, *geometry.dilation)


def _pad_shape(geometry: Geometry, frames: int) -> tuple[int, int, int, int]:
    """The shape of maps with their padding."""
    height, width, channels = geometry.input_shape
    return frames, height + sum(geometry.pads[0]), width + sum(geometry.pads[1]), channels


def _pad(geometry: Geometry, x: FloatArray, fill: float) -> FloatArray:
    x = x.reshape(len(x), *geometry.input_shape)
    if not any(map(any, geometry.pads)):
        return x
    return np.pad(x, ((0, 0), *geometry.pads, (0, 0)), constant_values=fill)


def _largest(geometry: Geometry, x: FloatArray) -> FloatArray:
    """Max pooling."""
    h, w = geometry.output_size
    best = None
    for _, _, part in _taps(geometry, _pad(geometry, x, -np.inf), h, w):
        best = part.copy() if best is None else np.maximum(best, part, out=best)
    assert best is not None
    return best


def _to_largest(geometry: Geometry, x: FloatArray, g: FloatArray) -> FloatArray:
    """Gradient of max pooling: to the first of the largest values of each window."""
    h, w = geometry.output_size
    padded = _pad(geometry, x, -np.inf)
    best = _largest(geometry, x)
    back = np.zeros(padded.shape, dtype=np.float32)
    left = g.copy()
    taps = zip(_taps(geometry, padded, h, w), _taps(geometry, back, h, w), strict=True)
    for (_, _, value), (_, _, part) in taps:
        hit = value == best
        part += np.where(hit, left, 0)
        left[hit] = 0
    (top, _), (start, _) = geometry.pads
    height, width, _ = geometry.input_shape
    return back[:, top : top + height, start : start + width]
