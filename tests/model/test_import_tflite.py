"""TensorFlow Lite files: what is imported is what the format's own runtime computes."""

import struct
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from cli_tools import run
from onnx_graphs import DATA

from pvq_hw.arith.formats import IntFormat
from pvq_hw.data.dataset import Data
from pvq_hw.errors import CheckError, InputError
from pvq_hw.model.load import load_model
from pvq_hw.model.own_graph import check_own_graph
from pvq_hw.model.tflite import flatbuffer, read
from pvq_hw.model.tflite.file import read_tflite
from pvq_hw.model.tflite.runtime import rounds_activations, run_tflite
from pvq_hw.quantizer.quantize import LayerOptions, quantize

pytest.importorskip("ai_edge_litert")

from ai_edge_litert import schema_py_generated as schema
from effort import few_calls
from tflite_files import TfliteFiles, everything, integers, packed, shared, tiny

FILES = DATA / "tflite"


def saved(tmp_path, content, name="m.tflite"):
    path = tmp_path / name
    path.write_bytes(content)
    return path


def refused(path, *texts):
    """Sees one line of InputError that contains ``texts``, soon and with little memory taken."""
    tracemalloc.start()
    try:
        with few_calls(20_000), pytest.raises(InputError) as info:
            load_model(path)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()
    message = str(info.value)
    assert all(text in message for text in texts), message
    assert message.isprintable()
    assert len(message) < 1200


def error(path, frames=100, seed=0):
    """The largest difference to the runtime, as a part of the range of its outputs."""
    model = load_model(path)
    x = np.random.default_rng(seed).standard_normal((frames, *model.input_shape))
    expected = run_tflite(path, len(model.dropped), x)
    return np.abs(model.predict(x) - expected).max() / np.ptp(expected)


def test_every_operator_computes_what_the_runtime_does(tmp_path):
    path = saved(tmp_path, everything())
    model = load_model(path)
    assert (model.name, model.input_shape, model.dropped) == ("m", (6, 5, 2), ("Softmax",))
    assert {n.name for n in model.nodes} >= {"a", "DepthwiseConv2D10", "a_2", "fc", "logits"}
    assert error(path) < 1e-5


def activations(kinds, scales=None):
    """A file of dense layers with each of the activations after one, perhaps in int8."""
    rng = np.random.default_rng(0)
    f = TfliteFiles()

    def grow(name, place):
        if scales is None:
            return f.tensor(name, (1, 8))
        scale, zero = scales[place]
        return f.tensor(name, (1, 8), "int8", scale=[scale], zero=zero)

    x = y = grow("x", 0)
    for i, (kind, options, fields) in enumerate(kinds):
        if scales is None:
            inputs = [y, f.constant(rng.standard_normal((8, 8)) / 2), -1]
        else:
            weight = f.tensor("w", (8, 8), "int8", rng.integers(-127, 128, (8, 8)), [0.006])
            bias = f.tensor("b", (8,), "int32", np.zeros(8), [0.006 * scales[2 * i][0]])
            inputs = [y, weight, bias]
        y = f.operator("FULLY_CONNECTED", inputs, grow(f"fc{i}", 2 * i + 1),
                       "FullyConnectedOptions")  # fmt: skip
        y = f.operator(kind, [y], grow(f"act{i}", 2 * i + 2), options, **fields)
    return f.bytes(x, y)


def test_activations_compute_what_the_runtime_does(tmp_path):
    path = saved(tmp_path, activations([
        ("LEAKY_RELU", "LeakyReluOptions", {"alpha": 0.2}), ("TANH", "", {}), ("LOGISTIC", "", {}),
        ("HARD_SWISH", "HardSwishOptions", {}), ("ELU", "", {}),
        ("GELU", "GeluOptions", {"approximate": True}), ("RELU_N1_TO_1", "", {}),
    ]))  # fmt: skip
    model = load_model(path)
    assert model.dropped == ()
    assert error(path) < 1e-5


def test_int8_activations_are_the_files_tables(tmp_path):
    x = np.random.default_rng(1).standard_normal((300, 8))
    scales = [(0.021, 3), (0.0271, 11), (1 / 128, 0), (0.0103, -2), (1 / 256, -128)]
    path = saved(tmp_path, activations([("TANH", "", {}), ("LOGISTIC", "", {})], scales))
    network, steps = off(path, x)
    assert [layer.kind for layer in network.layers] == ["dense", "table"] * 2
    assert (steps == 0).mean() > 0.98
    assert steps.max() <= 1
    # The runtime multiplies by few bits here.
    leaky = [("LEAKY_RELU", "LeakyReluOptions", {"alpha": 0.1})]
    path = saved(tmp_path, activations(leaky, [(0.021, 3), (0.031, -9), (0.029, 4)]))
    assert off(path, x)[1].max() <= 1


def test_several_outputs_are_parts_of_one_stream(tmp_path):
    path = saved(tmp_path, everything(several=True))
    model = load_model(path)
    assert [(o.name, o.shape, o.start, o.dropped) for o in model.outputs] == [
        ("classes", (3,), 0, ("Softmax",)), ("sum", (3, 3, 8), 3, ()), ("logits", (3,), 0, ()),
    ]  # fmt: skip
    x = np.random.default_rng(1).standard_normal((40, 60))
    found = check_own_graph(path, model, Data(x))
    assert (found.runtime, found.frames) == ("ai-edge-litert", 32)
    assert found.error < 1e-5
    turned = replace(model, outputs=(*model.outputs[:2], replace(model.outputs[2], start=1)))
    with pytest.raises(CheckError, match="the imported model differs by"):
        check_own_graph(path, turned, Data(x))


def test_file_is_known_by_its_bytes_and_compared_with_its_runtime(tmp_path):
    path = saved(tmp_path, everything(), "net.bin")
    model = load_model(path)
    data = Data(np.random.default_rng(1).standard_normal((40, 60)))
    found = check_own_graph(path, model, data)
    assert (found.runtime, found.frames) == ("ai-edge-litert", 32)
    assert found.error < 1e-5
    other = load_model(saved(tmp_path, everything(seed=1)))
    with pytest.raises(CheckError, match="the imported model differs by"):
        check_own_graph(path, other, data)


def _exact(content):
    """A file with its 8-bit weights as the floats that they stand for."""
    model = schema.ModelT.InitFromPackedBuf(content)
    for tensor in model.subgraphs[0].tensors:
        buffer = model.buffers[tensor.buffer]
        if tensor.type == 9 and buffer.data is not None:
            scale = tensor.quantization.scale.astype(np.float32).reshape(-1)[0]
            values = buffer.data.view(np.int8).astype(np.float32) * scale
            buffer.data, tensor.type, tensor.quantization = values.view(np.uint8), 0, None
    return packed(model)


@pytest.mark.parametrize("name", ["ad01_fp32", "kws_float32", "vww_96_float"])
def test_real_files_compute_what_the_runtime_does(tmp_path, name):
    path = FILES / f"{name}.tflite"
    if not path.exists():
        pytest.skip("no data files here")
    frames = 100
    if name == "kws_float32":
        # The runtime rounds this file's activations by itself: the values are compared without.
        assert rounds_activations(read_tflite(path))
        data = Data(np.random.default_rng(0).standard_normal((32, 490)))
        found = check_own_graph(path, load_model(path), data)
        assert "which rounds activations here" in found.runtime
        assert 1e-3 < found.error < 0.05
        path = saved(tmp_path, _exact(path.read_bytes()))
    if name == "vww_96_float":
        frames = 10  # of 28,000 values
    assert error(path, frames) < 1e-4


def test_file_becomes_a_circuit_that_computes_its_integers(tmp_path):
    path = saved(tmp_path, tiny())
    x = np.random.default_rng(2).standard_normal((20, 4, 3, 1))
    np.savez(tmp_path / "x.npz", x=x)
    out = tmp_path / "out"
    made = run("compile", path, "--target", "icebreaker", "--ratio", "1", "--quantizer", "plain",
               "--calibrate", tmp_path / "x.npz", "-o", out, "--json")  # fmt: skip
    assert made.code == 0, made.err
    assert made.json["model_file"]["runtime"] == "ai-edge-litert"
    done = run("simulate", out, "--data", tmp_path / "x.npz", "--count", "2", "--simulator",
               "amaranth", "--json").json  # fmt: skip
    assert (done["frames"], done["mismatches"]) == (2, 0)
    assert run("verify", out, "--model", path, "--data", tmp_path / "x.npz").code == 0


def off(path, x):
    """How many output steps the golden model is off the runtime."""
    model = load_model(path)
    names = [node.name for node in model.nodes if hasattr(node, "weight")]
    plain = {name: LayerOptions(encoding="int8") for name in names}
    network = quantize(model, quantizer="given", layers=plain)
    expected = run_tflite(path, len(model.dropped), x)
    golden = network.predict(network.quantize_input(x)).reshape(len(x), -1)
    return network, np.rint(np.abs(golden * network.output.scale - expected) / network.output.scale)


def test_int8_files_keep_their_integers(tmp_path):
    path = saved(tmp_path, integers())
    x = np.random.default_rng(3).standard_normal((300, 5, 4, 3))
    network, steps = off(path, x)
    assert (steps <= 1).mean() >= 0.99
    assert steps.max() <= 2
    assert (steps == 0).mean() > 0.95
    formats = {layer.name: layer.output.format for layer in network.layers}
    assert formats["deep"] == IntFormat(8, False)
    assert formats["fc"] == IntFormat(9, True, -135, 120)
    found = check_own_graph(path, load_model(path), Data(x))
    assert found.runtime == "ai-edge-litert"
    assert found.error < 0.02


@pytest.mark.parametrize("name", ["kws_int8", "vww_96_int8"])
def test_real_int8_files_keep_their_integers(name):
    path = FILES / f"{name}.tflite"
    if not path.exists():
        pytest.skip("no data files here")
    rng = np.random.default_rng(0)
    if name == "kws_int8":
        x = np.load(DATA / "kws" / "kws_test.npz")["x"][:100]
    else:
        x = rng.random((60, 12, 12, 3)).repeat(8, 1).repeat(8, 2)
    _, steps = off(path, x)
    assert (steps <= 1).mean() >= 0.99
    assert steps.max() <= 2


# -- files that nobody vouches for --------------------------------------------------------------


def small(**fields):
    """A file of one layer: 4 activations, 3 outputs."""
    f = TfliteFiles()
    x = f.tensor("x", (1, 4))
    w = f.tensor("w", fields.pop("shape", (3, 4)), values=np.ones(12), **fields.pop("w", {}))
    y = f.tensor("y", (1, 3))
    f.operator("FULLY_CONNECTED", [x, w, -1], y, "FullyConnectedOptions", **fields)
    return f, x, y


def test_the_file_that_the_tests_below_break_is_good(tmp_path):
    f, x, y = small()
    assert load_model(saved(tmp_path, f.bytes(x, y))).nodes[0].weight.tolist() == [[1.0] * 4] * 3


def test_broken_files_are_refused_in_one_line(tmp_path):
    f, x, y = small()
    good = f.bytes(x, y)
    whole = "must be a whole TensorFlow Lite file: "
    for content, text in (
        (good[:20], whole),
        (good[:8], whole),
        (good[:4] + b"TFL3", whole),
        (struct.pack("<I", 1 << 31) + good[4:], f"{whole}4 bytes at 2,147,483,648 are beyond"),
        (b"\xff\xff\xff\xffTFL3", whole),
    ):
        refused(saved(tmp_path, content), text)
    for shape, text in (
        ((3, 4, 1 << 30), "must hold 51,539,607,552 bytes for its shape"),
        ((1 << 30, 1 << 30), "must hold"),
        ((3, -4), "must have at most 8 dimensions of 1 or more, not (3, -4)"),
        ((0, 4), "dimensions of 1 or more"),
        ((1,) * 9, "at most 8 dimensions"),
        ((12,), "must have weights of 2 dimensions, not 1"),
        ((4, 3), "must have weights for one vector per frame, 3, not (4,)"),
    ):
        f, x, y = small(shape=shape)
        refused(saved(tmp_path, f.bytes(x, y)), text)
    f, x, y = small(fusedActivationFunction=5)
    refused(saved(tmp_path, f.bytes(x, y)), "node 'y' ('FullyConnected')", "not number 5")
    f, x, y = small(weightsFormat=1)
    refused(saved(tmp_path, f.bytes(x, y)), "must have weights in the default format")


def test_broken_graphs_are_refused_by_name(tmp_path):
    f, x, y = small()
    z = f.operator("SIN", [y], f.tensor("z\n\x1b", (1, 3)))
    text = "node 'z\\n\\x1b' has the operation 'operator 66'"
    refused(saved(tmp_path, f.bytes(x, z)), text, "Relu, ")
    for inputs, output, text in (
        ([3], 2, "must give a tensor that nothing else gives"),
        ([4], 4, "reads 'z', which nothing before it gives"),
        ([1], 4, "must read a computed tensor"),
        ([77], 4, "must name tensors from 0 to 4"),
        ([], 4, "must read a computed tensor"),
    ):
        f, x, y = small()
        f.tensor("v", (1, 3))
        z = f.tensor("z", (1, 3))
        f.operator("RELU", inputs, output)
        refused(saved(tmp_path, f.bytes(x, z)), text)
    f, x, y = small()
    f.tensor("v", (1, 3))
    refused(saved(tmp_path, f.bytes(3, y)), "reads 'x', which nothing before it gives")
    f, x, y = small()
    refused(saved(tmp_path, f.bytes(x, 1)), "must have an output that is computed")
    f = TfliteFiles()
    refused(saved(tmp_path, f.bytes(0, 0)), "has no operators")
    f, x, y = small()
    f.operators[0].opcodeIndex = 9
    refused(saved(tmp_path, f.bytes(x, y)), "must have operator codes below 1, not 9")
    f, x, y = small()
    f.tensors[1].buffer = 12
    refused(saved(tmp_path, f.bytes(x, y)), "must have a buffer below 2, not 12")


def test_one_buffer_read_many_times_is_not_copied_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(read, "WEIGHTS_LIMIT", 1 << 21)
    f = TfliteFiles()
    x = y = f.tensor("x", (1, 512))
    w = f.tensor("w", (512, 512), "int8", np.zeros(1 << 18), scale=[1.0])
    for i in range(10):
        copy = f.tensor(f"w{i}", (512, 512), "int8", scale=[1.0])
        f.tensors[copy].buffer = f.tensors[w].buffer
        y = f.operator("FULLY_CONNECTED", [y, copy, -1], f.tensor(f"y{i}", (1, 512)),
                       "FullyConnectedOptions")  # fmt: skip
    path = saved(tmp_path, f.bytes(x, y))
    with pytest.raises(InputError, match="must have at most 2,097,152 weights"):
        load_model(path)


@pytest.mark.parametrize(
    "sizes", [{"name": 1 << 20}, {"scales": 1 << 20}, {"inputs": 20_000, "operators": 2_000}]
)
def test_what_tables_share_is_not_read_without_end(tmp_path, monkeypatch, sizes):
    """Files of 0.2 to 4 MB, which took gigabytes or minutes."""
    monkeypatch.setattr(flatbuffer, "_FREE", 0)
    path = saved(tmp_path, shared(**sizes))
    shared_too_often = "its tables share names, scales or indices far too often"
    with few_calls(10_000_000), pytest.raises(InputError, match=shared_too_often):
        load_model(path)


def test_nan_that_signals_is_refused_without_a_warning(tmp_path):
    f = TfliteFiles()
    weight = np.full((3, 4), 0x7FA00001, dtype=np.uint32).view(np.float32)
    x = f.tensor("x", (1, 4))
    y = f.operator("FULLY_CONNECTED", [x, f.constant(weight), -1], f.tensor("y", (1, 3)),
                   "FullyConnectedOptions")  # fmt: skip
    refused(saved(tmp_path, f.bytes(x, y)), "NaN")


def test_a_constant_read_many_times_does_not_take_long(tmp_path, monkeypatch):
    monkeypatch.setattr(read, "WEIGHTS_LIMIT", 1 << 10)
    f = TfliteFiles()
    x = y = f.tensor("x", (1, 64))
    axes = f.constant(np.zeros(1 << 10, dtype=np.int32))
    for i in range(6):
        y = f.operator("MEAN", [y, axes], f.tensor(f"y{i}", (1, 64)), "ReducerOptions",
                       keepDims=True)  # fmt: skip
    refused(saved(tmp_path, f.bytes(x, y)), "must have at most 1,024 weights in all")


@pytest.mark.parametrize("make", [everything, integers])
def test_flipped_bytes_give_a_model_or_one_line(tmp_path, make):
    good = make()
    rng = np.random.default_rng(0)
    opened = 0
    for _ in range(200):
        content = bytearray(good)
        for _ in range(rng.integers(1, 4)):
            content[rng.integers(0, len(good))] = rng.integers(0, 256)
        path = saved(tmp_path, bytes(content))
        try:
            load_model(path)
            opened += 1
        except InputError as wrong:
            assert str(wrong).isprintable()  # noqa: PT017
            assert len(str(wrong)) < 1200  # noqa: PT017
    assert 10 < opened < 190


def test_shortened_files_give_one_line(tmp_path):
    good = everything()
    for length in range(8, len(good), 101):
        try:
            load_model(saved(tmp_path, good[:length]))
        except InputError as wrong:
            assert str(wrong).isprintable()  # noqa: PT017
