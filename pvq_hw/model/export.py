"""Writing a float model as a file: the inverse of the importers.

What `pvq_hw.model.load.load_model` reads back computes the same, with the same names of layers and
tensors. Weights are stored as float32.
"""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.errors import InputError
from pvq_hw.model.curve import PRIMITIVES, Curve
from pvq_hw.model.model import Model
from pvq_hw.model.nodes import (
    NODES,
    Add,
    Affine,
    AveragePool,
    Clip,
    Concat,
    Conv,
    Dense,
    Function,
    MaxPool,
    Node,
    Outputs,
    Part,
    Quantize,
    Relu,
    Sign,
    Window,
)
from pvq_hw.registry import Face

__all__ = ["Writer", "check_format", "onnx_node", "save_model"]

_OPSET, _IR = 17, 8
_FRAMES = "frames"


def save_model(model: Model, path: str | Path) -> None:
    """Writes a model, the same bytes for the same model.

    Parameters
    ----------
    model : Model
    path : path
        ``.onnx`` (opset 17, or the first that has all of the model's functions), or ``.npz`` for
        dense layers with ReLU between them.

    Raises
    ------
    InputError
        Another suffix, or a model that an npz file has no words for.
    """
    path = Path(path)
    check_format(model, path)
    if path.suffix == ".npz":
        _save_npz(model, path)
    else:
        path.write_bytes(Writer(model).bytes())


def check_format(model: Model | None, path: Path) -> None:
    """Raises InputError where `save_model` would; without a model, for the suffix alone."""
    if path.suffix not in (".onnx", ".npz"):
        raise InputError(f"A model file must end in .onnx or .npz, not {path.name!r}")
    if model is None or path.suffix == ".onnx":
        return
    kinds = [type(node) for node in model.nodes]
    if kinds != [Dense, *[Relu, Dense] * (len(kinds) // 2)] or len(model.input_shape) != 1:
        raise InputError("Only dense layers with ReLU between them can be an npz file; use .onnx")


def _save_npz(model: Model, path: Path) -> None:
    from pvq_hw.data.arrays import write_npz

    arrays: dict[str, npt.NDArray[Any]] = {}
    for i, node in enumerate(model.nodes):
        if isinstance(node, Dense):
            arrays[f"{i}.weight"] = node.weight.astype(np.float32)
            arrays[f"{i}.bias"] = node.bias.astype(np.float32)
    write_npz(path, arrays)


class Writer:
    """Makes the ONNX graph. Maps are (frames, C, H, W), everything else (frames, n)."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.shapes = {model.input_name: model.shape}
        self.names: dict[tuple[str, tuple[int, ...]], str] = {}
        self.opset = _OPSET

    def bytes(self) -> bytes:
        """The file's content."""
        from onnx import helper

        model = self.model
        inputs = [self._value(model.input_name, model.input_shape)]
        if model.inputs:
            inputs = self._inputs()
        else:
            self._input(model.input_name, model.shape, model.input_shape, model.input_axes)
        for node in model.nodes:
            if not model.inputs or node.inputs != (model.input_name,):
                self._node(node)
        last = self.model.nodes[-1]
        graph = helper.make_graph(
            self.nodes,
            self.model.name,
            inputs,
            [self._value(last.output, _file_shape(last.shape))],
            self.constants,
        )
        opsets = [helper.make_opsetid("", self.opset)]
        made = helper.make_model(
            graph, opset_imports=opsets, ir_version=_IR, producer_name="pvq-hw"
        )
        return bytes(made.SerializeToString(deterministic=True))

    def _value(self, name: str, shape: tuple[int, ...]) -> Any:
        from onnx import TensorProto, helper

        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [_FRAMES, *shape])

    def op(self, kind: str, inputs: list[str], output: str, name: str, **attributes: Any) -> None:
        """Appends an ONNX node."""
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [output], name, **attributes))

    def constant(self, name: str, value: npt.ArrayLike) -> str:
        """Adds a constant, floats as float32; returns its name."""
        from onnx import numpy_helper

        array = np.asarray(value)
        if array.dtype.kind == "f":
            array = array.astype(np.float32)
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    # -- layouts --------------------------------------------------------------------------------

    def _inputs(self) -> list[Any]:
        """Each of several inputs, called as what takes it."""
        takers = self.model.consumers(self.model.input_name)
        parts = {node.start: node for node in takers if isinstance(node, Part)}
        for each in self.model.inputs:
            node = parts[each.start]
            self._input(node.output, node.shape, each.shape, each.axes)
            self.shapes[node.output] = node.shape
        return [self._value(parts[each.start].output, each.shape) for each in self.model.inputs]

    def _input(
        self, name: str, inner: tuple[int, ...], shape: tuple[int, ...], axes: tuple[int, ...]
    ) -> None:
        """An input as the channel-last order reads it, where the file's axes are others."""
        usual = {1: (0,), 3: (1, 2, 0)}.get(len(inner))
        if _file_shape(inner) == shape and axes == usual:
            self.names[name, inner] = name
            return
        last = f"{name}_last"
        self.op("Transpose", [name], last, last, perm=[0, *(1 + a for a in axes)])
        size = int(np.prod(inner))
        self._reshape(last, f"{name}_flat", (size,))
        self.names[name, (size,)] = f"{name}_flat"

    def _reshape(self, source: str, output: str, shape: tuple[int, ...]) -> None:
        target = np.array([-1, *shape], dtype=np.int64)
        self.op("Reshape", [source, self.constant(f"{output}_shape", target)], output, output)

    def read(self, tensor: str, shape: tuple[int, ...]) -> str:
        """The name of a tensor in the layout of ``shape``; relabels where it has another."""
        if (tensor, shape) in self.names:
            return self.names[tensor, shape]
        size = int(np.prod(shape))
        if (tensor, (size,)) not in self.names:
            have = self.shapes[tensor]
            source, last, flat = self.names[tensor, have], f"{tensor}_last", f"{tensor}_flat"
            self.op("Transpose", [source], last, last, perm=[0, 2, 3, 1])
            self._reshape(last, flat, (size,))
            self.names[tensor, (size,)] = flat
        if len(shape) == 1:
            return self.names[tensor, shape]
        label = "x".join(map(str, shape))
        last, output = f"{tensor}_{label}_last", f"{tensor}_{label}"
        self._reshape(self.names[tensor, (size,)], last, shape)
        self.op("Transpose", [last], output, output, perm=[0, 3, 1, 2])
        self.names[tensor, shape] = output
        return output

    # -- nodes ----------------------------------------------------------------------------------

    def _node(self, node: Node) -> None:
        shape = node.shape if len(node.shape) in (1, 3) else (node.size,)
        self.shapes[node.output] = shape
        self.names[node.output, shape] = node.output
        onnx_node(node, self, shape)

    def dense(self, node: Dense, shape: tuple[int, ...]) -> None:
        """A dense layer: Gemm."""
        source = self.read(node.inputs[0], (node.weight.shape[1],))
        inputs = [source, *self._weights(node.name, node.weight, node.bias)]
        self.op("Gemm", inputs, node.output, node.name, transB=1)

    def part(self, node: Part, shape: tuple[int, ...]) -> None:
        """A slice of the flat input's periods, given flat."""
        size = math.prod(self.shapes[node.inputs[0]])
        source, runs = self.read(node.inputs[0], (size,)), f"{node.output}_runs"
        self._reshape(source, runs, (size // node.period, node.period))
        places = {"start": node.start, "stop": node.start + node.count, "axis": 2}
        bounds = [self.constant(f"{runs}_{what}", np.array([at], dtype=np.int64))
                  for what, at in places.items()]  # fmt: skip
        self.op("Slice", [runs, *bounds], f"{runs}_part", node.name)
        self._reshape(f"{runs}_part", node.output, (node.size,))
        del self.names[node.output, shape]
        self.shapes[node.output] = (node.size,)
        self.names[node.output, (node.size,)] = node.output

    def plain(self, node: Node, shape: tuple[int, ...]) -> None:
        """A node of ONNX that is called as ours is."""
        inputs = [self.read(tensor, _part(node, self.shapes[tensor], shape))
                  for tensor in node.inputs]  # fmt: skip
        if isinstance(node, Clip):
            inputs += list(self._bounds(node))
        extra = {"axis": 1} if isinstance(node, Concat) else {}
        self.op(node.op, inputs, node.output, node.name, **extra)

    def _weights(self, name: str, *arrays: npt.NDArray[Any]) -> Iterator[str]:
        for what, array in zip(("weight", "bias"), arrays, strict=True):
            yield self.constant(f"{name}.{what}", array)

    def _bounds(self, node: Clip) -> Iterator[str]:
        for what, bound in (("low", node.low), ("high", node.high)):
            yield self.constant(f"{node.name}.{what}", np.float32(bound))

    def window(self, node: Window, shape: tuple[int, ...]) -> None:
        """A convolution or a pooling."""
        source = self.read(node.inputs[0], node.input_shape)
        (top, bottom), (left, right) = node.pads
        fields: dict[str, Any] = {
            "kernel_shape": list(node.kernel),
            "strides": list(node.stride),
            "pads": [top, left, bottom, right],
        }
        inputs = [source]
        if isinstance(node, Conv):
            weight = node.weight.transpose(0, 3, 1, 2)
            inputs += list(self._weights(node.name, weight, node.bias))
            fields |= {"dilations": list(node.dilation), "group": node.groups}
        if isinstance(node, AveragePool):
            fields["count_include_pad"] = int(node.count_include_pad)
        self.op(node.op, inputs, node.output, node.name, **fields)

    def function(self, node: Function, shape: tuple[int, ...]) -> None:
        """One ONNX node for each operator of the curve."""
        source = self.read(node.inputs[0], shape)
        count = itertools.count()

        def write(curve: Curve, output: str) -> str:
            if curve.kind == "x":
                return source
            if curve.kind == "constant":
                values = np.array(curve.values, dtype=np.float32)
                wide = values.reshape(-1, *(1,) * (len(shape) - 1)) if len(values) > 1 else values
                return self.constant(f"{output}.constant", wide[0] if len(values) == 1 else wide)
            known = PRIMITIVES[curve.kind]
            inputs = [write(arg, f"{node.output}.{next(count)}") for arg in curve.args]
            name = node.name if output == node.output else output
            fields = dict(zip(known.attributes, curve.values, strict=True)) | dict(known.spelling)
            self.op(known.name, inputs, output, name, **fields)
            self.opset = max(self.opset, known.opset)
            return output

        write(node.curve, node.output)

    def rounding(self, node: Quantize, shape: tuple[int, ...]) -> None:
        """QuantizeLinear to int8, a Clip where that has more values, and DequantizeLinear."""
        if node.high - node.low > 255:
            raise InputError(
                f"Layer {node.name!r} must round to 256 values at most to be written, not to "
                f"{node.high - node.low + 1:,}"
            )
        zero = -128 - node.low
        pair = [self.constant(f"{node.name}.scale", np.float32(node.scale)),
                self.constant(f"{node.name}.zero", np.int8(zero))]  # fmt: skip
        steps, source = f"{node.output}.steps", self.read(node.inputs[0], shape)
        self.op("QuantizeLinear", [source, *pair], steps, node.name)
        if node.high - node.low < 255:
            bound = self.constant(f"{node.name}.high", np.int8(node.high + zero))
            self.op("Clip", [steps, "", bound], f"{steps}.bounded", f"{node.name}.bounds")
            steps = f"{steps}.bounded"
        self.op("DequantizeLinear", [steps, *pair], node.output, f"{node.name}.real")

    def affine(self, node: Affine, shape: tuple[int, ...]) -> None:
        """A depthwise convolution with one tap on maps, which stays one node; else Mul and Add."""
        source = self.read(node.inputs[0], shape)
        if len(shape) == 3:
            count = len(node.scale)
            weight = node.scale.reshape(count, 1, 1, 1)
            inputs = [source, *self._weights(node.name, weight, node.offset)]
            self.op("Conv", inputs, node.output, node.name, kernel_shape=[1, 1], group=count)
            return
        scaled = f"{node.output}_scaled"
        scale, offset = self._weights(node.name, node.scale, node.offset)
        self.op("Mul", [source, scale], scaled, f"{node.name}_scale")
        self.op("Add", [scaled, offset], node.output, node.name)


onnx_node: Face[[Writer, tuple[int, ...]], None] = NODES.face("ONNX")
"""Writes a node by a writer; its output has this shape in the file."""

onnx_node.of(Dense)(lambda node, writer, shape: writer.dense(node, shape))
onnx_node.of(Conv, MaxPool, AveragePool)(lambda node, writer, shape: writer.window(node, shape))
onnx_node.of(Affine)(lambda node, writer, shape: writer.affine(node, shape))
onnx_node.of(Function)(lambda node, writer, shape: writer.function(node, shape))
onnx_node.of(Part)(lambda node, writer, shape: writer.part(node, shape))
onnx_node.of(Quantize)(lambda node, writer, shape: writer.rounding(node, shape))
onnx_node.of(Relu, Sign, Clip, Add, Concat)(lambda node, writer, shape: writer.plain(node, shape))


@onnx_node.of(Outputs)
def _several(node: Outputs, writer: Writer, shape: tuple[int, ...]) -> None:
    raise InputError(f"A model of {len(node.sizes)} outputs can't be written as a file")


def _part(node: Node, have: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The layout in which a node reads one of its inputs."""
    if not isinstance(node, Concat):
        return shape
    size = int(np.prod(have))
    if len(shape) == 1:
        return (size,)
    return (*shape[:-1], size // int(np.prod(shape[:-1])))


def _file_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Channels first, as the file has maps."""
    return (shape[2], *shape[:2]) if len(shape) == 3 else (int(np.prod(shape)),)
