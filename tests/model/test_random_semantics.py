"""Random networks, node by node: the import computes what onnxruntime computes."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from onnx_graphs import as_single, channel_last, graph_model, save
from random_onnx import random_models

from pvq_hw.errors import InputError
from pvq_hw.model.load import load_model
from pvq_hw.model.model import Conv, Model

CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
QUIET = {"deadline": None, "derandomize": True, "suppress_health_check": CHECKS}
# Why a network may not end at a node in its middle.
ENDS = (
    "must have a Gemm, MatMul or Conv",
    "must be computed from the input",
    "must not be the result of a Pad",
    "must not be reordered",
    "must be by one constant per channel",
)
# Of the largest value of a tensor: what float32 loses over some layers.
TOLERANCE = 1e-4


def ending_at(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """The model whose output is one of its tensors, with the nodes as far as that."""
    part = onnx.ModelProto()
    part.CopyFrom(model)
    names = [node.output[0] for node in model.graph.node]
    del part.graph.node[names.index(name) + 1 :]
    part.graph.output[0].name = name
    return part


def runtime(model: onnx.ModelProto, x: np.ndarray) -> dict[str, np.ndarray]:
    """The output of every node, by its name."""
    every = onnx.ModelProto()
    every.CopyFrom(model)
    del every.graph.output[:]
    for node in model.graph.node:
        every.graph.output.append(onnx.helper.make_empty_tensor_value_info(node.output[0]))
        every.graph.output[-1].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(every.SerializeToString(), options)
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, {"x": x}), strict=True))


def load_part(path: Path) -> Model | None:
    """The import of a part of a network; None where no network may end like that."""
    try:
        return load_model(path)
    except InputError as error:
        if not any(reason in str(error) for reason in ENDS):
            raise
        return None


def compare(tmp_path, case) -> int:
    """Compares every node at which a network may end; gives their number."""
    model, shape = case
    model = as_single(model)
    x = np.random.default_rng(0).standard_normal((3, *shape)).astype(np.float32)
    compared = 0
    for name, expected in runtime(model, x).items():
        imported = load_part(save(tmp_path, ending_at(model, name)))
        if imported is None:
            assert name != model.graph.output[0].name
            continue
        if imported.dropped:  # a Sigmoid is left out where the network ends
            continue
        orders = (channel_last(expected), expected.reshape(len(x), -1))
        got, bound = imported.predict(x), TOLERANCE * np.abs(expected).max() + 1e-6
        nearest = min(np.abs(got - e).max() for e in orders)
        assert nearest <= bound, f"{name}: off by {nearest} of {np.abs(expected).max()}"
        compared += 1
    return compared


@settings(max_examples=20, **QUIET)
@given(random_models())
def test_every_node_means_what_the_runtime_computes(tmp_path, case):
    assert compare(tmp_path, case) >= 1


@pytest.mark.slow
@settings(max_examples=300, **QUIET)
@given(random_models())
def test_every_node_of_many_networks_means_what_the_runtime_computes(tmp_path, case):
    assert compare(tmp_path, case) >= 1


def test_a_wrong_node_is_seen(tmp_path, monkeypatch):
    right = Conv.compute
    weight = np.random.default_rng(1).standard_normal((2, 1, 3, 3))
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    case = graph_model([node], {"w": weight}, ("N", 1, 5, 5), output="y"), (1, 5, 5)
    assert compare(tmp_path, case) == 1
    monkeypatch.setattr(Conv, "compute", lambda self, *x: right(self, *x) * 1.001)
    with pytest.raises(AssertionError, match="off by"):
        compare(tmp_path, case)
