"""A model of several inputs, from its file to simulated RTL, by the verbs and from Python."""

import importlib.util
import json

import numpy as np
import pytest
from board_port import BoardPort
from cli_tools import refused, reseal, run, twin
from onnx import TensorProto, helper
from onnx_graphs import as_single, graph_model, save

import pvq_hw
from pvq_hw.data.dataset import Data, load_data
from pvq_hw.flow.board import run_output
from pvq_hw.flow.project import Project, make_project
from pvq_hw.host.link import Link
from pvq_hw.inputs import join_inputs
from pvq_hw.model.export import save_model
from pvq_hw.tools import find as tools

pytestmark = pytest.mark.skipif(not tools.have_tool("yosys"), reason="compile needs yosys")

N = helper.make_node
SHAPES = {"image": (2, 4, 4), "vector": (5,), "y": (3,)}


def network():
    """An image and a vector whose branches are concatenated, and a third input of another scale
    that is added at the end and called as labels are."""
    rng = np.random.default_rng(2)
    nodes = [
        N("Conv", ["image", "c", "d"], ["m"]), N("Relu", ["m"], ["r"]),
        N("MaxPool", ["r"], ["p"], kernel_shape=[2, 2]), N("Flatten", ["p"], ["f"]),
        N("Gemm", ["vector", "w1", "b1"], ["h"], transB=1), N("Relu", ["h"], ["hr"]),
        N("Concat", ["hr", "f", "vector"], ["both"], axis=1),
        N("Gemm", ["both", "w2"], ["z"], transB=1), N("Add", ["z", "y"], ["sum"]),
    ]  # fmt: skip
    constants = {
        "c": rng.normal(size=(3, 2, 2, 2)), "d": rng.normal(size=3),
        "w1": rng.normal(size=(4, 5)), "b1": rng.normal(size=4),
        "w2": rng.normal(size=(3, 21)),
    }  # fmt: skip
    model = as_single(graph_model(nodes, constants, ("N", 1), output="sum"))
    del model.graph.input[:]
    for name, shape in SHAPES.items():
        model.graph.input.append(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ("N", *shape))
        )
    return model


def frames(count=40):
    """An image of bytes beside real vectors of other sizes; by the inputs' names."""
    rng = np.random.default_rng(3)
    return {
        "image": rng.integers(0, 256, (count, 2, 4, 4)).astype(np.uint8),
        "vector": (20 * rng.normal(size=(count, 5))).astype(np.float32),
        "y_2": rng.normal(size=(count, 3)).astype(np.float32),
    }


def own(place, data):
    """What onnxruntime says."""
    import onnxruntime

    session = onnxruntime.InferenceSession(place / "m.onnx")
    image, vector, last = data.values()
    feed = {"image": (image / 255).astype(np.float32), "vector": vector, "y": last}
    return session.run(None, feed)[0]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Model, data and output folder, by the command line."""
    place = tmp_path_factory.mktemp("inputs")
    path, data = save(place, network()), frames()
    y = pvq_hw.load_model(path).predict(data, 255.0).argmax(axis=1)
    np.savez(place / "d.npz", y=y, **data)
    ran = run(
        "compile", path, "--target", "icebreaker", "--ratio", "0.5", "--quantizer", "plain",
        "--calibrate", place / "d.npz", "--evaluate", place / "d.npz", "--input-scale", "255",
        "-o", place / "out",
    )  # fmt: skip
    assert ran.code == 0, ran
    return place, ran.out


def test_all_inputs_reach_simulated_rtl(made):
    place, said = made
    data, accelerator = frames(), pvq_hw.load(place / "out")
    documents = {i["name"]: i for i in accelerator.manifest["inputs"]}
    assert [*documents] == ["image", "vector", "y_2"]
    assert documents["vector"]["scale"] > 10 * documents["y_2"]["scale"]
    for name, document in documents.items():
        assert f"input {name:<16}values {document['start']} to {document['stop'] - 1}" in said
    header = (place / "out" / "verilog" / "accelerator.v").read_text()[:2000]
    assert "//               32 to 36: vector\n" in header
    found = accelerator.predict(data)
    if importlib.util.find_spec("onnxruntime"):
        wanted = own(place, data)
        model = pvq_hw.load_model(place / "m.onnx")
        assert np.abs(model.predict(data, 255.0) - wanted).max() < 1e-4 * np.abs(wanted).max()
        assert np.sqrt(np.mean((found - wanted) ** 2)) < 0.2 * wanted.std()
    joined = join_inputs(accelerator.network.inputs, data, 255.0)
    assert np.array_equal(accelerator.predict(joined), found)
    document = accelerator.simulate(data, labels=np.load(place / "d.npz")["y"], scenarios=False)
    assert document["mismatches"] == 0
    assert document["accuracy"]["simulated"] > 70
    trace = accelerator.trace(data)
    image = data["image"].transpose(0, 2, 3, 1) / 255
    assert np.abs(trace["image"] - image).max() <= 0.51 * documents["image"]["scale"]


def test_verify_recomputes_all_of_it(made, tmp_path):
    place, _ = made
    ran = run("verify", place / "out", "--model", place / "m.onnx", "--data", place / "d.npz")
    assert ran.code == 0, ran
    out = twin(place / "out", tmp_path / "out")
    document = json.loads((out / "manifest.json").read_text())
    document["inputs"][1]["scale"] *= 2
    (out / "manifest.json").write_text(json.dumps(document))
    reseal(out)
    assert any("inputs" in str(finding) for finding in pvq_hw.load(out).verify())
    out = twin(place / "out", tmp_path / "two")
    path = out / "network" / "network.json"
    document = json.loads(path.read_text())
    document["layers"][1]["start"] -= 1
    path.write_text(json.dumps(document))
    reseal(out)
    assert any("must have a layer that takes it" in str(f) for f in pvq_hw.load(out).verify())


def test_data_of_other_names_or_shapes_is_one_line(made, tmp_path):
    place, _ = made
    out, data = place / "out", frames(4)
    cases = {
        "Data must hold the inputs 'image', 'vector', 'y_2', not 'image', 'vector'":
            {k: data[k] for k in ("image", "vector")},
        "Input 'vector' must have the shape (frames, 5), not (4, 4)":
            data | {"vector": data["vector"][:, :4]},
        "Inputs must have as many frames each, not 4, 4, 2": data | {"y_2": data["y_2"][:2]},
        "Data must have the shape (frames, 40), not (4, 5)": {"x": data["vector"]},
    }  # fmt: skip
    for text, arrays in cases.items():
        np.savez(tmp_path / "d.npz", **arrays)
        refused(tmp_path, text, "simulate", out, "--data", tmp_path / "d.npz")
    with pytest.raises(
        pvq_hw.InputError, match="Only models of several inputs take arrays by name"
    ):
        join_inputs((), data)
    with pytest.raises(pvq_hw.InputError, match="must hold 'x', but holds 'y', 'image'"):
        load_data(place / "d.npz")
    found = run("check", place / "m.onnx", "--target", "icebreaker", "--json").json
    assert [each["name"] for each in found["inputs"]] == ["image", "vector", "y_2"]


def test_a_board_takes_them_in_the_same_order(made):
    place, _ = made
    accelerator = pvq_hw.load(place / "out")
    document = run_output(
        accelerator, "p", frames(4), link=Link(BoardPort(accelerator), timeout=0.05)
    )
    assert document["mismatches"] == 0
    assert document["outputs"] == accelerator.predict_integers(frames(4)).tolist()


def test_a_model_is_written_with_its_inputs(made, tmp_path):
    place, _ = made
    model = pvq_hw.load_model(place / "m.onnx")
    save_model(model, tmp_path / "again.onnx")
    again = pvq_hw.load_model(tmp_path / "again.onnx")
    assert again.inputs == model.inputs
    data = frames(5)
    np.testing.assert_allclose(again.predict(data, 255.0), model.predict(data, 255.0), rtol=1e-5)


def test_integers_alone_keep_their_lattice(made, tmp_path):
    """Integers in all inputs stay integers, and are divided when they are used."""
    place, _ = made
    rng = np.random.default_rng(1)
    data = {
        name: rng.integers(0, 200, (32, *shape))
        for name, shape in zip(("image", "vector", "y_2"), SHAPES.values(), strict=True)
    }
    model = pvq_hw.load_model(place / "m.onnx")
    joined = join_inputs(model.inputs, data)
    assert joined.dtype.kind == "i"
    network = pvq_hw.quantize(
        model, calibration=Data(joined, None, 100.0), quantizer="plain", ratio=1, input_scale=100.0
    )
    assert {layer.output.scale for layer in network.layers[:3]} == {0.01}
    assert np.array_equal(network.quantize_input(data, 100.0)[:, 32:37], data["vector"])


def test_a_project_takes_data_of_several_inputs(made, tmp_path):
    place, _ = made
    project = Project(
        place / "m.onnx", place / "d.npz", place / "d.npz", "icebreaker", input_scale=255.0
    )
    assert "test.npz" in make_project(tmp_path / "p", project)
    assert [*np.load(tmp_path / "p" / "test.npz")] == ["y", *frames(1)]
