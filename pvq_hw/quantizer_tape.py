"""Values and gradients of a network's steps in single precision, as the quantizer needs them.

Every step is a node with its activation function; weights may be others than the model's, and an
output may be rounded to its lattice, which gradients pass straight through where it does not
saturate.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.geometry import Geometry
from pvq_hw.nodes import Add, Affine, AveragePool, Concat, Conv, Dense, MaxPool, Node
from pvq_hw.quantizer_steps import Step, weight_matrix

__all__ = [
    "Lattice",
    "Tape",
    "WeightGradient",
    "columns_of",
    "node_bias",
    "node_geometry",
    "node_groups",
]

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Lattice:
    """Where an output's values lie: multiples of ``scale`` from ``low`` to ``high`` of them."""

    scale: float
    low: int
    high: int

    def round(self, z: FloatArray) -> FloatArray:
        """The nearest values of the lattice, ties up, in place."""
        z *= np.float32(1 / self.scale)
        z += np.float32(0.5)
        np.floor(z, out=z)
        np.clip(z, self.low, self.high, out=z)
        z *= np.float32(self.scale)
        return z


@dataclass(frozen=True, eq=False)
class WeightGradient:
    """Of a scalar by a step's weights (M, N) and biases (M,)."""

    weight: FloatArray
    bias: FloatArray


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
    lattices : dict
        Of tensors by name; a tensor without one is not rounded.
    """

    def __init__(self, steps: tuple[Step, ...], source: str) -> None:
        self.steps, self.source = steps, source
        weighted = [step for step in steps if step.weighted]
        self.weights = {s.name: weight_matrix(s.node).astype(np.float32) for s in weighted}
        self.biases = {s.name: node_bias(s.node).astype(np.float32) for s in weighted}
        self.lattices: dict[str, Lattice] = {}
        self._columns: dict[str, FloatArray] = {}
        self._open: dict[str, npt.NDArray[np.bool_]] = {}

    @property
    def output(self) -> str:
        """Name of the output tensor."""
        return self.steps[-1].output

    def forward(
        self, x: FloatArray, *, keep: bool = False, until: str | None = None
    ) -> dict[str, FloatArray]:
        """Every tensor by its name, from inputs (frames, \\*shape).

        ``keep`` for `backward` and `slopes`; ``until`` names a step whose inputs are the last.
        """
        values = {self.source: x}
        for step in self.steps:
            if step.name == until:
                break
            z = self._apply(step, [values[name] for name in step.inputs], keep)
            values[step.output] = self._activate(step, z, keep)
        return values

    def outputs(self, x: FloatArray, chunk: int) -> FloatArray:
        """The outputs of all frames, (frames, C), computed ``chunk`` at a time."""
        parts = [self.forward(x[i : i + chunk])[self.output] for i in range(0, len(x), chunk)]
        return np.concatenate(parts).reshape(len(x), -1)

    def sums(self, step: Step, values: dict[str, FloatArray]) -> FloatArray:
        """A step's sums, before its activation function."""
        return self._apply(step, [values[name] for name in step.inputs], False)

    def columns(self, step: Step) -> FloatArray:
        """What a weighted step's rows multiplied in the last `forward` that kept it."""
        return self._columns[step.name]

    def _activate(self, step: Step, z: FloatArray, keep: bool) -> FloatArray:
        lattice = self.lattices.get(step.output)
        low, high = (np.float32(0) if step.relu else None), np.float32(step.high)
        if lattice is not None:
            low = np.float32((lattice.low - 0.5) * lattice.scale)
            high = np.float32((lattice.high + 0.5) * lattice.scale)
            if lattice.low == 0:
                low = np.float32(0)
        if keep:
            inside = z < high
            if low is not None:
                inside &= z > low
            self._open[step.output] = inside
        if lattice is not None:
            return lattice.round(z)
        if step.relu:
            np.maximum(z, 0, out=z)
        return np.minimum(z, high, out=z) if np.isfinite(step.high) else z

    def _apply(self, step: Step, inputs: list[FloatArray], keep: bool) -> FloatArray:
        """The node's output before its activation function; a new array."""
        node, x = step.node, inputs[0]
        if step.weighted:
            columns = columns_of(node, x)
            if keep:
                self._columns[step.name] = columns
            return self.products(step, columns).reshape(len(x), *node.shape)
        if isinstance(node, MaxPool):
            return _largest(node.geometry, x)
        if isinstance(node, AveragePool):
            sums = node.geometry.windows(x).sum(axis=(4, 5))
            return np.asarray(sums / node.counts().astype(np.float32), dtype=np.float32)
        shape = (len(x), *node.shape)
        if isinstance(node, Concat):
            return np.concatenate([a.reshape(*shape[:-1], -1) for a in inputs], axis=-1)
        total = x.reshape(shape).copy()
        for other in inputs[1:]:
            total += other.reshape(shape)
        return total

    def products(self, step: Step, columns: FloatArray) -> FloatArray:
        """Sums of a weighted step's rows: columns (groups, positions, N) -> (positions, M)."""
        weight = self.weights[step.name]
        matrix = weight.reshape(len(columns), -1, weight.shape[1]).transpose(0, 2, 1)
        out = np.matmul(columns, matrix).transpose(1, 0, 2)
        return out.reshape(len(out), -1) + self.biases[step.name]

    def changes(self, step: Step, x: FloatArray, change: FloatArray) -> FloatArray:
        """How the sums of a step's rows change at every position, (frames, positions, J, M).

        ``change`` (J, M, N + 1) holds J changes of the weights, and of the biases in its last
        column; ``x`` is the step's input (frames, ...).
        """
        columns = columns_of(step.node, x)
        trials, rows, n = change.shape
        split = change[:, :, :-1].reshape(trials, len(columns), -1, n - 1)
        matrix = split.transpose(1, 3, 0, 2).reshape(len(columns), n - 1, -1)
        out = np.matmul(columns, matrix).reshape(len(columns), columns.shape[1], trials, -1)
        moved = out.transpose(1, 2, 0, 3).reshape(-1, trials, rows) + change[:, :, -1]
        return np.asarray(moved.reshape(len(x), -1, trials, rows))

    def backward(
        self,
        values: dict[str, FloatArray],
        gradients: dict[str, FloatArray],
        *,
        sums: dict[str, FloatArray] | None = None,
        weights: bool = True,
    ) -> dict[str, WeightGradient]:
        """Gradients of a scalar by every step's weights and biases.

        Parameters
        ----------
        values : dict
            What `forward` gave, with ``keep``.
        gradients : dict
            Of the scalar by tensors, at least by the output; is filled with all of them.
        sums : dict, optional
            Filled with the gradients by every step's sums (before the activation), by its name.
        weights : bool
            Whether the weights' gradients are wanted; else the result is empty.
        """
        result = {}
        for step in reversed(self.steps):
            if step.output not in gradients:
                continue
            g = gradients[step.output].reshape(len(gradients[step.output]), *step.node.shape)
            g = g * self._open[step.output]
            if sums is not None:
                sums[step.name] = g
            if step.weighted and weights:
                result[step.name] = self._weight_gradient(step, g)
            inputs = [values[name] for name in step.inputs]
            for name, part in zip(step.inputs, self._back(step, inputs, g), strict=True):
                if name == self.source:
                    continue
                part = part.reshape(values[name].shape)
                gradients[name] = gradients[name] + part if name in gradients else part
        return result

    def slopes(self, values: dict[str, FloatArray], seed: FloatArray, name: str) -> FloatArray:
        """Gradient by the sums of step ``name`` of a scalar whose gradient by the output is
        ``seed``; nothing before that step is looked at."""
        after = self._after(name)
        gradients = {self.output: seed}
        for step in reversed(self.steps):
            if step.output not in gradients:
                continue
            g = gradients.pop(step.output).reshape(len(seed), *step.node.shape)
            g = g * self._open[step.output]
            if step.name == name:
                return np.asarray(g)
            inputs = [values[n] for n in step.inputs]
            for n, part in zip(step.inputs, self._back(step, inputs, g), strict=True):
                if n in after:
                    part = part.reshape(values[n].shape)
                    gradients[n] = gradients[n] + part if n in gradients else part
        raise KeyError(name)

    def _after(self, name: str) -> set[str]:
        """Tensors that depend on what step ``name`` gives, its own included."""
        found: set[str] = set()
        for step in self.steps:
            if step.name == name or any(n in found for n in step.inputs):
                found.add(step.output)
        return found

    def _weight_gradient(self, step: Step, g: FloatArray) -> WeightGradient:
        groups, rows = node_groups(step.node), g.shape[-1]
        flat = g.reshape(-1, groups, rows // groups).transpose(1, 2, 0)
        by_weight = np.matmul(flat, self._columns[step.name])
        return WeightGradient(by_weight.reshape(rows, -1), g.reshape(-1, rows).sum(axis=0))

    def _back(self, step: Step, inputs: list[FloatArray], g: FloatArray) -> list[FloatArray]:
        """Gradients by the node's inputs."""
        node, x = step.node, inputs[0]
        if step.weighted:
            if step.inputs[0] == self.source:
                return [np.zeros(0, dtype=np.float32)]
            weight, groups = self.weights[step.name], node_groups(node)
            rows = g.shape[-1]
            flat = g.reshape(-1, groups, rows // groups).transpose(1, 0, 2)
            columns = np.matmul(flat, weight.reshape(groups, -1, weight.shape[1]))
            geometry = node_geometry(node)
            if geometry is None:
                return [columns[0]]
            return [_fold(geometry, columns, len(x))]
        if isinstance(node, MaxPool):
            return [_to_largest(node.geometry, x, g)]
        if isinstance(node, AveragePool):
            part = np.asarray(g / node.counts().astype(np.float32), dtype=np.float32)
            geometry = node.geometry
            wide = np.broadcast_to(
                part[:, :, :, None, None, :],
                (*part.shape[:3], *geometry.kernel, part.shape[3]),
            )
            return [_fold_windows(geometry, wide)]
        if isinstance(node, Concat):
            ends = np.cumsum([a.size // (g.size // g.shape[-1]) for a in inputs])
            return np.split(g, ends[:-1], axis=-1)
        return [g] * len(inputs) if isinstance(node, Add) else [g]


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


def node_bias(node: Node) -> npt.NDArray[np.float64]:
    """Biases of a weighted node, (M,)."""
    assert isinstance(node, Affine | Conv | Dense)
    return np.asarray(node.offset if isinstance(node, Affine) else node.bias, dtype=np.float64)


def columns_of(node: Node, x: FloatArray) -> FloatArray:
    """What the rows of a weighted node multiply, (groups, positions, N)."""
    geometry = node_geometry(node)
    if geometry is None:
        return x.reshape(1, len(x), -1)
    return np.ascontiguousarray(geometry.columns(x, node_groups(node)))


def _fold(geometry: Geometry, columns: FloatArray, frames: int) -> FloatArray:
    """Adjoint of `Geometry.columns`: (groups, positions, N) -> (frames, \\*input_shape)."""
    kh, kw = geometry.kernel
    h, w = geometry.output_size
    groups = len(columns)
    if groups == 1:
        return _fold_windows(geometry, columns.reshape(frames, h, w, kh, kw, -1))
    split = columns.reshape(groups, frames, h, w, kh, kw, -1)
    wide = np.moveaxis(split, 0, 5).reshape(frames, h, w, kh, kw, -1)
    return _fold_windows(geometry, wide)


def _fold_windows(geometry: Geometry, windows: FloatArray) -> FloatArray:
    """Adds windows (frames, rows, columns, kh, kw, channels) up to maps."""
    height, width, channels = geometry.input_shape
    (top, bottom), (left, right) = geometry.pads
    frames, h, w = windows.shape[:3]
    padded = np.zeros(
        (frames, top + height + bottom, left + width + right, channels), dtype=np.float32
    )
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
