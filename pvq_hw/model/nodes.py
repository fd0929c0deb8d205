"""Operations of the float model: what each node computes, in float64.

Every node takes arrays with the frames first and the channels last, and reads them in the flat
channel-last order: an input whose shape differs from what a node reads has the same order and
is only reshaped. That is how Flatten, Reshape and Transpose of a model file vanish.
"""

import itertools
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from pvq_hw.geometry import Geometry
from pvq_hw.model.curve import Curve
from pvq_hw.registry import Registry

__all__ = [
    "NODES",
    "Add",
    "Affine",
    "AveragePool",
    "Clip",
    "Concat",
    "Conv",
    "Dense",
    "Function",
    "MaxPool",
    "Node",
    "Outputs",
    "Pads",
    "Part",
    "Quantize",
    "Relu",
    "Sign",
]

FloatArray = npt.NDArray[np.float64]
Pads = tuple[tuple[int, int], tuple[int, int]]
NO_PADS: Pads = ((0, 0), (0, 0))


@dataclass(frozen=True, eq=False)
class Node:
    """One operation of the canonical graph.

    Parameters
    ----------
    name : str
        Unique among the nodes; only ``A-Z a-z 0-9 _ . -`` (see `pvq_hw.naming.safe_name`).
    inputs : tuple of str
        Tensors it reads: the model's input or outputs of earlier nodes.
    output : str
        Tensor it gives; unique, the same alphabet.
    shape : tuple of int
        Of the output, without the frames: ``(n,)`` or ``(height, width, channels)``.
    """

    op: ClassVar[str] = ""
    weighted: ClassVar[bool] = False
    """Whether it multiplies by weights, which the quantizer makes codes of."""
    fused: ClassVar[bool] = False
    """Whether its layer rounds sums, so that bounds behind it are its output's format."""
    alone: ClassVar[bool] = False
    """Whether it is a layer by itself, with bounds behind it layers of their own."""
    bound: ClassVar[bool] = False
    """Whether it is an activation that the format of what it follows may carry out."""
    keeps: ClassVar[bool] = False
    """Whether the values that it gives are among those that it reads."""
    rescales: ClassVar[bool] = False
    """Whether the unit of what it gives is free, whatever that of what it reads is."""

    name: str
    inputs: tuple[str, ...]
    output: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Output values of one frame."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def channels(self) -> int:
        """Length of the output's last axis."""
        return self.shape[-1]

    @property
    def macs(self) -> int:
        """Multiplications by weights that layers before and behind it don't share, in one frame."""
        return 0

    @property
    def parameters(self) -> int:
        """Weights and biases of nodes that count `macs`."""
        return 0

    @property
    def working_set(self) -> int:
        """Values that it holds for one frame while it computes."""
        return self.size

    @property
    def matrix(self) -> FloatArray:
        """Weights of a weighted node, (M, N): what each channel of its output multiplies by."""
        raise NotImplementedError

    @property
    def biases(self) -> FloatArray:
        """What a weighted node adds to each channel of its output, (M,)."""
        raise NotImplementedError

    def with_weights(self, matrix: FloatArray, biases: FloatArray) -> "Node":
        """A weighted node with other `matrix` and `biases`."""
        raise NotImplementedError

    def compute(self, *x: FloatArray) -> FloatArray:
        """Arrays (frames, ...) in channel-last order -> (frames, \\*shape)."""
        raise NotImplementedError


NODES: Registry[Node] = Registry("node", "op")
"""Every kind of node. Its faces: ``integer layer`` (`pvq_hw.quantizer.layerwise`), ``forward`` and
``gradient`` (`pvq_hw.quantizer.autodiff`), ``division`` (`pvq_hw.quantizer.value_range`), ``ONNX``
(`pvq_hw.model.export`), ``PyTorch`` (`pvq_hw.train.torch_model`)."""


@NODES.kind
@dataclass(frozen=True, eq=False)
class Dense(Node):
    """``x @ weight.T + bias``; reads its input flattened in channel-last order.

    Parameters
    ----------
    weight : float64 array (M, N)
    bias : float64 array (M,)
    """

    op: ClassVar[str] = "Dense"
    weighted: ClassVar[bool] = True
    fused: ClassVar[bool] = True
    rescales: ClassVar[bool] = True

    weight: FloatArray
    bias: FloatArray

    @property
    def macs(self) -> int:
        """Multiplications of one frame."""
        return int(self.weight.size)

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return int(self.weight.size + self.bias.size)

    @property
    def matrix(self) -> FloatArray:
        """``weight``."""
        return self.weight

    @property
    def biases(self) -> FloatArray:
        """``bias``."""
        return self.bias

    def with_weights(self, matrix: FloatArray, biases: FloatArray) -> Node:
        """The layer with others."""
        return replace(self, weight=matrix, bias=biases)

    def compute(self, *x: FloatArray) -> FloatArray:
        flat = x[0].reshape(len(x[0]), -1)
        return flat @ self.weight.T + self.bias


@dataclass(frozen=True, eq=False)
class Window(Node):
    """What convolutions and poolings share: a window that slides over a map.

    Parameters
    ----------
    input_shape : tuple of int
        ``(height, width, channels)`` as it is read; 1-D operations have height 1.
    kernel, stride : tuple of int
        (height, width).
    pads : ((top, bottom), (left, right))
    dilation : tuple of int
        Distance of the kernel's taps; 1 for poolings.
    """

    input_shape: tuple[int, int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    pads: Pads = NO_PADS
    dilation: tuple[int, int] = (1, 1)

    @property
    def geometry(self) -> Geometry:
        """How the window slides."""
        return Geometry(self.input_shape, self.kernel, self.stride, self.pads, self.dilation)

    def windows(self, x: FloatArray, fill: float = 0.0) -> FloatArray:
        """``x`` (frames, ...) -> a view (frames, rows, columns, channels, kh, kw)."""
        return self.geometry.windows(x, fill)


@NODES.kind
@dataclass(frozen=True, eq=False, kw_only=True)
class Conv(Window):
    """Convolution (as neural networks have it: no flip), zero padded, channels last.

    Parameters
    ----------
    weight : float64 array (M, kh, kw, C / groups)
    bias : float64 array (M,)
    groups : int
        Output channel m reads the input channels of group ``m // (M / groups)``.
    """

    op: ClassVar[str] = "Conv"
    weighted: ClassVar[bool] = True
    fused: ClassVar[bool] = True
    rescales: ClassVar[bool] = True

    weight: FloatArray
    bias: FloatArray
    groups: int = 1

    @property
    def macs(self) -> int:
        """Multiplications of one frame, padding included."""
        return int(self.weight.size) * self.shape[0] * self.shape[1]

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return int(self.weight.size + self.bias.size)

    @property
    def working_set(self) -> int:
        """Values that it holds for one frame while it computes: its windows."""
        return self.macs // self.channels

    @property
    def matrix(self) -> FloatArray:
        """The weights as a matrix (M, kh * kw * C / groups), in the order of `columns`."""
        return self.weight.reshape(len(self.weight), -1)

    @property
    def biases(self) -> FloatArray:
        """``bias``."""
        return self.bias

    def with_weights(self, matrix: FloatArray, biases: FloatArray) -> Node:
        """The layer with others."""
        return replace(self, weight=matrix.reshape(self.weight.shape), bias=biases)

    def columns(self, x: FloatArray) -> FloatArray:
        """``x`` (frames, ...) -> what the rows multiply: (groups, frames * h * w, kh * kw * C/g).

        Within a column vector the order is (kernel row, kernel column, channel of the group).
        """
        return self.geometry.columns(x, self.groups)

    def compute(self, *x: FloatArray) -> FloatArray:
        if self.groups == self.input_shape[2] == len(self.weight):
            return self._by_tap(x[0])
        columns = self.columns(x[0])
        matrix = self.matrix.reshape(self.groups, -1, columns.shape[2]).transpose(0, 2, 1)
        out = np.matmul(columns, matrix)  # (groups, frames * h * w, M / groups)
        return out.transpose(1, 0, 2).reshape(len(x[0]), *self.shape) + self.bias

    def _by_tap(self, x: FloatArray) -> FloatArray:
        """`compute` where every channel is filtered by itself, without a matrix for each."""
        view = self.windows(x)
        total = np.zeros((len(x), *self.shape))
        for i, j in np.ndindex(view.shape[4:]):
            total += view[:, :, :, :, i, j] * self.weight[:, i, j, 0]
        return total + self.bias


@NODES.kind
@dataclass(frozen=True, eq=False)
class MaxPool(Window):
    """Largest value of each window; padding never wins."""

    op: ClassVar[str] = "MaxPool"
    alone: ClassVar[bool] = True
    keeps: ClassVar[bool] = True

    def compute(self, *x: FloatArray) -> FloatArray:
        return self.windows(x[0], fill=-np.inf).max(axis=(4, 5))


@NODES.kind
@dataclass(frozen=True, eq=False, kw_only=True)
class AveragePool(Window):
    """Mean of each window.

    Parameters
    ----------
    count_include_pad : bool
        Whether padding counts as zeros; else the mean is over the values inside the map.
    """

    op: ClassVar[str] = "AveragePool"
    fused: ClassVar[bool] = True

    count_include_pad: bool = False

    def counts(self) -> FloatArray:
        """Divisor of every output position, (rows, columns, 1)."""
        if self.count_include_pad:
            return np.full((*self.shape[:2], 1), float(np.prod(self.kernel)))
        inside = self.windows(np.ones((1, *self.input_shape)))
        return inside[0, :, :, :1].sum(axis=(3, 4))

    def compute(self, *x: FloatArray) -> FloatArray:
        return self.windows(x[0]).sum(axis=(4, 5)) / self.counts()


@NODES.kind
@dataclass(frozen=True, eq=False)
class Relu(Node):
    """``max(x, 0)``."""

    op: ClassVar[str] = "Relu"
    alone: ClassVar[bool] = True
    bound: ClassVar[bool] = True

    def compute(self, *x: FloatArray) -> FloatArray:
        return np.maximum(x[0], 0.0).reshape(len(x[0]), *self.shape)


@NODES.kind
@dataclass(frozen=True, eq=False)
class Sign(Node):
    """-1 where x is below 0, +1 above, and 0 at exactly 0, which no accelerator carries: one bit
    holds two values, so models whose sums are exactly 0 are refused."""

    op: ClassVar[str] = "Sign"
    bound: ClassVar[bool] = True
    rescales: ClassVar[bool] = True

    def compute(self, *x: FloatArray) -> FloatArray:
        return np.sign(x[0]).reshape(len(x[0]), *self.shape)


@NODES.kind
@dataclass(frozen=True, eq=False)
class Clip(Node):
    """``min(max(x, low), high)``; one of the bounds may be infinite."""

    op: ClassVar[str] = "Clip"
    alone: ClassVar[bool] = True
    bound: ClassVar[bool] = True

    low: float
    high: float

    def compute(self, *x: FloatArray) -> FloatArray:
        return np.clip(x[0], self.low, self.high).reshape(len(x[0]), *self.shape)


@NODES.kind
@dataclass(frozen=True, eq=False)
class Function(Node):
    """A function of each value: an activation function that is no `Relu`, `Clip` or `Sign`, or
    a chain or pattern of operators.

    Parameters
    ----------
    curve : Curve
    """

    op: ClassVar[str] = "Function"
    alone: ClassVar[bool] = True
    rescales: ClassVar[bool] = True

    curve: Curve

    def compute(self, *x: FloatArray) -> FloatArray:
        return self.curve(x[0].reshape(len(x[0]), *self.shape))


@NODES.kind
@dataclass(frozen=True, eq=False)
class Quantize(Node):
    """``scale * clip(round(x / scale), low, high)``, halves to even: values as a quantized file
    stores them. Zero points are in the bounds: ``low <= 0 <= high``.

    Parameters
    ----------
    scale : float
    low, high : int
    """

    op: ClassVar[str] = "Quantize"
    alone: ClassVar[bool] = True
    bound: ClassVar[bool] = True

    scale: float
    low: int
    high: int

    def compute(self, *x: FloatArray) -> FloatArray:
        steps = np.clip(np.rint(x[0] / self.scale), self.low, self.high)
        return (steps * self.scale).reshape(len(x[0]), *self.shape)


@NODES.kind
@dataclass(frozen=True, eq=False)
class Affine(Node):
    """``x * scale + offset`` per channel: what could not be folded into a neighbor's weights.

    Parameters
    ----------
    scale, offset : float64 array (C,)
    """

    op: ClassVar[str] = "Affine"
    weighted: ClassVar[bool] = True
    fused: ClassVar[bool] = True
    rescales: ClassVar[bool] = True

    scale: FloatArray
    offset: FloatArray

    @property
    def matrix(self) -> FloatArray:
        """``scale``, a column."""
        return self.scale.reshape(-1, 1)

    @property
    def biases(self) -> FloatArray:
        """``offset``."""
        return self.offset

    def with_weights(self, matrix: FloatArray, biases: FloatArray) -> Node:
        """The layer with others."""
        return replace(self, scale=matrix.reshape(self.scale.shape), offset=biases)

    def compute(self, *x: FloatArray) -> FloatArray:
        return x[0].reshape(len(x[0]), *self.shape) * self.scale + self.offset


@NODES.kind
@dataclass(frozen=True, eq=False)
class Part(Node):
    """Takes ``count`` of every ``period`` values, from ``start`` on: a slice of one axis,
    or one of a model's several inputs, which lie one after the other in its one input, each
    channels last.

    Parameters
    ----------
    start, count, period : int
    """

    op: ClassVar[str] = "Part"
    alone: ClassVar[bool] = True
    keeps: ClassVar[bool] = True

    start: int
    count: int
    period: int

    def compute(self, *x: FloatArray) -> FloatArray:
        whole = x[0].reshape(len(x[0]), -1, self.period)
        part = whole[:, :, self.start : self.start + self.count]
        return part.reshape(len(part), *self.shape)


@dataclass(frozen=True, eq=False)
class Add(Node):
    """Sum of two branches of the same size."""

    op: ClassVar[str] = "Add"
    fused: ClassVar[bool] = True

    def compute(self, *x: FloatArray) -> FloatArray:
        shape = (len(x[0]), *self.shape)
        return x[0].reshape(shape) + x[1].reshape(shape)


@NODES.kind
@dataclass(frozen=True, eq=False)
class Concat(Node):
    """Branches side by side along the channels; with shape ``(n,)`` each is read flattened."""

    op: ClassVar[str] = "Concat"
    fused: ClassVar[bool] = True

    def compute(self, *x: FloatArray) -> FloatArray:
        lead = (len(x[0]), *self.shape[:-1], -1)
        return np.concatenate([a.reshape(lead) for a in x], axis=-1)


@NODES.kind
@dataclass(frozen=True, eq=False)
class Outputs(Concat):
    """The outputs of a model that has several, each flattened, one after the other. It is the last
    node; every output keeps a scale of its own.

    Parameters
    ----------
    sizes : tuple of int
        Values of each input.
    """

    op: ClassVar[str] = "Outputs"

    sizes: tuple[int, ...]

    @property
    def parts(self) -> tuple[slice, ...]:
        """The part of the output that comes from each input."""
        ends = np.cumsum((0, *self.sizes)).tolist()
        return tuple(slice(a, b) for a, b in itertools.pairwise(ends))
