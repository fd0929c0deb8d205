"""Sign activations behind convolutions: thresholds, streamed through windows of one bit."""

import numpy as np
import pytest
from onnx import helper
from onnx_graphs import graph_model, save

import sim
from pvq_hw.data.dataset import Data
from pvq_hw.errors import InputError
from pvq_hw.evaluate.agreement import agreement
from pvq_hw.flow.compile import plan_for, quantize_for
from pvq_hw.flow.options import CompileOptions, LayerChoice
from pvq_hw.model.load import load_model
from pvq_hw.output.verify_model import check_numbers
from pvq_hw.plan.image import emit
from pvq_hw.target.boards import get_target

X = np.random.default_rng(8).normal(size=(40, 2, 6, 6))


def model(folder, **pads):
    """Convolutions, one of two groups, with signs between them and the largest of 2 x 2."""
    rng = np.random.default_rng(7)
    shapes = {"a": (6, 2, 3, 3), "ab": 6, "b": (4, 3, 2, 2), "bb": 4, "c": (3, 16), "cb": 3}
    constants = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    if pads:
        constants["c"] = rng.normal(size=(3, 64))
    nodes = [
        helper.make_node("Conv", ["x", "a", "ab"], ["z0"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("Sign", ["z0"], ["s0"], name="sign0"),
        helper.make_node("MaxPool", ["s0"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p", "b", "bb"], ["z1"], name="second", group=2, **pads),
        helper.make_node("Sign", ["z1"], ["s1"], name="sign1"),
        helper.make_node("Flatten", ["s1"], ["f"]),
        helper.make_node("Gemm", ["f", "c", "cb"], ["y"], name="last", transB=1),
    ]  # fmt: skip
    return load_model(save(folder, graph_model(nodes, constants, ("N", 2, 6, 6), output="y")))


@pytest.mark.parametrize(
    ("target", "choice"),
    [
        ("hx8k", LayerChoice()),
        ("ulx3s-25f", LayerChoice(encoding="int8")),
        ("ulx3s-25f", LayerChoice(engine="unrolled")),
    ],
    ids=["pulses", "int8", "unrolled"],
)
def test_signs_of_maps_in_the_circuit(tmp_path, target, choice):
    float_model, board = model(tmp_path), get_target(target)
    options = CompileOptions(target=target, ratio=1.5, engine="folded", layers={"second": choice})
    network, folding = quantize_for(float_model, board, options, Data(X))
    first, _, second, _ = network.layers
    assert [x.output.format.binary for x in network.layers] == [True, True, True, False]
    assert all((x.mult == 1).all() and x.shift == 1 for x in (first, second))
    agreement(float_model, network, Data(X), "calibration")
    assert check_numbers(float_model, network) == []
    planned = plan_for(network, board, options, folding)
    assert [spec.multiplier for spec in planned.specs][:2] == ["none", "none"]
    x = network.quantize_input(X[:1])
    names = [layer.name for layer in network.layers]
    result = sim.simulate(
        planned.graph, emit(network, planned).cores, x, "amaranth", names=names,
        idle="random:0.3", stall="random:0.3", settle=False,
    )  # fmt: skip
    compared = sim.compare(result, network.trace(x))
    assert compared.mismatches == 0
    assert compared.outputs_compared == sum(layer.output.size for layer in network.layers)


def test_signs_are_the_float_models_where_nothing_is_quantized(tmp_path):
    """At 8-bit weights nearly all are."""
    float_model, board = model(tmp_path), get_target("ulx3s-25f")
    options = CompileOptions(ratio=1.5, layers=dict.fromkeys(["first", "second", "last"],
                             LayerChoice(encoding="int8")))  # fmt: skip
    network, _ = quantize_for(float_model, board, options, Data(X))
    exact = {node.output: out for node, out in float_model.steps(float_model.to_internal(X))}
    signs = network.trace(network.quantize_input(X))["first"]
    assert float((signs == exact["s0"]).mean()) > 0.98


def test_padded_signs_are_refused_by_name(tmp_path):
    text = "Layer 'second' must not pad signs, here of 'first', with 0"
    options = CompileOptions(ratio=1.5)
    with pytest.raises(InputError, match=text):
        quantize_for(model(tmp_path, pads=[1, 1, 1, 1]), get_target("hx8k"), options, Data(X))
