"""onnx's own node cases, as networks: each with a small dense layer behind it, so that there is
something to quantize. The cases come from the package's generators, none is copied."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from pvq_hw.model.curve import PRIMITIVES
from pvq_hw.model.onnx import read as importer  # the operators register themselves
from pvq_hw.model.onnx.lowering import handlers

__all__ = ["NodeCase", "node_cases"]

_ROWS = 4
# Of these any axis may come before: what they do to a value doesn't depend on where it is.
_SINGLE = {p.name for p in PRIMITIVES.values()} | {
    "Relu", "Clip", "PRelu", "Sum", "Mean", "Identity", "Dropout", "Cast", "Constant",
}  # fmt: skip


@dataclass(frozen=True)
class NodeCase:
    """A case with frames on the first axis of its real inputs, in one way to have them.

    Parameters
    ----------
    name : str
        The generator's; several ways have the same.
    model : onnx.ModelProto
        The case's node, and a layer behind it.
    x : float array (frames, ...)
        Its input, or several side by side as the importer takes them.
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
    """The cases of operators that the importer takes (of ``kinds``, where given), in every way
    that they can have frames: the first axis of one real input, the others constant; that of all
    real inputs of that length; and where a value's place doesn't matter, an axis before all."""
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
        if len(case.model.graph.input) != len(inputs) or not _is_real(outputs[0], 0):
            continue
        for chosen, before in _ways(used, inputs, outputs[0]):
            yield _with_layer(case.name, case.model, inputs, outputs[0], chosen, before)


def _ways(
    used: set[str], inputs: list[object], output: np.ndarray
) -> Iterator[tuple[list[int], bool]]:
    """Which inputs have frames, and whether on an axis that is put before them."""
    real = [i for i, a in enumerate(inputs) if _is_real(a, 2)]
    if real and output.ndim >= 2 and len(output) == len(inputs[real[0]]):  # type: ignore[arg-type]
        yield [real[0]], False
        several = [i for i in real if len(inputs[i]) == len(output)]  # type: ignore[arg-type]
        if len(several) > 1:
            yield several, False
    first = next((i for i, a in enumerate(inputs) if _is_real(a, 1)), None)
    if used <= _SINGLE and first is not None and inputs[first].shape == output.shape:  # type: ignore[attr-defined]
        yield [first], True


def _is_real(value: object, rank: int) -> bool:
    array = isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.ndim >= rank
    return bool(array and value.size)  # type: ignore[attr-defined]


def _with_layer(name, model, inputs, output, chosen, before) -> NodeCase:
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    kept = [onnx.ValueInfoProto() for _ in chosen]
    for value, i in zip(kept, chosen, strict=True):
        value.CopyFrom(graph.input[i])
    for i, (value, array) in enumerate(zip(list(graph.input), inputs, strict=True)):
        if i not in chosen:
            graph.initializer.append(numpy_helper.from_array(np.asarray(array), value.name))
    arrays = [np.asarray(inputs[i]) for i in chosen]
    if before:
        arrays, output = [a[None] for a in arrays], output[None]
    del graph.input[:]
    for value, array in zip(kept, arrays, strict=True):
        kind = value.type.tensor_type.elem_type
        graph.input.append(helper.make_tensor_value_info(value.name, kind, array.shape))
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
    bound = (2e-2 if output.dtype == np.float16 else 1e-4) * float(sums.max())
    if np.array_equal(flat.astype(np.float32), flat.round(4).astype(np.float32)):
        bound += 1e-4 * float(np.abs(weight).sum(axis=0).max())
    x = arrays[0]
    if len(arrays) > 1:
        x = np.concatenate([a.reshape(len(a), -1) for a in arrays], axis=1)
    return NodeCase(name, made, x, flat @ weight, bound)
