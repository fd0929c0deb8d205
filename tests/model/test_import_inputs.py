"""Models of several inputs: what is read as which part, and what runtimes say of them."""

import importlib.util

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx_graphs import save
from quantized_onnx import Qdq

from pvq_hw.errors import InputError
from pvq_hw.model.load import load_model
from pvq_hw.network.network import Network
from pvq_hw.output.verify_model import check_numbers
from pvq_hw.quantizer.quantize import quantize
from pvq_hw.train.finetune import finetune

NAMES = {"x": 6, "z": 4, "u": 2}


def rounded_inputs(tmp_path):
    """A quantized file of three inputs of zero points and scales of their own."""
    q = Qdq(1)
    a = q.rounded("x", 0.0213, 0)
    b = q.rounded("z", 1.917, 128, TensorProto.UINT8)
    c = q.rounded("u", 0.2531, 0, TensorProto.UINT8)
    first = q.node("MatMul", a, q.weights((6, 5), [0.02] * 5, axis=1), name="first")
    second = q.node("MatMul", b, q.weights((4, 5), [0.02] * 5, axis=1), name="second")
    total = q.node("Add", q.rounded(first, 0.031, 3), q.rounded(second, 0.9173, 3), name="total")
    both = q.node("Concat", q.rounded(total, 0.6937, 0), c, a, name="both", axis=1)
    last = q.node("MatMul", q.rounded(both, 0.8111, -3), q.weights((13, 3), [0.02] * 3, axis=1))
    model = q.model((6,), q.rounded(last, 0.4019, 0))
    for name in ("z", "u"):
        kind = TensorProto.FLOAT
        model.graph.input.append(helper.make_tensor_value_info(name, kind, ["N", NAMES[name]]))
    return save(tmp_path, model)


def test_a_quantized_file_keeps_every_inputs_scale(tmp_path):
    path = rounded_inputs(tmp_path)
    model = load_model(path)
    network = quantize(model, quantizer="given")
    assert [spec.scale for _, spec in network.taken()] == pytest.approx([0.0213, 1.917, 0.2531])
    assert (network.input.format.bits, network.input.format.signed) == (9, True)
    assert check_numbers(model, network) == []
    (tmp_path / "n").mkdir()
    network.save(tmp_path / "n")
    assert Network.load(tmp_path / "n") == network
    rng = np.random.default_rng(0)
    data = {
        "x": rng.normal(size=(300, 6)), "z": 80 * rng.normal(size=(300, 4)),
        "u": abs(20 * rng.normal(size=(300, 2))),
    }  # fmt: skip
    data = {name: values.astype(np.float32) for name, values in data.items()}
    if importlib.util.find_spec("onnxruntime"):
        import onnxruntime

        (own,) = onnxruntime.InferenceSession(path).run(None, data)
        steps = (network.real(network.predict(network.quantize_input(data))) - own) / 0.4019
        assert np.abs(steps).max() < 0.01


def added(shapes, kind=TensorProto.FLOAT):
    """Dense layers of inputs of these shapes, added."""
    rng = np.random.default_rng(0)
    nodes, total, constants = [], "", []
    for name, shape in shapes.items():
        size = int(np.prod([n for n in shape[1:] if n != "M"]))
        weight = rng.normal(size=(size, 3)).astype(np.float32)
        constants.append(helper.make_tensor(f"{name}_w", 1, weight.shape, weight.ravel().tolist()))
        nodes.append(helper.make_node("Flatten", [name], [f"{name}_f"]))
        nodes.append(helper.make_node("MatMul", [f"{name}_f", f"{name}_w"], [f"{name}_m"]))
        if total:
            nodes.append(helper.make_node("Add", [total, f"{name}_m"], [f"{name}_s"]))
        total = f"{name}_s" if total else f"{name}_m"
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info(n, kind, s) for n, s in shapes.items()],
        [helper.make_tensor_value_info(total, kind, None)], constants,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_names_shapes_and_orders_are_the_files(tmp_path):
    model = load_model(
        save(tmp_path, added({"a b": ("N", 3, 4, 5), "A_b": ("N", 7), "y": ("N", 2, 6)}))
    )
    assert [(i.name, i.shape, i.axes, i.start) for i in model.inputs] == [
        ("a_b", (3, 4, 5), (1, 2, 0), 0), ("A_b_2", (7,), (0,), 60), ("y_2", (2, 6), (0, 1), 67),
    ]  # fmt: skip
    assert (model.input_shape, model.shape, model.output_shape) == ((79,), (79,), (3,))


def test_inputs_that_do_not_go_together_are_refused(tmp_path):
    def refused(shapes, text):
        with pytest.raises(InputError, match=text):
            load_model(save(tmp_path, added(shapes)))

    refused({"a": ("N", 3), "b": (2, 3)}, "must have as many frames in all inputs, not ")
    refused({"a": ("N", 3), "b": ("N", "M")}, "input 'b' must have a fixed size of 1 or more")
    refused({"a": (2, 3), "b": (1, 3)}, "must have as many frames in all inputs")
    fixed = load_model(save(tmp_path, added({"a": (2, 3), "b": (2, 3)})))
    assert len(fixed.inputs) == 2
    with pytest.raises(InputError, match="Fine-tuning must have a model of one input, not of 'a'"):
        finetune(fixed, np.zeros((20, 6)), ratio=1)


def test_tensorflow_lite_files_have_several_too(tmp_path):
    pytest.importorskip("ai_edge_litert")
    from tflite_files import TfliteFiles

    from pvq_hw.data.dataset import Data
    from pvq_hw.model.own_graph import check_own_graph

    rng, f = np.random.default_rng(0), TfliteFiles()
    image, vector = f.tensor("image", (1, 4, 3, 2)), f.tensor("vector", (1, 5))
    weight, bias = (f.constant(rng.standard_normal(s)) for s in ((2, 2, 2, 2), (2,)))
    a = f.operator("CONV_2D", [image, weight, bias], f.tensor("conv", (1, 2, 2, 2)),
                   "Conv2DOptions", strideW=2, strideH=2)  # fmt: skip
    flat = f.operator("RESHAPE", [a, f.constant(np.array([-1, 8]))], f.tensor("flat", (1, 8)))
    both = f.operator("CONCATENATION", [flat, vector], f.tensor("both", (1, 13)),
                      "ConcatenationOptions", axis=1)  # fmt: skip
    last = f.operator(
        "FULLY_CONNECTED", [both, f.constant(rng.standard_normal((3, 13))), -1],
        f.tensor("fc", (1, 3)), "FullyConnectedOptions",
    )  # fmt: skip
    path = tmp_path / "m.tflite"
    path.write_bytes(f.bytes([image, vector], last))
    model = load_model(path)
    assert [(i.name, i.shape, i.axes) for i in model.inputs] == [
        ("image", (4, 3, 2), (0, 1, 2)), ("vector", (5,), (0,)),
    ]  # fmt: skip
    found = check_own_graph(path, model, Data(rng.standard_normal((20, 29))))
    assert found is not None
    assert (found.runtime, found.error < 1e-5) == ("ai-edge-litert", True)
