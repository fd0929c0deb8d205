"""Models of several outputs: what is which part of the stream, and what is refused."""

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx_graphs import as_single, graph_model, save

from pvq_hw.data.dataset import Data
from pvq_hw.errors import CheckError, InputError
from pvq_hw.evaluate.accuracy import evaluate_network, metric_for
from pvq_hw.evaluate.agreement import agreement, agreement_lines
from pvq_hw.model.load import load_model
from pvq_hw.model.nodes import Dense, Outputs
from pvq_hw.model.own_graph import check_own_graph
from pvq_hw.network.network import Network
from pvq_hw.outputs import split_outputs
from pvq_hw.quantizer.quantize import quantize
from pvq_hw.train.finetune import finetune

N = helper.make_node
HEADS = [
    N("Gemm", ["x", "w1", "b1"], ["h"], transB=1), N("Relu", ["h"], ["r"]),
    N("Gemm", ["r", "w2", "b2"], ["z"], transB=1), N("Softmax", ["z"], ["class"], axis=1),
    N("Gemm", ["r", "w3"], ["v"], transB=1), N("Relu", ["v"], ["size"]),
]  # fmt: skip


def weights(factor=1.0):
    rng = np.random.default_rng(4)
    return {
        "w1": rng.normal(size=(12, 8)), "b1": rng.normal(size=12),
        "w2": rng.normal(size=(4, 12)), "b2": rng.normal(size=4),
        "w3": factor * rng.normal(size=(3, 12)),
    }  # fmt: skip


def with_outputs(nodes, constants, shape, names):
    """A float32 model with these outputs."""
    used = {name for node in nodes for name in node.input}
    model = as_single(graph_model(nodes, {k: constants[k] for k in constants if k in used}, shape))
    del model.graph.output[:]
    for name in names:
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return model


def heads(tmp_path, names=("class", "size"), nodes=HEADS, factor=1.0):
    return save(tmp_path, with_outputs(nodes, weights(factor), ("N", 8), names))


def inputs(count=200):
    return np.random.default_rng(5).normal(size=(count, 8)).astype(np.float32)


def refusal(path):
    with pytest.raises(InputError) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_outputs_lie_one_after_the_other_in_the_order_of_the_file(tmp_path):
    path = heads(tmp_path, ("size", "class", "r"), factor=1000.0)
    model, x = load_model(path), inputs(30)
    assert [(o.name, o.shape, o.start, o.dropped) for o in model.outputs] == [
        ("size", (3,), 0, ()), ("class", (4,), 3, ("Softmax",)), ("r", (12,), 7, ()),
    ]  # fmt: skip
    assert isinstance(model.nodes[-1], Outputs)
    assert model.output_shape == (19,)
    found = split_outputs(model.outputs, model.predict(x))
    w = weights(1000.0)
    r = np.maximum(x @ w["w1"].T + w["b1"], 0)
    for name, wanted in (
        ("r", r), ("class", r @ w["w2"].T + w["b2"]), ("size", np.maximum(r @ w["w3"].T, 0)),
    ):  # fmt: skip
        np.testing.assert_allclose(found[name], wanted, rtol=1e-5, atol=1e-4)


def test_the_files_own_graph_is_compared_output_by_output(tmp_path):
    path = heads(tmp_path, factor=1e-4)
    model, x = load_model(path), inputs(40)
    found = check_own_graph(path, model, Data(x))
    assert found.error < 1e-5
    # The small output is wrong, which beside the large one's values would not show.
    nodes = [
        replace(n, weight=n.weight * 1.01) if isinstance(n, Dense) and len(n.bias) == 3 else n
        for n in model.nodes
    ]
    wrong = replace(model, nodes=tuple(nodes))
    if importlib.util.find_spec("onnxruntime") is None:
        assert check_own_graph(path, wrong, Data(x)).error > 5e-3
    else:
        assert found.runtime == "onnxruntime"
        with pytest.raises(CheckError, match="differs by"):
            check_own_graph(path, wrong, Data(x))


def test_a_tensor_has_one_place_whatever_it_is_called(tmp_path):
    nodes = [
        *HEADS, N("Identity", ["z"], ["again"]), N("Unsqueeze", ["z", "axes"], ["wide"]),
        N("ArgMax", ["class"], ["label"], axis=1),
    ]  # fmt: skip
    constants = weights() | {"axes": np.array([1])}
    model = with_outputs(nodes, constants, ("N", 8), ("z", "again", "class", "wide"))
    path = save(tmp_path, model)
    read = load_model(path)
    assert [(o.name, o.shape, o.start, o.dropped) for o in read.outputs] == [
        ("z", (4,), 0, ()), ("again", (4,), 0, ()), ("class", (4,), 0, ("Softmax",)),
        ("wide", (1, 4), 0, ()),
    ]  # fmt: skip
    assert [type(n).__name__ for n in read.nodes] == ["Dense", "Relu", "Dense"]
    assert check_own_graph(path, read, Data(inputs(20))).error < 1e-5
    # Softmax is an output's end and another's middle.
    path = save(tmp_path, with_outputs(nodes, constants, ("N", 8), ("class", "label", "size")))
    assert [o.dropped for o in load_model(path).outputs] == [
        ("Softmax",), ("Softmax", "ArgMax"), (),
    ]  # fmt: skip
    assert check_own_graph(path, load_model(path), Data(inputs(20))).error < 1e-5


def test_a_sigmoid_that_is_an_output_and_read_goes_on_being_a_function(tmp_path):
    nodes = [*HEADS[:3], N("Sigmoid", ["z"], ["s"]), N("Gemm", ["s", "w4"], ["out"])]
    constants = weights() | {"w4": np.ones((4, 2))}
    path = save(tmp_path, with_outputs(nodes, constants, ("N", 8), ("s", "out")))
    model, x = load_model(path), inputs(20)
    assert [o.dropped for o in model.outputs] == [(), ()]
    assert split_outputs(model.outputs, model.predict(x))["s"].max() <= 1
    assert check_own_graph(path, model, Data(x)).error < 1e-5


def test_odd_outputs_are_named_or_refused_by_name(tmp_path):
    assert "output 'x' must be computed from the input" in refusal(heads(tmp_path, ("class", "x")))
    nodes = [*HEADS, N("Flatten", ["x"], ["same"])]
    text = refusal(heads(tmp_path, ("class", "same"), nodes))
    assert "output 'same' must be computed from the input" in text
    text = refusal(heads(tmp_path, ("class", "size", "size")))
    assert "must have outputs of different names, not 'size' again" in text
    evil = "a" * 100_000 + "\n<b>../"
    nodes = [*HEADS, N("Gemm", ["r", "w3"], [evil], transB=1), N("Relu", ["z"], ["module"]),
             N("Relu", ["v"], ["MODULE"])]  # fmt: skip
    names = [o.name for o in load_model(heads(tmp_path, (evil, "module", "MODULE"), nodes)).outputs]
    assert names == ["a" * 48, "module", "MODULE_2"]
    nodes = [*HEADS, *(N("Gemm", ["r", "w3"], [f"o{i}"], transB=1) for i in range(33))]
    text = refusal(heads(tmp_path, [f"o{i}" for i in range(33)], nodes))
    assert "must have 1 to 32 outputs, not 33" in text
    assert len(text) < 300
    nodes = [*HEADS, N("Transpose", ["size"], ["turned"], perm=[1, 0])]
    text = refusal(heads(tmp_path, ("class", "turned"), nodes))
    assert "output 'turned' must have the frames first" in text


def test_every_output_keeps_a_scale_of_its_own(tmp_path):
    x = inputs()
    found = []
    for factor in (1.0, 2.0**-14, 2.0**14):
        model = load_model(heads(tmp_path, factor=factor))
        network = quantize(model, calibration=x, ratio=2.0)
        (tmp_path / "n").mkdir(exist_ok=True)
        network.save(tmp_path / "n")
        assert Network.load(tmp_path / "n") == network
        found.append((network, agreement(model, network, Data(x), "calibration")))
    (first, agreed), *others = found
    integers = first.predict(first.quantize_input(x))
    scales = {o["name"]: o["scale"] for o in first.output_documents()}
    for (network, other), factor in zip(others, (2.0**-14, 2.0**14), strict=True):
        assert np.array_equal(network.predict(network.quantize_input(x)), integers)
        assert {o["name"]: o["scale"] for o in network.output_documents()} == {
            "class": scales["class"], "size": scales["size"] * factor,
        }  # fmt: skip
        assert other.outputs == pytest.approx(agreed.outputs)
    assert agreed.outputs["size"] < 0.5
    assert agreed.integer_steps < 20
    lines = dict(agreement_lines(agreed.to_json()))
    assert "of its deviation off in all" in lines["output size"]


def test_labels_belong_to_the_output_that_is_named(tmp_path):
    x, model = inputs(), load_model(heads(tmp_path, ("size", "class")))
    y = model.predict(x)[:, 3:].argmax(axis=1)
    network = quantize(model, calibration=x, ratio=1.0, quantizer="plain")
    for of in (model, network):
        with pytest.raises(InputError, match=r"one of the outputs 'size', 'class'; say .*--output"):
            metric_for(of, y)
        with pytest.raises(InputError, match="Output must be one of 'size', 'class', not 'clas'; "
                                             "did you mean class"):  # fmt: skip
            of.for_output("clas")
    judged = evaluate_network(model.for_output("class"), network, Data(x, y))
    assert (judged.metric, judged.exact) == ("accuracy", 100.0)
    assert judged.pvq > 80
    assert judged.why == "labels are class numbers, output 'class'"
    targets = model.predict(x)[:, :3]
    judged = evaluate_network(model.for_output("size"), network, Data(x, targets))
    assert (judged.metric, judged.exact) == ("rmse", 0.0)
    with pytest.raises(InputError, match="must not be given for a model of one output"):
        load_model(heads(tmp_path, ("class",))).for_output("class")


def test_what_takes_one_output_says_so(tmp_path):
    model = load_model(heads(tmp_path))
    with pytest.raises(InputError, match="one output, not of 'class', 'size'"):
        finetune(model, inputs(), np.zeros(200, dtype=int))
    nodes = [*HEADS[:3], N("Sign", ["z"], ["sign"])]
    model = load_model(heads(tmp_path, ("h", "sign"), nodes))
    with pytest.raises(InputError, match="Layer 'outputs' must not read signs, here of 'z'"):
        quantize(model, calibration=inputs(), ratio=2.0, quantizer="plain")


def test_a_changed_network_file_is_refused(tmp_path):
    model = load_model(heads(tmp_path))
    network = quantize(model, calibration=inputs(), ratio=2.0, quantizer="plain")
    network.verify()
    first, second = network.outputs
    for outputs in ((first, replace(second, start=5)), (first, replace(second, name="class")),
                    (first, replace(second, name="../x")), (first, replace(second, shape=(0,))),
                    (replace(first, start=-1), second)):  # fmt: skip
        with pytest.raises(InputError, match="Output"):
            replace(network, outputs=outputs).verify()
    *layers, last = network.layers
    for change in ({"shift": 2}, {"mult": (2, 3)}):
        with pytest.raises(InputError, match="must pass its inputs as they are"):
            replace(network, layers=(*layers, replace(last, **change))).verify()
    with pytest.raises(InputError, match="Output must be one of"):
        replace(network, meta=network.meta | {"scored_output": "other"}).verify()
