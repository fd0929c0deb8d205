"""A model that can't be taken names everything that stops it, in one line."""

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx_graphs import graph_model, save

from pvq_hw.errors import InputError
from pvq_hw.model.load import load_model
from pvq_hw.model.onnx.read import examine_onnx
from pvq_hw.quantizer.quantize import quantize

N = helper.make_node
RNG = np.random.default_rng(4)


def refusal(tmp_path, nodes, constants, shape, **options):
    with pytest.raises(InputError) as caught:
        load_model(save(tmp_path, graph_model(nodes, constants, shape, **options)))
    text = str(caught.value)
    assert text.isprintable()
    return text


def test_all_nodes_at_fault_are_named_at_once(tmp_path):
    """What follows a refused node is looked at too: its shape is known without it."""
    nodes = [
        N("Conv", ["x", "w"], ["c"], name="conv"),
        N("Sin", ["c"], ["s"], name="sine"),
        N("MaxPool", ["s"], ["p"], name="pool", kernel_shape=[2, 2], dilations=[2, 2]),
        N("Cos", ["p"], ["q"], name="cosine"),
        N("Sin", ["q"], ["r"], name="again"),
        N("Flatten", ["r"], ["f"]),
        N("Gemm", ["f", "g"], ["out"], name="last", transA=1),
    ]
    rng = np.random.default_rng(0)
    constants = {"w": rng.standard_normal((2, 1, 3, 3)), "g": rng.standard_normal((8, 3))}
    text = refusal(tmp_path, nodes, constants, ("N", 1, 6, 6))
    assert "m.onnx: 5 things stop it: " in text
    assert "nodes 'sine', 'again' have the operation 'Sin'; " in text
    assert "node 'cosine' has the operation 'Cos'; " in text
    assert "node 'pool' (MaxPool) must have dilations of 1, not (2, 2)" in text
    assert "node 'last' (Gemm) must not sum over the frames" in text
    assert text.count("supported are ") == 1
    assert text.endswith("; pvq-hw check says what to do instead")
    found = examine_onnx(tmp_path / "m.onnx")
    assert found.judged == set(range(7))
    assert [node.op for _, node in found.nodes] == ["Conv"]


def test_several_inputs_are_named_beside_operations(tmp_path):
    nodes = [N("Add", ["x", "x2"], ["s"]), N("Sin", ["s"], ["out"]), N("Relu", ["s"], ["two"])]
    model = graph_model(nodes, {}, ("N", 4))
    kind = TensorProto.DOUBLE
    model.graph.input.append(helper.make_tensor_value_info("x2", kind, ("N", "M")))
    model.graph.output.append(helper.make_tensor_value_info("two", kind, ("N", 4)))
    with pytest.raises(InputError) as caught:
        load_model(save(tmp_path, model))
    text = str(caught.value)
    assert "2 things stop it: input 'x2' must have a fixed size" in text
    assert "; node 'out' has the operation 'Sin'" in text


def test_what_reads_an_unknown_shape_is_not_judged(tmp_path):
    nodes = [
        N("NonZero", ["x"], ["z"], name="gone"),
        N("Gemm", ["z", "g"], ["y"], name="after", transA=1),
        N("Sin", ["y"], ["out"], name="sine"),
    ]
    text = refusal(tmp_path, nodes, {"g": np.ones((4, 3))}, ("N", 4))
    assert "2 things stop it: node 'gone' has the operation 'NonZero'" in text
    assert "after" not in text
    assert examine_onnx(tmp_path / "m.onnx").judged == {0, 2}


def test_many_reasons_and_hostile_names_stay_one_bounded_line(tmp_path):
    nodes = [N("Gemm", ["x", "w"], ["t0"])]
    nodes += [
        N(f"Odd{i}\n", [f"t{i}"], [f"t{i + 1}"], name="<b>\n\x1b[31m" + "n" * 500, domain="a.b")
        for i in range(300)
    ]
    text = refusal(tmp_path, nodes, {"w": np.ones((4, 4))}, ("N", 4), output="t300")
    assert "300 things stop it: " in text
    assert "288 more reasons; supported are " in text
    assert len(text) < 4000
    assert "\x1b" not in text


ML = "ai.onnx.ml"


def converted(nodes, constants, outputs, shape=("N", 4)):
    """A file as scikit-learn's converter writes it."""
    model = graph_model(nodes, constants, shape)
    model.opset_import.append(helper.make_opsetid(ML, 1))
    del model.graph.output[:]
    for name, kind in outputs:
        info = helper.make_tensor_value_info(name, kind, None)
        if name == "maps":
            values = helper.make_tensor_type_proto(TensorProto.FLOAT, [])
            info = helper.make_value_info(
                name, helper.make_sequence_type_proto(helper.make_map_type_proto(7, values))
            )
        model.graph.output.append(info)
    return model


def test_a_converted_classifier_is_read_by_its_scores(tmp_path):
    """Scaler is folded; ZipMap, and the label that the largest score has, are left out."""
    w, b = RNG.standard_normal((4, 3)), RNG.standard_normal(3)
    offset, scale = [1.0, -2.0, 0.5, 8.0], [0.5, 3.0, 1.0, 0.1]
    nodes = [
        N("Scaler", ["x"], ["s"], domain=ML, offset=offset, scale=scale),
        N("Cast", ["s"], ["f"], to=TensorProto.DOUBLE),
        N("MatMul", ["f", "w"], ["m"]),
        N("Add", ["m", "b"], ["z"]),
        N("Softmax", ["z"], ["p"]),
        N("ArgMax", ["p"], ["a"], axis=1),
        N("ZipMap", ["p"], ["maps"], domain=ML, classlabels_int64s=[0, 1, 2]),
        N("ArrayFeatureExtractor", ["classes", "a"], ["picked"], domain=ML),
        N("Reshape", ["picked", "flat"], ["r"]),
        N("Cast", ["r"], ["label"], to=TensorProto.INT64),
    ]
    constants = {"w": w, "b": b, "classes": np.array([0, 1, 2]), "flat": np.array([-1])}
    ends = [("label", TensorProto.INT64), ("maps", TensorProto.FLOAT)]
    found = load_model(save(tmp_path, converted(nodes, constants, ends)))
    x = RNG.standard_normal((5, 4))
    assert np.allclose(found.predict(x), (x - offset) * scale @ w + b, rtol=1e-6)
    assert [node.op for node in found.nodes] == ["Dense"]
    assert found.dropped == ("Softmax", "ZipMap")


def test_a_converted_classifier_of_two_classes_gives_both_scores(tmp_path):
    """As the converter writes it: 1 - p beside p, and the label that the larger one has."""
    w, b = RNG.standard_normal((4, 1)), RNG.standard_normal(1)
    nodes = [
        N("Cast", ["x"], ["f"], to=TensorProto.DOUBLE), N("MatMul", ["f", "w"], ["m"]),
        N("Add", ["m", "b"], ["z"]), N("Sigmoid", ["z"], ["p"]), N("Sub", ["one", "p"], ["q"]),
        N("Concat", ["q", "p"], ["both"], axis=1), N("ArgMax", ["both"], ["a"], axis=1),
        N("ArrayFeatureExtractor", ["classes", "a"], ["picked"], domain=ML),
        N("ZipMap", ["both"], ["maps"], domain=ML, classlabels_int64s=[0, 1]),
        N("Reshape", ["picked", "flat"], ["r"]),
        N("Cast", ["r"], ["label"], to=TensorProto.INT64),
    ]  # fmt: skip
    constants = {
        "w": w, "b": b, "one": np.array([1.0]), "classes": np.array([0, 1]), "flat": np.array([-1]),
    }  # fmt: skip
    ends = [("label", TensorProto.INT64), ("maps", TensorProto.FLOAT)]
    found = load_model(save(tmp_path, converted(nodes, constants, ends)))
    x = RNG.standard_normal((50, 4))
    p = 1 / (1 + np.exp(-(x @ w + b)))
    assert np.allclose(found.predict(x), np.concatenate([1 - p, p], axis=1), atol=1e-6)
    network = quantize(found, calibration=x, quantizer="plain", ratio=0.1)
    scores = network.real(network.predict(network.quantize_input(x)))
    assert np.mean(scores.argmax(axis=1) == (p[:, 0] > 0.5)) >= 0.96


def test_a_normalizer_is_refused_by_name_with_what_helps(tmp_path):
    nodes = [
        N("Normalizer", ["x"], ["n"], domain=ML, name="norm"),
        N("MatMul", ["n", "w"], ["out"]),
    ]
    model = converted(nodes, {"w": np.ones((4, 2))}, [("out", TensorProto.DOUBLE)])
    path = save(tmp_path, model)
    with pytest.raises(InputError, match=r"node 'norm' has the operation 'Normalizer'"):
        load_model(path)
    assert "do it to the data" in examine_onnx(path).refusals[0].remedy


def test_a_second_output_that_is_no_label_keeps_the_label_too(tmp_path):
    nodes = [
        N("MatMul", ["x", "w"], ["out"]), N("ArgMax", ["out"], ["label"], axis=1),
        N("Relu", ["out"], ["two"]),
    ]  # fmt: skip
    ends = [("out", 11), ("label", 7), ("two", 11)]
    path = save(tmp_path, converted(nodes, {"w": np.ones((4, 2))}, ends))
    outputs = load_model(path).outputs
    assert [(o.name, o.start, o.dropped) for o in outputs] == [
        ("out", 0, ()), ("label", 0, ("ArgMax",)), ("two", 2, ()),
    ]  # fmt: skip
