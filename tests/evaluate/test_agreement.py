"""The integer network against the float model, and the imported model against the file."""

import importlib.util
import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from activation_cases import ACTIVATIONS, nodes_of
from ends_cases import AFTER, CONSTANTS, CONV, ENDS, STARTS, TAIL, node
from onnx_graphs import as_single, graph_model, save

import pvq_hw
from pvq_hw.arith.formats import IntFormat
from pvq_hw.data.dataset import Data
from pvq_hw.errors import CheckError
from pvq_hw.evaluate.agreement import agreement, agreement_data
from pvq_hw.model.load import load_model
from pvq_hw.model.model import Relu
from pvq_hw.model.own_graph import check_own_graph
from pvq_hw.network.layer import Dense
from pvq_hw.network.network import Network
from pvq_hw.quantizer.quantize import quantize

MORE = {
    "ints": np.array([1, 0, 2, 3]), "shape": np.array([0, -1]), "one": np.array([1]),
    "axes": np.array([2, 3]), "spread": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    "flat": np.array([-1, 72]), "map": np.array([0, 2, 6, 6]), "ws": CONSTANTS["wg"],
}  # fmt: skip
GAP = [CONV, "g=GlobalAveragePool(c)", "f=Flatten(g)"]
LAST = {
    "Softmax": [*GAP, "out=Softmax(f) axis=1"],
    "LogSoftmax": [*GAP, "out=LogSoftmax(f) axis=1"],
    "Sigmoid": [*GAP, "out=Sigmoid(f)"],
    "Softmax and ArgMax": [*GAP, "s1=Softmax(f) axis=1", "out=ArgMax(s1) axis=1"],
    "Hardmax": [*GAP, "out=Hardmax(f) axis=1"],
    "Transpose": [CONV, "out=Transpose(c) perm=0,2,3,1"],
    "Reshape": [*GAP, "out=Reshape(f,shape)"],
    "Squeeze": [CONV, "g=GlobalAveragePool(c)", "out=Squeeze(g,axes)"],
    "Unsqueeze": [*GAP, "out=Unsqueeze(f,one)"],
    "Cast": [*GAP, "out=Cast(f) to=1"],
}
FIRST = {
    "Pad": ["t0=Pad(x,spread)"],
    "Transpose": ["a=Transpose(x) perm=0,2,3,1", "t0=Transpose(a) perm=0,3,1,2"],
    "Reshape": ["a=Reshape(x,flat)", "t0=Reshape(a,map)"],
    "Cast": ["t0=Cast(x) to=1"],
    "Sign": ["f0=Flatten(x)", "g0=Gemm(f0,wg,bg) transB=1", "out=Sign(g0)"],
}


def loaded(tmp_path, texts):
    """The file, its model, and inputs."""
    nodes = [node(text) for text in texts]
    used = {name for n in nodes for name in n.input}
    given = CONSTANTS | MORE
    constants = {name: value for name, value in given.items() if name in used}
    path = save(tmp_path, as_single(graph_model(nodes, constants, ("N", 2, 6, 6))))
    return path, load_model(path), np.random.default_rng(3).normal(size=(40, 2, 6, 6))


CASES = {f"{end}, {after}": ENDS[end] + AFTER[after] for end in ENDS for after in AFTER}
CASES |= {f"starts with {name}": [*texts, *TAIL] for name, texts in STARTS.items()}
CASES |= {f"ends with {name}": texts for name, texts in LAST.items()}
CASES |= {f"begins with {name}": [*texts, *TAIL] for name, texts in FIRST.items() if name != "Sign"}


@pytest.mark.parametrize("case", CASES)
def test_integers_agree_with_real_arithmetic_and_the_model_with_its_file(tmp_path, case):
    path, model, x = loaded(tmp_path, CASES[case])
    assert check_own_graph(path, model, Data(x)).error < 1e-5
    for quantizer, bits in (("plain", 8), ("given", 4), ("given", 12)):
        network = quantize(
            model, calibration=x, ratio=2.0, quantizer=quantizer, activation_bits=bits
        )
        found = agreement(model, network, Data(x), "calibration")
        assert (found.frames, found.data) == (40, "calibration")
        if quantizer == "given":
            assert found.codes_error < 0.01


SIGNS = ["f=Flatten(x)", "g=Gemm(f,wg,bg) transB=1", "a=Sign(g)", "out=Gemm(a,w3,bg)"]


def test_signs_are_compared_through_their_thresholds(tmp_path):
    MORE["w3"] = np.array([[0.25, -0.25, 0], [0, 0.5, 0.5], [1, 0, -1]])
    path, model, x = loaded(tmp_path, SIGNS)
    assert check_own_graph(path, model, Data(x)).runtime == "onnxruntime"
    for quantizer in ("plain", "given", "calibrated"):
        network = quantize(model, calibration=x, ratio=2.0, quantizer=quantizer)
        assert agreement(model, network, Data(x), "calibration").integer_steps < 1


def without_relu(network: Network, place: int) -> Network:
    """The network with signed outputs where they were cut at 0."""
    layers = list(network.layers)
    output = layers[place].output
    signed = replace(output, format=IntFormat(output.format.bits, True))
    layers[place] = replace(layers[place], output=signed)
    return replace(network, layers=tuple(layers))


def changed(network: Network, place: int, **fields) -> Network:
    layers = list(network.layers)
    layers[place] = replace(layers[place], **fields)
    return replace(network, layers=tuple(layers))


TWO = ["f=Flatten(x)", "g=Gemm(f,wg,bg) transB=1", "a=Relu(g)", "h=Gemm(a,w3,bg)", "out=Relu(h)"]


def mutants(network: Network) -> dict[str, Network]:
    first, last = network.layers[0], network.layers[-1]
    assert isinstance(first, Dense)
    return {
        "no activation inside": without_relu(network, 0),
        "no activation at the end": without_relu(network, -1),
        "a bias of another row": changed(network, 0, bias=np.roll(first.bias, 1)),
        "a multiplier 3 % too large": changed(network, 0, mult=first.mult * 103 // 100),
        "codes of another row": changed(network, 0, y=np.roll(first.y, 1, axis=0)),
        "codes of another column": changed(network, -1, y=np.roll(last.y, 1, axis=1)),
        "another shift": changed(network, -1, shift=last.shift + 1, bias=last.bias * 2),
    }


@pytest.mark.parametrize("mutant", [
    "no activation inside", "no activation at the end", "a bias of another row",
    "a multiplier 3 % too large", "codes of another row", "codes of another column",
    "another shift",
])  # fmt: skip
def test_a_network_that_computes_something_else_is_refused(tmp_path, mutant):
    MORE["w3"] = np.array([[0.25, -0.25, 0], [0, 0.5, 0.5], [1, 0, -1]])
    _, model, x = loaded(tmp_path, TWO)
    network = quantize(model, calibration=x, quantizer="given")
    agreement(model, network, Data(x), "calibration")
    wrong = mutants(network)[mutant]
    if mutant.startswith(("codes", "a bias")):
        # Weights and biases are the network's own; it is the cost of the codes that shows them.
        found = agreement(model, wrong, Data(x), "calibration")
        assert found.codes_error > 0.1
        return
    with pytest.raises(CheckError, match="off what its weights, scales and operations give"):
        agreement(model, wrong, Data(x), "calibration")


def test_an_importer_that_loses_an_operation_is_caught(tmp_path, monkeypatch):
    path, model, x = loaded(tmp_path, CASES["Conv, Relu"])
    assert check_own_graph(path, model, Data(x)).runtime == "onnxruntime"
    lost = replace(model, nodes=tuple(n for n in model.nodes if not isinstance(n, Relu)))
    with pytest.raises(CheckError, match=r"the imported model differs by \d+\.?\d* % of the"):
        check_own_graph(path, lost, Data(x))
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *a: None if name == "onnxruntime" else find(name, *a),
    )
    assert check_own_graph(path, model, Data(x)).error < 1e-5
    found = check_own_graph(path, lost, Data(x))
    assert (found.runtime, found.error > 0.1) == ("onnx.reference", True)


def test_a_fixed_number_of_frames_is_kept_to(tmp_path):
    nodes = [node(text) for text in ENDS["Gemm"] + AFTER["Relu"]]
    used = {name for n in nodes for name in n.input}
    constants = {name: value for name, value in CONSTANTS.items() if name in used}
    path = save(tmp_path, as_single(graph_model(nodes, constants, (3, 2, 6, 6))))
    x = np.random.default_rng(3).normal(size=(10, 2, 6, 6))
    assert check_own_graph(path, load_model(path), Data(x)).frames == 10


def test_a_flat_input_is_given_as_the_file_has_it(tmp_path):
    nodes = [node(text) for text in ("i=Reshape(x,map)", "c=Conv(i,wc,bc)", "out=Relu(c)")]
    constants = {name: (CONSTANTS | MORE)[name] for name in ("wc", "bc")}
    constants["map"] = np.array([-1, 2, 6, 6])
    path = save(tmp_path, as_single(graph_model(nodes, constants, ("N", 72))))
    x = np.random.default_rng(3).normal(size=(10, 72))
    assert check_own_graph(path, load_model(path), Data(x)).error < 1e-5


def test_a_file_without_a_graph_or_for_no_runtime_is_not_compared(tmp_path, monkeypatch):
    path = tmp_path / "m.npz"
    np.savez(path, **{"0.weight": np.eye(3), "0.bias": np.zeros(3)})
    assert check_own_graph(path, load_model(path), Data(np.zeros((4, 3)))) is None
    path, model, x = loaded(tmp_path, CASES["Gemm, Relu"])
    monkeypatch.setattr("onnxruntime.InferenceSession", None)
    assert check_own_graph(path, model, Data(x)).runtime == "onnx.reference"
    monkeypatch.setattr("onnx.reference.ReferenceEvaluator", None)
    assert check_own_graph(path, model, Data(x)) is None


def test_frames_that_the_quantizer_did_not_see_come_first(tmp_path):
    _, model, x = loaded(tmp_path, CASES["Gemm, Relu"])
    network = quantize(model, calibration=x, quantizer="given")
    some = Data(x, np.zeros(40, dtype=int))
    assert agreement_data(network, some, None) == (some, "evaluation")
    assert agreement_data(network, None, some) == (some, "calibration")
    many = Data(np.arange(6100.0).reshape(-1, 1))
    network = replace(network, meta=dict(network.meta) | {"calibration_frames": 6000})
    data, source = agreement_data(network, None, many)
    assert (len(data), source) == (100, "held-out calibration")
    data, source = agreement_data(network, None, None)
    assert (data.x.shape, source) == ((64, 2, 6, 6), "random")


def test_compile_compares_prints_and_keeps_it(tmp_path, capsys):
    path, _, x = loaded(tmp_path, CASES["Gemm, Clip"])
    np.savez(tmp_path / "cal.npz", x=x)
    from pvq_hw.cli import main

    out = tmp_path / "out"
    call = ["compile", str(path), "--target", "icebreaker", "--calibrate",
            str(tmp_path / "cal.npz"), "--ratio", "2", "-o", str(out)]  # fmt: skip
    assert main([*call, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    found = document["agreement"]
    assert found["frames"] == 40
    assert found["data"] == "calibration"
    assert 0 < found["codes"]["relative_rms_error"] < 1
    assert found["integer"]["rms_output_steps"] < 4
    assert document["model_file"]["runtime"] == "onnxruntime"
    kept = json.loads((out / "manifest.json").read_text())["extra"]["agreement"]
    assert kept == found
    assert "cost of the codes" in (out / "report.html").read_text()


def test_a_lost_activation_stops_compile_and_keeps_the_old_output(tmp_path, monkeypatch):
    path, _, x = loaded(tmp_path, CASES["Gemm, Relu"])
    out = tmp_path / "out"
    pvq_hw.compile(path, out, target="icebreaker", calibrate=x, ratio=2.0)
    before = (out / "manifest.json").read_bytes()
    from pvq_hw.flow import reach as flow

    whole = flow.quantize_for

    def lossy(*args, **more):
        network, folding = whole(*args, **more)
        return without_relu(network, -1), folding

    monkeypatch.setattr(flow, "quantize_for", lossy)
    with pytest.raises(CheckError, match="Internal error: the integers of layer"):
        pvq_hw.compile(path, out, target="icebreaker", calibrate=x, ratio=2.0)
    assert (out / "manifest.json").read_bytes() == before


def test_verify_compares_on_data_too(tmp_path, monkeypatch, capsys):
    path, _, x = loaded(tmp_path, CASES["Gemm, Relu"])
    data = Data(x)
    out = tmp_path / "out"
    from pvq_hw.flow import compile as flow
    from pvq_hw.flow import reach
    from pvq_hw.output import verify_data

    whole, judge = reach.quantize_for, verify_data.agreement
    lossy = lambda *a, **k: (lambda n, f: (without_relu(n, -1), f))(*whole(*a, **k))  # noqa: E731
    monkeypatch.setattr(reach, "quantize_for", lossy)
    monkeypatch.setattr(flow, "agreement", lambda *a: judge(a[0], whole_network(path, x), *a[2:]))
    made = pvq_hw.compile(path, out, target="icebreaker", calibrate=x, ratio=2.0)
    found = [str(f) for f in made.verify(path, data)]
    assert any("off what its weights, scales and operations give" in f for f in found), found
    np.savez(tmp_path / "d.npz", x=x)
    call = ["verify", str(out), "--model", str(path), "--data", str(tmp_path / "d.npz")]
    from pvq_hw.cli import main

    assert main(call) == 1
    assert "Internal error: the integers of layer" in capsys.readouterr().out


def whole_network(path, x) -> Network:
    return quantize(load_model(path), calibration=x, ratio=2.0)


def test_ends_and_starts_of_every_supported_operation_are_here():
    from pvq_hw.model.onnx import read  # noqa: F401  all operations register
    from pvq_hw.model.onnx.lowering import standard_kinds

    texts = [text for case in CASES.values() for text in case] + SIGNS
    shown = {node(text).op_type for text in texts}
    constants = {"Constant", "ConstantOfShape", "Shape", "Slice", "Gather", "Range", "Expand"}
    constants |= {"Mod"}
    functions = {n.op_type for text in ACTIVATIONS.values() for n in nodes_of(text)}
    others = {"Scaler", "ZipMap", "Swish"}  # of objects; and one that no runtime has yet
    # Several outputs, and sums that multiply what is rounded: see tests/model/test_import_parts.
    others |= {"Split", "ReduceSum"}
    # Those of quantized files are compared with their runtime in tests/model.
    others |= {"QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul"}
    assert set(standard_kinds()) - shown - constants - functions == others
    assert onnx.defs.onnx_opset_version() >= 17
