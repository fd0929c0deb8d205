"""onnx's own node cases, as networks: each with a small dense layer behind it, so that there is
something to quantize. The cases come from the package's generators, none is copied."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from pvq_hw.model.onnx import read as importer  # the operators register themselves
from pvq_hw.model.onnx.lowering import handlers

__all__ = ["NodeCase", "node_cases"]

_ROWS = 4


@dataclass(frozen=True)
class NodeCase:
    """A case whose first input is real and has frames on its first axis.

    Parameters
    ----------
    name : str
    model : onnx.ModelProto
        The case's node with its other inputs as constants, and a layer behind it.
    x : float array (frames, ...)
    expected : float array (frames, 4)
        What the generator says of it, through the layer.
    bound : float
        How far an exact result may be off: 32-bit sums, and expected values that some generators
        have written out with four decimals, from which onnxruntime differs as much.
    """

    name: str
    model: onnx.ModelProto
    x: np.ndarray
    expected: np.ndarray
    bound: float


def node_cases(kinds: set[str] | None = None) -> Iterator[NodeCase]:
    """The cases of operators that the importer takes (of ``kinds``, where given) that have frames:
    real inputs and outputs of two axes or more, as many frames in as out."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = collect_testcases(None)
    assert importer
    known = set(handlers())
    for case in found:
        used = {node.op_type for node in case.model.graph.node}
        if not used <= known or (kinds is not None and not used & kinds):
            continue
        inputs, outputs = case.data_sets[0]
        first = next((i for i, a in enumerate(inputs) if _is_frames(a)), None)
        if first is None or not _is_frames(outputs[0]):
            continue
        if len(outputs[0]) != len(inputs[first]) or len(case.model.graph.input) != len(inputs):
            continue
        yield _with_layer(case.name, case.model, inputs, outputs[0], first)


def _is_frames(value: object) -> bool:
    array = isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.ndim >= 2
    return bool(array and value.size)  # type: ignore[attr-defined]


def _with_layer(name, model, inputs, output, first) -> NodeCase:
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    x = np.asarray(inputs[first])
    for value, array in zip(list(graph.input), inputs, strict=True):
        if value.name != graph.input[first].name:
            graph.initializer.append(numpy_helper.from_array(np.asarray(array), value.name))
    source = onnx.ValueInfoProto()
    source.CopyFrom(graph.input[first])
    del graph.input[:]
    graph.input.append(source)
    flat = output.reshape(len(output), -1).astype(np.float64)
    weight = np.random.default_rng(0).standard_normal((flat.shape[1], _ROWS))
    last = graph.output[0].name
    kind = helper.np_dtype_to_tensor_dtype(output.dtype)
    graph.initializer.append(numpy_helper.from_array(weight.astype(output.dtype), "layer_w"))
    version = next(o.version for o in made.opset_import if o.domain in ("", "ai.onnx"))
    assert version >= 7
    graph.node.append(helper.make_node("Flatten", [last], ["layer_x"], axis=1))
    graph.node.append(helper.make_node("MatMul", ["layer_x", "layer_w"], ["layer_y"]))
    del graph.output[:], graph.value_info[:]
    graph.output.append(helper.make_tensor_value_info("layer_y", kind, [len(output), _ROWS]))
    sums = np.abs(flat) @ np.abs(weight)
    bound = (2e-2 if x.dtype == np.float16 else 1e-4) * float(sums.max())
    if np.array_equal(flat.astype(np.float32), flat.round(4).astype(np.float32)):
        bound += 1e-4 * float(np.abs(weight).sum(axis=0).max())
    return NodeCase(name, made, x, flat @ weight, bound)
