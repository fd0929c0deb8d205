"""TensorFlow Lite import: the file's operators as nodes of an ONNX graph, which is then lowered.

Values keep the file's order of axes (channels last); convolutions and poolings stand between two
Transposes, which make no node in the model. A quantized activation is followed by QuantizeLinear
and DequantizeLinear with the file's scale and zero point; constants are dequantized.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper, numpy_helper

from pvq_hw.errors import InputError
from pvq_hw.model.model import Model
from pvq_hw.model.onnx.file import OnnxFile
from pvq_hw.model.onnx.graph import tidy
from pvq_hw.model.onnx.lowering import WEIGHTS_LIMIT
from pvq_hw.model.onnx.read import import_graph
from pvq_hw.model.tflite.file import Operator, Tensor, TfliteFile, guarded, read_tflite
from pvq_hw.naming import quoted

__all__ = ["import_tflite", "read_translated", "translated"]

_OPSET = 20
_READS = 4  # times that each weight may be read
_FIRST, _LAST = [0, 3, 1, 2], [0, 2, 3, 1]  # channels, of four axes
_CLIPS = {"Relu6": (0.0, 6.0), "ReluN1To1": (-1.0, 1.0)}
_FUSED = {0: "", 1: "Relu", 2: "ReluN1To1", 3: "Relu6", 4: "Tanh"}
_SAME = {"Relu": "Relu", "Logistic": "Sigmoid", "Tanh": "Tanh", "HardSwish": "HardSwish",
         "Elu": "Elu", "Quantize": "Identity", "Dequantize": "Identity"}  # fmt: skip
_RANGES = {"u1": (0, 255), "i1": (-128, 127), "i2": (-32768, 32767)}


def import_tflite(path: Path) -> Model:
    """Reads a TensorFlow Lite file; raises InputError, with the name of what is at fault."""
    return import_graph(read_translated(path))


def read_translated(path: Path) -> OnnxFile:
    """Reads a TensorFlow Lite file as an ONNX model in memory."""
    return translated(read_tflite(path))


def translated(file: TfliteFile) -> OnnxFile:
    """The file as an ONNX model in memory; its nodes have the names of the tensors they give."""
    graph = guarded(file.path, lambda: _Translation(file).graph())
    tidy(file.path, graph)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=9)
    return OnnxFile(file.path, model, file.sha256, _OPSET)


@dataclass
class _Translation:
    """The ONNX graph while operators are translated one after the other."""

    file: TfliteFile
    nodes: list[Any] = field(default_factory=list)
    constants: dict[str, Any] = field(default_factory=dict)
    values: dict[int, str] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    numbers: dict[str, int] = field(default_factory=dict)
    taken: int = 0
    read: int = 0

    def graph(self) -> Any:
        """The whole graph."""
        file = self.file
        given = []
        for source in file.inputs:
            tensor = file.tensors[source]
            if tensor.data is not None:
                raise InputError(f"{file.path} must have inputs that are not constant")
            name = self.unique(tensor.name or "input")
            given.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, tensor.shape))
            self.values[source] = self.stored(tensor, name, name)
        for operator in file.operators:
            self.operator(operator)
        if any(result not in self.values for result in file.outputs):
            raise InputError(f"{file.path} must have an output that is computed")
        self.call_outputs({*(each.name for each in given), *self.constants})
        outputs = [
            helper.make_tensor_value_info(self.values[result], TensorProto.FLOAT, None)
            for result in file.outputs
        ]
        return helper.make_graph(self.nodes, "graph", given, outputs, list(self.constants.values()))

    def call_outputs(self, fixed: set[str]) -> None:
        """Gives every output its tensor's own name, which a value within may have so far."""
        for result in self.file.outputs:
            now, name = self.values[result], self.file.tensors[result].name
            if not name or {now, name} & fixed:
                continue
            other = {now: name, name: now}
            for node in self.nodes:
                for names in (node.input, node.output):
                    names[:] = [other.get(n, n) for n in names]
            self.values = {i: other.get(n, n) for i, n in self.values.items()}
            fixed = fixed | {name}

    # -- names, constants, nodes ----------------------------------------------------------------

    def unique(self, text: str) -> str:
        """A name that no value has yet."""
        name, number = text, self.numbers.get(text, len(self.names))
        while name in self.names:
            name, number = f"{text}_{number}", number + 1
        self.names.add(name)
        self.numbers[text] = number
        return name

    def values_of(self, tensor: Tensor) -> npt.NDArray[Any]:
        """The values of a constant, as far as all that are read are no more than a few times the
        weights that a network may have."""
        self.read += tensor.size
        if max(tensor.size, self.read // _READS) > WEIGHTS_LIMIT:
            raise InputError(f"{self.file.path} must have at most {WEIGHTS_LIMIT:,} weights in all")
        return tensor.values()

    def constant(self, array: npt.NDArray[Any], name: str = "constant") -> str:
        """A new initializer."""
        self.taken += array.size
        if self.taken > WEIGHTS_LIMIT:
            raise InputError(f"{self.file.path} must have at most {WEIGHTS_LIMIT:,} weights in all")
        name = self.unique(name)
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def add(self, kind: str, name: str, *inputs: str, **attributes: Any) -> str:
        """A new node; returns its output."""
        output = self.unique(name)
        self.nodes.append(helper.make_node(kind, inputs, [output], name=name, **attributes))
        return output

    def stored(self, tensor: Tensor, name: str, value: str) -> str:
        """``value`` as the tensor stores it: quantized, where it has a scale."""
        if tensor.kind not in ("f4", "f8", "f2") and tensor.scale is None:
            raise InputError(
                f"{self.file.path}: tensor {quoted(name)} must be of floats or quantized"
            )
        if tensor.scale is None or tensor.zero is None:
            return value
        if tensor.kind not in _RANGES or len(tensor.scale) != 1:
            raise InputError(
                f"{self.file.path}: tensor {quoted(name)} must be quantized to int8, uint8 or "
                "int16 with one scale"
            )
        low, high = _RANGES[tensor.kind]
        zero = int(tensor.zero[0])
        if not low <= zero <= high:
            raise InputError(
                f"{self.file.path}: tensor {quoted(name)} must have a zero point from {low} to "
                f"{high}, not {zero}"
            )
        scale = self.constant(tensor.scale.reshape(()))
        point = self.constant(np.array(zero, dtype=tensor.kind))
        value = self.add("QuantizeLinear", name, value, scale, point)
        return self.add("DequantizeLinear", name, value, scale, point)

    # -- operators ------------------------------------------------------------------------------

    def operator(self, operator: Operator) -> None:
        """Translates one operator."""
        index = operator.outputs[0] if operator.outputs else -1
        name = self.file.tensors[index].name.split(";")[0] if index >= 0 else ""
        op = _Op(self, operator, name or f"{operator.kind}{index}")
        handler = _HANDLERS.get(operator.kind)
        if len(operator.outputs) != 1:
            op.refuse(f"must have one output, not {len(operator.outputs)}")
        tensor = self.file.tensors[index]
        if index in self.values or tensor.data is not None:
            op.refuse("must give a tensor that nothing else gives")
        if all(i < 0 or self.file.tensors[i].data is not None for i in operator.inputs):
            op.refuse("must read a computed tensor")
        if handler is not None:
            value = handler(op)
        elif operator.kind in (*_SAME, *_CLIPS):
            value = op.activated(op.value(0), operator.kind)
        else:  # which is refused later, with all else that is
            names = [op.value(i) for i in range(len(operator.inputs)) if op.given(i)]
            value = self.add(operator.kind, op.name, *names, domain="tflite")
        self.values[index] = self.stored(tensor, op.name, value)


@dataclass
class _Op:
    """One operator while it is translated."""

    all: _Translation
    operator: Operator
    name: str

    def refuse(self, text: str) -> NoReturn:
        """Raises the one-line error for this operator."""
        raise InputError(
            f"{self.all.file.path}: node {quoted(self.name)} ({quoted(self.operator.kind)}) {text}"
        )

    def tensor(self, i: int) -> Tensor:
        """Input ``i``, which must be there."""
        if not self.given(i):
            self.refuse(f"must have an input {i}")
        return self.all.file.tensors[self.operator.inputs[i]]

    def given(self, i: int) -> bool:
        """Whether there is an input ``i``."""
        return i < len(self.operator.inputs) and self.operator.inputs[i] >= 0

    def value(self, i: int) -> str:
        """The name of input ``i``'s real values."""
        tensor, index = self.tensor(i), self.operator.inputs[i]
        if index not in self.all.values:
            if tensor.data is None:
                self.refuse(f"reads {quoted(tensor.name)}, which nothing before it gives")
            self.all.values[index] = self.all.constant(self.array(i).astype(np.float64))
        return self.all.values[index]

    def array(self, i: int) -> npt.NDArray[Any]:
        """The values of input ``i``, which must be constant."""
        tensor = self.tensor(i)
        if tensor.data is None:
            self.refuse(f"must have a constant input {i}")
        return self.all.values_of(tensor)

    def integers(self, i: int) -> npt.NDArray[np.int64]:
        """The values of input ``i``, constant integers."""
        array = self.array(i)
        if array.dtype != np.int64:
            self.refuse(f"must have integers as its input {i}")
        return array

    def weights(self, i: int, rank: int) -> npt.NDArray[np.float64]:
        """The values of input ``i``, constant real numbers of ``rank`` dimensions."""
        array = self.array(i).astype(np.float64)
        if array.ndim != rank:
            self.refuse(f"must have weights of {rank} dimensions, not {array.ndim}")
        return array

    def weighted(self, weight: npt.NDArray[np.float64]) -> list[str]:
        """Weights and, where there is one, the bias, as names."""
        names = [self.all.constant(weight, f"{self.name}_weight")]
        if self.given(2):
            bias = self.array(2).astype(np.float64)
            names.append(self.all.constant(bias, f"{self.name}_bias"))
        return names

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """A node of this operator's name."""
        return self.all.add(kind, self.name, *inputs, **attributes)

    def fused(self, value: str, number: int) -> str:
        """``value`` behind the activation function that is option ``number``."""
        code = self.operator.option(number)
        if code not in _FUSED:
            self.refuse(f"must have an activation function that is known, not number {code}")
        return self.activated(value, _FUSED[code])

    def activated(self, value: str, kind: str) -> str:
        """``value`` behind an activation function."""
        if kind in _CLIPS:
            bounds = [self.all.constant(np.array(b)) for b in _CLIPS[kind]]
            return self.node("Clip", value, *bounds)
        return self.node(_SAME[kind], value) if kind else value

    def window(self, kind: str, activation: int, *weights: str, **attributes: Any) -> str:
        """A convolution or pooling of maps whose channels are last."""
        if len(self.tensor(0).shape) != 4:
            self.refuse(f"must read (N, H, W, C), not {self.tensor(0).shape}")
        option = self.operator.option
        same = option(0) == 0
        strides = [option(2, "i"), option(1, "i")]
        x = self.node("Transpose", self.value(0), perm=_FIRST)
        x = self.node(kind, x, *weights, strides=strides,
                      auto_pad="SAME_UPPER" if same else "VALID", **attributes)  # fmt: skip
        return self.node("Transpose", self.fused(x, activation), perm=_LAST)


_HANDLERS: dict[str, Callable[[_Op], str]] = {}


def _handles(*kinds: str) -> Callable[[Callable[[_Op], str]], Callable[[_Op], str]]:
    def register(function: Callable[[_Op], str]) -> Callable[[_Op], str]:
        for kind in kinds:
            _HANDLERS[kind] = function
        return function

    return register


@_handles("Conv2D")
def _conv(op: _Op) -> str:
    weight = op.weights(1, 4).transpose(0, 3, 1, 2)
    channels = op.tensor(0).shape[-1] if op.tensor(0).shape else 1
    groups = max(1, channels // weight.shape[1])
    dilations = [op.operator.option(5, "i", 1), op.operator.option(4, "i", 1)]
    return op.window("Conv", 3, *op.weighted(weight), group=groups, dilations=dilations)


@_handles("DepthwiseConv2D")
def _depthwise(op: _Op) -> str:
    weight = op.weights(1, 4)
    if weight.shape[0] != 1:
        op.refuse(f"must have weights (1, H, W, M), not {weight.shape}")
    channels = op.tensor(0).shape[-1] if op.tensor(0).shape else 1
    dilations = [op.operator.option(6, "i", 1), op.operator.option(5, "i", 1)]
    names = op.weighted(weight.transpose(3, 0, 1, 2))
    return op.window("Conv", 4, *names, group=channels, dilations=dilations)


@_handles("MaxPool2D", "AveragePool2D")
def _pool(op: _Op) -> str:
    kernel = [op.operator.option(4, "i"), op.operator.option(3, "i")]
    return op.window(op.operator.kind.removesuffix("2D"), 5, kernel_shape=kernel)


@_handles("FullyConnected")
def _fully_connected(op: _Op) -> str:
    if op.operator.option(1):
        op.refuse("must have weights in the default format")
    weight, shape = op.weights(1, 2), op.tensor(0).shape
    if math.prod(shape[1:]) != weight.shape[1]:
        op.refuse(f"must have weights for one vector per frame, {weight.shape[1]}, not {shape[1:]}")
    x = op.value(0) if len(shape) == 2 else op.node("Flatten", op.value(0))
    x = op.fused(op.node("Gemm", x, *op.weighted(weight), transB=1), 0)
    if not op.operator.option(2, "?", False) or len(shape) == 2:
        return x
    target = [0, *shape[1:-1], len(weight)]
    return op.node("Reshape", x, op.all.constant(np.array(target)))


@_handles("Add", "Sub", "Mul")
def _arithmetic(op: _Op) -> str:
    return op.fused(op.node(op.operator.kind, op.value(0), op.value(1)), 0)


@_handles("Concatenation")
def _concat(op: _Op) -> str:
    names = [op.value(i) for i in range(len(op.operator.inputs))]
    axis, rank = op.operator.option(0, "i"), len(op.tensor(0).shape)
    if rank != 4:
        return op.fused(op.node("Concat", *names, axis=axis), 1)
    names = [op.node("Transpose", name, perm=_FIRST) for name in names]
    place = _LAST[axis] if -4 <= axis < 4 else axis
    x = op.fused(op.node("Concat", *names, axis=place), 1)
    return op.node("Transpose", x, perm=_LAST)


@_handles("Pad", "PadV2")
def _pad(op: _Op) -> str:
    pads = op.integers(1)
    if pads.ndim != 2 or pads.shape[1] != 2:
        op.refuse(f"must have a pair of pads for each axis, not {pads.shape}")
    names = [op.all.constant(pads.T.ravel())]
    if op.given(2):
        names.append(op.value(2))
    return op.node("Pad", op.value(0), *names)


@_handles("Mean")
def _mean(op: _Op) -> str:
    axes = op.all.constant(op.integers(1).ravel())
    return op.node("ReduceMean", op.value(0), axes, keepdims=int(op.operator.option(0, "?")))


@_handles("Reshape")
def _reshape(op: _Op) -> str:
    if op.given(1) and op.tensor(1).data is not None:
        target = op.integers(1).ravel()
    else:
        target = np.array(op.all.file.tensors[op.operator.outputs[0]].shape, dtype=np.int64)
    return op.node("Reshape", op.value(0), op.all.constant(target))


@_handles("Squeeze")
def _squeeze(op: _Op) -> str:
    options = op.operator.options
    axes = np.zeros(0, dtype=np.int64)
    if options is not None:
        axes = options.vector(0, "i4").astype(np.int64)
    return op.node("Squeeze", op.value(0), *([op.all.constant(axes)] if len(axes) else []))


@_handles("ExpandDims")
def _expand(op: _Op) -> str:
    return op.node("Unsqueeze", op.value(0), op.all.constant(op.integers(1).ravel()))


@_handles("Transpose")
def _transpose(op: _Op) -> str:
    return op.node("Transpose", op.value(0), perm=op.integers(1).ravel().tolist())


@_handles("Softmax", "LogSoftmax")
def _softmax(op: _Op) -> str:
    return op.node(op.operator.kind, op.value(0), axis=-1)


@_handles("LeakyRelu")
def _leaky(op: _Op) -> str:
    return op.node("LeakyRelu", op.value(0), alpha=op.operator.option(0, "f", 0.0))


@_handles("PRelu")
def _prelu(op: _Op) -> str:
    return op.node("PRelu", op.value(0), op.value(1))


@_handles("Gelu")
def _gelu(op: _Op) -> str:
    approximate = "tanh" if op.operator.option(0, "?", False) else "none"
    return op.node("Gelu", op.value(0), approximate=approximate)
