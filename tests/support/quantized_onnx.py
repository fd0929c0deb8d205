"""Small quantized ONNX models: QDQ and QCDQ by hand, and by ONNX Runtime's quantizer."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["Qdq", "asymmetric", "float_network", "quantized_by_runtime"]

N = helper.make_node


class Qdq:
    """A graph with QuantizeLinear and DequantizeLinear, under construction."""

    def __init__(self, seed: int = 0, opset: int = 21) -> None:
        self.rng = np.random.default_rng(seed)
        self.opset = opset
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: Any, kind: int = TensorProto.FLOAT) -> str:
        """A new initializer."""
        name = f"c{len(self.constants)}"
        array = np.asarray(value)
        self.constants.append(helper.make_tensor(name, kind, array.shape, array.ravel().tolist()))
        return name

    def node(
        self, kind: str, *inputs: str, name: str = "", domain: str = "", **attributes: Any
    ) -> str:
        """A node; returns its output."""
        output = f"{name or kind}{len(self.nodes)}"
        self.nodes.append(N(kind, inputs, [output], name=name, domain=domain, **attributes))
        return output

    def rounded(self, x: str, scale: float, zero: int = 0, kind: int = TensorProto.INT8,
                clip: tuple[int, int] | None = None) -> str:  # fmt: skip
        """``x`` behind QuantizeLinear, perhaps Clip, and DequantizeLinear."""
        pair = [self.constant(np.float32(scale)), self.constant(zero, kind)]
        steps = self.node("QuantizeLinear", x, *pair)
        if clip:
            steps = self.node("Clip", steps, *(self.constant(bound, kind) for bound in clip))
        return self.node("DequantizeLinear", steps, *pair)

    def weights(self, shape: tuple[int, ...], scale: Any, zero: Any = 0, axis: int = 0,
                kind: int = TensorProto.INT8, low: int = -127, high: int = 127) -> str:  # fmt: skip
        """Random integers behind a DequantizeLinear, per tensor or along ``axis``."""
        values = self.constant(self.rng.integers(low, high + 1, shape), kind)
        scale = np.asarray(scale, dtype=np.float32)
        zero = self.constant(np.broadcast_to(zero, scale.shape), kind)
        return self.node("DequantizeLinear", values, self.constant(scale), zero, axis=axis)

    def biases(self, count: int, scale: float) -> str:
        """Random 32-bit biases behind a DequantizeLinear."""
        values = self.constant(self.rng.integers(-900, 900, count), TensorProto.INT32)
        zero = self.constant(0, TensorProto.INT32)
        return self.node("DequantizeLinear", values, self.constant(np.float32(scale)), zero)

    def model(self, shape: tuple[int, ...], output: str) -> onnx.ModelProto:
        """The model; its input is ``x``."""
        graph = helper.make_graph(
            self.nodes, "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)], self.constants,
        )  # fmt: skip
        domains = {node.domain for node in self.nodes}
        opsets = [helper.make_opsetid(d, self.opset if not d else 1) for d in {"", *domains}]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def asymmetric(seed: int = 0) -> onnx.ModelProto:
    """Every operator that quantized files have, on 4 x 4 maps, with zero points all over: padded
    convolutions (one depthwise), sums, concatenations, poolings, and a dense layer."""
    q = Qdq(seed)
    small = {"low": -9, "high": 9}
    x = q.rounded("x", 0.0213, -7)
    a = q.node("Conv", x, q.weights((4, 2, 3, 3), [0.0457, 0.0391, 0.0532, 0.0613], **small),
               q.biases(4, 0.00091), name="a", pads=[1, 1, 1, 1])  # fmt: skip
    a = q.rounded(a, 0.0317, 11)
    b = q.node("Conv", a, q.weights((4, 1, 3, 3), 0.0461, **small), name="b", group=4,
               pads=[1, 1, 1, 1])  # fmt: skip
    b = q.rounded(q.node("Relu", b), 0.0287, 3, TensorProto.UINT8)
    c = q.rounded(q.node("Add", a, b, name="sum"), 0.0363, -20)
    d = q.node("MaxPool", c, name="most", kernel_shape=[2, 2], strides=[2, 2])
    e = q.node("AveragePool", c, name="mean", kernel_shape=[2, 2], strides=[2, 2])
    e = q.rounded(e, 0.0337, -19)
    f = q.rounded(q.node("Concat", d, e, name="both", axis=1), 0.0353, -15)
    f = q.node("Flatten", f)
    w = q.weights((32, 3), [0.0173, 0.0149, 0.0111], axis=1, **small)
    return q.model((2, 4, 4), q.rounded(q.node("MatMul", f, w, name="fc"), 0.0419, 30))


def float_network(seed: int = 0) -> onnx.ModelProto:
    """Two convolutions, a sum, a pooling and two dense layers."""
    rng = np.random.default_rng(seed)

    def real(name: str, *shape: int) -> Any:
        values = rng.standard_normal(shape) / np.sqrt(max(1, np.prod(shape[1:])))
        return numpy_helper.from_array(values.astype(np.float32), name)

    shapes = {"w1": (4, 2, 3, 3), "b1": (4,), "w2": (4, 4, 3, 3), "b2": (4,), "w3": (36, 8),
              "b3": (8,), "w4": (8, 4)}  # fmt: skip
    nodes = [
        N("Conv", ["x", "w1", "b1"], ["c1"], name="c1", pads=[1, 1, 1, 1]),
        N("Relu", ["c1"], ["r1"]),
        N("Conv", ["r1", "w2", "b2"], ["c2"], name="c2", pads=[1, 1, 1, 1]),
        N("Add", ["c2", "r1"], ["a"], name="a"),
        N("Relu", ["a"], ["r2"]),
        N("MaxPool", ["r2"], ["p"], name="p", kernel_shape=[2, 2], strides=[2, 2]),
        N("Flatten", ["p"], ["f"]),
        N("Gemm", ["f", "w3", "b3"], ["g"], name="g"),
        N("MatMul", ["g", "w4"], ["out"], name="m"),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2, 6, 6])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", 4])],
        [real(name, *shape) for name, shape in shapes.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def quantized_by_runtime(folder: Path, form: str, **options: Any) -> Path:
    """`float_network` by ONNX Runtime's static quantizer, as ``QDQ`` or ``QOperator``."""
    from onnxruntime import quantization

    rng = np.random.default_rng(1)
    frames = iter([{"x": rng.standard_normal((1, 2, 6, 6)).astype(np.float32)} for _ in range(30)])

    class Reader(quantization.CalibrationDataReader):
        def get_next(self) -> Any:
            return next(frames, None)

    (folder / "float.onnx").write_bytes(float_network().SerializeToString())
    path = folder / f"{form}.onnx"
    logging.disable(logging.WARNING)
    try:
        quantization.quantize_static(
            str(folder / "float.onnx"), str(path), Reader(),
            quant_format=getattr(quantization.QuantFormat, form), **options,
        )  # fmt: skip
    finally:
        logging.disable(logging.NOTSET)
    return path
