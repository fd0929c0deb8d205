"""Small TensorFlow Lite files, made with the schema's own classes."""

from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

__all__ = ["KINDS", "TfliteFiles", "everything", "integers", "packed", "shared", "tiny"]

KINDS = {"float32": 0, "int32": 2, "uint8": 3, "int64": 4, "int16": 7, "int8": 9}


@dataclass
class TfliteFiles:
    """A file with one subgraph, under construction."""

    tensors: list[Any] = field(default_factory=list)
    buffers: list[Any] = field(default_factory=lambda: [schema.BufferT()])
    operators: list[Any] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)

    def tensor(self, name: str, shape: Any, kind: str = "float32", values: Any = None,
               scale: Any = None, zero: Any = 0, axis: int = 0) -> int:  # fmt: skip
        """A tensor, constant with ``values``; returns its index."""
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name, list(shape), KINDS[kind]
        tensor.buffer = 0
        if values is not None:
            tensor.buffer = len(self.buffers)
            buffer = schema.BufferT()
            buffer.data = np.asarray(values, dtype=kind).reshape(-1).view(np.uint8)
            self.buffers.append(buffer)
        if scale is not None:
            q = schema.QuantizationParametersT()
            q.scale = np.asarray(scale, dtype=np.float32).reshape(-1)
            q.zeroPoint = np.broadcast_to(np.asarray(zero, dtype=np.int64), q.scale.shape).copy()
            q.quantizedDimension = axis
            tensor.quantization = q
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def constant(self, values: Any) -> int:
        """A constant of 32-bit floats or integers."""
        array = np.asarray(values)
        kind = "float32" if array.dtype.kind == "f" else "int32"
        return self.tensor(f"c{len(self.tensors)}", array.shape, kind, array)

    def operator(self, kind: str, inputs: list[int], output: int, options: str = "",
                 **fields: Any) -> int:  # fmt: skip
        """An operator (``CONV_2D``) with options (``Conv2DOptions``); returns its output."""
        code = getattr(schema.BuiltinOperator, kind)
        if code not in self.codes:
            self.codes.append(code)
        op = schema.OperatorT()
        op.opcodeIndex, op.inputs, op.outputs = self.codes.index(code), inputs, [output]
        if options:
            op.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            op.builtinOptions = getattr(schema, options + "T")()
            for name, value in fields.items():
                assert hasattr(op.builtinOptions, name), name
                setattr(op.builtinOptions, name, value)
        self.operators.append(op)
        return output

    def bytes(self, source: int | list[int], *results: int) -> bytes:
        """The file of an input, or of several."""
        graph = schema.SubGraphT()
        graph.tensors, graph.operators = self.tensors, self.operators
        graph.outputs = list(results)
        graph.inputs = source if isinstance(source, list) else [source]
        model = schema.ModelT()
        model.version, model.subgraphs, model.buffers = 3, [graph], self.buffers
        model.operatorCodes = []
        for number in self.codes:
            code = schema.OperatorCodeT()
            code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, 127), 1
            model.operatorCodes.append(code)
        return packed(model)


def packed(model: Any) -> bytes:
    """A model of the schema's classes as a file."""
    builder = flatbuffers.Builder(1 << 12)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def shared(name: int = 1, scales: int = 0, inputs: int = 1, operators: int = 1) -> bytes:
    """A file whose 20,000 tensors are one table, of a name of so many letters and so many scales,
    and whose operators are one table that reads a tensor so many times."""
    b = flatbuffers.Builder(1 << 20)

    def made(table: str, **fields: Any) -> int:
        getattr(schema, f"{table}Start")(b)
        for field_name, value in fields.items():
            getattr(schema, f"{table}Add{field_name}")(b, value)
        return int(getattr(schema, f"{table}End")(b))

    def vector(table: int, count: int = 1) -> int:
        b.StartVector(4, count, 4)
        for _ in range(count):
            b.PrependUOffsetTRelative(table)
        return int(b.EndVector())

    def numbers(values: Any, kind: str = "<i4") -> int:
        return int(b.CreateNumpyVector(np.asarray(values, dtype=kind)))

    more = {}
    if scales:
        scale = numbers(np.full(scales, 0.5), "<f4")
        more = {"Type": 9, "Quantization": made("QuantizationParameters", Scale=scale)}
    text, shape = b.CreateString("a" * name), numbers([max(1, scales)])
    tensor = made("Tensor", Shape=shape, Name=text, **more)
    first, second, many = numbers([0]), numbers([1]), numbers(np.zeros(inputs))
    operator = made("Operator", Inputs=many, Outputs=second)
    graph = made("SubGraph", Tensors=vector(tensor, 20_000), Inputs=first, Outputs=second,
                 Operators=vector(operator, operators))  # fmt: skip
    relu = made("OperatorCode", BuiltinCode=19, DeprecatedBuiltinCode=19)
    model = made("Model", Version=3, Subgraphs=vector(graph), OperatorCodes=vector(relu),
                 Buffers=vector(made("Buffer")))  # fmt: skip
    b.Finish(model, b"TFL3")
    return bytes(b.Output())


def everything(seed: int = 0, *, several: bool = False) -> bytes:
    """A float file of 6 x 5 x 2 maps that has every operator which a float file may have here;
    with ``several`` outputs classes, a sum within, and what the classes are of."""
    rng = np.random.default_rng(seed)
    f = TfliteFiles()

    def real(*shape: int) -> int:
        return f.constant(rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:])))

    def grow(name: str, *shape: int) -> int:
        return f.tensor(name, (1, *shape))

    x = grow("images", 6, 5, 2)
    scaled = f.operator("MUL", [x, f.constant(np.array([0.5, 2.0]))], grow("scaled", 6, 5, 2),
                        "MulOptions")  # fmt: skip
    wide = f.operator(
        "PAD", [scaled, f.constant(np.array([[0, 0], [1, 0], [0, 1], [0, 0]]))],
        grow("wide", 7, 6, 2), "PadOptions",
    )  # fmt: skip
    a = f.operator("CONV_2D", [wide, real(4, 3, 2, 2), real(4)], grow("a;b", 5, 5, 4),
                   "Conv2DOptions", padding=1, strideW=1, strideH=1,
                   fusedActivationFunction=3)  # fmt: skip
    b = f.operator("DEPTHWISE_CONV_2D", [a, real(1, 3, 3, 8), real(8)], grow("", 3, 3, 8),
                   "DepthwiseConv2DOptions", padding=0, strideW=2, strideH=2, depthMultiplier=2,
                   fusedActivationFunction=0)  # fmt: skip
    c = f.operator("RELU", [b], grow("relu", 3, 3, 8))
    d = f.operator("CONV_2D", [c, real(8, 2, 2, 8), real(8)], grow("a", 3, 3, 8), "Conv2DOptions",
                   padding=0, strideW=1, strideH=1, dilationWFactor=2,
                   dilationHFactor=1)  # fmt: skip
    e = f.operator("ADD", [c, d], grow("sum", 3, 3, 8), "AddOptions", fusedActivationFunction=1)
    g = f.operator("MAX_POOL_2D", [e], grow("most", 2, 2, 8), "Pool2DOptions", padding=0,
                   strideW=2, strideH=2, filterWidth=2, filterHeight=2)  # fmt: skip
    h = f.operator("AVERAGE_POOL_2D", [e], grow("mean", 2, 2, 8), "Pool2DOptions", padding=0,
                   strideW=2, strideH=2, filterWidth=3, filterHeight=2)  # fmt: skip
    i = f.operator("CONCATENATION", [g, h], grow("both", 2, 2, 16), "ConcatenationOptions", axis=3)
    j = f.operator("RELU6", [i], grow("six", 2, 2, 16))
    k = f.operator("MEAN", [j, f.constant(np.array([1, 2]))], grow("middle", 16),
                   "ReducerOptions", keepDims=False)  # fmt: skip
    flat = f.operator("RESHAPE", [j, f.constant(np.array([-1, 64]))], grow("flat", 64))
    m = f.operator("FULLY_CONNECTED", [flat, real(16, 64), real(16)], grow("fc", 16),
                   "FullyConnectedOptions", fusedActivationFunction=1)  # fmt: skip
    n = f.operator("ADD", [k, m], grow("sum2", 16), "AddOptions")
    o = f.operator("FULLY_CONNECTED", [n, real(3, 16), -1], grow("logits", 3),
                   "FullyConnectedOptions")  # fmt: skip
    p = f.operator("SOFTMAX", [o], grow("classes", 3), "SoftmaxOptions", beta=1.0)
    return f.bytes(x, p, e, o) if several else f.bytes(x, p)


def tiny() -> bytes:
    """A float file of a convolution and a dense layer on 4 x 3 x 1 maps."""
    rng = np.random.default_rng(0)
    f = TfliteFiles()
    x = f.tensor("x", (1, 4, 3, 1))
    weight, bias = (f.constant(rng.standard_normal(s)) for s in ((2, 2, 2, 1), (2,)))
    a = f.operator("CONV_2D", [x, weight, bias], f.tensor("conv", (1, 2, 2, 2)), "Conv2DOptions",
                   padding=0, strideW=2, strideH=2, fusedActivationFunction=1)  # fmt: skip
    weight = f.constant(rng.standard_normal((3, 8)))
    y = f.operator("FULLY_CONNECTED", [a, weight, -1], f.tensor("fc", (1, 3)),
                   "FullyConnectedOptions")  # fmt: skip
    return f.bytes(x, y)


def integers(seed: int = 0) -> bytes:
    """An int8 file on 5 x 4 x 3 maps: weights by channel, zero points all over."""
    rng = np.random.default_rng(seed)
    f = TfliteFiles()

    def grow(name: str, shape: tuple[int, ...], scale: float, zero: int) -> int:
        return f.tensor(name, (1, *shape), "int8", scale=[scale], zero=zero)

    def weights(shape: tuple[int, ...], axis: int, scale: float) -> list[int]:
        """Weights, and biases in the scales that they and the input have."""
        count = shape[axis]
        own = rng.uniform(0.7, 1.4, count) * 1.2 / (73 * np.sqrt(np.prod(shape) / count))
        w = f.tensor("w", shape, "int8", rng.integers(-127, 128, shape), own, axis=axis)
        b = f.tensor("b", (count,), "int32", rng.integers(-500, 500, count), own * scale)
        return [w, b]

    x = grow("x", (5, 4, 3), 0.0231, -11)
    a = f.operator("CONV_2D", [x, *weights((4, 3, 3, 3), 0, 0.0231)],
                   grow("conv", (5, 4, 4), 0.0257, 5), "Conv2DOptions", padding=0, strideW=1,
                   strideH=1, fusedActivationFunction=0)  # fmt: skip
    b = f.operator("DEPTHWISE_CONV_2D", [a, *weights((1, 3, 3, 4), 3, 0.0257)],
                   grow("deep", (5, 4, 4), 0.0149, -128), "DepthwiseConv2DOptions", padding=0,
                   strideW=1, strideH=1, depthMultiplier=1, fusedActivationFunction=1)  # fmt: skip
    c = f.operator("ADD", [a, b], grow("sum", (5, 4, 4), 0.0311, -30), "AddOptions",
                   fusedActivationFunction=0)  # fmt: skip
    d = f.operator("MAX_POOL_2D", [c], grow("most", (2, 2, 4), 0.0311, -30), "Pool2DOptions",
                   padding=1, strideW=2, strideH=2, filterWidth=2, filterHeight=2)  # fmt: skip
    # Of three values: means of an even number are halves, which TensorFlow Lite rounds away from 0.
    e = f.operator("AVERAGE_POOL_2D", [c], grow("mean", (2, 2, 4), 0.0311, -30), "Pool2DOptions",
                   padding=1, strideW=2, strideH=2, filterWidth=1, filterHeight=3)  # fmt: skip
    g = f.operator("CONCATENATION", [d, e], grow("both", (2, 2, 8), 0.0311, -30),
                   "ConcatenationOptions", axis=3)  # fmt: skip
    shape = f.constant(np.array([-1, 32]))
    h = f.operator("RESHAPE", [g, shape], grow("flat", (32,), 0.0311, -30))
    i = f.operator("FULLY_CONNECTED", [h, *weights((3, 32), 0, 0.0311)],
                   grow("fc", (3,), 0.0293, 7), "FullyConnectedOptions")  # fmt: skip
    y = f.operator("SOFTMAX", [i], grow("classes", (3,), 1 / 256, -128), "SoftmaxOptions",
                   beta=1.0)  # fmt: skip
    return f.bytes(x, y)
