"""Small ONNX models for the tests, and the reference evaluator of the format."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def graph_model(nodes: list[Any], constants: dict[str, Any], shape: tuple[Any, ...], *,
                opset: int = 17, output: str = "out", out_type: int = TensorProto.DOUBLE,
                dtype: Any = np.float64, ir: int = 8) -> onnx.ModelProto:  # fmt: skip
    """A model with the input ``x`` (frames first) and double constants."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    tensors = [
        value if isinstance(value, TensorProto) else numpy_helper.from_array(
            np.asarray(value) if np.asarray(value).dtype.kind != "f"
            else np.asarray(value, dtype=dtype), name)
        for name, value in constants.items()
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(output, out_type, [None])], tensors,
    )  # fmt: skip
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir)


def save(tmp_path: Path, model: onnx.ModelProto, name: str = "m.onnx") -> Path:
    """Writes a model; returns its path."""
    path = tmp_path / name
    path.write_bytes(model.SerializeToString())
    return path


def as_double(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with double weights and input, so that the reference computes in float64."""
    double = onnx.ModelProto()
    double.CopyFrom(model)
    for tensor in double.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor).astype(np.float64)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for value in [*double.graph.input, *double.graph.output]:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    return double


def as_single(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with 32-bit weights, input and output, as runtimes have them."""
    single = onnx.ModelProto()
    single.CopyFrom(model)
    for tensor in single.graph.initializer:
        if tensor.data_type == TensorProto.DOUBLE:
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for value in [*single.graph.input, *single.graph.output]:
        value.type.tensor_type.elem_type = TensorProto.FLOAT
    return single


def reference(model: onnx.ModelProto, x: np.ndarray, names: list[str] | None = None) -> list[Any]:
    """Outputs of the format's own reference implementation."""
    return ReferenceEvaluator(model).run(names, {model_input(model): x})


def model_input(model: onnx.ModelProto) -> str:
    """Name of the one input that isn't an initializer."""
    weights = {t.name for t in model.graph.initializer}
    return next(i.name for i in model.graph.input if i.name not in weights)


def channel_last(array: np.ndarray) -> np.ndarray:
    """(frames, C, ...) -> (frames, values), channels last."""
    return np.moveaxis(array, 1, -1).reshape(len(array), -1)
