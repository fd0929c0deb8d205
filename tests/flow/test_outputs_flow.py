"""A model of several outputs, from its file to simulated RTL, by the verbs and from Python."""

import importlib.util
import json

import numpy as np
import pytest
from board_port import BoardPort
from cli_tools import refused, reseal, run, twin
from onnx import TensorProto, helper
from onnx_graphs import as_single, graph_model, save

import pvq_hw
from pvq_hw.data.dataset import Data
from pvq_hw.flow.board import run_output
from pvq_hw.host.link import Link
from pvq_hw.outputs import split_outputs
from pvq_hw.tools import find as tools

pytestmark = pytest.mark.skipif(not tools.have_tool("yosys"), reason="compile needs yosys")

N = helper.make_node
NAMES = ("class", "heat", "z", "again", "pooled", "size")


def network():
    """A convolutional trunk; two dense heads, a head at an intermediate layer of another scale, an
    intermediate layer itself, and a tensor three times."""
    rng = np.random.default_rng(2)
    nodes = [
        N("Conv", ["x", "c1", "d1"], ["m1"], pads=[1, 1, 1, 1]), N("Relu", ["m1"], ["r1"]),
        N("MaxPool", ["r1"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        N("Conv", ["pooled", "c3"], ["heat"]),
        N("Conv", ["pooled", "c2"], ["m2"]), N("Relu", ["m2"], ["r2"]),
        N("Flatten", ["r2"], ["f"]), N("Gemm", ["f", "w1", "b1"], ["z"], transB=1),
        N("Softmax", ["z"], ["class"], axis=1), N("Identity", ["z"], ["again"]),
        N("Gemm", ["f", "w2"], ["v"], transB=1), N("Relu", ["v"], ["size"]),
    ]  # fmt: skip
    constants = {
        "c1": rng.normal(size=(3, 1, 3, 3)), "d1": rng.normal(size=3),
        "c2": rng.normal(size=(2, 3, 2, 2)), "c3": 5000 * rng.normal(size=(2, 3, 1, 1)),
        "w1": rng.normal(size=(3, 8)), "b1": rng.normal(size=3), "w2": rng.normal(size=(2, 8)),
    }  # fmt: skip
    model = as_single(graph_model(nodes, constants, ("N", 1, 6, 6)))
    del model.graph.output[:]
    for name in NAMES:
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return model


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Model, data and output folder, by the command line."""
    place = tmp_path_factory.mktemp("outputs")
    path = save(place, network())
    x = np.random.default_rng(3).normal(size=(40, 1, 6, 6)).astype(np.float32)
    model = pvq_hw.load_model(path)
    y = split_outputs(model.outputs, model.predict(x))["z"].argmax(axis=1)
    np.savez(place / "d.npz", x=x, y=y)
    ran = run(
        "compile", path, "--target", "colorlight-i5", "--ratio", "0.25", "--quantizer", "plain",
        "--calibrate", place / "d.npz", "--evaluate", place / "d.npz", "--output", "class",
        "-o", place / "out",
    )  # fmt: skip
    assert ran.code == 0, ran
    return place, ran.out


def test_all_outputs_reach_simulated_rtl(made):
    place, said = made
    x, y = (np.load(place / "d.npz")[key] for key in "xy")
    accelerator = pvq_hw.load(place / "out")
    found, integers = accelerator.predict(x), accelerator.predict_integers(x)
    assert [*found] == [*integers] == [*NAMES]
    assert {name: a.shape[1:] for name, a in found.items()} == {
        "class": (3,), "heat": (3, 3, 2), "z": (3,), "again": (3,), "pooled": (3, 3, 3),
        "size": (2,),
    }  # fmt: skip
    documents = {o["name"]: o for o in accelerator.manifest["outputs"]}
    for name, document in documents.items():
        np.testing.assert_allclose(found[name], integers[name] * document["scale"], rtol=1e-12)
        assert f"output {name:<15}values {document['start']} to {document['stop'] - 1}" in said
    assert documents["heat"]["scale"] > 100 * documents["z"]["scale"]
    last = [*accelerator.trace(x).values()][-1]
    assert np.array_equal(split_outputs(accelerator.network.outputs, last)["size"], found["size"])
    if importlib.util.find_spec("onnxruntime"):
        import onnxruntime

        session = onnxruntime.InferenceSession(place / "m.onnx")
        own = dict(zip(NAMES, session.run(None, {"x": x}), strict=True))
        for name in NAMES[1:]:
            wanted = np.moveaxis(own[name], 1, -1)
            assert np.sqrt(np.mean((found[name] - wanted) ** 2)) < 0.25 * wanted.std(), name
    header = (place / "out" / "verilog" / "accelerator.v").read_text()[:2000]
    assert "//               3 to 20: heat\n" in header
    assert "//               0 to 2: class\n" in header
    document = accelerator.simulate(x[:12], labels=y[:12])
    assert document["mismatches"] == 0
    assert document["accuracy"]["why"] == "labels are class numbers, output 'class'"
    assert document["accuracy"]["simulated"] > 80


def test_verify_recomputes_all_of_it(made, tmp_path):
    place, _ = made
    accelerator = pvq_hw.load(place / "out")
    x, y = (np.load(place / "d.npz")[key] for key in "xy")
    assert accelerator.verify(place / "m.onnx", Data(x, y)) == []
    ran = run("verify", place / "out", "--model", place / "m.onnx", "--data", place / "d.npz")
    assert ran.code == 0, ran
    assert "labels are class numbers, output 'class'" in ran.out
    out = twin(place / "out", tmp_path / "out")
    document = json.loads((out / "manifest.json").read_text())
    document["outputs"][1]["scale"] *= 2
    (out / "manifest.json").write_text(json.dumps(document))
    reseal(out)
    findings = pvq_hw.load(out).verify()
    assert any("outputs" in str(finding) for finding in findings)


def test_verbs_say_whose_the_labels_are(made, tmp_path):
    place, _ = made
    data, model = place / "d.npz", place / "m.onnx"
    options = ("--target", "colorlight-i5", "--quantizer", "plain", "--calibrate", data)
    new = ("-o", tmp_path / "out")
    text = "Labels must belong to one of the outputs 'class', 'heat', 'z', "
    refused(tmp_path, text, "compile", model, *options, "--evaluate", data, *new)
    text = "Output must be one of 'class', 'heat', 'z', "
    refused(tmp_path, text, "compile", model, *options, "--output", "clas", *new)
    refused(tmp_path, text, "simulate", place / "out", "--data", data, "--output", "no")
    refused(tmp_path, text, "run", place / "out", "--data", data, "--port", "p", "--output", "no")
    text = "Targets must have 2 values per frame"
    args = ("--data", data, "--output", "size", "--metric", "rmse")
    refused(tmp_path, text, "simulate", place / "out", *args)
    found = run("check", model, "--target", "colorlight-i5", "--json").json
    assert [output["name"] for output in found["outputs"]] == [*NAMES]


def test_a_board_gives_them_in_the_same_order(made):
    place, _ = made
    accelerator = pvq_hw.load(place / "out")
    x, y = (np.load(place / "d.npz")[key] for key in "xy")
    link = Link(BoardPort(accelerator), timeout=0.05)
    document = run_output(accelerator, "p", x[:4], labels=y[:4], output="z", link=link)
    assert document["mismatches"] == 0
    assert document["accuracy"]["why"] == "labels are class numbers, output 'z'"
    assert document["parts"] == accelerator.manifest["outputs"]
    part = document["parts"][1]
    heat = np.array(document["outputs"])[:, part["start"] : part["stop"]]
    assert np.array_equal(heat, accelerator.predict_integers(x[:4])["heat"].reshape(4, -1))
