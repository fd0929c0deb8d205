"""Functions of one value: from operators and patterns of a file to one curve, and back."""

import math

import numpy as np
import onnxruntime
import pytest
from activation_cases import ACTIVATIONS, REFUSED, SATURATED, all_in_one, nodes_of, one
from onnx import helper
from onnx_graphs import graph_model, reference, save

from pvq_hw.errors import InputError
from pvq_hw.model.curve import MOST_OPERATIONS, PRIMITIVES, Curve, X, constant, primitive
from pvq_hw.model.export import save_model
from pvq_hw.model.load import load_model
from pvq_hw.model.model import Dense, Function
from pvq_hw.model.onnx import lowering
from pvq_hw.model.onnx.pointwise import lower_function
from pvq_hw.plan.image import emit
from pvq_hw.plan.plan import plan
from pvq_hw.quantizer.quantize import quantize
from sim.result import compare
from sim.run import simulate

FRAMES = np.random.default_rng(1).normal(size=(50, 5)).astype(np.float32)


def runtime(content: bytes) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(content, options)
    return session.run(None, {session.get_inputs()[0].name: FRAMES})[0]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_one_node_that_computes_what_onnxruntime_does(tmp_path, name):
    file = one(ACTIVATIONS[name])
    model = load_model(save(tmp_path, file))
    kind = "Clip" if name in SATURATED else "Function"
    assert [node.op for node in model.nodes] == ["Dense", kind, "Dense"]
    expected = runtime(file.SerializeToString())
    assert np.allclose(model.predict(FRAMES), expected, rtol=1e-4, atol=1e-5)


def test_saved_functions_load_as_the_same_model(tmp_path):
    model = load_model(save(tmp_path, all_in_one()))
    save_model(model, tmp_path / "again.onnx")
    again = load_model(tmp_path / "again.onnx")
    assert np.allclose(again.predict(FRAMES), model.predict(FRAMES), rtol=1e-5, atol=1e-5)
    assert np.allclose(
        runtime((tmp_path / "again.onnx").read_bytes()), model.predict(FRAMES), rtol=1e-4, atol=1e-4
    )
    assert [n.name for n in again.nodes] == [n.name for n in model.nodes]
    curves = [(a.curve, b.curve) for a, b in zip(model.nodes, again.nodes, strict=True)
              if isinstance(a, Function)]  # fmt: skip
    assert len(curves) == len(ACTIVATIONS) - 2  # bounds alone, whoever reads the sums besides
    z = np.linspace(-3, 3, 60).reshape(10, 6)
    for before, after in curves:
        assert np.allclose(before(z), after(z), atol=1e-5)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_function_of_one_value_is_refused_by_name(tmp_path, name):
    text, message = REFUSED[name]
    with pytest.raises(InputError) as caught:
        load_model(save(tmp_path, one(text)))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_sigmoid_is_left_out_at_the_end_only(tmp_path):
    inner = load_model(save(tmp_path, one("a=Sigmoid(g)", "o=Gemm(a,v) transB:1; out=Sigmoid(o)")))
    assert [node.op for node in inner.nodes] == ["Dense", "Function", "Dense"]
    assert inner.dropped == ("Sigmoid",)
    real = load_model(save(tmp_path, one("a=Sigmoid(g)", "out=Tanh(a)")))
    assert [node.op for node in real.nodes] == ["Dense", "Function"]
    assert not real.dropped
    twice = load_model(save(tmp_path, one("a=Sigmoid(g)", "s=Sigmoid(a); out=Add(s,a)")))
    assert [node.op for node in twice.nodes] == ["Dense", "Function"]


def test_what_layers_do_themselves_takes_no_table(tmp_path):
    text = "p=Mul(g,two); q=Add(p,half); r=Relu(q); a=Clip(r,zero,six)"
    model = load_model(save(tmp_path, one(text)))
    assert [node.op for node in model.nodes] == ["Dense", "Clip", "Dense"]


def test_a_chain_longer_than_a_curve_may_be_is_several(tmp_path):
    """x * sigmoid(x) again and again, which would double the curve each time."""
    parts, value = [], "g"
    for n in range(12):
        parts.append(f"s{n}=Sigmoid({value}); m{n}=Mul({value},s{n})")
        value = f"m{n}"
    file = one("; ".join(parts), f"out=Gemm({value},v) transB:1")
    model = load_model(save(tmp_path, file))
    curves = [node.curve for node in model.nodes if isinstance(node, Function)]
    assert 2 <= len(curves) <= 6
    assert all(curve.operations <= MOST_OPERATIONS for curve in curves)
    expected = runtime(file.SerializeToString())
    assert np.allclose(model.predict(FRAMES), expected, rtol=1e-4, atol=1e-5)


def test_sizes_of_curves_take_no_walk_through_them():
    """A file of 2,000 sums took minutes: every step asked for the sizes of all before it."""
    curve = X
    for _ in range(150):
        curve = Curve("Add", (curve, curve))
    assert (curve.operations, curve.channels) == (2**150 - 1, 1)


def test_curves_are_exact_where_mathematics_says_so():
    x = np.linspace(-8, 8, 801)
    for kind, expected in (
        ("Erf", np.vectorize(math.erf)(x)),
        ("Tanh", np.tanh(x)),
        ("Sigmoid", 1 / (1 + np.exp(-x))),
        ("Softplus", np.logaddexp(x, 0)),
    ):
        assert np.abs(Curve(kind, (X,))(x) - expected).max() < 1e-14, kind
    far = np.array([-1e6, -800.0, 800.0, 1e6])
    for known in PRIMITIVES.values():
        if known.operands == 1 and known.name not in ("Exp", "Log", "Sqrt"):
            curve = Curve(known.name, (X,), tuple(known.attributes.values()))
            assert np.isfinite(curve(far)).all(), known.name
    silu = Curve("Mul", (X, Curve("Sigmoid", (X,))))
    assert np.abs(silu.slope(x) - np.gradient(silu(x), x)).max() < 1e-3
    assert np.abs(silu.scaled(4.0, 0.5)(x) - 0.5 * silu(4 * x)).max() < 1e-12
    assert str(silu) == "x * Sigmoid(x)"


@pytest.mark.parametrize(
    "bad", [("Nonsense", (X,)), ("Tanh", ()), ("Elu", (X,)), ("constant", ()), ("x", (X,))]
)
def test_a_curve_of_no_known_operator_is_refused(bad):
    with pytest.raises(InputError, match=f"Function '{bad[0]}'"):
        Curve(*bad)
    assert constant(2).values == (2.0,)


@pytest.fixture
def cosine():
    """What a test registers of an operator is taken out again."""
    yield "Cos"
    lowering.forget("Cos")
    del PRIMITIVES["Cos"]


@pytest.mark.usefixtures("cosine")
def test_an_operator_added_from_outside_goes_from_file_to_simulated_rtl(tmp_path):
    """An entry is all that an activation function takes; from outside, its registration too."""
    primitive("Cos", opset=7)(lambda x: 1 - x * x / 2 + x**4 / 24 - x**6 / 720)
    lowering.handles("Cos")(lower_function)
    file = one("h=Tanh(g); a=Cos(h)")
    model = load_model(save(tmp_path, file))
    assert isinstance(model.nodes[1], Function)
    assert isinstance(model.nodes[0], Dense)
    assert str(model.nodes[1].curve) == "Cos(Tanh(x))"
    expected = runtime(file.SerializeToString())
    assert np.allclose(model.predict(FRAMES), expected, atol=1e-4)
    save_model(model, tmp_path / "again.onnx")
    assert np.allclose(runtime((tmp_path / "again.onnx").read_bytes()), expected, atol=1e-4)
    network = quantize(model, calibration=FRAMES, ratio=1.0, quantizer="plain")
    made = plan(network, "icebreaker")
    x = network.quantize_input(FRAMES[:2])
    names = [layer.name for layer in network.layers]
    images = emit(network, made).cores
    result = simulate(made.graph, images, x, "amaranth", names=names, settle=False)
    assert compare(result, network.trace(x)).mismatches == 0


@pytest.mark.parametrize(
    "text",
    [
        "p=MaxPool(c) kernel_shape:2; a=Clip(p,minus,one)",
        "p=MaxPool(c) kernel_shape:2; a=Relu(p)",
        "n=Mul(c,half); p=MaxPool(n) kernel_shape:2; a=Sign(p)",
    ],
)
def test_what_saturates_changes_places_with_the_largest_of_windows(tmp_path, text):
    """So that the convolution does it."""
    rng = np.random.default_rng(5)
    constants = {"k": rng.normal(size=(3, 2, 3)), "minus": -1.0, "one": 1.0, "half": 0.5}
    nodes = [helper.make_node("Conv", ["x", "k"], ["c"])]
    for node in nodes_of(text):
        if node.op_type == "MaxPool":
            node = helper.make_node("MaxPool", node.input, node.output, kernel_shape=[2])
        nodes.append(node)
    flat = helper.make_node("Flatten", ["a"], ["f"])
    last = helper.make_node("Gemm", ["f", "v"], ["out"], transB=1)
    constants = {n: np.asarray(v) for n, v in (constants | {"v": rng.normal(size=(2, 15))}).items()}
    file = graph_model([*nodes, flat, last], constants, ("N", 2, 8))
    model = load_model(save(tmp_path, file))
    assert [node.op for node in model.nodes][2:] == ["MaxPool", "Dense"]
    assert model.nodes[1].op in ("Clip", "Relu", "Sign")
    x = rng.normal(size=(9, 2, 8))
    assert np.allclose(model.predict(x), reference(file, x)[0])
